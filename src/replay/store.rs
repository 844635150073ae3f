//! The store as the rest of the program holds it: a bounded queue in front of the thread that owns the file, sequence
//! numbers and counts in memory. Nothing here touches the file or waits for it, but for the `async` functions, which
//! wait for their answers. The thread is [`Writer`](super::Writer).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot, watch};

use super::error::Trouble;
use super::queue::{Phase, Queue, Task};
use super::tally::{Ledger, Population, Quotas};
use super::{
    Act, Acts, AskError, Change, Count, DamagedEntry, DataDir, Discarded, Entry, Era, Filter, Kept, LaneRows,
    Listed, Original, Page, Parked, Reason, Recorded, Recovered, Routing, Seq, Still, StoreError,
    StoreHealth, StoreLimits, StoreStats, Stored, Table, WaitsFor, Writer, audit, entries, listing, rows,
    staged,
};
use crate::deliver::seldom::Seldom;
use crate::event::{AccountId, Millis};
use crate::faults;

/// The most questions and changes that wait at once; the others wait for a place.
const ASKS: usize = 256;
/// The most rows of one page of a list.
const PAGE_ROWS: usize = 1000;
/// Entries that one transaction saves.
const PUT_ROWS: usize = 500;
/// A page of a list that is so old asks no further question: a filter that matches rarely gets a page with few rows, or none,
/// in time, and a place to go on from.
const PAGE_TIME: Duration = Duration::from_millis(20);
/// A question for the rows of many lanes that is so old is answered with what was read.
const LANES_TIME: Duration = Duration::from_millis(1);
/// The most bytes of one page of a list with payloads.
const PAGE_BYTES: u64 = 8 << 20;
/// An alert tells a day before rows get too old.
const DAY_MS: i64 = 24 * 3600 * 1000;
/// Lines about raw bytes that are not taken: so many at once, then one in each pause.
const REFUSED: (u32, Duration) = (4, Duration::from_secs(60));
/// Longer errors are cut: they are words for an operator, not bytes to keep.
const ERROR_BYTES: usize = 500;

/// The replay store. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pub(super) shared: Arc<Shared>,
}

/// What the store and its thread share.
pub(super) struct Shared {
    pub(super) queue: Queue,
    pub(super) ledger: Mutex<Ledger>,
    pub(super) limits: StoreLimits,
    quotas: ArcSwap<HashMap<AccountId, u64>>,
    pub(super) next_seq: AtomicU64,
    pub(super) era: Era,
    pub(super) health: watch::Sender<StoreHealth>,
    pub(super) commits: AtomicU64,
    pub(super) file_bytes: AtomicU64,
    pub(super) evicted: AtomicU64,
    pub(super) expired: AtomicU64,
    pub(super) discarded: AtomicU64,
    pub(super) damaged: AtomicU64,
    pub(super) saying_damaged: Seldom,
    pub(super) damaged_entries: AtomicU64,
    saying_entries: Seldom,
    pub(super) saying_refused: Seldom,
    asks: Arc<Semaphore>,
}

impl Shared {
    pub(super) fn new(limits: StoreLimits, ledger: Ledger, recovered: &Recovered) -> Self {
        let quotas = ArcSwap::from_pointee(limits.parked.clone());
        Self {
            queue: Queue::default(),
            quotas,
            ledger: Mutex::new(ledger),
            limits,
            next_seq: AtomicU64::new(recovered.next_seq.0),
            era: recovered.era.clone(),
            health: watch::Sender::new(StoreHealth::Well),
            commits: AtomicU64::new(0),
            file_bytes: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            discarded: AtomicU64::new(0),
            damaged: AtomicU64::new(0),
            saying_damaged: Seldom::new(),
            damaged_entries: AtomicU64::new(0),
            saying_entries: Seldom::new(),
            saying_refused: Seldom::of(REFUSED.0, REFUSED.1),
            asks: Arc::new(Semaphore::new(ASKS)),
        }
    }
}

impl Shared {
    /// The bytes that an account may have waiting for the bus.
    fn quota(&self, account: &AccountId) -> u64 {
        self.quotas.load().get(account).copied().unwrap_or(self.limits.parked_default)
    }

    /// What an account's rows have room in.
    pub(super) fn quotas_of(&self, account: &AccountId) -> Quotas {
        let operator = self.limits.operator_share();
        Quotas { account: self.quota(account), bus: self.limits.max_size - operator, operator }
    }
}

