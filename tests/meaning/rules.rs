//! Single rules of the contract that no fixture shows, one small table each.

use fleetbus::event::Millis;
use fleetbus::provider::{Feed, Hint, Outcome, PullApi, Source};
use serde_json::{Value, json};

use crate::support::{RECEIVED, Run, Said, T, event, events, first_row, fixture, pull, push, with, without};

/// Whether a payload makes events, is skipped, or is refused.
fn outcome(source: &Source, raw: &Value) -> &'static str {
    match Run::new().decode(source, raw.to_string().as_bytes()).outcome {
        Outcome::Events(_) => "events",
        Outcome::Skipped { .. } => "skipped",
        Outcome::Unrecognized(_) => "unrecognized",
        Outcome::Undecodable(_) => "undecodable",
    }
}

#[test]
fn what_identity_needs_must_be_there_and_readable() {
    let odd = [Value::Null, json!(0), json!(""), json!("soon"), json!([]), json!(-1), json!(1e300)];
    for (path, key) in [
        ("push-legacy-flat/position_moving.json", "date"),
        ("push-legacy-flat/trip.json", "startDateTime"),
        ("push-legacy-flat/trip.json", "endDateTime"),
        ("push-legacy-flat/stop_engine_off.json", "startDateTime"),
        ("push-legacy-flat/usage_hours.json", "endDateTime"),
        ("push-legacy-flat/alert_high_speed.json", "alertDateTime"),
        ("push-legacy-flat/fence_enter.json", "date"),
        ("push-v3/position_documented.json", "date"),
        ("push-v3/trip.json", "startDateTime"),
        ("push-v3/trip.json", "endDateTime"),
        ("push-v3/stop.json", "endDateTime"),
        ("push-v3/usage_hours.json", "endDate"),
        ("push-v3/alert_sample_names.json", "alertDateTime"),
        ("push-v3/geofence_enter.json", "enterDateTime"),
        ("push-v3/geofence_exit.json", "exitDateTime"),
        ("push-v3/item_location.json", "timestamp"),
    ] {
        for value in &odd {
            let raw = with(fixture(path), json!({ key: value }));
            assert_eq!(outcome(&push(), &raw), "undecodable", "{path} {key} {value}");
        }
    }
    for (path, feed, key) in [
        ("pull-v2/locations_current.response.json", Feed::Locations, "date"),
        ("pull-v2/locations_history.response.json", Feed::History, "date"),
        ("pull-v2/trips.response.json", Feed::Trips, "startDateTime"),
        ("pull-v2/trips.response.json", Feed::Trips, "endDateTime"),
        ("pull-v2/stops.response.json", Feed::Stops, "beginDate"),
        ("pull-v2/stops.response.json", Feed::Stops, "endDate"),
        ("pull-v2/usagehours.response.json", Feed::UsageHours, "endDateTime"),
        ("pull-v2/alerts.response.json", Feed::Alerts, "alertDateTime"),
        ("pull-v2/alerts.response.json", Feed::Alerts, "alertCode"),
    ] {
        for value in odd.iter().filter(|value| key != "alertCode" || value.is_null()) {
            let raw = with(first_row(path), json!({ key: value }));
            assert_eq!(outcome(&pull(PullApi::V2, feed), &raw), "skipped", "{path} {key} {value}");
        }
    }
}

