//! `GET /v1/events`: the local bus's log, from a place on or from now on, one event a line (NDJSON), or as server-sent
//! events on request. Streams are bounded in number, read in pages, and end when the process stops; a slow reader holds
//! back only itself.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream;
use prost::Message as _;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AdminState;
use super::problem::{Asked, Problem};
use crate::event::{json, pb::FleetEvent};

/// Streams at once.
const STREAMS: usize = 32;
/// Events read at once.
const PAGE: usize = 200;
/// A server-sent stream says at least so often that it lives.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// One event of the log.
#[derive(Debug, Clone)]
pub struct LogRow {
    /// Its place, from 1.
    pub offset: u64,
    /// Its topic.
    pub topic: String,
    /// The encoded `FleetEvent`.
    pub payload: Bytes,
}

/// Reads up to so many events of a topic, or of all, after a place; none where there are none. May block.
pub type ReadLog = dyn Fn(Option<&str>, u64, usize) -> Result<Vec<LogRow>, String> + Send + Sync;

/// The local bus's log.
#[derive(Clone)]
pub struct LocalLog {
    /// The newest place.
    pub newest: watch::Receiver<u64>,
    /// Reads.
    pub read: Arc<ReadLog>,
}

pub(super) struct Streams {
    log: LocalLog,
    places: Arc<Semaphore>,
}

impl Streams {
    pub(super) fn new(log: LocalLog) -> Self {
        Self { log, places: Arc::new(Semaphore::new(STREAMS)) }
    }
}

pub(super) fn routes() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().routes(routes!(follow))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct EventsAsked {
    /// Only this topic.
    topic: Option<String>,
    /// Begin after this place; without it, with what comes from now on. One that the log has not reached is of a log that is gone: then
    /// from the beginning.
    after: Option<u64>,
    /// Without `after`: so many of the newest first.
    last: Option<u64>,
    /// End after so many.
    limit: Option<u64>,
    /// Whether to wait for more; true where nobody says.
    follow: Option<bool>,
}

/// The local bus's log, one event a line, or as server-sent events where those are accepted.
#[utoipa::path(get, path = "/v1/events", operation_id = "followEvents", tag = "events", params(EventsAsked),
    responses(
        (status = 200, content((Line = "application/x-ndjson"), (String = "text/event-stream"))),
        (status = 404, description = "The bus is not the local one"),
    ))]
async fn follow(
    State(state): State<AdminState>,
    headers: HeaderMap,
    Asked(asked): Asked<EventsAsked>,
) -> Result<Response, Problem> {
    let Some(streams) = &state.inner.log else {
        let why = "only the local bus is read here: read the configured bus with its own tools";
        return Err(Problem::not_found(why));
    };
    let Ok(place) = Arc::clone(&streams.places).try_acquire_owned() else {
        return Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("there are {STREAMS} streams already"),
        ));
    };
    let form = Form::of(&headers);
    let newest = *streams.log.newest.borrow();
    let resumed = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let after = match resumed.or(asked.after) {
        // A place of a log that is gone: this one began anew.
        Some(after) if after > newest => 0,
        Some(after) => after,
        None => newest.saturating_sub(asked.last.unwrap_or(0)),
    };
    let reader = Reader {
        log: streams.log.clone(),
        topic: asked.topic,
        after,
        left: asked.limit.unwrap_or(u64::MAX),
        end: if asked.follow.unwrap_or(true) { End::Never } else { End::OfLog },
        form,
        waiting: VecDeque::new(),
        stop: state.inner.stop.clone(),
        _place: place,
    };
    let lines = stream::unfold(Some(reader), async |reader| {
        let mut reader = reader?;
        match reader.next().await {
            Some(line) => Some((Ok(line), Some(reader))),
            None if reader.is_whole() => None,
            None => Some((Err(BrokeOff), None)),
        }
    });
    let headers = [(CONTENT_TYPE, form.content_type()), (CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(lines)).into_response())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Lines,
    ServerSent,
}

impl Form {
    fn of(headers: &HeaderMap) -> Self {
        let accepts = |value: &HeaderValue| {
            value.to_str().is_ok_and(|value| value.to_ascii_lowercase().contains("text/event-stream"))
        };
        if headers.get_all(ACCEPT).iter().any(accepts) { Self::ServerSent } else { Self::Lines }
    }

    const fn content_type(self) -> &'static str {
        match self {
            Self::Lines => "application/x-ndjson",
            Self::ServerSent => "text/event-stream",
        }
    }

    fn piece(self, row: &LogRow) -> Bytes {
        let event = FleetEvent::decode(row.payload.clone()).ok().and_then(|event| json::to_json(&event).ok());
        let event = event.unwrap_or_else(|| "null".to_owned());
        let piece = match self {
            Self::Lines => line(row, event),
            Self::ServerSent => format!("id: {}\nevent: {}\ndata: {event}\n\n", row.offset, row.topic),
        };
        Bytes::from(piece)
    }
}

