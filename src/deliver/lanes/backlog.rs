//! What the drain and the operator ask of the lanes, and tell them: which lanes wait with nothing unresolved, that a row
//! was delivered, set aside or is gone. The other half of `lanes`, under the same locks and the same invariants.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::super::breaker::{Change, Verdict};
use super::super::topics::Cure;
use super::{Attempt, Came, Drained, Draining, Lane, Lanes, Ready};
use crate::bus::Failure;
use crate::event::{AccountId, Text};
use crate::replay::{Done, LaneKey, ParkError, Parked, Reason, Seq};

/// The lanes that come first by something, at most so many.
pub(super) struct Least<By> {
    most: usize,
    lanes: BinaryHeap<(By, Ready)>,
}

impl<By: Ord> Least<By> {
    pub(super) fn new(most: usize) -> Self {
        Self { most, lanes: BinaryHeap::new() }
    }

    pub(super) fn would_take(&self, by: &By) -> bool {
        self.lanes.len() < self.most || self.lanes.peek().is_some_and(|(last, _)| by < last)
    }

    pub(super) fn take(&mut self, by: By, lane: Ready) {
        if self.would_take(&by) {
            self.lanes.push((by, lane));
        }
        if self.lanes.len() > self.most {
            self.lanes.pop();
        }
    }

    pub(super) fn sorted(self) -> Vec<Ready> {
        self.lanes.into_sorted_vec().into_iter().map(|(_, lane)| lane).collect()
    }
}

impl Lanes {
    /// Topics that the bus refuses, with its words.
    #[must_use]
    pub fn refused_topics(&self) -> Vec<(Text, String)> {
        self.topics.lock().list()
    }

    /// Lanes with parked events, and those events.
    #[must_use]
    pub fn behind(&self) -> (u64, u64) {
        self.shards.iter().fold((0, 0), |(lanes, rows), shard| {
            shard.lock().values().filter(|lane| lane.is_behind()).fold(
                (lanes, rows),
                |(lanes, rows), lane| {
                    let unresolved = lane.entries.iter().filter(|entry| entry.row.is_some()).count() as u64;
                    (lanes + 1, rows + lane.rows + unresolved)
                },
            )
        })
    }

    /// Whether an account has events parked in a lane, by its topic and subject, that today's configuration would not put them into.
    #[must_use]
    pub fn is_behind_elsewhere(&self, account: &AccountId, is_todays: impl Fn(&str, &str) -> bool) -> bool {
        self.shards.iter().any(|shard| {
            shard.lock().iter().any(|(key, lane)| {
                key.account == *account && lane.is_behind() && !is_todays(&key.topic, &key.subject)
            })
        })
    }

    /// Lanes that wait for the bus with nothing unresolved, at most `limit`: first, half of them, those to which rows came
    /// last, for they have live traffic, which waits in the store until they are live; then those with the oldest heads,
    /// oldest first. Looks at every lane, and keeps only those that it will hand out: a recovery has many.
    #[must_use]
    pub fn ready(&self, limit: usize) -> Vec<Ready> {
        let (mut busy, mut ready) = (Least::new(limit / 2), Least::new(limit));
        let now = Instant::now();
        for shard in &self.shards {
            for (key, lane) in shard.lock().iter() {
                let Some(head) = lane.head.filter(|_| lane.is_free()) else { continue };
                let is_busy = lane.last_came > 0 && busy.would_take(&Reverse(lane.last_came));
                if !is_busy && !ready.would_take(&head) || self.topics.lock().is_left_alone(&key.topic, now) {
                    continue;
                }
                if is_busy {
                    busy.take(Reverse(lane.last_came), Ready { head, key: key.clone() });
                }
                ready.take(head, Ready { head, key: key.clone() });
            }
        }
        let mut found = busy.sorted();
        // A row is the head of one lane alone.
        let busy: HashSet<Seq> = found.iter().map(|lane| lane.head).collect();
        let rest = ready.sorted().into_iter().filter(|lane| !busy.contains(&lane.head));
        found.extend(rest.take(limit - busy.len()));
        found
    }

    /// Whether only probes may go to this topic, or nothing for a while.
    #[must_use]
    pub fn is_topic_left_alone(&self, topic: &str) -> bool {
        self.topics.lock().is_left_alone(topic, Instant::now())
    }

