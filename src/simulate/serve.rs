//! The pull APIs, V2 and V3, over what the world has produced so far: tokens and JWTs, windows, paging, the shared limit,
//! records that become visible late, and errors on request (`POST /control`). Answers carry the simulated time as `Date`.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Clock;
use super::render;
use super::world::{self, Fact, What, World};

/// Rows of a V3 page.
const PAGE: usize = 100;
/// The longest window of V2, and of V3 and paged activity.
const WINDOWS: (i64, i64) = (48 * 3_600_000, 93 * 24 * 3_600_000);
/// How long a JWT is good.
const JWT: Duration = Duration::from_secs(900);
/// The V3 bucket: tokens a minute, and at most.
const BUCKET: (f64, f64) = (25.0, 200.0);

/// What answers.
#[derive(Clone)]
pub struct Provider {
    inner: Arc<Inner>,
}

struct Inner {
    world: World,
    clock: Clock,
    token: String,
    /// Records become visible this long after they happened, in simulated ms.
    late: i64,
    state: Mutex<Moving>,
}

struct Moving {
    jwts: Vec<(String, Instant)>,
    tokens: f64,
    filled_at: Instant,
    calls: u64,
    faults: Vec<Fault>,
}

/// An error on request, for so many calls.
#[derive(Debug, Clone, Deserialize)]
pub struct Fault {
    /// Which.
    pub fault: FaultKind,
    /// For how many calls.
    #[serde(default = "once")]
    pub calls: u32,
    /// Only for paths that hold this.
    #[serde(default)]
    pub path: String,
}

fn once() -> u32 {
    1
}

/// The first page is asked for again.
struct Repeat;

/// The errors on request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// Answers after a minute.
    Timeout,
    /// 200 with an error in it.
    Error200,
    /// An empty list.
    Empty,
    /// 401.
    Unauthorized,
    /// 429 with Retry-After 1.
    Limited,
    /// 500.
    Broken,
    /// 404 with a page for people.
    Html,
    /// V3: the first page again, whichever was asked for.
    RepeatPage,
}

impl Provider {
    /// A provider of this world, whose V2 token and V3 key are `token`.
    #[must_use]
    pub fn new(world: World, clock: Clock, token: String, late: Duration) -> Self {
        let state = Moving {
            jwts: Vec::new(),
            tokens: BUCKET.1,
            filled_at: Instant::now(),
            calls: 0,
            faults: Vec::new(),
        };
        let late = i64::try_from(late.as_millis()).unwrap_or(i64::MAX);
        Self { inner: Arc::new(Inner { world, clock, token, late, state: Mutex::new(state) }) }
    }

