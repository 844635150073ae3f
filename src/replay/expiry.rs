//! What leaves the store without being delivered, and how that is told: evicted for room, too old, or thrown away. Who
//! remembers its ids (dedup) and who counts its lane (deliver) hear of it after the commit. And by which clock rows age: one that
//! is set forward makes none of them older.

use std::time::{Duration, Instant};

use uuid::Uuid;

use super::{Kind, LaneKey, Seq};
use crate::event::{AccountId, EventType, Millis};

/// A row that is gone, undelivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gone {
    /// Its place in the order.
    pub seq: Seq,
    /// Whose it was.
    pub account: AccountId,
    /// Why it was there.
    pub kind: Kind,
    /// Events: lane and type.
    pub event: Option<(LaneKey, EventType)>,
    /// The ids that dedup is to forget, so that the poller may heal it.
    pub enters: Vec<Uuid>,
    /// Why it is gone.
    pub why: Why,
}

/// Why a row is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// What waits for the operator was more than its share: the oldest goes.
    Evicted,
    /// It was older than the retention.
    Expired,
    /// An operator threw it away.
    Discarded,
}

impl Why {
    /// The spelling in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Evicted => "evicted",
            Self::Expired => "expired",
            Self::Discarded => "discarded",
        }
    }
}

/// The wall clock may run so much ahead of the time that passes: what is more is a step.
const STEP: Duration = Duration::from_secs(60);

/// What rows age by: the wall clock, but where it was set forward while the process ran. What was kept before would be too old all at once,
/// and lost; whether the clock was wrong before or is now, nobody here can tell. A start takes the wall clock as it is, and so does who has
/// seen it ahead for as long as anything is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AgeClock {
    wall: Millis,
    since: Instant,
    kept: Duration,
    ahead_since: Option<Instant>,
}

impl AgeClock {
    /// Of what is kept for so long.
    const fn new(wall: Millis, now: Instant, kept: Duration) -> Self {
        Self { wall, since: now, kept, ahead_since: None }
    }

    /// The same, from now on.
    pub(crate) fn begun(kept: Duration) -> Self {
        Self::new(crate::clock::now(), Instant::now(), kept)
    }

    /// The time, and whether the wall clock is ahead of it.
    pub(crate) fn read(&mut self, wall: Millis, now: Instant) -> (Millis, bool) {
        let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let passed = millis(now.saturating_duration_since(self.since));
        let due = Millis(self.wall.0.saturating_add(passed));
        if wall.0 > due.0.saturating_add(millis(STEP)) {
            let since = *self.ahead_since.get_or_insert(now);
            if now.saturating_duration_since(since) < self.kept {
                return (due, true);
            }
            *self = Self::new(wall, now, self.kept);
        }
        self.ahead_since = None;
        // Set back, it may be set right again.
        if wall.0 >= due.0.saturating_sub(millis(STEP)) {
            *self = Self::new(wall, now, self.kept);
        }
        (wall, false)
    }
}

/// A clock that reads so by itself.
pub(crate) fn aging(kept: Duration) -> impl FnMut() -> Millis + Send {
    let mut clock = AgeClock::begun(kept);
    move || clock.read(crate::clock::now(), Instant::now()).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_forward_makes_nothing_older() {
        let start = Instant::now();
        let week = Duration::from_secs(7 * 24 * 3_600);
        let mut clock = AgeClock::new(Millis(1_000_000), start, week);
        let mut read =
            |seconds: u64, wall: i64| clock.read(Millis(wall), start + Duration::from_secs(seconds));
        assert_eq!(read(10, 1_010_000), (Millis(1_010_000), false));
        assert_eq!(read(20, 1_025_000), (Millis(1_025_000), false), "it is adjusted a little");
        let day = 24 * 3_600_000;
        assert_eq!(read(30, 1_035_000 + 8 * day), (Millis(1_035_000), true));
        assert_eq!(read(40, 1_045_000), (Millis(1_045_000), false), "it was wrong for a moment");
        assert_eq!(
            read(50, 1_055_000 - 3 * day),
            (Millis(1_055_000 - 3 * day), false),
            "younger does no harm"
        );
        assert_eq!(read(60, 1_065_000), (Millis(1_065_000), false), "and it was right before");
        assert_eq!(
            read(3_600 * 24 * 8, 1_005_000 + 8 * day),
            (Millis(1_005_000 + 8 * day), false),
            "time passes"
        );
        let set_right = |seconds: u64| 1_000_000 + seconds as i64 * 1_000 + 20_000 * day;
        let first = 3_600 * 24 * 9;
        for seconds in [first, first + 3_600 * 24 * 7 - 1] {
            assert_eq!(
                read(seconds, set_right(seconds)),
                (Millis(set_right(seconds) - 20_000 * day + 5_000), true)
            );
        }
        let later = first + 3_600 * 24 * 7;
        assert_eq!(
            read(later, set_right(later)),
            (Millis(set_right(later)), false),
            "nothing of before is kept"
        );
    }
}
