//! `/v1/parked`: what waits in the replay store. Lists are paged by sequence number; payloads are shown only on request; a
//! discard needs a filter, or says that it means everything.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AdminState;
use super::filter::{Written, time_text};
use super::problem::{Asked, Problem};
use crate::event::{json, pb::FleetEvent};
use crate::replay::{Kind, Listed, Seq, Stored, WaitsFor, What};

/// A page, where nobody says.
const PAGE: usize = 100;

pub(super) fn routes() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().routes(routes!(list, discard)).routes(routes!(show))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListAsked {
    /// An account's id.
    account: Option<String>,
    /// An event type, such as `position`.
    r#type: Option<String>,
    /// A subject: mostly an IMEI.
    subject: Option<String>,
    /// Reasons, comma-separated.
    reason: Option<String>,
    /// Parked at or after, RFC 3339.
    from: Option<String>,
    /// Parked before, RFC 3339.
    until: Option<String>,
    /// Begin after this number.
    after: Option<u64>,
    /// At most so many, 1 to 1,000.
    limit: Option<usize>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ParkedPage)]
struct Page {
    parked: Vec<Row>,
    next: Option<u64>,
}

/// A parked message.
#[derive(Serialize, ToSchema)]
#[schema(as = ParkedMessage)]
struct Row {
    seq: u64,
    kind: &'static str,
    account: String,
    reason: &'static str,
    waits_for: &'static str,
    parked_at: String,
    bytes: u64,
    error: String,
    #[serde(flatten)]
    what: OfKind,
}

#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = ParkedKind)]
enum OfKind {
    Event { r#type: &'static str, subject: String, topic: String, id: String, unresolved: bool },
    Raw { source: String },
}

/// What waits in the replay store, oldest first, without payloads.
#[utoipa::path(get, path = "/v1/parked", operation_id = "listParked", tag = "parked", params(ListAsked),
    responses((status = 200, body = Page)))]
async fn list(
    State(state): State<AdminState>,
    Asked(asked): Asked<ListAsked>,
) -> Result<Json<Page>, Problem> {
    let ListAsked { account, r#type, subject, reason, from, until, after, limit } = asked;
    let filter = Written { account, event_type: r#type, subject, reason, from, until }.meaning()?;
    let page = state.inner.store.list(&filter, after.map(Seq), limit.unwrap_or(PAGE)).await?;
    let parked = page.rows.into_iter().map(Row::from).collect();
    Ok(Json(Page { parked, next: page.next.map(|seq| seq.0) }))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ShowAsked {
    /// Show the payload too, and how.
    payload: Option<Payload>,
}

/// How a payload is shown.
#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = PayloadForm)]
enum Payload {
    /// Among the rest: an event as ProtoJSON, raw bytes as text.
    Json,
    /// Nothing else, as it is stored.
    Bytes,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ParkedShown)]
struct Shown {
    #[serde(flatten)]
    row: Row,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    event: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
}

/// One parked message; its payload on request.
#[utoipa::path(get, path = "/v1/parked/{seq}", operation_id = "showParked", tag = "parked",
    params(("seq" = String, Path, description = "The message's number"), ShowAsked),
    responses(
        (status = 200, content(
            (Shown = "application/json"),
            (Vec<u8> = "application/protobuf"),
            (Vec<u8> = "application/octet-stream"),
        )),
        (status = 404, description = "Nothing is parked under that number"),
    ))]
async fn show(
    State(state): State<AdminState>,
    Path(seq): Path<String>,
    Asked(asked): Asked<ShowAsked>,
) -> Result<Response, Problem> {
    let none = || Problem::not_found("nothing is parked under that number: it may have been delivered since");
    let seq = seq.parse().map(Seq).map_err(|_| none())?;
    let stored = state.inner.store.get(seq).await?.ok_or_else(none)?;
    Ok(match asked.payload {
        None => Json(Shown { row: Row::of(&stored), event: None, body: None }).into_response(),
        Some(Payload::Json) => {
            let row = Row::of(&stored);
            let (event, body) = match &stored {
                Stored::Event(parked) => (Some(event(&parked.payload)?), None),
                Stored::Raw(_, raw) => (None, Some(String::from_utf8_lossy(&raw.body).into_owned())),
            };
            Json(Shown { row, event, body }).into_response()
        }
        Some(Payload::Bytes) => {
            let content_type = match &stored {
                Stored::Event(_) => "application/protobuf",
                Stored::Raw(..) => "application/octet-stream",
            };
            ([(CONTENT_TYPE, HeaderValue::from_static(content_type))], stored.bytes().clone()).into_response()
        }
    })
}

