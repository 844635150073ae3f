//! One event's way to its fate, and the group of one request's events. Invariant: a slot settles once; its
//! reservation is remembered before its sender can be answered, and is given back only when nothing is in flight. A slot is whom
//! the bus tells what became of an attempt; what that means is decided in `lanes`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::counts::Fate;
use super::dedup::Reservation;
use super::lanes::Lanes;
use crate::bus::{Awaiting, Message, Outcome};
use crate::event::EventType;
use crate::event::ids::Ids;
use crate::faults::{self, Point};
use crate::replay::LaneKey;
use crate::trace;

/// An event on its way: identified, routed and encoded.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Its lane.
    pub lane: LaneKey,
    /// Its type.
    pub event_type: EventType,
    /// When it happened, in ms: the order within one request.
    pub occur_ms: i64,
    /// The ids that dedup remembers for it.
    pub enters: Ids,
    /// `traceparent`, where the sender gave one.
    pub trace: Option<String>,
    /// What the bus takes.
    pub message: Message,
}

/// One request's events, awaited together: one wake-up a request and not an event.
pub struct Group {
    lanes: Arc<Lanes>,
    left: AtomicUsize,
    delivered: AtomicU64,
    parked: AtomicU64,
    rejected: AtomicU64,
    stalls: Stalls,
    settled: Notify,
}

/// Why a lane that may be tried again waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stall {
    /// It failed for sure.
    Failed,
    /// The bus's client had no room for it.
    Busy,
}

/// The places of lanes that may be tried again, and why they wait: each at most once until it is taken.
#[derive(Debug, Default)]
struct Stalls {
    stalled: Mutex<BTreeMap<usize, Stall>>,
    ring: Notify,
}

impl Stalls {
    fn tell(&self, lane: usize, stall: Stall) {
        self.stalled.lock().insert(lane, stall);
        self.ring.notify_one();
    }

    async fn take(&self) -> BTreeMap<usize, Stall> {
        loop {
            let stalled = std::mem::take(&mut *self.stalled.lock());
            if !stalled.is_empty() {
                return stalled;
            }
            self.ring.notified().await;
        }
    }
}

/// What became of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Acknowledged by the bus.
    pub delivered: u64,
    /// Fsynced in the replay store.
    pub parked: u64,
    /// Neither.
    pub rejected: u64,
}

impl Group {
    /// A group of so many events of these lanes.
    #[must_use]
    pub fn new(lanes: &Arc<Lanes>, events: usize) -> Arc<Self> {
        Arc::new(Self {
            lanes: Arc::clone(lanes),
            left: AtomicUsize::new(events),
            delivered: AtomicU64::new(0),
            parked: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            stalls: Stalls::default(),
            settled: Notify::new(),
        })
    }

    /// Until every event has met its fate.
    pub async fn settled(&self) {
        while self.left.load(Ordering::Acquire) > 0 {
            self.settled.notified().await;
        }
    }

    /// Until lanes wait to be tried again: their places, and why; none once every event has met its fate. Cancel-safe: what
    /// is not taken stays.
    pub async fn stalls(&self) -> Option<BTreeMap<usize, Stall>> {
        tokio::select! {
            biased;
            () = self.settled() => None,
            stalled = self.stalls.take() => Some(stalled),
        }
    }

    /// What has become of its events so far; those without a fate count as rejected.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let left = self.left.load(Ordering::Acquire) as u64;
        Tally {
            delivered: self.delivered.load(Ordering::Relaxed),
            parked: self.parked.load(Ordering::Relaxed),
            rejected: self.rejected.load(Ordering::Relaxed) + left,
        }
    }
}

/// See the module.
pub struct Slot {
    key: LaneKey,
    event_type: EventType,
    group: Arc<Group>,
    /// The place of its lane among those of its group.
    lane: usize,
    admitted: Instant,
    /// The id of a trace that is kept.
    trace: Option<String>,
    state: Mutex<State>,
}

