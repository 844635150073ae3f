//! What a webhook request and a polled answer have in common once their bytes are here: split, decode, identify, enrich, route,
//! encode, deliver, and hand back one receipt. Invariant: the delivery outlives its caller; `Ok` means
//! that all of it is durable. Neighbours: `webhook` and `poll` call it, `provider` and `deliver` do the work.

mod anew;
mod detached;
mod keep;
mod slice;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use foldhash::HashMap;
use parking_lot::{Mutex, RwLock};
use tokio::sync::OwnedMutexGuard;
use tokio::time::timeout_at;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, Span};

use super::limit::Bucket;
pub use super::receipt::{Errand, Pulled, Pushed, Receipt, Refusal};
use crate::config;
use crate::deliver::counts::Fate;
use crate::deliver::dedup::Candidate;
use crate::deliver::lanes::Admission;
use crate::deliver::memory::Memory;
use crate::deliver::slot::Outgoing;
use crate::deliver::{Arrival, Deliverer, Sums};
use crate::encode;
use crate::enrich::{self, Shelf};
use crate::event::ids::Ids;
use crate::event::{AccountId, EventType, Millis, pb};
use crate::faults::{self, Bug};
use crate::provider::{
    self, Context, Directory, Draft, Element, Identity, LastState, Outcome, Pair, Provider, Resolved, Source,
    SplitError, StateKey,
};
use crate::replay::{LaneKey, ParkedRaw, RawReason, Store, Table};
use crate::route::Router;
use crate::trace;
pub use anew::{Encoded, Republish, Unreadable};
use detached::Detached;
use keep::{json, source_of};
use slice::{in_order, slice_of};

/// Elements decoded between two chances for other tasks.
const BREATH: usize = 64;
/// What a decoded event takes, against its bytes on the wire.
const WEIGHT: u64 = 2;
/// When a sender that found no room should come again.
const COME_AGAIN: Duration = Duration::from_secs(5);
/// What one parked event takes, about. A quota with less room than that is spent: else each request over the rate would be decoded
/// and looked up, at everyone's cost, only to be told at the store that nothing fits.
const ROW: u64 = 1 << 10;
/// How long after its deadline a request may still wait for another one's states: while the bus hangs, requests that bear states
/// come to the end of their deadlines together, and park one after the other.
const TURN: Duration = Duration::from_millis(100);

/// The one entrance to delivery. Cheap to clone.
#[derive(Clone)]
pub struct Acceptance {
    inner: Arc<Inner>,
}

/// What [`Acceptance`] is made of.
pub struct Parts {
    /// The accounts and their bounds.
    pub accounts: Vec<config::Account>,
    /// What the store remembers of each account.
    pub known: Vec<(AccountId, Known)>,
    /// The policy of delivery.
    pub deliverer: Arc<Deliverer>,
    /// Topics.
    pub router: Router,
    /// What operators say about objects.
    pub shelf: Shelf,
    /// How large an event may become by it.
    pub largest: usize,
    /// Raw bytes, states and pairs.
    pub store: Store,
    /// Every delivery runs here.
    pub tracker: TaskTracker,
}

/// What is known of an account from earlier runs.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Pairs of ids.
    pub pairs: Vec<Pair>,
    /// Last states.
    pub states: Vec<(StateKey, LastState)>,
}

struct Inner {
    accounts: ArcSwap<HashMap<AccountId, Arc<Account>>>,
    /// Every account that was configured since the start: one that comes back goes on with what it knew.
    met: Mutex<HashMap<AccountId, Arc<Account>>>,
    memory: Memory,
    deliverer: Arc<Deliverer>,
    router: Router,
    shelf: Shelf,
    largest: usize,
    store: Store,
    tracker: TaskTracker,
}

type States = HashMap<StateKey, LastState>;

struct Account {
    id: AccountId,
    provider: Provider,
    directory: RwLock<Directory>,
    states: Arc<tokio::sync::Mutex<States>>,
    rate: Mutex<Option<Rate>>,
}

/// An account's events a second, and what is left of them.
struct Rate {
    per_second: u32,
    bucket: Bucket,
}

/// One request's way through.
#[derive(Clone)]
struct Way {
    source: Source,
    channel: pb::origin::Channel,
    errand: Errand,
    received_at: Millis,
    trace: Option<String>,
}

