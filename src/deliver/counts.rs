//! Counters that add up: received = delivered + parked + duplicates + rejected + in flight, per account and type. Atomics,
//! in an array an account: no lock, and no growth but by a reload that names a new account. Read by `admin`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use foldhash::HashMap;

use crate::event::{AccountId, EventType};
use crate::latency::Latencies;

/// What became of an event, finally as far as its sender is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Acknowledged by the bus.
    Delivered,
    /// Fsynced in the replay store.
    Parked,
    /// Known already.
    Duplicate,
    /// Neither delivered nor kept: the sender was told so.
    Rejected,
}

/// The counters of one account and type.
#[derive(Debug, Default)]
pub struct Count {
    received: AtomicU64,
    delivered: AtomicU64,
    parked: AtomicU64,
    duplicates: AtomicU64,
    rejected: AtomicU64,
}

/// One reading of a [`Count`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reading {
    /// Decoded and identified.
    pub received: u64,
    /// Acknowledged by the bus before the sender was answered.
    pub delivered: u64,
    /// Parked.
    pub parked: u64,
    /// Known already.
    pub duplicates: u64,
    /// Neither delivered nor kept.
    pub rejected: u64,
}

impl Reading {
    /// Received, and not yet one of the others.
    #[must_use]
    pub const fn in_flight(&self) -> u64 {
        self.received.saturating_sub(self.delivered + self.parked + self.duplicates + self.rejected)
    }

    /// Both together.
    #[must_use]
    pub const fn plus(&self, other: &Self) -> Self {
        Self {
            received: self.received + other.received,
            delivered: self.delivered + other.delivered,
            parked: self.parked + other.parked,
            duplicates: self.duplicates + other.duplicates,
            rejected: self.rejected + other.rejected,
        }
    }
}

impl Count {
    /// So many events were decoded.
    pub fn received(&self, events: u64) {
        self.received.fetch_add(events, Ordering::Relaxed);
    }

    /// One event met its fate.
    pub fn met(&self, fate: Fate) {
        let counter = match fate {
            Fate::Delivered => &self.delivered,
            Fate::Parked => &self.parked,
            Fate::Duplicate => &self.duplicates,
            Fate::Rejected => &self.rejected,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// The fates are read before what was received, so that in flight is never negative.
    #[must_use]
    pub fn read(&self) -> Reading {
        let delivered = self.delivered.load(Ordering::Relaxed);
        let parked = self.parked.load(Ordering::Relaxed);
        let duplicates = self.duplicates.load(Ordering::Relaxed);
        let rejected = self.rejected.load(Ordering::Relaxed);
        let received = self.received.load(Ordering::Relaxed);
        Reading { received, delivered, parked, duplicates, rejected }
    }
}

/// One account's counters, type by type.
type Types = Arc<[Count; EventType::ALL.len()]>;

/// Every account's counters, type by type.
#[derive(Debug)]
pub struct Counts {
    accounts: ArcSwap<HashMap<AccountId, Types>>,
    stray: Types,
    /// Attempts that the bus acknowledged after their events had been parked provisionally.
    pub late_acknowledgements: AtomicU64,
    /// Events that the drain delivered.
    pub drained: AtomicU64,
    /// Messages of another type than the URL says to which they were posted.
    pub contradicted_hints: AtomicU64,
    /// From an event's admission to the bus's acknowledgement, where that came in time.
    pub publishing: Latencies,
}

impl Counts {
    /// Counters for these accounts.
    pub fn new<'a>(accounts: impl IntoIterator<Item = &'a AccountId>) -> Self {
        let accounts: HashMap<AccountId, _> =
            accounts.into_iter().map(|id| (id.clone(), Default::default())).collect();
        Self {
            publishing: Latencies::new(accounts.keys()),
            accounts: ArcSwap::from_pointee(accounts),
            stray: Types::default(),
            late_acknowledgements: AtomicU64::new(0),
            drained: AtomicU64::new(0),
            contradicted_hints: AtomicU64::new(0),
        }
    }

    /// These accounts are counted too, from now on. One that is gone keeps its counters: what is parked of it may drain still.
    pub fn admit<'a>(&self, accounts: impl IntoIterator<Item = &'a AccountId> + Clone) {
        self.publishing.admit(accounts.clone());
        self.accounts.rcu(|known| {
            let mut known = HashMap::clone(known);
            for id in accounts.clone() {
                known.entry(id.clone()).or_default();
            }
            known
        });
    }

    /// The counters of one account and type.
    pub fn of<T>(&self, account: &AccountId, event_type: EventType, with: impl FnOnce(&Count) -> T) -> T {
        let accounts = self.accounts.load();
        with(&accounts.get(account).unwrap_or(&self.stray)[event_type.index()])
    }

    /// Every reading, in order of account and type.
    #[must_use]
    pub fn readings(&self) -> Vec<(AccountId, EventType, Reading)> {
        let mut all: Vec<_> = self
            .accounts
            .load()
            .iter()
            .flat_map(|(id, counts)| {
                EventType::ALL.iter().zip(counts.iter()).map(move |(t, count)| (id.clone(), *t, count.read()))
            })
            .collect();
        all.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        all
    }

    /// The sum over one account, or over all.
    #[must_use]
    pub fn total(&self, account: Option<&AccountId>) -> Reading {
        self.readings()
            .iter()
            .filter(|(id, ..)| account.is_none_or(|wanted| wanted == id))
            .fold(Reading::default(), |sum, (.., reading)| sum.plus(reading))
    }
}
