//! Topics that the bus refuses (missing, no rights, or no room): a state of the topic, so that nothing else stops. While a topic is
//! refused its lanes are behind, and one parked event probes it, one second growing to five minutes, or to 30 s where time alone
//! may help. Pure: "now" comes in. Bound: the topics that the configuration's template can make of accounts and types, and on NATS
//! of vehicles with events that wait; all vehicles' topics of one account and type have one name, and news is what happens to a name.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::event::Text;

/// First and last pause between probes.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// The last one where room may come by itself.
const PASSES: Duration = Duration::from_secs(30);

/// What helps a topic that is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cure {
    /// Its owner must act.
    Owner,
    /// It may pass by itself.
    Time,
}

impl Cure {
    const fn longest_pause(self) -> Duration {
        match self {
            Self::Owner => PAUSE.1,
            Self::Time => PASSES,
        }
    }
}

#[derive(Debug)]
struct Refused {
    next_probe: Instant,
    pause: Duration,
    cure: Cure,
    why: String,
    named: Text,
}

/// What a message that the bus took says of its topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// Nothing: it was not refused.
    AsBefore,
    /// It is taken again; others of its name are still refused.
    Again,
    /// It is taken again, and none of this name is refused any more.
    LastOf(Text),
}

/// See the module.
#[derive(Debug, Default)]
pub struct Topics {
    refused: HashMap<Text, Refused>,
    /// How many topics of each name are refused.
    names: HashMap<Text, u64>,
}

impl Topics {
    /// The bus refused it; true where that is news: no other topic of its name was refused.
    pub fn refuse(&mut self, topic: &Text, named: &str, now: Instant, why: &str, cure: Cure) -> bool {
        if let Some(known) = self.refused.get_mut(topic) {
            why.clone_into(&mut known.why);
            known.cure = cure;
            return false;
        }
        let named = Text::from(named);
        let of_name = self.names.entry(named.clone()).or_default();
        *of_name += 1;
        let is_first = *of_name == 1;
        let refused = Refused { next_probe: now + PAUSE.0, pause: PAUSE.0, cure, why: why.to_owned(), named };
        self.refused.insert(topic.clone(), refused);
        is_first
    }

    /// The bus took a message for it.
    pub fn take(&mut self, topic: &str) -> Taken {
        if self.refused.is_empty() {
            return Taken::AsBefore;
        }
        let Some(Refused { named, .. }) = self.refused.remove(topic) else { return Taken::AsBefore };
        if let Some(left) = self.names.get_mut(&named).filter(|left| **left > 1) {
            *left -= 1;
            return Taken::Again;
        }
        self.names.remove(&named);
        Taken::LastOf(named)
    }

    /// Whether it is refused.
    #[must_use]
    pub fn is_refused(&self, topic: &str) -> bool {
        !self.refused.is_empty() && self.refused.contains_key(topic)
    }

    /// Whether one event may probe it now; taken, the probe is spent.
    pub fn take_probe(&mut self, topic: &str, now: Instant) -> bool {
        let Some(refused) = self.refused.get_mut(topic) else { return false };
        if now < refused.next_probe {
            return false;
        }
        refused.pause = (refused.pause * 2).min(refused.cure.longest_pause());
        refused.next_probe = now + refused.pause;
        true
    }

    /// The probe that was taken last has asked the bus nothing.
    pub fn give_probe_back(&mut self, topic: &str, now: Instant) {
        if let Some(refused) = self.refused.get_mut(topic) {
            refused.pause = (refused.pause / 2).max(PAUSE.0);
            refused.next_probe = now;
        }
    }

    /// Those whose probe is due.
    pub fn due(&self, now: Instant) -> HashSet<Text> {
        let due = self.refused.iter().filter(|(_, refused)| now >= refused.next_probe);
        due.map(|(topic, _)| topic.clone()).collect()
    }

    /// Something about the topics has changed: all may be probed at once.
    pub fn probe_now(&mut self, now: Instant) {
        for refused in self.refused.values_mut() {
            refused.next_probe = now;
            refused.pause = PAUSE.0;
        }
    }

    /// What is refused, with the bus's words, sorted.
    #[must_use]
    pub fn list(&self) -> Vec<(Text, String)> {
        let mut list: Vec<_> = self.refused.iter().map(|(t, r)| (t.clone(), r.why.clone())).collect();
        list.sort();
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_topic_is_probed_from_one_second_to_five_minutes_and_stops_no_other() {
        let start = Instant::now();
        let mut topics = Topics::default();
        let topic: Text = "fleet.trip".into();
        assert!(topics.refuse(&topic, &topic, start, "no rights", Cure::Owner));
        assert!(!topics.refuse(&topic, &topic, start, "still none", Cure::Owner));
        assert!(!topics.is_refused("fleet.stop"));
        let probes: Vec<u64> =
            (0..2_000).filter(|s| topics.take_probe(&topic, start + Duration::from_secs(*s))).collect();
        assert_eq!(probes[..5], [1, 3, 7, 15, 31]);
        assert!(probes.windows(2).all(|p| p[1] - p[0] <= 300));
        let (taken, later) = (start + Duration::from_secs(3_000), start + Duration::from_secs(3_001));
        assert!(topics.take_probe(&topic, taken) && !topics.take_probe(&topic, later));
        topics.give_probe_back(&topic, later);
        assert!(topics.take_probe(&topic, later), "it asked nothing");
        topics.probe_now(start);
        assert_eq!(topics.due(start), [topic.clone()].into());
        assert!(topics.take_probe(&topic, start));
        assert_eq!(topics.list(), [(topic.clone(), "still none".to_owned())]);
        assert_eq!(topics.take("fleet.trip"), Taken::LastOf(topic));
        assert_eq!(topics.take("fleet.trip"), Taken::AsBefore);
    }

    #[test]
    fn a_topic_without_room_is_probed_every_half_minute() {
        let (start, mut topics, topic) = (Instant::now(), Topics::default(), Text::from("fleet.trip"));
        topics.refuse(&topic, &topic, start, "full", Cure::Time);
        let probes: Vec<u64> =
            (0..200).filter(|s| topics.take_probe(&topic, start + Duration::from_secs(*s))).collect();
        assert_eq!(probes, [1, 3, 7, 15, 31, 61, 91, 121, 151, 181]);
    }

    #[test]
    fn of_many_vehicles_topics_the_first_that_is_refused_and_the_last_that_is_taken_are_news() {
        let (start, mut topics, named) = (Instant::now(), Topics::default(), "fleet.trip.acme.*");
        let all: Vec<Text> = (0..100).map(|vehicle| format!("fleet.trip.acme.{vehicle}").into()).collect();
        for round in 0..2 {
            let news =
                all.iter().filter(|topic| topics.refuse(topic, named, start, "full", Cure::Time)).count();
            assert_eq!(news, 1, "round {round}");
            let (last, others) = all.split_last().expect("some");
            assert!(others.iter().all(|topic| topics.take(topic) == Taken::Again), "round {round}");
            assert_eq!(topics.take(last), Taken::LastOf(named.into()), "round {round}");
            assert!(topics.list().is_empty(), "round {round}");
        }
    }
}
