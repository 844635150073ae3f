//! From a file's text to what it means (design section 3, "Configuration"): every error at once, each with its path and
//! line. Pure but for the two questions that it is given: an environment variable's value, and whether a file reads.
//! `run` and `check` both come through here.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::tree::{Fields, Node, Place, Problem, Problems, Value, parse};
use super::{
    Account, Admin, Breaker, Bus, Config, Create, Dedup, Delivery, Kafka, Limits, Listen, Local, Nats, Poll,
    PollApi, Property, Replay, SecretSource, Tls, units,
};
use crate::event::AccountId;
use crate::provider::{Feed, Provider};

/// What loading asks the world.
pub trait World {
    /// The value of an environment variable.
    fn variable(&self, name: &str) -> Option<String>;
    /// Whether a file can be read, with the reason where it cannot.
    fn readable(&self, path: &Path) -> Result<(), String>;
}

/// The process's environment and files.
#[derive(Debug, Clone, Copy)]
pub struct ThisProcess;

impl World for ThisProcess {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn readable(&self, path: &Path) -> Result<(), String> {
        std::fs::File::open(path).map(drop).map_err(|error| error.to_string())
    }
}

/// A configuration, and what its reader should know.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What it means.
    pub config: Config,
    /// E.g. that no bus was written, and the local one is used.
    pub notes: Vec<String>,
}

/// The longest deadline, interval or age that makes sense anywhere.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// librdkafka properties that the promises rest on, each with the reason.
const OURS: &[(&str, &str)] = &[
    ("acks", "every in-sync replica must have an event before its sender is answered"),
    ("request.required.acks", "every in-sync replica must have an event before its sender is answered"),
    ("enable.idempotence", "without it a retry inside the client doubles or reorders events"),
    ("enable.gapless.guarantee", "order holds without it, and with it one poison event stops the client"),
    ("max.in.flight", "more than five requests in flight lose the order"),
    ("max.in.flight.requests.per.connection", "more than five requests in flight lose the order"),
    ("retries", "what is tried again, and for how long, is decided outside of the client"),
    ("message.send.max.retries", "what is tried again, and for how long, is decided outside of the client"),
    ("linger.ms", "events are batched by load"),
    ("queue.buffering.max.ms", "events are batched by load"),
    ("partitioner", "a vehicle's events must stay on one partition for every producer"),
    (
        "message.timeout.ms",
        "what expires inside the client may have been stored: the deadline is kept outside",
    ),
    (
        "delivery.timeout.ms",
        "what expires inside the client may have been stored: the deadline is kept outside",
    ),
    ("transactional.id", "events are acknowledged one request at a time, not in transactions"),
    ("bootstrap.servers", "write it as `brokers`"),
    ("metadata.broker.list", "write it as `brokers`"),
    ("queue.buffering.max.kbytes", "it bounds the process's memory"),
    ("queue.buffering.max.messages", "it bounds the process's memory"),
    ("delivery.report.only.error", "the acknowledgements are what the senders wait for"),
    ("dr_cb", "the acknowledgements are what the senders wait for"),
    ("dr_msg_cb", "the acknowledgements are what the senders wait for"),
];

/// Loads a configuration from its text.
///
/// # Errors
/// Every problem, in the order of the file.
pub fn load(text: &str, world: &dyn World) -> Result<Loaded, Vec<Problem>> {
    let root = parse(text).map_err(|problem| vec![problem])?;
    let mut walk = Walk { world, problems: Problems::default(), notes: Vec::new() };
    let config = walk.config(&root);
    match config {
        Some(config) if walk.problems.is_empty() => Ok(Loaded { config, notes: walk.notes }),
        Some(_) | None => Err(walk.problems.sorted()),
    }
}

struct Walk<'w> {
    world: &'w dyn World,
    problems: Problems,
    notes: Vec<String>,
}

