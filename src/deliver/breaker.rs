//! The circuit breaker of the bus connection: opens when more than a share of the attempts of a window failed for want of
//! the bus, and not by chance; lets one probe through at growing intervals, and closes on the first success. Pure: the
//! caller brings "now". Only unavailability counts: a refused topic or a poison event never does.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::config;

/// Below this many attempts in the window nothing is concluded.
const FEWEST_ATTEMPTS: u64 = 20;
/// So many standard deviations above the share are no chance: of 20 attempts, at a share of a half, 18 failures. Without it a bus of
/// which 40 % fails would open the breaker every few minutes where there is little traffic.
const CERTAINTY: f64 = 3.5;
/// First and last pause between probes.
const PROBE_PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// Open for so long, it does not wait any more for attempts that are late.
const LONG: Duration = Duration::from_secs(30);
/// A bus of which nothing was heard for so long, but failures, is said to be silent: too few of them may open nothing.
const SILENT: Duration = Duration::from_secs(10);
/// A bus that acknowledged nothing for so long does not answer for one topic alone.
const ALONE: Duration = Duration::from_secs(2);
/// The window is counted in this many slices: its bound.
const SLICES: u32 = 30;

/// How one attempt went, as far as the connection is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Acknowledged.
    Success,
    /// The bus was not there, or did not answer in time.
    Failure,
    /// It does not answer for one topic: a failure of the bus where it acknowledges nothing else either.
    Unanswered,
}

/// A change worth a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Events are parked at once from now on.
    Opened,
    /// Events go to the bus again.
    Closed,
}

#[derive(Debug)]
struct Slice {
    begun: Instant,
    successes: u64,
    failures: u64,
}

#[derive(Debug)]
enum State {
    Closed,
    Open { since: Instant, next_probe: Instant, pause: Duration },
}

/// See the module.
#[derive(Debug)]
pub struct Breaker {
    settings: config::Breaker,
    slices: VecDeque<Slice>,
    state: State,
    /// The first failure since the last success.
    failing_since: Option<Instant>,
}

impl Breaker {
    /// A closed one.
    #[must_use]
    pub fn new(settings: config::Breaker) -> Self {
        Self { settings, slices: VecDeque::new(), state: State::Closed, failing_since: None }
    }

    /// Whether events are parked at once.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// Whether a probe may be sent now.
    #[must_use]
    pub fn is_probe_due(&self, now: Instant) -> bool {
        matches!(self.state, State::Open { next_probe, .. } if now >= next_probe)
    }

    /// Whether it has been open for longer than an attempt that is late is waited for.
    #[must_use]
    pub fn is_open_long(&self, now: Instant) -> bool {
        matches!(self.state, State::Open { since, .. } if now.saturating_duration_since(since) >= LONG)
    }

    /// Whether a probe may be sent now; taken, it is spent, and the next one comes later.
    pub fn take_probe(&mut self, now: Instant) -> bool {
        match &mut self.state {
            State::Closed => false,
            State::Open { next_probe, pause, .. } if now >= *next_probe => {
                *pause = (*pause * 2).min(PROBE_PAUSE.1);
                *next_probe = now + *pause;
                true
            }
            State::Open { .. } => false,
        }
    }

    /// The probe that was taken last has asked the bus nothing.
    pub fn give_probe_back(&mut self, now: Instant) {
        if let State::Open { next_probe, pause, .. } = &mut self.state {
            *pause = (*pause / 2).max(PROBE_PAUSE.0);
            *next_probe = now;
        }
    }

    /// The client says that the bus is there again: the next probe may go at once, and the pauses begin anew.
    pub fn probe_now(&mut self, now: Instant) {
        if let State::Open { next_probe, pause, .. } = &mut self.state {
            *next_probe = now;
            *pause = PROBE_PAUSE.0;
        }
    }

    /// There is a connection again, after so long: the next probe may go at once, and how long the bus is silent counts from here; but
    /// not where it was away for a moment, as where the client tries another server for want of an answer.
    pub fn bus_is_back(&mut self, now: Instant, away: Duration) {
        self.probe_now(now);
        if away >= SILENT {
            self.failing_since = self.failing_since.map(|_| now);
        }
    }

    /// For how long attempts have failed and none was acknowledged; none where that is not long.
    #[must_use]
    pub fn silent_for(&self, now: Instant) -> Option<Duration> {
        let since = self.failing_since?;
        Some(now.saturating_duration_since(since)).filter(|silent| *silent >= SILENT)
    }

