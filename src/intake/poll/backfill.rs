//! A stretch of a feed's past, fetched window by window, oldest first, through the limit that all of the account's feeds share:
//! live feeds go first. Invariants: a window counts as taken once every row of it is durable, so whoever writes down how far it
//! came, and begins there again, leaves nothing out; a host is asked only while it is configured, by the secret that is configured
//! for it. Neighbours: `plan` has the windows, `fetch` takes each.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::sleep;

use super::bucket::Class;
use super::fault::Fault;
use super::fetch::{BehindShort, Fetch, Moment, Trouble};
use super::host::Host;
use super::past::Stretch;
use super::plan::{Extent, SETTLE, Window};
use super::request::Endpoint;
use super::{Clock, Settings, Spread, pause};
use crate::event::{AccountId, Millis};
use crate::intake::accept::{Errand, Pulled, Receipt, Refusal};
use crate::provider::{Feed, PullApi};

/// Failures in a row after which a backfill is given up: a matter of hours.
const FAILURES: u32 = 40;
/// The same, where the token is not accepted: a matter of minutes.
const REFUSALS: u32 = 3;
const STOPPING: &str = "the process is stopping";
/// What an API key of V3 may call in a minute.
const V3_CALLS_A_MINUTE: u32 = 25;

/// An API of an account, as backfills ask it.
#[derive(Clone)]
pub struct Door {
    /// Whose.
    pub account: AccountId,
    /// Which.
    pub api: PullApi,
    /// The feeds that are polled through it.
    pub feeds: Vec<Feed>,
    pub(super) host: Arc<Host>,
    pub(super) clock: Clock,
    pub(super) spread: Spread,
}

impl Door {
    pub(super) fn new(
        account: AccountId,
        api: PullApi,
        feeds: Vec<Feed>,
        host: Arc<Host>,
        with: &Settings,
    ) -> Self {
        Self { account, api, feeds, host, clock: Arc::clone(&with.clock), spread: with.spread }
    }
}

/// The APIs of all accounts, as they are configured now.
pub type Doors = watch::Receiver<Vec<Door>>;

/// The account's API that has the feed: the one that is named, else one through which the feed is polled, else any.
#[must_use]
pub fn door<'a>(doors: &'a [Door], account: &str, api: Option<PullApi>, feed: Feed) -> Option<&'a Door> {
    let named = |door: &&Door| door.account.as_str() == account && api.is_none_or(|api| door.api == api);
    let polled = doors.iter().filter(named).find(|door| door.feeds.contains(&feed));
    polled.or_else(|| doors.iter().find(named))
}

/// What a backfill costs, at least: a window that is too large for one answer, and one with pages, costs more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Calls.
    pub calls: u64,
    /// Calls that the API takes in a minute; none where it does not say.
    pub calls_a_minute: Option<u32>,
}

/// Why there can be no such backfill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoPast {
    /// The API has no such feed.
    #[error("the API has no such feed")]
    NoFeed,
    /// It lists what is now.
    #[error("this feed lists what there is now: it has no past")]
    NoWindows,
    /// Its end is not after its begin.
    #[error("from is not before to")]
    Empty,
    /// Its end lies ahead.
    #[error("to lies ahead of what the provider can know: leave it out for now")]
    Future,
}

/// Why a backfill was given up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct GivenUp(pub String);

/// What is happening.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// A call goes out.
    Calling,
    /// So many rows came.
    Rows(u64),
    /// A window was not taken, and is asked for again.
    Failed(String),
}

/// See the module.
pub struct Backfill {
    doors: Doors,
    door: Door,
    feed: Feed,
    endpoint: Endpoint,
    errand: Errand,
    stretch: Stretch,
}

impl Backfill {
    /// A stretch of a feed's past, to be fetched.
    ///
    /// # Errors
    /// Why there is none.
    pub fn new(
        doors: &Doors,
        door: &Door,
        feed: Feed,
        window: Window,
        errand: Errand,
    ) -> Result<Self, NoPast> {
        let endpoint = Endpoint::of(door.api, feed).ok_or(NoPast::NoFeed)?;
        let stretch = Stretch::new(endpoint, window).ok_or(NoPast::NoWindows)?;
        if window.from >= window.to {
            return Err(NoPast::Empty);
        }
        if window.to.0 > (door.clock)().0.saturating_sub(SETTLE) {
            return Err(NoPast::Future);
        }
        Ok(Self { doors: doors.clone(), door: door.clone(), feed, endpoint, errand, stretch })
    }

