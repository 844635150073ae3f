//! `POST /v1/reload`: the configuration is read again. What can be exchanged while the bridge runs is exchanged, the rest is
//! named; a file with a problem changes nothing. `app::reload` does it.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AdminState;
use super::access::Caller;
use super::problem::{Errors, More, Problem};
use crate::config::{self, Dedup, SecretError, units};
use crate::event::AccountId;
use crate::logs;
use crate::replay::AskError;

/// Reads the configuration again, on behalf of somebody.
pub type Reload = Arc<
    dyn Fn(Arc<str>) -> Pin<Box<dyn Future<Output = Result<Reloaded, ReloadError>> + Send>> + Send + Sync,
>;

/// What a reload did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Reloaded {
    /// What is otherwise from now on, such as `account acme: added`.
    pub changed: Vec<String>,
    /// Keys that are written otherwise, and stay as they were until a restart.
    pub needs_restart: Vec<&'static str>,
    /// What the configuration means that one may not expect.
    pub notes: Vec<String>,
}

/// Why nothing was reloaded.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// It was not started from a file.
    #[error("the bridge was not started from a file")]
    NoFile,
    /// The file.
    #[error("{path} cannot be read")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What it says.
    #[error("the configuration has problems ({}), and nothing was changed", .0.len())]
    Wrong(Vec<config::Problem>),
    /// A file that is half written looks so.
    #[error(
        "the configuration has no account, where some are served, and nothing was changed: write the whole file, or stop the bridge to do without them"
    )]
    NoAccounts,
    /// An account lives elsewhere.
    #[error(
        "account {0} was moved to another instance, and nothing was changed: take it out of the configuration"
    )]
    MovedOut(AccountId),
    /// What it left here waits under other topics, which only a start changes: its new events would overtake it.
    #[error(
        "account {0} has events parked under topics that are not today's, and nothing was changed: restart with this configuration, which routes them anew, in their order, but for those whose topic was edited"
    )]
    OtherTopics(AccountId),
    /// The horizons of dedup need a restart, and what is polled would be published twice until then.
    #[error(
        "what is polled is read again for {}, and `dedup`, which remembers less, stays as it is until a restart; nothing was changed: restart with this configuration",
        units::say_duration(Dedup::READ_AGAIN)
    )]
    ShortDedup,
    /// A secret.
    #[error("a secret cannot be read, and nothing was changed")]
    Secret(#[from] SecretError),
    /// A disk hangs.
    #[error(
        "the configuration, or a file that it names, does not come: its disk hangs, and nothing was changed"
    )]
    Late,
    /// The store.
    #[error(transparent)]
    Store(#[from] AskError),
    /// It is too late.
    #[error("the process is starting or stopping")]
    Stopping,
}

pub(super) fn routes() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().routes(routes!(reload))
}

/// Reads the configuration again.
#[utoipa::path(post, path = "/v1/reload", operation_id = "reload", tag = "configuration",
    responses(
        (status = 200, body = Reloaded),
        (status = 409, description = "The bridge was not started from a file"),
        (status = 422, description = "The configuration has problems, all of them in `errors`; nothing was changed"),
    ))]
async fn reload(State(state): State<AdminState>, caller: Caller) -> Result<Json<Reloaded>, Problem> {
    (state.inner.reload)(caller.name).await.map(Json).map_err(Problem::from)
}

impl From<ReloadError> for Problem {
    fn from(error: ReloadError) -> Self {
        let status = match &error {
            ReloadError::NoFile => StatusCode::CONFLICT,
            ReloadError::Unreadable { .. }
            | ReloadError::Wrong(_)
            | ReloadError::NoAccounts
            | ReloadError::MovedOut(_)
            | ReloadError::OtherTopics(_)
            | ReloadError::ShortDedup
            | ReloadError::Secret(_) => StatusCode::UNPROCESSABLE_ENTITY,
            ReloadError::Late | ReloadError::Store(_) | ReloadError::Stopping => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        };
        let problems = match &error {
            ReloadError::Wrong(problems) => problems.iter().map(ToString::to_string).collect(),
            ReloadError::NoFile
            | ReloadError::Unreadable { .. }
            | ReloadError::NoAccounts
            | ReloadError::MovedOut(_)
            | ReloadError::OtherTopics(_)
            | ReloadError::ShortDedup
            | ReloadError::Secret(_)
            | ReloadError::Late
            | ReloadError::Store(_)
            | ReloadError::Stopping => Vec::new(),
        };
        let problem = Self::new(status, logs::words(&error));
        if problems.is_empty() { problem } else { problem.with(More::Errors(Errors::Sentences(problems))) }
    }
}
