//! The replay store: what could not be delivered waits here, fsynced, in the order in which it was accepted.
//!
//! [`Store`] is what the rest of the program holds: a bounded queue and counters in memory, never a connection.
//! [`Writer`] owns `store.db` and its thread. Invariant: a row whose park was answered `Ok` is on disk, and stays until
//! it is delivered, discarded, evicted or too old; what waits for the bus is never evicted.

mod audit;
mod data_dir;
pub mod drain;
mod entries;
mod era;
mod error;
mod expiry;
mod intact;
mod limits;
mod listing;
mod log;
mod mend;
mod mounts;
pub mod moving;
mod parks;
mod queue;
mod report;
mod reserve;
mod rows;
mod salvage;
mod schema;
mod sound;
mod staged;
mod still;
mod store;
mod tally;
#[cfg(test)]
pub(crate) mod testing;
mod upkeep;
mod view;
mod whole;
mod writer;

pub use audit::{Act, Acts, Change, Original, Recorded};
pub(crate) use data_dir::has_lost_its_name;
pub use data_dir::{DataDir, LockError};
pub use entries::{DamagedEntry, Entry, Place, Table};
pub use era::Era;
pub use error::{AskError, ParkError, StoreError};
pub(crate) use expiry::{AgeClock, aging};
pub use expiry::{Gone, Why};
pub use limits::{Routing, StoreLimits, TopicOf, TopicsBefore};
pub(crate) use log::path_of as log_path_of;
pub use mounts::Volume;
pub use queue::Done;
pub use report::{Named, Recovered, RecoveredLane, StoreHealth, StoreStats};
pub use salvage::{Exported, Salvage, SalvageError};
pub(crate) use schema::{part_of, private_where_missing, remove_if_there};
pub use sound::{Checked, backup, check, check_copy};
pub use still::{Cut, Still};
pub use store::Store;
pub use tally::{Count, Kind};
pub use view::{Discarded, Filter, Listed, Page, Stored, What};
pub use writer::Writer;

use bytes::Bytes;
use uuid::Uuid;

use crate::event::{AccountId, EventType, Millis, Text};

/// A place in the order of acceptance. Given out from memory, in a lane's critical section, before the row is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Seq(pub u64);

/// The unit of order: what one account publishes to one topic about one subject.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneKey {
    /// Whose events.
    pub account: AccountId,
    /// The topic that `route` chose.
    pub topic: Text,
    /// The event's subject.
    pub subject: Text,
}

/// Rows of one lane, to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneRows {
    /// Whose rows.
    pub lane: LaneKey,
    /// Those after this place.
    pub after: Option<Seq>,
    /// At most so many,
    pub rows: usize,
    /// with at most so many bytes of payload; but one where there is one.
    pub bytes: u64,
}

/// Why an event is parked, which says what it waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The bus was unavailable, or its lane was behind: waits for the bus.
    Unavailable,
    /// The topic was refused: waits for the bus (one probe a topic).
    Refused,
    /// The bus can never take it: waits for the operator, holds nothing back.
    Unfit,
}

impl Reason {
    /// The spelling in the store, the API and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Refused => "refused",
            Self::Unfit => "unfit",
        }
    }

    /// Every reason, in the order of their codes in the store.
    pub const ALL: [Self; 3] = [Self::Unavailable, Self::Refused, Self::Unfit];

    /// The reason whose spelling is `text`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.as_str() == text)
    }

    /// Whom a row with this reason waits for.
    #[must_use]
    pub const fn waits_for(self) -> WaitsFor {
        match self {
            Self::Unavailable | Self::Refused => WaitsFor::Bus,
            Self::Unfit => WaitsFor::Operator,
        }
    }
}

/// Whom a stored row waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WaitsFor {
    /// It is drained by itself, in its lane; it is never evicted.
    Bus,
    /// It stays until an operator replays or discards it, or it is evicted.
    Operator,
}

/// Why raw bytes are parked. All of them wait for the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RawReason {
    /// Well-formed, but of no known type.
    Unrecognized,
    /// Of a known type, but without what its identity needs.
    Undecodable,
    /// Not JSON.
    NotJson,
}

impl RawReason {
    /// The spelling in the store, the API and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unrecognized => "unrecognized",
            Self::Undecodable => "undecodable",
            Self::NotJson => "not-json",
        }
    }

    /// Every reason, in the order of their codes in the store.
    pub const ALL: [Self; 3] = [Self::Unrecognized, Self::Undecodable, Self::NotJson];

    /// The reason whose spelling is `text`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.as_str() == text)
    }
}

/// An event in the store.
#[derive(Debug, Clone)]
pub struct Parked {
    /// Its place in the order.
    pub seq: Seq,
    /// Its lane.
    pub lane: LaneKey,
    /// Its type.
    pub event_type: EventType,
    /// Its event id.
    pub id: Uuid,
    /// Its ids that dedup remembers: forgotten when it is evicted or discarded.
    pub enters: Vec<Uuid>,
    /// The encoded `FleetEvent`.
    pub payload: Bytes,
    /// `traceparent`, where the sender gave one.
    pub trace: Option<String>,
    /// Why it waits.
    pub reason: Reason,
    /// The bus's words, for the operator. No payload, name or coordinate.
    pub error: String,
    /// An attempt is unresolved: the drain leaves the lane alone until it resolves. Not so after a restart.
    pub provisional: bool,
    /// When it was parked.
    pub parked_at: Millis,
}

/// What a row holds, as far as that is known.
#[derive(Debug, Clone)]
pub enum Kept<T> {
    /// As it was parked.
    Whole(T),
    /// Its bytes changed on the disk: it is never sent.
    Damaged(Seq),
}

impl<T> Kept<T> {
    fn of(seq: Seq, whole: Option<T>) -> Self {
        whole.map_or(Self::Damaged(seq), Self::Whole)
    }

    fn map<U>(self, to: impl FnOnce(T) -> U) -> Kept<U> {
        match self {
            Self::Whole(whole) => Kept::Whole(to(whole)),
            Self::Damaged(seq) => Kept::Damaged(seq),
        }
    }

    /// What it holds, where that is as it was parked.
    #[must_use]
    pub fn whole(self) -> Option<T> {
        match self {
            Self::Whole(whole) => Some(whole),
            Self::Damaged(_) => None,
        }
    }
}

impl Kept<Parked> {
    /// Its place in the order.
    #[must_use]
    pub const fn seq(&self) -> Seq {
        match self {
            Self::Whole(event) => event.seq,
            Self::Damaged(seq) => *seq,
        }
    }
}

impl Kept<Stored> {
    /// Its place in the order.
    #[must_use]
    pub const fn seq(&self) -> Seq {
        match self {
            Self::Whole(stored) => stored.seq(),
            Self::Damaged(seq) => *seq,
        }
    }
}

/// Raw bytes in the store: a message that this version does not understand.
#[derive(Debug, Clone)]
pub struct ParkedRaw {
    /// Whose.
    pub account: AccountId,
    /// The way it came: `push`, `push/HINT`, `v2/FEED` or `v3/FEED`.
    pub source: String,
    /// When it was received, so that decoding it again gives the ids that it would have had.
    pub received_at: Millis,
    /// Why.
    pub reason: RawReason,
    /// What was wrong with it; no payload.
    pub error: String,
    /// The bytes.
    pub body: Bytes,
}
