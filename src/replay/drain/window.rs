//! What the drain may have with the bus at once: a window of unacknowledged events, and a pace: the operator's rate, else what
//! live events leave it ([`Beside`]). The window opens while acknowledgements come about as quickly as they can,
//! for what is in flight beyond that only queues, and live events queue behind it. Invariant: what a lane has waited for longer
//! than [`PATIENCE`] holds no place of the window.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep_until, timeout};

use super::beside::{Beside, Seen};
use crate::bus::Window;

/// How long an acknowledgement may take before the lane counts as slow and the bus as failing.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// The window of unacknowledged events: fewest, first and most.
const SIZE: (usize, usize, usize) = (8, 256, 8192);
/// What it does not shrink below merely because acknowledgements take longer than they could: on a bus that takes one event of a
/// lane at a time, and on one that takes batches.
const ENOUGH: (usize, usize) = (64, 512);
/// An acknowledgement that is not twice as slow as the quickest of late, and this, opens the window; another one shrinks it
/// by twice as much, so that two in three are quick.
const SLACK: Duration = Duration::from_micros(500);
/// One that is slower than this halves it.
const SLOW: Duration = Duration::from_millis(300);
/// How late "of late" is: so long, at least, and twice as long at most.
const LATELY: Duration = Duration::from_secs(10);
/// The window and the pace change without a ring: who waits looks again after it.
const TICK: Duration = Duration::from_millis(250);
/// What was not used of the pace is good for so long: timers are no finer than a millisecond.
const BURST: Duration = Duration::from_millis(2);
/// What one lane sends at once is no more than the pace allows in such a time: lanes take turns, and live events pass between.
const STEP: Duration = Duration::from_millis(10);

/// How many events may be unacknowledged at once. Pure.
#[derive(Debug)]
struct Opening {
    window: Window,
    size: usize,
    /// The quickest acknowledgement since `since`, and in the time before.
    quickest: (Duration, Duration),
    since: Instant,
}

impl Opening {
    fn new(window: Window, now: Instant) -> Self {
        Self { window, size: SIZE.1, quickest: (Duration::MAX, Duration::MAX), since: now }
    }

    /// So long an acknowledgement took.
    fn acknowledged(&mut self, events: usize, took: Duration, now: Instant) {
        if now.duration_since(self.since) > LATELY {
            self.quickest = (Duration::MAX, self.quickest.0);
            self.since = now;
        }
        let enough = match self.window {
            Window::One => ENOUGH.0,
            Window::Unlimited => ENOUGH.1,
        };
        self.quickest.0 = self.quickest.0.min(took);
        let could = self.quickest.0.min(self.quickest.1);
        if took > SLOW {
            self.size = (self.size / 2).max(SIZE.0);
        } else if took <= could * 2 + SLACK {
            self.size = (self.size + events).min(SIZE.2);
        } else {
            self.size = self.size.saturating_sub(2 * events).max(enough.min(self.size));
        }
    }
}

/// See the module. All lanes share one.
pub(super) struct Sending {
    opening: Mutex<Opening>,
    unacknowledged: AtomicUsize,
    room: Notify,
    /// From when on the pace allows more; whoever waits for that holds it, and the others wait in line.
    free_at: tokio::sync::Mutex<Instant>,
    rate: watch::Receiver<Option<u32>>,
    beside: Mutex<Beside>,
}

impl Sending {
    pub(super) fn new(window: Window, rate: watch::Receiver<Option<u32>>, seen: Seen) -> Self {
        let now = Instant::now();
        Self {
            opening: Mutex::new(Opening::new(window, now)),
            unacknowledged: AtomicUsize::new(0),
            room: Notify::new(),
            free_at: tokio::sync::Mutex::new(now),
            rate,
            beside: Mutex::new(Beside::new(seen, now)),
        }
    }

    /// Waits until at least one event fits the window, takes up to `wanted` places, and keeps to the pace. How
    /// many places were taken: [`give_back`](Self::give_back) them.
    pub(super) async fn room(&self, wanted: usize) -> usize {
        let taken = self.places(self.at_once(wanted)).await;
        self.pace(taken).await;
        taken
    }

    /// Of so many, what one lane sends in one turn: what is read beyond that may be discarded before it goes.
    pub(super) fn at_once(&self, wanted: usize) -> usize {
        let pace = self.a_second();
        pace.map_or(wanted, |pace| ((pace * STEP.as_secs_f64()) as usize).min(wanted)).max(1)
    }

