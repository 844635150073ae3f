//! Headers and bytes: a bare `fleetbus.v1.FleetEvent` with CloudEvents attributes in binary mode, as `docs/formats.md`
//! lists them. Pure. No name, VIN or coordinate enters a header: ids, types and times only.

pub mod frame;
pub mod schema;

use std::sync::Arc;

use bytes::Bytes;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use prost::Message as _;
use uuid::Uuid;

use crate::bus::Message;
use crate::event::{EventType, pb};
use crate::route::BusKind;

/// What the CloudEvents HTTP binding encodes in header values: all but printable ASCII, and space, quote and percent.
const HEADER: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

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
    topic: Arc<str>,
    kind: BusKind,
    trace: Option<&str>,
) -> Message {
    let payload = Bytes::from(event.encode_to_vec());
    with_payload(event, payload, id, event_type, topic, kind, trace)
}

/// Decodes what the store kept and makes the message of it again: none where the bytes are not an event.
#[must_use]
pub fn again(
    payload: &Bytes,
    id: Uuid,
    event_type: EventType,
    topic: Arc<str>,
    kind: BusKind,
    trace: Option<&str>,
) -> Option<Message> {
    let event = pb::FleetEvent::decode(payload.clone()).ok()?;
    Some(with_payload(&event, payload.clone(), id, event_type, topic, kind, trace))
}

fn with_payload(
    event: &pb::FleetEvent,
    payload: Bytes,
    id: Uuid,
    event_type: EventType,
    topic: Arc<str>,
    kind: BusKind,
    trace: Option<&str>,
) -> Message {
    let (names, text): (&Names, fn(&str) -> String) = match kind {
        BusKind::Kafka | BusKind::Local => (&KAFKA, str::to_owned),
        BusKind::Nats => (&NATS, |text| utf8_percent_encode(text, HEADER).to_string()),
    };
    let origin = event.origin.clone().unwrap_or_default();
    let mut headers = vec![
        (names.id, event.id.clone()),
        (names.source, text(&format!("/providers/{}/accounts/{}", origin.provider, origin.account))),
        (names.specversion, "1.0".to_owned()),
        (names.kind, format!("fleetbus.{event_type}.v1")),
        (names.subject, text(&event.subject)),
    ];
    if let Some(time) = event.occur_time.or(event.ingest_time).and_then(rfc3339) {
        headers.push((names.time, time));
    }
    headers.push((names.datacontenttype, "application/protobuf".to_owned()));
    headers.push((names.dataschema, "https://type.googleapis.com/fleetbus.v1.FleetEvent".to_owned()));
    headers.push((names.partitionkey, text(&event.subject)));
    if let Some(time) = event.ingest_time.and_then(rfc3339) {
        headers.push((names.recordedtime, time));
    }
    if let Some(trace) = trace {
        headers.push(("traceparent", trace.to_owned()));
    }
    Message { topic, key: event.subject.as_str().into(), id, headers, payload }
}

fn rfc3339(time: prost_types::Timestamp) -> Option<String> {
    jiff::Timestamp::new(time.seconds, time.nanos).ok().map(|time| time.to_string())
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

    fn headers(kind: BusKind, trace: Option<&str>) -> Vec<(&'static str, String)> {
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
        assert_eq!(headers(BusKind::Kafka, None), expected.map(|(name, value)| (name, value.to_owned())));
    }

    #[test]
    fn nats_headers_are_percent_encoded_and_carry_the_trace() {
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let headers = headers(BusKind::Nats, Some(trace));
        let value = |name: &str| headers.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_str());
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
