//! The bus: one attempt to publish one message, and its outcome. Invariant: every [`Ticket`] is resolved exactly
//! once, also where the client dies; nothing here retries, parks or decides (that is `deliver`). Three closed
//! variants: `kafka`, `nats`, `local`.

mod headers;
pub mod kafka;
pub mod local;
pub mod nats;

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::config::{self, SecretError};
use crate::event::Text;
pub use headers::Headers;
use kafka::KafkaBus;
use local::LocalBus;
use nats::NatsBus;

/// An encoded event on its way: what `encode` makes and every bus takes.
#[derive(Debug, Clone)]
pub struct Message {
    /// Kafka topic, NATS subject, or topic of the local log.
    pub topic: Text,
    /// The event's subject: Kafka key.
    pub key: Text,
    /// The event's id: `Nats-Msg-Id`.
    pub id: Uuid,
    /// CloudEvents attributes under this bus's names, values already in this bus's encoding.
    pub headers: Headers,
    /// A bare `fleetbus.v1.FleetEvent`.
    pub payload: Bytes,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The bus has it on every in-sync replica, or in the stream.
    Delivered,
    /// Surely not stored.
    Failed(Failure),
    /// It may have been stored, and nothing more will be heard of it.
    Unresolved,
}

/// Why an attempt failed, named for what helps.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The bus cannot be reached: park, drained by itself.
    #[error("the bus is unavailable: {0}")]
    Unavailable(String),
    /// Nobody answers for the topic's stream at the moment: as unavailable, but that others are well may be.
    #[error("the bus does not answer for the topic: {0}")]
    Unanswered(String),
    /// The client's own queue has no room at the moment: try again soon. It says nothing of the bus.
    #[error("the bus client is busy: {0}")]
    Busy(String),
    /// The topic or stream is missing, or rights to it are: a state of the topic.
    #[error("the bus refuses the topic: {0}")]
    Refused(String),
    /// The topic's stream has no room: a state of the topic, too, and one that may pass by itself.
    #[error("the bus has no room for the topic: {0}")]
    Full(String),
    /// This message can never be taken: too large, invalid.
    #[error("the bus cannot take this message: {0}")]
    Unfit(String),
    /// The client is beyond repair and is being rebuilt.
    #[error("the bus client broke: {0}")]
    Broken(String),
}

/// Who is told how an attempt ended. Called from the client's own threads: must be quick and must not block.
pub trait Awaiting: Send + Sync {
    /// The attempt `entry` ended so.
    fn resolve(&self, entry: u64, outcome: Outcome);
}

/// The obligation to report one attempt's outcome. Dropped unreported, it reports [`Outcome::Unresolved`].
pub struct Ticket {
    to: Option<Arc<dyn Awaiting>>,
    entry: u64,
}

impl Ticket {
    /// A ticket for the attempt that `to` knows as `entry`.
    #[must_use]
    pub fn new(to: Arc<dyn Awaiting>, entry: u64) -> Self {
        Self { to: Some(to), entry }
    }

    /// Reports the outcome.
    pub fn resolve(mut self, outcome: Outcome) {
        if let Some(to) = self.to.take() {
            to.resolve(self.entry, outcome);
        }
    }

    /// Takes the obligation back: the attempt was never made.
    pub fn withdraw(mut self) {
        self.to = None;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(to) = self.to.take() {
            to.resolve(self.entry, Outcome::Unresolved);
        }
    }
}

/// How many unacknowledged messages a lane may have on a bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// Any: what is submitted first is stored first.
    Unlimited,
    /// One: the bus promises no order of what is in flight.
    One,
}

/// What a check of the bus found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// It is there.
    Fine(String),
    /// It works, and an acknowledgement promises less than one may think.
    Weak(String),
    /// It is missing: what, and the command that makes it.
    Missing {
        /// What.
        what: String,
        /// The command.
        command: String,
    },
    /// It was missing, and has been made.
    Made(String),
    /// It is there, or said to be, and cannot be used: why, and what to do.
    Unusable {
        /// What, and why.
        what: String,
        /// What to do.
        fix: String,
    },
    /// The bus could not be asked.
    Unreachable(String),
    /// The same, and waiting does not help: why, and what to do.
    Barred {
        /// What, and why.
        what: String,
        /// What to do.
        fix: String,
    },
}