#[test]
fn without_any_id_there_is_no_event() {
    let anonymous = |path: &str| {
        with(fixture(path), json!({ "tracker": { "name": "Van 17", "deviceNumber": " \u{0}" } }))
    };
    assert_eq!(outcome(&push(), &anonymous("push-v3/position_documented.json")), "undecodable");
    assert_eq!(outcome(&push(), &anonymous("push-v3/item_location.json")), "undecodable");
    assert_eq!(outcome(&push(), &anonymous("push-v3/device_update.json")), "undecodable");
    let ids = ["deviceNumber", "deviceSerialNumber", "deviceUUID"];
    assert_eq!(outcome(&push(), &without(fixture("push-legacy-flat/trip.json"), &ids)), "undecodable");
    let row = without(first_row("pull-v2/alerts.response.json"), &ids);
    assert_eq!(outcome(&pull(PullApi::V2, Feed::Alerts), &row), "skipped");
    assert_eq!(
        outcome(&push(), &without(fixture("push-legacy-flat/fence_enter.json"), &["geofenceUUID"])),
        "undecodable"
    );
    let nowhere = with(fixture("push-v3/geofence_enter.json"), json!({ "geofence": null }));
    assert_eq!(outcome(&push(), &nowhere), "undecodable");
}

/// Else all trackers that have none would be one, and the facts of the second be taken for those of the first.
#[test]
fn a_word_or_a_zero_in_the_place_of_an_id_is_none() {
    let of = |imei: Value, id: Value| {
        let changes =
            json!({ "deviceNumber": imei, "driverId": id, "deviceUUID": null, "deviceSerialNumber": "SN17" });
        let event = event(&push(), &with(fixture("push-legacy-flat/position_moving.json"), changes));
        (event["subject"].clone(), event["anomalies"].to_string().contains("SUBJECT_FALLBACK"))
    };
    for none in [json!("N/A"), json!("None"), json!("-"), json!("unknown"), json!(0), json!("000000")] {
        assert_eq!(of(none.clone(), json!(17)), (json!("17"), true), "{none}");
        assert_eq!(of(none.clone(), json!(0)), (json!("SN17"), true), "{none}");
    }
    assert_eq!(of(json!("350000000000017"), json!(0)), (json!("350000000000017"), false));
}

#[test]
fn a_name_of_the_format_s_own_comes_before_another_s() {
    let behaviors = json!({ "behaviorCd": "HBR", "behaviorCode": "HAC", "behaviourCode": "HAC" });
    let behavior = |source: &Source, path: &str| {
        event(source, &with(fixture(path), behaviors.clone()))["position"]["behavior"].clone()
    };
    assert_eq!(behavior(&push(), "push-legacy-flat/position_moving.json"), "BEHAVIOR_HARSH_BRAKING");
    assert_eq!(behavior(&push(), "push-v3/position_documented.json"), "BEHAVIOR_RAPID_ACCELERATION");
    let texts = json!({ "alertDesc": "one", "alertDescription": "other" });
    let description =
        |path: &str| event(&push(), &with(fixture(path), texts.clone()))["alert"]["description"].clone();
    assert_eq!(description("push-legacy-flat/alert_high_speed.json"), "one");
    assert_eq!(description("push-v3/alert_sample_names.json"), "other");
}

#[test]
fn a_tracker_s_row_has_its_id_under_either_name() {
    for name in ["trackerId", "id"] {
        let row = json!({ name: 18_000_100_017_i64, "serialNumber": "SN17", "statusCode": "ACT" });
        let event = event(&pull(PullApi::V3, Feed::Trackers), &row);
        assert_eq!(
            (&event["subject"], &event["tracker"]["id"]),
            (&json!("18000100017"), &json!("18000100017"))
        );
        assert_eq!(event["providerFields"], Value::Null);
    }
}

#[test]
fn a_second_name_that_cannot_be_read_is_said() {
    let changes = json!({ "firstName": "Van 17", "lastName": null, "personName": { "a": 1 } });
    let event = event(&push(), &with(fixture("push-legacy-flat/position_moving.json"), changes));
    assert_eq!(event["vehicle"]["name"], "Van 17");
    assert_eq!(event["providerFields"]["personName"], json!({ "a": 1.0 }));
    assert!(event["anomalies"].to_string().contains("UNREADABLE_FIELD"), "{event}");
}

