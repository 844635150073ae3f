//! `/v1/accounts`: the configured accounts and how they do. Names of secrets' sources are not told, let alone secrets.

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AdminState;
use super::filter::time_text;
use super::problem::Problem;
use super::snapshot::{BusState, Snapshot};
use crate::config;
use crate::deliver::counts::Reading;
use crate::event::Millis;
use crate::intake::poll::desk::Steered;

pub(super) fn routes() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show))
}

#[derive(Serialize, ToSchema)]
#[schema(as = AccountList)]
struct List {
    accounts: Vec<Account>,
}

#[derive(Serialize, ToSchema)]
struct Account {
    id: String,
    provider: &'static str,
    /// Whether its polls are paused as a whole.
    paused: bool,
    bus: Bus,
    events: Events,
    webhook: Option<Webhook>,
    feeds: Vec<Feed>,
    parked: Parked,
    limits: Limits,
}

#[derive(Serialize, ToSchema)]
#[schema(as = AccountEvents)]
struct Events {
    received: u64,
    delivered: u64,
    parked: u64,
    duplicates: u64,
    rejected: u64,
    in_flight: u64,
}

#[derive(Serialize, ToSchema)]
#[schema(as = AccountWebhook)]
struct Webhook {
    path: String,
    taken: u64,
    unauthorized: u64,
    refused: u64,
    hang_ups: u64,
    last_taken: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = AccountFeed)]
struct Feed {
    api: &'static str,
    feed: &'static str,
    every_seconds: f64,
    /// What it is doing.
    doing: &'static str,
    /// Whether an operator paused it, or the account.
    paused: bool,
    /// Whether its host is asked less, for half of its calls or more failed.
    host_slowed: bool,
    succeeded: u64,
    failed: u64,
    failed_in_a_row: u64,
    calls: u64,
    rows: u64,
    /// Rows of which not everything became an event by rule: trips that are not over, trackers that never reported, times and ids that
    /// cannot be read.
    skipped: u64,
    last_success: Option<String>,
    last_error: Option<LastError>,
    /// The cursor: up to here everything was fetched.
    fetched_until: Option<String>,
    /// How far the cursor is behind now.
    lag_seconds: Option<u64>,
}

#[derive(Serialize, ToSchema)]
struct LastError {
    at: String,
    error: String,
}

/// The bus, as it concerns everybody.
#[derive(Serialize, ToSchema)]
#[schema(as = AccountBus)]
struct Bus {
    available: bool,
    /// Events are parked at once, until a probe succeeds.
    breaker_open: bool,
}

#[derive(Serialize, ToSchema)]
#[schema(as = AccountParked)]
struct Parked {
    messages: u64,
    bytes: u64,
    reasons: Vec<ParkedFor>,
}

#[derive(Serialize, ToSchema)]
struct ParkedFor {
    reason: &'static str,
    messages: u64,
    bytes: u64,
}

#[derive(Serialize, ToSchema)]
#[schema(as = AccountLimits)]
struct Limits {
    in_flight_bytes: u64,
    parked_bytes: u64,
    rate: Option<u32>,
}

/// Every account, and how it does.
#[utoipa::path(get, path = "/v1/accounts", operation_id = "listAccounts", tag = "accounts",
    responses((status = 200, body = List)))]
async fn list(State(state): State<AdminState>) -> Json<List> {
    let snapshot = state.snapshot().await;
    let mut accounts = Vec::new();
    for account in state.accounts().iter() {
        let paused = state.inner.desk.is_paused(&account.id).await;
        accounts.push(Account::of(account, paused, &snapshot, &state.inner.desk.feeds()));
    }
    Json(List { accounts })
}

/// One account, and how it does.
#[utoipa::path(get, path = "/v1/accounts/{id}", operation_id = "showAccount", tag = "accounts",
    params(("id" = String, Path, description = "The account's id", example = "acme")),
    responses((status = 200, body = Account), (status = 404, description = "No such account")))]
async fn show(State(state): State<AdminState>, Path(id): Path<String>) -> Result<Json<Account>, Problem> {
    let account = state.account(&id)?;
    let paused = state.inner.desk.is_paused(&account.id).await;
    let snapshot = state.snapshot().await;
    Ok(Json(Account::of(&account, paused, &snapshot, &state.inner.desk.feeds())))
}