impl Store {
    /// Opens `store.db` in the directory. Nothing is served until the [`Writer`] runs on a thread of its own.
    ///
    /// # Errors
    /// With the reason; a file of a newer version is refused, and nothing written.
    pub fn open(
        dir: &DataDir,
        limits: StoreLimits,
        routing: Option<Routing>,
    ) -> Result<(Self, Writer, Recovered), StoreError> {
        let (writer, recovered) = Writer::open(dir, limits, routing)?;
        Ok((Self { shared: writer.shared() }, writer, recovered))
    }

    /// The next place in the order. From memory: call it in the lane's critical section, and park in the same.
    #[must_use]
    pub fn next_seq(&self) -> Seq {
        Seq(self.shared.next_seq.fetch_add(1, Ordering::Relaxed))
    }

    /// They are delivered: deletes them, once the parks ahead are written. Never blocks; unknown ones are passed over.
    pub fn delete(&self, seqs: Vec<Seq>) {
        if !seqs.is_empty() {
            self.shared.queue.task(Task::Delete(seqs.into()));
        }
    }

    /// Their attempts surely failed: they are provisional no more. Never blocks.
    pub fn free(&self, seqs: Vec<Seq>) {
        if !seqs.is_empty() {
            self.shared.queue.task(Task::Free(seqs.into()));
        }
    }

    /// An attempt at a row failed so: its words for the operator, and one more. Never blocks, and may come to nothing.
    pub fn attempted(&self, seq: Seq, mut error: String) {
        cut(&mut error);
        let (answer, _) = oneshot::channel();
        let change = Box::new(move |conn: &Connection| rows::attempted(conn, seq, &error));
        self.shared.queue.task(Task::Change { change, answer });
    }

    /// How often a row was tried since it was parked.
    ///
    /// # Errors
    /// Where the store cannot read, or is closed.
    pub async fn attempts(&self, seq: Seq) -> Result<u64, AskError> {
        self.ask(move |conn| rows::attempts(conn, seq)).await
    }

    /// They wait for something else from now on, with these words for the operator. [`Reason::Unfit`] takes them out of
    /// their lane, another reason into it, at their old places. Never blocks.
    pub fn set_reason(&self, seqs: Vec<Seq>, reason: Reason, mut error: String) {
        cut(&mut error);
        if !seqs.is_empty() {
            self.shared.queue.task(Task::Mark { seqs: seqs.into(), reason, error });
        }
    }

    /// Rows of lanes that wait for the bus, each lane's in order: at least one where there is one. Sees every row whose park was
    /// queued before, and none whose delete was. Lanes come in the order in which they are wanted: as many as can be read within a
    /// moment, and at least the first, so that a park does not wait for a long question.
    ///
    /// # Errors
    /// Where the store cannot read, or is closed.
    pub async fn read_lanes(&self, wanted: Vec<LaneRows>) -> Result<Vec<Vec<Kept<Parked>>>, AskError> {
        self.ask(move |conn| {
            let (begun, mut found) = (Instant::now(), Vec::with_capacity(wanted.len()));
            for lane in &wanted {
                found.push(rows::read_lane(conn, lane)?);
                if begun.elapsed() >= LANES_TIME {
                    break;
                }
            }
            Ok(found)
        })
        .await
    }

    /// A page of the operator's view: up to `limit` rows, or what was found within the time that a page may take.
    ///
    /// # Errors
    /// Where the store cannot read, or is closed.
    pub async fn list(
        &self,
        filter: &Filter,
        after: Option<Seq>,
        limit: usize,
    ) -> Result<Page<Listed>, AskError> {
        let (limit, begun) = (limit.clamp(1, PAGE_ROWS), Instant::now());
        let mut page = Page { rows: Vec::new(), next: None };
        if !self.shared.ledger.lock().may_have(filter) {
            return Ok(page);
        }
        page.next = after;
        loop {
            let (filter, after, room) = (filter.clone(), page.next, limit - page.rows.len());
            let slice = self.ask(move |conn| listing::slice(conn, &filter, after, room)).await?;
            page.rows.extend(slice.rows);
            page.next = slice.next;
            if page.next.is_none() || page.rows.len() >= limit || begun.elapsed() >= PAGE_TIME {
                return Ok(page);
            }
        }
    }

