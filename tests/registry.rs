//! Confluent's framing, against a real Kafka and a real schema registry: what is framed is read by the schema that its id names
//! there, and what cannot be framed yet waits and comes in order. A stand-in shows what a registry should not do.

#[expect(dead_code, reason = "shared with the tests of the promises")]
#[path = "support/bridge.rs"]
mod bridge;
#[expect(dead_code, reason = "shared with the tests of the buses")]
#[path = "support/brokers.rs"]
mod brokers;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use fleetbus::bus::{Awaiting, Bus, Failure, Headers, Message, Outcome, Ticket};
use fleetbus::config::{self, Create, RegistryLogin, SchemaRegistry, SecretSource};
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use bridge::{Bridge, TOKEN, acme, configure};
use brokers::apicurio::Apicurio;
use brokers::{Consumed, Guard, shared_kafka, unique};

const PATIENCE: Duration = Duration::from_secs(60);
/// 2026-01-01, in seconds.
const NEW_YEAR: i64 = 1_767_225_600;

/// Reads a value as a consumer does who has nothing but the registry: magic byte, id, which message, message. What it is
/// about, and when, in seconds.
async fn read(registry: &Apicurio, message: &Consumed) -> (String, i64) {
    let (magic, rest) = message.payload.split_first().unwrap();
    let (id, rest) = rest.split_first_chunk().unwrap();
    let (path, event) = rest.split_first().unwrap();
    assert_eq!((*magic, *path), (0, 0), "magic byte, and the first message of the file");
    let (root, files) = registry.files(u32::from_be_bytes(*id)).await;
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files.iter().chain([(&"root.proto".to_owned(), &root)]) {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let set = protox::compile(["root.proto"], [dir.path()]).unwrap();
    let pool = DescriptorPool::from_file_descriptor_set(set).unwrap();
    let descriptor = pool.get_file_by_name("root.proto").unwrap().messages().next().unwrap();
    let event = DynamicMessage::decode(descriptor, event).unwrap();
    assert_eq!(event.unknown_fields().count(), 0);
    let text = |event: &DynamicMessage, name: &str| event.get_field_by_name(name).unwrap().into_owned();
    let time = text(&event, "occur_time");
    let seconds = text(time.as_message().unwrap(), "seconds").as_i64().unwrap();
    (text(&event, "subject").as_str().unwrap().to_owned(), seconds)
}

async fn times(registry: &Apicurio, messages: &[Consumed]) -> Vec<i64> {
    let mut times = Vec::new();
    for message in messages {
        let (subject, time) = read(registry, message).await;
        assert_eq!(subject, "350000000000017");
        times.push(time - NEW_YEAR);
    }
    times
}

fn config(dir: &Path, prefix: &str, url: &str, more: &str) -> PathBuf {
    let bus = format!(
        "bus: {{ kafka: {{ brokers: \"{}\", topic: \"{prefix}.{{type}}\", create: true, encoding: {{ registry: {{ \
         url: \"{url}/\"{more} }} }} }} }}",
        shared_kafka().brokers
    );
    configure(dir, &bus, acme(), "delivery: { publish_deadline: 10s, drain_delay: 0s }")
}

/// What became of a position so many seconds after the new year.
async fn push(bridge: &Bridge, at: i64) -> Value {
    let body = json!({
        "pushType": "POSITION", "deviceNumber": "350000000000017", "date": (NEW_YEAR + at) * 1_000, "latitude": 38.6,
        "longitude": -90.2, "currentState": "MOVING"
    });
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
    let url = format!("{}/webhooks/acme", bridge.webhook);
    let answer = client.post(url).bearer_auth(TOKEN).json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 201);
    answer.json().await.unwrap()
}

/// Reads the topic until so many are there.
fn topic(topic: &str, count: usize) -> Vec<Consumed> {
    let mut read = Vec::new();
    brokers::until("all are there", PATIENCE, || {
        read = shared_kafka().read(topic);
        read.len() >= count
    });
    assert_eq!(read.len(), count);
    read
}