/// What decoding made of a request's elements.
#[derive(Default)]
struct Decoded {
    drafts: Vec<Draft>,
    raw: Vec<ParkedRaw>,
    news: Vec<Pair>,
    unrecognized: u64,
    undecodable: u64,
    skipped: u64,
}

/// A request's events, and the states that they will have left behind.
#[derive(Default)]
struct Identified {
    arrivals: Vec<Arrival>,
    same: u64,
    states: Vec<(StateKey, LastState)>,
    held: Option<OwnedMutexGuard<States>>,
}

impl Acceptance {
    /// Puts the parts together.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let mut known: HashMap<AccountId, Known> = parts.known.into_iter().collect();
        let memory = Memory::new(parts.accounts.iter().map(|a| (a.id.clone(), a.limits.in_flight)));
        let one = |account: &config::Account| {
            let known = known.remove(&account.id).unwrap_or_default();
            (account.id.clone(), Arc::new(Account::new(account, known)))
        };
        let accounts: HashMap<_, _> = parts.accounts.iter().map(one).collect();
        let met = Mutex::new(accounts.clone());
        let accounts = ArcSwap::from_pointee(accounts);
        let Parts { deliverer, router, shelf, largest, store, tracker, .. } = parts;
        let inner = Inner { accounts, met, memory, deliverer, router, shelf, largest, store, tracker };
        Self { inner: Arc::new(inner) }
    }

    /// Whether an account was never configured since the start: what the store knows of it must be read.
    #[must_use]
    pub fn is_new(&self, account: &AccountId) -> bool {
        !self.inner.met.lock().contains_key(account)
    }

    /// These accounts and limits hold from now on. What is in work is seen through, and `known` is of those that are new.
    pub fn settle(&self, accounts: &[config::Account], known: Vec<(AccountId, Known)>) {
        let mut known: HashMap<AccountId, Known> = known.into_iter().collect();
        let mut met = self.inner.met.lock();
        let mut one = |account: &config::Account| {
            let held = met.entry(account.id.clone()).or_insert_with(|| {
                Arc::new(Account::new(account, known.remove(&account.id).unwrap_or_default()))
            });
            held.limit(account.limits.rate);
            (account.id.clone(), Arc::clone(held))
        };
        let settled: HashMap<_, _> = accounts.iter().map(&mut one).collect();
        self.inner
            .memory
            .settle(accounts.iter().map(|account| (account.id.clone(), account.limits.in_flight)));
        self.inner.deliverer.counts.admit(accounts.iter().map(|account| &account.id));
        self.inner.accounts.store(Arc::new(settled));
    }

    /// Takes one webhook request. The caller may be dropped at any await without effect on the delivery.
    ///
    /// # Errors
    /// See [`Refusal`]: each maps to one HTTP status.
    pub async fn push(&self, pushed: Pushed) -> Result<Receipt, Refusal> {
        let inner = Arc::clone(&self.inner);
        self.detached(async move { inner.push(pushed).await }).await
    }

    /// Takes the rows of one polled answer: `Ok` means that all of it is durable and the cursor may move.
    ///
    /// # Errors
    /// See [`Refusal`]: the cursor must not move.
    pub async fn pull(&self, pulled: Pulled) -> Result<Receipt, Refusal> {
        let inner = Arc::clone(&self.inner);
        self.detached(async move { inner.pull(pulled).await }).await
    }

    /// Decodes parked raw bytes again, with today's version and directory, as of the time of their receipt. Where the
    /// receipt has neither unrecognized nor undecodable elements, the raw row may go.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn again(&self, raw: ParkedRaw) -> Result<Receipt, Refusal> {
        let inner = Arc::clone(&self.inner);
        self.detached(async move { inner.again(raw).await }).await
    }

    async fn detached(
        &self,
        work: impl Future<Output = Result<Receipt, Refusal>> + Send + 'static,
    ) -> Result<Receipt, Refusal> {
        if self.inner.tracker.is_closed() {
            return Err(Refusal::Stopping);
        }
        // Whoever panicked said so; the sender comes again.
        Detached::new(work.instrument(Span::current()), &self.inner.tracker)
            .await
            .unwrap_or(Err(Refusal::Stopping))
    }
}

impl Account {
    fn new(account: &config::Account, known: Known) -> Self {
        let mut directory = Directory::default();
        directory.learn(&known.pairs);
        Self {
            id: account.id.clone(),
            provider: account.provider,
            directory: RwLock::new(directory),
            states: Arc::new(tokio::sync::Mutex::new(known.states.into_iter().collect())),
            rate: Mutex::new(account.limits.rate.map(Rate::new)),
        }
    }

