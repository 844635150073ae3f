//! Which stretch of time a feed asks for next (mapping section 5). Pure: "now" and what became of each window come in.
//! Invariants: windows that were taken in full leave no gap up to the cursor, none is longer than the API takes, and the
//! cursor never goes back by itself, whatever fails and whatever the clocks do, but for the first answer of a feed that began by a clock
//! that was ahead. Neighbours: `feed` asks, `past` has the windows of sweeps and backfills, `request` spells them.

use serde::{Deserialize, Serialize};

use super::request::Endpoint;
use crate::config::Dedup;
use crate::event::Millis;
use crate::faults;

/// How far a window reaches back over what was taken already: rows arrive late.
pub const OVERLAP: i64 = 15 * MINUTE;
/// What is younger than this may not be complete yet.
pub const SETTLE: i64 = 30_000;
/// How far back a feed begins that was never polled, and how far a sweep reaches.
pub const SWEEP: i64 = Dedup::READ_AGAIN.as_millis() as i64;
/// A window is not halved below this.
pub const SHORTEST: i64 = 5 * MINUTE;
/// An empty list where the window before had rows is asked for again so often before it is believed.
const DOUBTS: u8 = 2;
/// The longest window of an API that takes 48 hours: 47 hours past the cursor.
const TWO_DAYS: i64 = 47 * HOUR + OVERLAP;
/// The longest window of an API that takes 93 days.
const QUARTER: i64 = 93 * 24 * HOUR - HOUR;

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// A clock that is off by more is believed once a second answer says the same: so far back a feed would go.
const FAR: i64 = 7 * DAY;

/// The longest window that an endpoint takes; none where it has no window.
#[must_use]
pub const fn longest(endpoint: Endpoint) -> Option<i64> {
    match endpoint {
        Endpoint::V2History
        | Endpoint::V2Trips
        | Endpoint::V2Stops
        | Endpoint::V2Alerts
        | Endpoint::V2UsageHours => Some(TWO_DAYS),
        Endpoint::V2GeofenceActivity | Endpoint::V3Positions | Endpoint::V3Stops => Some(QUARTER),
        Endpoint::V2Locations | Endpoint::V2Trackers | Endpoint::V2Geofences | Endpoint::V3Trackers => None,
    }
}

/// [`OVERLAP`], but where a campaign wants to see what it heals.
fn overlap() -> i64 {
    faults::overlap_ms().unwrap_or(OVERLAP)
}

/// A stretch of time, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Its begin.
    pub from: Millis,
    /// Its end.
    pub to: Millis,
}

impl Window {
    /// How long it is, in milliseconds.
    #[must_use]
    pub const fn length(self) -> i64 {
        self.to.0.saturating_sub(self.from.0)
    }
}

/// What is asked for at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// A list that has no time.
    Whole,
    /// What belongs to a stretch of time.
    Window(Window),
}

/// What is kept of a feed between two runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cursor {
    /// The end of the last window that was taken in full.
    pub position: Option<Millis>,
    /// When the last sweep began that was taken in full.
    #[serde(default)]
    pub swept: Option<Millis>,
    /// Whether the last answer that was believed had rows.
    #[serde(default)]
    pub had_rows: bool,
    /// How often in a row an empty answer was not believed.
    #[serde(default)]
    pub doubts: u8,
    /// Where it stands is what our clock said when the feed began, and no answer was taken since.
    #[serde(default)]
    pub begun: bool,
}

/// What taking an extent in full leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Up to now: the next one is due after the interval.
    UpToDate,
    /// More is waiting: the next one is due at once.
    Behind,
    /// Nothing, where there was something before: the cursor has not moved, and it is asked for again.
    Doubted,
}

/// How much of what is read at once an extent took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Size {
    /// Twice as much would also have done.
    #[default]
    Small,
    /// Twice as much might be too large.
    Large,
}

/// Whether a shorter window can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Halved {
    /// The next window is shorter.
    Shorter,
    /// It is as short as it can be, or has no time.
    AtShortest,
}

/// The live side of a feed: from the cursor to now.
#[derive(Debug, Clone)]
pub struct Live {
    longest: Option<i64>,
    /// The length that is asked for now: halved where an answer was too large, doubled where it was small.
    span: i64,
    cursor: Cursor,
    /// Where the round in hand ends: from before the cursor to what was settled when it began.
    until: Millis,
    /// Where it goes on, after a window that was cut short; none where the next window begins a round.
    rest: Option<Millis>,
    /// Where a new feed would begin by the last answer, where that is far from what our clock says.
    far_begin: Option<Millis>,
}