#[test]
fn what_may_still_grow_is_skipped() {
    let minute = 60_000;
    for (ended_ago, expected) in
        [(0, "skipped"), (10 * minute, "skipped"), (10 * minute + 1, "events"), (-minute, "skipped")]
    {
        let row =
            with(first_row("pull-v2/trips.response.json"), json!({ "endDateTime": RECEIVED.0 - ended_ago }));
        assert_eq!(outcome(&pull(PullApi::V2, Feed::Trips), &row), expected, "{ended_ago}");
        let pushed = with(fixture("push-v3/trip.json"), json!({ "endDateTime": RECEIVED.0 - ended_ago }));
        assert_eq!(outcome(&push(), &pushed), "events", "a push is final");
    }
}

#[test]
fn v3_trips_and_alerts_are_refused_and_foreign_rows_too() {
    let row =
        with(first_row("pull-v3/trips.response.json"), json!({ "startDateTime": T, "endDateTime": T + 1 }));
    assert_eq!(outcome(&pull(PullApi::V3, Feed::Trips), &row), "undecodable");
    assert_eq!(outcome(&pull(PullApi::V3, Feed::Alerts), &json!({ "alertId": 1 })), "undecodable");
    let row = first_row("pull-v2/advanced_trips.response.json");
    assert_eq!(outcome(&pull(PullApi::V2, Feed::Trips), &row), "undecodable");
    let stop = json!({ "id": 1, "stopType": "Idling", "deviceNbr": "350000000000017", "driverName": "Van 17", "beginDate": T, "endDate": T + 1 });
    assert_eq!(outcome(&pull(PullApi::V2, Feed::Stops), &stop), "undecodable");
    assert_eq!(outcome(&pull(PullApi::V2, Feed::Stops), &json!([1])), "unrecognized");
    // A new field of that name on a row of our own makes it no foreign one.
    let row = with(first_row("pull-v2/stops.response.json"), json!({ "label": "new", "imei": null }));
    assert_eq!(outcome(&pull(PullApi::V2, Feed::Stops), &row), "events");
    for (api, feed, row) in [
        (PullApi::V3, Feed::Trackers, json!({ "trackerId": 5, "trackerName": "Van", "label": "new" })),
        (
            PullApi::V3,
            Feed::Trackers,
            json!({ "serialNumber": "S", "trackerName": "Van", "deviceNbr": "350000000000017" }),
        ),
        (PullApi::V2, Feed::Alerts, json!({ "mediaId": 5, "videoInside": "u", "label": "new" })),
        (PullApi::V2, Feed::Geofences, json!({ "agilisGeofenceId": 5, "name": "Yard", "label": "new" })),
    ] {
        assert_eq!(outcome(&pull(api, feed), &row), "events", "{row}");
    }
}

#[test]
fn a_hint_costs_no_message() {
    let hinted = |hint: &str, raw: &Value| {
        Run::new().decode(&Source::Push { hint: Some(hint.to_owned()) }, raw.to_string().as_bytes())
    };
    let stop_like = json!({ "startDate": T, "endDate": T + 60_000, "engineOn": true, "stopType": null, "tracker": { "deviceNumber": "35" } });
    let trip_like = json!({ "startDateTime": T, "endDate": T + 60_000, "tracker": { "deviceNumber": "35" } });
    let left = json!({ "timestamp": T, "leftBehindTimestamp": T, "trackedItem": { "itemId": 1 } });
    let alert = with(fixture("push-v3/alert_sample_names.json"), json!({ "date": null }));
    for (hint, raw) in [
        ("stop", stop_like),
        ("trip", trip_like),
        ("trip", fixture("push-v3/usage_hours_prose_names.json")),
        ("item-location", left),
        ("position", alert),
        ("position", with(fixture("push-v3/stop.json"), json!({ "date": 0 }))),
    ] {
        let plain = Run::new().decode(&push(), raw.to_string().as_bytes());
        assert!(matches!(plain.outcome, Outcome::Events(_)), "{raw}");
        let decoded = hinted(hint, &raw);
        assert_eq!((decoded.outcome, decoded.hint), (plain.outcome, Hint::Contradicts), "{hint} {raw}");
    }
    // Where it is of no kind as a whole, what the hint says stands.
    let seen_by_nobody = hinted("item-location", &json!({ "timestamp": T, "trackedItem": { "itemId": 1 } }));
    assert!(matches!(seen_by_nobody.outcome, Outcome::Undecodable(_)));
    assert_eq!(seen_by_nobody.hint, Hint::Fits);
}

