//! Builds the parts from a configuration, runs them, and stops them in order. The only place that spawns. Stopping:
//! not ready → accept for `drain_delay` (endpoints are removed late) → refuse new connections, stop polling → finish or
//! park what is in flight → stop the drain → flush the bus → close the store; within 55 s after `drain_delay`.

mod custom_data;
mod look;
mod reload;
mod secrets;
mod start;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use look::{
    Looking, admin_keys, ask_for_topics, look_at_admin_tokens, look_at_ages, look_at_bus, look_at_disk,
    look_at_last_use, look_at_tokens, note_last_use,
};
use reload::{Generation, Polls, Reloader};
pub use start::StartError;

use crate::admin::{self, Access, AdminState, Again, FeedReading, LocalLog, LogRow, Past, Phase, Sources};
use crate::admin::{ReloadError, Reloaded};
use crate::bus::{self, Bus};
use crate::clock;
use crate::config::{Account, Config};
use crate::deliver::Deliverer;
use crate::deliver::breaker::Breaker;
use crate::deliver::counts::Counts;
use crate::deliver::dedup::{self, Dedup};
use crate::deliver::lanes::Lanes;
use crate::deliver::seldom::Seldom;
use crate::enrich::Shelf;
use crate::event::{AccountId, Text};
use crate::intake::accept::{Acceptance, Known, Parts, Pulled, Pushed};
use crate::intake::auth::{Key, Origin, TokenDigest};
use crate::intake::poll::backfill::Doors;
use crate::intake::poll::desk::Desk;
use crate::intake::poll::{Pollers, StoredCursors, feed};
use crate::intake::serve::{Bounds, Connections, Port, Tls};
use crate::intake::tokens::Registry;
use crate::intake::webhook::{self, WebhookState};
use crate::provider::LastState;
use crate::replay::drain::Drain;
use crate::replay::{
    DataDir, Gone, Routing, Store, StoreError, StoreHealth, StoreLimits, TopicsBefore, Why, Writer, aging,
};
use crate::route::{BusKind, Router};

/// What is in flight when connections are refused: its deadlines, and the store's.
const FINISH: Duration = Duration::from_secs(12);
/// What the bus may take to prepare itself before the first event comes.
const PREPARE: Duration = Duration::from_secs(3);
/// Lines about parked messages that were evicted or expired: so many at once, then one in each pause.
const REMOVED: (u32, Duration) = (16, Duration::from_secs(10));
/// The bus's last flush.
const FLUSH: Duration = Duration::from_secs(5);

/// What the operator's side and the demo see of a running bridge. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    /// What became of every event.
    pub deliverer: Arc<Deliverer>,
    /// What waits.
    pub store: Store,
    /// Where events go.
    pub bus: Arc<Bus>,
    /// What kind of bus that is.
    pub kind: BusKind,
    /// The one entrance.
    pub acceptance: Acceptance,
    /// What operators say about objects.
    pub shelf: Shelf,
    /// Webhooks: tokens and counts.
    pub hooks: WebhookState,
    /// Tokens of webhooks that operators made.
    pub tokens: Arc<Registry>,
    /// How each feed does, and how it is steered.
    pub desk: Arc<Desk>,
    /// The accounts, as they are configured now.
    pub accounts: admin::Accounts,
    reloader: Arc<Reloader>,
    /// The pull APIs, as backfills ask them now.
    pub doors: Doors,
    /// Where the process is in its life.
    pub phase: watch::Receiver<Phase>,
    /// Where webhooks are taken.
    pub webhook_address: SocketAddr,
    /// The operator's address.
    pub admin_address: SocketAddr,
}

impl Handle {
    /// Reads the configuration again, on behalf of somebody. What came of it is in the log.
    ///
    /// # Errors
    /// Why nothing, or not all, was reloaded.
    pub async fn reload(&self, who: &str) -> Result<Reloaded, ReloadError> {
        self.reloader.reload(who).await
    }
}

/// A bridge that is built and not yet running.
pub struct Bridge {
    config: Config,
    handle: Handle,
    webhook: Port,
    admin: Port,
    tls: Option<Tls>,
    hooks: WebhookState,
    pollers: Pollers,
    drain: Drain,
    deliveries: TaskTracker,
    phase: watch::Sender<Phase>,
    access: Access,
    threads: Vec<JoinHandle<()>>,
    seen_stops: CancellationToken,
    topics: Vec<Text>,
}

/// How a bridge ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was told to, and everything in flight is delivered or parked.
    Stopped,
    /// The store cannot be trusted any more.
    StoreBroken,
    /// The drain ended: a bug.
    DrainDied,
}

