//! A disk that hangs, as a pipe that nobody writes to does: who reads the file waits, until the disk is dropped. It ends by itself
//! where it holds up the test, so that this fails and does not hang, too.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Nothing in a test takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// See the module.
pub struct Hanging {
    path: PathBuf,
    is_read: Arc<AtomicBool>,
    ends: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Hanging {
    /// From now on this file hangs.
    pub fn put(path: &Path) -> Self {
        let pipe = path.with_extension("pipe");
        let made = Command::new("mkfifo").arg(&pipe).status().expect("mkfifo");
        assert!(made.success(), "{} cannot be made", pipe.display());
        std::fs::rename(&pipe, path).expect("renamed");
        let is_read = Arc::new(AtomicBool::new(false));
        let (ends, ended) = sync_channel::<()>(1);
        let (file, read) = (path.to_owned(), Arc::clone(&is_read));
        let thread = std::thread::spawn(move || {
            // Comes back once somebody reads.
            let held = OpenOptions::new().write(true).open(&file);
            read.store(true, Ordering::SeqCst);
            ended.recv_timeout(PATIENCE).ok();
            // First: else who reads it again waits for a writer that does not come.
            std::fs::remove_file(&file).ok();
            drop(held);
        });
        Self { path: path.to_owned(), is_read, ends: Some(ends), thread: Some(thread) }
    }

    /// Waits until somebody reads it, and so waits.
    pub async fn is_read(&self) {
        let begun = Instant::now();
        while !self.is_read.load(Ordering::SeqCst) {
            assert!(begun.elapsed() < PATIENCE, "nobody reads {}", self.path.display());
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Hanging {
    /// Who reads it finds it empty, and then gone.
    fn drop(&mut self) {
        self.ends.take();
        match self.thread.take() {
            Some(thread) if self.is_read.load(Ordering::SeqCst) => thread.join().unwrap_or_default(),
            // Nobody came: it waits for ever, and nobody for it.
            Some(_) | None => {}
        }
    }
}
