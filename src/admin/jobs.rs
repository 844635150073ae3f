//! Long work that outlives a restart: replays and backfills. Each job is one entry of the store's jobs, written when it begins, as
//! it goes on, and when it ends. Invariants: what an entry says is done is durable, so that whoever resumes it leaves
//! nothing out; the first end counts; a process that stops ends no job.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;
use uuid::Uuid;

use super::access::Caller;
use super::problem::Problem;
use crate::clock;
use crate::event::{AccountId, Millis};
use crate::replay::{Act, AskError, Change, Entry, Store, Table};

/// Jobs of one kind that are remembered.
const REMEMBERED: usize = 100;
/// Jobs of one kind that run at once.
const RUNNING: usize = 4;

/// How a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = JobState)]
pub(super) enum Phase {
    /// At work, or to be resumed.
    #[default]
    Running,
    /// Seen through.
    Done,
    /// Given up by an operator.
    Cancelled,
    /// Given up for want of something.
    Failed,
}

/// A job as it is written down: its life, and its work.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Job<W> {
    pub(super) id: String,
    pub(super) state: Phase,
    pub(super) error: Option<String>,
    pub(super) began_at: Millis,
    pub(super) ended_at: Option<Millis>,
    pub(super) work: W,
}

/// A job of this process.
pub(super) struct Held<W> {
    pub(super) job: Mutex<Job<W>>,
    /// Held while it is written down, so that what is on disk last is what it is.
    writing: tokio::sync::Mutex<()>,
    /// Also when the process stops.
    pub(super) cancelled: CancellationToken,
    /// When this run of it began.
    pub(super) since: Instant,
}

impl<W: Clone> Held<W> {
    pub(super) fn now(&self) -> Job<W> {
        self.job.lock().clone()
    }

    fn is_running(&self) -> bool {
        self.job.lock().state == Phase::Running
    }
}

/// What is done, for the audit log.
pub(super) struct Doing<'a> {
    pub(super) caller: &'a Caller,
    pub(super) act: &'static str,
    pub(super) account: Option<AccountId>,
    /// JSON.
    pub(super) told: String,
}

impl Doing<'_> {
    fn act(self, id: String) -> Act {
        Act {
            at: clock::now(),
            who: self.caller.name.to_string(),
            act: self.act,
            account: self.account,
            object: id,
            before: None,
            after: Some(self.told),
        }
    }
}

/// The jobs of one kind.
pub(super) struct Book<W> {
    store: Store,
    kind: &'static str,
    stop: CancellationToken,
    known: Mutex<VecDeque<Arc<Held<W>>>>,
}

impl<W: Clone + Serialize + DeserializeOwned> Book<W> {
    pub(super) fn new(store: Store, kind: &'static str, stop: CancellationToken) -> Self {
        Self { store, kind, stop, known: Mutex::new(VecDeque::new()) }
    }

    /// Newest first.
    pub(super) fn list(&self) -> Vec<Arc<Held<W>>> {
        self.known.lock().iter().rev().cloned().collect()
    }

    pub(super) fn find(&self, id: &str) -> Result<Arc<Held<W>>, Problem> {
        let known = self.known.lock();
        let found = known.iter().find(|held| held.job.lock().id == id);
        let none =
            || Problem::not_found(format!("no such {}: the last {REMEMBERED} are remembered", self.kind));
        found.cloned().ok_or_else(none)
    }

