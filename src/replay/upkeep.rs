//! What the store's thread does between transactions: it evicts and expires, moves the log into the file, watches the
//! disk, and decides what an error means. Invariant: while the reserve is given up, parks only take pages that deletes
//! have freed, so that there is always room to delete.

use std::collections::HashMap;
use std::fmt::Display;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;

use super::error::Trouble;
use super::expiry::AgeClock;
use super::intact::Lost;
use super::queue::{Phase, Tasks};
use super::reserve::Reserve;
use super::tally::Population;
use super::writer::{BATCH_ROWS, CHUNK_ROWS, take_all};
use super::{Gone, Kind, Seq, StoreHealth, Why, Writer, rows, schema};
use crate::deliver::seldom::Seldom;
use crate::event::{AccountId, Millis};
use crate::faults::{self, Point};

/// Pages in the log before they are moved into the file.
const LOG_PAGES: i32 = 1000;
/// Upkeep, when there is nothing else to do.
const TICK: Duration = Duration::from_secs(1);
/// Tasks that failed are tried again after it.
const TASK_PAUSE: Duration = Duration::from_secs(1);
/// Between attempts to make the reserve again: at first,
const PROBE_PAUSE: Duration = Duration::from_secs(1);
/// and at most, for each fills the disk for a moment.
const PROBE_PAUSE_MOST: Duration = Duration::from_secs(30);
/// How often indexes are made anew before the disk is not trusted any more.
const INDEXES_MADE: u32 = 3;
/// What waits for the operator is evicted in transactions of at most so many rows,
const EVICT_ROWS: u64 = 10_000;
/// and, beyond the rows that a transaction of parks brings, of so much time: so it keeps up with them.
const EVICT_TIME: Duration = Duration::from_millis(20);
/// An error that repeats is logged once in this time.
const LOG_PAUSE: Duration = Duration::from_secs(10);

/// What upkeep remembers.
pub(super) struct Upkeep {
    reserve: Reserve,
    disk: Disk,
    log_pages: Arc<AtomicI32>,
    resume: Option<Instant>,
    tick: Instant,
    left: Left,
    indexes_made: u32,
    logged: Option<Instant>,
    unlogged: u64,
    /// Up to where an account's raw bytes are evicted: what others have before it need not be looked through again.
    evicted: HashMap<AccountId, Seq>,
    saying_evicted: Seldom,
    saying_expired: Seldom,
    ages_by: AgeClock,
    /// The wall clock is ahead of it.
    is_ahead: bool,
}

/// Whether there is room on the disk, as far as is known.
enum Disk {
    Roomy,
    /// The reserve is given up.
    Tight {
        probe: Instant,
        pause: Duration,
    },
}

/// Whether a turn left something for the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Nothing,
    Something,
}

/// When to try again what failed.
enum Retry {
    /// There is room that was not there.
    Now,
    Later,
}

impl Upkeep {
    pub(super) fn new(reserve: Reserve, retention: Duration) -> Self {
        Self {
            reserve,
            disk: Disk::Roomy,
            log_pages: Arc::new(AtomicI32::new(0)),
            resume: None,
            tick: Instant::now(),
            left: Left::Nothing,
            indexes_made: 0,
            logged: None,
            unlogged: 0,
            evicted: HashMap::new(),
            saying_evicted: Seldom::new(),
            saying_expired: Seldom::new(),
            ages_by: AgeClock::begun(retention),
            is_ahead: false,
        }
    }

    /// Whether tasks may be tried.
    pub(super) fn tasks(&self) -> Tasks {
        match self.resume {
            Some(at) if Instant::now() < at => Tasks::Paused,
            Some(_) | None => Tasks::Wanted,
        }
    }

    /// When the next turn is due, though nothing is queued.
    pub(super) fn wake(&self) -> Instant {
        match (self.left, self.resume) {
            (Left::Something, _) => Instant::now(),
            (Left::Nothing, Some(resume)) => resume,
            (Left::Nothing, None) => self.tick,
        }
    }
}

