//! One polled host: its client, its secret, its limit, and its breaker. An answer becomes one of a few cases, each with a
//! reaction. Invariants: a redirect never leaves the host, an answer is bounded while it is read, a secret is in no error.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use reqwest::{Client, RequestBuilder, StatusCode, header};
use serde_json::Value;
use tokio::time::{sleep, sleep_until};

use super::bucket::{Bucket, Rank};
use crate::config::{PollApi, Secret, SecretError, SecretSource};

/// The most of an answer that is read.
pub const MOST: usize = 64 << 20;
/// A call in all; the connection alone.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(120), Duration::from_secs(10));
/// No byte for so long ends a call.
const SILENCE: Duration = Duration::from_secs(30);
/// A 429 without `Retry-After`, and the longest that is obeyed.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3_600));
/// A JWT is good for fifteen minutes: it is bought anew after thirteen.
const JWT: Duration = Duration::from_secs(780);
/// Calls that the breaker looks back on, and fewest that it concludes from.
const RECENT: (usize, usize) = (20, 4);
/// First and last pause between calls to a host that fails.
const SLOW: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));

/// What came of a call.
#[derive(Debug)]
pub enum Answer {
    /// A body, and the provider's time in ms.
    Body(Bytes, Option<i64>),
    /// The secret is refused.
    Unauthorized,
    /// Too many calls: not before.
    Limited(Duration),
    /// More than is read.
    TooLarge,
    /// Anything else, in words for the operator: no body, no secret.
    Failed(String),
}

/// A request, as far as the feeds differ.
#[derive(Debug, Clone)]
pub enum Ask {
    /// GET with a query.
    Get(&'static str, Vec<(&'static str, String)>),
    /// POST with a JSON body.
    Post(&'static str, Value),
}

/// See the module.
pub struct Host {
    client: Client,
    base_url: String,
    api: PollApi,
    bucket: Option<tokio::sync::Mutex<Bucket>>,
    jwt: tokio::sync::Mutex<Option<(Secret, Instant)>>,
    breaker: Mutex<Breaker>,
}

#[derive(Debug)]
struct Breaker {
    recent: VecDeque<bool>,
    pause: Duration,
    not_before: Instant,
}

impl Breaker {
    fn record(&mut self, worked: bool, now: Instant) {
        self.recent.push_back(worked);
        if self.recent.len() > RECENT.0 {
            self.recent.pop_front();
        }
        let failed = self.recent.iter().filter(|worked| !**worked).count();
        if worked {
            self.pause = SLOW.0;
            self.not_before = now;
        }
        if !worked && self.recent.len() >= RECENT.1 && failed * 2 >= self.recent.len() {
            self.not_before = now + self.pause;
            self.pause = (self.pause * 2).min(SLOW.1);
        }
    }
}

impl Host {
    /// A client of this API at this address.
    ///
    /// # Errors
    /// Where TLS cannot be set up.
    pub fn new(base_url: &str, api: &PollApi) -> Result<Self, reqwest::Error> {
        let same_host = reqwest::redirect::Policy::custom(|attempt| {
            let first = attempt.previous().first().map(|url| (url.host_str().map(str::to_owned), url.port()));
            let next = Some((attempt.url().host_str().map(str::to_owned), attempt.url().port()));
            if attempt.previous().len() > 3 || first != next { attempt.stop() } else { attempt.follow() }
        });
        let client = Client::builder()
            .redirect(same_host)
            .timeout(PATIENCE.0)
            .connect_timeout(PATIENCE.1)
            .read_timeout(SILENCE)
            .user_agent(concat!("fleetbus/", env!("CARGO_PKG_VERSION")))
            .build()?;
        let bucket = match api {
            PollApi::V2 { .. } => None,
            PollApi::V3 { .. } => Some(tokio::sync::Mutex::new(Bucket::new(Instant::now()))),
        };
        let breaker = Breaker { recent: VecDeque::new(), pause: SLOW.0, not_before: Instant::now() };
        Ok(Self {
            client,
            base_url: base_url.to_owned(),
            api: api.clone(),
            bucket,
            jwt: tokio::sync::Mutex::new(None),
            breaker: Mutex::new(breaker),
        })
    }

    /// Whether half or more of the last calls failed.
    #[must_use]
    pub fn is_slowed(&self) -> bool {
        self.breaker.lock().not_before > Instant::now()
    }