    /// The client says that the bus is there again, after so long.
    pub fn probe_bus_now(&self, away: Duration) {
        let now = Instant::now();
        self.breaker.lock().bus_is_back(now, away);
        self.topics.lock().try_now(now);
        self.hurry.store(true, Ordering::Relaxed);
        self.ready.notify_one();
    }

    /// Whether the bus came back since this was asked last: what the drain paused for is over.
    #[must_use]
    pub fn take_hurry(&self) -> bool {
        self.hurry.swap(false, Ordering::Relaxed)
    }

    /// The breaker is open, no lane can carry its probe, and nothing is in flight that could close it soon: what is parked
    /// belongs to refused topics or to those that nobody answers for, or hangs with its partition, or nothing could be kept. The next events try the bus; else it would
    /// stay open for ever, for pollers wait for it, too. What is late may close it where the whole bus comes back: for a while
    /// that is waited for.
    pub fn close_breaker_for_want_of_probes(&self) {
        let is_open_long = self.breaker.lock().is_open_long(Instant::now());
        let could_close = |lane: &Lane| {
            // An entry that keeps its event has its deadline before it.
            let fresh = lane.entries.iter().any(|entry| entry.outgoing.is_some());
            let late = !lane.entries.is_empty() || lane.draining == Draining::Late;
            fresh || lane.draining == Draining::Works || late && !is_open_long
        };
        if !self.shards.iter().any(|shard| shard.lock().values().any(could_close)) {
            self.close_breaker();
        }
    }

    /// The store does not give what would carry the breaker's probe. Where that lasts, the next events try the bus: what it takes goes
    /// through, though nothing can be parked.
    pub fn close_breaker_for_want_of_rows(&self) {
        let is_open_long = self.breaker.lock().is_open_long(Instant::now());
        if is_open_long {
            self.close_breaker();
        }
    }

    fn close_breaker(&self) {
        tracing::info!("breaker.nothing_to_probe_with");
        let change = self.breaker.lock().close();
        self.say(change);
    }

    /// Counts an attempt for the breaker.
    pub(crate) fn record(&self, verdict: Verdict) {
        self.record_all(verdict, 1);
    }

    /// Counts attempts that ended alike.
    pub(super) fn record_all(&self, verdict: Verdict, attempts: u64) {
        let change = self.breaker.lock().record(Instant::now(), verdict, attempts);
        self.say(change);
    }

    fn say(&self, change: Option<Change>) {
        match change {
            Some(Change::Opened) => tracing::warn!("breaker.opened"),
            Some(Change::Closed) => {
                tracing::info!("breaker.closed");
                self.ready.notify_one();
            }
            None => {}
        }
    }

    /// The drain begins with a lane. False where it has been taken, or is live.
    #[must_use]
    pub fn begin_drain(&self, key: &LaneKey) -> bool {
        let mut shard = self.shard(key).lock();
        let Some(lane) = shard.get_mut(key) else { return false };
        let free = lane.rows > 0 && lane.is_free();
        if free {
            lane.draining = Draining::Works;
        }
        free
    }

    /// What the drain has of a lane with the bus is late: the lane stays its own until that has ended.
    pub fn drain_is_late(&self, key: &LaneKey) {
        if let Some(lane) = self.shard(key).lock().get_mut(key) {
            lane.draining = Draining::Late;
        }
    }

    /// Rows have left the lane's books; `next` is the row after them, where known. True once the lane is live.
    pub fn drained(&self, key: &LaneKey, how: &Drained, next: Option<Seq>) -> bool {
        let mut shard = self.shard(key).lock();
        let Some(lane) = shard.get_mut(key) else { return true };
        let rows = match how {
            Drained::Delivered(rows) => {
                self.counts.drained.fetch_add(*rows, Ordering::Relaxed);
                self.record_all(Verdict::Success, *rows);
                self.succeed(&key.topic);
                *rows
            }
            Drained::SetAside => {
                // Poison says nothing about the bus or the topic: where it was a probe, the next one goes at once.
                self.breaker.lock().probe_now(Instant::now());
                self.topics.lock().give_probe_back(&key.topic, Instant::now());
                1
            }
        };
        lane.take_rows(rows);
        if lane.rows > 0 && next.is_some() {
            lane.head = next;
        }
        let live = lane.rows == 0;
        if live {
            lane.draining = Draining::No;
        }
        self.tidy(&mut shard, key);
        live
    }