impl Writer {
    /// What a thread does before its first turn.
    pub(super) fn begin_upkeep(&mut self) {
        let pages = Arc::clone(&self.upkeep.log_pages);
        let hooked = self.conn.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, count| {
            pages.store(count, Ordering::Relaxed);
            Ok(())
        }));
        if let Err(error) = hooked {
            self.failed("watch the log", &error);
        }
        if let Err(error) = self.upkeep.reserve.make() {
            self.tighten(&error);
        }
    }

    /// A turn's upkeep: at most one transaction of each kind.
    pub(super) fn upkeep(&mut self, gone: &mut impl FnMut(Vec<Gone>)) {
        if self.upkeep.tasks() == Tasks::Paused {
            self.upkeep.left = Left::Nothing;
            return;
        }
        self.upkeep.resume = None;
        let evicted = self.evict(gone);
        let expired = self.expire(gone);
        self.upkeep.left = if evicted == Left::Something { evicted } else { expired };
        let ticked = Instant::now() >= self.upkeep.tick;
        let pages = self.upkeep.log_pages.load(Ordering::Relaxed);
        let tight = matches!(self.upkeep.disk, Disk::Tight { .. });
        let moves = pages >= LOG_PAGES || (pages > 0 && (ticked || tight));
        // A log that is not what was written would spoil the file, too.
        if (moves || ticked) && self.is_lost() {
            return;
        }
        if moves {
            self.checkpoint();
        }
        if ticked {
            self.upkeep.tick = Instant::now() + TICK;
            self.probe_disk();
            self.probe_write();
            self.measure();
        }
    }

    /// What waits for the operator has its share. The oldest goes, of the account that has the most, so that nobody's
    /// garbage costs another what it may still need; but never an account's last. Parks wait for a moment of it at most: where
    /// more comes than goes in that time, they are refused before they are queued.
    fn evict(&mut self, gone: &mut impl FnMut(Vec<Gone>)) -> Left {
        let share = self.shared.limits.operator_share();
        let (held, most) = {
            let ledger = self.shared.ledger.lock();
            (ledger.operator(), ledger.most_for_operator())
        };
        let Some((account, most)) = most.filter(|_| held.bytes > share) else {
            return Left::Nothing;
        };
        let enough = (held.bytes - share) / (most.bytes / most.rows).max(1) + BATCH_ROWS as u64;
        let enough = enough.min(EVICT_ROWS);
        let after = self.upkeep.evicted.remove(&account).unwrap_or(Seq(0));
        let begun = Instant::now();
        let evicted = self.commit(|conn, delta| {
            let (mut rows_left, mut over) = (most.rows, held.bytes - share);
            let mut taken = Vec::new();
            let oldest = rows::oldest_for_operator(conn, &account, after, enough)?;
            let found = oldest.len() as u64;
            for seq in oldest {
                let is_late = taken.len() >= BATCH_ROWS && begun.elapsed() >= EVICT_TIME;
                if rows_left <= 1 || over == 0 || is_late {
                    break;
                }
                if let Some((weight, row)) = rows::take(conn, seq, Why::Evicted)? {
                    delta.take(&weight);
                    taken.push(row);
                    rows_left -= 1;
                    over = over.saturating_sub(weight.cost);
                }
            }
            Ok((taken, found))
        });
        let evicted = evicted.map(|(taken, found)| {
            // Where fewer were found, some may have come to places before it.
            if let Some(last) = taken.iter().rfind(|row| matches!(row.kind, Kind::Raw(_)))
                && found == enough
            {
                self.upkeep.evicted.insert(account, last.seq);
            }
            taken
        });
        self.told(evicted, Why::Evicted, gone)
    }

    /// What is older than the retention goes, whatever it waits for.
    fn expire(&mut self, gone: &mut impl FnMut(Vec<Gone>)) -> Left {
        let (now, is_ahead) = self.upkeep.ages_by.read(crate::clock::now(), Instant::now());
        if is_ahead != std::mem::replace(&mut self.upkeep.is_ahead, is_ahead) && is_ahead {
            tracing::warn!("store.clock_stepped");
        }
        let cutoff = self.shared.limits.cutoff(now);
        let (events, raw) = {
            let ledger = self.shared.ledger.lock();
            let older = |population| ledger.older_than(population, cutoff);
            (older(Population::Bus) + older(Population::Unfit), older(Population::Raw))
        };
        if events + raw == 0 {
            return Left::Nothing;
        }
        // Ages are counted by whole minutes, and so no more is asked for than there is.
        let cutoff = Millis(cutoff.0.div_euclid(60_000) * 60_000);
        let expired = self.commit(|conn, delta| {
            let chunk = CHUNK_ROWS as u64;
            let (events, raw) = (events.min(chunk), raw.min(chunk));
            let mut seqs = rows::events_before(conn, cutoff, events)?;
            seqs.extend(rows::raw_before(conn, cutoff, raw)?);
            let are_fewer = (seqs.len() as u64) < events + raw;
            let taken = take_all(conn, delta, seqs, Why::Expired)?;
            if are_fewer {
                tracing::warn!("store.ages_counted_anew");
                delta.count_ages_anew(conn)?;
            }
            faults::point(Point::InRetention);
            Ok(taken)
        });
        self.told(expired, Why::Expired, gone)
    }

    fn told(
        &mut self,
        taken: rusqlite::Result<Vec<Gone>>,
        why: Why,
        gone: &mut impl FnMut(Vec<Gone>),
    ) -> Left {
        match taken {
            Ok(taken) => {
                self.wrote();
                let left = if taken.is_empty() { Left::Nothing } else { Left::Something };
                self.tell(taken, why, gone);
                left
            }
            Err(error) => {
                self.failed_task(why.as_str(), &error);
                Left::Nothing
            }
        }
    }

    /// Counts rows that left undelivered, and tells who has to know.
    pub(super) fn tell(&mut self, taken: Vec<Gone>, why: Why, gone: &mut impl FnMut(Vec<Gone>)) {
        if taken.is_empty() {
            return;
        }
        let count = taken.len() as u64;
        match why {
            Why::Evicted => {
                self.shared.evicted.fetch_add(count, Ordering::Relaxed);
                let account = taken.first().map_or("", |row| row.account.as_str());
                if let Some(rows) = self.upkeep.saying_evicted.happened_times(count) {
                    tracing::warn!(account, rows, "store.evicted");
                }
            }
            Why::Expired => {
                self.shared.expired.fetch_add(count, Ordering::Relaxed);
                if let Some(rows) = self.upkeep.saying_expired.happened_times(count) {
                    tracing::error!(rows, "store.expired");
                }
            }
            Why::Discarded => {
                self.shared.discarded.fetch_add(count, Ordering::Relaxed);
            }
        }
        gone(taken);
    }

    /// Moves the log into the file, so that it begins anew.
    fn checkpoint(&mut self) {
        let roomy = matches!(self.upkeep.disk, Disk::Roomy);
        if !roomy {
            self.holding.cut();
        } else if self.holding.is_in_the_way(self.upkeep.log_pages.load(Ordering::Relaxed)) {
            return;
        }
        match self.move_log(|_| Ok(())) {
            Ok(()) => self.upkeep.log_pages.store(0, Ordering::Relaxed),
            Err(error) => {
                self.failed("checkpoint", &error);
            }
        }
    }

    fn measure(&mut self) {
        let measured = self.conn.query_row(
            "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()",
            [],
            |row| row.get::<_, i64>(0),
        );
        match measured {
            Ok(bytes) => self.shared.file_bytes.store(u64::try_from(bytes).unwrap_or(0), Ordering::Relaxed),
            Err(error) => {
                self.failed("measure", &error);
            }
        }
    }

    /// Whether a park may be tried.
    pub(super) fn may_park(&mut self) -> ControlFlow<()> {
        self.probe_disk();
        match self.upkeep.disk {
            Disk::Roomy => ControlFlow::Continue(()),
            Disk::Tight { .. } => match self.free_bytes() {
                Ok(free) if free >= self.upkeep.reserve.bytes() / 2 => ControlFlow::Continue(()),
                Ok(_) => {
                    self.ail(StoreHealth::Full);
                    ControlFlow::Break(())
                }
                Err(error) => {
                    self.failed("count free pages", &error);
                    ControlFlow::Break(())
                }
            },
        }
    }

    fn free_bytes(&self) -> rusqlite::Result<u64> {
        let free: i64 = self.conn.query_row(
            "SELECT freelist_count * page_size FROM pragma_freelist_count(), pragma_page_size()",
            [],
            |row| row.get(0),
        )?;
        Ok(u64::try_from(free).unwrap_or(0))
    }

    /// Where the reserve is given up, tries from time to time to make it again.
    fn probe_disk(&mut self) {
        let Disk::Tight { probe, pause } = self.upkeep.disk else { return };
        if Instant::now() < probe {
            return;
        }
        if self.upkeep.reserve.make().is_ok() {
            tracing::info!("store.has_room");
            self.upkeep.disk = Disk::Roomy;
            self.parked();
        } else {
            let pause = (pause * 2).min(PROBE_PAUSE_MOST);
            self.upkeep.disk = Disk::Tight { probe: Instant::now() + pause, pause };
        }
    }

    /// Where writing failed and nobody writes, finds out whether it still does.
    fn probe_write(&mut self) {
        let health = *self.shared.health.borrow();
        match health {
            StoreHealth::Failing => {
                let written = self.commit(|conn, _| {
                    conn.execute("UPDATE meta SET value = value WHERE name = 'run'", []).map(|_| ())
                });
                match written {
                    Ok(()) => self.wrote(),
                    Err(error) => {
                        self.failed("probe", &error);
                    }
                }
            }
            StoreHealth::Well | StoreHealth::Full | StoreHealth::Hanging | StoreHealth::Broken => {}
        }
    }

    /// Something was written: whatever failed has passed; a full disk may still be full.
    pub(super) fn wrote(&mut self) {
        self.recovered(StoreHealth::Failing);
    }

    /// Something was parked: there is room, too.
    pub(super) fn parked(&mut self) {
        self.recovered(StoreHealth::Failing);
        self.recovered(StoreHealth::Full);
    }

    fn recovered(&mut self, from: StoreHealth) {
        let changed = self.shared.health.send_if_modified(|health| {
            let ailed = *health == from;
            if ailed {
                *health = StoreHealth::Well;
            }
            ailed
        });
        // As long as the disk is full, what drains makes room for what comes, again and again: `store.has_room` ends that.
        if changed && matches!(self.upkeep.disk, Disk::Roomy) {
            self.upkeep.logged = None;
            tracing::info!("store.recovered");
        }
    }

    fn ail(&self, new: StoreHealth) {
        self.shared.health.send_if_modified(|health| {
            let worse = *health != new && *health != StoreHealth::Broken;
            if worse {
                *health = new;
            }
            worse
        });
    }

    /// The disk is full: the reserve is for those who delete.
    fn tighten(&mut self, error: &dyn Display) -> Retry {
        self.ail(StoreHealth::Full);
        match self.upkeep.disk {
            Disk::Roomy => {
                self.upkeep.reserve.give_up();
                self.upkeep.disk = Disk::Tight { probe: Instant::now() + PROBE_PAUSE, pause: PROBE_PAUSE };
                tracing::error!(error = %error, "store.disk_full");
                Retry::Now
            }
            Disk::Tight { .. } => Retry::Later,
        }
    }

    /// Draws the consequences of an error.
    pub(super) fn failed(&mut self, doing: &'static str, error: &rusqlite::Error) {
        self.troubled(doing, Trouble::of(error), error);
    }

    /// The same, where tasks are left to be tried again.
    pub(super) fn failed_task(&mut self, doing: &'static str, error: &rusqlite::Error) {
        match self.troubled(doing, Trouble::of(error), error) {
            Retry::Now => {}
            Retry::Later if self.shared.queue.phase() == Phase::Closing => {
                tracing::error!("store.changes_undone");
                self.shared.queue.drop_tasks();
            }
            Retry::Later => self.upkeep.resume = Some(Instant::now() + TASK_PAUSE),
        }
    }

    /// A question met trouble.
    pub(super) fn failed_question(&mut self, trouble: Trouble) {
        self.troubled("read", trouble, &"a question was not answered");
    }

    fn troubled(&mut self, doing: &'static str, trouble: Trouble, error: &dyn Display) -> Retry {
        match trouble {
            Trouble::Full => self.tighten(error),
            Trouble::Unwritten if self.upkeep.reserve.is_room_spent() => self.tighten(error),
            Trouble::Passing | Trouble::Unwritten => {
                self.ail(StoreHealth::Failing);
                self.log(doing, error);
                Retry::Later
            }
            Trouble::Index if self.upkeep.indexes_made < INDEXES_MADE => {
                self.upkeep.indexes_made += 1;
                match schema::make_indexes_anew(&self.conn, error) {
                    Ok(()) => Retry::Now,
                    Err(error) => self.troubled(doing, Trouble::Fatal, &error),
                }
            }
            Trouble::Index | Trouble::Fatal => {
                tracing::error!(store.doing = doing, error = %error, "store.broken");
                self.shared.health.send_replace(StoreHealth::Broken);
                self.shared.queue.close(Phase::Broken);
                Retry::Later
            }
        }
    }

    /// Whether the files are not there any more, or not as they were left, so that nothing that is written is kept: the store is
    /// broken then.
    pub(super) fn is_lost(&mut self) -> bool {
        let Some(lost) = self.files.lost(&self.dir) else { return false };
        self.troubled("look", Trouble::Fatal, &lost.what());
        match lost {
            Lost::Elsewhere(_) => {}
            Lost::Spoilt(_) => {
                if let Err(error) = self.conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
                {
                    self.log("leave the log alone", &error);
                }
            }
        }
        true
    }

    fn log(&mut self, doing: &'static str, error: &dyn Display) {
        let now = Instant::now();
        if self.upkeep.logged.is_some_and(|at| now < at + LOG_PAUSE) {
            self.upkeep.unlogged += 1;
            return;
        }
        let repeated = std::mem::take(&mut self.upkeep.unlogged);
        self.upkeep.logged = Some(now);
        tracing::error!(store.doing = doing, error = %error, repeated, "store.failing");
    }
}
