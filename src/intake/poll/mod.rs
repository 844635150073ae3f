//! Pollers: what a provider offers by its pull APIs (mapping section 5). One future a feed, one [`host::Host`] for all feeds
//! that share a token or key, so that a host that hangs delays nobody else's feeds. While the bus is unavailable they wait: the
//! provider is their store.
//!
//! Pure: `plan` (which window), `request` (how it is spelt), `bucket` and `brake` (whether to call now), `fault` (what an
//! answer means). The shell: `http` (one exchange), `host` (what is shared), `fetch` (one window in full), `feed` (the loop), `steer` and `desk`
//! (how an operator pauses it and moves its cursor), `backfill` (a stretch of the past).

pub mod backfill;
pub mod brake;
pub mod bucket;
mod company;
pub mod desk;
pub mod fault;
pub mod feed;
pub mod fetch;
pub mod host;
pub mod http;
mod past;
mod pause;
pub mod plan;
pub mod request;
pub mod steer;
mod words;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock;
use crate::config::{self, PollApi};
use crate::event::{AccountId, Millis};
use crate::intake::accept::{Pulled, Receipt, Refusal};
use crate::provider::PullApi;
use crate::replay::{Entry, Store, Table};
use backfill::Door;
use desk::Steered;
use feed::{Cursors, FeedLoop, Name, Status};
use host::Host;
use http::{Bounds, Client};
use plan::Cursor;
use request::Endpoint;
use steer::Steering;

/// How long a cursor may take to be written down.
const SAVE: Duration = Duration::from_secs(10);

/// What time it is.
pub type Clock = Arc<dyn Fn() -> Millis + Send + Sync>;

/// Jitter: some duration up to the one that is given.
pub type Spread = fn(Duration) -> Duration;

/// What is not configured, and differs in tests.
#[derive(Clone)]
pub struct Settings {
    /// Of one exchange.
    pub bounds: Bounds,
    /// The clock.
    pub clock: Clock,
    /// Jitter.
    pub spread: Spread,
}

impl Default for Settings {
    fn default() -> Self {
        let spread: Spread = |most| most.mul_f64(rand::random::<f64>());
        Self { bounds: Bounds::default(), clock: Arc::new(clock::now), spread }
    }
}

/// Cursors in the replay store.
pub struct StoredCursors {
    /// The store.
    pub store: Store,
}

impl Cursors for StoredCursors {
    async fn save(&self, name: &Name, cursor: &Cursor) -> bool {
        let Ok(value) = serde_json::to_string(cursor) else { return false };
        let entry = Entry { account: name.account.clone(), key: name.key(), value, saved_at: clock::now() };
        let saved = tokio::time::timeout(SAVE, self.store.put(Table::Cursors, vec![entry])).await;
        saved.is_ok_and(|saved| saved.is_ok())
    }
}

impl StoredCursors {
    /// Removes what is left over, so that it does not pile up. What cannot be removed is left over the next time too.
    pub async fn remove(&self, left_over: Vec<(AccountId, String)>) {
        for (account, key) in left_over {
            let removed = self.store.remove(Table::Cursors, account, vec![key]);
            if !matches!(tokio::time::timeout(SAVE, removed).await, Ok(Ok(()))) {
                return;
            }
        }
    }
}

/// Every feed's status, for the API and metrics.
pub type Statuses = Vec<(Name, Arc<Mutex<Status>>)>;

/// Hosts by API, address, and where their secret is: one limit and one JWT each, whatever feeds and accounts share it.
pub type Hosts = HashMap<(PullApi, String, String), Arc<Host>>;

/// The pollers, not yet running.
pub struct Pollers {
    feeds: Vec<Planned>,
    client: Client,
    hosts: Hosts,
    companies: Vec<(AccountId, String, Arc<Host>)>,
    doors: Vec<Door>,
    settings: Settings,
    left_over: HashSet<(AccountId, String)>,
}

struct Planned {
    name: Name,
    endpoint: Endpoint,
    interval: Duration,
    host: Arc<Host>,
    status: Arc<Mutex<Status>>,
    steering: Arc<Steering>,
}

impl Pollers {
    /// The feeds of these accounts, each with the cursor that it was left with.
    ///
    /// # Errors
    /// Where a client cannot be made.
    pub fn new(accounts: &[config::Account], cursors: &[Entry]) -> Result<Self, reqwest::Error> {
        Self::with(accounts, cursors, Settings::default())
    }

    /// The same, with the hosts that are known: a limit, a breaker and a JWT are kept.
    #[must_use]
    pub fn again(accounts: &[config::Account], cursors: &[Entry], known: &Hosts, client: Client) -> Self {
        Self::of(accounts, cursors, Settings::default(), known, client)
    }

    /// The same, with other settings.
    ///
    /// # Errors
    /// Where a client cannot be made.
    pub fn with(
        accounts: &[config::Account],
        cursors: &[Entry],
        settings: Settings,
    ) -> Result<Self, reqwest::Error> {
        let client = Client::new(settings.bounds.clone())?;
        Ok(Self::of(accounts, cursors, settings, &Hosts::new(), client))
    }

