//! The configuration at its border: a file's text in, a meaning or every problem out; and `fleetbus check` as a process.

#![expect(clippy::panic, clippy::expect_used, reason = "a test may")]

#[path = "config/documents.rs"]
mod documents;
#[path = "config/process.rs"]
mod process;
#[path = "config/registry.rs"]
mod registry;
#[path = "config/telemetry.rs"]
mod telemetry;

use std::io;
use std::path::Path;
use std::time::Duration;

use fleetbus::config::load::World;
use fleetbus::config::{AdminToken, Bus, Create, Loaded, PollApi, Property, Scope, SecretSource, load};

/// An environment in which the variables of the examples are set, and a few files exist.
struct Given;

impl World for Given {
    fn variable(&self, name: &str) -> Option<String> {
        match name {
            "EMPTY" => Some("\n".to_owned()),
            "UNSET" | "fbw_3fa9c1" => None,
            "ONE" | "TWIN" => Some("hunter2".to_owned()),
            "LINES" => Some("hunter2\nhunter3\n".to_owned()),
            _ => Some(format!("s3cret of {name}")),
        }
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        match path.to_str() {
            Some("/run/secrets/acme" | "cert.pem" | "key.pem") => Ok(b"s3cret\n".to_vec()),
            Some("/empty") => Ok(Vec::new()),
            Some("/binary") => Ok(vec![0xff]),
            _ => Err(io::Error::new(io::ErrorKind::NotFound, "no such file")),
        }
    }
}

fn meaning(text: &str) -> Loaded {
    load(text, &Given).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn check(text: &str, expected: &[&str]) {
    let problems = match load(text, &Given) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    };
    assert_eq!(problems, expected, "\n{text}");
}

/// A problem below one account that is otherwise right.
fn check_account(lines: &str, expected: &[&str]) {
    let lines: Vec<String> = lines.lines().map(|line| format!("    {line}\n")).collect();
    check(&format!("accounts:\n  - id: acme\n    provider: linxup\n{}", lines.concat()), expected);
}

/// A problem below Kafka.
fn check_kafka(lines: &str, expected: &[&str]) {
    let lines: Vec<String> = lines.lines().map(|line| format!("    {line}\n")).collect();
    check(&format!("bus:\n  kafka:\n    brokers: localhost:9092\n{}", lines.concat()), expected);
}

/// A problem below NATS.
fn check_nats(lines: &str, expected: &[&str]) {
    let lines: Vec<String> = lines.lines().map(|line| format!("    {line}\n")).collect();
    check(&format!("bus:\n  nats:\n    url: nats://localhost:4222\n{}", lines.concat()), expected);
}

const EXAMPLE: &str = r#"
listen: { address: 0.0.0.0:8080 }
admin: { address: 0.0.0.0:9090, token: { env: FLEETBUS_ADMIN_TOKEN } }
data_dir: ./data
bus:
  kafka: { brokers: "localhost:9092", topic: "fleet.{type}", create: false,
           properties: { compression.type: lz4, sasl.password: { env: KAFKA_PASSWORD } } }
accounts:
  - id: acme
    provider: linxup
    webhook: { token: { env: ACME_WEBHOOK_TOKEN } }
    poll:
      - { api: v2, base_url: "https://app02.linxup.com/ibis/rest/api/v2", token: { env: ACME_V2_TOKEN },
          feeds: { locations: 60s, history: 15m, trips: 5m, stops: 5m, alerts: 1m, usage-hours: 15m, geofence-activity: 5m, trackers: 1h, geofences: 1h } }
      - { api: v3, base_url: "https://api.linxup.com/pullapi/api/v3", key: { env: ACME_V3_KEY }, feeds: { positions: 60s } }
    limits: { in_flight: 32MiB, parked: 2GiB }
delivery: { publish_deadline: 2s, retries: 3, breaker: { failure_rate: 0.5, window: 30s } }
replay: { retention: 7d, max_size: 10GiB }
dedup: { positions: 48h, others: 7d, memory: 64MiB }
"#;

