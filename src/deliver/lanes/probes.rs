//! Which lanes carry a probe: one of each topic that is refused, and while the breaker is open one after another, of each account
//! and topic in turn, for most of what waits may be of one that is refused or hangs. Under the same locks and invariants as
//! `lanes`. Looking at all lanes takes milliseconds where there are a hundred thousand: neither is done at each turn of the drain.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher as _;
use std::time::Instant;

use foldhash::fast::RandomState;

use super::super::topics::Taken;
use super::backlog::Least;
use super::{Lanes, Ready};
use crate::event::{AccountId, Text};
use crate::replay::{LaneKey, Seq};

/// Refused topics that are probed at once.
const PROBES: usize = 64;

/// Lanes that fare alike: an account's of one topic, by the name that its vehicles' topics have together.
pub type Kin = (AccountId, Text);

impl Lanes {
    /// With which others a lane fares alike.
    #[must_use]
    pub fn kin_of(&self, key: &LaneKey) -> Kin {
        (key.account.clone(), Text::from(self.bus.name_of(&key.topic)))
    }

    /// Of which lanes a probe says nothing of the bus, as of now: the topic is refused; or nobody answers for it and those of its name,
    /// and the breaker has been open for long, though other streams may be well.
    pub fn says_nothing(&self) -> impl Fn(&LaneKey) -> bool + '_ {
        let is_open_long = self.breaker.lock().is_open_long(Instant::now());
        move |key| {
            let topics = self.topics.lock();
            topics.is_refused(&key.topic)
                || is_open_long && topics.is_unanswered(&self.bus.name_of(&key.topic))
        }
    }

    /// Lanes that may carry the breaker's probe, at most `limit`: one of each kin in turn, from the one after `asked` on, and where
    /// there are fewer kin, others. Which of a kin it is, is left to chance, for what some lanes have with the bus may hang.
    #[must_use]
    pub fn breaker_probes(&self, limit: usize, asked: Option<&Kin>) -> Vec<Ready> {
        let chance = RandomState::default();
        let mut kin: HashMap<Kin, (u64, Ready)> = HashMap::new();
        let mut others = Least::new(limit);
        let says_nothing = self.says_nothing();
        for shard in &self.shards {
            for (key, lane) in shard.lock().iter() {
                let Some(head) = lane.head.filter(|_| lane.is_free()) else { continue };
                if says_nothing(key) {
                    continue;
                }
                let by = chance.hash_one(key);
                let ready = || Ready { head, key: key.clone() };
                if others.would_take(&by) {
                    others.take(by, ready());
                }
                match kin.entry(self.kin_of(key)) {
                    Entry::Occupied(one) if one.get().0 <= by => {}
                    entry => {
                        entry.insert_entry((by, ready()));
                    }
                }
            }
        }
        let mut turns: Vec<(Kin, Ready)> = kin.into_iter().map(|(kin, (_, lane))| (kin, lane)).collect();
        turns.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let had = asked.map_or(0, |asked| turns.partition_point(|(kin, _)| kin <= asked));
        turns.rotate_left(had);
        let mut found: Vec<Ready> = turns.into_iter().map(|(_, lane)| lane).take(limit).collect();
        // A row is the head of one lane alone.
        let heads: HashSet<Seq> = found.iter().map(|lane| lane.head).collect();
        let rest = others.sorted().into_iter().filter(|lane| !heads.contains(&lane.head));
        found.extend(rest.take(limit - heads.len()));
        found
    }

    /// Whether the breaker's probe is due.
    #[must_use]
    pub fn is_probe_due(&self) -> bool {
        self.breaker.lock().is_probe_due(Instant::now())
    }

    /// Whether the breaker's probe may be sent now; the probe is spent.
    #[must_use]
    pub fn take_probe(&self) -> bool {
        self.breaker.lock().take_probe(Instant::now())
    }

    /// One lane of each refused topic whose probe is due; the probe is spent. On NATS each lane is a topic of its own:
    /// one pass over the lanes, whatever is refused, and no next one for a while. Where it begins is left to chance: what is refused
    /// may be one lane's first event alone. Where none is left, for the operator or age took its rows, nobody can tell whether the
    /// topic is taken: it is not called refused any more.
    #[must_use]
    pub fn topic_probes(&self) -> Vec<Ready> {
        let mut probes = Vec::new();
        let now = Instant::now();
        // Those whose lane was not met yet.
        let mut due = self.topics.lock().due(now);
        if due.is_empty() {
            return probes;
        }
        let (before, after) = self.shards.split_at(self.by_chance());
        'all: for shard in after.iter().chain(before) {
            for (key, lane) in shard.lock().iter() {
                if due.is_empty() {
                    break 'all;
                }
                // Others are due, and are looked for next.
                if probes.len() >= PROBES {
                    return probes;
                }
                if let Some(head) = lane.head.filter(|_| lane.is_free())
                    && due.contains(&key.topic)
                    && self.topics.lock().take_probe(&key.topic, now)
                {
                    due.remove(&key.topic);
                    probes.push(Ready { head, key: key.clone() });
                }
            }
        }
        // Those whose probe is due still have busy lanes, or none.
        let (busy, without_lanes) = if due.is_empty() { Default::default() } else { self.with_lanes(due) };
        for topic in &without_lanes {
            let taken = self.topics.lock().take(topic);
            if let Taken::LastOf(named) = taken {
                self.said.topic_forgotten(&named);
            }
        }
        self.topics.lock().looked(&busy, now);
        probes
    }

    fn by_chance(&self) -> usize {
        RandomState::default().hash_one(()) as usize % self.shards.len()
    }

    /// A probe, of the breaker or of this topic, found nothing to send: the next one goes at once.
    pub fn give_probe_back(&self, topic: &str) {
        let now = Instant::now();
        self.breaker.lock().give_probe_back(now);
        self.topics.lock().give_probe_back(topic, now);
    }

    /// Those of which a lane is held, and those of which none is.
    fn with_lanes(&self, mut topics: HashSet<Text>) -> (HashSet<Text>, HashSet<Text>) {
        let mut with = HashSet::new();
        for shard in &self.shards {
            for key in shard.lock().keys() {
                with.extend(topics.take(&key.topic));
            }
        }
        (with, topics)
    }

    /// Topics were looked up or made: what was refused may be probed at once.
    pub fn probe_topics_now(&self) {
        self.topics.lock().probe_now(Instant::now());
        self.ready.notify_one();
    }
}
