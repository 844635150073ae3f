//! Replays: history published again, and a replay that goes on after kill -9.

use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};

use crate::bridge::acme;
use crate::desk::{Desk, position};

/// A bus that nobody serves: everything is parked.
const NOBODY: &str = "bus: { nats: { url: \"nats://127.0.0.1:1\" } }";

async fn begin(desk: &Desk, asked: Value) -> String {
    let (status, begun) = desk.json(Method::POST, "/v1/replays", &asked).await;
    assert_eq!(status, 201, "{begun}");
    format!("/v1/replays/{}", begun["id"].as_str().unwrap())
}

async fn ended(desk: &Desk, path: &str) -> Value {
    desk.eventually("the replay ends", async || desk.get(path).await.1["state"] != "running").await;
    desk.get(path).await.1
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_delivered_is_published_again_in_its_order_with_its_ids() {
    let desk = Desk::open("").await;
    for second in 0..5 {
        desk.push(&json!([position("350000000000017", second), position("350000000000025", second)])).await;
    }
    let ids = |events: Vec<Value>| -> Vec<Value> {
        let of_one = events.iter().filter(|row| row["event"]["subject"] == "350000000000017");
        of_one.map(|row| row["event"]["id"].clone()).collect()
    };
    let first = ids(desk.events().await);
    assert_eq!(first.len(), 5);
    let asked = json!({"source": "history", "type": "position", "subject": "350000000000017"});
    let mut dry = asked.clone();
    dry["dry_run"] = json!(true);
    assert_eq!(desk.json(Method::POST, "/v1/replays", &dry).await.1["messages"], 5);
    let done = ended(&desk, &begin(&desk, asked).await).await;
    assert_eq!(
        (&done["state"], &done["events"], &done["remaining"]),
        (&json!("done"), &json!(5), &json!(0)),
        "{done}"
    );
    let again = ids(desk.events().await);
    assert_eq!(again, [first.clone(), first].concat());
    assert_eq!(desk.events().await.len(), 15, "and nothing else");
    // What is published again is remembered as before.
    assert_eq!(desk.push(&position("350000000000017", 0)).await["duplicates"], 1);
    let (status, out, said) = desk.cli(&["replay", "--history", "--type", "trip"]).await;
    assert_eq!((status, out.as_str()), (0, "published 0 events again\n"), "{said}");
    let (status, said) =
        desk.json(Method::POST, "/v1/replays", &json!({"source": "history", "reason": "unfit"})).await;
    assert_eq!(status, 422, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_list_among_the_elements_is_not_sent_by_a_replay() {
    let desk = Desk::open("").await;
    let taken = desk.push(&json!([[], {"messages": []}])).await;
    assert_eq!(taken["unrecognized"], 2, "{taken}");
    let done = ended(&desk, &begin(&desk, json!({})).await).await;
    let counts = ["tried", "sent", "events", "left"].map(|name| done[name].as_u64().unwrap());
    assert_eq!(counts, [2, 0, 0, 2], "{done}");
    assert_eq!(desk.get("/v1/parked/summary").await.1["messages"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_goes_on_after_kill_9() {
    let desk = Desk::open("").await;
    let novelty = |n: usize| json!({"pushType": "NOVELTY", "n": n});
    desk.push(&Value::Array((0..60).map(novelty).collect())).await;
    let path = begin(&desk, json!({"rate": 20})).await;
    desk.eventually("some are tried", async || desk.get(&path).await.1["tried"].as_u64() >= Some(5)).await;
    let desk = desk.killed_and_started().await;
    desk.eventually("it is known", async || desk.get(&path).await.0 == 200).await;
    let done = ended(&desk, &path).await;
    assert_eq!((&done["state"], &done["found"]), (&json!("done"), &json!(60)), "{done}");
    assert!(done["tried"].as_u64() >= Some(60), "{done}");
    assert_eq!(done["left"], done["tried"], "{done}");
    let desk = desk.killed_and_started().await;
    desk.eventually("it is known", async || desk.get(&path).await.0 == 200).await;
    assert_eq!(desk.get(&path).await.1["state"], "done", "what has ended stays ended");
}

/// What a call does not take is no word that it may pass over: it would do more than was meant.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_asked_for_what_it_does_not_take_does_nothing() {
    let desk = Desk::open("").await;
    desk.push(&json!({"pushType": "NOVELTY"})).await;
    for (path, body) in [
        ("/v1/replays?dry_run=true&reason=unfit", json!({})),
        ("/v1/reload?dry_run=true", json!({})),
        ("/v1/reload", json!({"dry_run": true})),
    ] {
        let (status, said) = desk.json(Method::POST, path, &body).await;
        assert_eq!(status, 422, "{path}: {said}");
    }
    assert_eq!(desk.get("/v1/replays").await.1["replays"], json!([]));
    assert_eq!(desk.json(Method::POST, "/v1/reload", &json!({})).await.0, 200);
}

/// So many messages are replayed at a rate, and all that is parked is discarded once one was tried: how the replay ended.
async fn discarded_while_replayed(messages: usize, rate: usize) -> (Desk, Value) {
    let desk = Desk::open("").await;
    let novelty = |n: usize| json!({"pushType": "NOVELTY", "n": n});
    desk.push(&Value::Array((0..messages).map(novelty).collect())).await;
    let path = begin(&desk, json!({"rate": rate})).await;
    desk.eventually("one is tried", async || desk.get(&path).await.1["tried"] != 0).await;
    assert_eq!(desk.delete("/v1/parked?all=true").await.0, 200);
    let done = ended(&desk, &path).await;
    (desk, done)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_discarded_is_not_sent_by_a_replay_that_has_read_it() {
    let (desk, done) = discarded_while_replayed(20, 5).await;
    let count = |name: &str| done[name].as_u64().unwrap();
    assert_eq!((&done["state"], count("tried"), count("sent")), (&json!("done"), 20, 0), "{done}");
    assert!(count("gone") > 0 && count("left") + count("gone") == 20, "{done}");
    assert_eq!(desk.get("/v1/parked/summary").await.1["messages"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_account_left_that_is_configured_no_more_holds_no_other_up() {
    let accounts = acme().replace("id: acme", "id: gone") + acme().trim_start_matches("accounts:\n");
    let desk = Desk::with(&accounts, "").await;
    let novelty = |n: usize| json!({"pushType": "NOVELTY", "n": n});
    desk.push_to("gone", &novelty(0)).await;
    desk.push_to("acme", &novelty(1)).await;
    let (status, said) = desk.reconfigured(&accounts, acme()).await;
    assert_eq!(status, 200, "{said}");
    let first = desk.get("/v1/parked").await.1["parked"][0].clone();
    assert_eq!(first["account"], "gone", "{first}");

    let done = ended(&desk, &begin(&desk, json!({})).await).await;
    let count = |name: &str| done[name].as_u64().unwrap();
    assert_eq!(
        (&done["state"], count("tried"), count("left"), count("errors")),
        (&json!("done"), 2, 2, 0),
        "{done}"
    );
    let edit = format!("/v1/parked/{}/edit", first["seq"]);
    let (status, said) = desk.json(Method::POST, &edit, &json!({"body": "{}"})).await;
    assert_eq!(
        (status, said["detail"].as_str().unwrap().contains("not configured here")),
        (422, true),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_gone_before_its_page_is_read_is_counted_as_gone() {
    // Two pages.
    let (_desk, done) = discarded_while_replayed(520, 100).await;
    let count = |name: &str| done[name].as_u64().unwrap();
    assert_eq!((count("tried"), count("remaining")), (520, 0), "{done}");
    assert_eq!(count("sent") + count("left") + count("gone"), 520, "{done}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_a_stop_interrupts_has_written_down_how_far_it_is() {
    let desk = Desk::on(NOBODY, acme(), "").await;
    desk.push(&Value::Array((0..60).map(|second| position("350000000000017", second)).collect())).await;
    let desk = desk.killed_changed_and_started(set_aside_and_change_bus).await;
    let path = begin(&desk, json!({"rate": 20})).await;
    desk.eventually("some are sent", async || desk.get(&path).await.1["sent"].as_u64() >= Some(5)).await;
    let desk = desk.stopped_and_started().await;
    desk.eventually("it is known", async || desk.get(&path).await.0 == 200).await;
    let done = ended(&desk, &path).await;
    let count = |name: &str| done[name].as_u64().unwrap();
    assert_eq!((count("tried"), count("sent"), count("gone")), (60, 60, 0), "{done}");
    desk.eventually("all are delivered", async || desk.events().await.len() == 60).await;
}

/// As if the bus could take none of what is parked, and then is another that can.
fn set_aside_and_change_bus(folder: &Path) {
    let store = rusqlite::Connection::open(folder.join("data/store.db")).unwrap();
    let changes = "UPDATE parked SET reason = 2, for_bus = 0; UPDATE tally SET kind = 2; UPDATE ages SET population = 1;";
    store.execute_batch(changes).unwrap();
    let config = folder.join("fleetbus.yaml");
    let text = std::fs::read_to_string(&config).unwrap().replace(NOBODY, "bus: { local: {} }");
    std::fs::write(&config, text).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_sent_once_by_replays_that_overlap_and_not_at_all_once_it_is_discarded() {
    let (shared, other) = ("350000000000017", "350000000000025");
    let desk = Desk::on(NOBODY, acme(), "").await;
    for imei in [shared, other] {
        desk.push(&Value::Array((0..20).map(|second| position(imei, second)).collect())).await;
    }
    let desk = desk.killed_changed_and_started(set_aside_and_change_bus).await;
    let asked = json!({"subject": shared, "rate": 20});
    let mut replays = Vec::new();
    for _ in 0..3 {
        replays.push(begin(&desk, asked.clone()).await);
    }
    let count = |job: &Value, name: &str| job[name].as_u64().unwrap();
    let (mut sent, mut gone) = (0, 0);
    for path in &replays {
        let done = ended(&desk, path).await;
        assert_eq!(done["state"], "done", "{done}");
        (sent, gone) = (sent + count(&done, "sent"), gone + count(&done, "gone"));
    }
    assert_eq!(sent, 20, "{gone} were gone");

    let path = begin(&desk, json!({"subject": other, "rate": 5})).await;
    desk.eventually("one is sent", async || desk.get(&path).await.1["sent"] != 0).await;
    assert_eq!(desk.delete(&format!("/v1/parked?reason=unfit&subject={other}")).await.0, 200);
    let done = ended(&desk, &path).await;
    let sent = sent + count(&done, "sent");
    assert!(count(&done, "gone") > 0 && count(&done, "sent") + count(&done, "gone") == 20, "{done}");
    let parked = async || desk.get("/v1/parked/summary").await.1["messages"].as_u64().unwrap();
    desk.eventually("what was sent is delivered", async || parked().await == 0).await;
    assert_eq!(desk.events().await.len() as u64, sent);
}
