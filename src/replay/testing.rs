//! A store for unit tests of those who work with one: its thread runs until it is closed.

use std::path::Path;
use std::thread::JoinHandle;

use super::{DataDir, Store, StoreLimits};

/// A store in this folder, and its thread.
pub(crate) async fn store(dir: &Path) -> (Store, JoinHandle<()>) {
    let dir = DataDir::lock(dir).await.unwrap();
    let limits = StoreLimits { reserve: 4_096, ..StoreLimits::default() };
    let (store, writer, _) = Store::open(&dir, limits, None).unwrap();
    (store, std::thread::spawn(move || writer.run(|_| {})))
}
