//! A stand-in for a provider, for the demo and for tests: `world` decides what happens, `render` says it in the
//! provider's words, `push` sends webhooks, `serve` answers the pull APIs. It shares no decoding code with `provider/`:
//! what both would get wrong, neither would show.

pub mod demo;
pub mod push;
pub mod render;
pub mod serve;
pub mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

/// A clock that may run faster than the wall's, until it has caught up with it: what happens is never in the future.
#[derive(Debug, Clone)]
pub struct Clock {
    begun: Instant,
    begins: i64,
    speed: f64,
    stopped: Arc<AtomicI64>,
}

impl Clock {
    /// Begins at `begins`, in ms since 1970.
    #[must_use]
    pub fn new(begins: i64, speed: f64) -> Self {
        Self { begun: Instant::now(), begins, speed, stopped: Arc::new(AtomicI64::new(i64::MAX)) }
    }

    /// The simulated time in ms since 1970.
    #[must_use]
    pub fn now(&self) -> i64 {
        let passed = self.begins + (self.begun.elapsed().as_secs_f64() * 1_000.0 * self.speed) as i64;
        let wall = jiff::Timestamp::now().as_millisecond();
        passed.min(wall).min(self.stopped.load(Ordering::Relaxed))
    }

    /// Stands still from now on, at the time that it returns.
    pub fn stop(&self) -> i64 {
        let now = self.now();
        self.stopped.fetch_min(now, Ordering::Relaxed);
        now
    }

    /// Runs on, as if it had not been stopped.
    pub fn go_on(&self) {
        self.stopped.store(i64::MAX, Ordering::Relaxed);
    }
}