#[test]
fn an_empty_slot_makes_no_media_of_an_alert() {
    let alerts = pull(PullApi::V2, Feed::Alerts);
    for slot in [Value::Null, json!("")] {
        let changes = json!({ "alertCode": null, "videoInside": slot });
        let row = with(first_row("pull-v2/alerts_media.response.json"), changes);
        let outcome = Run::new().decode(&alerts, row.to_string().as_bytes()).outcome;
        assert_eq!(outcome, Outcome::Skipped { reason: "no alert code".into(), drafts: Vec::new() });
        let media = event(&alerts, &json!({ "mediaId": 5, "videoInside": slot }));
        assert_eq!(media["media"]["id"], "5");
    }
}

#[test]
fn motion_is_told_by_the_word_or_by_engine_and_speed() {
    let flat = |state: Value, engine: Value, speed: Value| {
        let changes = json!({ "currentState": state, "engineOn": engine, "speed": speed });
        event(&push(), &with(fixture("push-legacy-flat/position_moving.json"), changes))["position"]["motion"]
            .clone()
    };
    for (state, engine, speed, expected) in [
        (json!("Moving"), json!(false), json!(0), json!("MOTION_MOVING")),
        (json!("STOPPED"), json!(true), json!(0), json!("MOTION_IDLING")),
        (json!("STOPPED"), json!(false), json!(0), json!("MOTION_STOPPED")),
        (json!("STOPPED"), Value::Null, json!(0), json!("MOTION_STOPPED")),
        (Value::Null, json!(true), json!(0), json!("MOTION_IDLING")),
        (Value::Null, json!(false), json!(5), json!("MOTION_STOPPED")),
        (Value::Null, json!(true), json!(5), json!("MOTION_MOVING")),
        (Value::Null, Value::Null, json!(5), json!("MOTION_MOVING")),
        (Value::Null, Value::Null, json!(0), Value::Null),
        (json!("Hovering"), Value::Null, Value::Null, Value::Null),
    ] {
        assert_eq!(flat(state.clone(), engine, speed), expected, "{state}");
    }
    let v2 = |status: &str| {
        let row = with(
            first_row("pull-v2/locations_current.response.json"),
            json!({ "status": status, "speed": 0 }),
        );
        event(&pull(PullApi::V2, Feed::Locations), &row)["position"]["motion"].clone()
    };
    assert_eq!(
        ["Idle", "Stopped", "Not Active", "Offline - No Gps"].map(v2),
        [json!("MOTION_IDLING"), json!("MOTION_STOPPED"), Value::Null, json!("MOTION_OFFLINE")]
    );
}

#[test]
fn headings_are_degrees_and_none_is_absence() {
    let heading = |word: Value, degrees: Value| {
        let changes = json!({ "heading": word, "direction": degrees });
        let event = event(&push(), &with(fixture("push-v3/position_live_like_sparse.json"), changes));
        (event["position"]["headingDegrees"].clone(), event["providerFields"].clone())
    };
    let nothing = || Value::Null;
    assert_eq!(heading(json!("None"), json!(0)), (nothing(), nothing()));
    assert_eq!(heading(json!("None"), json!(47)), (json!(47.0), nothing()));
    assert_eq!(heading(nothing(), json!(0)), (json!(0.0), nothing()));
    assert_eq!(heading(json!("ne"), nothing()), (json!(45.0), nothing()));
    assert_eq!(heading(json!("N"), json!(350)), (json!(350.0), nothing()));
    assert_eq!(heading(json!("S"), json!(350)), (json!(350.0), json!({ "heading": "S" })));
    assert_eq!(heading(json!("up"), json!(400)), (nothing(), json!({ "heading": "up", "direction": 400.0 })));
    assert_eq!(heading(json!(45), nothing()), (nothing(), json!({ "heading": 45.0 })), "as it came");
}

