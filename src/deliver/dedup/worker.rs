//! The thread that owns `seen.db`: answers look-ups, writes the journal, folds the tail every ten minutes, merges runs, drops whole
//! hours at the horizon. No answer to a sender waits for a write. Invariant: it survives whatever the file does; a file
//! that turns out to be broken is set aside and a new one begun.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::file::{self, File, FileError};
use super::merge::{Merge, Progress};
use super::tail::{Bucket, HOUR_MS, Short, Tail};
use super::{Dedup, horizon_ms};
use crate::config;
use crate::deliver::points::point;
use crate::event::{AccountId, EventType, Millis};
use crate::replay::Era;

/// Look-ups that may wait.
const QUEUE: usize = 4_096;
/// How long one request's questions are worked on: others wait behind them, for [`PATIENCE`](super::PATIENCE) at most.
pub(super) const WORK: Duration = Duration::from_millis(800);
/// How often the journal is written.
const COMMIT: Duration = Duration::from_millis(50);
/// How often the tail is folded.
const FOLD: Duration = Duration::from_secs(600);
/// Ids that bring a fold forward.
const MANY: usize = 500_000;
/// Hours of which runs are written in one transaction.
const HOURS: usize = 64;
/// Hours that pollers read again, and one more.
const READ_AGAIN: i64 = config::Dedup::READ_AGAIN.as_secs() as i64 / 3_600 + 1;
/// How long a write or a fold that failed is left alone.
const PAUSE: Duration = Duration::from_secs(5);
/// How often the same trouble is spoken of, how often a broken file is replaced, and how often a merge that failed is tried, at most.
const QUIET: Duration = Duration::from_secs(60);

/// The file cannot be opened, and is not broken; or not even a new one could be made.
#[derive(Debug, thiserror::Error)]
#[error("seen.db cannot be opened in {dir}")]
pub struct OpenError {
    dir: String,
    source: FileError,
}

/// What one request asks the worker.
pub struct Lookup {
    /// Its questions.
    pub questions: Vec<Question>,
    /// An answer each; none where the disk gives none, or where they are too many to be answered in time.
    pub tell: oneshot::Sender<Vec<Option<There>>>,
}

/// Ids of a question that are on disk: one at least, where any is.
pub type There = Vec<Short>;

/// Is one of these there?
pub struct Question {
    /// Where.
    pub place: Place,
    /// Which.
    pub ids: Vec<Short>,
}

impl Question {
    /// Whose ids.
    pub fn account(&self) -> &AccountId {
        match &self.place {
            Place::Hour(bucket) | Place::AnyHour(bucket) | Place::Late { now: bucket, .. } => &bucket.account,
        }
    }
}

/// Where to look.
pub enum Place {
    /// In one bucket.
    Hour(Bucket),
    /// In every hour of a bucket's account and type.
    AnyHour(Bucket),
    /// In this bucket, in that of the hour before, and in that of its own hour.
    Late { now: Bucket, own: i64 },
}

/// What opening found.
pub struct Opened {
    /// Buckets on disk.
    pub buckets: Vec<Bucket>,
    /// The journal's ids.
    pub tail: Tail,
    /// The worker's door.
    pub look_ups: SyncSender<Lookup>,
    /// The worker, not yet serving.
    pub idle: Idle,
}

/// A worker that does not know yet whom it serves.
pub struct Idle {
    pub(super) file: File,
    path: PathBuf,
    questions: Receiver<Lookup>,
    horizons: config::Dedup,
    /// The store's.
    pub(super) era: Era,
    /// The time by which what is remembered ages.
    ages_by: AgesBy,
}

/// Tells a time.
pub type AgesBy = Box<dyn FnMut() -> Millis + Send>;

/// Opens the file, or begins a new one where it is broken, and an empty one where the store is older.
pub fn open(dir: &Path, horizons: config::Dedup, era: Era, ages_by: AgesBy) -> Result<Opened, OpenError> {
    let path = dir.join("seen.db");
    let opened = open_or_set_aside(&path).and_then(|(mut file, mut tail)| {
        // Then the store is a backup, or another one.
        if file.has_seen(era.now()) {
            tracing::warn!("dedup.store_is_older");
            file.empty()?;
            tail = Tail::default();
        }
        Ok((file, tail))
    });
    let (file, tail) = opened.map_err(|source| OpenError { dir: dir.display().to_string(), source })?;
    let (look_ups, questions) = sync_channel(QUEUE);
    let buckets = file.buckets().cloned().collect();
    Ok(Opened { buckets, tail, look_ups, idle: Idle { file, path, questions, horizons, era, ages_by } })
}

