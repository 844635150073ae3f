//! What lies on a disk that may hang, read aside: on a thread of its own, under a deadline. Invariants: of each thing at most one read
//! hangs, and none is begun before that one has ended, so that a disk costs a thread at most and holds nobody up; what was read last
//! is told meanwhile, for who can go on with it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use crate::config::{Secret, SecretError, SecretSource};

/// How long one read may take: a network's file system answers far sooner.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// One thing that is read again and again. See the module.
pub(crate) struct Aside<V, E> {
    patience: Duration,
    last: Mutex<Option<V>>,
    /// Held while somebody waits for it.
    reading: tokio::sync::Mutex<Option<Begun<V, E>>>,
}

/// A read that has not been seen to end.
struct Begun<V, E> {
    until: Instant,
    thread: JoinHandle<Result<V, E>>,
}

/// Why there is nothing new.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Miss<V, E> {
    /// It was read, and is not good.
    Failed(E),
    /// It does not come: its disk hangs. What was read last, where anything was.
    Late(Option<V>),
}

impl<V: Clone + Send + 'static, E: Send + 'static> Aside<V, E> {
    pub(crate) fn new() -> Self {
        Self::with_patience(PATIENCE)
    }

    pub(crate) fn with_patience(patience: Duration) -> Self {
        Self { patience, last: Mutex::default(), reading: tokio::sync::Mutex::default() }
    }

    /// Reads it now. May be dropped at any await: the read goes on, and who comes next waits for the rest of its time.
    pub(crate) async fn read(
        &self,
        by: impl FnOnce() -> Result<V, E> + Send + 'static,
    ) -> Result<V, Miss<V, E>> {
        let Ok(mut reading) = timeout(self.patience, self.reading.lock()).await else {
            return Err(self.late());
        };
        if let Some(Begun { until, thread }) = &mut *reading {
            let Ok(earlier) = timeout_at(*until, thread).await else { return Err(self.late()) };
            // It is not told as what is there now, for it may have been read long ago.
            if let Ok(Ok(value)) = earlier {
                *self.last.lock() = Some(value);
            }
        }
        let begun = Begun { until: Instant::now() + self.patience, thread: tokio::task::spawn_blocking(by) };
        let Begun { until, thread } = reading.insert(begun);
        let Ok(read) = timeout_at(*until, thread).await else { return Err(self.late()) };
        *reading = None;
        match read {
            Ok(Ok(value)) => {
                *self.last.lock() = Some(value.clone());
                Ok(value)
            }
            Ok(Err(error)) => Err(Miss::Failed(error)),
            // The process ends.
            Err(_) => Err(self.late()),
        }
    }

    fn late(&self) -> Miss<V, E> {
        Miss::Late(self.last.lock().clone())
    }

    /// Whether somebody waits for a read.
    pub(crate) fn is_awaited(&self) -> bool {
        self.reading.try_lock().is_err()
    }

    /// Whether a read was given up and has not ended.
    pub(crate) fn hangs(&mut self) -> bool {
        self.reading.get_mut().as_ref().is_some_and(|begun| !begun.thread.is_finished())
    }
}

/// A secret that is read for each use. While its disk hangs the last one stays in use.
pub(crate) struct Kept {
    source: SecretSource,
    aside: Aside<Secret, SecretError>,
    /// That it hangs was said.
    said: AtomicBool,
}

impl Kept {
    pub(crate) fn new(source: SecretSource) -> Self {
        Self { source, aside: Aside::new(), said: AtomicBool::new(false) }
    }

    /// As it reads now.
    pub(crate) async fn read(&self) -> Result<Secret, SecretError> {
        let source = self.source.clone();
        let read = match self.source {
            // It has no disk.
            SecretSource::Env(_) => return source.read(),
            SecretSource::File(_) => self.aside.read(move || source.read()).await,
        };
        match read {
            Ok(secret) => {
                self.said.store(false, Ordering::Relaxed);
                Ok(secret)
            }
            Err(Miss::Failed(error)) => Err(error),
            Err(Miss::Late(None)) => Err(SecretError::Late(self.source.clone())),
            Err(Miss::Late(Some(last))) => {
                if !self.said.swap(true, Ordering::Relaxed) {
                    tracing::warn!(error = %SecretError::Late(self.source.clone()), "secret.late");
                }
                Ok(last)
            }
        }
    }

