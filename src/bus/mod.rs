//! The bus: one attempt to publish one message, and its outcome. Invariant: every [`Ticket`] is resolved exactly
//! once, also where the client dies; nothing here retries, parks or decides (that is `deliver`). Three closed
//! variants: `kafka`, `nats`, `local`.

use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

/// An encoded event on its way: what `encode` makes and every bus takes.
#[derive(Debug, Clone)]
pub struct Message {
    /// Kafka topic, NATS subject, or topic of the local log.
    pub topic: Arc<str>,
    /// The event's subject: Kafka key.
    pub key: Arc<str>,
    /// The event's id: `Nats-Msg-Id`.
    pub id: Uuid,
    /// CloudEvents attributes under this bus's names, values already in this bus's encoding.
    pub headers: Vec<(&'static str, String)>,
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
    /// The bus cannot be reached, or its client's queue is full: park, drained by itself.
    #[error("the bus is unavailable: {0}")]
    Unavailable(String),
    /// The topic or stream is missing, or rights to it are: a state of the topic.
    #[error("the bus refuses the topic: {0}")]
    Refused(String),
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
