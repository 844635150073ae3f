//! Pollers: what a provider offers by its pull APIs (mapping section 5). One future a feed, one [`host::Host`] an API of an
//! account, so that a host that hangs delays nobody else's feeds. While the bus is unavailable they wait: the provider is
//! their store. `plan` and `bucket` are pure.

pub mod bucket;
pub mod feed;
pub mod host;
pub mod plan;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{self, PollApi};
use crate::deliver::dedup::system_clock;
use crate::event::AccountId;
use crate::intake::accept::{Pulled, Receipt, Refusal};
use crate::provider::PullApi;
use crate::replay::{Entry, Store, Table};
use bucket::Rank;
use feed::{Cursors, FeedLoop, Name, Status};
use host::{Answer, Ask, Host};
use plan::Cursor;

/// How long a cursor may take to be written down.
const SAVE: Duration = Duration::from_secs(10);

/// Cursors in the replay store.
pub struct StoredCursors {
    /// The store.
    pub store: Store,
}

impl Cursors for StoredCursors {
    async fn save(&self, name: &Name, cursor: &Cursor) -> bool {
        let Ok(value) = serde_json::to_string(cursor) else { return false };
        let entry = Entry { account: name.account.clone(), key: name.key(), value, saved_at: system_clock() };
        let saved = tokio::time::timeout(SAVE, self.store.put(Table::Cursors, vec![entry])).await;
        saved.is_ok_and(|saved| saved.is_ok())
    }
}

/// Every feed's status, for the API and metrics.
pub type Statuses = Vec<(Name, Arc<Mutex<Status>>)>;

/// The pollers, not yet running.
pub struct Pollers {
    feeds: Vec<(Name, Duration, Arc<Host>)>,
    hosts: Vec<(AccountId, PullApi, String, Arc<Host>)>,
    statuses: Statuses,
}

impl Pollers {
    /// The feeds of these accounts, each with the cursor that it was left with.
    ///
    /// # Errors
    /// Where a client cannot be made.
    pub fn new(accounts: &[config::Account], cursors: &[Entry]) -> Result<Self, reqwest::Error> {
        let held: HashMap<(&AccountId, &str), &str> =
            cursors.iter().map(|e| ((&e.account, e.key.as_str()), e.value.as_str())).collect();
        let mut pollers = Self { feeds: Vec::new(), hosts: Vec::new(), statuses: Vec::new() };
        for account in accounts {
            for poll in &account.poll {
                let api = match poll.api {
                    PollApi::V2 { .. } => PullApi::V2,
                    PollApi::V3 { .. } => PullApi::V3,
                };
                let host = Arc::new(Host::new(&poll.base_url, &poll.api)?);
                for (feed, interval) in &poll.feeds {
                    let name = Name {
                        account: account.id.clone(),
                        api,
                        feed: *feed,
                        base_url: poll.base_url.clone(),
                    };
                    let key = name.key();
                    let held = held.get(&(&account.id, key.as_str()));
                    let cursor = held.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
                    let status = Arc::new(Mutex::new(Status { cursor, ..Status::default() }));
                    pollers.statuses.push((name.clone(), status));
                    pollers.feeds.push((name, *interval, Arc::clone(&host)));
                }
                pollers.hosts.push((account.id.clone(), api, poll.base_url.clone(), host));
            }
        }
        Ok(pollers)
    }

    /// Every feed's status.
    #[must_use]
    pub fn statuses(&self) -> Statuses {
        self.statuses.clone()
    }

    /// Runs every feed on the tracker until `stop`. A poll in hand is given up: what it handed over is delivered.
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
        for (account, api, base_url, host) in self.hosts {
            if api == PullApi::V2 {
                let stop = stop.clone();
                let confirm = async move { confirm(&account, &base_url, &host).await };
                tracker.spawn(async move { stop.run_until_cancelled(confirm).await });
            }
        }
        for ((name, interval, host), (_, status)) in self.feeds.into_iter().zip(self.statuses) {
            let feed = FeedLoop {
                name,
                interval,
                host,
                accept: accept.clone(),
                cursors: Arc::clone(&cursors),
                bus_available: bus_available.clone(),
                status,
                clock: system_clock,
            };
            let stop = stop.clone();
            tracker.spawn(async move { stop.run_until_cancelled(Box::pin(feed.run())).await });
        }
    }
}

/// `GET /company`, once: confirms that this is the account's host.
async fn confirm(account: &AccountId, base_url: &str, host: &Host) {
    let answer = host.call(&Ask::Get("/company", Vec::new()), Rank::Live).await;
    match answer {
        Answer::Body(body, _) => {
            let said = serde_json::from_slice::<serde_json::Value>(&body).ok();
            let said = said.as_ref().map(|said| said.get("data").unwrap_or(said));
            let api_host = said.and_then(|said| said.get("apiHost")).and_then(serde_json::Value::as_str);
            match api_host {
                Some(api_host) if !base_url.contains(api_host.trim_start_matches("https://")) => {
                    tracing::warn!(account = %account, api_host, "poll.other_host");
                }
                Some(_) | None => tracing::info!(account = %account, "poll.host_confirmed"),
            }
        }
        Answer::Unauthorized => tracing::error!(account = %account, "poll.token_refused"),
        Answer::Limited(_) | Answer::TooLarge => tracing::warn!(account = %account, "poll.host_unconfirmed"),
        Answer::Failed(why) => {
            tracing::warn!(account = %account, error = %why, "poll.host_unconfirmed");
        }
    }
}

/// A spelling for people and metrics.
#[must_use]
pub const fn api_name(api: PullApi) -> &'static str {
    match api {
        PullApi::V2 => "v2",
        PullApi::V3 => "v3",
    }
}