    /// A page of rows with their payloads, for a replay: rows up to a limit, and up to 8 MiB.
    ///
    /// # Errors
    /// Where the store cannot read, or is closed.
    pub async fn read(
        &self,
        filter: &Filter,
        after: Option<Seq>,
        limit: usize,
    ) -> Result<Page<Kept<Stored>>, AskError> {
        let listed = self.list(filter, after, limit).await?;
        self.ask(move |conn| {
            let mut page = Page { rows: Vec::new(), next: listed.next };
            let mut bytes = 0;
            let mut last = after;
            for row in &listed.rows {
                if bytes > 0 && bytes + row.bytes > PAGE_BYTES {
                    page.next = last;
                    break;
                }
                bytes += row.bytes;
                last = Some(row.seq);
                // It may be gone meanwhile.
                page.rows.extend(rows::get(conn, row.seq)?);
            }
            Ok(page)
        })
        .await
    }

    /// One row with everything.
    ///
    /// # Errors
    /// Where the store cannot read, or is closed.
    pub async fn get(&self, seq: Seq) -> Result<Option<Kept<Stored>>, AskError> {
        self.ask(move |conn| rows::get(conn, seq)).await
    }

    /// How many rows a filter asks for. By account and kind it is known from memory, else the rows are looked through.
    ///
    /// # Errors
    /// Where the store cannot read, or is closed.
    pub async fn count(&self, filter: &Filter) -> Result<Count, AskError> {
        let mut sum = Count::default();
        if filter.is_by_account_and_kind() {
            for (account, kind, count) in self.shared.ledger.lock().depths() {
                if filter.may_want(&account, kind) {
                    sum.rows += count.rows;
                    sum.bytes += count.bytes;
                }
            }
            return Ok(sum);
        }
        let mut after = None;
        loop {
            let page = self.list(filter, after, PAGE_ROWS).await?;
            sum.rows += page.rows.len() as u64;
            sum.bytes += page.rows.iter().map(|row| row.bytes).sum::<u64>();
            after = page.next;
            if after.is_none() {
                return Ok(sum);
            }
        }
    }

    /// Throws away what a filter asks for and is there now, slice by slice; [`Gone`](super::Gone) tells of each row. What is parked
    /// meanwhile stays.
    /// Those of a slice that was committed stay gone when a later one fails.
    ///
    /// # Errors
    /// Where the store cannot write, or is closed.
    pub async fn discard(&self, filter: &Filter) -> Result<Discarded, AskError> {
        let mut sum = Discarded::default();
        let (mut after, before) = (Seq(0), self.next_seq());
        loop {
            let _place = self.place().await?;
            let (answer, answered) = oneshot::channel();
            self.shared.queue.task(Task::Discard { filter: filter.clone(), after, before, answer });
            let (gone, next) = answered.await.map_err(|_| AskError::Closed)??;
            sum.events += gone.events;
            sum.raw += gone.raw;
            match next {
                Some(next) => after = next,
                None => return Ok(sum),
            }
        }
    }

    /// Saves entries; returns when they are on disk. All or none, where there are few: of many each part, for parks wait as long
    /// as a transaction takes.
    ///
    /// # Errors
    /// Where the store cannot write, or is closed.
    pub async fn put(&self, table: Table, mut new: Vec<Entry>) -> Result<(), AskError> {
        while !new.is_empty() {
            let rest = new.split_off(new.len().min(PUT_ROWS));
            let part = std::mem::replace(&mut new, rest);
            self.change(move |conn| part.iter().try_for_each(|entry| entries::put(conn, table, entry)))
                .await?;
        }
        Ok(())
    }

    /// Removes an account's entries; returns when that is on disk. Unknown keys are passed over.
    ///
    /// # Errors
    /// Where the store cannot write, or is closed.
    pub async fn remove(&self, table: Table, account: AccountId, keys: Vec<String>) -> Result<(), AskError> {
        self.change(entries::removal(table, account, keys)).await
    }

    /// The same, for nobody who waits. Never blocks, and may come to nothing.
    pub fn forget(&self, table: Table, account: AccountId, keys: Vec<String>) {
        let (answer, _) = oneshot::channel();
        let change = Box::new(entries::removal(table, account, keys));
        self.shared.queue.task(Task::Change { change, answer });
    }

    /// Makes changes and records the act that tells of them, all or nothing; returns when that is on disk.
    ///
    /// # Errors
    /// Where the store cannot write, or is closed.
    pub async fn act(&self, changes: Vec<Change>, act: Act) -> Result<(), AskError> {
        self.change(move |conn| {
            changes.iter().try_for_each(|change| change.make(conn))?;
            audit::record(conn, &act)
        })
        .await
    }

