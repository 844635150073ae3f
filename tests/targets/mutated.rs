//! Every sample of the provider's, changed: fields removed, replaced, exchanged and doubled as the bytes say, so that what is
//! nearly right is met far more often than chance would bring it.

use fleetbus::provider::{Feed, PullApi, Source};
use serde_json::{Value, json};

use super::decode::says_the_same_twice;

/// The most changes of one sample.
const CHANGES: usize = 12;

macro_rules! samples {
    ($($way:expr => $($path:literal)+;)+) => {
        &[$($(($way, include_str!(concat!("../fixtures/linxup/", $path)))),+),+]
    };
}

/// How a sample came.
#[derive(Clone, Copy)]
enum Way {
    Pushed,
    Pulled(PullApi, Feed),
}

use Way::{Pulled, Pushed};

const SAMPLES: &[(Way, &str)] = samples! {
    Pushed =>
        "push-legacy-flat/alert_geofence_entered.json" "push-legacy-flat/alert_high_speed.json"
        "push-legacy-flat/alert_unknown_code.json" "push-legacy-flat/device_update_no_pushtype.json"
        "push-legacy-flat/fence_enter.json" "push-legacy-flat/fence_exit.json"
        "push-legacy-flat/position_asset_tracker_battery_pair.json" "push-legacy-flat/position_harsh_brake.json"
        "push-legacy-flat/position_moving.json" "push-legacy-flat/position_stopped_nulls.json"
        "push-legacy-flat/stop_engine_off.json" "push-legacy-flat/stop_idling.json" "push-legacy-flat/trip.json"
        "push-legacy-flat/usage_hours.json"
        "push-v3/alert_sample_names.json" "push-v3/alert_sensor_with_media.json"
        "push-v3/alert_tamper_prose_names.json" "push-v3/batch_array_hypothetical.json" "push-v3/device_status.json"
        "push-v3/device_status_inactivate.json" "push-v3/device_update.json" "push-v3/geofence_change.json"
        "push-v3/geofence_change_delete.json" "push-v3/geofence_enter.json" "push-v3/geofence_enter_by_name.json"
        "push-v3/geofence_exit.json" "push-v3/item_left_behind.json" "push-v3/item_location.json"
        "push-v3/item_untagged_tracker.json" "push-v3/media.json" "push-v3/media_three_views.json"
        "push-v3/messages_envelope.json" "push-v3/position_documented.json" "push-v3/position_live_like_sparse.json"
        "push-v3/position_odd_values.json" "push-v3/position_parked_heartbeat.json"
        "push-v3/position_pull_field_names_variant.json" "push-v3/position_strings_for_numbers.json"
        "push-v3/position_without_fix.json" "push-v3/position_without_imei.json" "push-v3/stop.json"
        "push-v3/trip.json" "push-v3/usage_hours.json" "push-v3/usage_hours_prose_names.json";
    Pulled(PullApi::V2, Feed::Locations) =>
        "pull-v2/locations_current.response.json" "pull-v2/locations_offline.response.json";
    Pulled(PullApi::V2, Feed::History) => "pull-v2/locations_history.response.json";
    Pulled(PullApi::V2, Feed::Trips) => "pull-v2/trips.response.json" "pull-v2/trips_open.response.json";
    Pulled(PullApi::V2, Feed::Stops) => "pull-v2/stops.response.json";
    Pulled(PullApi::V2, Feed::Alerts) => "pull-v2/alerts.response.json" "pull-v2/alerts_media.response.json";
    Pulled(PullApi::V2, Feed::UsageHours) => "pull-v2/usagehours.response.json";
    Pulled(PullApi::V2, Feed::GeofenceActivity) => "pull-v2/geofence_activity.response.json";
    Pulled(PullApi::V2, Feed::Trackers) => "pull-v2/tracker_list.response.json";
    Pulled(PullApi::V2, Feed::Geofences) =>
        "pull-v2/geofences.response.json" "pull-v2/geofences_inactive.response.json";
    Pulled(PullApi::V3, Feed::Positions) =>
        "pull-v3/positions_current.response.json" "pull-v3/positions_report_time.response.json";
    Pulled(PullApi::V3, Feed::Stops) => "pull-v3/stops.response.json" "pull-v3/stops_inexact.response.json";
    Pulled(PullApi::V3, Feed::Trackers) => "pull-v3/trackers.response.json";
    Pulled(PullApi::V3, Feed::Trips) => "pull-v3/trips.response.json";
};