    /// How often it was called.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.inner.state.lock().calls
    }

    /// The next calls fail so.
    pub fn fail(&self, fault: Fault) {
        self.inner.state.lock().faults.push(fault);
    }

    /// Every JWT is good no more, as if their quarter of an hour were over.
    pub fn expire_jwts(&self) {
        self.inner.state.lock().jwts.clear();
    }

    /// Its routes.
    pub fn router(self) -> Router {
        let v2 = Router::new()
            .route("/locations", get(v2_current))
            .route("/locations/all", post(v2_history))
            .route("/trips", post(v2_trips))
            .route("/stops", post(v2_stops))
            .route("/alerts", post(v2_alerts))
            .route("/usagehours", post(v2_usage))
            .route("/geofences/activity", get(v2_activity))
            .route("/tracker", get(v2_trackers))
            .route("/geofences", get(v2_geofences))
            .route("/groups", get(v2_groups))
            .route("/company", get(v2_company));
        let v3 = Router::new()
            .route("/jwts", post(v3_jwts))
            .route("/positions", get(v3_positions))
            .route("/positions/current", get(v3_current))
            .route("/stops", get(v3_stops))
            .route("/trackers", get(v3_trackers));
        Router::new()
            .nest("/ibis/rest/api/v2", v2)
            .nest("/pullapi/api/v3", v3)
            .route("/control", post(control))
            .route("/control/{what}", get(ask))
            .fallback(|| async { (StatusCode::NOT_FOUND, "<html><body>Not found</body></html>") })
            .with_state(self)
    }

    fn facts(&self, from: i64, to: i64) -> Vec<Fact> {
        let known = self.inner.clock.now() - self.inner.late;
        self.inner.world.facts(from, to.min(known))
    }

    fn dated(&self, answer: impl IntoResponse) -> Response {
        let mut answer = answer.into_response();
        let now = jiff::Timestamp::from_millisecond(self.inner.clock.now()).unwrap_or_default();
        let date = now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        if let Ok(date) = HeaderValue::from_str(&date) {
            answer.headers_mut().insert(header::DATE, date);
        }
        answer
    }

    /// The fault that this call gets, if any.
    fn fault(&self, path: &str) -> Option<FaultKind> {
        let mut state = self.inner.state.lock();
        state.calls += 1;
        let at = state.faults.iter().position(|fault| path.contains(&fault.path))?;
        let fault = &mut state.faults[at];
        fault.calls = fault.calls.saturating_sub(1);
        let kind = fault.fault;
        if fault.calls == 0 {
            state.faults.remove(at);
        }
        Some(kind)
    }

    async fn faulty(&self, path: &str) -> Option<Result<Response, Repeat>> {
        let answer = match self.fault(path)? {
            FaultKind::Timeout => {
                tokio::time::sleep(Duration::from_secs(60)).await;
                StatusCode::OK.into_response()
            }
            FaultKind::Error200 => error("Something went wrong.").into_response(),
            FaultKind::Empty => axum::Json(json!([])).into_response(),
            FaultKind::Unauthorized => StatusCode::UNAUTHORIZED.into_response(),
            FaultKind::Limited => {
                (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "1")]).into_response()
            }
            FaultKind::Broken => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            FaultKind::Html => (StatusCode::NOT_FOUND, "<html><body>Not found</body></html>").into_response(),
            FaultKind::RepeatPage => return Some(Err(Repeat)),
        };
        Some(Ok(self.dated(answer)))
    }

    fn v2_open(&self, headers: &HeaderMap) -> bool {
        let wanted = format!("Bearer {}", self.inner.token);
        headers.get(header::AUTHORIZATION).is_some_and(|value| value.as_bytes() == wanted.as_bytes())
    }

    /// Whether a V3 call may go on: a live JWT, and a token of the bucket.
    fn v3_open(&self, headers: &HeaderMap) -> Result<u64, StatusCode> {
        let mut state = self.inner.state.lock();
        let said = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let said = said.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        let live = state.jwts.iter().any(|(jwt, until)| jwt == said && Instant::now() < *until);
        if !live {
            return Err(StatusCode::UNAUTHORIZED);
        }
        let minutes = state.filled_at.elapsed().as_secs_f64() / 60.0;
        state.filled_at = Instant::now();
        state.tokens = (state.tokens + minutes * BUCKET.0).min(BUCKET.1);
        if state.tokens < 1.0 {
            return Err(StatusCode::TOO_MANY_REQUESTS);
        }
        state.tokens -= 1.0;
        Ok(state.tokens as u64)
    }
}

fn error(message: &str) -> axum::Json<Value> {
    axum::Json(json!({ "responseType": "Error", "data": { "message": message } }))
}

