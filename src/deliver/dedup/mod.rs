//! Dedup: reserve → publish → remember (design section 5, "Dedup"). An id is remembered only once its event is
//! acknowledged or parked; a copy that arrives meanwhile shares the outcome. Invariants: of two copies at once exactly one
//! is new; what cannot be looked up in time counts as new, for a duplicate costs an upsert and a swallowed fact the fact.
//!
//! `claims` has what is in flight, `front` the newest time of each subject, `tail` the ids of the last minutes, `segments`
//! the thread that owns `seen.db`.

mod claims;
mod front;
mod segments;
mod tail;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::timeout;
use uuid::Uuid;

pub use claims::{Settled, Shared};
pub use segments::{OpenError, Worker};

use crate::config;
use crate::event::{AccountId, EventType, Millis};
use claims::{Claim, Claims};
use front::{Front, Newness};
use segments::Lookup;
use tail::{Bucket, Tail};

/// How long a look-up on disk may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// A key time further ahead of receipt than this says nothing about what is newest.
const AHEAD_MS: i64 = 300_000;

/// What dedup asks about an event.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Whose.
    pub account: AccountId,
    /// Its type.
    pub event_type: EventType,
    /// Its subject.
    pub subject: Arc<str>,
    /// The time in its record key; none where it has none.
    pub key_time: Option<Millis>,
    /// When it was received.
    pub received_at: Millis,
    /// It is known when one of these is remembered.
    pub checks: Vec<Uuid>,
    /// What to remember of it.
    pub enters: Vec<Uuid>,
}

/// What is to be done with an event.
#[derive(Debug)]
pub enum Verdict {
    /// Publish it.
    New(Reservation),
    /// It was published, or is parked.
    Known,
    /// A copy is on its way: wait for what becomes of it.
    InFlight(Shared),
}

/// Counts for metrics.
#[derive(Debug, Default)]
pub struct Stats {
    /// Key times too old, or too far ahead, to be remembered: published.
    pub beyond_horizon: AtomicU64,
    /// Look-ups on disk.
    pub look_ups: AtomicU64,
    /// Look-ups that failed or took too long: counted as new.
    pub look_ups_failed: AtomicU64,
    /// Ids that could not be written down, for the disk was too slow or full.
    pub not_written: AtomicU64,
}

/// See the module.
pub struct Dedup {
    claims: Claims,
    front: Mutex<Front>,
    tail: Mutex<Tail>,
    look_ups: std::sync::mpsc::SyncSender<Lookup>,
    horizons: config::Dedup,
    clock: fn() -> Millis,
    /// Counts.
    pub stats: Arc<Stats>,
}

/// The right to publish an event. Dropped without [`Reservation::remember`], it is given back: who waits tries again.
pub struct Reservation {
    dedup: Arc<Dedup>,
    claim: Option<Arc<Claim>>,
    candidate: Candidate,
}

impl std::fmt::Debug for Reservation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reservation").field("enters", &self.candidate.enters).finish_non_exhaustive()
    }
}

impl Reservation {
    /// The event is acknowledged or parked.
    pub fn remember(mut self) {
        if let Some(claim) = self.claim.take() {
            self.dedup.enter(&self.candidate);
            self.dedup.claims.settle(&claim, Settled::Durable);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(claim) = self.claim.take() {
            self.dedup.claims.settle(&claim, Settled::Released);
        }
    }
}

/// The process's clock.
#[must_use]
pub fn system_clock() -> Millis {
    Millis(jiff::Timestamp::now().as_millisecond())
}

impl Dedup {
    /// Opens `seen.db` in `dir`; a broken one is set aside, and a new one begun. The worker runs on a thread of its own.
    ///
    /// # Errors
    /// Where not even a new one can be made.
    pub fn open(
        dir: &Path,
        horizons: &config::Dedup,
        clock: fn() -> Millis,
    ) -> Result<(Arc<Self>, Worker), OpenError> {
        let opened = segments::open(dir, horizons.clone(), clock)?;
        let mut front = Front::new(horizons.memory);
        for bucket in opened.buckets.iter().chain(opened.tail.buckets()) {
            front.seen_before(bucket, clock());
        }
        let stats = Arc::new(Stats::default());
        let dedup = Arc::new(Self {
            claims: Claims::default(),
            front: Mutex::new(front),
            tail: Mutex::new(opened.tail),
            look_ups: opened.look_ups,
            horizons: horizons.clone(),
            clock,
            stats,
        });
        let worker = opened.worker.serve(Arc::clone(&dedup));
        Ok((dedup, worker))
    }

