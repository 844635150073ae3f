//! The feeds that run, for whoever looks at them and steers them: pauses outlive a restart, a cursor is moved under the feed's
//! own lock. Invariants: what is steered is on disk, with the act that tells of it, before a feed follows; a move forward
//! leaves out what it passes, so that it must be confirmed. Neighbours: `steer` is one feed's side, `admin` asks.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::MutexGuard;

use super::Clock;
use super::feed::{Name, Status};
use super::host::Host;
use super::plan::{Cursor, SETTLE, SWEEP};
use super::steer::{Held, Steering};
use crate::event::{AccountId, Millis};
use crate::provider::{Feed, PullApi};
use crate::replay::{Act, AskError, Change, Entry, Store, Table};

/// How long a move waits for the poll in hand.
const POLL_IN_HAND: Duration = Duration::from_secs(20);
/// Before this nobody tracked a vehicle that is polled here: 2000-01-01.
const FIRST: i64 = 946_684_800_000;

/// One feed that runs.
#[derive(Clone)]
pub struct Steered {
    /// Which.
    pub name: Name,
    /// How it does.
    pub status: Arc<Mutex<Status>>,
    /// Whom it asks.
    pub host: Arc<Host>,
    /// How it is steered.
    pub steering: Arc<Steering>,
    /// Whether it is asked for windows: else it has no cursor to move.
    pub has_windows: bool,
}

/// What is paused: an account's polls, or one feed's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// All feeds of the account, those too that it gets later.
    Account,
    /// One.
    Feed(PullApi, Feed),
}

/// Whether it polls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Go {
    /// It asks for nothing.
    Pause,
    /// It goes on where it stopped.
    Resume,
}

/// Whether somebody knows what a move leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmed {
    /// They said so.
    Yes,
    /// They did not.
    No,
}

/// A cursor that was moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    /// Where it stood.
    pub from: Option<Millis>,
    /// Where it stands.
    pub to: Millis,
}

/// Why a feed was not steered.
#[derive(Debug, thiserror::Error)]
pub enum SteerError {
    /// No such feed.
    #[error("the account polls no such feed")]
    Unknown,
    /// It is asked for all of its list each time.
    #[error("the feed has no cursor: all of its list is fetched each time")]
    NoCursor,
    /// It cannot be there.
    #[error("the cursor can stand between 2000 and half a minute ago")]
    OutOfRange,
    /// A poll takes long.
    #[error(
        "a poll of the feed is under way and takes long: pause the feed, so that none follows, and try again once this one has ended"
    )]
    Busy,
    /// It leaves something out.
    #[error(
        "what happened from {from} to {to} would not be asked for (sweeps fetch the last 46 hours of it; a backfill fetches all): confirm it, if that is meant"
    )]
    Skips {
        /// From here.
        from: jiff::Timestamp,
        /// To here.
        to: jiff::Timestamp,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] AskError),
}

/// See the module.
pub struct Desk {
    store: Store,
    clock: Clock,
    feeds: ArcSwap<Vec<Steered>>,
    paused: tokio::sync::Mutex<HashSet<(AccountId, String)>>,
}

impl Desk {
    /// A desk that knows what was paused in earlier runs.
    ///
    /// # Errors
    /// Where the store cannot read.
    pub async fn open(store: Store, clock: Clock) -> Result<Self, AskError> {
        let switches = store.all_entries(Table::Switches, None).await?;
        let of_polls =
            switches.into_iter().filter(|entry| entry.key == PAUSED || entry.key.starts_with("paused/"));
        let paused = of_polls.map(|entry| (entry.account, entry.key)).collect();
        let paused = tokio::sync::Mutex::new(paused);
        Ok(Self { store, clock, feeds: ArcSwap::default(), paused })
    }

    /// These run from now on; those of them that were paused begin so.
    pub async fn seat(&self, feeds: Vec<Steered>) {
        let paused = self.paused.lock().await;
        for feed in &feeds {
            feed.steering.pause(is_paused(&paused, &feed.name));
        }
        self.feeds.store(Arc::new(feeds));
    }

    /// Others run from now on, in the place of those that have ended, and are made from where those stood: also what could not be
    /// written down. No cursor is moved meanwhile, and who waits to move one moves that of its successor.
    pub async fn reseat<T>(&self, make: impl FnOnce(Vec<Entry>) -> (T, Vec<Steered>)) -> T {
        let ended = self.feeds();
        let mut held = Vec::with_capacity(ended.len());
        for feed in ended.iter() {
            held.push(feed.steering.plan.lock().await);
        }
        let (made, feeds) = make(self.cursors());
        let known: HashMap<&Name, &Steered> = ended.iter().map(|feed| (&feed.name, feed)).collect();
        for feed in &feeds {
            if let Some(ended) = known.get(&feed.name) {
                let mut status = feed.status.lock();
                *status = ended.status.lock().goes_on_at(status.cursor);
            }
        }
        self.seat(feeds).await;
        made
    }

