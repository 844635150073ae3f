//! `/v1/audit`: what operators did, newest first. Each mutation records its act through [`Store::act`](crate::replay::Store::act)
//! in the transaction of its change; this only reads.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AdminState;
use super::filter::time_text;
use super::problem::{Asked, Problem};
use crate::event::AccountId;
use crate::replay::{Acts, Recorded};

/// Acts in one answer, where the query says nothing.
const PAGE: usize = 100;

pub(super) fn routes() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().routes(routes!(list))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Query {
    /// An account's id.
    account: Option<String>,
    /// A kind of act, such as `token.create`; `token.` is every act on tokens.
    act: Option<String>,
    /// Only acts before this place.
    before: Option<u64>,
    /// At most so many, 1 to 1,000.
    limit: Option<usize>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = AuditPage)]
struct List {
    acts: Vec<Shown>,
    /// Ask for the next page with `before`; none at the end.
    next: Option<u64>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = AuditEntry)]
struct Shown {
    seq: u64,
    at: String,
    who: String,
    act: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    account: String,
    object: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    before: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    after: Option<Box<RawValue>>,
}

/// What operators did, newest first.
#[utoipa::path(get, path = "/v1/audit", operation_id = "listAudit", tag = "audit", params(Query),
    responses((status = 200, body = List)))]
async fn list(State(state): State<AdminState>, Asked(query): Asked<Query>) -> Result<Json<List>, Problem> {
    let acts = Acts { account: query.account.as_deref().map(AccountId::new), act: query.act };
    let limit = query.limit.unwrap_or(PAGE).clamp(1, 1000);
    let found = state.inner.store.acts(&acts, query.before, limit).await?;
    let next = (found.len() == limit).then(|| found.last().map(|last| last.seq)).flatten();
    Ok(Json(List { acts: found.into_iter().map(Shown::of).collect(), next }))
}

impl Shown {
    fn of(act: Recorded) -> Self {
        // What is not JSON was never written by a mutation; a damaged one is left out and not an error.
        let json = |text: Option<String>| text.and_then(|text| RawValue::from_string(text).ok());
        let Recorded { seq, at, who, act, account, object, before, after } = act;
        Self { seq, at: time_text(at), who, act, account, object, before: json(before), after: json(after) }
    }
}
