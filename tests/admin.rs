//! The operator's port and command line against a bridge that runs: what is told, who is told, and what a replay, a
//! discard and a tail do.

use std::net::SocketAddr;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use axum::routing::get;
use bytes::Bytes;
use fleetbus::app::{self, Handle};
use fleetbus::config::{self, load::ThisProcess};
use fleetbus::event::{AccountId, EventType, Millis};
use fleetbus::replay::{LaneKey, Parked, ParkedRaw, RawReason, Reason};
use prost::Message as _;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

const TOKEN: &str = "webhook-token";
const ADMIN: &str = "admin-token";
/// Nothing here takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A bridge on the local bus, in a folder of its own.
struct Bridge {
    handle: Handle,
    stop: CancellationToken,
    tracker: TaskTracker,
    folder: TempDir,
    client: reqwest::Client,
}

impl Bridge {
    async fn start() -> Self {
        Self::with("").await
    }

    /// With these keys of `admin` beside its address.
    async fn with(admin: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(path("token"), TOKEN).unwrap();
        std::fs::write(path("admin-token"), ADMIN).unwrap();
        let admin = admin.replace("ADMIN_TOKEN_FILE", &path("admin-token"));
        let text = format!(
            "listen: {{ address: 127.0.0.1:0 }}\nadmin: {{ address: 127.0.0.1:0{admin} }}\ndata_dir: {}\n\
             bus: {{ local: {{ retention: 24h, max_size: 1GiB }} }}\ndelivery: {{ drain_delay: 0s }}\naccounts:\n  \
             - id: acme\n    provider: linxup\n    webhook: {{ token: {{ file: {} }} }}\n",
            path("data"),
            path("token")
        );
        let loaded = config::load(&text, &ThisProcess).unwrap();
        let bridge = app::build(loaded.config).await.unwrap();
        let (handle, stop, tracker) = (bridge.handle(), CancellationToken::new(), TaskTracker::new());
        tracker.spawn(bridge.run(stop.clone()));
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        let bridge = Self { handle, stop, tracker, folder, client };
        bridge.eventually("the bridge is ready", async || bridge.get("/readyz").await.0 == 200).await;
        bridge
    }

    fn admin(&self) -> SocketAddr {
        self.handle.admin_address
    }

    async fn stop(self) {
        self.stop.cancel();
        self.tracker.close();
        timeout(PATIENCE, self.tracker.wait()).await.expect("the bridge stops");
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.client.request(method, format!("http://{}{path}", self.admin()));
        request.header("content-type", "application/json")
    }

