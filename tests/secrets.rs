//! Secrets, payloads, names, VINs and coordinates are in no log, no metric and no answer that was not asked for a payload:
//! the real binary at its most talkative, and everything it meets is marked.

#[expect(dead_code, reason = "shared with the tests of the promises")]
#[path = "support/bridge.rs"]
mod bridge;

use std::process::Command;
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, StatusCode, Uri};
use nix::sys::signal::Signal;
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

use bridge::{Bridge, configure};

const TOKEN: &str = "Qx7-webhook-token";
const WRONG: &str = "Qx7-wrong-token";
const ADMIN: &str = "Qx7-admin-token";
const PULL: &str = "Qx7-pull-token";
const NAME: &str = "Qx7 Name";
const VIN: &str = "QX7VIN00000000017";
const IMEI: &str = "350007777000017";
/// What nobody may read who did not ask for a payload, in lower case: the beginnings of the marks, coordinates' decimals.
const MARKS: [&str; 7] = ["qx7-", "qx7 name", "qx7%20name", "qx7_name", "qx7vin", "627017", "199417"];

/// A position of the V3 format, marked wherever a text or a place can be.
fn nested(at: i64) -> Value {
    json!({
        "date": at, "latitude": 38.627_017, "longitude": -90.199_417, "speed": 34, "direction": 47, "engineOn": true,
        "batchedPositions": format!("{},38.627017,-90.199417,141.0;", at - 10_000),
        "address": { "street": NAME, "city": NAME },
        "tracker": { "trackerId": 18_000_100_017_u64, "name": NAME, "deviceNumber": IMEI, "deviceSerialNumber": "SN17" },
        "person": { "personId": 18_000_200_004_u64, "name": NAME },
        "company": { "companyId": 180_001, "name": NAME },
        "asset": { "vin": VIN, "make": NAME, "model": NAME, "year": 2021, "licensePlate": NAME },
        NAME: NAME
    })
}

/// A row of the V2 pull API, and a flat webhook.
fn flat(at: i64) -> Value {
    json!({
        "pushType": "POSITION", "deviceNumber": IMEI, "deviceSerialNumber": "SN17", "date": at, "firstName": NAME,
        "lastName": NAME, "vin": VIN, "latitude": 38.627_017, "longitude": -90.199_417, "speed": 34, "direction": 47,
        "currentState": "MOVING", "engineOn": true, NAME: NAME
    })
}

/// Bodies of webhooks: sound ones, and those that are broken in one way each.
fn bodies(at: i64) -> Vec<Vec<u8>> {
    let with = |mut body: Value, key: &str, value: Value| {
        body[key] = value;
        body.to_string().into_bytes()
    };
    let whole = nested(at).to_string().into_bytes();
    let mut not_text = whole.clone();
    not_text.extend([0xff, 0xfe]);
    vec![
        flat(at + 1_000).to_string().into_bytes(),
        whole[..whole.len() / 2].to_vec(),
        whole.clone(),
        whole,
        not_text,
        NAME.as_bytes().to_vec(),
        format!("\"{NAME}\"").into_bytes(),
        format!("[[[[\"{NAME}\"").into_bytes(),
        json!({ NAME: NAME, "vin": VIN }).to_string().into_bytes(),
        json!([nested(at + 2_000), NAME, { NAME: VIN }, 38.627_017]).to_string().into_bytes(),
        with(nested(at), "date", json!(NAME)),
        with(nested(at), "date", json!(null)),
        with(nested(at + 3_000), "latitude", json!(format!("38.627017 {NAME}"))),
        with(nested(at + 4_000), "longitude", json!(-990.199_417)),
        with(nested(at + 5_000), "tracker", json!(NAME)),
        with(nested(at + 6_000), "batchedPositions", json!(format!("{NAME};38.627017,-90.199417"))),
        with(flat(at + 7_000), "pushType", json!(NAME)),
        with(flat(at), "deviceNumber", json!({ NAME: VIN })),
        Vec::new(),
    ]
}

