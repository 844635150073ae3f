//! One polled host, as one token or key opens it, shared by all feeds that use it: its secret or JWT, its limit, its breaker.
//! Invariants: a pause that the host asks for holds for all who share it; one caller buys a JWT for all; whoever waits is let
//! out in order of arrival. Neighbours: `http` makes the exchange, `bucket` and `brake` decide, `fetch` calls.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep};

use super::Clock;
use super::brake::{Brake, Change, Verdict};
use super::bucket::{Bucket, Class};
use super::fault::{Fault, remaining, sent_at};
use super::http::{Answer, Client, Exchange, Held};
use super::request::{Request, Verb, get};
use crate::aside::Kept;
use crate::config::{PollApi, Secret};
use crate::event::Millis;
use crate::provider::{AnswerError, Feed, PullApi, pulled_rows, repaired};

/// A JWT lives for 15 minutes: it is bought anew after 13, and used up to 14 where that fails.
const JWT: (Duration, Duration) = (Duration::from_secs(13 * 60), Duration::from_secs(14 * 60));
/// The longest JWT that is believed to be one.
const JWT_LENGTH: usize = 8 << 10;
/// A failure to buy one is shared for so long by all who ask.
const JWT_FAILED: Duration = Duration::from_secs(5);
/// Calls of one token or key at once.
const LINES: usize = 4;
/// Those of them that sweeps and backfills may have: one is left for live feeds.
const REST: usize = LINES - 1;
/// An answer from this size on is split off the runtime.
const LARGE: usize = 1 << 20;

/// See the module.
pub struct Host {
    client: Client,
    base_url: String,
    door: Door,
    clock: Clock,
    gate: Mutex<Gate>,
    /// Told when the gate may open earlier than it said.
    opened: Notify,
    live: tokio::sync::Mutex<()>,
    rest: tokio::sync::Mutex<()>,
    lines: Semaphore,
    rest_lines: Semaphore,
    /// Whether it had rows behind a page that was not full: then its pages go on until one is empty.
    short_pages: AtomicBool,
}

/// What opens it.
enum Door {
    V2 { token: Kept },
    V3 { key: Kept, jwt: tokio::sync::Mutex<Jwt> },
}

#[derive(Default)]
struct Jwt {
    held: Option<(Secret, Instant)>,
    /// How many there were: which one was refused.
    number: u64,
    failed: Option<(Instant, Fault)>,
}

/// When a call may go out.
struct Gate {
    brake: Brake,
    paused_until: Option<Instant>,
    bucket: Option<Bucket>,
}

/// Rows of one answer.
#[derive(Debug)]
pub struct Page {
    /// Each row's JSON text.
    pub rows: Vec<Bytes>,
    /// The provider's time.
    pub sent_at: Option<Millis>,
    /// How large the answer was.
    pub bytes: usize,
    /// The memory that they take: kept until they are handed over.
    pub held: Held,
}

impl Host {
    /// A host that was not called yet.
    #[must_use]
    pub fn new(client: Client, base_url: &str, api: &PollApi, clock: Clock) -> Self {
        let (door, bucket) = match api {
            PollApi::V2 { token } => (Door::V2 { token: Kept::new(token.clone()) }, None),
            PollApi::V3 { key } => {
                let door = Door::V3 { key: Kept::new(key.clone()), jwt: tokio::sync::Mutex::default() };
                (door, Some(Bucket::new(Instant::now())))
            }
        };
        Self {
            client,
            base_url: base_url.to_owned(),
            door,
            clock,
            gate: Mutex::new(Gate { brake: Brake::default(), paused_until: None, bucket }),
            opened: Notify::new(),
            live: tokio::sync::Mutex::default(),
            rest: tokio::sync::Mutex::default(),
            lines: Semaphore::new(LINES),
            rest_lines: Semaphore::new(REST),
            short_pages: AtomicBool::new(false),
        }
    }

    /// Whether a page that is not full says nothing about the next.
    #[must_use]
    pub fn has_short_pages(&self) -> bool {
        self.short_pages.load(Ordering::Relaxed)
    }