    /// Whether somebody waits for it.
    pub(crate) fn is_awaited(&self) -> bool {
        self.aside.is_awaited()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use tokio::time::advance;

    use super::*;
    use crate::hanging::Hanging;

    /// A disk, and how often it was asked.
    #[derive(Clone, Default)]
    struct Disk {
        hangs: Arc<AtomicBool>,
        asked: Arc<AtomicUsize>,
    }

    impl Disk {
        fn answer(
            &self,
            with: Result<u32, &'static str>,
        ) -> impl FnOnce() -> Result<u32, &'static str> + use<> {
            let disk = self.clone();
            move || {
                disk.asked.fetch_add(1, Ordering::SeqCst);
                while disk.hangs.load(Ordering::SeqCst) {
                    std::thread::park_timeout(Duration::from_millis(1));
                }
                with
            }
        }
    }

    // Time passes only as it is told to while a thread reads.
    #[tokio::test(start_paused = true)]
    async fn what_hangs_is_asked_once_and_what_was_read_last_is_told_meanwhile() {
        let (mut aside, disk) = (Aside::new(), Disk::default());
        assert_eq!(aside.read(disk.answer(Ok(1))).await, Ok(1));
        assert_eq!(aside.read(disk.answer(Err("not good"))).await, Err(Miss::Failed("not good")));
        disk.hangs.store(true, Ordering::SeqCst);
        // Who waits for it, and who waits for that one.
        let passes = async {
            while disk.asked.load(Ordering::SeqCst) < 3 {
                tokio::task::yield_now().await;
            }
            advance(PATIENCE).await;
        };
        let (one, other, ()) =
            tokio::join!(aside.read(disk.answer(Ok(2))), aside.read(disk.answer(Ok(3))), passes);
        assert_eq!((one, other), (Err(Miss::Late(Some(1))), Err(Miss::Late(Some(1)))));
        let at = Instant::now();
        assert_eq!(aside.read(disk.answer(Ok(4))).await, Err(Miss::Late(Some(1))));
        assert_eq!(
            (at.elapsed(), disk.asked.load(Ordering::SeqCst)),
            (Duration::ZERO, 3),
            "nobody waits again"
        );
        disk.hangs.store(false, Ordering::SeqCst);
        while aside.hangs() {
            tokio::task::yield_now().await;
        }
        assert_eq!(aside.read(disk.answer(Err("gone"))).await, Err(Miss::Failed("gone")));
        assert_eq!(*aside.last.lock(), Some(2), "what came late is what was read last");
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_leaves_one_read_and_the_next_one_has_the_rest_of_its_time() {
        let (mut aside, disk) = (Aside::new(), Disk::default());
        disk.hangs.store(true, Ordering::SeqCst);
        for _ in 0..5 {
            let read = aside.read(disk.answer(Ok(1)));
            tokio::select! {
                biased;
                _ = read => panic!("it hangs"),
                () = advance(Duration::from_secs(1)) => {}
            }
        }
        let (read, ()) = tokio::join!(aside.read(disk.answer(Ok(1))), advance(Duration::from_secs(5)));
        assert_eq!(read, Err(Miss::Late(None)));
        assert!(disk.asked.load(Ordering::SeqCst) <= 1);
        disk.hangs.store(false, Ordering::SeqCst);
        while aside.hangs() {
            tokio::task::yield_now().await;
        }
        assert_eq!(aside.read(disk.answer(Ok(2))).await, Ok(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_secret_whose_disk_hangs_stays_as_it_was_and_one_that_is_gone_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "one").unwrap();
        let mut secret = Kept::new(SecretSource::File(path.clone()));
        assert_eq!(secret.read().await.unwrap().reveal(), "one");
        let hanging = Hanging::put(&path);
        let passes = async {
            hanging.is_read().await;
            advance(PATIENCE).await;
        };
        let (last, ()) = tokio::join!(secret.read(), passes);
        assert_eq!(last.unwrap().reveal(), "one");
        drop(hanging);
        while secret.aside.hangs() {
            tokio::task::yield_now().await;
        }
        assert!(matches!(secret.read().await, Err(SecretError::Unreadable { .. })));
        std::fs::write(&path, "two").unwrap();
        assert_eq!(secret.read().await.unwrap().reveal(), "two");
    }
}