/// `fleetbus check --connect`: whether all works, and its table.
fn check(config: &Path) -> (bool, String) {
    let done = Command::new(env!("CARGO_BIN_EXE_fleetbus"))
        .args(["check", "--connect", "--output", "json", "--config"])
        .arg(config)
        .env("TEST_TOKEN", TOKEN)
        .output()
        .unwrap();
    (done.status.success(), String::from_utf8(done.stdout).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_registered_at_start_frames_every_event_also_once_the_registry_is_gone() {
    let registry = Apicurio::start(Guard::Secured).await;
    let (prefix, dir) = (unique("framed"), tempfile::tempdir().unwrap());
    let ca = format!(", ca: \"{}\"", registry.certificates.as_ref().unwrap().ca.display());
    let name = format!("{prefix}.position");
    shared_kafka().create(&name, 1, 1, &[]).await;
    let register = config(dir.path(), &prefix, &registry.url, &format!("{ca}, register: true"));
    let mut bridge = Bridge::start(&register);
    bridge.wait_for_log("bus.checked", PATIENCE);
    for at in 0..3 {
        assert_eq!(push(&bridge, at).await["delivered"], 1, "{}", bridge.log_text());
    }
    let messages = topic(&name, 3);
    assert_eq!(times(&registry, &messages).await, [0, 1, 2]);
    // What is inside of the frame is what the headers say.
    assert!(messages[0].headers.contains(&("content-type".to_owned(), "application/protobuf".to_owned())));
    assert!(bridge.stop().success());

    // What is there is taken as it is, by one that may not register, too.
    let subjects = registry.subjects().await;
    let again = tempfile::tempdir().unwrap();
    let mut bridge = Bridge::start(&config(again.path(), &prefix, &registry.url, &ca));
    bridge.wait_for_log("bus.checked", PATIENCE);
    assert_eq!(push(&bridge, 3).await["delivered"], 1, "{}", bridge.log_text());
    assert_eq!(registry.subjects().await, subjects);
    assert_eq!(times(&registry, &topic(&name, 4)[3..]).await, [3]);
    let framed = messages[0].payload[..6].to_vec();
    drop(registry);
    assert_eq!(push(&bridge, 4).await["delivered"], 1, "{}", bridge.log_text());
    assert_eq!(topic(&name, 5)[4].payload[..6], framed, "an id never changes its meaning");
    assert!(bridge.stop().success());
}

/// Without a registry nothing is sent bare and nothing is lost: a start goes well, events wait, also through a restart, and
/// come framed and in order once the registry is there and has the schema.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_framed_yet_waits_and_comes_in_order() {
    let (port, prefix, dir) = (Apicurio::later(), unique("late"), tempfile::tempdir().unwrap());
    let name = format!("{prefix}.position");
    shared_kafka().create(&name, 1, 1, &[]).await;
    let look_up = config(dir.path(), &prefix, &Apicurio::url_at(port), "");
    let mut bridge = Bridge::start(&look_up);
    bridge.wait_for_log("bus.unreachable", PATIENCE);
    assert_eq!(push(&bridge, 0).await["parked"], 1);
    assert!(bridge.stop().success());
    let mut bridge = Bridge::start(&look_up);
    assert_eq!(push(&bridge, 1).await["parked"], 1);
    let (works, table) = check(&look_up);
    assert!(!works && table.contains("unreachable: the schema registry at http://127.0.0.1"), "{table}");

    // It answers now, and has nothing.
    let registry = Apicurio::start_at(port, Guard::Open).await;
    bridge.wait_for_log("bus.unusable", PATIENCE);
    assert_eq!(push(&bridge, 2).await["parked"], 1);
    let (works, table) = check(&look_up);
    assert!(!works && table.contains(&format!("{name}-value: it is not there")), "{table}");
    assert!(table.contains("set `register: true`"), "{table}");

    // Something else is there.
    let event = include_str!("../proto/fleetbus/v1/event.proto");
    let other = json!({ "schemaType": "PROTOBUF", "schema": "syntax = \"proto3\"; package fleetbus.v1; message FleetEvent { int64 id = 1; }" });
    registry.register(&format!("{prefix}.trip-value"), &other).await;
    let (works, table) = check(&look_up);
    assert!(
        !works && table.contains("FleetEvent 1 is `int64 id` there, and `string id` is written"),
        "{table}"
    );
    assert_eq!(topic(&name, 0).len(), 0, "nothing is sent without a frame");

    // Somebody registers it, as one does with other tools; no restart.
    let subject = format!("{name}-value");
    let files = [
        ("fleetbus/v1/objects.proto", include_str!("../proto/fleetbus/v1/objects.proto"), vec![]),
        ("fleetbus/v1/bodies.proto", include_str!("../proto/fleetbus/v1/bodies.proto"), vec!["objects"]),
        (subject.as_str(), event, vec!["bodies", "objects"]),
    ];
    for (subject, text, imports) in files {
        let file = |import: &str| format!("fleetbus/v1/{import}.proto");
        let reference = |import| json!({ "name": file(import), "subject": file(import), "version": 1 });
        let references: Vec<Value> = imports.into_iter().map(reference).collect();
        let schema = json!({ "schemaType": "PROTOBUF", "schema": text, "references": references });
        registry.register(subject, &schema).await;
    }
    let messages = topic(&name, 3);
    assert_eq!(times(&registry, &messages).await, [0, 1, 2]);
    bridge.wait_for_log("topic.accepted", PATIENCE);
    assert_eq!(push(&bridge, 3).await["delivered"], 1, "{}", bridge.log_text());
    assert_eq!(times(&registry, &topic(&name, 4)[3..]).await, [3]);
    assert!(bridge.stop().success());

    // An older edition will do; ours follows it where that is configured.
    let older = json!({ "schemaType": "PROTOBUF", "schema": "syntax = \"proto3\"; package fleetbus.v1; message FleetEvent { string id = 1; }" });
    registry.register(&format!("{prefix}.stop-value"), &older).await;
    let (_, table) = check(&look_up);
    assert!(
        table.contains(&format!("version 1 of subject {prefix}.stop-value is of an older edition")),
        "{table}"
    );
    let (_, table) = check(&config(dir.path(), &prefix, &registry.url, ", register: true"));
    assert!(table.contains(&format!("version 2 of subject {prefix}.stop-value")), "{table}");
}

/// One that takes connections and says nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_hangs_holds_up_neither_start_nor_sender_nor_stop() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (prefix, dir) = (unique("silent"), tempfile::tempdir().unwrap());
    let url = format!("http://{}", silent.local_addr().unwrap());
    let mut bridge = Bridge::start(&config(dir.path(), &prefix, &url, ""));
    assert_eq!(push(&bridge, 0).await["parked"], 1);
    bridge.wait_for_log("bus.unreachable", PATIENCE);
    assert!(bridge.stop().success());
}

