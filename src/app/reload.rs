//! A reload: the configuration is read again while the bridge runs. Invariants: what can fail is done before anything changes; what
//! needs a restart is named and stays as it was; an account that is gone is not accepted any more, while what is parked of
//! it drains; a poll in hand is given up and its cursor has not moved, so that its successor asks again.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::look::{admin_keys, ask_for_topics};
use super::{known, topics};
use crate::admin::{Access, Accounts, AdminKey, ReloadError, Reloaded};
use crate::bus::Bus;
use crate::clock;
use crate::config::load::{self, ThisProcess};
use crate::config::{Account, Config, Loaded, Poll, SecretError};
use crate::deliver::Deliverer;
use crate::event::{AccountId, EventType, Text};
use crate::intake::accept::{Acceptance, Known};
use crate::intake::auth::{Key, Origin, TokenDigest};
use crate::intake::poll::backfill::Door;
use crate::intake::poll::desk::Desk;
use crate::intake::poll::http::Client;
use crate::intake::poll::{Hosts, Pollers, StoredCursors};
use crate::intake::tokens::Registry;
use crate::intake::webhook::WebhookState;
use crate::logs;
use crate::replay::{Act, Entry, Store, Table, moving};
use crate::route::Router;

/// How long reading the configuration and the files that it names may take.
const READ: Duration = Duration::from_secs(30);
/// How long it may take to write down that there was a reload.
const ACT: Duration = Duration::from_secs(10);

/// What a reload exchanges things in.
pub(super) struct Reloader {
    pub(super) path: OnceLock<PathBuf>,
    /// What runs: held while it is exchanged.
    pub(super) running: Mutex<Config>,
    /// How often it was exchanged: changed only while it is held.
    pub(super) reloads: AtomicU64,
    /// Whether its file is being read.
    pub(super) reads: Arc<AtomicBool>,
    pub(super) accounts: Accounts,
    pub(super) access: Access,
    pub(super) hooks: WebhookState,
    pub(super) tokens: Arc<Registry>,
    pub(super) acceptance: Acceptance,
    pub(super) deliverer: Arc<Deliverer>,
    pub(super) bus: Arc<Bus>,
    pub(super) store: Store,
    pub(super) desk: Arc<Desk>,
    pub(super) drain_rate: watch::Sender<Option<u32>>,
    /// Pollers call with it.
    pub(super) client: Client,
    /// The pull APIs, for backfills.
    pub(super) doors: watch::Sender<Vec<Door>>,
    /// Once the bridge runs.
    pub(super) polls: OnceLock<Polls>,
}

/// Starts pollers on a tracker, until they are stopped.
type Start = dyn Fn(Pollers, &TaskTracker, &CancellationToken) + Send + Sync;

/// The pollers that run.
pub(super) struct Polls {
    /// Starts some, on a tracker, until they are stopped.
    pub(super) start: Box<Start>,
    /// Everything that `app` awaits when it stops.
    pub(super) work: TaskTracker,
    /// The end of all polling.
    pub(super) stop: CancellationToken,
    pub(super) generation: Mutex<Generation>,
}

/// Pollers of one configuration.
#[derive(Default)]
pub(super) struct Generation {
    stop: CancellationToken,
    tracker: TaskTracker,
    hosts: Hosts,
}

impl Polls {
    pub(super) async fn begin(&self, pollers: Pollers) {
        let mut generation = self.generation.lock().await;
        *generation = Generation {
            stop: self.stop.child_token(),
            tracker: TaskTracker::new(),
            hosts: pollers.known_hosts(),
        };
        (self.start)(pollers, &generation.tracker, &generation.stop);
        let tracker = generation.tracker.clone();
        tracker.close();
        self.work.spawn(async move { tracker.wait().await });
    }

    /// None runs any more. The hosts that they knew.
    async fn end(&self) -> Hosts {
        let generation = self.generation.lock().await;
        generation.stop.cancel();
        generation.tracker.wait().await;
        generation.hosts.clone()
    }
}

/// A configuration, and what the files say that it names.
struct Read {
    config: Config,
    notes: Vec<String>,
    keys: Vec<(AccountId, Option<TokenDigest>)>,
    admin: Vec<AdminKey>,
}

/// Everything about a configuration that could fail, done.
struct Ready {
    config: Config,
    notes: Vec<String>,
    keys: Vec<(AccountId, Option<TokenDigest>)>,
    admin: Vec<AdminKey>,
    known: Vec<(AccountId, Known)>,
    /// Those in the store, where what is polled is otherwise.
    cursors: Option<Vec<Entry>>,
}

