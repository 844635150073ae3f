//! What the drain may have with the bus at once: a window of unacknowledged events, and the operator's rate. The window
//! opens while acknowledgements come about as quickly as they can, for what is in flight beyond that only queues, and live
//! events queue behind it: while any come, the drain leaves them about half of what the bus takes, but where it would not catch
//! up. Invariant: what a lane has waited for longer than [`PATIENCE`] holds no place of the window.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep_until, timeout};

use crate::bus::Window;
use crate::deliver::lanes::Came;

/// How long an acknowledgement may take before the lane counts as slow and the bus as failing.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// The window of unacknowledged events: fewest, first and most.
const SIZE: (usize, usize, usize) = (8, 256, 8192);
/// What it does not shrink below merely because acknowledgements take longer than they could: on a bus that takes one event of a
/// lane at a time, where events come beside the drain and where none do; and on one that takes batches. So much of a bus that is near,
/// and so many times as much of one that is so many times further away, for most of that is on its way.
const ENOUGH: Enough = Enough { one: 64, one_beside: 8, batches: 512 };
/// An acknowledgement that is not twice as slow as the quickest of late, and this, opens the window; another one shrinks it
/// by twice as much, so that two in three are quick. Where events come beside the drain, and where none do.
const SLACK: (Duration, Duration) = (Duration::from_micros(100), Duration::from_micros(500));
/// Live events come beside the drain for so long after one did.
const BESIDE: Duration = Duration::from_millis(250);
/// It catches up where it delivers so many times what was parked anew meanwhile.
const CATCHES_UP: u64 = 2;
/// Its quickest acknowledgements come within this.
const NEAR: Duration = Duration::from_millis(4);
/// One that is slower than this, and than so many times the quickest of late, halves it; in any case one that is slower than the last.
const SLOW: (Duration, u32, Duration) = (Duration::from_millis(300), 4, Duration::from_secs(1));
/// How late "of late" is: so long, at least, and twice as long at most.
const LATELY: Duration = Duration::from_secs(10);
/// The window shrinks and grows without a ring: who waits looks again after it.
const TICK: Duration = Duration::from_millis(250);

struct Enough {
    one: usize,
    one_beside: usize,
    batches: usize,
}

/// How many events may be unacknowledged at once. Pure.
#[derive(Debug)]
struct Opening {
    window: Window,
    size: usize,
    /// The quickest acknowledgement since `since`, and in the time before.
    quickest: (Duration, Duration),
    /// When it was halved: what was sent before says no more.
    halved_at: Instant,
    since: Instant,
    /// How many live events had come when it was last seen that more had, and when that was.
    live: (u64, Option<Instant>),
    /// How many had been parked anew at `since`, and how many were delivered after it.
    behind: u64,
    delivered: u64,
    /// Whether it caught up in the time before `since`.
    catches_up: bool,
}

impl Opening {
    fn new(window: Window, came: Came, now: Instant) -> Self {
        Self {
            window,
            size: SIZE.1,
            quickest: (Duration::MAX, Duration::MAX),
            halved_at: now,
            since: now,
            live: (came.live, None),
            behind: came.behind,
            delivered: 0,
            catches_up: true,
        }
    }

    fn could(&self) -> Duration {
        self.quickest.0.min(self.quickest.1)
    }

    /// How many times as far away the bus is as one that is near; once where nothing is known.
    fn times_as_far(&self) -> usize {
        let could = Some(self.could()).filter(|could| *could < Duration::MAX).unwrap_or_default();
        usize::try_from(could.as_micros() / NEAR.as_micros()).unwrap_or(usize::MAX).max(1)
    }

    /// So long an acknowledgement took; and so many events have come to the lanes until now.
    fn acknowledged(&mut self, events: usize, took: Duration, came: Came, now: Instant) {
        if now.duration_since(self.since) > LATELY {
            self.quickest = (Duration::MAX, self.quickest.0);
            self.catches_up = self.delivered >= (came.behind - self.behind) * CATCHES_UP;
            (self.since, self.behind, self.delivered) = (now, came.behind, 0);
        }
        self.delivered += events as u64;
        if came.live != self.live.0 {
            self.live = (came.live, Some(now));
        }
        let beside = self.live.1.is_some_and(|at| now.duration_since(at) < BESIDE);
        let (enough, slack) = match self.window {
            Window::One if beside && self.catches_up => (ENOUGH.one_beside, SLACK.0),
            Window::One => (ENOUGH.one, SLACK.1),
            Window::Unlimited => (ENOUGH.batches, SLACK.1),
        };
        self.quickest.0 = self.quickest.0.min(took);
        let could = self.could();
        let slow = could.saturating_mul(SLOW.1).clamp(SLOW.0, SLOW.2);
        if took > slow {
            if now.checked_sub(took).is_none_or(|sent_at| sent_at >= self.halved_at) {
                self.size = (self.size / 2).max(SIZE.0);
                self.halved_at = now;
            }
        } else if took <= could * 2 + slack {
            self.size = (self.size + events).min(SIZE.2);
        } else {
            let enough = enough.saturating_mul(self.times_as_far()).min(self.size);
            self.size = self.size.saturating_sub(2 * events).max(enough);
        }
    }
}

