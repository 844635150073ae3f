//! `/v1/parked`: what waits in the replay store. Lists are paged by sequence number; payloads are shown only on request; a
//! discard needs a filter, or says that it means everything. `show` has one message in full, `transfer` takes many out and
//! in, `edit` changes one and sends it again.

mod edit;
mod show;
mod transfer;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AdminState;
use super::access::Caller;
use super::filter::{Filtered, Written, time_text};
use super::problem::{Asked, Problem};
use crate::clock;
use crate::event::Millis;
use crate::replay::{Act, Kind, Listed, Seq, WaitsFor, What};

pub(super) use transfer::Transfers;

/// A page, where nobody says.
const PAGE: usize = 100;

pub(super) fn routes() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new()
        .routes(routes!(list, discard))
        .routes(routes!(summary))
        .routes(routes!(transfer::export))
        .routes(routes!(transfer::import))
        .routes(routes!(show::show))
        .routes(routes!(edit::originals))
        .routes(routes!(edit::edit))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListAsked {
    after: Option<u64>,
    limit: Option<usize>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ParkedPage)]
struct Page {
    parked: Vec<Row>,
    /// Go on after it: there may be more, also where this page has few rows or none.
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
    /// What it takes of the store, as summaries, dry runs and limits count it: its payload, and what is kept beside that.
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

/// What waits in the replay store, oldest first, without payloads. A page may have few rows or none, and yet a `next`.
#[utoipa::path(get, path = "/v1/parked", operation_id = "listParked", tag = "parked",
    params(Written, ListAsked),
    responses((status = 200, body = Page)))]
async fn list(
    State(state): State<AdminState>,
    Filtered(filter, asked): Filtered<ListAsked>,
) -> Result<Json<Page>, Problem> {
    let filter = filter.meaning()?;
    let page = state.inner.store.list(&filter, asked.after.map(Seq), asked.limit.unwrap_or(PAGE)).await?;
    let parked = page.rows.into_iter().map(Row::from).collect();
    Ok(Json(Page { parked, next: page.next.map(|seq| seq.0) }))
}

#[derive(Serialize, ToSchema)]
#[schema(as = ParkedSummary)]
struct Summary {
    messages: u64,
    /// What they take of the store.
    bytes: u64,
    /// What waits for the bus, and since when.
    oldest_for_bus: Option<Oldest>,
    /// What waits for the operator, and since when.
    oldest_for_operator: Option<Oldest>,
    reasons: Vec<Waiting>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ParkedOldest)]
struct Oldest {
    /// To the minute.
    parked_at: String,
    age_seconds: i64,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ParkedWaiting)]
struct Waiting {
    account: String,
    reason: &'static str,
    waits_for: &'static str,
    messages: u64,
    /// What they take of the store.
    bytes: u64,
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct SummaryAsked {
    account: Option<String>,
}

/// How much is parked, by account and reason, and since when.
#[utoipa::path(get, path = "/v1/parked/summary", operation_id = "countParked", tag = "parked",
    params(SummaryAsked),
    responses((status = 200, body = Summary)))]
async fn summary(State(state): State<AdminState>, Asked(asked): Asked<SummaryAsked>) -> Json<Summary> {
    let now = clock::now();
    let stats = state.inner.store.stats(now);
    let oldest = |at: Millis| Oldest { parked_at: time_text(at), age_seconds: (now.0 - at.0).max(0) / 1_000 };
    let wanted = |account: &str| asked.account.as_ref().is_none_or(|wanted| wanted == account);
    let depths = stats.depths.iter().filter(|(account, _, count)| wanted(account.as_str()) && count.rows > 0);
    let mut reasons: Vec<Waiting> = depths
        .map(|(account, kind, count)| Waiting {
            account: account.as_str().to_owned(),
            reason: kind.as_str(),
            waits_for: whom(*kind),
            messages: count.rows,
            bytes: count.bytes,
        })
        .collect();
    reasons.sort_by(|a, b| (&a.account, a.reason).cmp(&(&b.account, b.reason)));
    Json(Summary {
        messages: reasons.iter().map(|waiting| waiting.messages).sum(),
        bytes: reasons.iter().map(|waiting| waiting.bytes).sum(),
        oldest_for_bus: stats.oldest_for_bus.map(oldest),
        oldest_for_operator: stats.oldest_for_operator.map(oldest),
        reasons,
    })
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct DiscardAsked {
    #[serde(default)]
    all: bool,
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
    /// What they take of the store.
    bytes: u64,
}

#[derive(Serialize, ToSchema)]
struct Discarded {
    discarded: u64,
    events: u64,
    raw: u64,
}

/// Throws parked messages away, by a filter or all.
#[utoipa::path(delete, path = "/v1/parked", operation_id = "discardParked", tag = "parked",
    params(Written, DiscardAsked),
    responses((status = 200, body = DiscardSaid)))]
async fn discard(
    State(state): State<AdminState>,
    Filtered(written, asked): Filtered<DiscardAsked>,
    caller: Caller,
) -> Result<Response, Problem> {
    let filter = written.meaning()?;
    match (filter.is_everything(), asked.all) {
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
    let count = state.inner.store.count(&filter).await?;
    if asked.dry_run {
        let said = WouldDiscard { dry_run: true, messages: count.rows, bytes: count.bytes };
        return Ok(Json(said).into_response());
    }
    // Before it is done: slices that were thrown away stay gone, whatever becomes of the later ones.
    let act = Act {
        at: clock::now(),
        who: caller.name.to_string(),
        act: "parked.discard",
        account: filter.account.clone(),
        object: written.to_string(),
        before: Some(format!("{{\"messages\":{},\"bytes\":{}}}", count.rows, count.bytes)),
        after: None,
    };
    let store = state.inner.store.clone();
    let discarding = async move {
        store.act(Vec::new(), act).await?;
        let gone = store.discard(&filter).await?;
        tracing::info!(events = gone.events, raw = gone.raw, "parked.discarded");
        Ok(gone)
    };
    let gone = state.seen_through(discarding).await?;
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
