//! One fact, one id: payloads of different formats side by side. "=" of the mapping's table is equality here, "≠" is not.

use fleetbus::provider::{Feed, Pair, PullApi};
use serde_json::{Value, json};

use crate::support::{Run, Said, T, events, first_row, fixture, pull, push, with, without};

/// The ids of each payload's events, and of them the first.
fn first(source: &fleetbus::provider::Source, raw: &Value) -> Said {
    events(source, raw).into_iter().next().unwrap_or_else(|| panic!("nothing of {raw}"))
}

#[track_caller]
fn check_same(golden: &str, payloads: &[Said]) {
    for said in payloads {
        assert_eq!(said.id(), golden, "{:?}", said.to_value());
    }
}

#[test]
fn a_position_has_one_id_in_four_formats() {
    let payloads = |behavior: Value| {
        let v2 = |path| with(first_row(path), json!({ "behaviorCd": behavior }));
        [
            first(
                &push(),
                &with(fixture("push-legacy-flat/position_moving.json"), json!({ "behaviorCd": behavior })),
            ),
            first(
                &push(),
                &with(fixture("push-v3/position_documented.json"), json!({ "behaviorCode": behavior })),
            ),
            first(
                &push(),
                &with(
                    fixture("push-v3/position_live_like_sparse.json"),
                    json!({ "behaviourCode": behavior }),
                ),
            ),
            first(&pull(PullApi::V2, Feed::Locations), &v2("pull-v2/locations_current.response.json")),
            first(&pull(PullApi::V2, Feed::History), &v2("pull-v2/locations_history.response.json")),
            first(
                &pull(PullApi::V3, Feed::Positions),
                &with(
                    first_row("pull-v3/positions_current.response.json"),
                    json!({ "behaviorCode": behavior }),
                ),
            ),
        ]
    };
    check_same("8a1b7959-ffe7-5f92-b699-bc2107218705", &payloads(Value::Null));
    check_same("251ad431-73ea-5fec-9086-1c927754d68d", &payloads(json!("hbr")));
}

#[test]
fn a_trip_a_stop_and_a_usage_have_one_id_in_their_formats() {
    check_same(
        "3bf3649a-6236-50a1-9298-faedb9ef39d7",
        &[
            first(&push(), &fixture("push-legacy-flat/trip.json")),
            first(&push(), &fixture("push-v3/trip.json")),
            first(&pull(PullApi::V2, Feed::Trips), &first_row("pull-v2/trips.response.json")),
        ],
    );
    let v3 = with(fixture("push-v3/stop.json"), json!({ "endDateTime": T + 3_600_000, "stopType": "OFF" }));
    check_same(
        "d40cf731-6acb-5565-9d94-3307778624ab",
        &[
            first(&push(), &fixture("push-legacy-flat/stop_engine_off.json")),
            first(&push(), &v3),
            first(&pull(PullApi::V2, Feed::Stops), &first_row("pull-v2/stops.response.json")),
            first(&pull(PullApi::V3, Feed::Stops), &first_row("pull-v3/stops.response.json")),
        ],
    );
    check_same(
        "6021db97-076c-5930-b138-edfd407f9971",
        &[
            first(&push(), &fixture("push-legacy-flat/usage_hours.json")),
            first(&push(), &fixture("push-v3/usage_hours.json")),
            first(&push(), &fixture("push-v3/usage_hours_prose_names.json")),
            first(&pull(PullApi::V2, Feed::UsageHours), &first_row("pull-v2/usagehours.response.json")),
        ],
    );
}

#[test]
fn an_alert_has_one_id_where_the_texts_are_the_same() {
    let v3 = without(fixture("push-v3/alert_sample_names.json"), &["alertDescription"]);
    let high_speed = with(v3.clone(), json!({ "alertCode": "High_Speed", "alertDesc": "another text" }));
    check_same(
        "088fbdab-ffdb-53b8-81fe-10c1d1ad6f2b",
        &[
            first(&push(), &fixture("push-legacy-flat/alert_high_speed.json")),
            first(&push(), &high_speed),
            first(&push(), &with(high_speed.clone(), json!({ "alertCode": "HIGH_SPEED\u{0}" }))),
            first(&pull(PullApi::V2, Feed::Alerts), &first_row("pull-v2/alerts.response.json")),
        ],
    );
    check_same(
        "45ccf8a1-1141-54eb-893d-b740b8ce5869",
        &[
            first(&push(), &with(high_speed, json!({ "mediaId": "5" }))),
            first(&pull(PullApi::V2, Feed::Alerts), &first_row("pull-v2/alerts_media.response.json")),
        ],
    );
    let entered =
        json!({ "alertCode": "GEOFENCE_ENTERED", "alertDescription": "van 17 \u{a0}ENTERED\tdepot a. " });
    check_same(
        "87408a8f-c954-56c7-a767-48119a1de0bc",
        &[
            first(&push(), &fixture("push-legacy-flat/alert_geofence_entered.json")),
            first(&push(), &with(v3, entered)),
        ],
    );
    let tamper = |code: &str| {
        let raw = with(fixture("push-legacy-flat/alert_high_speed.json"), json!({ "alertCode": code }));
        first(&push(), &raw).id().to_owned()
    };
    assert_eq!(tamper("TAMPER"), tamper("POWER_ON"));
    assert_ne!(tamper("TAMPER"), tamper("POWER_OFF"));
}

