//! Subjects: what a stream takes, what a topic is called without the vehicle, and which streams were seen. Pure.

use std::collections::HashMap;

use crate::event::Text;

/// Names of topics that were acknowledged, at most: types and accounts make fewer.
const NAMES: usize = 4_096;

/// For which topics a stream was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// What the stream said that it takes.
    held: Vec<String>,
    /// Names of other topics of which a message was acknowledged, and the stream that did.
    named: HashMap<String, String>,
}

impl Seen {
    /// The configured stream says that it takes these, and no more what it took before.
    pub(super) fn holds(&mut self, stream: &str, subjects: &[String]) {
        self.is_gone(stream);
        self.held = subjects.to_vec();
    }

    /// It is not there any more.
    pub(super) fn is_gone(&mut self, stream: &str) {
        self.held.clear();
        self.named.retain(|_, by| by != stream);
    }

    /// A message for this topic was acknowledged by this stream.
    pub(super) fn took(&mut self, template: &str, topic: &str, stream: &str) {
        if self.is_held(topic) {
            return;
        }
        if self.named.len() >= NAMES {
            self.named.clear();
        }
        self.named.insert(without_subject(template, topic), stream.to_owned());
    }

    /// Whether a stream for this topic was seen.
    pub(super) fn has(&self, template: &str, topic: &str) -> bool {
        self.is_held(topic) || self.named.contains_key(&without_subject(template, topic))
    }

    fn is_held(&self, topic: &str) -> bool {
        self.held.iter().any(|held| covers(held, topic))
    }
}

/// A topic with a star for the event's subject, as the checks at start name it: what fills a template in has no dots, so that
/// token stands by token.
pub(super) fn without_subject(template: &str, topic: &str) -> String {
    let mut of_template = template.split('.');
    let tokens = topic.split('.').map(|token| match of_template.next() {
        Some(part) if !part.contains("{subject}") => token,
        Some(_) | None => "*",
    });
    tokens.collect::<Vec<_>>().join(".")
}

/// The subjects that a stream needs: the topics, with the part that all have as one wildcard where that can be.
pub(super) fn everything(topics: &[Text]) -> Vec<String> {
    let mut wanted: Vec<String> = topics
        .iter()
        .map(|topic| {
            let first = topic.split('.').next().unwrap_or_default();
            if first == "*" || !topic.contains('.') { topic.to_string() } else { format!("{first}.>") }
        })
        .collect();
    wanted.sort_unstable();
    wanted.dedup();
    wanted
}

/// Whether a stream's subject takes everything that another does.
pub(super) fn covers(held: &str, wanted: &str) -> bool {
    let (mut held, mut wanted) = (held.split('.'), wanted.split('.'));
    loop {
        match (held.next(), wanted.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(token)) if token != ">" => {}
            (Some(a), Some(b)) if a == b => {}
            (Some(_) | None, Some(_) | None) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_streams_subject_covers_what_it_takes() {
        let check = |held, wanted, expected| assert_eq!(covers(held, wanted), expected, "{held} {wanted}");
        check("fleet.>", "fleet.>", true);
        check("fleet.>", "fleet.position.acme.*", true);
        check(">", "fleet.>", true);
        check("fleet.*", "fleet.>", false);
        check("fleet.position.*.*", "fleet.position.acme.1", true);
        check("other.>", "fleet.>", false);
    }

    #[test]
    fn a_topic_is_named_without_the_vehicle() {
        let check = |template: &str, topic: &str, expected: &str| {
            assert_eq!(without_subject(template, topic), expected);
        };
        let usual = "fleet.{type}.{account}.{subject}";
        check(usual, "fleet.position.acme.John%20Doe%2038%2E62701", "fleet.position.acme.*");
        check("{account}.v-{subject}.{type}", "ac%2Eme.v-1.trip", "ac%2Eme.*.trip");
        check("fleet.{type}", "fleet.trip", "fleet.trip");
        check("fleet", "fleet.of.another.template", "fleet.*.*.*");
    }

    #[test]
    fn a_stream_is_seen_for_what_it_holds_and_for_names_of_which_it_took_any() {
        let template = "fleet.{type}.{account}.{subject}";
        let mut seen = Seen::default();
        assert!(!seen.has(template, "fleet.trip.acme.1"));
        seen.took(template, "fleet.trip.acme.1", "TRIPS");
        assert!(seen.has(template, "fleet.trip.acme.2"), "another vehicle");
        assert!(!seen.has(template, "fleet.stop.acme.1"));
        seen.holds("FLEET", &["fleet.stop.>".to_owned()]);
        assert!(seen.has(template, "fleet.stop.acme.1") && !seen.has(template, "fleet.alert.acme.1"));
        seen.took(template, "fleet.alert.acme.1", "FLEET");
        seen.holds("FLEET", &["fleet.stop.>".to_owned()]);
        assert!(!seen.has(template, "fleet.alert.acme.1"), "it does not take that any more");
        seen.is_gone("FLEET");
        assert!(!seen.has(template, "fleet.stop.acme.1") && !seen.has(template, "fleet.alert.acme.1"));
        assert!(seen.has(template, "fleet.trip.acme.1"), "another stream's");
    }
}