    fn cursors(&self) -> Vec<Entry> {
        let saved_at = (self.clock)();
        let entry = |feed: &Steered| {
            let value = serde_json::to_string(&feed.status.lock().cursor).ok()?;
            Some(Entry { account: feed.name.account.clone(), key: feed.name.key(), value, saved_at })
        };
        self.feeds().iter().filter_map(entry).collect()
    }

    /// Every feed that runs.
    #[must_use]
    pub fn feeds(&self) -> Arc<Vec<Steered>> {
        self.feeds.load_full()
    }

    /// Pauses or resumes. Whether that is news.
    ///
    /// # Errors
    /// See [`SteerError`]; nothing was changed.
    pub async fn steer(
        &self,
        account: &AccountId,
        which: Which,
        go: Go,
        who: &str,
    ) -> Result<bool, SteerError> {
        let mut paused = self.paused.lock().await;
        // While that is held nobody exchanges them.
        let feeds = self.feeds();
        if let Which::Feed(api, feed) = which {
            find(&feeds, account, api, feed)?;
        }
        let key = (account.clone(), key(which));
        let is_news = match go {
            Go::Pause => !paused.contains(&key),
            Go::Resume => paused.contains(&key),
        };
        if !is_news {
            return Ok(false);
        }
        let at = (self.clock)();
        let (change, act) = match go {
            Go::Pause => {
                let entry = Entry {
                    account: key.0.clone(),
                    key: key.1.clone(),
                    value: "{}".to_owned(),
                    saved_at: at,
                };
                (Change::Put(Table::Switches, entry), "poll.pause")
            }
            Go::Resume => (Change::Remove(Table::Switches, key.0.clone(), key.1.clone()), "poll.resume"),
        };
        let act = Act {
            at,
            who: who.to_owned(),
            act,
            account: Some(account.clone()),
            object: object(which),
            before: None,
            after: None,
        };
        self.store.act(vec![change], act).await?;
        match go {
            Go::Pause => paused.insert(key),
            Go::Resume => paused.remove(&key),
        };
        for feed in feeds.iter().filter(|feed| feed.name.account == *account) {
            feed.steering.pause(is_paused(&paused, &feed.name));
        }
        Ok(true)
    }

    /// Whether an account's polls are paused as a whole.
    pub async fn is_paused(&self, account: &AccountId) -> bool {
        self.paused.lock().await.contains(&(account.clone(), PAUSED.to_owned()))
    }

    /// Moves a feed's cursor, once no poll is in hand; the feed goes on from there at once.
    ///
    /// # Errors
    /// See [`SteerError`]; the cursor stays where it was.
    pub async fn move_cursor(
        &self,
        account: &AccountId,
        (api, feed): (PullApi, Feed),
        to: Millis,
        confirmed: Confirmed,
        who: &str,
    ) -> Result<Moved, SteerError> {
        loop {
            let feeds = self.feeds();
            let steered = find(&feeds, account, api, feed)?;
            if !steered.has_windows {
                return Err(SteerError::NoCursor);
            }
            let held = steered.steering.take(POLL_IN_HAND).await.ok_or(SteerError::Busy)?;
            // A reload may have put another in its place.
            if self.feeds().iter().any(|seated| Arc::ptr_eq(&seated.steering, &steered.steering)) {
                return self.move_held(steered, held, to, confirmed, who).await;
            }
        }
    }

    async fn move_held(
        &self,
        steered: &Steered,
        mut held: MutexGuard<'_, Held>,
        to: Millis,
        confirmed: Confirmed,
        who: &str,
    ) -> Result<Moved, SteerError> {
        let now = (self.clock)();
        if to.0 < FIRST || to.0 > now.0 - SETTLE {
            return Err(SteerError::OutOfRange);
        }
        let Name { account, api, feed, .. } = &steered.name;
        let from = steered.status.lock().cursor.position;
        // A feed that was never polled begins 46 hours ago.
        let stands = from.unwrap_or(Millis(now.0 - SETTLE - SWEEP));
        if to > stands && confirmed == Confirmed::No {
            return Err(SteerError::Skips { from: time(stands), to: time(to) });
        }
        let cursor = Cursor { swept: steered.status.lock().cursor.swept, ..held.plan.at(to) };
        let value = serde_json::to_string(&cursor).unwrap_or_default();
        let entry = Entry { account: account.clone(), key: steered.name.key(), value, saved_at: now };
        let said = |at: Millis| serde_json::json!({ "position": time(at).to_string() }).to_string();
        let act = Act {
            at: now,
            who: who.to_owned(),
            act: "cursor.move",
            account: Some(account.clone()),
            object: object(Which::Feed(*api, *feed)),
            before: from.map(said),
            after: Some(said(to)),
        };
        self.store.act(vec![Change::Put(Table::Cursors, entry)], act).await?;
        held.plan.move_to(to);
        held.saved = cursor;
        steered.status.lock().cursor = cursor;
        drop(held);
        steered.steering.moved();
        Ok(Moved { from, to })
    }
}