    /// Closes it, though nothing was acknowledged: the next attempts show how the bus is.
    pub fn close(&mut self) -> Option<Change> {
        let was_open = self.is_open();
        self.state = State::Closed;
        self.slices.clear();
        was_open.then_some(Change::Closed)
    }

    /// Counts attempts that ended alike, as if one after the other.
    pub fn record(&mut self, now: Instant, verdict: Verdict, attempts: u64) -> Option<Change> {
        match verdict {
            Verdict::Success => self.failing_since = None,
            Verdict::Failure => {
                self.failing_since.get_or_insert(now);
            }
            Verdict::Unanswered => {
                let since = *self.failing_since.get_or_insert(now);
                if now.saturating_duration_since(since) < ALONE {
                    return None;
                }
            }
        }
        if let State::Open { .. } = self.state {
            return match verdict {
                Verdict::Failure | Verdict::Unanswered => None,
                Verdict::Success => self.close(),
            };
        }
        self.count(now, verdict, attempts);
        // A success is no proof that the bus is away, even where older ones have just left the window.
        if verdict == Verdict::Success {
            return None;
        }
        let (successes, failures) =
            self.slices.iter().fold((0, 0), |(s, f), slice| (s + slice.successes, f + slice.failures));
        if !self.is_too_much(successes + failures, failures) {
            return None;
        }
        self.state = State::Open { since: now, next_probe: now + PROBE_PAUSE.0, pause: PROBE_PAUSE.0 };
        self.slices.clear();
        Some(Change::Opened)
    }

    fn is_too_much(&self, attempts: u64, failures: u64) -> bool {
        let (share, of) = (self.settings.failure_rate, attempts as f64);
        let chance = CERTAINTY * (of * share * (1.0 - share)).sqrt();
        // Where everything fails it is no chance, whatever the share.
        attempts >= FEWEST_ATTEMPTS && (failures == attempts || failures as f64 > share * of + chance)
    }

