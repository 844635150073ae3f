//! Which window a feed asks for next, and where its cursor stands afterwards (mapping section 5). Pure: "now" comes in, and
//! is the earlier of our clock and the provider's. Invariants: windows overlap and leave no gap, none is longer than the
//! API takes, and a cursor never goes back.

use serde::{Deserialize, Serialize};

/// Windows begin this much before the cursor: what arrives late, and records that overlap the edge.
const OVERLAP: i64 = 15 * MINUTE;
/// The provider's newest records are not yet settled.
const SETTLE: i64 = 30 * SECOND;
/// What a sweep reads again, and how often.
const SWEEP: (i64, i64) = (46 * HOUR, 6 * HOUR);
/// How often an unexpectedly empty window is asked for again before it is believed.
const DOUBTS: u8 = 2;
/// A window that is too large is halved down to this.
const LEAST: i64 = 5 * MINUTE;

const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

/// The longest window of an API, overlap not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Longest {
    /// V2 takes 48 hours, overlap and all.
    V2,
    /// V3 takes 93 days.
    V3,
}

impl Longest {
    const fn ms(self) -> i64 {
        match self {
            Self::V2 => 47 * HOUR,
            Self::V3 => 92 * 24 * HOUR,
        }
    }
}

/// A stretch of time in ms since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// From, inclusive.
    pub from: i64,
    /// To, inclusive.
    pub to: i64,
}

/// Where a feed stands. Durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cursor {
    /// The end of the last window taken in full; none before the first.
    pub position: Option<i64>,
    /// When the last sweep was taken.
    pub swept: Option<i64>,
    /// Whether the last window had rows.
    pub had_rows: bool,
    /// How often in a row a window was unexpectedly empty.
    pub doubts: u8,
}

/// Why a window is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// What is new.
    Live,
    /// What came late.
    Sweep,
}

impl Cursor {
    /// What to ask for now; none where there is nothing yet. A feed that never ran begins as far back as a sweep reads.
    /// `span` bounds the window where an earlier one was too large.
    #[must_use]
    pub fn next(&self, now: i64, longest: Longest, span: Option<i64>) -> Option<(Purpose, Window)> {
        let settled = now - SETTLE;
        let position = self.position.unwrap_or(settled - SWEEP.0);
        let span = span.unwrap_or(longest.ms()).clamp(LEAST, longest.ms());
        let live = Window { from: position - OVERLAP, to: (position + span).min(settled) };
        if live.to > position {
            return Some((Purpose::Live, live));
        }
        None
    }

    /// The sweep that is due, if it is.
    #[must_use]
    pub fn sweep(&self, now: i64) -> Option<Window> {
        let due = self.swept.is_none_or(|swept| now - swept >= SWEEP.1);
        let settled = now - SETTLE;
        (due && self.position.is_some()).then_some(Window { from: settled - SWEEP.0, to: settled })
    }

    /// The cursor after a live window was taken with so many rows, all of them durable. `now` is known better now that
    /// the provider has said its time.
    #[must_use]
    pub fn taken(self, window: Window, rows: usize, now: i64) -> Self {
        if rows == 0 && self.had_rows && self.doubts < DOUBTS {
            return Self { doubts: self.doubts + 1, ..self };
        }
        let reached = window.to.min(now - SETTLE);
        let position = Some(self.position.map_or(reached, |position| position.max(reached)));
        // The first window of all is a sweep, too.
        let swept = self.swept.or(Some(now));
        Self { position, swept, had_rows: rows > 0, doubts: 0 }
    }

    /// The cursor after a sweep.
    #[must_use]
    pub const fn swept(self, now: i64) -> Self {
        Self { swept: Some(now), ..self }
    }
}

