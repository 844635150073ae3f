//! What waits for the store's thread: parks first, then everything else in its order. Invariant: a task is taken only
//! when every park that was queued before it has been taken, so a read sees what was parked before it was asked, and a
//! delete finds its row. Neither side ever waits for the other's work: pushing is a lock and a push.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::error::Trouble;
use super::tally::Room;
use super::{AskError, Discarded, Filter, ParkError, Parked, ParkedRaw, Reason, Seq, Still};
use crate::event::AccountId;

/// Told once, on the store's thread, after the commit or when it is clear that there will be none. Must not block.
pub type Done = Box<dyn FnOnce(Result<(), ParkError>) + Send>;

/// The most rows that may wait to be parked; beyond it the answer is [`ParkError::Busy`].
const QUEUED_ROWS: usize = 100_000;
/// The most bytes of them.
const QUEUED_BYTES: u64 = 64 << 20;

/// Rows to park together.
pub(super) struct ParkJob {
    pub(super) rows: Rows,
    /// What they count for.
    pub(super) cost: u64,
    /// Whose they are, and what was reserved for them.
    pub(super) account: AccountId,
    pub(super) room: Room,
    pub(super) done: Done,
}

/// What is parked.
pub(super) enum Rows {
    Events(Vec<Parked>),
    /// In the place of another row, where that is still there.
    Instead {
        old: Seq,
        rows: Vec<Parked>,
    },
    Raw(Vec<RawRow>),
}

impl Rows {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Events(rows) | Self::Instead { rows, .. } => rows.len(),
            Self::Raw(rows) => rows.len(),
        }
    }
}

/// Raw bytes with their place and the digest by which a second copy is known.
pub(super) struct RawRow {
    pub(super) seq: Seq,
    pub(super) digest: [u8; 32],
    pub(super) raw: ParkedRaw,
}

/// A change of anything but parked rows.
pub(super) type Change = Box<dyn FnOnce(&Connection) -> rusqlite::Result<()> + Send>;
/// A question: it answers by itself, and says what trouble it met.
pub(super) type Question = Box<dyn FnOnce(&Connection) -> Result<(), Trouble> + Send>;

/// Everything that is not a park.
pub(super) enum Task {
    /// Delivered: tried until it succeeds.
    Delete(VecDeque<Seq>),
    /// Provisional no more: tried until it succeeds.
    Free(VecDeque<Seq>),
    /// Waits for something else from now on: tried until it succeeds.
    Mark { seqs: VecDeque<Seq>, reason: Reason, error: String },
    /// Tried once.
    Change { change: Change, answer: oneshot::Sender<Result<(), AskError>> },
    /// Tried once.
    Question(Question),
    /// Holds the file still for a copy. Tried once.
    Hold(oneshot::Sender<Result<Still, AskError>>),
    /// One slice of rows that an operator throws away: those after one place, and before another. Tried once.
    Discard {
        filter: Filter,
        after: Seq,
        before: Seq,
        answer: oneshot::Sender<Result<(Discarded, Option<Seq>), AskError>>,
    },
}

impl Task {
    /// How many rows it still has to change.
    pub(super) fn rows(&self) -> usize {
        match self {
            Self::Delete(seqs) | Self::Free(seqs) | Self::Mark { seqs, .. } => seqs.len(),
            Self::Change { .. } | Self::Question(_) | Self::Hold(_) | Self::Discard { .. } => 0,
        }
    }

    /// Leaves it the first `room` rows; the rest is a task of its own.
    pub(super) fn split(&mut self, room: usize) -> Option<Self> {
        if self.rows() <= room {
            return None;
        }
        match self {
            Self::Delete(seqs) => Some(Self::Delete(rest_of(seqs, room))),
            Self::Free(seqs) => Some(Self::Free(rest_of(seqs, room))),
            Self::Mark { seqs, reason, error } => {
                Some(Self::Mark { seqs: rest_of(seqs, room), reason: *reason, error: error.clone() })
            }
            Self::Change { .. } | Self::Question(_) | Self::Hold(_) | Self::Discard { .. } => None,
        }
    }
}

/// Leaves the first `room` rows. The rest, which may be long and is taken off step by step, is not copied.
fn rest_of(seqs: &mut VecDeque<Seq>, room: usize) -> VecDeque<Seq> {
    let first = seqs.drain(..room).collect();
    std::mem::replace(seqs, first)
}

/// The queue. Parks are bounded here; questions and changes by the permits of `Store`; deletes, frees and marks by the
/// rows that `deliver` has in hand: each row is deleted once, and no lane is read before the deletes ahead of the read.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Default)]
struct State {
    parks: VecDeque<ParkJob>,
    park_rows: usize,
    park_bytes: u64,
    /// Parks ever queued, and ever taken.
    queued: u64,
    taken: u64,
    tasks: VecDeque<(u64, Task)>,
    phase: Phase,
    /// Since when the store's thread is at work; none while it waits here.
    at_work: Option<Instant>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Phase {
    /// It takes what comes.
    #[default]
    Open,
    /// It takes nothing more; what is queued is done.
    Closing,
    /// It takes nothing more, and nothing is done.
    Broken,
}

/// Whether tasks may be taken now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tasks {
    Wanted,
    Paused,
}