#[test]
fn places_that_cannot_be_used_are_said_to_be_none() {
    let place = |latitude: Value, longitude: Value| {
        let changes = json!({ "latitude": latitude, "longitude": longitude });
        let event = event(&push(), &with(fixture("push-v3/position_live_like_sparse.json"), changes));
        (event["position"]["place"].clone(), event["anomalies"].clone())
    };
    let no_fix = || (Value::Null, json!(["ANOMALY_NO_FIX"]));
    assert_eq!(place(json!(0), json!("0.0")), no_fix());
    assert_eq!(place(json!(91), json!(0)), no_fix());
    assert_eq!(place(json!(38), Value::Null), no_fix());
    assert_eq!(place(Value::Null, Value::Null), no_fix());
    assert_eq!(
        place(json!("x"), json!(1)),
        (Value::Null, json!(["ANOMALY_NO_FIX", "ANOMALY_UNREADABLE_FIELD"]))
    );
    assert_eq!(place(json!(0), json!(9)), (json!({ "point": { "longitude": 9.0 } }), Value::Null));
    // ProtoJSON leaves out a latitude of 0; the point is there.
    // Elsewhere only where one was given.
    let alert = |changes: Value| {
        event(&push(), &with(fixture("push-v3/alert_sample_names.json"), changes))["anomalies"].clone()
    };
    assert_eq!(alert(json!({ "latitude": null, "longitude": null })), Value::Null);
    assert_eq!(alert(json!({ "latitude": 0, "longitude": 0 })), json!(["ANOMALY_NO_FIX"]));
}

#[test]
fn a_clock_may_be_five_minutes_ahead() {
    let anomalies = |ahead: i64| {
        let raw =
            with(fixture("push-v3/position_live_like_sparse.json"), json!({ "date": RECEIVED.0 + ahead }));
        event(&push(), &raw)["anomalies"].clone()
    };
    assert_eq!(anomalies(300_000), Value::Null);
    assert_eq!(anomalies(300_001), json!(["ANOMALY_CLOCK_AHEAD"]));
}

#[test]
fn two_thousand_breadcrumbs_are_taken_the_newest() {
    let crumbs = |count: i64| {
        let entries: Vec<String> = (1..=count).map(|n| format!("{},38.6,-90.2,1", T - n * 1000)).collect();
        let raw = with(
            fixture("push-v3/position_live_like_sparse.json"),
            json!({ "batchedPositions": entries.join(";") }),
        );
        events(&push(), &raw)
    };
    let said = crumbs(2000);
    assert_eq!((said.len(), said[0].to_value()["event"]["anomalies"].clone()), (2001, Value::Null));
    let said = crumbs(2003);
    assert_eq!(said.len(), 2001);
    assert_eq!(said[0].to_value()["event"]["anomalies"], json!(["ANOMALY_TRUNCATED"]));
    let oldest = said.iter().filter_map(|said| match said {
        Said::Event { event, .. } => event.occur_time.as_ref().map(|time| time.seconds),
        Said::Skipped(_) | Said::Refused(_) => None,
    });
    assert_eq!(oldest.min(), Some(T / 1000 - 2000));
}