impl Reloader {
    /// Reads the configuration again, on behalf of somebody.
    pub(super) async fn reload(&self, who: &str) -> Result<Reloaded, ReloadError> {
        let done = self.exchange(who).await;
        match &done {
            Ok(Reloaded { changed, needs_restart, notes }) => {
                for note in notes {
                    tracing::warn!(note, "config.note");
                }
                tracing::info!(who, ?changed, "config.reloaded");
                if !needs_restart.is_empty() {
                    tracing::warn!(?needs_restart, "config.needs_restart");
                }
            }
            Err(ReloadError::Wrong(problems)) => {
                for problem in problems {
                    tracing::error!(who, problem = %problem, "config.wrong");
                }
            }
            Err(error) => {
                // With its causes, which a log in JSON does not show by itself.
                tracing::error!(who, error = logs::words(error), "config.not_reloaded");
            }
        }
        done
    }

    async fn exchange(&self, who: &str) -> Result<Reloaded, ReloadError> {
        let path = self.path.get().ok_or(ReloadError::NoFile)?.clone();
        let polls =
            self.polls.get().filter(|polls| !polls.stop.is_cancelled()).ok_or(ReloadError::Stopping)?;
        let mut running = self.running.lock().await;
        let read = self.read(path, running.replay.max_size).await?;
        let ready = self.prepare(&running, read).await?;
        // From here on nothing fails.
        self.reloads.fetch_add(1, Ordering::Relaxed);
        let (needs_restart, changed) = (needs_restart(&running, &ready.config), changes(&running, &ready));
        let changed = if self.access.replace(ready.admin.clone()) {
            changed.into_iter().chain(["admin tokens".to_owned()]).collect()
        } else {
            changed
        };
        let poll_again = match &ready.cursors {
            Some(cursors) => Some((polls.end().await, cursors.clone())),
            None => None,
        };
        self.settle(&ready).await;
        let Config { accounts, admin, replay, .. } = ready.config;
        let reloaded = Reloaded { changed, needs_restart, notes: ready.notes };
        self.topics(polls, &running, &accounts);
        running.accounts = accounts;
        running.admin.tokens = admin.tokens;
        running.replay.drain_rate = replay.drain_rate;
        let act = Act {
            at: clock::now(),
            who: who.to_owned(),
            act: "config.reload",
            account: None,
            object: "the configuration".to_owned(),
            before: None,
            after: serde_json::to_string(&reloaded).ok(),
        };
        if let Some((hosts, mut cursors)) = poll_again {
            let again = |standing| {
                // Feeds went on after the store was read.
                cursors.extend(standing);
                let pollers = Pollers::again(&running.accounts, &cursors, &hosts, self.client.clone());
                let steered = pollers.steered();
                (pollers, steered)
            };
            let pollers = self.desk.reseat(again).await;
            StoredCursors { store: self.store.clone() }.remove(pollers.left_over()).await;
            self.doors.send_replace(pollers.doors());
            polls.begin(pollers).await;
        }
        // It is in force, written down or not.
        match timeout(ACT, self.store.act(Vec::new(), act)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(who, error = %error, "config.reload_not_recorded"),
            Err(_) => tracing::warn!(who, error = "no answer in time", "config.reload_not_recorded"),
        }
        Ok(reloaded)
    }

    /// Reads it, unless an earlier reading still hangs: a thread at most does.
    async fn read(&self, path: PathBuf, max_size: u64) -> Result<Read, ReloadError> {
        if self.reads.swap(true, Ordering::Relaxed) {
            return Err(ReloadError::Late);
        }
        let reads = Arc::clone(&self.reads);
        let reading = tokio::task::spawn_blocking(move || {
            let read = read(path, load::Store::Open(max_size));
            reads.store(false, Ordering::Relaxed);
            read
        });
        let read = timeout(READ, reading).await.map_err(|_| ReloadError::Late)?;
        read.unwrap_or_else(|_| {
            self.reads.store(false, Ordering::Relaxed);
            Err(ReloadError::Stopping)
        })
    }

    async fn prepare(&self, running: &Config, read: Read) -> Result<Ready, ReloadError> {
        let Read { config, notes, keys, admin } = read;
        if config.accounts.is_empty() && !running.accounts.is_empty() {
            return Err(ReloadError::NoAccounts);
        }
        // What stays as it is may be too short for what is new.
        if !polled(&config).is_empty() && !running.dedup.covers_polls() {
            return Err(ReloadError::ShortDedup);
        }
        let cursors = if polled(running) == polled(&config) {
            None
        } else {
            Some(self.store.all_entries(Table::Cursors, None).await?)
        };
        let router = Router::new(&running.bus);
        let (mut directory, mut states) = (Vec::new(), Vec::new());
        for account in config.accounts.iter().filter(|account| self.acceptance.is_new(&account.id)) {
            let switches = self.store.all_entries(Table::Switches, Some(&account.id)).await?;
            if switches.iter().any(|switch| switch.key == moving::OUT) {
                return Err(ReloadError::MovedOut(account.id.clone()));
            }
            let is_todays = |topic: &str, subject: &str| {
                let of = |event_type| router.topic(account.provider, &account.id, event_type, subject);
                EventType::ALL.into_iter().any(|event_type| *of(event_type) == *topic)
            };
            if self.deliverer.lanes.is_behind_elsewhere(&account.id, is_todays) {
                return Err(ReloadError::OtherTopics(account.id.clone()));
            }
            directory.extend(self.store.all_entries(Table::Directory, Some(&account.id)).await?);
            states.extend(self.store.all_entries(Table::States, Some(&account.id)).await?);
        }
        let known = known(directory, states, &self.deliverer.dedup);
        Ok(Ready { config, notes, keys, admin, known, cursors })
    }