fn event(payload: &[u8]) -> Result<Box<RawValue>, Problem> {
    let unreadable = || Problem::unprocessable("the event cannot be shown as JSON: ask for payload=bytes");
    let event = FleetEvent::decode(payload).map_err(|_| unreadable())?;
    let text = json::to_json(&event).map_err(|_| unreadable())?;
    RawValue::from_string(text).map_err(|_| unreadable())
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct DiscardAsked {
    /// An account's id.
    account: Option<String>,
    /// An event type, such as `position`.
    r#type: Option<String>,
    /// A subject: mostly an IMEI.
    subject: Option<String>,
    /// Reasons, comma-separated.
    reason: Option<String>,
    /// Parked at or after, RFC 3339.
    from: Option<String>,
    /// Parked before, RFC 3339.
    until: Option<String>,
    /// Everything; instead of a filter.
    #[serde(default)]
    all: bool,
    /// Only say how many.
    #[serde(default)]
    dry_run: bool,
}

/// What a discard did, or would do.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "the two answers of one call, for the API's description")]
enum DiscardSaid {
    Would(WouldDiscard),
    Did(Discarded),
}

#[derive(Serialize, ToSchema)]
struct WouldDiscard {
    dry_run: bool,
    messages: u64,
    bytes: u64,
}

#[derive(Serialize, ToSchema)]
struct Discarded {
    discarded: u64,
    events: u64,
    raw: u64,
}

/// Throws parked messages away, by a filter or all.
#[utoipa::path(delete, path = "/v1/parked", operation_id = "discardParked", tag = "parked", params(DiscardAsked),
    responses((status = 200, body = DiscardSaid)))]
async fn discard(
    State(state): State<AdminState>,
    Asked(asked): Asked<DiscardAsked>,
) -> Result<Response, Problem> {
    let DiscardAsked { account, r#type, subject, reason, from, until, all, dry_run } = asked;
    let filter = Written { account, event_type: r#type, subject, reason, from, until }.meaning()?;
    match (filter.is_everything(), all) {
        (true, false) => {
            return Err(Problem::unprocessable(
                "say what to discard by a filter, or all=true for everything",
            ));
        }
        (false, true) => {
            return Err(Problem::unprocessable("all=true contradicts the filter: leave one out"));
        }
        (true, true) | (false, false) => {}
    }
    if dry_run {
        let count = state.inner.store.count(&filter).await?;
        return Ok(Json(WouldDiscard { dry_run, messages: count.rows, bytes: count.bytes }).into_response());
    }
    let gone = state.inner.store.discard(&filter).await?;
    tracing::info!(events = gone.events, raw = gone.raw, "parked.discarded");
    let said = Discarded { discarded: gone.events + gone.raw, events: gone.events, raw: gone.raw };
    Ok(Json(said).into_response())
}

impl From<Listed> for Row {
    fn from(listed: Listed) -> Self {
        let Listed { seq, account, kind, at, bytes, error, what } = listed;
        let what = match what {
            What::Event { topic, subject, event_type, id, provisional } => OfKind::Event {
                r#type: event_type.as_str(),
                subject,
                topic,
                id: id.to_string(),
                unresolved: provisional,
            },
            What::Raw { source } => OfKind::Raw { source },
        };
        Self {
            seq: seq.0,
            kind: kind_text(kind),
            account: account.as_str().to_owned(),
            reason: kind.as_str(),
            waits_for: whom(kind),
            parked_at: time_text(at),
            bytes,
            error,
            what,
        }
    }
}

impl Row {
    fn of(stored: &Stored) -> Self {
        let bytes = stored.bytes().len() as u64;
        Self::from(match stored {
            Stored::Event(parked) => Listed {
                seq: parked.seq,
                account: parked.lane.account.clone(),
                kind: Kind::Event(parked.reason),
                at: parked.parked_at,
                bytes,
                error: parked.error.clone(),
                what: What::Event {
                    topic: parked.lane.topic.to_string(),
                    subject: parked.lane.subject.to_string(),
                    event_type: parked.event_type,
                    id: parked.id,
                    provisional: parked.provisional,
                },
            },
            Stored::Raw(seq, raw) => Listed {
                seq: *seq,
                account: raw.account.clone(),
                kind: Kind::Raw(raw.reason),
                at: raw.received_at,
                bytes,
                error: raw.error.clone(),
                what: What::Raw { source: raw.source.clone() },
            },
        })
    }
}

const fn kind_text(kind: Kind) -> &'static str {
    match kind {
        Kind::Event(_) => "event",
        Kind::Raw(_) => "raw",
    }
}

const fn whom(kind: Kind) -> &'static str {
    match kind.waits_for() {
        WaitsFor::Bus => "bus",
        WaitsFor::Operator => "operator",
    }
}
