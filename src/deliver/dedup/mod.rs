//! Dedup: reserve → publish → remember. An id is remembered only once its event is
//! acknowledged or parked; a copy that arrives meanwhile shares the outcome. Invariants: of two copies at once exactly one
//! is new; what cannot be looked up in time counts as new, for a duplicate costs an upsert and a swallowed fact the fact.
//!
//! `claims` has what is in flight, `front` the newest time of each subject, `reach` that of each account and type, `tail` the
//! ids of the last minutes, `file` is `seen.db`, and `worker` the thread that owns it.

mod claims;
mod file;
mod front;
mod merge;
pub mod moving;
mod reach;
mod tail;
mod worker;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use foldhash::HashMap;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

pub use claims::{Settled, Shared};
pub use file::FileError;
pub use worker::{OpenError, Worker};

use crate::config;
use crate::deliver::points::point;
use crate::event::ids::Ids;
use crate::event::{AccountId, EventType, Millis, Text};
use crate::replay::Era;
use claims::{Claim, Claims};
use front::{Front, Newness};
use reach::Reach;
use tail::{Bucket, Short, Tail, hour_of};
use worker::{Lookup, Place, Question, There, WORK};

/// How long a look-up on disk may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// Where nobody was answered for as long, nothing is looked up for this time, lest every request wait; and nothing of an account whose
/// questions alone were not answered in time, for they were too many or behind such, lest others wait for them.
const RESPITE: Duration = Duration::from_secs(5);
/// How often an event is looked up again because a fold came between. Folds are seconds apart.
const LOOK_UPS: u32 = 3;

/// By which time an event is remembered and looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dated {
    /// The one in its record key.
    ByKey(Millis),
    /// That of its coming, for it has none: it may be in any hour.
    ByComing,
    /// That of its coming, for its own is beyond the horizon. It is looked for in the hour of its own, where a copy may be that came in
    /// time, and in the last ones: who sends so late sends much, and all hours for each would be dear.
    Late(Millis),
}

impl Dated {
    /// The time in a record key that its hour of ids goes by.
    const fn key_time(self) -> Option<Millis> {
        match self {
            Self::ByKey(time) => Some(time),
            Self::ByComing | Self::Late(_) => None,
        }
    }
}

/// What dedup asks about an event.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Whose.
    pub account: AccountId,
    /// Its type.
    pub event_type: EventType,
    /// Its subject.
    pub subject: Text,
    /// By which time it is remembered and looked for.
    pub dated: Dated,
    /// When it was received.
    pub received_at: Millis,
    /// It is known when one of these is remembered.
    pub checks: Ids,
    /// What to remember of it.
    pub enters: Ids,
}