    fn of(
        accounts: &[config::Account],
        cursors: &[Entry],
        settings: Settings,
        known: &Hosts,
        client: Client,
    ) -> Self {
        // A feed goes on where its address changes, also to one that it had before.
        let mut newest: HashMap<(&AccountId, &str), &Entry> = HashMap::new();
        for entry in cursors {
            let newest = newest.entry((&entry.account, Name::of_key(&entry.key))).or_insert(entry);
            if entry.saved_at >= newest.saved_at {
                *newest = entry;
            }
        }
        let mut left_over: HashSet<(AccountId, String)> = cursors
            .iter()
            .filter(|entry| newest[&(&entry.account, Name::of_key(&entry.key))].key != entry.key)
            .map(|entry| (entry.account.clone(), entry.key.clone()))
            .collect();
        // One limit and one JWT a key, whatever feeds and accounts share it.
        let mut hosts = Hosts::new();
        let (mut feeds, mut companies, mut doors) = (Vec::new(), Vec::new(), Vec::new());
        for (account, poll) in
            accounts.iter().flat_map(|account| account.poll.iter().map(move |poll| (account, poll)))
        {
            let (api, secret) = match &poll.api {
                PollApi::V2 { token } => (PullApi::V2, token),
                PollApi::V3 { key } => (PullApi::V3, key),
            };
            let key = (api, poll.base_url.clone(), secret.to_string());
            let host = hosts.entry(key.clone()).or_insert_with(|| {
                known.get(&key).cloned().unwrap_or_else(|| {
                    let clock = Arc::clone(&settings.clock);
                    Arc::new(Host::new(client.of_another(), &poll.base_url, &poll.api, clock))
                })
            });
            if api == PullApi::V2 {
                companies.push((account.id.clone(), poll.base_url.clone(), Arc::clone(host)));
            }
            let polled = poll.feeds.iter().map(|(feed, _)| *feed).collect();
            doors.push(Door::new(account.id.clone(), api, polled, Arc::clone(host), &settings));
            for (feed, interval) in &poll.feeds {
                let (account, base_url) = (account.id.clone(), poll.base_url.clone());
                let name = Name { account, api, feed: *feed, base_url };
                // The configuration refuses feeds that an API does not have.
                let Some(endpoint) = Endpoint::of(api, *feed) else { continue };
                let key = name.key();
                let saved = newest.get(&(&name.account, Name::of_key(&key)));
                let cursor = saved.map(|entry| cursor(&name, &entry.value));
                // It is written over.
                left_over.remove(&(name.account.clone(), key));
                let status = Status { cursor: cursor.unwrap_or_default(), ..Status::default() };
                let steering = Arc::new(Steering::new(endpoint, status.cursor));
                let (interval, host, status) = (*interval, Arc::clone(host), Arc::new(Mutex::new(status)));
                feeds.push(Planned { name, endpoint, interval, host, status, steering });
            }
        }
        Self { feeds, client, hosts, companies, doors, settings, left_over }
    }

    /// Every feed's status.
    #[must_use]
    pub fn statuses(&self) -> Statuses {
        self.feeds.iter().map(|feed| (feed.name.clone(), Arc::clone(&feed.status))).collect()
    }

    /// Every feed, for whoever steers it.
    #[must_use]
    pub fn steered(&self) -> Vec<Steered> {
        let steered = |feed: &Planned| Steered {
            name: feed.name.clone(),
            status: Arc::clone(&feed.status),
            host: Arc::clone(&feed.host),
            steering: Arc::clone(&feed.steering),
            has_windows: plan::longest(feed.endpoint).is_some(),
        };
        self.feeds.iter().map(steered).collect()
    }

    /// Cursors of addresses that a feed had before it had another: the newest alone counts.
    #[must_use]
    pub fn left_over(&self) -> Vec<(AccountId, String)> {
        self.left_over.iter().cloned().collect()
    }

    /// The hosts, for the pollers of a reload.
    #[must_use]
    pub fn known_hosts(&self) -> Hosts {
        self.hosts.clone()
    }

    /// What all of them call with, for the pollers of a reload.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The APIs of all accounts, for backfills.
    #[must_use]
    pub fn doors(&self) -> Vec<Door> {
        self.doors.clone()
    }

    /// Every host that is polled, for the API and metrics.
    #[must_use]
    pub fn hosts(&self) -> Vec<Arc<Host>> {
        self.hosts.values().cloned().collect()
    }

    /// Runs every feed on the tracker until `stop`. A poll in hand is given up: what it handed over is delivered, and its
    /// cursor has not moved.
    pub fn run<A, F, C>(
        self,
        accept: A,
        cursors: Arc<C>,
        bus_available: &watch::Receiver<bool>,
        tracker: &TaskTracker,
        stop: &CancellationToken,
    ) where
        A: Fn(Pulled) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<Receipt, Refusal>> + Send + 'static,
        C: Cursors + 'static,
    {
        for (account, base_url, host) in self.companies {
            let stop = stop.clone();
            tracker.spawn(async move {
                let confirm = company::confirm(&account, &base_url, &host);
                stop.run_until_cancelled(Box::pin(confirm)).await
            });
        }
        for Planned { name, endpoint, interval, host, status, steering } in self.feeds {
            let feed = FeedLoop {
                name,
                endpoint,
                interval,
                host,
                accept: accept.clone(),
                cursors: Arc::clone(&cursors),
                bus_available: bus_available.clone(),
                status,
                steering,
                clock: Arc::clone(&self.settings.clock),
                spread: self.settings.spread,
            };
            let stop = stop.clone();
            tracker.spawn(async move { stop.run_until_cancelled(Box::pin(feed.run())).await });
        }
    }
}

/// A cursor that cannot be read is none: its feed begins as a new one does, and dedup knows what was taken.
fn cursor(name: &Name, text: &str) -> Cursor {
    serde_json::from_str(text).unwrap_or_else(|error| {
        let (account, api, feed) = (&name.account, name.api.as_str(), name.feed.as_str());
        tracing::error!(%account, api, feed, error = %error, "feed.cursor_unreadable");
        Cursor::default()
    })
}
