//! Where events go: exactly one bus, templates that name legal topics, and properties that leave the promises alone.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;

use super::values::{At, DAY, LONGEST};
use super::{Needed, Walk};
use crate::config::tree::{Fields, Node, Value};
use crate::config::{Bus, Handshake, Kafka, Local, Nats, Property};
use crate::event::EventType;
use crate::provider::Provider;

/// librdkafka properties that the promises rest on, or that stand elsewhere: each with the reason.
const OURS: &[(&[&str], &str)] = &[
    (&["acks", "request.required.acks"], "a sender is answered once every in-sync replica has its event"),
    (&["enable.idempotence"], "without it a retry inside the client doubles or reorders events"),
    (&["enable.gapless.guarantee"], "with it one poison event would stop the client"),
    (
        &["max.in.flight", "max.in.flight.requests.per.connection"],
        "more than five requests in flight lose the order",
    ),
    (
        &["retries", "message.send.max.retries"],
        "what is tried again, and for how long, is decided outside of the client",
    ),
    (&["linger.ms", "queue.buffering.max.ms"], "events are batched by load: a fixed wait starves callers"),
    (&["partitioner"], "a vehicle's events must go to one partition, whichever producer sends them"),
    (
        &["message.timeout.ms", "delivery.timeout.ms"],
        "what expires inside the client may have been stored: the deadline is kept outside",
    ),
    (&["transactional.id", "transaction.timeout.ms"], "events are acknowledged singly, not in transactions"),
    (&["queuing.strategy"], "order is first in, first out"),
    (&["queue.buffering.max.kbytes", "queue.buffering.max.messages"], "it bounds the process's memory"),
    (&["delivery.report.only.error", "dr_cb", "dr_msg_cb"], "acknowledgements are what senders wait for"),
    (&["statistics.interval.ms"], "whether a broker is there is read from them, each second"),
    (
        &["reconnect.backoff.ms", "reconnect.backoff.max.ms"],
        "how soon a broker that is back is found is decided here: within a second",
    ),
    (
        &["topic.metadata.propagation.max.ms"],
        "how long a topic may be unknown before its events are parked is decided here",
    ),
    (&["allow.auto.create.topics"], "topics are made where `bus.kafka.create` says so, and by nobody else"),
    (&["log.connection.close"], "connections are looked at, not logged"),
    (&["bootstrap.servers", "metadata.broker.list"], "brokers stand in `bus.kafka.brokers`"),
    (
        &["sasl.jaas.config"],
        "it is the Java client's: here are sasl.mechanism, sasl.username and sasl.password",
    ),
];

/// Kafka's bound on a topic's name.
const LONGEST_TOPIC: usize = 249;
/// The bound on an account's id.
const LONGEST_ACCOUNT: usize = 64;

