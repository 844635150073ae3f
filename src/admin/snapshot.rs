//! One reading of everything that the operator's port tells: plain values, taken in one go. `status` and `metrics` are pure
//! functions of it. [`Sources`] takes it from the running parts.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::bus::Bus;
use crate::deliver::Deliverer;
use crate::deliver::counts::Reading;
use crate::event::{AccountId, EventType, Millis};
use crate::intake::serve::Connections;
use crate::intake::webhook;
use crate::latency::Histograms;
use crate::provider::{Feed, PullApi};
use crate::replay::{Store, StoreStats};

/// Where the process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not everything runs yet.
    Starting,
    /// Everything runs.
    Running,
    /// Told to stop: no new work is wanted, what comes is still taken for a while.
    Stopping,
}

impl Phase {
    /// The spelling in `/readyz`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
        }
    }
}

/// Whether the bus takes events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BusState {
    /// As far as is known.
    Available,
    /// Its client has no connection.
    Unavailable,
}

/// How one polled feed does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedReading {
    /// Whose.
    pub account: AccountId,
    /// The API.
    pub api: PullApi,
    /// The feed.
    pub feed: Feed,
    /// Polls that were answered, and whose rows are durable.
    pub succeeded: u64,
    /// Polls that failed.
    pub failed: u64,
    /// Polls that failed since one last succeeded.
    pub failed_in_a_row: u64,
    /// Rows received.
    pub rows: u64,
    /// Those of which not everything became an event by rule.
    pub skipped: u64,
    /// When a poll last succeeded.
    pub last_success: Option<Millis>,
    /// Up to when everything was fetched, where the feed has windows.
    pub cursor: Option<Millis>,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// When it was taken.
    pub now: Millis,
    /// The process.
    pub phase: Phase,
    /// The bus.
    pub bus: BusState,
    /// Events are parked at once, until a probe succeeds.
    pub breaker_open: bool,
    /// For how long nothing was acknowledged, but attempts failed.
    pub silent_for: Option<Duration>,
    /// Topics that the bus refuses.
    pub refused_topics: u64,
    /// Lanes with parked events.
    pub lanes_behind: u64,
    /// Those events.
    pub events_behind: u64,
    /// What became of events.
    pub events: Vec<(AccountId, EventType, Reading)>,
    /// Attempts that the bus acknowledged after their events had been parked.
    pub late_acknowledgements: u64,
    /// Parked events that the drain delivered.
    pub drained: u64,
    /// Lines of the log that nobody read.
    pub log_lines_lost: u64,
    /// Spans that the collector did not take.
    pub spans_not_sent: u64,
    /// Messages of another type than their URL says.
    pub contradicted_hints: u64,
    /// Events too old, or too far ahead, to be remembered.
    pub beyond_horizon: u64,
    /// Look-ups of dedup on disk.
    pub dedup_look_ups: u64,
    /// Those that failed or took too long.
    pub dedup_look_ups_failed: u64,
    /// Ids that could not be written down.
    pub dedup_not_written: u64,
    /// The replay store.
    pub store: StoreStats,
    /// `replay.max_size`.
    pub store_max_bytes: u64,
    /// How long webhooks waited for their answer.
    pub answering: Histograms,
    /// How long events waited for the bus's acknowledgement.
    pub publishing: Histograms,
    /// What webhooks were answered.
    pub webhooks: Vec<WebhookReading>,
    /// Connections of each port: open, and at most.
    pub connections: Vec<(&'static str, u64, u64)>,
    /// Polled feeds.
    pub feeds: Vec<FeedReading>,
}

/// What one account's webhooks were answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookReading {
    /// The account's id, or `_unknown`.
    pub account: String,
    /// How many answers had which status.
    pub answers: Vec<(u16, u64)>,
    /// Senders that hung up before the answer.
    pub hang_ups: u64,
    /// When a request was last answered 201.
    pub last_taken: Option<Millis>,
    /// Since when it may send.
    pub since: Millis,
}

impl Snapshot {
    /// Bytes that wait for the bus, in the whole store or of one account.
    #[must_use]
    pub fn bytes_for_bus(&self, account: Option<&AccountId>) -> u64 {
        use crate::replay::WaitsFor;
        let waiting = self.store.depths.iter().filter(|(id, kind, _)| {
            kind.waits_for() == WaitsFor::Bus && account.is_none_or(|wanted| wanted == id)
        });
        waiting.map(|(.., count)| count.bytes).sum()
    }

    /// Messages that wait for the operator.
    #[must_use]
    pub fn rows_for_operator(&self) -> u64 {
        use crate::replay::WaitsFor;
        let aside = self.store.depths.iter().filter(|(_, kind, _)| kind.waits_for() == WaitsFor::Operator);
        aside.map(|(.., count)| count.rows).sum()
    }

    /// What the store keeps for the bus; the rest of `replay.max_size` is the operator's.
    #[must_use]
    pub const fn capacity_for_bus(&self) -> u64 {
        self.store_max_bytes - self.store_max_bytes / 10
    }
}

