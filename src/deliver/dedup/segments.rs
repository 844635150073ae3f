//! The thread that owns `seen.db`: writes the tail's journal, one row a group commit; folds the tail every ten minutes into
//! one sorted blob per (account, type, hour); answers look-ups; drops whole hours at the horizon. No answer to a sender
//! waits for it (`synchronous = NORMAL`). A file that is broken is set aside and a new one begun.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension as _, params};
use tokio::sync::oneshot;

use super::tail::{Bucket, HOUR_MS, Short, Tail, Unwritten};
use super::{Dedup, horizon_ms};
use crate::config;
use crate::event::{AccountId, EventType, Millis};

/// Look-ups that may wait.
const QUEUE: usize = 4_096;
/// How often the journal is written.
const COMMIT: Duration = Duration::from_millis(50);
/// How often the tail is folded, and how many ids bring it forward.
const FOLD: (Duration, usize) = (Duration::from_secs(600), 2_000_000);
/// Blobs of one hour beyond which they are merged.
const MERGE: u64 = 8;
/// The layout of the file.
const VERSION: i64 = 1;

const SCHEMA: &str = "
    CREATE TABLE journal (row INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT;
    CREATE TABLE segment (account TEXT NOT NULL, type TEXT NOT NULL, hour INTEGER NOT NULL, ids BLOB NOT NULL) STRICT;
    CREATE INDEX segment_hour ON segment (account, type, hour);
    CREATE TABLE forgotten (id BLOB PRIMARY KEY, at INTEGER NOT NULL) STRICT, WITHOUT ROWID;
";

/// Not even a new file could be made.
#[derive(Debug, thiserror::Error)]
#[error("seen.db cannot be opened in {dir}")]
pub struct OpenError {
    dir: String,
    source: rusqlite::Error,
}

/// A question to the worker.
pub struct Lookup {
    /// Where.
    pub bucket: Bucket,
    /// In every hour of its account and type.
    pub every_hour: bool,
    /// Which: is one of them there?
    pub ids: Vec<Short>,
    /// The answer.
    pub tell: oneshot::Sender<bool>,
}

/// What opening found.
pub struct Opened {
    /// Buckets with blobs.
    pub buckets: Vec<Bucket>,
    /// The journal's ids.
    pub tail: Tail,
    /// The worker's door.
    pub look_ups: SyncSender<Lookup>,
    /// The worker, not yet serving.
    pub worker: Idle,
}

/// A worker that does not know yet whom it serves.
pub struct Idle {
    connection: Connection,
    questions: Receiver<Lookup>,
    buckets: HashSet<Bucket>,
    horizons: config::Dedup,
    clock: fn() -> Millis,
}

/// The thread's body: see [`Worker::run`].
pub struct Worker {
    idle: Idle,
    dedup: Arc<Dedup>,
}

/// Opens the file, or begins a new one.
pub fn open(dir: &Path, horizons: config::Dedup, clock: fn() -> Millis) -> Result<Opened, OpenError> {
    let path = dir.join("seen.db");
    let (connection, tail, buckets) = match load(&path) {
        Ok(loaded) => loaded,
        Err(error) => {
            tracing::warn!(error = %error, "dedup.set_aside");
            set_aside(&path);
            load(&path).map_err(|source| OpenError { dir: dir.display().to_string(), source })?
        }
    };
    let (look_ups, questions) = sync_channel(QUEUE);
    let worker = Idle { connection, questions, buckets: buckets.iter().cloned().collect(), horizons, clock };
    Ok(Opened { buckets, tail, look_ups, worker })
}

fn set_aside(path: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let from = PathBuf::from(format!("{}{suffix}", path.display()));
        let to = PathBuf::from(format!("{}.broken{suffix}", path.display()));
        if from.exists()
            && let Err(error) = std::fs::rename(&from, &to)
        {
            tracing::warn!(error = %error, "dedup.set_aside_failed");
        }
    }
}

type Loaded = (Connection, Tail, Vec<Bucket>);

