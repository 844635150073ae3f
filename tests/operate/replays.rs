//! Replays: history published again, and a replay that goes on after kill -9.

use reqwest::Method;
use serde_json::{Value, json};

use crate::desk::{Desk, position};

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
