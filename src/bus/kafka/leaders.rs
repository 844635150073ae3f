//! Brokers that lead partitions for which messages wait and that this client does not reach, while it reaches others: what waits for
//! them is parked, and nothing else tells of it. Invariant: each is named once, until it is reached. Pure, but for `now`. Neighbour:
//! `contact` has the way to the brokers as a whole.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rdkafka::Statistics;
use rdkafka::statistics::Broker;

use super::contact::is_up;
use crate::deliver::seldom::Lasting;

/// How long one is without a connection before it is named: leaders change, and connections are made anew.
const PATIENCE: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Leaders {
    away: HashMap<String, Lasting>,
    /// What the client said last of any broker.
    reason: String,
}

impl Leaders {
    /// The client says why it does not reach a broker, by its name.
    pub(super) fn heard(&mut self, reason: &str) {
        reason.clone_into(&mut self.reason);
    }

    /// Those that are away now. Which of them are to be named, with the reason where it is known.
    pub(super) fn look<'a>(
        &mut self,
        away: impl Iterator<Item = &'a str>,
        now: Instant,
    ) -> Vec<(String, String)> {
        let mut before = std::mem::take(&mut self.away);
        let mut named = Vec::new();
        for broker in away {
            let mut is = before.remove(broker).unwrap_or(Lasting::begun(now));
            if is.is_to_say(now, PATIENCE) {
                let reason = Some(&self.reason).filter(|reason| reason.contains(broker));
                named.push((broker.to_owned(), reason.cloned().unwrap_or_default()));
            }
            self.away.insert(broker.to_owned(), is);
        }
        named
    }
}

/// Brokers that are not connected and lead partitions, where messages wait for none of those that are. (Those that were meant for a broker
/// that went away are in none of the client's counts but in that of all.)
pub(super) fn unreached(statistics: &Statistics) -> impl Iterator<Item = &str> {
    let partitions = || statistics.topics.values().flat_map(|topic| topic.partitions.values());
    let brokers = statistics.brokers.values();
    let (up, down): (Vec<&Broker>, Vec<&Broker>) = brokers.partition(|broker| is_up(&broker.state));
    let with_them = up.iter().map(|broker| broker.outbuf_msg_cnt + broker.waitresp_msg_cnt).sum::<i64>();
    let for_them = partitions().filter(|of| up.iter().any(|broker| broker.nodeid == of.leader));
    let for_them = for_them.map(|of| of.msgq_cnt + of.xmit_msgq_cnt).sum::<i64>();
    let waits = i64::try_from(statistics.msg_cnt).is_ok_and(|all| all > with_them + for_them);
    let leads = move |broker: &&Broker| partitions().any(|of| of.leader == broker.nodeid);
    let down = down.into_iter().filter(move |broker| waits && broker.nodeid >= 0 && leads(broker));
    down.map(|broker| broker.nodename.as_str())
}

#[cfg(test)]
mod tests {
    use rdkafka::statistics::{Partition, Topic};

    use super::*;

    #[test]
    fn a_leader_that_is_not_reached_is_named_once_until_it_is() {
        let (mut leaders, begin) = (Leaders::default(), Instant::now());
        let mut at = |seconds: u64, away: &[&str]| {
            let named = leaders.look(away.iter().copied(), begin + Duration::from_secs(seconds));
            named.into_iter().map(|(broker, reason)| format!("{broker} {reason}")).collect::<Vec<_>>()
        };
        assert!(at(0, &["k2:9092"]).is_empty());
        assert!(at(9, &["k2:9092", "k3:9092"]).is_empty());
        assert_eq!(at(10, &["k2:9092", "k3:9092"]), ["k2:9092 "]);
        assert_eq!(at(30, &["k2:9092", "k3:9092"]), ["k3:9092 "]);
        assert!(at(60, &["k2:9092", "k3:9092"]).is_empty());
        assert!(at(61, &["k3:9092"]).is_empty(), "it was reached");
        assert!(at(62, &["k2:9092"]).is_empty());
        leaders.heard("k2:9092/2: Connect to ipv4#10.0.0.2:9092 failed: Connection refused");
        let named = leaders.look(["k2:9092"].into_iter(), begin + Duration::from_secs(72));
        assert!(named[0].1.ends_with("Connection refused"), "{named:?}");
    }

    #[test]
    fn a_leader_is_needed_where_messages_wait_for_none_that_is_reached() {
        let broker = |nodeid: i32, state: &str, waitresp_msg_cnt: i64| Broker {
            nodeid,
            nodename: format!("k{nodeid}"),
            state: state.to_owned(),
            waitresp_msg_cnt,
            ..Broker::default()
        };
        let partition = |leader: i32, msgq_cnt: i64| Partition { leader, msgq_cnt, ..Partition::default() };
        let mut statistics = Statistics::default();
        let brokers =
            [broker(1, "UP", 5), broker(2, "CONNECT", 0), broker(3, "INIT", 0), broker(-1, "DOWN", 0)];
        statistics.brokers = brokers.map(|broker| (broker.nodeid.to_string(), broker)).into();
        let partitions = [(0, partition(1, 2)), (1, partition(2, 0)), (2, partition(-1, 0))];
        let topic = Topic { partitions: partitions.into(), ..Topic::default() };
        statistics.topics = [("fleet.position".to_owned(), topic)].into();
        for (all, expected) in [(7, &[][..]), (8, &["k2"])] {
            statistics.msg_cnt = all;
            assert_eq!(unreached(&statistics).collect::<Vec<_>>(), expected);
        }
    }
}