/// The running parts that a [`Snapshot`] is taken of.
pub struct Sources {
    /// Where the process is in its life.
    pub phase: watch::Receiver<Phase>,
    /// The bus.
    pub bus: Arc<Bus>,
    /// The policy of delivery.
    pub deliverer: Arc<Deliverer>,
    /// The replay store.
    pub store: Store,
    /// `replay.max_size`.
    pub store_max_bytes: u64,
    /// The webhooks' counts.
    pub webhooks: Arc<ArcSwap<webhook::Counts>>,
    /// Ports by name.
    pub ports: Vec<(&'static str, Connections)>,
    /// The pollers' readings.
    pub feeds: Arc<dyn Fn() -> Vec<FeedReading> + Send + Sync>,
}

impl Sources {
    /// Reads everything.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let now = crate::clock::now();
        let lanes = &self.deliverer.lanes;
        let counts = &self.deliverer.counts;
        let dedup = &self.deliverer.dedup.stats;
        let (lanes_behind, events_behind) = lanes.behind();
        let available = self.bus.is_available();
        Snapshot {
            now,
            phase: *self.phase.borrow(),
            bus: if available { BusState::Available } else { BusState::Unavailable },
            breaker_open: lanes.is_breaker_open(),
            silent_for: lanes.silent_for(),
            refused_topics: lanes.refused_topics().len() as u64,
            lanes_behind,
            events_behind,
            events: counts.readings(),
            late_acknowledgements: counts.late_acknowledgements.load(Ordering::Relaxed),
            drained: counts.drained.load(Ordering::Relaxed),
            log_lines_lost: crate::logs::lost(),
            spans_not_sent: crate::trace::not_sent(),
            contradicted_hints: counts.contradicted_hints.load(Ordering::Relaxed),
            beyond_horizon: dedup.beyond_horizon.load(Ordering::Relaxed),
            dedup_look_ups: dedup.look_ups.load(Ordering::Relaxed),
            dedup_look_ups_failed: dedup.look_ups_failed.load(Ordering::Relaxed),
            dedup_not_written: dedup.not_written.load(Ordering::Relaxed),
            store: self.store.stats(now),
            store_max_bytes: self.store_max_bytes,
            answering: self.webhooks.load().answering(),
            publishing: counts.publishing.histograms(),
            webhooks: self.webhooks.load().readings().into_iter().map(WebhookReading::from).collect(),
            connections: self
                .ports
                .iter()
                .map(|(name, c)| (*name, c.open() as u64, c.bound() as u64))
                .collect(),
            feeds: (self.feeds)(),
        }
    }
}

impl From<webhook::Reading<'_>> for WebhookReading {
    fn from(reading: webhook::Reading<'_>) -> Self {
        let webhook::Reading { account, answers, hang_ups, last_taken, since } = reading;
        Self { account: account.to_owned(), answers, hang_ups, last_taken, since }
    }
}

#[cfg(test)]
impl Snapshot {
    /// A bridge at rest, whose store may hold 10,000 bytes.
    pub(super) fn well() -> Self {
        use crate::latency;
        use crate::replay::StoreHealth;
        let store = StoreStats {
            depths: Vec::new(),
            oldest_for_bus: None,
            oldest_for_operator: None,
            expiring_for_bus: 0,
            expiring_for_operator: 0,
            refuses_for_bus: false,
            queued_parks: 0,
            queued_changes: 0,
            file_bytes: 0,
            commits: 0,
            evicted: 0,
            expired: 0,
            discarded: 0,
            damaged: 0,
            damaged_entries: 0,
            health: StoreHealth::Well,
        };
        Self {
            now: Millis(0),
            phase: Phase::Running,
            bus: BusState::Available,
            breaker_open: false,
            silent_for: None,
            refused_topics: 0,
            lanes_behind: 0,
            events_behind: 0,
            events: Vec::new(),
            late_acknowledgements: 0,
            drained: 0,
            log_lines_lost: 0,
            spans_not_sent: 0,
            contradicted_hints: 0,
            beyond_horizon: 0,
            dedup_look_ups: 0,
            dedup_look_ups_failed: 0,
            dedup_not_written: 0,
            store,
            store_max_bytes: 10_000,
            answering: latency::histograms(),
            publishing: latency::histograms(),
            webhooks: Vec::new(),
            connections: Vec::new(),
            feeds: Vec::new(),
        }
    }
}

/// `acme`, which pushes, and may have so many bytes parked.
#[cfg(test)]
pub(super) fn account(parked: u64) -> crate::config::Account {
    use crate::config::{Account, Limits, SecretSource};
    Account {
        id: AccountId::new("acme"),
        provider: crate::provider::Provider::Linxup,
        webhook: Some(SecretSource::Env("TOKEN".to_owned())),
        poll: Vec::new(),
        limits: Limits { in_flight: 1, parked, rate: None },
    }
}
