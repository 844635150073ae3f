//! The embedded bus: a log in `data_dir` that `fleetbus tail` and `/v1/events` read. One thread owns `local.db`
//! (`synchronous = FULL`), takes what has queued as one transaction, and acknowledges after its commit, where the file still
//! has its name. Retention is by age and size, oldest first, in chunks; a clock that is set forward makes nothing older.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags, params};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Failure, Message, OpenError, Outcome, Ticket};
use crate::config;
use crate::event::Millis;
use crate::replay::AgeClock;

/// Messages that may wait for the thread.
const QUEUE: usize = 16_384;
/// One transaction: messages and bytes.
const BATCH: (usize, usize) = (1_000, 4 << 20);
/// Bytes of messages that are read at once, but for the first of them.
const READ: usize = 8 << 20;
/// Rows deleted at once.
const CHUNK: usize = 1_000;
/// How often retention is looked after.
const UPKEEP: Duration = Duration::from_secs(10);
/// How long what comes waits for it; the rest is removed in turn with what comes.
const TURN: Duration = Duration::from_millis(50);
/// What is removed where the log is too large: the excess, and this part of what it may be, for else each write would be followed
/// by a removal.
const SPARE: u64 = 64;
/// What a row takes beside its payload, by estimate.
const ROW_BYTES: u64 = 300;
/// Of the file; one without a number has the same.
pub(super) const FORMAT: i64 = 1;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS event (
        offset INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, key TEXT NOT NULL, id BLOB NOT NULL,
        at INTEGER NOT NULL, payload BLOB NOT NULL) STRICT;
";

/// See the module.
pub struct LocalBus {
    shared: Arc<Shared>,
    thread: Mutex<Option<Thread>>,
    path: PathBuf,
    away: AtomicBool,
    newest: watch::Sender<u64>,
}

struct Shared {
    door: Mutex<Door>,
}

/// Set under one lock with what goes through: a later message must not overtake one that failed.
enum Door {
    Open(SyncSender<(Message, Ticket)>),
    /// A transaction failed, and not every lane has been told.
    Fenced(SyncSender<(Message, Ticket)>),
    Closed,
}

struct Thread {
    shared: Arc<Shared>,
    connection: Connection,
    // To be told from a file that takes its name. Closed after the connection, whose locks would go with it.
    file: File,
    path: PathBuf,
    /// Its log, which has what is not in the file yet, and where that is.
    log: (File, PathBuf),
    inside: Receiver<(Message, Ticket)>,
    limits: config::Local,
    bytes: u64,
    ages_by: AgeClock,
}

/// Why a batch is not in the log.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    /// The transaction was rolled back.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// It went where nobody finds it.
    #[error("local.db, its log or the data directory was removed, replaced or moved away")]
    Gone,
}

/// One event of the log.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its place: from 1, without end.
    pub offset: u64,
    /// Its topic.
    pub topic: String,
    /// Its key: the subject.
    pub key: String,
    /// Its event id.
    pub id: Uuid,
    /// The encoded `FleetEvent`.
    pub payload: Bytes,
}

