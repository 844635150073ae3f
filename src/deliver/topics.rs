//! Topics that the bus refuses (missing, no rights, or no room): a state of the topic, so that nothing else stops. While a topic is
//! refused its lanes are behind, and one parked event probes it, one second growing to five minutes, or to 30 s where time alone
//! may help. Pure: "now" comes in, and asking for those that are due looks at no others. Bound: the topics that the configuration's
//! template can make of accounts and types, and on NATS of vehicles with events that wait; all vehicles' topics of one account and
//! type have one name, and news is what happens to a name.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use super::unanswered::Unanswered;
use crate::event::Text;

/// First and last pause between probes.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// The last one where room may come by itself.
const PASSES: Duration = Duration::from_secs(30);
/// Topics that are due at once; others are when these have been looked for.
const DUE: usize = 1_024;
/// Who has looked at all lanes for those that are due does so again after this, and so it is with a topic whose lanes were busy.
const LOOK: Duration = Duration::from_millis(250);

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
    /// Nobody had answered for this name for long.
    Answered(Text),
    /// It is taken again; others of its name are still refused.
    Again,
    /// It is taken again, and none of this name is refused any more.
    LastOf(Text),
}

/// See the module.
#[derive(Debug, Default)]
pub struct Topics {
    refused: HashMap<Text, Refused>,
    /// The same by when their probe is due.
    by_probe: BTreeSet<(Instant, Text)>,
    /// When lanes are looked for again; none: at once.
    look_at: Option<Instant>,
    /// How many topics of each name are refused.
    names: HashMap<Text, u64>,
    unanswered: Unanswered,
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
        let next_probe = now + PAUSE.0;
        let refused = Refused { next_probe, pause: PAUSE.0, cure, why: why.to_owned(), named };
        self.refused.insert(topic.clone(), refused);
        self.by_probe.insert((next_probe, topic.clone()));
        is_first
    }

    /// The bus took a message for it.
    pub fn take(&mut self, topic: &str) -> Taken {
        let answered = self.unanswered.taken(topic);
        let refused = if self.refused.is_empty() { None } else { self.refused.remove_entry(topic) };
        let Some((topic, refused)) = refused else {
            return answered.map_or(Taken::AsBefore, Taken::Answered);
        };
        let Refused { next_probe, named, .. } = refused;
        self.by_probe.remove(&(next_probe, topic));
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

    /// The drain had no answer for it. True where that has been so for its name for long, and is to be said.
    pub fn in_vain(&mut self, topic: &Text, named: &str, now: Instant) -> bool {
        self.unanswered.in_vain(topic, named, now)
    }

    /// Whether nobody answers for the topics of this name.
    #[must_use]
    pub fn is_unanswered(&self, named: &str) -> bool {
        self.unanswered.is_of(named)
    }

    /// Whether the drain leaves it alone: it is refused, or nobody answers for it and it is not its turn.
    #[must_use]
    pub fn is_left_alone(&self, topic: &str, now: Instant) -> bool {
        self.is_refused(topic) || self.unanswered.waits(topic, now)
    }

    /// The bus is there again, or another one: what nobody answered for may be tried at once.
    pub fn try_now(&mut self, now: Instant) {
        self.unanswered.try_now(now);
    }

    /// Whether one event may probe it now; taken, the probe is spent.
    pub fn take_probe(&mut self, topic: &str, now: Instant) -> bool {
        let Some(refused) = self.refused.get_mut(topic) else { return false };
        if now < refused.next_probe {
            return false;
        }
        refused.pause = (refused.pause * 2).min(refused.cure.longest_pause());
        let next = now + refused.pause;
        self.probe_at(topic, next);
        true
    }

    /// The probe that was taken last has asked the bus nothing.
    pub fn give_probe_back(&mut self, topic: &str, now: Instant) {
        if let Some(refused) = self.refused.get_mut(topic) {
            refused.pause = (refused.pause / 2).max(PAUSE.0);
            self.probe_at(topic, now);
            self.look_at = None;
        }
    }

    /// Those whose probe is due, a bounded number; none before lanes may be looked for again.
    #[must_use]
    pub fn due(&self, now: Instant) -> HashSet<Text> {
        if self.look_at.is_some_and(|at| now < at) {
            return HashSet::new();
        }
        let due = self.by_probe.iter().take_while(|(at, _)| *at <= now).take(DUE);
        due.map(|(_, topic)| topic.clone()).collect()
    }

    /// All lanes were looked at for those that were due; of these every lane was busy.
    pub fn looked(&mut self, busy: &HashSet<Text>, now: Instant) {
        for topic in busy {
            self.probe_at(topic, now + LOOK);
        }
        let is_due = self.by_probe.first().is_some_and(|(at, _)| *at <= now);
        self.look_at = (!is_due).then_some(now + LOOK);
    }

    /// Something about the topics has changed: all may be probed at once.
    pub fn probe_now(&mut self, now: Instant) {
        self.try_now(now);
        for refused in self.refused.values_mut() {
            refused.next_probe = now;
            refused.pause = PAUSE.0;
        }
        self.by_probe = self.refused.keys().map(|topic| (now, topic.clone())).collect();
        self.look_at = None;
    }

    fn probe_at(&mut self, topic: &str, at: Instant) {
        if let Some(refused) = self.refused.get_mut(topic) {
            let before = std::mem::replace(&mut refused.next_probe, at);
            let topic = Text::from(topic);
            self.by_probe.remove(&(before, topic.clone()));
            self.by_probe.insert((at, topic));
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
    fn all_lanes_are_looked_at_once_in_a_while_and_busy_ones_keep_no_others_from_their_turn() {
        let (start, mut topics, cure) = (Instant::now(), Topics::default(), Cure::Time);
        let names = |range: std::ops::Range<usize>| range.map(|at| Text::from(format!("fleet.trip.{at:04}")));
        for topic in names(0..DUE + 5) {
            topics.refuse(&topic, "fleet.trip", start, "full", cure);
        }
        assert_eq!(topics.due(start), HashSet::new(), "not yet");
        let now = start + PAUSE.0;
        let first: HashSet<Text> = names(0..DUE).collect();
        assert_eq!(topics.due(now), first);
        topics.looked(&first, now);
        let rest: HashSet<Text> = names(DUE..DUE + 5).collect();
        assert_eq!(topics.due(now), rest, "the lanes of the others are busy");
        rest.iter().for_each(|topic| assert!(topics.take_probe(topic, now)));
        topics.looked(&HashSet::new(), now);
        let topic = Text::from("fleet.stop");
        topics.refuse(&topic, &topic, start, "full", cure);
        assert_eq!(topics.due(now), HashSet::new(), "all lanes were looked at just now");
        topics.give_probe_back(&topic, now);
        assert_eq!(topics.due(now), [topic.clone()].into(), "its turn is over");
        assert!(topics.take_probe(&topic, now));
        topics.looked(&HashSet::new(), now);
        assert_eq!(topics.due(now + LOOK).len(), DUE, "and those that were busy are looked for again");
        for topic in names(0..DUE + 5).chain([topic]) {
            topics.take(&topic);
        }
        assert!(topics.by_probe.is_empty() && topics.names.is_empty());
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
