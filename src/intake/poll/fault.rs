//! Why a call yielded no rows: one variant per reaction. Classification is pure: status, headers and the start of a body in,
//! a fault out. Invariant: no token, key, parameter, id, name or place that a body quotes is ever in a fault's text (`words`).
//! Neighbours: `http` makes faults, `host` reacts for all who share it, `feed` for itself.

use std::num::IntErrorKind;
use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderMap, StatusCode, header};
use jiff::fmt::rfc2822;

use super::words::redacted;
use crate::event::Millis;
use crate::provider::{AnswerError, Feed, MAX_ROWS, PullApi, pulled_rows};

/// Where the provider says to slow down, and not for how long.
const PAUSE: Duration = Duration::from_secs(60);
/// The longest pause that a provider can ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(3_600);

/// Why a call yielded no rows. No cursor moves over any of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The host cannot be reached, fails, or answers what no API answers: it counts against the host.
    #[error("the host fails: {0}")]
    Host(String),
    /// No answer in time: it counts against the host, and a shorter window may do.
    #[error("no full answer in time")]
    TimedOut,
    /// The host is well, and does not do what was asked: the feed alone is concerned.
    #[error("the request failed: {0}")]
    Refused(String),
    /// The token or key is not accepted, or cannot be read: asked again at growing pauses.
    #[error("the token is not accepted: {0}")]
    Unauthorized(String),
    /// Too many calls: all who share the host or key pause.
    #[error("the host asks for a pause of {} s", .0.as_secs())]
    Limited(Duration),
    /// More than is read at once: a shorter window is asked for.
    #[error("the answer is larger than {0}")]
    TooLarge(String),
}

impl Fault {
    /// A stable word for logs and metrics.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Host(_) => "host",
            Self::TimedOut => "timed-out",
            Self::Refused(_) => "refused",
            Self::Unauthorized(_) => "unauthorized",
            Self::Limited(_) => "limited",
            Self::TooLarge(_) => "too-large",
        }
    }

    /// What a body that cannot be opened means.
    #[must_use]
    pub fn of_answer(error: &AnswerError) -> Self {
        match error {
            AnswerError::Empty | AnswerError::NotJson { .. } => Self::Host(error.to_string()),
            AnswerError::Provider(message) => {
                Self::Refused(AnswerError::Provider(redacted(message)).to_string())
            }
            AnswerError::NoList => Self::Refused(error.to_string()),
            AnswerError::TooMany => Self::TooLarge(format!("{MAX_ROWS} rows")),
        }
    }

    /// What a status other than success means; `body` is its beginning.
    #[must_use]
    pub fn of_status(status: StatusCode, headers: &HeaderMap, body: &[u8], now: Millis) -> Self {
        let said = || {
            let message = match pulled_rows(PullApi::V2, Feed::Locations, body) {
                Err(AnswerError::Provider(message)) => format!(", \"{}\"", redacted(&message)),
                Ok(_)
                | Err(
                    AnswerError::Empty
                    | AnswerError::NotJson { .. }
                    | AnswerError::NoList
                    | AnswerError::TooMany,
                ) => String::new(),
            };
            format!("status {}{message}", status.as_u16())
        };
        match status {
            StatusCode::TOO_MANY_REQUESTS => Self::Limited(retry_after(headers, now).unwrap_or(PAUSE)),
            StatusCode::SERVICE_UNAVAILABLE => match retry_after(headers, now) {
                Some(pause) => Self::Limited(pause),
                None => Self::Host(said()),
            },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Self::Unauthorized(said()),
            StatusCode::REQUEST_TIMEOUT => Self::Host(said()),
            // What stands before the host says so of its answer.
            StatusCode::GATEWAY_TIMEOUT => Self::TimedOut,
            StatusCode::PAYLOAD_TOO_LARGE => {
                Self::TooLarge("the host's side lets through, status 413".to_owned())
            }
            status if status.is_server_error() => Self::Host(said()),
            _ => Self::Refused(said()),
        }
    }
}

/// The time in an answer's `Date`.
#[must_use]
pub fn sent_at(headers: &HeaderMap) -> Option<Millis> {
    http_date(headers.get(header::DATE)?.to_str().ok()?)
}