impl LocalBus {
    pub(super) fn open(limits: &config::Local, data_dir: &Path) -> Result<Self, OpenError> {
        let path = data_dir.join("local.db");
        crate::replay::private_where_missing(&path)?;
        let connection = Connection::open(&path)?;
        let format = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if format > FORMAT {
            return Err(OpenError::LocalNewer(format));
        }
        connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")?;
        if format < FORMAT {
            connection.execute_batch(&format!("BEGIN; {SCHEMA} PRAGMA user_version = {FORMAT}; COMMIT;"))?;
        }
        let file = File::open(&path)?;
        let newest =
            connection.query_row("SELECT coalesce(max(offset), 0) FROM event", [], |row| row.get(0))?;
        let held: (u64, u64) = connection.query_row(
            "SELECT count(*), coalesce(sum(length(payload)), 0) FROM event",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        // It is there, for the file was read.
        let log = crate::replay::log_path_of(&path);
        let log = (File::open(&log)?, log);
        let (door, inside) = sync_channel(QUEUE);
        let bytes = held.0 * ROW_BYTES + held.1;
        let shared = Arc::new(Shared { door: Mutex::new(Door::Open(door)) });
        let thread = Thread {
            shared: Arc::clone(&shared),
            connection,
            file,
            path: path.clone(),
            log,
            inside,
            limits: limits.clone(),
            bytes,
            ages_by: AgeClock::begun(limits.retention),
        };
        Ok(Self {
            shared,
            thread: Mutex::new(Some(thread)),
            path,
            away: AtomicBool::new(false),
            newest: watch::Sender::new(newest),
        })
    }

    pub(super) fn submit(&self, message: &Message, ticket: Ticket) -> Result<(), (Failure, Ticket)> {
        if self.away.load(Ordering::Relaxed) {
            return Err((Failure::Unavailable("the local bus has been taken away".to_owned()), ticket));
        }
        let door = self.shared.door.lock();
        let door = match &*door {
            Door::Open(door) => door,
            Door::Fenced(_) => {
                return Err((Failure::Busy("messages before it failed".to_owned()), ticket));
            }
            Door::Closed => {
                return Err((Failure::Unavailable("the local bus is closed".to_owned()), ticket));
            }
        };
        door.try_send((message.clone(), ticket)).map_err(|refused| match refused {
            TrySendError::Full((_, ticket)) => {
                (Failure::Busy("the queue to the local bus is full".to_owned()), ticket)
            }
            TrySendError::Disconnected((_, ticket)) => {
                (Failure::Unavailable("the local bus has ended".to_owned()), ticket)
            }
        })
    }

    pub(super) fn is_available(&self) -> bool {
        !self.away.load(Ordering::Relaxed)
    }

    /// Takes the bus away, as an outage would: what the demo and tests show.
    pub fn take_away(&self) {
        self.away.store(true, Ordering::Relaxed);
    }

    /// Brings it back.
    pub fn bring_back(&self) {
        self.away.store(false, Ordering::Relaxed);
    }

    /// The newest offset, watched.
    #[must_use]
    pub fn newest(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// Events after an offset, oldest first, of one topic or all: at most `limit`, and fewer where they are large; none where there are
    /// none. Blocking: reads by a connection of its own.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn read(&self, topic: Option<&str>, after: u64, limit: usize) -> rusqlite::Result<Vec<Row>> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags)?;
        connection.busy_timeout(Duration::from_secs(2))?;
        let mut statement = connection.prepare(
            "SELECT offset, topic, key, id, payload FROM event
             WHERE offset > ?1 AND (?2 IS NULL OR topic = ?2) ORDER BY offset LIMIT ?3",
        )?;
        let mut found = statement.query(params![after, topic, limit])?;
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while bytes < READ
            && let Some(row) = found.next()?
        {
            let payload = Bytes::from(row.get::<_, Vec<u8>>(4)?);
            bytes += payload.len();
            rows.push(Row {
                offset: row.get(0)?,
                topic: row.get(1)?,
                key: row.get(2)?,
                id: Uuid::from_bytes(row.get(3)?),
                payload,
            });
        }
        Ok(rows)
    }

    pub(super) async fn run(&self, stop: CancellationToken) {
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            let newest = self.newest.clone();
            let worked = tokio::task::spawn_blocking(move || thread.work(&newest));
            if worked.await.is_err() {
                tracing::error!("local.thread_ended");
            }
        } else {
            stop.cancelled().await;
        }
    }

    /// Lets the thread do what has queued, and end.
    pub(super) async fn close(&self, _patience: Duration) {
        *self.shared.door.lock() = Door::Closed;
        tokio::task::yield_now().await;
    }
}

/// A bus that goes takes its thread along.
impl Drop for LocalBus {
    fn drop(&mut self) {
        *self.shared.door.lock() = Door::Closed;
    }
}

impl Shared {
    fn fence(&self, new: impl FnOnce(SyncSender<(Message, Ticket)>) -> Door) {
        let mut door = self.door.lock();
        *door = match std::mem::replace(&mut *door, Door::Closed) {
            Door::Open(sender) | Door::Fenced(sender) => new(sender),
            Door::Closed => Door::Closed,
        };
    }
}

