//! What a configuration means: values that cannot be wrong, with defaults filled in. Made by `config::load` alone; read
//! by every part. Sizes are bytes, times are `Duration`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::SecretSource;
use crate::event::AccountId;
use crate::provider::{Provider, PullApi};

/// The whole configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Webhooks.
    pub listen: Listen,
    /// The operator's port.
    pub admin: Admin,
    /// Replay store, cursors, what was seen, the local bus.
    pub data_dir: PathBuf,
    /// Where events go.
    pub bus: Bus,
    /// Whose events; ids are unique.
    pub accounts: Vec<Account>,
    /// The policy of delivery.
    pub delivery: Delivery,
    /// The replay store's bounds.
    pub replay: Replay,
    /// The horizons of dedup.
    pub dedup: Dedup,
    /// The bound of custom data.
    pub custom_data: CustomData,
    /// Where spans go; none by default.
    pub otlp: Option<Otlp>,
}

/// The webhook port.
#[derive(Debug, Clone, PartialEq)]
pub struct Listen {
    /// Address and port.
    pub address: SocketAddr,
    /// Certificate and key, reloaded when the files change.
    pub tls: Option<Tls>,
}

/// PEM files.
#[derive(Debug, Clone, PartialEq)]
pub struct Tls {
    /// Certificate chain.
    pub cert: PathBuf,
    /// Private key.
    pub key: PathBuf,
}

/// The operator's port.
#[derive(Debug, Clone, PartialEq)]
pub struct Admin {
    /// Address and port.
    pub address: SocketAddr,
    /// Who may ask, and what; where nobody is named, loopback peers only.
    pub tokens: Vec<AdminToken>,
}

/// Somebody who may ask the operator's port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminToken {
    /// What the audit log calls them.
    pub name: String,
    /// What they may do.
    pub scope: Scope,
    /// What proves that it is they.
    pub token: SecretSource,
}

/// What an admin token opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Looking.
    Read,
    /// Changing, too.
    Write,
}

impl Scope {
    /// The spelling in configurations.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// Where events go: exactly one.
#[derive(Debug, Clone, PartialEq)]
pub enum Bus {
    /// Apache Kafka.
    Kafka(Kafka),
    /// NATS JetStream.
    Nats(Nats),
    /// The embedded log in `data_dir`.
    Local(Local),
}

/// Whether what is missing on the bus is made at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Create {
    /// Made.
    Missing,
    /// Reported, with the command that makes it.
    Never,
}

/// Apache Kafka.
#[derive(Debug, Clone, PartialEq)]
pub struct Kafka {
    /// `host:port`, comma-separated.
    pub brokers: String,
    /// Template of `{type} {provider} {account}`; e.g. `fleet.{type}`.
    pub topic: String,
    /// Topics that are missing.
    pub create: Create,
    /// librdkafka properties; none of those that the promises rest on.
    pub properties: Vec<(String, Property)>,
    /// Whose frame values carry; bare by default.
    pub registry: Option<SchemaRegistry>,
}

/// A schema registry that speaks Confluent's protocol.
#[derive(Debug, Clone, PartialEq)]
pub struct SchemaRegistry {
    /// Without a trailing slash; https where there is a login, or http on loopback.
    pub url: String,
    /// Template of `{topic}`: under which subject a topic's schema is.
    pub subject: String,
    /// A schema that is missing.
    pub register: Create,
    /// Who asks; nobody by default.
    pub login: Option<RegistryLogin>,
    /// CA certificates, PEM, beside the system's.
    pub ca: Option<PathBuf>,
}

/// Who asks a schema registry.
#[derive(Debug, Clone, PartialEq)]
pub enum RegistryLogin {
    /// Name and password, or key and secret.
    Basic {
        /// The name.
        user: String,
        /// The password.
        password: SecretSource,
    },
    /// A bearer token.
    Bearer {
        /// The token.
        token: SecretSource,
    },
}

/// A librdkafka property's value.
#[derive(Debug, Clone, PartialEq)]
pub enum Property {
    /// As written.
    Plain(String),
    /// Read from its source.
    Secret(SecretSource),
}

/// NATS JetStream.
#[derive(Debug, Clone, PartialEq)]
pub struct Nats {
    /// `nats://` or `tls://`, comma-separated.
    pub url: String,
    /// Template of `{type} {provider} {account} {subject}`.
    pub subject: String,
    /// The stream that holds the subjects.
    pub stream: String,
    /// A stream that is missing.
    pub create: Create,
    /// A credentials file (JWT and nkey seed).
    pub credentials: Option<SecretSource>,
    /// User name and password.
    pub user: Option<(String, SecretSource)>,
    /// A token.
    pub token: Option<SecretSource>,
    /// CA certificates, PEM, instead of the system's.
    pub ca: Option<PathBuf>,
    /// What the bridge shows a server that asks for one.
    pub certificate: Option<Tls>,
    /// Of TLS.
    pub handshake: Handshake,
}

