//! The thread that owns `store.db`. Its turns: one transaction of parks, then one of everything else, then upkeep, each
//! bounded, so that a park never waits for more than one of the others. Invariant: nobody is told of a change before
//! its commit, and what was not committed is rolled back whole.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rusqlite::{Connection, Row, Transaction, TransactionBehavior};
use tokio::sync::oneshot;

use super::error::Trouble;
use super::intact::Files;
use super::queue::{ParkJob, Phase, Rows, Task, Tasks};
use super::reserve::Reserve;
use super::still::Holding;
use super::store::Shared;
use super::tally::{Delta, Ledger};
use super::upkeep::Upkeep;
use super::{
    AskError, DataDir, Discarded, Era, Filter, Gone, Kind, ParkError, Parked, Recovered, Routing, Seq, Still,
    StoreError, StoreHealth, StoreLimits, Table, Why, listing, mend, moving, rows, schema, staged,
};
use crate::clock;
use crate::faults::{self, Point};

/// One transaction takes what has queued until it has this many rows,
pub(super) const BATCH_ROWS: usize = 1000;
/// or this many bytes,
const BATCH_BYTES: u64 = 4 << 20;
/// or is this old.
const BATCH_TIME: Duration = Duration::from_millis(5);
/// Rows that one transaction of maintenance changes.
pub(super) const CHUNK_ROWS: usize = 500;
/// Rows that are deleted, freed or marked in one transaction: many, for those that are neighbours share their pages. After
const CHANGE_ROWS: usize = 4000;
/// so many
const CHANGE_STEP: usize = 64;
/// it looks whether a park waits, which it lets go first once it is this old.
const CHANGE_TIME: Duration = Duration::from_millis(1);

/// The owner of the file: [`run`](Self::run) it on a thread of its own.
pub struct Writer {
    pub(super) conn: Connection,
    pub(super) shared: Arc<Shared>,
    /// The number of this run, which its provisional rows carry.
    run: i64,
    pub(super) upkeep: Upkeep,
    ended: Ended,
    pub(super) holding: Holding,
    // Closed after the connection.
    pub(super) files: Files,
    // Given up last: until then no other process opens the file.
    pub(super) dir: DataDir,
}

enum Ended {
    /// It runs, or never did.
    No,
    /// It did what was queued.
    Orderly,
}

struct Opened {
    conn: Connection,
    files: Files,
    ledger: Ledger,
    run: i64,
    recovered: Recovered,
}

impl Writer {
    /// Opens the file and reads what it holds.
    pub(super) fn open(
        dir: &DataDir,
        limits: StoreLimits,
        routing: Option<Routing>,
    ) -> Result<(Self, Recovered), StoreError> {
        let path = dir.path().join("store.db");
        let reserve = Reserve::new(dir.path().join("store.reserve"), limits.reserve);
        let opened = Self::open_file(&path, &limits, routing.as_ref()).or_else(|error| {
            let has_no_room = match &error {
                StoreError::NoRoom { .. } => true,
                // Of a quota that is spent SQLite says no more than of a disk that fails.
                StoreError::Unusable { .. } => reserve.is_room_spent(),
                StoreError::Newer { .. }
                | StoreError::Damaged { .. }
                | StoreError::LogDamaged { .. }
                | StoreError::Missing { .. }
                | StoreError::Unreadable { .. }
                | StoreError::Unwritable { .. } => false,
            };
            if !has_no_room {
                return Err(error);
            }
            reserve.give_up();
            Self::open_file(&path, &limits, routing.as_ref())
        })?;
        Ok(Self::assemble(dir, limits, reserve, opened))
    }

    fn open_file(path: &Path, limits: &StoreLimits, routing: Option<&Routing>) -> Result<Opened, StoreError> {
        let mut conn = schema::open(path, limits.page_cap)?;
        let mut read = Self::read(&mut conn, routing);
        if let Err(error) = &read
            && Trouble::of(error) == Trouble::Index
        {
            schema::make_indexes_anew(&conn, error).map_err(|e| StoreError::of(path, e))?;
            read = Self::read(&mut conn, routing);
        }
        let (ledger, run, recovered) = read.map_err(|e| StoreError::of(path, e))?;
        // They are there, for the run was written down.
        let files = Files::open(path)?;
        Ok(Opened { conn, files, ledger, run, recovered })
    }

