//! The policy of delivery: dedup, lanes, deadline, retry, breaker. `bus` makes attempts and knows no
//! policy; `replay` keeps what could not be delivered. Invariant: a [`Sums`] without `rejected` means that every event is
//! acknowledged by the bus, fsynced in the store, or was known.

pub mod breaker;
pub mod counts;
pub mod dedup;
pub mod lanes;
pub mod memory;
mod points;
pub mod retry;
pub(crate) mod seldom;
pub mod slot;
pub mod topics;
mod unanswered;

use std::collections::{BTreeMap, VecDeque};
use std::hash::BuildHasher as _;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;
use foldhash::fast::RandomState;
use futures_util::StreamExt as _;
use futures_util::future::{join, join_all};
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use counts::{Counts, Fate};
use dedup::{Candidate, Dedup, Settled, Shared, Verdict};
use lanes::{Admission, Lanes, Resumed};
use retry::Pauses;
use slot::{Group, Outgoing, Slot, Stall, Tally};

use crate::config;
use crate::event::AccountId;
use crate::faults::{self, Bug};
use crate::replay::LaneKey;

/// Places in which an account's requests about the same subject take their turn: a bit each.
const TURNS: u32 = u64::BITS;
/// What part of the deadline the bus has at least, when dedup or another request's turn took the rest: a slow disk must
/// not look like a slow bus, open the breaker and park everything.
const LEAST_SHARE: u32 = 4;
/// What comes before the bus may take so long also where the deadline has passed.
const MOMENT: Duration = Duration::from_millis(50);
/// How long the store may take to say what became of a park before its event counts as not kept.
const STORE_PATIENCE: Duration = Duration::from_secs(10);
/// The least of it: where the process itself was stopped for longer, the store has done nothing meanwhile.
const WOKEN: Duration = Duration::from_secs(2);
/// How long the bus's client is given to have room again.
const ROOM: Duration = Duration::from_millis(20);
/// How often an event may find that the copy which it waited for was not kept.
const COPIES: u32 = 3;

/// An event on its way, and what dedup asks about it.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// Routed and encoded.
    pub outgoing: Outgoing,
    /// Its ids.
    pub candidate: Candidate,
}

/// What became of the events of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sums {
    /// Acknowledged by the bus.
    pub delivered: u64,
    /// Fsynced in the store.
    pub parked: u64,
    /// Known already.
    pub duplicates: u64,
    /// Neither delivered nor kept.
    pub rejected: u64,
}

impl Sums {
    fn add(&mut self, tally: Tally) {
        self.delivered += tally.delivered;
        self.parked += tally.parked;
        self.rejected += tally.rejected;
    }

    /// Both together.
    pub fn merge(&mut self, other: Self) {
        self.delivered += other.delivered;
        self.parked += other.parked;
        self.duplicates += other.duplicates;
        self.rejected += other.rejected;
    }
}

/// One request's events by what dedup said.
#[derive(Default)]
struct Sorted {
    fresh: Vec<Fresh>,
    known: Vec<Outgoing>,
    copied: Vec<(Arrival, Shared)>,
}

impl Sorted {
    fn take(&mut self, place: usize, arrival: Arrival, verdict: Verdict) {
        match verdict {
            Verdict::New(reservation) => {
                self.fresh.push(Fresh { place, outgoing: arrival.outgoing, reservation });
            }
            Verdict::Known => self.known.push(arrival.outgoing),
            Verdict::InFlight(shared) => self.copied.push((arrival, shared)),
        }
    }
}

/// A new event, and its place in its request.
struct Fresh {
    place: usize,
    outgoing: Outgoing,
    reservation: dedup::Reservation,
}

impl Fresh {
    /// A lane's by their time; of one time, in the order in which they came.
    fn order(&self) -> (&LaneKey, i64, usize) {
        (&self.outgoing.lane, self.outgoing.occur_ms, self.place)
    }
}

/// See the module.
pub struct Deliverer {
    /// The books of order.
    pub lanes: Arc<Lanes>,
    /// What was published before.
    pub dedup: Arc<Dedup>,
    /// What became of every event.
    pub counts: Arc<Counts>,
    settings: config::Delivery,
    /// Of each account its own, for one's look-ups must not hold up another; made when it is first heard of.
    turns: parking_lot::Mutex<HashMap<AccountId, Turns>>,
    hasher: RandomState,
}

type Turns = Arc<[Arc<Mutex<()>>]>;

impl Deliverer {
    /// Puts the parts together.
    #[must_use]
    pub fn new(
        lanes: Arc<Lanes>,
        dedup: Arc<Dedup>,
        counts: Arc<Counts>,
        settings: config::Delivery,
    ) -> Self {
        let turns = parking_lot::Mutex::default();
        Self { lanes, dedup, counts, settings, turns, hasher: RandomState::default() }
    }

