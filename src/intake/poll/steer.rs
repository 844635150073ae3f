//! How a feed that runs is steered from outside: paused, resumed, its cursor moved. Invariant: whoever changes or saves a
//! cursor holds `Steering::plan`, so that a poll in hand never writes over a move. Neighbours: `feed` runs by it, `desk` steers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, Notify, watch};
use tokio::time::{sleep, timeout};

use super::plan::{Cursor, Live};
use super::request::Endpoint;

/// See the module.
pub struct Steering {
    paused: watch::Sender<bool>,
    /// Held while a window is asked for and handed over.
    pub(super) plan: Mutex<Held>,
    moved: Notify,
}

/// The live plan, and what of it is on disk.
pub(super) struct Held {
    pub(super) plan: Live,
    pub(super) saved: Cursor,
}

impl Steering {
    pub(super) fn new(endpoint: Endpoint, cursor: Cursor) -> Self {
        let plan = Mutex::new(Held { plan: Live::new(endpoint, cursor), saved: cursor });
        Self { paused: watch::Sender::new(false), plan, moved: Notify::new() }
    }

    /// Whether nothing is asked for, until somebody resumes it.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        *self.paused.borrow()
    }

    /// A poll that has gone out is finished; none goes out while it is paused.
    pub(super) fn pause(&self, paused: bool) {
        self.paused.send_replace(paused);
    }

    /// Waits until it is paused while a call has not gone out yet.
    pub(super) async fn paused_before(&self, gone_out: &AtomicBool) {
        let is = |paused: &bool| *paused && !gone_out.load(Ordering::Relaxed);
        self.paused.subscribe().wait_for(is).await.ok();
    }

    /// Waits until it is not paused.
    pub(super) async fn resumed(&self) {
        // The sender is this very thing: it does not go away.
        self.paused.subscribe().wait_for(|paused| !paused).await.ok();
    }

    /// Rests for so long, or until the cursor is moved.
    pub(super) async fn rest(&self, pause: Duration) {
        tokio::select! {
            () = sleep(pause) => {}
            () = self.moved.notified() => {}
        }
    }

    /// The plan, once no poll is in hand; none where that takes too long.
    pub(super) async fn take(&self, patience: Duration) -> Option<tokio::sync::MutexGuard<'_, Held>> {
        timeout(patience, self.plan.lock()).await.ok()
    }

    /// The cursor was moved: it is gone on from at once.
    pub(super) fn moved(&self) {
        self.moved.notify_one();
    }
}
