//! How long to wait after a failure: ever longer while it lasts, and as long as the other side asks. Pure but for jitter.
//! Neighbours: `feed` and `backfill` ask; a window that was too large, or took too long, is halved meanwhile.

use std::time::Duration;

use super::Spread;
use super::fault::Fault;
use super::fetch::{Trouble, refused_for};
use super::plan::Halved;

/// A host that fails so often in a row may do so for what is asked of it: the window is halved.
const MANY: u32 = 3;
/// The pause after a first failure, and the longest (or the interval, where that is longer).
const FAILED: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(300));
/// The same, where the token is not accepted.
const UNAUTHORIZED: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(900));
/// The same, where rows were not taken on our side.
const NOT_KEPT: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

/// The pause after so many failures in a row, of which this is the last.
pub(super) fn after(
    trouble: &Trouble,
    failures: u32,
    interval: Duration,
    spread: Spread,
    halve: impl FnOnce() -> Halved,
) -> Duration {
    let fault = match trouble {
        Trouble::Fault(fault) => fault,
        Trouble::Refusal(refusal) => {
            let asked = refused_for(refusal).unwrap_or_default();
            return growing(NOT_KEPT, failures, spread).max(asked);
        }
        Trouble::Paused | Trouble::HeldUp => return Duration::ZERO,
    };
    let failed = (FAILED.0, FAILED.1.max(interval));
    match fault {
        Fault::Host(_) => {
            if failures.is_multiple_of(MANY) {
                halve();
            }
            growing(failed, failures, spread)
        }
        Fault::Refused(_) => growing(failed, failures, spread),
        Fault::TimedOut => {
            // A shorter window may be answered in time.
            halve();
            growing(failed, failures, spread)
        }
        Fault::TooLarge(_) => match halve() {
            Halved::Shorter => Duration::ZERO,
            Halved::AtShortest => growing(failed, failures, spread),
        },
        Fault::Unauthorized(_) => growing(UNAUTHORIZED, failures, spread),
        Fault::Limited(pause) => *pause + spread(FAILED.0),
    }
}

/// The same of a backfill, which is given up after so many failures: where the other side asks for short pauses only, these are
/// hours, too.
pub(super) fn of_backfill(
    trouble: &Trouble,
    failures: u32,
    spread: Spread,
    halve: impl FnOnce() -> Halved,
) -> Duration {
    let pause = after(trouble, failures, Duration::ZERO, spread, halve);
    if matches!(trouble, Trouble::Fault(Fault::Limited(_))) {
        return pause.max(growing(FAILED, failures, spread));
    }
    pause
}

fn growing((first, longest): (Duration, Duration), failures: u32, spread: Spread) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let pause = first.saturating_mul(1 << doublings).min(longest);
    pause + spread(pause / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backfill_that_is_asked_for_short_pauses_is_not_given_up_for_hours() {
        let limited = Trouble::Fault(Fault::Limited(Duration::from_secs(1)));
        let pauses = (1..40).map(|failures| {
            of_backfill(&limited, failures, |_| Duration::ZERO, || panic!("nothing is too large"))
        });
        assert!(pauses.sum::<Duration>() > Duration::from_secs(2 * 3_600));
        let long = Trouble::Fault(Fault::Limited(Duration::from_secs(1_800)));
        let pause = of_backfill(&long, 1, |_| Duration::ZERO, || Halved::AtShortest);
        assert_eq!(pause, Duration::from_secs(1_800));
    }
}
