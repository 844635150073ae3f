//! `POST /v1/store/backup`: the store as it is now, streamed to whoever asks, who keeps it where he likes. The store goes on
//! meanwhile. Invariants: one at a time; an answer that ends before its `content-length` is no backup; it is recorded who
//! took one, for there is everything in it.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AdminState;
use super::access::Caller;
use super::problem::Problem;
use crate::clock;
use crate::replay::{Act, Still};

/// Read at once.
const PIECE: usize = 1 << 20;

pub(super) fn routes() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().routes(routes!(backup))
}

/// A copy of the replay store as it is now. The store goes on meanwhile.
#[utoipa::path(post, path = "/v1/store/backup", operation_id = "backupStore", tag = "store",
    responses(
        (status = 200, description = "The store, a SQLite file; shorter than its content-length, it is none",
            body = Vec<u8>, content_type = "application/vnd.sqlite3"),
        (status = 409, description = "A backup is being made already"),
        (status = 503, description = "The store cannot be copied now"),
    ))]
async fn backup(State(state): State<AdminState>, caller: Caller) -> Result<Response, Problem> {
    let Ok(place) = Arc::clone(&state.inner.backups).try_acquire_owned() else {
        return Err(Problem::new(StatusCode::CONFLICT, "a backup is being made already"));
    };
    let store = &state.inner.store;
    let act = Act {
        at: clock::now(),
        who: caller.name.to_string(),
        act: "store.backup",
        account: None,
        object: String::new(),
        before: None,
        after: None,
    };
    store.act(Vec::new(), act).await?;
    let still = store.hold_still().await?;
    let headers =
        [(CONTENT_TYPE, "application/vnd.sqlite3".to_owned()), (CONTENT_LENGTH, still.bytes().to_string())];
    let copy = Copy { still: Arc::new(still), at: 0, stop: state.inner.stop.clone(), _place: place };
    let pieces = stream::try_unfold(copy, Copy::next);
    Ok((headers, Body::from_stream(pieces)).into_response())
}

/// How far a copy is.
struct Copy {
    still: Arc<Still>,
    at: u64,
    stop: CancellationToken,
    _place: OwnedSemaphorePermit,
}

impl Copy {
    /// The next piece; none at the end.
    async fn next(mut self) -> io::Result<Option<(Bytes, Self)>> {
        if self.at >= self.still.bytes() {
            return Ok(None);
        }
        let (still, at) = (Arc::clone(&self.still), self.at);
        let read = tokio::task::spawn_blocking(move || still.read(at, PIECE));
        let Some(read) = self.stop.run_until_cancelled(read).await else {
            return Err(io::Error::other("the process is stopping"));
        };
        let piece = read.map_err(io::Error::other)?;
        let piece = piece.inspect_err(|error| tracing::warn!(error = %error, "store.backup_failed"))?;
        self.at += piece.len() as u64;
        Ok(Some((Bytes::from(piece), self)))
    }
}
