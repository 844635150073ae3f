//! Whatever is sent: it is decoded or refused, never a panic; and an id rests on its keys alone.

use std::fmt::Write as _;

use fleetbus::event::Millis;
use fleetbus::provider::{Feed, PullApi, Source, documents, pulled_rows, split};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::{RECEIVED, Run, Said, fixture, push};

/// Names that some reader takes, so that random values reach it.
const NAMES: [&str; 48] = [
    "pushType",
    "date",
    "positionDate",
    "latitude",
    "longitude",
    "tracker",
    "deviceNumber",
    "imei",
    "trackerId",
    "id",
    "alertCode",
    "alertDateTime",
    "alertDesc",
    "eventType",
    "enterDateTime",
    "exitDateTime",
    "geofence",
    "geofenceId",
    "geofenceUUID",
    "action",
    "points",
    "radius",
    "type",
    "startDateTime",
    "endDateTime",
    "durationMinutes",
    "distanceMiles",
    "stopType",
    "batchedPositions",
    "sensorData",
    "battery",
    "fuelLevel",
    "heading",
    "direction",
    "speed",
    "engineHours",
    "status",
    "customData",
    "address",
    "trackedItem",
    "toolTracker",
    "timestamp",
    "leftBehindTimestamp",
    "mediaId",
    "videoInside",
    "statusChangeType",
    "fleetIds",
    "stopDateTime",
];

fn scalar() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("0".to_owned()),
        Just("1e999".to_owned()),
        Just("-0.0".to_owned()),
        Just("1767009600000".to_owned()),
        Just("123456789012345678901234567890".to_owned()),
        Just(r#""\ud800\u0000""#.to_owned()),
        Just(r#""FENCE_ENTER""#.to_owned()),
        Just(r#""POSITION""#.to_owned()),
        Just(r#""1,2,3,4;5,6,7;x""#.to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>()
            .prop_filter("json", |number| number.is_finite())
            .prop_map(|number| format!("{number:e}")),
        any::<String>().prop_map(|text| Value::from(text).to_string()),
    ]
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => prop::sample::select(NAMES.to_vec()).prop_map(|name| Value::from(name).to_string()),
        1 => any::<String>().prop_map(|text| Value::from(text).to_string()),
    ]
}

/// JSON text, with what no value of `serde_json` can hold.
fn document() -> impl Strategy<Value = String> {
    scalar().prop_recursive(5, 64, 12, |inner| {
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..6).prop_map(|values| format!("[{}]", values.join(","))),
            3 => prop::collection::vec((name(), inner), 0..12).prop_map(|members| {
                let mut text = String::from("{");
                for (index, (key, value)) in members.iter().enumerate() {
                    let comma = if index > 0 { "," } else { "" };
                    write!(text, "{comma}{key} : {value}").expect("a string takes all");
                }
                text + "}"
            }),
        ]
    })
}

fn sources() -> Vec<Source> {
    let pulls = [PullApi::V2, PullApi::V3]
        .into_iter()
        .flat_map(|api| Feed::ALL.map(|feed| Source::Pull { api, feed }));
    let hints = [None, Some("position".to_owned()), Some("trip".to_owned())];
    hints.into_iter().map(|hint| Source::Push { hint }).chain(pulls).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_json_is_decoded_or_refused(document in document()) {
        prop_assert!(split(document.as_bytes()).is_ok());
        for source in sources() {
            for said in Run::new().say(&source, document.as_bytes()) {
                said.to_value();
                if let Said::Event { event, .. } = said {
                    prop_assert!(!event.subject.is_empty());
                    prop_assert!(!event.subject.contains(char::is_control));
                }
            }
        }
    }

    #[test]
    fn any_bytes_are_split_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), json in "[\\[\\]{}\":, 0-9a-z\\\\]{0,60}") {
        for bytes in [bytes.as_slice(), json.as_bytes()] {
            let _ = split(bytes);
            let _ = documents(bytes);
            let _ = pulled_rows(PullApi::V2, Feed::Trips, bytes);
            Run::new().say(&push(), bytes);
        }
    }

    #[test]
    fn an_id_rests_on_its_keys_alone(
        order in Just((0..25_usize).collect::<Vec<_>>()).prop_shuffle(),
        received in 1_000_000_000_000_i64..4_000_000_000_000,
        unknown in scalar(),
        path in prop::sample::select(vec![
            "push-v3/position_documented.json",
            "push-v3/trip.json",
            "push-v3/geofence_enter.json",
            "push-legacy-flat/alert_high_speed.json",
            "push-legacy-flat/fence_enter.json",
        ]),
    ) {
        let raw = fixture(path);
        let expected = Run::new().say(&push(), raw.to_string().as_bytes());
        let members: Vec<String> =
            raw.as_object().expect("an object").iter().map(|(key, value)| format!("{}:{value}", json!(key))).collect();
        let mut shuffled: Vec<String> = order.iter().filter_map(|at| members.get(*at).cloned()).collect();
        shuffled.extend(members.into_iter().skip(order.len()));
        shuffled.push(format!("\"unknown\":{unknown}"));
        let mut run = Run::new();
        run.received_at = Millis(received);
        let said = run.say(&push(), format!("{{{}}}", shuffled.join(",")).as_bytes());
        prop_assert_eq!(said.iter().map(Said::id).collect::<Vec<_>>(), expected.iter().map(Said::id).collect::<Vec<_>>());
        prop_assert_ne!(received, RECEIVED.0);
    }
}
