//! Backfills of a simulated fleet: said what they cost, killed in the middle, resumed, nothing doubled, nothing missing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::Request;
use axum::middleware::{self, Next};
use fleetbus::simulate::Clock;
use fleetbus::simulate::serve::Provider;
use fleetbus::simulate::world::{What, World};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::bridge::TOKEN;
use crate::desk::Desk;

const DAY: i64 = 86_400_000;

/// The provider, six days old, whose past can be had up to a call that waits until it is let go.
struct Stand {
    base: String,
    world: World,
    now: i64,
    gate: Arc<Semaphore>,
    calls: Arc<AtomicUsize>,
    _stop: DropGuard,
}

impl Stand {
    async fn open(before_the_gate: usize) -> Self {
        let now = jiff::Timestamp::now().as_millisecond();
        let world = World { seed: 7, vehicles: 2, begins: now - 6 * DAY };
        let provider = Provider::new(world, Clock::new(now, 0.0), TOKEN.to_owned(), Duration::ZERO);
        let gate = Arc::new(Semaphore::new(before_the_gate));
        let calls = Arc::new(AtomicUsize::new(0));
        let (counted, shut) = (Arc::clone(&calls), Arc::clone(&gate));
        let pass = move |request: Request, next: Next| {
            let (calls, gate) = (Arc::clone(&counted), Arc::clone(&shut));
            async move {
                if request.uri().path().ends_with("/locations/all") {
                    calls.fetch_add(1, Ordering::Relaxed);
                    gate.acquire().await.unwrap().forget();
                }
                next.run(request).await
            }
        };
        let routes = provider.router().layer(middleware::from_fn(pass));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}/ibis/rest/api/v2", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let stops = stop.clone();
        TaskTracker::new().spawn(async move {
            axum::serve(listener, routes).with_graceful_shutdown(stops.cancelled_owned()).await
        });
        Self { base, world, now, gate, calls, _stop: stop.drop_guard() }
    }

    fn accounts(&self) -> String {
        format!(
            "accounts:\n  - id: acme\n    provider: linxup\n    poll:\n      - {{ api: v2, base_url: \"{}\", token: {{ env: TEST_TOKEN }}, feeds: {{ geofences: 24h }} }}\n",
            self.base
        )
    }

    fn asked(&self, more: Value) -> Value {
        let time = |ms: i64| jiff::Timestamp::from_millisecond(ms).unwrap().to_string();
        let mut asked =
            json!({"feed": "history", "from": time(self.world.begins), "to": time(self.now - 60_000)});
        asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        asked
    }
}

/// Positions of the local bus: their ids, and what they say.
async fn positions(desk: &Desk) -> (Vec<String>, BTreeSet<(String, i64)>) {
    let events = desk.events().await;
    let events = events.iter().filter(|row| row["topic"] == "fleet.position").map(|row| &row["event"]);
    let time = |event: &Value| {
        let time: jiff::Timestamp = event["occurTime"].as_str().unwrap().parse().unwrap();
        time.as_millisecond()
    };
    let fact = |event: &Value| (event["subject"].as_str().unwrap().to_owned(), time(event));
    let all: Vec<&Value> = events.collect();
    (
        all.iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect(),
        all.iter().map(|event| fact(event)).collect(),
    )
}

