//! How long the bus lately took to acknowledge what came from senders, as counts by duration: what the drain keeps itself
//! back by. Invariant: never more than one addition an event. Neighbours: `slot` observes, `replay::drain` looks.

use std::array;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Eight steps to each power of two: a duration is known to an eighth.
const STEPS: u32 = 8;
/// From 8 µs to 33 s.
const BUCKETS: usize = 22 * STEPS as usize;

/// See the module.
#[derive(Debug)]
pub struct Times([AtomicU64; BUCKETS]);

impl Default for Times {
    fn default() -> Self {
        Self(array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Times {
    /// One took so long.
    pub fn observe(&self, took: Duration) {
        self.0[bucket(took)].fetch_add(1, Ordering::Relaxed);
    }

    /// All until now.
    #[must_use]
    pub fn read(&self) -> Reading {
        Reading(array::from_fn(|at| self.0[at].load(Ordering::Relaxed)))
    }
}

/// Counts by duration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading([u64; BUCKETS]);

impl Default for Reading {
    fn default() -> Self {
        Self([0; BUCKETS])
    }
}

impl Reading {
    /// What came after an earlier reading.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self(array::from_fn(|at| self.0[at].saturating_sub(earlier.0[at])))
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// What all but the slowest hundredth took at most; none of none.
    #[must_use]
    pub fn p99(&self) -> Option<Duration> {
        let count = self.count();
        let slowest = count / 100;
        let mut left = count - slowest;
        let at = self.0.iter().position(|some| {
            let reached = *some >= left;
            left = left.saturating_sub(*some);
            reached && count > 0
        })?;
        Some(until(at))
    }
}

fn bucket(took: Duration) -> usize {
    let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX).max(STEPS);
    let power = micros.ilog2() - STEPS.ilog2();
    let step = (micros >> power) - STEPS;
    ((power * STEPS + step) as usize).min(BUCKETS - 1)
}

/// The end of a bucket.
fn until(bucket: usize) -> Duration {
    let (power, step) = (bucket as u32 / STEPS, bucket as u32 % STEPS);
    Duration::from_micros(u64::from(STEPS + step + 1) << power)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn times(micros: &[u64]) -> Reading {
        let times = Times::default();
        micros.iter().for_each(|micros| times.observe(Duration::from_micros(*micros)));
        times.read()
    }

    proptest! {
        #[test]
        fn a_duration_is_known_to_an_eighth(micros in 8_u64..30_000_000) {
            let known = times(&[micros]).p99().unwrap().as_micros() as u64;
            prop_assert!(micros < known && known <= micros + micros / 8 + 1, "{known}");
        }
    }

    #[test]
    fn the_slowest_hundredth_is_left_out() {
        let mut all = vec![100; 990];
        all.extend([50_000; 10]);
        assert!(times(&all).p99().unwrap() < Duration::from_micros(120));
        all.extend([50_000; 10]);
        assert!(times(&all).p99().unwrap() > Duration::from_micros(50_000));
        assert_eq!(times(&[]).p99(), None);
    }

    #[test]
    fn what_is_out_of_bounds_counts_as_the_least_or_the_most() {
        assert_eq!(times(&[0, 7, u64::MAX / 4]).count(), 3);
        assert_eq!(times(&[0]), times(&[8]));
        assert_eq!(times(&[34_000_000]), times(&[u64::MAX / 4]));
    }

    #[test]
    fn only_what_came_since_is_looked_at() {
        let times = Times::default();
        times.observe(Duration::from_secs(1));
        let earlier = times.read();
        times.observe(Duration::from_millis(1));
        let since = times.read().since(&earlier);
        assert_eq!(since.count(), 1);
        assert!(since.p99().unwrap() < Duration::from_millis(2));
    }
}
