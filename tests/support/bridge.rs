//! The bridge as a child process: started from a configuration, killed, stopped and asked, as an operator would. Its logs
//! are kept, so that a test that fails can show them. Ports are the system's choice; the process says which.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A running bridge. Killed when dropped.
pub struct Bridge {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    /// Where webhooks go.
    pub webhook: String,
    /// The operator's address.
    pub admin: String,
}

/// The token of every test account.
pub const TOKEN: &str = "a-token-of-the-tests";

/// The binary: the one that was built with the test, or another build of it that FLEETBUS_BINARY names.
pub fn binary() -> PathBuf {
    std::env::var_os("FLEETBUS_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_fleetbus").into(), PathBuf::from)
}

/// Writes a configuration with these parts into `dir`.
pub fn configure(dir: &Path, bus: &str, accounts: &str, rest: &str) -> PathBuf {
    let path = dir.join("fleetbus.yaml");
    let data = dir.join("data");
    let text = format!(
        "listen: {{ address: 127.0.0.1:0 }}\nadmin: {{ address: 127.0.0.1:0 }}\ndata_dir: {}\n{bus}\n{accounts}\n{rest}\n",
        data.display()
    );
    std::fs::write(&path, text).expect("a writable folder");
    path
}

/// One account `acme` with a webhook.
pub fn acme() -> &'static str {
    "accounts:\n  - id: acme\n    provider: linxup\n    webhook: { token: { env: TEST_TOKEN } }\n"
}

impl Bridge {
    /// Starts it and waits until it says where it listens.
    pub fn start(config: &Path) -> Self {
        Self::start_with(config, &[])
    }

    /// The same, with variables of its environment.
    pub fn start_with(config: &Path, environment: &[(&str, &str)]) -> Self {
        let mut child = Command::new(binary())
            .arg("run")
            .arg("--config")
            .arg(config)
            .env("TEST_TOKEN", TOKEN)
            .envs(environment.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the built binary");
        let stderr = child.stderr.take().expect("piped");
        let log = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                sink.lock().expect("no panic").push(line);
            }
        });
        let mut bridge = Self { child, log, webhook: String::new(), admin: String::new() };
        bridge.webhook = bridge.listening("webhook.listening");
        bridge.admin = bridge.listening("admin.listening");
        bridge
    }

    fn listening(&mut self, event: &str) -> String {
        let line = self.wait_for_log(event, Duration::from_secs(40));
        let line: serde_json::Value = serde_json::from_str(&line).expect("logs are JSON");
        format!("http://{}", line["address"].as_str().expect("an address"))
    }

    /// Waits for a log line with this event name.
    pub fn wait_for_log(&mut self, event: &str, patience: Duration) -> String {
        let wanted = format!("\"message\":\"{event}\"");
        let begun = Instant::now();
        loop {
            let found = self.log.lock().expect("no panic").iter().find(|l| l.contains(&wanted)).cloned();
            if let Some(line) = found {
                return line;
            }
            let ended = self.child.try_wait().expect("a child");
            assert!(
                ended.is_none() && begun.elapsed() < patience,
                "no {event} ({ended:?}); log:\n{}",
                self.log_text()
            );
            std::thread::yield_now();
            #[expect(clippy::disallowed_methods, reason = "a pause between two looks at a condition")]
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Everything that it has logged.
    pub fn log_text(&self) -> String {
        self.log.lock().expect("no panic").join("\n")
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).expect("it runs");
    }

    /// kill -9, and waits until it is gone.
    pub fn kill9(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("a child");
    }

    /// SIGTERM, and waits until it is gone.
    pub fn stop(mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.ended(Duration::from_secs(60))
    }

    /// Waits until it ends by itself.
    pub fn ended(&mut self, patience: Duration) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(begun.elapsed() < patience, "it goes on; log:\n{}", self.log_text());
            #[expect(clippy::disallowed_methods, reason = "a pause between two looks at a condition")]
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
