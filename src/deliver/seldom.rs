//! What would be said in the log for each event is said seldom, with how often it happened meanwhile: once a second, or a few
//! times and then at intervals; and what goes on is said once, when it has for long. Invariant: the first time is always said, of what
//! happens. Two numbers, whatever happens.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Between two lines about events.
const PAUSE: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub struct Seldom {
    begun: Instant,
    pause: Duration,
    /// How far lines may be ahead of their pauses.
    slack: Duration,
    /// When the next one would come, were they at intervals, in ms since the beginning.
    due: AtomicU64,
    unsaid: AtomicU64,
}

impl Seldom {
    /// Once a second.
    pub fn new() -> Self {
        Self::of(1, PAUSE)
    }

    /// So many at once, and then one in each `pause`.
    pub fn of(at_once: u32, pause: Duration) -> Self {
        let slack = pause * at_once.saturating_sub(1);
        Self { begun: Instant::now(), pause, slack, due: AtomicU64::new(0), unsaid: AtomicU64::new(0) }
    }

    /// It happened. How often since it was said, this time included, where it is to be said now.
    pub fn happened(&self) -> Option<u64> {
        self.happened_times(1)
    }

    /// The same, where it happened so often at once.
    pub fn happened_times(&self, times: u64) -> Option<u64> {
        self.unsaid.fetch_add(times, Ordering::Relaxed);
        self.say_at(self.begun.elapsed())
    }

    fn say_at(&self, now: Duration) -> Option<u64> {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let due = self.due.load(Ordering::Relaxed);
        let next = due.max(ms(now)).saturating_add(ms(self.pause));
        let is_mine = ms(now.saturating_add(self.slack)) >= due
            && self.due.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        is_mine.then(|| self.unsaid.swap(0, Ordering::Relaxed))
    }
}

/// Something that goes on, and is said once it has for long: most of it is over before.
#[derive(Debug, Clone, Copy)]
pub struct Lasting {
    since: Instant,
    is_said: bool,
}

impl Lasting {
    /// It has begun.
    pub const fn begun(now: Instant) -> Self {
        Self { since: now, is_said: false }
    }

    /// It still goes on. Whether that is to be said now.
    pub fn is_to_say(&mut self, now: Instant, patience: Duration) -> bool {
        let is_to_say = !self.is_said && now.saturating_duration_since(self.since) >= patience;
        self.is_said |= is_to_say;
        is_to_say
    }

    /// Whether it has been said.
    pub const fn was_said(&self) -> bool {
        self.is_said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Seldom {
        fn happened_at(&self, now: Duration) -> Option<u64> {
            self.unsaid.fetch_add(1, Ordering::Relaxed);
            self.say_at(now)
        }
    }

    #[test]
    fn it_is_said_at_first_and_then_once_a_second_with_how_often() {
        let seldom = Seldom::new();
        let said =
            [0, 0, 500, 999, 1_000, 1_001, 5_000].map(|ms| seldom.happened_at(Duration::from_millis(ms)));
        assert_eq!(said, [Some(1), None, None, None, Some(4), None, Some(2)]);
    }

    #[test]
    fn a_few_are_said_at_once_and_the_rest_at_intervals() {
        let seldom = Seldom::of(3, Duration::from_secs(10));
        let said = [0, 0, 1, 2, 9_999, 10_000, 10_001, 60_000, 60_000, 60_000, 60_000]
            .map(|ms| seldom.happened_at(Duration::from_millis(ms)));
        let (one, none) = (Some(1), None);
        assert_eq!(said, [one, one, one, none, none, Some(3), none, Some(2), one, one, none]);
    }
}
