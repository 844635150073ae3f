//! Dedup: reserve → publish → remember. An id is remembered only once its event is
//! acknowledged or parked; a copy that arrives meanwhile shares the outcome. Invariants: of two copies at once exactly one
//! is new; what cannot be looked up in time counts as new, for a duplicate costs an upsert and a swallowed fact the fact.
//!
//! `claims` has what is in flight, `front` the newest time of each subject, `tail` the ids of the last minutes, `file` is
//! `seen.db`, and `worker` the thread that owns it.

mod claims;
mod file;
mod front;
pub mod moving;
mod tail;
mod worker;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

pub use claims::{Settled, Shared};
pub use worker::{OpenError, Worker};

use crate::config;
use crate::deliver::points::point;
use crate::event::{AccountId, EventType, Millis};
use claims::{Claim, Claims};
use front::{Front, Newness};
use tail::{Bucket, Tail};
use worker::{Lookup, Place};

/// How long a look-up on disk may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// After one that took longer nothing is looked up for so long, lest a request of a thousand events wait a thousand times.
const RESPITE: Duration = Duration::from_secs(5);
/// How often an event is looked up again because a fold came between. Folds are seconds apart.
const LOOK_UPS: u32 = 3;
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
    pub enters: Arc<[Uuid]>,
}

impl Candidate {
    /// What is needed of it once it is claimed: nothing is asked about it any more.
    fn claimed(&self) -> Self {
        let Self { account, event_type, subject, key_time, received_at, checks: _, enters } = self;
        Self {
            account: account.clone(),
            event_type: *event_type,
            subject: Arc::clone(subject),
            key_time: *key_time,
            received_at: *received_at,
            checks: Vec::new(),
            enters: Arc::clone(enters),
        }
    }
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
    /// Ids that could not be written down, for the disk was too slow or full: forgotten by a restart at the latest.
    pub not_written: AtomicU64,
    /// Ids that were to be forgotten where too many had been: the poller cannot heal them.
    pub not_forgotten: AtomicU64,
}

/// What tells the time.
type Clock = Arc<dyn Fn() -> Millis + Send + Sync>;

/// See the module. Where more than one lock is held, `claims` is locked first, then one of the others.
pub struct Dedup {
    claims: Mutex<Claims>,
    front: Mutex<Front>,
    tail: Mutex<Tail>,
    look_ups: std::sync::mpsc::SyncSender<Lookup>,
    /// Until when nothing is looked up on disk.
    respite: Mutex<Option<Instant>>,
    horizons: config::Dedup,
    clock: Clock,
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
            point();
            self.dedup.settle(&claim, Settled::Durable);
        }
    }

    /// The store refused the event, and an attempt of it is in flight: copies of it need not wait for the store.
    pub fn not_kept(&self) {
        if let Some(claim) = &self.claim {
            claim.not_kept();
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(claim) = self.claim.take() {
            self.dedup.settle(&claim, Settled::Released);
        }
    }
}

impl Dedup {
    /// Opens `seen.db` in `dir`; a broken one is set aside, and a new one begun. The worker runs on a thread of its own.
    ///
    /// # Errors
    /// Where not even a new one can be made.
    pub fn open(
        dir: &Path,
        horizons: &config::Dedup,
        clock: impl Fn() -> Millis + Send + Sync + 'static,
    ) -> Result<(Arc<Self>, Worker), OpenError> {
        let clock: Clock = Arc::new(clock);
        let opened = worker::open(dir, horizons.clone(), Arc::clone(&clock))?;
        let mut front = Front::new(horizons.memory);
        for bucket in opened.buckets.iter().chain(opened.tail.buckets()) {
            front.seen_before(bucket, clock());
        }
        let dedup = Arc::new(Self {
            claims: Mutex::default(),
            front: Mutex::new(front),
            tail: Mutex::new(opened.tail),
            look_ups: opened.look_ups,
            respite: Mutex::default(),
            horizons: horizons.clone(),
            clock,
            stats: Arc::default(),
        });
        let worker = opened.idle.serve(Arc::clone(&dedup));
        Ok((dedup, worker))
    }

    /// Decides for one event. No lock is held across an await; dropped, it leaves nothing behind.
    pub async fn reserve(self: &Arc<Self>, candidate: &Candidate) -> Verdict {
        let mut left = LOOK_UPS;
        loop {
            if let Some(shared) = self.claims.lock().on(&candidate.checks) {
                return Verdict::InFlight(shared);
            }
            point();
            let folds = self.tail.lock().folds();
            if self.is_known(candidate).await {
                return Verdict::Known;
            }
            left -= 1;
            let last = left == 0;
            point();
            if let Some(verdict) = self.claim(candidate, (!last).then_some(folds)) {
                return verdict;
            }
        }
    }

