//! Topics that the bus refuses (missing, or no rights): a state of the topic, so that nothing else stops. While a topic is
//! refused its lanes are behind, and one parked event probes it, one second growing to five minutes. Pure: "now" comes
//! in. Bound: the topics that the configuration's template can make of accounts and types.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::event::Text;

const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

#[derive(Debug)]
struct Refused {
    next_probe: Instant,
    pause: Duration,
    why: String,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Topics {
    refused: HashMap<Text, Refused>,
}

impl Topics {
    /// The bus refused it; true where that is news.
    pub fn refuse(&mut self, topic: &Text, now: Instant, why: &str) -> bool {
        if let Some(known) = self.refused.get_mut(topic) {
            why.clone_into(&mut known.why);
            return false;
        }
        let refused = Refused { next_probe: now + PAUSE.0, pause: PAUSE.0, why: why.to_owned() };
        self.refused.insert(topic.clone(), refused);
        true
    }

    /// The bus took a message for it; true where that is news.
    pub fn take(&mut self, topic: &str) -> bool {
        !self.refused.is_empty() && self.refused.remove(topic).is_some()
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
        refused.pause = (refused.pause * 2).min(PAUSE.1);
        refused.next_probe = now + refused.pause;
        true
    }

    /// Whether the probe of any is due.
    #[must_use]
    pub fn is_any_due(&self, now: Instant) -> bool {
        self.refused.values().any(|refused| now >= refused.next_probe)
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
        assert!(topics.refuse(&topic, start, "no rights"));
        assert!(!topics.refuse(&topic, start, "still none"));
        assert!(!topics.is_refused("fleet.stop"));
        let probes: Vec<u64> =
            (0..2_000).filter(|s| topics.take_probe(&topic, start + Duration::from_secs(*s))).collect();
        assert_eq!(probes[..5], [1, 3, 7, 15, 31]);
        assert!(probes.windows(2).all(|p| p[1] - p[0] <= 300));
        topics.probe_now(start);
        assert!(topics.is_any_due(start));
        assert!(topics.take_probe(&topic, start));
        assert_eq!(topics.list(), [(topic.clone(), "still none".to_owned())]);
        assert!(topics.take("fleet.trip"));
        assert!(!topics.take("fleet.trip"));
    }
}
