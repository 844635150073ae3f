//! Every fixture with each of its fields in turn removed, nulled or replaced: nothing panics, and a field that identity does
//! not use never changes an id.

use std::collections::BTreeSet;

use fleetbus::provider::{Feed, PullApi, Source};
use serde_json::{Value, json};

use crate::support::{Run, Said, first_row, fixture, pull, push};

/// Fields that identity uses, in any format; those of a tracker, geofence, item or medium above all.
const KEYS: &[&str] = &[
    "pushType",
    "deviceNumber",
    "deviceUUID",
    "deviceSerialNumber",
    "imei",
    "deviceNbr",
    "date",
    "positionDate",
    "behaviorCd",
    "behaviorCode",
    "startDateTime",
    "endDateTime",
    "startDate",
    "endDate",
    "beginDate",
    "stopDateTime",
    "alertCode",
    "alertDesc",
    "alertDescription",
    "alertDateTime",
    "alertId",
    "mediaId",
    "fenceEventCd",
    "eventType",
    "enterDateTime",
    "exitDateTime",
    "geofenceUUID",
    "geofenceId",
    "fenceId",
    "fenceUUID",
    "geofence",
    "tracker",
    "lastSeenByTracker",
    "timestamp",
    "leftBehindTimestamp",
    "trackedItem",
    "toolTracker",
    "videoInside",
    "videoOutside",
    "videoAux",
    "thumbnailInside",
    "thumbnailOutside",
    "thumbnailAux",
    "latitude",
    "longitude",
    "batchedPositions",
    "stopType",
    "distanceMiles",
    "authorizedMiles",
    "rowType",
    "label",
];

fn payloads() -> Vec<(&'static str, Source, Value)> {
    let pushed = [
        "push-legacy-flat/alert_geofence_entered.json",
        "push-legacy-flat/fence_exit.json",
        "push-legacy-flat/position_moving.json",
        "push-legacy-flat/stop_engine_off.json",
        "push-legacy-flat/trip.json",
        "push-legacy-flat/usage_hours.json",
        "push-v3/alert_sample_names.json",
        "push-v3/geofence_exit.json",
        "push-v3/item_left_behind.json",
        "push-v3/item_location.json",
        "push-v3/media.json",
        "push-v3/position_documented.json",
        "push-v3/stop.json",
        "push-v3/trip.json",
        "push-v3/usage_hours.json",
    ];
    let pulled = [
        ("pull-v2/alerts.response.json", PullApi::V2, Feed::Alerts),
        ("pull-v2/geofence_activity.response.json", PullApi::V2, Feed::GeofenceActivity),
        ("pull-v2/locations_history.response.json", PullApi::V2, Feed::History),
        ("pull-v2/stops.response.json", PullApi::V2, Feed::Stops),
        ("pull-v2/trips.response.json", PullApi::V2, Feed::Trips),
        ("pull-v2/usagehours.response.json", PullApi::V2, Feed::UsageHours),
        ("pull-v3/positions_current.response.json", PullApi::V3, Feed::Positions),
    ];
    let pushed = pushed.into_iter().map(|path| (path, push(), fixture(path)));
    pushed
        .chain(pulled.into_iter().map(|(path, api, feed)| (path, pull(api, feed), first_row(path))))
        .collect()
}

fn odd_values() -> Vec<Value> {
    let deep = (0..60).fold(json!(1), |inner, _| json!([inner]));
    vec![
        Value::Null,
        json!(""),
        json!("odd"),
        json!("\u{0}\u{1f}\u{7f}"),
        json!(true),
        json!(-1),
        json!(1.5),
        json!(1e300),
        json!(u64::MAX),
        json!([]),
        json!([null, {}]),
        json!({}),
        json!({ "a": { "b": [1] } }),
        deep,
    ]
}

fn run(source: &Source, raw: &Value) -> Vec<Said> {
    Run::new().say(source, raw.to_string().as_bytes())
}

