//! What an event costs, counted by valgrind's callgrind: instructions and calls of the allocator. Noise does not touch them, so five
//! per cent more or less is a change of the code and not of the machine. `docs/counts.txt` has what is expected; `make counts`
//! compares an optimized build with it. Where valgrind is not there, nothing is counted.

#[expect(dead_code, reason = "shared with the benchmark")]
#[path = "support/hot.rs"]
mod hot;

#[path = "counts/body.rs"]
mod body;
#[path = "counts/callgrind.rs"]
mod callgrind;

use std::fmt::Write as _;
use std::hint::black_box;

use callgrind::{Count, RUN};
use hot::{Bench, FLAT, V3};

/// A flat trip with all that the provider says about one.
const TRIP: &[u8] = br#"{"pushType":"TRIP","deviceNumber":"350000000000017","deviceSerialNumber":"SN000017","deviceUUID":"11111111-2222-4333-8444-555555550017","deviceTypeDescription":"Linxup Plugin","driverNumber":"DRV0017","firstName":"Van 17","lastName":"","fleetName":"Default","vin":"TESTVIN0000000017","make":"Ford","model":"Transit","year":"2021","customerUUID":"aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeee0001","startDateTime":1767009600000,"formattedStartDateTime":"2025-12-29T06:00:00-0600","startLatitude":38.62701,"startLongitude":-90.19941,"startAddress":"100 Example St, Sampletown, MO 00000","endDateTime":1767011460000,"formattedEndDateTime":"2025-12-29T06:31:00-0600","endLatitude":38.7011,"endLongitude":-90.3012,"endAddress":"200 Sample Ave, Sampletown, MO 00000","durationMinutes":31,"distanceMiles":12,"authorizedMiles":12,"unauthorizedMiles":0,"distanceMilesDetailed":11.873,"authorizedMilesDetailed":11.873,"unauthorizedMilesDetailed":0}"#;

/// What is written down: a name, instructions, calls of the allocator; of an optimized build.
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/counts.txt");
/// What is counted.
#[derive(Debug, Clone, Copy)]
enum Case {
    /// One element's bytes to one message, headers included.
    Element(&'static str, &'static [u8]),
    /// A body of a hundred flat positions, from its bytes to its receipt, without the bus's own work: counted an event.
    Body(&'static str),
}

const CASES: [Case; 4] = [
    Case::Element("flat-position", FLAT),
    Case::Element("v3-position", V3),
    Case::Element("flat-trip", TRIP),
    Case::Body("body-of-100"),
];

impl Case {
    const fn name(self) -> &'static str {
        match self {
            Self::Element(name, _) | Self::Body(name) => name,
        }
    }

    /// How many rounds two runs have: what a process costs by itself cancels out.
    const fn rounds(self) -> (u64, u64) {
        match (self, cfg!(debug_assertions)) {
            (Self::Element(..), true) => (50, 150),
            (Self::Element(..), false) => (500, 1_500),
            (Self::Body(_), _) => (5, 25),
        }
    }

    /// How many events a round has.
    const fn events(self) -> u64 {
        match self {
            Self::Element(..) => 1,
            Self::Body(_) => body::EVENTS,
        }
    }

    fn run(self, rounds: u64) {
        match self {
            Self::Element(_, sample) => {
                let bench = Bench::new(&[FLAT, V3, TRIP]);
                for _ in 0..rounds {
                    black_box(message(&bench, black_box(sample)));
                }
            }
            Self::Body(_) => body::run(rounds),
        }
    }

    /// What is counted of it, by function.
    const fn within(self) -> &'static [&'static str] {
        match self {
            Self::Element(..) => &["counts::message"],
            Self::Body(_) => &["counts::body::accept", "*LaneRef*Awaiting*resolve*"],
        }
    }

    fn count(self) -> Count {
        let (few, many) = self.rounds();
        let [few_counted, many_counted] =
            [few, many].map(|rounds| callgrind::count(&format!("{} {rounds}", self.name()), self.within()));
        let events = ((many - few) * self.events()) as f64;
        Count {
            instructions: (many_counted.instructions - few_counted.instructions) / events,
            allocations: (many_counted.allocations - few_counted.allocations) / events,
        }
    }
}

/// A function of its own, so that it can be told apart.
#[inline(never)]
fn message(bench: &Bench, sample: &[u8]) -> fleetbus::bus::Message {
    bench.message(sample)
}

/// What runs under valgrind; by itself it has nothing to do.
#[test]
fn counted() {
    let Ok(run) = std::env::var(RUN) else { return };
    let (name, rounds) = run.split_once(' ').expect("a name and a number");
    let case = CASES.into_iter().find(|case| case.name() == name).expect("a case");
    case.run(rounds.parse().expect("a number"));
}

/// What the page says of a case.
fn written(page: &str, name: &str) -> Option<Count> {
    page.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let is_it = words.next() == Some(name);
        let mut number = || words.next()?.parse().ok();
        is_it.then_some(Count { instructions: number()?, allocations: number()? })
    })
}

fn is_near(seen: f64, expected: f64) -> bool {
    (seen - expected).abs() <= expected * 0.05
}

/// Also without optimization an element asks the allocator no more often: what every test run can tell.
#[test]
#[cfg_attr(not(debug_assertions), ignore = "the other test counts more")]
fn an_element_asks_the_allocator_no_more_often_than_is_written_down() {
    if !callgrind::is_here() {
        return;
    }
    let page = std::fs::read_to_string(PAGE).expect("the page");
    for case in CASES.into_iter().filter(|case| matches!(case, Case::Element(..))) {
        let seen = case.count().allocations;
        let most = written(&page, case.name()).expect("a line").allocations * 1.05;
        assert!(seen <= most, "{}: {seen:.1} an event, and not {most:.1}: see make counts", case.name());
    }
}

#[test]
#[cfg_attr(debug_assertions, ignore = "counts optimized code: make counts")]
fn an_event_costs_what_is_written_down() {
    if !callgrind::is_here() {
        return;
    }
    let page = std::fs::read_to_string(PAGE).unwrap_or_default();
    let mut anew: String =
        page.lines().filter(|line| line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    let mut off = Vec::new();
    for case in CASES {
        let name = case.name();
        let seen = case.count();
        let line = format!("{name:<16}{:>8.0}{:>8.1}", seen.instructions, seen.allocations);
        println!("{line}");
        writeln!(anew, "{line}").expect("a text");
        let fits = written(&page, name).is_some_and(|written| {
            is_near(seen.instructions, written.instructions) && is_near(seen.allocations, written.allocations)
        });
        if !fits {
            off.push(line);
        }
    }
    if std::env::var_os("FLEETBUS_WRITE").is_some() {
        std::fs::write(PAGE, anew).expect("the page can be written");
        return;
    }
    assert!(
        off.is_empty(),
        "more than 5 % off docs/counts.txt (make counts WRITE=1 where it is meant): {off:#?}"
    );
}
