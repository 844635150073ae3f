//! What a webhook request and a polled answer have in common once their bytes are here: split, decode, identify, enrich, route,
//! encode, deliver, and hand back one receipt. Invariant: the delivery outlives its caller; `Ok` means
//! that all of it is durable. Neighbours: `webhook` and `poll` call it, `provider` and `deliver` do the work.

mod anew;
mod detached;
mod identify;
mod keep;
mod portion;
mod slice;
mod states;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use foldhash::{HashMap, HashSet};
use parking_lot::{Mutex, RwLock};
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, Span};
use uuid::Uuid;

use super::limit::Bucket;
pub use super::receipt::{Errand, Pulled, Pushed, Receipt, Refusal};
use crate::config;
use crate::deliver::lanes::Admission;
use crate::deliver::memory::{Memory, Permit};
use crate::deliver::{Deliverer, Sums};
use crate::enrich::Shelf;
use crate::event::{AccountId, Millis};
use crate::provider::{self, Directory, Element, LastState, Pair, Provider, Source, SplitError, StateKey};
use crate::replay::{Gone, ParkedRaw, RawReason, Store, Table};
use crate::route::Router;
use crate::trace;
pub use anew::{Encoded, Republish, Unreadable};
use detached::Detached;
use identify::{Decided, Decoded, Identified};
use keep::{json, source_of};
use portion::Load;
use slice::{in_order, slice_of};
use states::States;

/// When a sender that found no room should come again.
const COME_AGAIN: Duration = Duration::from_secs(5);
/// What one parked event takes, about. A quota with less room than that is spent: else each request over the rate would be decoded
/// and looked up, at everyone's cost, only to be told at the store that nothing fits.
const ROW: u64 = 1 << 10;
/// What gzip begins with, which no JSON does.
const GZIP: [u8; 2] = [0x1f, 0x8b];

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

struct Account {
    id: AccountId,
    provider: Provider,
    directory: RwLock<Directory>,
    states: Mutex<States>,
    /// Whoever decides about states, until their events have entered their lanes.
    turn: Arc<tokio::sync::Mutex<()>>,
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
    errand: Errand,
    received_at: Millis,
    trace: Option<String>,
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

    /// Whether an account is configured now.
    #[must_use]
    pub fn has(&self, account: &AccountId) -> bool {
        self.inner.accounts.load().contains_key(account)
    }

