//! Headers and bytes: a bare `fleetbus.v1.FleetEvent` with CloudEvents attributes in binary mode, as `docs/formats.md`
//! lists them. Pure. No name, VIN or coordinate enters a header: ids, types and times only.

pub mod frame;
pub mod schema;

use bytes::Bytes;
use jiff::fmt::temporal::DateTimePrinter;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use prost::Message as _;
use uuid::Uuid;

use crate::bus::{Headers, Message};
use crate::event::{EventType, Text, pb};
use crate::route::BusKind;

/// What the CloudEvents HTTP binding encodes in header values: all but printable ASCII, and space, quote and percent.
const HEADER: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

/// Attributes and trace.
const MOST_HEADERS: usize = 11;
/// What an id, two times and the fixed parts of the source take, about.
const USUAL_BYTES: usize = 128;

/// The names of the attributes under one bus.
struct Names {
    id: &'static str,
    source: &'static str,
    specversion: &'static str,
    kind: &'static str,
    subject: &'static str,
    time: &'static str,
    datacontenttype: &'static str,
    dataschema: &'static str,
    partitionkey: &'static str,
    recordedtime: &'static str,
}

const KAFKA: Names = Names {
    id: "ce_id",
    source: "ce_source",
    specversion: "ce_specversion",
    kind: "ce_type",
    subject: "ce_subject",
    time: "ce_time",
    datacontenttype: "content-type",
    dataschema: "ce_dataschema",
    partitionkey: "ce_partitionkey",
    recordedtime: "ce_recordedtime",
};

const NATS: Names = Names {
    id: "ce-id",
    source: "ce-source",
    specversion: "ce-specversion",
    kind: "ce-type",
    subject: "ce-subject",
    time: "ce-time",
    datacontenttype: "ce-datacontenttype",
    dataschema: "ce-dataschema",
    partitionkey: "ce-partitionkey",
    recordedtime: "ce-recordedtime",
};

/// Encodes an event whose ids are filled in. `trace` is a well-formed `traceparent`.
#[must_use]
pub fn encode(
    event: &pb::FleetEvent,
    id: Uuid,
    event_type: EventType,
    topic: Text,
    kind: BusKind,
    trace: Option<&str>,
) -> Message {
    let payload = Bytes::from(event.encode_to_vec());
    let pb::FleetEvent { id: text, subject, occur_time, ingest_time, origin, .. } = event;
    let (occur_time, ingest_time) = (*occur_time, *ingest_time);
    let attributes = Attributes { id: text, subject, occur_time, ingest_time, origin: origin.as_ref() };
    with_payload(&attributes, payload, id, event_type, topic, kind, trace)
}

/// What the attributes are made of; an event without all the rest, which whoever only sends it again need not decode.
#[derive(Clone, PartialEq, prost::Message)]
struct Outline {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "3")]
    subject: String,
    #[prost(message, optional, tag = "4")]
    occur_time: Option<prost_types::Timestamp>,
    #[prost(message, optional, tag = "5")]
    ingest_time: Option<prost_types::Timestamp>,
    #[prost(message, optional, tag = "6")]
    origin: Option<pb::Origin>,
}

/// The same, borrowed.
struct Attributes<'a> {
    id: &'a str,
    subject: &'a str,
    occur_time: Option<prost_types::Timestamp>,
    ingest_time: Option<prost_types::Timestamp>,
    origin: Option<&'a pb::Origin>,
}

/// Makes the message of what the store kept again: none where the bytes are not an event.
#[must_use]
pub fn again(
    payload: &Bytes,
    id: Uuid,
    event_type: EventType,
    topic: Text,
    kind: BusKind,
    trace: Option<&str>,
) -> Option<Message> {
    let Outline { id: text, subject, occur_time, ingest_time, origin } = Outline::decode(&**payload).ok()?;
    let attributes =
        Attributes { id: &text, subject: &subject, occur_time, ingest_time, origin: origin.as_ref() };
    Some(with_payload(&attributes, payload.clone(), id, event_type, topic, kind, trace))
}

fn with_payload(
    event: &Attributes<'_>,
    payload: Bytes,
    id: Uuid,
    event_type: EventType,
    topic: Text,
    kind: BusKind,
    trace: Option<&str>,
) -> Message {
    let headers = headers(event, event_type, kind, trace);
    Message { topic, key: event.subject.into(), id, headers, payload }
}