/// When a connection to NATS becomes one of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handshake {
    /// Before the server says anything.
    First,
    /// Once the server has greeted.
    Greeted,
}

/// The embedded log.
#[derive(Debug, Clone, PartialEq)]
pub struct Local {
    /// How long events are kept.
    pub retention: Duration,
    /// How much of the disk they may take.
    pub max_size: u64,
}

/// One customer's account with a provider.
#[derive(Debug, Clone, PartialEq)]
pub struct Account {
    /// Part of every event id.
    pub id: AccountId,
    /// The provider.
    pub provider: Provider,
    /// The token of its webhook; none where it only polls.
    pub webhook: Option<SecretSource>,
    /// The APIs that are polled.
    pub poll: Vec<Poll>,
    /// Its bounds.
    pub limits: Limits,
}

/// One pull API of an account.
#[derive(Debug, Clone, PartialEq)]
pub struct Poll {
    /// Which, with its secret.
    pub api: PollApi,
    /// Without a trailing slash; https, or http on loopback.
    pub base_url: String,
    /// What is fetched, how often; an interval is 1 s or more.
    pub feeds: Vec<(Feed, Duration)>,
}

/// A pull API and what opens it.
#[derive(Debug, Clone, PartialEq)]
pub enum PollApi {
    /// A long-lived bearer token.
    V2 {
        /// The token.
        token: SecretSource,
    },
    /// An API key that buys JWTs.
    V3 {
        /// The key.
        key: SecretSource,
    },
}

impl PollApi {
    /// Which API it opens.
    #[must_use]
    pub const fn pulls(&self) -> PullApi {
        match self {
            Self::V2 { .. } => PullApi::V2,
            Self::V3 { .. } => PullApi::V3,
        }
    }
}

pub use crate::provider::Feed;

/// An account's bounds.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Decoded bytes in work at once.
    pub in_flight: u64,
    /// Bytes parked for want of the bus.
    pub parked: u64,
    /// Events a second; none by default.
    pub rate: Option<u32>,
}

/// The policy of delivery.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// After this, what the bus has not acknowledged is parked and the sender is answered.
    pub publish_deadline: Duration,
    /// How often a definite failure is tried again within the deadline.
    pub retries: u32,
    /// The breaker.
    pub breaker: Breaker,
    /// How long to go on accepting after SIGTERM.
    pub drain_delay: Duration,
}

/// The bus connection's breaker.
#[derive(Debug, Clone, PartialEq)]
pub struct Breaker {
    /// Opens above this share of failures, 0 to 1.
    pub failure_rate: f64,
    /// Over this time.
    pub window: Duration,
}

/// The replay store's bounds.
#[derive(Debug, Clone, PartialEq)]
pub struct Replay {
    /// Age at which what is parked is removed, said and counted.
    pub retention: Duration,
    /// Bytes in all.
    pub max_size: u64,
    /// Events a second; none by default.
    pub drain_rate: Option<u32>,
}

/// What operators say about objects.
#[derive(Debug, Clone, PartialEq)]
pub struct CustomData {
    /// Its bound in memory, in bytes.
    pub memory: u64,
}

/// The horizons of dedup.
#[derive(Debug, Clone, PartialEq)]
pub struct Dedup {
    /// For positions and sightings.
    pub positions: Duration,
    /// For the rest.
    pub others: Duration,
    /// The front's bound in bytes.
    pub memory: u64,
}

impl Dedup {
    /// Pollers read this much of the past again, for what arrived late.
    pub const READ_AGAIN: Duration = Duration::from_secs(46 * 3_600);

    /// How long anything is remembered, at most: an id may be as far ahead as the horizon, and what lasts is kept for longer.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.positions.max(self.others) * 2 + Self::READ_AGAIN * 2
    }

    /// Whether it remembers all that pollers read again.
    #[must_use]
    pub fn covers_polls(&self) -> bool {
        self.positions.min(self.others) >= Self::READ_AGAIN
    }
}

/// Where spans go: a collector that speaks OTLP over HTTP.
#[derive(Debug, Clone, PartialEq)]
pub struct Otlp {
    /// Without a trailing slash, and without the path of a signal.
    pub endpoint: String,
    /// The share of traces that are kept, 0 to 1, where the sender has not decided.
    pub sample: f64,
    /// A bearer token.
    pub token: Option<SecretSource>,
}
