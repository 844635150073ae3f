//! How fast the drain may go while live events are delivered beside it: as fast as leaves their 99th percentile within twice of
//! what it is without a drain. What that is, is learnt while nothing is drained. Invariant: pure; never slower than a
//! floor, nor so slow that what is parked anew meanwhile is not caught up with. Neighbours: `deliver::live` has the times,
//! `window` keeps to the pace.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::deliver::live::Reading;

/// How often it looks, at most; and after what time it makes do with what it has seen.
const LOOK: Duration = Duration::from_millis(250);
const LONG: Duration = Duration::from_secs(1);
/// Fewer live events than that in a look say nothing of their percentile, and are not waited for.
const FEW: u64 = 50;
/// Events a second: the least, which also shows what is normal where nothing else did; and the first.
const FLOOR: f64 = 1_000.0;
const FIRST: f64 = 4_000.0;
/// It catches up where it delivers so many times what is parked anew meanwhile.
const CATCHES_UP: f64 = 3.0;
/// Looks without a drain that are remembered.
const LOOKS: usize = 16;
/// Against what is normal: up to the first it goes faster in large steps, up to the second in small ones, beyond the third slower.
const QUICK: f64 = 1.25;
const NEAR: f64 = 1.5;
const SLOW: f64 = 1.75;
const TOO_HIGH: f64 = 0.5;
const MUCH_FASTER: f64 = 1.5;
const FASTER: f64 = 1.1;
const SLOWER: f64 = 0.7;
/// It may be allowed so many times what it does: an allowance that it does not use grows no further.
const UNUSED: f64 = 2.0;

/// What was counted until now.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// Live events by the time that the bus took.
    pub live: Reading,
    /// Events that were parked behind others.
    pub behind: u64,
    /// Rows that the bus acknowledged.
    pub drained: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Beside {
    /// What was seen at the last look.
    seen: Seen,
    at: Instant,
    /// The 99th percentile, look by look, without a drain.
    normal: VecDeque<Duration>,
    /// Events a second; none while nothing live is waited for.
    pace: Option<f64>,
}

impl Beside {
    pub(super) fn new(seen: Seen, now: Instant) -> Self {
        Self { seen, at: now, normal: VecDeque::with_capacity(LOOKS), pace: None }
    }

    /// With a pace, without a look.
    #[cfg(test)]
    pub(super) fn at(pace: f64) -> Self {
        Self { pace: Some(pace), ..Self::new(Seen::default(), Instant::now()) }
    }

    /// Events a second that it may send; none: as many as it can.
    pub(super) fn pace(&self) -> Option<f64> {
        self.pace
    }

    /// Draws the conclusions from what was counted since the last look.
    pub(super) fn look(&mut self, seen: Seen, now: Instant) {
        let took = now.duration_since(self.at);
        let live = seen.live.since(&self.seen.live);
        let few = live.count() < FEW;
        if took < LOOK || (few && took < LONG) {
            return;
        }
        let a_second = |now: u64, before: u64| now.saturating_sub(before) as f64 / took.as_secs_f64();
        let drained = a_second(seen.drained, self.seen.drained);
        let floor = FLOOR.max(a_second(seen.behind, self.seen.behind) * CATCHES_UP);
        (self.seen, self.at) = (seen, now);
        self.pace = match live.p99() {
            Some(p99) if !few => Some(self.decide(p99, drained, floor)),
            Some(_) | None => None,
        };
    }

    fn decide(&mut self, p99: Duration, drained: f64, floor: f64) -> f64 {
        if drained == 0.0 {
            self.learn(p99);
            return FIRST.max(floor);
        }
        let at_floor = self.pace.is_some_and(|pace| pace <= FLOOR);
        let Some(normal) = self.normal() else {
            if at_floor {
                self.learn(p99);
            }
            return floor;
        };
        let times = p99.as_secs_f64() / normal.as_secs_f64();
        if times < TOO_HIGH {
            // That was learnt of a bus that was unwell, for no drain makes one quicker.
            self.normal.clear();
            return floor;
        }
        if at_floor && times > SLOW {
            // It is not the drain.
            self.learn(p99);
        }
        let pace = self.pace.unwrap_or(drained);
        let step = match times {
            _ if times <= QUICK => MUCH_FASTER,
            _ if times <= NEAR => FASTER,
            _ if times <= SLOW => 1.0,
            _ => SLOWER,
        };
        (pace.min(drained * UNUSED) * step).max(floor)
    }

    fn learn(&mut self, p99: Duration) {
        if self.normal.len() == LOOKS {
            self.normal.pop_front();
        }
        self.normal.push_back(p99);
    }

