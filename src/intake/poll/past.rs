//! Windows of the past: what a sweep reads again, and what a backfill fetches. Pure, as `plan` is. Invariants: windows leave no gap,
//! none is longer than the API takes, and a sweep asks for nothing that dedup may have forgotten. Neighbours: `feed` and backfills ask.

use super::plan::{Extent, Halved, SETTLE, SWEEP, Size, Window, halve, longest, next_span};
use super::request::Endpoint;
use crate::event::Millis;

/// How often a feed is swept.
const SWEEP_EVERY: i64 = 6 * HOUR;
/// How far back a sweep that takes its time still asks: what is older dedup may have forgotten.
const SWEPT_AT_MOST: i64 = SWEEP + HOUR;
/// How much older its window may be once its rows are handed over: it stood in line for so long.
const HELD_UP: i64 = HOUR / 2;
const HOUR: i64 = 3_600_000;

/// Whether what a sweep reads again was asked for so long ago that dedup may have forgotten some of it.
#[must_use]
pub fn is_too_old_to_read_again(extent: Extent, now: Millis) -> bool {
    match extent {
        Extent::Window(window) => now.0.saturating_sub(window.from.0) > SETTLE + SWEPT_AT_MOST + HELD_UP,
        Extent::Whole => false,
    }
}

/// What the sweep has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing, for so many milliseconds.
    In(i64),
    /// This.
    Now(Window),
}

/// The sweep of a feed: its last 46 hours, every 6 hours, for what arrived late.
#[derive(Debug, Clone)]
pub struct Sweep {
    longest: i64,
    span: i64,
    swept: Millis,
    /// The rest of the sweep in hand.
    rest: Option<Window>,
}

impl Sweep {
    /// Goes on where an earlier run stopped. The first live window of a new feed is a sweep, so the next is due in six hours;
    /// none for an endpoint that has no windows.
    #[must_use]
    pub fn new(endpoint: Endpoint, swept: Option<Millis>, now: Millis) -> Option<Self> {
        let longest = longest(endpoint)?;
        Some(Self { longest, span: longest, swept: swept.unwrap_or(now), rest: None })
    }

    /// What is to be kept.
    #[must_use]
    pub const fn swept(&self) -> Millis {
        self.swept
    }

    /// What to do.
    pub fn next(&mut self, now: Millis) -> Due {
        let end = now.0.saturating_sub(SETTLE);
        // A pause, a bus that is away or a provider that refuses may have held it up for days.
        let oldest = Millis(end.saturating_sub(SWEPT_AT_MOST));
        let rest = self.rest.map(|rest| Window { from: rest.from.max(oldest), ..rest });
        let rest = match rest.filter(|rest| rest.from < rest.to) {
            Some(rest) => rest,
            None => {
                let age = now.0.saturating_sub(self.swept.0);
                // A last sweep in the future was dated by a clock that was set back since.
                if (0..SWEEP_EVERY).contains(&age) {
                    return Due::In(SWEEP_EVERY - age);
                }
                Window { from: Millis(end.saturating_sub(SWEEP)), to: Millis(end) }
            }
        };
        self.rest = Some(rest);
        Due::Now(first_of(rest, self.span))
    }

    /// A window was taken in full; whether the sweep is done with it.
    pub fn taken(&mut self, window: Window, size: Size) -> bool {
        self.span = next_span(self.span, self.longest, size);
        let Some(rest) = &mut self.rest else { return true };
        rest.from = rest.from.max(window.to);
        if rest.from < rest.to {
            return false;
        }
        self.swept = Millis(rest.to.0.saturating_add(SETTLE));
        self.rest = None;
        true
    }

    /// The answer was too large.
    pub fn halve(&mut self, window: Window) -> Halved {
        halve(&mut self.span, Extent::Window(window))
    }
}

/// A stretch of the past, oldest window first: what a backfill fetches.
#[derive(Debug, Clone)]
pub struct Stretch {
    longest: i64,
    span: i64,
    rest: Window,
}

impl Stretch {
    /// None for an endpoint that has no windows: it has no past.
    #[must_use]
    pub fn new(endpoint: Endpoint, window: Window) -> Option<Self> {
        let longest = longest(endpoint)?;
        Some(Self { longest, span: longest, rest: window })
    }

    /// How many windows are left, where none has to be halved.
    #[must_use]
    pub fn windows(&self) -> u64 {
        (self.rest.length().max(0) as u64).div_ceil(self.longest as u64)
    }

