//! How much of a request is in work at once, and what it counts for. A small element can become many events, each with the parts of
//! its carrier, and a few bytes of JSON many values: what is decoded, encoded and delivered together is bounded by events and by bytes,
//! whatever stands in a body. Pure.

use crate::event::{Millis, pb};
use crate::provider::{Draft, Element, read_bytes, time_of_row};

/// Events of one portion, about: elements are decoded until there are so many.
const EVENTS: usize = 4_096;
/// The same in bytes of memory, but for those of the text.
const READ: usize = 16 << 20;
/// Encoded bytes of what is delivered together.
pub(super) const BYTES: usize = 8 << 20;
/// What one element becomes at most, about: itself, and the breadcrumbs that are taken of it.
const OF_ELEMENT: usize = 2_048;
/// What an event takes beside twice its bytes on the wire.
const EVENT: u64 = 2 << 10;
/// What a decoded event takes, against its bytes on the wire.
pub(super) const WEIGHT: u64 = 2;

/// What has breadcrumbs, between semicolons.
const CRUMBS: &[u8] = b"batchedPositions";

/// What elements become.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Load {
    /// How many events, at most but for those that one row is several of.
    pub(super) events: usize,
    /// What they take while they are in work, on top of the bytes of their text.
    read: usize,
}

impl Load {
    pub(super) fn of(elements: &[Element]) -> Self {
        elements.iter().fold(Self::default(), |load, element| Self {
            events: load.events + events_of(element),
            read: load.read + read_bytes(element.bytes()),
        })
    }

    /// What one event from elsewhere takes, or none.
    pub(super) const ONE: Self = Self { events: 1, read: 0 };

    /// So many events more, of this element.
    pub(super) fn add(&mut self, element: &Element, events: usize) {
        self.events += events;
        self.read += read_bytes(element.bytes());
    }

    /// Whether it makes a portion.
    pub(super) const fn is_full(self) -> bool {
        self.events >= EVENTS || self.read >= READ
    }

    const fn is_more_than_a_portion(self) -> bool {
        self.events > EVENTS || self.read > READ
    }
}

fn events_of(element: &Element) -> usize {
    let bytes = element.bytes();
    // Most elements have none, which is quickly seen.
    if !bytes.contains(&b';') || !bytes.windows(CRUMBS.len()).any(|part| part == CRUMBS) {
        return 1;
    }
    1 + bytes.iter().filter(|byte| **byte == b';').count().min(OF_ELEMENT)
}

/// What so many bytes that become this count for: no more is in work than a portion has.
pub(super) fn weight(bytes: usize, load: Load) -> u64 {
    let events = load.events.min(EVENTS + OF_ELEMENT) as u64 * EVENT;
    bytes as u64 * WEIGHT + events.max(load.read.min(2 * READ) as u64)
}

/// Elements, where they are more than a portion, the oldest first: within a portion events are put in order once they are decoded.
/// What says no time occurs when it is received.
pub(super) fn in_order(elements: &mut [Element], load: Load, received_at: Millis) {
    if load.is_more_than_a_portion() {
        elements.sort_by_cached_key(|element| time_of_row(element.bytes()).unwrap_or(received_at));
    }
}

/// When an event happened, in ms, else when it was received: the order within one request.
pub(super) fn occurred(event: &pb::FleetEvent, received_at: Millis) -> i64 {
    event.occur_time.map_or(received_at.0, |time| {
        time.seconds.saturating_mul(1_000).saturating_add(i64::from(time.nanos) / 1_000_000)
    })
}