    /// The middle one: a look into which an outage began says something else.
    fn normal(&self) -> Option<Duration> {
        let mut sorted: Vec<_> = self.normal.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deliver::live::Times;

    const NORMAL: Duration = Duration::from_millis(1);

    /// A drain beside so many live events a second, on a bus that takes longer the more it is asked for.
    struct Ground {
        beside: Beside,
        times: Times,
        now: Instant,
        behind: u64,
        drained: f64,
        /// The drain goes so fast when nothing holds it back.
        able: f64,
        /// At so many a second the live events' 99th percentile is twice what it is without it.
        doubles_at: f64,
        normal: Duration,
    }

    impl Ground {
        fn new(doubles_at: f64) -> Self {
            let now = Instant::now();
            Self {
                beside: Beside::new(Seen::default(), now),
                times: Times::default(),
                now,
                behind: 0,
                drained: 0.0,
                able: 30_000.0,
                doubles_at,
                normal: NORMAL,
            }
        }

        /// So many live events and others behind, in a quarter of a second; how fast the drain went in it.
        fn quarter(&mut self, live: u64, behind: u64, drains: Drains) -> f64 {
            let rate = match drains {
                Drains::Yes => self.beside.pace().unwrap_or(self.able).min(self.able),
                Drains::No => 0.0,
            };
            let took = self.normal.mul_f64(1.0 + rate / self.doubles_at);
            (0..live).for_each(|_| self.times.observe(took));
            self.behind += behind;
            self.drained += rate / 4.0;
            self.now += LOOK;
            let seen = Seen { live: self.times.read(), behind: self.behind, drained: self.drained as u64 };
            self.beside.look(seen, self.now);
            rate
        }

        fn settles_at(&mut self, live: u64, behind: u64) -> f64 {
            (0..60).map(|_| self.quarter(live, behind, Drains::Yes)).last().unwrap()
        }
    }

    #[derive(Clone, Copy)]
    enum Drains {
        Yes,
        No,
    }

    #[test]
    fn it_goes_as_fast_as_leaves_live_events_within_twice_and_no_slower() {
        for doubles_at in [5_000.0, 10_000.0, 20_000.0] {
            let mut ground = Ground::new(doubles_at);
            (0..8).for_each(|_| assert_eq!(ground.quarter(250, 0, Drains::No), 0.0));
            assert!(ground.quarter(250, 0, Drains::Yes) <= FIRST, "it begins slowly");
            let rate = ground.settles_at(250, 0);
            assert!((0.4..=1.0).contains(&(rate / doubles_at)), "{rate} where {doubles_at} doubles it");
        }
    }

    #[test]
    fn what_live_events_do_not_feel_is_not_held_back_and_neither_is_what_none_come_beside() {
        let mut ground = Ground::new(1e9);
        ground.quarter(250, 0, Drains::No);
        assert_eq!(ground.settles_at(250, 0), ground.able);
        let mut ground = Ground::new(5_000.0);
        ground.quarter(250, 0, Drains::No);
        assert!(ground.settles_at(250, 0) < ground.able);
        assert_eq!(ground.settles_at(FEW / 8, 0), ground.able, "a few say nothing");
        assert_eq!(ground.settles_at(0, 0), ground.able);
    }

    #[test]
    fn what_is_normal_is_learnt_at_the_floor_where_a_drain_comes_first() {
        let mut ground = Ground::new(10_000.0);
        ground.quarter(250, 0, Drains::Yes);
        assert_eq!(ground.quarter(250, 0, Drains::Yes), FLOOR);
        let rate = ground.settles_at(250, 0);
        assert!((0.4..=1.0).contains(&(rate / ground.doubles_at)), "{rate}");
    }

    #[test]
    fn a_bus_that_became_slower_by_itself_is_learnt() {
        let mut ground = Ground::new(10_000.0);
        (0..8).for_each(|_| assert_eq!(ground.quarter(250, 0, Drains::No), 0.0));
        ground.settles_at(250, 0);
        ground.normal = NORMAL * 5;
        (0..4).for_each(|_| {
            ground.settles_at(250, 0);
        });
        let rate = ground.settles_at(250, 0);
        assert!(rate > FLOOR * 2.0, "{rate}");
    }

    #[test]
    fn what_was_learnt_of_a_bus_that_was_unwell_is_forgotten_while_it_drains() {
        let mut ground = Ground::new(10_000.0);
        ground.normal = NORMAL * 1_000;
        (0..LOOKS).for_each(|_| assert_eq!(ground.quarter(250, 0, Drains::No), 0.0));
        ground.normal = NORMAL;
        ground.settles_at(250, 0);
        let rate = ground.settles_at(250, 0);
        assert!((0.4..=1.0).contains(&(rate / ground.doubles_at)), "{rate}");
    }

    #[test]
    fn it_catches_up_with_what_is_parked_anew_whatever_live_events_feel() {
        let mut ground = Ground::new(1_000.0);
        ground.quarter(250, 0, Drains::No);
        let rate = ground.settles_at(250, 1_000);
        assert!(rate >= 4_000.0 * CATCHES_UP, "{rate} beside 4,000/s");
    }

    #[test]
    fn one_look_into_which_an_outage_began_is_not_what_is_normal() {
        let mut ground = Ground::new(10_000.0);
        (0..4).for_each(|_| assert_eq!(ground.quarter(250, 0, Drains::No), 0.0));
        ground.normal = Duration::from_secs(2);
        ground.quarter(60, 0, Drains::No);
        ground.normal = NORMAL;
        let rate = ground.settles_at(250, 0);
        assert!((0.4..=1.0).contains(&(rate / ground.doubles_at)), "{rate}");
    }
}
