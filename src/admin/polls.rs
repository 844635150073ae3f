//! How polls are steered: `/v1/accounts/{id}/pause` and `/resume`, the same for one feed, and its cursor. What is done is decided
//! in `intake::poll::desk`; here is how it is asked and said. Invariant: it is seen through though the caller hangs up, so that feeds
//! and the disk agree.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AdminState;
use super::access::Caller;
use super::filter::{time, time_text};
use super::problem::{Problem, Sent};
use crate::intake::poll::desk::{Confirmed, Go, Moved, SteerError, Which};
use crate::provider::{Feed, PullApi};

pub(super) fn routes() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new()
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(pause_feed))
        .routes(routes!(resume_feed))
        .routes(routes!(move_cursor))
}

#[derive(Serialize, ToSchema)]
struct Steered {
    /// Whether it is paused now.
    paused: bool,
    /// Whether it was otherwise before.
    changed: bool,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CursorAsked)]
struct CursorAsked {
    /// From here on the feed is asked for again, RFC 3339.
    position: String,
    /// That it may leave out what it passes on its way forward.
    #[serde(default)]
    confirm: bool,
}

#[derive(Serialize, ToSchema)]
struct CursorMoved {
    /// Where it stood; absent where the feed was never polled.
    from: Option<String>,
    to: String,
}

/// Pauses an account's polls: a poll in hand is finished, none begins. Outlives a restart.
#[utoipa::path(post, path = "/v1/accounts/{id}/pause", operation_id = "pauseAccount", tag = "accounts",
    params(("id" = String, Path, description = "The account's id", example = "acme")),
    responses((status = 200, body = Steered), (status = 404, description = "No such account")))]
async fn pause(
    state: State<AdminState>,
    Path(id): Path<String>,
    caller: Caller,
) -> Result<Json<Steered>, Problem> {
    steer(&state, &id, Which::Account, Go::Pause, caller).await
}

/// Resumes an account's polls where they stopped; a feed that was paused by itself stays so.
#[utoipa::path(post, path = "/v1/accounts/{id}/resume", operation_id = "resumeAccount", tag = "accounts",
    params(("id" = String, Path, description = "The account's id", example = "acme")),
    responses((status = 200, body = Steered), (status = 404, description = "No such account")))]
async fn resume(
    state: State<AdminState>,
    Path(id): Path<String>,
    caller: Caller,
) -> Result<Json<Steered>, Problem> {
    steer(&state, &id, Which::Account, Go::Resume, caller).await
}

/// Pauses one feed.
#[utoipa::path(post, path = "/v1/accounts/{id}/feeds/{api}/{feed}/pause", operation_id = "pauseFeed", tag = "accounts",
    params(
        ("id" = String, Path, description = "The account's id", example = "acme"),
        ("api" = String, Path, description = "v2 or v3", example = "v2"),
        ("feed" = String, Path, description = "The feed, such as trips", example = "trips"),
    ),
    responses((status = 200, body = Steered), (status = 404, description = "No such account or feed")))]
async fn pause_feed(
    state: State<AdminState>,
    Path((id, api, feed)): Path<(String, String, String)>,
    caller: Caller,
) -> Result<Json<Steered>, Problem> {
    let (api, feed) = named(&api, &feed)?;
    steer(&state, &id, Which::Feed(api, feed), Go::Pause, caller).await
}

/// Resumes one feed; where its account is paused, it waits for that.
#[utoipa::path(post, path = "/v1/accounts/{id}/feeds/{api}/{feed}/resume", operation_id = "resumeFeed", tag = "accounts",
    params(
        ("id" = String, Path, description = "The account's id", example = "acme"),
        ("api" = String, Path, description = "v2 or v3", example = "v2"),
        ("feed" = String, Path, description = "The feed, such as trips", example = "trips"),
    ),
    responses((status = 200, body = Steered), (status = 404, description = "No such account or feed")))]
async fn resume_feed(
    state: State<AdminState>,
    Path((id, api, feed)): Path<(String, String, String)>,
    caller: Caller,
) -> Result<Json<Steered>, Problem> {
    let (api, feed) = named(&api, &feed)?;
    steer(&state, &id, Which::Feed(api, feed), Go::Resume, caller).await
}

/// Moves a feed's cursor. Back: what was fetched is fetched again, and known by its ids. Forward: what is passed is left out.
#[utoipa::path(put, path = "/v1/accounts/{id}/feeds/{api}/{feed}/cursor", operation_id = "moveCursor", tag = "accounts",
    params(
        ("id" = String, Path, description = "The account's id", example = "acme"),
        ("api" = String, Path, description = "v2 or v3", example = "v2"),
        ("feed" = String, Path, description = "The feed, such as trips", example = "trips"),
    ),
    request_body = CursorAsked,
    responses(
        (status = 200, body = CursorMoved),
        (status = 404, description = "No such account or feed"),
        (status = 409, description = "It would leave something out, has no cursor, or is being polled"),
    ))]
async fn move_cursor(
    State(state): State<AdminState>,
    Path((id, api, feed)): Path<(String, String, String)>,
    caller: Caller,
    Sent(asked): Sent<CursorAsked>,
) -> Result<Json<CursorMoved>, Problem> {
    let account = state.account(&id)?.id;
    let feed = named(&api, &feed)?;
    let to = time("position", &asked.position)?;
    let confirmed = if asked.confirm { Confirmed::Yes } else { Confirmed::No };
    let desk = Arc::clone(&state.inner.desk);
    let moving = async move {
        let moved = desk.move_cursor(&account, feed, to, confirmed, &caller.name).await?;
        tracing::info!(%account, api = api, feed = feed.1.as_str(), who = %caller.name, "cursor.moved");
        Ok::<_, Problem>(moved)
    };
    let Moved { from, to } = state.seen_through(moving).await?;
    Ok(Json(CursorMoved { from: from.map(time_text), to: time_text(to) }))
}

async fn steer(
    state: &AdminState,
    id: &str,
    which: Which,
    go: Go,
    caller: Caller,
) -> Result<Json<Steered>, Problem> {
    let account = state.account(id)?.id;
    let desk = Arc::clone(&state.inner.desk);
    let steering = async move {
        let changed = desk.steer(&account, which, go, &caller.name).await?;
        let paused = go == Go::Pause;
        tracing::info!(%account, ?which, paused, changed, who = %caller.name, "poll.steered");
        Ok::<_, Problem>(Json(Steered { paused, changed }))
    };
    state.seen_through(steering).await
}

fn named(api: &str, feed: &str) -> Result<(PullApi, Feed), Problem> {
    PullApi::parse(api).zip(Feed::parse(feed)).ok_or_else(|| Problem::from(SteerError::Unknown))
}

impl From<SteerError> for Problem {
    fn from(error: SteerError) -> Self {
        let status = match error {
            SteerError::Unknown => StatusCode::NOT_FOUND,
            SteerError::NoCursor | SteerError::Busy | SteerError::Skips { .. } => StatusCode::CONFLICT,
            SteerError::OutOfRange => StatusCode::UNPROCESSABLE_ENTITY,
            SteerError::Store(error) => return Self::from(error),
        };
        Self::new(status, error.to_string())
    }
}
