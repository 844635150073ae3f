//! `/v1/replays`: parked messages that wait for the operator, sent again. An event goes back to the end of its lane; raw
//! bytes are decoded again, as of the time of their receipt, and leave the store once they are understood. What waits for
//! the bus needs no replay: the drain carries it. Replays live in memory: a restart ends them, and loses nothing.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse as _, Response};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::AdminState;
use super::filter::{Written, time_text};
use super::problem::{Problem, Sent};
use crate::clock;
use crate::deliver::lanes::Lanes;
use crate::event::Millis;
use crate::intake::accept::{Acceptance, Receipt, Refusal};
use crate::replay::{Filter, Kind, ParkError, Parked, ParkedRaw, Seq, Store, Stored, WaitsFor};

/// Replays that are remembered.
const REMEMBERED: usize = 100;
/// Replays that run at once.
const RUNNING: usize = 4;
/// Messages read at once.
const PAGE: usize = 100;

type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// How one parked message is sent again.
#[derive(Clone)]
pub struct Again {
    /// Puts an event at the end of its lane; the row that is there now goes once that is on disk.
    pub event: Arc<dyn Fn(Parked) -> Work<Result<(), ParkError>> + Send + Sync>,
    /// Decodes and delivers raw bytes.
    pub raw: Arc<dyn Fn(ParkedRaw) -> Work<Result<Receipt, Refusal>> + Send + Sync>,
}

impl Again {
    /// By the running parts.
    #[must_use]
    pub fn new(store: Store, lanes: Arc<Lanes>, acceptance: Acceptance) -> Self {
        let event =
            move |parked: Parked| -> Work<_> { Box::pin(requeue(store.clone(), Arc::clone(&lanes), parked)) };
        let raw = move |raw: ParkedRaw| -> Work<_> {
            let acceptance = acceptance.clone();
            Box::pin(async move { acceptance.again(raw).await })
        };
        Self { event: Arc::new(event), raw: Arc::new(raw) }
    }
}

async fn requeue(store: Store, lanes: Arc<Lanes>, parked: Parked) -> Result<(), ParkError> {
    let old = parked.seq;
    let (tell, told) = oneshot::channel();
    // Whoever waits may have given up: then both rows stay, and the event is published twice with one id.
    let done = Box::new(move |kept: Result<(), ParkError>| tell.send(kept).unwrap_or_default());
    lanes.requeue(parked, done)?;
    let kept = told.await.unwrap_or(Err(ParkError::Closed));
    if kept.is_ok() {
        store.delete(vec![old]);
    }
    kept
}

pub(super) fn routes() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().routes(routes!(begin, list)).routes(routes!(show, cancel))
}

/// The replays of this process.
pub(super) struct Replays {
    store: Store,
    again: Again,
    tracker: TaskTracker,
    stop: CancellationToken,
    known: Mutex<VecDeque<Arc<Replay>>>,
}

struct Replay {
    id: Uuid,
    filter: Written,
    rate: Option<u32>,
    found: u64,
    began_at: Millis,
    cancelled: CancellationToken,
    progress: Mutex<Progress>,
}

#[derive(Debug, Clone, Default)]
struct Progress {
    state: Phase,
    tried: u64,
    sent: u64,
    events: u64,
    left: u64,
    error: Option<String>,
    ended_at: Option<Millis>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ReplayState)]
enum Phase {
    #[default]
    Running,
    Done,
    Cancelled,
    Failed,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Replay)]
struct Said {
    id: String,
    state: Phase,
    filter: Written,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<u32>,
    /// Messages that the filter asked for at the beginning.
    found: u64,
    /// Those that were taken in hand.
    tried: u64,
    /// Those that left: back in their lanes, or understood.
    sent: u64,
    /// Events that came of raw ones.
    events: u64,
    /// Those that stay, for they are still not understood.
    left: u64,
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
    account: Option<String>,
    r#type: Option<String>,
    subject: Option<String>,
    reason: Option<Reasons>,
    from: Option<String>,
    until: Option<String>,
    #[serde(default)]
    dry_run: bool,
    /// Messages a second.
    rate: Option<u32>,
}

/// One text with commas, or a list.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
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