fn headers(event: &Attributes<'_>, event_type: EventType, kind: BusKind, trace: Option<&str>) -> Headers {
    let (names, append): (&Names, fn(&mut String, &str)) = match kind {
        BusKind::Kafka | BusKind::Local => (&KAFKA, String::push_str),
        BusKind::Nats => (&NATS, |text, value| text.extend(utf8_percent_encode(value, HEADER))),
    };
    let (provider, account) = event.origin.map_or(("", ""), |origin| (&*origin.provider, &*origin.account));
    let bytes = USUAL_BYTES + account.len() + 2 * event.subject.len() + trace.map_or(0, str::len);
    let mut headers = Headers::with_room(MOST_HEADERS, bytes);
    headers.written(names.id, |text| text.push_str(event.id));
    headers.written(names.source, |text| {
        for part in ["/providers/", provider, "/accounts/", account] {
            append(text, part);
        }
    });
    headers.fixed(names.specversion, "1.0");
    headers.fixed(names.kind, cloud_event_type(event_type));
    headers.written(names.subject, |text| append(text, event.subject));
    if let Some(time) = event.occur_time.or(event.ingest_time).and_then(timestamp) {
        headers.written(names.time, |text| rfc3339(time, text));
    }
    headers.fixed(names.datacontenttype, "application/protobuf");
    headers.fixed(names.dataschema, "https://type.googleapis.com/fleetbus.v1.FleetEvent");
    headers.written(names.partitionkey, |text| append(text, event.subject));
    if let Some(time) = event.ingest_time.and_then(timestamp) {
        headers.written(names.recordedtime, |text| rfc3339(time, text));
    }
    if let Some(trace) = trace {
        headers.written("traceparent", |text| text.push_str(trace));
    }
    headers
}

/// The attribute `type`.
const fn cloud_event_type(event_type: EventType) -> &'static str {
    match event_type {
        EventType::Position => "fleetbus.position.v1",
        EventType::Trip => "fleetbus.trip.v1",
        EventType::Stop => "fleetbus.stop.v1",
        EventType::Usage => "fleetbus.usage.v1",
        EventType::Alert => "fleetbus.alert.v1",
        EventType::GeofenceCrossing => "fleetbus.geofence-crossing.v1",
        EventType::GeofenceDefinition => "fleetbus.geofence-definition.v1",
        EventType::Tracker => "fleetbus.tracker.v1",
        EventType::Media => "fleetbus.media.v1",
        EventType::ItemSighting => "fleetbus.item-sighting.v1",
        EventType::ItemLeftBehind => "fleetbus.item-left-behind.v1",
    }
}

fn timestamp(time: prost_types::Timestamp) -> Option<jiff::Timestamp> {
    jiff::Timestamp::new(time.seconds, time.nanos).ok()
}

/// Appends the time as its `Display` has it.
fn rfc3339(time: jiff::Timestamp, text: &mut String) {
    const PRINTER: DateTimePrinter = DateTimePrinter::new();
    // A text takes all that is written.
    PRINTER.print_timestamp(&time, text).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> pb::FleetEvent {
        pb::FleetEvent {
            id: "8a1b7959-ffe7-5f92-b699-bc2107218705".to_owned(),
            subject: "tag 7 é".to_owned(),
            ingest_time: Some(prost_types::Timestamp { seconds: 1_767_009_600, nanos: 250_000_000 }),
            origin: Some(pb::Origin {
                provider: "linxup".to_owned(),
                account: "acme".to_owned(),
                ..pb::Origin::default()
            }),
            ..pb::FleetEvent::default()
        }
    }

    fn headers(kind: BusKind, trace: Option<&str>) -> Headers {
        encode(&event(), Uuid::nil(), EventType::Position, "t".into(), kind, trace).headers
    }

    #[test]
    fn kafka_headers_are_those_of_the_binding_and_time_falls_back_to_ingest_time() {
        let expected = [
            ("ce_id", "8a1b7959-ffe7-5f92-b699-bc2107218705"),
            ("ce_source", "/providers/linxup/accounts/acme"),
            ("ce_specversion", "1.0"),
            ("ce_type", "fleetbus.position.v1"),
            ("ce_subject", "tag 7 é"),
            ("ce_time", "2025-12-29T12:00:00.25Z"),
            ("content-type", "application/protobuf"),
            ("ce_dataschema", "https://type.googleapis.com/fleetbus.v1.FleetEvent"),
            ("ce_partitionkey", "tag 7 é"),
            ("ce_recordedtime", "2025-12-29T12:00:00.25Z"),
        ];
        assert!(headers(BusKind::Kafka, None).iter().eq(expected), "{:?}", headers(BusKind::Kafka, None));
    }

    #[test]
    fn every_type_is_spelt_as_topics_spell_it() {
        for event_type in EventType::ALL {
            assert_eq!(cloud_event_type(event_type), format!("fleetbus.{event_type}.v1"));
        }
    }

    #[test]
    fn nats_headers_are_percent_encoded_and_carry_the_trace() {
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let headers = headers(BusKind::Nats, Some(trace));
        let value = |name: &str| headers.iter().find(|(n, _)| *n == name).map(|(_, v)| v);
        assert_eq!(value("ce-subject"), Some("tag%207%20%C3%A9"));
        assert_eq!(value("ce-datacontenttype"), Some("application/protobuf"));
        assert_eq!(value("traceparent"), Some(trace));
        assert_eq!(value("content-type"), None);
    }

    #[test]
    fn what_the_store_kept_becomes_the_same_message_again() {
        let first = encode(&event(), Uuid::nil(), EventType::Trip, "t".into(), BusKind::Kafka, None);
        let again = again(&first.payload, Uuid::nil(), EventType::Trip, "t".into(), BusKind::Kafka, None);
        let again = again.expect("an event");
        assert_eq!((&again.headers, &again.payload), (&first.headers, &first.payload));
        let broken = Bytes::from_static(b"\xff\xff");
        assert!(
            super::again(&broken, Uuid::nil(), EventType::Trip, "t".into(), BusKind::Kafka, None).is_none()
        );
    }
}
