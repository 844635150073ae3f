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
mod seldom;
pub mod slot;
pub mod topics;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, join_all};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::{Instant, sleep, timeout_at};

use counts::{Counts, Fate};
use dedup::{Candidate, Dedup, Settled, Shared, Verdict};
use lanes::{Admission, Lanes};
use retry::Pauses;
use slot::{Group, Outgoing, Slot, Tally};

use crate::config;
use crate::event::AccountId;
use crate::faults::{self, Bug};
use crate::replay::LaneKey;

/// Places in which an account's requests about the same subject take their turn.
const TURNS: usize = 64;
/// What part of the deadline the bus has at least, when dedup or another request's turn took the rest: a slow disk must
/// not look like a slow bus, open the breaker and park everything.
const LEAST_SHARE: u32 = 4;
/// How long the store may take to say what became of a park before its event counts as not kept.
const STORE_PATIENCE: Duration = Duration::from_secs(10);
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

    fn merge(&mut self, other: Self) {
        self.delivered += other.delivered;
        self.parked += other.parked;
        self.duplicates += other.duplicates;
        self.rejected += other.rejected;
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
        Self { lanes, dedup, counts, settings, turns, hasher: RandomState::new() }
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
    /// the store takes. Must run to its end: the caller spawns it on the tracker.
    pub async fn deliver(&self, arrivals: Vec<Arrival>, admission: Admission, deadline: Instant) -> Sums {
        for arrival in &arrivals {
            self.counts.of(&arrival.outgoing.lane.account, arrival.outgoing.event_type).received();
        }
        self.attempt(arrivals, admission, deadline, COPIES).await
    }

    fn attempt(
        &self,
        arrivals: Vec<Arrival>,
        admission: Admission,
        deadline: Instant,
        copies: u32,
    ) -> Pin<Box<dyn Future<Output = Sums> + Send + '_>> {
        Box::pin(async move {
            let mut sums = Sums::default();
            let turn = self.turn(&arrivals).await;
            let mut fresh: BTreeMap<LaneKey, Vec<(Outgoing, dedup::Reservation)>> = BTreeMap::new();
            let mut copied = Vec::new();
            for arrival in arrivals {
                if faults::bug(Bug::Lost) {
                    let outgoing = &arrival.outgoing;
                    self.counts.of(&outgoing.lane.account, outgoing.event_type).met(Fate::Delivered);
                    sums.delivered += 1;
                    continue;
                }
                match self.dedup.reserve(&arrival.candidate).await {
                    Verdict::New(reservation) => {
                        let lane = fresh.entry(arrival.outgoing.lane.clone()).or_default();
                        lane.push((arrival.outgoing, reservation));
                    }
                    Verdict::Known => sums.duplicates += self.duplicate(&arrival.outgoing),
                    Verdict::InFlight(shared) => copied.push((arrival, shared)),
                }
            }
            let mut driven = Vec::with_capacity(fresh.len());
            let admitted = deadline.max(self.least_share());
            for (key, mut events) in fresh {
                events.sort_by_key(|(outgoing, _)| outgoing.occur_ms);
                if events.len() > 1 && faults::bug(Bug::Reordered) {
                    events.reverse();
                }
                let group = Group::new(events.len());
                let slots = events
                    .into_iter()
                    .map(|(outgoing, reservation)| {
                        let slot = Slot::new(&outgoing, reservation, &group, &self.counts);
                        (outgoing, slot)
                    })
                    .collect();
                self.lanes.admit(&key, slots, admission);
                driven.push(self.drive(key, group, admitted));
            }
            drop(turn);
            let waits = copied
                .into_iter()
                .map(|(arrival, shared)| self.share(arrival, shared, deadline, admission, copies));
            let (tallies, shared) = join(join_all(driven), join_all(waits)).await;
            tallies.into_iter().for_each(|tally| sums.add(tally));
            shared.into_iter().for_each(|other| sums.merge(other));
            sums
        })
    }

    /// Requests about one subject enter their lanes in the order in which they came, whatever dedup has to look up.
    async fn turn(&self, arrivals: &[Arrival]) -> Vec<OwnedMutexGuard<()>> {
        // In one order for all, so that no two requests ever wait for each other.
        let places: BTreeSet<(&AccountId, usize)> = arrivals
            .iter()
            .map(|arrival| &arrival.outgoing.lane)
            .map(|lane| (&lane.account, (self.hasher.hash_one(&lane.subject) as usize) % TURNS))
            .collect();
        let mut guards = Vec::with_capacity(places.len());
        for (account, place) in places {
            let turns = Arc::clone(self.turns.lock().entry(account.clone()).or_insert_with(new_turns));
            guards.push(Arc::clone(&turns[place]).lock_owned().await);
        }
        guards
    }

    /// Sees one group through: retries while there is time, parks at the deadline.
    async fn drive(&self, key: LaneKey, group: Arc<Group>, deadline: Instant) -> Tally {
        let mut pauses = Pauses::new(self.settings.retries);
        let in_time = async {
            loop {
                tokio::select! {
                    biased;
                    () = group.settled() => return,
                    () = group.stalled() => {}
                }
                let Some(pause) = pauses.next() else { return };
                sleep(pause).await;
                self.lanes.resume(&key);
            }
        };
        timeout_at(deadline, in_time).await.ok();
        if group.tally().rejected > 0 {
            self.lanes.expire(&key, &group);
        }
        timeout_at(deadline + STORE_PATIENCE, group.settled()).await.ok();
        group.tally()
    }

    /// A copy of the same event is in flight: its outcome is this one's.
    async fn share(
        &self,
        arrival: Arrival,
        shared: Shared,
        deadline: Instant,
        admission: Admission,
        copies: u32,
    ) -> Sums {
        let settled = timeout_at(deadline + STORE_PATIENCE, shared.outcome()).await;
        match settled {
            Ok(Settled::Durable) => Sums { duplicates: self.duplicate(&arrival.outgoing), ..Sums::default() },
            Ok(Settled::Released) if copies > 0 => {
                self.attempt(vec![arrival], admission, self.deadline(), copies - 1).await
            }
            Ok(Settled::Released) | Err(_) => {
                let outgoing = &arrival.outgoing;
                self.counts.of(&outgoing.lane.account, outgoing.event_type).met(Fate::Rejected);
                Sums { rejected: 1, ..Sums::default() }
            }
        }
    }

    fn duplicate(&self, outgoing: &Outgoing) -> u64 {
        self.counts.of(&outgoing.lane.account, outgoing.event_type).met(Fate::Duplicate);
        1
    }
}

fn new_turns() -> Turns {
    (0..TURNS).map(|_| Arc::new(Mutex::new(()))).collect()
}