impl Live {
    /// Goes on where an earlier run stopped.
    #[must_use]
    pub fn new(endpoint: Endpoint, cursor: Cursor) -> Self {
        let longest = longest(endpoint);
        Self {
            longest,
            span: longest.unwrap_or_default(),
            cursor,
            until: Millis(0),
            rest: None,
            far_begin: None,
        }
    }

    /// What is to be kept: all but `swept`, which is the sweep's.
    #[must_use]
    pub const fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// What would be kept once the cursor stood elsewhere: whether there were rows is not known there.
    #[must_use]
    pub const fn at(&self, position: Millis) -> Cursor {
        Cursor { position: Some(position), had_rows: false, doubts: 0, begun: false, ..self.cursor }
    }

    /// Moves the cursor, as an operator may: the one way in which it goes back.
    pub const fn move_to(&mut self, position: Millis) {
        self.cursor = self.at(position);
        self.rest = None;
    }

    /// What to ask for. A feed without a cursor begins 46 hours ago, which is its first sweep. Each round reaches back over all of
    /// the overlap, in several windows where one would be too large, and to an end that stands: what was not yet settled when
    /// it was read lies in the overlap of the next round.
    pub fn next(&mut self, now: Millis) -> Extent {
        if self.longest.is_none() {
            return Extent::Whole;
        }
        let end = now.0.saturating_sub(SETTLE);
        self.cursor.begun |= self.cursor.position.is_none();
        let position = self.cursor.position.get_or_insert(Millis(end.saturating_sub(SWEEP))).0;
        let from = match self.rest.filter(|_| self.until.0 <= end) {
            Some(rest) => rest.0,
            None => {
                self.rest = None;
                self.until = Millis(end);
                // Where the clock was set back behind the cursor, what is young is read again and again, and the cursor stays.
                position.min(end).saturating_sub(overlap())
            }
        };
        let to = from.saturating_add(self.span).min(self.until.0);
        Extent::Window(Window { from: Millis(from), to: Millis(to) })
    }

    /// An extent was taken in full: every row is durable. `sent_at` is the answer's `Date`.
    pub fn taken(&mut self, extent: Extent, rows: u64, sent_at: Option<Millis>, size: Size) -> Progress {
        // Nothing in a piece of the overlap says nothing about what is past the cursor.
        let is_read_again =
            matches!(extent, Extent::Window(window) if Some(window.to) <= self.cursor.position);
        let is_news = rows > 0 || !is_read_again;
        if is_news && rows == 0 && self.cursor.had_rows && self.cursor.doubts < DOUBTS {
            self.cursor.doubts += 1;
            return Progress::Doubted;
        }
        if is_news {
            self.cursor.had_rows = rows > 0;
            self.cursor.doubts = 0;
        }
        let (Extent::Window(window), Some(longest)) = (extent, self.longest) else {
            return Progress::UpToDate;
        };
        self.span = next_span(self.span, longest, size);
        if std::mem::take(&mut self.cursor.begun)
            && let Some(begin) = sent_at.map(|at| Millis(at.0.saturating_sub(SETTLE + SWEEP)))
            && let Some(ahead) = self.cursor.position.map(|at| at.0.saturating_sub(begin.0))
            && ahead > OVERLAP
        {
            let before = self.far_begin.replace(begin);
            if ahead > FAR && before.is_none_or(|before| begin <= before || begin.0 - before.0 > DAY) {
                // One of the two clocks is absurd, and which is not known: the next answer's is to agree.
                self.cursor.begun = true;
                return Progress::UpToDate;
            }
            // Our clock was ahead when the feed began, by days perhaps: it begins where it would have.
            self.move_to(begin);
            return Progress::Behind;
        }
        // The provider knows best until when it can have known.
        let known = sent_at.map_or(window.to, |at| window.to.min(Millis(at.0.saturating_sub(SETTLE))));
        self.cursor.position = self.cursor.position.max(Some(known));
        if window.to >= self.until || known < window.to {
            self.rest = None;
            return Progress::UpToDate;
        }
        let overlap = overlap().min(window.length() / 2);
        self.rest = Some(Millis(window.to.0.saturating_sub(overlap)));
        Progress::Behind
    }

    /// The answer was too large.
    pub fn halve(&mut self, extent: Extent) -> Halved {
        halve(&mut self.span, extent)
    }
}