    /// There were rows behind a page that was not full: whether that is news.
    pub fn saw_short_pages(&self) -> bool {
        !self.short_pages.swap(true, Ordering::Relaxed)
    }

    /// Whether its calls are slowed, because half of them or more failed.
    #[must_use]
    pub fn is_slowed(&self) -> bool {
        self.gate.lock().brake.is_slowed()
    }

    /// Calls that are under way.
    #[must_use]
    pub fn under_way(&self) -> usize {
        LINES - self.lines.available_permits()
    }

    /// Whether calls wait for the secret.
    #[must_use]
    pub fn reads_secret(&self) -> bool {
        let (Door::V2 { token: secret } | Door::V3 { key: secret, .. }) = &self.door;
        secret.is_awaited()
    }

    /// The largest answer that is read.
    #[must_use]
    pub const fn largest(&self) -> usize {
        self.client.largest()
    }

    /// The rows of one answer, when the host lets a call through: then it has gone out. May be dropped at any await.
    ///
    /// # Errors
    /// Why there are none. What concerns all who share the host has been noted.
    pub async fn page(
        &self,
        feed: Feed,
        request: &Request,
        class: Class,
        gone_out: &AtomicBool,
    ) -> Result<Page, Fault> {
        let api = match self.door {
            Door::V2 { .. } => PullApi::V2,
            Door::V3 { .. } => PullApi::V3,
        };
        let answer = self.ask(request, class, gone_out).await?;
        let (sent_at, bytes) = (sent_at(&answer.headers), answer.body.len());
        let rows = split(api, feed, answer.body).await;
        self.note(rows.as_ref().err());
        Ok(Page { rows: rows?, sent_at, bytes, held: answer.held })
    }

    /// Whether it answers and takes the token or key, at the least cost: V2 tells the company, V3 sells a JWT.
    ///
    /// # Errors
    /// See [`Host::page`].
    pub async fn knock(&self) -> Result<(), Fault> {
        match &self.door {
            Door::V2 { .. } => self.call(&get("/company", Vec::new()), Class::Rest).await.map(|_| ()),
            Door::V3 { key, jwt } => self.jwt(key, jwt, None).await.map(|_| ()),
        }
    }

    /// One answer with a status of success.
    ///
    /// # Errors
    /// See [`Host::page`].
    pub async fn call(&self, request: &Request, class: Class) -> Result<Answer, Fault> {
        self.ask(request, class, &AtomicBool::new(false)).await
    }

    async fn ask(&self, request: &Request, class: Class, gone_out: &AtomicBool) -> Result<Answer, Fault> {
        match &self.door {
            Door::V2 { token } => self.send(request, bearer(token).await?, Some(class), gone_out).await,
            Door::V3 { key, jwt } => {
                let (opener, number) = self.jwt(key, jwt, None).await?;
                match self.send(request, opener, Some(class), gone_out).await {
                    Err(Fault::Unauthorized(_)) => {
                        let (opener, _) = self.jwt(key, jwt, Some(number)).await?;
                        self.send(request, opener, Some(class), gone_out).await
                    }
                    other => other,
                }
            }
        }
    }

    /// The JWT, bought by one caller for all. `refused` is the number of one that did not open.
    async fn jwt(
        &self,
        key: &Kept,
        jwt: &tokio::sync::Mutex<Jwt>,
        refused: Option<u64>,
    ) -> Result<(Opener, u64), Fault> {
        let mut jwt = jwt.lock().await;
        let younger = |jwt: &Jwt, age| {
            let held = jwt.held.as_ref().filter(|(_, at)| at.elapsed() < age);
            held.filter(|_| refused != Some(jwt.number)).map(|(jwt, _)| jwt.clone())
        };
        if let Some(held) = younger(&jwt, JWT.0) {
            return Ok((opener(&held)?, jwt.number));
        }
        let bought = match &jwt.failed {
            Some((at, fault)) if at.elapsed() < JWT_FAILED => Err(fault.clone()),
            // Dated by the purchase alone: who shares its failure prolongs nothing.
            Some(_) | None => {
                self.buy(key).await.inspect_err(|fault| jwt.failed = Some((Instant::now(), fault.clone())))
            }
        };
        match bought {
            Ok(bought) => {
                let opener = opener(&bought)?;
                let number = jwt.number + 1;
                *jwt = Jwt { held: Some((bought, Instant::now())), number, failed: None };
                Ok((opener, number))
            }
            Err(fault) => {
                let old = younger(&jwt, JWT.1).ok_or(fault)?;
                Ok((opener(&old)?, jwt.number))
            }
        }
    }