impl Account {
    fn of(account: &config::Account, paused: bool, snapshot: &Snapshot, feeds: &[Steered]) -> Self {
        let of_poll = |poll| Feed::all(account, poll, feeds, snapshot.now);
        Self {
            id: account.id.as_str().to_owned(),
            provider: account.provider.as_str(),
            paused,
            bus: Bus { available: snapshot.bus == BusState::Available, breaker_open: snapshot.breaker_open },
            events: Events::of(account, snapshot),
            webhook: account.webhook.as_ref().map(|_| Webhook::of(account, snapshot)),
            feeds: account.poll.iter().flat_map(of_poll).collect(),
            parked: Parked::of(account, snapshot),
            limits: Limits {
                in_flight_bytes: account.limits.in_flight,
                parked_bytes: account.limits.parked,
                rate: account.limits.rate,
            },
        }
    }
}

impl Events {
    fn of(account: &config::Account, snapshot: &Snapshot) -> Self {
        let own = snapshot.events.iter().filter(|(id, ..)| *id == account.id);
        let sum = own.fold(Reading::default(), |sum, (.., reading)| sum.plus(reading));
        let Reading { received, delivered, parked, duplicates, rejected } = sum;
        Self { received, delivered, parked, duplicates, rejected, in_flight: sum.in_flight() }
    }
}

impl Webhook {
    fn of(account: &config::Account, snapshot: &Snapshot) -> Self {
        let reading = snapshot.webhooks.iter().find(|reading| reading.account == account.id.as_str());
        let answers = reading.map(|reading| reading.answers.as_slice()).unwrap_or_default();
        let sum = |wanted: fn(u16) -> bool| {
            answers.iter().filter(|(status, _)| wanted(*status)).map(|(_, count)| count).sum()
        };
        Self {
            path: format!("/webhooks/{}", account.id),
            taken: sum(|status| status == 201),
            unauthorized: sum(|status| status == 401),
            refused: sum(|status| status >= 400 && status != 401),
            hang_ups: reading.map_or(0, |reading| reading.hang_ups),
            last_taken: reading.and_then(|reading| reading.last_taken).map(time_text),
        }
    }
}

impl Feed {
    fn all(account: &config::Account, poll: &config::Poll, feeds: &[Steered], now: Millis) -> Vec<Self> {
        let api = poll.api.pulls();
        let steered = |feed: config::Feed| {
            let is = |steered: &&Steered| {
                let name = &steered.name;
                name.account == account.id && name.api == api && name.feed == feed
            };
            feeds.iter().find(is)
        };
        let every = poll.feeds.iter();
        every.filter_map(|(feed, every)| Some(Self::of(steered(*feed)?, every.as_secs_f64(), now))).collect()
    }

    fn of(steered: &Steered, every_seconds: f64, now: Millis) -> Self {
        let Steered { name, status, host, steering, .. } = steered;
        let status = status.lock().clone();
        let failed = status.failed.into_iter().chain(status.sweep_failed).max_by_key(|(at, _)| *at);
        let lag = |at: Millis| u64::try_from(now.0.saturating_sub(at.0) / 1_000).unwrap_or(0);
        Self {
            api: name.api.as_str(),
            feed: name.feed.as_str(),
            every_seconds,
            doing: status.doing.as_str(),
            paused: steering.is_paused(),
            host_slowed: host.is_slowed(),
            succeeded: status.succeeded_polls,
            failed: status.failed_polls,
            failed_in_a_row: u64::from(status.failed_in_a_row),
            calls: status.calls,
            rows: status.rows,
            skipped: status.skipped,
            last_success: status.succeeded_at.map(time_text),
            last_error: failed.map(|(at, error)| LastError { at: time_text(at), error }),
            fetched_until: status.cursor.position.map(time_text),
            lag_seconds: status.cursor.position.map(lag),
        }
    }
}

impl Parked {
    fn of(account: &config::Account, snapshot: &Snapshot) -> Self {
        let own = snapshot.store.depths.iter().filter(|(id, _, count)| *id == account.id && count.rows > 0);
        let reasons: Vec<ParkedFor> = own
            .map(|(_, kind, count)| ParkedFor {
                reason: kind.as_str(),
                messages: count.rows,
                bytes: count.bytes,
            })
            .collect();
        Self {
            messages: reasons.iter().map(|reason| reason.messages).sum(),
            bytes: reasons.iter().map(|reason| reason.bytes).sum(),
            reasons,
        }
    }
}
