//! The JSON Schema of `fleetbus.yaml`, for editors: `fleetbus check --schema`, committed as `docs/fleetbus.schema.json`.
//! It says forms and defaults; `load` is what decides. A test holds its keys against those that `load` takes.

use serde_json::{Map, Value, json};

use crate::provider::Feed;

/// The schema, in draft 2020-12.
#[must_use]
pub fn schema() -> Value {
    let mut root = object(
        "Configuration of fleetbus",
        &[
            ("listen", listen()),
            ("admin", admin()),
            (
                "data_dir",
                text(
                    "Replay store, cursors, what was seen, the local bus. A local disk, of this process alone",
                    "./data",
                ),
            ),
            ("bus", bus()),
            ("accounts", list(account(), "Whose events")),
            ("delivery", delivery()),
            ("replay", replay()),
            ("dedup", dedup()),
            ("custom_data", custom_data()),
            ("telemetry", telemetry()),
        ],
        &[],
    );
    root.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    root.insert("title".to_owned(), json!("fleetbus.yaml"));
    root.insert("$defs".to_owned(), json!({ "secret": secret_form() }));
    Value::Object(root)
}

fn listen() -> Value {
    let tls = map(
        "TLS; read again when the files change",
        &[
            ("cert", file("Certificate chain, PEM; read again when it changes")),
            ("key", file("Private key, PEM; read again when it changes")),
        ],
        &["cert", "key"],
    );
    map(
        "The webhook port",
        &[("address", text("Address and port of the webhooks", "0.0.0.0:8080")), ("tls", tls)],
        &[],
    )
}

fn admin() -> Value {
    let name = json!({
        "type": "string",
        "pattern": "^[A-Za-z0-9_.@-]{1,64}$",
        "description": "Whose it is: the audit log names it",
    });
    let scope = json!({ "enum": ["read", "write"], "description": "Whether it may change something" });
    let one = map(
        "Somebody who may ask the operator API",
        &[("name", name), ("scope", scope), ("token", secret("What proves that it is they"))],
        &["name", "scope", "token"],
    );
    map(
        "The operator's port",
        &[
            ("address", text("Address and port of the operator; not the webhooks'", "127.0.0.1:9090")),
            (
                "token",
                secret(
                    "Token of the operator API, named `admin`, that may write; without any it answers loopback peers only (`/healthz`, `/readyz` and `/metrics` are open)",
                ),
            ),
            ("tokens", list(one, "More tokens of the operator API")),
        ],
        &[],
    )
}

fn bus() -> Value {
    let flag = |about| json!({ "type": "boolean", "default": false, "description": about });
    let create = || flag("Make what is missing, at start and in `check --connect`");
    let value =
        json!({ "anyOf": [{ "type": ["string", "number", "boolean"] }, { "$ref": "#/$defs/secret" }] });
    let properties = json!({
        "type": "object",
        "description": "Properties of librdkafka by its own names; those that the promises rest on are refused",
        "additionalProperties": value,
    });
    let kafka = map(
        "Apache Kafka",
        &[
            ("brokers", text("host:port, several with commas", "")),
            (
                "topic",
                text(
                    "Template of `{type}` `{provider}` `{account}`; the subject is the message's key",
                    "fleet.{type}",
                ),
            ),
            ("create", create()),
            ("properties", properties),
            ("encoding", encoding()),
        ],
        &["brokers"],
    );
    let nats = map(
        "NATS JetStream",
        &[
            ("url", text("nats:// or tls://, several with commas; no user in it", "")),
            (
                "subject",
                text(
                    "Template of `{type}` `{provider}` `{account}` `{subject}`; what fills it in is percent-encoded but for A-Z a-z 0-9 _ -",
                    "fleet.{type}.{account}.{subject}",
                ),
            ),
            ("stream", text("The stream that holds the subjects", "FLEET")),
            ("create", create()),
            (
                "credentials",
                secret("A credentials file: JWT and nkey seed; this, or user with password, or token"),
            ),
            ("user", text("User name, with `password`", "")),
            ("password", secret("Password, with `user`")),
            ("token", secret("A token")),
            ("ca", file("CA certificates, PEM, instead of the system's; read anew for every connection")),
            (
                "cert",
                file(
                    "Certificate chain for a server that asks for one, PEM, with `key`; read anew for every connection",
                ),
            ),
            ("key", file("Private key, PEM, with `cert`; read anew for every connection")),
            ("tls_first", flag("TLS before the server's greeting (`handshake_first` there)")),
        ],
        &["url"],
    );
    let mut local = object(
        "The embedded log in data_dir",
        &[
            ("retention", duration("How long events are kept", "24h")),
            ("max_size", size("How much of the disk they may take", "1GiB")),
        ],
        &[],
    );
    local.insert("type".to_owned(), json!(["object", "null"]));
    let mut bus = object(
        "Where events go: exactly one; the embedded log where it is left out",
        &[("kafka", kafka), ("nats", nats), ("local", Value::Object(local))],
        &[],
    );
    bus.insert("minProperties".to_owned(), json!(1));
    bus.insert("maxProperties".to_owned(), json!(1));
    Value::Object(bus)
}