    /// Writes a job down with the act that tells of it. Whoever began it puts it to work.
    pub(super) async fn begin(&self, work: W, doing: Doing<'_>) -> Result<Arc<Held<W>>, Problem> {
        let id = Uuid::now_v7().to_string();
        let (state, error, ended_at) = (Phase::Running, None, None);
        let job = Job { id: id.clone(), state, error, began_at: clock::now(), ended_at, work };
        let mut changes = vec![self.put(&job)];
        let held = {
            let mut known = self.known.lock();
            if known.iter().filter(|held| held.is_running()).count() >= RUNNING {
                let why = format!("{RUNNING} {}s run already: wait for one, or cancel one", self.kind);
                return Err(Problem::too_many(why));
            }
            if known.len() >= REMEMBERED
                && let Some(oldest) = known.iter().position(|held| !held.is_running())
                && let Some(oldest) = known.remove(oldest)
            {
                let key = self.key(&oldest.job.lock().id);
                changes.push(Change::Remove(Table::Jobs, nobody(), key));
            }
            let held = self.hold(job);
            known.push_back(Arc::clone(&held));
            held
        };
        if let Err(error) = self.store.act(changes, doing.act(id.clone())).await {
            self.known.lock().retain(|known| !Arc::ptr_eq(known, &held));
            return Err(error.into());
        }
        tracing::info!(job.kind = self.kind, job.id = id, "job.began");
        Ok(held)
    }

    /// Those of earlier runs; what was interrupted is handed out, to be put to work again.
    pub(super) async fn resume(&self) -> Vec<Arc<Held<W>>> {
        let jobs = match self.load().await {
            Ok(jobs) => jobs,
            Err(error) => {
                tracing::error!(job.kind = self.kind, error = %error, "job.not_resumed");
                return Vec::new();
            }
        };
        let mut interrupted = Vec::new();
        for job in jobs {
            let (id, held) = (job.id.clone(), self.hold(job));
            {
                let mut known = self.known.lock();
                // It was begun by this process, before the others were read.
                if known.iter().any(|other| other.job.lock().id == id) {
                    continue;
                }
                known.push_back(Arc::clone(&held));
            }
            if held.is_running() {
                tracing::info!(job.kind = self.kind, job.id = id, "job.resumed");
                interrupted.push(held);
            }
        }
        interrupted
    }

    /// Writes down how far a job is; true when it is on disk.
    pub(super) async fn save(&self, held: &Held<W>) -> bool {
        let _writing = held.writing.lock().await;
        self.write(&held.now()).await
    }

    async fn write(&self, job: &Job<W>) -> bool {
        let saved = self.store.put(Table::Jobs, vec![self.entry(job)]).await;
        if let Err(error) = &saved {
            tracing::warn!(job.kind = self.kind, job.id = job.id, error = %error, "job.not_saved");
        }
        saved.is_ok()
    }

    /// Gives a job up, with the act that tells of it; one that has ended stays as it is. It is given up only once that is on
    /// disk: else the next start would go on with what an operator believes to have ended.
    pub(super) async fn cancel(&self, held: &Held<W>, doing: Doing<'_>) -> Result<(), Problem> {
        let _writing = held.writing.lock().await;
        let mut job = held.now();
        if job.state == Phase::Running {
            (job.state, job.ended_at) = (Phase::Cancelled, Some(clock::now()));
            self.store.act(vec![self.put(&job)], doing.act(job.id.clone())).await?;
            self.end(held, &job);
        }
        held.cancelled.cancel();
        Ok(())
    }

    /// Its work has ended so, which is shown once it is on disk: else a kill would take back what somebody has read. Where it
    /// cannot be written down, it is shown all the same, and the next process goes on with it. A process that stops leaves it
    /// running, and writes down how far it is.
    pub(super) async fn ended(&self, held: &Held<W>, how: Result<Phase, String>) {
        let _writing = held.writing.lock().await;
        let mut job = held.now();
        if job.state != Phase::Running {
            return;
        }
        if !self.stop.is_cancelled() {
            (job.state, job.error) = match how {
                Ok(state) => (state, None),
                Err(why) => (Phase::Failed, Some(why)),
            };
            job.ended_at = Some(clock::now());
        }
        self.write(&job).await;
        if job.state != Phase::Running {
            self.end(held, &job);
        }
    }

    /// Shows the end that was written down.
    fn end(&self, held: &Held<W>, ended: &Job<W>) {
        let mut job = held.job.lock();
        (job.state, job.error, job.ended_at) = (ended.state, ended.error.clone(), ended.ended_at);
        tracing::info!(job.kind = self.kind, job.id = job.id, job.state = ?job.state, "job.ended");
    }