/// Builds a bridge: opens what it keeps, binds its ports. Nothing is accepted yet, and the bus need not be up.
///
/// # Errors
/// A sentence for the operator; nothing was accepted.
pub async fn build(config: Config) -> Result<Bridge, StartError> {
    let data_dir = DataDir::lock(&config.data_dir).await?;
    if let Some(warning) = data_dir.volume().warning() {
        tracing::warn!(warning, "data_dir.volatile");
    }
    let webhook = Port::open(config.listen.address)?;
    let admin = Port::open(config.admin.address)?;
    let tls = match &config.listen.tls {
        Some(files) => Some(Tls::load(files.clone()).await?),
        None => None,
    };
    let ids: Vec<AccountId> = config.accounts.iter().map(|account| account.id.clone()).collect();
    let hooks = WebhookState::new(&ids);
    for account in &config.accounts {
        if let Some(source) = &account.webhook {
            let digest = TokenDigest::of(source.read_sendable()?.reveal());
            hooks.tokens.replace(&account.id, Origin::Config, digest.map(Key::of));
        }
    }
    let router = Router::new(&config.bus);
    let (store, writer, recovered) = open_store(&config, &data_dir, &router)?;
    if let Some(account) = config.accounts.iter().find(|account| recovered.moved_out.contains(&account.id)) {
        return Err(StartError::MovedOut(account.id.clone()));
    }
    let era = recovered.era.clone();
    let (dedup, seen) =
        Dedup::open(data_dir.path(), &config.dedup, era, clock::now, aging(config.dedup.longest()))?;
    let bus = Arc::new(Bus::open(&config.bus, data_dir.path())?);

    let seen_stops = CancellationToken::new();
    let counts = Arc::new(Counts::new(config.accounts.iter().map(|account| &account.id)));
    let lanes = Lanes::new(
        Arc::clone(&bus),
        store.clone(),
        Breaker::new(config.delivery.breaker.clone()),
        Arc::clone(&counts),
        config.delivery.retries,
        recovered.lanes,
    );
    let deliverer =
        Arc::new(Deliverer::new(Arc::clone(&lanes), Arc::clone(&dedup), counts, config.delivery.clone()));
    let deliveries = TaskTracker::new();
    let known = known(recovered.directory, recovered.states, &dedup);
    let topics = topics(&config.accounts, &router);
    let shelf = custom_data::shelf(config.custom_data.memory, recovered.custom_data);
    let acceptance = Acceptance::new(Parts {
        accounts: config.accounts.clone(),
        known,
        deliverer: Arc::clone(&deliverer),
        router: router.clone(),
        shelf: shelf.clone(),
        largest: custom_data::largest(&config.bus),
        store: store.clone(),
        tracker: deliveries.clone(),
    });
    let threads =
        vec![store_thread(writer, dedup, acceptance.clone())?, seen_thread(seen, seen_stops.clone())?];
    let (drain_rate, is_drain_rate) = watch::channel(config.replay.drain_rate);
    let drain = Drain {
        lanes,
        store: store.clone(),
        bus: Arc::clone(&bus),
        kind: router.kind(),
        rate: is_drain_rate,
    };
    let pollers = Pollers::new(&config.accounts, &recovered.cursors)?;
    StoredCursors { store: store.clone() }.remove(pollers.left_over()).await;
    let (doors, are_doors) = watch::channel(pollers.doors());
    let (phase, is_phase) = watch::channel(Phase::Starting);
    let desk = Arc::new(Desk::open(store.clone(), Arc::new(clock::now)).await?);
    desk.seat(pollers.steered()).await;
    let access = Access::new(admin_keys(&config.admin.tokens)?);
    let tokens = Arc::new(Registry::new(store.clone(), Arc::clone(&hooks.tokens), recovered.tokens));
    let accounts: admin::Accounts = Arc::new(ArcSwap::from_pointee(config.accounts.clone()));
    let client = pollers.client();
    let reloader = Arc::new(Reloader {
        path: OnceLock::new(),
        running: Mutex::new(config.clone()),
        reloads: AtomicU64::new(0),
        reads: Arc::default(),
        accounts: Arc::clone(&accounts),
        access: access.clone(),
        hooks: hooks.clone(),
        tokens: Arc::clone(&tokens),
        acceptance: acceptance.clone(),
        deliverer: Arc::clone(&deliverer),
        bus: Arc::clone(&bus),
        store: store.clone(),
        desk: Arc::clone(&desk),
        drain_rate,
        client,
        doors,
        polls: OnceLock::new(),
    });
    let handle = Handle {
        deliverer,
        store,
        bus,
        kind: router.kind(),
        acceptance,
        shelf,
        phase: is_phase,
        webhook_address: webhook.address(),
        admin_address: admin.address(),
        hooks: hooks.clone(),
        tokens,
        desk,
        accounts,
        reloader,
        doors: are_doors,
    };
    Ok(Bridge {
        config,
        handle,
        webhook,
        admin,
        tls,
        hooks,
        pollers,
        drain,
        deliveries,
        phase,
        access,
        threads,
        seen_stops,
        topics,
    })
}

