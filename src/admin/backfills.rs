//! `/v1/backfills`: stretches of the past, fetched from a provider's pull API at an operator's wish. What was published before keeps its
//! id and is a duplicate, unless it is to be published again. A backfill is a job: what it says is done is durable, and a
//! restart, also after kill -9, goes on from there. It says what it costs before it begins.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AdminState;
use super::access::Caller;
use super::filter::{time, time_text};
use super::jobs::{Book, Doing, Held, Job, Phase};
use super::problem::{Problem, Sent};
use crate::clock;
use crate::event::{AccountId, Millis};
use crate::intake::accept::{Acceptance, Errand, Pulled};
use crate::intake::poll::backfill::{self, Backfill, Cost, Door, Doors, Told};
use crate::intake::poll::plan::{SETTLE, Window};
use crate::provider::{Feed, PullApi};
use crate::replay::Store;

pub(super) fn routes() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().routes(routes!(begin)).routes(routes!(list)).routes(routes!(show, cancel))
}

/// A backfill's work, as it is written down.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Work {
    account: String,
    api: String,
    feed: String,
    from: Millis,
    to: Millis,
    republish: bool,
    /// What it was said to cost.
    calls_at_least: u64,
    /// Everything before is durable.
    done_until: Millis,
    windows: u64,
    calls: u64,
    rows: u64,
    delivered: u64,
    parked: u64,
    duplicates: u64,
    errors: u64,
    last_error: Option<String>,
}

/// What backfills work with.
#[derive(Clone)]
pub struct Past {
    /// The APIs of all accounts, as they are configured now.
    pub doors: Doors,
    /// Where rows go.
    pub acceptance: Acceptance,
    /// While the bus is not, nothing is fetched.
    pub bus_available: watch::Receiver<bool>,
    /// Ends them with the polls: nothing more is taken then.
    pub stop: CancellationToken,
}

/// The backfills that are known. Cheap to clone.
#[derive(Clone)]
pub(super) struct Backfills {
    past: Past,
    book: Arc<Book<Work>>,
    tracker: TaskTracker,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = BackfillAsked)]
struct BeginAsked {
    /// `v2` or `v3`; may be left out where the account has one.
    api: Option<String>,
    feed: String,
    /// RFC 3339.
    from: String,
    /// RFC 3339; now, where it is left out.
    to: Option<String>,
    /// Publish again what was published before.
    #[serde(default)]
    republish: bool,
    #[serde(default)]
    dry_run: bool,
}

/// What a backfill would cost: more, where a window does not fit into one answer.
#[derive(Serialize, ToSchema)]
#[schema(as = BackfillCost)]
struct WouldFetch {
    dry_run: bool,
    calls_at_least: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    calls_a_minute: Option<u32>,
    minutes_at_least: f64,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Backfill)]
struct Said {
    id: String,
    state: Phase,
    account: String,
    api: String,
    feed: String,
    from: String,
    to: String,
    republish: bool,
    calls_at_least: u64,
    /// Everything before it is durable.
    done_until: String,
    /// How much of the stretch is done, from 0 to 1.
    share: f64,
    windows: u64,
    calls: u64,
    rows: u64,
    delivered: u64,
    parked: u64,
    /// Known already, and not published again.
    duplicates: u64,
    /// Windows that were not taken, and asked for again.
    errors: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
    /// Why it was given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    began_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = BackfillList)]
struct List {
    backfills: Vec<Said>,
}

/// Fetches a stretch of the past, or says what it would cost.
#[utoipa::path(post, path = "/v1/accounts/{id}/backfills", operation_id = "beginBackfill", tag = "backfills",
    params(("id" = String, Path, description = "The account's id")),
    request_body = BeginAsked,
    responses((status = 200, description = "A dry run's cost", body = WouldFetch),
        (status = 201, description = "It runs", body = Said),
        (status = 404, description = "No such account or API"),
        (status = 409, description = "As many run already as may")))]