/// Drafts of one portion, the oldest first: a breadcrumb is older than its carrier, after which it stands, and where they are too many
/// bytes to be delivered together, what comes first goes first.
pub(super) fn oldest_first(mut drafts: Vec<Draft>, received_at: Millis) -> Vec<Draft> {
    let time = |draft: &Draft| occurred(&draft.event, received_at);
    if !drafts.is_sorted_by_key(time) {
        drafts.sort_by_key(time);
    }
    drafts
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::event::{AccountId, EventType};
    use crate::provider::{self, Context, Directory, Outcome, Provider, Source};

    fn element(text: String) -> Element {
        Element::from(Bytes::from(text))
    }

    #[test]
    fn breadcrumbs_count_as_the_events_that_they_become() {
        let crumbs =
            |count: usize| element(format!(r#"{{"batchedPositions":"{}"}}"#, "1,2,3;".repeat(count)));
        let events = |elements: &[Element]| Load::of(elements).events;
        assert_eq!(events(&[crumbs(0), crumbs(3)]), 5);
        let address = element(r#"{"address":"Main St &amp; 1st; St. Louis; MO"}"#.to_owned());
        assert_eq!(events(&[address]), 1, "semicolons of other texts are none");
        assert_eq!(events(&[crumbs(100_000)]), 1 + OF_ELEMENT, "no more of them are taken");
        let of = |events: usize, read: usize| Load { events, read };
        assert_eq!(weight(200, of(1, 700)), 400 + EVENT);
        assert_eq!(weight(1_000_000, of(70_000, 0)), 2_000_000 + (EVENTS + OF_ELEMENT) as u64 * EVENT);
        assert_eq!(weight(200, of(1, 9_000)), 400 + 9_000);
    }

    #[test]
    fn many_values_in_few_bytes_count_as_what_they_take_and_make_portions() {
        let row =
            |date: i64| element(format!(r#"{{"date":{date},"x":[{}]}}"#, vec![r#"{"":0}"#; 5_000].join(",")));
        let rows: Vec<Element> = (1..=5).rev().map(row).collect();
        let load = Load::of(&rows);
        assert!(load.is_more_than_a_portion() && load.events == 5);
        assert!(weight(0, load) > READ as u64);
        let mut sorted = rows.clone();
        in_order(&mut sorted, load, Millis(0));
        assert!(sorted.iter().map(Element::bytes).eq(rows.iter().rev().map(Element::bytes)));
        let mut first = Load::default();
        let taken = rows.iter().take_while(|row| {
            let goes_on = !first.is_full();
            first.add(row, 1);
            goes_on
        });
        assert!((2..5).contains(&taken.count()));
    }

    #[test]
    fn what_is_more_than_a_portion_is_taken_oldest_first() {
        let row = |date: usize| element(format!(r#"{{"date":{}}}"#, 1_767_009_600_000 + date));
        let bytes = |elements: &[Element]| elements.iter().map(|e| e.bytes().clone()).collect::<Vec<_>>();
        for (rows, is_sorted) in [(EVENTS, false), (EVENTS + 1, true)] {
            let mut elements: Vec<Element> = (0..rows).rev().map(row).collect();
            let before = bytes(&elements);
            let load = Load::of(&elements);
            in_order(&mut elements, load, Millis(0));
            assert_eq!(bytes(&elements) != before, is_sorted);
            assert_eq!(bytes(&elements).is_sorted(), is_sorted);
        }
    }

    /// Where each stands for `FROM` and `AT`: what lasts longer ends later, so that its beginning says nothing of its place.
    const PUSHED: [(EventType, &str); 16] = [
        (EventType::Position, r#"{"pushType":"POSITION","deviceNumber":"1","date":AT}"#),
        (EventType::Trip, r#"{"pushType":"TRIP","deviceNumber":"1","startDateTime":FROM,"endDateTime":AT}"#),
        (EventType::Stop, r#"{"pushType":"STOP","deviceNumber":"1","startDateTime":FROM,"endDateTime":AT}"#),
        (EventType::Usage, r#"{"pushType":"USAGE_HOURS","deviceNumber":"1","startDate":FROM,"endDate":AT}"#),
        (EventType::Alert, r#"{"pushType":"ALERT","deviceNumber":"1","alertCode":"X","alertDateTime":AT}"#),
        (
            EventType::GeofenceCrossing,
            r#"{"pushType":"FENCE_EVENT","deviceNumber":"1","fenceEventCd":"FENCE_EXIT","geofenceUUID":"u","date":AT}"#,
        ),
        (EventType::Position, r#"{"tracker":{"imei":"1"},"latitude":1,"longitude":2,"positionDate":AT}"#),
        (EventType::Position, r#"{"tracker":{"imei":"1"},"latitude":1,"longitude":2,"reportDateTime":AT}"#),
        (
            EventType::Trip,
            r#"{"tracker":{"imei":"1"},"distanceMiles":1,"startDateTime":FROM,"endDateTime":AT}"#,
        ),
        (
            EventType::Stop,
            r#"{"tracker":{"imei":"1"},"stopType":"Idling","startDateTime":FROM,"endDateTime":AT}"#,
        ),
        (EventType::Usage, r#"{"tracker":{"imei":"1"},"startDate":FROM,"endDate":AT}"#),
        (
            EventType::GeofenceCrossing,
            r#"{"tracker":{"imei":"1"},"eventType":"FENCE_ENTER","geofence":{"name":"a"},"enterDateTime":AT,"exitDateTime":null}"#,
        ),
        (
            EventType::GeofenceCrossing,
            r#"{"tracker":{"imei":"1"},"eventType":"fence_exit","geofence":{"name":"a"},"enterDateTime":FROM,"exitDateTime":AT}"#,
        ),
        (EventType::Media, r#"{"mediaId":5,"mediaTimestamp":AT}"#),
        (EventType::ItemSighting, r#"{"tracker":{"imei":"1"},"trackedItem":{"itemId":5},"timestamp":AT}"#),
        (
            EventType::ItemLeftBehind,
            r#"{"lastSeenByTracker":{"imei":"1"},"trackedItem":{"itemId":5},"lastSeenTimestamp":FROM,"leftBehindTimestamp":AT}"#,
        ),
    ];

    /// What an element is an event of, and when that occurred.
    fn decoded(element: &Element, received_at: Millis) -> (EventType, i64) {
        let context = Context {
            account: &AccountId::new("acme"),
            channel: pb::origin::Channel::Webhook,
            received_at,
            directory: &Directory::default(),
        };
        let source = Source::Push { hint: None };
        let decoded = provider::decode_element(Provider::Linxup, &source, element, &context);
        let Outcome::Events(drafts) = decoded.outcome else { panic!("{element:?}: {decoded:?}") };
        (drafts[0].event_type, occurred(&drafts[0].event, received_at))
    }

    #[test]
    fn every_kind_of_message_is_placed_by_when_its_event_occurs() {
        const T: i64 = 1_767_009_600_000;
        let received_at = Millis(T + 86_400_000);
        for (event_type, text) in PUSHED {
            let one = |at: i64| {
                let text = text.replace("FROM", &(T - at).to_string());
                element(text.replace("AT", &(T + at).to_string()))
            };
            let rows = EVENTS as i64 + 1;
            // Newest first, and in the midst what says no time.
            let state = element(r#"{"tracker":{"imei":"1"},"statusChangeType":"ACTIVATE"}"#.to_owned());
            let mut elements: Vec<Element> = (1..=rows).rev().map(one).collect();
            elements.insert(EVENTS / 2, state.clone());
            let load = Load::of(&elements);
            in_order(&mut elements, load, received_at);
            let expected = (1..=rows).map(one).chain([state]);
            let bytes = |element: &Element| element.bytes().clone();
            assert!(elements.iter().map(bytes).eq(expected.map(|element| bytes(&element))), "{text}");
            for (place, at) in [(0, T + 1), (EVENTS, T + rows)] {
                assert_eq!(decoded(&elements[place], received_at), (event_type, at), "{text}");
            }
            let last = elements.last().map(|element| decoded(element, received_at));
            assert_eq!(last, Some((EventType::Tracker, received_at.0)));
        }
    }
}