    /// An account is known to delivery before its webhooks are let in, and after.
    async fn settle(&self, ready: &Ready) {
        let accounts = &ready.config.accounts;
        let ids: Vec<AccountId> = accounts.iter().map(|account| account.id.clone()).collect();
        let quotas = accounts.iter().map(|account| (account.id.clone(), account.limits.parked));
        self.store.settle(quotas.collect());
        self.acceptance.settle(accounts, ready.known.clone());
        self.hooks.settle(&ids);
        for (account, digest) in &ready.keys {
            self.hooks.tokens.replace(account, Origin::Config, digest.map(Key::of));
        }
        self.tokens.enliven().await;
        self.drain_rate.send_replace(ready.config.replay.drain_rate);
        self.accounts.store(Arc::new(accounts.clone()));
    }

    /// The bus is asked for the topics of accounts that are new.
    fn topics(&self, polls: &Polls, running: &Config, accounts: &[Account]) {
        let router = Router::new(&running.bus);
        let had: BTreeSet<Text> = topics(&running.accounts, &router).into_iter().collect();
        let new: Vec<_> =
            topics(accounts, &router).into_iter().filter(|topic| !had.contains(topic)).collect();
        if !new.is_empty() {
            let (bus, lanes, stop) =
                (Arc::clone(&self.bus), Arc::clone(&self.deliverer.lanes), polls.stop.clone());
            polls.work.spawn(async move {
                stop.run_until_cancelled(Box::pin(ask_for_topics(bus, lanes, new))).await
            });
        }
    }
}

/// Reads every file. Blocks.
fn read(path: PathBuf, store: load::Store) -> Result<Read, ReloadError> {
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(source) => return Err(ReloadError::Unreadable { path, source }),
    };
    let Loaded { config, notes } = load::load_for(&text, &ThisProcess, store).map_err(ReloadError::Wrong)?;
    let key = |account: &Account| -> Result<_, SecretError> {
        let digest = match &account.webhook {
            Some(source) => TokenDigest::of(source.read_sendable()?.reveal()),
            None => None,
        };
        Ok((account.id.clone(), digest))
    };
    let keys = config.accounts.iter().map(key).collect::<Result<_, _>>()?;
    let admin = admin_keys(&config.admin.tokens)?;
    Ok(Read { config, notes, keys, admin })
}

/// What pollers are made of.
fn polled(config: &Config) -> Vec<(&AccountId, &[Poll])> {
    let polled = config.accounts.iter().filter(|account| !account.poll.is_empty());
    polled.map(|account| (&account.id, &account.poll[..])).collect()
}

/// What is written otherwise and stays as it is.
fn needs_restart(running: &Config, new: &Config) -> Vec<&'static str> {
    let parts = [
        ("listen", running.listen == new.listen),
        ("admin.address", running.admin.address == new.admin.address),
        ("data_dir", running.data_dir == new.data_dir),
        ("bus", running.bus == new.bus),
        ("delivery", running.delivery == new.delivery),
        ("replay.retention", running.replay.retention == new.replay.retention),
        ("replay.max_size", running.replay.max_size == new.replay.max_size),
        ("dedup", running.dedup == new.dedup),
        ("custom_data", running.custom_data == new.custom_data),
        ("telemetry", running.otlp == new.otlp),
    ];
    parts.into_iter().filter(|(_, same)| !same).map(|(name, _)| name).collect()
}

/// What is otherwise from now on. That a secret reads otherwise is not told here: its file is looked at anyway.
fn changes(running: &Config, ready: &Ready) -> Vec<String> {
    let new = &ready.config;
    let find =
        |accounts: &[Account], id: &AccountId| accounts.iter().find(|account| account.id == *id).cloned();
    let mut changes = Vec::new();
    for account in &new.accounts {
        match find(&running.accounts, &account.id) {
            None => changes.push(format!("account {}: added", account.id)),
            Some(old) if old != *account => changes.push(format!("account {}: changed", account.id)),
            Some(_) => {}
        }
    }
    let gone = running.accounts.iter().filter(|account| find(&new.accounts, &account.id).is_none());
    changes.extend(gone.map(|account| format!("account {}: removed", account.id)));
    if running.replay.drain_rate != new.replay.drain_rate {
        changes.push("replay.drain_rate".to_owned());
    }
    changes
}