fn open_or_set_aside(path: &Path) -> Result<(File, Tail), FileError> {
    File::open(path).or_else(|error| {
        if error.is_broken() {
            tracing::warn!(error = %error, "dedup.set_aside");
            file::set_aside(path);
            File::open(path)
        } else {
            Err(error)
        }
    })
}

impl Idle {
    /// The worker of this dedup.
    pub fn serve(self, dedup: Arc<Dedup>) -> Worker {
        let now = Instant::now();
        Worker {
            idle: self,
            dedup,
            folding_up_to: 0,
            parts_folded: 0,
            merging: None,
            merge_not_before: now,
            write_at: now,
            fold_at: now + FOLD,
            fold_not_before: now,
            trouble: Trouble::default(),
            begun_anew: None,
            is_fileless: false,
        }
    }
}

/// The thread's body: see [`Worker::run`].
pub struct Worker {
    pub(super) idle: Idle,
    dedup: Arc<Dedup>,
    /// The last row of the journal when the fold began.
    folding_up_to: i64,
    /// So many parts of what is being folded are on disk: a fold that failed goes on behind them.
    parts_folded: usize,
    merging: Option<Merge>,
    merge_not_before: Instant,
    write_at: Instant,
    fold_at: Instant,
    fold_not_before: Instant,
    trouble: Trouble,
    begun_anew: Option<Instant>,
    /// The broken file is set aside, and a new one could not be begun yet.
    is_fileless: bool,
}

/// What went wrong, spoken of at a bounded rate.
#[derive(Default)]
struct Trouble {
    told: Option<Instant>,
    untold: u64,
}

impl Trouble {
    fn tell(&mut self, doing: &'static str, error: &dyn std::fmt::Display) {
        if self.told.is_some_and(|told| told.elapsed() < QUIET) {
            self.untold += 1;
            return;
        }
        tracing::warn!(error = %error, doing, untold = self.untold, "dedup.disk_failed");
        (self.told, self.untold) = (Some(Instant::now()), 0);
    }
}

impl Worker {
    /// Serves until `stopping` says so; then writes what is left. To be run on a thread of its own.
    pub fn run(mut self, stopping: impl Fn() -> bool) {
        loop {
            let merges = self.merging.is_some() && Instant::now() >= self.merge_not_before;
            let patience = if merges { Duration::ZERO } else { COMMIT };
            let question = self.idle.questions.recv_timeout(patience);
            let stop = stopping() || question.as_ref().err() == Some(&RecvTimeoutError::Disconnected);
            if let Ok(question) = question {
                self.answer(question);
            }
            let now = Instant::now();
            if now >= self.write_at || stop {
                self.write();
            }
            if stop {
                return;
            }
            let due = now >= self.fold_at || self.dedup.tail.lock().len() >= MANY;
            if due && now >= self.fold_not_before {
                self.fold();
            }
            self.merge();
        }
    }

