//! Topic and key of an event: the configuration's template filled in. Pure. Templates were checked by `config`; what a
//! provider wrote enters a NATS subject percent-encoded, so that no dot, wildcard or control character can get in.

use std::collections::HashSet;
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::config;
use crate::event::{AccountId, EventType, Text};
use crate::provider::Provider;

/// All but `A-Z a-z 0-9 _ -`.
const TOKEN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'-');

/// What most topics take at most.
const TOPIC_BYTES: usize = 96;

/// Which encoding and header names a bus asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BusKind {
    /// Topics; `ce_` headers as they are.
    Kafka,
    /// Subjects; `ce-` headers, percent-encoded.
    Nats,
    /// Topics of the embedded log; headers as Kafka's.
    Local,
}

impl BusKind {
    /// Its name in spans.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Nats => "nats",
            Self::Local => "local",
        }
    }
}

/// A part of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    Type,
    Provider,
    Account,
    Subject,
}

impl Part {
    /// What stands in templates.
    const NAMES: [(&'static str, Self); 4] = [
        ("{type}", Self::Type),
        ("{provider}", Self::Provider),
        ("{account}", Self::Account),
        ("{subject}", Self::Subject),
    ];

    /// The parts of a template.
    fn all_of(mut template: &str) -> Arc<[Self]> {
        let mut parts = Vec::new();
        while !template.is_empty() {
            let next = Self::NAMES.iter().filter_map(|(name, part)| Some((template.find(name)?, name, part)));
            let Some((at, name, part)) = next.min_by_key(|(at, _, _)| *at) else { break };
            if at > 0 {
                parts.push(Self::Text(template[..at].into()));
            }
            parts.push(part.clone());
            template = &template[at + name.len()..];
        }
        if !template.is_empty() {
            parts.push(Self::Text(template.into()));
        }
        parts.into()
    }
}

/// Chooses topics.
#[derive(Debug, Clone)]
pub struct Router {
    kind: BusKind,
    template: Text,
    /// The template taken apart.
    parts: Arc<[Part]>,
    /// By type, where nothing else is in the template.
    fixed: Option<[Text; EventType::ALL.len()]>,
}

impl Router {
    /// The router of a bus's configuration.
    #[must_use]
    pub fn new(bus: &config::Bus) -> Self {
        let (kind, template) = match bus {
            config::Bus::Kafka(kafka) => (BusKind::Kafka, kafka.topic.as_str()),
            config::Bus::Nats(nats) => (BusKind::Nats, nats.subject.as_str()),
            config::Bus::Local(_) => (BusKind::Local, "fleet.{type}"),
        };
        Self::of(kind, template)
    }

    fn of(kind: BusKind, template: &str) -> Self {
        let parts = Part::all_of(template);
        let by_type = |event_type: EventType| template.replace("{type}", event_type.as_str()).into();
        let fixed = EventType::ALL.map(by_type);
        let is_fixed = parts.iter().all(|part| matches!(part, Part::Text(_) | Part::Type));
        Self { kind, template: template.into(), parts, fixed: is_fixed.then_some(fixed) }
    }

    /// The kind of bus that it routes for.
    #[must_use]
    pub const fn kind(&self) -> BusKind {
        self.kind
    }

    /// What tells one routing from another, so that stored rows can be routed anew after a change. The accounts are part of it:
    /// rows of one that is not configured stay where they are, until it is.
    #[must_use]
    pub fn fingerprint<'a>(&self, accounts: impl Iterator<Item = (&'a AccountId, Provider)>) -> String {
        let mut accounts: Vec<String> =
            accounts.map(|(id, provider)| format!(" {}/{}", provider.as_str(), id.as_str())).collect();
        accounts.sort();
        format!("{:?} {}{}", self.kind, self.template, accounts.concat())
    }

    /// The router of an earlier [fingerprint](Self::fingerprint) on this kind of bus, and the accounts that it knew.
    #[must_use]
    pub fn before(&self, fingerprint: &str) -> Option<(Self, HashSet<AccountId>)> {
        let mut words = fingerprint.split(' ');
        let same_kind = words.next() == Some(format!("{:?}", self.kind).as_str());
        let template = words.next().filter(|_| same_kind)?;
        let account = |word: &str| word.split_once('/').map(|(_, id)| AccountId::new(id));
        Some((Self::of(self.kind, template), words.filter_map(account).collect()))
    }

    /// The topic of one event.
    #[must_use]
    pub fn topic(
        &self,
        provider: Provider,
        account: &AccountId,
        event_type: EventType,
        subject: &str,
    ) -> Text {
        if let Some(topic) = self.fixed.as_ref().and_then(|fixed| fixed.get(event_type.index())) {
            return topic.clone();
        }
        self.filled(provider, account, event_type, |topic| self.push_token(topic, subject))
    }

    /// Every topic that an account can have, for the checks at start; `*` stands for the subject.
    #[must_use]
    pub fn topics(&self, provider: Provider, account: &AccountId) -> Vec<Text> {
        let of = |event_type| self.filled(provider, account, event_type, |topic| topic.push('*'));
        EventType::ALL.into_iter().map(of).collect()
    }

    fn filled(
        &self,
        provider: Provider,
        account: &AccountId,
        event_type: EventType,
        subject: impl Fn(&mut String),
    ) -> Text {
        let mut topic = String::with_capacity(TOPIC_BYTES);
        for part in self.parts.iter() {
            match part {
                Part::Text(text) => topic.push_str(text),
                Part::Type => topic.push_str(event_type.as_str()),
                Part::Provider => topic.push_str(provider.as_str()),
                Part::Account => self.push_token(&mut topic, account.as_str()),
                Part::Subject => subject(&mut topic),
            }
        }
        topic.into()
    }

    fn push_token(&self, topic: &mut String, text: &str) {
        match self.kind {
            BusKind::Kafka | BusKind::Local => topic.push_str(text),
            BusKind::Nats if text.is_empty() => topic.push('_'),
            BusKind::Nats => topic.extend(utf8_percent_encode(text, TOKEN)),
        }
    }
}