fn encoding() -> Value {
    let registry = map(
        "A schema registry that speaks Confluent's protocol: values carry its frame",
        &[
            (
                "url",
                text(
                    "https, or http without a login or on loopback, e.g. https://registry:8081; without user, query or fragment",
                    "",
                ),
            ),
            (
                "subject",
                text(
                    "Template of `{topic}`: the subject under which a topic's schema is looked up",
                    "{topic}-value",
                ),
            ),
            (
                "register",
                json!({ "type": "boolean", "default": false, "description": "Register what is missing, at start and in `check --connect`" }),
            ),
            ("user", text("User name or key, with `password`", "")),
            ("password", secret("Password or secret, with `user`")),
            ("token", secret("A bearer token, instead of a user")),
            ("ca", file("CA certificates beside the system's, PEM; read at start")),
        ],
        &["url"],
    );
    map("What values are; bare events where it is left out", &[("registry", registry)], &["registry"])
}

fn account() -> Value {
    let webhook = map(
        "What the provider pushes",
        &[("token", secret("The token that the provider sends to /webhooks/{id}"))],
        &["token"],
    );
    let limits = map(
        "The account's bounds",
        &[
            (
                "in_flight",
                size(
                    "Decoded bytes in work at once; at most 256MiB, which all accounts have together",
                    "32MiB",
                ),
            ),
            ("parked", size("Bytes parked for want of the bus; replay.max_size at most", "2GiB")),
            ("rate", rate("Events a second; none by default")),
        ],
        &[],
    );
    let id = json!({
        "type": "string",
        "pattern": "^[A-Za-z0-9_-]{1,64}$",
        "description": "1 to 64 of A-Z a-z 0-9 _ -, unique. Part of every event's id: **chosen once**, a change makes every event new",
    });
    let provider = json!({ "enum": ["linxup"], "description": "The provider; FleetSharp, AwareGPS, CommandGPS and MotoSafety are Linxup's platform" });
    let mut account = object(
        "An account with a provider",
        &[
            ("id", id),
            ("provider", provider),
            ("webhook", webhook),
            ("poll", list(poll(), "Pull APIs; an account has `webhook`, `poll` or both")),
            ("limits", limits),
        ],
        &["id", "provider"],
    );
    account.insert("anyOf".to_owned(), json!([{ "required": ["webhook"] }, { "required": ["poll"] }]));
    Value::Object(account)
}

fn poll() -> Value {
    let feeds: Vec<(&str, Value)> =
        Feed::ALL.iter().map(|feed| (feed.as_str(), duration("How often; 1s or more", ""))).collect();
    let api = json!({ "enum": ["v2", "v3"], "description": "Which pull API" });
    map(
        "One pull API",
        &[
            ("api", api),
            (
                "base_url",
                text(
                    "https, or http on loopback; without user, query or fragment. The V2 host is the account's own (\"Your API Host\" in the portal)",
                    "",
                ),
            ),
            ("token", secret("For v2: the bearer token")),
            ("key", secret("For v3: the API key")),
            (
                "feeds",
                map(
                    "What is fetched, and how often: `1s` or more. v2: `locations` `history` `trips` `stops` `alerts` `usage-hours` `geofence-activity` `trackers` `geofences`; v3: `positions` `stops` `trackers`",
                    &feeds,
                    &[],
                ),
            ),
        ],
        &["api", "base_url", "feeds"],
    )
}

fn delivery() -> Value {
    let share = json!({ "type": "number", "exclusiveMinimum": 0, "maximum": 1, "default": 0.5,
        "description": "The breaker opens above this share of failures, of at least 20 attempts and by more than chance: at 0.5, 18 of 20 or 556 of 1,000; at 1, where all fail" });
    let retries = json!({ "type": "integer", "minimum": 0, "maximum": 10, "default": 3,
        "description": "How often a definite failure is tried again within the deadline; 0 to 10" });
    let breaker = map(
        "The bus connection's breaker",
        &[("failure_rate", share), ("window", duration("Over this time, 1s to 1h", "30s"))],
        &[],
    );
    map(
        "The policy of delivery",
        &[
            (
                "publish_deadline",
                duration(
                    "What the bus has not acknowledged by then is parked, and the sender answered; 10ms to 30s",
                    "2s",
                ),
            ),
            ("retries", retries),
            ("breaker", breaker),
            ("drain_delay", duration("How long to go on accepting after SIGTERM; at most 30s", "5s")),
        ],
        &[],
    )
}

