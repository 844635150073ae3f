//! Lanes: the unit of order. A lane is *live*, with events that the bus has not yet acknowledged, or
//! *behind*, with parked ones. Invariants: every change happens under the lane's shard lock, which never spans an await;
//! sequence numbers are given out under it; while a lane has parked rows, later events queue behind them. Only lanes with
//! either are held: the bound is what is in flight plus the lanes that the store's quota can hold, about 200 bytes each.

mod backlog;
mod probes;
mod said;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use foldhash::HashMap;
use foldhash::fast::RandomState;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::bus::{Awaiting, Bus, Failure, Outcome, Ticket, Window};
use crate::deliver::breaker::{Breaker, Verdict};
use crate::deliver::counts::Counts;
use crate::deliver::slot::{Group, Outgoing, Slot, Stall};
use crate::deliver::topics::{Cure, Taken, Topics};
use crate::event::{AccountId, EventType, Text};
use crate::replay::{LaneKey, ParkError, Parked, Reason, RecoveredLane, Seq, Store};
pub use probes::Kin;
use said::Said;

/// Shards of the lane map: far more than threads that meet in it.
const SHARDS: usize = 64;

/// How a request's events enter their lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// To the bus, if the lane is live.
    Normal,
    /// To the store: the account's rate is spent.
    Park,
}

/// How a lane that stalled took it to be tried again.
#[derive(Debug, PartialEq, Eq)]
pub enum Resumed {
    /// It goes on, or has nothing to send.
    Goes,
    /// It stalls again.
    Stalls,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    Waiting,
    Sent,
}

/// Whether the drain has a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Draining {
    #[default]
    No,
    /// A future of it reads, sends or awaits.
    Works,
    /// Something of it is with the bus, and late.
    Late,
}

/// An event that the bus has not acknowledged. Once it is parked provisionally only its number and row matter.
struct Entry {
    number: u64,
    outgoing: Option<Box<Outgoing>>,
    slot: Arc<Slot>,
    attempt: Attempt,
    tries: u32,
    row: Option<Seq>,
}

impl Entry {
    /// In flight, but its sender was told that it could not be kept.
    fn is_orphan(&self) -> bool {
        self.outgoing.is_none() && self.row.is_none()
    }
}

#[derive(Default)]
struct Lane {
    entries: VecDeque<Entry>,
    /// Rows in the store, or on their way to it, without an attempt.
    rows: u64,
    /// Which row came last: unlike that of any lane, also of one that had this key before.
    last_came: u64,
    head: Option<Seq>,
    stalled: bool,
    draining: Draining,
}

impl Lane {
    fn is_behind(&self) -> bool {
        let first = self.entries.iter().find(|entry| !entry.is_orphan());
        self.rows > 0 || first.is_some_and(|entry| entry.row.is_some())
    }

    /// Nothing of it is unresolved, and no drain has it.
    fn is_free(&self) -> bool {
        self.entries.is_empty() && self.draining == Draining::No
    }

    /// A future of the drain has it, and nothing is in flight that came from a sender.
    fn is_worked_on(&self) -> bool {
        self.entries.is_empty() && self.draining == Draining::Works
    }

    fn add_row(&mut self, seq: Seq, numbers: &AtomicU64) {
        self.rows += 1;
        self.last_came = numbers.fetch_add(1, Ordering::Relaxed);
        self.head = Some(self.head.map_or(seq, |head| head.min(seq)));
    }

    fn take_rows(&mut self, count: u64) {
        self.rows = self.rows.saturating_sub(count);
        if self.rows == 0 {
            self.head = None;
        }
    }
}

/// A row about to be parked, and whom to tell.
struct Parking {
    number: u64,
    slot: Arc<Slot>,
    provisional: bool,
}

/// A lane that the drain may work on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ready {
    /// Its oldest row.
    pub head: Seq,
    /// Which.
    pub key: LaneKey,
}

