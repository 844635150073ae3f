//! Faults on purpose, for the campaign and the check of the API alone: places at which the process can be made to die as if
//! by kill -9, a store that fails, and bugs that the campaign's checker has to find. Invariant: without the feature
//! `faults`, which no release build has, every function here is empty, and no variable is read. Neighbours: the places
//! that call it, `tests/campaign/`, and `scripts/api_check.py`.

/// Where the process can be made to die: `FLEETBUS_FAULT=WORD:N` ends it the N-th time that it comes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// Rows are in the store's transaction, and not committed: `before-park`.
    BeforePark,
    /// Rows are committed, and nobody has been told: `after-park`.
    AfterPark,
    /// The bus acknowledged, and dedup does not know it: `after-ack`.
    AfterAck,
    /// All rows of a poll are durable, and its cursor has not moved: `before-cursor`.
    BeforeCursor,
    /// A step of a migration is done, and not committed: `in-migration`.
    InMigration,
    /// Rows are expired in the store's transaction, and not committed: `in-retention`.
    InRetention,
    /// The bus acknowledged what was drained, and its rows are still there: `in-drain`.
    InDrain,
}

/// A bug that can be planted: `FLEETBUS_BUG=WORD` has it happen now and then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// An event is dropped and counted as delivered: `lost`.
    Lost,
    /// One request's events of a lane go out the wrong way round: `reordered`.
    Reordered,
    /// An event goes out a second time, with another id: `other-id`.
    OtherId,
    /// A connection is closed where its answer is due: `cut`.
    Cut,
    /// A polled page is taken for durable, and nobody has it: `skipped`.
    Skipped,
}

/// Dies here, where that was asked for.
#[cfg(not(feature = "faults"))]
#[inline]
pub const fn point(_: Point) {}

/// Whether a planted bug happens now.
#[cfg(not(feature = "faults"))]
#[inline]
#[must_use]
pub const fn bug(_: Bug) -> bool {
    false
}

/// Whether the store answers nothing now, as if its disk failed.
#[cfg(not(feature = "faults"))]
#[inline]
#[must_use]
pub const fn store_fails() -> bool {
    false
}

/// By how much the wall clock is wrong, in ms.
#[cfg(not(feature = "faults"))]
#[inline]
#[must_use]
pub const fn clock_error_ms() -> i64 {
    0
}

/// How far windows of polls reach back, in ms, where that is other than it is: what a poll skips, the next one would heal.
#[cfg(not(feature = "faults"))]
#[inline]
#[must_use]
pub const fn overlap_ms() -> Option<i64> {
    None
}

#[cfg(feature = "faults")]
pub use armed::{bug, clock_error_ms, overlap_ms, point, store_fails};

#[cfg(feature = "faults")]
mod armed {
    use std::path::PathBuf;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
    use std::time::Instant;

    use super::{Bug, Point};

    /// A planted bug happens once in so many chances; pages are few.
    const fn every(bug: Bug) -> u64 {
        match bug {
            Bug::Lost | Bug::Reordered | Bug::OtherId | Bug::Cut => 97,
            Bug::Skipped => 3,
        }
    }
    /// How often the file with the clock's error is read, in ms.
    const LOOK_MS: u64 = 50;

    struct Armed {
        point: Option<Point>,
        left: AtomicU64,
        bug: Option<Bug>,
        chances: AtomicU64,
        clock: Option<PathBuf>,
        store_fails: Option<PathBuf>,
        begun: Instant,
        looked_at: AtomicU64,
        error_ms: AtomicI64,
        overlap_ms: Option<i64>,
    }

    fn armed() -> &'static Armed {
        static ARMED: OnceLock<Armed> = OnceLock::new();
        ARMED.get_or_init(|| {
            let fault = std::env::var("FLEETBUS_FAULT").unwrap_or_default();
            let (word, nth) = fault.split_once(':').unwrap_or((&fault, "1"));
            let bug = std::env::var("FLEETBUS_BUG").unwrap_or_default();
            Armed {
                point: point_of(word),
                left: AtomicU64::new(nth.parse().unwrap_or(1)),
                bug: bug_of(&bug),
                chances: AtomicU64::new(0),
                clock: std::env::var_os("FLEETBUS_CLOCK").map(PathBuf::from),
                store_fails: std::env::var_os("FLEETBUS_STORE_FAILS").map(PathBuf::from),
                begun: Instant::now(),
                looked_at: AtomicU64::new(0),
                error_ms: AtomicI64::new(0),
                overlap_ms: std::env::var("FLEETBUS_OVERLAP_MS").ok().and_then(|text| text.parse().ok()),
            }
        })
    }

    fn point_of(word: &str) -> Option<Point> {
        Some(match word {
            "before-park" => Point::BeforePark,
            "after-park" => Point::AfterPark,
            "after-ack" => Point::AfterAck,
            "before-cursor" => Point::BeforeCursor,
            "in-migration" => Point::InMigration,
            "in-retention" => Point::InRetention,
            "in-drain" => Point::InDrain,
            _ => return None,
        })
    }

    fn bug_of(word: &str) -> Option<Bug> {
        Some(match word {
            "lost" => Bug::Lost,
            "reordered" => Bug::Reordered,
            "other-id" => Bug::OtherId,
            "cut" => Bug::Cut,
            "skipped" => Bug::Skipped,
            _ => return None,
        })
    }

    /// Dies here, where that was asked for: nothing is flushed, closed or said.
    pub fn point(here: Point) {
        let armed = armed();
        if armed.point == Some(here) && armed.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            std::process::abort();
        }
    }

    /// Whether a planted bug happens now.
    #[must_use]
    pub fn bug(which: Bug) -> bool {
        let armed = armed();
        armed.bug == Some(which)
            && armed.chances.fetch_add(1, Ordering::Relaxed) % every(which) == every(which) - 1
    }

    /// Whether the store answers nothing now, as if its disk failed: while the file is there that `FLEETBUS_STORE_FAILS` names.
    #[must_use]
    pub fn store_fails() -> bool {
        armed().store_fails.as_ref().is_some_and(|file| file.exists())
    }

    /// How far windows of polls reach back, in ms, where `FLEETBUS_OVERLAP_MS` says so.
    #[must_use]
    pub fn overlap_ms() -> Option<i64> {
        armed().overlap_ms
    }

    /// By how much the wall clock is wrong, in ms: what the file says that `FLEETBUS_CLOCK` names.
    #[must_use]
    pub fn clock_error_ms() -> i64 {
        let armed = armed();
        let Some(file) = &armed.clock else { return 0 };
        let look = u64::try_from(armed.begun.elapsed().as_millis()).unwrap_or(u64::MAX) / LOOK_MS + 1;
        if armed.looked_at.swap(look, Ordering::Relaxed) != look {
            let said = std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok());
            armed.error_ms.store(said.unwrap_or(0), Ordering::Relaxed);
        }
        armed.error_ms.load(Ordering::Relaxed)
    }
}