fn load(path: &Path) -> rusqlite::Result<Loaded> {
    let connection = Connection::open(path)?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 4000;",
    )?;
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version == 0 {
        connection.execute_batch(&format!("BEGIN; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;"))?;
    } else if version != VERSION {
        return Err(rusqlite::Error::InvalidQuery);
    }
    let mut tail = Tail::default();
    {
        let mut journal = connection.prepare("SELECT body FROM journal ORDER BY row")?;
        let mut rows = journal.query([])?;
        while let Some(row) = rows.next()? {
            let body: Vec<u8> = row.get(0)?;
            for (bucket, id) in read_journal(&body) {
                tail.restore(&bucket, id);
            }
        }
        let mut forgotten = connection.prepare("SELECT id, at FROM forgotten")?;
        let mut rows = forgotten.query([])?;
        while let Some(row) = rows.next()? {
            let id: Vec<u8> = row.get(0)?;
            if let Ok(id) = Short::try_from(id.as_slice()) {
                tail.restore_forgotten(id, row.get(1)?);
            }
        }
    }
    let buckets = {
        let mut statement = connection.prepare("SELECT DISTINCT account, type, hour FROM segment")?;
        let rows = statement.query_map([], |row| {
            let (account, event_type): (String, String) = (row.get(0)?, row.get(1)?);
            let hour = row.get(2)?;
            Ok(EventType::parse(&event_type).map(|event_type| Bucket {
                account: AccountId::new(&account),
                event_type,
                hour,
            }))
        })?;
        rows.filter_map(Result::transpose).collect::<rusqlite::Result<Vec<_>>>()?
    };
    Ok((connection, tail, buckets))
}

/// A journal row: per entry, lengths and texts of account and type, the hour, the id.
fn write_journal(entered: &[(Bucket, Short)]) -> Vec<u8> {
    let mut body = Vec::with_capacity(entered.len() * 40);
    for (bucket, id) in entered {
        for text in [bucket.account.as_str(), bucket.event_type.as_str()] {
            body.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
            body.extend_from_slice(&text.as_bytes()[..text.len().min(usize::from(u8::MAX))]);
        }
        body.extend_from_slice(&bucket.hour.to_be_bytes());
        body.extend_from_slice(id);
    }
    body
}

fn read_journal(mut body: &[u8]) -> Vec<(Bucket, Short)> {
    fn text<'a>(body: &mut &'a [u8]) -> Option<&'a str> {
        let (length, rest) = body.split_first()?;
        let (text, rest) = rest.split_at_checked(usize::from(*length))?;
        *body = rest;
        std::str::from_utf8(text).ok()
    }
    fn entry(body: &mut &[u8]) -> Option<(Bucket, Short)> {
        let account = AccountId::new(text(body)?);
        let event_type = EventType::parse(text(body)?)?;
        let (hour, rest) = body.split_first_chunk::<8>()?;
        let (id, rest) = rest.split_first_chunk::<12>()?;
        *body = rest;
        Some((Bucket { account, event_type, hour: i64::from_be_bytes(*hour) }, *id))
    }
    let mut entries = Vec::new();
    while let Some(found) = entry(&mut body) {
        entries.push(found);
    }
    entries
}

impl Idle {
    /// The worker of this dedup.
    pub fn serve(self, dedup: Arc<Dedup>) -> Worker {
        Worker { idle: self, dedup }
    }
}

impl Worker {
    /// Serves until `stopping` says so; then writes what is left. To be run on a thread of its own.
    pub fn run(mut self, stopping: impl Fn() -> bool) {
        let mut folded_at = Instant::now();
        let mut written_at = Instant::now();
        loop {
            let question = self.idle.questions.recv_timeout(COMMIT);
            let stop = stopping() || question.as_ref().err() == Some(&RecvTimeoutError::Disconnected);
            if let Ok(question) = question {
                let found = self.find(&question).unwrap_or_else(|error| {
                    tracing::warn!(error = %error, "dedup.look_up_failed");
                    false
                });
                // Whoever asked may have given up.
                question.tell.send(found).unwrap_or_default();
            }
            if written_at.elapsed() >= COMMIT || stop {
                written_at = Instant::now();
                self.write();
            }
            let many = self.dedup.tail.lock().len() > FOLD.1;
            if folded_at.elapsed() >= FOLD.0 || many {
                folded_at = Instant::now();
                self.fold();
            }
            if stop {
                return;
            }
        }
    }