/// Begins a replay, or says what it would send.
#[utoipa::path(post, path = "/v1/replays", operation_id = "beginReplay", tag = "replays", request_body = BeginAsked,
    responses(
        (status = 200, description = "A dry run's count", body = WouldReplay),
        (status = 201, description = "It runs", body = Said),
        (status = 409, description = "As many run already as may"),
    ))]
async fn begin(State(state): State<AdminState>, Sent(asked): Sent<BeginAsked>) -> Result<Response, Problem> {
    let BeginAsked { account, r#type, subject, reason, from, until, dry_run, rate } = asked;
    let reason = reason.map(|reason| match reason {
        Reasons::Text(text) => text,
        Reasons::List(list) => list.join(","),
    });
    let written = Written { account, event_type: r#type, subject, reason, from, until };
    let filter = for_operator(written.meaning()?)?;
    if rate == Some(0) {
        return Err(Problem::unprocessable("rate is in messages a second, at least 1"));
    }
    let count = state.inner.store.count(&filter).await?;
    if dry_run {
        return Ok(Json(WouldReplay { dry_run, messages: count.rows, bytes: count.bytes }).into_response());
    }
    let said = state.inner.replays.begin(written, filter, rate, count.rows)?.said();
    let location = format!("/v1/replays/{}", said.id);
    Ok((StatusCode::CREATED, [(LOCATION, location)], Json(said)).into_response())
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

/// The replays of this process, newest first.
#[utoipa::path(get, path = "/v1/replays", operation_id = "listReplays", tag = "replays",
    responses((status = 200, body = List)))]
async fn list(State(state): State<AdminState>) -> Json<List> {
    let replays = state.inner.replays.known.lock().iter().rev().map(|replay| replay.said()).collect();
    Json(List { replays })
}

/// One replay, and how far it is.
#[utoipa::path(get, path = "/v1/replays/{id}", operation_id = "showReplay", tag = "replays",
    params(("id" = String, Path, description = "The replay's id")),
    responses((status = 200, body = Said), (status = 404, description = "No such replay")))]
async fn show(State(state): State<AdminState>, Path(id): Path<String>) -> Result<Json<Said>, Problem> {
    state.inner.replays.find(&id).map(|replay| Json(replay.said()))
}

/// Cancels a replay: what is left stays parked.
#[utoipa::path(delete, path = "/v1/replays/{id}", operation_id = "cancelReplay", tag = "replays",
    params(("id" = String, Path, description = "The replay's id")),
    responses((status = 200, body = Said), (status = 404, description = "No such replay")))]
async fn cancel(State(state): State<AdminState>, Path(id): Path<String>) -> Result<Json<Said>, Problem> {
    let replay = state.inner.replays.find(&id)?;
    replay.cancelled.cancel();
    replay.ended(Phase::Cancelled, None);
    Ok(Json(replay.said()))
}

impl Replays {
    pub(super) const fn new(
        store: Store,
        again: Again,
        tracker: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        Self { store, again, tracker, stop, known: Mutex::new(VecDeque::new()) }
    }

    fn find(&self, id: &str) -> Result<Arc<Replay>, Problem> {
        let known = self.known.lock();
        let found = id.parse::<Uuid>().ok().and_then(|id| known.iter().find(|replay| replay.id == id));
        found
            .cloned()
            .ok_or_else(|| Problem::not_found("no such replay: they are forgotten when the process restarts"))
    }

    fn begin(
        &self,
        written: Written,
        filter: Filter,
        rate: Option<u32>,
        found: u64,
    ) -> Result<Arc<Replay>, Problem> {
        let replay = Arc::new(Replay {
            id: Uuid::now_v7(),
            filter: written,
            rate,
            found,
            began_at: clock::now(),
            cancelled: self.stop.child_token(),
            progress: Mutex::default(),
        });
        {
            let mut known = self.known.lock();
            if known.iter().filter(|replay| replay.is_running()).count() >= RUNNING {
                let why = format!("{RUNNING} replays run already: wait for one, or cancel one");
                return Err(Problem::new(StatusCode::CONFLICT, why));
            }
            if known.len() >= REMEMBERED
                && let Some(oldest) = known.iter().position(|replay| !replay.is_running())
            {
                known.remove(oldest);
            }
            known.push_back(Arc::clone(&replay));
        }
        tracing::info!(replay.id = %replay.id, messages = found, "replay.began");
        let run = Run {
            store: self.store.clone(),
            again: self.again.clone(),
            filter,
            // Rows that come later, those of the replay itself among them, are not part of it.
            before: self.store.next_seq(),
            replay: Arc::clone(&replay),
        };
        self.tracker.spawn(run.through());
        Ok(replay)
    }
}

