//! Topics that nobody answers for while others are taken: on NATS a stream without a leader, or gone, beside another one. No state that
//! refuses events: what waits is tried again by itself, but ever more seldom, so that vehicles whose stream is well do not wait behind
//! thousands whose stream is not. Invariant: whose turn it is not is left alone by the drain; what was taken again clears all of its
//! name. Pure: "now" comes in. Bound: topics with events that wait. Neighbours: `topics` holds it, `lanes` asks.

use std::time::{Duration, Instant};

use foldhash::HashMap;

use super::seldom::Lasting;
use crate::event::Text;

/// The first pause, and the longest one where few wait, and where many do.
const PAUSE: (Duration, Duration, Duration) =
    (Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(30));
/// More than these are many.
const MANY: usize = 1_024;
/// How long a name is unanswered before that is said: leaders change in less.
const LONG: Duration = Duration::from_secs(10);
/// What was not tried for so long since its turn came has no events left, and is forgotten.
const IDLE: Duration = Duration::from_secs(600);

#[derive(Debug)]
struct Waits {
    until: Instant,
    pause: Duration,
    named: Text,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Unanswered {
    topics: HashMap<Text, Waits>,
    names: HashMap<Text, Lasting>,
    tidied: Option<Instant>,
}

impl Unanswered {
    /// Nobody answered an attempt of this topic. Whether its name has been unanswered for long, and that has not been said.
    pub(super) fn in_vain(&mut self, topic: &Text, named: &str, now: Instant) -> bool {
        self.forget_idle(now);
        let longest = if self.topics.len() < MANY { PAUSE.1 } else { PAUSE.2 };
        let known = self.topics.get(topic).map(|waits| waits.pause);
        let pause = known.map_or(PAUSE.0, |pause| (pause * 2).min(longest));
        let named = Text::from(named);
        self.topics.insert(topic.clone(), Waits { until: now + pause, pause, named: named.clone() });
        self.names.entry(named).or_insert(Lasting::begun(now)).is_to_say(now, LONG)
    }

    /// Whether it is not this topic's turn.
    pub(super) fn waits(&self, topic: &str, now: Instant) -> bool {
        self.topics.get(topic).is_some_and(|waits| now < waits.until)
    }

    /// Whether any topic of this name waits.
    pub(super) fn is_of(&self, named: &str) -> bool {
        self.names.contains_key(named)
    }

    /// A message was taken for it: where it was unanswered, so may be all of its name. The name, where that had been said.
    pub(super) fn taken(&mut self, topic: &str) -> Option<Text> {
        if self.topics.is_empty() {
            return None;
        }
        let Waits { named, .. } = self.topics.remove(topic)?;
        self.topics.retain(|_, waits| waits.named != named);
        self.names.remove(&named).filter(Lasting::was_said).map(|_| named)
    }

    /// Something about the bus has changed: it is everybody's turn.
    pub(super) fn try_now(&mut self, now: Instant) {
        for waits in self.topics.values_mut() {
            (waits.until, waits.pause) = (now, PAUSE.0);
        }
    }

    fn forget_idle(&mut self, now: Instant) {
        if self.tidied.is_some_and(|at| now.saturating_duration_since(at) < IDLE) {
            return;
        }
        self.tidied = Some(now);
        self.topics.retain(|_, waits| now.saturating_duration_since(waits.until) < IDLE);
        let Self { topics, names, .. } = self;
        names.retain(|named, _| topics.values().any(|waits| waits.named == *named));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_topic_that_nobody_answers_for_has_its_turn_ever_more_seldom_until_one_of_its_name_is_taken() {
        let mut begin = Instant::now();
        let mut unanswered = Unanswered::default();
        let (one, other): (Text, Text) = ("fleet.position.1".into(), "fleet.position.2".into());
        let mut fail = |unanswered: &mut Unanswered, topic: &Text| {
            let to_say = unanswered.in_vain(topic, "fleet.position", begin);
            let mut waited = Duration::ZERO;
            while unanswered.waits(topic, begin) {
                begin += SECOND;
                waited += SECOND;
            }
            (to_say, waited.as_secs())
        };
        assert_eq!(fail(&mut unanswered, &one), (false, 1));
        assert_eq!(fail(&mut unanswered, &one), (false, 2));
        assert_eq!(fail(&mut unanswered, &one), (false, 4));
        assert_eq!(fail(&mut unanswered, &other), (false, 1));
        assert_eq!(fail(&mut unanswered, &one), (false, 5));
        assert_eq!(fail(&mut unanswered, &other), (true, 2), "for longer than ten seconds");
        assert_eq!(fail(&mut unanswered, &one), (false, 5), "and said once");
        assert_eq!(unanswered.taken("fleet.stop.1"), None, "another stream is well");
        assert!(unanswered.is_of("fleet.position") && !unanswered.is_of("fleet.stop"));
        assert_eq!(unanswered.taken(&one).as_deref(), Some("fleet.position"));
        assert!(unanswered.topics.is_empty() && unanswered.taken(&other).is_none());
        assert!(!unanswered.is_of("fleet.position"));
    }

    #[test]
    fn many_are_tried_more_seldom_and_all_at_once_when_the_bus_has_changed() {
        let now = Instant::now();
        let mut unanswered = Unanswered::default();
        let topics: Vec<Text> =
            (0..=MANY).map(|number| Text::from(format!("fleet.position.{number}"))).collect();
        for _ in 0..6 {
            for topic in &topics {
                unanswered.in_vain(topic, "fleet.position", now);
            }
        }
        let waiting =
            |unanswered: &Unanswered, at| topics.iter().filter(|topic| unanswered.waits(topic, at)).count();
        assert_eq!(waiting(&unanswered, now + SECOND * 29), topics.len());
        assert_eq!(waiting(&unanswered, now + SECOND * 30), 0);
        unanswered.try_now(now);
        assert_eq!(waiting(&unanswered, now), 0);
        unanswered.in_vain(&topics[0], "fleet.position", now + IDLE * 2);
        assert_eq!(unanswered.topics.len(), 1, "of the others nothing waits any more");
    }
}