/// Where a stream ends by itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// It waits for more.
    Never,
    /// Where nothing more can be read.
    OfLog,
    /// It has.
    Reached,
}

/// The stream ends before its end: its answer is cut, so that nobody takes it for whole.
#[derive(Debug, thiserror::Error)]
#[error("the log cannot be read, or the process is stopping")]
struct BrokeOff;

/// One stream's place in the log.
struct Reader {
    log: LocalLog,
    topic: Option<String>,
    after: u64,
    left: u64,
    end: End,
    form: Form,
    /// Pieces of the answer, each with its place.
    waiting: VecDeque<(u64, Bytes)>,
    stop: CancellationToken,
    _place: OwnedSemaphorePermit,
}

impl Reader {
    /// The next piece of the answer; none at its end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.left == 0 || self.stop.is_cancelled() {
                return None;
            }
            if let Some((offset, piece)) = self.waiting.pop_front() {
                self.left -= 1;
                self.after = offset;
                return Some(piece);
            }
            let newest = *self.log.newest.borrow_and_update();
            match self.end {
                End::OfLog => {
                    if !self.fill().await? {
                        self.end = End::Reached;
                    }
                }
                End::Reached => return None,
                End::Never if self.after < newest => {
                    if !self.fill().await? {
                        // Nothing of this topic up to there.
                        self.after = newest;
                    }
                }
                End::Never => {
                    if let Some(heartbeat) = self.wait().await? {
                        return Some(heartbeat);
                    }
                }
            }
        }
    }

    /// Whether it has given all that was asked for, once it gives nothing more.
    const fn is_whole(&self) -> bool {
        match self.end {
            End::Never | End::Reached => true,
            End::OfLog => self.left == 0,
        }
    }

    /// Reads a page, and spells it aside, for that is work: whether there was anything. None where the log cannot be read, or the
    /// stream ends.
    async fn fill(&mut self) -> Option<bool> {
        let (read, topic, after) = (Arc::clone(&self.log.read), self.topic.clone(), self.after);
        let (form, most) = (self.form, usize::try_from(self.left).unwrap_or(PAGE).min(PAGE));
        let page = tokio::task::spawn_blocking(move || {
            let rows = read(topic.as_deref(), after, most)?;
            Ok::<Vec<_>, String>(rows.iter().map(|row| (row.offset, form.piece(row))).collect())
        });
        match self.stop.run_until_cancelled(page).await? {
            Ok(Ok(pieces)) => {
                self.waiting.extend(pieces);
                Some(!self.waiting.is_empty())
            }
            Ok(Err(error)) => {
                tracing::warn!(error = error, "events.not_read");
                None
            }
            Err(_) => None,
        }
    }

    /// Waits for news. Some where it is time for a sign of life; none at the stream's end.
    async fn wait(&mut self) -> Option<Option<Bytes>> {
        let news = timeout(HEARTBEAT, self.log.newest.changed());
        match self.stop.run_until_cancelled(news).await? {
            Ok(Ok(())) => Some(None),
            Ok(Err(_)) => None,
            Err(_) => Some(match self.form {
                Form::Lines => None,
                Form::ServerSent => Some(Bytes::from_static(b": still here\n\n")),
            }),
        }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = LogLine)]
struct Line<'a> {
    offset: u64,
    topic: &'a str,
    #[schema(value_type = Object)]
    event: Box<RawValue>,
}

fn line(row: &LogRow, event: String) -> String {
    let event = RawValue::from_string(event).unwrap_or_default();
    let line = serde_json::to_string(&Line { offset: row.offset, topic: &row.topic, event });
    line.unwrap_or_default() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a reader whose log answers so has given all, once it gives nothing more.
    async fn is_whole(answer: Result<Vec<LogRow>, String>) -> bool {
        let (_newest, newest) = watch::channel(1);
        let read = Arc::new(move |_: Option<&str>, _, _| answer.clone());
        let mut reader = Reader {
            log: LocalLog { newest, read },
            topic: None,
            after: 0,
            left: u64::MAX,
            end: End::OfLog,
            form: Form::Lines,
            waiting: VecDeque::new(),
            stop: CancellationToken::new(),
            _place: Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap(),
        };
        assert_eq!(reader.next().await, None);
        reader.is_whole()
    }

    #[tokio::test]
    async fn a_stream_that_ends_for_want_of_the_log_is_not_whole() {
        assert!(is_whole(Ok(Vec::new())).await);
        assert!(!is_whole(Err("a disk that fails".to_owned())).await);
    }
}
