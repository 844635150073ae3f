//! Who carries the breaker's probe: lanes that were looked for together, one after another, of each account and topic in turn.
//! What is at the head of one may say nothing about the bus. Invariant: that no lane can carry it is only said of a fresh look.

use std::collections::VecDeque;
use std::time::Instant;

use super::TICK;
use crate::deliver::lanes::{Kin, Lanes, Ready};

/// Lanes that are looked for together.
const MOST: usize = 64;

/// Whose turn it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// This lane's, which is the drain's from now on.
    Of(Ready),
    /// Nobody's: no lane can carry a probe.
    Nobodys,
    /// Nobody's a moment ago: lanes are looked for again soon.
    Later,
}

/// See the module.
#[derive(Default)]
pub(super) struct Probing {
    lanes: VecDeque<Ready>,
    /// Until when those are asked; after that others may wait, too.
    until: Option<Instant>,
    /// When lanes are looked for again where none was found.
    look_at: Option<Instant>,
    /// Who was asked last.
    asked: Option<Kin>,
}

impl Probing {
    pub(super) fn next(&mut self, lanes: &Lanes, now: Instant) -> Turn {
        let is_before = |at: Option<Instant>| at.is_some_and(|at| now < at);
        if is_before(self.look_at) {
            return Turn::Later;
        }
        if is_before(self.until)
            && let Some(lane) = self.begin_one(lanes)
        {
            return Turn::Of(lane);
        }
        self.lanes = lanes.breaker_probes(MOST, self.asked.as_ref()).into();
        self.until = Some(now + TICK);
        if let Some(lane) = self.begin_one(lanes) {
            return Turn::Of(lane);
        }
        self.look_at = Some(now + TICK);
        Turn::Nobodys
    }

    /// Its topic may have been refused since it was found, or the lane be live.
    fn begin_one(&mut self, lanes: &Lanes) -> Option<Ready> {
        let says_nothing = lanes.says_nothing();
        while let Some(lane) = self.lanes.pop_front() {
            if !says_nothing(&lane.key) && lanes.begin_drain(&lane.key) {
                self.asked = Some(lanes.kin_of(&lane.key));
                return Some(lane);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::bus::{Bus, Failure};
    use crate::config;
    use crate::deliver::breaker::{Breaker, Verdict};
    use crate::deliver::counts::Counts;
    use crate::event::AccountId;
    use crate::replay::testing::store;
    use crate::replay::{LaneKey, RecoveredLane, Seq};

    /// A publish is denied to thousands of vehicles' lanes, which have the oldest rows: the one that the bus would take is asked
    /// soon, and each answer is followed by the next question.
    #[tokio::test]
    async fn thousands_of_lanes_that_are_refused_do_not_keep_the_probe_from_another() {
        let dir = tempfile::tempdir().unwrap();
        let (store, thread) = store(dir.path()).await;
        let hour = Duration::from_secs(3_600);
        let local = config::Bus::Local(config::Local { retention: hour, max_size: 1 << 30 });
        let bus = Arc::new(Bus::open(&local, dir.path()).unwrap());
        let breaker = Breaker::new(config::Breaker { failure_rate: 0.5, window: hour });
        let account = AccountId::new("acme");
        let counts = Arc::new(Counts::new([&account]));
        let key = |topic: &str, subject: u64| {
            let (account, topic, subject) = (account.clone(), topic.into(), subject.to_string().into());
            LaneKey { account, topic, subject }
        };
        let behind = |key, head| RecoveredLane { key, rows: 1, head: Seq(head) };
        let mut all: Vec<RecoveredLane> = (1..=3_000).map(|at| behind(key("trip", at), at)).collect();
        // Neither the oldest nor the newest.
        all.insert(1_500, behind(key("alert", 1), 5_000));
        let lanes = Lanes::new(bus, store.clone(), breaker, counts, 3, all);
        (0..20).for_each(|_| lanes.record(Verdict::Failure));
        let (mut probing, mut asked, now) = (Probing::default(), Vec::new(), Instant::now());
        while !lanes.is_probe_due() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for _ in 0..2 {
            let Turn::Of(lane) = probing.next(&lanes, now) else { panic!("of three thousand lanes") };
            assert!(lanes.take_probe() && !lanes.is_probe_due());
            lanes.drain_failed(&lane.key, &Failure::Refused("denied".into()));
            assert!(lanes.is_probe_due(), "the bus has answered");
            asked.push(lane.key.topic.clone());
            lanes.end_drain(&lane.key);
        }
        asked.sort();
        assert_eq!(asked, ["alert", "trip"]);
        assert_eq!(probing.next(&lanes, now), Turn::Nobodys, "the others are of a topic that is refused");
        lanes.probe_topics_now();
        assert_eq!(probing.next(&lanes, now), Turn::Later);
        assert_eq!(probing.next(&lanes, now + TICK), Turn::Nobodys);
        store.close();
        thread.join().unwrap();
    }
}