impl Queue {
    /// Queues a park.
    ///
    /// # Errors
    /// The job again, where it cannot be queued.
    pub(super) fn park(&self, job: ParkJob) -> Result<(), (ParkError, ParkJob)> {
        let mut state = self.state.lock();
        if state.phase != Phase::Open {
            return Err((ParkError::Closed, job));
        }
        // A job larger than the bound is let in alone, else it never would be.
        let rows = state.park_rows + job.rows.len();
        let bytes = state.park_bytes.saturating_add(job.cost);
        if (rows > QUEUED_ROWS || bytes > QUEUED_BYTES) && !state.parks.is_empty() {
            return Err((ParkError::Busy, job));
        }
        state.park_rows = rows;
        state.park_bytes = bytes;
        state.queued += 1;
        state.parks.push_back(job);
        drop(state);
        self.filled.notify_one();
        Ok(())
    }

    /// Queues a task; `false` where the store is closed. Deletes and frees that follow each other become
    /// one.
    pub(super) fn task(&self, task: Task) -> bool {
        let mut state = self.state.lock();
        if state.phase == Phase::Broken {
            return false;
        }
        let after = state.queued;
        match (state.tasks.back_mut(), task) {
            // Only where no park came between: a task whose turn is moved back each time might never have it.
            (Some((last, Task::Delete(seqs))), Task::Delete(more)) if *last == after => seqs.extend(more),
            (Some((last, Task::Free(seqs))), Task::Free(more)) if *last == after => seqs.extend(more),
            (_, task) => state.tasks.push_back((after, task)),
        }
        drop(state);
        self.filled.notify_one();
        true
    }

    /// Puts a task back in front: it is not done.
    pub(super) fn put_back(&self, task: Task) {
        self.state.lock().tasks.push_front((0, task));
    }

    /// The next park.
    pub(super) fn next_park(&self) -> Option<ParkJob> {
        let mut state = self.state.lock();
        let job = state.parks.pop_front()?;
        state.park_rows -= job.rows.len();
        state.park_bytes -= job.cost;
        state.taken += 1;
        Some(job)
    }

    /// Whether a park waits.
    pub(super) fn has_parks(&self) -> bool {
        !self.state.lock().parks.is_empty()
    }

    /// The next task, where no earlier park waits.
    pub(super) fn next_task(&self) -> Option<Task> {
        let mut state = self.state.lock();
        if state.tasks.front()?.0 > state.taken {
            return None;
        }
        state.tasks.pop_front().map(|(_, task)| task)
    }

    /// Waits for something to do, or until `tick`.
    pub(super) fn wait(&self, tick: Instant, tasks: Tasks) {
        let mut state = self.state.lock();
        state.at_work = None;
        loop {
            let wanted = tasks == Tasks::Wanted;
            let work = !state.parks.is_empty() || (wanted && !state.tasks.is_empty());
            let ends = match state.phase {
                Phase::Open => false,
                Phase::Closing => wanted,
                Phase::Broken => true,
            };
            if work || ends || self.filled.wait_until(&mut state, tick).timed_out() {
                state.at_work = Some(Instant::now());
                return;
            }
        }
    }

    /// How long the store's thread has not come back for more; zero while it waits for it.
    pub(super) fn at_work_for(&self) -> Duration {
        let state = self.state.lock();
        let at_work = state.at_work.filter(|_| state.phase != Phase::Broken);
        at_work.map(|since| since.elapsed()).unwrap_or_default()
    }

    /// Lets nothing more in.
    pub(super) fn close(&self, phase: Phase) {
        self.state.lock().phase = phase;
        self.filled.notify_one();
    }

    pub(super) fn phase(&self) -> Phase {
        self.state.lock().phase
    }

    /// Rows that wait to be parked, and rows that wait to be deleted, freed or marked.
    pub(super) fn depth(&self) -> (usize, usize) {
        let state = self.state.lock();
        let tasks = state.tasks.iter().map(|(_, task)| task.rows()).sum();
        (state.park_rows, tasks)
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        let state = self.state.lock();
        state.parks.is_empty() && state.tasks.is_empty()
    }

    /// Drops every task: who waits for an answer hears that the store is closed.
    pub(super) fn drop_tasks(&self) {
        let tasks = std::mem::take(&mut self.state.lock().tasks);
        drop(tasks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_how_long_the_thread_has_been_at_work_and_of_none_while_it_waits() {
        let queue = Queue::default();
        assert_eq!(queue.at_work_for(), Duration::ZERO);
        queue.wait(Instant::now(), Tasks::Wanted);
        while queue.at_work_for().is_zero() {
            std::thread::yield_now();
        }
        std::thread::scope(|scope| {
            scope.spawn(|| queue.wait(Instant::now() + Duration::from_secs(3_600), Tasks::Wanted));
            while !queue.at_work_for().is_zero() {
                std::thread::yield_now();
            }
            queue.close(Phase::Broken);
        });
        assert_eq!(queue.at_work_for(), Duration::ZERO, "nobody is at work any more");
    }
}