    /// Whether this version knows the way that raw bytes came: else nobody decodes them.
    #[must_use]
    pub fn knows(source: &str) -> bool {
        source_of(source).is_some()
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

    /// Rows left the store undelivered: where they were states, those are news again when they come.
    pub fn forget(&self, gone: &[Gone]) {
        let mut ids: HashMap<&AccountId, HashSet<Uuid>> = HashMap::default();
        for row in gone.iter().filter(|row| row.event.as_ref().is_some_and(|(_, of)| of.has_states())) {
            ids.entry(&row.account).or_default().extend(&row.enters);
        }
        for (id, ids) in ids {
            let account = self.inner.met.lock().get(id).cloned();
            let forgotten = account.map(|account| account.states.lock().forget(&ids)).unwrap_or_default();
            if !forgotten.is_empty() {
                self.inner.store.forget(Table::States, id.clone(), forgotten.iter().map(json).collect());
            }
        }
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
            states: Mutex::new(States::new(known.states)),
            turn: Arc::default(),
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
        let way = Way {
            source: Source::Push { hint: pushed.hint },
            errand: Errand::Push,
            received_at: pushed.received_at,
            trace: pushed.trace,
        };
        let bytes = pushed.body.len();
        let mut elements = match Element::all_of(&pushed.body) {
            Ok(elements) => elements,
            Err(SplitError::Empty) => return Err(Refusal::Empty),
            Err(SplitError::TooMany) => return Err(Refusal::TooMany(provider::MAX_ELEMENTS)),
            Err(SplitError::NotJson { line, column }) => {
                let permit = self.memory.take(&account.id, portion::weight(bytes, Load::ONE)).await;
                let Some(_permit) = permit else { return Err(not_kept) };
                let why = if pushed.body.starts_with(&GZIP) {
                    "gzip that is broken or cut off".to_owned()
                } else {
                    format!("not JSON: line {line}, column {column}")
                };
                let raw = self.raw(account, &way, RawReason::NotJson, why, pushed.body);
                self.park_raw(vec![raw]).await?;
                return Err(Refusal::NotJson { line, column });
            }
        };
        let (_permit, load) = self.permit(account, bytes, &elements).await?;
        let admission = self.admission(account, load.events)?;
        self.take(account, &way, (&mut elements, load), admission).await
    }

    async fn pull(&self, pulled: Pulled) -> Result<Receipt, Refusal> {
        let not_kept = Refusal::NotKept { retry_after: COME_AGAIN };
        let Some(account) = self.account(&pulled.account) else { return Err(not_kept) };
        let account = &*account;
        let way = Way {
            source: Source::Pull { api: pulled.api, feed: pulled.feed },
            errand: pulled.errand,
            received_at: pulled.received_at,
            trace: None,
        };
        let mut sum = Receipt::default();
        let rows = in_order(pulled.rows, way.received_at);
        let mut rest = rows.as_slice();
        while !rest.is_empty() {
            let (slice, later) = rest.split_at(slice_of(rest));
            rest = later;
            let bytes: usize = slice.iter().map(Bytes::len).sum();
            let mut elements: Vec<Element> = slice.iter().cloned().map(Element::from).collect();
            let (_permit, load) = self.permit(account, bytes, &elements).await?;
            let receipt = self.take(account, &way, (&mut elements, load), Admission::Normal).await?;
            sum = sum.plus(&receipt);
        }
        Ok(sum)
    }

    async fn again(&self, raw: ParkedRaw) -> Result<Receipt, Refusal> {
        let not_kept = Refusal::NotKept { retry_after: COME_AGAIN };
        let account = self.account(&raw.account);
        let (Some(account), Some(source)) = (account, source_of(&raw.source)) else { return Err(not_kept) };
        let account = &*account;
        let errand = match source {
            Source::Push { .. } => Errand::Push,
            Source::Pull { .. } => Errand::Poll,
        };
        let way = Way { source, errand, received_at: raw.received_at, trace: None };
        let mut elements = match Element::all_of(&raw.body) {
            // Of an empty list nothing would come, and its row would go as if something had.
            Ok(elements) if elements.is_empty() => return Err(Refusal::Empty),
            Ok(elements) => elements,
            Err(SplitError::Empty) => return Err(Refusal::Empty),
            Err(SplitError::TooMany) => return Err(Refusal::TooMany(provider::MAX_ELEMENTS)),
            Err(SplitError::NotJson { line, column }) => return Err(Refusal::NotJson { line, column }),
        };
        let (_permit, load) = self.permit(account, raw.body.len(), &elements).await?;
        self.take(account, &way, (&mut elements, load), Admission::Normal).await
    }

    /// The right to work on elements of so many bytes, and what they become.
    async fn permit(
        &self,
        account: &Account,
        bytes: usize,
        elements: &[Element],
    ) -> Result<(Permit, Load), Refusal> {
        let load = Load::of(elements);
        let permit = self.memory.take(&account.id, portion::weight(bytes, load)).await;
        Ok((permit.ok_or(Refusal::NotKept { retry_after: COME_AGAIN })?, load))
    }

    /// Over its rate, an account's events wait in the store, as long as its quota there lasts.
    fn admission(&self, account: &Account, events: usize) -> Result<Admission, Refusal> {
        let mut rate = account.rate.lock();
        let Some(rate) = rate.as_mut().filter(|_| events > 0) else { return Ok(Admission::Normal) };
        match rate.bucket.take(events as u64, Instant::now()) {
            Ok(()) => Ok(Admission::Normal),
            Err(retry_after) if self.store.room(&account.id) < ROW => {
                Err(Refusal::QuotaSpent { retry_after })
            }
            Err(_) => Ok(Admission::Park),
        }
    }

    /// Portion by portion, each durable before the next. The deadline is one for all: what comes to its turn late is parked.
    async fn take(
        &self,
        account: &Account,
        way: &Way,
        (elements, load): (&mut [Element], Load),
        admission: Admission,
    ) -> Result<Receipt, Refusal> {
        let deadline = self.deliverer.deadline();
        portion::in_order(elements, load, way.received_at);
        let mut sum = Receipt::default();
        let mut rest = &*elements;
        while !rest.is_empty() {
            let span = tracing::info_span!(
                target: trace::SPANS, "decode", fleetbus.elements = trace::number(rest.len())
            );
            let (decoded, later) = self.decode(account, way, rest).instrument(span).await;
            rest = later;
            sum = sum.plus(&self.deliver(account, way, decoded, admission, deadline).await?);
        }
        Ok(sum)
    }

    async fn deliver(
        &self,
        account: &Account,
        way: &Way,
        decoded: Decoded,
        admission: Admission,
        deadline: tokio::time::Instant,
    ) -> Result<Receipt, Refusal> {
        let Decoded { drafts, raw, news, unrecognized, undecodable, skipped } = decoded;
        let span = trace::publish(self.router.kind().as_str(), drafts.len());
        // Whoever reads a message becomes a child of the span that published it.
        let traced = trace::traceparent(&span).map(|trace| Way { trace: Some(trace), ..way.clone() });
        let way = traced.as_ref().unwrap_or(way);
        let mut drafts = portion::oldest_first(drafts, way.received_at).into_iter();
        let mut sums = Sums::default();
        let publishing = async {
            while drafts.len() > 0 && sums.rejected == 0 {
                let folds = self.deliverer.dedup.folds();
                let Identified { arrivals, same, decided, turn } =
                    self.identify(account, way, &mut drafts, deadline).await?;
                // What waited for others has left no time for the bus.
                let admission = if self.deliverer.is_late(deadline) { Admission::Park } else { admission };
                let these = self.deliverer.deliver(arrivals, admission, deadline, turn).await;
                self.settle_states(account, decided, &these, folds).await;
                sums.merge(Sums { duplicates: these.duplicates + same, ..these });
            }
            Ok(())
        };
        publishing.instrument(span.clone()).await?;
        let Sums { delivered, parked, duplicates, rejected } = sums;
        let become_of = [
            ("fleetbus.delivered", delivered),
            ("fleetbus.parked", parked),
            ("fleetbus.duplicates", duplicates),
            ("fleetbus.rejected", rejected),
        ];
        for (name, events) in become_of {
            span.record(name, trace::number(events));
        }
        drop(span);
        if !news.is_empty() {
            let rows = news.iter().map(|pair| (json(pair), "{}".to_owned()));
            self.save(account, Table::Directory, rows).await;
        }
        let kept = self.park_raw(raw).await;
        if rejected > 0 {
            return Err(Refusal::NotKept { retry_after: COME_AGAIN });
        }
        kept?;
        let events = delivered + parked + duplicates;
        Ok(Receipt { events, delivered, parked, duplicates, unrecognized, undecodable, skipped })
    }

    /// States that were decided are durable, or are taken back. Of a request that was refused in part dedup knows which; what is open
    /// stays as it is: told again, it has the same id, and by then dedup knows what became of it.
    async fn settle_states(&self, account: &Account, decided: Decided, sums: &Sums, folds: u64) {
        let rows: Vec<_> = {
            let mut states = account.states.lock();
            let settle = |(key, state): &(StateKey, LastState)| {
                let is_durable = match sums.rejected {
                    0 => Some(true),
                    1.. => self.deliverer.dedup.is_durable(state.id, folds),
                };
                let newest = match is_durable {
                    Some(true) => states.kept(key, state),
                    Some(false) => states.rejected(key, state),
                    None => None,
                };
                newest.map(|newest| (json(key), json(&newest)))
            };
            decided.iter().filter_map(settle).collect()
        };
        self.save(account, Table::States, rows.into_iter()).await;
    }
}