/// A provider that answers rows, errors and what is no JSON; all marked.
async fn provider() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let at = jiff::Timestamp::now().as_millisecond() - 7_200_000;
    let answer = move |uri: Uri, headers: HeaderMap| async move {
        if !headers.values().any(|value| value.to_str().is_ok_and(|value| value.contains(PULL))) {
            return (StatusCode::FORBIDDEN, String::new());
        }
        match uri.path().rsplit('/').next().unwrap_or_default() {
            "locations" => {
                let rows = json!([flat(at), { "deviceNumber": NAME, "date": NAME, NAME: VIN }, NAME]);
                (
                    StatusCode::OK,
                    json!({ "responseType": "Success", "data": { "locations": rows } }).to_string(),
                )
            }
            "trips" => (StatusCode::INTERNAL_SERVER_ERROR, format!("{NAME} {VIN}")),
            "stops" => (StatusCode::UNAUTHORIZED, format!("{NAME} {PULL}")),
            _ => (StatusCode::OK, format!("<html>{NAME} {PULL} 38.627017</html>")),
        }
    };
    TaskTracker::new()
        .spawn(async move { axum::serve(listener, axum::Router::new().fallback(answer)).await });
    format!("http://{address}")
}

/// What was read, and where.
#[derive(Default)]
struct Read(Vec<(String, String)>);

impl Read {
    /// Sends, and keeps the whole answer.
    async fn ask(&mut self, request: RequestBuilder) -> (u16, String) {
        let answer = request.send().await.expect("an answer");
        let (status, place) = (answer.status().as_u16(), answer.url().path().to_owned());
        let head = format!("{:?}", answer.headers());
        let body = answer.text().await.expect("a text");
        self.0.push((format!("{place} {status}"), format!("{head}\n{body}")));
        (status, body)
    }

    fn leaks(&self) -> Vec<String> {
        let found = |line: &str| {
            let text = without_time(line).to_lowercase();
            MARKS.into_iter().find(|mark| text.contains(mark))
        };
        let lines = self.0.iter().flat_map(|(place, text)| text.lines().map(move |line| (place, line)));
        lines.filter_map(|(place, line)| Some(format!("{} in {place}: {line}", found(line)?))).collect()
    }
}

