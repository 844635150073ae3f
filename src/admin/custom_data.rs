//! `/v1/accounts/{id}/custom-data`: what an operator says about trackers, vehicles, people and the rest, for events to carry.
//! Invariants: a change is on disk with its act before memory has it, and both are seen through though the caller hangs
//! up; changes take turns; an import is taken whole or not at all.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::Mutex;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AdminState;
use super::access::Caller;
use super::filter::time_text;
use super::problem::{Asked, Problem, Sent, body_of};
use crate::clock;
use crate::enrich::import::{self, Format};
use crate::enrich::{Kind, NoRoom, Object, ObjectError, Put, Shelf};
use crate::event::{AccountId, Millis};
use crate::replay::{Act, AskError, Change, Entry, Store, Table};

/// Objects in one answer, where nobody says.
const PAGE: usize = 100;
/// The largest import: some 300,000 small objects, more than memory holds by default.
const IMPORT_BYTES: usize = 64 << 20;
/// A change's values enter the audit log up to so many bytes; beyond it says how many there were.
const AUDITED_BYTES: usize = 4 << 10;

pub(super) fn routes() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().routes(routes!(list, import_all)).routes(routes!(show, set, patch, remove))
}

/// Custom data in the store and in memory. Cheap to clone.
#[derive(Clone)]
pub(super) struct CustomData {
    store: Store,
    shelf: Shelf,
    turn: Arc<Mutex<()>>,
}

/// Of which object.
#[derive(Clone)]
struct Target {
    account: AccountId,
    kind: Kind,
    id: String,
}

/// An object's data.
#[derive(Serialize, ToSchema)]
#[schema(as = CustomData)]
struct Said {
    kind: String,
    id: String,
    #[schema(value_type = Object)]
    data: Box<RawValue>,
    saved_at: String,
}

#[derive(Serialize, ToSchema)]
#[schema(as = CustomDataPage)]
struct Page {
    custom_data: Vec<Said>,
    /// Ask for the next page with `after`; none at the end.
    next: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = CustomDataImported)]
struct Imported {
    imported: u64,
    dry_run: bool,
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListAsked {
    kind: Option<String>,
    /// `KIND/OBJECT`, as a page's `next` says.
    after: Option<String>,
    limit: Option<usize>,
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ImportAsked {
    #[serde(default)]
    dry_run: bool,
}

impl Target {
    fn of(state: &AdminState, (account, kind, id): (String, String, String)) -> Result<Self, Problem> {
        let account = configured(state, &account)?;
        let kind = import::kind(&kind).map_err(Problem::not_found)?;
        let id = import::id(&id).map_err(Problem::unprocessable)?;
        Ok(Self { account, kind, id })
    }

    fn key(&self) -> String {
        format!("{}/{}", self.kind.as_str(), self.id)
    }
}

fn configured(state: &AdminState, id: &str) -> Result<AccountId, Problem> {
    state.account(id).map(|account| account.id)
}

fn nothing_said() -> Problem {
    Problem::not_found("nothing is said about that object")
}

/// What is said about an account's objects, in the order of kinds and ids.
#[utoipa::path(get, path = "/v1/accounts/{id}/custom-data", operation_id = "listCustomData", tag = "custom data",
    params(("id" = String, Path, description = "The account's id"), ListAsked),
    responses((status = 200, body = Page),
        (status = 404, description = "No such account, or kind, or nothing is said")))]
async fn list(
    State(state): State<AdminState>,
    Path(account): Path<String>,
    Asked(asked): Asked<ListAsked>,
) -> Result<Json<Page>, Problem> {
    let account = configured(&state, &account)?;
    let kind = asked.kind.as_deref().map(import::kind).transpose().map_err(Problem::unprocessable)?;
    let prefix = kind.map(|kind| format!("{}/", kind.as_str())).unwrap_or_default();
    let after = asked.after.map_or_else(|| prefix.clone(), |after| after.max(prefix.clone()));
    let limit = asked.limit.unwrap_or(PAGE).clamp(1, 1000);
    let found = state.inner.store.entries(Table::CustomData, Some(account.clone()), Some((account, after)));
    let mut found = found.await?;
    found.retain(|entry| entry.key.starts_with(&prefix));
    let more = found.len() > limit || found.len() == 1000;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(|last| last.key.clone());
    Ok(Json(Page { custom_data: found.into_iter().filter_map(Said::of).collect(), next }))
}

/// What is said about an object.
#[utoipa::path(get, path = "/v1/accounts/{id}/custom-data/{kind}/{object}", operation_id = "showCustomData", tag = "custom data",
    params(("id" = String, Path, description = "The account's id"), ("kind" = String, Path, description = "tracker, vehicle, person, fleet, company, geofence or item"), ("object" = String, Path, description = "The object's id")),
    responses((status = 200, body = Said),
        (status = 404, description = "No such account, or kind, or nothing is said")))]
async fn show(
    State(state): State<AdminState>,
    Path(path): Path<(String, String, String)>,
) -> Result<Json<Said>, Problem> {
    let target = Target::of(&state, path)?;
    let found = state.inner.store.entry(Table::CustomData, target.account.clone(), target.key()).await?;
    found.and_then(Said::of).map(Json).ok_or_else(nothing_said)
}

