//! Parked messages out of one store and into another, as NDJSON. An export goes page by page, in order. An import is looked
//! through before anything of it is taken; ids are kept, what is known here is a duplicate, and the events of one lane keep
//! their order.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use data_encoding::BASE64;
use futures_util::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, oneshot};
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::access::Caller;
use super::super::filter::{Filtered, Written, time_of, time_text};
use super::super::problem::{Asked, More, Problem, body_of};
use crate::admin::AdminState;
use crate::clock;
use crate::deliver::lanes::Admission;
use crate::enrich::import::Wrong;
use crate::event::AccountId;
use crate::event::ids::Ids;
use crate::intake::accept::{Acceptance, Encoded, Receipt, Republish};
use crate::replay::{Act, Filter, Kept, ParkError, ParkedRaw, RawReason, Seq, Store, Stored};

/// Exports at once: each holds a page in memory.
const EXPORTS: usize = 4;
/// Messages read, and events taken, at once.
const PAGE: usize = 200;
/// The largest import; the command line sends a larger file in parts.
const IMPORT_BYTES: usize = 32 << 20;

/// Bounds of transfers.
pub(in crate::admin) struct Transfers {
    exports: Arc<Semaphore>,
    /// Whoever sends edited raw bytes: one at a time, from the look at the row to its delete.
    pub(super) editing: Mutex<()>,
}

impl Transfers {
    pub(in crate::admin) fn new() -> Self {
        Self { exports: Arc::new(Semaphore::new(EXPORTS)), editing: Mutex::default() }
    }
}

/// A message, as a line of a file.
#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Line {
    /// An event. Of an import only the payload, the trace and the ids count: the rest is in the payload.
    Event {
        #[serde(default)]
        seq: u64,
        #[serde(default)]
        account: String,
        #[serde(default)]
        r#type: String,
        #[serde(default)]
        subject: String,
        #[serde(default)]
        topic: String,
        #[serde(default)]
        id: String,
        #[serde(default)]
        reason: String,
        #[serde(default)]
        error: String,
        #[serde(default)]
        parked_at: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        trace: Option<String>,
        /// The ids by which it may be known, its own among them.
        #[serde(default)]
        enters: Vec<String>,
        /// The encoded event, in base 64.
        payload: String,
    },
    /// Raw bytes.
    Raw {
        #[serde(default)]
        seq: u64,
        account: String,
        source: String,
        reason: String,
        #[serde(default)]
        error: String,
        received_at: String,
        /// In base 64.
        body: String,
    },
    /// A message whose stored bytes changed on the disk: an import passes it over.
    Damaged { seq: u64 },
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ExportAsked {
    after: Option<u64>,
}

/// Parked messages with their payloads, one JSON document a line.
#[utoipa::path(get, path = "/v1/parked/export", operation_id = "exportParked", tag = "parked",
    params(Written, ExportAsked),
    responses((status = 200, body = String, content_type = "application/x-ndjson"),
        (status = 409, description = "As many exports run already as may")))]
