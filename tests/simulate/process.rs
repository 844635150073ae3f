//! `fleetbus simulate` and `fleetbus demo` as processes: they end, whatever the target and the environment are like, say how, and
//! leave nothing behind.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Nothing here takes longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// The process, killed when dropped, and the lines that it says.
struct Process {
    child: Child,
    lines: Receiver<String>,
    said: Vec<String>,
}

impl Process {
    fn start(args: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fleetbus"));
        command.args(args).envs(environment.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the built binary");
        let stderr = child.stderr.take().expect("piped");
        Self { child, lines: read(stderr), said: Vec::new() }
    }

    /// Waits until a line has these words.
    fn says(&mut self, words: &str) {
        let begun = Instant::now();
        while !self.said.iter().any(|line| line.contains(words)) {
            let line = self.lines.recv_timeout(PATIENCE.saturating_sub(begun.elapsed()));
            self.said
                .push(line.unwrap_or_else(|_| panic!("not said: {words}; but:\n{}", self.said.join("\n"))));
        }
    }

    fn is_sent(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).expect("it runs");
    }

    /// How it ends, and all that it said.
    fn ends(mut self) -> (Option<i32>, String) {
        let begun = Instant::now();
        // What it says ends where it does.
        while let Ok(line) = self.lines.recv_timeout(PATIENCE.saturating_sub(begun.elapsed())) {
            self.said.push(line);
        }
        let said = self.said.join("\n");
        assert!(begun.elapsed() < PATIENCE, "it goes on:\n{said}");
        (self.child.wait().expect("a child").code(), said)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn read(stderr: ChildStderr) -> Receiver<String> {
    let (sink, lines) = sync_channel(1_024);
    std::thread::spawn(move || {
        BufReader::new(stderr).lines().map_while(Result::ok).try_for_each(|line| sink.send(line))
    });
    lines
}

fn simulate(more: &[&str]) -> Process {
    let args = ["simulate", "linxup", "--listen", "127.0.0.1:0"];
    Process::start(&[&args[..], more].concat(), &[])
}

/// Where nobody listens.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    format!("http://{}/webhooks/acme", listener.local_addr().expect("bound"))
}

#[test]
fn misuse_is_64_and_a_file_that_cannot_be_read_is_66() {
    for (args, expected, words) in [
        (&["--speed", "5000"][..], 64, "--speed is between"),
        (&["--to", "http://example.com/"], 64, "this machine only"),
        (&["--lose", "1001"], 64, "1001 is not in"),
        (&["--token-file", "/no/such/file"], 66, "/no/such/file cannot be read: No such file"),
    ] {
        let (code, said) = simulate(args).ends();
        assert_eq!((code, said.contains(words)), (Some(expected), true), "{args:?}: {said}");
    }
}

#[test]
fn a_target_that_does_not_answer_does_not_keep_it_from_ending() {
    let (code, said) =
        simulate(&["--to", &nobody(), "--speed", "60", "--vehicles", "2", "--seconds", "1"]).ends();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(" were not answered 2xx by 10 s after the end, 0 never sent"), "{said}");
    assert!(!said.contains("\nfleetbus: 0 were not"), "{said}");
}

#[test]
fn a_signal_ends_it_and_a_second_one_at_once() {
    let mut process = simulate(&["--to", &nobody(), "--speed", "60", "--vehicles", "2"]);
    process.says(" messages: ");
    process.is_sent(Signal::SIGTERM);
    process.says("what has happened is still sent");
    process.is_sent(Signal::SIGINT);
    let (code, said) = process.ends();
    assert_eq!((code, said.contains("interrupted again")), (Some(1), true), "{said}");
    assert!(!said.contains("were not answered"), "it did not wait: {said}");
}

#[test]
fn a_demo_adds_up_beside_a_proxy_in_any_folder_and_again_in_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("demo #x: \"y\"").display().to_string();
    // Nobody listens there, and the clients of this machine do not ask.
    let proxy = nobody();
    let names = ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"].map(|name| (name, proxy.as_str()));
    let none = ["NO_PROXY", "no_proxy"].map(|name| (name, ""));
    let args = ["demo", "--seconds", "15", "--vehicles", "2", "--admin", "127.0.0.1:0", "--data-dir", &data];
    for _ in 0..2 {
        let (code, said) = Process::start(&args, &[&names[..], &none[..]].concat()).ends();
        assert_eq!((code, said.contains("the sums add up")), (Some(0), true), "{said}");
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

#[test]
fn a_demo_that_is_told_to_end_leaves_nothing_behind_and_shows_nobody_its_token() {
    let folder = tempfile::tempdir().expect("a folder");
    let temporary = folder.path().display().to_string();
    let mut process = Process::start(&["demo", "--admin", "127.0.0.1:0"], &[("TMPDIR", &temporary)]);
    process.says("the map: ");
    let made =
        std::fs::read_dir(folder.path()).expect("readable").next().expect("a folder").expect("readable");
    assert_eq!((mode(&made.path()), mode(&made.path().join("demo-token"))), (0o700, 0o600));
    let name = made.file_name().into_string().expect("text");
    assert!(name.len() > "fleetbus-demo-".len() + 30, "it can be guessed: {name}");
    process.is_sent(Signal::SIGTERM);
    let (code, said) = process.ends();
    assert_eq!((code, said.contains("interrupted")), (Some(1), true), "{said}");
    assert!(std::fs::read_dir(folder.path()).expect("readable").next().is_none(), "{said}");
}
