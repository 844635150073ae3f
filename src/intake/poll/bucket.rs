//! What one API key of V3 may spend (mapping section 5): 25 calls a minute, at most 200 saved up, none after a restart, led
//! by what the provider says is left. Pure: "now" comes in. Invariant: sweeps and backfills take only what is above a
//! reserve, so whoever polls live never waits for them. Neighbour: `host` lets its callers in one by one, in their order.

use std::time::Duration;

use tokio::time::Instant;

const PER_SECOND: f64 = 25.0 / 60.0;
const BURST: f64 = 200.0;
/// What sweeps and backfills leave for the live feeds.
const RESERVE: f64 = 10.0;

/// For what a call is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A live feed.
    Live,
    /// A sweep or a backfill.
    Rest,
}

/// See the module.
#[derive(Debug)]
pub struct Bucket {
    tokens: f64,
    filled_at: Instant,
    /// Calls that were paid for and not answered: the provider may not have counted them yet.
    under_way: u32,
}

impl Bucket {
    /// An empty one: what an earlier run spent is not known.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self { tokens: 0.0, filled_at: now, under_way: 0 }
    }

    /// Pays for one call.
    ///
    /// # Errors
    /// How long to wait before asking again.
    pub fn take(&mut self, class: Class, now: Instant) -> Result<(), Duration> {
        self.fill(now);
        let needed = match class {
            Class::Live => 1.0,
            Class::Rest => 1.0 + RESERVE,
        };
        if self.tokens >= needed {
            self.tokens -= 1.0;
            self.under_way += 1;
            return Ok(());
        }
        // A little more, so that rounding does not cost a second round.
        Err(Duration::from_secs_f64((needed - self.tokens) / PER_SECOND) + Duration::from_millis(1))
    }

    /// What the provider says is left, in the answer to a call that is under way.
    pub fn learn(&mut self, remaining: Option<u32>, now: Instant) {
        self.fill(now);
        if let Some(remaining) = remaining {
            let others = self.under_way.saturating_sub(1);
            self.tokens = (f64::from(remaining) - f64::from(others)).clamp(0.0, BURST);
        }
    }

    /// A call that was paid for has ended.
    pub const fn ended(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// The provider says that there is nothing left.
    pub fn spent(&mut self, now: Instant) {
        self.fill(now);
        self.tokens = 0.0;
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.filled_at = self.filled_at.max(now);
        self.tokens = (self.tokens + passed * PER_SECOND).min(BURST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn is_empty_at_first_and_fills_at_25_a_minute_up_to_200() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start);
        assert_eq!(bucket.take(Class::Live, start), Err(Duration::from_millis(2_401)));
        assert_eq!(bucket.take(Class::Live, start + Duration::from_millis(2_401)), Ok(()));
        let later = start + seconds(24 * 3_600);
        let taken = (0..1_000).take_while(|_| bucket.take(Class::Live, later).is_ok()).count();
        assert_eq!(taken, 200);
    }

    #[test]
    fn in_any_minute_no_more_than_the_burst_and_25_go_out() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start);
        let hour = 3_600 * 10u64;
        let taken = (0..hour)
            .filter(|tick| bucket.take(Class::Live, start + Duration::from_millis(tick * 100)).is_ok())
            .count();
        assert!((1_498..=1_500).contains(&taken), "{taken}");
    }

    #[test]
    fn sweeps_leave_a_reserve_for_live_feeds() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start);
        let now = start + seconds(60);
        let taken = (0..100).take_while(|_| bucket.take(Class::Rest, now).is_ok()).count();
        assert_eq!(taken, 15);
        let live = (0..100).take_while(|_| bucket.take(Class::Live, now).is_ok()).count();
        assert_eq!(live, 10);
    }

    #[test]
    fn is_led_by_what_the_provider_says_less_what_is_under_way() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start);
        let now = start + seconds(60);
        assert_eq!((bucket.take(Class::Live, now), bucket.take(Class::Live, now)), (Ok(()), Ok(())));
        bucket.learn(Some(120), now);
        bucket.ended();
        let taken = (0..1_000).take_while(|_| bucket.take(Class::Live, now).is_ok()).count();
        assert_eq!(taken, 119);
        bucket.learn(Some(0), now);
        assert!(bucket.take(Class::Live, now).is_err());
        bucket.learn(Some(9_999), now + seconds(1));
        bucket.spent(now + seconds(1));
        assert!(bucket.take(Class::Live, now + seconds(1)).is_err());
        // A clock that goes back takes nothing away.
        assert!(bucket.take(Class::Live, now).is_err());
        assert!(bucket.take(Class::Live, now + seconds(4)).is_ok());
    }
}
