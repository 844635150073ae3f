//! Canonical ProtoJSON of an event: lowerCamelCase, fields in the schema's order, the keys of free structures sorted.
//! One event has one text, so that tests, states and people can compare events as text.

use std::sync::LazyLock;

use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};

use super::pb::FleetEvent;

/// Why an event has no JSON: a number or time in it is outside of what ProtoJSON can say.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// The schema that was compiled in cannot be read: the program was built wrongly.
    #[error("the event schema is not in this program")]
    Schema,
    /// The event does not fit the schema.
    #[error("the event does not fit its schema")]
    Event(#[source] prost::DecodeError),
    /// A value has no JSON form.
    #[error("a value of the event has no json form")]
    Value(#[source] serde_json::Error),
}

/// Built once: the descriptors cost milliseconds.
static EVENT: LazyLock<Option<MessageDescriptor>> = LazyLock::new(|| {
    let descriptors = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
    DescriptorPool::decode(descriptors.as_slice()).ok()?.get_message_by_name("fleetbus.v1.FleetEvent")
});

/// The event as one line of canonical ProtoJSON.
///
/// # Errors
/// Where a value has no JSON form, such as a time beyond the year 9999. Decoders make no such events.
pub fn to_json(event: &FleetEvent) -> Result<String, JsonError> {
    serde_json::to_string(&reflected(event)?).map_err(JsonError::Value)
}

/// The event's ProtoJSON as a tree whose keys are sorted at every level: what states are compared by.
///
/// # Errors
/// As [`to_json`].
pub fn to_sorted(event: &FleetEvent) -> Result<serde_json::Value, JsonError> {
    serde_json::to_value(reflected(event)?).map_err(JsonError::Value)
}

fn reflected(event: &FleetEvent) -> Result<DynamicMessage, JsonError> {
    let descriptor = EVENT.clone().ok_or(JsonError::Schema)?;
    DynamicMessage::decode(descriptor, event.encode_to_vec().as_slice()).map_err(JsonError::Event)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::pb;

    #[test]
    fn fields_stand_in_the_schemas_order_and_free_keys_are_sorted() {
        let text =
            |t: &str| prost_types::Value { kind: Some(prost_types::value::Kind::StringValue(t.to_owned())) };
        let event = FleetEvent {
            id: "i".into(),
            subject: "s".into(),
            record_version: 1,
            occur_time: Some(prost_types::Timestamp { seconds: 1, nanos: 5_000_000 }),
            anomalies: vec![pb::Anomaly::NoFix as i32],
            provider_fields: Some(prost_types::Struct {
                fields: [("b".to_owned(), text("2")), ("a".to_owned(), text("1"))].into(),
            }),
            body: Some(pb::fleet_event::Body::Position(pb::Position {
                speed_mps: Some(0.0),
                engine_on: Some(false),
                ..Default::default()
            })),
            ..Default::default()
        };
        assert_eq!(
            to_json(&event).unwrap(),
            r#"{"id":"i","subject":"s","occurTime":"1970-01-01T00:00:01.005Z","anomalies":["ANOMALY_NO_FIX"],"providerFields":{"a":"1","b":"2"},"recordVersion":"1","position":{"speedMps":0.0,"engineOn":false}}"#
        );
    }
}