/// Whether a text can be a topic of this kind of bus.
///
/// # Errors
/// What a topic is.
pub fn check_topic(kind: BusKind, text: &str) -> Result<(), &'static str> {
    match kind {
        BusKind::Kafka | BusKind::Local => {
            let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            let fits =
                (1..=249).contains(&text.len()) && text.chars().all(known) && text != "." && text != "..";
            if fits { Ok(()) } else { Err("a topic has 1 to 249 of A-Z a-z 0-9 . _ -") }
        }
        BusKind::Nats => {
            let known = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '*' | '>');
            let fits = |token: &str| !token.is_empty() && token.chars().all(known);
            let fits = text.len() <= 255 && text.split('.').all(fits);
            if fits { Ok(()) } else { Err("a subject has tokens between dots, without blanks and wildcards") }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nats(subject: &str) -> Router {
        Router::of(BusKind::Nats, subject)
    }

    #[test]
    fn a_template_is_filled_in_and_a_hostile_subject_is_encoded() {
        let account = AccountId::new("acme");
        let check = |subject: &str, expected: &str| {
            let router = nats("fleet.{type}.{account}.{subject}");
            let topic = router.topic(Provider::Linxup, &account, EventType::Position, subject);
            assert_eq!(&*topic, expected);
        };
        check("350000000000017", "fleet.position.acme.350000000000017");
        check("a.b*>c d", "fleet.position.acme.a%2Eb%2A%3Ec%20d");
        check("", "fleet.position.acme._");
        check("é\r\n", "fleet.position.acme.%C3%A9%0D%0A");
        check("{type}", "fleet.position.acme.%7Btype%7D");
    }

    #[test]
    fn a_template_is_taken_apart_once() {
        let text = |text: &str| Part::Text(text.into());
        let check = |template: &str, expected: &[Part]| assert_eq!(&*Part::all_of(template), expected);
        check("", &[]);
        check("fleet", &[text("fleet")]);
        check("{type}", &[Part::Type]);
        check("a.{subject}{account}.b", &[text("a."), Part::Subject, Part::Account, text(".b")]);
        check("{provider}.{none}", &[Part::Provider, text(".{none}")]);
    }

    #[test]
    fn every_topic_of_an_account_has_a_star_for_the_subject() {
        let topics =
            nats("fleet.{type}.{account}.{subject}").topics(Provider::Linxup, &AccountId::new("a.b"));
        assert_eq!(&*topics[EventType::Trip.index()], "fleet.trip.a%2Eb.*");
    }

    #[test]
    fn a_topic_is_what_its_bus_takes() {
        let check = |kind: BusKind, text: &str, fits: bool| {
            assert_eq!(check_topic(kind, text).is_ok(), fits, "{text}");
        };
        check(BusKind::Kafka, "fleet.position-2_b", true);
        check(BusKind::Kafka, "", false);
        check(BusKind::Kafka, "a b", false);
        check(BusKind::Kafka, "..", false);
        check(BusKind::Nats, "fleet.position.acme.a%20b", true);
        check(BusKind::Nats, "fleet..acme", false);
        check(BusKind::Nats, "fleet.>", false);
        check(BusKind::Nats, "a b", false);
    }

    #[test]
    fn a_kafka_topic_takes_type_provider_and_account() {
        let router = Router::of(BusKind::Kafka, "{provider}.{account}.{type}");
        let topic = router.topic(Provider::Linxup, &AccountId::new("acme"), EventType::GeofenceCrossing, "1");
        assert_eq!(&*topic, "linxup.acme.geofence-crossing");
    }

    #[test]
    fn rows_are_routed_anew_where_the_template_or_the_accounts_changed() {
        let [acme, other] = ["acme", "other"].map(AccountId::new);
        let of = |template: &str, ids: &[&AccountId]| {
            nats(template).fingerprint(ids.iter().map(|id| (*id, Provider::Linxup)))
        };
        assert_eq!(of("fleet.{type}", &[&acme, &other]), of("fleet.{type}", &[&other, &acme]));
        assert_ne!(of("fleet.{type}", &[&acme]), of("fleet.{type}.a", &[&acme]));
        assert_ne!(of("fleet.{type}", &[&acme]), of("fleet.{type}", &[&acme, &other]), "it came back");

        let (router, known) = nats("fleet").before(&of("fleet.{type}", &[&acme])).unwrap();
        assert_eq!((&*router.template, known), ("fleet.{type}", [acme.clone()].into()));
        assert!(Router::of(BusKind::Kafka, "fleet").before(&of("fleet.{type}", &[&acme])).is_none());
        assert!(nats("fleet").before("another bus").is_none());
    }

    #[test]
    fn a_topic_of_the_type_alone_is_made_once() {
        let router = Router::of(BusKind::Kafka, "fleet.{type}");
        let topic = |event_type| router.topic(Provider::Linxup, &AccountId::new("acme"), event_type, "1");
        for event_type in EventType::ALL {
            assert_eq!(&*topic(event_type), format!("fleet.{event_type}"));
        }
        assert!(router.fixed.is_some());
    }
}
