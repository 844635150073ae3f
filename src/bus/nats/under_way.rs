//! What is with the client and not acknowledged: bounded in bytes, for past its deadline no memory permit counts it; and in number, by
//! name, where a stream does not answer. Invariant: a stream that is silent takes half of all places at most, and the others' messages
//! go. Neighbour: the attempts of `mod`, which hold their share until they end.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::QUEUE;

/// Of all messages, waiting and sent.
const BYTES: usize = 64 << 20;
/// Messages of one name that were sent and not answered in time.
const SILENT: usize = QUEUE / 2;

/// See the module.
#[derive(Debug)]
pub(super) struct UnderWay {
    bytes: Arc<Semaphore>,
    /// Of all names. None is looked up while there are few.
    late: AtomicUsize,
    names: Mutex<HashMap<String, usize>>,
}

/// The place of a message that was not answered in time.
#[derive(Debug)]
pub(super) struct Late<'a> {
    of: &'a UnderWay,
    named: String,
}

impl UnderWay {
    pub(super) fn new() -> Self {
        Self { bytes: Arc::new(Semaphore::new(BYTES)), late: AtomicUsize::new(0), names: Mutex::default() }
    }

    /// So many bytes, until the message's attempt ends. None where there is no room at the moment.
    pub(super) fn hold(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let permits = u32::try_from(bytes.min(BYTES)).unwrap_or(u32::MAX);
        Arc::clone(&self.bytes).try_acquire_many_owned(permits).ok()
    }

    /// Whether as many of this name are not answered as may be.
    pub(super) fn is_silent(&self, named: impl FnOnce() -> String) -> bool {
        self.late.load(Ordering::Relaxed) >= SILENT
            && self.names.lock().get(&named()).is_some_and(|late| *late >= SILENT)
    }

    /// One of this name was not answered in time. None where as many are as may be: it is given up.
    pub(super) fn late(&self, named: String) -> Option<Late<'_>> {
        let mut names = self.names.lock();
        let late = names.entry(named.clone()).or_default();
        if *late >= SILENT {
            return None;
        }
        *late += 1;
        self.late.fetch_add(1, Ordering::Relaxed);
        Some(Late { of: self, named })
    }
}

impl Drop for Late<'_> {
    fn drop(&mut self) {
        let mut names = self.of.names.lock();
        self.of.late.fetch_sub(1, Ordering::Relaxed);
        if let Some(late) = names.get_mut(&self.named) {
            *late -= 1;
            if *late == 0 {
                names.remove(&self.named);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_silent_takes_half_of_the_places_and_leaves_none_behind() {
        let under_way = UnderWay::new();
        let trip = || "fleet.trip.*".to_owned();
        let mut late: Vec<Late<'_>> = (0..SILENT).map(|_| under_way.late(trip()).unwrap()).collect();
        assert!(under_way.late(trip()).is_none() && under_way.is_silent(trip));
        let other = under_way.late("fleet.stop.*".to_owned());
        assert!(other.is_some() && !under_way.is_silent(|| "fleet.stop.*".to_owned()));
        late.pop();
        assert!(!under_way.is_silent(trip));
        drop((late, other));
        assert!(under_way.names.lock().is_empty());
        assert_eq!(under_way.late.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn bytes_are_held_until_their_message_ends() {
        let under_way = UnderWay::new();
        let all = under_way.hold(BYTES).unwrap();
        assert!(under_way.hold(1).is_none());
        drop(all);
        assert!(under_way.hold(usize::MAX).is_some(), "one that is larger than all of them goes alone");
    }
}