async fn begin(
    State(state): State<AdminState>,
    Path(account): Path<String>,
    caller: Caller,
    Sent(asked): Sent<BeginAsked>,
) -> Result<Response, Problem> {
    let backfills = state.inner.backfills.clone();
    let now = Millis(clock::now().0.saturating_sub(SETTLE));
    let (from, to) =
        (time("from", &asked.from)?, asked.to.as_deref().map(|text| time("to", text)).transpose()?);
    let window = Window { from, to: to.unwrap_or(now) };
    let known = || Feed::ALL.map(Feed::as_str).join(", ");
    let feed = Feed::parse(&asked.feed).ok_or_else(|| {
        Problem::unprocessable(format!("feed {:?} is unknown; there are {}", asked.feed, known()))
    })?;
    let door = backfills.door(&account, asked.api.as_deref(), feed)?;
    let work = Work {
        account,
        api: door.api.as_str().to_owned(),
        feed: feed.as_str().to_owned(),
        from,
        to: window.to,
        republish: asked.republish,
        calls_at_least: 0,
        done_until: from,
        windows: 0,
        calls: 0,
        rows: 0,
        delivered: 0,
        parked: 0,
        duplicates: 0,
        errors: 0,
        last_error: None,
    };
    let backfill = Backfill::new(&backfills.past.doors, &door, feed, window, work.errand())
        .map_err(|no| Problem::unprocessable(format!("{} {}: {no}", work.api, work.feed)))?;
    let Cost { calls, calls_a_minute } = backfill.cost();
    if asked.dry_run {
        let minutes_at_least = calls_a_minute.map_or(0.0, |most| calls as f64 / f64::from(most));
        let said = WouldFetch { dry_run: true, calls_at_least: calls, calls_a_minute, minutes_at_least };
        return Ok(Json(said).into_response());
    }
    let work = Work { calls_at_least: calls, ..work };
    let begun = async move {
        let held = backfills.book.begin(work.clone(), doing(&caller, "backfill.begin", &work)).await?;
        backfills.run(&held, backfill);
        Ok(said(&held))
    };
    let said = state.seen_through(begun).await?;
    let location = format!("/v1/backfills/{}", said.id);
    Ok((StatusCode::CREATED, [(LOCATION, location)], Json(said)).into_response())
}

/// The last backfills, newest first.
#[utoipa::path(get, path = "/v1/backfills", operation_id = "listBackfills", tag = "backfills",
    responses((status = 200, body = List)))]
async fn list(State(state): State<AdminState>) -> Json<List> {
    Json(List { backfills: state.inner.backfills.book.list().iter().map(|held| said(held)).collect() })
}

/// One backfill, and how far it is.
#[utoipa::path(get, path = "/v1/backfills/{id}", operation_id = "showBackfill", tag = "backfills",
    params(("id" = String, Path, description = "Its id")),
    responses((status = 200, body = Said),
        (status = 404, description = "No such backfill")))]
async fn show(State(state): State<AdminState>, Path(id): Path<String>) -> Result<Json<Said>, Problem> {
    state.inner.backfills.book.find(&id).map(|held| Json(said(&held)))
}

/// Cancels a backfill: what it has fetched stays.
#[utoipa::path(delete, path = "/v1/backfills/{id}", operation_id = "cancelBackfill", tag = "backfills",
    params(("id" = String, Path, description = "Its id")),
    responses((status = 200, body = Said),
        (status = 404, description = "No such backfill")))]
async fn cancel(
    State(state): State<AdminState>,
    Path(id): Path<String>,
    caller: Caller,
) -> Result<Json<Said>, Problem> {
    let backfills = state.inner.backfills.clone();
    let held = backfills.book.find(&id)?;
    let cancelling = async move {
        let work = held.now().work;
        backfills.book.cancel(&held, doing(&caller, "backfill.cancel", &work)).await?;
        Ok(said(&held))
    };
    state.seen_through(cancelling).await.map(Json)
}

fn doing<'a>(caller: &'a Caller, act: &'static str, work: &Work) -> Doing<'a> {
    let Work { api, feed, republish, calls_at_least, .. } = work;
    let told = serde_json::json!({"api": api, "feed": feed, "from": time_text(work.from), "to": time_text(work.to),
        "republish": republish, "calls_at_least": calls_at_least});
    Doing { caller, act, account: Some(AccountId::new(&work.account)), told: told.to_string() }
}