    fn find(&self, question: &Lookup) -> rusqlite::Result<bool> {
        let bucket = &question.bucket;
        if !question.every_hour && !self.idle.buckets.contains(bucket) {
            return Ok(false);
        }
        let sql = if question.every_hour {
            "SELECT ids FROM segment WHERE account = ?1 AND type = ?2 AND ?3 IS NOT NULL"
        } else {
            "SELECT ids FROM segment WHERE account = ?1 AND type = ?2 AND hour = ?3"
        };
        let mut statement = self.idle.connection.prepare_cached(sql)?;
        let mut rows =
            statement.query(params![bucket.account.as_str(), bucket.event_type.as_str(), bucket.hour])?;
        while let Some(row) = rows.next()? {
            let blob = row.get_ref(0)?.as_blob()?;
            if question.ids.iter().any(|id| holds(blob, id)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn write(&mut self) {
        let unwritten = self.dedup.tail.lock().unwritten();
        if unwritten.left_out > 0 {
            self.dedup.stats.not_written.fetch_add(unwritten.left_out, Ordering::Relaxed);
        }
        let entered = unwritten.entered.len() as u64;
        if let Err(error) = self.journal(&unwritten) {
            self.dedup.stats.not_written.fetch_add(entered, Ordering::Relaxed);
            tracing::warn!(error = %error, ids = entered, "dedup.write_failed");
        }
    }

    fn journal(&mut self, unwritten: &Unwritten) -> rusqlite::Result<()> {
        let Unwritten { entered, forgotten, recalled, .. } = unwritten;
        if entered.is_empty() && forgotten.is_empty() && recalled.is_empty() {
            return Ok(());
        }
        let transaction = self.idle.connection.transaction()?;
        if !entered.is_empty() {
            let mut insert = transaction.prepare_cached("INSERT INTO journal (body) VALUES (?1)")?;
            insert.execute([write_journal(entered)])?;
        }
        for (id, at) in forgotten {
            let mut insert =
                transaction.prepare_cached("INSERT OR REPLACE INTO forgotten (id, at) VALUES (?1, ?2)")?;
            insert.execute(params![id.as_slice(), at])?;
        }
        for id in recalled {
            transaction.prepare_cached("DELETE FROM forgotten WHERE id = ?1")?.execute([id.as_slice()])?;
        }
        transaction.commit()
    }

    /// Folds the tail into blobs, and drops the hours beyond the horizon.
    fn fold(&mut self) {
        self.write();
        let copy = self.dedup.tail.lock().copy();
        match self.fold_into(&copy) {
            Ok(()) => {
                self.idle.buckets.extend(copy.iter().map(|(bucket, _)| bucket.clone()));
                self.dedup.tail.lock().folded(&copy);
            }
            Err(error) => tracing::warn!(error = %error, "dedup.fold_failed"),
        }
        if let Err(error) = self.expire() {
            tracing::warn!(error = %error, "dedup.expire_failed");
        }
    }

    fn fold_into(&mut self, copy: &[(Bucket, Vec<Short>)]) -> rusqlite::Result<()> {
        let transaction = self.idle.connection.transaction()?;
        // What was remembered after the copy was taken is written after this transaction: the journal holds no more.
        transaction.execute("DELETE FROM journal", [])?;
        for (bucket, ids) in copy {
            let (account, event_type) = (bucket.account.as_str(), bucket.event_type.as_str());
            let mut count = transaction.prepare_cached(
                "SELECT count(*) FROM segment WHERE account = ?1 AND type = ?2 AND hour = ?3",
            )?;
            let blobs: u64 = count
                .query_row(params![account, event_type, bucket.hour], |row| row.get(0))
                .optional()?
                .unwrap_or(0);
            let merged = if blobs >= MERGE {
                let mut all = ids.clone();
                let mut old = transaction.prepare_cached(
                    "DELETE FROM segment WHERE account = ?1 AND type = ?2 AND hour = ?3 RETURNING ids",
                )?;
                let mut rows = old.query(params![account, event_type, bucket.hour])?;
                while let Some(row) = rows.next()? {
                    let blob = row.get_ref(0)?.as_blob()?;
                    all.extend(blob.as_chunks::<12>().0);
                }
                all.sort_unstable();
                all.dedup();
                all
            } else {
                ids.clone()
            };
            let mut insert = transaction
                .prepare_cached("INSERT INTO segment (account, type, hour, ids) VALUES (?1, ?2, ?3, ?4)")?;
            insert.execute(params![account, event_type, bucket.hour, merged.as_flattened()])?;
        }
        transaction.commit()
    }

    fn expire(&mut self) -> rusqlite::Result<()> {
        let now = (self.idle.clock)().0;
        let horizons = self.idle.horizons.clone();
        let oldest = move |event_type| (now - horizon_ms(&horizons, event_type)).div_euclid(HOUR_MS) - 1;
        let transaction = self.idle.connection.transaction()?;
        for event_type in EventType::ALL {
            transaction
                .prepare_cached("DELETE FROM segment WHERE type = ?1 AND hour < ?2")?
                .execute(params![event_type.as_str(), oldest(event_type)])?;
        }
        let longest = EventType::ALL.map(|event_type| horizon_ms(&self.idle.horizons, event_type));
        let before = now - longest.into_iter().max().unwrap_or(0) * 2;
        transaction.execute("DELETE FROM forgotten WHERE at < ?1", [before])?;
        transaction.commit()?;
        self.idle.buckets.retain(|bucket| bucket.hour >= oldest(bucket.event_type));
        self.dedup.tail.lock().expire_forgotten(before);
        self.dedup.front.lock().expired(oldest);
        Ok(())
    }
}

/// Whether a sorted blob holds an id.
fn holds(blob: &[u8], id: &Short) -> bool {
    blob.as_chunks::<12>().0.binary_search(id).is_ok()
}

#[cfg(test)]
mod tests {
    use super::super::{Candidate, Reservation, Settled, Verdict};
    use super::*;
    use uuid::Uuid;

    const NOW: i64 = 1_767_009_600_000;

    fn clock() -> Millis {
        Millis(NOW)
    }

    fn horizons() -> config::Dedup {
        let hours = |hours: u64| Duration::from_secs(hours * 3_600);
        config::Dedup { positions: hours(48), others: hours(168), memory: 1 << 20 }
    }

    fn candidate(subject: &str, time: i64, checks: &[u128], enters: &[u128]) -> Candidate {
        let ids = |ids: &[u128]| ids.iter().map(|id| Uuid::from_u128(id << 64 | id)).collect();
        Candidate {
            account: AccountId::new("acme"),
            event_type: EventType::Position,
            subject: subject.into(),
            key_time: Some(Millis(time)),
            received_at: Millis(NOW),
            checks: ids(checks),
            enters: ids(enters),
        }
    }

    struct Running {
        dedup: Arc<Dedup>,
        stop: Arc<std::sync::atomic::AtomicBool>,
        thread: Option<std::thread::JoinHandle<()>>,
    }

    impl Running {
        fn open(dir: &Path) -> Self {
            let (dedup, worker) = Dedup::open(dir, &horizons(), clock).expect("opens");
            let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
            let stopping = Arc::clone(&stop);
            let thread = std::thread::spawn(move || worker.run(|| stopping.load(Ordering::Relaxed)));
            Self { dedup, stop, thread: Some(thread) }
        }

        async fn new_one(&self, candidate: &Candidate) -> Reservation {
            match self.dedup.reserve(candidate).await {
                Verdict::New(reservation) => reservation,
                other => panic!("{other:?}"),
            }
        }

        async fn is_known(&self, candidate: &Candidate) -> bool {
            matches!(self.dedup.reserve(candidate).await, Verdict::Known)
        }
    }

    impl Drop for Running {
        fn drop(&mut self) {
            self.stop.store(true, Ordering::Relaxed);
            self.thread.take().map(std::thread::JoinHandle::join);
        }
    }

    #[tokio::test]
    async fn of_two_copies_one_is_new_and_the_other_shares_its_outcome() {
        let dir = tempfile::tempdir().expect("a folder");
        let running = Running::open(dir.path());
        let event = candidate("1", NOW, &[1], &[1]);
        let first = running.new_one(&event).await;
        let Verdict::InFlight(shared) = running.dedup.reserve(&event).await else { panic!("not shared") };
        first.remember();
        assert_eq!(shared.outcome().await, Settled::Durable);
        assert!(running.is_known(&event).await);
    }

    #[tokio::test]
    async fn what_is_given_back_can_be_reserved_again() {
        let dir = tempfile::tempdir().expect("a folder");
        let running = Running::open(dir.path());
        let event = candidate("1", NOW, &[1], &[1]);
        let first = running.new_one(&event).await;
        let Verdict::InFlight(shared) = running.dedup.reserve(&event).await else { panic!("not shared") };
        drop(first);
        assert_eq!(shared.outcome().await, Settled::Released);
        running.new_one(&event).await.remember();
    }

    #[tokio::test]
    async fn a_full_fix_follows_its_breadcrumb_and_a_breadcrumb_does_not_follow_its_fix() {
        let dir = tempfile::tempdir().expect("a folder");
        let running = Running::open(dir.path());
        let (crumb, fix) = (candidate("1", NOW, &[1, 2], &[1]), candidate("1", NOW, &[2], &[2]));
        running.new_one(&crumb).await.remember();
        running.new_one(&fix).await.remember();
        let (crumb, fix) = (candidate("2", NOW, &[3, 4], &[3]), candidate("2", NOW, &[4], &[4]));
        running.new_one(&fix).await.remember();
        assert!(running.is_known(&crumb).await);
    }

    #[tokio::test]
    async fn late_events_are_known_across_fold_and_restart_and_forgotten_ones_are_not() {
        let dir = tempfile::tempdir().expect("a folder");
        let late: Vec<Candidate> =
            (0..50).map(|n| candidate("1", NOW - n * 60_000, &[n as u128 + 10], &[n as u128 + 10])).collect();
        {
            let running = Running::open(dir.path());
            for event in &late {
                running.new_one(event).await.remember();
            }
        }
        {
            let (dedup, mut worker) = Dedup::open(dir.path(), &horizons(), clock).expect("opens");
            worker.fold();
            assert_eq!(dedup.tail.lock().buckets().count(), 0, "all of it is in segments");
        }
        let running = Running::open(dir.path());
        for event in &late {
            assert!(running.is_known(event).await);
        }
        running.dedup.forget(&late[7].enters);
        let again = running.new_one(&late[7]).await;
        again.remember();
        assert!(running.is_known(&late[7]).await);
    }

    #[tokio::test]
    async fn what_lies_beyond_the_horizon_is_published_and_counted() {
        let dir = tempfile::tempdir().expect("a folder");
        let running = Running::open(dir.path());
        let old = candidate("1", NOW - 49 * HOUR_MS, &[1], &[1]);
        running.new_one(&old).await.remember();
        running.new_one(&old).await.remember();
        assert_eq!(running.dedup.stats.beyond_horizon.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn a_broken_file_is_set_aside() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("seen.db"), vec![7_u8; 8_192]).expect("written");
        let running = Running::open(dir.path());
        running.new_one(&candidate("1", NOW, &[1], &[1])).await.remember();
        assert!(dir.path().join("seen.db.broken").exists());
    }

    #[test]
    fn a_journal_row_is_read_as_it_was_written_and_a_torn_one_up_to_the_tear() {
        let bucket = Bucket { account: AccountId::new("acme"), event_type: EventType::Trip, hour: -3 };
        let entries = vec![(bucket.clone(), [1; 12]), (bucket, [2; 12])];
        let body = write_journal(&entries);
        assert_eq!(read_journal(&body), entries);
        assert_eq!(read_journal(&body[..body.len() - 1]), entries[..1]);
    }
}