pub(super) async fn export(
    State(state): State<AdminState>,
    Filtered(filter, asked): Filtered<ExportAsked>,
) -> Result<Response, Problem> {
    let filter = filter.meaning()?;
    let permit = Arc::clone(&state.inner.transfers.exports).try_acquire_owned();
    let permit = permit.map_err(|_| Problem::too_many(format!("{EXPORTS} exports run already")))?;
    let pages =
        Pages { store: state.inner.store.clone(), filter, after: asked.after.map(Seq), _permit: permit };
    // Before anything is said: a store that cannot be read is no answer that breaks off.
    let first = Pages::next(Some(pages)).await;
    let first = first.map_err(|error| Problem::unavailable(format!("the store cannot answer: {error}")))?;
    let (text, rest) = first.unwrap_or_default();
    let rest = stream::try_unfold(rest, Pages::next);
    let body = Body::from_stream(stream::once(async move { Ok(text) }).chain(rest));
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

struct Pages {
    store: Store,
    filter: Filter,
    after: Option<Seq>,
    _permit: OwnedSemaphorePermit,
}

impl Pages {
    /// A failure breaks the answer off, so that nobody takes a part for the whole.
    async fn next(pages: Option<Self>) -> std::io::Result<Option<(Bytes, Option<Self>)>> {
        let Some(mut pages) = pages else { return Ok(None) };
        let page = pages.store.read(&pages.filter, pages.after, PAGE).await.map_err(std::io::Error::other)?;
        let mut text = Vec::new();
        for stored in page.rows {
            serde_json::to_writer(&mut text, &Line::of(stored))?;
            text.push(b'\n');
        }
        pages.after = page.next;
        let rest = pages.after.is_some().then_some(pages);
        Ok(Some((text.into(), rest)))
    }
}

impl Line {
    fn of(stored: Kept<Stored>) -> Self {
        match stored {
            Kept::Damaged(seq) => Self::Damaged { seq: seq.0 },
            Kept::Whole(Stored::Event(parked)) => Self::Event {
                seq: parked.seq.0,
                account: parked.lane.account.as_str().to_owned(),
                r#type: parked.event_type.as_str().to_owned(),
                subject: parked.lane.subject.to_string(),
                topic: parked.lane.topic.to_string(),
                id: parked.id.to_string(),
                reason: parked.reason.as_str().to_owned(),
                error: parked.error,
                parked_at: time_text(parked.parked_at),
                trace: parked.trace,
                enters: parked.enters.iter().map(ToString::to_string).collect(),
                payload: BASE64.encode(&parked.payload),
            },
            Kept::Whole(Stored::Raw(seq, raw)) => Self::Raw {
                seq: seq.0,
                account: raw.account.as_str().to_owned(),
                source: raw.source,
                reason: raw.reason.as_str().to_owned(),
                error: raw.error,
                received_at: time_text(raw.received_at),
                body: BASE64.encode(&raw.body),
            },
        }
    }
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ImportAsked {
    #[serde(default)]
    dry_run: bool,
}

#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = ParkedImported)]
pub(super) struct Imported {
    dry_run: bool,
    messages: u64,
    /// Events that wait for the bus now; the drain carries them.
    parked: u64,
    /// Events that are known here.
    duplicates: u64,
    /// Raw messages; a copy of one that is here already counts too.
    raw: u64,
}

/// A file that was looked through.
#[derive(Default)]
struct Looked {
    events: Vec<Encoded>,
    raw: Vec<ParkedRaw>,
}

/// Parks messages that were exported: ids are kept, what is known is passed over; wrong lines are named in `errors`.
#[utoipa::path(post, path = "/v1/parked/import", operation_id = "importParked", tag = "parked",
    params(ImportAsked),
    request_body(content = String, content_type = "application/x-ndjson"),
    responses((status = 200, body = Imported)))]
pub(super) async fn import(
    State(state): State<AdminState>,
    Asked(asked): Asked<ImportAsked>,
    caller: Caller,
    request: Request,
) -> Result<Response, Problem> {
    let body = body_of(request, IMPORT_BYTES).await?;
    let looking = state.clone();
    let looked = tokio::task::spawn_blocking(move || look(&looking, &body)).await;
    let looked = match looked {
        Ok(Ok(looked)) => looked,
        Ok(Err(wrong)) => return Ok(Problem::wrong_lines(&wrong).into_response()),
        Err(_) => return Err(Problem::internal("the import could not be read")),
    };
    let messages = (looked.events.len() + looked.raw.len()) as u64;
    if asked.dry_run {
        return Ok(Json(Imported { dry_run: true, messages, ..Imported::default() }).into_response());
    }
    let importing = state.clone();
    let imported = state.seen_through(async move { take(&importing, &caller, looked).await }).await?;
    Ok(Json(Imported { messages, ..imported }).into_response())
}

