//! What a Kafka client is made of: the configuration's properties with their secrets as they read now, and those that the promises
//! rest on. Invariant: two that are equal make the same client, also where a file was written anew.

use std::path::Path;
use std::time::Duration;

use rdkafka::config::ClientConfig;

use crate::config::{self, SecretError};

/// What no producer may do otherwise, and an administrator's client knows nothing of.
const PROMISED: [(&str, &str); 5] = [
    ("enable.idempotence", "true"),
    ("acks", "all"),
    ("message.timeout.ms", "0"),
    ("linger.ms", "0"),
    ("partitioner", "murmur2_random"),
];
/// `batch.size` and `message.max.bytes`, where they are not set.
const LARGEST_BATCH: u64 = 1_000_000;
/// How long requests take, where that is not set; and what is taken for the least, in milliseconds.
const REQUEST: [(&str, u64); 2] = [("socket.timeout.ms", 60_000), ("request.timeout.ms", 30_000)];
const SHORTEST_REQUEST: u64 = 5_000;
const BOUNDS: [(&str, &str); 9] = [
    ("max.in.flight.requests.per.connection", "5"),
    ("queue.buffering.max.kbytes", "65536"),
    ("queue.buffering.max.messages", "200000"),
    ("topic.metadata.propagation.max.ms", "5000"),
    ("reconnect.backoff.ms", "50"),
    ("reconnect.backoff.max.ms", "1000"),
    ("statistics.interval.ms", "1000"),
    ("log.connection.close", "false"),
    ("allow.auto.create.topics", "false"),
];

/// Properties, and the files that the client reads by itself when it is made. Not to be printed: secrets are in it.
#[derive(PartialEq, Eq)]
pub(super) struct Properties {
    set: Vec<(String, String)>,
    /// What is in the files that properties name: none where one cannot be read, or is a folder.
    files: Vec<Option<Vec<u8>>>,
    /// Whether any of it can change while the bridge runs.
    pub(super) reads_files: bool,
}

impl Properties {
    /// # Errors
    /// Where a secret cannot be read.
    pub(super) fn read(kafka: &config::Kafka) -> Result<Self, SecretError> {
        let mut read = Self { set: Vec::new(), files: Vec::new(), reads_files: false };
        for (name, property) in &kafka.properties {
            let value = match property {
                config::Property::Plain(value) => {
                    if name.ends_with(".location") {
                        read.files.push(config::read_bounded(Path::new(value)).ok());
                        read.reads_files = true;
                    }
                    value.clone()
                }
                config::Property::Secret(source) => {
                    read.reads_files |= matches!(source, config::SecretSource::File(_));
                    source.read()?.reveal().to_owned()
                }
            };
            read.set.push((name.clone(), value));
        }
        read.set.push(("bootstrap.servers".to_owned(), kafka.brokers.clone()));
        Ok(read)
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        for (name, value) in &self.set {
            config.set(name, value);
        }
        for (name, value) in BOUNDS {
            config.set(name, value);
        }
        config
    }

    pub(super) fn producer(&self) -> ClientConfig {
        let mut config = self.config();
        for (name, value) in PROMISED {
            config.set(name, value);
        }
        config
    }

    pub(super) fn administrator(&self) -> ClientConfig {
        self.config()
    }

    /// How many bytes of several messages the client sends at once, at most.
    pub(super) fn largest_batch(&self) -> u64 {
        let of = |bound: &str| self.number(bound).unwrap_or(LARGEST_BATCH);
        of("batch.size").min(of("message.max.bytes"))
    }

    /// After how long the client gives a request up that is not answered.
    pub(super) fn longest_request(&self) -> Duration {
        let of = |(bound, otherwise): (&str, u64)| self.number(bound).unwrap_or(otherwise);
        Duration::from_millis(REQUEST.map(of).into_iter().fold(SHORTEST_REQUEST, u64::max))
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.set.iter().find(|(set, _)| set == name).and_then(|(_, value)| value.parse().ok())
    }
}
