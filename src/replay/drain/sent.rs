//! The outcomes of one send of the drain, in the order of its rows, and the sends that are late. A lane whose acknowledgement
//! does not come is left with the bus: its last outcome brings the send to [`Late`], and until then the drain holds a few bytes
//! a row for it, but neither a future nor a payload. Invariant: a send ends once, with the lane that waits for it or there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::bus::{Awaiting, Outcome, Window};
use crate::event::EventType;
use crate::replay::{Kept, LaneKey, Parked, Seq};

/// What may be late at once, in events and bytes, on a bus that takes one of a lane at a time and on one that takes batches:
/// half of what the bus's client holds, so that the other half is left to what does not hang.
const MOST: (Most, Most) =
    (Most { events: 2_048, bytes: 32 << 20 }, Most { events: 65_536, bytes: 32 << 20 });

struct Most {
    events: usize,
    bytes: u64,
}

/// A row that was sent, as far as the books need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// It was read whole.
    Whole(Seq, EventType),
    /// Its bytes have changed on the disk.
    Damaged(Seq),
}

impl Mark {
    pub(super) const fn of(row: &Kept<Parked>) -> Self {
        match row {
            Kept::Whole(row) => Self::Whole(row.seq, row.event_type),
            Kept::Damaged(seq) => Self::Damaged(*seq),
        }
    }

    pub(super) const fn seq(self) -> Seq {
        match self {
            Self::Whole(seq, _) | Self::Damaged(seq) => seq,
        }
    }
}

/// A send of which nothing is open any more. None is the outcome of what was not sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Settled {
    pub(super) key: LaneKey,
    pub(super) marks: Vec<Mark>,
    pub(super) outcomes: Vec<Option<Outcome>>,
    pub(super) begun: Instant,
}

impl Settled {
    /// How many of them the bus acknowledged.
    pub(super) fn delivered(&self) -> usize {
        self.outcomes.iter().filter(|outcome| **outcome == Some(Outcome::Delivered)).count()
    }
}

/// See the module.
pub(super) struct Sent {
    open: Mutex<Open>,
    bytes: u64,
    done: Notify,
}

struct Open {
    settled: Settled,
    left: usize,
    /// Where it ends, once its lane does not wait for it any more.
    late: Option<Arc<Late>>,
}

impl Sent {
    pub(super) fn new(key: &LaneKey, rows: &[Kept<Parked>]) -> Self {
        let bytes = |row: &Kept<Parked>| match row {
            Kept::Whole(row) => row.payload.len() as u64,
            Kept::Damaged(_) => 0,
        };
        let settled = Settled {
            key: key.clone(),
            marks: rows.iter().map(Mark::of).collect(),
            outcomes: vec![None; rows.len()],
            begun: Instant::now(),
        };
        let open = Mutex::new(Open { settled, left: rows.len(), late: None });
        Self { open, bytes: rows.iter().map(bytes).sum(), done: Notify::new() }
    }

    /// Those from `place` on were not sent.
    pub(super) fn skip_from(&self, place: usize) {
        let mut open = self.open.lock();
        let skipped = open.settled.outcomes.len().saturating_sub(place);
        self.ended(&mut open, skipped);
    }

    /// Waits until each that was sent has its outcome.
    pub(super) async fn settled(&self) {
        while self.open.lock().left > 0 {
            self.done.notified().await;
        }
    }

    /// Nobody waits for it any more: it ends there. False where it has ended.
    pub(super) fn leave_to(&self, late: &Arc<Late>) -> bool {
        let mut open = self.open.lock();
        if open.left > 0 {
            late.events.fetch_add(open.settled.marks.len(), Ordering::Relaxed);
            late.bytes.fetch_add(self.bytes, Ordering::Relaxed);
            open.late = Some(Arc::clone(late));
        }
        open.left > 0
    }

    /// What became of each, and how long that took.
    pub(super) fn take(&self) -> Settled {
        take(&mut self.open.lock().settled)
    }

