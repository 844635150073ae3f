//! A store that runs on a thread, in a folder of its own, and rows to put into it.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use fleetbus::event::{AccountId, EventType, Millis};
use fleetbus::replay::{
    AskError, DataDir, Gone, Kept, LaneKey, LaneRows, ParkError, Parked, ParkedRaw, RawReason, Reason,
    Recovered, Routing, Seq, Store, StoreLimits,
};
use parking_lot::Mutex;
use tempfile::TempDir;
use uuid::Uuid;

/// A store with its thread.
pub(crate) struct Running {
    pub(crate) store: Store,
    thread: Mutex<Option<JoinHandle<()>>>,
    gone: Arc<Mutex<Vec<Gone>>>,
    dir: Option<TempDir>,
}

impl Running {
    pub(crate) async fn start(limits: StoreLimits) -> Self {
        Self::open(tempfile::tempdir().unwrap(), limits, None).await.0
    }

    pub(crate) async fn open(
        dir: TempDir,
        limits: StoreLimits,
        routing: Option<Routing>,
    ) -> (Self, Recovered) {
        let (mut running, recovered) = Self::at(dir.path(), limits, routing).await;
        running.dir = Some(dir);
        (running, recovered)
    }

    pub(crate) async fn at(dir: &Path, limits: StoreLimits, routing: Option<Routing>) -> (Self, Recovered) {
        let lock = DataDir::lock(dir).await.unwrap();
        let (store, writer, recovered) = Store::open(&lock, limits, routing).unwrap();
        let gone = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&gone);
        let run = move || writer.run(move |rows| sink.lock().extend(rows));
        let thread = std::thread::Builder::new().name("store".into()).spawn(run).unwrap();
        (Self { store, thread: Mutex::new(Some(thread)), gone, dir: None }, recovered)
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.as_ref().unwrap().path()
    }

    /// Waits for the thread to end; who calls it knows that it does.
    pub(crate) fn ended(&self) {
        if let Some(thread) = self.thread.lock().take() {
            thread.join().unwrap();
        }
    }

    /// Stops it in order.
    pub(crate) fn stop(mut self) -> TempDir {
        self.store.close();
        self.ended();
        self.dir.take().unwrap()
    }

    pub(crate) async fn restart(self, limits: StoreLimits, routing: Option<Routing>) -> (Self, Recovered) {
        Self::open(self.stop(), limits, routing).await
    }

    /// Waits until everything queued before is done, and what is too much or too old is gone.
    pub(crate) async fn settle(&self) {
        for _ in 0..2 {
            // A question is a turn of its own, and each turn begins with upkeep.
            within(self.store.get(Seq(0))).await.unwrap();
        }
    }

    /// Rows of one lane that wait for the bus, after a place.
    pub(crate) async fn read_lane(
        &self,
        lane: LaneKey,
        after: Option<Seq>,
        rows: usize,
        bytes: u64,
    ) -> Result<Vec<Kept<Parked>>, AskError> {
        let found = self.store.read_lanes(vec![LaneRows { lane, after, rows, bytes }]).await?;
        Ok(found.into_iter().next().unwrap())
    }

    pub(crate) async fn lane_seqs(&self, key: &LaneKey) -> Vec<Seq> {
        let rows = within(self.read_lane(key.clone(), None, usize::MAX, u64::MAX)).await.unwrap();
        rows.iter().map(Kept::<Parked>::seq).collect()
    }

    /// What left undelivered so far.
    pub(crate) fn gone(&self) -> Vec<Gone> {
        self.gone.lock().clone()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.store.close();
        if let Some(thread) = self.thread.lock().take() {
            // A test that fails says so by itself.
            drop(thread.join());
        }
    }
}

/// A store that does not answer is a failure, not a test that hangs.
pub(crate) async fn within<T>(answer: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), answer).await.unwrap()
}

/// The usual limits, with a small reserve: what it is for is tested in `disk`.
pub(crate) fn limits() -> StoreLimits {
    StoreLimits { reserve: 4096, ..StoreLimits::default() }
}

pub(crate) fn now() -> Millis {
    Millis(jiff::Timestamp::now().as_millisecond())
}

pub(crate) fn lane(account: &str, subject: &str) -> LaneKey {
    LaneKey { account: AccountId::new(account), topic: "fleet.position".into(), subject: subject.into() }
}

/// Rows, none of which is damaged.
pub(crate) fn whole<T>(rows: Vec<Kept<T>>) -> Vec<T> {
    rows.into_iter().map(|row| row.whole().unwrap()).collect()
}

/// A row with the next place.
pub(crate) fn parked(store: &Store, lane: &LaneKey) -> Parked {
    let seq = store.next_seq();
    let id = Uuid::from_u128(u128::from(seq.0));
    Parked {
        seq,
        lane: lane.clone(),
        event_type: EventType::Position,
        id,
        enters: vec![id],
        payload: Bytes::from(format!("payload of {}", seq.0)),
        trace: None,
        reason: Reason::Unavailable,
        error: "no broker".into(),
        provisional: false,
        parked_at: now(),
    }
}

pub(crate) fn raw(account: &str, body: &str) -> ParkedRaw {
    ParkedRaw {
        account: AccountId::new(account),
        source: "push".into(),
        received_at: now(),
        reason: RawReason::NotJson,
        error: "expected a value".into(),
        body: Bytes::from(body.to_owned()),
    }
}

pub(crate) async fn park(store: &Store, rows: Vec<Parked>) -> Result<(), ParkError> {
    let (done, told) = tokio::sync::oneshot::channel();
    store.park(rows, Box::new(move |result| done.send(result).unwrap()))?;
    within(told).await.unwrap()
}

pub(crate) async fn park_raw(store: &Store, rows: Vec<ParkedRaw>) -> Result<(), ParkError> {
    let (done, told) = tokio::sync::oneshot::channel();
    store.park_raw(rows, Box::new(move |result| done.send(result).unwrap()))?;
    within(told).await.unwrap()
}

/// The file is sound, and the counts that transactions keep are those of its rows.
pub(crate) fn check_file(path: &Path) {
    let conn = rusqlite::Connection::open(path).unwrap();
    let verdict: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
    let read = |sql: &str| -> Vec<(String, i64, i64, i64)> {
        let mut query = conn.prepare(sql).unwrap();
        let rows =
            query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))).unwrap();
        rows.map(|row| row.unwrap()).collect()
    };
    let counted =
        read("SELECT account, kind, rows, bytes FROM tally WHERE rows <> 0 OR bytes <> 0 ORDER BY 1, 2");
    let there = read(
        "SELECT account, reason, count(*), sum(cost) FROM
             (SELECT account, reason, cost FROM parked UNION ALL SELECT account, reason, cost FROM raw)
         GROUP BY account, reason ORDER BY 1, 2",
    );
    assert_eq!(counted, there);
    let aged = read("SELECT '', population, minute, rows FROM ages ORDER BY 2, 3");
    let there = read(
        "SELECT '', population, minute, count(*) FROM
             (SELECT CASE reason WHEN 2 THEN 1 ELSE 0 END AS population, parked_at / 60000 AS minute FROM parked
              UNION ALL SELECT 2, received_at / 60000 FROM raw)
         GROUP BY population, minute ORDER BY 2, 3",
    );
    assert_eq!(aged, there);
}
