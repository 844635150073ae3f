//! Between the drain's lanes and the store's thread: what lanes want to read while a question is out is asked together, and what
//! was delivered is deleted together. Invariant: what a lane delivered is given to the store to delete before that lane is read
//! from its beginning, so that none reads a row that it has delivered.

use std::collections::{HashSet, VecDeque};
use std::convert::Infallible;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::replay::{AskError, Kept, LaneKey, LaneRows, Parked, Seq, Store};

/// Lanes of one question.
const GANG: usize = 128;
/// So many delivered rows are deleted at once,
const DELIVERED: usize = 1_024;
/// or when the first of them was delivered so long ago: until it is deleted, the end of the process would send it again.
const DELETE_AFTER: Duration = Duration::from_millis(20);

type Answer = Result<Vec<Kept<Parked>>, AskError>;

/// What one lane wants to read, and whom to tell.
struct Wish {
    rows: LaneRows,
    answer: oneshot::Sender<Answer>,
}

/// What is to be deleted and whose it is, and since when it waits; none where nothing does.
#[derive(Default)]
struct Delivered {
    seqs: Vec<Seq>,
    lanes: HashSet<LaneKey>,
    since: Option<Instant>,
}

/// See the module.
pub(super) struct Rows {
    store: Store,
    wishes: Mutex<VecDeque<Wish>>,
    rung: Notify,
    delivered: Mutex<Delivered>,
}

impl Rows {
    pub(super) fn new(store: Store) -> Self {
        Self { store, wishes: Mutex::default(), rung: Notify::new(), delivered: Mutex::default() }
    }

    /// Rows of one lane, once [`serve`](Self::serve) has asked for them.
    pub(super) async fn read(&self, rows: LaneRows) -> Answer {
        let (answer, answered) = oneshot::channel();
        self.wishes.lock().push_back(Wish { rows, answer });
        self.rung.notify_one();
        answered.await.unwrap_or(Err(AskError::Closed))
    }

    /// Asks the store what lanes wish to read, one question at a time.
    pub(super) async fn serve(&self) -> Infallible {
        loop {
            let mut gang: VecDeque<Wish> = {
                let mut wishes = self.wishes.lock();
                let count = wishes.len().min(GANG);
                wishes.drain(..count).collect()
            };
            if gang.is_empty() {
                self.rung.notified().await;
                continue;
            }
            // Each deletion is a transaction with an fsync: reads that do not need one do without.
            if gang.iter().any(|wish| self.would_see_delivered(&wish.rows)) {
                self.delete();
            }
            let wanted = gang.iter().map(|wish| wish.rows.clone()).collect();
            match self.store.read_lanes(wanted).await {
                Ok(found) => {
                    for rows in found {
                        if let Some(wish) = gang.pop_front() {
                            // Who wished may have left.
                            drop(wish.answer.send(Ok(rows)));
                        }
                    }
                    // The time of a question was over: they are the next one's first.
                    let mut wishes = self.wishes.lock();
                    for wish in gang.into_iter().rev() {
                        wishes.push_front(wish);
                    }
                }
                Err(error) => {
                    for wish in gang {
                        drop(wish.answer.send(Err(error.clone())));
                    }
                }
            }
        }
    }

    /// A lane is read on after what it has delivered; only from its beginning is that still there.
    fn would_see_delivered(&self, rows: &LaneRows) -> bool {
        rows.after.is_none() && self.delivered.lock().lanes.contains(&rows.lane)
    }

    /// These of a lane are acknowledged: they are deleted soon, together with others.
    pub(super) fn delivered(&self, lane: &LaneKey, seqs: &[Seq]) {
        let many = {
            let mut delivered = self.delivered.lock();
            delivered.since.get_or_insert_with(Instant::now);
            delivered.seqs.extend_from_slice(seqs);
            if !delivered.lanes.contains(lane) {
                delivered.lanes.insert(lane.clone());
            }
            delivered.seqs.len() >= DELIVERED
        };
        if many {
            self.delete();
        }
    }

    /// When what was delivered is to be deleted.
    pub(super) fn due(&self) -> Option<Instant> {
        self.delivered.lock().since.map(|since| since + DELETE_AFTER)
    }

    /// Has what was delivered deleted.
    pub(super) fn delete(&self) {
        let Delivered { seqs, .. } = std::mem::take(&mut *self.delivered.lock());
        self.store.delete(seqs);
    }
}