    fn answer(&mut self, Lookup { questions, tell }: Lookup) {
        let until = Instant::now() + WORK;
        // Whoever asked may have given up meanwhile.
        let is_over = || tell.is_closed() || Instant::now() >= until;
        let mut found = vec![None; questions.len()];
        // What may be in any hour of an account and type is asked together, so that each hour is read once.
        let mut anywhere: BTreeMap<Bucket, Vec<(usize, Vec<Short>)>> = BTreeMap::new();
        for (at, (Question { place, ids }, found)) in questions.into_iter().zip(&mut found).enumerate() {
            if is_over() {
                break;
            }
            match place {
                Place::Hour(bucket) => *found = self.look_in(&[bucket], &ids),
                Place::Late { now, own } => {
                    let hours = [now.hour, now.hour - 1, own].map(|hour| now.of_hour(hour));
                    *found = self.look_in(&hours, &ids);
                }
                Place::AnyHour(bucket) => {
                    anywhere.entry(Bucket { hour: 0, ..bucket }).or_default().push((at, ids));
                }
            }
        }
        for (bucket, asked) in anywhere {
            let ids = asked.iter().flat_map(|(_, ids)| ids).copied().collect();
            match self.idle.file.find_in_any_hour(&bucket, ids, is_over) {
                Ok(Some(there)) => {
                    for (at, ids) in asked {
                        if let Some(found) = found.get_mut(at) {
                            *found = Some(ids.into_iter().filter(|id| there.contains(id)).collect());
                        }
                    }
                }
                Ok(None) => {}
                Err(error) => self.failed("look-up", &error),
            }
        }
        if tell.send(found).is_ok() {
            self.dedup.answered.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One of these ids that one of these buckets has; none where the disk does not say.
    fn look_in(&mut self, buckets: &[Bucket], ids: &[Short]) -> Option<There> {
        for bucket in buckets {
            match self.idle.file.one_of(bucket, ids) {
                Ok(Some(id)) => return Some(vec![id]),
                Ok(None) => {}
                Err(error) => {
                    self.failed("look-up", &error);
                    return None;
                }
            }
        }
        Some(Vec::new())
    }

    /// Answers what waits: between the steps of what takes its time.
    pub(super) fn answer_waiting(&mut self) {
        for _ in 0..QUEUE {
            if !self.answer_one() {
                return;
            }
        }
    }

    /// False where nobody waits.
    pub(super) fn answer_one(&mut self) -> bool {
        let asked = self.idle.questions.try_recv().map(|question| self.answer(question));
        asked.is_ok()
    }

    /// Writes what was remembered and forgotten since the last time.
    pub(super) fn write(&mut self) {
        self.write_at = Instant::now() + COMMIT;
        if !self.has_file() {
            return;
        }
        if let Err(error) = self.write_tail() {
            self.write_at = Instant::now() + PAUSE;
            self.failed("write", &error);
        }
    }

    fn write_tail(&mut self) -> rusqlite::Result<()> {
        let unwritten = self.dedup.tail.lock().unwritten();
        point();
        // Read once they are taken: no id is on disk under an era before that in which it was learnt.
        let era = self.idle.era.now();
        self.idle.file.write(&unwritten, era).inspect_err(|_| {
            let left_out = self.dedup.tail.lock().not_written(unwritten);
            self.dedup.stats.not_written.fetch_add(left_out, Ordering::Relaxed);
        })
    }

    /// Folds the tail into runs on disk, and drops the hours beyond the horizon.
    pub(super) fn fold(&mut self) {
        if !self.has_file() {
            return;
        }
        self.fold_at = Instant::now() + FOLD;
        self.fold_not_before = Instant::now();
        let now = (self.idle.ages_by)();
        let folded = self.fold_tail(now).and_then(|()| self.expire(now));
        if let Err(error) = folded {
            self.fold_not_before = Instant::now() + PAUSE;
            self.fold_at = self.fold_not_before;
            self.failed("fold", &error);
        }
    }

    fn fold_tail(&mut self, now: Millis) -> rusqlite::Result<()> {
        self.write_tail()?;
        if !self.dedup.tail.lock().is_folding() {
            self.folding_up_to = self.idle.file.last_row()?;
        }
        // All that the journal's rows up to here hold is in this generation, or was folded before it.
        let generation = self.dedup.tail.lock().freeze();
        // How far it reaches, and its era, are written before it can be found on disk alone.
        self.write_tail()?;
        let begun_anew = self.begun_anew;
        let mut hours = generation.sorted();
        // Emptied, and not taken out: what comes after them stays where it was at the try before.
        for (_, ids) in hours.iter_mut().filter(|(b, _)| b.hour < self.oldest_hour(now, b.event_type)) {
            ids.clear();
        }
        for hours in hours.chunks(HOURS).skip(self.parts_folded) {
            self.idle.file.add_runs(hours)?;
            self.parts_folded += 1;
            self.answer_waiting();
            if self.begun_anew != begun_anew {
                // What was folded went with the broken file: once more, into the new one.
                return Ok(());
            }
        }
        self.idle.file.clear_journal(self.folding_up_to)?;
        self.parts_folded = 0;
        let folded = self.dedup.tail.lock().folded();
        // Both hold the last of it: it is dropped here, under no lock.
        drop((folded, generation));
        Ok(())
    }

    /// One step of runs that are alike on their way to become one, so that a look-up reads few. What is not merged is found all
    /// the same.
    pub(super) fn merge(&mut self) {
        if Instant::now() < self.merge_not_before {
            return;
        }
        if self.merging.is_some() {
            // A step takes longer than an answer: whoever asks waits for one of them, and not for one each.
            self.answer_waiting();
        }
        let Some(mut merge) = self.merging.take().or_else(|| self.idle.file.next_merge()) else { return };
        match merge.step(&mut self.idle.file) {
            Ok(Progress::More) => self.merging = Some(merge),
            Ok(Progress::Done) => self.merging = self.idle.file.next_merge(),
            Err(error) => {
                self.merge_not_before = Instant::now() + QUIET;
                self.merging = Some(merge.undone());
                self.failed("merge", &error);
            }
        }
    }

    fn expire(&mut self, now: Millis) -> rusqlite::Result<()> {
        let expired: Vec<Bucket> = self
            .idle
            .file
            .buckets()
            .filter(|bucket| bucket.hour < self.oldest_hour(now, bucket.event_type))
            .cloned()
            .collect();
        for bucket in &expired {
            self.merging.take_if(|merge| merge.is_of(bucket));
            while self.idle.file.drop_step(bucket)? == Progress::More {
                self.answer_waiting();
            }
        }
        self.dedup.front.lock().expired(|event_type| self.oldest_hour(now, event_type));
        // An id may be as far ahead as the horizon when it is remembered, and is kept for as long after its time.
        let longest = EventType::ALL.map(|event_type| horizon_ms(&self.idle.horizons, event_type));
        let longest = longest.into_iter().max().unwrap_or(0).saturating_mul(2);
        let before = now.0.saturating_sub(longest).saturating_sub(3 * HOUR_MS);
        self.idle.file.expire(before)?;
        self.dedup.tail.lock().expire(before);
        Ok(())
    }

    /// The oldest hour that is kept: all of it, and one more, so that no id within the horizon is missed. What lasts has its time at its
    /// beginning, and pollers read it again by its end.
    fn oldest_hour(&self, now: Millis, event_type: EventType) -> i64 {
        let horizon = horizon_ms(&self.idle.horizons, event_type);
        let again = match event_type {
            EventType::Trip | EventType::Stop | EventType::Usage | EventType::GeofenceCrossing => READ_AGAIN,
            EventType::Position
            | EventType::ItemSighting
            | EventType::Alert
            | EventType::GeofenceDefinition
            | EventType::Tracker
            | EventType::Media
            | EventType::ItemLeftBehind => 0,
        };
        now.0.saturating_sub(horizon).div_euclid(HOUR_MS) - 1 - again
    }

    fn failed(&mut self, doing: &'static str, error: &rusqlite::Error) {
        self.trouble.tell(doing, error);
        if file::is_broken(error) && self.begun_anew.is_none_or(|at| at.elapsed() >= QUIET) {
            self.begun_anew = Some(Instant::now());
            self.begin_anew();
        }
    }

    /// Whether there is a file to write to: one that could not be begun is tried again, for what hindered it, as a full disk does, passes.
    fn has_file(&mut self) -> bool {
        if self.is_fileless {
            self.begin_anew();
        }
        !self.is_fileless
    }

    /// Sets the broken file aside. What memory holds goes to the new one with the next fold.
    pub(super) fn begin_anew(&mut self) {
        let opened = File::none().map_err(FileError::from).and_then(|none| {
            // The old one is closed before it is renamed.
            self.idle.file = none;
            // At another try it is aside already, and what is there now is not to take its place.
            if !self.is_fileless {
                file::set_aside(&self.idle.path);
            }
            open_or_set_aside(&self.idle.path)
        });
        self.folding_up_to = 0;
        self.parts_folded = 0;
        self.merging = None;
        let mut next = Instant::now();
        match opened {
            Ok((file, _)) => {
                self.idle.file = file;
                self.is_fileless = false;
                self.dedup.tail.lock().write_again();
            }
            Err(error) => {
                self.is_fileless = true;
                self.trouble.tell("begin anew", &error);
                next += PAUSE;
            }
        }
        (self.write_at, self.fold_at, self.fold_not_before) = (next, next, next);
    }

    /// The file's path, to be broken by tests.
    #[cfg(test)]
    pub(super) fn file(&mut self) -> &mut File {
        &mut self.idle.file
    }
}
