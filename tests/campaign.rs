//! The fault campaign: a load with a ledger, a real bridge, real brokers, faults by seed, and a checker that trusts none of
//! them. The short form runs with all tests; `make campaign` runs the long one, `make campaign-selftest` plants bugs that the
//! checker must find. `docs/reliability.md` has what it found.

#[expect(dead_code, reason = "shared with the tests of the buses")]
#[path = "support/brokers.rs"]
mod brokers;
#[path = "campaign/bus.rs"]
mod bus;
#[path = "campaign/checker.rs"]
mod checker;
#[path = "campaign/child.rs"]
mod child;
#[path = "campaign/consumer.rs"]
mod consumer;
#[path = "campaign/disk.rs"]
mod disk;
#[path = "campaign/facts.rs"]
mod facts;
#[path = "campaign/faults.rs"]
mod faults;
#[path = "campaign/ledger.rs"]
mod ledger;
#[path = "campaign/proxy.rs"]
mod proxy;
#[path = "campaign/pull.rs"]
mod pull;
#[path = "campaign/report.rs"]
mod report;
#[path = "campaign/run.rs"]
mod run;
#[path = "campaign/senders.rs"]
mod senders;

use std::time::Duration;

use bus::{Kind, Size};
use faults::Fault;
use run::{Faults, Outcome, Settings};
use senders::Load;

/// The short form: few events, the faults that matter most.
fn short(bus: Kind, faults: Vec<Fault>) -> Settings {
    Settings {
        bus,
        size: Size::One,
        load: Load { senders: 12, vehicles: 6, most: 8, events: 4_000, seed: 1 },
        faults: Faults::Given(faults),
        lasts: Duration::from_secs(2),
        bug: None,
    }
}

fn must_hold(outcome: &Outcome) {
    println!("{}", report::markdown(outcome));
    assert!(outcome.holds(), "{}\n{}", outcome.findings, report::markdown(outcome));
    assert!(outcome.missed.is_empty(), "{}", report::markdown(outcome));
}

#[tokio::test(flavor = "multi_thread")]
async fn promises_hold_on_kafka_through_the_faults_that_matter_most() {
    let faults = vec![
        Fault::BrokerPaused,
        Fault::Kill,
        Fault::DieInDrain,
        Fault::TooLarge,
        Fault::HoleDown,
        Fault::Terminate,
        Fault::Denied,
    ];
    must_hold(&run::run(short(Kind::Kafka, faults)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn promises_hold_on_nats_through_the_faults_that_matter_most() {
    let faults = vec![
        Fault::RudeSenders,
        Fault::BrokerKilled,
        Fault::DieAfterPark,
        Fault::ProxyCuts,
        Fault::DieAfterAck,
        Fault::ClockForward,
        Fault::TopicDeleted,
    ];
    must_hold(&run::run(short(Kind::Nats, faults)).await);
}

/// A bridge with a planted bug, and no fault.
async fn with_bug(bug: &'static str) -> Outcome {
    let settings = short(Kind::Nats, Vec::new());
    let load = Load { events: 2_500, ..settings.load };
    run::run(Settings { bug: Some(bug), load, ..settings }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_checker_finds_planted_bugs() {
    let (lost, reordered) = tokio::join!(with_bug("lost"), with_bug("reordered"));
    assert!(!lost.findings.lost.is_empty(), "{}", report::markdown(&lost));
    assert!(!reordered.findings.reordered.is_empty(), "{}", report::markdown(&reordered));
    let (other, cut) = tokio::join!(with_bug("other-id"), with_bug("cut"));
    assert!(!other.findings.other_ids.is_empty(), "{}", report::markdown(&other));
    assert!(cut.cut > 0, "{}", report::markdown(&cut));
    let skipped = with_bug("skipped").await;
    let polled = |fact: &facts::Fact| fact.account != facts::Account::Acme;
    assert!(skipped.findings.lost.iter().any(polled), "{}", report::markdown(&skipped));
}

fn asked<T: std::str::FromStr>(name: &str, otherwise: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// So many faults: by seed, or those of `ONLY` in turn.
fn wanted(count: usize) -> Faults {
    let only: String = asked("ONLY", String::new());
    let named = |name: &str| {
        let known = Fault::ALL.into_iter().find(|fault| format!("{fault:?}") == name.trim());
        known.unwrap_or_else(|| panic!("ONLY names faults as tests/campaign/faults.rs does, and not {name}"))
    };
    let these: Vec<Fault> = only.split(',').filter(|name| !name.is_empty()).map(named).collect();
    if these.is_empty() {
        return Faults::Planned(count);
    }
    Faults::Given(these.into_iter().cycle().take(count).collect())
}

/// `make campaign`: as long as is asked for, with a report.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "the long form: make campaign"]
async fn long() {
    let buses: &[Kind] = match asked("BUS", "both".to_owned()).as_str() {
        "kafka" => &[Kind::Kafka],
        "nats" => &[Kind::Nats],
        _ => &[Kind::Kafka, Kind::Nats],
    };
    let brokers: usize = asked("BROKERS", 1);
    let mut failed = Vec::new();
    for bus in buses {
        let settings = Settings {
            bus: *bus,
            size: if brokers == 3 { Size::Three } else { Size::One },
            load: Load {
                senders: asked("SENDERS", 48),
                vehicles: 40,
                most: 60,
                events: asked("EVENTS", 100_000),
                seed: asked("SEED", 1),
            },
            faults: wanted(asked("FAULTS", 12)),
            lasts: Duration::from_secs(asked("LASTS", 4)),
            bug: None,
        };
        let outcome = run::run(settings).await;
        let text = report::markdown(&outcome);
        println!("\n{text}");
        if let Some(file) = std::env::var_os("REPORT") {
            use std::io::Write as _;
            let mut file =
                std::fs::File::options().create(true).append(true).open(file).expect("the report's file");
            file.write_all(text.as_bytes()).expect("room for the report");
        }
        if !outcome.holds() {
            failed.push(bus.word());
        }
    }
    assert!(failed.is_empty(), "promises were broken on {failed:?}: see above");
}