impl Candidate {
    /// What is needed of it once it is claimed: nothing is asked about it any more.
    fn claimed(&self) -> Self {
        let Self { account, event_type, subject, dated, received_at, checks: _, enters } = self;
        Self {
            account: account.clone(),
            event_type: *event_type,
            subject: subject.clone(),
            dated: *dated,
            received_at: *received_at,
            checks: Ids::new(),
            enters: enters.clone(),
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

/// What memory says of an event.
enum Recalled {
    New,
    Known,
    Unsure(Question),
}

/// Memory cannot tell.
struct Unsure {
    /// How often ids had gone from the tail to the disk.
    folds: u64,
    question: Question,
}

/// Counts for metrics.
#[derive(Debug, Default)]
pub struct Stats {
    /// Key times too old, or too far ahead, to be remembered by: published, and remembered by their coming where they were sent.
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

/// Until when nothing is looked up on disk: of all, and of single accounts.
#[derive(Debug, Default)]
struct Respites {
    all: Option<Instant>,
    of: HashMap<AccountId, Instant>,
}

impl Respites {
    fn cover(&self, questions: &[Question], now: Instant) -> bool {
        self.all.is_some_and(|until| now < until)
            || questions.iter().all(|asked| self.of.get(asked.account()).is_some_and(|until| now < *until))
    }

    fn begin<'a>(&mut self, accounts: impl Iterator<Item = &'a AccountId>, now: Instant) {
        self.of.retain(|_, until| now < *until);
        self.of.extend(accounts.map(|account| (account.clone(), now + RESPITE)));
    }
}

/// What tells the time.
type Clock = Arc<dyn Fn() -> Millis + Send + Sync>;

/// See the module. Where more than one lock is held, `claims` is locked first, then one of the others.
pub struct Dedup {
    claims: Mutex<Claims>,
    front: Mutex<Front>,
    tail: Mutex<Tail>,
    look_ups: std::sync::mpsc::SyncSender<Lookup>,
    respites: Mutex<Respites>,
    /// Requests that the worker has answered in time: it gets on as long as there are more.
    answered: AtomicU64,
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
    /// Opens `seen.db` in `dir`; a broken one is set aside, and a new one begun. Where the store is older than it, it is emptied: what was
    /// parked since is lost with the newer store, and may come again. The worker runs on a thread of its own. What is remembered ages by a
    /// clock of its own, too: one that is set forward has not to take all of it.
    ///
    /// # Errors
    /// Where it is not broken and cannot be opened, or where not even a new one can be made.
    pub fn open(
        dir: &Path,
        horizons: &config::Dedup,
        era: Era,
        clock: impl Fn() -> Millis + Send + Sync + 'static,
        ages_by: impl FnMut() -> Millis + Send + 'static,
    ) -> Result<(Arc<Self>, Worker), OpenError> {
        let clock: Clock = Arc::new(clock);
        let mut opened = worker::open(dir, horizons.clone(), era, Box::new(ages_by))?;
        let mut front = Front::new(horizons.memory);
        let stored: Vec<Bucket> = opened.buckets.iter().chain(opened.tail.buckets()).cloned().collect();
        let reaches = opened.tail.reaches(&stored, clock());
        for bucket in &stored {
            front.seen_before(bucket, reaches.of(bucket));
        }
        let dedup = Arc::new(Self {
            claims: Mutex::default(),
            front: Mutex::new(front),
            tail: Mutex::new(opened.tail),
            look_ups: opened.look_ups,
            respites: Mutex::default(),
            answered: AtomicU64::new(0),
            horizons: horizons.clone(),
            clock,
            stats: Arc::default(),
        });
        let worker = opened.idle.serve(Arc::clone(&dedup));
        Ok((dedup, worker))
    }

    /// Decides for one event, where memory can tell; none where the disk is to be asked: [`Self::reserve_all`] does.
    #[must_use]
    pub fn reserve_now(self: &Arc<Self>, candidate: &Candidate) -> Option<Verdict> {
        self.begin(candidate).ok()
    }

    /// Decides for several events, with one question to the disk for all: a request of a thousand waits as long as one of
    /// one, and no longer than `until`. No lock is held across an await; dropped, it leaves nothing behind.
    pub async fn reserve_all(self: &Arc<Self>, candidates: &[&Candidate], until: Instant) -> Vec<Verdict> {
        let mut verdicts: Vec<Option<Verdict>> = candidates.iter().map(|_| None).collect();
        for left in (0..LOOK_UPS).rev() {
            let mut asked = Vec::new();
            let mut questions = Vec::new();
            for (candidate, verdict) in candidates.iter().zip(&mut verdicts).filter(|(_, v)| v.is_none()) {
                match self.begin(candidate) {
                    Ok(decided) => *verdict = Some(decided),
                    Err(Unsure { folds, question }) => {
                        // What is looked up last counts, whatever was folded meanwhile.
                        asked.push((candidate, verdict, (left > 0).then_some(folds)));
                        questions.push(question);
                    }
                }
            }
            if asked.is_empty() {
                break;
            }
            let answers = self.look_up(questions, until).await;
            point();
            for ((candidate, verdict, folds), there) in asked.into_iter().zip(answers) {
                *verdict = if there.is_empty() {
                    self.claim(candidate, folds)
                } else {
                    Some(self.met_again(candidate, &there))
                };
            }
        }
        verdicts.into_iter().flatten().collect()
    }

    /// Decides for one event.
    #[cfg(test)]
    pub async fn reserve_one(self: &Arc<Self>, candidate: &Candidate) -> Verdict {
        match self.reserve_now(candidate) {
            Some(verdict) => verdict,
            None => self.reserve_all(&[candidate], Instant::now() + PATIENCE).await.remove(0),
        }
    }

    /// Decides from memory, or says what to ask the disk.
    fn begin(self: &Arc<Self>, candidate: &Candidate) -> Result<Verdict, Unsure> {
        let mut left = LOOK_UPS;
        loop {
            if let Some(shared) = self.claims.lock().on(&candidate.checks) {
                return Ok(Verdict::InFlight(shared));
            }
            point();
            let folds = self.tail.lock().folds();
            match self.recall(candidate) {
                Recalled::Known => return Ok(Verdict::Known),
                Recalled::Unsure(question) => return Err(Unsure { folds, question }),
                Recalled::New => {}
            }
            left -= 1;
            point();
            if let Some(verdict) = self.claim(candidate, (left > 0).then_some(folds)) {
                return Ok(verdict);
            }
        }
    }

    /// How often ids have gone from memory to the disk.
    #[must_use]
    pub fn folds(&self) -> u64 {
        self.tail.lock().folds()
    }

    /// Whether an event is durable that was delivered, or was to be, since there were so many [`folds`](Self::folds). None while that
    /// is open.
    #[must_use]
    pub fn is_durable(&self, id: Uuid, folds: u64) -> Option<bool> {
        let claims = self.claims.lock();
        if claims.on(&[id]).is_some() {
            return None;
        }
        let tail = self.tail.lock();
        if tail.knows(&[id]) {
            return Some(true);
        }
        (tail.folds() == folds).then_some(false)
    }

    /// Whether an event was evicted or discarded, and is not known since.
    #[must_use]
    pub fn is_forgotten(&self, id: Uuid) -> bool {
        self.tail.lock().has_forgotten(id)
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

    /// What has no time is known for as long as it is asked about, by each answer of a feed perhaps: until the next fold memory knows it,
    /// and not every hour on disk is looked through again.
    fn met_again(&self, candidate: &Candidate, there: &[Short]) -> Verdict {
        if candidate.dated.key_time().is_none() {
            let bucket = Bucket::of(candidate, (self.clock)());
            // Not its own where it is known by another's: it would stay known when that other one is discarded, and nobody has it.
            let left_out = self.tail.lock().renew(&bucket, there);
            self.stats.not_written.fetch_add(left_out, Ordering::Relaxed);
        }
        Verdict::Known
    }

    fn settle(&self, claim: &Arc<Claim>, settled: Settled) {
        self.claims.lock().remove(claim);
        point();
        claim.settle(settled);
    }

    fn recall(&self, candidate: &Candidate) -> Recalled {
        if self.is_beyond_horizon(candidate) || self.newness(candidate) == Newness::New {
            return Recalled::New;
        }
        point();
        let ids = {
            let tail = self.tail.lock();
            if tail.knows(&candidate.checks) {
                return Recalled::Known;
            }
            tail.worth_a_look(&candidate.checks)
        };
        if ids.is_empty() {
            return Recalled::New;
        }
        // As it would be entered.
        let bucket = Bucket::of(candidate, (self.clock)());
        let place = match candidate.dated {
            Dated::ByKey(_) => Place::Hour(bucket),
            Dated::ByComing => Place::AnyHour(bucket),
            Dated::Late(own) => Place::Late { now: bucket, own: hour_of(own) },
        };
        Recalled::Unsure(Question { place, ids })
    }

    fn newness(&self, candidate: &Candidate) -> Newness {
        match (&*candidate.enters, candidate.dated.key_time()) {
            ([_], Some(time)) => {
                let bucket = Bucket::of(candidate, time);
                self.front.lock().newness(&bucket, &candidate.subject, time)
            }
            // Ids of several subjects, perhaps, or without a time: the front of one subject says nothing.
            (_, _) => Newness::Unsure,
        }
    }

    /// Of each question, the ids found on disk; none, as far as is known, where that cannot be told in time.
    async fn look_up(&self, questions: Vec<Question>, until: Instant) -> Vec<There> {
        let count = questions.len();
        self.stats.look_ups.fetch_add(count as u64, Ordering::Relaxed);
        let mut answers = self.ask(questions, until).await.unwrap_or_default();
        answers.resize(count, None);
        let failed = answers.iter().filter(|answer| answer.is_none()).count();
        self.stats.look_ups_failed.fetch_add(failed as u64, Ordering::Relaxed);
        answers.into_iter().map(Option::unwrap_or_default).collect()
    }

    async fn ask(&self, questions: Vec<Question>, until: Instant) -> Option<Vec<Option<There>>> {
        let begun = Instant::now();
        if self.respites.lock().cover(&questions, begun) {
            return None;
        }
        let answered = self.answered.load(Ordering::Relaxed);
        let accounts: BTreeSet<AccountId> = questions.iter().map(Question::account).cloned().collect();
        let (tell, told) = oneshot::channel();
        // A full queue and a worker that has stopped are answers, too.
        self.look_ups.try_send(Lookup { questions, tell }).ok()?;
        let answers = timeout_at(until.min(begun + PATIENCE), told).await;
        let now = Instant::now();
        match answers {
            Ok(answers) => {
                let answers = answers.ok()?;
                if answers.contains(&None) && now - begun >= WORK {
                    self.respites.lock().begin(accounts.iter(), now);
                }
                Some(answers)
            }
            Err(_) => {
                // Where it was the request that had no time left, the disk may be as quick as ever.
                if now - begun >= PATIENCE {
                    let mut respites = self.respites.lock();
                    if self.answered.load(Ordering::Relaxed) == answered {
                        respites.all = Some(now + RESPITE);
                    } else {
                        respites.begin(accounts.iter(), now);
                    }
                }
                None
            }
        }
    }

    fn enter(&self, candidate: &Candidate) {
        let is_beyond = self.is_beyond_horizon(candidate);
        if is_beyond || matches!(candidate.dated, Dated::Late(_)) {
            self.stats.beyond_horizon.fetch_add(1, Ordering::Relaxed);
        }
        if is_beyond {
            return;
        }
        let bucket = Bucket::of(candidate, (self.clock)());
        // The tail before the front: once the front calls an id old, it can be found.
        let reach = candidate.dated.key_time().map(|time| Reach::of(time, candidate.received_at));
        let left_out = self.tail.lock().enter(&bucket, &candidate.enters, reach);
        self.stats.not_written.fetch_add(left_out, Ordering::Relaxed);
        let (Some(time), Some(reach)) = (candidate.dated.key_time(), reach) else { return };
        point();
        let mut front = self.front.lock();
        if reach.is_ahead() || candidate.enters.len() > 1 {
            front.mix(&bucket);
        } else {
            front.advance(&bucket, &candidate.subject, time);
        }
    }

    fn is_beyond_horizon(&self, candidate: &Candidate) -> bool {
        candidate.dated.key_time().is_some_and(|time| !self.is_within_horizon(candidate.event_type, time))
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