    async fn text(&self, path: &str) -> (u16, String) {
        let answer = self.request(Method::GET, path).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let (status, text) = self.text(path).await;
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    async fn send(&self, method: Method, path: &str, body: &Value) -> (u16, Value) {
        let answer = self.request(method, path).body(body.to_string()).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null))
    }

    async fn delete(&self, path: &str) -> (u16, Value) {
        let answer = self.request(Method::DELETE, path).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null))
    }

    /// Posts a message as the provider would.
    async fn push(&self, body: &str) -> (u16, Value) {
        let url = format!("http://{}/webhooks/acme", self.handle.webhook_address);
        let answer = self.client.post(url).header("authorization", TOKEN).body(body.to_owned()).send().await;
        let answer = answer.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// Three positions of one tracker.
    async fn push_positions(&self) {
        let position = |minute: i64| {
            json!({"pushType": "POSITION", "imei": "350000000000017", "date": 1_767_009_600_000_i64 + minute * 60_000,
                "latitude": 35.1, "longitude": -80.8, "speed": 30})
        };
        let (status, receipt) = self.push(&json!([position(0), position(1), position(2)]).to_string()).await;
        assert_eq!((status, &receipt["delivered"]), (201, &json!(3)), "{receipt}");
    }

    /// An event that the bus once called unfit: parked for the operator.
    async fn park_unfit(&self) -> u64 {
        let event = fleetbus::event::pb::FleetEvent {
            id: "8a1b7959-ffe7-5f92-b699-bc2107218705".to_owned(),
            subject: "350000000000017".to_owned(),
            ..Default::default()
        };
        self.park_unfit_bytes(Bytes::from(event.encode_to_vec())).await
    }

    /// One of these bytes.
    async fn park_unfit_bytes(&self, payload: Bytes) -> u64 {
        let seq = self.handle.store.next_seq();
        let parked = Parked {
            seq,
            lane: LaneKey {
                account: AccountId::new("acme"),
                topic: "fleet.position".into(),
                subject: "350000000000017".into(),
            },
            event_type: EventType::Position,
            id: Uuid::parse_str("8a1b7959-ffe7-5f92-b699-bc2107218705").unwrap(),
            enters: Vec::new(),
            payload,
            trace: None,
            reason: Reason::Unfit,
            error: "the message is too large".to_owned(),
            provisional: false,
            parked_at: Millis(jiff::Timestamp::now().as_millisecond()),
        };
        let (tell, told) = tokio::sync::oneshot::channel();
        self.handle.store.park(vec![parked], Box::new(move |kept| tell.send(kept).unwrap())).unwrap();
        timeout(PATIENCE, told).await.unwrap().unwrap().unwrap();
        seq.0
    }

    async fn eventually(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let wait = async {
            while !holds().await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
    }

    async fn replayed(&self, id: &Value) -> Value {
        let path = format!("/v1/replays/{}", id.as_str().unwrap());
        self.eventually("the replay ends", async || self.get(&path).await.1["state"] != "running").await;
        self.get(&path).await.1
    }

    /// Runs the command line against this bridge.
    async fn cli(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fleetbus"));
        command.args(arguments).env("FLEETBUS_ADMIN", format!("http://{}", self.admin()));
        let ran = tokio::task::spawn_blocking(move || command.output());
        let Output { status, stdout, stderr } = timeout(PATIENCE, ran).await.unwrap().unwrap().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (status.code().unwrap(), text(stdout), text(stderr))
    }
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_health_of_a_bridge_is_an_exit_code() {
    let bridge = Bridge::with(", token: { file: ADMIN_TOKEN_FILE }").await;
    assert_eq!(bridge.cli(&["health"]).await, (0, "ok\n".to_owned(), String::new()));
    let unready = axum::Router::new()
        .route("/readyz", get(async || (StatusCode::SERVICE_UNAVAILABLE, "not ready: starting\n")));
    let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = format!("http://{}", port.local_addr().unwrap());
    let served = bridge.tracker.spawn(async move { axum::serve(port, unready).await });
    let (exit, out, complaint) = bridge.cli(&["health", "--within", "20", "--admin", &at]).await;
    assert_eq!((exit, out.as_str()), (1, ""));
    assert_eq!(complaint, "fleetbus: not ready: starting (503 Service Unavailable)\n");
    served.abort();
    served.await.unwrap_err();
    let (exit, out, complaint) = bridge.cli(&["health", "--admin", &at]).await;
    assert_eq!((exit, out.as_str()), (1, ""));
    assert!(complaint.starts_with(&format!("fleetbus: no bridge answers at {at}")), "{complaint}");
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_is_told_how_the_bridge_does_and_nothing_secret() {
    let bridge = Bridge::with(", token: { file: ADMIN_TOKEN_FILE }").await;
    bridge.push_positions().await;
    bridge.push(r#"{"pushType": "NOVELTY"}"#).await;
    assert_eq!(bridge.text("/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(bridge.text("/readyz").await, (200, "ok\n".to_owned()));
    let (status, verbose) = bridge.get("/readyz?verbose").await;
    assert_eq!((status, &verbose["ready"], &verbose["phase"]), (200, &json!(true), &json!("running")));
    let (status, metrics) = bridge.text("/metrics").await;
    assert_eq!(status, 200);
    for line in [
        r#"fleetbus_events_received_total{account="acme",type="position"} 3"#,
        r#"fleetbus_events_delivered_total{account="acme",type="position"} 3"#,
        r#"fleetbus_events_in_flight{account="acme",type="position"} 0.0"#,
        r#"fleetbus_webhook_answers_total{account="acme",status="201"} 2"#,
        r#"fleetbus_parked_messages{account="acme",reason="unrecognized"} 1.0"#,
        r#"fleetbus_store_health{state="well"} 1.0"#,
        "fleetbus_ready 1.0",
        concat!(
            "fleetbus_build_info{version=\"",
            env!("CARGO_PKG_VERSION"),
            "\",revision=\"unreleased\"} 1.0"
        ),
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line} is not in\n{metrics}");
    }
    for secret in [TOKEN, ADMIN, "350000000000017", "fleet.position"] {
        assert!(!metrics.contains(secret) && !verbose.to_string().contains(secret), "{secret} is told");
    }
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_an_admin_token_only_its_holder_is_answered() {
    let bridge = Bridge::with(", token: { file: ADMIN_TOKEN_FILE }").await;
    for path in ["/v1/accounts", "/v1/parked", "/v1/replays", "/v1/events?follow=false"] {
        assert_eq!(bridge.get(path).await.0, 401, "{path}");
        let with = bridge.request(Method::GET, path).bearer_auth(ADMIN).send().await.unwrap();
        assert_eq!(with.status(), 200, "{path}");
    }
    let (status, _, said) = bridge.cli(&["parked", "list"]).await;
    assert_eq!(status, 1);
    assert!(said.contains("FLEETBUS_ADMIN_TOKEN"), "{said}");
    let file = bridge.folder.path().join("admin-token").display().to_string();
    assert_eq!(bridge.cli(&["parked", "list", "--token-file", &file]).await.0, 0);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_one_no_web_page_can_speak_for_this_machine() {
    let bridge = Bridge::start().await;
    let url = format!("http://{}/v1/replays", bridge.admin());
    let page = bridge.client.post(&url).body("{}").send().await.unwrap();
    assert_eq!(page.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(page.headers()["content-type"], "application/problem+json");
    let rebound = bridge.client.get(&url).header("host", "evil.example").send().await.unwrap();
    assert_eq!(rebound.status(), StatusCode::FORBIDDEN);
    assert_eq!(bridge.get("/v1/replays").await.0, 200);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_say_how_they_do() {
    let bridge = Bridge::start().await;
    bridge.push_positions().await;
    let (status, list) = bridge.get("/v1/accounts").await;
    assert_eq!(status, 200);
    let acme = &list["accounts"][0];
    assert_eq!((&acme["id"], &acme["events"]["delivered"]), (&json!("acme"), &json!(3)), "{acme}");
    assert_eq!((&acme["webhook"]["taken"], &acme["webhook"]["unauthorized"]), (&json!(1), &json!(0)));
    assert!(acme["webhook"]["last_taken"].is_string(), "{acme}");
    assert_eq!(bridge.get("/v1/accounts/acme").await.1["id"], "acme");
    assert_eq!(bridge.get("/v1/accounts/nobody").await.0, 404);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_local_log_is_read_from_any_place_in_either_form() {
    let bridge = Bridge::start().await;
    bridge.push_positions().await;
    let read = async |path: &str| lines(&bridge.text(path).await.1);
    let all = read("/v1/events?after=0&follow=false").await;
    let offsets: Vec<u64> = all.iter().map(|line| line["offset"].as_u64().unwrap()).collect();
    assert_eq!(offsets, [1, 2, 3]);
    assert_eq!(all[0]["event"]["subject"], "350000000000017");
    assert_eq!(read("/v1/events?after=1&limit=1").await[0]["offset"], 2);
    let of_a_log_that_is_gone = read("/v1/events?after=4000&follow=false").await;
    assert_eq!(of_a_log_that_is_gone, all);
    assert_eq!(read("/v1/events?after=0&follow=false&topic=fleet.trip").await, Vec::<Value>::new());
    assert_eq!(read("/v1/events?follow=false").await, Vec::<Value>::new());
    assert_eq!(read("/v1/events?last=1&follow=false").await, all[all.len() - 1..]);
    assert_eq!(read("/v1/events?last=999&follow=false").await, all);
    assert_eq!(bridge.get("/v1/events?form=x").await.0, 422);

    let sse = bridge.request(Method::GET, "/v1/events?after=0&limit=1").header("accept", "text/event-stream");
    let sse = sse.send().await.unwrap();
    assert_eq!(sse.headers()["content-type"], "text/event-stream");
    let sse = sse.text().await.unwrap();
    assert!(
        sse.starts_with("id: 1\nevent: fleet.position\ndata: {\"id\":") && sse.ends_with("}\n\n"),
        "{sse}"
    );

    let mut follows = bridge.request(Method::GET, "/v1/events").send().await.unwrap();
    bridge.push_positions_later().await;
    let line = timeout(PATIENCE, follows.chunk()).await.unwrap().unwrap().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&line).unwrap()["offset"], 4);
    bridge.stop.cancel();
    let ends = async { while follows.chunk().await.is_ok_and(|chunk| chunk.is_some()) {} };
    timeout(PATIENCE, ends).await.expect("a stream ends with the process");
    bridge.stop().await;
}

impl Bridge {
    /// A fourth position.
    async fn push_positions_later(&self) {
        let position = json!({"pushType": "POSITION", "imei": "350000000000017",
            "date": 1_767_009_600_000_i64 + 180_000, "latitude": 35.1, "longitude": -80.8, "speed": 30});
        assert_eq!(self.push(&position.to_string()).await.1["delivered"], 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_prints_canonical_events_or_readable_lines() {
    let bridge = Bridge::start().await;
    bridge.push_positions().await;
    let (status, out, _) = bridge.cli(&["tail", "--after", "0", "--no-follow", "--json"]).await;
    assert_eq!(status, 0);
    let events = lines(&out);
    assert_eq!(events.len(), 3);
    assert!(out.starts_with("{\"id\":"), "{out}");
    let (status, out, _) = bridge.cli(&["tail", "--after", "1", "--limit", "1"]).await;
    assert_eq!((status, out.lines().count()), (0, 1));
    assert!(out.contains("fleet.position") && out.contains("350000000000017"), "{out}");
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_parked_is_listed_page_by_page_and_shown_with_its_payload_on_request() {
    let bridge = Bridge::start().await;
    let seq = bridge.park_unfit().await;
    for number in 0..3 {
        bridge.push(&json!({"pushType": "NOVELTY", "secret": number}).to_string()).await;
    }
    assert_eq!(bridge.push("{\"cut").await.0, 400);
    let (_, first) = bridge.get("/v1/parked?limit=2").await;
    assert_eq!(first["parked"].as_array().unwrap().len(), 2);
    let next = first["next"].as_u64().unwrap();
    let (_, rest) = bridge.get(&format!("/v1/parked?limit=100&after={next}")).await;
    assert_eq!((rest["parked"].as_array().unwrap().len(), &rest["next"]), (3, &Value::Null));
    let row = &first["parked"][0];
    let told = ["seq", "kind", "reason", "waits_for", "type", "topic"].map(|key| row[key].clone());
    let expected = [
        json!(seq),
        json!("event"),
        json!("unfit"),
        json!("operator"),
        json!("position"),
        json!("fleet.position"),
    ];
    assert_eq!(told, expected);
    let (_, raw) = bridge.get("/v1/parked?reason=unrecognized,not-json").await;
    assert_eq!(raw["parked"].as_array().unwrap().len(), 4);
    assert!(!raw.to_string().contains("secret"), "payloads are shown unasked: {raw}");

    let (_, shown) = bridge.get(&format!("/v1/parked/{seq}")).await;
    assert_eq!((&shown["event"], &shown["error"]), (&Value::Null, &json!("the message is too large")));
    let (_, shown) = bridge.get(&format!("/v1/parked/{seq}?payload=json")).await;
    assert_eq!(shown["event"]["subject"], "350000000000017");
    let raw_seq = raw["parked"][0]["seq"].as_u64().unwrap();
    let (_, shown) = bridge.text(&format!("/v1/parked/{raw_seq}?payload=bytes")).await;
    assert!(shown.contains("NOVELTY"), "{shown}");
    assert_eq!(bridge.get("/v1/parked/999999").await.0, 404);
    assert_eq!(bridge.get("/v1/parked?acount=acme").await.0, 422);

    let (status, out, _) = bridge.cli(&["parked", "list", "--reason", "unfit", "--output", "ndjson"]).await;
    assert_eq!((status, lines(&out)[0]["seq"].clone()), (0, json!(seq)));
    let (status, out, said) = bridge.cli(&["parked", "list", "--limit", "2"]).await;
    assert_eq!((status, out.lines().count()), (0, 3));
    assert!(out.starts_with("SEQ ") && said.contains("--after"), "{out}{said}");
    let (status, out, _) = bridge.cli(&["parked", "show", &seq.to_string(), "--payload"]).await;
    assert!(status == 0 && out.contains("350000000000017"), "{out}");
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_discarded_that_was_not_asked_for() {
    let bridge = Bridge::start().await;
    bridge.park_unfit().await;
    bridge.push(r#"{"pushType": "NOVELTY"}"#).await;
    let left = async || bridge.get("/v1/parked").await.1["parked"].as_array().unwrap().len();
    for query in ["", "?all=false", "?acount=acme", "?all=true&account=acme", "?reason=", "?from=yesterday"] {
        assert_eq!(bridge.delete(&format!("/v1/parked{query}")).await.0, 422, "{query}");
    }
    let (_, would) = bridge.delete("/v1/parked?reason=unfit&dry_run=true").await;
    assert_eq!((&would["dry_run"], &would["messages"]), (&json!(true), &json!(1)));
    assert_eq!(left().await, 2);
    let (_, gone) = bridge.delete("/v1/parked?reason=unfit").await;
    assert_eq!((&gone["discarded"], &gone["events"]), (&json!(1), &json!(1)));
    assert_eq!(left().await, 1);
    let (status, _, said) = bridge.cli(&["parked", "discard"]).await;
    assert!(status == 64 && said.contains("--all"), "{said}");
    let (status, out, _) = bridge.cli(&["parked", "discard", "--all"]).await;
    assert_eq!((status, out.as_str()), (0, "discarded 1 messages: 0 events, 1 raw\n"));
    assert_eq!(left().await, 0);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_sends_an_unfit_event_again_and_leaves_what_is_still_not_understood() {
    let bridge = Bridge::start().await;
    bridge.park_unfit().await;
    bridge.push(r#"{"pushType": "NOVELTY"}"#).await;
    bridge.push("{\"cut").await;
    let (status, would) = bridge.send(Method::POST, "/v1/replays", &json!({"dry_run": true})).await;
    assert_eq!((status, &would["messages"]), (200, &json!(3)));
    for body in [json!({"reason": "unavailable"}), json!({"rate": 0}), json!({"acount": "acme"})] {
        assert_eq!(bridge.send(Method::POST, "/v1/replays", &body).await.0, 422, "{body}");
    }
    let (status, begun) = bridge.send(Method::POST, "/v1/replays", &json!({})).await;
    assert_eq!((status, &begun["found"]), (201, &json!(3)));
    let ended = bridge.replayed(&begun["id"]).await;
    let numbers = ["state", "tried", "sent", "left"].map(|key| ended[key].clone());
    assert_eq!(numbers, [json!("done"), json!(3), json!(1), json!(2)], "{ended}");
    bridge
        .eventually("the event reaches the bus", async || {
            lines(&bridge.text("/v1/events?after=0&follow=false").await.1).len() == 1
        })
        .await;
    bridge
        .eventually("only raw ones are left", async || {
            bridge.get("/v1/parked").await.1["parked"].as_array().unwrap().len() == 2
        })
        .await;
    let handle = &bridge.handle;
    bridge.eventually("its lane is live", async || handle.deliverer.lanes.behind() == (0, 0)).await;
    assert_eq!(bridge.get("/v1/replays/nonsense").await.0, 404);

    let (status, out, _) = bridge.cli(&["replay", "--reason", "not-json"]).await;
    assert_eq!(
        (status, out.as_str()),
        (0, "replayed 0 messages; 0 events came of raw ones; 1 stay parked\n")
    );
    let (_, out, _) = bridge.cli(&["replay", "--dry-run"]).await;
    assert!(out.starts_with("would replay 2 messages"), "{out}");
    bridge.stop().await;
}

/// What made it unfit may be there still: then it did not leave, though it was sent.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_set_aside_anew_was_not_replayed() {
    let bridge = Bridge::start().await;
    bridge.park_unfit_bytes(Bytes::from_static(b"\xff")).await;
    bridge.park_unfit().await;
    let (status, out, _) = bridge.cli(&["replay", "--reason", "unfit"]).await;
    assert_eq!(
        (status, out.as_str()),
        (0, "replayed 1 messages; 0 events came of raw ones; 1 stay parked\n")
    );
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_keeps_its_rate_and_can_be_cancelled() {
    let bridge = Bridge::start().await;
    for number in 0..3 {
        bridge.push(&json!({"pushType": "NOVELTY", "n": number}).to_string()).await;
    }
    let (_, begun) = bridge.send(Method::POST, "/v1/replays", &json!({"rate": 1})).await;
    let path = format!("/v1/replays/{}", begun["id"].as_str().unwrap());
    bridge.eventually("the first is tried", async || bridge.get(&path).await.1["tried"] == 1).await;
    let (status, cancelled) = bridge.delete(&path).await;
    assert_eq!((status, &cancelled["state"]), (200, &json!("cancelled")));
    assert_ne!(bridge.get(&path).await.1["tried"], 3);
    assert_eq!(bridge.get("/v1/replays").await.1["replays"][0]["state"], "cancelled");
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_bytes_whose_source_is_unknown_stay_and_hold_no_replay_up() {
    let bridge = Bridge::start().await;
    let raw = ParkedRaw {
        account: AccountId::new("acme"),
        source: "v9/things".to_owned(),
        received_at: Millis(jiff::Timestamp::now().as_millisecond()),
        reason: RawReason::Unrecognized,
        error: String::new(),
        body: Bytes::from_static(b"{}"),
    };
    let (tell, told) = tokio::sync::oneshot::channel();
    bridge.handle.store.park_raw(vec![raw], Box::new(move |kept| tell.send(kept).unwrap())).unwrap();
    timeout(PATIENCE, told).await.unwrap().unwrap().unwrap();
    let seq = bridge.get("/v1/parked").await.1["parked"][0]["seq"].clone();
    bridge.push(r#"{"pushType": "NOVELTY"}"#).await;
    let (_, begun) = bridge.send(Method::POST, "/v1/replays", &json!({})).await;
    let done = bridge.replayed(&begun["id"]).await;
    let counts = ["tried", "left", "errors"].map(|name| done[name].as_u64());
    assert_eq!((&done["state"], counts), (&json!("done"), [Some(2), Some(2), Some(0)]), "{done}");
    let edit = format!("/v1/parked/{seq}/edit");
    assert_eq!(bridge.send(Method::POST, &edit, &json!({"body": "{}"})).await.0, 422);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_that_does_not_answer_is_said_in_a_sentence() {
    let bridge = Bridge::start().await;
    let away = ["parked", "list", "--admin", "http://127.0.0.1:1"];
    let (status, _, said) = bridge.cli(&away).await;
    assert_eq!(status, 1);
    assert!(said.contains("no bridge answers at http://127.0.0.1:1"), "{said}");
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_a_finding_and_not_the_end_of_readiness() {
    let bridge = Bridge::start().await;
    let local = Arc::clone(&bridge.handle.bus);
    local.as_local().unwrap().take_away();
    bridge
        .eventually("the outage is told", async || {
            let (status, verbose) = bridge.get("/readyz?verbose").await;
            status == 200 && verbose["findings"].to_string().contains("bus-unavailable")
        })
        .await;
    local.as_local().unwrap().bring_back();
    bridge.stop().await;
}