fn open_store(
    config: &Config,
    data_dir: &DataDir,
    router: &Router,
) -> Result<(Store, Writer, crate::replay::Recovered), StoreError> {
    let limits = StoreLimits {
        max_size: config.replay.max_size,
        retention: config.replay.retention,
        parked: config.accounts.iter().map(|a| (a.id.clone(), a.limits.parked)).collect(),
        ..StoreLimits::default()
    };
    let providers: HashMap<AccountId, _> =
        config.accounts.iter().map(|account| (account.id.clone(), account.provider)).collect();
    let (by, of, known) = (router.clone(), router.clone(), providers.clone());
    let before: TopicsBefore = Box::new(move |fingerprint| {
        let ((router, accounts), providers) = (of.before(fingerprint)?, known.clone());
        Some(Box::new(move |account, event_type, subject| {
            let provider = providers.get(account).filter(|_| accounts.contains(account));
            provider.map(|provider| router.topic(*provider, account, event_type, subject))
        }))
    });
    let routing = Routing {
        before,
        fingerprint: router.fingerprint(providers.iter().map(|(account, provider)| (account, *provider))),
        topic: Box::new(move |account, event_type, subject| {
            providers.get(account).map(|provider| by.topic(*provider, account, event_type, subject))
        }),
    };
    Store::open(data_dir, limits, Some(routing))
}

fn store_thread(
    writer: Writer,
    dedup: Arc<Dedup>,
    acceptance: Acceptance,
) -> Result<JoinHandle<()>, StartError> {
    let removed = Seldom::of(REMOVED.0, REMOVED.1);
    let gone = move |gone: Vec<Gone>| {
        for row in &gone {
            dedup.forget(&row.enters);
            match row.why {
                Why::Evicted | Why::Expired => {
                    if let Some(rows) = removed.happened() {
                        let (account, kind, seq) = (&row.account, row.kind.as_str(), row.seq.0);
                        tracing::error!(%account, kind, seq, rows, "parked.removed");
                    }
                }
                Why::Discarded => {}
            }
        }
        // Only now: else a state that comes meanwhile is news, and known by its id all the same, and kept as the last one for good.
        acceptance.forget(&gone);
    };
    let thread = std::thread::Builder::new().name("store".to_owned());
    thread.spawn(move || writer.run(gone)).map_err(StartError::Thread)
}

fn seen_thread(seen: dedup::Worker, stops: CancellationToken) -> Result<JoinHandle<()>, StartError> {
    let thread = std::thread::Builder::new().name("seen".to_owned());
    thread.spawn(move || seen.run(|| stops.is_cancelled())).map_err(StartError::Thread)
}

/// What the store remembers of each account. States whose events left the store undelivered while nobody had their account are news.
fn known(
    directory: Vec<crate::replay::Entry>,
    states: Vec<crate::replay::Entry>,
    dedup: &Dedup,
) -> Vec<(AccountId, Known)> {
    let mut known: HashMap<AccountId, Known> = HashMap::new();
    for entry in directory {
        match serde_json::from_str(&entry.key) {
            Ok(pair) => known.entry(entry.account).or_default().pairs.push(pair),
            Err(error) => tracing::warn!(account = %entry.account, error = %error, "directory.unreadable"),
        }
    }
    for entry in states {
        match (serde_json::from_str(&entry.key), serde_json::from_str::<LastState>(&entry.value)) {
            (Ok(_), Ok(state)) if dedup.is_forgotten(state.id) => {}
            (Ok(key), Ok(state)) => known.entry(entry.account).or_default().states.push((key, state)),
            (Err(error), _) | (_, Err(error)) => {
                tracing::warn!(account = %entry.account, error = %error, "state.unreadable");
            }
        }
    }
    known.into_iter().collect()
}

