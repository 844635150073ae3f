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
use super::snapshot::Snapshot;
use crate::config::{self, PollApi};
use crate::deliver::counts::Reading;
use crate::provider::PullApi;

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
    succeeded: u64,
    failed: u64,
    failed_in_a_row: u64,
    last_success: Option<String>,
    fetched_until: Option<String>,
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
    let snapshot = state.snapshot();
    let accounts = state.inner.accounts.iter().map(|account| Account::of(account, &snapshot)).collect();
    Json(List { accounts })
}

/// One account, and how it does.
#[utoipa::path(get, path = "/v1/accounts/{id}", operation_id = "showAccount", tag = "accounts",
    params(("id" = String, Path, description = "The account's id")),
    responses((status = 200, body = Account), (status = 404, description = "No such account")))]
async fn show(State(state): State<AdminState>, Path(id): Path<String>) -> Result<Json<Account>, Problem> {
    let account = state.inner.accounts.iter().find(|account| account.id.as_str() == id);
    let account = account.ok_or_else(|| Problem::not_found("no account with that id is configured"))?;
    Ok(Json(Account::of(account, &state.snapshot())))
}

impl Account {
    fn of(account: &config::Account, snapshot: &Snapshot) -> Self {
        Self {
            id: account.id.as_str().to_owned(),
            provider: account.provider.as_str(),
            events: Events::of(account, snapshot),
            webhook: account.webhook.as_ref().map(|_| Webhook::of(account, snapshot)),
            feeds: account.poll.iter().flat_map(|poll| feeds(account, poll, snapshot)).collect(),
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

fn feeds(account: &config::Account, poll: &config::Poll, snapshot: &Snapshot) -> Vec<Feed> {
    let (api, name) = match poll.api {
        PollApi::V2 { .. } => (PullApi::V2, "v2"),
        PollApi::V3 { .. } => (PullApi::V3, "v3"),
    };
    let feed = |(feed, every): &(config::Feed, std::time::Duration)| {
        let reading = snapshot
            .feeds
            .iter()
            .find(|reading| reading.account == account.id && reading.api == api && reading.feed == *feed);
        Feed {
            api: name,
            feed: feed.as_str(),
            every_seconds: every.as_secs_f64(),
            succeeded: reading.map_or(0, |reading| reading.succeeded),
            failed: reading.map_or(0, |reading| reading.failed),
            failed_in_a_row: reading.map_or(0, |reading| reading.failed_in_a_row),
            last_success: reading.and_then(|reading| reading.last_success).map(time_text),
            fetched_until: reading.and_then(|reading| reading.cursor).map(time_text),
        }
    };
    poll.feeds.iter().map(feed).collect()
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