    /// The drain leaves a lane that is not live yet.
    pub fn end_drain(&self, key: &LaneKey) {
        let mut shard = self.shard(key).lock();
        if let Some(lane) = shard.get_mut(key) {
            lane.draining = Draining::No;
        }
        self.tidy(&mut shard, key);
    }

    /// A row that waited for the operator waits for the bus again, at the end of its lane: a new row in its place, counted in
    /// the section in which it gets its place, so that no drain passes it over or finds it before it is counted. Where the
    /// old one is gone by then, `done` hears so, and nothing is sent.
    ///
    /// # Errors
    /// At once, where the store has no room for it; `done` is not called then.
    pub fn requeue(self: &Arc<Self>, parked: Parked, done: Done) -> Result<(), ParkError> {
        let key = parked.lane.clone();
        let mut shard = self.shard(&key).lock();
        if let Some(lane) = shard.get_mut(&key)
            && lane.entries.iter().any(|entry| entry.outgoing.is_some() && entry.attempt == Attempt::Waiting)
        {
            // What is unsent has its rows before this one: it would wait for the drain, and the drain for it.
            self.turn_behind(&key, lane, None);
        }
        let (old, seq) = (parked.seq, self.store.next_seq());
        let row = Parked { seq, reason: Reason::Unavailable, provisional: false, ..parked };
        let (lanes, told) = (Arc::clone(self), key.clone());
        let done = Box::new(move |kept: Result<(), ParkError>| {
            if kept.is_err() {
                let mut shard = lanes.shard(&told).lock();
                if let Some(lane) = shard.get_mut(&told) {
                    lane.take_rows(1);
                }
                lanes.tidy(&mut shard, &told);
            }
            done(kept);
        });
        self.store.park_instead(old, row, done)?;
        shard.entry(key.clone()).or_default().add_row(seq, &self.numbers);
        self.tidy(&mut shard, &key);
        Ok(())
    }

    /// What came from its senders until now: whether more does, beside a drain.
    pub(crate) fn came(&self) -> Came {
        let [live, behind] = [&self.came_live, &self.came_behind].map(|came| came.load(Ordering::Relaxed));
        Came { live, behind }
    }

    /// The drain is about to read the lane's rows: which came last, for [`Self::exhausted`]. None where the lane is not the
    /// drain's any more: it turned live meanwhile, and something is in flight again.
    #[must_use]
    pub fn last_came(&self, key: &LaneKey) -> Option<u64> {
        let shard = self.shard(key).lock();
        shard.get(key).filter(|lane| lane.is_worked_on()).map(|lane| lane.last_came)
    }

    /// The store has no row of the lane left: what the operator or age removed leaves its books here, unless rows came
    /// since `last_came`. True where the lane is live.
    pub fn exhausted(&self, key: &LaneKey, last_came: u64) -> bool {
        let mut shard = self.shard(key).lock();
        let Some(lane) = shard.get_mut(key) else { return true };
        if lane.last_came != last_came {
            return false;
        }
        let rows = lane.rows;
        lane.take_rows(rows);
        lane.draining = Draining::No;
        self.tidy(&mut shard, key);
        true
    }

    /// The drain's attempt failed so.
    pub fn drain_failed(&self, key: &LaneKey, failure: &Failure) {
        match failure {
            Failure::Unavailable(_) | Failure::Broken(_) => self.record(Verdict::Failure),
            Failure::Unanswered(why) => self.in_vain(&key.topic, why),
            Failure::Refused(why) => self.answered_no(&key.topic, why, Cure::Owner),
            Failure::Full(why) => self.answered_no(&key.topic, why, Cure::Time),
            Failure::Busy(_) | Failure::Unfit(_) => {}
        }
    }

    /// Nobody answered for the topic.
    fn in_vain(&self, topic: &Text, why: &str) {
        self.record(Verdict::Unanswered);
        let named = self.bus.name_of(topic);
        let to_say = self.topics.lock().in_vain(topic, &named, Instant::now());
        if to_say {
            self.said.topic_unanswered(&named, why);
        }
    }

    /// The topic is refused, and so the bus is there: where that was the breaker's probe, a lane of another topic is asked at once.
    /// It acknowledged nothing, and stays as silent as it was.
    fn answered_no(&self, topic: &Text, why: &str, cure: Cure) {
        self.refuse(topic, why, cure);
        self.breaker.lock().probe_now(Instant::now());
    }
}
