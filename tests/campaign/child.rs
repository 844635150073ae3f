//! The bridge as a child process on ports that stay the same, started with a failpoint, a planted bug or a clock that can be
//! stepped; killed, stopped and asked. What each one logs goes to a file of its own.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::brokers::USER;
use super::facts::Account;

/// The token of every account.
pub const TOKEN: &str = "a-token-of-the-tests";
/// On a busy machine it is up, or has stopped, by then.
const PATIENCE: Duration = Duration::from_secs(90);

/// Where a bridge lives: its folder, its ports, its numbers.
pub struct Home {
    dir: PathBuf,
    pub webhook: String,
    pub admin: String,
    bug: Option<&'static str>,
    client: reqwest::Client,
    started: u32,
    child: Option<Child>,
    /// How the last one ended by itself.
    ended: Option<ExitStatus>,
}

/// A port below those that the system hands out, so that nobody takes it while the bridge is down.
fn quiet_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let offset = NEXT.fetch_add(1, Ordering::Relaxed);
    let first = 18_000 + (std::process::id() * 37 + offset * 503) % 12_000;
    (0..500)
        .filter_map(|step| u16::try_from(first + step).ok())
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("a port that nobody listens on")
}

impl Home {
    /// Writes the configuration: `rest` has the bus and the accounts.
    pub fn make(dir: PathBuf, data: &std::path::Path, rest: &str, bug: Option<&'static str>) -> Self {
        let (webhook, admin) = (quiet_port(), quiet_port());
        let text = format!(
            "listen: {{ address: \"127.0.0.1:{webhook}\" }}\nadmin: {{ address: \"127.0.0.1:{admin}\" }}\n\
             data_dir: \"{}\"\n{rest}\n",
            data.display()
        );
        std::fs::write(dir.join("fleetbus.yaml"), text).expect("a writable folder");
        let client = reqwest::Client::builder().timeout(Duration::from_secs(20)).build().expect("a client");
        let (webhook, admin) = (format!("127.0.0.1:{webhook}"), format!("http://127.0.0.1:{admin}"));
        Self { dir, webhook, admin, bug, client, started: 0, child: None, ended: None }
    }

    /// Starts it, armed with a failpoint where one is given. Does not wait.
    pub fn start(&mut self, failpoint: Option<&str>) {
        assert!(self.child.is_none(), "one at a time");
        self.started += 1;
        self.ended = None;
        let log = File::create(self.log(self.started)).expect("a writable folder");
        let mut command = Command::new(env!("CARGO_BIN_EXE_fleetbus"));
        command
            .args(["run", "--config"])
            .arg(self.dir.join("fleetbus.yaml"))
            .env("TEST_TOKEN", TOKEN)
            .env("CAMPAIGN_PASSWORD", USER.1)
            .env("FLEETBUS_CLOCK", self.dir.join("clock"))
            // What one poll leaves out the next one would have, and nothing would be missed.
            .env("FLEETBUS_OVERLAP_MS", "1000")
            .stdout(Stdio::null())
            .stderr(log);
        if let Some(failpoint) = failpoint {
            command.env("FLEETBUS_FAULT", failpoint);
        }
        if let Some(bug) = self.bug {
            command.env("FLEETBUS_BUG", bug);
        }
        self.child = Some(command.spawn().expect("the built binary"));
    }

    fn log(&self, number: u32) -> PathBuf {
        self.dir.join(format!("bridge-{number}.log"))
    }