impl Thread {
    fn work(mut self, newest: &watch::Sender<u64>) {
        let mut look_at = Instant::now() + UPKEEP;
        loop {
            let patience = look_at.saturating_duration_since(Instant::now());
            match self.inside.recv_timeout(patience.min(Duration::from_millis(500))) {
                Ok(first) => self.batch(first, newest),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if Instant::now() >= look_at || self.bytes > self.limits.max_size {
                let pause = self.upkeep(crate::clock::now(), Instant::now()).unwrap_or_else(|error| {
                    tracing::warn!(error = %error, "local.upkeep_failed");
                    UPKEEP
                });
                look_at = Instant::now() + pause;
            }
        }
    }

    fn batch(&mut self, first: (Message, Ticket), newest: &watch::Sender<u64>) {
        let mut batch = vec![first];
        let mut bytes = batch[0].0.payload.len();
        while batch.len() < BATCH.0 && bytes < BATCH.1 {
            let Ok(next) = self.inside.try_recv() else { break };
            bytes += next.0.payload.len();
            batch.push(next);
        }
        match self.write(&batch) {
            Ok(offset) => {
                self.bytes += bytes as u64 + batch.len() as u64 * ROW_BYTES;
                newest.send_replace(offset);
                for (_, ticket) in batch {
                    ticket.resolve(Outcome::Delivered);
                }
            }
            Err(error) => self.fail(batch, &error),
        }
    }

    /// Surely not in the log, and with it everything that queued behind.
    fn fail(&mut self, batch: Vec<(Message, Ticket)>, error: &WriteError) {
        tracing::warn!(error = %error, "local.write_failed");
        self.shared.fence(Door::Fenced);
        let behind: Vec<(Message, Ticket)> = self.inside.try_iter().collect();
        for (_, ticket) in batch.into_iter().chain(behind) {
            ticket.resolve(Outcome::Failed(Failure::Unavailable(error.to_string())));
        }
        self.shared.fence(Door::Open);
    }

    fn write(&mut self, batch: &[(Message, Ticket)]) -> Result<u64, WriteError> {
        let at = crate::clock::now().0;
        let transaction = self.connection.transaction()?;
        let mut last = 0;
        {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO event (topic, key, id, at, payload) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?;
            for (message, _) in batch {
                insert.execute(params![
                    &*message.topic,
                    &*message.key,
                    message.id.as_bytes(),
                    at,
                    message.payload.as_ref()
                ])?;
                last = transaction.last_insert_rowid();
            }
        }
        transaction.commit()?;
        let are = [(&self.file, &self.path), (&self.log.0, &self.log.1)];
        if are.iter().any(|(file, path)| crate::replay::has_lost_its_name(file, path)) {
            return Err(WriteError::Gone);
        }
        Ok(last.unsigned_abs())
    }

    /// Removes of what is too old, or too much, as much as a turn allows. How long until the next one: none, where more is left.
    fn upkeep(&mut self, wall: Millis, now: Instant) -> rusqlite::Result<Duration> {
        let begun = Instant::now();
        let (aged, _) = self.ages_by.read(wall, now);
        let retention = i64::try_from(self.limits.retention.as_millis()).unwrap_or(i64::MAX);
        let max_size = self.limits.max_size;
        let most = if self.bytes > max_size { max_size - max_size / SPARE } else { max_size };
        loop {
            let expired = self.expire(Millis(aged.0.saturating_sub(retention)))?;
            let removed = expired.max(self.shrink(most)?);
            if removed < CHUNK {
                return Ok(UPKEEP);
            }
            if begun.elapsed() >= TURN {
                return Ok(Duration::ZERO);
            }
        }
    }

    /// Of the oldest rows those go that are from before `oldest`; how many.
    fn expire(&mut self, oldest: Millis) -> rusqlite::Result<usize> {
        let mut delete = self.connection.prepare_cached(
            "DELETE FROM event WHERE offset IN (SELECT offset FROM event ORDER BY offset LIMIT ?1)
             AND at < ?2 RETURNING length(payload)",
        )?;
        let mut rows = delete.query(params![CHUNK, oldest.0])?;
        let (mut count, mut bytes) = (0, 0);
        while let Some(row) = rows.next()? {
            count += 1;
            bytes += row.get::<_, u64>(0)? + ROW_BYTES;
        }
        self.bytes = self.bytes.saturating_sub(bytes);
        Ok(count)
    }

    /// The oldest rows go until the log is no larger than this, and never the newest, which was just acknowledged; how many.
    fn shrink(&mut self, most: u64) -> rusqlite::Result<usize> {
        let excess = self.bytes.saturating_sub(most);
        let (mut count, mut bytes, mut last) = (0, 0, 0u64);
        if excess > 0 {
            let mut oldest = self.connection.prepare_cached(
                "SELECT offset, length(payload) FROM event WHERE offset < (SELECT max(offset) FROM event)
                 ORDER BY offset LIMIT ?1",
            )?;
            let mut rows = oldest.query([CHUNK])?;
            while bytes < excess
                && let Some(row) = rows.next()?
            {
                count += 1;
                bytes += row.get::<_, u64>(1)? + ROW_BYTES;
                last = row.get(0)?;
            }
        }
        if count > 0 {
            self.connection.prepare_cached("DELETE FROM event WHERE offset <= ?1")?.execute([last])?;
            self.bytes = self.bytes.saturating_sub(bytes);
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::Headers;

    const HOUR: Duration = Duration::from_secs(3_600);
    /// Of each row, by the estimate.
    const ROW: u64 = 1_000;

    /// A log of so many rows that has room for so many.
    fn log(dir: &Path, rows: usize, room: u64) -> Thread {
        let limits = config::Local { retention: HOUR, max_size: room * ROW };
        let bus = LocalBus::open(&limits, dir).unwrap();
        let mut thread = bus.thread.lock().take().unwrap();
        write(&mut thread, rows);
        thread
    }

    fn write(thread: &mut Thread, rows: usize) {
        struct Deaf;
        impl super::super::Awaiting for Deaf {
            fn resolve(&self, _: u64, _: Outcome) {}
        }
        let payload = Bytes::from(vec![7; (ROW - ROW_BYTES) as usize]);
        let (topic, key, headers) = ("t".into(), "k".into(), Headers::default());
        let message = Message { topic, key, id: Uuid::nil(), headers, payload };
        let batch: Vec<_> = (0..rows).map(|_| (message.clone(), Ticket::new(Arc::new(Deaf), 0))).collect();
        thread.write(&batch).unwrap();
        thread.bytes += rows as u64 * ROW;
    }

    fn offsets(thread: &Thread) -> Vec<u64> {
        let mut all = thread.connection.prepare("SELECT offset FROM event ORDER BY offset").unwrap();
        all.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn what_is_too_much_goes_and_no_more_and_never_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let mut thread = log(dir.path(), 12, 10);
        thread.upkeep(crate::clock::now(), Instant::now()).unwrap();
        // A little more than the excess, so that not every write is followed by a removal: here that is one row.
        assert_eq!(offsets(&thread), (4..=12).collect::<Vec<_>>());
        assert_eq!(thread.bytes, 9 * ROW);
        write(&mut thread, 1);
        thread.upkeep(crate::clock::now(), Instant::now()).unwrap();
        assert_eq!(offsets(&thread).len(), 10, "it has room for them");
        thread.limits.max_size = 1;
        thread.upkeep(crate::clock::now(), Instant::now()).unwrap();
        assert_eq!(offsets(&thread), [13], "it is larger than all that there may be");
    }

    #[test]
    fn of_a_long_log_what_is_too_much_goes_in_chunks() {
        let dir = tempfile::tempdir().unwrap();
        let mut thread = log(dir.path(), 2_500, 100);
        let (now, mut turns) = (crate::clock::now(), 0);
        while thread.bytes > thread.limits.max_size && turns < 10 {
            thread.upkeep(now, Instant::now()).unwrap();
            turns += 1;
        }
        assert_eq!(offsets(&thread), (2_403..=2_500).collect::<Vec<_>>());
    }

    #[test]
    fn a_clock_that_is_set_forward_removes_nothing_and_time_that_passes_does() {
        let dir = tempfile::tempdir().unwrap();
        let mut thread = log(dir.path(), 3, 10);
        let (wall, now) = (crate::clock::now(), Instant::now());
        let ahead = |hours: i64| Millis(wall.0 + hours * 3_600_000);
        thread.upkeep(ahead(48), now).unwrap();
        assert_eq!(offsets(&thread), [1, 2, 3]);
        thread.upkeep(ahead(48), now + HOUR / 2).unwrap();
        assert_eq!(offsets(&thread), [1, 2, 3]);
        thread.upkeep(ahead(2), now + HOUR * 2).unwrap();
        assert_eq!(offsets(&thread), [0; 0]);
        assert_eq!(thread.bytes, 0);
    }
}
