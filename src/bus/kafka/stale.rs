//! Partitions whose messages do not move, though the broker that this client takes for their leader is connected. librdkafka keeps a
//! leader that it knows by a higher epoch, also where the topic was made anew and counts from the beginning: it asks the wrong broker for
//! ever (confluentinc/librdkafka#4898). Or it sends nothing at all, as where it waits for a producer id or for its own queues to run
//! empty, and nothing times out, for messages do not expire. Invariant: nothing is said of a leader that moves within seconds. Pure, but
//! for `now`. Neighbour: `moved` asks another client, and gives this one up.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rdkafka::Statistics;

use super::contact::is_up;

/// How long messages of a partition are tried in vain before it is suspected.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two tries they are in none of the client's counts: for no longer than this.
const GAP: Duration = Duration::from_secs(10);
/// Partitions that are suspected at once: others are when these have been asked for.
const MOST: usize = 64;

/// A partition, and whom this client takes for its leader.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Led {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) leader: i32,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Stale {
    led: HashMap<Led, Progress>,
    /// What the client said last of its producer id.
    state: String,
}

#[derive(Debug, Clone, Copy)]
struct Progress {
    acknowledged: u64,
    sent: u64,
    /// When something last waited, or was sent.
    tried: Option<Instant>,
    /// Since when that has been in vain.
    in_vain: Option<Instant>,
    /// Since when something waits and nothing is sent.
    still: Option<Instant>,
}

impl Stale {
    /// What the client says of itself now.
    pub(super) fn look(&mut self, statistics: &Statistics, now: Instant) {
        let mut before = std::mem::take(&mut self.led);
        self.state = statistics.eos.as_ref().map(|eos| eos.idemp_state.clone()).unwrap_or_default();
        let brokers = statistics.brokers.values();
        let up: Vec<i32> =
            brokers.filter(|broker| is_up(&broker.state)).map(|broker| broker.nodeid).collect();
        for topic in statistics.topics.values() {
            for of in topic.partitions.values() {
                if !up.contains(&of.leader) {
                    continue;
                }
                let led = Led { topic: topic.topic.clone(), partition: of.partition, leader: of.leader };
                let (acknowledged, sent) = (of.acked_msgid, of.txmsgs);
                let was = before.remove(&led).filter(|was| was.acknowledged == acknowledged);
                let waits = of.msgq_cnt + of.xmit_msgq_cnt + of.msgs_inflight > 0;
                let sends = was.is_some_and(|was| sent > was.sent);
                let still = (waits && !sends).then(|| was.and_then(|was| was.still).unwrap_or(now));
                let tries = waits || sends;
                let recently = |at: &Instant| now.saturating_duration_since(*at) <= GAP;
                let was = was.filter(|was| was.tried.as_ref().is_some_and(recently));
                let tried = if tries { Some(now) } else { was.and_then(|was| was.tried) };
                let in_vain = tried.map(|_| was.and_then(|was| was.in_vain).unwrap_or(now));
                self.led.insert(led, Progress { acknowledged, sent, tried, in_vain, still });
            }
        }
    }

    /// Those that have not moved for long.
    pub(super) fn suspects(&self, now: Instant) -> Vec<Led> {
        self.since(now, |progress| progress.in_vain)
    }

    /// Those of which something waits, and for long nothing was sent.
    pub(super) fn still(&self, now: Instant) -> Vec<Led> {
        self.since(now, |progress| progress.still)
    }

    /// The client's own word for what it does about its producer id.
    pub(super) fn state(&self) -> &str {
        &self.state
    }