    async fn buy(&self, key: &Kept) -> Result<Secret, Fault> {
        let key = key.read().await.map_err(|error| Fault::Unauthorized(error.to_string()))?;
        let opener = (HeaderName::from_static("x-api-key"), header_value(key.reveal().trim())?);
        let request = Request { verb: Verb::Post("{}".to_owned()), path: "/jwts", query: Vec::new() };
        // Buying is exempt from the limit.
        let answer = self.send(&request, opener, None, &AtomicBool::new(false)).await?;
        let fault = || Fault::Host("the answer of /jwts has no JWT".to_owned());
        let bought = jwt_of(&answer.body).ok_or_else(fault);
        self.note(bought.as_ref().err());
        bought
    }

    /// Waits until a call may go out, and makes it. Its class where it counts against the limit.
    async fn send(
        &self,
        request: &Request,
        opener: Opener,
        class: Option<Class>,
        gone_out: &AtomicBool,
    ) -> Result<Answer, Fault> {
        let _paid = self.pass(class).await;
        gone_out.store(true, Ordering::Relaxed);
        let whose = class.unwrap_or(Class::Live);
        let sent = self.client.exchange(&self.base_url, request, opener, (self.clock)(), whose).await;
        let Exchange { answer, headers } = sent;
        if class.is_some()
            && let Some(bucket) = &mut self.gate.lock().bucket
        {
            bucket.learn(remaining(&headers), Instant::now());
        }
        if let Err(fault) = &answer {
            self.note(Some(fault));
        }
        answer
    }

    /// What a call says about the host.
    fn note(&self, fault: Option<&Fault>) {
        let now = Instant::now();
        let verdict = match fault {
            None | Some(Fault::Refused(_) | Fault::Unauthorized(_) | Fault::TooLarge(_)) => Verdict::Well,
            Some(Fault::Host(_) | Fault::TimedOut) => Verdict::Failing,
            Some(Fault::Limited(pause)) => {
                let mut gate = self.gate.lock();
                gate.paused_until = gate.paused_until.max(Some(now + *pause));
                if let Some(bucket) = &mut gate.bucket {
                    bucket.spent(now);
                }
                return;
            }
        };
        let change = self.gate.lock().brake.record(verdict, now);
        match change {
            Some(Change::Slowed) => tracing::warn!(host = self.base_url, "poll.host_slowed"),
            Some(Change::Recovered) => {
                tracing::info!(host = self.base_url, "poll.host_recovered");
                self.opened.notify_waiters();
            }
            None => {}
        }
    }

    async fn pass(&self, class: Option<Class>) -> Paid<'_> {
        // First come, first served: a feed with many pages stands in line for each.
        let _turn = match class {
            Some(Class::Live) => Some(self.live.lock().await),
            Some(Class::Rest) => Some(self.rest.lock().await),
            None => None,
        };
        // The semaphores are never closed.
        let rest = match class {
            Some(Class::Rest) => self.rest_lines.acquire().await.ok(),
            Some(Class::Live) | None => None,
        };
        loop {
            let line = self.lines.acquire().await.ok();
            let opened = self.opened.notified();
            let admitted = self.gate.lock().admit(class, Instant::now());
            let Err(wait) = admitted else { return Paid { host: self, class, _lines: (line, rest) } };
            drop(line);
            tokio::select! {
                () = opened => {}
                () = sleep(wait) => {}
            }
        }
    }
}

