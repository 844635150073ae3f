//! Work that its caller awaits, and that outlives it. Invariant: once begun it runs to its end, whatever becomes of the caller:
//! where that is dropped, the work goes on as a task of its own. Until then it needs none: no hand-over, and no wake-up more
//! than its own. Used by `accept`, whose deliveries nobody may take back.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// See the module. Ends with the panic, where the work panicked.
pub(super) struct Detached<T: Send + 'static> {
    /// None once it has ended.
    work: Option<BoxFuture<'static, Result<T, Box<dyn Any + Send>>>>,
    begun: bool,
    tracker: TaskTracker,
    runtime: Handle,
    /// Who waits for the tracker waits for this.
    _counted: TaskTrackerToken,
}

impl<T: Send + 'static> Detached<T> {
    /// Called within the runtime on which the work goes on.
    pub(super) fn new(work: impl Future<Output = T> + Send + 'static, tracker: &TaskTracker) -> Self {
        Self {
            work: Some(AssertUnwindSafe(work).catch_unwind().boxed()),
            begun: false,
            tracker: tracker.clone(),
            runtime: Handle::current(),
            _counted: tracker.token(),
        }
    }
}

impl<T: Send + 'static> Future for Detached<T> {
    type Output = Result<T, Box<dyn Any + Send>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.begun = true;
        let Some(work) = self.work.as_mut() else { return Poll::Pending };
        let ended = work.as_mut().poll(cx);
        if ended.is_ready() {
            self.work = None;
        }
        ended
    }
}

impl<T: Send + 'static> Drop for Detached<T> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take().filter(|_| self.begun) {
            // What it comes to nobody waits for.
            self.tracker.spawn_on(async move { drop(work.await) }, &self.runtime);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn what_was_begun_is_seen_through_although_nobody_waits_any_more() {
        let tracker = TaskTracker::new();
        let (begin, begun) = oneshot::channel::<()>();
        let (tell, told) = oneshot::channel();
        let mut work = Detached::new(
            async move {
                begun.await.ok();
                tell.send(7).ok();
            },
            &tracker,
        );
        assert!(timeout(Duration::ZERO, &mut work).await.is_err());
        drop(work);
        tracker.close();
        assert!(timeout(Duration::ZERO, tracker.wait()).await.is_err(), "the tracker forgot it");
        begin.send(()).unwrap();
        assert_eq!(told.await, Ok(7));
        tracker.wait().await;
    }

    #[tokio::test]
    async fn what_was_not_begun_is_not_done() {
        let tracker = TaskTracker::new();
        let (tell, told) = oneshot::channel();
        drop(Detached::new(async move { tell.send(()).ok() }, &tracker));
        assert!(told.await.is_err());
        tracker.close();
        tracker.wait().await;
    }

    #[tokio::test]
    async fn a_panic_is_the_works_and_not_the_callers() {
        let work =
            Detached::new(async { std::panic::resume_unwind(Box::new("broken")) }, &TaskTracker::new());
        let ended: Result<(), _> = work.await;
        assert!(ended.is_err());
    }
}