    fn hold(&self, job: Job<W>) -> Arc<Held<W>> {
        let cancelled = self.stop.child_token();
        let (job, writing) = (Mutex::new(job), tokio::sync::Mutex::default());
        Arc::new(Held { job, writing, cancelled, since: Instant::now() })
    }

    /// Oldest first.
    async fn load(&self) -> Result<Vec<Job<W>>, AskError> {
        let prefix = self.key("");
        let mut entries =
            self.store.entries(Table::Jobs, Some(nobody()), Some((nobody(), prefix.clone()))).await?;
        entries.retain(|entry| entry.key.starts_with(&prefix));
        let read = |entry: Entry| match serde_json::from_str(&entry.value) {
            Ok(job) => Some(job),
            Err(error) => {
                tracing::error!(job.key = entry.key, error = %error, "job.unreadable");
                None
            }
        };
        Ok(entries.into_iter().filter_map(read).collect())
    }

    fn put(&self, job: &Job<W>) -> Change {
        Change::Put(Table::Jobs, self.entry(job))
    }

    fn key(&self, id: &str) -> String {
        format!("{}/{id}", self.kind)
    }

    fn entry(&self, job: &Job<W>) -> Entry {
        // Jobs are plain values: they are always written.
        let value = serde_json::to_string(job).unwrap_or_default();
        Entry { account: nobody(), key: self.key(&job.id), value, saved_at: clock::now() }
    }
}

/// Jobs are of no account: their values say whose work they do.
fn nobody() -> AccountId {
    AccountId::new("")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::testing::store;

    fn doing(caller: &Caller) -> Doing<'_> {
        Doing { caller, act: "replay.cancel", account: None, told: "{}".to_owned() }
    }

    #[tokio::test]
    async fn a_job_is_given_up_once_that_is_on_disk_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let caller = Caller { name: Arc::from("ops") };
        let (closed, thread) = store(dir.path()).await;
        let book = Book::new(closed.clone(), "replay", CancellationToken::new());
        let held = book.begin(7_u64, doing(&caller)).await.unwrap();
        closed.close();
        thread.join().unwrap();
        for _ in 0..2 {
            assert!(book.cancel(&held, doing(&caller)).await.is_err(), "also when it is tried again");
            assert_eq!((held.now().state, held.cancelled.is_cancelled()), (Phase::Running, false));
        }

        let (open, thread) = store(dir.path()).await;
        let book = Book::<u64>::new(open.clone(), "replay", CancellationToken::new());
        let resumed = book.resume().await;
        assert_eq!(resumed.len(), 1);
        assert!(book.cancel(&resumed[0], doing(&caller)).await.is_ok());
        assert_eq!((resumed[0].now().state, resumed[0].cancelled.is_cancelled()), (Phase::Cancelled, true));
        // Whatever its work says afterwards.
        book.ended(&resumed[0], Ok(Phase::Done)).await;
        assert!(book.save(&resumed[0]).await);
        assert_eq!(book.load().await.unwrap()[0].state, Phase::Cancelled);
        open.close();
        thread.join().unwrap();
    }

    #[tokio::test]
    async fn an_end_is_shown_once_it_is_on_disk_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let caller = Caller { name: Arc::from("ops") };
        let (store, thread) = store(dir.path()).await;
        let book = Book::new(store.clone(), "replay", CancellationToken::new());
        let held = book.begin(7_u64, doing(&caller)).await.unwrap();
        let mut ending = std::pin::pin!(book.ended(&held, Ok(Phase::Done)));
        let mut has_ended = false;
        while !has_ended {
            has_ended = tokio::select! {
                biased;
                () = &mut ending => true,
                () = std::future::ready(()) => false,
            };
            if held.now().state == Phase::Done {
                assert_eq!(book.load().await.unwrap()[0].state, Phase::Done);
            }
            tokio::task::yield_now().await;
        }
        assert_eq!(held.now().state, Phase::Done);
        store.close();
        thread.join().unwrap();
    }
}
