//! `/v1/accounts/{id}/custom-data`: what an operator says about trackers, vehicles, people and the rest, for events to carry.
//! Invariants: a change is on disk with its act before memory has it, and both are seen through though the caller hangs
//! up; changes take turns; an import is taken whole or not at all.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::{Mutex, oneshot};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::AdminState;
use super::access::Caller;
use super::filter::time_text;
use super::problem::{Asked, Problem, Sent};
use crate::clock;
use crate::enrich::import::{self, Format, Wrong};
use crate::enrich::{Kind, NoRoom, Object, ObjectError, Put, Shelf};
use crate::event::{AccountId, Millis};
use crate::replay::{Act, AskError, Change, Entry, Store, Table};

/// Objects in one answer, where nobody says.
const PAGE: usize = 100;
/// The largest import: some 300,000 small objects, more than memory holds by default.
const IMPORT_BYTES: usize = 64 << 20;
/// How long an import's body may take to come.
const IMPORT_TIME: Duration = Duration::from_secs(120);
/// A change's values enter the audit log up to so many bytes; beyond it says how many there were.
const AUDITED_BYTES: usize = 4 << 10;

pub(super) fn routes() -> Router<AdminState> {
    Router::new().route("/v1/accounts/{id}/custom-data", get(list).post(import_all)).route(
        "/v1/accounts/{id}/custom-data/{kind}/{object}",
        get(show).put(set).patch(patch).delete(remove),
    )
}

/// Custom data in the store and in memory. Cheap to clone.
#[derive(Clone)]
pub(super) struct CustomData {
    store: Store,
    shelf: Shelf,
    tracker: TaskTracker,
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
#[derive(Serialize)]
struct Said {
    kind: String,
    id: String,
    data: Box<RawValue>,
    saved_at: String,
}

#[derive(Serialize)]
struct Page {
    custom_data: Vec<Said>,
    /// Ask for the next page with `after`; none at the end.
    next: Option<String>,
}

#[derive(Serialize)]
struct Imported {
    imported: u64,
    dry_run: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListAsked {
    kind: Option<String>,
    /// `KIND/OBJECT`, as a page's `next` says.
    after: Option<String>,
    limit: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
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

async fn show(
    State(state): State<AdminState>,
    Path(path): Path<(String, String, String)>,
) -> Result<Json<Said>, Problem> {
    let target = Target::of(&state, path)?;
    let found = state.inner.store.entry(Table::CustomData, target.account.clone(), target.key()).await?;
    found.and_then(Said::of).map(Json).ok_or_else(nothing_said)
}

async fn set(
    State(state): State<AdminState>,
    Path(path): Path<(String, String, String)>,
    caller: Caller,
    Sent(value): Sent<Value>,
) -> Result<Json<Said>, Problem> {
    let target = Target::of(&state, path)?;
    let object = Object::of(value)?;
    let said = state.inner.custom_data.seen_through(async move |all| all.set(&caller, target, object).await);
    said.await.map(Json)
}

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
    let said = state.inner.custom_data.seen_through(async move |all| all.patch(&caller, target, patch).await);
    said.await.map(Json)
}

async fn remove(
    State(state): State<AdminState>,
    Path(path): Path<(String, String, String)>,
    caller: Caller,
) -> Result<Json<Said>, Problem> {
    let target = Target::of(&state, path)?;
    let said = state.inner.custom_data.seen_through(async move |all| all.remove(&caller, target).await);
    said.await.map(Json)
}

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
        Ok(Err(wrong)) => return Ok(refused(&wrong)),
        Err(_) => {
            return Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the import could not be read"));
        }
    };
    let imported = puts.len() as u64;
    if asked.dry_run {
        state.inner.custom_data.shelf.has_room(&puts)?;
    } else {
        let all = &state.inner.custom_data;
        all.seen_through(async move |all| all.import(&caller, account, puts).await).await?;
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

async fn body_of(request: Request, most: usize) -> Result<bytes::Bytes, Problem> {
    let body = timeout(IMPORT_TIME, axum::body::to_bytes(request.into_body(), most)).await;
    let body =
        body.map_err(|_| Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"))?;
    body.map_err(|_| {
        let why = format!("the body is larger than {most} bytes, or broke off: send it in parts");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, why)
    })
}

fn refused(wrong: &Wrong) -> Response {
    let why = format!("{} lines are wrong, and nothing was imported", wrong.count);
    let errors =
        wrong.lines.iter().map(|wrong| serde_json::json!({"line": wrong.line, "error": wrong.error}));
    Problem::unprocessable(why).with("errors", Value::Array(errors.collect())).into_response()
}

impl CustomData {
    pub(super) fn new(store: Store, shelf: Shelf, tracker: TaskTracker) -> Self {
        Self { store, shelf, tracker, turn: Arc::default() }
    }

    /// Does a change in its turn, to its end, whatever becomes of the caller.
    async fn seen_through<T: Send + 'static, W>(
        &self,
        work: impl FnOnce(Self) -> W + Send + 'static,
    ) -> Result<T, Problem>
    where
        W: Future<Output = Result<T, Problem>> + Send,
    {
        let stopping = || Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the process is stopping");
        if self.tracker.is_closed() {
            return Err(stopping());
        }
        let (tell, told) = oneshot::channel();
        let all = self.clone();
        self.tracker.spawn(async move {
            let turn = Arc::clone(&all.turn);
            let _turn = turn.lock().await;
            // The caller may have gone: the change is made all the same.
            tell.send(work(all).await).ok();
        });
        told.await.unwrap_or_else(|_| Err(stopping()))
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
        let change = |put: &Put| {
            let key = format!("{}/{}", put.kind.as_str(), put.id);
            let value = put.object.text();
            Change::Put(Table::CustomData, Entry { account: put.account.clone(), key, value, saved_at })
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
        self.store.act(puts.iter().map(change).collect(), act).await?;
        self.shelf.put(&puts)?;
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