impl Walk<'_> {
    pub(super) fn bus(&mut self, fields: &mut Fields<'_>) -> Option<Bus> {
        let fallback = Local { retention: DAY, max_size: 1 << 30 };
        let at = At::in_map(fields, "bus");
        if !fields.has("bus") {
            let _ = fields.take("bus");
            self.notes.push(
                "no bus is configured: events go to the embedded local bus, a log in data_dir".to_owned(),
            );
            return Some(Bus::Local(fallback));
        }
        let mut map = self.map(fields, "bus")?;
        let (kafka, nats, local) = (map.take("kafka"), map.take("nats"), map.take("local"));
        let misspelt = map.has_unknown();
        map.finish(&mut self.problems);
        match (kafka, nats, local) {
            (Some(node), None, None) => self.kafka(node),
            (None, Some(node), None) => self.nats(node),
            (None, None, Some(node)) => self.local(node, fallback),
            (None, None, None) => {
                if !misspelt {
                    let fix = "write one of kafka, nats and local, or leave `bus` out for the embedded one";
                    self.add(&at, "names no bus", fix);
                }
                None
            }
            (Some(_), Some(_), _) | (Some(_), _, Some(_)) | (_, Some(_), Some(_)) => {
                self.add(&at, "names more than one bus", "keep exactly one of kafka, nats and local");
                None
            }
        }
    }

    fn kafka(&mut self, node: &Node) -> Option<Bus> {
        let mut map = Fields::of(node, "bus.kafka", &mut self.problems)?;
        let brokers = self.required(&mut map, "brokers", "write host:port, several with commas");
        if let Some((brokers, at)) = &brokers
            && !brokers.split(',').all(is_host_and_port)
        {
            self.add(at, "is not a list of host:port", "write e.g. kafka-1:9092,kafka-2:9092");
        }
        let topic = self.text(&mut map, "topic");
        if let Some((topic, at)) = &topic {
            self.topic(topic, at);
        }
        let create = self.create(&mut map, "create");
        let properties = self.properties(&mut map);
        let registry = self.encoding(&mut map);
        map.finish(&mut self.problems);
        Some(Bus::Kafka(Kafka {
            brokers: brokers?.0,
            topic: topic.map_or_else(|| "fleet.{type}".to_owned(), |(topic, _)| topic),
            create,
            properties,
            registry,
        }))
    }

    fn topic(&mut self, topic: &str, at: &At) {
        if topic.contains("{subject}") {
            let fix = "leave {subject} out: it is the message's key";
            self.add(at, "a topic for each subject would be thousands of topics", fix);
            return;
        }
        let Some(literals) = self.template(topic, at, "{type} {provider} {account}") else { return };
        let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let longest_type = EventType::ALL.iter().map(|t| t.as_str().len()).max().unwrap_or(0);
        let longest = literals.len()
            + topic.matches("{type}").count() * longest_type
            + topic.matches("{provider}").count() * Provider::Linxup.as_str().len()
            + topic.matches("{account}").count() * LONGEST_ACCOUNT;
        if !literals.chars().all(legal) {
            self.add(at, "is not a legal Kafka topic", "letters, digits, dots, underscores and hyphens only");
        } else if longest > LONGEST_TOPIC {
            self.add(at, "may grow longer than a topic's 249 characters", "shorten it");
        } else if topic == "." || topic == ".." {
            self.add(at, "is not a legal Kafka topic", "write e.g. fleet.{type}");
        }
    }

    fn properties(&mut self, map: &mut Fields<'_>) -> Vec<(String, Property)> {
        let Some(mut properties) = self.map(map, "properties") else { return Vec::new() };
        let mut all = Vec::new();
        for (place, name, node) in properties.rest() {
            let at = At { place, path: properties.path_of(name) };
            if let Some((_, why)) = OURS.iter().find(|(names, _)| names.contains(&name)) {
                self.add(&at, format!("is not yours to set: {why}"), "leave it out");
                continue;
            }
            let property = if matches!(node.value, Value::Map(_)) || is_secret(name) {
                self.secret_source(node, &at).map(Property::Secret)
            } else {
                self.scalar(node, &at).map(|text| Property::Plain(text.to_owned()))
            };
            let Some(property) = property else { continue };
            self.ask_librdkafka(name, &property, &at);
            all.push((name.to_owned(), property));
        }
        all
    }

    /// The client knows its properties, and the values of most: asked one by one, so that all problems are found at once.
    fn ask_librdkafka(&mut self, name: &str, property: &Property, at: &At) {
        let value = match property {
            Property::Plain(value) => value,
            // Only whether the property exists is asked: its value is read when the client is made.
            Property::Secret(_) => "secret",
        };
        let answer = ClientConfig::new().set(name, value).create_native_config();
        match (answer.err(), property) {
            (Some(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..)), _) => {
                let fix =
                    "look it up in librdkafka's CONFIGURATION.md: names are not those of the Java client";
                self.add(at, "is not a property of librdkafka, or not of this build", fix);
            }
            (Some(_), Property::Plain(_)) => {
                // Not quoted: what the Java client takes in one text may hold a password.
                self.add(
                    at,
                    "has a value that librdkafka does not take",
                    "look it up in librdkafka's CONFIGURATION.md",
                );
            }
            (Some(_), Property::Secret(_)) | (None, _) => {}
        }
    }

    fn nats(&mut self, node: &Node) -> Option<Bus> {
        let mut map = Fields::of(node, "bus.nats", &mut self.problems)?;
        let url = self.required(&mut map, "url", "write nats://host:4222 or tls://host:4222");
        if let Some((url, at)) = &url {
            if url.contains('@') {
                let fix = "write `user` and `password`, `token` or `credentials` beside it";
                self.add(at, "holds a user or a secret", fix);
            } else if !url.split(',').all(is_nats_url) {
                self.add(at, "is not a NATS address", "write nats://host:4222 or tls://host:4222");
            }
        }
        let subject = self.text(&mut map, "subject");
        if let Some((subject, at)) = &subject {
            self.subject(subject, at);
        }
        let stream = self.text(&mut map, "stream");
        if let Some((stream, at)) = &stream
            && stream.contains(|c: char| c.is_whitespace() || c.is_control() || ".*>/\\".contains(c))
        {
            self.add(at, "is not a legal stream's name", "no dots, blanks, slashes or wildcards");
        }
        let create = self.create(&mut map, "create");
        let credentials = self.secret(&mut map, "credentials");
        let (named, with_password) = (map.has("user"), map.has("password"));
        let with_token = map.has("token");
        let user = self.text(&mut map, "user").map(|(user, _)| user);
        let password = self.secret(&mut map, "password");
        let token = self.secret(&mut map, "token");
        let ca = self.file(&mut map, "ca");
        let certificate = self.pair(&mut map, Needed::No);
        let handshake = self.either(&mut map, "tls_first", Handshake::First, Handshake::Greeted);
        let at = At { place: map.place, path: map.path.clone() };
        if named != with_password {
            self.add(&at, "has one of `user` and `password`", "write both, or neither");
        }
        if u8::from(credentials.is_some()) + u8::from(named) + u8::from(with_token) > 1 {
            let fix = "keep one of credentials, user with password, and token";
            self.add(&at, "has more than one way to sign in", fix);
        }
        map.finish(&mut self.problems);
        Some(Bus::Nats(Nats {
            url: url?.0,
            subject: subject.map_or_else(|| "fleet.{type}.{account}.{subject}".to_owned(), |(s, _)| s),
            stream: stream.map_or_else(|| "FLEET".to_owned(), |(stream, _)| stream),
            create,
            credentials,
            user: user.zip(password),
            token,
            ca,
            certificate,
            handshake,
        }))
    }

    fn subject(&mut self, subject: &str, at: &At) {
        if self.template(subject, at, "{type} {provider} {account} {subject}").is_none() {
            return;
        }
        let illegal = |c: char| c.is_whitespace() || c.is_control() || c == '*' || c == '>';
        if subject.contains(illegal) || subject.split('.').any(str::is_empty) {
            let fix = "tokens between dots, none empty, without blanks, `*` and `>`";
            self.add(at, "is not a legal NATS subject", fix);
        } else if subject.starts_with('$') || subject.starts_with("_INBOX") {
            self.add(
                at,
                "begins as the server's own subjects do",
                "write e.g. fleet.{type}.{account}.{subject}",
            );
        }
    }

    fn local(&mut self, node: &Node, mut local: Local) -> Option<Bus> {
        let mut map = Fields::of(node, "bus.local", &mut self.problems)?;
        let least = Duration::from_secs(1);
        if let Some(retention) = self.duration(&mut map, "retention", least..=LONGEST) {
            local.retention = retention;
        }
        if let Some((size, _)) = self.size(&mut map, "max_size", 1 << 20) {
            local.max_size = size;
        }
        map.finish(&mut self.problems);
        Some(Bus::Local(local))
    }

    /// What of a template is literal; none, and a problem, where it is no template.
    pub(super) fn template(&mut self, text: &str, at: &At, taken: &str) -> Option<String> {
        let (mut literals, mut rest) = (String::new(), text);
        while let Some(open) = rest.find(['{', '}']) {
            literals.push_str(&rest[..open]);
            let name = rest[open..].split_inclusive('}').next().unwrap_or_default();
            if !taken.split(' ').any(|known| known == name) {
                self.add(at, format!("`{name}` is not a part of a template"), format!("it takes {taken}"));
                return None;
            }
            rest = &rest[open + name.len()..];
        }
        literals.push_str(rest);
        Some(literals)
    }
}

/// Whether a property's value is a secret.
fn is_secret(name: &str) -> bool {
    ["password", "passphrase", "secret", "key", "key.pem", "token"].iter().any(|end| name.ends_with(end))
}

fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.trim().rsplit_once(':') else { return false };
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let bare = !host.contains([':', '/', '@', ' ']);
    !host.is_empty() && (bracketed || bare) && port.parse::<u16>().is_ok_and(|port| port > 0)
}

fn is_nats_url(text: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(text.trim()) else { return false };
    matches!(url.scheme(), "nats" | "tls")
        && url.has_host()
        && matches!(url.path(), "" | "/")
        && url.query().is_none()
}