    /// Evicted or discarded events: the poller may heal them.
    pub fn forget(&self, ids: &[Uuid]) {
        let left_out = self.tail.lock().forget(ids, (self.clock)());
        self.stats.not_forgotten.fetch_add(left_out, Ordering::Relaxed);
    }

    /// Claims an event that was looked up, unless it was claimed or remembered meanwhile. None where ids went from the tail
    /// to the disk since `folds`, so that it is to be looked up again.
    fn claim(self: &Arc<Self>, candidate: &Candidate, folds: Option<u64>) -> Option<Verdict> {
        let mut claims = self.claims.lock();
        if let Some(shared) = claims.on(&candidate.checks) {
            return Some(Verdict::InFlight(shared));
        }
        if !self.is_beyond_horizon(candidate) {
            let tail = self.tail.lock();
            if tail.knows(&candidate.checks) {
                return Some(Verdict::Known);
            }
            if folds.is_some_and(|folds| folds != tail.folds()) {
                return None;
            }
        }
        let claim = Some(claims.claim(&candidate.enters));
        Some(Verdict::New(Reservation { dedup: Arc::clone(self), claim, candidate: candidate.claimed() }))
    }

    fn settle(&self, claim: &Arc<Claim>, settled: Settled) {
        self.claims.lock().remove(claim);
        point();
        claim.settle(settled);
    }

    async fn is_known(&self, candidate: &Candidate) -> bool {
        if self.is_beyond_horizon(candidate) || self.newness(candidate) == Newness::New {
            return false;
        }
        point();
        let ids = {
            let tail = self.tail.lock();
            if tail.knows(&candidate.checks) {
                return true;
            }
            tail.worth_a_look(&candidate.checks)
        };
        if ids.is_empty() {
            return false;
        }
        self.stats.look_ups.fetch_add(1, Ordering::Relaxed);
        self.look_up(candidate, ids).await.unwrap_or_else(|| {
            self.stats.look_ups_failed.fetch_add(1, Ordering::Relaxed);
            false
        })
    }

    fn newness(&self, candidate: &Candidate) -> Newness {
        match (&*candidate.enters, candidate.key_time) {
            ([_], Some(time)) => {
                let bucket = Bucket::of(candidate, time);
                self.front.lock().newness(&bucket, &candidate.subject, time)
            }
            // Ids of several subjects, perhaps, or without a time: the front of one subject says nothing.
            (_, _) => Newness::Unsure,
        }
    }

    /// Whether one of these is on disk; none where that cannot be told in time.
    async fn look_up(&self, candidate: &Candidate, ids: Vec<tail::Short>) -> Option<bool> {
        if self.respite.lock().is_some_and(|until| Instant::now() < until) {
            return None;
        }
        let bucket = Bucket::of(candidate, candidate.received_at);
        let place = match candidate.key_time {
            Some(_) => Place::Hour(bucket),
            None => Place::AnyHour(bucket),
        };
        let (tell, told) = oneshot::channel();
        // A full queue and a worker that has stopped are answers, too.
        self.look_ups.try_send(Lookup { place, ids, tell }).ok()?;
        let Ok(answer) = timeout(PATIENCE, told).await else {
            *self.respite.lock() = Some(Instant::now() + RESPITE);
            return None;
        };
        answer.ok().flatten()
    }

    fn enter(&self, candidate: &Candidate) {
        if self.is_beyond_horizon(candidate) {
            self.stats.beyond_horizon.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let bucket = Bucket::of(candidate, (self.clock)());
        // The tail before the front: once the front calls an id old, it can be found.
        let left_out = self.tail.lock().enter(&bucket, &candidate.enters);
        self.stats.not_written.fetch_add(left_out, Ordering::Relaxed);
        let Some(time) = candidate.key_time else { return };
        point();
        let ahead = time.0.saturating_sub(candidate.received_at.0) > AHEAD_MS;
        let mut front = self.front.lock();
        if ahead || candidate.enters.len() > 1 {
            front.mix(&bucket);
        } else {
            front.advance(&bucket, &candidate.subject, time);
        }
    }

    fn is_beyond_horizon(&self, candidate: &Candidate) -> bool {
        candidate.key_time.is_some_and(|time| !self.is_within_horizon(candidate.event_type, time))
    }

    /// Whether events of a type and of this time are remembered by it.
    #[must_use]
    pub fn is_within_horizon(&self, event_type: EventType, time: Millis) -> bool {
        let horizon = horizon_ms(&self.horizons, event_type);
        time.0.abs_diff((self.clock)().0) <= horizon.unsigned_abs()
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
