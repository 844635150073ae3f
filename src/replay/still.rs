//! A copy of the running store. All that is new goes to the log, and the file itself changes only when the store's thread
//! moves the log into it: while that waits, the file stands still, whole as of one moment, and is read beside everything
//! that goes on. Invariant: what was read is of that moment, or the copy is cut. Bound: the log may grow to 1 GiB, or for
//! fifteen minutes; then the copy is cut, for deliveries go first.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Pages of the log that may wait for a copy: 1 GiB.
const LOG_PAGES: i32 = 262_144;
/// How long they may.
const PATIENCE: Duration = Duration::from_secs(900);

/// The store's file as it was at one moment. Dropped, it lets the file change again.
pub struct Still {
    shared: Arc<Shared>,
    bytes: u64,
}

struct Shared {
    /// Held while a piece is read, so that none is read while the file changes.
    file: Mutex<Option<Arc<File>>>,
}

/// The copy was cut: the store had to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the copy was cut, for the store had to go on: its disk is full, it was stopped, or the copy took too long"
)]
pub struct Cut;

impl Still {
    /// How many bytes it has.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads a piece from a place: as many bytes as are wanted, or up to its end. Blocks.
    ///
    /// # Errors
    /// Where the copy was cut, or the file cannot be read.
    pub fn read(&self, from: u64, most: usize) -> std::io::Result<Vec<u8>> {
        let left = usize::try_from(self.bytes.saturating_sub(from)).unwrap_or(most);
        let mut piece = vec![0; left.min(most)];
        let file = self.shared.file.lock();
        file.as_ref().ok_or_else(|| std::io::Error::other(Cut))?.read_exact_at(&mut piece, from)?;
        Ok(piece)
    }
}

/// The thread's side: what it holds still, and since when.
#[derive(Default)]
pub(super) struct Holding {
    /// Opened once, and not closed before SQLite closes the file: closing it would give SQLite's locks up.
    file: Option<Arc<File>>,
    held: Option<(Weak<Shared>, Instant)>,
}

impl Holding {
    /// Holds the file still: its log has been moved into it.
    pub(super) fn hold(&mut self, path: &std::path::Path, bytes: u64) -> std::io::Result<Still> {
        let file = match &self.file {
            Some(file) => Arc::clone(file),
            None => Arc::clone(self.file.insert(Arc::new(File::open(path)?))),
        };
        self.cut();
        let shared = Arc::new(Shared { file: Mutex::new(Some(file)) });
        self.held = Some((Arc::downgrade(&shared), Instant::now()));
        Ok(Still { shared, bytes })
    }

    /// Whether a copy still stands in the way of moving a log of so many pages into the file.
    pub(super) fn is_in_the_way(&mut self, log_pages: i32) -> bool {
        let held = self.held.as_ref().filter(|(shared, _)| shared.strong_count() > 0);
        let waits = held.is_some_and(|(_, since)| log_pages < LOG_PAGES && since.elapsed() < PATIENCE);
        if !waits {
            self.cut();
        }
        waits
    }

    /// Lets the file change.
    pub(super) fn cut(&mut self) {
        if let Some((shared, _)) = self.held.take()
            && let Some(shared) = shared.upgrade()
            && shared.file.lock().take().is_some()
        {
            tracing::warn!("store.copy_cut");
        }
    }
}
