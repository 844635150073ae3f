//! Topic and key of an event: the configuration's template filled in. Pure. Templates were checked by `config`; what a
//! provider wrote enters a NATS subject percent-encoded, so that no dot, wildcard or control character can get in.

use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::config;
use crate::event::{AccountId, EventType};
use crate::provider::Provider;

/// All but `A-Z a-z 0-9 _ -`.
const TOKEN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'-');

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

/// Chooses topics.
#[derive(Debug, Clone)]
pub struct Router {
    kind: BusKind,
    template: Arc<str>,
    /// By type, where nothing else is in the template.
    fixed: Option<[Arc<str>; EventType::ALL.len()]>,
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
        let by_type = |event_type: EventType| template.replace("{type}", event_type.as_str()).into();
        let fixed = EventType::ALL.map(by_type);
        let is_fixed = !["{provider}", "{account}", "{subject}"].iter().any(|part| template.contains(part));
        Self { kind, template: template.into(), fixed: is_fixed.then_some(fixed) }
    }

    /// The kind of bus that it routes for.
    #[must_use]
    pub const fn kind(&self) -> BusKind {
        self.kind
    }

    /// What tells one routing from another, so that stored rows can be routed anew after a change.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        format!("{:?} {}", self.kind, self.template)
    }

    /// The topic of one event.
    #[must_use]
    pub fn topic(
        &self,
        provider: Provider,
        account: &AccountId,
        event_type: EventType,
        subject: &str,
    ) -> Arc<str> {
        if let Some(topic) = self.fixed.as_ref().and_then(|fixed| fixed.get(event_type.index())) {
            return Arc::clone(topic);
        }
        let account = self.token(account.as_str());
        let subject = self.token(subject);
        self.template
            .replace("{type}", event_type.as_str())
            .replace("{provider}", provider.as_str())
            .replace("{account}", &account)
            .replace("{subject}", &subject)
            .into()
    }

    /// Every topic that an account can have, for the checks at start; `*` stands for the subject.
    #[must_use]
    pub fn topics(&self, provider: Provider, account: &AccountId) -> Vec<Arc<str>> {
        let account = self.token(account.as_str());
        let of = |event_type: EventType| {
            self.template
                .replace("{type}", event_type.as_str())
                .replace("{provider}", provider.as_str())
                .replace("{account}", &account)
                .replace("{subject}", "*")
                .into()
        };
        EventType::ALL.into_iter().map(of).collect()
    }

    fn token(&self, text: &str) -> String {
        match self.kind {
            BusKind::Kafka | BusKind::Local => text.to_owned(),
            BusKind::Nats if text.is_empty() => "_".to_owned(),
            BusKind::Nats => utf8_percent_encode(text, TOKEN).to_string(),
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
    fn a_topic_of_the_type_alone_is_made_once() {
        let router = Router::of(BusKind::Kafka, "fleet.{type}");
        let topic = |event_type| router.topic(Provider::Linxup, &AccountId::new("acme"), event_type, "1");
        for event_type in EventType::ALL {
            assert_eq!(&*topic(event_type), format!("fleet.{event_type}"));
        }
        assert!(Arc::ptr_eq(&topic(EventType::Trip), &topic(EventType::Trip)));
    }
}
