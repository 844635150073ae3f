//! What kind of message it is. Flat messages say so; V3 has no field for it, so the shape decides, in the order of the
//! contract; a hint from the URL breaks ties between shapes. What has no known shape is unrecognized, never guessed.

use super::fields::is_nothing;
use crate::provider::draft::Hint;
use crate::provider::{members::Members, tree::Value};

/// The kinds of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Alert,
    Status,
    Crossing,
    LeftBehind,
    Sighting,
    Media,
    Definition,
    Stop,
    Trip,
    Usage,
    Position,
    Update,
}

/// A pushed message's format and kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Flat(Kind),
    Nested(Kind),
    Unknown,
}

/// What a flat update has, and nothing else.
const FLAT_UPDATE: [&str; 16] = [
    "pushType",
    "deviceNumber",
    "deviceSerialNumber",
    "deviceUUID",
    "deviceTypeDescription",
    "driverNumber",
    "firstName",
    "lastName",
    "fleetName",
    "vin",
    "make",
    "model",
    "year",
    "customerUUID",
    "fenceName",
    "geofenceUUID",
];

/// What an update of V3 has, and nothing else.
const NESTED_UPDATE: [&str; 6] = ["tracker", "person", "company", "fleet", "asset", "customData"];

/// The keys of the miles of a trip.
pub(super) const MILES: [&str; 7] = [
    "distanceMiles",
    "distanceMilesDetailed",
    "authorizedMiles",
    "authorizedMilesDetailed",
    "authorized Miles",
    "unauthorizedMiles",
    "unauthorizedMilesDetailed",
];

/// The keys of the time of a fix.
const FIX_TIMES: [&str; 3] = ["date", "positionDate", "reportDateTime"];

/// The shape of a pushed message, and whether the hint fits it.
pub(super) fn classify(members: &Members, hint: Option<&str>) -> (Shape, Hint) {
    let hinted = hint.and_then(kinds_of_hint);
    let shape = shape(members, hinted.unwrap_or_default());
    let fits = match (shape, hinted) {
        (_, None) | (Shape::Unknown, Some(_)) => Hint::None,
        (Shape::Flat(kind) | Shape::Nested(kind), Some(kinds)) if kinds.contains(&kind) => Hint::Fits,
        (Shape::Flat(_) | Shape::Nested(_), Some(_)) => Hint::Contradicts,
    };
    (shape, fits)
}

fn shape(members: &Members, hinted: &[Kind]) -> Shape {
    if has(members, "pushType") {
        return flat(members).map_or(Shape::Unknown, Shape::Flat);
    }
    let kinds = nested(members);
    let by_hint = if kinds.contains(&Kind::Usage) || (kinds.is_empty() && has_miles(members)) {
        like_usage(members).collect()
    } else {
        Vec::new()
    };
    let hint_fits = kinds.iter().chain(&by_hint).find(|kind| hinted.contains(kind));
    if let Some(kind) = hint_fits.or(kinds.first()) {
        return Shape::Nested(*kind);
    }
    let only = |keys: &[&str]| members.keys().all(|key| keys.contains(&key));
    if (has(members, "deviceNumber") || has(members, "deviceUUID")) && only(&FLAT_UPDATE) {
        return Shape::Flat(Kind::Update);
    }
    incomplete(members).map_or(Shape::Unknown, Shape::Nested)
}

fn flat(members: &Members) -> Option<Kind> {
    let Some(Value::Text(word)) = members.get("pushType") else { return None };
    let known = [
        ("POSITION", Kind::Position),
        ("FENCE_EVENT", Kind::Crossing),
        ("STOP", Kind::Stop),
        ("USAGE_HOURS", Kind::Usage),
        ("TRIP", Kind::Trip),
        ("ALERT", Kind::Alert),
    ];
    let word = word.trim();
    known.into_iter().find(|(known, _)| word.eq_ignore_ascii_case(known)).map(|(_, kind)| kind)
}