fn said(held: &Held<Work>) -> Said {
    let Job { id, state, error, began_at, ended_at, work } = held.now();
    let share = (work.done_until.0 - work.from.0) as f64 / (work.to.0 - work.from.0).max(1) as f64;
    Said {
        id,
        state,
        account: work.account,
        api: work.api,
        feed: work.feed,
        from: time_text(work.from),
        to: time_text(work.to),
        republish: work.republish,
        calls_at_least: work.calls_at_least,
        done_until: time_text(work.done_until),
        share: (share * 1_000.0).round() / 1_000.0,
        windows: work.windows,
        calls: work.calls,
        rows: work.rows,
        delivered: work.delivered,
        parked: work.parked,
        duplicates: work.duplicates,
        errors: work.errors,
        last_error: work.last_error,
        error,
        began_at: time_text(began_at),
        ended_at: ended_at.map(time_text),
    }
}

impl Work {
    const fn errand(&self) -> Errand {
        if self.republish { Errand::Republish } else { Errand::Backfill }
    }
}

impl Backfills {
    pub(super) fn new(store: Store, past: Past, tracker: TaskTracker) -> Self {
        let book = Arc::new(Book::new(store, "backfill", past.stop.clone()));
        Self { past, book, tracker }
    }

    fn door(&self, account: &str, api: Option<&str>, feed: Feed) -> Result<Door, Problem> {
        let known = |text| {
            let unknown = || Problem::unprocessable(format!("api {text:?} is unknown: v2 or v3"));
            PullApi::parse(text).ok_or_else(unknown)
        };
        let api = api.map(known).transpose()?;
        let doors = self.past.doors.borrow();
        backfill::door(&doors, account, api, feed).cloned().ok_or_else(|| {
            Problem::not_found(
                "no account with that id and that API is configured: a backfill asks through accounts[].poll",
            )
        })
    }

    /// Goes on with what a restart interrupted.
    pub(super) async fn resume(&self) {
        for held in self.book.resume().await {
            let work = held.now().work;
            // All of it was fetched, and the process ended before that was written down.
            if work.done_until >= work.to {
                self.book.ended(&held, Ok(Phase::Done)).await;
                continue;
            }
            match self.rest(&work) {
                Ok(backfill) => self.run(&held, backfill),
                Err(why) => self.book.ended(&held, Err(why)).await,
            }
        }
    }

    fn rest(&self, work: &Work) -> Result<Backfill, String> {
        let feed = Feed::parse(&work.feed).ok_or("its feed is not known to this version")?;
        let door = self.door(&work.account, Some(&work.api), feed);
        let door = door.map_err(|_| "its account and API are not configured any more".to_owned())?;
        let rest = Window { from: work.done_until, to: work.to };
        Backfill::new(&self.past.doors, &door, feed, rest, work.errand()).map_err(|no| no.to_string())
    }

    fn run(&self, held: &Arc<Held<Work>>, backfill: Backfill) {
        self.tracker.spawn(self.clone().through(Arc::clone(held), backfill));
    }

    async fn through(self, held: Arc<Held<Work>>, mut backfill: Backfill) {
        let work = Box::pin(self.work(&held, &mut backfill));
        let seen = held.cancelled.run_until_cancelled(work).await;
        let how = seen.map_or(Ok(Phase::Cancelled), |worked| worked.map(|()| Phase::Done));
        self.book.ended(&held, how).await;
    }

    async fn work(&self, held: &Arc<Held<Work>>, backfill: &mut Backfill) -> Result<(), String> {
        let (counted, acceptance) = (Arc::clone(held), self.past.acceptance.clone());
        let accept = move |pulled: Pulled| {
            let (counted, acceptance) = (Arc::clone(&counted), acceptance.clone());
            async move {
                let receipt = acceptance.pull(pulled).await?;
                let work = &mut counted.job.lock().work;
                work.delivered += receipt.delivered;
                work.parked += receipt.parked;
                work.duplicates += receipt.duplicates;
                Ok(receipt)
            }
        };
        let told = |told| {
            let work = &mut held.job.lock().work;
            match told {
                Told::Calling => work.calls += 1,
                Told::Rows(rows) => work.rows += rows,
                Told::Failed(why) => {
                    work.errors += 1;
                    work.last_error = Some(why);
                }
            }
        };
        loop {
            let until = backfill.next(&accept, &self.past.bus_available, told).await;
            let Some(until) = until.map_err(|given_up| given_up.to_string())? else { return Ok(()) };
            {
                let work = &mut held.job.lock().work;
                work.windows += 1;
                work.done_until = until;
            }
            // Where it cannot be written down, a restart only fetches more again.
            self.book.save(held).await;
        }
    }
}