    fn count(&mut self, now: Instant, verdict: Verdict, attempts: u64) {
        while self
            .slices
            .front()
            .is_some_and(|slice| now.saturating_duration_since(slice.begun) > self.settings.window)
        {
            self.slices.pop_front();
        }
        let width = self.settings.window / SLICES;
        if self.slices.back().is_none_or(|slice| now.saturating_duration_since(slice.begun) > width) {
            self.slices.push_back(Slice { begun: now, successes: 0, failures: 0 });
        }
        if let Some(slice) = self.slices.back_mut() {
            match verdict {
                Verdict::Success => slice.successes += attempts,
                Verdict::Failure | Verdict::Unanswered => slice.failures += attempts,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn breaker() -> Breaker {
        Breaker::new(config::Breaker { failure_rate: 0.5, window: Duration::from_secs(30) })
    }

    fn feed(breaker: &mut Breaker, now: Instant, verdict: Verdict, times: u32) -> Vec<Change> {
        (0..times).filter_map(|_| breaker.record(now, verdict, 1)).collect()
    }

    #[test]
    fn opens_only_past_half_and_only_with_enough_attempts() {
        let now = Instant::now();
        let mut few = breaker();
        assert_eq!(feed(&mut few, now, Verdict::Failure, 19), []);
        assert_eq!(feed(&mut few, now, Verdict::Failure, 1), [Change::Opened]);

        let mut some = breaker();
        feed(&mut some, now, Verdict::Success, 2);
        assert_eq!(feed(&mut some, now, Verdict::Failure, 17), []);
        assert_eq!(feed(&mut some, now, Verdict::Failure, 1), [Change::Opened], "18 of 20");

        let mut half = breaker();
        feed(&mut half, now, Verdict::Success, 10_000);
        assert_eq!(feed(&mut half, now, Verdict::Failure, 10_000), []);
        assert_eq!(feed(&mut half, now, Verdict::Failure, 600).len(), 1, "51.5 % of many are no chance");
    }

    #[test]
    fn a_bus_that_was_away_for_a_moment_is_silent_for_as_long_as_before() {
        let (start, mut breaker) = (Instant::now(), breaker());
        let after = |seconds| start + Duration::from_secs(seconds);
        breaker.record(start, Verdict::Failure, 1);
        assert_eq!(breaker.silent_for(after(9)), None);
        breaker.bus_is_back(after(60), Duration::from_secs(1));
        assert_eq!(breaker.silent_for(after(61)), Some(Duration::from_secs(61)));
        breaker.bus_is_back(after(120), Duration::from_secs(60));
        assert_eq!(breaker.silent_for(after(129)), None, "it was not there to be heard of");
        assert_eq!(breaker.silent_for(after(130)), Some(Duration::from_secs(10)));
        breaker.record(after(131), Verdict::Success, 1);
        assert_eq!(breaker.silent_for(after(200)), None);
    }

    #[test]
    fn what_does_not_answer_for_one_topic_counts_only_where_nothing_else_is_acknowledged() {
        let (start, mut breaker) = (Instant::now(), breaker());
        for tick in 0..100 {
            let now = start + Duration::from_millis(100) * tick;
            assert_eq!(feed(&mut breaker, now, Verdict::Unanswered, 50), [], "others are well");
            assert_eq!(breaker.record(now, Verdict::Success, 1), None);
        }
        let from = start + Duration::from_secs(10);
        assert_eq!(feed(&mut breaker, from, Verdict::Unanswered, 2_000), []);
        assert_eq!(feed(&mut breaker, from + ALONE, Verdict::Unanswered, 2_000), [Change::Opened]);
    }

    #[test]
    fn many_that_ended_alike_count_as_one_by_one() {
        let now = Instant::now();
        for (failures, opens) in [(19, false), (20, true), (1 << 20, true)] {
            let mut at_once = breaker();
            assert_eq!(at_once.record(now, Verdict::Failure, failures).is_some(), opens, "{failures}");
            let mut one_by_one = breaker();
            let changes = feed(&mut one_by_one, now, Verdict::Failure, failures as u32);
            assert_eq!(changes.len(), usize::from(opens), "{failures}");
        }
        let mut mixed = breaker();
        assert_eq!(mixed.record(now, Verdict::Success, 10_000), None);
        assert_eq!(mixed.record(now, Verdict::Failure, 10_000), None);
        assert_eq!(mixed.record(now, Verdict::Failure, 600), Some(Change::Opened));
        assert_eq!(mixed.record(now, Verdict::Success, 10_000), Some(Change::Closed));
    }

    #[test]
    fn any_share_opens_when_everything_fails() {
        for failure_rate in [0.95, 1.0] {
            let settings = config::Breaker { failure_rate, window: Duration::from_secs(30) };
            let (now, mut breaker) = (Instant::now(), Breaker::new(settings));
            assert_eq!(feed(&mut breaker, now, Verdict::Failure, 20), [Change::Opened], "{failure_rate}");
        }
        let mut all = Breaker::new(config::Breaker { failure_rate: 1.0, window: Duration::from_secs(30) });
        assert_eq!(feed(&mut all, Instant::now(), Verdict::Success, 1), []);
        assert_eq!(feed(&mut all, Instant::now(), Verdict::Failure, 2_000), [], "not everything");
    }

    #[test]
    fn does_not_flap_at_forty_percent_over_an_hour() {
        let start = Instant::now();
        let mut breaker = breaker();
        for tick in 0..36_000u32 {
            let now = start + Duration::from_millis(100) * tick;
            let verdict = if tick % 5 < 2 { Verdict::Failure } else { Verdict::Success };
            assert_eq!(breaker.record(now, verdict, 1), None);
        }
    }

    #[test]
    fn what_is_older_than_the_window_does_not_count() {
        let start = Instant::now();
        let mut breaker = breaker();
        feed(&mut breaker, start, Verdict::Failure, 19);
        let later = start + Duration::from_secs(40);
        assert_eq!(feed(&mut breaker, later, Verdict::Failure, 19), []);
        assert_eq!(feed(&mut breaker, later, Verdict::Failure, 1), [Change::Opened]);
    }

    #[test]
    fn probes_at_growing_intervals_and_closes_on_the_first_success() {
        let start = Instant::now();
        let mut breaker = breaker();
        feed(&mut breaker, start, Verdict::Failure, 20);
        assert!(!breaker.take_probe(start));
        let mut taken = Vec::new();
        for tick in 0..1_000u64 {
            if breaker.take_probe(start + Duration::from_millis(tick * 100)) {
                taken.push(tick * 100);
            }
        }
        assert_eq!(taken[..5], [300, 800, 1_800, 3_800, 7_800]);
        assert!(taken.windows(2).all(|pair| pair[1] - pair[0] <= 5_000));
        breaker.probe_now(start);
        assert!(breaker.take_probe(start) && !breaker.take_probe(start));
        breaker.give_probe_back(start);
        assert!(breaker.take_probe(start), "it asked nothing");
        assert_eq!(breaker.record(start, Verdict::Failure, 1), None);
        assert_eq!(breaker.record(start, Verdict::Success, 1), Some(Change::Closed));
        assert!(!breaker.is_open());
    }

    #[test]
    fn that_it_is_open_long_begins_when_it_opens_and_ends_when_it_closes() {
        let start = Instant::now();
        let mut breaker = breaker();
        feed(&mut breaker, start, Verdict::Failure, 20);
        breaker.probe_now(start + LONG / 2);
        assert!(!breaker.is_open_long(start + LONG / 2));
        assert!(breaker.is_open_long(start + LONG));
        breaker.record(start, Verdict::Success, 1);
        assert!(!breaker.is_open_long(start + LONG));
    }

    #[test]
    fn a_success_does_not_open_it_though_older_ones_leave_the_window() {
        let start = Instant::now();
        let mut breaker = breaker();
        feed(&mut breaker, start, Verdict::Success, 4);
        feed(&mut breaker, start + Duration::from_secs(25), Verdict::Failure, 19);
        assert_eq!(breaker.record(start + Duration::from_secs(32), Verdict::Success, 1), None);
        assert!(!breaker.is_open());
        let next = breaker.record(start + Duration::from_secs(32), Verdict::Failure, 1);
        assert_eq!(next, Some(Change::Opened));
    }

    /// Numbers that look like chance, the same in every run.
    struct Dice(u64);

    impl Dice {
        /// 0 to 99.
        fn roll(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % 100
        }
    }

    /// How often it opens within an hour, when so many of a hundred attempts fail by chance.
    fn openings(seed: u64, percent: u64, every: Duration) -> usize {
        let (start, mut breaker, mut dice) =
            (Instant::now(), breaker(), Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        let attempts = u32::try_from(3_600_000 / every.as_millis()).unwrap();
        let of = |attempt: u32| start + every * attempt;
        let verdict =
            |dice: &mut Dice| if dice.roll() < percent { Verdict::Failure } else { Verdict::Success };
        let changes = (0..attempts).filter_map(|attempt| breaker.record(of(attempt), verdict(&mut dice), 1));
        changes.filter(|change| *change == Change::Opened).count()
    }

    #[test]
    fn chance_does_not_make_it_flap_at_forty_percent_whatever_the_traffic() {
        for (every, seeds) in [(5, 1), (100, 20), (1_000, 20)] {
            let every = Duration::from_millis(every);
            for seed in 1..=seeds {
                assert_eq!(openings(seed, 40, every), 0, "seed {seed}, every {every:?}");
                assert!(openings(seed, 70, every) > 0, "seed {seed}, every {every:?}");
            }
        }
    }

    proptest! {
        /// However successes, failures and time are mixed: it opens only on proof, probes one at a time and never more than
        /// five seconds after the last, and any success closes it. So nothing starves behind it.
        #[test]
        fn it_opens_on_proof_and_never_stays_shut_to_probes(
            steps in vec((0u64..3_000, any::<bool>(), any::<bool>()), 1..400),
        ) {
            let (mut now, mut breaker) = (Instant::now(), breaker());
            let (mut failures, mut attempts, mut last) = (0u64, 0u64, now);
            for (pause, success, comes_back) in steps {
                now += Duration::from_millis(pause);
                if breaker.is_open() {
                    if comes_back && !success {
                        breaker.probe_now(now);
                        prop_assert!(breaker.is_probe_due(now));
                    }
                    prop_assert!(breaker.is_probe_due(last.max(now) + PROBE_PAUSE.1));
                    if breaker.take_probe(now) {
                        prop_assert!(!breaker.take_probe(now), "one at a time");
                        last = now;
                    }
                } else {
                    prop_assert!(!breaker.take_probe(now));
                }
                let was_open = breaker.is_open();
                let verdict = if success { Verdict::Success } else { Verdict::Failure };
                let change = breaker.record(now, verdict, 1);
                if was_open {
                    prop_assert_eq!(change, success.then_some(Change::Closed));
                    (failures, attempts) = (0, 0);
                    continue;
                }
                // Since it closed; of these the window is a part.
                (failures, attempts) = (failures + u64::from(!success), attempts + 1);
                if change == Some(Change::Opened) {
                    prop_assert!(!success && failures >= 18 && attempts >= FEWEST_ATTEMPTS);
                    last = now;
                }
            }
        }
    }
}