struct State {
    settled: bool,
    freed: bool,
    reservation: Option<Reservation>,
}

impl Slot {
    /// A slot for one event of `group`, in the lane at place `lane` of its request.
    #[must_use]
    pub fn new(outgoing: &Outgoing, reservation: Reservation, group: &Arc<Group>, lane: usize) -> Arc<Self> {
        Arc::new(Self {
            key: outgoing.lane.clone(),
            event_type: outgoing.event_type,
            group: Arc::clone(group),
            lane,
            admitted: Instant::now(),
            trace: outgoing.trace.as_deref().and_then(trace::sampled).map(str::to_owned),
            state: Mutex::new(State { settled: false, freed: false, reservation: Some(reservation) }),
        })
    }

    /// The bus has it. False where its sender was answered before.
    pub fn delivered(&self) -> bool {
        self.settle(Fate::Delivered)
    }

    /// The store has it.
    pub fn parked(&self) -> bool {
        self.settle(Fate::Parked)
    }

    /// Neither has it, and nothing is in flight.
    pub fn rejected(&self) -> bool {
        let settled = self.settle(Fate::Rejected);
        let reservation = self.state.lock().reservation.take();
        drop(reservation);
        settled
    }

    /// The store refused it while an attempt is in flight: the sender is told, and so are those of copies; the reservation is held.
    pub fn not_kept(&self) -> bool {
        if let Some(reservation) = &self.state.lock().reservation {
            reservation.not_kept();
        }
        self.settle(Fate::Rejected)
    }

    /// Its provisional row became a plain one.
    pub fn free(&self) {
        self.state.lock().freed = true;
    }

    /// Whether its provisional row became a plain one.
    pub fn is_freed(&self) -> bool {
        self.state.lock().freed
    }

    /// Its lane may be tried again, and waits for this reason.
    pub fn stall(&self, stall: Stall) {
        self.group.stalls.tell(self.lane, stall);
    }

    /// Whether it belongs to `group` and its sender still waits.
    #[must_use]
    pub fn waits_in(&self, group: &Arc<Group>) -> bool {
        Arc::ptr_eq(&self.group, group) && !self.state.lock().settled
    }

    fn settle(&self, fate: Fate) -> bool {
        let (first, reservation) = {
            let mut state = self.state.lock();
            let first = !state.settled;
            state.settled = true;
            let reservation = match fate {
                Fate::Delivered | Fate::Parked => state.reservation.take(),
                Fate::Duplicate | Fate::Rejected => None,
            };
            (first, reservation)
        };
        if let Some(reservation) = reservation {
            if fate == Fate::Delivered {
                faults::point(Point::AfterAck);
            }
            reservation.remember();
        }
        if !first {
            return false;
        }
        let (account, counts) = (&self.key.account, self.group.lanes.counts());
        counts.of(account, self.event_type, |count| count.met(fate));
        if fate == Fate::Delivered {
            counts.publishing.observe(account, self.admitted.elapsed(), self.trace.as_deref());
        }
        let counter = match fate {
            Fate::Delivered | Fate::Duplicate => &self.group.delivered,
            Fate::Parked => &self.group.parked,
            Fate::Rejected => &self.group.rejected,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if self.group.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.group.settled.notify_one();
        }
        true
    }
}

impl Awaiting for Slot {
    fn resolve(&self, entry: u64, outcome: Outcome) {
        self.group.lanes.resolve(&self.key, entry, outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lane_that_stalls_is_told_once_until_it_is_taken() {
        let stalls = Stalls::default();
        [2, 0, 2].into_iter().for_each(|lane| stalls.tell(lane, Stall::Failed));
        assert_eq!(stalls.take().await, [(0, Stall::Failed), (2, Stall::Failed)].into());
        stalls.tell(2, Stall::Busy);
        assert_eq!(stalls.take().await, [(2, Stall::Busy)].into());
    }
}