/// A small message must not become gigabytes: custom data goes first, then what only describes, and ids last.
#[test]
fn breadcrumbs_repeat_of_their_carrier_what_is_small() {
    let entries: Vec<String> = (1..=3).map(|n| format!("{},38.6,-90.2,1", T - n * 1000)).collect();
    let (short, long) = (json!("Van"), json!("n".repeat(100_000)));
    // The name and the plate as they come, and of a breadcrumb: custom data, name, plate.
    for (note, name, plate, expected) in [
        (&short, &short, &short, [true, true, true]),
        (&long, &short, &short, [false, true, true]),
        (&short, &long, &short, [false, false, true]),
        (&short, &short, &long, [false, false, false]),
    ] {
        let mut raw = fixture("push-v3/position_live_like_sparse.json");
        raw["tracker"]["name"] = name.clone();
        raw["asset"] = json!({ "vin": "1FTVIN", "licensePlate": plate, "customData": { "note": note } });
        raw["fleet"] = json!({ "fleetId": 5, "name": "North", "customData": { "note": note } });
        let said = events(&push(), &with(raw, json!({ "batchedPositions": entries.join(";") })));
        assert_eq!(said.len(), 4);
        let carrier = said[0].to_value()["event"].clone();
        let places = ["/vehicle/customData/note", "/tracker/name", "/vehicle/licensePlate"];
        let came = [note, name, plate];
        assert_eq!(places.map(|place| carrier.pointer(place)), came.map(Some), "the carrier has all of it");
        for crumb in &said[1..] {
            let crumb = crumb.to_value()["event"].clone();
            let found = places.map(|place| crumb.pointer(place).is_some());
            assert_eq!(found, expected, "{crumb}");
            assert_eq!(crumb["tracker"]["imei"], carrier["tracker"]["imei"]);
            let [custom, names, ids] = expected;
            let is_there = |place: &str| crumb.pointer(place).is_some();
            assert_eq!([is_there("/vehicle/vin"), is_there("/fleet/id")], [ids; 2], "{crumb}");
            assert_eq!([is_there("/fleet/name"), is_there("/fleet/customData")], [names, custom], "{crumb}");
        }
    }
}

/// As a position does.
#[test]
fn a_breadcrumb_keeps_a_place_that_is_none() {
    for (entry, kept) in [("91.5,7,3", true), ("0,0,3", false), ("38.6,-90.2,3", false)] {
        let entry = format!("{},{entry}", T - 1000);
        let raw =
            with(fixture("push-v3/position_live_like_sparse.json"), json!({ "batchedPositions": entry }));
        let said = events(&push(), &raw);
        let crumb = said[1].to_value()["event"].clone();
        let expected = if kept { json!(entry) } else { Value::Null };
        assert_eq!(crumb["providerFields"]["batchedPositions"], expected, "{crumb}");
    }
}

#[test]
fn sentinels_are_absence() {
    let row = with(
        first_row("pull-v2/alerts.response.json"),
        json!({ "appDriverId": 0, "appDriverName": "no driver assigned", "fleetName": "Default", "fenceGroup": "No Group", "lastName": "" }),
    );
    let event = event(&pull(PullApi::V2, Feed::Alerts), &row);
    assert_eq!(
        [&event["driver"], &event["fleet"], &event["alert"]["place"], &event["providerFields"]],
        [&Value::Null; 4]
    );
    let raw = with(
        fixture("push-v3/device_update.json"),
        json!({ "fleet": { "name": "Default", "customData": {} } }),
    );
    assert_eq!(crate::support::event(&push(), &raw)["fleet"], Value::Null);
    let raw =
        with(fixture("push-legacy-flat/fence_enter.json"), json!({ "heading": " None ", "direction": 0 }));
    let kept = crate::support::event(&push(), &raw)["providerFields"].clone();
    assert_eq!((&kept["heading"], &kept["direction"]), (&Value::Null, &Value::Null));
    let raw = json!({ "geofenceId": 1, "action": "create", "points": "" });
    assert_eq!(crate::support::event(&push(), &raw)["anomalies"], Value::Null);
}

