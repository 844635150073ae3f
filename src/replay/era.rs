//! Which of two files is older: a number that grows whenever the store is opened, and once a copy of the running store is begun, so that
//! what is parked afterwards is of a later era than the copy. `seen.db` writes down the era in which it learnt its ids. Invariant: a
//! restored store has an era that `seen.db` has seen already. Neighbours: `writer` begins eras, `deliver::dedup` compares.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The store's era, as it is now. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Era(Arc<AtomicU64>);

impl Era {
    /// An era by its number.
    #[must_use]
    pub fn of(number: u64) -> Self {
        Self(Arc::new(AtomicU64::new(number)))
    }

    /// Its number.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Another one has begun, and is on disk.
    pub(crate) fn begins(&self, number: u64) {
        self.0.store(number, Ordering::Release);
    }
}