/// The key of an account's switch.
const PAUSED: &str = "paused";

fn key(which: Which) -> String {
    match which {
        Which::Account => PAUSED.to_owned(),
        Which::Feed(api, feed) => format!("{PAUSED}/{}/{}", api.as_str(), feed.as_str()),
    }
}

fn object(which: Which) -> String {
    match which {
        Which::Account => "polls".to_owned(),
        Which::Feed(api, feed) => format!("{}/{}", api.as_str(), feed.as_str()),
    }
}

fn is_paused(paused: &HashSet<(AccountId, String)>, name: &Name) -> bool {
    let is = |which| paused.contains(&(name.account.clone(), key(which)));
    is(Which::Account) || is(Which::Feed(name.api, name.feed))
}

fn find<'a>(
    feeds: &'a [Steered],
    account: &AccountId,
    api: PullApi,
    feed: Feed,
) -> Result<&'a Steered, SteerError> {
    let is = |steered: &&Steered| {
        let name = &steered.name;
        name.account == *account && name.api == api && name.feed == feed
    };
    feeds.iter().find(is).ok_or(SteerError::Unknown)
}

fn time(at: Millis) -> jiff::Timestamp {
    jiff::Timestamp::from_millisecond(at.0).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Account, Limits, Poll, PollApi, SecretSource};
    use crate::intake::poll::{Pollers, Settings};
    use crate::provider::Provider;
    use crate::replay::testing::store;

    const NOW: i64 = 1_767_009_600_000;
    const BACK: Millis = Millis(NOW - 86_400_000);

    fn clock() -> Clock {
        Arc::new(|| Millis(NOW))
    }

    fn pollers(cursors: &[Entry]) -> Pollers {
        let token = SecretSource::Env("NONE".to_owned());
        let account = Account {
            id: AccountId::new("acme"),
            provider: Provider::Linxup,
            webhook: None,
            poll: vec![Poll {
                base_url: "http://127.0.0.1:9".to_owned(),
                api: PollApi::V2 { token },
                feeds: vec![(Feed::Trips, Duration::from_secs(60))],
            }],
            limits: Limits { in_flight: 1 << 20, parked: 1 << 20, rate: None },
        };
        let settings = Settings { clock: clock(), ..Settings::default() };
        Pollers::with(&[account], cursors, settings).unwrap()
    }

    async fn moved(desk: &Desk) -> Result<Moved, SteerError> {
        let trips = (PullApi::V2, Feed::Trips);
        desk.move_cursor(&AccountId::new("acme"), trips, BACK, Confirmed::Yes, "a test").await
    }

    #[tokio::test]
    async fn a_cursor_that_is_moved_while_the_feeds_are_exchanged_is_moved_for_those_that_follow() {
        let dir = tempfile::tempdir().unwrap();
        let (store, thread) = store(dir.path()).await;
        let desk = Desk::open(store.clone(), clock()).await.unwrap();
        let stands = || desk.feeds()[0].status.lock().cursor.position;
        let make = |cursors: Vec<Entry>| {
            let pollers = pollers(&cursors);
            let steered = pollers.steered();
            (pollers, steered)
        };
        // It is being written down when they are exchanged.
        desk.seat(pollers(&[]).steered()).await;
        desk.feeds()[0].status.lock().succeeded_polls = 7;
        let (done, _) = tokio::join!(moved(&desk), desk.reseat(make));
        done.unwrap();
        assert_eq!(stands(), Some(BACK));
        assert_eq!(desk.feeds()[0].status.lock().succeeded_polls, 7, "what it did is still known");
        // It waits for a poll in hand when they are.
        desk.seat(pollers(&[]).steered()).await;
        let ended = desk.feeds();
        let in_hand = ended[0].steering.plan.lock().await;
        let exchange = async {
            tokio::task::yield_now().await;
            desk.seat(pollers(&[]).steered()).await;
            drop(in_hand);
        };
        let (done, ()) = tokio::join!(moved(&desk), exchange);
        done.unwrap();
        assert_eq!(stands(), Some(BACK));
        store.close();
        thread.join().unwrap();
    }
}