    /// The limits of a reload.
    fn limit(&self, rate: Option<u32>) {
        let mut held = self.rate.lock();
        if held.as_ref().map(|held| held.per_second) != rate {
            *held = rate.map(Rate::new);
        }
    }
}

impl Rate {
    fn new(per_second: u32) -> Self {
        Self { per_second, bucket: Bucket::new(per_second, Instant::now()) }
    }
}

impl Inner {
    fn account(&self, id: &AccountId) -> Option<Arc<Account>> {
        self.accounts.load().get(id).cloned()
    }

    async fn push(&self, pushed: Pushed) -> Result<Receipt, Refusal> {
        let not_kept = Refusal::NotKept { retry_after: COME_AGAIN };
        let Some(account) = self.account(&pushed.account) else { return Err(not_kept) };
        let account = &*account;
        let weight = pushed.body.len() as u64 * WEIGHT;
        let Some(_permit) = self.memory.take(&account.id, weight).await else { return Err(not_kept) };
        let way = Way {
            source: Source::Push { hint: pushed.hint },
            channel: pb::origin::Channel::Webhook,
            errand: Errand::Poll,
            received_at: pushed.received_at,
            trace: pushed.trace,
        };
        let elements = match Element::all_of(&pushed.body) {
            Ok(elements) => elements,
            Err(SplitError::Empty) => return Err(Refusal::Empty),
            Err(SplitError::TooMany) => return Err(Refusal::TooMany(provider::MAX_ELEMENTS)),
            Err(SplitError::NotJson { line, column }) => {
                let why = format!("not JSON: line {line}, column {column}");
                let raw = self.raw(account, &way, RawReason::NotJson, why, pushed.body);
                self.park_raw(vec![raw]).await?;
                return Err(Refusal::NotJson { line, column });
            }
        };
        let admission = self.admission(account, elements.len())?;
        self.take(account, &way, &elements, admission).await
    }

    async fn pull(&self, pulled: Pulled) -> Result<Receipt, Refusal> {
        let not_kept = Refusal::NotKept { retry_after: COME_AGAIN };
        let Some(account) = self.account(&pulled.account) else { return Err(not_kept) };
        let account = &*account;
        let way = Way {
            source: Source::Pull { api: pulled.api, feed: pulled.feed },
            channel: match pulled.errand {
                Errand::Poll => pb::origin::Channel::Poll,
                Errand::Backfill | Errand::Republish => pb::origin::Channel::Backfill,
            },
            errand: pulled.errand,
            received_at: pulled.received_at,
            trace: None,
        };
        let mut sum = Receipt::default();
        let rows = in_order(pulled.rows);
        let mut rest = rows.as_slice();
        while !rest.is_empty() {
            let (slice, later) = rest.split_at(slice_of(rest));
            rest = later;
            let bytes: usize = slice.iter().map(Bytes::len).sum();
            let permit = self.memory.take(&account.id, bytes as u64 * WEIGHT).await;
            let Some(_permit) = permit else { return Err(not_kept) };
            let elements: Vec<Element> = slice.iter().cloned().map(Element::from).collect();
            let receipt = self.take(account, &way, &elements, Admission::Normal).await?;
            sum = sum.plus(&receipt);
        }
        Ok(sum)
    }

    async fn again(&self, raw: ParkedRaw) -> Result<Receipt, Refusal> {
        let not_kept = Refusal::NotKept { retry_after: COME_AGAIN };
        let account = self.account(&raw.account);
        let (Some(account), Some(source)) = (account, source_of(&raw.source)) else { return Err(not_kept) };
        let account = &*account;
        let channel = match source {
            Source::Push { .. } => pb::origin::Channel::Webhook,
            Source::Pull { .. } => pb::origin::Channel::Poll,
        };
        let weight = raw.body.len() as u64 * WEIGHT;
        let Some(_permit) = self.memory.take(&account.id, weight).await else { return Err(not_kept) };
        let errand = Errand::Poll;
        let way = Way { source, channel, errand, received_at: raw.received_at, trace: None };
        let elements = match Element::all_of(&raw.body) {
            Ok(elements) => elements,
            Err(SplitError::Empty) => return Err(Refusal::Empty),
            Err(SplitError::TooMany) => return Err(Refusal::TooMany(provider::MAX_ELEMENTS)),
            Err(SplitError::NotJson { line, column }) => return Err(Refusal::NotJson { line, column }),
        };
        self.take(account, &way, &elements, Admission::Normal).await
    }