impl Gate {
    fn admit(&mut self, class: Option<Class>, now: Instant) -> Result<(), Duration> {
        if let Some(until) = self.paused_until.filter(|until| now < *until) {
            return Err(until - now);
        }
        // What costs is asked last, so that nothing is paid for a call that does not go out.
        self.brake.wait(now)?;
        if let (Some(bucket), Some(class)) = (&mut self.bucket, class) {
            bucket.take(class, now)?;
        }
        self.brake.admit(now)
    }
}

/// A call that is under way; also ends where its future is dropped.
struct Paid<'a> {
    host: &'a Host,
    class: Option<Class>,
    _lines: (Option<SemaphorePermit<'a>>, Option<SemaphorePermit<'a>>),
}

impl Drop for Paid<'_> {
    fn drop(&mut self) {
        if let (Some(bucket), Some(_)) = (&mut self.host.gate.lock().bucket, self.class) {
            bucket.ended();
        }
    }
}

/// A header that opens the door.
type Opener = (HeaderName, HeaderValue);

fn opener(jwt: &Secret) -> Result<Opener, Fault> {
    Ok((AUTHORIZATION, header_value(&format!("Bearer {}", jwt.reveal()))?))
}

/// The token without a scheme of its own: some paste it with one.
async fn bearer(token: &Kept) -> Result<Opener, Fault> {
    let token = token.read().await.map_err(|error| Fault::Unauthorized(error.to_string()))?;
    let text = token.reveal().trim();
    let bare = match text.get(..7) {
        Some(scheme) if scheme.eq_ignore_ascii_case("bearer ") => text[7..].trim(),
        Some(_) | None => text,
    };
    Ok((AUTHORIZATION, header_value(&format!("Bearer {bare}"))?))
}

fn header_value(text: &str) -> Result<HeaderValue, Fault> {
    let unfit = |_| Fault::Unauthorized("it has characters that no header takes".to_owned());
    HeaderValue::from_str(text).map_err(unfit)
}

/// The JWT in an answer: plain text, a JSON string, or an object that holds it.
fn jwt_of(body: &[u8]) -> Option<Secret> {
    let text = std::str::from_utf8(body).ok()?.trim();
    let jwt = match serde_json::from_str::<Value>(text) {
        Ok(Value::String(jwt)) => jwt,
        Ok(Value::Object(object)) => {
            let named = ["token", "jwt", "access_token"].iter().find_map(|name| object.get(*name)?.as_str());
            named?.to_owned()
        }
        Ok(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_)) => return None,
        Err(_) => text.to_owned(),
    };
    let fits = (1..JWT_LENGTH).contains(&jwt.len()) && jwt.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then(|| Secret::new(jwt))
}

/// An answer's rows. A large one takes a while: it is split where nobody else waits.
async fn split(api: PullApi, feed: Feed, body: Bytes) -> Result<Vec<Bytes>, Fault> {
    let is_small = body.len() < LARGE;
    let split = move || -> Result<Vec<Bytes>, AnswerError> {
        let rows_of = |body: &Bytes| -> Result<Vec<Bytes>, AnswerError> {
            let rows = pulled_rows(api, feed, body)?;
            Ok(rows.iter().map(|row| body.slice_ref(row.as_bytes())).collect())
        };
        match rows_of(&body) {
            // One row must not keep the others of its window from everyone.
            Err(error @ AnswerError::NotJson { .. }) => match repaired(&body) {
                Some(repaired) => rows_of(&repaired.into()).map_err(|_| error),
                None => Err(error),
            },
            rows => rows,
        }
    };
    if is_small {
        return split().map_err(|error| Fault::of_answer(&error));
    }
    match tokio::task::spawn_blocking(split).await {
        Ok(rows) => rows.map_err(|error| Fault::of_answer(&error)),
        Err(_) => Err(Fault::Refused("the answer could not be split".to_owned())),
    }
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
        check(r#"{"access_token":"a.b.c"}"#, Some("a.b.c"));
        check(r#"{"token":null,"jwt":"a.b.c"}"#, Some("a.b.c"));
        check(r#"{"other":1}"#, None);
        check("", None);
        check("<html> no", None);
        check(&"x".repeat(JWT_LENGTH), None);
    }
}
