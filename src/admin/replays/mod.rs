//! `/v1/replays`: messages sent again. *Parked* ones that wait for the operator: an event goes back to the end of its lane; raw
//! bytes are decoded again, as of the time of their receipt, and leave the store once they are understood. What waits for
//! the bus needs no replay: the drain carries it. And *history*: what the local bus delivered, published once more. A replay is a
//! job: a restart resumes it, where it may repeat the last page. It waits while the bus fails.

mod run;

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AdminState;
use super::access::Caller;
use super::events::LocalLog;
use super::filter::{Written, time_text};
use super::jobs::{Book, Doing, Held, Job, Phase};
use super::problem::{Problem, Sent};
use crate::deliver::lanes::Lanes;
use crate::event::AccountId;
use crate::intake::accept::{Acceptance, Receipt, Refusal};
use crate::replay::{Filter, Kind, ParkError, Parked, ParkedRaw, Store, WaitsFor};
use run::{Run, count_history};

/// How one parked message is sent again. Cheap to clone.
#[derive(Clone)]
pub struct Again {
    /// Where it is parked.
    pub store: Store,
    /// Where events go.
    pub lanes: Arc<Lanes>,
    /// Where raw bytes and history go.
    pub acceptance: Acceptance,
}

impl Again {
    /// Puts events at the ends of their lanes, in their order, and in the place of the rows that are there now, up to one for
    /// which there is no room.
    pub(super) async fn events(&self, parked: Vec<Parked>) -> Moved {
        let mut waiting = Vec::with_capacity(parked.len());
        let mut moved = Moved::default();
        for event in parked {
            let (tell, told) = oneshot::channel();
            // Whoever waits may have given up.
            let done = Box::new(move |kept: Result<(), ParkError>| tell.send(kept).unwrap_or_default());
            match self.lanes.requeue(event, done) {
                Ok(()) => waiting.push(told),
                Err(error) => {
                    moved.failed = Some(error);
                    break;
                }
            }
        }
        for told in waiting {
            match told.await.unwrap_or(Err(ParkError::Closed)) {
                Ok(()) => moved.sent += 1,
                Err(ParkError::Gone) => moved.gone += 1,
                Err(
                    error @ (ParkError::AccountFull
                    | ParkError::Full
                    | ParkError::OperatorFull
                    | ParkError::Busy
                    | ParkError::Failing(_)
                    | ParkError::Closed),
                ) => moved.failed = Some(error),
            }
        }
        moved
    }

    /// Decodes and delivers raw bytes.
    pub(super) async fn raw(&self, raw: ParkedRaw) -> Result<Receipt, Refusal> {
        self.acceptance.again(raw).await
    }
}

/// What became of events that were put back into their lanes.
#[derive(Default)]
pub(super) struct Moved {
    /// They wait for the bus.
    pub(super) sent: u64,
    /// They were discarded, evicted, or sent by another replay since they were read.
    pub(super) gone: u64,
    /// Why the others stay as they are.
    pub(super) failed: Option<ParkError>,
}

pub(super) fn routes() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().routes(routes!(begin, list)).routes(routes!(show, cancel))
}

/// What is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ReplaySource)]
enum Source {
    /// What is parked for the operator.
    #[default]
    Parked,
    /// What the local bus delivered.
    History,
}

/// A replay's work, as it is written down.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Work {
    source: Source,
    filter: Written,
    rate: Option<u32>,
    found: u64,
    /// Not from here on: rows that come later, those of the replay itself among them, are not part of it.
    before: u64,
    /// What is behind it is done.
    after: Option<u64>,
    tried: u64,
    sent: u64,
    events: u64,
    left: u64,
    #[serde(default)]
    gone: u64,
    errors: u64,
    /// What was tried before this process.
    #[serde(skip)]
    tried_before: u64,
}

/// The replays that are known. Cheap to clone.
#[derive(Clone)]
pub(super) struct Replays {
    again: Again,
    log: Option<LocalLog>,
    book: Arc<Book<Work>>,
    tracker: TaskTracker,
}

type Replay = Held<Work>;