impl Replay {
    fn is_running(&self) -> bool {
        self.progress.lock().state == Phase::Running
    }

    /// The first end counts.
    fn ended(&self, state: Phase, error: Option<String>) {
        let mut progress = self.progress.lock();
        if progress.state == Phase::Running {
            progress.state = state;
            progress.error = error;
            progress.ended_at = Some(clock::now());
            let (id, sent, left) = (self.id, progress.sent, progress.left);
            tracing::info!(replay.id = %id, replay.state = ?state, sent, left, "replay.ended");
        }
    }

    fn said(&self) -> Said {
        let progress = self.progress.lock().clone();
        Said {
            id: self.id.to_string(),
            state: progress.state,
            filter: self.filter.clone(),
            rate: self.rate,
            found: self.found,
            tried: progress.tried,
            sent: progress.sent,
            events: progress.events,
            left: progress.left,
            error: progress.error,
            began_at: time_text(self.began_at),
            ended_at: progress.ended_at.map(time_text),
        }
    }
}

/// One replay at work.
struct Run {
    store: Store,
    again: Again,
    filter: Filter,
    before: Seq,
    replay: Arc<Replay>,
}

/// What became of one message.
enum Fate {
    Sent { events: u64 },
    Left,
}

impl Run {
    async fn through(self) {
        match self.work().await {
            Ok(state) => self.replay.ended(state, None),
            Err(error) => self.replay.ended(Phase::Failed, Some(error)),
        }
    }

    /// Is cancelled between two messages only: one that was begun is seen through.
    async fn work(&self) -> Result<Phase, String> {
        let cancelled = &self.replay.cancelled;
        let pause = self.replay.rate.map(|rate| Duration::from_secs(1) / rate);
        let mut due = Instant::now();
        let mut after = None;
        loop {
            let page = self.store.read(&self.filter, after, PAGE).await.map_err(|error| error.to_string())?;
            for stored in page.rows {
                if stored.seq() >= self.before {
                    return Ok(Phase::Done);
                }
                if let Some(pause) = pause {
                    cancelled.run_until_cancelled(sleep_until(due)).await;
                    due = due.max(Instant::now()) + pause;
                }
                if cancelled.is_cancelled() {
                    return Ok(Phase::Cancelled);
                }
                let fate = self.once(stored).await?;
                let mut progress = self.replay.progress.lock();
                progress.tried += 1;
                match fate {
                    Fate::Sent { events } => {
                        progress.sent += 1;
                        progress.events += events;
                    }
                    Fate::Left => progress.left += 1,
                }
            }
            after = page.next;
            if after.is_none_or(|after| after >= self.before) {
                return Ok(Phase::Done);
            }
        }
    }

    async fn once(&self, stored: Stored) -> Result<Fate, String> {
        match stored {
            Stored::Event(parked) => match (self.again.event)(parked).await {
                Ok(()) => Ok(Fate::Sent { events: 0 }),
                Err(error) => Err(error.to_string()),
            },
            Stored::Raw(seq, raw) => match (self.again.raw)(raw).await {
                Ok(receipt) if receipt.unrecognized == 0 && receipt.undecodable == 0 => {
                    self.store.delete(vec![seq]);
                    Ok(Fate::Sent { events: receipt.events })
                }
                Ok(_) | Err(Refusal::NotJson { .. } | Refusal::Empty | Refusal::TooMany(_)) => Ok(Fate::Left),
                Err(refusal @ (Refusal::QuotaSpent { .. } | Refusal::NotKept { .. } | Refusal::Stopping)) => {
                    Err(refusal.to_string())
                }
            },
        }
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