/// Every topic that the accounts can have.
fn topics(accounts: &[Account], router: &Router) -> Vec<Text> {
    let mut topics: Vec<Text> =
        accounts.iter().flat_map(|account| router.topics(account.provider, &account.id)).collect();
    topics.sort();
    topics.dedup();
    topics
}

impl Bridge {
    /// What others may see and use while it runs.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// A reload reads this file.
    pub fn reloads_from(&self, path: PathBuf) {
        // The first counts: a bridge has one.
        self.handle.reloader.path.set(path).ok();
    }

    /// Runs until `stop`, then stops in order.
    pub async fn run(self, stop: CancellationToken) -> Ended {
        let Self { config, handle, webhook, admin, tls, hooks, pollers, drain, .. } = self;
        let (deliveries, phase, threads) = (self.deliveries, self.phase, self.threads);
        let Handle { bus, store, deliverer, acceptance, .. } = handle.clone();
        let (work, connections) = (TaskTracker::new(), TaskTracker::new());
        let (bus_stops, drain_stops) = (CancellationToken::new(), CancellationToken::new());
        let (intake_stops, admin_stops) = (CancellationToken::new(), CancellationToken::new());
        let looking_stops = CancellationToken::new();
        let (available, bus_available) = watch::channel(true);

        stop.run_until_cancelled(timeout(PREPARE, bus.prepare(&self.topics))).await;
        let running = Arc::clone(&bus);
        let stops = bus_stops.clone();
        work.spawn(async move { running.run(stops).await });
        let mut draining = work.spawn(drain.run(drain_stops.clone()));
        let look = |looking: Looking| {
            let stops = looking_stops.clone();
            work.spawn(async move { stops.run_until_cancelled(looking).await });
        };
        look(Box::pin(ask_for_topics(Arc::clone(&bus), Arc::clone(&deliverer.lanes), self.topics)));
        look(Box::pin(look_at_bus(Arc::clone(&bus), Arc::clone(&deliverer.lanes), available)));
        look(Box::pin(look_at_ages(store.clone())));
        look(Box::pin(look_at_disk(store.clone())));
        look(Box::pin(look_at_tokens(Arc::clone(&handle.reloader), hooks.clone())));
        look(Box::pin(look_at_admin_tokens(Arc::clone(&handle.reloader), self.access.clone())));
        look(Box::pin(look_at_last_use(Arc::clone(&handle.tokens))));

        let polled = acceptance.clone();
        let pull = move |pulled: Pulled| {
            let acceptance = polled.clone();
            async move { acceptance.pull(pulled).await }
        };
        let cursors = Arc::new(StoredCursors { store: store.clone() });
        let backfills_look = bus_available.clone();
        let start = move |pollers: Pollers, tracker: &TaskTracker, stop: &CancellationToken| {
            pollers.run(pull.clone(), Arc::clone(&cursors), &bus_available, tracker, stop);
        };
        let polls = handle.reloader.polls.get_or_init(|| Polls {
            start: Box::new(start),
            work: work.clone(),
            stop: intake_stops.clone(),
            generation: Mutex::new(Generation::default()),
        });
        polls.begin(pollers).await;
        let take = move |pushed: Pushed| {
            let acceptance = acceptance.clone();
            async move { acceptance.push(pushed).await }
        };
        let routes = webhook::router(hooks, take);
        let taken = webhook.serve(routes, Bounds::WEBHOOKS, tls, &connections, &intake_stops);
        tracing::info!(address = %handle.webhook_address, connections = taken.bound(), "webhook.listening");
        let past = Past {
            doors: handle.doors.clone(),
            acceptance: handle.acceptance.clone(),
            bus_available: backfills_look,
            stop: intake_stops.clone(),
        };
        let state = admin_state(&config, &handle, self.access, taken, past, &work, &admin_stops);
        work.spawn(state.clone().resume());
        let told = admin.serve(admin::router(state), Bounds::ADMIN, None, &work, &admin_stops);
        tracing::info!(address = %handle.admin_address, connections = told.bound(), "admin.listening");
        phase.send_replace(Phase::Running);

        let mut health = store.health();
        let broken = health.wait_for(|health| *health == StoreHealth::Broken);
        let ended = tokio::select! {
            () = stop.cancelled() => Ended::Stopped,
            _ = broken => Ended::StoreBroken,
            // Only a panic ends it early. Without it nothing parked would ever leave: better to be started again.
            _ = &mut draining => Ended::DrainDied,
        };
        phase.send_replace(Phase::Stopping);
        tracing::info!(reason = ?ended, "app.stopping");
        if ended == Ended::Stopped {
            sleep(config.delivery.drain_delay).await;
        }
        intake_stops.cancel();
        connections.close();
        if timeout(FINISH, connections.wait()).await.is_err() {
            tracing::error!(connections = connections.len(), "app.connections_cut");
        }
        deliveries.close();
        if timeout(FINISH, deliveries.wait()).await.is_err() {
            tracing::error!(deliveries = deliveries.len(), "app.deliveries_cut");
        }
        drain_stops.cancel();
        // What it has with the bus is still booked, and not sent again after the start.
        if ended != Ended::DrainDied {
            timeout(FLUSH, &mut draining).await.ok();
        }
        bus.close(FLUSH).await;
        looking_stops.cancel();
        bus_stops.cancel();
        admin_stops.cancel();
        work.close();
        if timeout(FLUSH, work.wait()).await.is_err() {
            tracing::warn!(tasks = work.len(), "app.tasks_cut");
        }
        note_last_use(&handle.tokens).await;
        self.seen_stops.cancel();
        store.close();
        let joined = tokio::task::spawn_blocking(move || {
            threads.into_iter().map(JoinHandle::join).filter(Result::is_err).count()
        });
        match timeout(FINISH, joined).await.map(|joined| joined.unwrap_or(1)) {
            Ok(0) => {}
            Ok(panicked) => tracing::error!(threads = panicked, "app.threads_ended_badly"),
            Err(_) => tracing::warn!("app.threads_cut"),
        }
        tracing::info!("app.stopped");
        ended
    }
}