    /// Calls, within the shared limit, and once more where a JWT was refused.
    pub async fn call(&self, ask: &Ask, rank: Rank) -> Answer {
        let not_before = self.breaker.lock().not_before;
        sleep_until(not_before.into()).await;
        let answer = match &self.api {
            PollApi::V2 { token } => match bearer(token) {
                Ok(token) => self.once(ask, &token, rank).await,
                Err(error) => Answer::Failed(error.to_string()),
            },
            PollApi::V3 { key } => {
                let first = self.with_jwt(ask, key, rank).await;
                if matches!(first, Answer::Unauthorized) {
                    *self.jwt.lock().await = None;
                    self.with_jwt(ask, key, rank).await
                } else {
                    first
                }
            }
        };
        let worked = matches!(answer, Answer::Body(..) | Answer::TooLarge | Answer::Limited(_));
        self.breaker.lock().record(worked, Instant::now());
        answer
    }

    /// An answer that could not be read counts as a failure of the host.
    pub fn was_odd(&self) {
        self.breaker.lock().record(false, Instant::now());
    }

    async fn with_jwt(&self, ask: &Ask, key: &SecretSource, rank: Rank) -> Answer {
        match self.jwt(key).await {
            Ok(jwt) => self.once(ask, &jwt, rank).await,
            Err(answer) => answer,
        }
    }

    /// The JWT, bought by one caller for all.
    async fn jwt(&self, key: &SecretSource) -> Result<Secret, Answer> {
        let mut held = self.jwt.lock().await;
        if let Some((jwt, at)) = &*held
            && at.elapsed() < JWT
        {
            return Ok(jwt.clone());
        }
        let key = key.read().map_err(|error| Answer::Failed(error.to_string()))?;
        let request =
            self.client.post(format!("{}/jwts", self.base_url)).header("x-api-key", key.reveal().trim());
        match read(request).await {
            Answer::Body(body, _) => {
                let Some(jwt) = jwt_of(&body) else {
                    return Err(Answer::Failed("POST /jwts answered no JWT".to_owned()));
                };
                *held = Some((jwt.clone(), Instant::now()));
                Ok(jwt)
            }
            other => Err(other),
        }
    }

    async fn once(&self, ask: &Ask, bearer: &Secret, rank: Rank) -> Answer {
        if let Some(bucket) = &self.bucket {
            turn(bucket, rank).await;
        }
        let request = match ask {
            Ask::Get(path, query) => self.client.get(format!("{}{path}", self.base_url)).query(query),
            Ask::Post(path, body) => self.client.post(format!("{}{path}", self.base_url)).json(body),
        };
        let request = request.header(header::ACCEPT, "application/json").bearer_auth(bearer.reveal());
        let (answer, left) = read_with_left(request).await;
        if let (Some(bucket), Some(left)) = (&self.bucket, left) {
            bucket.lock().await.left(left);
        }
        answer
    }
}

/// Waits for a call of the shared limit. A live feed keeps the lock while it waits: first come, first served.
async fn turn(bucket: &tokio::sync::Mutex<Bucket>, rank: Rank) {
    loop {
        let mut held = bucket.lock().await;
        let Err(wait) = held.take(rank, Instant::now()) else { return };
        match rank {
            Rank::Live => {
                sleep(wait).await;
                if held.take(rank, Instant::now()).is_ok() {
                    return;
                }
            }
            Rank::Spare => {
                drop(held);
                sleep(wait.min(Duration::from_secs(5))).await;
            }
        }
    }
}

/// The token without a scheme: some paste it with one.
fn bearer(source: &SecretSource) -> Result<Secret, SecretError> {
    let token = source.read()?;
    let text = token.reveal().trim();
    let bare = match text.get(..7) {
        Some(scheme) if scheme.eq_ignore_ascii_case("bearer ") => text[7..].trim(),
        Some(_) | None => text,
    };
    Ok(Secret::new(bare.to_owned()))
}

