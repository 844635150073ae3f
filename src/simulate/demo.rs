//! What the demo says: frames of a running bridge, and the sums at its end. Pure.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;

use uuid::Uuid;

use super::world::{Fact, What};
use crate::deliver::counts::Reading;

/// What the local log holds.
#[derive(Debug, Default)]
pub struct Log {
    /// Rows, by type.
    pub rows: BTreeMap<String, u64>,
    ids: HashSet<Uuid>,
    doubled: u64,
}

impl Log {
    /// One row of the log.
    pub fn take(&mut self, topic: &str, id: Uuid) {
        if self.ids.insert(id) {
            *self.rows.entry(topic.trim_start_matches("fleet.").to_owned()).or_default() += 1;
        } else {
            self.doubled += 1;
        }
    }
}

/// What became of parked events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Later {
    /// Delivered by the drain.
    pub drained: u64,
    /// Still waiting.
    pub waiting: u64,
}

/// One line about a moment.
#[must_use]
pub fn frame(seconds: u64, reading: &Reading, waiting: u64, outage: bool) -> String {
    let bus = if outage { "bus away" } else { "bus up" };
    format!(
        "{seconds:>3} s  {bus:<8}  received {:>6}  delivered {:>6}  parked {:>5}  known already {:>5}  waiting {waiting:>5}",
        reading.received, reading.delivered, reading.parked, reading.duplicates
    )
}

/// The sums at the end, and whether they add up.
#[must_use]
pub fn sums(happened: &[Fact], crumbs: u64, log: &Log, reading: &Reading, later: Later) -> (String, bool) {
    let mut expected: BTreeMap<&str, u64> = BTreeMap::new();
    // Trackers come by the pull APIs too, as another kind of change: they are no facts that could be counted.
    for fact in happened.iter().filter(|fact| fact.what != What::Introduced) {
        *expected.entry(fact.what.word()).or_default() += 1;
    }
    *expected.entry("position").or_default() += crumbs;
    let mut text = String::from("\n  type                 happened   on the bus\n");
    let mut right = true;
    for (word, count) in &expected {
        let found = log.rows.get(*word).copied().unwrap_or(0);
        right &= found == *count;
        writeln!(text, "  {word:<20} {count:>8}   {found:>10}").unwrap_or_default();
    }
    let Later { drained, waiting } = later;
    let fates = reading.delivered + reading.parked + reading.duplicates + reading.rejected;
    let added = reading.received == fates && waiting == 0 && log.doubled == 0;
    writeln!(
        text,
        "\n  received {} = delivered {} + parked {} + known already {} + rejected {}; drained {drained}; waiting {waiting}; doubled {}",
        reading.received,
        reading.delivered,
        reading.parked,
        reading.duplicates,
        reading.rejected,
        log.doubled
    )
    .unwrap_or_default();
    (text, right && added)
}

/// The breadcrumbs inside messages.
#[must_use]
pub fn crumbs(facts: &[Fact], nested: impl Fn(u32) -> bool) -> u64 {
    let of = |fact: &Fact| match &fact.what {
        What::Position { crumbs, .. } if nested(fact.vehicle) => crumbs.len() as u64,
        What::Introduced
        | What::Position { .. }
        | What::Trip { .. }
        | What::Usage { .. }
        | What::Stop { .. }
        | What::Crossing { .. }
        | What::HighSpeed { .. }
        | What::HarshBraking
        | What::Arrived { .. }
        | What::Media
        | What::Sighting { .. }
        | What::LeftBehind { .. } => 0,
    };
    facts.iter().map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_add_up_only_when_every_fact_is_on_the_bus_once() {
        let facts = [Fact { vehicle: 0, at: 1, what: What::HighSpeed { speed: 80 } }];
        let reading = Reading { received: 2, delivered: 1, duplicates: 1, ..Reading::default() };
        let done = Later { drained: 0, waiting: 0 };
        let mut log = Log::default();
        assert!(!sums(&facts, 0, &log, &reading, done).1, "it is missing");
        log.take("fleet.alert", Uuid::from_u128(1));
        assert!(sums(&facts, 0, &log, &reading, done).1);
        assert!(!sums(&facts, 0, &log, &reading, Later { waiting: 1, ..done }).1, "something waits");
        assert!(
            !sums(&facts, 0, &log, &Reading { received: 3, ..reading }, done).1,
            "something is in flight"
        );
        log.take("fleet.alert", Uuid::from_u128(1));
        assert!(!sums(&facts, 0, &log, &reading, done).1, "something is doubled");
    }
}