    /// Over its rate, an account's events wait in the store, as long as its quota there lasts.
    fn admission(&self, account: &Account, elements: usize) -> Result<Admission, Refusal> {
        let mut rate = account.rate.lock();
        let Some(rate) = rate.as_mut() else { return Ok(Admission::Normal) };
        let taken = rate.bucket.take(elements as u64, Instant::now());
        match taken {
            Ok(()) => Ok(Admission::Normal),
            Err(retry_after) if self.store.room(&account.id) < ROW => {
                Err(Refusal::QuotaSpent { retry_after })
            }
            Err(_) => Ok(Admission::Park),
        }
    }

    async fn take(
        &self,
        account: &Account,
        way: &Way,
        elements: &[Element],
        admission: Admission,
    ) -> Result<Receipt, Refusal> {
        let deadline = self.deliverer.deadline();
        let span = tracing::info_span!(target: trace::SPANS, "decode", fleetbus.elements = trace::number(elements.len()));
        let decoded = self.decode(account, way, elements).instrument(span).await;
        let span = trace::publish(self.router.kind().as_str(), decoded.drafts.len());
        // Whoever reads a message becomes a child of the span that published it.
        let traced = trace::traceparent(&span).map(|trace| Way { trace: Some(trace), ..way.clone() });
        let way = traced.as_ref().unwrap_or(way);
        let publishing = async {
            let Identified { arrivals, same, states, held } =
                self.identify(account, way, decoded.drafts, deadline + TURN).await?;
            // Who waited for another one's states has left no time for the bus.
            let late = held.is_some() && self.deliverer.is_late(deadline);
            let admission = if late { Admission::Park } else { admission };
            let sums = self.deliverer.deliver(arrivals, admission, deadline).await;
            Ok((sums, same, states, held))
        };
        let (sums, same, states, held) = publishing.instrument(span.clone()).await?;
        let Sums { delivered, parked, duplicates, rejected } = sums;
        let become_of = [
            ("fleetbus.delivered", delivered),
            ("fleetbus.parked", parked),
            ("fleetbus.duplicates", duplicates + same),
            ("fleetbus.rejected", rejected),
        ];
        for (name, events) in become_of {
            span.record(name, trace::number(events));
        }
        drop(span);
        if rejected == 0
            && let Some(mut held) = held
        {
            for (key, state) in &states {
                held.insert(key.clone(), state.clone());
            }
            let rows = states.iter().map(|(key, state)| (json(key), json(state)));
            self.save(account, Table::States, rows).await;
        }
        if !decoded.news.is_empty() {
            let rows = decoded.news.iter().map(|pair| (json(pair), "{}".to_owned()));
            self.save(account, Table::Directory, rows).await;
        }
        let kept = self.park_raw(decoded.raw).await;
        if rejected > 0 {
            return Err(Refusal::NotKept { retry_after: COME_AGAIN });
        }
        kept?;
        let duplicates = duplicates + same;
        Ok(Receipt {
            events: delivered + parked + duplicates,
            delivered,
            parked,
            duplicates,
            unrecognized: decoded.unrecognized,
            undecodable: decoded.undecodable,
            skipped: decoded.skipped,
        })
    }

    async fn decode(&self, account: &Account, way: &Way, elements: &[Element]) -> Decoded {
        let mut all = Decoded::default();
        for (at, element) in elements.iter().enumerate() {
            if at % BREATH == BREATH - 1 {
                tokio::task::yield_now().await;
            }
            let decoded = {
                let directory = account.directory.read();
                let context = Context {
                    account: &account.id,
                    channel: way.channel,
                    received_at: way.received_at,
                    directory: &directory,
                };
                provider::decode_element(account.provider, &way.source, element, &context)
            };
            if !decoded.learnt.is_empty() {
                all.news.extend(account.directory.write().learn(&decoded.learnt));
            }
            match decoded.outcome {
                Outcome::Events(drafts) => all.drafts.extend(drafts),
                Outcome::Skipped { drafts, .. } => {
                    all.skipped += 1;
                    all.drafts.extend(drafts);
                }
                Outcome::Unrecognized(why) => {
                    all.unrecognized += 1;
                    let body = element.bytes().clone();
                    all.raw.push(self.raw(account, way, RawReason::Unrecognized, why.into_owned(), body));
                }
                Outcome::Undecodable(why) => {
                    all.undecodable += 1;
                    let body = element.bytes().clone();
                    all.raw.push(self.raw(account, way, RawReason::Undecodable, why.into_owned(), body));
                }
            }
        }
        all
    }