/// Every kind whose rule holds, in the order of the rules.
fn nested(members: &Members) -> Vec<Kind> {
    let has = |key: &str| has(members, key);
    let is_there = |key: &str| members.contains_key(key);
    let start = has("startDate") || has("startDateTime");
    let end = has("endDate") || has("endDateTime");
    let miles = has("distanceMiles") || has("authorizedMiles");
    let fence_event = matches!(members.get("eventType"), Some(Value::Text(word))
        if ["FENCE_ENTER", "FENCE_EXIT"].iter().any(|known| word.trim().eq_ignore_ascii_case(known)));
    // What was left behind names its item as a sighting does, and has no sighting's time.
    let sighting = (has_object(members, "trackedItem") || has_object(members, "toolTracker"))
        && (has("timestamp") || !has("leftBehindTimestamp"));
    // An alert may name its media; with code and time it is the alert, whatever the URL says.
    let alert = has("alertCode") && has("alertDateTime");
    let rules = [
        (Kind::Alert, has("alertId") || has("alertCode")),
        (Kind::Status, has("statusChangeType")),
        (Kind::Crossing, fence_event),
        (Kind::LeftBehind, has("leftBehindTimestamp")),
        (Kind::Sighting, sighting),
        (Kind::Media, has("mediaId") && !alert),
        (Kind::Definition, has("action") && has("geofenceId")),
        (Kind::Stop, has("stopType")),
        (Kind::Trip, miles && has("startDateTime")),
        (Kind::Usage, start && (has("durationMinutes") || end) && !has("stopType") && !has_miles(members)),
        (
            Kind::Position,
            is_there("latitude") && is_there("longitude") && FIX_TIMES.iter().any(|key| has(key)),
        ),
        (Kind::Update, has("tracker") && members.keys().all(|key| NESTED_UPDATE.contains(&key))),
    ];
    rules.into_iter().filter(|(_, holds)| *holds).map(|(kind, _)| kind).collect()
}

/// What looks like usage may be a stop or a trip whose mark is null: ties that only a hint breaks.
fn like_usage(members: &Members) -> impl Iterator<Item = Kind> {
    let has = |key: &str| has(members, key);
    let is_there = |key: &str| members.contains_key(key);
    // Both have these times, and neither has an engine's word.
    let either = has("startDateTime") && has("endDateTime") && !has("engineOn");
    let place = is_there("latitude") && is_there("longitude");
    let stop = (is_there("stopType") || place) && !has_miles(members);
    let trip = MILES.iter().any(|key| is_there(key)) && !is_there("stopType");
    [(Kind::Stop, either && stop), (Kind::Trip, either && trip)]
        .into_iter()
        .filter(|(_, holds)| *holds)
        .map(|(kind, _)| kind)
}

/// Messages of a known kind that lack what their identity needs: worth a better word than "unrecognized".
fn incomplete(members: &Members) -> Option<Kind> {
    let has = |key: &str| has(members, key);
    let is_there = |key: &str| members.contains_key(key);
    let miles = has("distanceMiles") || has("authorizedMiles");
    let empty_fix =
        is_there("latitude") && is_there("longitude") && FIX_TIMES.iter().any(|key| is_there(key));
    if miles && (is_there("startDateTime") || is_there("endDateTime")) {
        Some(Kind::Trip)
    } else if empty_fix || (has("tracker") && has("latitude") && has("longitude")) {
        Some(Kind::Position)
    } else {
        None
    }
}

/// What an asset's session never has, whichever way a trip spells them.
fn has_miles(members: &Members) -> bool {
    MILES.iter().any(|key| has(members, key))
}

/// Whether the field says anything: the provider writes nulls, and perhaps empty strings, where it has nothing to say.
fn has(members: &Members, key: &str) -> bool {
    members.get(key).is_some_and(|value| !is_nothing(value))
}

/// The same of an object: one without members says nothing, nor does an empty list in its place.
fn has_object(members: &Members, key: &str) -> bool {
    let is_empty = match members.get(key) {
        Some(Value::Object(object)) => object.is_empty(),
        Some(Value::List(list)) => list.is_empty(),
        Some(_) | None => false,
    };
    has(members, key) && !is_empty
}