/// How many events came from their senders until now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Came {
    /// To the bus at once.
    pub live: u64,
    /// To the store, behind what waits there.
    pub behind: u64,
}

/// How drained rows ended, for the lane's books.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drained {
    /// So many, one after the other, were acknowledged; their rows go.
    Delivered(u64),
    /// One is set aside for the operator.
    SetAside,
}

/// See the module. Always behind an `Arc`.
pub struct Lanes {
    shards: Vec<Mutex<HashMap<LaneKey, Lane>>>,
    hasher: RandomState,
    bus: Arc<Bus>,
    store: Store,
    breaker: Mutex<Breaker>,
    topics: Mutex<Topics>,
    counts: Arc<Counts>,
    retries: u32,
    numbers: AtomicU64,
    /// See [`Came`].
    came_live: AtomicU64,
    came_behind: AtomicU64,
    said: Said,
    /// The bus came back.
    hurry: AtomicBool,
    /// Rung when a lane may have become ready for the drain.
    pub(crate) ready: Notify,
}

impl Lanes {
    /// Empty lanes, but for those that the store recovered.
    #[must_use]
    pub fn new(
        bus: Arc<Bus>,
        store: Store,
        breaker: Breaker,
        counts: Arc<Counts>,
        retries: u32,
        behind: Vec<RecoveredLane>,
    ) -> Arc<Self> {
        let lanes = Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::default(),
            bus,
            store,
            breaker: Mutex::new(breaker),
            topics: Mutex::default(),
            counts,
            retries,
            numbers: AtomicU64::new(1),
            came_live: AtomicU64::new(0),
            came_behind: AtomicU64::new(0),
            said: Said::new(),
            hurry: AtomicBool::new(false),
            ready: Notify::new(),
        };
        for RecoveredLane { key, rows, head } in behind {
            let lane = Lane { rows, head: Some(head), ..Lane::default() };
            lanes.shard(&key).lock().insert(key, lane);
        }
        Arc::new(lanes)
    }

    /// Takes one request's events of one lane, in their order: behind what is parked, else to the bus.
    pub fn admit(self: &Arc<Self>, key: &LaneKey, events: Vec<(Outgoing, Arc<Slot>)>, admission: Admission) {
        let must_park = admission == Admission::Park
            || self.breaker.lock().is_open()
            || self.topics.lock().is_refused(&key.topic);
        let mut shard = self.shard(key).lock();
        let lane = shard.entry(key.clone()).or_default();
        let behind = must_park || lane.is_behind();
        let came = if behind { &self.came_behind } else { &self.came_live };
        came.fetch_add(events.len() as u64, Ordering::Relaxed);
        for (outgoing, slot) in events {
            let number = self.numbers.fetch_add(1, Ordering::Relaxed);
            let outgoing = Some(Box::new(outgoing));
            let entry = Entry { number, outgoing, slot, attempt: Attempt::Waiting, tries: 0, row: None };
            lane.entries.push_back(entry);
        }
        if behind {
            self.turn_behind(key, lane, None);
        } else {
            self.send(key, lane);
        }
        self.tidy(&mut shard, key);
    }

    /// What became of every event.
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Tries again what stalled.
    pub fn resume(self: &Arc<Self>, key: &LaneKey) -> Resumed {
        let mut shard = self.shard(key).lock();
        let mut resumed = Resumed::Goes;
        if let Some(lane) = shard.get_mut(key) {
            lane.stalled = false;
            self.send(key, lane);
            if lane.stalled {
                resumed = Resumed::Stalls;
            }
        }
        self.tidy(&mut shard, key);
        resumed
    }

    /// The deadline of `group` is over: what the bus has not acknowledged is parked, with all that came after it.
    pub fn expire(self: &Arc<Self>, key: &LaneKey, group: &Arc<Group>) {
        let mut shard = self.shard(key).lock();
        if let Some(lane) = shard.get_mut(key) {
            let late = lane.entries.iter().filter(|e| e.row.is_none() && e.slot.waits_in(group));
            let sent = late.clone().filter(|entry| entry.attempt == Attempt::Sent).count();
            if late.count() > 0 {
                // What waits for others of its place is no sign that the bus is away.
                if sent > 0 && !self.bus.holds_back(&key.topic, &key.subject) {
                    self.record_all(Verdict::Failure, sent as u64);
                }
                self.turn_behind(key, lane, None);
            }
        }
        self.tidy(&mut shard, key);
    }

    /// Whether events are parked at once for want of the bus.
    #[must_use]
    pub fn is_breaker_open(&self) -> bool {
        self.breaker.lock().is_open()
    }

    /// For how long attempts have failed and none was acknowledged, where that is long.
    #[must_use]
    pub fn silent_for(&self) -> Option<Duration> {
        self.breaker.lock().silent_for(Instant::now())
    }

    fn shard(&self, key: &LaneKey) -> &Mutex<HashMap<LaneKey, Lane>> {
        let index = (self.hasher.hash_one(key) as usize) % self.shards.len();
        &self.shards[index]
    }

    fn tidy(&self, shard: &mut HashMap<LaneKey, Lane>, key: &LaneKey) {
        let Some(lane) = shard.get(key) else { return };
        if lane.is_free() && lane.rows == 0 {
            shard.remove(key);
        } else if lane.is_free() {
            self.ready.notify_one();
        }
    }

    /// Sends what waits, as far as the bus's window allows, in order, and stops at the first failure.
    fn send(self: &Arc<Self>, key: &LaneKey, lane: &mut Lane) {
        if lane.stalled || lane.is_behind() {
            return;
        }
        let mut at = 0;
        while at < lane.entries.len() {
            if at > 0 && self.bus.window_of(&key.topic, &key.subject) == Window::One {
                return;
            }
            let entry = &mut lane.entries[at];
            let Some(outgoing) = entry.outgoing.as_ref().filter(|_| entry.attempt == Attempt::Waiting) else {
                at += 1;
                continue;
            };
            let to: Arc<dyn Awaiting> = Arc::<Slot>::clone(&entry.slot);
            let ticket = Ticket::new(to, entry.number);
            match self.bus.submit(&outgoing.message, ticket) {
                Ok(()) => {
                    entry.attempt = Attempt::Sent;
                    at += 1;
                }
                Err((failure, ticket)) => {
                    ticket.withdraw();
                    self.failed(key, lane, at, failure);
                    if lane.stalled || lane.is_behind() {
                        return;
                    }
                }
            }
        }
    }

    /// An attempt has ended.
    pub(crate) fn resolve(self: &Arc<Self>, key: &LaneKey, number: u64, outcome: Outcome) {
        let mut shard = self.shard(key).lock();
        let Some(lane) = shard.get_mut(key) else { return };
        let Some(at) = lane.entries.iter().position(|entry| entry.number == number) else { return };
        match outcome {
            Outcome::Delivered => {
                self.record(Verdict::Success);
                self.succeed(&key.topic);
                if let Some(entry) = lane.entries.remove(at) {
                    let in_time = entry.slot.delivered();
                    if let Some(row) = entry.row {
                        self.store.delete(vec![row]);
                    }
                    if !in_time {
                        self.counts.late_acknowledgements.fetch_add(1, Ordering::Relaxed);
                    }
                }
                self.send(key, lane);
            }
            Outcome::Failed(failure) => {
                lane.entries[at].attempt = Attempt::Waiting;
                self.failed(key, lane, at, failure);
                self.send(key, lane);
            }
            Outcome::Unresolved => {
                lane.entries[at].attempt = Attempt::Waiting;
                self.free_or_park(key, lane, at, "the client lost track of the attempt");
                // Where it was an orphan, the lane may be live, and the next one's turn has come.
                self.send(key, lane);
            }
        }
        self.tidy(&mut shard, key);
    }

    /// An entry that is not in flight any more failed for sure.
    fn failed(self: &Arc<Self>, key: &LaneKey, lane: &mut Lane, at: usize, failure: Failure) {
        if drop_orphan(lane, at) {
            return;
        }
        match failure {
            Failure::Unavailable(why) | Failure::Broken(why) => {
                self.try_again(key, lane, at, Verdict::Failure, &why);
            }
            Failure::Unanswered(why) => self.try_again(key, lane, at, Verdict::Unanswered, &why),
            Failure::Busy(why) => self.stall(key, lane, at, Stall::Busy, &why),
            Failure::Refused(why) => {
                self.refuse(&key.topic, &why, Cure::Owner);
                self.free_or_park(key, lane, at, &why);
            }
            Failure::Full(why) => {
                self.refuse(&key.topic, &why, Cure::Time);
                self.free_or_park(key, lane, at, &why);
            }
            Failure::Unfit(why) => self.set_aside(key, lane, at, &why),
        }
    }

    /// An entry is tried again, but not for ever.
    fn try_again(self: &Arc<Self>, key: &LaneKey, lane: &mut Lane, at: usize, verdict: Verdict, why: &str) {
        let entry = &mut lane.entries[at];
        if entry.row.is_none() {
            self.record(verdict);
        }
        entry.tries += 1;
        if entry.tries <= self.retries {
            self.stall(key, lane, at, Stall::Failed, why);
        } else {
            self.free_or_park(key, lane, at, why);
        }
    }

    /// An entry is tried again, where its sender waits for it and nothing after it is in flight.
    fn stall(self: &Arc<Self>, key: &LaneKey, lane: &mut Lane, at: usize, stall: Stall, why: &str) {
        let followed = lane.entries.iter().skip(at + 1).any(|e| e.attempt == Attempt::Sent);
        // Where the lane has rows nothing is sent but by the drain.
        if lane.entries[at].row.is_some() || followed || lane.is_behind() {
            self.free_or_park(key, lane, at, why);
        } else {
            lane.stalled = true;
            lane.entries[at].slot.stall(stall);
        }
    }

    /// The row of a provisional entry becomes a plain one; an entry without a row turns the lane behind.
    fn free_or_park(self: &Arc<Self>, key: &LaneKey, lane: &mut Lane, at: usize, why: &str) {
        if drop_orphan(lane, at) {
            return;
        }
        if lane.entries[at].row.is_none() {
            self.turn_behind(key, lane, Some(why));
            return;
        }
        if let Some(entry) = lane.entries.remove(at)
            && let Some(row) = entry.row
        {
            entry.slot.free();
            self.store.free(vec![row]);
            lane.add_row(row, &self.numbers);
        }
    }

    /// Says that an event waits for the operator.
    pub(crate) fn note_unfit(&self, account: &AccountId, event_type: EventType, why: &str) {
        self.said.unfit(account, event_type, why);
    }

    /// Poison: it waits for the operator and holds nothing back.
    fn set_aside(self: &Arc<Self>, key: &LaneKey, lane: &mut Lane, at: usize, why: &str) {
        let Some(entry) = lane.entries.remove(at) else { return };
        if let Some(row) = entry.row {
            self.store.set_reason(vec![row], Reason::Unfit, why.to_owned());
            return;
        }
        let Some(outgoing) = entry.outgoing else { return };
        let seq = self.store.next_seq();
        let row = parked(&outgoing, seq, Reason::Unfit, why, false);
        let slot = Arc::clone(&entry.slot);
        self.note_unfit(&key.account, outgoing.event_type, why);
        let done = Box::new(move |kept: Result<(), ParkError>| {
            if kept.is_ok() {
                slot.parked();
            } else {
                slot.rejected();
            }
        });
        if let Err(error) = self.store.park(vec![row], done) {
            self.said.not_kept(&key.account, &error);
            entry.slot.rejected();
        }
    }

    /// Parks everything in the lane that has no row yet, in order: provisionally what is in flight.
    fn turn_behind(self: &Arc<Self>, key: &LaneKey, lane: &mut Lane, why: Option<&str>) {
        lane.stalled = false;
        let refused = self.topics.lock().is_refused(&key.topic);
        let reason = if refused { Reason::Refused } else { Reason::Unavailable };
        let mut rows = Vec::new();
        let mut parkings = Vec::new();
        let mut kept = VecDeque::with_capacity(lane.entries.len());
        for mut entry in std::mem::take(&mut lane.entries) {
            let Some(outgoing) = entry.outgoing.take() else {
                kept.push_back(entry);
                continue;
            };
            let seq = self.store.next_seq();
            let provisional = entry.attempt == Attempt::Sent;
            rows.push(parked(&outgoing, seq, reason, why.unwrap_or_default(), provisional));
            parkings.push(Parking { number: entry.number, slot: Arc::clone(&entry.slot), provisional });
            if provisional {
                entry.row = Some(seq);
                kept.push_back(entry);
            } else {
                lane.add_row(seq, &self.numbers);
            }
        }
        lane.entries = kept;
        if rows.is_empty() {
            return;
        }
        let parkings = Arc::new(parkings);
        let lanes = Arc::clone(self);
        let told = (key.clone(), Arc::clone(&parkings));
        let done = Box::new(move |kept: Result<(), ParkError>| {
            let (key, parkings) = told;
            match kept {
                Ok(()) => {
                    for parking in parkings.iter() {
                        parking.slot.parked();
                    }
                }
                Err(_) => {
                    let mut shard = lanes.shard(&key).lock();
                    not_kept(shard.get_mut(&key), &parkings);
                    lanes.tidy(&mut shard, &key);
                }
            }
        });
        if let Err(error) = self.store.park(rows, done) {
            self.said.not_kept(&key.account, &error);
            not_kept(Some(lane), &parkings);
        }
    }

    fn succeed(&self, topic: &Text) {
        let taken = self.topics.lock().take(topic);
        match taken {
            Taken::AsBefore => {}
            Taken::Answered(named) => {
                self.said.topic_answered(&named);
                self.ready.notify_one();
            }
            Taken::Again => self.ready.notify_one(),
            Taken::LastOf(named) => {
                self.said.topic_accepted(&named);
                self.ready.notify_one();
            }
        }
    }

    fn refuse(&self, topic: &Text, why: &str, cure: Cure) {
        let named = self.bus.name_of(topic);
        let is_news = self.topics.lock().refuse(topic, &named, Instant::now(), why, cure);
        if is_news {
            self.said.topic_refused(&named, why);
        }
    }
}

