//! Answers that come again and again, seen from outside: what is old in them is published once, what cannot be an event is counted, and
//! one row that is no JSON costs no other.

use axum::Router;
use axum::routing::any;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::desk::{Desk, PATIENCE};

const HOUR: i64 = 3_600_000;

/// The feed as the operator API shows it.
async fn feed(desk: &Desk) -> Value {
    desk.get("/v1/accounts/acme").await.1["feeds"][0].clone()
}

/// Waits for three more polls that were taken in full.
async fn polled(desk: &Desk) {
    let before = feed(desk).await["succeeded"].as_u64().unwrap();
    let polled = async || feed(desk).await["succeeded"].as_u64().unwrap() >= before + 3;
    desk.eventually("three polls", polled).await;
}

async fn positions(desk: &Desk) -> usize {
    desk.events().await.iter().filter(|row| row["topic"] == "fleet.position").count()
}

/// A bridge that polls this feed, of which it is always answered this.
async fn polling(feed: &str, answer: Vec<u8>) -> Desk {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/ibis/rest/api/v2", listener.local_addr().unwrap());
    let routes = Router::new().fallback(any(move || async move { answer }));
    TaskTracker::new().spawn(async move { axum::serve(listener, routes).await });
    let accounts = format!(
        "accounts:\n  - id: acme\n    provider: linxup\n    poll:\n      - {{ api: v2, base_url: \"{base}\", token: {{ env: TEST_TOKEN }}, \
         feeds: {{ {feed}: 1s }} }}\n"
    );
    Desk::with(&accounts, "").await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_every_answer_has_is_published_once_however_old_it_is() {
    let now = jiff::Timestamp::now().as_millisecond();
    let row = |imei: &str, date: i64| {
        format!(
            r#"{{"imei":"{imei}","date":{date},"latitude":35.1,"longitude":-80.8,"speed":0,"firstName":"J"#
        )
    };
    // One that has been off for three days, whose driver's name is in another encoding; one that drives; one that never reported.
    let mut answer = br#"{"responseType":"Success","data":{"locations":["#.to_vec();
    answer.extend(row("860000000000001", now - 72 * HOUR).into_bytes());
    answer.extend(b"\xf6rg\"},");
    answer.extend(row("860000000000002", now - 60_000).into_bytes());
    answer.extend(br#"ane"},{"imei":"860000000000003","status":"Never reported"}]}}"#);
    let mut desk = polling("locations", answer).await;
    for _ in 0..2 {
        timeout(PATIENCE, polled(&desk)).await.unwrap();
        assert_eq!(positions(&desk).await, 2, "each once");
        let feed = feed(&desk).await;
        let counts = ["rows", "skipped"].map(|count| feed[count].as_u64().unwrap());
        assert!(counts[1] >= 3 && counts[0] >= 3 * counts[1], "one of three rows: {feed}");
        desk = desk.killed_and_started().await;
    }
}