fn ids(said: &[Said]) -> BTreeSet<String> {
    let ids = said.iter().filter_map(|said| match said {
        Said::Event { event, .. } => Some(event.id.clone()),
        Said::Skipped(_) | Said::Refused(_) => None,
    });
    ids.collect()
}

#[test]
fn a_field_that_identity_does_not_use_costs_itself_alone() {
    for (path, source, raw) in payloads() {
        let before = ids(&run(&source, &raw));
        assert!(!before.is_empty(), "{path}");
        let keys: Vec<String> = raw.as_object().expect("an object").keys().cloned().collect();
        for key in keys {
            let mut changed: Vec<Value> = odd_values()
                .into_iter()
                .map(|value| {
                    let mut raw = raw.clone();
                    raw[&key] = value;
                    raw
                })
                .collect();
            let mut removed = raw.clone();
            removed.as_object_mut().expect("an object").remove(&key);
            changed.push(removed);
            for changed in changed {
                let after = run(&source, &changed);
                for said in &after {
                    said.to_value();
                }
                if !KEYS.contains(&key.as_str()) {
                    assert_eq!(
                        ids(&after),
                        before,
                        "{path}: {key} is {}",
                        changed.get(&key).unwrap_or(&Value::Null)
                    );
                }
            }
        }
    }
}

#[test]
fn a_field_within_an_object_costs_itself_alone() {
    // With the IMEI and the geofence's id there, nothing else in these objects makes an id.
    let harmless = |object: &str, key: &str| match object {
        "tracker" | "lastSeenByTracker" => key != "deviceNumber",
        "geofence" => !matches!(key, "geofenceId" | "id"),
        "trackedItem" => key != "itemId",
        "toolTracker" | "asset" | "person" | "fleet" | "company" | "address" | "startAddress"
        | "endAddress" => true,
        "startGeofence" | "endGeofence" => true,
        other => panic!("an object that this test does not know: {other}"),
    };
    for (path, source, raw) in payloads() {
        let before = ids(&run(&source, &raw));
        let objects = raw
            .as_object()
            .expect("an object")
            .iter()
            .filter_map(|(name, value)| Some((name, value.as_object()?)));
        for (object, members) in objects {
            for key in members.keys() {
                for value in odd_values() {
                    let mut changed = raw.clone();
                    changed[object][key] = value;
                    let after = run(&source, &changed);
                    for said in &after {
                        said.to_value();
                    }
                    if harmless(object, key) {
                        assert_eq!(ids(&after), before, "{path}: {object}.{key} is {}", changed[object][key]);
                    }
                }
            }
        }
    }
}

#[test]
fn states_bear_any_field() {
    for path in [
        "push-legacy-flat/device_update_no_pushtype.json",
        "push-v3/device_status.json",
        "push-v3/device_update.json",
        "push-v3/geofence_change.json",
    ] {
        let raw = fixture(path);
        for key in raw.as_object().expect("an object").keys() {
            for value in odd_values() {
                let mut changed = raw.clone();
                changed[key] = value;
                for said in run(&push(), &changed) {
                    said.to_value();
                }
            }
        }
    }
}

#[test]
fn what_cannot_be_read_is_kept_and_said() {
    let raw = fixture("push-v3/position_live_like_sparse.json");
    for key in [
        "speed",
        "direction",
        "engineOn",
        "altitude",
        "odometer",
        "battery",
        "fuelLevel",
        "editDate",
        "sensorData",
    ] {
        let mut raw = raw.clone();
        raw[key] = json!({ "odd": 1 });
        let event = run(&push(), &raw)[0].to_value()["event"].clone();
        assert_eq!(event["providerFields"], json!({ key: { "odd": 1.0 } }), "{key}");
        assert_eq!(event["anomalies"], json!(["ANOMALY_UNREADABLE_FIELD"]), "{key}");
    }
}