    /// Until when what comes now is delivered or parked.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.settings.publish_deadline
    }

    /// Whether the deadline leaves the bus less than its share.
    #[must_use]
    pub fn is_late(&self, deadline: Instant) -> bool {
        deadline < self.least_share()
    }

    fn least_share(&self) -> Instant {
        Instant::now() + self.settings.publish_deadline / LEAST_SHARE
    }

    /// Delivers one request's events, or parks them, or finds them known. Returns within the deadline and the time that
    /// the store takes. `until_admitted` is dropped once they have entered their lanes. Must run to its end: the caller spawns it on the tracker.
    pub async fn deliver(
        &self,
        arrivals: Vec<Arrival>,
        admission: Admission,
        deadline: Instant,
        until_admitted: Option<OwnedMutexGuard<()>>,
    ) -> Sums {
        for alike in arrivals.chunk_by(|a, b| {
            let (a, b) = (&a.outgoing, &b.outgoing);
            a.event_type == b.event_type && a.lane.account == b.lane.account
        }) {
            let first = &alike[0].outgoing;
            let events = alike.len() as u64;
            self.counts.of(&first.lane.account, first.event_type, |count| count.received(events));
        }
        self.attempt(arrivals, admission, deadline, COPIES, until_admitted).await
    }

    fn attempt(
        &self,
        arrivals: Vec<Arrival>,
        admission: Admission,
        deadline: Instant,
        copies: u32,
        until_admitted: Option<OwnedMutexGuard<()>>,
    ) -> Pin<Box<dyn Future<Output = Sums> + Send + '_>> {
        Box::pin(async move {
            let mut sums = Sums::default();
            let before = self.before(deadline);
            let turn = self.turn(&arrivals, before).await;
            let mut sorted = Sorted { fresh: Vec::with_capacity(arrivals.len()), ..Sorted::default() };
            let mut unsure = Vec::new();
            for (place, arrival) in arrivals.into_iter().enumerate() {
                if faults::bug(Bug::Lost) {
                    let outgoing = &arrival.outgoing;
                    self.met(outgoing, Fate::Delivered);
                    sums.delivered += 1;
                    continue;
                }
                match self.dedup.reserve_now(&arrival.candidate) {
                    Some(verdict) => sorted.take(place, arrival, verdict),
                    None => unsure.push((place, arrival)),
                }
            }
            if !unsure.is_empty() {
                let candidates: Vec<_> = unsure.iter().map(|(_, arrival)| &arrival.candidate).collect();
                let verdicts = self.dedup.reserve_all(&candidates, self.before(deadline)).await;
                for ((place, arrival), verdict) in unsure.into_iter().zip(verdicts) {
                    sorted.take(place, arrival, verdict);
                }
            }
            sorted.known.iter().for_each(|outgoing| sums.duplicates += self.duplicate(outgoing));
            let admitted = deadline.max(self.least_share());
            let (group, lanes) = self.admit(sorted.fresh, admission);
            drop((turn, until_admitted));
            let waits = sorted
                .copied
                .into_iter()
                .map(|(arrival, shared)| self.share(arrival, shared, deadline, admission, copies));
            let (tally, shared) = join(self.drive(&lanes, &group, admitted), join_all(waits)).await;
            sums.add(tally);
            shared.into_iter().for_each(|other| sums.merge(other));
            sums
        })
    }

    /// Until when something that comes before the bus is waited for: the bus keeps its share of the deadline, and nobody waits
    /// for less than a moment.
    fn before(&self, deadline: Instant) -> Instant {
        let share = self.settings.publish_deadline / LEAST_SHARE;
        deadline.checked_sub(share).unwrap_or(deadline).max(Instant::now() + MOMENT)
    }

    /// Requests about one subject enter their lanes in the order in which they came, whatever dedup has to look up. Not at the price of
    /// an answer that comes too late: `until` then they go without a turn, for between two requests that are under way at once no order
    /// was promised.
    async fn turn(&self, arrivals: &[Arrival], until: Instant) -> Vec<OwnedMutexGuard<()>> {
        let mut accounts: BTreeMap<&AccountId, u64> = BTreeMap::new();
        for lane in arrivals.iter().map(|arrival| &arrival.outgoing.lane) {
            *accounts.entry(&lane.account).or_default() |=
                1 << (self.hasher.hash_one(&lane.subject) % u64::from(TURNS));
        }
        let mut guards = Vec::with_capacity(arrivals.len().min(TURNS as usize));
        // In one order for all, so that no two requests ever wait for each other.
        for (account, places) in accounts {
            let turns = Arc::clone(self.turns.lock().entry(account.clone()).or_insert_with(new_turns));
            for (_, turn) in turns.iter().enumerate().filter(|(place, _)| places & (1 << place) != 0) {
                guards.extend(timeout_at(until, Arc::clone(turn).lock_owned()).await);
            }
        }
        guards
    }

    /// Admits a request's events to their lanes, each lane's in the order of their time: their group, and the lanes.
    fn admit(&self, mut fresh: Vec<Fresh>, admission: Admission) -> (Arc<Group>, Vec<LaneKey>) {
        fresh.sort_unstable_by(|a, b| a.order().cmp(&b.order()));
        let group = Group::new(&self.lanes, fresh.len());
        let mut lanes: Vec<LaneKey> = Vec::with_capacity(fresh.len());
        let mut events = fresh.into_iter().peekable();
        while let Some(Fresh { outgoing: first, reservation, .. }) = events.next() {
            let lane = first.lane.clone();
            let slot = |outgoing: Outgoing, reservation| {
                let slot = Slot::new(&outgoing, reservation, &group, lanes.len());
                (outgoing, slot)
            };
            let mut slots = vec![slot(first, reservation)];
            while let Some(next) = events.next_if(|next| next.outgoing.lane == lane) {
                slots.push(slot(next.outgoing, next.reservation));
            }
            if slots.len() > 1 && faults::bug(Bug::Reordered) {
                slots.reverse();
            }
            self.lanes.admit(&lane, slots, admission);
            lanes.push(lane);
        }
        (group, lanes)
    }

    /// Sees one request's events through, with one timer and one wake-up for all: retries while there is time, parks at the deadline.
    async fn drive(&self, lanes: &[LaneKey], group: &Arc<Group>, deadline: Instant) -> Tally {
        timeout_at(deadline, self.retry(lanes, group)).await.ok();
        if group.tally().rejected > 0 {
            lanes.iter().for_each(|lane| self.lanes.expire(lane, group));
        }
        timeout_at(until(deadline), group.settled()).await.ok();
        group.tally()
    }

    /// Until all of a group have met their fate: a lane that failed for sure is tried again after pauses of its own, and
    /// parked where it has none left. Those for which the client had no room go in turn, as far as it has.
    async fn retry(&self, lanes: &[LaneKey], group: &Arc<Group>) {
        // Mostly none fails, and nothing is to be paused for.
        let Some(mut stalled) = group.stalls().await else { return };
        let mut pauses: HashMap<usize, Pauses> = HashMap::default();
        let mut pausing = FuturesUnordered::new();
        let (mut busy, mut room_at) = (VecDeque::new(), Instant::now());
        loop {
            for (at, stall) in stalled {
                if stall == Stall::Busy {
                    if busy.is_empty() {
                        room_at = Instant::now() + ROOM;
                    }
                    busy.push_back(at);
                    continue;
                }
                match pauses.entry(at).or_insert_with(|| Pauses::new(self.settings.retries)).next() {
                    Some(pause) => pausing.push(async move {
                        sleep(pause).await;
                        at
                    }),
                    None => lanes.get(at).into_iter().for_each(|lane| self.lanes.expire(lane, group)),
                }
            }
            // Each is cancel-safe: a pause that is not over stays among them, and so does a stall that is not taken.
            stalled = tokio::select! {
                biased;
                Some(at) = pausing.next(), if !pausing.is_empty() => {
                    lanes.get(at).map(|lane| self.lanes.resume(lane));
                    BTreeMap::new()
                }
                () = sleep_until(room_at), if !busy.is_empty() => {
                    while let Some(lane) = busy.pop_front().and_then(|at| lanes.get(at)) {
                        if self.lanes.resume(lane) == Resumed::Stalls {
                            break;
                        }
                    }
                    room_at = Instant::now() + ROOM;
                    BTreeMap::new()
                }
                stalled = group.stalls() => match stalled {
                    Some(stalled) => stalled,
                    None => return,
                },
            };
        }
    }

    /// A copy of the same event is in flight: its outcome is this one's, if it has one in time. Its deadline came first: after
    /// this one's only the store is waited for.
    async fn share(
        &self,
        arrival: Arrival,
        mut shared: Shared,
        deadline: Instant,
        admission: Admission,
        copies: u32,
    ) -> Sums {
        let settled = match timeout_at(deadline, shared.outcome()).await {
            Ok(settled) => Some(settled),
            Err(_) => timeout_at(until(deadline), shared.unless_refused()).await.unwrap_or_default(),
        };
        match settled {
            Some(Settled::Durable) => {
                Sums { duplicates: self.duplicate(&arrival.outgoing), ..Sums::default() }
            }
            Some(Settled::Released) if copies > 0 && Instant::now() < deadline => {
                self.attempt(vec![arrival], admission, deadline, copies - 1, None).await
            }
            Some(Settled::Released) | None => {
                self.met(&arrival.outgoing, Fate::Rejected);
                Sums { rejected: 1, ..Sums::default() }
            }
        }
    }

    fn duplicate(&self, outgoing: &Outgoing) -> u64 {
        self.met(outgoing, Fate::Duplicate);
        1
    }

    fn met(&self, outgoing: &Outgoing, fate: Fate) {
        self.counts.of(&outgoing.lane.account, outgoing.event_type, |count| count.met(fate));
    }
}

/// Until when the store is waited for.
fn until(deadline: Instant) -> Instant {
    (deadline + STORE_PATIENCE).max(Instant::now() + WOKEN)
}

fn new_turns() -> Turns {
    (0..TURNS).map(|_| Arc::new(Mutex::new(()))).collect()
}
