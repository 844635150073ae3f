//! The connections that a port has: at most so many. Invariant: where there are as many as there may be, one that waits for
//! its peer alone gives way to the next, so that ten thousand idle ones shut nobody out; one with a request in flight
//! never does. Neighbours: `pace` ranks them, `serve` sees them out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::pace::Pace;

/// How long the next one waits for a place before somebody else is asked to leave: who was busy may not be any more.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// See the module. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Guests {
    present: Arc<Mutex<Present>>,
    places: Arc<Semaphore>,
    bound: usize,
}

/// At most as many as there are places.
#[derive(Debug, Default)]
struct Present {
    guests: HashMap<u64, (Pace, CancellationToken)>,
    next: u64,
}

/// A connection's place, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) pace: Pace,
    /// It was asked to leave.
    pub(super) dismissed: CancellationToken,
    number: u64,
    present: Arc<Mutex<Present>>,
    _place: OwnedSemaphorePermit,
}

impl Guests {
    pub(super) fn new(bound: usize) -> Self {
        Self { present: Arc::default(), places: Arc::new(Semaphore::new(bound)), bound }
    }

    pub(super) const fn bound(&self) -> usize {
        self.bound
    }

    pub(super) fn len(&self) -> usize {
        self.present.lock().guests.len()
    }

    /// A place for one more, as soon as there is one.
    pub(super) async fn admit(&self, pace: impl FnOnce() -> Pace) -> Guest {
        loop {
            if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
                return self.seat(pace(), place);
            }
            self.dismiss_one();
            // Who waits here is alone: what comes free stays so until the next look.
            timeout(LOOK_AGAIN, self.places.acquire()).await.ok();
        }
    }

    fn seat(&self, pace: Pace, place: OwnedSemaphorePermit) -> Guest {
        let dismissed = CancellationToken::new();
        let mut present = self.present.lock();
        let number = present.next;
        present.next += 1;
        present.guests.insert(number, (pace.clone(), dismissed.clone()));
        Guest { pace, dismissed, number, present: Arc::clone(&self.present), _place: place }
    }

    /// Asks the one that can best be spared to leave, unless all are busy.
    pub(super) fn dismiss_one(&self) {
        let present = self.present.lock();
        let waiting = present.guests.values().filter(|(_, dismissed)| !dismissed.is_cancelled());
        let ranked = waiting.filter_map(|(pace, dismissed)| Some((pace.rank()?, dismissed)));
        if let Some((_, dismissed)) = ranked.min_by_key(|(rank, _)| *rank) {
            dismissed.cancel();
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.present.lock().guests.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::super::pace::{Protocol, Times};
    use super::*;

    fn pace() -> Pace {
        let second = Duration::from_secs(1);
        Pace::new(Times { head: second, idle: second, answer: second, piece: second })
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_longest_gives_way_and_who_is_busy_is_waited_for() {
        let guests = Guests::new(2);
        let first = guests.admit(pace).await;
        tokio::time::advance(Duration::from_millis(5)).await;
        let second = guests.admit(pace).await;
        let busy = first.pace.begin(Protocol::Http1);
        assert!(timeout(Duration::from_millis(10), guests.admit(pace)).await.is_err());
        assert!(second.dismissed.is_cancelled(), "the one that has nothing to do");
        assert!(!first.dismissed.is_cancelled());
        drop(second);
        let third = guests.admit(pace).await;
        let other = third.pace.begin(Protocol::Http1);
        assert!(timeout(Duration::from_secs(9), guests.admit(pace)).await.is_err(), "both are busy");
        assert!(!first.dismissed.is_cancelled() && !third.dismissed.is_cancelled());
        drop(busy);
        assert!(timeout(LOOK_AGAIN * 3, guests.admit(pace)).await.is_err());
        assert!(first.dismissed.is_cancelled(), "it is not busy any more");
        drop(other);
        drop(first);
        guests.admit(pace).await;
        assert_eq!((guests.len(), guests.bound()), (1, 2));
    }
}
