//! Errors as RFC 9457 problem details, and queries that are read strictly: an unknown key is an error, for a filter with
//! a typing error in it would ask for more than was meant.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use utoipa::ToSchema;

use crate::enrich::import::Wrong;
use crate::logs;
use crate::replay::AskError;

/// How long a body may take to come.
const BODY_TIME: Duration = Duration::from_secs(120);

/// What went wrong with a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    status: StatusCode,
    detail: String,
    more: Option<More>,
    retry_after: Option<Duration>,
}

/// What stands beside the standard members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum More {
    /// Everything that is wrong with what was sent, or read.
    Errors(Errors),
    /// Events that were parked before it went wrong.
    Parked(u64),
}

/// Everything that is wrong with what was sent, or read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = ProblemErrors)]
pub(super) enum Errors {
    /// A file's lines.
    Lines(Vec<WrongLine>),
    /// A configuration's problems, each in a sentence with its place.
    Sentences(Vec<String>),
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct WrongLine {
    /// Which, from 1.
    line: u64,
    error: String,
}

/// RFC 9457.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct Details<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
    /// Where several things are wrong: of a file the first hundred of its lines, of a configuration all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    errors: Option<Errors>,
    /// Where an import broke off: events of it that are parked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    parked: Option<u64>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), more: None, retry_after: None }
    }

    /// With a member beside the standard ones.
    pub(super) fn with(mut self, more: More) -> Self {
        self.more = Some(more);
        self
    }

    /// Says more.
    pub(super) fn and(mut self, more: &str) -> Self {
        self.detail.push_str(more);
        self
    }

    /// Says when to come again.
    pub(super) const fn after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    pub(super) fn unprocessable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    }

    pub(super) fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }

    pub(super) fn too_many(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, detail)
    }

    pub(super) fn internal(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    }

    /// A file of which nothing was taken, and its lines that are wrong.
    pub(super) fn wrong_lines(wrong: &Wrong) -> Self {
        let lines = wrong.lines.iter();
        let lines = lines.map(|wrong| WrongLine { line: wrong.line, error: wrong.error.clone() });
        let why = format!("{} lines are wrong, and nothing was imported", wrong.count);
        Self::unprocessable(why).with(More::Errors(Errors::Lines(lines.collect())))
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    #[cfg(test)]
    pub(super) const fn status(&self) -> StatusCode {
        self.status
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"fleetbus admin\""));
        }
        if let Some(wait) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs().saturating_add(1)));
        }
        let (errors, parked) = match self.more {
            Some(More::Errors(errors)) => (Some(errors), None),
            Some(More::Parked(parked)) => (None, Some(parked)),
            None => (None, None),
        };
        let details = Details {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            errors,
            parked,
        };
        let body = serde_json::to_vec(&details).unwrap_or_default();
        (self.status, headers, body).into_response()
    }
}

impl From<AskError> for Problem {
    fn from(error: AskError) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, format!("the store cannot answer: {error}"))
    }
}

/// The query, every key of it known.
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        read_query(&parts.uri).map(Self)
    }
}

/// A query, every key of it known.
pub(super) fn read_query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Problem> {
    Query::<T>::try_from_uri(uri)
        .map(|Query(asked)| asked)
        .map_err(|rejection| Problem::unprocessable(logs::innermost(&rejection)))
}

/// A body is not waited for without end.
async fn in_time<T>(body: impl Future<Output = T>) -> Result<T, Problem> {
    let late = |_| Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time");
    timeout(BODY_TIME, body).await.map_err(late)
}

/// A body that is no JSON document, up to a bound.
pub(super) async fn body_of(request: Request, most: usize) -> Result<Bytes, Problem> {
    in_time(axum::body::to_bytes(request.into_body(), most)).await?.map_err(|_| {
        let why = format!("the body is larger than {most} bytes, or broke off: send it in parts");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, why)
    })
}

/// A JSON body, every key of it known.
pub(super) struct Sent<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Sent<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let sent = in_time(Json::<T>::from_request(request, state)).await?;
        sent.map(|Json(sent)| Self(sent)).map_err(|rejection| {
            let status = match &rejection {
                JsonRejection::JsonDataError(_) => StatusCode::UNPROCESSABLE_ENTITY,
                other => other.status(),
            };
            Problem::new(status, logs::innermost(&rejection))
        })
    }
}
