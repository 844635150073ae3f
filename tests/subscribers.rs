//! A stranger's subscriber: the programs of `examples/`, built from the schema alone, read what the bridge published to a real
//! Kafka and a real NATS. `make examples` builds and runs them. What `docs/subscribe.md` shows is those files.

#[expect(dead_code, reason = "shared with the other tests of the binary")]
#[path = "support/bridge.rs"]
mod bridge;
#[expect(dead_code, reason = "shared with the tests of the buses")]
#[path = "support/brokers.rs"]
mod brokers;

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use bridge::{Bridge, TOKEN, acme, configure};
use brokers::apicurio::Apicurio;
use brokers::{Guard, shared_kafka, shared_nats, unique};

/// A subscriber has joined its group and read by then, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(90);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn example(path: &str) -> PathBuf {
    let path = root().join("examples").join(path);
    assert!(path.exists(), "{} is missing: run `make examples`", path.display());
    path
}

/// A subscriber that is running. Killed when dropped.
struct Subscriber {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Subscriber {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("a program");
        let stdout = child.stdout.take().expect("piped");
        let (sender, lines) = mpsc::sync_channel(64);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    fn print(&self, count: usize) -> HashSet<String> {
        let next = |_| self.lines.recv_timeout(PATIENCE).expect("a line in time");
        (0..count).map(next).collect()
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The program of a language for a bus.
fn program(language: &str, bus: &str) -> Command {
    match language {
        "python" => {
            let mut command = Command::new(example("python/.venv/bin/python"));
            command.arg(example(&format!("python/subscribe_{bus}.py")));
            command.env("PYTHONPATH", example("python/gen"));
            command
        }
        "go" => Command::new(example(&format!("go/bin/{bus}"))),
        "typescript" => {
            let mut command = Command::new("node");
            command.arg(example(&format!("typescript/dist/{bus}.js")));
            command
        }
        other => panic!("no subscriber in {other}"),
    }
}

/// The fix and the two breadcrumbs of one documented message.
async fn publish(bridge: &Bridge) {
    let body = std::fs::read(root().join("tests/fixtures/linxup/push-v3/position_documented.json")).unwrap();
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
    let url = format!("{}/webhooks/acme", bridge.webhook);
    let answer = client.post(url).bearer_auth(TOKEN).body(body).send().await.unwrap();
    assert_eq!(answer.status(), 201);
    let answer: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(answer["delivered"], 3, "{answer}");
}

fn expect_the_van(language: &str, printed: &HashSet<String>) {
    assert_eq!(printed.len(), 3, "{printed:?}");
    for (time, place) in [
        ("2025-12-29T12:00:00", "38.62701 -90.19941"),
        ("2025-12-29T11:59:50", "38.62655 -90.20021"),
        ("2025-12-29T11:59:40", "38.62611 -90.20104"),
    ] {
        let is = |line: &&String| {
            line.starts_with(time) && line.ends_with(&format!(" 350000000000017 Van 17 {place}"))
        };
        assert!(printed.iter().any(|line| is(&line)), "{language} did not print {time} {place}: {printed:?}");
    }
}

/// With the program of this name, and lines of the bus's own.
async fn reads_kafka(language: &str, program_name: &str, lines: &str) {
    let (kafka, dir, prefix) = (shared_kafka(), tempfile::tempdir().unwrap(), unique("fleet"));
    kafka.create(&format!("{prefix}.position"), 3, 1, &[]).await;
    let bus = format!(
        "bus: {{ kafka: {{ brokers: \"{}\", topic: \"{prefix}.{{type}}\", create: true{lines} }} }}",
        kafka.brokers
    );
    let bridge = Bridge::start(&configure(dir.path(), &bus, acme(), "delivery: { publish_deadline: 30s }"));
    publish(&bridge).await;
    let mut command = program(language, program_name);
    command.env("KAFKA_BROKERS", &kafka.brokers).env("TOPIC", format!("{prefix}.position"));
    command.env("GROUP", &prefix);
    expect_the_van(language, &Subscriber::start(command).print(3));
}

async fn reads_nats(language: &str) {
    let (nats, dir, prefix) = (shared_nats(), tempfile::tempdir().unwrap(), unique("fleet"));
    nats.create(async_nats::jetstream::stream::Config {
        name: prefix.clone(),
        subjects: vec![format!("{prefix}.>")],
        ..Default::default()
    })
    .await;
    let bus = format!(
        "bus: {{ nats: {{ url: \"{}\", subject: \"{prefix}.{{type}}.{{account}}.{{subject}}\", stream: \"{prefix}\" }} }}",
        nats.url
    );
    let bridge = Bridge::start(&configure(dir.path(), &bus, acme(), "delivery: { publish_deadline: 30s }"));
    publish(&bridge).await;
    let mut command = program(language, "nats");
    command.env("NATS_URL", &nats.url).env("STREAM", &prefix).env("SUBJECT", format!("{prefix}.position.>"));
    command.env("GROUP", &prefix);
    expect_the_van(language, &Subscriber::start(command).print(3));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs what `make examples` builds, and runs it"]
async fn a_python_program_reads_kafka() {
    reads_kafka("python", "kafka", "").await;
}

/// Confluent's own deserializer takes the frame off.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs what `make examples` builds, and runs it"]
async fn a_python_program_reads_kafka_with_a_registry() {
    let registry = Apicurio::start(Guard::Open).await;
    let lines = format!(", encoding: {{ registry: {{ url: \"{}\", register: true }} }}", registry.url);
    reads_kafka("python", "kafka_registry", &lines).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs what `make examples` builds, and runs it"]
async fn a_python_program_reads_nats() {
    reads_nats("python").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs what `make examples` builds, and runs it"]
async fn a_go_program_reads_kafka() {
    reads_kafka("go", "kafka", "").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs what `make examples` builds, and runs it"]
async fn a_go_program_reads_nats() {
    reads_nats("go").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs what `make examples` builds, and runs it"]
async fn a_typescript_program_reads_kafka() {
    reads_kafka("typescript", "kafka", "").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs what `make examples` builds, and runs it"]
async fn a_typescript_program_reads_nats() {
    reads_nats("typescript").await;
}

/// `<!-- FILE -->` stands before a block that is that file.
#[test]
fn what_the_page_shows_is_what_is_run() {
    let page = std::fs::read_to_string(root().join("docs/subscribe.md")).unwrap();
    let mut shown = Vec::new();
    for part in page.split("<!-- examples/").skip(1) {
        let (name, rest) = part.split_once(" -->\n```").unwrap();
        let (block, _) = rest.split_once('\n').unwrap().1.split_once("```").unwrap();
        let file = std::fs::read_to_string(root().join("examples").join(name)).unwrap();
        assert_eq!(block, file, "docs/subscribe.md shows another {name}");
        shown.push(name);
    }
    let wanted = [
        "python/subscribe_kafka.py",
        "python/subscribe_nats.py",
        "python/subscribe_kafka_registry.py",
        "go/kafka/main.go",
        "go/nats/main.go",
    ];
    assert_eq!(shown, wanted);
}
