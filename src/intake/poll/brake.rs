//! The breaker of a polled host (mapping section 5): where calls fail by half or more, they are slowed to single ones at
//! growing pauses, until one succeeds. Pure: "now" comes in. Only what speaks against the host counts: a refused token or a
//! request that it does not like concerns one feed.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// So many of the last calls are looked at.
const REMEMBERED: usize = 20;
/// Below so many nothing is concluded.
const FEWEST: usize = 4;
/// The first and the longest pause between two calls.
const PAUSE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));

/// How one call went, as far as the host is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It answered.
    Well,
    /// It did not, or not as an API does.
    Failing,
}

/// A change worth a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Calls go out one by one from now on.
    Slowed,
    /// Calls go out freely again.
    Recovered,
}

#[derive(Debug)]
enum State {
    Free,
    Slowed { next: Instant, pause: Duration },
}

/// See the module.
#[derive(Debug)]
pub struct Brake {
    recent: VecDeque<Verdict>,
    state: State,
}

impl Default for Brake {
    fn default() -> Self {
        Self { recent: VecDeque::with_capacity(REMEMBERED), state: State::Free }
    }
}

impl Brake {
    /// Whether calls go out one by one.
    #[must_use]
    pub const fn is_slowed(&self) -> bool {
        matches!(self.state, State::Slowed { .. })
    }

    /// Whether a call would be let out.
    ///
    /// # Errors
    /// How long to wait before asking again.
    pub fn wait(&self, now: Instant) -> Result<(), Duration> {
        match self.state {
            State::Slowed { next, .. } if now < next => Err(next - now),
            State::Slowed { .. } | State::Free => Ok(()),
        }
    }

    /// Lets a call out.
    ///
    /// # Errors
    /// How long to wait before asking again.
    pub fn admit(&mut self, now: Instant) -> Result<(), Duration> {
        self.wait(now)?;
        if let State::Slowed { next, pause } = &mut self.state {
            *pause = (*pause * 2).min(PAUSE.1);
            *next = now + *pause;
        }
        Ok(())
    }

    /// Counts one call.
    pub fn record(&mut self, verdict: Verdict, now: Instant) -> Option<Change> {
        match (&self.state, verdict) {
            (State::Slowed { .. }, Verdict::Failing) => return None,
            (State::Slowed { .. }, Verdict::Well) => {
                *self = Self::default();
                return Some(Change::Recovered);
            }
            (State::Free, Verdict::Well | Verdict::Failing) => {}
        }
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back(verdict);
        let failing = self.recent.iter().filter(|verdict| **verdict == Verdict::Failing).count();
        if self.recent.len() < FEWEST || failing * 2 < self.recent.len() {
            return None;
        }
        self.recent.clear();
        self.state = State::Slowed { next: now + PAUSE.0, pause: PAUSE.0 };
        Some(Change::Slowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(brake: &mut Brake, verdicts: &str) -> Vec<Change> {
        let now = Instant::now();
        let verdict = |c| if c == 'x' { Verdict::Failing } else { Verdict::Well };
        verdicts.chars().filter_map(|c| brake.record(verdict(c), now)).collect()
    }

    #[test]
    fn slows_at_half_and_recovers_at_the_first_success() {
        let mut brake = Brake::default();
        assert_eq!(record(&mut brake, "xxx"), []);
        assert_eq!(record(&mut brake, "x"), [Change::Slowed]);
        assert_eq!(record(&mut brake, "xxx"), []);
        assert_eq!(record(&mut brake, "."), [Change::Recovered]);
        assert_eq!(record(&mut brake, "...x..x...x"), []);
        assert_eq!(record(&mut brake, "xxxxx"), [Change::Slowed]);
    }

    #[test]
    fn slowed_calls_go_out_one_by_one_at_growing_pauses() {
        let mut brake = Brake::default();
        assert_eq!(brake.admit(Instant::now()), Ok(()));
        record(&mut brake, "xxxx");
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        assert!(brake.admit(at(9)).is_err());
        let out: Vec<u64> = (10..2_000).filter(|second| brake.admit(at(*second)).is_ok()).collect();
        assert_eq!(out[..6], [10, 30, 70, 150, 310, 610]);
    }
}
