//! `GET /v1/parked/{seq}`: one message in full, beside what the list says of it. Headers are as they would be sent; the payload is shown
//! only on request, as ProtoJSON, text, hex, or its bytes alone.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::Row;
use crate::admin::AdminState;
use crate::admin::problem::{Asked, Problem};
use crate::encode;
use crate::event::{json, pb::FleetEvent};
use crate::replay::{Filter, Kept, Parked, Seq, Stored};
use crate::route::BusKind;

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ShowAsked {
    payload: Option<Payload>,
}

/// How a payload is shown.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = PayloadForm)]
enum Payload {
    /// Among the rest: an event as ProtoJSON, raw bytes as text.
    Json,
    /// Among the rest, as text; what is not UTF-8 is replaced.
    Text,
    /// Among the rest, as hexadecimal digits.
    Hex,
    /// Nothing else, as it is stored.
    Bytes,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ParkedShown)]
struct Shown {
    #[serde(flatten)]
    row: Row,
    /// What the payload alone has: an event as it is encoded, raw bytes as they came.
    payload_bytes: u64,
    /// Attempts since it was parked; none for raw bytes, which no bus was offered.
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    headers: Option<BTreeMap<&'static str, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    event: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
}

fn none() -> Problem {
    Problem::not_found("nothing is parked under that number: it may have been delivered since")
}

/// What is parked under a number, as a list has it.
async fn row(state: &AdminState, seq: Seq) -> Result<Row, Problem> {
    let before = seq.0.checked_sub(1).map(Seq);
    let listed = state.inner.store.list(&Filter::default(), before, 1).await?;
    listed.rows.into_iter().find(|row| row.seq == seq).map(Row::from).ok_or_else(none)
}

/// What is parked under a number.
pub(super) async fn find(state: &AdminState, seq: &str) -> Result<Stored, Problem> {
    let seq = seq.parse().map(Seq).map_err(|_| none())?;
    match state.inner.store.get(seq).await?.ok_or_else(none)? {
        Kept::Whole(stored) => Ok(stored),
        Kept::Damaged(_) => Err(Problem::new(
            StatusCode::CONFLICT,
            "its stored bytes are not those that were parked: they changed on the disk. Discard it, and a poller may bring it again",
        )),
    }
}

/// One parked message, with its headers and attempts; its payload on request.
#[utoipa::path(get, path = "/v1/parked/{seq}", operation_id = "showParked", tag = "parked",
    params(("seq" = String, Path, description = "The message's number"), ShowAsked),
    responses(
        (status = 200, content(
            (Shown = "application/json"),
            (Vec<u8> = "application/protobuf"),
            (Vec<u8> = "application/octet-stream"),
        )),
        (status = 404, description = "Nothing is parked under that number"),
        (status = 409, description = "Its stored bytes changed on the disk"),
    ))]
pub(super) async fn show(
    State(state): State<AdminState>,
    Path(seq): Path<String>,
    Asked(asked): Asked<ShowAsked>,
) -> Result<Response, Problem> {
    let stored = find(&state, &seq).await?;
    if asked.payload == Some(Payload::Bytes) {
        let content_type = match &stored {
            Stored::Event(_) => "application/protobuf",
            Stored::Raw(..) => "application/octet-stream",
        };
        let content_type = (CONTENT_TYPE, HeaderValue::from_static(content_type));
        return Ok(([content_type], stored.bytes().clone()).into_response());
    }
    let (attempts, headers) = match &stored {
        Stored::Event(parked) => {
            (Some(state.inner.store.attempts(parked.seq).await?), headers(parked, state.inner.kind))
        }
        Stored::Raw(..) => (None, None),
    };
    let text = || String::from_utf8_lossy(stored.bytes()).into_owned();
    let (event, body, hex) = match (asked.payload, &stored) {
        (None | Some(Payload::Bytes), _) => (None, None, None),
        (Some(Payload::Json), Stored::Event(parked)) => (Some(event(&parked.payload)?), None, None),
        (Some(Payload::Json), Stored::Raw(..)) | (Some(Payload::Text), _) => (None, Some(text()), None),
        (Some(Payload::Hex), _) => (None, None, Some(hex(stored.bytes()))),
    };
    let (row, payload_bytes) = (row(&state, stored.seq()).await?, stored.bytes().len() as u64);
    Ok(Json(Shown { row, payload_bytes, attempts, headers, event, body, hex }).into_response())
}

fn headers(parked: &Parked, kind: BusKind) -> Option<BTreeMap<&'static str, String>> {
    let topic = parked.lane.topic.clone();
    let trace = parked.trace.as_deref();
    let message = encode::again(&parked.payload, parked.id, parked.event_type, topic, kind, trace)?;
    Some(message.headers.iter().map(|(name, value)| (name, value.to_owned())).collect())
}

fn event(payload: &[u8]) -> Result<Box<RawValue>, Problem> {
    let unreadable = || Problem::unprocessable("the event cannot be shown as JSON: ask for payload=bytes");
    let event = FleetEvent::decode(payload).map_err(|_| unreadable())?;
    let text = json::to_json(&event).map_err(|_| unreadable())?;
    RawValue::from_string(text).map_err(|_| unreadable())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string does not fail.
        write!(text, "{byte:02x}").unwrap_or_default();
        text
    })
}
