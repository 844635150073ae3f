//! Bytes that a provider sent, to events on the wire. Whatever they are: the same bytes say the same twice, an id is an id,
//! and nothing that a provider wrote gets out of its place in a header, a topic or a subject.

use fleetbus::config::{Bus, Local};
use fleetbus::encode::{again, encode};
use fleetbus::event::{AccountId, EventType, pb};
use fleetbus::provider::{self, Feed, Provider, PullApi, Source};
use fleetbus::route::{BusKind, Router};
use uuid::Uuid;

use crate::support::{Run, Said};

/// Elements of the flat format. What follows a first byte is the body; the byte chooses a hint.
pub(crate) fn push_flat(bytes: &[u8]) {
    pushed(bytes, &["position", "trip", "stop", "alert", "usage", "geofence", "status", "odd"]);
}

/// Elements of the V3 format.
pub(crate) fn push_v3(bytes: &[u8]) {
    pushed(bytes, &["position", "media", "item", "geofence-event", "device", "trip", "alert", "left-behind"]);
}

fn pushed(bytes: &[u8], hints: &[&str]) {
    let Some((first, body)) = bytes.split_first() else { return };
    let hint = hints.get(usize::from(*first) % (hints.len() * 2)).map(|hint| (*hint).to_owned());
    says_the_same_twice(&Source::Push { hint }, body);
}

/// An answer of the V2 API; the first byte chooses the feed.
pub(crate) fn pull_v2(bytes: &[u8]) {
    pulled(bytes, PullApi::V2);
}

/// An answer of the V3 API.
pub(crate) fn pull_v3(bytes: &[u8]) {
    pulled(bytes, PullApi::V3);
}

fn pulled(bytes: &[u8], api: PullApi) {
    let Some((first, body)) = bytes.split_first() else { return };
    let feed = Feed::ALL[usize::from(*first) % Feed::ALL.len()];
    says_the_same_twice(&Source::Pull { api, feed }, body);
}

/// Bodies into elements: slices of the body, in its order, each a document of its own.
pub(crate) fn split(bytes: &[u8]) {
    let begins = |part: &str| part.as_ptr() as usize - bytes.as_ptr() as usize;
    let in_order = |parts: &[&str]| {
        let mut end = 0;
        for part in parts {
            let begin = begins(part);
            assert!(begin >= end && begin + part.len() <= bytes.len(), "an element is out of its place");
            end = begin + part.len();
        }
    };
    if let Ok(elements) = provider::split(bytes) {
        in_order(&elements);
        assert!(elements.len() <= provider::MAX_ELEMENTS);
        for element in elements {
            assert_eq!(provider::documents(element.as_bytes()), (vec![element.trim()], vec![]));
        }
    }
    let (documents, problems) = provider::documents(bytes);
    in_order(&documents);
    assert!(problems.is_empty() || provider::split(bytes).is_err(), "what is split whole can be read whole");
    for feed in Feed::ALL {
        for api in [PullApi::V2, PullApi::V3] {
            if let Ok(rows) = provider::pulled_rows(api, feed, bytes) {
                in_order(&rows);
            }
        }
    }
}

/// Decodes, and looks at every event that comes of it.
pub(crate) fn says_the_same_twice(source: &Source, body: &[u8]) {
    let said = Run::new().body(source, body);
    let again: Vec<_> = Run::new().body(source, body).iter().map(Said::to_value).collect();
    assert_eq!(said.iter().map(Said::to_value).collect::<Vec<_>>(), again);
    for said in &said {
        if let Said::Event { event_type, event, checks, enters } = said {
            holds(*event_type, event);
            assert!(!enters.is_empty() && !checks.is_empty(), "an event that dedup cannot know");
            assert!(checks.iter().chain(enters).all(|id| id.parse::<Uuid>().is_ok()));
        }
    }
}

/// What holds of any event, whatever it was made of.
fn holds(event_type: EventType, event: &pb::FleetEvent) {
    let id: Uuid = event.id.parse().expect("an event's id is one");
    assert!(!event.subject.is_empty() && !event.subject.contains(char::is_control), "{:?}", event.subject);
    let origin = event.origin.as_ref().expect("an event has an origin");
    assert_eq!((origin.provider.as_str(), origin.account.as_str()), ("linxup", "acme"));
    for (router, kind) in [(local(), BusKind::Local), (local(), BusKind::Kafka), (local(), BusKind::Nats)] {
        let topic = router.topic(Provider::Linxup, &AccountId::new("acme"), event_type, &event.subject);
        let message = encode(event, id, event_type, topic.clone(), kind, None);
        for (name, value) in &message.headers {
            assert!(!value.contains(char::is_control), "{name} is {value:?}");
            assert!(kind != BusKind::Nats || value.is_ascii(), "{name} is {value:?}");
        }
        let parked = again(&message.payload, id, event_type, topic, kind, None).expect("what was encoded");
        assert_eq!(
            (parked.headers, parked.payload, parked.key),
            (message.headers, message.payload, message.key)
        );
    }
}

fn local() -> Router {
    Router::new(&Bus::Local(Local { retention: std::time::Duration::from_secs(3_600), max_size: 1 << 20 }))
}