#[test]
fn a_crossing_has_one_id_where_the_geofence_is_known() {
    let flat = fixture("push-legacy-flat/fence_enter.json");
    let v3 = first(&push(), &fixture("push-v3/geofence_enter.json"));
    let activity = first(
        &pull(PullApi::V2, Feed::GeofenceActivity),
        &first_row("pull-v2/geofence_activity.response.json"),
    );
    check_same("012e3e38-e045-5a04-8e65-ef095fea7779", &[v3, activity.clone()]);
    check_same("01b4aaeb-ab93-5a49-9b68-5968eebdb9b0", &[first(&push(), &flat)]);
    // The activity knows both keys, so that either push suppresses it.
    let Said::Event { checks, enters, .. } = &activity else { panic!("{activity:?}") };
    let both = ["012e3e38-e045-5a04-8e65-ef095fea7779", "01b4aaeb-ab93-5a49-9b68-5968eebdb9b0"];
    assert_eq!(
        (checks.as_slice(), enters.as_slice()),
        (&both.map(str::to_owned)[..], &both.map(str::to_owned)[..])
    );

    let mut run = Run::new();
    run.directory.learn(&[Pair::Geofence {
        uuid: "99999999-8888-4777-8666-555555550001".to_owned(),
        id: "18000400009".to_owned(),
    }]);
    let said = run.say(&push(), flat.to_string().as_bytes());
    let [Said::Event { event, checks, .. }] = said.as_slice() else { panic!("{said:?}") };
    assert_eq!((event.id.as_str(), checks.as_slice()), (both[0], &both.map(str::to_owned)[..]));
}

#[test]
fn an_inexact_stop_is_known_by_any_version_of_its_record() {
    let exact = first(&pull(PullApi::V2, Feed::Stops), &first_row("pull-v2/stops.response.json"));
    let row = with(first_row("pull-v3/stops.response.json"), json!({ "durationMinutes": 58.5 }));
    let inexact = first(&pull(PullApi::V3, Feed::Stops), &row);
    assert_ne!(exact.id(), inexact.id());
    let (Said::Event { checks: exact_checks, enters, .. }, Said::Event { checks, event, .. }) =
        (&exact, &inexact)
    else {
        panic!("{exact:?} {inexact:?}")
    };
    assert!(checks.iter().any(|id| enters.contains(id)), "the exact stop suppresses it");
    assert!(!exact_checks.iter().any(|id| *id != exact.id()), "and is not suppressed by it");
    assert_eq!(event.record_version, 0);
}

#[test]
fn a_breadcrumb_is_known_by_its_full_fix_and_not_the_other_way_round() {
    let said = events(&push(), &fixture("push-v3/position_documented.json"));
    let [_, Said::Event { event, checks, enters, .. }, _] = said.as_slice() else { panic!("{said:?}") };
    let full = with(
        fixture("push-v3/position_documented.json"),
        json!({ "date": T - 20_000, "batchedPositions": null }),
    );
    let full = first(&push(), &full);
    let Said::Event { event: full_event, checks: full_checks, .. } = &full else { panic!("{full:?}") };
    assert_eq!(event.record_id, full_event.record_id);
    assert!(event.record_version < full_event.record_version);
    assert_eq!(checks, &[event.id.clone(), full.id().to_owned()]);
    assert_eq!(enters, std::slice::from_ref(&event.id));
    assert_eq!(full_checks, &[full.id().to_owned()]);
}