/// A bus could not even be configured.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A secret.
    #[error("a secret of the bus cannot be read")]
    Secret(#[from] SecretError),
    /// The Kafka client refuses its properties.
    #[error("the Kafka client refuses its configuration")]
    Kafka(#[from] rdkafka::error::KafkaError),
    /// The client of the schema registry.
    #[error("the schema registry's client cannot be made: {0}")]
    Registry(String),
    /// The NATS client refuses its options.
    #[error("the NATS client refuses its configuration: {0}")]
    Nats(String),
    /// The local log.
    #[error("the local bus's file cannot be opened")]
    Local(#[from] rusqlite::Error),
    /// A newer version of the program wrote it; nothing was changed.
    #[error(
        "local.db has format {0}, and this version knows {format} at most: run the version that wrote it, or move the file away, with the events that were published to it",
        format = local::FORMAT
    )]
    LocalNewer(i64),
    /// It cannot be made.
    #[error("the local bus's file cannot be made")]
    LocalFile(#[from] std::io::Error),
}

/// The buses: a closed set.
pub enum Bus {
    /// Apache Kafka.
    Kafka(KafkaBus),
    /// NATS JetStream.
    Nats(Box<NatsBus>),
    /// The embedded log.
    Local(LocalBus),
}

impl Bus {
    /// Makes the client. The bus itself need not be up.
    ///
    /// # Errors
    /// Where the configuration itself does not work.
    pub fn open(config: &config::Bus, data_dir: &Path) -> Result<Self, OpenError> {
        Ok(match config {
            config::Bus::Kafka(kafka) => Self::Kafka(KafkaBus::open(kafka)?),
            config::Bus::Nats(nats) => Self::Nats(Box::new(NatsBus::open(nats)?)),
            config::Bus::Local(local) => Self::Local(LocalBus::open(local, data_dir)?),
        })
    }

    /// Hands one message over, without waiting. Called inside a lane's critical section: no ticket is ever resolved from
    /// within; a refusal gives it back. What is submitted first for one key is stored first.
    ///
    /// # Errors
    /// The message was surely not stored, and why; with the ticket, to be withdrawn or resolved.
    pub fn submit(&self, message: &Message, ticket: Ticket) -> Result<(), (Failure, Ticket)> {
        match self {
            Self::Kafka(bus) => bus.submit(message, ticket),
            Self::Nats(bus) => bus.submit(message, ticket),
            Self::Local(bus) => bus.submit(message, ticket),
        }
    }

    /// How many unacknowledged messages a lane may have by the bus's kind.
    #[must_use]
    pub const fn window(&self) -> Window {
        match self {
            Self::Kafka(_) | Self::Local(_) => Window::Unlimited,
            Self::Nats(_) => Window::One,
        }
    }

    /// How many this lane may have now: fewer, where its client cannot tell yet what its place takes.
    #[must_use]
    pub fn window_of(&self, topic: &str, key: &str) -> Window {
        match self {
            Self::Kafka(bus) => bus.window_of(topic, key),
            Self::Nats(_) | Self::Local(_) => self.window(),
        }
    }

    /// Whether what was submitted for this lane may not be on its way yet: its client sends one message after the other there.
    #[must_use]
    pub fn holds_back(&self, topic: &str, key: &str) -> bool {
        match self {
            Self::Kafka(bus) => bus.holds_back(topic, key),
            Self::Nats(_) | Self::Local(_) => false,
        }
    }

    /// Whether it is thought to be there.
    #[must_use]
    pub fn is_available(&self) -> bool {
        match self {
            Self::Kafka(bus) => bus.is_available(),
            Self::Nats(bus) => bus.is_available(),
            Self::Local(bus) => bus.is_available(),
        }
    }

    /// What a topic is called before people: without the vehicle, whose id is the sender's text. Only NATS has it in there.
    #[must_use]
    pub fn name_of<'a>(&self, topic: &'a str) -> Cow<'a, str> {
        match self {
            Self::Nats(bus) => Cow::Owned(bus.name_of(topic)),
            Self::Kafka(_) | Self::Local(_) => Cow::Borrowed(topic),
        }
    }

    /// Looks the topics up, makes what is missing where that is configured, and warns of weak promises.
    pub async fn check(&self, topics: &[Text]) -> Vec<Finding> {
        match self {
            Self::Kafka(bus) => bus.check(topics).await,
            Self::Nats(bus) => bus.check(topics).await,
            Self::Local(_) => vec![Finding::Fine("the local bus needs no topics".to_owned())],
        }
    }

    /// What the first event should not have to wait for, as far as it can be had within the caller's patience. Without it
    /// events are parked until `run` has it.
    pub async fn prepare(&self, topics: &[Text]) {
        match self {
            Self::Kafka(bus) => bus.prepare(topics).await,
            Self::Nats(_) | Self::Local(_) => {}
        }
    }

    /// Whether topics that were refused may be taken now, since this was asked last: their schemas were found, or there is a
    /// new connection.
    #[must_use]
    pub fn has_news_of_topics(&self) -> bool {
        match self {
            Self::Kafka(bus) => bus.has_news_of_topics(),
            Self::Nats(bus) => bus.has_news_of_topics(),
            Self::Local(_) => false,
        }
    }

    /// The work that the bus needs beside its clients' threads. Ends when `stop` says so and all tickets are resolved
    /// or given up.
    pub async fn run(&self, stop: CancellationToken) {
        match self {
            Self::Kafka(bus) => bus.run(stop).await,
            Self::Nats(bus) => bus.run(stop).await,
            Self::Local(bus) => bus.run(stop).await,
        }
    }

    /// Gives what is in flight a last chance, then lets go of the client: what is unacknowledged is unresolved.
    pub async fn close(&self, patience: Duration) {
        match self {
            Self::Kafka(bus) => bus.close(patience).await,
            Self::Nats(bus) => bus.close(patience).await,
            Self::Local(bus) => bus.close(patience).await,
        }
    }

    /// The embedded log, where this is it.
    #[must_use]
    pub const fn as_local(&self) -> Option<&LocalBus> {
        match self {
            Self::Local(bus) => Some(bus),
            Self::Kafka(_) | Self::Nats(_) => None,
        }
    }
}
