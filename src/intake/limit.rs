//! An account's rate in events a second: a bucket that holds one second's worth. Pure: "now" comes in. A request that
//! is larger than the bucket is taken once the bucket is full, and paid off afterwards, so that no size waits for ever.
//! What happens to events over the rate is decided in `accept`.

use std::time::{Duration, Instant};

/// See the module.
#[derive(Debug)]
pub struct Bucket {
    per_second: f64,
    level: f64,
    at: Instant,
}

impl Bucket {
    /// A full bucket. A rate of zero counts as one.
    #[must_use]
    pub fn new(per_second: u32, now: Instant) -> Self {
        let per_second = f64::from(per_second.max(1));
        Self { per_second, level: per_second, at: now }
    }

    /// Takes `events`, all or none.
    ///
    /// # Errors
    /// The rate is spent: when to come again.
    pub fn take(&mut self, events: u64, now: Instant) -> Result<(), Duration> {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.level = (self.level + passed * self.per_second).min(self.per_second);
        #[expect(clippy::cast_precision_loss, reason = "a request has at most some millions of events")]
        let events = events as f64;
        let needed = events.min(self.per_second);
        if self.level < needed {
            return Err(Duration::from_secs_f64((needed - self.level) / self.per_second));
        }
        self.level -= events;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seconds_worth_goes_at_once_and_then_the_rate_holds() {
        let start = Instant::now();
        let mut bucket = Bucket::new(10, start);
        for _ in 0..10 {
            assert_eq!(bucket.take(1, start), Ok(()));
        }
        assert_eq!(bucket.take(1, start), Err(Duration::from_millis(100)));
        assert_eq!(bucket.take(1, start + Duration::from_millis(100)), Ok(()));
        assert!(bucket.take(1, start + Duration::from_millis(100)).is_err());
    }

    #[test]
    fn what_is_refused_costs_nothing() {
        let start = Instant::now();
        let mut bucket = Bucket::new(10, start);
        assert_eq!(bucket.take(6, start), Ok(()));
        assert_eq!(bucket.take(6, start), Err(Duration::from_millis(200)));
        assert_eq!(bucket.take(4, start), Ok(()));
    }

    #[test]
    fn a_request_larger_than_the_bucket_is_taken_and_paid_off() {
        let start = Instant::now();
        let mut bucket = Bucket::new(10, start);
        assert_eq!(bucket.take(30, start), Ok(()));
        assert_eq!(bucket.take(1, start), Err(Duration::from_millis(2_100)));
        assert_eq!(bucket.take(30, start + Duration::from_secs(3)), Ok(()));
    }

    #[test]
    fn a_clock_that_steps_back_gives_nothing_away() {
        let start = Instant::now() + Duration::from_secs(10);
        let mut bucket = Bucket::new(1, start);
        assert_eq!(bucket.take(1, start), Ok(()));
        assert!(bucket.take(1, start - Duration::from_secs(5)).is_err());
        assert!(bucket.take(1, start).is_err());
    }

    #[test]
    fn nothing_is_always_taken() {
        let start = Instant::now();
        let mut bucket = Bucket::new(1, start);
        assert_eq!(bucket.take(1, start), Ok(()));
        assert_eq!(bucket.take(0, start), Ok(()));
    }
}