/// Says something about an object, in place of what was said before.
#[utoipa::path(put, path = "/v1/accounts/{id}/custom-data/{kind}/{object}", operation_id = "setCustomData", tag = "custom data",
    params(("id" = String, Path, description = "The account's id"), ("kind" = String, Path, description = "tracker, vehicle, person, fleet, company, geofence or item"), ("object" = String, Path, description = "The object's id")),
    request_body = Value,
    responses((status = 200, body = Said),
        (status = 404, description = "No such account, or kind, or nothing is said"),
        (status = 507, description = "There is no room for it in memory")))]
async fn set(
    State(state): State<AdminState>,
    Path(path): Path<(String, String, String)>,
    caller: Caller,
    Sent(value): Sent<Value>,
) -> Result<Json<Said>, Problem> {
    let target = Target::of(&state, path)?;
    let object = Object::of(value)?;
    let said = CustomData::in_turn(&state, async move |all| all.set(&caller, target, object).await);
    said.await.map(Json)
}

/// Changes some of what is said, by a merge patch (RFC 7386).
#[utoipa::path(patch, path = "/v1/accounts/{id}/custom-data/{kind}/{object}", operation_id = "patchCustomData", tag = "custom data",
    params(("id" = String, Path, description = "The account's id"), ("kind" = String, Path, description = "tracker, vehicle, person, fleet, company, geofence or item"), ("object" = String, Path, description = "The object's id")),
    request_body(content = Value, content_type = "application/merge-patch+json"),
    responses((status = 200, body = Said),
        (status = 404, description = "No such account, or kind, or nothing is said"),
        (status = 507, description = "There is no room for it in memory")))]
async fn patch(
    State(state): State<AdminState>,
    Path(path): Path<(String, String, String)>,
    caller: Caller,
    request: Request,
) -> Result<Json<Said>, Problem> {
    let target = Target::of(&state, path)?;
    let body = body_of(request, 4 * crate::enrich::object::LONGEST).await?;
    let patch = serde_json::from_slice(&body)
        .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, format!("the patch is not JSON: {error}")))?;
    let said = CustomData::in_turn(&state, async move |all| all.patch(&caller, target, patch).await);
    said.await.map(Json)
}

/// Says nothing about an object any more.
#[utoipa::path(delete, path = "/v1/accounts/{id}/custom-data/{kind}/{object}", operation_id = "removeCustomData", tag = "custom data",
    params(("id" = String, Path, description = "The account's id"), ("kind" = String, Path, description = "tracker, vehicle, person, fleet, company, geofence or item"), ("object" = String, Path, description = "The object's id")),
    responses((status = 200, description = "What was said", body = Said),
        (status = 404, description = "No such account, or kind, or nothing is said")))]
async fn remove(
    State(state): State<AdminState>,
    Path(path): Path<(String, String, String)>,
    caller: Caller,
) -> Result<Json<Said>, Problem> {
    let target = Target::of(&state, path)?;
    let said = CustomData::in_turn(&state, async move |all| all.remove(&caller, target).await);
    said.await.map(Json)
}

/// Says something about many objects: all of it, or nothing; wrong lines are named in `errors`.
#[utoipa::path(post, path = "/v1/accounts/{id}/custom-data", operation_id = "importCustomData", tag = "custom data",
    params(("id" = String, Path, description = "The account's id"), ImportAsked),
    request_body(content((String = "application/x-ndjson"), (String = "text/csv"))),
    responses((status = 200, body = Imported),
        (status = 404, description = "No such account, or kind, or nothing is said"),
        (status = 507, description = "There is no room for it in memory")))]
async fn import_all(
    State(state): State<AdminState>,
    Path(account): Path<String>,
    Asked(asked): Asked<ImportAsked>,
    caller: Caller,
    request: Request,
) -> Result<Response, Problem> {
    let account = configured(&state, &account)?;
    let format = format_of(request.headers())?;
    let body = body_of(request, IMPORT_BYTES).await?;
    let owner = account.clone();
    let read = tokio::task::spawn_blocking(move || import::read(&owner, format, &body)).await;
    let puts = match read {
        Ok(Ok(puts)) => puts,
        Ok(Err(wrong)) => return Ok(Problem::wrong_lines(&wrong).into_response()),
        Err(_) => {
            return Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the import could not be read"));
        }
    };
    let imported = puts.len() as u64;
    if asked.dry_run {
        state.inner.custom_data.shelf.has_room(&puts)?;
    } else {
        CustomData::in_turn(&state, async move |all| all.import(&caller, account, puts).await).await?;
    }
    Ok(Json(Imported { imported, dry_run: asked.dry_run }).into_response())
}

fn format_of(headers: &HeaderMap) -> Result<Format, Problem> {
    let written = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match written.split(';').next().unwrap_or_default().trim() {
        "application/x-ndjson" | "application/json" => Ok(Format::Ndjson),
        "text/csv" => Ok(Format::Csv),
        _ => Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "an import is application/x-ndjson or text/csv",
        )),
    }
}

