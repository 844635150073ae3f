//! Pauses between tries of a definite failure: growing, jittered, bounded in number. The one place that uses the
//! `backoff` crate (ADR 0006).

use std::time::Duration;

use backoff::backoff::Backoff;
use backoff::{ExponentialBackoff, ExponentialBackoffBuilder};

/// The pauses of one lane's delivery: about 50, 150 and 450 ms.
pub struct Pauses {
    backoff: ExponentialBackoff,
    left: u32,
}

impl Pauses {
    /// At most `retries` pauses.
    #[must_use]
    pub fn new(retries: u32) -> Self {
        let backoff = ExponentialBackoffBuilder::new()
            .with_initial_interval(Duration::from_millis(50))
            .with_multiplier(3.0)
            .with_randomization_factor(0.3)
            .with_max_interval(Duration::from_secs(1))
            .with_max_elapsed_time(None)
            .build();
        Self { backoff, left: retries }
    }
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.left = self.left.checked_sub(1)?;
        self.backoff.next_backoff()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_pauses_as_retries_each_longer_than_the_last() {
        let pauses: Vec<Duration> = Pauses::new(3).collect();
        assert_eq!(pauses.len(), 3);
        assert!(pauses.windows(2).all(|pair| pair[1] > pair[0]), "{pauses:?}");
        assert_eq!(Pauses::new(0).next(), None);
    }
}
