//! Facts in every format. `provider` decodes what the simulator wrote without knowing of it: where both were wrong in the
//! same way, the golden ids of the meaning tests would still show it.

use std::collections::{BTreeMap, BTreeSet};

use fleetbus::event::{Millis, pb};
use fleetbus::provider::{Feed, PullApi, Source};
use fleetbus::simulate::render;
use fleetbus::simulate::world::{self, Fact, What, World};
use serde_json::Value;

use super::support::{Run, Said, pull, push};

const BEGINS: i64 = 1_767_009_600_000;
const WORLD: World = World { seed: 3, vehicles: 12, begins: BEGINS };
const HOURS: i64 = 2 * 3_600_000;

fn facts() -> Vec<Fact> {
    WORLD.facts(BEGINS, BEGINS + HOURS)
}

fn text(world: World) -> String {
    let facts = world.facts(BEGINS, BEGINS + HOURS);
    let lines = facts.iter().map(|fact| {
        let rows =
            [render::flat(fact), Some(render::nested(fact)), render::v2_row(fact), render::v3_row(fact)];
        format!("{rows:?}\n")
    });
    lines.collect()
}

#[test]
fn a_seed_decides_every_byte() {
    assert!(text(WORLD) == text(WORLD));
    assert!(text(WORLD) != text(World { seed: 4, ..WORLD }));
}

#[test]
fn everything_that_a_provider_says_happens() {
    let happened: BTreeSet<&str> = facts().iter().map(|fact| fact.what.word()).collect();
    let expected = [
        "alert",
        "geofence-crossing",
        "item-left-behind",
        "item-sighting",
        "media",
        "position",
        "stop",
        "tracker",
        "trip",
        "usage",
    ];
    assert_eq!(happened, expected.into());
}

/// A run that knows the trackers and the geofences, as one does that polls their lists.
fn run() -> Run {
    let mut run = Run::new();
    run.received_at = Millis(BEGINS + HOURS + 3_600_000);
    for vehicle in 0..WORLD.vehicles {
        let row = render::v2_tracker(vehicle);
        run.say(&pull(PullApi::V2, Feed::Trackers), row.to_string().as_bytes());
    }
    for place in 0..world::places() {
        let row = render::v2_geofence(place);
        run.say(&pull(PullApi::V2, Feed::Geofences), row.to_string().as_bytes());
    }
    run
}

fn feed(what: &What) -> Feed {
    match what {
        What::Position { .. } => Feed::History,
        What::Trip { .. } => Feed::Trips,
        What::Usage { .. } => Feed::UsageHours,
        What::Stop { .. } => Feed::Stops,
        What::Crossing { .. } => Feed::GeofenceActivity,
        What::HighSpeed { .. } | What::HarshBraking | What::Arrived { .. } => Feed::Alerts,
        What::Introduced | What::Media | What::Sighting { .. } | What::LeftBehind { .. } => Feed::Trackers,
    }
}

fn v3_feed(what: &What) -> Feed {
    if matches!(what, What::Stop { .. }) { Feed::Stops } else { Feed::Positions }
}

/// The event that a message became, besides its breadcrumbs; of a visit, the crossing that the fact is.
fn event(run: &mut Run, source: &Source, message: &Value, fact: &Fact) -> pb::FleetEvent {
    let said = run.say(source, message.to_string().as_bytes());
    let mut events: Vec<pb::FleetEvent> = said
        .into_iter()
        .map(|said| match said {
            Said::Event { event, .. } => *event,
            Said::Skipped(why) | Said::Refused(why) => panic!("{why}: {message}"),
        })
        .filter(|event| !is_breadcrumb(event))
        .collect();
    if let What::Crossing { left, .. } = fact.what
        && events.len() == 2
    {
        events.remove(usize::from(left.is_none()));
    }
    assert_eq!(events.len(), 1, "{message}");
    let event = events.remove(0);
    assert!(event.anomalies.is_empty(), "{:?}: {message}", event.anomalies);
    event
}

fn is_breadcrumb(event: &pb::FleetEvent) -> bool {
    matches!(&event.body, Some(pb::fleet_event::Body::Position(position)) if position.breadcrumb)
}

#[test]
fn one_fact_is_one_event_in_whichever_format_it_is_said() {
    let (mut flat, mut nested, mut v2, mut v3) = (run(), run(), run(), run());
    let mut compared: BTreeMap<&str, u32> = BTreeMap::new();
    for fact in facts().iter().filter(|fact| fact.what != What::Introduced) {
        let pushed = event(&mut nested, &push(), &render::nested(fact), fact);
        let mut same = |other: &pb::FleetEvent, format: &'static str| {
            assert_eq!((&other.record_id, &other.id), (&pushed.record_id, &pushed.id), "{format}: {fact:?}");
            assert_eq!((&other.subject, other.occur_time), (&pushed.subject, pushed.occur_time), "{fact:?}");
            *compared.entry(format).or_default() += 1;
        };
        if let Some(message) = render::flat(fact) {
            same(&event(&mut flat, &push(), &message, fact), "flat");
        }
        if let Some(row) = render::v2_row(fact) {
            same(&event(&mut v2, &pull(PullApi::V2, feed(&fact.what)), &row, fact), "v2");
        }
        assert_eq!(render::v2_row(fact).is_some(), fact.what.is_pulled(), "{fact:?}");
        let Some(row) = render::v3_row(fact) else { continue };
        let pulled = event(&mut v3, &pull(PullApi::V3, v3_feed(&fact.what)), &row, fact);
        match fact.what {
            // V3 says whole minutes, so that the end is not exact.
            What::Stop { .. } => assert_eq!(pulled.record_id, pushed.record_id, "{fact:?}"),
            _ => same(&pulled, "v3"),
        }
    }
    assert!(compared.values().all(|count| *count > 500), "{compared:?}");
    assert!(compared.len() == 3, "{compared:?}");
}

#[test]
fn lists_and_introductions_are_understood() {
    let mut fleet = run();
    for fact in facts().iter().filter(|fact| fact.what == What::Introduced) {
        let flat = render::flat(fact).expect("a device update");
        for message in [flat, render::nested(fact)] {
            let event = event(&mut fleet, &push(), &message, fact);
            assert!(matches!(event.body, Some(pb::fleet_event::Body::TrackerChange(_))), "{message}");
        }
        let row = render::v3_tracker(fact.vehicle);
        event(&mut fleet, &pull(PullApi::V3, Feed::Trackers), &row, fact);
    }
}
