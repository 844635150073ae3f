//! Bridges whose bus is away, the command line, and what is in a store.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fleetbus::event::pb;
use prost::Message as _;
use serde_json::Value;

use crate::bridge::{Bridge, TOKEN, acme, configure};
use crate::checker::{Fact, Seen};
use crate::fleet::{Ledger, client, drive, flat, start};
use crate::metrics::metric;

/// A configuration whose bus is never there.
pub(crate) fn away(dir: &Path, rest: &str) -> PathBuf {
    let bus = "bus: { kafka: { brokers: \"127.0.0.1:1\" } }";
    let quick = "delivery: { publish_deadline: 50ms, drain_delay: 0s }";
    configure(dir, bus, acme(), &format!("{quick}\n{rest}"))
}

/// A configuration whose bus is the log in `data_dir`.
pub(crate) fn local(dir: &Path, accounts: &str, rest: &str) -> PathBuf {
    let bus = "bus: { local: { retention: 24h, max_size: 1GiB } }";
    configure(dir, bus, accounts, &format!("delivery: {{ drain_delay: 0s }}\n{rest}"))
}

/// An event of the local bus.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Published {
    pub(crate) topic: String,
    pub(crate) account: String,
    pub(crate) subject: String,
    pub(crate) id: String,
}

/// The whole local bus, oldest first.
pub(crate) async fn published(bridge: &Bridge) -> Vec<Published> {
    let url = format!("{}/v1/events?after=0&follow=false", bridge.admin);
    let text = client().get(url).send().await.expect("an answer").text().await.expect("lines");
    let event = |line: &str| {
        let row: Value = serde_json::from_str(line).expect("JSON");
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        Published {
            topic: text(&row["topic"]),
            account: text(&row["event"]["origin"]["account"]),
            subject: text(&row["event"]["subject"]),
            id: text(&row["event"]["id"]),
        }
    };
    text.lines().map(event).collect()
}

/// Waits until so many events are on the local bus, and nothing waits for it.
pub(crate) async fn drained(bridge: &Bridge, events: usize) -> Vec<Published> {
    let begun = Instant::now();
    loop {
        let seen = published(bridge).await;
        if seen.len() >= events && metric(&bridge.admin, "fleetbus_events_behind").await == 0 {
            return seen;
        }
        let log = bridge.log_text();
        assert!(begun.elapsed() < Duration::from_secs(120), "{} of {events}; log:\n{log}", seen.len());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The command line, with the token that configurations of the tests name.
pub(crate) fn fleetbus(words: &[&str]) -> Output {
    let binary = env!("CARGO_BIN_EXE_fleetbus");
    Command::new(binary).args(words).env("TEST_TOKEN", TOKEN).output().expect("the built binary")
}

/// A store's rows.
pub(crate) fn export(data: &Path) -> Vec<Value> {
    let output = fleetbus(&["store", "export", "--data-dir", &data.display().to_string()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// What a consumer would read of it.
pub(crate) fn seen(rows: &[Value]) -> Vec<Seen> {
    let decode = |text: &str| data_encoding::BASE64.decode(text.as_bytes()).expect("base64");
    let events = rows.iter().map(|row| decode(row["payload"].as_str().expect("an event")));
    let events = events.map(|payload| pb::FleetEvent::decode(payload.as_slice()).expect("a FleetEvent"));
    let seen = events.map(|event| {
        let at = event.occur_time.map(|time| time.seconds * 1_000 + i64::from(time.nanos) / 1_000_000);
        Seen { fact: Fact { subject: event.subject, at: at.expect("a time") }, id: event.id }
    });
    seen.collect()
}

/// A fleet that pushes in the background, and what it was answered.
pub(crate) struct Driving {
    address: Arc<Mutex<String>>,
    pub(crate) ledger: Arc<Mutex<Ledger>>,
    fleet: tokio::task::JoinSet<()>,
}

impl Driving {
    pub(crate) fn begin(bridge: &Bridge, vehicles: usize, positions: usize) -> Self {
        Self::begin_at(bridge, vehicles, positions, start())
    }

    /// The same facts as others that began then.
    pub(crate) fn begin_at(bridge: &Bridge, vehicles: usize, positions: usize, from: i64) -> Self {
        let address = Arc::new(Mutex::new(bridge.webhook.clone()));
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let mut fleet = tokio::task::JoinSet::new();
        for vehicle in 0..vehicles {
            let (address, ledger) = (Arc::clone(&address), Arc::clone(&ledger));
            fleet.spawn(drive(client(), address, ledger, vehicle, positions, from));
        }
        Self { address, ledger, fleet }
    }

    pub(crate) fn moved(&self, bridge: &Bridge) {
        self.address.lock().expect("no panic").clone_from(&bridge.webhook);
    }

    pub(crate) async fn answered(&self, count: usize) {
        until("so many are answered", || self.ledger.lock().expect("no panic").answered.len() >= count).await;
    }

    pub(crate) async fn end(mut self) -> Ledger {
        while let Some(ended) = self.fleet.join_next().await {
            ended.expect("a vehicle that drives on");
        }
        std::mem::take(&mut *self.ledger.lock().expect("no panic"))
    }
}

/// Waits for a condition.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(120), "{what}: not so");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A library to be loaded before all others, made of the C file of this name here. What brings a linker for Rust brings a C compiler.
pub(crate) fn shim(dir: &Path, name: &str) -> PathBuf {
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/durability/{name}.c"));
    let library = dir.join(format!("{name}.so"));
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .arg(source)
        .arg("-ldl")
        .status();
    assert!(compiled.expect("a C compiler").success());
    library
}

/// Pushes one position; its status, 0 where there is no answer.
pub(crate) async fn push(bridge: &Bridge, vehicle: usize, at: i64) -> u16 {
    let url = format!("{}/webhooks/acme", bridge.webhook);
    let sent = client().post(url).bearer_auth(TOKEN).json(&flat(vehicle, at)).send().await;
    sent.map_or(0, |answer| answer.status().as_u16())
}

/// An operator throws away all that is parked; how many rows that was.
pub(crate) async fn discard_all(bridge: &Bridge) -> Value {
    let sent =
        client().delete(format!("{}/v1/parked?all=true", bridge.admin)).json(&serde_json::json!({})).send();
    let answer = sent.await.expect("an answer");
    let status = answer.status();
    let said: Value = answer.json().await.expect("JSON");
    assert!(status.is_success(), "{status}: {said}");
    assert!(said["discarded"].is_u64(), "{said}");
    said["discarded"].clone()
}