#[derive(Serialize, ToSchema)]
#[schema(as = Replay)]
struct Said {
    id: String,
    source: Source,
    state: Phase,
    filter: Written,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<u32>,
    /// Messages that the filter asked for at the beginning.
    found: u64,
    /// Those that were taken in hand.
    tried: u64,
    /// Those that were not yet.
    remaining: u64,
    /// Messages a second, since it began or was resumed.
    per_second: f64,
    /// Those that left: back in their lanes, understood, or published again.
    sent: u64,
    /// Events that came of raw ones, or were published again.
    events: u64,
    /// Those that stay, for they are still not understood, or were set aside anew.
    left: u64,
    /// Those that were discarded, or sent by another replay, before their turn came.
    gone: u64,
    /// Attempts that failed and were made again.
    errors: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    began_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ReplayAsked)]
struct BeginAsked {
    #[serde(default)]
    source: Source,
    account: Option<String>,
    r#type: Option<String>,
    subject: Option<String>,
    reason: Option<Reasons>,
    from: Option<String>,
    until: Option<String>,
    error: Option<String>,
    #[serde(default)]
    dry_run: bool,
    /// Messages a second.
    rate: Option<u32>,
}

/// One text with commas, or a list.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
#[schema(as = ReplayReasons)]
enum Reasons {
    Text(String),
    List(Vec<String>),
}

#[derive(Serialize, ToSchema)]
struct WouldReplay {
    dry_run: bool,
    messages: u64,
    bytes: u64,
}

/// Sends parked messages again, or what the local bus has delivered, or counts them.
#[utoipa::path(post, path = "/v1/replays", operation_id = "beginReplay", tag = "replays",
    request_body = BeginAsked,
    responses((status = 200, description = "A dry run's count", body = WouldReplay),
        (status = 201, description = "It runs", body = Said),
        (status = 409, description = "As many run already as may")))]
async fn begin(
    State(state): State<AdminState>,
    caller: Caller,
    Sent(asked): Sent<BeginAsked>,
) -> Result<Response, Problem> {
    let BeginAsked { source, account, r#type, subject, reason, from, until, error, dry_run, rate } = asked;
    let reason = reason.map(|reason| match reason {
        Reasons::Text(text) => text,
        Reasons::List(list) => list.join(","),
    });
    let written = Written { account, event_type: r#type, subject, reason, from, until, error };
    let meaning = written.meaning()?;
    if rate == Some(0) {
        return Err(Problem::unprocessable("rate is in messages a second, at least 1"));
    }
    let replays = &state.inner.replays;
    let (count, before) = match source {
        Source::Parked => {
            let filter = for_operator(meaning)?;
            (state.inner.store.count(&filter).await?, state.inner.store.next_seq().0)
        }
        Source::History => {
            let log = replays.history(&meaning)?;
            let newest = *log.newest.borrow();
            (count_history(log, meaning, newest).await?, newest.saturating_add(1))
        }
    };
    if dry_run {
        return Ok(Json(WouldReplay { dry_run, messages: count.rows, bytes: count.bytes }).into_response());
    }
    let work = Work {
        source,
        filter: written,
        rate,
        found: count.rows,
        before,
        after: None,
        tried: 0,
        sent: 0,
        events: 0,
        left: 0,
        gone: 0,
        errors: 0,
        tried_before: 0,
    };
    let replays = replays.clone();
    let begun = async move {
        let replay = replays.book.begin(work.clone(), doing(&caller, "replay.begin", &work)).await?;
        replays.run(&replay);
        Ok(said(&replay))
    };
    let said = state.seen_through(begun).await?;
    let location = format!("/v1/replays/{}", said.id);
    Ok((StatusCode::CREATED, [(LOCATION, location)], Json(said)).into_response())
}

fn doing<'a>(caller: &'a Caller, act: &'static str, work: &Work) -> Doing<'a> {
    let Work { source, filter, rate, found, sent, .. } = work;
    let told =
        serde_json::json!({"source": source, "filter": filter, "rate": rate, "found": found, "sent": sent});
    let account = filter.account.as_deref().map(AccountId::new);
    Doing { caller, act, account, told: told.to_string() }
}

/// Only what waits for the operator; where no reason is named, all of that.
fn for_operator(mut filter: Filter) -> Result<Filter, Problem> {
    let waits = |kind: &Kind| kind.waits_for() == WaitsFor::Operator;
    if filter.kinds.is_empty() {
        filter.kinds = Kind::ALL.into_iter().filter(waits).collect();
    } else if let Some(kind) = filter.kinds.iter().find(|kind| !waits(kind)) {
        let why = format!("what is {} waits for the bus and is drained by itself", kind.as_str());
        return Err(Problem::unprocessable(why));
    }
    Ok(filter)
}

#[derive(Serialize, ToSchema)]
#[schema(as = ReplayList)]
struct List {
    replays: Vec<Said>,
}

/// The last replays, newest first.
#[utoipa::path(get, path = "/v1/replays", operation_id = "listReplays", tag = "replays",
    responses((status = 200, body = List)))]