    fn since(&self, now: Instant, of: fn(&Progress) -> Option<Instant>) -> Vec<Led> {
        let is_long = |since: Instant| now.saturating_duration_since(since) >= PATIENCE;
        let long = self.led.iter().filter(|(_, progress)| of(progress).is_some_and(is_long));
        let mut suspects: Vec<Led> = long.map(|(led, _)| led.clone()).collect();
        suspects.sort_unstable();
        suspects.truncate(MOST);
        suspects
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::statistics::{Broker, Partition, Topic};

    use super::*;

    /// What a client says that has one broker, in this state, and one partition.
    fn statistics(state: &str, partition: Partition) -> Statistics {
        let broker = Broker { nodeid: 1, state: state.to_owned(), ..Broker::default() };
        let partitions = [(partition.partition, partition)].into();
        let topic = Topic { topic: "fleet.position".to_owned(), partitions, ..Topic::default() };
        Statistics {
            brokers: [("k1".to_owned(), broker)].into(),
            topics: [("fleet.position".to_owned(), topic)].into(),
            ..Statistics::default()
        }
    }

    #[test]
    fn a_partition_is_suspected_whose_messages_wait_for_a_leader_that_is_connected() {
        let said = |state: &str, leader: i32, msgq_cnt: i64, acked_msgid: u64| {
            let partition = Partition { partition: 3, leader, msgq_cnt, acked_msgid, ..Partition::default() };
            statistics(state, partition)
        };
        let (mut stale, begin) = (Stale::default(), Instant::now());
        let mut at = |second: u64, statistics: &Statistics| {
            let now = begin + Duration::from_secs(second);
            stale.look(statistics, now);
            stale.suspects(now)
        };
        let suspect = [Led { topic: "fleet.position".to_owned(), partition: 3, leader: 1 }];
        assert_eq!(at(0, &said("UP", 1, 2, 7)), []);
        assert_eq!(at(9, &said("UP", 1, 5, 7)), []);
        assert_eq!(at(10, &said("UP", 1, 5, 7)), suspect);
        assert_eq!(at(11, &said("UP", 1, 5, 8)), [], "one was acknowledged");
        assert_eq!(at(21, &said("UP", 1, 5, 8)), suspect);
        assert_eq!(at(22, &said("UP", 2, 5, 8)), [], "another one leads");
        assert_eq!(at(40, &said("UP", 1, 5, 8)), []);
        assert_eq!(at(50, &said("DOWN", 1, 5, 8)), [], "it is not reached, and that is said elsewhere");
        assert_eq!(at(60, &said("UP", 1, 0, 8)), []);
        assert_eq!(at(70, &said("UP", 1, 5, 8)), [], "nothing waited in between");
        // Sent again and again, and in no count between.
        let again = |sent: u64| {
            let mut statistics = said("UP", 1, 0, 8);
            let topic = statistics.topics.get_mut("fleet.position").unwrap();
            topic.partitions.get_mut(&3).unwrap().txmsgs = sent;
            statistics
        };
        assert_eq!(at(100, &again(1)), []);
        for second in 101..110 {
            assert_eq!(at(second, &again(second / 3)), []);
        }
        assert_eq!(at(111, &again(40)), suspect);
        assert_eq!(at(122, &again(40)), []);
    }

    #[test]
    fn a_partition_is_still_while_its_messages_wait_and_none_is_sent() {
        let said = |msgq_cnt: i64, msgs_inflight: i64, txmsgs: u64| {
            let partition = Partition { leader: 1, msgq_cnt, msgs_inflight, txmsgs, ..Partition::default() };
            statistics("UP", partition)
        };
        let (mut stale, begin) = (Stale::default(), Instant::now());
        let mut is_still = |second: u64, statistics: &Statistics| {
            let now = begin + Duration::from_secs(second);
            stale.look(statistics, now);
            !stale.still(now).is_empty()
        };
        assert!(!is_still(0, &said(1, 0, 7)));
        assert!(!is_still(9, &said(3, 0, 7)));
        assert!(is_still(10, &said(3, 0, 7)));
        assert!(!is_still(11, &said(3, 1, 8)), "it tries");
        assert!(!is_still(20, &said(3, 1, 8)));
        assert!(is_still(30, &said(3, 1, 8)), "in flight for ever is no better");
        assert!(!is_still(31, &said(0, 0, 8)), "nothing waits");
        assert!(!is_still(50, &said(1, 0, 8)));
    }
}
