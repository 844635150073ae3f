//! What leaves the store undelivered is said, and forgotten by dedup, so that the poller brings it again.

use std::collections::HashSet;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::bridge::{Bridge, TOKEN, configure};
use crate::support::{away, export, until};

/// A simulated provider, which pushes and is polled. Killed when dropped.
struct Provider(Child);

impl Drop for Provider {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Provider {
    fn start(listen: &str, to: &str) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_fleetbus"))
            .args([
                "simulate",
                "linxup",
                "--vehicles",
                "3",
                "--speed",
                "60",
                "--seconds",
                "120",
                "--seed",
                "7",
            ])
            // The V3 format brings breadcrumbs, which no poll does.
            .args([
                "--format",
                "flat",
                "--listen",
                listen,
                "--to",
                &format!("{to}/webhooks/acme"),
                "--token-env",
                "TEST_TOKEN",
            ])
            .env("TEST_TOKEN", TOKEN)
            .stderr(Stdio::null())
            .spawn();
        Self(child.expect("the built binary"))
    }
}

/// Makes everything in a store eight days older: as if nobody had been there for a week.
fn grow_older(file: &Path) {
    let store = rusqlite::Connection::open(file).unwrap();
    let minutes = 8 * 24 * 60;
    store
        .execute_batch(&format!(
            "UPDATE parked SET parked_at = parked_at - {minutes} * 60000;
             UPDATE raw SET received_at = received_at - {minutes} * 60000;
             UPDATE ages SET minute = minute - {minutes};"
        ))
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_got_too_old_is_said_and_the_poller_brings_it_again_with_the_same_id() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let bridge = Bridge::start(&away(dir.path(), ""));
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let _provider = Provider::start(&port.to_string(), &bridge.webhook);
    let metrics = format!("{}/metrics", bridge.admin);
    let client = reqwest::Client::new();
    loop {
        let text = client.get(&metrics).send().await.unwrap().text().await.unwrap();
        let parked = text.lines().filter(|line| line.starts_with("fleetbus_events_parked_total{"));
        let positions =
            parked.filter(|line| line.contains("\"position\"")).find_map(|line| line.split(' ').nth(1));
        if positions.is_some_and(|count| count.parse::<u64>().unwrap() >= 30) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(bridge.stop().success());
    let ids_of = |rows: &[Value]| -> HashSet<String> {
        let positions = rows.iter().filter(|row| row["type"] == "position");
        positions.map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    };
    let rows = export(&data);
    let parked = ids_of(&rows);
    assert!(parked.len() >= 30);
    grow_older(&data.join("store.db"));

    let polled = format!(
        "accounts:\n  - id: acme\n    provider: linxup\n    poll: [{{ api: v2, base_url: \"http://{port}/ibis/rest/api/v2\", token: {{ env: TEST_TOKEN }}, feeds: {{ history: 1s }} }}]\n"
    );
    let local = "bus: { local: { retention: 24h, max_size: 1GiB } }";
    let bridge = Bridge::start(&configure(dir.path(), local, &polled, "delivery: { drain_delay: 0s }"));
    let events = format!("{}/v1/events?after=0&follow=false&topic=fleet.position", bridge.admin);
    let mut healed = HashSet::new();
    let begun = std::time::Instant::now();
    while !parked.is_subset(&healed) {
        let missing = parked.difference(&healed).count();
        let late = begun.elapsed().as_secs() > 100;
        assert!(!late, "{missing} of {} are not healed; log:\n{}", parked.len(), bridge.log_text());
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        let text = client.get(&events).send().await.unwrap().text().await.unwrap();
        healed = text
            .lines()
            .map(|line| {
                serde_json::from_str::<Value>(line).unwrap()["event"]["id"].as_str().unwrap().to_owned()
            })
            .collect();
    }
    let said = || bridge.log_text().lines().filter(|line| line.contains("parked.removed")).count();
    until("each is said", || said() == rows.len()).await;
    let text = client.get(format!("{}/metrics", bridge.admin)).send().await.unwrap().text().await.unwrap();
    let expired =
        text.lines().find(|line| line.starts_with("fleetbus_parked_lost_total") && line.contains("expired"));
    assert!(expired.is_some_and(|line| line.ends_with(&format!(" {}", rows.len()))), "{expired:?}");
}