/// Wraps rows as V2 does.
fn list(key: &str, rows: Vec<Value>) -> axum::Json<Value> {
    axum::Json(json!({ "responseType": "Success", "data": { key: rows } }))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Window {
    from_date: i64,
    to_date: i64,
}

async fn v2(
    provider: &Provider,
    headers: &HeaderMap,
    path: &str,
    answer: impl FnOnce() -> Response,
) -> Response {
    if let Some(Ok(fault)) = provider.faulty(path).await {
        return fault;
    }
    if !provider.v2_open(headers) {
        return provider.dated((StatusCode::UNAUTHORIZED, error("Not authorized.")));
    }
    provider.dated(answer())
}

/// Rows of a window that V2 gives: what overlaps it, unclipped.
async fn v2_window(
    provider: &Provider,
    headers: &HeaderMap,
    body: &Bytes,
    key: &'static str,
    wanted: fn(&What) -> bool,
) -> Response {
    v2(provider, headers, key, || {
        let Ok(window) = serde_json::from_slice::<Window>(body) else {
            return (
                StatusCode::UNPROCESSABLE_ENTITY,
                axum::Json(json!({ "errors": { "fromDate": ["required"] } })),
            )
                .into_response();
        };
        if window.to_date.saturating_sub(window.from_date) > WINDOWS.0 {
            return error("Date range cannot be more than 48 hours.").into_response();
        }
        let facts =
            provider.facts(window.from_date.saturating_sub(1), window.to_date.saturating_add(7_200_000));
        let rows = facts
            .iter()
            .filter(|fact| wanted(&fact.what) && begins(fact) <= window.to_date)
            .filter_map(render::v2_row)
            .collect();
        list(key, rows).into_response()
    })
    .await
}

/// When a fact began.
fn begins(fact: &Fact) -> i64 {
    match &fact.what {
        What::Trip { start, .. } | What::Usage { start, .. } | What::Stop { start, .. } => *start,
        What::Crossing { entered, .. } => *entered,
        What::LeftBehind { seen, .. } => *seen,
        What::Introduced
        | What::Position { .. }
        | What::HighSpeed { .. }
        | What::HarshBraking
        | What::Arrived { .. }
        | What::Media
        | What::Sighting { .. } => fact.at,
    }
}

async fn v2_current(State(provider): State<Provider>, headers: HeaderMap) -> Response {
    v2(&provider, &headers, "locations", || {
        let inner = &provider.inner;
        let to = inner.clock.now() - inner.late;
        let rows = (0..inner.world.vehicles)
            .filter_map(|vehicle| inner.world.last_fix(vehicle, to))
            .filter_map(|fact| render::v2_row(&fact))
            .collect();
        list("locations", rows).into_response()
    })
    .await
}

async fn v2_history(State(provider): State<Provider>, headers: HeaderMap, body: Bytes) -> Response {
    v2_window(&provider, &headers, &body, "locations", |what| matches!(what, What::Position { .. })).await
}

async fn v2_trips(State(provider): State<Provider>, headers: HeaderMap, body: Bytes) -> Response {
    v2_window(&provider, &headers, &body, "trips", |what| matches!(what, What::Trip { .. })).await
}

async fn v2_stops(State(provider): State<Provider>, headers: HeaderMap, body: Bytes) -> Response {
    v2_window(&provider, &headers, &body, "stops", |what| matches!(what, What::Stop { .. })).await
}

async fn v2_alerts(State(provider): State<Provider>, headers: HeaderMap, body: Bytes) -> Response {
    v2_window(&provider, &headers, &body, "alerts", |what| what.word() == "alert").await
}

async fn v2_usage(State(provider): State<Provider>, headers: HeaderMap, body: Bytes) -> Response {
    v2_window(&provider, &headers, &body, "usageHours", |what| matches!(what, What::Usage { .. })).await
}

#[derive(Deserialize)]
struct Activity {
    start: i64,
    end: i64,
    #[serde(default)]
    offset: usize,
    #[serde(default)]
    limit: Option<usize>,
}

async fn v2_activity(
    State(provider): State<Provider>,
    headers: HeaderMap,
    Query(asked): Query<Activity>,
) -> Response {
    v2(&provider, &headers, "geofences/activity", || {
        let longest = if asked.limit.is_some_and(|limit| limit <= 1_000) { WINDOWS.1 } else { WINDOWS.0 };
        if asked.end.saturating_sub(asked.start) > longest {
            return error("Date range is too long.").into_response();
        }
        let facts = provider.facts(asked.start.saturating_sub(1), asked.end.saturating_add(7_200_000));
        // One row a visit: complete once it has been left.
        let left: HashSet<(u32, i64)> = facts
            .iter()
            .filter(|fact| matches!(fact.what, What::Crossing { left: Some(_), .. }))
            .map(|fact| (fact.vehicle, begins(fact)))
            .collect();
        let row = |fact: &&Fact| match fact.what {
            What::Crossing { left: Some(_), .. } => true,
            What::Crossing { left: None, .. } => !left.contains(&(fact.vehicle, begins(fact))),
            What::Introduced
            | What::Position { .. }
            | What::Trip { .. }
            | What::Usage { .. }
            | What::Stop { .. }
            | What::HighSpeed { .. }
            | What::HarshBraking
            | What::Arrived { .. }
            | What::Media
            | What::Sighting { .. }
            | What::LeftBehind { .. } => false,
        };
        let rows: Vec<Value> = facts
            .iter()
            .filter(|fact| row(fact) && begins(fact) <= asked.end)
            .skip(asked.offset)
            .take(asked.limit.unwrap_or(usize::MAX))
            .filter_map(render::v2_row)
            .collect();
        axum::Json(rows).into_response()
    })
    .await
}

async fn v2_trackers(State(provider): State<Provider>, headers: HeaderMap) -> Response {
    v2(&provider, &headers, "tracker", || {
        let rows: Vec<Value> = (0..provider.inner.world.vehicles).map(render::v2_tracker).collect();
        axum::Json(rows).into_response()
    })
    .await
}

async fn v2_geofences(State(provider): State<Provider>, headers: HeaderMap) -> Response {
    v2(&provider, &headers, "geofences", || {
        let rows: Vec<Value> = (0..world::places()).map(render::v2_geofence).collect();
        axum::Json(rows).into_response()
    })
    .await
}

async fn v2_groups(State(provider): State<Provider>, headers: HeaderMap) -> Response {
    let group =
        json!([{ "groupId": 18_000_300_002_u64, "groupName": "Default", "trackers": [], "drivers": [] }]);
    v2(&provider, &headers, "groups", || axum::Json(group).into_response()).await
}

async fn v2_company(State(provider): State<Provider>, headers: HeaderMap) -> Response {
    let company =
        json!({ "responseType": "Success", "data": { "companyName": "Example Co", "serviceTier": "PLUS" } });
    v2(&provider, &headers, "company", || axum::Json(company).into_response()).await
}

async fn v3_jwts(State(provider): State<Provider>, headers: HeaderMap) -> Response {
    if let Some(Ok(fault)) = provider.faulty("jwts").await {
        return fault;
    }
    let key = headers.get("x-api-key").is_some_and(|key| key.as_bytes() == provider.inner.token.as_bytes());
    if !key {
        return provider.dated(StatusCode::UNAUTHORIZED);
    }
    let jwt = format!("jwt.{:016x}.{}", rand::random::<u64>(), provider.inner.clock.now());
    let mut state = provider.inner.state.lock();
    state.jwts.retain(|(_, until)| Instant::now() < *until);
    state.jwts.push((jwt.clone(), Instant::now() + JWT));
    drop(state);
    provider.dated(jwt)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Pages {
    #[serde(default)]
    start_date: i64,
    end_date: Option<i64>,
    #[serde(default)]
    page: usize,
}

async fn v3(
    provider: &Provider,
    headers: &HeaderMap,
    path: &str,
    page: usize,
    rows: impl FnOnce(usize) -> Vec<Value>,
) -> Response {
    let page = match provider.faulty(path).await {
        Some(Ok(fault)) => return fault,
        Some(Err(Repeat)) => 0,
        None => page,
    };
    let (mut answer, left) = match provider.v3_open(headers) {
        Err(StatusCode::TOO_MANY_REQUESTS) => (provider.dated(StatusCode::TOO_MANY_REQUESTS), 0),
        Err(status) => return provider.dated(status),
        Ok(left) => (provider.dated(axum::Json(rows(page.saturating_mul(PAGE)))), left),
    };
    // Their hyphens differ, as the provider's do.
    let headers = answer.headers_mut();
    headers.insert(HeaderName::from_static("x-ratelimit-limit"), HeaderValue::from(BUCKET.0 as u64));
    headers.insert(HeaderName::from_static("x-rate-limit-remaining"), HeaderValue::from(left));
    answer
}

async fn v3_positions(
    State(provider): State<Provider>,
    headers: HeaderMap,
    Query(asked): Query<Pages>,
) -> Response {
    v3_window(&provider, &headers, "positions", &asked, |what| matches!(what, What::Position { .. })).await
}

async fn v3_stops(
    State(provider): State<Provider>,
    headers: HeaderMap,
    Query(asked): Query<Pages>,
) -> Response {
    v3_window(&provider, &headers, "stops", &asked, |what| matches!(what, What::Stop { .. })).await
}

async fn v3_window(
    provider: &Provider,
    headers: &HeaderMap,
    path: &str,
    asked: &Pages,
    wanted: fn(&What) -> bool,
) -> Response {
    let end = asked.end_date.unwrap_or(i64::MAX);
    if end != i64::MAX && end.saturating_sub(asked.start_date) > WINDOWS.1 {
        return provider.dated(StatusCode::BAD_REQUEST);
    }
    v3(provider, headers, path, asked.page, |skip| {
        let facts = provider.facts(asked.start_date.saturating_sub(1), end);
        let facts = facts.iter().filter(|fact| wanted(&fact.what)).skip(skip).take(PAGE);
        facts.filter_map(render::v3_row).collect()
    })
    .await
}

async fn v3_current(
    State(provider): State<Provider>,
    headers: HeaderMap,
    Query(asked): Query<Pages>,
) -> Response {
    v3(&provider, &headers, "positions/current", asked.page, |skip| {
        let inner = &provider.inner;
        let to = inner.clock.now() - inner.late;
        let fixes = (0..inner.world.vehicles).filter_map(|vehicle| inner.world.last_fix(vehicle, to));
        fixes.skip(skip).take(PAGE).filter_map(|fact| render::v3_row(&fact)).collect()
    })
    .await
}

async fn v3_trackers(
    State(provider): State<Provider>,
    headers: HeaderMap,
    Query(asked): Query<Pages>,
) -> Response {
    v3(&provider, &headers, "trackers", asked.page, |skip| {
        let vehicles = 0..provider.inner.world.vehicles;
        vehicles.skip(skip).take(PAGE).map(render::v3_tracker).collect()
    })
    .await
}

async fn control(State(provider): State<Provider>, axum::Json(fault): axum::Json<Fault>) -> StatusCode {
    provider.fail(fault);
    StatusCode::NO_CONTENT
}

/// `GET /control/calls`, and `/control/ledger`: what has happened so far, a line a fact.
async fn ask(State(provider): State<Provider>, Path(what): Path<String>) -> Response {
    match what.as_str() {
        "calls" => axum::Json(json!({ "calls": provider.calls() })).into_response(),
        "ledger" => {
            let inner = &provider.inner;
            let facts = inner.world.facts(inner.world.begins, inner.clock.now());
            let lines = facts.iter().map(|fact| {
                let line = json!({ "imei": render::imei(fact.vehicle), "at": fact.at, "begins": begins(fact), "type": fact.what.word() });
                format!("{line}\n")
            });
            lines.collect::<String>().into_response()
        }
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}
