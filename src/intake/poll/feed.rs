//! One feed: asks for its windows at its interval, hands the rows over, and moves its cursor once they are durable. Its
//! failures move nothing, and slow nobody else. Neighbours: `plan` decides windows, `host` makes calls, `accept` delivers.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::sleep;

use super::api_name;
use super::bucket::Rank;
use super::host::{Answer, Ask, Host};
use super::plan::{Cursor, Longest, Purpose, Window, halved};
use crate::event::{AccountId, Millis};
use crate::intake::accept::{Errand, Pulled, Receipt, Refusal};
use crate::provider::{self, Feed, PullApi};

/// Rows of a V3 page, and of a page of geofence activity.
const PAGES: (usize, usize) = (100, 1_000);
/// Pages of one window beyond which the answer is not believed.
const MOST_PAGES: usize = 100_000;
/// Pause after a refused secret: it is tried again, for it may have been mended.
const UNAUTHORIZED: Duration = Duration::from_secs(300);
/// Pause after events could not be kept.
const NOT_KEPT: Duration = Duration::from_secs(5);

/// Which feed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    /// Whose.
    pub account: AccountId,
    /// The API.
    pub api: PullApi,
    /// The feed.
    pub feed: Feed,
    /// Where.
    pub base_url: String,
}

impl Name {
    /// Its cursor's key.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}/{} {}", api_name(self.api), self.feed.as_str(), self.base_url)
    }
}

/// How a feed does, for the API and metrics.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// Where it stands.
    pub cursor: Cursor,
    /// When an answer was last taken in full.
    pub succeeded_at: Option<Millis>,
    /// What went wrong last, in words for the operator, and when.
    pub failed: Option<(Millis, String)>,
    /// Calls.
    pub calls: u64,
    /// Rows.
    pub rows: u64,
    /// Polls that were answered, and whose rows are durable.
    pub polls_succeeded: u64,
    /// Polls that failed.
    pub polls_failed: u64,
    /// Polls that failed since one last succeeded.
    pub failed_in_a_row: u64,
}

/// Where cursors are kept.
pub trait Cursors: Send + Sync {
    /// Writes one down; durable when it returns true.
    fn save(&self, name: &Name, cursor: &Cursor) -> impl Future<Output = bool> + Send;
}

/// A feed, not yet running.
pub struct FeedLoop<A, C> {
    /// Which.
    pub name: Name,
    /// How often.
    pub interval: Duration,
    /// Whom it asks.
    pub host: Arc<Host>,
    /// Whom it hands rows to.
    pub accept: A,
    /// Where its cursor is kept.
    pub cursors: Arc<C>,
    /// Whether the bus takes events: while it does not, the provider is the store.
    pub bus_available: watch::Receiver<bool>,
    /// For others to see.
    pub status: Arc<Mutex<Status>>,
    /// The clock.
    pub clock: fn() -> Millis,
}

/// Why a poll ended early.
enum Trouble {
    /// Come again at the next interval, or after this.
    Later(Option<Duration>),
    /// The window was too large: this long at most.
    Halve(i64),
}

/// What a poll found.
struct Found {
    rows: usize,
    /// The provider's time, or ours where it is earlier.
    now: i64,
}