struct Deaf;

impl Awaiting for Deaf {
    fn resolve(&self, _entry: u64, _outcome: Outcome) {}
}

/// A registry that is asked by nobody.
fn nobody(url: String) -> SchemaRegistry {
    let subject = "{topic}-value".to_owned();
    SchemaRegistry { url, subject, register: Create::Never, login: None, ca: None }
}

fn kafka(registry: SchemaRegistry) -> config::Kafka {
    config::Kafka {
        brokers: "127.0.0.1:1".to_owned(),
        topic: "t".to_owned(),
        create: Create::Never,
        properties: Vec::new(),
        registry: Some(registry),
    }
}

/// Why an event cannot be framed with a registry like this; none where it can.
async fn why_not<F>(login: Option<RegistryLogin>, answer: F) -> Option<String>
where
    F: Fn(Uri, HeaderMap) -> Response + Clone + Send + Sync + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/under/a/path", listener.local_addr().unwrap());
    let routes = Router::new().fallback(move |uri: Uri, headers: HeaderMap| {
        let answer = answer(uri, headers);
        async move { answer }
    });
    tokio_util::task::TaskTracker::new().spawn(async move { axum::serve(listener, routes).await });
    let registry = SchemaRegistry { login, ..nobody(url) };
    let bus = Bus::open(&config::Bus::Kafka(kafka(registry)), Path::new(".")).unwrap();
    let topic: fleetbus::event::Text = "t".into();
    let message = Message {
        topic: topic.clone(),
        key: "key".into(),
        id: uuid::Uuid::nil(),
        headers: Headers::default(),
        payload: b"event".as_slice().into(),
    };
    let refused = |bus: &Bus| match bus.submit(&message, Ticket::new(Arc::new(Deaf), 0)) {
        Ok(()) => None,
        Err((Failure::Refused(why), ticket)) => {
            ticket.withdraw();
            Some(why)
        }
        Err((failure, _)) => panic!("{failure}: a state of the topic alone"),
    };
    assert_eq!(refused(&bus).as_deref(), Some("its schema has not been looked up yet"));
    bus.prepare(&[topic]).await;
    refused(&bus)
}