#[test]
fn a_tracker_without_imei_is_known_under_each_of_its_ids() {
    let with_imei = first(&push(), &fixture("push-v3/position_live_like_sparse.json"));
    let mut run = Run::new();
    run.say(&push(), fixture("push-v3/device_update.json").to_string().as_bytes());
    let row = first_row("pull-v3/positions_report_time.response.json").to_string();
    let said = run.say(&pull(PullApi::V3, Feed::Positions), row.as_bytes());
    let [Said::Event { event, checks, enters, .. }] = said.as_slice() else { panic!("{said:?}") };
    assert_eq!(event.id, with_imei.id(), "the directory knows its imei");
    assert_eq!(event.anomalies, Vec::<i32>::new());
    assert_eq!((checks.len(), enters.len()), (3, 3), "imei, id and serial number");
    // The one that came before the directory knew is known again.
    let before =
        first(&pull(PullApi::V3, Feed::Positions), &first_row("pull-v3/positions_report_time.response.json"));
    assert!(checks.contains(&before.id().to_owned()));
}

#[test]
fn two_trackers_that_claim_one_serial_number_have_none() {
    let mut run = Run::new();
    run.body(
        &pull(PullApi::V2, Feed::Locations),
        fixture("pull-v2/locations_current.response.json").to_string().as_bytes(),
    );
    let row = json!({ "trackerId": null, "serialNumber": "SN000017", "trackerName": "Van 17" }).to_string();
    let said = run.say(&pull(PullApi::V3, Feed::Trackers), row.as_bytes());
    let [Said::Event { event, .. }] = said.as_slice() else { panic!("{said:?}") };
    assert_eq!(event.subject, "SN000017");
}

#[test]
fn an_imei_is_learnt_only_from_a_message_that_states_it() {
    let mut run = Run::new();
    let mut say = |second: i64, tracker: Value| {
        let raw = json!({ "date": T + second * 1000, "latitude": 38, "longitude": -90, "tracker": tracker });
        match run.say(&push(), raw.to_string().as_bytes()).remove(0) {
            Said::Event { event, checks, enters, .. } => (event, checks, enters),
            other => panic!("{other:?}"),
        }
    };
    let (_, _, first) = say(0, json!({ "trackerId": 7, "deviceNumber": "1", "deviceSerialNumber": "S" }));
    let (other, checks, _) = say(0, json!({ "trackerId": 8, "deviceSerialNumber": "S" }));
    assert_eq!(other.subject, "8", "the serial number is known as tracker 7's");
    assert!(!checks.iter().any(|id| first.contains(id)), "no fact of one is taken for the other's");
    let (stated, ..) = say(1, json!({ "trackerId": 8, "deviceNumber": "2", "deviceSerialNumber": "S" }));
    let (found, ..) = say(1, json!({ "trackerId": 8 }));
    assert_eq!((found.subject.as_str(), found.id), ("2", stated.id), "one fact, one id");
}

#[test]
fn two_trackers_without_imei_that_share_a_serial_number_have_facts_of_their_own() {
    let mut run = Run::new();
    let mut known: Vec<String> = Vec::new();
    for tracker in [18_000_100_017_i64, 18_000_100_025, 18_000_100_017] {
        let tracker = json!({ "trackerId": tracker, "deviceSerialNumber": "SN000017" });
        let raw = json!({ "date": T, "latitude": 1, "longitude": 2, "tracker": tracker });
        let said = run.say(&push(), raw.to_string().as_bytes());
        let [Said::Event { checks, enters, .. }] = said.as_slice() else { panic!("{said:?}") };
        let is_known = checks.iter().any(|id| known.contains(id));
        assert_eq!(is_known, known.len() == 3, "only the third is one that was");
        known.extend_from_slice(enters);
    }
}

#[test]
fn media_have_one_id_whatever_their_urls() {
    let outside = json!({ "thumbnailOutside": null, "videoOutside": "https://media.example.invalid/other" });
    check_same(
        "71b54dbe-69bc-50d6-bef4-565e3f9de6c1",
        &[
            first(&push(), &with(fixture("push-v3/media.json"), outside.clone())),
            first(
                &pull(PullApi::V2, Feed::Alerts),
                &with(fixture("pull-v2/media.json")["data"].clone(), outside),
            ),
        ],
    );
}

#[test]
fn items_have_the_ids_of_the_contract() {
    check_same(
        "9b77d1fe-a95c-5571-95e9-7389662b2b5e",
        &[first(&push(), &fixture("push-v3/item_location.json"))],
    );
    check_same(
        "3e4ec1f2-afee-5408-823b-3b4726cd661f",
        &[first(&push(), &fixture("push-v3/item_left_behind.json"))],
    );
}
