//! What would be said in the log for each event is said once a second, with how often it happened meanwhile. Invariant: the
//! first time is always said. Two numbers, whatever happens.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Between two lines.
const PAUSE: Duration = Duration::from_secs(1);

/// See the module.
pub struct Seldom {
    begun: Instant,
    /// When it may be said again, in ms since the beginning.
    due: AtomicU64,
    unsaid: AtomicU64,
}

impl Seldom {
    pub fn new() -> Self {
        Self { begun: Instant::now(), due: AtomicU64::new(0), unsaid: AtomicU64::new(0) }
    }

    /// It happened. How often since it was said, this time included, where it is to be said now.
    pub fn happened(&self) -> Option<u64> {
        self.happened_at(self.begun.elapsed())
    }

    fn happened_at(&self, now: Duration) -> Option<u64> {
        self.unsaid.fetch_add(1, Ordering::Relaxed);
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let due = self.due.load(Ordering::Relaxed);
        let is_mine = ms(now) >= due
            && self.due.compare_exchange(due, ms(now + PAUSE), Ordering::Relaxed, Ordering::Relaxed).is_ok();
        is_mine.then(|| self.unsaid.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_at_first_and_then_once_a_second_with_how_often() {
        let seldom = Seldom::new();
        let said =
            [0, 0, 500, 999, 1_000, 1_001, 5_000].map(|ms| seldom.happened_at(Duration::from_millis(ms)));
        assert_eq!(said, [Some(1), None, None, None, Some(4), None, Some(2)]);
    }
}
