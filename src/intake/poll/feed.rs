//! One feed: asks for its windows at its interval, hands the rows over, and moves its cursor once they are durable; beside
//! that, sweeps. Invariants: a failure moves no cursor and slows nobody else; while the bus is unavailable nothing is asked
//! for. Neighbours: `plan` decides windows, `fetch` takes them, `host` paces the calls.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::Instrument as _;

use super::bucket::Class;
use super::fetch::{BehindShort, Fetch, Moment, Taken, Trouble};
use super::host::Host;
use super::past::{Due, Sweep};
use super::plan::{Cursor, Extent, Halved, Live, Progress};
use super::request::Endpoint;
use super::steer::{Held, Steering};
use super::{Clock, Spread, pause};
use crate::event::{AccountId, Millis};
use crate::faults::{self, Point};
use crate::intake::accept::{Errand, Pulled, Receipt, Refusal};
use crate::provider::{Feed, PullApi};
use crate::trace;

/// Feeds that begin together do not call together.
const BEGIN: Duration = Duration::from_secs(10);
/// Sweeps that are due at start are spread over this.
const BEGIN_SWEEP: Duration = Duration::from_secs(600);
/// A clock that says less is not set yet, as on a machine that has none while it is off: 2025.
const SET: Millis = Millis(1_735_689_600_000);
/// The longest sleep of a sweep, so that a clock that is set is noticed.
const LOOK: Duration = Duration::from_secs(600);

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
        format!("{}/{} {}", self.api.as_str(), self.feed.as_str(), self.base_url)
    }

    /// What a cursor's key says but for the address: an account has each feed once.
    #[must_use]
    pub fn of_key(key: &str) -> &str {
        key.split_once(' ').map_or(key, |(feed, _)| feed)
    }
}

/// What a feed is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Doing {
    /// Waiting for its next turn.
    #[default]
    Resting,
    /// An operator paused it.
    Paused,
    /// Waiting for the bus.
    WaitingForBus,
    /// Waiting for the host's limit, or for its answer.
    Calling,
    /// Waiting for rows to be durable.
    HandingOver,
}

impl Doing {
    /// The spelling in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Resting => "resting",
            Self::Paused => "paused",
            Self::WaitingForBus => "waiting-for-bus",
            Self::Calling => "calling",
            Self::HandingOver => "handing-over",
        }
    }
}

/// How a feed does, for the API and metrics.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// Where it stands.
    pub cursor: Cursor,
    /// When an answer was last taken in full.
    pub succeeded_at: Option<Millis>,
    /// What went wrong last, in words for the operator, and when; none once it works again.
    pub failed: Option<(Millis, String)>,
    /// The same of its sweep.
    pub sweep_failed: Option<(Millis, String)>,
    /// Polls and sweeps that were taken in full.
    pub succeeded_polls: u64,
    /// Those that were not.
    pub failed_polls: u64,
    /// Polls that were not, since one was.
    pub failed_in_a_row: u32,
    /// Calls.
    pub calls: u64,
    /// Rows.
    pub rows: u64,
    /// Rows of which nothing, or not everything, became an event by rule.
    pub skipped: u64,
    /// What it is doing.
    pub doing: Doing,
    /// What its sweep is doing.
    pub sweeping: Doing,
}

impl Status {
    /// The same feed's in the pollers that come after, which begin to rest, at this cursor.
    #[must_use]
    pub(super) fn goes_on_at(&self, cursor: Cursor) -> Self {
        Self { cursor, doing: Doing::default(), sweeping: Doing::default(), ..self.clone() }
    }
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
    /// What is asked for.
    pub endpoint: Endpoint,
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
    /// For others to steer by.
    pub steering: Arc<Steering>,
    /// The clock.
    pub clock: Clock,
    /// Jitter.
    pub spread: Spread,
}

/// The two sides of a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Live,
    Sweep,
}

impl Side {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Sweep => "sweep",
        }
    }
}

/// The bus is gone for good: the process is stopping.
struct Stopping;

