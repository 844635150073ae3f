//! What the store says of itself: what it held when it was opened, how it does, and its numbers. No subjects, but in the
//! lanes that delivery needs.

use std::fmt;
use std::time::Duration;

use super::{Count, Entry, Era, Kind, LaneKey, Seq};
use crate::event::{AccountId, Millis};

/// Rows that are named; beyond, they are only counted.
const NAMED: usize = 100;
/// What the store's thread does at once takes milliseconds: after so long the disk does not answer.
const HANGS: Duration = Duration::from_secs(5);

/// How many rows, and the numbers of the first of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Named {
    /// How many.
    pub count: u64,
    /// The first.
    pub first: Vec<Seq>,
}

impl Named {
    /// One more. An event and a raw message of one number are two rows, and named once.
    pub(super) fn add(&mut self, seq: Seq) {
        self.count += 1;
        if self.first.len() < NAMED && self.first.last() != Some(&seq) {
            self.first.push(seq);
        }
    }
}

/// The numbers.
impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first: Vec<String> = self.first.iter().map(|seq| seq.0.to_string()).collect();
        let more = if self.count > first.len() as u64 { " and more" } else { "" };
        write!(f, "{}{more}", first.join(", "))
    }
}

/// How the store does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreHealth {
    /// It writes.
    Well,
    /// The disk is full; it deletes, and looks for room by itself.
    Full,
    /// Writing failed lately; it tries again by itself.
    Failing,
    /// What it does has not come to an end for seconds: the disk hangs.
    Hanging,
    /// What is on disk cannot be trusted: the process must exit (74).
    Broken,
}

impl StoreHealth {
    /// How it does by what its thread said last, and how long ago that went to work on what it is doing.
    pub(super) fn now(self, at_work_for: Duration) -> Self {
        match self {
            Self::Well | Self::Full | Self::Failing if at_work_for >= HANGS => Self::Hanging,
            Self::Well | Self::Full | Self::Failing | Self::Hanging | Self::Broken => self,
        }
    }
}

/// What the store held when it was opened.
#[derive(Debug, Clone)]
pub struct Recovered {
    /// The sequence number that is given next.
    pub next_seq: Seq,
    /// Which opening of the store this is, and whether a copy has been begun since.
    pub era: Era,
    /// The lanes with rows that wait for the bus, oldest head first. Nothing is provisional any more.
    pub lanes: Vec<RecoveredLane>,
    /// Cursors of pollers.
    pub cursors: Vec<Entry>,
    /// Pairs of the directory.
    pub directory: Vec<Entry>,
    /// Last states.
    pub states: Vec<Entry>,
    /// Webhook tokens, hashed.
    pub tokens: Vec<Entry>,
    /// What operators said about objects.
    pub custom_data: Vec<Entry>,
    /// Accounts that were moved to another instance.
    pub moved_out: Vec<AccountId>,
    /// Rows by account and kind.
    pub depths: Vec<(AccountId, Kind, Count)>,
    /// Rows that moved to another topic.
    pub rerouted: u64,
    /// Entries that were not as they were saved: each was restored, or is gone.
    pub damaged_entries: u64,
}

/// A lane with rows that wait for the bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredLane {
    /// Which.
    pub key: LaneKey,
    /// How many rows.
    pub rows: u64,
    /// Its oldest.
    pub head: Seq,
}

/// A snapshot for metrics.
#[derive(Debug, Clone)]
pub struct StoreStats {
    /// Rows by account and kind.
    pub depths: Vec<(AccountId, Kind, Count)>,
    /// The minute in which the oldest row was parked that waits for the bus.
    pub oldest_for_bus: Option<Millis>,
    /// The same for the operator.
    pub oldest_for_operator: Option<Millis>,
    /// Rows that wait for the bus and will be too old within a day.
    pub expiring_for_bus: u64,
    /// The same for the operator.
    pub expiring_for_operator: u64,
    /// Whether the last who came for room to wait for the bus in found none.
    pub refuses_for_bus: bool,
    /// Rows that wait to be written.
    pub queued_parks: u64,
    /// Rows that wait to be deleted, freed or marked.
    pub queued_changes: u64,
    /// The file's size, with free pages.
    pub file_bytes: u64,
    /// Commits since the start.
    pub commits: u64,
    /// Rows evicted since the start.
    pub evicted: u64,
    /// Rows that got too old since the start.
    pub expired: u64,
    /// Rows discarded since the start.
    pub discarded: u64,
    /// Rows since the start that were not sent, as their bytes changed on the disk.
    pub damaged: u64,
    /// Entries since the start that were not as they were saved.
    pub damaged_entries: u64,
    /// How it does.
    pub health: StoreHealth,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_does_not_answer_is_no_store_that_is_well() {
        let moment = HANGS / 2;
        for said in [StoreHealth::Well, StoreHealth::Full, StoreHealth::Failing] {
            assert_eq!((said.now(moment), said.now(HANGS)), (said, StoreHealth::Hanging));
        }
        assert_eq!(StoreHealth::Broken.now(HANGS), StoreHealth::Broken);
    }
}