    fn ended(&self, open: &mut Open, count: usize) {
        if count == 0 {
            return;
        }
        open.left = open.left.saturating_sub(count);
        if open.left > 0 {
            return;
        }
        match open.late.take() {
            Some(late) => late.came(take(&mut open.settled), self.bytes),
            None => self.done.notify_one(),
        }
    }
}

fn take(settled: &mut Settled) -> Settled {
    Settled {
        key: settled.key.clone(),
        marks: std::mem::take(&mut settled.marks),
        outcomes: std::mem::take(&mut settled.outcomes),
        begun: settled.begun,
    }
}

impl Awaiting for Sent {
    fn resolve(&self, entry: u64, outcome: Outcome) {
        let mut open = self.open.lock();
        if let Some(place) = open.settled.outcomes.get_mut(entry as usize) {
            *place = Some(outcome);
        }
        self.ended(&mut open, 1);
    }
}

/// Sends whose lanes do not wait for them: how much of them is open, and those that ended.
#[derive(Default)]
pub(super) struct Late {
    events: AtomicUsize,
    bytes: AtomicU64,
    settled: Mutex<Vec<Settled>>,
    rung: Notify,
}

impl Late {
    fn came(&self, settled: Settled, bytes: u64) {
        let events = settled.marks.len();
        // First: who sees none open finds them all.
        self.settled.lock().push(settled);
        self.events.fetch_sub(events, Ordering::Release);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.rung.notify_one();
    }

    /// Those that ended and were not taken yet.
    pub(super) fn take(&self) -> Vec<Settled> {
        std::mem::take(&mut *self.settled.lock())
    }

    /// Until one has ended since this was awaited last.
    pub(super) async fn rung(&self) {
        self.rung.notified().await;
    }

    /// Whether any is open.
    pub(super) fn is_any(&self) -> bool {
        self.events.load(Ordering::Acquire) > 0
    }

    /// Whether no more should become late.
    pub(super) fn is_full(&self, window: Window) -> bool {
        let most = match window {
            Window::One => MOST.0,
            Window::Unlimited => MOST.1,
        };
        self.events.load(Ordering::Relaxed) >= most.events || self.bytes.load(Ordering::Relaxed) >= most.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::AccountId;

    fn sent(rows: u64) -> (LaneKey, Sent) {
        let key =
            LaneKey { account: AccountId::new("acme"), topic: "topic".into(), subject: "vehicle".into() };
        let rows: Vec<Kept<Parked>> = (0..rows).map(|seq| Kept::Damaged(Seq(seq))).collect();
        let sent = Sent::new(&key, &rows);
        (key, sent)
    }

    #[tokio::test]
    async fn a_send_is_settled_once_all_that_was_sent_is() {
        let (_, sent) = sent(3);
        sent.resolve(0, Outcome::Delivered);
        sent.skip_from(2);
        sent.resolve(1, Outcome::Unresolved);
        sent.settled().await;
        assert!(!sent.leave_to(&Arc::default()), "it has ended");
        assert_eq!(sent.take().outcomes, [Some(Outcome::Delivered), Some(Outcome::Unresolved), None]);
    }

    #[tokio::test]
    async fn what_is_late_ends_there_with_what_came_before_it_was() {
        let ((key, sent), late) = (sent(2), Arc::new(Late::default()));
        sent.resolve(1, Outcome::Delivered);
        assert!(sent.leave_to(&late));
        assert!(late.is_any() && late.take().is_empty());
        sent.resolve(0, Outcome::Unresolved);
        late.rung().await;
        assert!(!late.is_any());
        let [settled] = &late.take()[..] else { panic!("one") };
        assert_eq!((&settled.key, settled.marks[1]), (&key, Mark::Damaged(Seq(1))));
        assert_eq!(settled.outcomes, [Some(Outcome::Unresolved), Some(Outcome::Delivered)]);
    }

    #[test]
    fn what_may_be_late_has_a_bound() {
        let ((_, sent), late) = (sent(2_048), Arc::new(Late::default()));
        assert!(!late.is_full(Window::One));
        assert!(sent.leave_to(&late));
        assert!(late.is_full(Window::One) && !late.is_full(Window::Unlimited));
    }
}
