//! An account moves from one instance to another while the bus is away, with what is parked, what was seen and where its pollers
//! stand: nothing is lost, nothing doubled, order holds, and the instance that it left refuses it.

#[expect(dead_code, reason = "shared with the tests of the promises")]
#[path = "support/bridge.rs"]
mod bridge;
#[expect(dead_code, reason = "shared with the tests of the buses")]
#[path = "support/brokers.rs"]
mod brokers;
#[path = "support/checker.rs"]
mod checker;
#[expect(dead_code, reason = "shared with the tests of the promises")]
#[path = "support/fleet.rs"]
mod fleet;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use fleetbus::event::pb;
use prost::Message as _;
use serde_json::{Value, json};

use bridge::{Bridge, TOKEN, configure};
use brokers::{Guard, Nats, unique};
use fleet::{client, flat, imei, start};

const PATIENCE: Duration = Duration::from_secs(90);
const VEHICLES: usize = 4;

fn accounts(ids: &[&str]) -> String {
    let one = |id: &&str| {
        format!("  - id: {id}\n    provider: linxup\n    webhook: {{ token: {{ env: TEST_TOKEN }} }}\n")
    };
    format!("accounts:\n{}", ids.iter().map(one).collect::<String>())
}

fn configured(dir: &Path, nats: &Nats, stream: &str, ids: &[&str]) -> std::path::PathBuf {
    let bus = format!(
        "bus: {{ nats: {{ url: \"{}\", subject: \"{stream}.{{type}}.{{account}}.{{subject}}\", stream: \"{stream}\", create: true }} }}",
        nats.url
    );
    configure(dir, &bus, &accounts(ids), "delivery: { publish_deadline: 500ms, drain_delay: 0s }")
}

/// One position of every vehicle for each step: what was answered.
async fn push(bridge: &Bridge, account: &str, from: i64, steps: std::ops::Range<i64>) -> Value {
    let client = client();
    let mut sums = BTreeMap::from([("delivered", 0), ("parked", 0), ("duplicates", 0)]);
    for step in steps {
        let bodies: Vec<Value> = (0..VEHICLES).map(|vehicle| flat(vehicle, from + step * 1_000)).collect();
        let url = format!("{}/webhooks/{account}", bridge.webhook);
        let answer = client.post(url).bearer_auth(TOKEN).json(&bodies).send().await.unwrap();
        assert_eq!(answer.status(), 201);
        let answer: Value = answer.json().await.unwrap();
        for (name, sum) in &mut sums {
            *sum += answer[*name].as_u64().unwrap();
        }
    }
    json!(sums)
}

