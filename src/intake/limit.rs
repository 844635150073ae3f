//! A token bucket: so many a second, as many at once as a second brings. Pure: "now" comes in.

use std::time::{Duration, Instant};

/// See the module.
#[derive(Debug)]
pub struct Bucket {
    rate: f64,
    burst: f64,
    tokens: f64,
    filled_at: Instant,
}

impl Bucket {
    /// A full one.
    #[must_use]
    pub fn new(rate_per_second: u32, now: Instant) -> Self {
        let rate = f64::from(rate_per_second.max(1));
        Self { rate, burst: rate, tokens: rate, filled_at: now }
    }

    /// Takes tokens. What is larger than the burst is let through when the bucket is full, and paid back afterwards.
    ///
    /// # Errors
    /// How long to wait until it would succeed.
    pub fn take(&mut self, tokens: u64, now: Instant) -> Result<(), Duration> {
        let passed = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.filled_at = self.filled_at.max(now);
        self.tokens = (self.tokens + passed * self.rate).min(self.burst);
        let needed = (tokens as f64).min(self.burst);
        if self.tokens >= needed {
            self.tokens -= tokens as f64;
            return Ok(());
        }
        Err(Duration::from_secs_f64((needed - self.tokens) / self.rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_brings_its_tokens_and_a_large_take_is_paid_back() {
        let start = Instant::now();
        let mut bucket = Bucket::new(10, start);
        assert_eq!(bucket.take(10, start), Ok(()));
        assert_eq!(bucket.take(1, start), Err(Duration::from_millis(100)));
        assert_eq!(bucket.take(10, start + Duration::from_secs(1)), Ok(()));
        let later = start + Duration::from_secs(9);
        assert_eq!(bucket.take(50, later), Ok(()));
        assert!(bucket.take(1, later + Duration::from_secs(4)).is_err());
        assert_eq!(bucket.take(1, later + Duration::from_millis(4_200)), Ok(()));
    }
}
