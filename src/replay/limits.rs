//! What the store is opened with: how much it may hold, for how long, and how the bus's topics are made now.

use std::collections::HashMap;
use std::time::Duration;

use crate::event::{AccountId, EventType, Millis, Text};

/// How much the store may hold, and for how long.
#[derive(Debug, Clone)]
pub struct StoreLimits {
    /// Bytes in all; a tenth of them is for what waits for the operator.
    pub max_size: u64,
    /// How old a row may get.
    pub retention: Duration,
    /// An account's bytes that wait for the bus, where `parked` does not name it.
    pub parked_default: u64,
    /// The bytes by account.
    pub parked: HashMap<AccountId, u64>,
    /// Bytes on disk that are kept so that a full disk can still delete.
    pub reserve: u64,
    /// The most pages of the file, for tests: SQLite then says that the disk is full.
    pub page_cap: Option<u32>,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self {
            max_size: 10 << 30,
            retention: Duration::from_secs(7 * 24 * 3600),
            parked_default: 2 << 30,
            parked: HashMap::new(),
            reserve: 16 << 20,
            page_cap: None,
        }
    }
}

impl StoreLimits {
    /// The share of what waits for the operator.
    pub(super) const fn operator_share(&self) -> u64 {
        self.max_size / 10
    }

    /// What was parked before it is too old.
    pub(super) fn cutoff(&self, now: Millis) -> Millis {
        Millis(now.0.saturating_sub(i64::try_from(self.retention.as_millis()).unwrap_or(i64::MAX)))
    }
}

/// The topic of an account's events of a type about a subject.
pub type TopicOf = Box<dyn Fn(&AccountId, EventType, &str) -> Option<Text> + Send>;

/// The topics of an earlier fingerprint, where it can be read.
pub type TopicsBefore = Box<dyn Fn(&str) -> Option<TopicOf> + Send>;

/// The bus's topics as the configuration now makes them: rows that were parked under other ones move to them, so that
/// their lanes keep their order.
pub struct Routing {
    /// Changes whenever a topic may have: the template, what it is made of, and for which accounts it is known.
    pub fingerprint: String,
    /// The topic of an account's events of a type about a subject; none leaves the row where it is.
    pub topic: TopicOf,
    /// The topics as an earlier fingerprint made them, where it can be read: a row under another one was put there by an operator, and stays.
    pub before: TopicsBefore,
}