async fn list(State(state): State<AdminState>) -> Json<List> {
    Json(List { replays: state.inner.replays.book.list().iter().map(|replay| said(replay)).collect() })
}

/// One replay, and how far it is.
#[utoipa::path(get, path = "/v1/replays/{id}", operation_id = "showReplay", tag = "replays",
    params(("id" = String, Path, description = "The replay's id")),
    responses((status = 200, body = Said),
        (status = 404, description = "No such replay")))]
async fn show(State(state): State<AdminState>, Path(id): Path<String>) -> Result<Json<Said>, Problem> {
    state.inner.replays.book.find(&id).map(|replay| Json(said(&replay)))
}

/// Cancels a replay: what is left stays parked.
#[utoipa::path(delete, path = "/v1/replays/{id}", operation_id = "cancelReplay", tag = "replays",
    params(("id" = String, Path, description = "The replay's id")),
    responses((status = 200, body = Said),
        (status = 404, description = "No such replay")))]
async fn cancel(
    State(state): State<AdminState>,
    Path(id): Path<String>,
    caller: Caller,
) -> Result<Json<Said>, Problem> {
    let replays = state.inner.replays.clone();
    let replay = replays.book.find(&id)?;
    let cancelling = async move {
        let work = replay.now().work;
        replays.book.cancel(&replay, doing(&caller, "replay.cancel", &work)).await?;
        Ok(said(&replay))
    };
    state.seen_through(cancelling).await.map(Json)
}

fn said(replay: &Replay) -> Said {
    let Job { id, state, error, began_at, ended_at, work } = replay.now();
    let seconds = replay.since.elapsed().as_secs_f64().max(0.001);
    let now = work.tried.saturating_sub(work.tried_before) as f64;
    let per_second = if state == Phase::Running { now / seconds } else { 0.0 };
    Said {
        id,
        source: work.source,
        state,
        filter: work.filter,
        rate: work.rate,
        found: work.found,
        tried: work.tried,
        remaining: work.found.saturating_sub(work.tried),
        per_second: (per_second * 10.0).round() / 10.0,
        sent: work.sent,
        events: work.events,
        left: work.left,
        gone: work.gone,
        errors: work.errors,
        error,
        began_at: time_text(began_at),
        ended_at: ended_at.map(time_text),
    }
}

impl Replays {
    pub(super) fn new(
        again: Again,
        log: Option<LocalLog>,
        tracker: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let book = Arc::new(Book::new(again.store.clone(), "replay", stop));
        Self { again, log, book, tracker }
    }

    /// The local bus's log, where a filter can be asked of it.
    fn history(&self, filter: &Filter) -> Result<&LocalLog, Problem> {
        if !filter.kinds.is_empty() || filter.error.is_some() {
            return Err(Problem::unprocessable("delivered events have neither a reason nor an error"));
        }
        self.log.as_ref().ok_or_else(|| {
            Problem::unprocessable(
                "only the local bus has a history here: read a Kafka topic or a JetStream again from an earlier place",
            )
        })
    }

    /// Goes on with what a restart interrupted.
    pub(super) async fn resume(&self) {
        for replay in self.book.resume().await {
            {
                let mut job = replay.job.lock();
                job.work.tried_before = job.work.tried;
            }
            self.run(&replay);
        }
    }

    fn run(&self, replay: &Arc<Replay>) {
        let run = Run { replays: self.clone(), replay: Arc::clone(replay) };
        self.tracker.spawn(run.through());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::{RawReason, Reason};

    #[test]
    fn a_replay_is_of_what_waits_for_the_operator() {
        let all = for_operator(Filter::default()).unwrap();
        let expected = [
            Kind::Event(Reason::Unfit),
            Kind::Raw(RawReason::Unrecognized),
            Kind::Raw(RawReason::Undecodable),
            Kind::Raw(RawReason::NotJson),
        ];
        assert_eq!(all.kinds, expected);
        let one = Filter { kinds: vec![Kind::Raw(RawReason::NotJson)], ..Filter::default() };
        assert_eq!(for_operator(one.clone()).unwrap(), one);
        let bus = Filter { kinds: vec![Kind::Event(Reason::Refused)], ..Filter::default() };
        assert_eq!(for_operator(bus).unwrap_err().status().as_u16(), 422);
    }
}