/// See the module. All lanes share one.
pub(super) struct Sending {
    opening: Mutex<Opening>,
    unacknowledged: AtomicUsize,
    room: Notify,
    pace: Mutex<Pace>,
    rate: watch::Receiver<Option<u32>>,
}

/// The turns that were given at one rate, and when the next one is.
struct Pace {
    rate: u32,
    free_at: Instant,
}

impl Sending {
    pub(super) fn new(window: Window, rate: watch::Receiver<Option<u32>>, came: Came) -> Self {
        Self {
            opening: Mutex::new(Opening::new(window, came, Instant::now())),
            unacknowledged: AtomicUsize::new(0),
            room: Notify::new(),
            pace: Mutex::new(Pace { rate: 0, free_at: Instant::now() }),
            rate,
        }
    }

    /// Waits until at least one event fits the window, takes up to `wanted` places, and keeps to the configured rate. How
    /// many places were taken: [`give_back`](Self::give_back) them.
    pub(super) async fn room(&self, wanted: usize) -> usize {
        let taken = self.places(wanted).await;
        self.pace(taken).await;
        taken
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
                let taken = size.saturating_sub(before).min(wanted);
                if before + taken < size {
                    self.room.notify_one();
                }
                return taken;
            }
            timeout(TICK, notified).await.ok();
        }
    }

    /// Keeps to the configured rate, all lanes together. Where a reload changes it, those who wait have their turn by the new one.
    async fn pace(&self, events: usize) {
        let mut configured = self.rate.clone();
        loop {
            let Some(rate) = *configured.borrow_and_update() else { return };
            let turn = {
                let (now, mut pace) = (Instant::now(), self.pace.lock());
                let turn = if pace.rate == rate { pace.free_at.max(now) } else { now };
                let took = Duration::from_secs_f64(events as f64 / f64::from(rate.max(1)));
                *pace = Pace { rate, free_at: turn + took };
                turn
            };
            tokio::select! {
                () = sleep_until(turn.into()) => return,
                Ok(()) = configured.changed() => {}
            }
        }
    }

    /// As many times as the bus is further away than one that is near, but not more than so many.
    pub(super) fn times_as_far(&self, most: usize) -> usize {
        self.opening.lock().times_as_far().min(most)
    }

    /// These are acknowledged, or wait without a place.
    pub(super) fn give_back(&self, places: usize) {
        self.unacknowledged.fetch_sub(places, Ordering::Relaxed);
        // Who takes it wakes the next where there is more: hundreds wait, and most of them would find nothing.
        self.room.notify_one();
    }

    /// So long an acknowledgement took; and so many events have come to the lanes until now.
    pub(super) fn acknowledged(&self, events: usize, took: Duration, came: Came) {
        self.opening.lock().acknowledged(events, took, came, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::{join, join_all};

    use super::*;

    const QUICK: Duration = Duration::from_millis(2);
    const SECOND: Duration = Duration::from_secs(1);
    const NONE: Came = Came { live: 0, behind: 0 };

    fn many(opening: &mut Opening, took: Duration, now: Instant) -> usize {
        for _ in 0..1_000 {
            opening.acknowledged(16, took, NONE, now);
        }
        opening.size
    }

    #[test]
    fn the_window_opens_while_acknowledgements_are_as_quick_as_they_can_be_and_shrinks_when_they_queue() {
        for (window, enough) in [(Window::One, ENOUGH.one), (Window::Unlimited, ENOUGH.batches)] {
            let now = Instant::now();
            let mut opening = Opening::new(window, NONE, now);
            opening.acknowledged(16, QUICK, NONE, now);
            assert_eq!(opening.size, SIZE.1 + 16);
            assert_eq!(many(&mut opening, QUICK * 2 + SLACK.1, now), SIZE.2);
            assert_eq!(many(&mut opening, QUICK * 3, now), enough);
        }
    }

    /// What queues, and an acknowledgement after each of so many live events and others that are parked anew.
    fn beside(opening: &mut Opening, came: &mut Came, each: Came, now: Instant) {
        for _ in 0..1_000 {
            *came = Came { live: came.live + each.live, behind: came.behind + each.behind };
            opening.acknowledged(1, QUICK * 3, *came, now);
        }
    }

    #[test]
    fn beside_live_events_what_queues_is_less_and_it_grows_again_once_none_come() {
        let mut now = Instant::now();
        let mut came = Came { live: 7, behind: 0 };
        let mut opening = Opening::new(Window::One, came, now);
        opening.acknowledged(1, QUICK, came, now);
        beside(&mut opening, &mut came, Came { live: 1, behind: 0 }, now);
        assert_eq!(opening.size, ENOUGH.one_beside);
        now += BESIDE / 2;
        opening.acknowledged(1, QUICK * 2 + SLACK.0 * 2, came, now);
        assert_eq!(opening.size, ENOUGH.one_beside, "one came just now, and this queued");
        opening.acknowledged(1, QUICK * 2 + SLACK.0, came, now);
        assert_eq!(opening.size, ENOUGH.one_beside + 1, "and this did not");
        now += BESIDE;
        came.behind += 1;
        opening.acknowledged(1, QUICK * 2 + SLACK.1, came, now);
        assert_eq!(
            opening.size,
            ENOUGH.one_beside + 2,
            "what comes is parked: it waits for the drain and not for the bus"
        );
    }

    #[test]
    fn a_drain_that_does_not_catch_up_beside_live_events_gets_more_of_the_bus_until_it_does() {
        let mut now = Instant::now();
        let mut came = NONE;
        let mut opening = Opening::new(Window::One, came, now);
        for (behind, enough) in
            [(1, ENOUGH.one_beside), (1, ENOUGH.one), (0, ENOUGH.one), (0, ENOUGH.one_beside)]
        {
            opening.acknowledged(1, QUICK, came, now);
            opening.size = SIZE.1;
            beside(&mut opening, &mut came, Came { live: 1, behind }, now);
            assert_eq!(opening.size, enough);
            now += LATELY + SECOND;
        }
    }

    #[test]
    fn the_window_halves_when_the_bus_is_slow_and_is_not_opened_by_mere_queueing() {
        let mut now = Instant::now();
        let mut opening = Opening::new(Window::Unlimited, NONE, now);
        opening.acknowledged(16, QUICK, NONE, now);
        let before = opening.size;
        let slow = SLOW.0 * 2;
        now += slow;
        opening.acknowledged(16, slow, NONE, now);
        assert_eq!(many(&mut opening, slow, now + slow / 2), before / 2, "what was sent before says no more");
        for _ in 0..10 {
            now += slow;
            opening.acknowledged(16, slow, NONE, now);
        }
        assert_eq!(opening.size, SIZE.0);
        assert_eq!(many(&mut opening, QUICK * 3, now), SIZE.0, "less than enough, and still not quick");
        opening.acknowledged(16, QUICK, NONE, now);
        assert_eq!(opening.size, SIZE.0 + 16);
    }

    #[tokio::test]
    async fn who_waits_for_a_turn_has_it_by_the_new_rate_once_that_is_another() {
        for new in [Some(10_000), None] {
            let (rate, is_rate) = watch::channel(Some(1));
            let sending = Sending::new(Window::One, is_rate, NONE);
            let waiting = join_all((0..50).map(|_| sending.room(1)));
            let raising = async {
                tokio::task::yield_now().await;
                rate.send_replace(new);
            };
            let waited = timeout(SECOND * 10, join(waiting, raising)).await;
            assert!(waited.is_ok(), "by the old one it were 50 seconds");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_place_is_woken_by_who_gives_one_back() {
        let sending = Sending::new(Window::One, watch::channel(None).1, NONE);
        let begun = tokio::time::Instant::now();
        let lanes = (0..1_000).map(|_| async {
            let places = sending.room(3).await;
            tokio::task::yield_now().await;
            sending.give_back(places);
        });
        join_all(lanes).await;
        assert_eq!(tokio::time::Instant::now(), begun, "nobody waited for a tick");
    }

    /// Each waits for those before it, as where a client has so many requests under way at most.
    #[test]
    fn a_bus_that_is_far_away_is_not_taken_for_a_slow_one() {
        for far in [SLOW.0 / 2, SLOW.0, SLOW.2 / 2] {
            let mut now = Instant::now();
            let mut opening = Opening::new(Window::Unlimited, NONE, now);
            for round in 0..20 {
                now += far * 2;
                opening.acknowledged(16, far + far.mul_f64(f64::from(round % 4) / 4.0), NONE, now);
            }
            assert!(opening.size > SIZE.1, "{far:?}: {}", opening.size);
        }
        // Where it is one that takes a second and more, others wait for it.
        let mut opening = Opening::new(Window::Unlimited, NONE, Instant::now());
        opening.acknowledged(1, SLOW.2 * 2, NONE, Instant::now() + SLOW.2 * 2);
        assert_eq!(opening.size, SIZE.1 / 2);
    }

    #[test]
    fn what_is_quick_is_learnt_anew_where_the_bus_is_further_away() {
        let mut now = Instant::now();
        let mut opening = Opening::new(Window::One, NONE, now);
        assert_eq!(many(&mut opening, QUICK, now), SIZE.2);
        let far = QUICK * 10;
        assert_eq!(many(&mut opening, far, now), ENOUGH.one, "it was near just now");
        for _ in 0..3 {
            now += LATELY + SECOND;
            many(&mut opening, far, now);
        }
        assert_eq!(opening.size, SIZE.2);
    }
}