#[test]
fn the_documented_example_means_what_it_says() {
    let Loaded { config, notes } = meaning(EXAMPLE);
    assert_eq!(notes, Vec::<String>::new());
    assert_eq!(config.listen.address.to_string(), "0.0.0.0:8080");
    let token = SecretSource::Env("FLEETBUS_ADMIN_TOKEN".to_owned());
    assert_eq!(config.admin.tokens, [AdminToken { name: "admin".to_owned(), scope: Scope::Write, token }]);
    let Bus::Kafka(kafka) = &config.bus else { panic!("not kafka") };
    assert_eq!((kafka.topic.as_str(), kafka.create), ("fleet.{type}", Create::Never));
    assert!(matches!(&kafka.properties[..], [(codec, Property::Plain(lz4)), (_, Property::Secret(_))]
        if codec == "compression.type" && lz4 == "lz4"));
    let [acme] = &config.accounts[..] else { panic!("not one account") };
    assert_eq!((acme.id.as_str(), acme.limits.parked, acme.limits.rate), ("acme", 2 << 30, None));
    assert!(matches!(acme.poll[0].api, PollApi::V2 { .. }));
    assert_eq!(acme.poll[0].feeds.len(), 9);
    assert!(matches!(acme.poll[1].api, PollApi::V3 { .. }));
    assert_eq!(config.delivery.publish_deadline, Duration::from_secs(2));
    assert_eq!(config.dedup.positions, Duration::from_secs(48 * 3_600));
}

#[test]
fn the_commented_alternatives_of_the_example_load_too() {
    let nats = meaning(
        "bus:\n  nats: { url: \"nats://localhost:4222\", subject: \"fleet.{type}.{account}.{subject}\", stream: FLEET, \
         create: true, credentials: { file: /run/secrets/acme } }\n",
    );
    let Bus::Nats(nats) = nats.config.bus else { panic!("not nats") };
    assert_eq!(nats.create, Create::Missing);
    assert_eq!(nats.credentials, Some(SecretSource::File("/run/secrets/acme".into())));
    let Bus::Local(local) = meaning("bus: { local: { retention: 24h, max_size: 1GiB } }").config.bus else {
        panic!("not local")
    };
    assert_eq!((local.retention, local.max_size), (Duration::from_secs(86_400), 1 << 30));
    assert!(matches!(meaning("bus:\n  local:\n").config.bus, Bus::Local(_)));
}

#[test]
fn an_empty_file_is_the_local_bus_and_says_so() {
    for text in ["", "# nothing yet\n", "{}"] {
        let loaded = meaning(text);
        assert!(matches!(loaded.config.bus, Bus::Local(_)));
        assert!(loaded.notes[0].starts_with("no bus is configured"), "{:?}", loaded.notes);
        assert!(loaded.notes[1].starts_with("no account is configured"), "{:?}", loaded.notes);
    }
}

#[test]
fn an_open_operator_port_without_a_token_is_said() {
    let loaded = meaning("bus: { local: {} }\nadmin: { address: 0.0.0.0:9090 }\n");
    assert!(loaded.notes[0].starts_with("admin.token is not set"), "{:?}", loaded.notes);
}

#[test]
fn a_secret_that_no_header_carries_is_said() {
    let text = |name: &str| {
        let account = format!("{{ id: acme, provider: linxup, webhook: {{ token: {{ env: {name} }} }} }}");
        format!("bus: {{ local: {{}} }}\nadmin: {{ token: {{ env: {name} }} }}\naccounts: [ {account} ]\n")
    };
    assert_eq!(meaning(&text("ONE_LINE")).notes, Vec::<String>::new());
    let said = "cannot be sent: the secret in environment variable LINES has a line break within, or another character that no header \
                carries; name one secret, alone and on one line";
    check(
        &text("LINES"),
        &[&format!("2:10: admin.token: {said}"), &format!("3:54: accounts[0].webhook.token: {said}")],
    );
}