#[test]
fn sentinels_are_absence_also_where_they_have_no_place() {
    for path in [
        "push-v3/alert_sample_names.json",
        "push-v3/stop.json",
        "push-v3/usage_hours.json",
        "push-legacy-flat/usage_hours.json",
        "push-legacy-flat/trip.json",
    ] {
        let raw = fixture(path);
        let nothing = json!({ "heading": "None", "direction": 0, "fenceGroup": "No Group" });
        assert_eq!(event(&push(), &with(raw.clone(), nothing)), event(&push(), &raw), "{path}");
        let something = json!({ "heading": "NE", "direction": 0, "fenceGroup": "Yards" });
        let kept = event(&push(), &with(raw, something))["providerFields"].clone();
        let kept = [&kept["heading"], &kept["direction"], &kept["fenceGroup"]];
        assert_eq!(kept, [&json!("NE"), &json!(0.0), &json!("Yards")], "{path}");
    }
}

#[test]
fn what_is_said_twice_or_is_empty_is_not_repeated() {
    let said = |changes: Value| {
        let raw = with(fixture("push-v3/position_live_like_sparse.json"), changes);
        event(&push(), &raw)["providerFields"].clone()
    };
    let plain = said(json!({}));
    let beside = json!({ "tracker": { "trackerId": "18000100017", "deviceNumber": "35" }, "trackerId": 18_000_100_017_i64, "deviceNumber": "35", "customData": {} });
    assert_eq!(said(beside), plain);
    let other = said(
        json!({ "tracker": { "trackerId": 5, "deviceNumber": "35" }, "trackerId": 6, "customData": { "a": 1 } }),
    );
    assert_eq!((&other["trackerId"], &other["customData"]), (&json!(6.0), &json!({ "a": 1.0 })));
}

#[test]
fn the_end_of_a_pulled_stop_is_exact_where_a_double_is_not() {
    // 2.01 × 60,000 is 120,599.99… in doubles.
    for (minutes, millis) in [(json!(2.01), 120_600), (json!("4.35"), 261_000), (json!(60), 3_600_000)] {
        let row = json!({ "stopDateTime": T, "durationMinutes": minutes, "tracker": { "deviceNumber": "350000000000017" } });
        let pushed = json!({ "stopType": "OFF", "startDateTime": T, "endDateTime": T + millis, "tracker": { "deviceNumber": "350000000000017" } });
        let pulled = event(&pull(PullApi::V3, Feed::Stops), &row);
        assert_eq!(pulled["id"], event(&push(), &pushed)["id"], "{minutes}");
    }
    // 70,000 years.
    let row = json!({ "stopDateTime": T, "durationMinutes": 4_200_000_000_u64, "tracker": { "deviceNumber": "350000000000017" } });
    assert_eq!(outcome(&pull(PullApi::V3, Feed::Stops), &row), "skipped");
}

#[test]
fn custom_data_belongs_to_its_object() {
    let raw = json!({
        "tracker": { "trackerId": 1, "customData": { "a": 1 } },
        "person": { "id": 2, "customData": { "b": [true, null] } },
        "asset": { "vin": "V", "customData": "odd" },
        "customData": { "c": 3 },
    });
    let event = event(&push(), &raw);
    assert_eq!(event["tracker"]["customData"], json!({ "a": 1.0 }));
    assert_eq!(event["driver"]["customData"], json!({ "b": [true, null] }));
    assert_eq!(
        event["providerFields"],
        json!({ "asset": { "customData": "odd" }, "customData": { "c": 3.0 } })
    );
    assert_eq!(event["anomalies"], json!(["ANOMALY_UNREADABLE_FIELD", "ANOMALY_SUBJECT_FALLBACK"]));
}

#[test]
fn no_control_character_reaches_a_subject_and_no_time_of_receipt_an_id() {
    let raw = r#"{"date":1767009600000,"latitude":1,"longitude":1,"tracker":{"deviceNumber":"35\u00000000000000017\u001f"},"x":"\ud800\u0000"}"#;
    let mut run = Run::new();
    run.received_at = Millis(T);
    let said = run.say(&push(), raw.as_bytes());
    let [Said::Event { event, .. }] = said.as_slice() else { panic!("{said:?}") };
    assert_eq!(event.subject, "350000000000017");
    assert_eq!(event.id, "8a1b7959-ffe7-5f92-b699-bc2107218705");
}