/// The first byte chooses the sample, each four that follow a change.
pub(crate) fn mutated(bytes: &[u8]) {
    let Some((first, changes)) = bytes.split_first() else { return };
    let (way, text) = SAMPLES[usize::from(*first) % SAMPLES.len()];
    let mut value: Value = serde_json::from_str(text).expect("a sample is JSON");
    for change in changes.chunks_exact(4).take(CHANGES) {
        let place = u16::from_be_bytes([change[0], change[1]]);
        apply(&mut value, usize::from(place), change[2], change[3]);
    }
    let source = match way {
        Pushed => Source::Push { hint: None },
        Pulled(api, feed) => Source::Pull { api, feed },
    };
    says_the_same_twice(&source, value.to_string().as_bytes());
}

fn apply(value: &mut Value, place: usize, what: u8, with: u8) {
    let mut places = Vec::new();
    collect(value, String::new(), &mut places);
    let Some(path) = places.get(place % places.len().max(1)).cloned() else { return };
    match what % 6 {
        0 => remove(value, &path),
        1 | 2 => set(value, &path, odd(with)),
        3 => {
            // What stands elsewhere: another field's value, of the wrong type or the wrong object.
            let from = &places[usize::from(with) * 7 % places.len()];
            let other = value.pointer(from).cloned().unwrap_or_default();
            set(value, &path, other);
        }
        4 => {
            if let Some(Value::Array(list)) = value.pointer_mut(&path)
                && let Some(first) = list.first().cloned()
            {
                list.push(first);
            }
        }
        _ => nudge(value, &path, with),
    }
}

/// The pointers of everything within a value.
fn collect(value: &Value, path: String, places: &mut Vec<String>) {
    let below: Vec<(String, &Value)> = match value {
        Value::Object(members) => {
            members.iter().map(|(key, value)| (key.replace('~', "~0").replace('/', "~1"), value)).collect()
        }
        Value::Array(list) => list.iter().enumerate().map(|(at, value)| (at.to_string(), value)).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    };
    for (key, value) in below {
        let path = format!("{path}/{key}");
        places.push(path.clone());
        collect(value, path, places);
    }
}

fn set(value: &mut Value, path: &str, new: Value) {
    if let Some(there) = value.pointer_mut(path) {
        *there = new;
    }
}

fn remove(value: &mut Value, path: &str) {
    let Some((parent, key)) = path.rsplit_once('/') else { return };
    if let Some(Value::Object(members)) = value.pointer_mut(parent) {
        members.remove(&key.replace("~1", "/").replace("~0", "~"));
    }
}

/// A number a little or far away from the one that is there; a text with a character more.
fn nudge(value: &mut Value, path: &str, with: u8) {
    let by = (i64::from(with) - 128).saturating_mul(1_i64 << (with % 40));
    match value.pointer_mut(path) {
        Some(Value::String(text)) => text.push(char::from(with)),
        Some(number @ Value::Number(_)) => {
            *number = number.as_i64().map_or(Value::Null, |number| json!(number.saturating_add(by)));
        }
        Some(_) | None => {}
    }
}

fn odd(with: u8) -> Value {
    match with % 16 {
        0 => Value::Null,
        1 => json!(""),
        2 => json!("\u{0}\u{1f}\r\n"),
        3 => json!(true),
        4 => json!(-1),
        5 => json!(1.5e300),
        6 => json!(u64::MAX),
        7 => json!([]),
        8 => json!({}),
        9 => json!([null, {}, [[]]]),
        10 => json!("a.b*>c /{}%"),
        11 => json!("2025-12-29T12:00:00Z"),
        12 => json!(i64::MIN),
        13 => json!("1767009600000"),
        14 => json!("é\u{202e}\u{feff}"),
        _ => json!(f64::from(with) * -1e-7),
    }
}
