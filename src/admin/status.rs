//! Readiness: ready means that something can durably be accepted, by the bus or by the store, and that the process is
//! not stopping. Whatever else is wrong is a finding: it says what is degraded, and never takes the process out of
//! service. Open to all, so that no finding names a topic, a subject or a secret. Pure.

use serde::Serialize;

use super::snapshot::{BusState, Phase, Snapshot};
use crate::config::Account;
use crate::replay::StoreHealth;

/// The store counts as nearly full above this many hundredths.
const NEARLY_FULL: u128 = 80;
/// A feed counts as failing once so many polls in a row have failed.
const FAILING: u64 = 3;

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// A stable name: `docs/operate.md` says what to do.
    pub code: &'static str,
    /// What was found.
    pub detail: String,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// Why it is not ready.
    pub not_ready: Option<&'static str>,
    /// What is degraded, what is worst first.
    pub findings: Vec<Finding>,
}

impl Readiness {
    /// Whether it is.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        self.not_ready.is_none()
    }

    /// What a snapshot says.
    #[must_use]
    pub fn of(snapshot: &Snapshot, accounts: &[Account]) -> Self {
        Self { not_ready: not_ready(snapshot), findings: findings(snapshot, accounts) }
    }
}

fn not_ready(snapshot: &Snapshot) -> Option<&'static str> {
    match snapshot.phase {
        Phase::Starting => return Some("starting"),
        Phase::Stopping => return Some("stopping"),
        Phase::Running => {}
    }
    if snapshot.store.health == StoreHealth::Broken {
        return Some("the store cannot be trusted");
    }
    (store_refuses(snapshot) && bus_refuses(snapshot))
        .then_some("the bus is unavailable and the store takes nothing")
}

fn bus_refuses(snapshot: &Snapshot) -> bool {
    snapshot.breaker_open || snapshot.bus == BusState::Unavailable
}

/// No row fits exactly into what is left of a full store. One that is refused while there is much room was a large request's.
fn store_refuses(snapshot: &Snapshot) -> bool {
    match snapshot.store.health {
        StoreHealth::Well => {
            let (used, capacity) = (snapshot.bytes_for_bus(None), snapshot.capacity_for_bus());
            snapshot.store.refuses_for_bus && is_nearly_full(used, capacity)
        }
        StoreHealth::Full | StoreHealth::Failing | StoreHealth::Hanging | StoreHealth::Broken => true,
    }
}

const fn is_nearly_full(used: u64, of: u64) -> bool {
    // A size may be any that a configuration can spell.
    used as u128 * 100 >= of as u128 * NEARLY_FULL
}