    /// Gives states their ids, and routes and encodes everything. States of one account are decided one request at a
    /// time: the lock is held until the request's events are durable, and waited for `until` then.
    async fn identify(
        &self,
        account: &Account,
        way: &Way,
        drafts: Vec<Draft>,
        until: tokio::time::Instant,
    ) -> Result<Identified, Refusal> {
        let mut identified = Identified::default();
        let stateful = drafts.iter().any(|draft| matches!(draft.identity, Identity::State(_)));
        if stateful {
            let held = timeout_at(until, Arc::clone(&account.states).lock_owned()).await;
            identified.held = Some(held.map_err(|_| Refusal::NotKept { retry_after: COME_AGAIN })?);
        }
        let mut newer: States = HashMap::default();
        for draft in drafts {
            let event_type = draft.event_type;
            let (key, key_time) = match &draft.identity {
                Identity::Fact { key_time, .. } => (None, *key_time),
                Identity::State(state) => (Some(state.key.clone()), None),
            };
            let last = key.as_ref().and_then(|key| {
                newer.get(key).or_else(|| identified.held.as_ref().and_then(|held| held.get(key)))
            });
            match provider::resolve_state(draft, last) {
                Resolved::Event { event, checks, enters, new_last } => {
                    if let (Some(key), Some(last)) = (key, new_last) {
                        newer.insert(key, last);
                    }
                    let event = enrich::enrich(event, &account.id, &self.shelf, self.largest);
                    if faults::bug(Bug::OtherId) {
                        let other = uuid::Uuid::now_v7();
                        let event = pb::FleetEvent { id: other.to_string(), ..(*event).clone() };
                        let ids = Ids::from_slice(&[other]);
                        let arrival =
                            self.arrival(account, way, &event, event_type, key_time, ids.clone(), ids);
                        identified.arrivals.push(arrival);
                    }
                    let arrival = self.arrival(account, way, &event, event_type, key_time, checks, enters);
                    identified.arrivals.push(arrival);
                }
                Resolved::Duplicate { event, .. } if way.errand == Errand::Republish => {
                    let id = event.id.parse().unwrap_or_default();
                    let event = enrich::enrich(event, &account.id, &self.shelf, self.largest);
                    let (checks, enters) = (Ids::new(), Ids::from_slice(&[id]));
                    let arrival = self.arrival(account, way, &event, event_type, key_time, checks, enters);
                    identified.arrivals.push(arrival);
                }
                Resolved::Duplicate { .. } => {
                    identified.same += 1;
                    self.deliverer.counts.of(&account.id, event_type, |count| {
                        count.received(1);
                        count.met(Fate::Duplicate);
                    });
                }
                Resolved::Silent { .. } => {}
            }
        }
        identified.states = newer.into_iter().collect();
        Ok(identified)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of one event, taken apart by the caller's match"
    )]
    fn arrival(
        &self,
        account: &Account,
        way: &Way,
        event: &pb::FleetEvent,
        event_type: EventType,
        key_time: Option<Millis>,
        checks: Ids,
        enters: Ids,
    ) -> Arrival {
        let topic = self.router.topic(account.provider, &account.id, event_type, &event.subject);
        // The event's own id comes first.
        let id = enters.first().copied().unwrap_or_default();
        let message =
            encode::encode(event, id, event_type, topic.clone(), self.router.kind(), way.trace.as_deref());
        let subject = message.key.clone();
        let lane = LaneKey { account: account.id.clone(), topic, subject: subject.clone() };
        let occur_ms = event.occur_time.map_or(way.received_at.0, |time| {
            time.seconds.saturating_mul(1_000).saturating_add(i64::from(time.nanos) / 1_000_000)
        });
        let (checks, key_time) = self.asked_of_dedup(way, event_type, checks, key_time);
        let candidate = Candidate {
            account: account.id.clone(),
            event_type,
            subject,
            key_time,
            received_at: way.received_at,
            checks,
            enters: enters.clone(),
        };
        let trace = way.trace.clone();
        Arrival { outgoing: Outgoing { lane, event_type, occur_ms, enters, trace, message }, candidate }
    }
}
