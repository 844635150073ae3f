//! What goes into `accept` and what comes out of it: one webhook request, the rows of one polled answer, the receipt, and the
//! reasons for which a request is not taken. Plain values; each refusal maps to one HTTP status, or to a cursor that stays.

use std::time::Duration;

use bytes::Bytes;

use crate::event::pb::origin::Channel;
use crate::event::{AccountId, Millis};
use crate::provider::{Feed, PullApi};

/// What came with one webhook request.
#[derive(Debug, Clone)]
pub struct Pushed {
    /// Authenticated.
    pub account: AccountId,
    /// The last path segment, in lower case.
    pub hint: Option<String>,
    /// The whole body, decompressed.
    pub body: Bytes,
    /// When its last byte was read.
    pub received_at: Millis,
    /// The sender's `traceparent`, if well-formed.
    pub trace: Option<String>,
}

/// Why something is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errand {
    /// The provider sent it.
    Push,
    /// A feed's regular poll.
    Poll,
    /// A backfill.
    Backfill,
    /// A backfill that publishes again what was published before.
    Republish,
}

impl Errand {
    /// What events say of how they came.
    #[must_use]
    pub const fn channel(self) -> Channel {
        match self {
            Self::Push => Channel::Webhook,
            Self::Poll => Channel::Poll,
            Self::Backfill | Self::Republish => Channel::Backfill,
        }
    }
}

/// Rows of one polled answer.
#[derive(Debug, Clone)]
pub struct Pulled {
    /// Whose.
    pub account: AccountId,
    /// The API.
    pub api: PullApi,
    /// The feed.
    pub feed: Feed,
    /// Each row's JSON text.
    pub rows: Vec<Bytes>,
    /// When the answer was received.
    pub received_at: Millis,
    /// Why it was fetched.
    pub errand: Errand,
}

/// What became of the elements of one request: all of it durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Receipt {
    /// `delivered` + `parked` + `duplicates`.
    pub events: u64,
    /// Acknowledged by the bus.
    pub delivered: u64,
    /// Fsynced in the replay store.
    pub parked: u64,
    /// Known already.
    pub duplicates: u64,
    /// Raw elements of no known type, parked raw.
    pub unrecognized: u64,
    /// Raw elements without an identity, parked raw.
    pub undecodable: u64,
    /// Rows skipped by rule.
    pub skipped: u64,
}

/// Why a request was not taken, or not in full.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not JSON: parked raw, for a truncated copy may be all there is.
    #[error("the body is not JSON: line {line}, column {column}")]
    NotJson {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// No bytes, or only blanks; of what is decoded again, also no element.
    #[error("the body is empty")]
    Empty,
    /// More than 10,000 elements.
    #[error("the body has more than {0} elements")]
    TooMany(usize),
    /// The account's rate and its quota of parked events are both spent.
    #[error("the account's rate and its quota of parked events are spent")]
    QuotaSpent {
        /// When to come again.
        retry_after: Duration,
    },
    /// No memory, or something was neither delivered nor parked.
    #[error("not every event could be delivered or kept")]
    NotKept {
        /// When to come again.
        retry_after: Duration,
    },
    /// The process is stopping.
    #[error("fleetbus is stopping")]
    Stopping,
}

impl Receipt {
    /// Both together.
    #[must_use]
    pub const fn plus(&self, other: &Self) -> Self {
        Self {
            events: self.events + other.events,
            delivered: self.delivered + other.delivered,
            parked: self.parked + other.parked,
            duplicates: self.duplicates + other.duplicates,
            unrecognized: self.unrecognized + other.unrecognized,
            undecodable: self.undecodable + other.undecodable,
            skipped: self.skipped + other.skipped,
        }
    }
}
