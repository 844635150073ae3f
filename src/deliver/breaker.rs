//! The circuit breaker of the bus connection: opens when more than a share of the
//! attempts of a window failed for want of the bus, lets one probe through at growing intervals, and closes on the first
//! success. Pure: the caller brings "now". Only unavailability counts: a refused topic or a poison event never does.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::config;

/// Below this many attempts in the window nothing is concluded.
const FEWEST_ATTEMPTS: u32 = 20;
/// First and last pause between probes.
const PROBE_PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// The window is counted in this many slices: its bound.
const SLICES: u32 = 30;

/// How one attempt went, as far as the connection is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Acknowledged.
    Success,
    /// The bus was not there, or did not answer in time.
    Failure,
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
    successes: u32,
    failures: u32,
}

#[derive(Debug)]
enum State {
    Closed,
    Open { next_probe: Instant, pause: Duration },
}

/// See the module.
#[derive(Debug)]
pub struct Breaker {
    settings: config::Breaker,
    slices: VecDeque<Slice>,
    state: State,
}

impl Breaker {
    /// A closed one.
    #[must_use]
    pub fn new(settings: config::Breaker) -> Self {
        Self { settings, slices: VecDeque::new(), state: State::Closed }
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

    /// Whether a probe may be sent now; taken, it is spent, and the next one comes later.
    pub fn take_probe(&mut self, now: Instant) -> bool {
        match &mut self.state {
            State::Closed => false,
            State::Open { next_probe, pause } if now >= *next_probe => {
                *pause = (*pause * 2).min(PROBE_PAUSE.1);
                *next_probe = now + *pause;
                true
            }
            State::Open { .. } => false,
        }
    }

    /// The client says that the bus is there again: the next probe may go at once, and the pauses begin anew.
    pub fn probe_now(&mut self, now: Instant) {
        if let State::Open { next_probe, pause } = &mut self.state {
            *next_probe = now;
            *pause = PROBE_PAUSE.0;
        }
    }

    /// Counts one attempt.
    pub fn record(&mut self, now: Instant, verdict: Verdict) -> Option<Change> {
        if let State::Open { .. } = self.state {
            return match verdict {
                Verdict::Failure => None,
                Verdict::Success => {
                    self.state = State::Closed;
                    self.slices.clear();
                    Some(Change::Closed)
                }
            };
        }
        self.count(now, verdict);
        let (successes, failures) =
            self.slices.iter().fold((0, 0), |(s, f), slice| (s + slice.successes, f + slice.failures));
        let attempts = successes + failures;
        if attempts < FEWEST_ATTEMPTS
            || f64::from(failures) <= self.settings.failure_rate * f64::from(attempts)
        {
            return None;
        }
        self.state = State::Open { next_probe: now + PROBE_PAUSE.0, pause: PROBE_PAUSE.0 };
        self.slices.clear();
        Some(Change::Opened)
    }

    fn count(&mut self, now: Instant, verdict: Verdict) {
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
                Verdict::Success => slice.successes += 1,
                Verdict::Failure => slice.failures += 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> Breaker {
        Breaker::new(config::Breaker { failure_rate: 0.5, window: Duration::from_secs(30) })
    }

    fn feed(breaker: &mut Breaker, now: Instant, verdict: Verdict, times: u32) -> Vec<Change> {
        (0..times).filter_map(|_| breaker.record(now, verdict)).collect()
    }

    #[test]
    fn opens_only_past_half_and_only_with_enough_attempts() {
        let now = Instant::now();
        let mut few = breaker();
        assert_eq!(feed(&mut few, now, Verdict::Failure, 19), []);
        assert_eq!(feed(&mut few, now, Verdict::Failure, 1), [Change::Opened]);

        let mut half = breaker();
        feed(&mut half, now, Verdict::Success, 20);
        assert_eq!(feed(&mut half, now, Verdict::Failure, 20), []);
        assert_eq!(feed(&mut half, now, Verdict::Failure, 1), [Change::Opened]);
    }

    #[test]
    fn does_not_flap_at_forty_percent_over_an_hour() {
        let start = Instant::now();
        let mut breaker = breaker();
        for tick in 0..36_000u32 {
            let now = start + Duration::from_millis(100) * tick;
            let verdict = if tick % 5 < 2 { Verdict::Failure } else { Verdict::Success };
            assert_eq!(breaker.record(now, verdict), None);
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
        assert!(breaker.take_probe(start));
        assert_eq!(breaker.record(start, Verdict::Failure), None);
        assert_eq!(breaker.record(start, Verdict::Success), Some(Change::Closed));
        assert!(!breaker.is_open());
    }
}