    fn read(conn: &mut Connection, routing: Option<&Routing>) -> rusqlite::Result<(Ledger, i64, Recovered)> {
        let (run, era) = (schema::next_run(conn)?, schema::next_era(conn)?);
        let mut damaged_entries = 0;
        let mut mended =
            |conn: &mut Connection, table| mend::read(conn, table, clock::now(), &mut damaged_entries);
        mended(conn, Table::Jobs)?;
        let switches = mended(conn, Table::Switches)?;
        staged::settle(conn)?;
        let rerouted = routing.map_or(Ok(0), |routing| schema::reroute(conn, routing))?;
        let ledger = Ledger::read(conn)?;
        let recovered = Recovered {
            next_seq: Seq(schema::next_seq(conn)?),
            era: Era::of(era),
            lanes: rows::lanes(conn)?,
            cursors: mended(conn, Table::Cursors)?,
            directory: mended(conn, Table::Directory)?,
            states: mended(conn, Table::States)?,
            tokens: mended(conn, Table::Tokens)?,
            custom_data: mended(conn, Table::CustomData)?,
            moved_out: moving::moved_out(&switches),
            depths: ledger.depths(),
            rerouted,
            damaged_entries,
        };
        Ok((ledger, run, recovered))
    }

    fn assemble(dir: &DataDir, limits: StoreLimits, reserve: Reserve, opened: Opened) -> (Self, Recovered) {
        let Opened { conn, files, ledger, run, recovered } = opened;
        let upkeep = Upkeep::new(reserve, limits.retention);
        let shared = Arc::new(Shared::new(limits, ledger, &recovered));
        shared.damaged_entries.store(recovered.damaged_entries, Ordering::Relaxed);
        let writer = Self {
            conn,
            shared,
            run,
            upkeep,
            ended: Ended::No,
            holding: Holding::default(),
            files,
            dir: dir.clone(),
        };
        (writer, recovered)
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Serves the store until it is closed and what was queued is done, or it breaks. `gone` is told, after the commit,
    /// of rows that leave undelivered; it must not block.
    pub fn run(mut self, mut gone: impl FnMut(Vec<Gone>)) {
        self.begin_upkeep();
        while self.turn(&mut gone).is_continue() {}
    }

    fn turn(&mut self, gone: &mut impl FnMut(Vec<Gone>)) -> ControlFlow<()> {
        self.upkeep(gone);
        let tasks = self.upkeep.tasks();
        self.shared.queue.wait(self.upkeep.wake(), tasks);
        self.park();
        if tasks == Tasks::Wanted {
            self.tasks(gone);
        }
        match self.shared.queue.phase() {
            Phase::Open => ControlFlow::Continue(()),
            Phase::Broken => ControlFlow::Break(()),
            Phase::Closing if self.shared.queue.is_empty() => {
                self.finish();
                ControlFlow::Break(())
            }
            Phase::Closing => ControlFlow::Continue(()),
        }
    }

    /// One transaction of parks.
    fn park(&mut self) {
        if self.may_park().is_break() {
            while let Some(job) = self.shared.queue.next_park() {
                self.answer(job, Err(ParkError::Full));
            }
            return;
        }
        let mut batch = Vec::new();
        match self.write_parks(&mut batch) {
            Ok(_) if batch.is_empty() => {}
            Ok(_) if self.is_lost() => {
                for job in batch {
                    self.answer(job, Err(ParkError::Closed));
                }
            }
            Ok(kept) => {
                self.parked();
                faults::point(Point::AfterPark);
                for (job, kept) in batch.into_iter().zip(kept) {
                    self.answer(job, kept);
                }
            }
            Err(error) => {
                self.failed("park", &error);
                let refusal = ParkError::from(&error);
                for job in batch {
                    self.answer(job, Err(refusal.clone()));
                }
            }
        }
    }

    /// What is to be answered to each of the batch, once it is committed.
    fn write_parks(&self, batch: &mut Vec<ParkJob>) -> rusqlite::Result<Vec<Result<(), ParkError>>> {
        let mut kept = Vec::new();
        let Some(first) = self.shared.queue.next_park() else {
            return Ok(kept);
        };
        batch.push(first);
        let begun = Instant::now();
        self.commit(|conn, delta| {
            let (mut count, mut bytes, mut at) = (0, 0, 0);
            loop {
                let Some(job) = batch.get(at) else {
                    faults::point(Point::BeforePark);
                    schema::save_next_seq(conn, self.shared.next_seq.load(Ordering::Relaxed))?;
                    return Ok(kept);
                };
                kept.push(self.insert(conn, delta, &job.rows)?);
                count += job.rows.len();
                bytes += job.cost;
                at += 1;
                if count < BATCH_ROWS && bytes < BATCH_BYTES && begun.elapsed() < BATCH_TIME {
                    batch.extend(self.shared.queue.next_park());
                }
            }
        })
    }

    fn insert(
        &self,
        conn: &Connection,
        delta: &mut Delta,
        rows: &Rows,
    ) -> rusqlite::Result<Result<(), ParkError>> {
        match rows {
            Rows::Events(events) => self.insert_events(conn, delta, events)?,
            Rows::Instead { old, rows } => {
                let Some(weight) = rows::delete_event(conn, *old)? else { return Ok(Err(ParkError::Gone)) };
                if let Some(weight) = weight {
                    delta.take(&weight);
                }
                self.insert_events(conn, delta, rows)?;
            }
            Rows::Raw(raws) => {
                for raw in raws {
                    if let Some(weight) = rows::insert_raw(conn, raw)? {
                        delta.add(&weight);
                    }
                }
            }
        }
        Ok(Ok(()))
    }

    fn insert_events(&self, conn: &Connection, delta: &mut Delta, events: &[Parked]) -> rusqlite::Result<()> {
        for event in events {
            delta.add(&rows::insert_event(conn, event, self.run)?);
        }
        Ok(())
    }

    /// Gives the reservation back, and tells who waits.
    fn answer(&self, job: ParkJob, result: Result<(), ParkError>) {
        self.shared.ledger.lock().release(&job.account, job.room);
        (job.done)(result);
    }

    /// One transaction, with the counts that it changes.
    pub(super) fn commit<T>(
        &self,
        work: impl FnOnce(&Connection, &mut Delta) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let transaction = Transaction::new_unchecked(&self.conn, TransactionBehavior::Immediate)?;
        let mut delta = Delta::default();
        let value = work(&self.conn, &mut delta)?;
        delta.write(&self.conn)?;
        transaction.commit()?;
        self.shared.ledger.lock().apply(&delta);
        self.shared.commits.fetch_add(1, Ordering::Relaxed);
        Ok(value)
    }

    /// One question, one slice of a discard, or one transaction of other tasks.
    fn tasks(&mut self, gone: &mut impl FnMut(Vec<Gone>)) {
        match self.shared.queue.next_task() {
            None => {}
            Some(Task::Question(question)) => {
                if let Err(trouble) = question(&self.conn) {
                    self.failed_question(trouble);
                }
            }
            Some(Task::Hold(answer)) => self.hold(answer),
            Some(Task::Discard { filter, after, before, answer }) => {
                self.discard(&filter, (after, before), answer, gone);
            }
            Some(task @ (Task::Delete(_) | Task::Free(_) | Task::Mark { .. } | Task::Change { .. })) => {
                self.shared.queue.put_back(task);
                self.changes();
            }
        }
    }

    /// One transaction of deletes, frees, marks and changes, cut short where a park waits. It takes tasks as it goes; of those
    /// that must succeed, what fails is put back.
    fn changes(&mut self) {
        let mut done: Vec<Task> = Vec::new();
        let mut answers: Vec<oneshot::Sender<Result<(), AskError>>> = Vec::new();
        let queue = &self.shared.queue;
        let begun = Instant::now();
        let result = self.commit(|conn, delta| {
            let mut room = CHANGE_ROWS;
            while room > 0 && !(queue.has_parks() && begun.elapsed() >= CHANGE_TIME) {
                match queue.next_task() {
                    None => break,
                    Some(task @ (Task::Question(_) | Task::Hold(_) | Task::Discard { .. })) => {
                        queue.put_back(task);
                        break;
                    }
                    Some(Task::Change { change, answer }) => {
                        room -= 1;
                        answers.push(answer);
                        change(conn)?;
                    }
                    Some(mut task @ (Task::Delete(_) | Task::Free(_) | Task::Mark { .. })) => {
                        if let Some(rest) = task.split(room.min(CHANGE_STEP)) {
                            queue.put_back(rest);
                        }
                        room -= task.rows();
                        let changed = apply(conn, delta, &task);
                        done.push(task);
                        changed?;
                    }
                }
            }
            Ok(())
        });
        match result {
            Ok(()) => {
                self.wrote();
                for answer in answers {
                    // Who asked may have left.
                    drop(answer.send(Ok(())));
                }
            }
            Err(error) => {
                for task in done.into_iter().rev() {
                    self.shared.queue.put_back(task);
                }
                for answer in answers {
                    drop(answer.send(Err(AskError::from(&error))));
                }
                self.failed_task("change", &error);
            }
        }
    }

    /// One slice of what an operator throws away.
    fn discard(
        &mut self,
        filter: &Filter,
        (after, before): (Seq, Seq),
        answer: oneshot::Sender<Result<(Discarded, Option<Seq>), AskError>>,
        gone: &mut impl FnMut(Vec<Gone>),
    ) {
        if answer.is_closed() {
            return;
        }
        let result = self.commit(|conn, delta| {
            let page = listing::slice(conn, filter, Some(after), CHUNK_ROWS)?;
            let asked = page.rows.iter().map(|row| row.seq).filter(|seq| *seq < before);
            let taken = take_all(conn, delta, asked, Why::Discarded)?;
            Ok((taken, page.next.filter(|next| *next < before)))
        });
        let answered = match result {
            Ok((taken, next)) => {
                let raw = taken.iter().filter(|row| matches!(row.kind, Kind::Raw(_))).count() as u64;
                let discarded = Discarded { events: taken.len() as u64 - raw, raw };
                self.wrote();
                self.tell(taken, Why::Discarded, gone);
                answer.send(Ok((discarded, next)))
            }
            Err(error) => {
                self.failed_task("discard", &error);
                answer.send(Err(AskError::from(&error)))
            }
        };
        // Who asked may have left.
        drop(answered);
    }

    /// Moves the log into the file, and holds that still.
    fn hold(&mut self, answer: oneshot::Sender<Result<Still, AskError>>) {
        if answer.is_closed() {
            return;
        }
        self.holding.cut();
        if self.is_lost() {
            // Who asked may have left.
            drop(answer.send(Err(AskError::Closed)));
            return;
        }
        let moved = self
            .move_log(|row| Ok(row.get::<_, i64>(0)? == 0 && row.get::<_, i64>(1)? == row.get::<_, i64>(2)?))
            .and_then(|moved| {
                let sql = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()";
                Ok((moved, self.conn.query_row(sql, [], |row| row.get::<_, u64>(0))?))
            });
        let held = match moved {
            Ok((true, bytes)) => {
                let held = self.holding.hold(self.files.path(), bytes);
                let unreadable = |error| AskError::Failing(format!("its file cannot be read: {error}"));
                held.map_err(unreadable).and_then(|still| {
                    // In the log: the copy does not have it.
                    self.shared.era.begins(schema::next_era(&self.conn).map_err(|e| AskError::from(&e))?);
                    Ok(still)
                })
            }
            Ok((false, _)) => Err(AskError::Failing("its log could not be moved into its file".to_owned())),
            Err(error) => {
                self.failed("hold still", &error);
                Err(AskError::from(&error))
            }
        };
        // Who asked may have left.
        drop(answer.send(held));
    }

    /// Moves of the log what can be moved now into the file, which nothing else changes.
    pub(super) fn move_log<T>(
        &mut self,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let moved = self.conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], read);
        self.files.left();
        moved
    }

    /// The last work: everything moves from the log into the file.
    fn finish(&mut self) {
        self.holding.cut();
        if self.is_lost() {
            return;
        }
        if let Err(error) = self.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
            self.failed("close", &error);
        }
        self.ended = Ended::Orderly;
    }
}

