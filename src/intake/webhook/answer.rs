//! What a sender is told: each case, and its status (`docs/operate.md` lists them). Pure. Exhaustive, so that a new case needs one.

use std::time::Duration;

use axum::Json;
use axum::http::header::{ACCEPT_ENCODING, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::body::Unread;
use crate::intake::accept::{Receipt, Refusal};
use crate::intake::auth::Seen;

/// While the process stops, another one starts.
const AFTER_STOPPING: Duration = Duration::from_secs(5);

/// What a request comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Everything is durable.
    Taken(Receipt),
    /// A `GET` with a token that is right.
    Ready,
    /// No token, or a wrong one.
    Unauthorized(Seen),
    /// No such account.
    UnknownAccount,
    /// Nothing is posted there.
    NoWebhook,
    /// Neither a `POST` nor a `GET`.
    WrongMethod,
    /// The body was not read, or not to its end.
    Unread(Unread),
    /// The body was read and kept, and is neither the gzip that it was said to be nor JSON.
    NotGzip,
    /// The body was read, and not taken, or not in full.
    Refused(Refusal),
}

impl From<Unread> for Answer {
    fn from(unread: Unread) -> Self {
        Self::Unread(unread)
    }
}

impl From<Result<Receipt, Refusal>> for Answer {
    fn from(taken: Result<Receipt, Refusal>) -> Self {
        match taken {
            Ok(receipt) => Self::Taken(receipt),
            Err(refusal) => Self::Refused(refusal),
        }
    }
}

impl Answer {
    /// The status.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::Taken(_) => StatusCode::CREATED,
            Self::Ready => StatusCode::OK,
            Self::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            Self::UnknownAccount | Self::NoWebhook => StatusCode::NOT_FOUND,
            Self::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::Unread(unread) => match unread {
                Unread::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
                Unread::TooSlow => StatusCode::REQUEST_TIMEOUT,
                Unread::Encoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
                Unread::Broken => StatusCode::BAD_REQUEST,
                Unread::NoRoom { .. } => StatusCode::SERVICE_UNAVAILABLE,
            },
            Self::NotGzip => StatusCode::BAD_REQUEST,
            Self::Refused(refusal) => match refusal {
                Refusal::NotJson { .. } | Refusal::Empty => StatusCode::BAD_REQUEST,
                Refusal::TooMany(_) => StatusCode::PAYLOAD_TOO_LARGE,
                Refusal::QuotaSpent { .. } => StatusCode::TOO_MANY_REQUESTS,
                Refusal::NotKept { .. } | Refusal::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            },
        }
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        match self {
            // Which methods are allowed the router says.
            Self::Taken(_)
            | Self::Ready
            | Self::UnknownAccount
            | Self::NoWebhook
            | Self::WrongMethod
            | Self::NotGzip => {}
            Self::Unauthorized(_) => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"fleetbus\""));
            }
            Self::Unread(unread) => match unread {
                Unread::TooLarge | Unread::TooSlow | Unread::Broken => {}
                Unread::Encoding => {
                    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip, identity"));
                }
                Unread::NoRoom { retry_after } => come_again(&mut headers, *retry_after),
            },
            Self::Refused(refusal) => match refusal {
                Refusal::NotJson { .. } | Refusal::Empty | Refusal::TooMany(_) => {}
                Refusal::QuotaSpent { retry_after } | Refusal::NotKept { retry_after } => {
                    come_again(&mut headers, *retry_after);
                }
                Refusal::Stopping => come_again(&mut headers, AFTER_STOPPING),
            },
        }
        headers
    }

    fn body(&self) -> Response {
        match self {
            Self::Taken(receipt) => Json(Counted::from(*receipt)).into_response(),
            Self::Ready => "ready for POST\n".into_response(),
            Self::Unauthorized(seen) => Json(Error::of(seen)).into_response(),
            Self::UnknownAccount => Json(Error::of("no such account")).into_response(),
            Self::NoWebhook => {
                Json(Error::of("not found: messages are posted to /webhooks/{account}")).into_response()
            }
            Self::WrongMethod => {
                Json(Error::of("POST messages here; GET says whether a token is right")).into_response()
            }
            Self::Unread(unread) => Json(Error::of(unread)).into_response(),
            Self::NotGzip => {
                Json(Error::of("the body's gzip is broken or cut off, and as it came it is not JSON"))
                    .into_response()
            }
            Self::Refused(refusal) => Json(Error::from(refusal)).into_response(),
        }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        (self.status(), self.headers(), self.body()).into_response()
    }
}

/// In whole seconds, at least one.
fn come_again(headers: &mut HeaderMap, after: Duration) {
    let seconds = after.as_millis().div_ceil(1_000).clamp(1, 86_400) as u32;
    headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
}

#[derive(Serialize)]
struct Counted {
    events: u64,
    delivered: u64,
    parked: u64,
    duplicates: u64,
    unrecognized: u64,
    undecodable: u64,
    skipped: u64,
}

impl From<Receipt> for Counted {
    fn from(receipt: Receipt) -> Self {
        let Receipt { events, delivered, parked, duplicates, unrecognized, undecodable, skipped } = receipt;
        Self { events, delivered, parked, duplicates, unrecognized, undecodable, skipped }
    }
}

#[derive(Serialize)]
struct Error {
    error: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<usize>,
}

impl Error {
    fn of(error: impl ToString) -> Self {
        Self { error: error.to_string(), line: None, column: None }
    }
}

impl From<&Refusal> for Error {
    fn from(refusal: &Refusal) -> Self {
        let error = Self::of(refusal);
        match refusal {
            Refusal::NotJson { line, column } => Self { line: Some(*line), column: Some(*column), ..error },
            Refusal::Empty
            | Refusal::TooMany(_)
            | Refusal::QuotaSpent { .. }
            | Refusal::NotKept { .. }
            | Refusal::Stopping => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_is_asked_for_in_whole_seconds() {
        let check = |after: Duration, expected: &str| {
            let answer = Answer::Refused(Refusal::NotKept { retry_after: after });
            assert_eq!(answer.headers()[RETRY_AFTER], expected);
        };
        check(Duration::ZERO, "1");
        check(Duration::from_millis(1_001), "2");
        check(Duration::from_secs(30), "30");
        check(Duration::MAX, "86400");
    }
}