    /// What the rest of it costs.
    #[must_use]
    pub fn cost(&self) -> Cost {
        let calls_a_minute = match self.door.api {
            PullApi::V2 => None,
            PullApi::V3 => Some(V3_CALLS_A_MINUTE),
        };
        Cost { calls: self.stretch.windows(), calls_a_minute }
    }

    /// Takes the next window, and returns its end; none where all are taken. While the bus is unavailable nothing is asked
    /// for: the provider is the store. Where another host or secret is configured meanwhile, a call in hand is given up, and that
    /// one is asked. May be dropped at any await.
    ///
    /// # Errors
    /// Where it has failed too often, or is not configured any more.
    pub async fn next<A, F>(
        &mut self,
        accept: &A,
        bus_available: &watch::Receiver<bool>,
        watch: impl Fn(Told) + Send + Sync,
    ) -> Result<Option<Millis>, GivenUp>
    where
        A: Fn(Pulled) -> F + Sync,
        F: Future<Output = Result<Receipt, Refusal>> + Send,
    {
        let mut doors = self.doors.clone();
        loop {
            let (account, api) = (self.door.account.clone(), self.door.api);
            let now = door(&doors.borrow(), account.as_str(), Some(api), self.feed).cloned();
            let gone = || GivenUp("its account and API are not configured any more".to_owned());
            self.door = now.ok_or_else(gone)?;
            let (host, feed) = (Arc::clone(&self.door.host), self.feed);
            let is_another = |doors: &Vec<Door>| {
                door(doors, account.as_str(), Some(api), feed)
                    .is_none_or(|now| !Arc::ptr_eq(&now.host, &host))
            };
            tokio::select! {
                taken = self.next_here(accept, bus_available, &watch) => return taken,
                changed = doors.wait_for(is_another) => {
                    if changed.is_err() {
                        return Err(GivenUp(STOPPING.to_owned()));
                    }
                }
            }
        }
    }

    /// The same, through the door as it is.
    async fn next_here<A, F>(
        &mut self,
        accept: &A,
        bus_available: &watch::Receiver<bool>,
        watch: &(impl Fn(Told) + Send + Sync),
    ) -> Result<Option<Millis>, GivenUp>
    where
        A: Fn(Pulled) -> F + Sync,
        F: Future<Output = Result<Receipt, Refusal>> + Send,
    {
        let mut failures = 0;
        let mut bus = bus_available.clone();
        loop {
            let Some(window) = self.stretch.next() else { return Ok(None) };
            if bus.wait_for(|available| *available).await.is_err() {
                return Err(GivenUp(STOPPING.to_owned()));
            }
            let trouble = match self.take(window, accept, bus_available, watch).await {
                Ok(()) => return Ok(Some(window.to)),
                Err(trouble) => trouble,
            };
            failures += 1;
            let most =
                if matches!(trouble, Trouble::Fault(Fault::Unauthorized(_))) { REFUSALS } else { FAILURES };
            if failures >= most {
                return Err(GivenUp(trouble.to_string()));
            }
            watch(Told::Failed(trouble.to_string()));
            let spread = self.door.spread;
            let wait = pause::of_backfill(&trouble, failures, spread, || self.stretch.halve(window));
            sleep(wait).await;
        }
    }

    async fn take<A, F>(
        &mut self,
        window: Window,
        accept: &A,
        bus_available: &watch::Receiver<bool>,
        watch: &(impl Fn(Told) + Send + Sync),
    ) -> Result<(), Trouble>
    where
        A: Fn(Pulled) -> F + Sync,
        F: Future<Output = Result<Receipt, Refusal>> + Send,
    {
        let fetch = Fetch {
            host: &self.door.host,
            endpoint: self.endpoint,
            account: &self.door.account,
            api: self.door.api,
            feed: self.feed,
            class: Class::Rest,
            behind_short: BehindShort::Looks,
            steering: None,
            errand: self.errand,
            bus_available,
            clock: &self.door.clock,
        };
        let told = |moment| {
            watch(match moment {
                Moment::WaitingForBus | Moment::HandedOver(_) => return,
                Moment::Calling => Told::Calling,
                Moment::HandingOver(rows) => Told::Rows(rows),
            });
        };
        let taken = fetch.take(Extent::Window(window), accept, told).await?;
        self.stretch.taken(window, taken.size);
        Ok(())
    }
}