fn replay() -> Value {
    map(
        "The replay store's bounds",
        &[
            (
                "retention",
                duration(
                    "Age at which what is parked is removed, said and counted; an alert comes a day before",
                    "7d",
                ),
            ),
            ("max_size", size("Bytes parked in all", "10GiB")),
            ("drain_rate", rate("Events a second that the drain sends; no cap by default")),
        ],
        &[],
    )
}

fn dedup() -> Value {
    map(
        "How long ids are remembered",
        &[
            (
                "positions",
                duration(
                    "How long ids of positions and sightings are remembered; 46h or more where anything is polled, for that much is read again",
                    "48h",
                ),
            ),
            ("others", duration("The same for all other events", "7d")),
            ("memory", size("The bound of what is held in memory", "64MiB")),
        ],
        &[],
    )
}

fn custom_data() -> Value {
    map(
        "What operators say about objects",
        &[("memory", size("The bound of what is held in memory; what does not fit is refused", "64MiB"))],
        &[],
    )
}

fn telemetry() -> Value {
    let sample = json!({ "type": "number", "minimum": 0, "maximum": 1, "default": 1,
        "description": "The share of traces that are kept where the sender has not decided" });
    let otlp = map(
        "A collector that speaks OTLP over HTTP",
        &[
            ("endpoint", text("Without /v1/traces, e.g. http://collector:4318", "")),
            ("sample", sample),
            (
                "token",
                secret(
                    "Sent as a bearer token, read at the start; the endpoint is https then, or http on loopback",
                ),
            ),
        ],
        &["endpoint"],
    );
    map("Spans; none where it is left out", &[("otlp", otlp)], &["otlp"])
}

// Forms.

fn secret_form() -> Value {
    json!({
        "description": "Never a literal; a file is read again when it changes",
        "oneOf": [
            { "type": "object", "properties": { "env": { "type": "string" } }, "required": ["env"], "additionalProperties": false },
            { "type": "object", "properties": { "file": { "type": "string" } }, "required": ["file"], "additionalProperties": false },
        ],
    })
}

fn secret(about: &str) -> Value {
    json!({ "$ref": "#/$defs/secret", "description": about })
}

fn file(about: &str) -> Value {
    json!({ "type": "string", "minLength": 1, "description": about })
}

fn text(about: &str, default: &str) -> Value {
    with_default(json!({ "type": "string", "minLength": 1, "description": about }), default)
}

fn duration(about: &str, default: &str) -> Value {
    with_default(
        json!({ "type": "string", "pattern": "^[0-9]+ ?(ms|s|m|h|d)$", "description": about }),
        default,
    )
}

fn size(about: &str, default: &str) -> Value {
    let pattern = "^[0-9]+ ?(B|KiB|MiB|GiB|TiB|KB|kB|MB|GB|TB)$";
    with_default(json!({ "type": "string", "pattern": pattern, "description": about }), default)
}

fn rate(about: &str) -> Value {
    json!({ "type": "string", "pattern": "^[0-9]+/s$", "description": about })
}

fn with_default(mut form: Value, default: &str) -> Value {
    if let (Value::Object(form), false) = (&mut form, default.is_empty()) {
        form.insert("default".to_owned(), json!(default));
    }
    form
}

fn list(items: Value, about: &str) -> Value {
    json!({ "type": "array", "items": items, "description": about })
}

fn map(about: &str, properties: &[(&str, Value)], required: &[&str]) -> Value {
    Value::Object(object(about, properties, required))
}

fn object(about: &str, properties: &[(&str, Value)], required: &[&str]) -> Map<String, Value> {
    let properties: Map<String, Value> =
        properties.iter().map(|(name, form)| ((*name).to_owned(), form.clone())).collect();
    let mut object = Map::new();
    object.insert("type".to_owned(), json!("object"));
    object.insert("description".to_owned(), json!(about));
    object.insert("properties".to_owned(), Value::Object(properties));
    if !required.is_empty() {
        object.insert("required".to_owned(), json!(required));
    }
    object.insert("additionalProperties".to_owned(), json!(false));
    object
}