#[test]
fn every_problem_is_found_at_once_in_the_order_of_the_file() {
    check(
        "listen: { adress: 0.0.0.0:8080 }
admin: { address: 0.0.0.0:8080, token: hunter2 }
bus:
  kafka: { brokers: kafka-1, topic: \"fleet.{vehicle}\", create: yes }
accounts:
  - id: acme corp
    provider: fleetsharp
    webhook: { token: { env: UNSET } }
    poll:
      - { api: v2, base_url: \"http://app02.linxup.com/v2\", token: { file: /gone }, feeds: { trips: 5 } }
      - { api: v3, base_url: \"https://api.linxup.com/v3\", key: { env: K }, feeds: { trips: 5m, position: 1m } }
delivery: { publish_deadline: 2 s, retries: many, breaker: { failure_rate: 50 } }
replay: { retention: 1w, max_size: \"${SIZE}\" }
",
        &[
            "1:11: listen.adress: is an unknown key; did you mean `address`?",
            "2:19: admin.address: is the port of listen too: 8080; give the operator's port a number of its own",
            "2:40: admin.token: is a secret written out; write { env: NAME } or { file: PATH }, never the value",
            "4:21: bus.kafka.brokers: is not a list of host:port; write e.g. kafka-1:9092,kafka-2:9092",
            "4:37: bus.kafka.topic: `{vehicle}` is not a part of a template; it takes {type} {provider} {account}",
            "4:64: bus.kafka.create: is neither true nor false; write one of them",
            "6:9: accounts[0].id: `acme corp` is not an account's id; 1 to 64 of A-Z a-z 0-9 _ -",
            "7:15: accounts[0].provider: `fleetsharp` is not a provider that is known; write linxup: FleetSharp, AwareGPS, CommandGPS and MotoSafety are the same platform",
            "8:30: accounts[0].webhook.token.env: the environment variable UNSET is not set; set it before the start",
            "10:30: accounts[0].poll[0].base_url: is neither https, nor http on loopback; write https: it carries the secret",
            "10:75: accounts[0].poll[0].token.file: /gone cannot be read (no such file); name a file that this process may read, with the secret alone in it",
            "10:100: accounts[0].poll[0].feeds.trips: `5` is not a duration; write 500ms, 2s, 15m, 48h or 7d",
            "11:85: accounts[0].poll[1].feeds.trips: cannot be polled from API v3: no start time of its rows has been seen, and so they have no id; poll it from v2, or take webhooks",
            "11:96: accounts[0].poll[1].feeds.position: is not a feed; did you mean `positions`?",
            "12:45: delivery.retries: is not a number from 0 to 10; write 3",
            "12:76: delivery.breaker.failure_rate: is not a share between 0 and 1; write 0.5",
            "13:22: replay.retention: `1w` is not a duration; write 500ms, 2s, 15m, 48h or 7d",
            "13:36: replay.max_size: holds `${`, and variables are not filled in; write the value itself; { env: NAME } is taken where a secret is expected",
        ],
    );
}

#[test]
fn what_is_not_yaml_says_where() {
    check(
        "bus: [",
        &[
            "1:6: this is not YAML: unclosed bracket '['; mend it here or in the line before; other problems are found after that",
        ],
    );
    check("- a\n", &["1:1: is not a map; write `key: value` pairs below it, or in { }"]);
    check("dedup: {}\ndedup: {}\n", &["2:1: dedup: is written twice, first in line 1; keep one of them"]);
    check("listen:\n  address:\n", &["2:3: listen.address: has no value; write one, or leave the key out"]);
    for map in ["replay", "delivery", "admin", "listen", "dedup"] {
        check(
            &format!("{map}:\n"),
            &[&format!("1:1: {map}: has no value; write keys below it, or leave it out")],
        );
    }
    check("data_dir: \"\"\n", &["1:11: data_dir: is empty; write a value, or leave the key out"]);
    check("data_dir: [a]\n", &["1:1: data_dir: is not a single value; write one value after the key"]);
    check("replay: 7d\n", &["1:9: replay: is not a map; write `key: value` pairs below it, or in { }"]);
}

#[test]
fn exactly_one_bus() {
    let fix = "write one of kafka, nats and local, or leave `bus` out for the embedded one";
    check("bus:\n", &["1:1: bus: has no value; write keys below it, or leave it out"]);
    check("bus: {}\n", &[&format!("1:1: bus: names no bus; {fix}")]);
    check("bus: { kafak: {} }\n", &["1:8: bus.kafak: is an unknown key; did you mean `kafka`?"]);
    check(
        "bus: { local: {}, nats: { url: \"nats://a:1\" } }\n",
        &["1:1: bus: names more than one bus; keep exactly one of kafka, nats and local"],
    );
    check(
        "bus: { kafka: {} }\n",
        &["1:15: bus.kafka.brokers: is missing; write host:port, several with commas"],
    );
}

#[test]
fn properties_that_the_promises_rest_on_are_refused_with_the_reason() {
    let why = |name: &str| {
        let problems =
            load(&format!("bus: {{ kafka: {{ brokers: 'a:1', properties: {{ {name}: 1 }} }} }}"), &Given);
        let problems = problems.map(|_| ()).expect_err(name);
        assert_eq!(problems.len(), 1, "{name}");
        assert_eq!(problems[0].path, format!("bus.kafka.properties.{name}"));
        problems[0].what.clone()
    };
    for name in [
        "acks",
        "request.required.acks",
        "enable.idempotence",
        "linger.ms",
        "queue.buffering.max.ms",
        "partitioner",
        "message.timeout.ms",
        "delivery.timeout.ms",
        "transactional.id",
        "retries",
        "message.send.max.retries",
        "max.in.flight",
        "max.in.flight.requests.per.connection",
        "delivery.report.only.error",
        "queuing.strategy",
        "statistics.interval.ms",
        "reconnect.backoff.ms",
        "reconnect.backoff.max.ms",
        "topic.metadata.propagation.max.ms",
        "log.connection.close",
        "bootstrap.servers",
    ] {
        assert!(why(name).starts_with("is not yours to set: "), "{name}: {}", why(name));
    }
}

#[test]
fn properties_are_librdkafkas_and_their_secrets_are_not_literals() {
    let secret = "is a secret written out; write { env: NAME } or { file: PATH }, never the value";
    for name in ["sasl.password", "sasl.oauthbearer.client.secret", "ssl.key.pem", "x.token", "my.key"] {
        let expected = format!("5:7: bus.kafka.properties.{name}: {secret}");
        check_kafka(&format!("properties:\n  {name}: hunter2"), &[&expected]);
    }
    check_kafka("properties:\n  sasl.password: { env: PASSWORD }\n  ssl.key.location: key.pem", &[]);
    check_kafka(
        "properties:\n  compression.typ: lz4\n  security.protocol: none\n  socket.keepalive.enable: true",
        &[
            "5:7: bus.kafka.properties.compression.typ: is not a property of librdkafka, or not of this build; look it up in librdkafka's CONFIGURATION.md: names are not those of the Java client",
            "6:7: bus.kafka.properties.security.protocol: has a value that librdkafka does not take; look it up in librdkafka's CONFIGURATION.md",
        ],
    );
}

#[test]
fn kafka_topics_are_legal_whatever_fills_them_in() {
    check_kafka("topic: all", &[]);
    check_kafka("topic: 'a-{provider}.{account}_{type}'", &[]);
    let legal = "letters, digits, dots, underscores and hyphens only";
    check_kafka(
        "topic: 'fleet/{type}'",
        &[&format!("4:12: bus.kafka.topic: is not a legal Kafka topic; {legal}")],
    );
    check_kafka(
        "topic: 'fleet.{subject}'",
        &[
            "4:12: bus.kafka.topic: a topic for each subject would be thousands of topics; leave {subject} out: it is the message's key",
        ],
    );
    let takes = "it takes {type} {provider} {account}";
    check_kafka(
        "topic: 'fleet.{type'",
        &[&format!("4:12: bus.kafka.topic: `{{type` is not a part of a template; {takes}")],
    );
    check_kafka(
        "topic: 'fleet.type}'",
        &[&format!("4:12: bus.kafka.topic: `}}` is not a part of a template; {takes}")],
    );
    check_kafka(
        "topic: '${PREFIX}.{type}'",
        &[
            "4:12: bus.kafka.topic: holds `${`, and variables are not filled in; write the value itself; { env: NAME } is taken where a secret is expected",
        ],
    );
    let long = "a".repeat(231);
    check_kafka(
        &format!("topic: '{long}{{type}}'"),
        &["4:12: bus.kafka.topic: may grow longer than a topic's 249 characters; shorten it"],
    );
}

#[test]
fn nats_subjects_streams_and_addresses_are_legal() {
    check_nats("subject: '{provider}.{account}.{type}.{subject}'\nstream: FLEET_2", &[]);
    let rules = "is not a legal NATS subject; tokens between dots, none empty, without blanks, `*` and `>`";
    for wrong in ["fleet.>", "fleet.*", "fleet..{type}", "fleet.{type}.", "fleet {type}"] {
        check_nats(&format!("subject: '{wrong}'"), &[&format!("4:14: bus.nats.subject: {rules}")]);
    }
    check_nats(
        "stream: a.b",
        &["4:13: bus.nats.stream: is not a legal stream's name; no dots, blanks, slashes or wildcards"],
    );
    check_nats("user: me", &["3:5: bus.nats: has one of `user` and `password`; write both, or neither"]);
    check_nats("key: key.pem", &["3:5: bus.nats: is not both `cert` and `key`; name two PEM files"]);
    check_nats("cert: cert.pem\nkey: key.pem\ntls_first: true", &[]);
    check_nats(
        "tls_first: first",
        &["4:16: bus.nats.tls_first: is neither true nor false; write one of them"],
    );
    check_nats(
        "user: me\npassword: { env: P }\ntoken: { env: T }",
        &[
            "3:5: bus.nats: has more than one way to sign in; keep one of credentials, user with password, and token",
        ],
    );
    check(
        "bus: { nats: { url: 'nats://me:hunter2@host' } }",
        &[
            "1:21: bus.nats.url: holds a user or a secret; write `user` and `password`, `token` or `credentials` beside it",
        ],
    );
    check(
        "bus: { nats: { url: 'kafka://host' } }",
        &["1:21: bus.nats.url: is not a NATS address; write nats://host:4222 or tls://host:4222"],
    );
}

#[test]
fn secrets_are_references_that_can_be_read_and_nothing_else() {
    let check_token = |token: &str, expected: &str| {
        check_account(&format!("webhook: {{ token: {token} }}"), &[expected]);
    };
    let write = "write { env: NAME } or { file: PATH }";
    check_token(
        "hunter2",
        &format!("4:23: accounts[0].webhook.token: is a secret written out; {write}, never the value"),
    );
    check_token(
        "{ hunter2 }",
        &format!(
            "4:16: accounts[0].webhook.token: is neither an `env` nor a `file`; {write}, and nothing else"
        ),
    );
    check_token(
        "{ env: A, file: /b }",
        &format!(
            "4:16: accounts[0].webhook.token: is neither an `env` nor a `file`; {write}, and nothing else"
        ),
    );
    check_token(
        "{ env: EMPTY }",
        "4:30: accounts[0].webhook.token.env: the environment variable EMPTY is empty; set it before the start",
    );
    check_token(
        "{ env: $ACME }",
        "4:30: accounts[0].webhook.token.env: is not the name of an environment variable; letters, digits and underscores only",
    );
    // The secret itself, where its place is named: it is not repeated.
    check_token(
        "{ env: fbw_3fa9c1 }",
        "4:30: accounts[0].webhook.token.env: the environment variable that is named here is not set; write the name of a variable that is set before the start, never the secret",
    );
    let alone = "name a file that this process may read, with the secret alone in it";
    check_token(
        "{ file: fbw_3fa9c1 }",
        &format!(
            "4:31: accounts[0].webhook.token.file: the file that is named here cannot be read (no such file); {alone}"
        ),
    );
    check_token(
        "{ file: /empty }",
        &format!("4:31: accounts[0].webhook.token.file: /empty is empty; {alone}"),
    );
    check_token(
        "{ file: /binary }",
        &format!("4:31: accounts[0].webhook.token.file: /binary is not UTF-8 text; {alone}"),
    );
    check_account("webhook: { token: { file: /run/secrets/acme } }", &[]);
    check_account("webhook: {}", &[&format!("4:14: accounts[0].webhook.token: is missing; {write}")]);
    check(
        "listen: { tls: { cert: cert.pem } }",
        &["1:16: listen.tls: is not both `cert` and `key`; name two PEM files"],
    );
    check("listen: { tls: { cert: cert.pem, key: key.pem } }", &[]);
}

#[test]
fn accounts_are_distinct_and_reached_somehow() {
    let token = "webhook: { token: { env: T } }";
    check(
        &format!(
            "accounts:\n  - {{ id: a, provider: linxup, {token} }}\n  - {{ id: a, provider: linxup, {token} }}\n"
        ),
        &[
            "3:11: accounts[1].id: `a` is the id of accounts[0] too; choose another: it is part of every event's id",
        ],
    );
    check_account(
        "limits: {}",
        &["2:5: accounts[0]: has neither `webhook` nor `poll`; write one of them, or remove the account"],
    );
    check(
        "accounts: acme\n",
        &["1:11: accounts: is not a list; write `- id: …` below it, once for each account"],
    );
    check(
        "accounts:\n  - {}\n",
        &[
            "2:5: accounts[0]: has neither `webhook` nor `poll`; write one of them, or remove the account",
            "2:5: accounts[0].id: is missing; choose it once: it is part of every event's id",
            "2:5: accounts[0].provider: is missing; write linxup",
        ],
    );
    check_account(
        &format!("{token}\nlimits: {{ in_flight: 1GiB, parked: 20GiB, rate: 500 }}"),
        &[
            "5:26: accounts[0].limits.in_flight: is more than the 256MiB that all accounts have together; write 256MiB or less",
            "5:40: accounts[0].limits.parked: is more than the whole store may hold, replay.max_size 10GiB; lower it, or raise replay.max_size",
            "5:53: accounts[0].limits.rate: `500` is not a rate; write 500/s",
        ],
    );
}

#[test]
fn each_api_has_its_own_feeds_and_secret() {
    let url = "base_url: 'https://h/v'";
    let v2 = "api: v2, token: { env: T }";
    let v3 = "api: v3, key: { env: K }";
    let poll = |entry: &str, expected: &[&str]| check_account(&format!("poll:\n  - {{ {entry} }}"), expected);
    poll(&format!("{v2}, {url}, feeds: {{ history: 1s }}"), &[]);
    poll(&format!("{v3}, {url}, feeds: {{ positions: 1m, stops: 5m, trackers: 1h }}"), &[]);
    poll(&format!("{v2}, base_url: 'http://127.0.0.1:9/v', feeds: {{ stops: 1s }}"), &[]);
    poll(&format!("{v2}, base_url: 'http://[::1]:9/v', feeds: {{ stops: 1s }}"), &[]);
    let key = "accounts[0].poll[0]";
    poll(
        &format!("{v2}, {url}, feeds: {{ stops: 500ms }}"),
        &[&format!("5:80: {key}.feeds.stops: is too short; write 1s to 366d")],
    );
    poll(
        &format!("{v2}, {url}, feeds: {{ positions: 1m }}"),
        &[&format!(
            "5:73: {key}.feeds.positions: is not a feed of API v2; it has locations, history, trips, stops, alerts, usage-hours, geofence-activity, trackers, geofences"
        )],
    );
    poll(
        &format!("{v3}, {url}, feeds: {{ alerts: 1m, geofences: 1h }}"),
        &[
            &format!(
                "5:71: {key}.feeds.alerts: cannot be polled from API v3: no identity of its rows is known; poll it from v2, or take webhooks"
            ),
            &format!(
                "5:83: {key}.feeds.geofences: is not a feed of API v3; it has positions, stops, trackers"
            ),
        ],
    );
    poll(
        &format!("{v2}, {url}"),
        &[&format!("5:9: {key}.feeds: is missing; say what to fetch, and how often: {{ history: 15m }}")],
    );
    poll(
        &format!("api: v3, token: {{ env: T }}, {url}, feeds: {{ stops: 1m }}"),
        &[
            &format!("5:9: {key}.key: is missing; write {{ env: NAME }} or {{ file: PATH }}"),
            &format!("5:20: {key}.token: does not open API v3; write `key`"),
        ],
    );
    poll(
        &format!("{v2}, base_url: 'https://me:hunter2@h/v', feeds: {{ stops: 1m }}"),
        &[&format!("5:49: {key}.base_url: holds a user or a secret; secrets are `token` and `key`")],
    );
    check_account(
        &format!(
            "poll:\n  - {{ {v2}, {url}, feeds: {{ stops: 1m }} }}\n  - {{ {v2}, base_url: 'https://other/v', feeds: {{ stops: 1m }} }}"
        ),
        &[
            "6:77: accounts[0].poll[1].feeds.stops: is polled by an entry before this one too; keep one of them",
        ],
    );
    check_account(
        "poll: []",
        &["4:5: accounts[0].poll: is not a list of APIs; write `- { api: v2, … }` below it, or leave it out"],
    );
}

#[test]
fn a_horizon_covers_what_pollers_read_again() {
    let polled = "accounts: [{ id: a, provider: linxup, poll: [{ api: v3, base_url: 'https://h', key: { env: K }, feeds: { stops: 1m } }] }]\n";
    check(
        &format!("{polled}dedup: {{ positions: 24h, others: 46h }}"),
        &[
            "2:21: dedup.positions: is shorter than the 46h that pollers read again; write 48h or more, else what is read again is published again",
        ],
    );
    check("dedup: { positions: 24h }", &[]);
}

#[test]
fn no_problem_repeats_what_could_be_a_secret() {
    let text = "
admin: { token: hunter2 }
bus: { kafka: { brokers: 'a:1', properties: { sasl.password: hunter2, ssl.key.password: [hunter2] } } }
accounts:
  - id: a
    provider: linxup
    webhook: { token: { hunter2: 1, env: hunter-2 } }
    poll: [{ api: v2, token: { value: hunter2 }, base_url: 'https://u:hunter2@h/?token=hunter2', feeds: { stops: 1m } }]
";
    let problems = load(text, &Given).map(|_| ()).expect_err("wrong");
    assert_eq!(problems.len(), 6, "{problems:#?}");
    for problem in problems {
        assert!(!problem.to_string().contains("hunter"), "{problem}");
    }
}

#[test]
fn admin_tokens_have_names_of_their_own_and_a_scope() {
    let one = |written: &str| {
        format!("admin: {{ token: {{ env: FLEETBUS_ADMIN_TOKEN }}, tokens: [{written}] }}\naccounts: []\n")
    };
    let token = "token: { env: ACME_TOKEN }";
    let loaded = load(&one(&format!("{{ name: grafana, scope: read, {token} }}")), &Given).expect("right");
    let names: Vec<_> =
        loaded.config.admin.tokens.iter().map(|token| (token.name.as_str(), token.scope)).collect();
    assert_eq!(names, [("admin", Scope::Write), ("grafana", Scope::Read)]);
    let check = |written: &str, expected: &str| {
        let problems = load(&one(written), &Given).map(|_| ()).expect_err("wrong");
        let said: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert!(said.iter().any(|said| said.contains(expected)), "{said:?}");
    };
    check(&format!("{{ name: admin, scope: read, {token} }}"), "`admin` is taken already");
    check(&format!("{{ name: loopback, scope: read, {token} }}"), "`loopback` is taken already");
    check(&format!("{{ name: a b, scope: read, {token} }}"), "`a b` is not a token's name");
    check(&format!("{{ name: x, scope: all, {token} }}"), "`all` is not a scope");
    check("{ name: x, scope: read, token: hunter2 }", "is a secret written out");
    check(&format!("{{ name: x, {token} }}"), "scope: is missing");
}

#[test]
fn two_admin_tokens_of_one_secret_contradict_each_other() {
    let fix = "give each a secret of its own: it alone tells who asks, and what they may do";
    let tokens = |one: &str, other: &str| {
        format!(
            "admin:\n  tokens:\n    - {{ name: eve, scope: read, token: {one} }}\n    - {{ name: bob, scope: write, token: {other} }}\n"
        )
    };
    let twins = format!("4:34: admin.tokens[1].token: `bob` has the secret of `eve`; {fix}");
    check(&tokens("{ env: ONE }", "{ env: TWIN }"), &[&twins]);
    check(&tokens("{ env: T }", "{ env: T }"), &[&twins]);
    check(&tokens("{ env: ONE }", "{ env: OTHER }"), &[]);
    check(
        "admin: { token: { env: ONE }, tokens: [{ name: eve, scope: read, token: { env: TWIN } }] }",
        &[&format!("1:66: admin.tokens[0].token: `eve` has the secret of `admin`; {fix}")],
    );
}