fn account(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fleetbus")).arg("account").args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

async fn drained(bridge: &Bridge) {
    let done = async {
        loop {
            let url = format!("{}/metrics", bridge.admin);
            let page = client().get(url).send().await.unwrap().text().await.unwrap();
            if page.lines().any(|line| line == "fleetbus_events_behind 0.0") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, done).await.expect("drained in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_moves_with_all_that_is_its_and_nothing_is_lost_or_doubled() {
    let (nats, stream, from) = (Nats::start(Guard::Open, ""), unique("moved"), start());
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (old_data, new_data) = (old.path().join("data"), new.path().join("data"));
    let file = old.path().join("acme.fleetbus");
    let (file, old_data, new_data) =
        (file.to_str().unwrap(), old_data.to_str().unwrap(), new_data.to_str().unwrap());
    let each = VEHICLES as u64;

    let both = configured(old.path(), &nats, &stream, &["acme", "zeta"]);
    let mut bridge = Bridge::start(&both);
    bridge.wait_for_log("bus.checked", PATIENCE);
    let steps = 10;
    push(&bridge, "acme", from, 0..steps).await;
    push(&bridge, "zeta", from, 0..steps).await;
    drained(&bridge).await;
    nats.kill9();
    let sums = push(&bridge, "acme", from, steps..2 * steps).await;
    assert_eq!(sums["delivered"], 0, "{sums}");
    let sums = push(&bridge, "zeta", from, steps..2 * steps).await;
    assert_eq!(sums["parked"], each * 10);
    let raw = client().post(format!("{}/webhooks/acme", bridge.webhook)).bearer_auth(TOKEN).body("{");
    assert_eq!(raw.send().await.unwrap().status(), 400);
    assert!(bridge.stop().success());

    let output = account(&["export", "nobody", "--data-dir", old_data, "--to", file]);
    assert_eq!(output.status.code(), Some(64), "{}", said(&output));
    let output = account(&["export", "acme", "--data-dir", old_data, "--to", file]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains(&format!("acme: {} parked messages", each * 10 + 1)), "{}", said(&output));
    let output = account(&["export", "acme", "--data-dir", old_data, "--to", &format!("{file}.2")]);
    assert_eq!(output.status.code(), Some(64), "it has left: {}", said(&output));

    // The old one refuses it, and goes on with the other.
    let refused = Command::new(env!("CARGO_BIN_EXE_fleetbus"))
        .args(["run", "--config"])
        .arg(&both)
        .env("TEST_TOKEN", TOKEN)
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(64), "{}", said(&refused));
    assert!(said(&refused).contains("account acme was moved to another instance"), "{}", said(&refused));

    let nowhere = new.path().join("nowhere");
    let output = account(&["import", "/no/such/file", "--data-dir", nowhere.to_str().unwrap()]);
    assert_eq!((output.status.code(), nowhere.exists()), (Some(66), false), "{}", said(&output));
    let junk = new.path().join("junk");
    std::fs::create_dir(&junk).unwrap();
    std::fs::write(junk.join("notes.txt"), "").unwrap();
    let output = account(&["import", file, "--data-dir", junk.to_str().unwrap()]);
    assert_eq!(
        (output.status.code(), junk.join("store.db").exists()),
        (Some(66), false),
        "{}",
        said(&output)
    );
    let output = account(&["import", file, "--data-dir", new_data]);
    assert!(output.status.success() && said(&output).contains("a new data_dir"), "{}", said(&output));
    let output = account(&["import", file, "--data-dir", new_data]);
    assert_eq!(output.status.code(), Some(64), "twice: {}", said(&output));
    let output = account(&["import", both.to_str().unwrap(), "--data-dir", new_data]);
    assert_eq!(output.status.code(), Some(65), "{}", said(&output));

    let left = Bridge::start(&configured(old.path(), &nats, &stream, &["zeta"]));
    let right = Bridge::start(&configured(new.path(), &nats, &stream, &["acme"]));
    nats.restart();
    nats.wait();
    // What was seen there is known here: the sender's repetition, and what goes on.
    let sums = push(&right, "acme", from, 0..2 * steps).await;
    assert_eq!(sums["duplicates"], each * 20, "{sums}");
    push(&right, "acme", from, 2 * steps..3 * steps).await;
    push(&left, "zeta", from, 0..3 * steps).await;
    drained(&right).await;
    drained(&left).await;
    let page = client().get(format!("{}/v1/parked", right.admin)).send().await.unwrap().text().await.unwrap();
    assert!(page.contains("not-json"), "{page}");
    assert!(left.stop().success() && right.stop().success());

    let mut seen: BTreeMap<(String, String), Vec<i64>> = BTreeMap::new();
    for message in nats.read(&stream).await {
        let event = pb::FleetEvent::decode(&*message.payload).unwrap();
        let at = event.occur_time.unwrap().seconds;
        seen.entry((event.origin.unwrap().account, event.subject)).or_default().push(at);
    }
    let wanted: Vec<i64> = (0..3 * steps).map(|step| from / 1_000 + step).collect();
    assert_eq!(seen.len(), 2 * VEHICLES);
    for name in ["acme", "zeta"] {
        for vehicle in 0..VEHICLES {
            assert_eq!(seen[&(name.to_owned(), imei(vehicle))], wanted, "{name} {vehicle}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_of_which_dedup_alone_knows_moves_too() {
    let dir = tempfile::tempdir().unwrap();
    let bus = "bus: { local: { retention: 24h, max_size: 1GiB } }";
    let bridge = Bridge::start(&configure(dir.path(), bus, &accounts(&["acme"]), ""));
    // With one id there is no pair for the directory.
    let mut body = flat(1, start());
    body.as_object_mut().unwrap().remove("deviceSerialNumber");
    let url = format!("{}/webhooks/acme", bridge.webhook);
    assert_eq!(client().post(url).bearer_auth(TOKEN).json(&body).send().await.unwrap().status(), 201);
    assert!(bridge.stop().success());
    let (data, file) = (dir.path().join("data"), dir.path().join("acme.fleetbus"));
    let (data, file) = (data.to_str().unwrap(), file.to_str().unwrap());
    let output = account(&["export", "nobody", "--data-dir", data, "--to", file]);
    assert_eq!(output.status.code(), Some(64), "{}", said(&output));
    let output = account(&["export", "acme", "--data-dir", data, "--to", file]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("acme: 0 parked messages, 0 entries, 1 known ids"), "{}", said(&output));
}
