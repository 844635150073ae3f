//! Operators who hang up while what they asked for is written down: what the audit log says was done is in force.

use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::desk::Desk;

const POLLED: &str = r#"accounts:
  - id: acme
    provider: linxup
    webhook: { token: { env: TEST_TOKEN } }
    poll: [ { api: v2, base_url: "http://127.0.0.1:9", token: { env: TEST_TOKEN }, feeds: { trips: 1h } } ]
"#;

/// Sends a request, and hangs up after some milliseconds.
async fn ask_and_hang_up(desk: &Desk, method: &str, path: &str, body: &str, nth: u64) {
    let address = desk.bridge.admin.trim_start_matches("http://");
    let mut connection = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    connection.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    sleep(Duration::from_millis(nth % 5)).await;
}

async fn acts(desk: &Desk, act: &str) -> Vec<Value> {
    let (status, found) = desk.get(&format!("/v1/audit?act={act}&limit=100")).await;
    assert_eq!(status, 200);
    found["acts"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_down_is_in_force_though_the_operator_hung_up() {
    let desk = Desk::with(POLLED, "").await;
    for nth in 0..24 {
        let (_, made) = desk.json(Method::POST, "/v1/accounts/acme/tokens", &json!({})).await;
        let id = made["id"].as_str().unwrap().to_owned();
        ask_and_hang_up(&desk, "DELETE", &format!("/v1/accounts/acme/tokens/{id}"), "", nth).await;
    }
    let position = |nth: u64| format!("2026-01-{:02}T00:00:00Z", nth + 1);
    for nth in 0..16 {
        let body = json!({ "position": position(nth), "confirm": true }).to_string();
        ask_and_hang_up(&desk, "PUT", "/v1/accounts/acme/feeds/v2/trips/cursor", &body, nth).await;
        sleep(Duration::from_millis(20)).await;
    }
    ask_and_hang_up(&desk, "POST", "/v1/accounts/acme/pause", "", 2).await;
    // What is under way is behind this one.
    sleep(Duration::from_millis(500)).await;
    let (_, listed) = desk.get("/v1/accounts/acme/tokens").await;
    let listed = listed["tokens"].as_array().unwrap();
    let live: BTreeSet<&str> = listed.iter().map(|token| token["id"].as_str().unwrap()).collect();
    let revoked = acts(&desk, "token.revoke").await;
    let revoked: BTreeSet<&str> = revoked.iter().map(|act| act["object"].as_str().unwrap()).collect();
    assert!(!revoked.is_empty() && revoked.is_disjoint(&live), "{revoked:?} {live:?}");
    let (_, account) = desk.get("/v1/accounts/acme").await;
    let feed = &account["feeds"][0];
    let moved = acts(&desk, "cursor.move").await;
    let last = moved.first().expect("one was written down");
    let time = |value: &Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert_eq!(time(&feed["fetched_until"]), time(&last["after"]["position"]), "{account}");
    assert_eq!(feed["paused"], json!(!acts(&desk, "poll.pause").await.is_empty()), "{account}");
}
