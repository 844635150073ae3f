//! What leaves the store without being delivered, and how that is told: evicted for room, too old, or thrown away. Who
//! remembers its ids (dedup) and who counts its lane (deliver) hear of it after the commit.

use uuid::Uuid;

use super::{Kind, LaneKey, Seq};
use crate::event::{AccountId, EventType};

/// A row that is gone, undelivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gone {
    /// Its place in the order.
    pub seq: Seq,
    /// Whose it was.
    pub account: AccountId,
    /// Why it was there.
    pub kind: Kind,
    /// Events: lane and type.
    pub event: Option<(LaneKey, EventType)>,
    /// The ids that dedup is to forget, so that the poller may heal it.
    pub enters: Vec<Uuid>,
    /// Why it is gone.
    pub why: Why,
}

/// Why a row is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// What waits for the operator was more than its share: the oldest goes.
    Evicted,
    /// It was older than the retention.
    Expired,
    /// An operator threw it away.
    Discarded,
}

impl Why {
    /// The spelling in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Evicted => "evicted",
            Self::Expired => "expired",
            Self::Discarded => "discarded",
        }
    }
}