    /// Saves many objects' custom data and records the act that tells of them, all or nothing; returns when that is on disk.
    /// Parks wait for no more than a part of it. [`settle_staged`](Self::settle_staged) moves it to where it is read.
    ///
    /// # Errors
    /// Where the store cannot write, or is closed.
    pub async fn stage(&self, new: Vec<Entry>, act: Act) -> Result<(), AskError> {
        self.settle_staged().await?;
        for part in staged::parts(new) {
            self.put(Table::Jobs, vec![part]).await?;
        }
        let decided = staged::decided(act.at);
        self.act(vec![Change::Put(Table::Jobs, decided)], act).await
    }

    /// Moves what was staged to where it is read, part by part. What is left of it the next call goes on with, or the next
    /// start.
    ///
    /// # Errors
    /// Where the store cannot write, or is closed.
    pub async fn settle_staged(&self) -> Result<(), AskError> {
        while self.ask(staged::is_unsettled).await? {
            self.change(|conn| staged::settle_one(conn).map(drop)).await?;
        }
        Ok(())
    }

    /// Keeps what was parked before an operator edits it, with the act that tells of it; returns when that is on disk. Of
    /// all originals the newest thousand stay, and of those 64 MiB.
    ///
    /// # Errors
    /// Where the store cannot write, or is closed.
    pub async fn keep_original(&self, original: Original, act: Act) -> Result<(), AskError> {
        self.change(move |conn| {
            audit::keep_original(conn, &original)?;
            audit::record(conn, &act)
        })
        .await
    }

    /// The originals of one number, newest first.
    ///
    /// # Errors
    /// Where the store cannot read, or is closed.
    pub async fn originals(&self, seq: Seq) -> Result<Vec<Original>, AskError> {
        self.ask(move |conn| audit::originals(conn, seq)).await
    }

    /// Up to 1,000 acts before a place, newest first.
    ///
    /// # Errors
    /// Where the store cannot read, or is closed.
    pub async fn acts(
        &self,
        acts: &Acts,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Recorded>, AskError> {
        let limit = limit.clamp(1, PAGE_ROWS);
        let (mut found, mut before) = (Vec::new(), before);
        loop {
            let (acts, room) = (acts.clone(), limit - found.len());
            let (some, next) = self.ask(move |conn| audit::slice(conn, &acts, before, room)).await?;
            found.extend(some);
            if next.is_none() || found.len() >= limit {
                return Ok(found);
            }
            before = next;
        }
    }

    /// An entry.
    ///
    /// # Errors
    /// Where the store cannot read, or is closed.
    pub async fn entry(
        &self,
        table: Table,
        account: AccountId,
        key: String,
    ) -> Result<Option<Entry>, AskError> {
        let found = self.ask(move |conn| entries::get(conn, table, &account, &key)).await?;
        self.say_damaged_entries(&found.damaged, found.found.as_slice());
        Ok(found.found)
    }

    /// Up to 1,000 entries after an account and key, in their order; of one account, or of all.
    ///
    /// # Errors
    /// Where the store cannot read, or is closed.
    pub async fn entries(
        &self,
        table: Table,
        account: Option<AccountId>,
        after: Option<(AccountId, String)>,
    ) -> Result<Vec<Entry>, AskError> {
        let after = after.map_or_else(Default::default, |(account, key)| (account.as_str().to_owned(), key));
        let page =
            self.ask(move |conn| entries::page(conn, table, account.as_ref(), &after, PAGE_ROWS)).await?;
        self.say_damaged_entries(&page.damaged, &page.found);
        Ok(page.found)
    }

    /// Entries that were not given to who asked, unless a copy was found. The next start sets them right. A flood of them is one
    /// line a second.
    fn say_damaged_entries(&self, damaged: &[DamagedEntry], found: &[Entry]) {
        let shared = &self.shared;
        let Some(first) = damaged.first() else { return };
        let is = |entry: &Entry| first.name.as_ref() == Some(&(entry.account.clone(), entry.key.clone()));
        shared.damaged_entries.fetch_add(damaged.len() as u64, Ordering::Relaxed);
        if let Some(rows) = shared.saying_entries.happened_times(damaged.len() as u64) {
            first.say(rows, found.iter().any(is));
        }
    }

    /// Holds the file still for a copy of it, as of now. A copy that is being made is cut.
    ///
    /// # Errors
    /// Where the store cannot move its log into the file, or is closed.
    pub async fn hold_still(&self) -> Result<Still, AskError> {
        let _place = self.place().await?;
        let (answer, answered) = oneshot::channel();
        self.shared.queue.task(Task::Hold(answer));
        answered.await.map_err(|_| AskError::Closed)?
    }

    /// These quotas hold from now on, by account; what is parked stays.
    pub fn settle(&self, quotas: HashMap<AccountId, u64>) {
        self.shared.quotas.store(Arc::new(quotas));
    }

    /// All entries of a table, in their order; of one account, or of all.
    ///
    /// # Errors
    /// Where the store cannot read, or is closed.
    pub async fn all_entries(
        &self,
        table: Table,
        account: Option<&AccountId>,
    ) -> Result<Vec<Entry>, AskError> {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = self.entries(table, account.cloned(), after).await?;
            let Some(last) = page.last() else { return Ok(found) };
            after = Some((last.account.clone(), last.key.clone()));
            found.extend(page);
        }
    }