    /// Decides for one event. No lock is held across an await.
    pub async fn reserve(self: &Arc<Self>, candidate: &Candidate) -> Verdict {
        let claim = match self.claims.claim(&candidate.checks, &candidate.enters) {
            Ok(claim) => claim,
            Err(shared) => return Verdict::InFlight(shared),
        };
        // From here on the claim is given back on every way out, also when this future is dropped.
        let reservation =
            Reservation { dedup: Arc::clone(self), claim: Some(claim), candidate: candidate.clone() };
        if self.is_known(candidate).await {
            let mut reservation = reservation;
            if let Some(claim) = reservation.claim.take() {
                self.claims.settle(&claim, Settled::Durable);
            }
            return Verdict::Known;
        }
        Verdict::New(reservation)
    }

    /// Evicted or discarded events: the poller may heal them.
    pub fn forget(&self, ids: &[Uuid]) {
        self.tail.lock().forget(ids, (self.clock)());
    }

    async fn is_known(&self, candidate: &Candidate) -> bool {
        let newness = match (candidate.checks.as_slice(), candidate.key_time) {
            ([_], Some(time)) => {
                self.front.lock().newness(&candidate.account, candidate.event_type, &candidate.subject, time)
            }
            // Ids of several subjects, or without a time: the front of one subject says nothing.
            _ => Newness::Unsure,
        };
        if newness == Newness::New {
            return false;
        }
        let bucket = Bucket::of(candidate, candidate.received_at);
        let look_up = {
            let tail = self.tail.lock();
            if let Some(known) = tail.knows(&candidate.checks) {
                return known;
            }
            tail.look_up(&candidate.checks)
        };
        if look_up.is_empty() {
            return false;
        }
        self.stats.look_ups.fetch_add(1, Ordering::Relaxed);
        let (tell, told) = oneshot::channel();
        let every_hour = candidate.key_time.is_none();
        let asked = self.look_ups.try_send(Lookup { bucket, every_hour, ids: look_up, tell });
        let answer = match asked {
            Ok(()) => timeout(PATIENCE, told).await.ok().and_then(Result::ok),
            Err(_) => None,
        };
        answer.unwrap_or_else(|| {
            self.stats.look_ups_failed.fetch_add(1, Ordering::Relaxed);
            false
        })
    }

    fn enter(&self, candidate: &Candidate) {
        let now = (self.clock)();
        if let Some(time) = candidate.key_time {
            let horizon = self.horizon_ms(candidate.event_type);
            if (time.0 - now.0).abs() > horizon {
                self.stats.beyond_horizon.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
        let bucket = Bucket::of(candidate, now);
        // The tail before the front: once the front calls an id old, it can be found.
        self.tail.lock().enter(&bucket, &candidate.enters);
        if let Some(time) = candidate.key_time {
            let ahead = time.0 > candidate.received_at.0 + AHEAD_MS;
            let mut front = self.front.lock();
            if ahead {
                front.ahead(&bucket);
            } else {
                front.advance(&candidate.account, candidate.event_type, &candidate.subject, time);
            }
        }
    }

    fn horizon_ms(&self, event_type: EventType) -> i64 {
        horizon_ms(&self.horizons, event_type)
    }
}

/// How long ids of a type are remembered, in ms.
fn horizon_ms(horizons: &config::Dedup, event_type: EventType) -> i64 {
    let horizon = match event_type {
        EventType::Position | EventType::ItemSighting => horizons.positions,
        EventType::Trip
        | EventType::Stop
        | EventType::Usage
        | EventType::Alert
        | EventType::GeofenceCrossing
        | EventType::GeofenceDefinition
        | EventType::Tracker
        | EventType::Media
        | EventType::ItemLeftBehind => horizons.others,
    };
    i64::try_from(horizon.as_millis()).unwrap_or(i64::MAX)
}
