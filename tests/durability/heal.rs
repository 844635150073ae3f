//! What leaves the store undelivered is said, and forgotten by dedup, so that the poller brings it again.

use std::collections::HashSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use axum::http::StatusCode;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::bridge::{Bridge, TOKEN, acme, configure};
use crate::fleet::imei;
use crate::metrics::metric;
use crate::ports::free_port;
use crate::support::{away, drained, export, local, published, until};

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
    let port = format!("127.0.0.1:{}", free_port());
    let _provider = Provider::start(&port, &bridge.webhook);
    let metrics = format!("{}/metrics", bridge.admin);
    let client = reqwest::Client::new();
    let begun = std::time::Instant::now();
    loop {
        let text = client.get(&metrics).send().await.unwrap().text().await.unwrap();
        let parked = text.lines().filter(|line| line.starts_with("fleetbus_events_parked_total{"));
        let positions =
            parked.filter(|line| line.contains("\"position\"")).find_map(|line| line.split(' ').nth(1));
        if positions.is_some_and(|count| count.parse::<u64>().unwrap() >= 30) {
            break;
        }
        assert!(begun.elapsed().as_secs() < 60, "{text}\n{}", bridge.log_text());
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

    let bridge = Bridge::start(&local(dir.path(), &polled(&port), ""));
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
    until("the first are said", || said() >= rows.len().min(16)).await;
    let text = client.get(format!("{}/metrics", bridge.admin)).send().await.unwrap().text().await.unwrap();
    let expired =
        text.lines().find(|line| line.starts_with("fleetbus_parked_lost_total") && line.contains("expired"));
    assert!(expired.is_some_and(|line| line.ends_with(&format!(" {}", rows.len()))), "{expired:?}");
}

/// Passes what is pushed on to a bridge, one vehicle's positions with more than the provider says: they are the same facts.
async fn enlarge(bridge: &Bridge, serving: &mut JoinSet<()>) -> String {
    let to = format!("{}/webhooks/acme", bridge.webhook);
    let client = reqwest::Client::new();
    let pass = move |body: axum::body::Bytes| async move {
        let mut body: Value = serde_json::from_slice(&body).unwrap();
        if body["deviceNumber"] == imei(1).as_str() && body["pushType"] == "POSITION" {
            body["note"] = "x".repeat(15_000).into();
        }
        let answer = client.post(to).bearer_auth(TOKEN).json(&body).send().await;
        answer.map_or(StatusCode::BAD_GATEWAY, |answer| answer.status())
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = format!("http://{}", listener.local_addr().unwrap());
    let routes = axum::Router::new().fallback(pass);
    serving.spawn(async move { axum::serve(listener, routes).await.unwrap() });
    at
}

/// An account that is polled for the same facts.
fn polled(port: &str) -> String {
    format!(
        "accounts:\n  - id: acme\n    provider: linxup\n    poll: [{{ api: v2, base_url: \"http://{port}/ibis/rest/api/v2\", token: {{ env: TEST_TOKEN }}, feeds: {{ history: 1s }} }}]\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_evicted_is_said_and_the_poller_brings_it_again_while_what_waits_for_the_bus_stays() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    // One vehicle's events are larger than the bus may take; all others wait for it.
    let bus = "bus: { kafka: { brokers: \"127.0.0.1:1\", properties: { message.max.bytes: 8000 } } }";
    let quick = "delivery: { publish_deadline: 50ms, drain_delay: 0s }";
    let bridge = Bridge::start(&configure(dir.path(), bus, acme(), quick));
    let client = reqwest::Client::new();
    let mut serving = JoinSet::new();
    let enlarging = enlarge(&bridge, &mut serving).await;
    let port = format!("127.0.0.1:{}", free_port());
    let _provider = Provider::start(&port, &enlarging);
    let waits = "fleetbus_parked_messages{account=\"acme\",reason=\"unavailable\"}";
    let unfit = "fleetbus_parked_messages{account=\"acme\",reason=\"unfit\"}";
    let page = format!("{}/metrics", bridge.admin);
    let begun = std::time::Instant::now();
    loop {
        let text = client.get(&page).send().await.unwrap().text().await.unwrap();
        let count = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.map_or(0.0, |count| count.parse::<f64>().unwrap())
        };
        if count(waits) >= 30.0 && count(unfit) >= 20.0 {
            break;
        }
        assert!(begun.elapsed().as_secs() < 60, "{text}\n{}", bridge.log_text());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(bridge.stop().success());
    let rows = export(&data);
    let ids = |wanted: &dyn Fn(&Value) -> bool| -> Vec<String> {
        let of = rows.iter().filter(|row| row["kind"] == "event" && wanted(row));
        of.map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    };
    let waiting = ids(&|row| row["waits_for"] == "bus");
    let set_aside: Vec<&Value> = rows.iter().filter(|row| row["reason"] == "unfit").collect();
    assert!(waiting.len() >= 30 && set_aside.len() >= 20);

    // The operator's share is a tenth of this: seven of the large ones, of hundreds of kilobytes.
    let bridge = Bridge::start(&local(dir.path(), &polled(&port), "replay: { max_size: 1MiB }"));
    until("it is said", || bridge.log_text().contains("\"message\":\"store.evicted\"")).await;
    let removed = || -> Vec<u64> {
        let log = bridge.log_text();
        let lines = log.lines().filter(|line| line.contains("\"message\":\"parked.removed\""));
        lines.map(|line| serde_json::from_str::<Value>(line).unwrap()["seq"].as_u64().unwrap()).collect()
    };
    drained(&bridge, waiting.len()).await;
    let evicted = metric(&bridge.admin, "fleetbus_parked_lost_total{how=\"evicted\"}").await;
    assert!((1..set_aside.len()).contains(&evicted), "{evicted} of {}", set_aside.len());
    let oldest: Vec<u64> = set_aside[..evicted].iter().map(|row| row["seq"].as_u64().unwrap()).collect();
    // A few are named at once, the others only counted.
    let few = evicted.min(16);
    until("the first are said", || removed().len() >= few).await;
    assert_eq!(removed(), oldest[..few], "the oldest that waited for the operator, and nothing else");
    let text_of = |row: &&Value| row["id"].as_str().unwrap().to_owned();
    let healed: HashSet<String> = set_aside[..evicted].iter().map(text_of).collect();
    let kept: HashSet<String> = set_aside[evicted..].iter().map(text_of).collect();
    let begun = std::time::Instant::now();
    let seen = loop {
        let seen: Vec<String> = published(&bridge).await.into_iter().map(|event| event.id).collect();
        let missing = healed.iter().filter(|id| !seen.contains(id)).count();
        if missing == 0 {
            break seen;
        }
        assert!(
            begun.elapsed().as_secs() < 100,
            "{missing} of {evicted} are not healed:\n{}",
            bridge.log_text()
        );
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    };
    for id in &waiting {
        assert_eq!(
            seen.iter().filter(|seen| *seen == id).count(),
            1,
            "what waited for the bus is delivered once"
        );
    }
    for id in &healed {
        assert_eq!(seen.iter().filter(|seen| *seen == id).count(), 1, "what was evicted is published once");
    }
    assert!(seen.iter().all(|id| !kept.contains(id)), "what is still kept is still known");
    assert_eq!(metric(&bridge.admin, "fleetbus_parked_lost_total{how=\"expired\"}").await, 0);
    assert!(bridge.stop().success());
    let left: HashSet<String> =
        export(&data).iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(left, kept);
}