fn findings(snapshot: &Snapshot, accounts: &[Account]) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut find = |code, detail: String| found.push(Finding { code, detail });
    match snapshot.store.health {
        StoreHealth::Well => {}
        StoreHealth::Full => find("disk-full", "the disk is full: nothing can be parked".to_owned()),
        StoreHealth::Failing => {
            find("store-failing", "the store failed to write, and tries again".to_owned());
        }
        StoreHealth::Hanging => {
            find(
                "store-hanging",
                "the disk under the store does not answer: nothing can be parked".to_owned(),
            );
        }
        StoreHealth::Broken => {
            find("store-broken", "the store cannot be trusted: the process exits".to_owned());
        }
    }
    if snapshot.bus == BusState::Unavailable {
        find("bus-unavailable", "the bus cannot be reached: events are parked".to_owned());
    }
    if let Some(silent) = snapshot.silent_for.filter(|_| snapshot.bus == BusState::Available) {
        let words = format!("the bus is connected, and has acknowledged nothing for {} s", silent.as_secs());
        find("bus-silent", words);
    }
    if snapshot.breaker_open {
        find("breaker-open", "too many attempts failed: events are parked at once".to_owned());
    }
    if snapshot.refused_topics > 0 {
        find("topics-refused", format!("the bus refuses {} topics", snapshot.refused_topics));
    }
    let (used, capacity) = (snapshot.bytes_for_bus(None), snapshot.capacity_for_bus());
    if is_nearly_full(used, capacity) {
        find("store-nearly-full", format!("{used} of {capacity} bytes for what waits for the bus are used"));
    }
    for account in accounts {
        let (used, quota) = (snapshot.bytes_for_bus(Some(&account.id)), account.limits.parked);
        if is_nearly_full(used, quota) {
            find("quota-nearly-spent", format!("account {}: {used} of {quota} parked bytes", account.id));
        }
    }
    if snapshot.lanes_behind > 0 {
        let (lanes, events) = (snapshot.lanes_behind, snapshot.events_behind);
        find("lanes-behind", format!("{events} parked events in {lanes} lanes wait for the bus"));
    }
    let aside = snapshot.rows_for_operator();
    if aside > 0 {
        find(
            "waits-for-operator",
            format!("{aside} messages are set aside: nobody sends them but an operator"),
        );
    }
    let expiring = snapshot.store.expiring_for_bus + snapshot.store.expiring_for_operator;
    if expiring > 0 {
        find("parked-expires", format!("{expiring} parked messages are removed within a day"));
    }
    let failing = snapshot.feeds.iter().filter(|feed| feed.failed_in_a_row >= FAILING).count();
    if failing > 0 {
        find("feeds-failing", format!("{failing} polled feeds have failed {FAILING} times in a row"));
    }
    if let Some((port, ..)) = snapshot.connections.iter().find(|(_, open, bound)| open >= bound) {
        find("connections-full", format!("port {port} has as many connections as it may: more wait"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::snapshot;
    use crate::event::AccountId;
    use crate::replay::{Count, Kind, Reason};

    type Change = fn(&mut Snapshot);

    #[track_caller]
    fn check(changes: &[Change], not_ready: Option<&str>, codes: &[&str]) {
        let mut snapshot = Snapshot::well();
        changes.iter().for_each(|change| change(&mut snapshot));
        let readiness = Readiness::of(&snapshot, &[snapshot::account(1_000)]);
        assert_eq!(readiness.not_ready, not_ready);
        let found: Vec<_> = readiness.findings.iter().map(|finding| finding.code).collect();
        assert_eq!(found, codes);
    }

    fn parked(snapshot: &mut Snapshot, bytes: u64) {
        let kind = Kind::Event(Reason::Unavailable);
        snapshot.store.depths = vec![(AccountId::new("acme"), kind, Count { rows: 1, bytes })];
    }

    const BOTH: Option<&str> = Some("the bus is unavailable and the store takes nothing");

    #[test]
    fn one_open_way_is_enough_to_be_ready() {
        let away: Change = |s| s.bus = BusState::Unavailable;
        let open: Change = |s| s.breaker_open = true;
        let full: Change = |s| s.store.health = StoreHealth::Full;
        let failing: Change = |s| s.store.health = StoreHealth::Failing;
        let hanging: Change = |s| s.store.health = StoreHealth::Hanging;
        let nearly: Change = |s| parked(s, 8_999);
        let refuses: Change = |s| s.store.refuses_for_bus = true;
        check(&[], None, &[]);
        check(&[away], None, &["bus-unavailable"]);
        check(&[open], None, &["breaker-open"]);
        check(&[full], None, &["disk-full"]);
        check(&[nearly, refuses], None, &["store-nearly-full", "quota-nearly-spent"]);
        check(&[away, full], BOTH, &["disk-full", "bus-unavailable"]);
        check(&[open, failing], BOTH, &["store-failing", "breaker-open"]);
        check(&[open, hanging], BOTH, &["store-hanging", "breaker-open"]);
        let found = ["bus-unavailable", "store-nearly-full", "quota-nearly-spent"];
        check(&[away, nearly], None, &found);
        check(&[away, nearly, refuses], BOTH, &found);
        check(&[away, refuses], None, &["bus-unavailable"]);
    }

    #[test]
    fn neither_before_all_runs_nor_while_stopping_nor_on_a_broken_store() {
        check(&[|s| s.phase = Phase::Starting], Some("starting"), &[]);
        check(&[|s| s.phase = Phase::Stopping], Some("stopping"), &[]);
        let broken: Change = |s| s.store.health = StoreHealth::Broken;
        check(&[broken], Some("the store cannot be trusted"), &["store-broken"]);
    }

    #[test]
    fn what_is_degraded_is_found() {
        check(&[|s| s.refused_topics = 2], None, &["topics-refused"]);
        let silent: Change = |s| s.silent_for = Some(std::time::Duration::from_secs(12));
        check(&[silent], None, &["bus-silent"]);
        check(&[silent, |s| s.bus = BusState::Unavailable], None, &["bus-unavailable"]);
        check(&[|s| s.lanes_behind = 1], None, &["lanes-behind"]);
        check(&[|s| s.store.expiring_for_operator = 1], None, &["parked-expires"]);
        check(&[|s| s.connections = vec![("webhooks", 5, 5)]], None, &["connections-full"]);
        check(&[|s| s.store_max_bytes = u64::MAX], None, &[]);
        check(&[|s| parked(s, 799)], None, &[]);
        check(&[|s| parked(s, 800)], None, &["quota-nearly-spent"]);
        let aside: Change = |s| {
            let count = Count { rows: 1, bytes: 9 };
            s.store.depths = vec![(AccountId::new("acme"), Kind::Event(Reason::Unfit), count)];
        };
        check(&[aside], None, &["waits-for-operator"]);
    }
}