/// A value's place in the file and in the tree.
#[derive(Clone)]
struct At {
    place: Place,
    path: String,
}

impl Walk<'_> {
    fn add(&mut self, at: &At, what: impl Into<String>) {
        self.problems.add(at.place, &at.path, what);
    }

    fn config(&mut self, root: &Node) -> Option<Config> {
        let mut fields = Fields::of(root, "", &mut self.problems)?;
        let listen = self.listen(&mut fields);
        let admin = self.admin(&mut fields);
        let data_dir = self.text(&mut fields, "data_dir").map(|(text, _)| PathBuf::from(text));
        let bus = self.bus(&mut fields);
        let accounts = self.accounts(&mut fields);
        let delivery = self.delivery(&mut fields);
        let replay = self.replay(&mut fields);
        let dedup = self.dedup(&mut fields);
        fields.finish(&mut self.problems);
        if listen.address.port() != 0
            && listen.address.port() == admin.address.port()
            && overlap(listen.address.ip(), admin.address.ip())
        {
            let at = At { place: root.place, path: "admin.address".to_owned() };
            self.add(&at, "listen and admin have the same port: the operator's port is one of its own");
        }
        Some(Config {
            listen,
            admin,
            data_dir: data_dir.unwrap_or_else(|| PathBuf::from("./data")),
            bus: bus?,
            accounts,
            delivery,
            replay,
            dedup,
        })
    }

    fn listen(&mut self, fields: &mut Fields<'_>) -> Listen {
        let mut listen = Listen { address: SocketAddr::from(([0, 0, 0, 0], 8080)), tls: None };
        let Some(mut map) = self.map(fields, "listen") else { return listen };
        if let Some(address) = self.address(&mut map) {
            listen.address = address;
        }
        if let Some(mut tls) = self.map(&mut map, "tls") {
            let (cert, key) = (self.file(&mut tls, "cert"), self.file(&mut tls, "key"));
            if let (Some(cert), Some(key)) = (cert, key) {
                listen.tls = Some(Tls { cert, key });
            } else {
                self.problems.add(tls.place, &tls.path, "TLS needs both `cert` and `key`, PEM files");
            }
            tls.finish(&mut self.problems);
        }
        map.finish(&mut self.problems);
        listen
    }

    fn admin(&mut self, fields: &mut Fields<'_>) -> Admin {
        let mut admin = Admin { address: SocketAddr::from(([127, 0, 0, 1], 9090)), token: None };
        let Some(mut map) = self.map(fields, "admin") else { return admin };
        if let Some(address) = self.address(&mut map) {
            admin.address = address;
        }
        admin.token = self.secret(&mut map, "token");
        map.finish(&mut self.problems);
        admin
    }

    fn bus(&mut self, fields: &mut Fields<'_>) -> Option<Bus> {
        let local = Local { retention: Duration::from_secs(86_400), max_size: 1 << 30 };
        let Some(node) = fields.take("bus") else {
            self.notes.push("no bus is configured: events go to the local bus in data_dir".to_owned());
            return Some(Bus::Local(local));
        };
        let mut map = Fields::of(node, "bus", &mut self.problems)?;
        let (kafka, nats, embedded) = (map.take("kafka"), map.take("nats"), map.take("local"));
        let at = At { place: node.place, path: "bus".to_owned() };
        let written = [kafka.is_some(), nats.is_some(), embedded.is_some()].iter().filter(|is| **is).count();
        let bus = if written > 1 {
            self.add(&at, "exactly one of kafka, nats and local: events go to one bus");
            None
        } else if let Some(node) = kafka {
            self.kafka(node)
        } else if let Some(node) = nats {
            self.nats(node)
        } else if let Some(node) = embedded {
            self.local(node, local)
        } else {
            // `local:` without a value is a map without keys.
            Some(Bus::Local(local))
        };
        map.finish(&mut self.problems);
        bus
    }

    fn kafka(&mut self, node: &Node) -> Option<Bus> {
        let mut map = Fields::of(node, "bus.kafka", &mut self.problems)?;
        let brokers = self.required(&mut map, "brokers", "host:port, comma-separated");
        let topic = self.text(&mut map, "topic");
        if let Some((topic, at)) = &topic {
            self.template(topic, at, &["type", "provider", "account"]);
            let legal = |c: char| c.is_ascii_alphanumeric() || "._-{}".contains(c);
            if topic.contains("{subject}") {
                self.add(at, "a Kafka topic takes no {subject}: the subject is the key");
            } else if !topic.chars().all(legal) {
                self.add(at, "a Kafka topic has letters, digits, dots, underscores and hyphens only");
            }
        }
        let create = self.create(&mut map);
        let properties = self.properties(&mut map);
        map.finish(&mut self.problems);
        Some(Bus::Kafka(Kafka {
            brokers: brokers?,
            topic: topic.map_or_else(|| "fleet.{type}".to_owned(), |(topic, _)| topic),
            create,
            properties,
        }))
    }

    fn properties(&mut self, map: &mut Fields<'_>) -> Vec<(String, Property)> {
        let Some(mut properties) = self.map(map, "properties") else { return Vec::new() };
        let mut all = Vec::new();
        for (place, name, node) in properties.rest() {
            let at = At { place, path: properties.path_of(name) };
            if let Some((_, why)) = OURS.iter().find(|(ours, _)| *ours == name) {
                self.add(&at, format!("is not yours to set: {why}"));
                continue;
            }
            let ends = ["password", "secret", "key", "token"];
            let secret = ends.iter().any(|end| name.ends_with(end)) || name.ends_with(".pem");
            match &node.value {
                Value::Scalar(_) if secret => {
                    self.add(&at, "is a secret: write { env: NAME } or { file: PATH }, never the value");
                }
                Value::Scalar(text) => {
                    self.left_over_variable(text, &at);
                    all.push((name.to_owned(), Property::Plain(text.clone())));
                }
                Value::Map(_) => {
                    if let Some(source) = self.secret_source(node, &at) {
                        all.push((name.to_owned(), Property::Secret(source)));
                    }
                }
                Value::List(_) | Value::Null => self.add(&at, "a value is expected here"),
            }
        }
        all
    }

    fn nats(&mut self, node: &Node) -> Option<Bus> {
        let mut map = Fields::of(node, "bus.nats", &mut self.problems)?;
        let url = self.required(&mut map, "url", "nats://host:4222 or tls://host:4222");
        if let Some(url) = &url
            && !url.split(',').all(|url| {
                let url = url.trim();
                url.starts_with("nats://") || url.starts_with("tls://") || !url.contains("://")
            })
        {
            self.problems.add(map.place, &map.path_of("url"), "write nats://host:port or tls://host:port");
        }
        let subject = self.text(&mut map, "subject");
        if let Some((subject, at)) = &subject {
            self.template(subject, at, &["type", "provider", "account", "subject"]);
            let token = |token: &str| !token.is_empty() && !token.contains(['*', '>', ' ', '\t', '\r', '\n']);
            if !subject.split('.').all(token) {
                self.add(
                    at,
                    "a NATS subject has tokens between dots, without blanks and without `*` and `>`",
                );
            }
        }
        let stream = self.text(&mut map, "stream");
        if let Some((stream, at)) = &stream
            && (stream.is_empty() || stream.contains(['.', '*', '>', ' ', '/', '\\']))
        {
            self.add(at, "a stream's name has no dots, blanks, slashes or wildcards");
        }
        let create = self.create(&mut map);
        let credentials = self.secret(&mut map, "credentials");
        let user = self.text(&mut map, "user").map(|(user, _)| user);
        let password = self.secret(&mut map, "password");
        let user = match (user, password) {
            (Some(user), Some(password)) => Some((user, password)),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                self.problems.add(map.place, &map.path, "`user` and `password` come together");
                None
            }
        };
        let token = self.secret(&mut map, "token");
        let ca = self.file(&mut map, "ca");
        let ways = [credentials.is_some(), user.is_some(), token.is_some()];
        if ways.iter().filter(|is| **is).count() > 1 {
            self.problems.add(map.place, &map.path, "one of credentials, user with password, and token");
        }
        map.finish(&mut self.problems);
        Some(Bus::Nats(Nats {
            url: url?,
            subject: subject.map_or_else(|| "fleet.{type}.{account}.{subject}".to_owned(), |(s, _)| s),
            stream: stream.map_or_else(|| "FLEET".to_owned(), |(stream, _)| stream),
            create,
            credentials,
            user,
            token,
            ca,
        }))
    }

    fn local(&mut self, node: &Node, mut local: Local) -> Option<Bus> {
        let mut map = Fields::of(node, "bus.local", &mut self.problems)?;
        if let Some(retention) = self.duration(&mut map, "retention", Duration::from_secs(1)) {
            local.retention = retention;
        }
        if let Some(size) = self.size(&mut map, "max_size", 1 << 20) {
            local.max_size = size;
        }
        map.finish(&mut self.problems);
        Some(Bus::Local(local))
    }

    fn accounts(&mut self, fields: &mut Fields<'_>) -> Vec<Account> {
        let Some(node) = fields.take("accounts") else {
            let at = At { place: fields.place, path: "accounts".to_owned() };
            self.add(&at, "is missing: list at least one account");
            return Vec::new();
        };
        let at = At { place: node.place, path: "accounts".to_owned() };
        let Value::List(list) = &node.value else {
            self.add(&at, "a list of accounts is expected here");
            return Vec::new();
        };
        if list.is_empty() {
            self.add(&at, "is empty: list at least one account");
        }
        let mut accounts: Vec<Account> = Vec::new();
        for (index, node) in list.iter().enumerate() {
            let path = format!("accounts[{index}]");
            if let Some(account) = self.account(node, &path) {
                if accounts.iter().any(|known| known.id == account.id) {
                    let at = At { place: node.place, path: format!("{path}.id") };
                    self.add(
                        &at,
                        format!("`{}` is taken: an account's id is part of its events' ids", account.id),
                    );
                }
                accounts.push(account);
            }
        }
        accounts
    }

    fn account(&mut self, node: &Node, path: &str) -> Option<Account> {
        let mut map = Fields::of(node, path, &mut self.problems)?;
        let id = self.required(&mut map, "id", "a short name that never changes");
        let form = |id: &str| {
            (1..=64).contains(&id.len()) && id.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
        };
        if let Some(id) = id.as_deref().filter(|id| !form(id)) {
            let what = format!("`{id}` is no account id: 1 to 64 letters, digits, underscores and hyphens");
            self.problems.add(map.place, &map.path_of("id"), what);
        }
        let provider = match self.text(&mut map, "provider") {
            Some((name, _)) if name == Provider::Linxup.as_str() => Some(Provider::Linxup),
            Some((name, at)) => {
                self.add(&at, format!("`{name}` is no provider that is known: linxup"));
                None
            }
            None => {
                self.problems.add(map.place, &map.path_of("provider"), "is missing: linxup");
                None
            }
        };
        let had_webhook = map.path_of("webhook");
        let webhook = self.map(&mut map, "webhook").and_then(|mut webhook| {
            let token = self.secret(&mut webhook, "token");
            if token.is_none() {
                let at = At { place: webhook.place, path: had_webhook };
                self.add(&at, "needs a token: { token: { env: NAME } } or { token: { file: PATH } }");
            }
            webhook.finish(&mut self.problems);
            token
        });
        let poll = self.polls(&mut map);
        let limits = self.limits(&mut map);
        if webhook.is_none() && poll.is_empty() {
            self.problems.add(map.place, path, "has neither a webhook nor anything to poll");
        }
        map.finish(&mut self.problems);
        Some(Account { id: AccountId::new(&id?), provider: provider?, webhook, poll, limits })
    }

    fn polls(&mut self, map: &mut Fields<'_>) -> Vec<Poll> {
        let path = map.path_of("poll");
        let Some(node) = map.take("poll") else { return Vec::new() };
        let Value::List(list) = &node.value else {
            self.problems.add(node.place, &path, "a list of APIs is expected here");
            return Vec::new();
        };
        let mut polls: Vec<Poll> = Vec::new();
        for (index, node) in list.iter().enumerate() {
            let path = format!("{path}[{index}]");
            let Some(poll) = self.poll(node, &path) else { continue };
            let same = |known: &Poll| {
                std::mem::discriminant(&known.api) == std::mem::discriminant(&poll.api)
                    && known.base_url == poll.base_url
            };
            if polls.iter().any(same) {
                self.problems.add(node.place, &path, "this API is polled already: put its feeds together");
            }
            polls.push(poll);
        }
        polls
    }

    fn poll(&mut self, node: &Node, path: &str) -> Option<Poll> {
        let mut map = Fields::of(node, path, &mut self.problems)?;
        let name = self.text(&mut map, "api");
        let base_url = self.base_url(&mut map);
        let (token, key) = (self.secret(&mut map, "token"), self.secret(&mut map, "key"));
        let api = match name {
            Some((name, at)) => match (name.as_str(), token, key) {
                ("v2", Some(token), None) => Some(PollApi::V2 { token }),
                ("v3", None, Some(key)) => Some(PollApi::V3 { key }),
                ("v2", ..) => {
                    self.add(&at, "API v2 needs `token`, and no `key`");
                    None
                }
                ("v3", ..) => {
                    self.add(&at, "API v3 needs `key`, and no `token`: a v2 token is not accepted there");
                    None
                }
                (other, ..) => {
                    self.add(&at, format!("`{other}` is no API: v2 or v3"));
                    None
                }
            },
            None => {
                self.problems.add(map.place, &map.path_of("api"), "is missing: v2 or v3");
                None
            }
        };
        let feeds = self.feeds(&mut map, api.as_ref());
        map.finish(&mut self.problems);
        Some(Poll { api: api?, base_url: base_url?, feeds })
    }

    fn base_url(&mut self, map: &mut Fields<'_>) -> Option<String> {
        let url = self.required(
            map,
            "base_url",
            "the API's address, e.g. https://app02.linxup.com/ibis/rest/api/v2",
        )?;
        let at = At { place: map.place, path: map.path_of("base_url") };
        let Ok(parsed) = reqwest::Url::parse(&url) else {
            self.add(&at, "is not a URL");
            return None;
        };
        let host = parsed.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let fit = match parsed.scheme() {
            "https" => true,
            "http" => loopback,
            _ => false,
        };
        if !fit {
            self.add(&at, "must be https (http only on loopback): it carries the account's token");
        }
        if !parsed.username().is_empty() || parsed.password().is_some() || parsed.query().is_some() {
            self.add(&at, "takes no user, password or query: secrets are `token` and `key`");
        }
        Some(url.trim_end_matches('/').to_owned())
    }

    fn feeds(&mut self, map: &mut Fields<'_>, api: Option<&PollApi>) -> Vec<(Feed, Duration)> {
        let path = map.path_of("feeds");
        let Some(mut feeds) = self.map(map, "feeds") else {
            self.problems.add(map.place, &path, "is missing: what to fetch, and how often");
            return Vec::new();
        };
        let mut all = Vec::new();
        let entries = feeds.rest();
        if entries.is_empty() {
            self.problems.add(feeds.place, &path, "is empty: what to fetch, and how often");
        }
        for (place, name, node) in entries {
            let at = At { place, path: feeds.path_of(name) };
            if let Some(why) = refused_feed(name, api) {
                self.add(&at, why);
                continue;
            }
            let interval = self.scalar(node, &at).and_then(|text| {
                units::duration(text).map_err(|what| self.problems.add(node.place, &at.path, what)).ok()
            });
            if interval.is_some_and(|interval| interval < Duration::from_secs(1) || interval > LONGEST) {
                self.add(&at, "an interval is 1s or more");
            }
            if let (Some(feed), Some(interval)) = (Feed::parse(name), interval) {
                all.push((feed, interval));
            }
        }
        all
    }

    fn limits(&mut self, map: &mut Fields<'_>) -> Limits {
        let mut limits = Limits { in_flight: 32 << 20, parked: 2 << 30, rate: None };
        let Some(mut map) = self.map(map, "limits") else { return limits };
        if let Some(size) = self.size(&mut map, "in_flight", 64 << 10) {
            limits.in_flight = size;
        }
        if let Some(size) = self.size(&mut map, "parked", 64 << 10) {
            limits.parked = size;
        }
        limits.rate = self.rate(&mut map, "rate");
        map.finish(&mut self.problems);
        limits
    }

    fn delivery(&mut self, fields: &mut Fields<'_>) -> Delivery {
        let mut delivery = Delivery {
            publish_deadline: Duration::from_secs(2),
            retries: 3,
            breaker: Breaker { failure_rate: 0.5, window: Duration::from_secs(30) },
            drain_delay: Duration::from_secs(5),
        };
        let Some(mut map) = self.map(fields, "delivery") else { return delivery };
        if let Some(deadline) = self.duration(&mut map, "publish_deadline", Duration::from_millis(10)) {
            delivery.publish_deadline = deadline;
            if deadline > Duration::from_secs(30) {
                let path = map.path_of("publish_deadline");
                self.problems.add(map.place, &path, "is at most 30s: senders do not wait longer");
            }
        }
        if let Some(delay) = self.duration(&mut map, "drain_delay", Duration::ZERO) {
            delivery.drain_delay = delay;
            if delay > Duration::from_secs(30) {
                let path = map.path_of("drain_delay");
                self.problems.add(map.place, &path, "is at most 30s: a stop must end within 60s");
            }
        }
        if let Some((text, at)) = self.text(&mut map, "retries") {
            match text.parse() {
                Ok(retries) if retries <= 10 => delivery.retries = retries,
                Ok(_) | Err(_) => self.add(&at, "a number from 0 to 10 is expected here"),
            }
        }
        if let Some(mut breaker) = self.map(&mut map, "breaker") {
            if let Some((text, at)) = self.text(&mut breaker, "failure_rate") {
                match text.parse::<f64>() {
                    Ok(rate) if rate > 0.0 && rate < 1.0 => delivery.breaker.failure_rate = rate,
                    Ok(_) | Err(_) => self.add(&at, "a share between 0 and 1 is expected here, e.g. 0.5"),
                }
            }
            if let Some(window) = self.duration(&mut breaker, "window", Duration::from_secs(1)) {
                delivery.breaker.window = window;
            }
            breaker.finish(&mut self.problems);
        }
        map.finish(&mut self.problems);
        delivery
    }

    fn replay(&mut self, fields: &mut Fields<'_>) -> Replay {
        let mut replay =
            Replay { retention: Duration::from_secs(7 * 86_400), max_size: 10 << 30, drain_rate: None };
        let Some(mut map) = self.map(fields, "replay") else { return replay };
        if let Some(retention) = self.duration(&mut map, "retention", Duration::from_secs(60)) {
            replay.retention = retention;
        }
        if let Some(size) = self.size(&mut map, "max_size", 1 << 20) {
            replay.max_size = size;
        }
        replay.drain_rate = self.rate(&mut map, "drain_rate");
        map.finish(&mut self.problems);
        replay
    }

    fn dedup(&mut self, fields: &mut Fields<'_>) -> Dedup {
        let mut dedup = Dedup {
            positions: Duration::from_secs(48 * 3_600),
            others: Duration::from_secs(7 * 86_400),
            memory: 64 << 20,
        };
        let Some(mut map) = self.map(fields, "dedup") else { return dedup };
        let hour = Duration::from_secs(3_600);
        if let Some(horizon) = self.duration(&mut map, "positions", hour) {
            dedup.positions = horizon;
        }
        if let Some(horizon) = self.duration(&mut map, "others", hour) {
            dedup.others = horizon;
        }
        if let Some(size) = self.size(&mut map, "memory", 1 << 20) {
            dedup.memory = size;
        }
        map.finish(&mut self.problems);
        dedup
    }

    // The forms of single values.

    fn map<'a>(&mut self, fields: &mut Fields<'a>, name: &'static str) -> Option<Fields<'a>> {
        let path = fields.path_of(name);
        let node = fields.take(name)?;
        Fields::of(node, &path, &mut self.problems)
    }

    fn scalar<'a>(&mut self, node: &'a Node, at: &At) -> Option<&'a str> {
        if let Value::Scalar(text) = &node.value {
            self.left_over_variable(text, at);
            return Some(text);
        }
        self.add(at, "one value is expected here");
        None
    }

    /// A text with its place.
    fn text(&mut self, fields: &mut Fields<'_>, name: &'static str) -> Option<(String, At)> {
        let path = fields.path_of(name);
        let node = fields.take(name)?;
        let at = At { place: node.place, path };
        self.scalar(node, &at).map(str::to_owned).map(|text| (text, at))
    }

    fn required(&mut self, fields: &mut Fields<'_>, name: &'static str, what: &str) -> Option<String> {
        match self.text(fields, name) {
            Some((text, _)) if !text.trim().is_empty() => Some(text),
            Some((_, at)) => {
                self.add(&at, format!("is empty: {what}"));
                None
            }
            None => {
                let at = At { place: fields.place, path: fields.path_of(name) };
                self.add(&at, format!("is missing: {what}"));
                None
            }
        }
    }

    fn duration(&mut self, fields: &mut Fields<'_>, name: &'static str, least: Duration) -> Option<Duration> {
        let (text, at) = self.text(fields, name)?;
        match units::duration(&text) {
            Ok(value) if value < least => self.add(&at, format!("is too short: at least {least:?}")),
            Ok(value) if value > LONGEST => self.add(&at, "is too long: at most 366d"),
            Ok(value) => return Some(value),
            Err(what) => self.add(&at, what),
        }
        None
    }

    fn size(&mut self, fields: &mut Fields<'_>, name: &'static str, least: u64) -> Option<u64> {
        let (text, at) = self.text(fields, name)?;
        match units::size(&text) {
            Ok(value) if value < least => self.add(&at, format!("is too small: at least {least}B")),
            Ok(value) => return Some(value),
            Err(what) => self.add(&at, what),
        }
        None
    }

    fn rate(&mut self, fields: &mut Fields<'_>, name: &'static str) -> Option<u32> {
        let (text, at) = self.text(fields, name)?;
        units::rate(&text).map_err(|what| self.add(&at, what)).ok()
    }

    fn create(&mut self, fields: &mut Fields<'_>) -> Create {
        match self.text(fields, "create") {
            Some((text, _)) if text == "true" => Create::Missing,
            Some((text, _)) if text == "false" => Create::Never,
            Some((_, at)) => {
                self.add(&at, "true or false is expected here");
                Create::Never
            }
            None => Create::Never,
        }
    }

    fn address(&mut self, fields: &mut Fields<'_>) -> Option<SocketAddr> {
        let (text, at) = self.text(fields, "address")?;
        let parsed = text.replace("localhost:", "127.0.0.1:").parse();
        parsed
            .map_err(|_| self.add(&at, format!("`{text}` is no address: write 0.0.0.0:8080 or [::]:8080")))
            .ok()
    }

    fn file(&mut self, fields: &mut Fields<'_>, name: &'static str) -> Option<PathBuf> {
        let (text, at) = self.text(fields, name)?;
        let path = PathBuf::from(text);
        if let Err(why) = self.world.readable(&path) {
            self.add(&at, format!("{} cannot be read: {why}", path.display()));
        }
        Some(path)
    }

    fn secret(&mut self, fields: &mut Fields<'_>, name: &'static str) -> Option<SecretSource> {
        let path = fields.path_of(name);
        let node = fields.take(name)?;
        self.secret_source(node, &At { place: node.place, path })
    }

    fn secret_source(&mut self, node: &Node, at: &At) -> Option<SecretSource> {
        if let Value::Scalar(_) = node.value {
            self.add(at, "is a secret: write { env: NAME } or { file: PATH }, never the value");
            return None;
        }
        let mut map = Fields::of(node, &at.path, &mut self.problems)?;
        let (env, file) = (self.text(&mut map, "env"), self.file(&mut map, "file"));
        map.finish(&mut self.problems);
        match (env, file) {
            (Some((name, at)), None) => {
                match self.world.variable(&name) {
                    None => self.add(&at, format!("the environment variable {name} is not set")),
                    Some(value) if value.trim().is_empty() => {
                        self.add(&at, format!("the environment variable {name} is empty"));
                    }
                    Some(_) => {}
                }
                Some(SecretSource::Env(name))
            }
            (None, Some(path)) => Some(SecretSource::File(path)),
            (Some(_), Some(_)) | (None, None) => {
                self.add(at, "write { env: NAME } or { file: PATH }");
                None
            }
        }
    }

    fn template(&mut self, text: &str, at: &At, known: &[&str]) {
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            let Some(close) = rest[open..].find('}') else {
                self.add(at, "a `{` is not closed");
                return;
            };
            let name = &rest[open + 1..open + close];
            let all = ["type", "provider", "account", "subject"];
            if !all.contains(&name) {
                let list: Vec<String> = known.iter().map(|name| format!("{{{name}}}")).collect();
                self.add(at, format!("`{{{name}}}` is unknown: a template takes {}", list.join(" ")));
            }
            rest = &rest[open + close + 1..];
        }
        if !text.contains("{type}") {
            self.add(at, "needs {type}: each type of event has a topic of its own");
        }
    }

    fn left_over_variable(&mut self, text: &str, at: &At) {
        if text.contains("${") {
            self.add(at, "variables are not filled in: write { env: NAME } where a secret is taken");
        }
    }
}

/// Why an API does not have a feed.
fn refused_feed(name: &str, api: Option<&PollApi>) -> Option<String> {
    let v2 = "locations, history, trips, stops, alerts, usage-hours, geofence-activity, trackers, geofences";
    let feed = Feed::parse(name);
    match (feed, api) {
        (None, _) => Some(format!("`{name}` is no feed: v2 has {v2}; v3 has positions, stops, trackers")),
        (Some(Feed::Positions), Some(PollApi::V2 { .. })) => {
            Some(format!("API v2 has no feed `{name}`: {v2}"))
        }
        (Some(Feed::Trips | Feed::Alerts), Some(PollApi::V3 { .. })) => {
            Some(format!("API v3 has no feed `{name}` yet: what identifies its rows has not been seen live"))
        }
        (
            Some(
                Feed::Locations | Feed::History | Feed::UsageHours | Feed::GeofenceActivity | Feed::Geofences,
            ),
            Some(PollApi::V3 { .. }),
        ) => Some(format!("API v3 has no feed `{name}`: positions, stops, trackers")),
        (Some(_), Some(_) | None) => None,
    }
}

fn overlap(a: IpAddr, b: IpAddr) -> bool {
    a == b || a.is_unspecified() || b.is_unspecified()
}
