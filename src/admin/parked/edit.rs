//! `POST /v1/parked/{seq}/edit`: one message with another topic, or other raw bytes, sent again. Invariant: the original is on disk
//! with the act that tells of it before anything is sent, and the row goes only once what replaces it is durable.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::access::Caller;
use super::super::filter::time_text;
use super::super::problem::{Problem, Sent};
use super::show;
use crate::admin::AdminState;
use crate::clock;
use crate::event::Text;
use crate::intake::accept::{Acceptance, Receipt, Refusal};
use crate::provider::Element;
use crate::replay::{Act, LaneKey, Original, Parked, ParkedRaw, Reason, Seq, Stored};
use crate::route;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ParkedEdit)]
pub(super) struct EditAsked {
    /// Of an event: where it goes instead.
    topic: Option<String>,
    /// Of raw bytes: what is decoded instead, as text,
    body: Option<String>,
    /// or in base 64.
    body_base64: Option<String>,
}

/// What is changed.
enum Edit {
    Topic(Parked, Text),
    Body(Seq, ParkedRaw),
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ParkedEdited)]
pub(super) struct Edited {
    seq: u64,
    /// Events that came of it: one where a topic was changed.
    events: u64,
    /// Elements that are still not understood: parked under numbers of their own; one that is what the message was, under that one's.
    left: u64,
}

/// Changes one message and sends it again; the original is kept.
#[utoipa::path(post, path = "/v1/parked/{seq}/edit", operation_id = "editParked", tag = "parked",
    params(("seq" = String, Path, description = "The message's number")),
    request_body = EditAsked,
    responses((status = 200, body = Edited),
        (status = 404, description = "Nothing is parked under that number"),
        (status = 409, description = "It waits for the bus, in its lane; or its stored bytes changed on the disk")))]
pub(super) async fn edit(
    State(state): State<AdminState>,
    Path(seq): Path<String>,
    caller: Caller,
    Sent(asked): Sent<EditAsked>,
) -> Result<Json<Edited>, Problem> {
    let stored = show::find(&state, &seq).await?;
    let edit = meaning(&state, stored, asked)?;
    let editing = state.clone();
    state.seen_through(async move { make(&editing, &caller, edit).await }).await.map(Json)
}

fn meaning(state: &AdminState, stored: Stored, asked: EditAsked) -> Result<Edit, Problem> {
    let EditAsked { topic, body, body_base64 } = asked;
    match (stored, topic, body, body_base64) {
        (Stored::Event(parked), Some(topic), None, None) => {
            if parked.reason != Reason::Unfit {
                let why = "it waits for the bus in its lane, where the order is kept: only what waits for the operator is edited";
                return Err(Problem::new(StatusCode::CONFLICT, why));
            }
            route::check_topic(state.inner.kind, &topic).map_err(Problem::unprocessable)?;
            Ok(Edit::Topic(parked, topic.into()))
        }
        (Stored::Event(_), ..) => {
            Err(Problem::unprocessable("of an event only the topic can be edited: send topic alone"))
        }
        (Stored::Raw(seq, raw), None, Some(body), None) => {
            Ok(Edit::Body(seq, ParkedRaw { body: body.into(), ..raw }))
        }
        (Stored::Raw(seq, raw), None, None, Some(body)) => {
            let body = BASE64.decode(body.as_bytes());
            let body = body.map_err(|_| Problem::unprocessable("body_base64 is not base 64"))?;
            Ok(Edit::Body(seq, ParkedRaw { body: body.into(), ..raw }))
        }
        (Stored::Raw(..), ..) => Err(Problem::unprocessable(
            "of raw bytes only these can be edited: send body, or body_base64, alone",
        )),
    }
}

