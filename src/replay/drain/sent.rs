//! The outcomes of one send of the drain, in the order of its rows.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::bus::{Awaiting, Outcome};

/// See the module. None is the outcome of what was not sent.
pub(super) struct Sent {
    outcomes: Mutex<Vec<Option<Outcome>>>,
    left: AtomicUsize,
    done: Notify,
}

impl Sent {
    pub(super) fn new(events: usize) -> Self {
        Self { outcomes: Mutex::new(vec![None; events]), left: AtomicUsize::new(events), done: Notify::new() }
    }

    /// Those from `place` on were not sent.
    pub(super) fn skip_from(&self, place: usize) {
        let skipped = self.outcomes.lock().len().saturating_sub(place);
        if skipped > 0 && self.left.fetch_sub(skipped, Ordering::AcqRel) == skipped {
            self.done.notify_one();
        }
    }

    /// Waits until each that was sent has its outcome.
    pub(super) async fn settled(&self) {
        while self.left.load(Ordering::Acquire) > 0 {
            self.done.notified().await;
        }
    }

    pub(super) fn outcomes(&self) -> Vec<Option<Outcome>> {
        std::mem::take(&mut *self.outcomes.lock())
    }
}

impl Awaiting for Sent {
    fn resolve(&self, entry: u64, outcome: Outcome) {
        if let Some(place) = self.outcomes.lock().get_mut(entry as usize) {
            *place = Some(outcome);
        }
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.done.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_send_is_settled_once_all_that_was_sent_is() {
        let sent = Sent::new(3);
        sent.resolve(0, Outcome::Delivered);
        sent.skip_from(2);
        sent.resolve(1, Outcome::Unresolved);
        sent.settled().await;
        assert_eq!(sent.outcomes(), [Some(Outcome::Delivered), Some(Outcome::Unresolved), None]);
    }
}