/// The store refused rows: their senders are told, and the lane's books forget them.
fn not_kept(mut lane: Option<&mut Lane>, parkings: &[Parking]) {
    for parking in parkings {
        let lane = lane.as_deref_mut();
        if !parking.provisional || parking.slot.is_freed() {
            if let Some(lane) = lane {
                lane.take_rows(1);
            }
            parking.slot.rejected();
            continue;
        }
        let entry = lane.and_then(|lane| lane.entries.iter_mut().find(|e| e.number == parking.number));
        if let Some(entry) = entry {
            entry.row = None;
        }
        parking.slot.not_kept();
    }
}

/// Forgets an entry that nobody waits for and nothing keeps. True where it was one.
fn drop_orphan(lane: &mut Lane, at: usize) -> bool {
    let orphan = lane.entries[at].is_orphan();
    if orphan && let Some(entry) = lane.entries.remove(at) {
        entry.slot.rejected();
    }
    orphan
}

fn parked(outgoing: &Outgoing, seq: Seq, reason: Reason, why: &str, provisional: bool) -> Parked {
    Parked {
        seq,
        lane: outgoing.lane.clone(),
        event_type: outgoing.event_type,
        id: outgoing.message.id,
        enters: outgoing.enters.to_vec(),
        payload: outgoing.message.payload.clone(),
        trace: outgoing.trace.clone(),
        reason,
        error: why.to_owned(),
        provisional,
        parked_at: crate::clock::now(),
    }
}