impl<A, F, C> FeedLoop<A, C>
where
    A: Fn(Pulled) -> F + Send + Sync,
    F: Future<Output = Result<Receipt, Refusal>> + Send,
    C: Cursors,
{
    /// Polls until the process stops. May be dropped at any await: what was handed over is delivered, and the cursor stays.
    pub async fn run(self) {
        let now = (self.clock)();
        let held = self.status.lock().cursor;
        let sweep = Sweep::new(self.endpoint, held.swept, now);
        if let Some(sweep) = &sweep {
            // Written down with the first window.
            self.status.lock().cursor.swept = Some(sweep.swept());
        }
        let sweeping = async {
            match sweep {
                Some(sweep) => self.sweep(sweep).await,
                None => Stopping,
            }
        };
        tokio::join!(Box::pin(self.live()), Box::pin(sweeping));
    }

    async fn live(&self) -> Stopping {
        self.begin().await;
        self.steering.rest((self.spread)(self.interval.min(BEGIN))).await;
        let mut failures = 0;
        loop {
            if let Err(stopping) = self.free(Side::Live).await {
                return stopping;
            }
            let begun = Instant::now();
            let mut held = self.steering.plan.lock().await;
            let Held { plan, saved } = &mut *held;
            let extent = plan.next((self.clock)());
            let pause = match self.take(Side::Live, extent).await {
                Ok(taken) => {
                    failures = 0;
                    let before = plan.cursor().position;
                    let progress = plan.taken(extent, taken.rows, taken.sent_at, taken.size);
                    let cursor = self.stands_at(plan);
                    if cursor.position < before {
                        self.says_it_begins_anew();
                    }
                    faults::point(Point::BeforeCursor);
                    if cursor == *saved || self.save(Side::Live, &cursor).await {
                        *saved = cursor;
                        self.succeeded(Side::Live);
                    }
                    match progress {
                        Progress::Behind => Duration::ZERO,
                        Progress::UpToDate | Progress::Doubted => {
                            self.interval.saturating_sub(begun.elapsed()) + (self.spread)(self.interval / 20)
                        }
                    }
                }
                Err(Trouble::Paused | Trouble::HeldUp) => Duration::ZERO,
                Err(trouble @ (Trouble::Fault(_) | Trouble::Refusal(_))) => {
                    failures += 1;
                    self.after(&trouble, failures, || plan.halve(extent))
                }
            };
            drop(held);
            self.steering.rest(pause).await;
        }
    }

    /// A feed that was never polled begins so long before now, and still does after a restart, whatever kept it from its first
    /// answer: a token that is wrong, a bus that is away, a pause. By a clock that is not set it would begin decades ago.
    async fn begin(&self) {
        while self.steering.plan.lock().await.saved.position.is_none() && (self.clock)() < SET {
            self.failed(Side::Live, "clock", "the clock is not set: it is before 2025");
            sleep(BEGIN).await;
        }
        let mut held = self.steering.plan.lock().await;
        let Held { plan, saved } = &mut *held;
        if saved.position.is_some() {
            return;
        }
        // What to ask for is asked again when it is its turn.
        plan.next((self.clock)());
        let cursor = self.stands_at(plan);
        if cursor.position.is_some() && self.save(Side::Live, &cursor).await {
            *saved = cursor;
        }
    }

    /// For others to see.
    fn stands_at(&self, plan: &Live) -> Cursor {
        let mut status = self.status.lock();
        status.cursor = Cursor { swept: status.cursor.swept, ..plan.cursor() };
        status.cursor
    }

    async fn sweep(&self, mut plan: Sweep) -> Stopping {
        sleep((self.spread)(BEGIN_SWEEP)).await;
        let mut failures = 0;
        loop {
            if let Due::In(ms) = plan.next((self.clock)()) {
                sleep(Duration::from_millis(u64::try_from(ms).unwrap_or(0)).min(LOOK)).await;
                continue;
            }
            if let Err(stopping) = self.free(Side::Sweep).await {
                return stopping;
            }
            // That may have taken days.
            let Due::Now(window) = plan.next((self.clock)()) else { continue };
            match self.take(Side::Sweep, Extent::Window(window)).await {
                Ok(taken) => {
                    failures = 0;
                    if !plan.taken(window, taken.size) || self.has_swept(&plan).await {
                        self.succeeded(Side::Sweep);
                    }
                }
                Err(Trouble::Paused | Trouble::HeldUp) => {}
                Err(trouble @ (Trouble::Fault(_) | Trouble::Refusal(_))) => {
                    failures += 1;
                    sleep(self.after(&trouble, failures, || plan.halve(window))).await;
                }
            }
        }
    }

    /// Writes down how far it has swept.
    async fn has_swept(&self, plan: &Sweep) -> bool {
        let _held = self.steering.plan.lock().await;
        let cursor = {
            let mut status = self.status.lock();
            status.cursor.swept = Some(plan.swept());
            status.cursor
        };
        self.save(Side::Sweep, &cursor).await
    }

    /// Waits until the feed is neither paused nor without a bus.
    async fn free(&self, side: Side) -> Result<(), Stopping> {
        loop {
            self.bus(side).await?;
            if !self.steering.is_paused() {
                return Ok(());
            }
            self.doing(side, Doing::Paused);
            self.steering.resumed().await;
            self.doing(side, Doing::Resting);
        }
    }

    async fn bus(&self, side: Side) -> Result<(), Stopping> {
        let mut available = self.bus_available.clone();
        if *available.borrow_and_update() {
            return Ok(());
        }
        self.doing(side, Doing::WaitingForBus);
        let waited = available.wait_for(|available| *available).await.map(|_| ());
        self.doing(side, Doing::Resting);
        waited.map_err(|_| Stopping)
    }

    async fn take(&self, side: Side, extent: Extent) -> Result<Taken, Trouble> {
        let (class, behind_short) = match side {
            // The sweep will not reach back to where it begins.
            Side::Live if self.status.lock().succeeded_polls == 0 => (Class::Live, BehindShort::Looks),
            Side::Live => (Class::Live, BehindShort::AsKnown),
            Side::Sweep => (Class::Rest, BehindShort::Looks),
        };
        let fetch = Fetch {
            host: &self.host,
            endpoint: self.endpoint,
            account: &self.name.account,
            api: self.name.api,
            feed: self.name.feed,
            class,
            behind_short,
            steering: Some(&self.steering),
            errand: Errand::Poll,
            bus_available: &self.bus_available,
            clock: &self.clock,
        };
        let watch = |moment| match moment {
            Moment::WaitingForBus => self.doing(side, Doing::WaitingForBus),
            Moment::Calling => {
                self.status.lock().calls += 1;
                self.doing(side, Doing::Calling);
            }
            Moment::HandingOver(rows) => {
                self.status.lock().rows += rows;
                self.doing(side, Doing::HandingOver);
            }
            Moment::HandedOver(receipt) => self.status.lock().skipped += receipt.skipped,
        };
        let span = tracing::info_span!(
            target: trace::SPANS,
            "poll",
            otel.kind = "client",
            fleetbus.account = %self.name.account,
            fleetbus.api = self.name.api.as_str(),
            fleetbus.feed = self.name.feed.as_str(),
            fleetbus.side = side.as_str(),
        );
        let taken = fetch.take(extent, &self.accept, watch).instrument(span).await;
        self.doing(side, Doing::Resting);
        match &taken {
            // It has, once its cursor is written down.
            Ok(_) | Err(Trouble::Paused | Trouble::HeldUp) => {}
            Err(trouble @ (Trouble::Fault(_) | Trouble::Refusal(_))) => {
                self.failed(side, trouble.kind(), &trouble.to_string());
            }
        }
        taken
    }

    fn doing(&self, side: Side, what: Doing) {
        let mut status = self.status.lock();
        match side {
            Side::Live => status.doing = what,
            Side::Sweep => status.sweeping = what,
        }
    }

    /// The pause after a failure.
    fn after(&self, trouble: &Trouble, failures: u32, halve: impl FnOnce() -> Halved) -> Duration {
        pause::after(trouble, failures, self.interval, self.spread, halve)
    }

    fn says_it_begins_anew(&self) {
        let (account, api, feed) = (&self.name.account, self.name.api.as_str(), self.name.feed.as_str());
        tracing::warn!(%account, api, feed, "feed.begins_anew");
    }

    async fn save(&self, side: Side, cursor: &Cursor) -> bool {
        let saved = self.cursors.save(&self.name, cursor).await;
        if !saved {
            // What it says is durable all the same: another run would only ask again.
            self.failed(side, "cursor", "the cursor could not be written down");
        }
        saved
    }

    fn succeeded(&self, side: Side) {
        let now = (self.clock)();
        let mut status = self.status.lock();
        status.succeeded_polls += 1;
        let failed = match side {
            Side::Live => {
                status.succeeded_at = Some(now);
                status.failed_in_a_row = 0;
                status.failed.take()
            }
            Side::Sweep => status.sweep_failed.take(),
        };
        drop(status);
        if failed.is_some() {
            let (account, api, feed) = (&self.name.account, self.name.api.as_str(), self.name.feed.as_str());
            tracing::info!(%account, api, feed, side = side.as_str(), "feed.recovered");
        }
    }

    /// Says what went wrong: when it changes, and then ever more rarely.
    fn failed(&self, side: Side, kind: &'static str, why: &str) {
        let now = (self.clock)();
        let mut status = self.status.lock();
        status.failed_polls += 1;
        let said = match side {
            Side::Live => {
                status.failed_in_a_row = status.failed_in_a_row.saturating_add(1);
                status.failed.replace((now, why.to_owned()))
            }
            Side::Sweep => status.sweep_failed.replace((now, why.to_owned())),
        };
        let times = status.failed_in_a_row;
        drop(status);
        let is_news = said.is_none_or(|(_, known)| known != why);
        if !is_news && (side == Side::Sweep || !times.is_power_of_two()) {
            return;
        }
        let (account, api, feed) = (&self.name.account, self.name.api.as_str(), self.name.feed.as_str());
        let side = side.as_str();
        if kind == "unauthorized" {
            tracing::error!(%account, api, feed, side, kind, times, error = why, "feed.failed");
        } else {
            tracing::warn!(%account, api, feed, side, kind, times, error = why, "feed.failed");
        }
    }
}