impl CustomData {
    pub(super) fn new(store: Store, shelf: Shelf) -> Self {
        Self { store, shelf, turn: Arc::default() }
    }

    /// Does a change in its turn, to its end, whatever becomes of the caller.
    async fn in_turn<T: Send + 'static, W>(
        state: &AdminState,
        work: impl FnOnce(Self) -> W + Send + 'static,
    ) -> Result<T, Problem>
    where
        W: Future<Output = Result<T, Problem>> + Send,
    {
        let all = state.inner.custom_data.clone();
        let work = async move {
            let turn = Arc::clone(&all.turn);
            let _turn = turn.lock().await;
            all.store.settle_staged().await?;
            work(all).await
        };
        state.seen_through(work).await
    }

    async fn entry(&self, target: &Target) -> Result<Option<Entry>, AskError> {
        self.store.entry(Table::CustomData, target.account.clone(), target.key()).await
    }

    async fn set(self, caller: &Caller, target: Target, object: Object) -> Result<Said, Problem> {
        let before = self.entry(&target).await?;
        self.put(caller, "custom-data.set", target, object, before).await
    }

    async fn patch(self, caller: &Caller, target: Target, patch: Value) -> Result<Said, Problem> {
        let before = self.entry(&target).await?;
        let old = before.as_ref().map_or("{}", |entry| entry.value.as_str());
        let object = Object::parse(old.as_bytes())?.patched(patch)?;
        self.put(caller, "custom-data.patch", target, object, before).await
    }

    async fn put(
        &self,
        caller: &Caller,
        act: &'static str,
        target: Target,
        object: Object,
        before: Option<Entry>,
    ) -> Result<Said, Problem> {
        let Target { account, kind, id } = target.clone();
        let put = [Put { account: account.clone(), kind, id, object }];
        self.shelf.has_room(&put)?;
        let [Put { object, .. }] = &put;
        let saved_at = clock::now();
        let entry = Entry { account, key: target.key(), value: object.text(), saved_at };
        let values = (before.map(|entry| entry.value), Some(entry.value.clone()));
        let act = act_of(caller, act, &target, saved_at, values);
        self.store.act(vec![Change::Put(Table::CustomData, entry.clone())], act).await?;
        self.shelf.put(&put)?;
        Said::of(entry).ok_or_else(nothing_said)
    }

    async fn remove(self, caller: &Caller, target: Target) -> Result<Said, Problem> {
        let before = self.entry(&target).await?.ok_or_else(nothing_said)?;
        let change = Change::Remove(Table::CustomData, target.account.clone(), target.key());
        let values = (Some(before.value.clone()), None);
        let act = act_of(caller, "custom-data.remove", &target, clock::now(), values);
        self.store.act(vec![change], act).await?;
        self.shelf.remove(&target.account, target.kind, &target.id);
        Said::of(before).ok_or_else(nothing_said)
    }

    async fn import(self, caller: &Caller, account: AccountId, puts: Vec<Put>) -> Result<(), Problem> {
        self.shelf.has_room(&puts)?;
        let saved_at = clock::now();
        let entry = |put: &Put| {
            let key = format!("{}/{}", put.kind.as_str(), put.id);
            Entry { account: put.account.clone(), key, value: put.object.text(), saved_at }
        };
        let act = Act {
            at: saved_at,
            who: caller.name.to_string(),
            act: "custom-data.import",
            account: Some(account),
            object: format!("{} objects", puts.len()),
            before: None,
            after: None,
        };
        self.store.stage(puts.iter().map(entry).collect(), act).await?;
        self.shelf.put(&puts)?;
        // It holds from now on, whatever becomes of this: else the next change goes on with it, or the next start.
        self.store.settle_staged().await.ok();
        Ok(())
    }
}

fn act_of(
    caller: &Caller,
    act: &'static str,
    target: &Target,
    at: Millis,
    (before, after): (Option<String>, Option<String>),
) -> Act {
    let short = |value: String| {
        if value.len() <= AUDITED_BYTES { value } else { format!("{{\"bytes\":{}}}", value.len()) }
    };
    Act {
        at,
        who: caller.name.to_string(),
        act,
        account: Some(target.account.clone()),
        object: target.key(),
        before: before.map(short),
        after: after.map(short),
    }
}

impl Said {
    /// None where the entry is none of this table's: it was written by hand.
    fn of(entry: Entry) -> Option<Self> {
        let (kind, id) = entry.key.split_once('/')?;
        let (kind, id) = (kind.to_owned(), id.to_owned());
        Some(Self {
            kind,
            id,
            data: RawValue::from_string(entry.value).ok()?,
            saved_at: time_text(entry.saved_at),
        })
    }
}

impl From<ObjectError> for Problem {
    fn from(error: ObjectError) -> Self {
        Self::unprocessable(format!("data: {error}"))
    }
}

impl From<NoRoom> for Problem {
    fn from(error: NoRoom) -> Self {
        Self::new(StatusCode::INSUFFICIENT_STORAGE, error.to_string())
    }
}