fn look(state: &AdminState, body: &[u8]) -> Result<Looked, Wrong> {
    let (mut looked, mut wrong) = (Looked::default(), Wrong::default());
    for (number, text) in (1..).zip(body.split(|byte| *byte == b'\n')) {
        if text.trim_ascii().is_empty() {
            continue;
        }
        let line = serde_json::from_slice::<Line>(text).map_err(|error| error.to_string());
        if let Err(error) = line.and_then(|line| add(state, line, &mut looked)) {
            wrong.add(number, error);
        }
    }
    if wrong.count > 0 { Err(wrong) } else { Ok(looked) }
}

fn add(state: &AdminState, line: Line, looked: &mut Looked) -> Result<(), String> {
    let decoded = |text: String| BASE64.decode(text.as_bytes()).map_err(|_| "it is not base 64".to_owned());
    match line {
        Line::Event { payload, trace, enters, .. } => {
            let enters = enters.iter().map(|id| id.parse::<Uuid>()).collect::<Result<Ids, _>>();
            let enters = enters.map_err(|_| "enters has what is no id")?;
            let encoded = Encoded { payload: decoded(payload)?.into(), trace, enters };
            state.inner.again.acceptance.readable(&encoded).map_err(|error| error.to_string())?;
            looked.events.push(encoded);
        }
        Line::Raw { account, source, reason, error, received_at, body, .. } => {
            let account = state.account(&account).map_err(|_| "its account is not configured here")?.id;
            let reason = RawReason::parse(&reason).ok_or_else(|| format!("reason {reason:?} is unknown"))?;
            let received_at =
                time_of(&received_at).ok_or("received_at is no time like 2026-01-31T12:00:00Z")?;
            if !Acceptance::knows(&source) {
                return Err(format!(
                    "source {source:?} is unknown to this version, which could never decode it: leave the line out"
                ));
            }
            if state.inner.store.is_too_old(received_at, clock::now()) {
                let why = "it was received longer ago than replay.retention, and would be gone at once: raise that, or leave the line out";
                return Err(why.to_owned());
            }
            let body = decoded(body)?.into();
            looked.raw.push(ParkedRaw { account, source, received_at, reason, error, body });
        }
        Line::Damaged { .. } => {}
    }
    Ok(())
}

async fn take(state: &AdminState, caller: &Caller, looked: Looked) -> Result<Imported, Problem> {
    let act = Act {
        at: clock::now(),
        who: caller.name.to_string(),
        act: "parked.import",
        account: None::<AccountId>,
        object: format!("{} events, {} raw messages", looked.events.len(), looked.raw.len()),
        before: None,
        after: None,
    };
    state.inner.store.act(Vec::new(), act).await?;
    let mut sum = Receipt::default();
    for events in looked.events.chunks(PAGE) {
        let taken = state.inner.again.acceptance.anew(events.to_vec(), Republish::New, Admission::Park).await;
        sum = sum.plus(&taken.map_err(|refusal| not_all(&refusal.to_string(), &sum))?);
    }
    let mut raw = 0;
    for rows in looked.raw.chunks(PAGE) {
        let (tell, told) = oneshot::channel();
        // Whoever waits may have given up: the rows are kept all the same.
        let done = Box::new(move |kept: Result<(), ParkError>| tell.send(kept).unwrap_or_default());
        let parked = state.inner.store.park_raw(rows.to_vec(), done);
        let kept = match parked {
            Ok(()) => told.await.unwrap_or(Err(ParkError::Closed)),
            Err(error) => Err(error),
        };
        kept.map_err(|error| not_all(&error.to_string(), &sum))?;
        raw += rows.len() as u64;
    }
    let Receipt { delivered, parked, duplicates, .. } = sum;
    Ok(Imported { parked: parked + delivered, duplicates, raw, ..Imported::default() })
}

fn not_all(error: &str, sum: &Receipt) -> Problem {
    let why = format!("{error}; what was taken so far is kept: import the same again");
    Problem::unavailable(why).with(More::Parked(sum.parked))
}