impl<A, F, C> FeedLoop<A, C>
where
    A: Fn(Pulled) -> F + Send + Sync,
    F: Future<Output = Result<Receipt, Refusal>> + Send,
    C: Cursors,
{
    /// Polls for ever. May be dropped at any await: what was handed over is delivered, and the cursor stays.
    pub async fn run(mut self) {
        // Feeds that begin together do not call together.
        sleep(self.interval.mul_f64(rand::random::<f64>() * 0.1).min(Duration::from_secs(10))).await;
        let mut span = None;
        loop {
            if self.bus_available.wait_for(|available| *available).await.is_err() {
                return;
            }
            let begun = Instant::now();
            let pause = match self.poll(&mut span).await {
                Ok(More::Yes) => Duration::ZERO,
                Ok(More::No) => self.interval.saturating_sub(begun.elapsed()),
                Err(Trouble::Later(pause)) => pause.unwrap_or(self.interval),
                Err(Trouble::Halve(half)) => {
                    span = Some(half);
                    Duration::ZERO
                }
            };
            sleep(pause.mul_f64(rand::random::<f64>().mul_add(0.1, 0.95))).await;
        }
    }

    async fn poll(&self, span: &mut Option<i64>) -> Result<More, Trouble> {
        let Some(longest) = self.longest() else {
            self.list().await?;
            self.succeeded(|_| {});
            return Ok(More::No);
        };
        let cursor = self.status.lock().cursor;
        let now = (self.clock)().0;
        if let Some((purpose, window)) = cursor.next(now, longest, *span) {
            let found = self.window(window, rank(purpose)).await?;
            let next = cursor.taken(window, found.rows, found.now);
            self.save(next).await?;
            *span = None;
            // Catching up: there is more than one window.
            let more = next.position > cursor.position && next.next(found.now, longest, None).is_some();
            return Ok(if more { More::Yes } else { More::No });
        }
        if let Some(window) = cursor.sweep(now) {
            let found = self.window(window, Rank::Spare).await?;
            self.save(cursor.swept(found.now)).await?;
        }
        Ok(More::No)
    }

    /// The longest window of a feed that has windows.
    const fn longest(&self) -> Option<Longest> {
        match self.name.feed {
            Feed::Locations | Feed::Trackers | Feed::Geofences => None,
            Feed::History
            | Feed::Trips
            | Feed::Stops
            | Feed::Alerts
            | Feed::UsageHours
            | Feed::GeofenceActivity
            | Feed::Positions => Some(match self.name.api {
                PullApi::V2 => Longest::V2,
                PullApi::V3 => Longest::V3,
            }),
        }
    }

    async fn save(&self, cursor: Cursor) -> Result<(), Trouble> {
        if !self.cursors.save(&self.name, &cursor).await {
            self.failed("the cursor could not be written down");
            return Err(Trouble::Later(Some(NOT_KEPT)));
        }
        self.succeeded(|status| status.cursor = cursor);
        Ok(())
    }

    /// A list without windows.
    async fn list(&self) -> Result<Found, Trouble> {
        match (self.name.api, self.name.feed) {
            (PullApi::V2, Feed::Trackers) => self.single(Ask::Get("/tracker", Vec::new()), Rank::Live).await,
            (PullApi::V2, Feed::Geofences) => {
                let query = vec![("includeInactive", "true".to_owned())];
                self.single(Ask::Get("/geofences", query), Rank::Live).await
            }
            (PullApi::V3, _) => {
                self.pages(Rank::Live, PAGES.0, |page| {
                    Ask::Get("/trackers", vec![("page", page.to_string())])
                })
                .await
            }
            (PullApi::V2, _) => self.single(Ask::Get("/locations", Vec::new()), Rank::Live).await,
        }
    }

    async fn window(&self, window: Window, rank: Rank) -> Result<Found, Trouble> {
        let asked = match self.name.api {
            PullApi::V2 => self.v2_window(window, rank).await,
            PullApi::V3 => {
                let path = if self.name.feed == Feed::Stops { "/stops" } else { "/positions" };
                let asked = |page: usize| {
                    let query = vec![
                        ("startDate", window.from.to_string()),
                        ("endDate", window.to.to_string()),
                        ("page", page.to_string()),
                    ];
                    Ask::Get(path, query)
                };
                self.pages(rank, PAGES.0, asked).await
            }
        };
        match asked {
            Err(Trouble::Halve(_)) => match halved(window) {
                Some(half) => Err(Trouble::Halve(half)),
                None => {
                    self.failed("the answer is larger than 64 MiB, even for five minutes");
                    Err(Trouble::Later(None))
                }
            },
            other => other,
        }
    }

    async fn v2_window(&self, window: Window, rank: Rank) -> Result<Found, Trouble> {
        let path = match self.name.feed {
            Feed::Trips => "/trips",
            Feed::Stops => "/stops",
            Feed::Alerts => "/alerts",
            Feed::UsageHours => "/usagehours",
            Feed::GeofenceActivity => {
                let asked = |page: usize| {
                    let query = vec![
                        ("start", window.from.to_string()),
                        ("end", window.to.to_string()),
                        ("offset", (page * PAGES.1).to_string()),
                        ("limit", PAGES.1.to_string()),
                    ];
                    Ask::Get("/geofences/activity", query)
                };
                return self.pages(rank, PAGES.1, asked).await;
            }
            Feed::History | Feed::Locations | Feed::Trackers | Feed::Geofences | Feed::Positions => {
                "/locations/all"
            }
        };
        let body = json!({ "fromDate": window.from, "toDate": window.to });
        self.single(Ask::Post(path, body), rank).await
    }

    async fn single(&self, ask: Ask, rank: Rank) -> Result<Found, Trouble> {
        let (body, now) = self.call(&ask, rank).await?;
        let rows = self.rows(&body)?;
        let count = rows.len();
        self.hand_over(rows).await?;
        Ok(Found { rows: count, now })
    }

    /// Pages until one is short. A page that repeats the one before is not believed.
    async fn pages(
        &self,
        rank: Rank,
        size: usize,
        ask: impl Fn(usize) -> Ask + Send,
    ) -> Result<Found, Trouble> {
        let mut found = Found { rows: 0, now: (self.clock)().0 };
        let mut before = None;
        for page in 0..MOST_PAGES {
            let asked = ask(page);
            let (body, now) = self.call(&asked, rank).await?;
            found.now = found.now.min(now);
            let rows = self.rows(&body)?;
            let digest = digest(&rows);
            if !rows.is_empty() && before == Some(digest) {
                self.host.was_odd();
                self.failed("a page repeats the one before");
                return Err(Trouble::Later(None));
            }
            before = Some(digest);
            let count = rows.len();
            found.rows += count;
            self.hand_over(rows).await?;
            if count < size {
                return Ok(found);
            }
        }
        self.failed("the pages do not end");
        Err(Trouble::Later(None))
    }

    async fn call(&self, ask: &Ask, rank: Rank) -> Result<(Bytes, i64), Trouble> {
        self.status.lock().calls += 1;
        let answer = self.host.call(ask, rank).await;
        let ours = (self.clock)().0;
        match answer {
            Answer::Body(body, theirs) => Ok((body, theirs.map_or(ours, |theirs| theirs.min(ours)))),
            Answer::Unauthorized => {
                self.failed("the provider refuses the token or key");
                Err(Trouble::Later(Some(self.interval.max(UNAUTHORIZED))))
            }
            Answer::Limited(pause) => {
                self.failed("the provider asks for fewer calls");
                Err(Trouble::Later(Some(pause)))
            }
            Answer::TooLarge => Err(Trouble::Halve(0)),
            Answer::Failed(why) => {
                self.failed(&why);
                Err(Trouble::Later(None))
            }
        }
    }

    fn rows(&self, body: &Bytes) -> Result<Vec<Bytes>, Trouble> {
        match provider::pulled_rows(self.name.api, self.name.feed, body) {
            Ok(rows) => Ok(rows.iter().map(|row| body.slice_ref(row.as_bytes())).collect()),
            Err(error) => {
                self.host.was_odd();
                self.failed(&error.to_string());
                Err(Trouble::Later(None))
            }
        }
    }

    async fn hand_over(&self, rows: Vec<Bytes>) -> Result<(), Trouble> {
        if rows.is_empty() {
            return Ok(());
        }
        self.status.lock().rows += rows.len() as u64;
        let pulled = Pulled {
            account: self.name.account.clone(),
            api: self.name.api,
            feed: self.name.feed,
            rows,
            received_at: (self.clock)(),
            errand: Errand::Poll,
        };
        match (self.accept)(pulled).await {
            Ok(_) => Ok(()),
            Err(refusal) => {
                self.failed(&refusal.to_string());
                Err(Trouble::Later(Some(NOT_KEPT)))
            }
        }
    }

    fn succeeded(&self, change: impl FnOnce(&mut Status)) {
        let now = (self.clock)();
        let mut status = self.status.lock();
        status.succeeded_at = Some(now);
        status.polls_succeeded += 1;
        status.failed_in_a_row = 0;
        if status.failed.take().is_some() {
            tracing::info!(account = %self.name.account, feed = self.name.feed.as_str(), "feed.recovered");
        }
        change(&mut status);
    }

    /// Says what went wrong, once until it changes.
    fn failed(&self, why: &str) {
        let now = (self.clock)();
        let mut status = self.status.lock();
        let news = status.failed.as_ref().is_none_or(|(_, known)| known != why);
        status.failed = Some((now, why.to_owned()));
        status.polls_failed += 1;
        status.failed_in_a_row += 1;
        drop(status);
        if news {
            tracing::warn!(account = %self.name.account, feed = self.name.feed.as_str(), error = why, "feed.failed");
        }
    }
}

/// Whether there is more to fetch at once.
enum More {
    Yes,
    No,
}

const fn rank(purpose: Purpose) -> Rank {
    match purpose {
        Purpose::Live => Rank::Live,
        Purpose::Sweep => Rank::Spare,
    }
}

fn digest(rows: &[Bytes]) -> u64 {
    let mut hasher = DefaultHasher::new();
    rows.hash(&mut hasher);
    hasher.finish()
}