    /// Waits until it listens. False where it died on the way.
    pub async fn is_up(&mut self) -> bool {
        let begun = Instant::now();
        loop {
            if self.has_died() {
                return false;
            }
            if tokio::net::TcpStream::connect(&self.webhook).await.is_ok() && self.metrics().await.is_some() {
                return true;
            }
            assert!(begun.elapsed() < PATIENCE, "it does not come up:\n{}", self.last_words());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whether it has ended by itself.
    pub fn has_died(&mut self) -> bool {
        let Some(child) = &mut self.child else { return true };
        let Some(status) = child.try_wait().expect("a child") else { return false };
        (self.child, self.ended) = (None, Some(status));
        true
    }

    /// Whether it died as failpoints have it die, and of nothing else.
    pub fn has_aborted(&mut self) -> bool {
        self.has_died() && self.ended.is_some_and(|status| status.signal() == Some(Signal::SIGABRT as i32))
    }

    /// kill -9. How it had ended by itself before, where it had.
    pub fn kill9(&mut self) -> Option<ExitStatus> {
        let mut child = self.child.take()?;
        let ended = child.try_wait().expect("a child");
        if ended.is_none() {
            child.kill().expect("it runs");
            child.wait().expect("a child");
        }
        ended
    }

    /// The polled accounts are asked for nothing more.
    pub async fn pause_polls(&self) {
        for account in Account::POLLED {
            let url = format!("{}/v1/accounts/{}/pause", self.admin, account.word());
            let answer = self.client.post(url).header("content-type", "application/json").send().await;
            assert!(answer.expect("an answer").status().is_success());
        }
    }

    pub fn terminate(&self) {
        let child = self.child.as_ref().expect("it runs");
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).expect("it runs");
    }

    /// Waits until it has ended.
    pub async fn ended(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            let child = self.child.as_mut().expect("it runs");
            if let Some(status) = child.try_wait().expect("a child") {
                self.child = None;
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "it goes on:\n{}", self.last_words());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Steps its clock: by how much it is wrong from now on.
    pub fn step_clock(&self, error_ms: i64) {
        // Renamed into place: it is never read half-written.
        let (new, file) = (self.dir.join("clock.new"), self.dir.join("clock"));
        std::fs::write(&new, error_ms.to_string()).expect("a writable folder");
        std::fs::rename(new, file).expect("a writable folder");
    }

    /// Its metrics; none where it does not answer.
    pub async fn metrics(&self) -> Option<Metrics> {
        let answer = self.client.get(format!("{}/metrics", self.admin)).send().await.ok()?;
        Some(Metrics(answer.text().await.ok()?))
    }

    /// The last lines of the last log.
    pub fn last_words(&self) -> String {
        let text = std::fs::read_to_string(self.log(self.started)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Lines of all logs that no fault explains: panics.
    pub fn panics(&self) -> Vec<String> {
        let logs = (1..=self.started).filter_map(|number| std::fs::read_to_string(self.log(number)).ok());
        logs.flat_map(|text| {
            text.lines().filter(|l| l.contains("panicked at")).map(str::to_owned).collect::<Vec<_>>()
        })
        .collect()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// One scrape.
#[derive(Debug, Clone)]
pub struct Metrics(String);

impl Metrics {
    /// The sum of all series of a metric whose labels contain all of these.
    pub fn sum(&self, name: &str, labels: &[&str]) -> u64 {
        let value = |line: &str| {
            let rest = line.strip_prefix("fleetbus_")?.strip_prefix(name)?;
            let (of, value) = rest.rsplit_once(' ')?;
            let whole = of.is_empty() || of.starts_with('{');
            (whole && labels.iter().all(|label| of.contains(label))).then(|| value.parse::<f64>().ok())?
        };
        self.0.lines().filter_map(value).sum::<f64>() as u64
    }

    /// Each polled account has been asked for something a few times.
    pub fn has_polled(&self) -> bool {
        let polls = |account: Account| {
            let labels = [format!("account=\"{}\"", account.word()), "succeeded".to_owned()];
            self.sum("feed_polls_total", &[&labels[0], &labels[1]])
        };
        polls(Account::PolledV2) >= 4 && polls(Account::PolledV3) >= 2
    }

    /// Nothing of what is sent waits, as with [`is_quiet`](Self::is_quiet), and nothing of what is polled is on its way.
    pub fn is_still(&self) -> bool {
        self.is_quiet() && self.sum("events_in_flight", &[]) == 0
    }

    /// Nothing that was sent is on its way, and nothing waits for the bus.
    pub fn is_quiet(&self) -> bool {
        let waiting = ["reason=\"unavailable\"", "reason=\"refused\""];
        self.sum("events_in_flight", &["acme"]) == 0
            && self.sum("events_behind", &[]) == 0
            && waiting.iter().all(|reason| self.sum("parked_messages", &[reason]) == 0)
    }

    /// Accounts and types whose counters do not add up, now that nothing is on its way: events without a fate, or fates without an
    /// event.
    pub fn not_adding_up(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for account in Account::ALL.map(Account::word) {
            for topic in super::facts::TOPICS {
                let labels = [format!("account=\"{account}\""), format!("type=\"{topic}\"")];
                let of = |name: &str| self.sum(name, &[&labels[0], &labels[1]]);
                let fates = ["delivered_total", "parked_total", "duplicate_total", "rejected_total"];
                let fates: u64 = fates.iter().map(|fate| of(&format!("events_{fate}"))).sum();
                let received = of("events_received_total");
                if fates != received {
                    wrong.push(format!("{account} {topic}: {received} received, {fates} accounted for"));
                }
            }
        }
        wrong
    }
}