    async fn places(&self, wanted: usize) -> usize {
        loop {
            let notified = self.room.notified();
            let size = self.opening.lock().size;
            let taken = self.unacknowledged.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                let free = size.saturating_sub(used);
                (free > 0).then(|| used + free.min(wanted))
            });
            if let Ok(before) = taken {
                return size.saturating_sub(before).min(wanted);
            }
            timeout(TICK, notified).await.ok();
        }
    }

    /// Keeps to the pace, all lanes together.
    async fn pace(&self, events: usize) {
        if self.a_second().is_none() {
            return;
        }
        let mut free_at = self.free_at.lock().await;
        while let Some(pace) = self.a_second() {
            let now = Instant::now();
            if *free_at <= now {
                let from = now.checked_sub(BURST).unwrap_or(now).max(*free_at);
                *free_at = from + Duration::from_secs_f64(events as f64 / pace);
                return;
            }
            sleep_until((*free_at).min(now + TICK).into()).await;
        }
    }

    /// Events a second: what the operator says, else what live events leave.
    fn a_second(&self) -> Option<f64> {
        let configured = self.rate.borrow().map(|rate| f64::from(rate.max(1)));
        configured.or_else(|| self.beside.lock().pace())
    }

    /// What was counted until now: how many events a second live ones leave the drain; 0 where it goes as fast as it can.
    pub(super) fn look(&self, seen: Seen) -> u64 {
        let configured = self.rate.borrow().is_some();
        let mut beside = self.beside.lock();
        beside.look(seen, Instant::now());
        beside.pace().filter(|_| !configured).map_or(0, |pace| pace as u64)
    }

    /// These are acknowledged, or wait without a place.
    pub(super) fn give_back(&self, places: usize) {
        self.unacknowledged.fetch_sub(places, Ordering::Relaxed);
        self.room.notify_waiters();
    }

    /// So long an answer took.
    pub(super) fn acknowledged(&self, events: usize, took: Duration) {
        self.opening.lock().acknowledged(events, took, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::{join, join_all};

    use super::*;

    const QUICK: Duration = Duration::from_millis(2);
    const SECOND: Duration = Duration::from_secs(1);

    fn many(opening: &mut Opening, took: Duration, now: Instant) -> usize {
        for _ in 0..1_000 {
            opening.acknowledged(16, took, now);
        }
        opening.size
    }

    #[test]
    fn the_window_opens_while_acknowledgements_are_as_quick_as_they_can_be_and_shrinks_when_they_queue() {
        for (window, enough) in [(Window::One, ENOUGH.0), (Window::Unlimited, ENOUGH.1)] {
            let now = Instant::now();
            let mut opening = Opening::new(window, now);
            opening.acknowledged(16, QUICK, now);
            assert_eq!(opening.size, SIZE.1 + 16);
            assert_eq!(many(&mut opening, QUICK * 2 + SLACK, now), SIZE.2);
            assert_eq!(many(&mut opening, QUICK * 3, now), enough);
        }
    }

    #[test]
    fn the_window_halves_when_the_bus_is_slow_and_is_not_opened_by_mere_queueing() {
        let now = Instant::now();
        let mut opening = Opening::new(Window::Unlimited, now);
        opening.acknowledged(16, QUICK, now);
        let before = opening.size;
        opening.acknowledged(16, SECOND, now);
        assert_eq!(opening.size, before / 2);
        assert_eq!(many(&mut opening, SECOND, now), SIZE.0);
        assert_eq!(many(&mut opening, QUICK * 3, now), SIZE.0, "less than enough, and still not quick");
        opening.acknowledged(16, QUICK, now);
        assert_eq!(opening.size, SIZE.0 + 16);
    }

    #[tokio::test]
    async fn who_waits_for_a_turn_has_it_by_the_new_rate_once_that_is_another() {
        for new in [Some(10_000), None] {
            let (rate, is_rate) = watch::channel(Some(1));
            let sending = Sending::new(Window::One, is_rate, Seen::default());
            let waiting = join_all((0..50).map(|_| sending.room(1)));
            let raising = async {
                tokio::task::yield_now().await;
                rate.send_replace(new);
            };
            let waited = timeout(SECOND * 10, join(waiting, raising)).await;
            assert!(waited.is_ok(), "by the old one it were 50 seconds");
        }
    }

    #[test]
    fn what_is_quick_is_learnt_anew_where_the_bus_is_further_away() {
        let mut now = Instant::now();
        let mut opening = Opening::new(Window::One, now);
        assert_eq!(many(&mut opening, QUICK, now), SIZE.2);
        let far = QUICK * 10;
        assert_eq!(many(&mut opening, far, now), ENOUGH.0);
        for _ in 0..3 {
            now += LATELY + SECOND;
            many(&mut opening, far, now);
        }
        assert_eq!(opening.size, SIZE.2);
    }

    #[tokio::test]
    async fn all_lanes_together_keep_to_the_pace_in_steps_and_the_operator_decides_it() {
        let (operator, rate) = watch::channel(None);
        let sending = Sending::new(Window::Unlimited, rate, Seen::default());
        assert_eq!(sending.room(128).await, 128, "nothing holds it back");
        sending.give_back(128);
        *sending.beside.lock() = Beside::at(1.0);
        operator.send_replace(Some(1_000));
        assert_eq!(sending.look(Seen::default()), 0, "it is not live traffic that decides");
        let begun = Instant::now();
        let lanes = (0..20).map(|_| sending.room(128));
        let taken: usize = join_all(lanes).await.iter().sum();
        assert_eq!(taken, 200);
        assert!(begun.elapsed() >= Duration::from_millis(180), "{taken} in {:?}", begun.elapsed());
        operator.send_replace(None);
        assert_eq!(sending.look(Seen::default()), 1);
        assert_eq!(sending.room(128).await, 1);
    }
}