    /// Bytes that an account may still park for the bus.
    #[must_use]
    pub fn room(&self, account: &AccountId) -> u64 {
        self.shared.quota(account).saturating_sub(self.shared.ledger.lock().account_bytes(account))
    }

    /// Whether a raw message of this time, that comes from another store, would be gone at once.
    #[must_use]
    pub fn is_too_old(&self, received_at: Millis, now: Millis) -> bool {
        received_at < self.shared.limits.cutoff(now)
    }

    /// How it does now, as one sees it from outside: its thread cannot say that it hangs.
    #[must_use]
    pub fn health_now(&self) -> StoreHealth {
        self.shared.health.borrow().now(self.shared.queue.at_work_for())
    }

    /// What its thread says of how it does, now and from now on.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<StoreHealth> {
        self.shared.health.subscribe()
    }

    /// A snapshot for metrics; `now` says what gets too old within a day.
    #[must_use]
    pub fn stats(&self, now: Millis) -> StoreStats {
        let shared = &self.shared;
        let (parks, changes) = shared.queue.depth();
        let soon = Millis(shared.limits.cutoff(now).0.saturating_add(DAY_MS));
        let ledger = shared.ledger.lock();
        StoreStats {
            depths: ledger.depths(),
            oldest_for_bus: ledger.oldest(WaitsFor::Bus),
            oldest_for_operator: ledger.oldest(WaitsFor::Operator),
            expiring_for_bus: ledger.older_than(Population::Bus, soon),
            expiring_for_operator: ledger.older_than(Population::Unfit, soon)
                + ledger.older_than(Population::Raw, soon),
            refuses_for_bus: ledger.refuses_for_bus(),
            queued_parks: parks as u64,
            queued_changes: changes as u64,
            file_bytes: shared.file_bytes.load(Ordering::Relaxed),
            commits: shared.commits.load(Ordering::Relaxed),
            evicted: shared.evicted.load(Ordering::Relaxed),
            expired: shared.expired.load(Ordering::Relaxed),
            discarded: shared.discarded.load(Ordering::Relaxed),
            damaged: shared.damaged.load(Ordering::Relaxed),
            damaged_entries: shared.damaged_entries.load(Ordering::Relaxed),
            health: self.health_now(),
        }
    }

    /// Lets no more parks in. The thread does what is queued, closes the file and ends: join it.
    pub fn close(&self) {
        self.shared.queue.close(Phase::Closing);
    }

    /// A place among those who wait for an answer.
    async fn place(&self) -> Result<SemaphorePermit<'_>, AskError> {
        if faults::store_fails() {
            return Err(AskError::Failing("a fault was planted".to_owned()));
        }
        self.shared.asks.acquire().await.map_err(|_| AskError::Closed)
    }

    /// Asks the store's thread, in the order of the queue.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, AskError> {
        let _place = self.place().await?;
        let (answer, answered) = oneshot::channel();
        self.shared.queue.task(Task::Question(Box::new(move |conn| {
            if answer.is_closed() {
                return Ok(());
            }
            let result = question(conn);
            let trouble = result.as_ref().err().map(Trouble::of);
            // Who asked may have left.
            drop(answer.send(result.map_err(|e| AskError::from(&e))));
            trouble.map_or(Ok(()), Err)
        })));
        answered.await.map_err(|_| AskError::Closed)?
    }

    async fn change(
        &self,
        change: impl FnOnce(&Connection) -> rusqlite::Result<()> + Send + 'static,
    ) -> Result<(), AskError> {
        let _place = self.place().await?;
        let (answer, answered) = oneshot::channel();
        self.shared.queue.task(Task::Change { change: Box::new(change), answer });
        answered.await.map_err(|_| AskError::Closed)?
    }
}

pub(super) fn cut(error: &mut String) {
    error.truncate(error.floor_char_boundary(ERROR_BYTES));
}