/// One of no use is said at the start, not at the first question.
#[test]
fn a_ca_file_without_a_certificate_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, "not PEM").unwrap();
    let registry = SchemaRegistry { ca: Some(ca), ..nobody("http://127.0.0.1:1".to_owned()) };
    let refused = Bus::open(&config::Bus::Kafka(kafka(registry)), Path::new(".")).map(|_| ());
    assert!(refused.unwrap_err().to_string().ends_with("ca.pem holds no certificate in PEM"));
}

fn version(schema: &str) -> Response {
    json!({ "subject": "t-value", "id": 7, "version": 1, "schemaType": "PROTOBUF", "schema": schema })
        .to_string()
        .into_response()
}

const BARE: &str =
    "syntax = \"proto3\"; package fleetbus.v1; message Other {} message FleetEvent { string id = 1; }";

fn file(dir: &Path, text: &str) -> SecretSource {
    let path = dir.join("secret");
    std::fs::write(&path, text).unwrap();
    SecretSource::File(path)
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_asked_by_subject_with_the_login_and_nobody_else_is_told_it() {
    let dir = tempfile::tempdir().unwrap();
    let login =
        || RegistryLogin::Basic { user: "bridge".to_owned(), password: file(dir.path(), "hunter2\n") };
    let expected = "Basic YnJpZGdlOmh1bnRlcjI=";
    let asked = move |uri: Uri, headers: HeaderMap| {
        assert_eq!(uri.path(), "/under/a/path/subjects/t-value/versions/latest");
        if headers.get("authorization").is_some_and(|given| given == expected) {
            return version(BARE);
        }
        let problem = json!({ "error_code": 40101, "message": "who is there?" }).to_string();
        (StatusCode::UNAUTHORIZED, problem).into_response()
    };
    assert_eq!(why_not(Some(login()), asked).await, None);
    let why = why_not(None, asked).await.unwrap();
    assert!(why.ends_with("the registry says 401 Unauthorized: who is there?"), "{why}");
    let bearer = RegistryLogin::Bearer { token: file(dir.path(), "wrong") };
    let why = why_not(Some(bearer), asked).await.unwrap();
    assert!(why.contains("401") && !why.contains("wrong"), "{why}");

    // Where it sends us elsewhere, we do not go.
    let elsewhere = |_: Uri, _: HeaderMap| {
        (StatusCode::TEMPORARY_REDIRECT, [("location", "http://localhost:9/subjects")]).into_response()
    };
    let why = why_not(Some(login()), elsewhere).await.unwrap();
    assert!(why.contains("a redirect to another host is not followed"), "{why}");
    assert!(!why.contains("hunter2"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_registry_should_not_say_frames_nothing() {
    let why = why_not(None, |_, _| "<html>".into_response()).await.unwrap();
    assert!(why.contains("its answer is not a registry's"), "{why}");
    let endless = |_: Uri, _: HeaderMap| Body::from(vec![b' '; 3 << 20]).into_response();
    let why = why_not(None, endless).await.unwrap();
    assert!(why.contains("its answer is larger than 1 MiB"), "{why}");
    let away = |_: Uri, _: HeaderMap| StatusCode::SERVICE_UNAVAILABLE.into_response();
    let why = why_not(None, away).await.unwrap();
    assert!(why.contains("the registry does not answer: 503"), "{why}");
    let other = |_: Uri, _: HeaderMap| StatusCode::NOT_FOUND.into_response();
    let why = why_not(None, other).await.unwrap();
    assert!(why.contains("there is no schema registry under this URL"), "{why}");
    let avro = |_: Uri, _: HeaderMap| {
        json!({ "id": 1, "version": 1, "schema": "\"string\"" }).to_string().into_response()
    };
    let why = why_not(None, avro).await.unwrap();
    assert!(why.ends_with("it is of type AVRO"), "{why}");
    let why =
        why_not(None, |_, _| version("syntax = \"proto3\"; package a; message FleetEvent {}")).await.unwrap();
    assert!(why.ends_with("its file has no message fleetbus.v1.FleetEvent"), "{why}");
}