#[test]
fn a_provider_record_id_has_no_control_character() {
    for (path, key) in [
        ("push-v3/trip.json", "tripUUID"),
        ("push-v3/stop.json", "stopUUID"),
        ("push-legacy-flat/alert_high_speed.json", "alertUUID"),
    ] {
        let plain = event(&push(), &with(fixture(path), json!({ key: "ab" })));
        let odd = event(&push(), &with(fixture(path), json!({ key: "a\u{7}b" })));
        assert_eq!(odd, plain, "{path}");
        assert_eq!(odd["providerRecordId"], "ab");
    }
}

#[test]
fn an_empty_field_is_no_mark_of_a_type() {
    let plain = event(&push(), &fixture("push-v3/position_documented.json"));
    for (key, nothing) in [
        ("mediaId", json!("")),
        ("alertCode", json!(" ")),
        ("stopType", json!("")),
        ("pushType", json!("")),
        ("statusChangeType", json!("")),
        ("trackedItem", json!({})),
        ("trackedItem", json!([])),
    ] {
        let raw = with(fixture("push-v3/position_documented.json"), json!({ key: nothing }));
        assert_eq!(event(&push(), &raw)["id"], plain["id"], "{key}");
    }
    let row = with(first_row("pull-v2/trips.response.json"), json!({ "rowType": "" }));
    assert_eq!(outcome(&pull(PullApi::V2, Feed::Trips), &row), "events");
}

#[test]
fn only_the_formatted_twins_of_times_are_dropped() {
    let raw = with(
        fixture("push-v3/position_documented.json"),
        json!({ "formattedDate": "x", "formattedNews": "x", "tracker": { "trackerId": 5, "formattedName": "x" } }),
    );
    let kept = event(&push(), &raw)["providerFields"].clone();
    assert_eq!((&kept["formattedDate"], &kept["formattedNews"]), (&Value::Null, &json!("x")));
    assert_eq!(kept["tracker"], json!({ "formattedName": "x" }));
}

#[test]
fn an_id_beyond_all_measure_is_kept_as_a_field_that_cannot_be_read() {
    let long = "9".repeat(257);
    let raw = with(
        fixture("push-v3/position_documented.json"),
        json!({ "tracker": { "trackerId": 5, "deviceNumber": long, "deviceSerialNumber": long } }),
    );
    let decoded = Run::new().decode(&push(), raw.to_string().as_bytes());
    assert_eq!(decoded.learnt, []);
    let event = event(&push(), &raw);
    assert_eq!(event["subject"], "5");
    assert_eq!(event["anomalies"], json!(["ANOMALY_UNREADABLE_FIELD", "ANOMALY_SUBJECT_FALLBACK"]));
    assert_eq!(event["providerFields"]["tracker"]["deviceNumber"], json!(long));
    let definition = json!({ "geofenceId": long, "action": "create" });
    assert_eq!(outcome(&push(), &definition), "undecodable");
    // Of the word for being offline so much is compared.
    let row = |tail: &str| {
        let status = format!("Offline {}{tail}", "x".repeat(300));
        with(first_row("pull-v2/locations_current.response.json"), json!({ "status": status, "date": null }))
    };
    let mut run = Run::new();
    let ids = ["a", "b"].map(|tail| {
        let said = run.say(&pull(PullApi::V2, Feed::Locations), row(tail).to_string().as_bytes());
        said[1].id().to_owned()
    });
    assert_eq!(ids[0], ids[1]);
}

#[test]
fn a_visit_without_its_beginning_has_still_ended() {
    let row = with(first_row("pull-v2/geofence_activity.response.json"), json!({ "enterDateTime": null }));
    let said = events(&pull(PullApi::V2, Feed::GeofenceActivity), &row);
    let [Said::Skipped(_), exit] = said.as_slice() else { panic!("{said:?}") };
    assert_eq!(exit.id(), "327bbd06-a8aa-5929-b276-f412686212b3");
}