/// A line of the log without when it was written: of thousands of lines, microseconds now and then are the digits of a place.
fn without_time(line: &str) -> &str {
    let stamped = line.strip_prefix(r#"{"timestamp":""#).and_then(|rest| rest.split_once('"'));
    stamped.filter(|(time, _)| time.parse::<jiff::Timestamp>().is_ok()).map_or(line, |(_, rest)| rest)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_metrics_and_answers_tell_no_secret_and_nothing_of_a_payload() {
    let dir = tempfile::tempdir().unwrap();
    let accounts = format!(
        "accounts:\n  - id: acme\n    provider: linxup\n    webhook: {{ token: {{ env: TEST_TOKEN }} }}\n    poll:\n      - api: v2\n        \
         base_url: {}/ibis/rest/api/v2\n        token: {{ env: TEST_PULL }}\n        \
         feeds: {{ locations: 1s, trips: 1s, stops: 1s, alerts: 1s }}\n",
        provider().await
    );
    let config = configure(dir.path(), "bus: { local: {} }", &accounts, "delivery: { drain_delay: 0s }");
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replace("admin: {", "admin: { token: { env: TEST_ADMIN },");
    std::fs::write(&config, text).unwrap();
    let environment =
        [("TEST_TOKEN", TOKEN), ("TEST_PULL", PULL), ("TEST_ADMIN", ADMIN), ("FLEETBUS_LOG", "trace")];
    let mut bridge = Bridge::start_with(&config, &environment);
    let (client, mut read) = (Client::new(), Read::default());
    let (webhook, admin) = (bridge.webhook.clone(), bridge.admin.clone());
    let post = |path: &str, token: &str| {
        client.post(format!("{webhook}{path}")).header("authorization", format!("Bearer {token}"))
    };

    let at = jiff::Timestamp::now().as_millisecond() - 3_600_000;
    let mut statuses = Vec::new();
    for body in bodies(at) {
        statuses.push(read.ask(post("/webhooks/acme", TOKEN).body(body)).await.0);
    }
    assert!(statuses.contains(&201) && statuses.contains(&400), "{statuses:?}");
    let body = nested(at).to_string();
    read.ask(post("/webhooks/acme/Qx7%20Name", TOKEN).body(body.clone())).await;
    read.ask(post("/webhooks/acme", TOKEN).header("content-encoding", "gzip").body(body.clone())).await;
    read.ask(post("/webhooks/acme", TOKEN).header("traceparent", NAME).body(body.clone())).await;
    for (path, token) in [
        ("/webhooks/acme", WRONG),
        ("/webhooks/acme", "https://Qx7-host/"),
        ("/webhooks/acme", "eyJhbGciOiJIUzI1NiJ9.Qx7-jwt.Qx7-signature"),
        ("/webhooks/Qx7-account", TOKEN),
        ("/Qx7%20Name", TOKEN),
        ("/webhooks/acme?token=Qx7-query", ""),
    ] {
        let (status, _) = read.ask(post(path, token).body(body.clone())).await;
        assert!(status == 401 || status == 404, "{path}: {status}");
    }

    // What is asked for is told, or the test would prove nothing.
    let ask = |path: &str| client.get(format!("{admin}{path}")).bearer_auth(ADMIN);
    let mut told = Read::default();
    assert!(told.ask(ask("/v1/events?after=0&follow=false")).await.1.contains(NAME));
    let (_, parked) = read.ask(ask("/v1/parked?limit=1000")).await;
    let parked: Value = serde_json::from_str(&parked).unwrap();
    let rows = parked["parked"].as_array().unwrap();
    assert!(rows.len() > 3, "{parked}");
    let mut payloads = String::new();
    for row in rows {
        let seq = row["seq"].as_u64().unwrap();
        read.ask(ask(&format!("/v1/parked/{seq}"))).await;
        payloads += &told.ask(ask(&format!("/v1/parked/{seq}?payload=json"))).await.1;
    }
    assert!(payloads.contains(NAME) && payloads.contains(VIN));
    let told = told.leaks();
    assert!(MARKS[1..].iter().any(|mark| told.iter().any(|line| line.starts_with(mark))), "{told:?}");

    // The pollers have met each kind of answer.
    let begun = Instant::now();
    loop {
        let (_, accounts) = Read::default().ask(ask("/v1/accounts")).await;
        let accounts: Value = serde_json::from_str(&accounts).unwrap();
        let feeds = accounts["accounts"][0]["feeds"].as_array().unwrap();
        let polled =
            |feed: &Value| [&feed["succeeded"], &feed["failed"]].iter().any(|n| n.as_u64() > Some(0));
        if feeds.len() == 4 && feeds.iter().all(polled) {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{accounts}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for path in
        ["/metrics", "/readyz?verbose", "/readyz", "/healthz", "/", "/v1/accounts", "/v1/accounts/acme"]
    {
        read.ask(ask(path)).await;
    }
    let replay = client.post(format!("{admin}/v1/replays")).bearer_auth(ADMIN);
    read.ask(replay.header("content-type", "application/json").body("{}")).await;
    read.ask(client.get(format!("{admin}/v1/parked")).bearer_auth(WRONG)).await;
    read.ask(client.get(format!("{admin}/v1/parked?token=Qx7-query"))).await;
    read.0.push(command(&["check", "--config", &config.display().to_string()], &environment));
    let operator = [("FLEETBUS_ADMIN", admin.as_str()), ("FLEETBUS_ADMIN_TOKEN", ADMIN)];
    let shown = rows[0]["seq"].to_string();
    for args in [&["parked", "list"][..], &["parked", "show", &shown], &["replay", "--dry-run"]] {
        let (place, said) = command(args, &operator);
        assert!(said.contains("exit status: 0"), "{place}: {said}");
        read.0.push((place, said));
    }
    let stranger = [("FLEETBUS_ADMIN", admin.as_str()), ("FLEETBUS_ADMIN_TOKEN", WRONG)];
    for args in [
        &["parked", "list"][..],
        &["parked", "discard", "--all"],
        &["parked", "show", "1"],
        &["replay"],
        &["tail", "--no-follow"],
    ] {
        let (place, said) = command(args, &stranger);
        assert!(said.contains("exit status: 1"), "{place}: {said}");
        read.0.push((place, said));
    }
    // This one is told its own words; the log is not.
    Read::default().ask(ask("/v1/parked?reason=Qx7-reason")).await;

    bridge.signal(Signal::SIGTERM);
    bridge.wait_for_log("app.stopped", Duration::from_secs(60));
    assert!(bridge.ended(Duration::from_secs(60)).success());
    let log = bridge.log_text();
    assert!(log.contains("\"level\":\"TRACE\"") && log.contains("feed.failed"), "the log is talkative");
    read.0.push(("the log".to_owned(), log));
    let open =
        |place: &str| place == "the log" || place.starts_with("/metrics") || place.starts_with("/readyz");
    let subjects = read.0.iter().filter(|(place, text)| open(place) && text.contains(IMEI));
    let mut leaks: Vec<_> = subjects.map(|(place, _)| format!("the subject in {place}")).collect();
    leaks.extend(read.leaks());
    assert!(leaks.is_empty(), "{}", leaks.join("\n"));
}

/// What a command says, on both streams, and how it ends.
fn command(args: &[&str], environment: &[(&str, &str)]) -> (String, String) {
    let told = Command::new(env!("CARGO_BIN_EXE_fleetbus"))
        .args(args)
        .envs(environment.iter().copied())
        .output()
        .expect("the built binary");
    let (out, err) = (String::from_utf8_lossy(&told.stdout), String::from_utf8_lossy(&told.stderr));
    (format!("fleetbus {}", args.join(" ")), format!("{out}\n{err}\n{}", told.status))
}

/// What a bridge tells whose bus does not answer.
async fn with_bus_away(bus: String) -> Read {
    let (dir, mut read) = (tempfile::tempdir().unwrap(), Read::default());
    let accounts = "accounts: [{ id: acme, provider: linxup, webhook: { token: { env: TEST_TOKEN } } }]";
    let rest = "delivery: { drain_delay: 0s, publish_deadline: 10ms }";
    let config = configure(dir.path(), &bus, accounts, rest);
    let environment = [("TEST_TOKEN", TOKEN), ("TEST_BUS", PULL), ("FLEETBUS_LOG", "trace")];
    let path = config.display().to_string();
    let check = move || command(&["check", "--connect", "--config", &path], &environment);
    read.0.push(tokio::task::spawn_blocking(check).await.unwrap());
    let mut bridge = tokio::task::block_in_place(|| Bridge::start_with(&config, &environment));
    let client = Client::new();
    let url = format!("{}/webhooks/acme", bridge.webhook);
    let at = jiff::Timestamp::now().as_millisecond() - 3_600_000;
    for later in 0..30 {
        let sent = client.post(&url).bearer_auth(TOKEN).json(&nested(at + later * 1_000));
        assert_eq!(read.ask(sent).await.0, 201);
    }
    for path in ["/readyz?verbose", "/metrics", "/v1/accounts", "/v1/parked"] {
        read.ask(client.get(format!("{}{path}", bridge.admin))).await;
    }
    bridge.signal(Signal::SIGTERM);
    assert!(tokio::task::block_in_place(|| bridge.ended(Duration::from_secs(60))).success());
    read.0.push((format!("the log with {bus}"), bridge.log_text()));
    read
}

/// A port that nobody answers, and one that answers what is neither Kafka nor NATS.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_that_fails_is_told_without_what_signs_in_to_it() {
    let odd = provider().await.replace("http://", "");
    let properties = "security.protocol: sasl_plaintext, sasl.mechanism: PLAIN, sasl.username: me, sasl.password: { env: TEST_BUS }";
    let of = |address: &str| {
        [
            format!(
                "bus: {{ kafka: {{ brokers: '{address}', properties: {{ {properties}, debug: all }} }} }}"
            ),
            format!(
                "bus: {{ nats: {{ url: 'nats://{address}', user: me, password: {{ env: TEST_BUS }} }} }}"
            ),
            format!("bus: {{ nats: {{ url: 'nats://{address}', token: {{ env: TEST_BUS }} }} }}"),
        ]
    };
    let mut told = JoinSet::new();
    ["127.0.0.1:1", odd.as_str()].into_iter().flat_map(of).for_each(|bus| {
        told.spawn(with_bus_away(bus));
    });
    let read = Read(told.join_all().await.into_iter().flat_map(|read| read.0).collect());
    let logs = read.0.iter().filter(|(place, _)| place.starts_with("the log with"));
    assert_eq!(logs.count(), 6);
    let leaks = read.leaks();
    assert!(leaks.is_empty(), "{}", leaks.join("\n"));
}

#[test]
fn a_configuration_that_is_wrong_is_told_without_the_secrets_in_it() {
    let configurations = [
        "accounts: [{ id: acme, provider: linxup, webhook: { token: Qx7-token } }]",
        "accounts: [{ id: acme, provider: linxup, webhook: { token: { value: Qx7-token } } }]",
        "accounts: [{ id: acme, provider: linxup, webhook: { token: [Qx7-token] } }]",
        "admin: { token: Qx7-token }",
        "admin: { token: { env: TEST_EMPTY, file: Qx7-token } }\nbus: Qx7-token",
        "bus: { kafka: { brokers: 'localhost:9092', properties: { sasl.password: Qx7-token } } }",
        "bus: { kafka: { brokers: 'localhost:9092', properties: { ssl.key.pem: Qx7-token } } }",
        "bus: { nats: { url: 'nats://user:Qx7-token@localhost:4222' } }",
        "bus: { nats: { url: 'nats://localhost:4222', password: Qx7-token, user: me } }",
        "accounts: [{ id: acme, provider: linxup, poll: [{ api: v2, base_url: 'https://me:Qx7-token@example.com/', token: { env: TEST_EMPTY }, feeds: { trips: 5m } }] }]",
        "accounts: [{ id: acme, provider: linxup, poll: [{ api: v2, base_url: 'https://example.com/?key=Qx7-token', token: { env: TEST_EMPTY }, feeds: { trips: 5m } }] }]",
    ];
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fleetbus.yaml");
    for text in configurations {
        std::fs::write(&path, text).unwrap();
        for command in ["check", "run"] {
            let told = Command::new(env!("CARGO_BIN_EXE_fleetbus"))
                .args([command, "--config"])
                .arg(&path)
                .env("TEST_EMPTY", "")
                .output()
                .expect("the built binary");
            let said =
                format!("{}{}", String::from_utf8_lossy(&told.stdout), String::from_utf8_lossy(&told.stderr));
            assert_eq!(told.status.code(), Some(64), "{command} of {text}: {said}");
            assert!(!said.contains("Qx7-token"), "{command} of {text}: {said}");
        }
    }
}

#[test]
fn an_address_with_a_secret_in_it_is_refused_and_never_repeated() {
    let address = "http://me:Qx7-token@127.0.0.1:1";
    let named = [("FLEETBUS_ADMIN", address)];
    for words in [&["health"][..], &["parked", "list"][..]] {
        let flag = [words, &["--admin", address][..]].concat();
        for (place, said) in [command(&flag, &[]), command(words, &named)] {
            assert!(said.contains("exit status: 64"), "{place}: {said}");
            assert!(said.contains("it holds a user or a secret"), "{place}: {said}");
            assert!(!said.contains("Qx7-token"), "{place}: {said}");
        }
        let (place, said) = command(&[words, &["--help"][..]].concat(), &named);
        assert!(said.contains("FLEETBUS_ADMIN") && !said.contains("Qx7-token"), "{place}: {said}");
    }
}
