//! The operator's port: the page at `/`, `/healthz`, `/readyz` and `/metrics` for everybody, `/v1` for the operator.
//! Invariants: nothing here decides about events, it asks the store, the lanes and the acceptance; every `/v1` call passes
//! `access`; payloads are shown only on request. `app` fills [`AdminState`]; `status` and `metrics` are pure functions of
//! one [`Snapshot`].

mod access;
mod accounts;
mod audit;
mod backfills;
mod backup;
pub mod console;
mod custom_data;
mod docs;
mod events;
mod filter;
mod jobs;
pub mod metrics;
mod openapi;
mod parked;
mod polls;
mod problem;
mod reload;
mod replays;
mod snapshot;
mod status;
mod throttle;
mod tokens;
mod unasked;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use utoipa_axum::router::OpenApiRouter;

pub use access::{Access, AdminKey};
pub use backfills::Past;
pub use events::{LocalLog, LogRow};
pub use reload::{Reload, ReloadError, Reloaded};
pub use replays::Again;
pub use snapshot::{BusState, FeedReading, Phase, Snapshot, Sources};
pub use status::{Finding, Readiness};

use crate::config;
use crate::enrich::Shelf;
use crate::intake::poll::desk::Desk;
use crate::intake::tokens::Registry;
use crate::replay::Store;
use crate::route::BusKind;
use backfills::Backfills;
use custom_data::CustomData;
use parked::Transfers;
use problem::{Asked, Problem};
use replays::Replays;
use unasked::Takes;

/// How long a look may take: pages end by time, and what is longer comes in pieces.
const LOOK: Duration = Duration::from_secs(15);

/// The configured accounts: others after a reload.
pub type Accounts = Arc<ArcSwap<Vec<config::Account>>>;

/// What the operator's port stands on. Cheap to clone.
#[derive(Clone)]
pub struct AdminState {
    inner: Arc<Inner>,
}

/// The parts of an [`AdminState`].
pub struct Parts {
    /// Who may ask.
    pub access: Access,
    /// The configured accounts.
    pub accounts: Accounts,
    /// How everything does, now.
    pub snapshot: Arc<dyn Fn() -> Snapshot + Send + Sync>,
    /// Reads the configuration again.
    pub reload: Reload,
    /// Feeds that are polled.
    pub desk: Arc<Desk>,
    /// Tokens of webhooks that operators made.
    pub tokens: Arc<Registry>,
    /// What is parked.
    pub store: Store,
    /// The kind of bus, for headers and topics.
    pub kind: BusKind,
    /// What operators say about objects.
    pub shelf: Shelf,
    /// How parked messages are sent again.
    pub again: Again,
    /// What backfills work with.
    pub past: Past,
    /// The local bus's log, where that is the bus.
    pub log: Option<LocalLog>,
    /// Replays run here.
    pub tracker: TaskTracker,
    /// Ends replays and streams.
    pub stop: CancellationToken,
}

struct Inner {
    access: Access,
    accounts: Accounts,
    snapshot: Arc<dyn Fn() -> Snapshot + Send + Sync>,
    reload: Reload,
    desk: Arc<Desk>,
    tokens: Arc<Registry>,
    store: Store,
    kind: BusKind,
    again: Again,
    replays: Replays,
    backfills: Backfills,
    custom_data: CustomData,
    transfers: Transfers,
    tracker: TaskTracker,
    log: Option<events::Streams>,
    backups: Arc<Semaphore>,
    stop: CancellationToken,
}