async fn make(state: &AdminState, caller: &Caller, edit: Edit) -> Result<Edited, Problem> {
    match edit {
        Edit::Topic(parked, topic) => {
            let (old, seq) = (parked.lane.topic.clone(), parked.seq);
            let texts = (
                serde_json::json!({"topic": &*old}).to_string(),
                serde_json::json!({"topic": &*topic}).to_string(),
            );
            let bytes = parked.payload.clone();
            keep(state, caller, seq, (&parked.lane.account, &old, bytes), texts).await?;
            let lane = LaneKey { topic, ..parked.lane.clone() };
            let moved = state.inner.again.events(vec![Parked { lane, ..parked }]).await;
            if let Some(error) = moved.failed {
                return Err(Problem::unavailable(format!("it stays parked as it was: {error}")));
            }
            if moved.gone > 0 {
                return Err(Problem::not_found("it is gone meanwhile"));
            }
            Ok(Edited { seq: seq.0, events: 1, left: 0 })
        }
        Edit::Body(seq, raw) => {
            // Until it is sent and its row is to go: of two at once, the second finds it gone.
            let _editing = state.inner.transfers.editing.lock().await;
            let original = state.inner.store.get(seq).await?.and_then(crate::replay::Kept::whole);
            let Some(Stored::Raw(_, original)) = original else {
                return Err(Problem::not_found("it is gone meanwhile"));
            };
            if !state.inner.again.acceptance.has(&raw.account) {
                return Err(Problem::unprocessable(
                    "it stays parked as it was: its account is not configured here",
                ));
            }
            if !Acceptance::knows(&raw.source) {
                return Err(Problem::unprocessable(
                    "it stays parked as it was: this version does not know the way that it came",
                ));
            }
            let text = |body: &[u8]| serde_json::json!({"bytes": body.len()}).to_string();
            let texts = (text(&original.body), text(&raw.body));
            // What is left of it may be what it was: that is known as the row which is there, and parked no second time.
            let holds_it = Element::all_of(&raw.body)
                .is_ok_and(|elements| elements.iter().any(|one| *one.bytes() == original.body));
            keep(state, caller, seq, (&raw.account, "", original.body), texts).await?;
            match state.inner.again.raw(raw).await {
                Ok(Receipt { events, unrecognized, undecodable, .. }) => {
                    let left = unrecognized + undecodable;
                    if left == 0 || !holds_it {
                        state.inner.store.delete(vec![seq]);
                    }
                    Ok(Edited { seq: seq.0, events, left })
                }
                Err(error @ (Refusal::NotJson { .. } | Refusal::Empty | Refusal::TooMany(_))) => {
                    Err(Problem::unprocessable(format!("it stays parked as it was: {error}")))
                }
                Err(error @ (Refusal::QuotaSpent { .. } | Refusal::NotKept { .. } | Refusal::Stopping)) => {
                    Err(Problem::unavailable(format!("it stays parked as it was: {error}")))
                }
            }
        }
    }
}

async fn keep(
    state: &AdminState,
    caller: &Caller,
    seq: Seq,
    (account, topic, bytes): (&crate::event::AccountId, &str, bytes::Bytes),
    (before, after): (String, String),
) -> Result<(), Problem> {
    let at = clock::now();
    let who = caller.name.to_string();
    let act = Act {
        at,
        who: who.clone(),
        act: "parked.edit",
        account: Some(account.clone()),
        object: seq.0.to_string(),
        before: Some(before),
        after: Some(after),
    };
    let original = Original { seq, saved_at: at, who, topic: topic.to_owned(), bytes };
    Ok(state.inner.store.keep_original(original, act).await?)
}

#[derive(Serialize, ToSchema)]
#[schema(as = ParkedOriginals)]
pub(super) struct Originals {
    originals: Vec<Kept>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ParkedOriginal)]
struct Kept {
    saved_at: String,
    who: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    topic: String,
    /// The event's payload or the raw bytes, in base 64.
    bytes_base64: String,
}

/// What a message was before it was edited, newest first; also where it is gone since.
#[utoipa::path(get, path = "/v1/parked/{seq}/originals", operation_id = "showOriginals", tag = "parked",
    params(("seq" = String, Path, description = "The message's number")),
    responses((status = 200, body = Originals),
        (status = 404, description = "Nothing under that number was edited")))]
pub(super) async fn originals(
    State(state): State<AdminState>,
    Path(seq): Path<String>,
) -> Result<Json<Originals>, Problem> {
    let none = || Problem::not_found("nothing under that number was edited, or the original is gone since");
    let seq = seq.parse().map(Seq).map_err(|_| none())?;
    let kept = state.inner.store.originals(seq).await?;
    if kept.is_empty() {
        return Err(none());
    }
    let originals = kept.into_iter().map(|original| Kept {
        saved_at: time_text(original.saved_at),
        who: original.who,
        topic: original.topic,
        bytes_base64: BASE64.encode(&original.bytes),
    });
    Ok(Json(Originals { originals: originals.collect() }))
}