/// What is left of the bucket, as V3 spells it, and as it might.
#[must_use]
pub fn remaining(headers: &HeaderMap) -> Option<u32> {
    ["x-rate-limit-remaining", "x-ratelimit-remaining"]
        .iter()
        .find_map(|name| headers.get(*name)?.to_str().ok()?.trim().parse().ok())
}

/// Seconds, or a date.
fn retry_after(headers: &HeaderMap, now: Millis) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let pause = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        // More than can be counted.
        Err(error) if *error.kind() == IntErrorKind::PosOverflow => LONGEST_PAUSE,
        Err(_) => {
            let now = sent_at(headers).unwrap_or(now);
            Duration::from_millis(u64::try_from(http_date(text)?.0.saturating_sub(now.0)).unwrap_or(0))
        }
    };
    Some(pause.clamp(Duration::from_secs(1), LONGEST_PAUSE))
}

fn http_date(text: &str) -> Option<Millis> {
    if let Ok(parsed) = rfc2822::DateTimeParser::new().parse_timestamp(text.trim()) {
        return Some(Millis(parsed.as_millisecond()));
    }
    // The two old spellings that a reader must know, too.
    let since = httpdate::parse_http_date(text.trim()).ok()?.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok().map(Millis)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    const NOW: Millis = Millis(1_767_009_600_000);

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    fn check(status: u16, pairs: &[(&'static str, &'static str)], body: &str, expected: Fault) {
        let status = StatusCode::from_u16(status).unwrap();
        assert_eq!(Fault::of_status(status, &headers(pairs), body.as_bytes(), NOW), expected, "{status}");
    }

    #[test]
    fn each_status_has_its_reaction() {
        let limited = |seconds| Fault::Limited(Duration::from_secs(seconds));
        check(429, &[], "", limited(60));
        check(429, &[("retry-after", "7")], "", limited(7));
        check(429, &[("retry-after", "0")], "", limited(1));
        check(429, &[("retry-after", "999999")], "", limited(3_600));
        check(429, &[("retry-after", "99999999999999999999")], "", limited(3_600));
        check(429, &[("retry-after", "Mon, 29 Dec 2025 12:01:30 GMT")], "", limited(90));
        check(429, &[("retry-after", "Monday, 29-Dec-25 12:01:30 GMT")], "", limited(90));
        check(429, &[("retry-after", "Mon Dec 29 12:01:30 2025")], "", limited(90));
        let dated =
            [("date", "Mon, 29 Dec 2025 11:00:00 GMT"), ("retry-after", "Mon, 29 Dec 2025 11:00:05 GMT")];
        check(429, &dated, "", limited(5));
        check(429, &[("retry-after", "soon")], "", limited(60));
        check(503, &[("retry-after", "7")], "", limited(7));
        check(503, &[], "", Fault::Host("status 503".to_owned()));
        check(500, &[], "<html>", Fault::Host("status 500".to_owned()));
        check(504, &[], "<html>", Fault::TimedOut);
        check(413, &[], "", Fault::TooLarge("the host's side lets through, status 413".to_owned()));
        check(401, &[], "", Fault::Unauthorized("status 401".to_owned()));
        check(403, &[], "", Fault::Unauthorized("status 403".to_owned()));
        check(404, &[], "<html>", Fault::Refused("status 404".to_owned()));
        check(302, &[], "", Fault::Refused("status 302".to_owned()));
        let body =
            r#"{"errors":{"toDate":["too far from eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.x_y"]}}"#;
        check(422, &[], body, Fault::Refused("status 422, \"too far from ***\"".to_owned()));
    }

    #[test]
    fn what_the_headers_say_is_read_in_either_spelling() {
        let date = headers(&[("date", "Mon, 29 Dec 2025 12:00:00 GMT")]);
        assert_eq!(sent_at(&date), Some(NOW));
        assert_eq!(sent_at(&headers(&[("date", "yesterday")])), None);
        assert_eq!(remaining(&headers(&[("x-rate-limit-remaining", "17")])), Some(17));
        assert_eq!(remaining(&headers(&[("x-ratelimit-remaining", "3")])), Some(3));
        assert_eq!(remaining(&headers(&[("x-rate-limit-remaining", "-1")])), None);
    }
}