impl AdminState {
    /// Puts the parts together.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts {
            access,
            accounts,
            snapshot,
            reload,
            desk,
            tokens,
            store,
            kind,
            shelf,
            again,
            past,
            log,
            tracker,
            stop,
        } = parts;
        let custom_data = CustomData::new(store.clone(), shelf);
        let replays = Replays::new(again.clone(), log.clone(), tracker.clone(), stop.clone());
        let backfills = Backfills::new(store.clone(), past, tracker.clone());
        let log = log.map(events::Streams::new);
        let backups = Arc::new(Semaphore::new(1));
        Self {
            inner: Arc::new(Inner {
                access,
                accounts,
                snapshot,
                reload,
                desk,
                tokens,
                store,
                kind,
                again,
                replays,
                backfills,
                custom_data,
                transfers: Transfers::new(),
                log,
                backups,
                tracker,
                stop,
            }),
        }
    }

    /// Goes on with what a restart interrupted.
    pub async fn resume(self) {
        self.inner.replays.resume().await;
        self.inner.backfills.resume().await;
    }

    /// Does something to its end, whatever becomes of the caller.
    async fn seen_through<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Problem>> + Send + 'static,
    ) -> Result<T, Problem> {
        let stopping = || Problem::unavailable("the process is stopping");
        if self.inner.tracker.is_closed() {
            return Err(stopping());
        }
        let (tell, told) = oneshot::channel();
        self.inner.tracker.spawn(async move {
            // The caller may have gone: the work is done all the same.
            tell.send(work.await).ok();
        });
        told.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// Looks at every lane: of a hundred thousand that takes milliseconds, which on a runtime's thread webhooks would wait for.
    async fn snapshot(&self) -> Snapshot {
        let take = Arc::clone(&self.inner.snapshot);
        let taken = tokio::task::spawn_blocking(move || take()).await;
        // The runtime ends: nobody waits any more.
        taken.unwrap_or_else(|_| (self.inner.snapshot)())
    }

    /// The configured accounts, as they are now.
    fn accounts(&self) -> Arc<Vec<config::Account>> {
        self.inner.accounts.load_full()
    }

    /// A configured account.
    fn account(&self, id: &str) -> Result<config::Account, Problem> {
        let accounts = self.accounts();
        let account = accounts.iter().find(|account| account.id.as_str() == id).cloned();
        account.ok_or_else(|| Problem::not_found("no account with that id is configured"))
    }
}

/// What `Access` guards: each part tells its routes, and what they take and answer.
fn guarded() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new()
        .merge(accounts::routes())
        .merge(polls::routes())
        .merge(reload::routes())
        .merge(tokens::routes())
        .merge(audit::routes())
        .merge(backup::routes())
        .merge(custom_data::routes())
        .merge(parked::routes())
        .merge(replays::routes())
        .merge(backfills::routes())
        .merge(events::routes())
}

/// The description of the operator's API: committed as `docs/openapi.json`, answered at `/openapi.json`.
///
/// # Errors
/// Never: it is plain data.
pub fn api() -> serde_json::Result<String> {
    openapi::complete(guarded().into_openapi()).to_pretty_json()
}

/// The operator's routes.
pub fn router(state: AdminState) -> Router {
    let (guarded, api) = guarded().split_for_parts();
    let takes = Arc::new(Takes::of(&api));
    let guarded = guarded.route_layer(middleware::from_fn_with_state(takes, unasked::refuse));
    let guarded = guarded.layer(middleware::from_fn_with_state(state.clone(), guard));
    Router::new()
        .route("/", get(console::page))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readiness))
        .route("/metrics", get(scrape))
        .merge(openapi::page(api))
        .merge(docs::pages())
        .merge(guarded)
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this resource does not take that method")
        })
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "there is no such resource"))
        .with_state(state)
}

async fn guard(State(state): State<AdminState>, mut request: Request, next: Next) -> Response {
    match state.inner.access.admits(&request) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            let mut answer = in_time(request, next).await;
            answer.headers_mut().entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
            answer
        }
        Err(denial) => denial.into_response(),
    }
}

/// A look is given up where the store does not answer; a change is seen through.
async fn in_time(request: Request, next: Next) -> Response {
    if request.method() != Method::GET {
        return next.run(request).await;
    }
    let late = |_| Problem::unavailable("the store does not answer: see /readyz?verbose").into_response();
    timeout(LOOK, next.run(request)).await.unwrap_or_else(late)
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadinessAsked {
    verbose: Option<String>,
}

#[derive(Serialize)]
struct ReadinessSaid<'a> {
    ready: bool,
    phase: &'static str,
    findings: &'a [Finding],
}

async fn readiness(State(state): State<AdminState>, Asked(asked): Asked<ReadinessAsked>) -> Response {
    let snapshot = state.snapshot().await;
    let readiness = Readiness::of(&snapshot, &state.accounts());
    let status = if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if asked.verbose.is_some_and(|verbose| verbose != "false" && verbose != "0") {
        let ready = readiness.is_ready();
        let said = ReadinessSaid { ready, phase: snapshot.phase.as_str(), findings: &readiness.findings };
        return (status, Json(said)).into_response();
    }
    let said = readiness.not_ready.map_or_else(|| "ok\n".to_owned(), |why| format!("not ready: {why}\n"));
    (status, said).into_response()
}

async fn scrape(State(state): State<AdminState>) -> Response {
    match metrics::render(&state.snapshot().await, &state.accounts()) {
        Ok(text) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(_) => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be written")
            .into_response(),
    }
}
