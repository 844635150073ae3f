//! The V3 pull API's shared limit: 25 calls a minute, 200 saved up at most, empty after a restart, led by what the
//! provider says is left. Pure: "now" comes in. Sweeps take only what live feeds leave: a reserve stays for these.

use std::time::{Duration, Instant};

const PER_SECOND: f64 = 25.0 / 60.0;
const MOST: f64 = 200.0;
/// What a sweep leaves for live feeds.
const RESERVE: f64 = 25.0;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rank {
    /// A feed's regular poll.
    Live,
    /// A sweep or a backfill.
    Spare,
}

/// See the module.
#[derive(Debug)]
pub struct Bucket {
    tokens: f64,
    filled_at: Instant,
}

impl Bucket {
    /// An empty one: how much an earlier process has used is not known.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { tokens: 0.0, filled_at: now }
    }

    /// Takes one call.
    ///
    /// # Errors
    /// How long to wait until it can be taken.
    pub fn take(&mut self, rank: Rank, now: Instant) -> Result<(), Duration> {
        let passed = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.filled_at = self.filled_at.max(now);
        self.tokens = (self.tokens + passed * PER_SECOND).min(MOST);
        let needed = match rank {
            Rank::Live => 1.0,
            Rank::Spare => 1.0 + RESERVE,
        };
        if self.tokens >= needed {
            self.tokens -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((needed - self.tokens) / PER_SECOND))
    }

    /// The provider said how many are left.
    pub fn left(&mut self, calls: u32) {
        self.tokens = f64::from(calls).min(MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_empty_fills_by_the_minute_and_keeps_a_reserve_from_sweeps() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start);
        assert!(bucket.take(Rank::Live, start).is_err());
        let minute = start + Duration::from_secs(60);
        for _ in 0..25 {
            assert_eq!(bucket.take(Rank::Live, minute), Ok(()));
        }
        assert!(bucket.take(Rank::Live, minute).is_err());
        bucket.left(20);
        assert!(bucket.take(Rank::Spare, minute).is_err());
        assert_eq!(bucket.take(Rank::Live, minute), Ok(()));
        bucket.left(10_000);
        let spares = (0..1_000).take_while(|_| bucket.take(Rank::Spare, minute).is_ok()).count();
        assert_eq!(spares, 175);
    }
}