/// The kinds that the last segment of a URL names: the provider's own names, and ours.
fn kinds_of_hint(hint: &str) -> Option<&'static [Kind]> {
    let word: String =
        hint.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    let word = word.strip_suffix("url").unwrap_or(&word);
    let singular =
        word.strip_suffix('s').filter(|_| word != "status" && word != "devicestatus").unwrap_or(word);
    Some(match singular {
        "position" | "location" => &[Kind::Position],
        "stop" => &[Kind::Stop],
        "trip" => &[Kind::Trip],
        "usage" | "usagehour" => &[Kind::Usage],
        "alert" => &[Kind::Alert],
        "fence" | "fenceevent" | "geofence" | "geofenceevent" | "geofencecrossing" => &[Kind::Crossing],
        "geofencechange" | "geofencedefinition" => &[Kind::Definition],
        "devicestatus" | "status" => &[Kind::Status],
        "deviceupdate" | "update" => &[Kind::Update],
        "tracker" | "device" => &[Kind::Status, Kind::Update],
        "media" => &[Kind::Media],
        "item" | "itemtracking" => &[Kind::LeftBehind, Kind::Sighting],
        "itemlocation" | "itemtrackinglocation" | "itemsighting" => &[Kind::Sighting],
        "itemleftbehind" | "leftbehind" => &[Kind::LeftBehind],
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, hint: Option<&str>, expected: (Shape, Hint)) {
        let Some(Value::Object(members)) = Value::parse(json.as_bytes()) else { panic!("{json}") };
        assert_eq!(classify(&members, hint), expected, "{json}");
    }

    #[test]
    fn shapes_are_told_in_the_order_of_the_contract() {
        use Kind::{Alert, Definition, Media, Position, Status, Stop, Trip, Update, Usage};
        for (json, shape) in [
            (r#"{"pushType":"trip","alertCode":"X"}"#, Shape::Flat(Trip)),
            (r#"{"pushType":"DASHCAM"}"#, Shape::Unknown),
            (r#"{"pushType":null,"deviceUUID":"u","firstName":"x"}"#, Shape::Flat(Update)),
            (r#"{"deviceUUID":"u","firstName":"x","new":null}"#, Shape::Unknown),
            (r#"{"alertId":1,"statusChangeType":"X"}"#, Shape::Nested(Alert)),
            (r#"{"alertId":null,"statusChangeType":"X"}"#, Shape::Nested(Status)),
            (r#"{"mediaId":"1","eventType":"OTHER"}"#, Shape::Nested(Media)),
            (r#"{"action":"delete","geofenceId":1}"#, Shape::Nested(Definition)),
            (r#"{"stopType":"OFF","latitude":1,"longitude":1,"date":1}"#, Shape::Nested(Stop)),
            (r#"{"startDateTime":1,"distanceMiles":0,"durationMinutes":1}"#, Shape::Nested(Trip)),
            (r#"{"startDateTime":1,"endDate":2}"#, Shape::Nested(Usage)),
            (r#"{"startDate":1,"durationMinutes":2,"stopType":null}"#, Shape::Nested(Usage)),
            (r#"{"startDate":1}"#, Shape::Unknown),
            (r#"{"startDateTime":1,"endDateTime":2,"unauthorizedMiles":0}"#, Shape::Unknown),
            (r#"{"startDateTime":1,"endDateTime":2,"distanceMilesDetailed":"1"}"#, Shape::Unknown),
            (r#"{"latitude":null,"longitude":null,"reportDateTime":1}"#, Shape::Nested(Position)),
            (r#"{"latitude":null,"longitude":null,"date":null}"#, Shape::Nested(Position)),
            (r#"{"trackedItem":[],"latitude":1,"longitude":1,"date":1}"#, Shape::Nested(Position)),
            (r#"{"latitude":1,"date":1}"#, Shape::Unknown),
            (r#"{"latitude":1,"longitude":1,"date":1,"distanceMiles":3}"#, Shape::Nested(Position)),
            (r#"{"tracker":{},"person":null}"#, Shape::Nested(Update)),
            (r#"{"tracker":{},"new":null}"#, Shape::Unknown),
            (r#"{"tracker":null}"#, Shape::Unknown),
            (r#"{"distanceMiles":3,"endDateTime":1}"#, Shape::Nested(Trip)),
            (
                r#"{"pushType":" ","alertCode":"","alertId":"","statusChangeType":"","leftBehindTimestamp":"","mediaId":"","trackedItem":{},"toolTracker":{},"stopType":"","action":"","geofenceId":"","distanceMiles":"","latitude":1,"longitude":1,"date":1}"#,
                Shape::Nested(Position),
            ),
            ("{}", Shape::Unknown),
        ] {
            check(json, None, (shape, Hint::None));
        }
    }

    #[test]
    fn a_hint_breaks_ties_and_never_overrules() {
        let tie = r#"{"mediaId":1,"latitude":1,"longitude":1,"date":1}"#;
        check(tie, Some("position"), (Shape::Nested(Kind::Position), Hint::Fits));
        check(tie, Some("alerts"), (Shape::Nested(Kind::Media), Hint::Contradicts));
        check(tie, Some("acme"), (Shape::Nested(Kind::Media), Hint::None));
        let markless = r#"{"startDateTime":1,"endDateTime":2,"latitude":1,"longitude":1}"#;
        check(markless, None, (Shape::Nested(Kind::Usage), Hint::None));
        check(markless, Some("stop"), (Shape::Nested(Kind::Stop), Hint::Fits));
        check(markless, Some("trip"), (Shape::Nested(Kind::Usage), Hint::Contradicts));
        let null_miles = r#"{"startDateTime":1,"endDateTime":2,"distanceMiles":null}"#;
        check(null_miles, None, (Shape::Nested(Kind::Usage), Hint::None));
        check(null_miles, Some("trip"), (Shape::Nested(Kind::Trip), Hint::Fits));
        let left = r#"{"leftBehindTimestamp":1,"trackedItem":{"id":1}}"#;
        check(left, Some("item"), (Shape::Nested(Kind::LeftBehind), Hint::Fits));
        check(left, Some("item-sighting"), (Shape::Nested(Kind::LeftBehind), Hint::Contradicts));
        let alert = r#"{"alertCode":"X","alertDateTime":1,"mediaId":5}"#;
        check(alert, Some("media"), (Shape::Nested(Kind::Alert), Hint::Contradicts));
        let odd_miles = r#"{"startDateTime":1,"endDateTime":2,"unauthorizedMiles":0,"distanceMiles":null}"#;
        check(odd_miles, None, (Shape::Unknown, Hint::None));
        check(odd_miles, Some("trips"), (Shape::Nested(Kind::Trip), Hint::Fits));
        check(odd_miles, Some("usage"), (Shape::Unknown, Hint::None));
        check(markless, Some("alert"), (Shape::Nested(Kind::Usage), Hint::Contradicts));
        let miles = r#"{"startDateTime":1,"endDateTime":2,"distanceMiles":3}"#;
        check(miles, Some("usage-hours"), (Shape::Nested(Kind::Trip), Hint::Contradicts));
        check(r#"{"tracker":{},"new":1}"#, Some("device-update"), (Shape::Unknown, Hint::None));
    }

    #[test]
    fn a_hint_makes_nothing_of_what_its_kind_cannot_be() {
        use Kind::{Alert, Stop, Usage};
        for (json, hint, kind) in [
            (r#"{"startDate":1,"endDate":2,"stopType":null}"#, "stop", Usage),
            (r#"{"startDateTime":1,"durationMinutes":1,"stopType":null}"#, "stop", Usage),
            (r#"{"startDateTime":1,"endDateTime":2,"engineOn":true,"stopType":null}"#, "stop", Usage),
            (r#"{"startDateTime":1,"endDate":2,"distanceMiles":null}"#, "trip", Usage),
            (r#"{"startDateTime":1,"endDateTime":2,"engineOn":true,"distanceMiles":null}"#, "trip", Usage),
            (r#"{"stopType":"OFF","latitude":1,"longitude":1,"date":null}"#, "position", Stop),
            (r#"{"alertCode":"X","latitude":1,"longitude":1,"date":null}"#, "position", Alert),
        ] {
            check(json, None, (Shape::Nested(kind), Hint::None));
            check(json, Some(hint), (Shape::Nested(kind), Hint::Contradicts));
        }
    }

    #[test]
    fn a_hint_is_spelt_as_the_provider_spells_it_or_as_we_do() {
        check(r#"{"pushType":"STOP"}"#, Some("stops"), (Shape::Flat(Kind::Stop), Hint::Fits));
        check(
            r#"{"statusChangeType":"ACTIVATE"}"#,
            Some("deviceStatusUrl"),
            (Shape::Nested(Kind::Status), Hint::Fits),
        );
    }
}