/// What the operator's port shows of the running parts.
fn admin_state(
    config: &Config,
    handle: &Handle,
    access: Access,
    webhooks: Connections,
    past: Past,
    tracker: &TaskTracker,
    stop: &CancellationToken,
) -> AdminState {
    let desk = Arc::clone(&handle.desk);
    let sources = Sources {
        phase: handle.phase.clone(),
        bus: Arc::clone(&handle.bus),
        deliverer: Arc::clone(&handle.deliverer),
        store: handle.store.clone(),
        store_max_bytes: config.replay.max_size,
        webhooks: Arc::clone(&handle.hooks.counts),
        ports: vec![("webhooks", webhooks)],
        feeds: Arc::new(move || {
            desk.feeds().iter().map(|feed| reading(&feed.name, &feed.status.lock())).collect()
        }),
    };
    let log = handle.bus.as_local().map(|local| {
        let bus = Arc::clone(&handle.bus);
        let read = move |topic: Option<&str>, after, limit| read_log(&bus, topic, after, limit);
        LocalLog { newest: local.newest(), read: Arc::new(read) }
    });
    let lanes = Arc::clone(&handle.deliverer.lanes);
    let (reloader, work) = (Arc::clone(&handle.reloader), tracker.clone());
    let reload: admin::Reload = Arc::new(move |who| {
        let reloader = Arc::clone(&reloader);
        // Seen through, though the caller hangs up.
        let reloaded = work.spawn(async move { reloader.reload(&who).await });
        Box::pin(async move { reloaded.await.unwrap_or(Err(ReloadError::Stopping)) })
    });
    AdminState::new(admin::Parts {
        access,
        accounts: Arc::clone(&handle.accounts),
        snapshot: Arc::new(move || sources.snapshot()),
        reload,
        desk: Arc::clone(&handle.desk),
        tokens: Arc::clone(&handle.tokens),
        store: handle.store.clone(),
        kind: handle.kind,
        shelf: handle.shelf.clone(),
        again: Again { store: handle.store.clone(), lanes, acceptance: handle.acceptance.clone() },
        past,
        log,
        tracker: tracker.clone(),
        stop: stop.clone(),
    })
}

fn read_log(bus: &Bus, topic: Option<&str>, after: u64, limit: usize) -> Result<Vec<LogRow>, String> {
    let Some(local) = bus.as_local() else { return Ok(Vec::new()) };
    let rows = local.read(topic, after, limit).map_err(|error| error.to_string())?;
    let row = |row: bus::local::Row| LogRow { offset: row.offset, topic: row.topic, payload: row.payload };
    Ok(rows.into_iter().map(row).collect())
}

fn reading(name: &feed::Name, status: &feed::Status) -> FeedReading {
    FeedReading {
        account: name.account.clone(),
        api: name.api,
        feed: name.feed,
        succeeded: status.succeeded_polls,
        failed: status.failed_polls,
        failed_in_a_row: u64::from(status.failed_in_a_row),
        rows: status.rows,
        skipped: status.skipped,
        last_success: status.succeeded_at,
        cursor: status.cursor.position,
    }
}