    /// What to ask for; none at the end.
    #[must_use]
    pub fn next(&self) -> Option<Window> {
        (self.rest.from < self.rest.to).then(|| first_of(self.rest, self.span))
    }

    /// A window was taken in full: every row is durable.
    pub fn taken(&mut self, window: Window, size: Size) {
        self.span = next_span(self.span, self.longest, size);
        self.rest.from = self.rest.from.max(window.to);
    }

    /// The answer was too large.
    pub fn halve(&mut self, window: Window) -> Halved {
        halve(&mut self.span, Extent::Window(window))
    }
}

/// The oldest window of what is left.
fn first_of(rest: Window, span: i64) -> Window {
    Window { from: rest.from, to: Millis(rest.from.0.saturating_add(span).min(rest.to.0)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: i64 = 1_767_009_600_000;
    const DAY: i64 = 24 * HOUR;

    #[test]
    fn a_stretch_is_fetched_from_its_begin_to_its_end_without_a_gap() {
        let whole = Window { from: Millis(T), to: Millis(T + 5 * DAY) };
        assert!(Stretch::new(Endpoint::V2Trackers, whole).is_none());
        let mut stretch = Stretch::new(Endpoint::V2Trips, whole).expect("windows");
        assert_eq!(stretch.windows(), 3);
        let first = stretch.next().expect("a window");
        assert_eq!((first.from, first.length()), (whole.from, longest(Endpoint::V2Trips).unwrap()));
        assert_eq!(stretch.halve(first), Halved::Shorter);
        let mut at = whole.from;
        while let Some(window) = stretch.next() {
            assert_eq!(window.from, at);
            assert!(window.length() <= longest(Endpoint::V2Trips).unwrap() && window.length() > 0);
            stretch.taken(window, Size::Small);
            at = window.to;
        }
        assert_eq!((at, stretch.windows()), (whole.to, 0));
    }

    #[test]
    fn a_sweep_reads_the_last_46_hours_every_six() {
        assert!(Sweep::new(Endpoint::V2Locations, None, Millis(T)).is_none());
        let mut sweep = Sweep::new(Endpoint::V2Trips, None, Millis(T)).unwrap();
        assert_eq!(sweep.next(Millis(T + HOUR)), Due::In(5 * HOUR));
        let now = T + 6 * HOUR;
        let all = Window { from: Millis(now - SETTLE - SWEEP), to: Millis(now - SETTLE) };
        assert_eq!(sweep.next(Millis(now)), Due::Now(all));
        assert_eq!(sweep.halve(all), Halved::Shorter);
        let half = Window { to: Millis(all.from.0 + 23 * HOUR), ..all };
        assert_eq!(sweep.next(Millis(now + HOUR)), Due::Now(half));
        assert!(!sweep.taken(half, Size::Small));
        let rest = Window { from: half.to, ..all };
        assert_eq!(sweep.next(Millis(now + 2 * HOUR)), Due::Now(rest));
        assert!(sweep.taken(rest, Size::Small));
        assert_eq!(sweep.swept(), Millis(now));
        // The clock was set back behind the last sweep.
        assert!(matches!(sweep.next(Millis(now - DAY)), Due::Now(_)));
    }

    #[test]
    fn a_sweep_that_is_held_up_asks_for_nothing_that_dedup_may_have_forgotten() {
        let mut sweep = Sweep::new(Endpoint::V2Trips, Some(Millis(T)), Millis(T)).unwrap();
        let mut window_at = |now: i64| match sweep.next(Millis(now)) {
            Due::Now(window) => (now - window.from.0, now - window.to.0),
            Due::In(ms) => panic!("in {ms}"),
        };
        let due = T + 6 * HOUR;
        assert_eq!(window_at(due), (SWEEP + SETTLE, SETTLE));
        assert_eq!(window_at(due + HOUR), (SWEEP + HOUR + SETTLE, HOUR + SETTLE), "all of it");
        assert_eq!(window_at(due + 3 * HOUR), (SWEEP + HOUR + SETTLE, 3 * HOUR + SETTLE));
        assert_eq!(window_at(due + 3 * DAY), (SWEEP + SETTLE, SETTLE), "another one");
        let mut window_at = |now: i64| match sweep.next(Millis(now)) {
            Due::Now(window) => Extent::Window(window),
            Due::In(ms) => panic!("in {ms}"),
        };
        let oldest = window_at(due + 3 * DAY + HOUR);
        let old_at = |later: i64| is_too_old_to_read_again(oldest, Millis(due + 3 * DAY + HOUR + later));
        assert!(!old_at(HELD_UP) && old_at(HELD_UP + 1), "while it stood in line");
    }
}
