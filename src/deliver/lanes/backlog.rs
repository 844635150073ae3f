//! What the drain and the operator ask of the lanes, and tell them: which lanes wait with nothing unresolved, that a row
//! was delivered, set aside or is gone. The other half of `lanes`, under the same locks and the same invariants.

use std::collections::BinaryHeap;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::super::breaker::Verdict;
use super::{Drained, Lanes, Ready};
use crate::bus::Failure;
use crate::replay::{LaneKey, Seq};

/// Refused topics that are probed at once.
const PROBES: usize = 64;

impl Lanes {
    /// Lanes that wait for the bus with nothing unresolved, oldest head first, at most `limit`.
    #[must_use]
    pub fn ready(&self, limit: usize) -> Vec<Ready> {
        let mut ready = BinaryHeap::new();
        for shard in &self.shards {
            for (key, lane) in shard.lock().iter() {
                let Some(head) = lane.head.filter(|_| lane.entries.is_empty() && !lane.draining) else {
                    continue;
                };
                let late = ready.len() >= limit && ready.peek().is_some_and(|last: &Ready| last.head <= head);
                if late || self.topics.lock().is_refused(&key.topic) {
                    continue;
                }
                ready.push(Ready { head, key: key.clone() });
                if ready.len() > limit {
                    ready.pop();
                }
            }
        }
        ready.into_sorted_vec()
    }

    /// One lane of each refused topic whose probe is due; the probe is spent.
    #[must_use]
    pub fn topic_probes(&self) -> Vec<Ready> {
        let now = Instant::now();
        let mut due = self.topics.lock().due(now, PROBES);
        let mut probes = Vec::new();
        for shard in &self.shards {
            if due.is_empty() {
                break;
            }
            for (key, lane) in shard.lock().iter() {
                let free = lane.entries.is_empty() && !lane.draining;
                if let (true, Some(head)) = (free, lane.head)
                    && due.remove(&key.topic)
                    && self.topics.lock().take_probe(&key.topic, now)
                {
                    probes.push(Ready { head, key: key.clone() });
                }
            }
        }
        probes
    }

    /// Topics were looked up or made: what was refused may be probed at once.
    pub fn probe_topics_now(&self) {
        self.topics.lock().probe_now(Instant::now());
        self.ready.notify_one();
    }

    /// The client says that the bus is there again.
    pub fn probe_bus_now(&self) {
        self.breaker.lock().probe_now(Instant::now());
        self.hurry.store(true, Ordering::Relaxed);
        self.ready.notify_one();
    }

    /// Whether the bus came back since this was asked last: what the drain paused for is over.
    #[must_use]
    pub fn take_hurry(&self) -> bool {
        self.hurry.swap(false, Ordering::Relaxed)
    }

    /// Whether the breaker's probe may be sent now; the probe is spent.
    #[must_use]
    pub fn take_probe(&self) -> bool {
        self.breaker.lock().take_probe(Instant::now())
    }

    /// The drain begins with a lane. False where it has been taken, or is live.
    #[must_use]
    pub fn begin_drain(&self, key: &LaneKey) -> bool {
        let mut shard = self.shard(key).lock();
        let Some(lane) = shard.get_mut(key) else { return false };
        let free = lane.rows > 0 && lane.entries.is_empty() && !lane.draining;
        lane.draining |= free;
        free
    }

    /// One row has left the lane's books; `next` is the row after it, where known. True once the lane is live.
    pub fn drained(&self, key: &LaneKey, how: &Drained, next: Option<Seq>) -> bool {
        let mut shard = self.shard(key).lock();
        let Some(lane) = shard.get_mut(key) else { return true };
        lane.take_rows(1);
        if lane.rows > 0 && next.is_some() {
            lane.head = next;
        }
        match how {
            Drained::Delivered => {
                self.counts.drained.fetch_add(1, Ordering::Relaxed);
                self.succeed(&key.topic);
            }
            Drained::SetAside => {}
        }
        let live = lane.rows == 0;
        if live {
            lane.draining = false;
        }
        self.tidy(&mut shard, key);
        live
    }

    /// The drain leaves a lane that is not live yet.
    pub fn end_drain(&self, key: &LaneKey) {
        let mut shard = self.shard(key).lock();
        if let Some(lane) = shard.get_mut(key) {
            lane.draining = false;
        }
        self.tidy(&mut shard, key);
    }

    /// A row that waited for the operator waits for the bus again, at the end of its lane.
    pub fn requeue(&self, key: &LaneKey, seq: Seq) {
        let mut shard = self.shard(key).lock();
        shard.entry(key.clone()).or_default().add_row(seq);
        self.tidy(&mut shard, key);
    }

    /// How many rows the lane ever had: taken before its rows are read, for [`Self::exhausted`].
    #[must_use]
    pub fn rows_ever(&self, key: &LaneKey) -> u64 {
        self.shard(key).lock().get(key).map_or(0, |lane| lane.rows_ever)
    }

    /// The store has no row of the lane left: what the operator or age removed leaves its books here, unless rows came
    /// since `rows_ever`. True where the lane is live.
    pub fn exhausted(&self, key: &LaneKey, rows_ever: u64) -> bool {
        let mut shard = self.shard(key).lock();
        let Some(lane) = shard.get_mut(key) else { return true };
        if lane.rows_ever != rows_ever {
            return false;
        }
        let rows = lane.rows;
        lane.take_rows(rows);
        lane.draining = false;
        self.tidy(&mut shard, key);
        true
    }

    /// The drain's attempt failed so.
    pub fn drain_failed(&self, key: &LaneKey, failure: &Failure) {
        match failure {
            Failure::Unavailable(_) | Failure::Broken(_) => self.record(Verdict::Failure),
            Failure::Refused(why) => self.refuse(&key.topic, why),
            Failure::Unfit(_) => {}
        }
    }
}