/// Half a window, for one that was too large; none where it cannot be halved any more.
#[must_use]
pub fn halved(window: Window) -> Option<i64> {
    let half = (window.to - window.from - OVERLAP) / 2;
    (half >= LEAST).then_some(half)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: i64 = 1_767_009_600_000;

    #[test]
    fn the_first_window_goes_back_as_far_as_a_sweep_and_the_next_overlaps_it() {
        let cursor = Cursor::default();
        let (purpose, window) = cursor.next(NOW, Longest::V2, None).expect("a window");
        assert_eq!(purpose, Purpose::Live);
        assert_eq!(window, Window { from: NOW - SETTLE - SWEEP.0 - OVERLAP, to: NOW - SETTLE });
        let cursor = cursor.taken(window, 3, NOW);
        assert_eq!(cursor.position, Some(NOW - SETTLE));
        assert_eq!(cursor.next(NOW, Longest::V2, None), None);
        let (_, next) = cursor.next(NOW + MINUTE, Longest::V2, None).expect("a window");
        assert_eq!(next, Window { from: NOW - SETTLE - OVERLAP, to: NOW + MINUTE - SETTLE });
    }

    #[test]
    fn an_unexpectedly_empty_window_is_doubted_twice_and_then_believed() {
        let mut cursor = Cursor { position: Some(NOW), had_rows: true, ..Cursor::default() };
        let window = Window { from: NOW, to: NOW + HOUR };
        let later = NOW + 2 * HOUR;
        cursor = cursor.taken(window, 0, later);
        assert_eq!((cursor.position, cursor.doubts), (Some(NOW), 1));
        cursor = cursor.taken(window, 0, later);
        assert_eq!((cursor.position, cursor.doubts), (Some(NOW), 2));
        cursor = cursor.taken(window, 0, later);
        assert_eq!((cursor.position, cursor.doubts), (Some(NOW + HOUR), 0));
        cursor = cursor.taken(Window { from: NOW, to: NOW + 2 * HOUR }, 0, NOW + 3 * HOUR);
        assert_eq!(cursor.position, Some(NOW + 2 * HOUR), "empty after empty is expected");
    }

    #[test]
    fn a_sweep_is_due_every_six_hours_and_reads_forty_six() {
        let cursor = Cursor { position: Some(NOW), swept: Some(NOW), ..Cursor::default() };
        assert_eq!(cursor.sweep(NOW + 6 * HOUR - 1), None);
        let sweep = cursor.sweep(NOW + 6 * HOUR).expect("due");
        assert_eq!(sweep.to - sweep.from, 46 * HOUR);
        assert_eq!(cursor.swept(NOW + 6 * HOUR).sweep(NOW + 7 * HOUR), None);
        assert_eq!(Cursor::default().sweep(NOW), None, "the first window is one");
    }

    #[test]
    fn a_provider_whose_clock_is_behind_holds_the_cursor_back() {
        let window = Window { from: NOW - HOUR, to: NOW - SETTLE };
        let cursor = Cursor { position: Some(NOW - HOUR), ..Cursor::default() };
        let cursor = cursor.taken(window, 1, NOW - 10 * MINUTE);
        assert_eq!(cursor.position, Some(NOW - 10 * MINUTE - SETTLE));
    }

    proptest! {
        #[test]
        fn windows_leave_no_gap_and_are_never_too_long(
            steps in prop::collection::vec((0i64..100 * HOUR, 0usize..3, prop::bool::ANY, -HOUR..HOUR), 1..60),
            v3 in prop::bool::ANY,
        ) {
            let longest = if v3 { Longest::V3 } else { Longest::V2 };
            let mut cursor = Cursor::default();
            let mut now = NOW;
            let mut covered: Option<i64> = None;
            for (passed, rows, works, skew) in steps {
                now += passed;
                let Some((_, window)) = cursor.next(now, longest, None) else { continue };
                prop_assert!(window.to - window.from <= longest.ms() + OVERLAP);
                if let Some(covered) = covered {
                    prop_assert!(window.from <= covered, "a gap");
                }
                let before = cursor.position;
                if works {
                    cursor = cursor.taken(window, rows, now + skew.min(0));
                    prop_assert!(cursor.position <= Some(window.to) || cursor.position == before);
                    prop_assert!(cursor.position >= before, "it never goes back");
                    covered = cursor.position.or(covered);
                }
            }
        }
    }
}