/// Does what a task says to its rows.
fn apply(conn: &Connection, delta: &mut Delta, task: &Task) -> rusqlite::Result<()> {
    match task {
        Task::Delete(seqs) => {
            for seq in seqs {
                if let Some(weight) = rows::delete(conn, *seq)? {
                    delta.take(&weight);
                }
            }
        }
        Task::Free(seqs) => {
            for seq in seqs {
                rows::free(conn, *seq)?;
            }
        }
        Task::Mark { seqs, reason, error } => {
            for seq in seqs {
                if let Some((before, after)) = rows::mark(conn, *seq, *reason, error)? {
                    delta.take(&before);
                    delta.add(&after);
                }
            }
        }
        Task::Change { .. } | Task::Question(_) | Task::Hold(_) | Task::Discard { .. } => {}
    }
    Ok(())
}

/// Deletes rows undelivered.
pub(super) fn take_all(
    conn: &Connection,
    delta: &mut Delta,
    seqs: impl IntoIterator<Item = Seq>,
    why: Why,
) -> rusqlite::Result<Vec<Gone>> {
    let mut taken = Vec::new();
    for seq in seqs {
        if let Some((weight, gone)) = rows::take(conn, seq, why)? {
            delta.take(&weight);
            taken.push(gone);
        }
    }
    Ok(taken)
}

impl Drop for Writer {
    /// However the thread ends, nobody waits for it for ever, and an end that nobody asked for is a broken store.
    fn drop(&mut self) {
        // Closing the file moves the log into it.
        self.holding.cut();
        self.shared.queue.close(Phase::Broken);
        if matches!(self.ended, Ended::No) {
            self.shared.health.send_replace(StoreHealth::Broken);
        }
        while let Some(job) = self.shared.queue.next_park() {
            self.answer(job, Err(ParkError::Closed));
        }
        self.shared.queue.drop_tasks();
    }
}