/// The JWT in an answer: plain text, a JSON string, or an object that holds it.
fn jwt_of(body: &[u8]) -> Option<Secret> {
    let text = std::str::from_utf8(body).ok()?.trim();
    let jwt = match serde_json::from_str::<Value>(text) {
        Ok(Value::String(jwt)) => jwt,
        Ok(Value::Object(object)) => {
            let named = ["token", "jwt", "access_token"].iter().find_map(|name| object.get(*name));
            named?.as_str()?.to_owned()
        }
        Ok(_) => return None,
        Err(_) => text.to_owned(),
    };
    let fits = !jwt.is_empty() && jwt.len() < 8_192 && jwt.bytes().all(|b| b.is_ascii_graphic());
    fits.then(|| Secret::new(jwt))
}

async fn read(request: RequestBuilder) -> Answer {
    read_with_left(request).await.0
}

/// An answer, and how many calls the provider says are left.
async fn read_with_left(request: RequestBuilder) -> (Answer, Option<u32>) {
    let answer = match request.send().await {
        Ok(answer) => answer,
        // Without its URL, which has nothing secret, and with the reason, which helps.
        Err(error) => return (Answer::Failed(reason(&error.without_url())), None),
    };
    let headers = answer.headers();
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let left = text("x-rate-limit-remaining").or_else(|| text("x-ratelimit-remaining"));
    let left = left.and_then(|left| left.trim().parse().ok());
    let date = text("date").and_then(http_date);
    let retry_after = text("retry-after").and_then(|value| {
        let until = || http_date(value).map(|at| at - jiff::Timestamp::now().as_millisecond());
        let seconds = value.trim().parse().ok().map(Duration::from_secs);
        seconds.or_else(|| until().map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or(0))))
    });
    let status = answer.status();
    let answer = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Answer::Unauthorized,
        StatusCode::TOO_MANY_REQUESTS => {
            Answer::Limited(retry_after.unwrap_or(RETRY_AFTER.0).clamp(Duration::from_secs(1), RETRY_AFTER.1))
        }
        StatusCode::SERVICE_UNAVAILABLE if retry_after.is_some() => {
            Answer::Limited(retry_after.unwrap_or(RETRY_AFTER.0).clamp(Duration::from_secs(1), RETRY_AFTER.1))
        }
        status if status.is_success() => body(answer, date).await,
        status => Answer::Failed(format!("HTTP {}", status.as_u16())),
    };
    (answer, left)
}

async fn body(answer: reqwest::Response, date: Option<i64>) -> Answer {
    let mut chunks = answer.bytes_stream();
    let mut body = BytesMut::new();
    while let Some(chunk) = chunks.next().await {
        match chunk {
            Ok(chunk) if body.len() + chunk.len() > MOST => return Answer::TooLarge,
            Ok(chunk) => body.extend_from_slice(&chunk),
            Err(error) => return Answer::Failed(reason(&error.without_url())),
        }
    }
    Answer::Body(body.freeze(), date)
}

/// An error with all its sources: reqwest's own says little.
fn reason(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// An HTTP date in ms since 1970.
fn http_date(text: &str) -> Option<i64> {
    let parsed = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(parsed.timestamp().as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jwt_is_found_in_every_form_of_answer() {
        let check = |body: &str, expected: Option<&str>| {
            assert_eq!(jwt_of(body.as_bytes()).as_ref().map(Secret::reveal), expected, "{body}");
        };
        check("a.b.c", Some("a.b.c"));
        check("\"a.b.c\"\n", Some("a.b.c"));
        check("{\"access_token\":\"a.b.c\"}", Some("a.b.c"));
        check("{\"other\":1}", None);
        check("", None);
        check("<html> no", None);
    }

    #[test]
    fn a_host_that_fails_by_half_is_slowed_and_recovers_with_a_success() {
        let start = Instant::now();
        let mut breaker = Breaker { recent: VecDeque::new(), pause: SLOW.0, not_before: start };
        for worked in [true, true, true, false, true, false] {
            breaker.record(worked, start);
        }
        assert_eq!(breaker.not_before, start, "a third is not half");
        breaker.record(false, start);
        breaker.record(false, start);
        assert_eq!(breaker.not_before, start + SLOW.0);
        breaker.record(false, start);
        assert_eq!(breaker.not_before, start + SLOW.0 * 2);
        breaker.record(true, start);
        assert_eq!(breaker.not_before, start);
    }

    #[test]
    fn http_dates_are_read() {
        assert_eq!(http_date("Mon, 29 Dec 2025 12:00:00 GMT"), Some(1_767_009_600_000));
        assert_eq!(http_date("soon"), None);
    }
}