pub(super) const fn next_span(span: i64, longest: i64, size: Size) -> i64 {
    match size {
        Size::Small if span < longest / 2 => span * 2,
        Size::Small => longest,
        Size::Large => span,
    }
}

pub(super) fn halve(span: &mut i64, extent: Extent) -> Halved {
    match extent {
        Extent::Window(window) if window.length() > SHORTEST => {
            *span = (window.length() / 2).max(SHORTEST);
            Halved::Shorter
        }
        Extent::Window(_) | Extent::Whole => Halved::AtShortest,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const T: i64 = 1_767_009_600_000;

    fn cursor(position: i64) -> Cursor {
        Cursor { position: Some(Millis(position)), ..Cursor::default() }
    }

    fn window(extent: Extent) -> Window {
        match extent {
            Extent::Window(window) => window,
            Extent::Whole => panic!("no window"),
        }
    }

    fn check(endpoint: Endpoint, position: Option<i64>, now: i64, expected: (i64, i64)) {
        let mut live = Live::new(endpoint, position.map(cursor).unwrap_or_default());
        let window = window(live.next(Millis(now)));
        assert_eq!((window.from.0, window.to.0), expected);
    }

    #[test]
    fn a_window_goes_from_before_the_cursor_to_just_before_now() {
        let v2 = Endpoint::V2Trips;
        check(v2, Some(T), T + HOUR, (T - OVERLAP, T + HOUR - SETTLE));
        check(v2, Some(T), T + 3 * DAY, (T - OVERLAP, T + 47 * HOUR));
        check(Endpoint::V3Positions, Some(T), T + 3 * DAY, (T - OVERLAP, T + 3 * DAY - SETTLE));
        check(Endpoint::V3Positions, Some(T), T + 200 * DAY, (T - OVERLAP, T - OVERLAP + QUARTER));
        check(v2, None, T, (T - SETTLE - SWEEP - OVERLAP, T - SETTLE));
        // The clock was set back by a day.
        check(v2, Some(T), T - DAY, (T - DAY - SETTLE - OVERLAP, T - DAY - SETTLE));
    }

    #[test]
    fn nothing_where_there_was_something_is_believed_the_third_time() {
        let mut live = Live::new(Endpoint::V2Trips, cursor(T));
        let first = live.next(Millis(T + HOUR));
        assert_eq!(live.taken(first, 5, None, Size::Small), Progress::UpToDate);
        let at = live.cursor().position;
        for expected in [Progress::Doubted, Progress::Doubted] {
            let next = live.next(Millis(T + 2 * HOUR));
            assert_eq!(live.taken(next, 0, None, Size::Small), expected);
            assert_eq!(live.cursor().position, at);
        }
        let next = live.next(Millis(T + 2 * HOUR));
        assert_eq!(live.taken(next, 0, None, Size::Small), Progress::UpToDate);
        assert_eq!(live.cursor().position, Some(Millis(T + 2 * HOUR - SETTLE)));
        let next = live.next(Millis(T + 3 * HOUR));
        assert_eq!(
            live.taken(next, 0, None, Size::Small),
            Progress::UpToDate,
            "nothing after nothing is believed at once"
        );
    }

    #[test]
    fn the_answers_own_time_bounds_the_cursor_and_nothing_spins() {
        // Our clock is a year ahead.
        let mut live = Live::new(Endpoint::V2Trips, cursor(T));
        let next = live.next(Millis(T + 365 * DAY));
        assert_eq!(live.taken(next, 1, Some(Millis(T + HOUR)), Size::Small), Progress::UpToDate);
        assert_eq!(live.cursor().position, Some(Millis(T + HOUR - SETTLE)));
        // An old copy from somewhere moves nothing back.
        let next = live.next(Millis(T + 365 * DAY));
        assert_eq!(live.taken(next, 1, Some(Millis(T - DAY)), Size::Small), Progress::UpToDate);
        assert_eq!(live.cursor().position, Some(Millis(T + HOUR - SETTLE)));
    }

    #[test]
    fn a_feed_that_began_by_a_clock_that_was_ahead_begins_anew_by_its_first_answer() {
        let mut live = Live::new(Endpoint::V2Trips, Cursor::default());
        live.next(Millis(T + 5 * DAY));
        // Over a restart, and though the clock is right by then.
        let kept = serde_json::to_string(&live.cursor()).unwrap();
        for now in [T + 5 * DAY, T] {
            let mut live = Live::new(Endpoint::V2Trips, serde_json::from_str(&kept).unwrap());
            let next = live.next(Millis(now));
            assert_eq!(live.taken(next, 0, Some(Millis(T)), Size::Small), Progress::Behind);
            assert_eq!(live.cursor().position, Some(Millis(T - SETTLE - SWEEP)));
            let next = live.next(Millis(now));
            assert_eq!(window(next).from.0, T - SETTLE - SWEEP - OVERLAP);
            assert_eq!(live.taken(next, 1, Some(Millis(T)), Size::Small), Progress::UpToDate);
        }
        // One that waited for its first answer stands where it began.
        let mut live = Live::new(Endpoint::V3Positions, Cursor::default());
        live.next(Millis(T));
        let next = live.next(Millis(T + 9 * DAY));
        live.taken(next, 1, Some(Millis(T + 9 * DAY)), Size::Small);
        assert_eq!(window(next).from.0, T - SETTLE - SWEEP - OVERLAP);
        assert_eq!(live.cursor().position, Some(Millis(T + 9 * DAY - SETTLE)));
    }

    #[test]
    fn a_date_that_is_far_from_our_clock_moves_a_new_feed_only_where_two_answers_agree() {
        let begins = |dates: &[i64]| {
            let mut live = Live::new(Endpoint::V2Trips, Cursor::default());
            for date in dates {
                let next = live.next(Millis(T));
                live.taken(next, 1, Some(Millis(*date)), Size::Small);
            }
            live.cursor().position.unwrap().0
        };
        let of = |date: i64| date - SETTLE - SWEEP;
        assert_eq!(begins(&[T - 8 * DAY]), of(T), "it is doubted");
        assert_eq!(begins(&[0, T]), T - SETTLE, "it was an odd one");
        assert_eq!(begins(&[0, 0, 0]), of(T), "a clock that stands agrees with nobody");
        assert_eq!(begins(&[0, T - 8 * DAY]), of(T), "neither do two that are years apart");
        assert_eq!(begins(&[T - 8 * DAY, T - 8 * DAY + MINUTE]), of(T - 8 * DAY + MINUTE));
        assert_eq!(begins(&[T - 2 * DAY]), of(T - 2 * DAY), "days may be ours");
    }

    #[test]
    fn a_window_is_halved_down_to_five_minutes_and_grows_again() {
        let mut live = Live::new(Endpoint::V2History, cursor(T));
        let mut extent = live.next(Millis(T + 3 * DAY));
        let mut halvings = 0;
        while live.halve(extent) == Halved::Shorter {
            extent = live.next(Millis(T + 3 * DAY));
            halvings += 1;
        }
        assert_eq!((halvings, window(extent).length()), (10, SHORTEST));
        assert_eq!(live.taken(extent, 1, None, Size::Large), Progress::Behind);
        let extent = live.next(Millis(T + 3 * DAY));
        assert_eq!(window(extent).length(), SHORTEST);
        assert_eq!(live.taken(extent, 1, None, Size::Small), Progress::Behind);
        assert_eq!(window(live.next(Millis(T + 3 * DAY))).length(), 2 * SHORTEST);
        assert_eq!(
            Live::new(Endpoint::V2Trackers, Cursor::default()).halve(Extent::Whole),
            Halved::AtShortest
        );
    }

    #[test]
    fn each_round_reaches_back_over_the_whole_overlap_however_short_its_windows_are() {
        for halvings in 0..5 {
            let mut live = Live::new(Endpoint::V2Trips, Cursor { had_rows: true, ..cursor(T) });
            let begun = Millis(T + 5 * MINUTE);
            for _ in 0..halvings {
                let extent = live.next(begun);
                live.halve(extent);
            }
            // The round takes an hour, and its end stands.
            let (mut now, mut covered) = (begun, T - OVERLAP);
            loop {
                let extent = live.next(now);
                let next = window(extent);
                assert!((next.from.0..next.to.0).contains(&covered), "{halvings}: {next:?} after {covered}");
                covered = next.to.0;
                // Nothing is in the overlap, and that is no doubt about what follows.
                let rows = u64::from(next.to.0 > T);
                now = Millis(now.0 + 20 * MINUTE);
                match live.taken(extent, rows, Some(now), Size::Small) {
                    Progress::Behind => {}
                    Progress::UpToDate => break,
                    Progress::Doubted => panic!("{halvings}: {next:?} is doubted"),
                }
            }
            let end = begun.0 - SETTLE;
            assert_eq!((covered, live.cursor().position), (end, Some(Millis(end))), "{halvings}");
            assert_eq!(window(live.next(now)).from.0, end - OVERLAP, "{halvings}");
        }
    }

    #[test]
    fn a_cursor_that_is_moved_in_the_middle_of_a_round_begins_another() {
        let mut live = Live::new(Endpoint::V2History, cursor(T - 10 * DAY));
        let extent = live.next(Millis(T));
        assert_eq!(live.taken(extent, 1, None, Size::Small), Progress::Behind);
        live.move_to(Millis(T - 20 * DAY));
        assert_eq!(window(live.next(Millis(T))).from.0, T - 20 * DAY - OVERLAP);
    }

    #[derive(Debug, Clone)]
    enum Turn {
        Pass(i64),
        Set(i64),
        Restart,
        Taken { rows: u64, behind: i64 },
        Failed,
        TooLarge,
    }

    fn turns() -> impl Strategy<Value = Vec<Turn>> {
        let turn = prop_oneof![
            3 => (0..5 * DAY).prop_map(Turn::Pass),
            1 => (-10 * DAY..10 * DAY).prop_map(Turn::Set),
            1 => Just(Turn::Restart),
            6 => (0..3u64, prop_oneof![3 => Just(0), 1 => -2 * DAY..2 * DAY])
                .prop_map(|(rows, behind)| Turn::Taken { rows, behind }),
            2 => Just(Turn::Failed),
            2 => Just(Turn::TooLarge),
        ];
        prop::collection::vec(turn, 1..200)
    }

    proptest! {
        #[test]
        fn windows_cover_time_without_a_gap_whatever_happens(
            turns in turns(),
            endpoint in prop_oneof![Just(Endpoint::V2History), Just(Endpoint::V3Positions)],
        ) {
            let mut live = Live::new(endpoint, Cursor::default());
            let mut now = T;
            // Everything from here to there was asked for in windows that were taken.
            let mut covered: Option<(i64, i64)> = None;
            for turn in turns {
                let extent = live.next(Millis(now));
                let window = window(extent);
                prop_assert!(window.length() >= 0 && window.length() <= longest(endpoint).unwrap());
                prop_assert!(window.to.0 <= now - SETTLE);
                let (before, begun) = (live.cursor().position, live.cursor().begun);
                match turn {
                    Turn::Pass(ms) | Turn::Set(ms) => now += ms,
                    Turn::Restart => {
                        let kept = serde_json::to_string(&live.cursor()).unwrap();
                        live = Live::new(endpoint, serde_json::from_str(&kept).unwrap());
                    }
                    Turn::Taken { rows, behind } => {
                        let sent_at = now - behind;
                        live.taken(extent, rows, Some(Millis(sent_at)), Size::Small);
                        let after = live.cursor().position;
                        if begun && after < before {
                            prop_assert_eq!(after, Some(Millis(sent_at - SETTLE - SWEEP)));
                            continue;
                        }
                        prop_assert!(after >= before);
                        if after > before {
                            prop_assert!(after.unwrap().0 <= sent_at - SETTLE);
                            let (begin, end) = covered.unwrap_or((window.from.0, window.from.0));
                            prop_assert!(window.from.0 <= end, "a gap");
                            covered = Some((begin, end.max(window.to.0)));
                        }
                    }
                    Turn::Failed => {}
                    Turn::TooLarge => { live.halve(extent); }
                }
                prop_assert!(live.cursor().position >= before);
                if let (Some((_, end)), Some(position)) = (covered, live.cursor().position) {
                    prop_assert!(position.0 <= end, "the cursor is past what was taken");
                }
            }
        }

        #[test]
        fn a_provider_that_answers_is_caught_up_with(days in 1..40i64, halvings in 0..12usize) {
            let mut live = Live::new(Endpoint::V2History, cursor(T));
            let now = Millis(T + days * DAY);
            for _ in 0..halvings {
                let extent = live.next(now);
                live.halve(extent);
            }
            let mut asked = 0;
            loop {
                let extent = live.next(now);
                asked += 1;
                if live.taken(extent, 1, Some(now), Size::Small) == Progress::UpToDate { break; }
                prop_assert!(asked < 60);
            }
            prop_assert_eq!(live.cursor().position, Some(Millis(now.0 - SETTLE)));
        }
    }
}