async fn ended(desk: &Desk, id: &str) -> Value {
    let path = format!("/v1/backfills/{id}");
    desk.eventually("the backfill ends", async || desk.get(&path).await.1["state"] != "running").await;
    desk.get(&path).await.1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_killed_in_the_middle_is_resumed_with_nothing_doubled_and_nothing_missing() {
    let stand = Stand::open(2).await;
    let desk = Desk::with(&stand.accounts(), "").await;
    let path = "/v1/accounts/acme/backfills";
    let (status, cost) = desk.json(Method::POST, path, &stand.asked(json!({"dry_run": true}))).await;
    assert_eq!((status, &cost["calls_at_least"]), (200, &json!(4)), "{cost}");
    assert_eq!(desk.get("/v1/backfills").await.1["backfills"], json!([]));

    let (status, begun) = desk.json(Method::POST, path, &stand.asked(json!({}))).await;
    assert_eq!(status, 201, "{begun}");
    let id = begun["id"].as_str().unwrap().to_owned();
    let of_it = format!("/v1/backfills/{id}");
    desk.eventually("two windows are taken", async || desk.get(&of_it).await.1["windows"] == 2).await;
    let (before, _) = positions(&desk).await;
    let desk = desk.killed_and_started().await;
    let resumed = desk.get(&of_it).await.1;
    assert_eq!((&resumed["state"], &resumed["windows"]), (&json!("running"), &json!(2)), "{resumed}");
    stand.gate.add_permits(100);
    let done = ended(&desk, &id).await;
    assert_eq!((&done["state"], &done["share"]), (&json!("done"), &json!(1.0)), "{done}");

    let (ids, facts) = positions(&desk).await;
    assert!(!before.is_empty() && before.len() < ids.len(), "{} of {}", before.len(), ids.len());
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "nothing is doubled");
    let until = stand.now - 60_000;
    let happened = stand.world.facts(stand.world.begins, until);
    let times: BTreeSet<i64> = happened
        .iter()
        .filter(|fact| matches!(fact.what, What::Position { .. }))
        .map(|fact| fact.at)
        .collect();
    let seen: BTreeSet<i64> = facts.iter().map(|(_, at)| *at).collect();
    let missing = times.difference(&seen).count();
    println!(
        "{} positions before kill -9, {} in the end, none doubled, {missing} missing",
        before.len(),
        ids.len()
    );
    assert_eq!(missing, 0);

    // The same once more: everything is known, though most is older than ids are remembered by their time.
    let (_, again) = desk.json(Method::POST, path, &stand.asked(json!({}))).await;
    let again = ended(&desk, again["id"].as_str().unwrap()).await;
    assert_eq!(again["delivered"], 0, "{again}");
    assert_eq!(positions(&desk).await.0.len(), ids.len());
    // And where it is wanted, it is published again, with the ids that it had.
    let (status, out, said) = desk
        .cli(&[
            "backfill",
            "acme",
            "history",
            "--from",
            begun["from"].as_str().unwrap(),
            "--republish",
            "--to",
            begun["to"].as_str().unwrap(),
        ])
        .await;
    assert_eq!(status, 0, "{said}");
    assert!(said.contains("this costs 4 calls or more"), "{said}");
    assert!(out.contains(&format!("{} events delivered", ids.len())), "{out}");
    let (twice, _) = positions(&desk).await;
    assert_eq!(twice.len(), 2 * ids.len());
    assert_eq!(twice.iter().collect::<BTreeSet<_>>().len(), ids.len());
    let acts = desk.get("/v1/audit?act=backfill.").await.1;
    assert_eq!(acts["acts"].as_array().unwrap().len(), 3, "{acts}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_past_is_refused_and_a_backfill_is_cancelled() {
    let stand = Stand::open(0).await;
    let desk = Desk::with(&stand.accounts(), "").await;
    let refused = async |account: &str, more: Value, expected: u16, words: &str| {
        let path = format!("/v1/accounts/{account}/backfills");
        let (status, said) = desk.json(Method::POST, &path, &stand.asked(more)).await;
        assert_eq!(status, expected, "{said}");
        assert!(said["detail"].as_str().unwrap().contains(words), "{said}");
    };
    refused("nobody", json!({}), 404, "no account").await;
    refused("acme", json!({"api": "v3"}), 404, "that API").await;
    refused("acme", json!({"feed": "nothing"}), 422, "there are").await;
    refused("acme", json!({"feed": "positions"}), 422, "no such feed").await;
    refused("acme", json!({"feed": "trackers"}), 422, "it has no past").await;
    refused("acme", json!({"to": "2020-01-01T00:00:00Z"}), 422, "from is not before to").await;
    refused("acme", json!({"to": "2100-01-01T00:00:00Z"}), 422, "lies ahead").await;
    refused("acme", json!({"from": "yesterday"}), 422, "from is no time").await;

    let (_, begun) = desk.json(Method::POST, "/v1/accounts/acme/backfills", &stand.asked(json!({}))).await;
    let id = begun["id"].as_str().unwrap();
    let (_, out, _) = desk.cli(&["backfill", "list", "--output", "ndjson"]).await;
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["state"], "running");
    let (status, out, said) = desk.cli(&["backfill", "cancel", id]).await;
    assert_eq!((status, out.as_str()), (0, "it is cancelled\n"), "{said}");
    let desk = desk.killed_and_started().await;
    assert_eq!(desk.get(&format!("/v1/backfills/{id}")).await.1["state"], "cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_follows_a_reload_to_another_host_and_ends_with_its_account() {
    let (old, new, last) = (Stand::open(1).await, Stand::open(100).await, Stand::open(0).await);
    let desk = Desk::with(&old.accounts(), "").await;
    let path = "/v1/accounts/acme/backfills";
    let (_, begun) = desk.json(Method::POST, path, &old.asked(json!({}))).await;
    let id = begun["id"].as_str().unwrap().to_owned();
    let calls = |stand: &Stand| stand.calls.load(Ordering::Relaxed);
    // The second call of four hangs, and always will.
    desk.eventually("a call hangs", async || calls(&old) == 2).await;
    let (status, said) = desk.reconfigured(&old.base, &new.base).await;
    assert_eq!(status, 200, "{said}");
    let done = ended(&desk, &id).await;
    assert_eq!((&done["state"], &done["windows"]), (&json!("done"), &json!(4)), "{done}");
    assert_eq!((calls(&old), calls(&new)), (2, 3), "each is asked for what the other did not give");

    // An account that was just added has a past, too; and one that is gone has none.
    let two =
        format!("{}{}", new.accounts(), last.accounts().replace("acme", "zeta").replace("accounts:\n", ""));
    assert_eq!(desk.reconfigured(&new.accounts(), &two).await.0, 200);
    let path = "/v1/accounts/zeta/backfills";
    let (status, begun) = desk.json(Method::POST, path, &last.asked(json!({}))).await;
    assert_eq!(status, 201, "{begun}");
    desk.eventually("a call hangs", async || calls(&last) == 1).await;
    assert_eq!(desk.reconfigured(&two, &new.accounts()).await.0, 200);
    let failed = ended(&desk, begun["id"].as_str().unwrap()).await;
    assert_eq!(failed["state"], "failed", "{failed}");
    assert!(failed["error"].as_str().unwrap().contains("not configured any more"), "{failed}");
    assert_eq!(desk.json(Method::POST, path, &last.asked(json!({}))).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_that_was_killed_between_its_last_window_and_its_end_is_done() {
    let stand = Stand::open(100).await;
    let desk = Desk::with(&stand.accounts(), "").await;
    let (_, begun) = desk.json(Method::POST, "/v1/accounts/acme/backfills", &stand.asked(json!({}))).await;
    let id = begun["id"].as_str().unwrap().to_owned();
    let done = ended(&desk, &id).await;
    assert_eq!((&done["state"], &done["done_until"]), (&json!("done"), &done["to"]), "{done}");
    let desk = desk
        .killed_changed_and_started(|folder| {
            let store = rusqlite::Connection::open(folder.join("data/store.db")).unwrap();
            let sql = "SELECT value FROM jobs WHERE key LIKE 'backfill/%'";
            let value: String = store.query_row(sql, [], |row| row.get(0)).unwrap();
            let mut job: Value = serde_json::from_str(&value).unwrap();
            job["state"] = json!("running");
            job["ended_at"] = Value::Null;
            // Without a checksum, as of an older version: so it may be changed.
            for table in ["jobs", "jobs_copy"] {
                let sql =
                    format!("UPDATE {table} SET value = ?1, checksum = NULL WHERE key LIKE 'backfill/%'");
                assert_eq!(store.execute(&sql, [job.to_string()]).unwrap(), 1);
            }
        })
        .await;
    let path = format!("/v1/backfills/{id}");
    desk.eventually("it is known", async || desk.get(&path).await.0 == 200).await;
    let resumed = ended(&desk, &id).await;
    assert_eq!((&resumed["state"], resumed.get("error")), (&json!("done"), None), "{resumed}");
}
