//! The rows of a polled answer, whatever envelope it came in. An answer that says that it failed, or that has no list where
//! one belongs, is an error, so that no cursor moves over it.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::super::tree::{Value, Walk};
use super::classify::MILES;
use super::values::{self, Read};
use crate::event::Millis;
use crate::provider::{Feed, PullApi};

/// Why an answer has no rows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// No bytes, or only blanks.
    #[error("the answer is empty")]
    Empty,
    /// Perhaps cut off, or a page for people.
    #[error("the answer is not json: line {line}, column {column}")]
    NotJson {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// The provider says that it failed.
    #[error("the provider says: {0}")]
    Provider(String),
    /// More than [`MAX_ROWS`].
    #[error("the answer has more than {MAX_ROWS} rows")]
    TooMany,
    /// No list of rows in it.
    #[error("the answer has no list of rows")]
    NoList,
}

/// The most rows of an answer: more than fit into the largest one, where they say anything. What a row takes beside its bytes is not counted.
pub const MAX_ROWS: usize = 500_000;
/// The most of the provider's message that is repeated.
const MAX_MESSAGE: usize = 200;

/// Keys of the times at which what a message or row tells occurred: no kind has another's before its own, and what lasted occurred at
/// its end, where it says one.
const TIMES: [&str; 15] = [
    "alertDateTime",
    "leftBehindTimestamp",
    "timestamp",
    "mediaTimestamp",
    "enterDateTime",
    "exitDateTime",
    "endDateTime",
    "endDate",
    "stopDateTime",
    "beginDate",
    "startDateTime",
    "startDate",
    "date",
    "positionDate",
    "reportDateTime",
];

/// The key of the time of a pushed exit, which tells when it was entered, too.
const EXIT_TIME: &str = "exitDateTime";

/// Keys of rows: an object that has one of them is a row and no envelope, whatever lists it holds.
const ROW_KEYS: [&str; 14] = [
    "imei",
    "deviceNumber",
    "deviceNbr",
    "deviceUUID",
    "deviceSerialNumber",
    "tracker",
    "trackerId",
    "serialNumber",
    "driverId",
    "agilisGeofenceId",
    "geofenceUUID",
    "fenceUUID",
    "fenceId",
    "mediaId",
];

/// The rows of an answer, each the JSON text of one row, slices of `body`.
///
/// V2: `data.<plural>`, else `data` itself, else the bare array, else the first array of objects, else the first array. V3: the
/// bare array, else `content`, `records`, `items` or `data`.
///
/// # Errors
/// See [`AnswerError`].
pub fn pulled_rows(api: PullApi, feed: Feed, body: &[u8]) -> Result<Vec<&str>, AnswerError> {
    let document = document(body)?;
    if document.starts_with('[') {
        return rows_of(document);
    }
    let members = Walk::of(document).members();
    if let Some(message) = failure(&members) {
        return Err(AnswerError::Provider(message));
    }
    let list = match api {
        PullApi::V2 => v2_list(&members, plurals(feed)),
        PullApi::V3 => {
            ["content", "records", "items", "data"].iter().find_map(|key| array(member(&members, key)?))
        }
    };
    rows_of(list.ok_or(AnswerError::NoList)?)
}

fn rows_of(list: &str) -> Result<Vec<&str>, AnswerError> {
    let rows = Walk::of(list).first_elements(MAX_ROWS + 1);
    if rows.len() > MAX_ROWS { Err(AnswerError::TooMany) } else { Ok(rows) }
}

/// When what a message or row tells occurred, as far as its place among others goes. None where it says no time, as a state does not.
#[must_use]
pub fn time_of_row(row: &[u8]) -> Option<Millis> {
    let members = Walk::of(std::str::from_utf8(row).ok()?).members();
    let first = is_exit(&members).then_some(EXIT_TIME);
    first.into_iter().chain(TIMES).find_map(|key| {
        let value = Value::parse(member(&members, key)?.as_bytes())?;
        match values::time(&value) {
            Read::Is(time) => Some(time),
            Read::Absent | Read::Unreadable => None,
        }
    })
}

/// Whether it is a pushed exit: a polled visit is an entry first.
fn is_exit(members: &[(Cow<'_, str>, &str)]) -> bool {
    let word = member(members, "eventType").and_then(|word| Value::parse(word.as_bytes()));
    matches!(word, Some(Value::Text(word)) if word.trim().eq_ignore_ascii_case("FENCE_EXIT"))
}

/// The feed that an answer is from, where its envelope or its rows make that plain.
#[must_use]
pub fn feed_of(api: PullApi, body: &[u8]) -> Option<Feed> {
    let by_rows = || {
        let rows = match pulled_rows(api, Feed::Locations, body) {
            Ok(rows) => rows,
            Err(AnswerError::NoList) => vec![single_row(document(body).ok()?)?],
            Err(
                AnswerError::Empty
                | AnswerError::NotJson { .. }
                | AnswerError::Provider(_)
                | AnswerError::TooMany,
            ) => return None,
        };
        feed_of_rows(api, &rows)
    };
    match feed_of_envelope(body) {
        // `history` has an envelope like that of the current list.
        Some(Feed::Locations) => by_rows().filter(|feed| *feed == Feed::History).or(Some(Feed::Locations)),
        Some(feed) => Some(feed),
        None => by_rows(),
    }
}

/// The one row that an answer without a list is, bare or enveloped: a tracker, or the media of an alert.
#[must_use]
pub fn single_row(answer: &str) -> Option<&str> {
    let members = Walk::of(answer).members();
    // Whatever else an object is: an error that says so in its own way, an envelope that nobody knows.
    match member(&members, "data") {
        Some(data) => is_row(&Walk::of(data).members()).then_some(data),
        None => (is_row(&members) && member(&members, "responseType").is_none()).then_some(answer),
    }
}

/// The key under which an enveloped V2 answer holds its list.
fn feed_of_envelope(body: &[u8]) -> Option<Feed> {
    let members = Walk::of(document(body).ok()?).members();
    let data = member(&members, "data").map(|data| Walk::of(data).members()).unwrap_or_default();
    // A geofence has lists that are called like feeds.
    [data, members]
        .iter()
        .filter(|members| !is_row(members))
        .flatten()
        .map(|(key, value)| (&**key, *value))
        .filter(|(_, value)| value.starts_with('['))
        .find_map(|(key, _)| Feed::ALL.into_iter().find(|feed| plurals(*feed).contains(&key)))
}

/// What the first row says that says anything. One `status` among rows of positions makes them the current list, one `stopDateTime`
/// stops, and miles among rows that look like usage make them trips.
fn feed_of_rows(api: PullApi, rows: &[&str]) -> Option<Feed> {
    let mut said = rows.iter().filter_map(|row| feed_of_row(api, &Walk::of(row).members()));
    let first = said.next()?;
    let better =
        [(Feed::History, Feed::Locations), (Feed::Positions, Feed::Stops), (Feed::UsageHours, Feed::Trips)];
    let better = better.into_iter().find(|(than, _)| *than == first).map(|(_, better)| better);
    Some(better.filter(|better| said.any(|feed| feed == *better)).unwrap_or(first))
}

/// What the fields of a row say about its feed: a row of another feed may have a feed's field without a value.
fn feed_of_row(api: PullApi, members: &[(Cow<'_, str>, &str)]) -> Option<Feed> {
    let is_there = |key: &str| member(members, key).is_some();
    let has = |key: &str| member(members, key).is_some_and(|value| !matches!(value, "null" | "\"\""));
    let rules: &[(Feed, bool)] = match api {
        PullApi::V2 => &[
            (Feed::Alerts, has("alertCode") || has("mediaId")),
            (Feed::Stops, has("stopType") || has("beginDate")),
            // Trips alone have the key, whether it has a value or not: what they are is said by no miles that are null.
            (Feed::Trips, is_there("tripUUID") || MILES.iter().any(|key| has(key))),
            (Feed::GeofenceActivity, has("enterDateTime")),
            (Feed::UsageHours, has("segmentId") || (has("startDateTime") && has("durationMinutes"))),
            // The current list alone has the key, whether it has a word or not.
            (Feed::Locations, is_there("status") && (has("date") || has("imei"))),
            (Feed::History, has("date")),
            (Feed::Geofences, has("geofenceUUID") && (has("points") || has("type"))),
            (Feed::Trackers, has("imei") && has("driverId") && !is_there("date")),
            // A timeline of no feed: its rows are refused as such, whichever feed they are taken for.
            (Feed::Trips, has("rowType")),
        ],
        PullApi::V3 => &[
            (Feed::Alerts, has("alertCode") || has("alertId")),
            (Feed::Stops, has("stopDateTime")),
            (Feed::Trips, has("tripCounter") || has("mileage")),
            (Feed::Positions, has("positionDate") || has("reportDateTime") || has("latitude")),
            (Feed::Trackers, has("trackerName") || has("statusCode")),
        ],
    };
    rules.iter().find(|(_, holds)| *holds).map(|(feed, _)| *feed)
}

fn document(body: &[u8]) -> Result<&str, AnswerError> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    if body.trim_ascii().is_empty() {
        return Err(AnswerError::Empty);
    }
    serde_json::from_slice::<&RawValue>(body).map(RawValue::get).map_err(|problem| AnswerError::NotJson {
        line: problem.line().max(1),
        column: problem.column().max(1),
    })
}

fn v2_list<'a>(members: &[(Cow<'_, str>, &'a str)], plurals: &[&str]) -> Option<&'a str> {
    let listed =
        |members: &[(Cow<'_, str>, &'a str)]| plurals.iter().find_map(|key| array(member(members, key)?));
    if let Some(data) = member(members, "data") {
        if let Some(list) = array(data) {
            return Some(list);
        }
        let inner = Walk::of(data).members();
        if let Some(list) = listed(&inner) {
            return Some(list);
        }
        // A list under the expected key that is null is a failure, even where another list stands beside it.
        let is_null = plurals.iter().any(|key| member(&inner, key).is_some());
        return if is_null || is_row(&inner) { None } else { first_list(&inner) };
    }
    listed(members).or_else(|| if is_row(members) { None } else { first_list(members) })
}

fn is_row(members: &[(Cow<'_, str>, &str)]) -> bool {
    members.iter().any(|(key, _)| ROW_KEYS.contains(&&**key))
}

/// The first list of objects, else the first list: one that is empty, or of words, may stand before the rows. Beside a message to people
/// these are no rows of anything: it says why there are none.
fn first_list<'a>(members: &[(Cow<'_, str>, &'a str)]) -> Option<&'a str> {
    let lists = || members.iter().filter_map(|(_, value)| array(value));
    let of_objects =
        |list: &&str| Walk::of(list).first_elements(1).iter().any(|element| element.starts_with('{'));
    let says = || member(members, "message").is_some_and(|text| text.starts_with('"') && text != "\"\"");
    lists().find(of_objects).or_else(|| if says() { None } else { lists().next() })
}

/// Of two keys of one name the last wins.
fn member<'a>(members: &[(Cow<'_, str>, &'a str)], key: &str) -> Option<&'a str> {
    members.iter().rev().find(|(name, _)| name == key).map(|(_, value)| *value)
}

fn array(value: &str) -> Option<&str> {
    value.starts_with('[').then_some(value)
}

/// What the provider says where it says that it failed, also with status 200.
fn failure(members: &[(Cow<'_, str>, &str)]) -> Option<String> {
    let said = |key: &str| member(members, key).and_then(|text| Value::parse(text.as_bytes()));
    let response_type = match said("responseType") {
        Some(Value::Text(word)) => !word.trim().eq_ignore_ascii_case("success"),
        Some(Value::Null) | None => false,
        Some(_) => true,
    };
    let unsuccessful = match said("success") {
        Some(Value::Bool(success)) => !success,
        Some(Value::Text(word)) => word.trim().eq_ignore_ascii_case("false"),
        Some(_) | None => false,
    };
    let has_errors = ["errors", "error"].iter().any(|key| match said(key) {
        Some(Value::List(list)) => !list.is_empty(),
        Some(Value::Object(object)) => !object.is_empty(),
        Some(Value::Text(text)) => !text.is_empty(),
        Some(Value::Bool(failed)) => failed,
        // How many there are.
        Some(Value::Number(count)) => count != "0",
        Some(Value::Deep(_)) => true,
        Some(Value::Null) | None => false,
    });
    if !(response_type || unsuccessful || has_errors) {
        return None;
    }
    let message = ["error", "errors", "data", "message"]
        .iter()
        .find_map(|key| match said(key)? {
            // Beside the message there may be rows: they are no one's to read in a log.
            Value::Object(data) if *key == "data" => {
                ["message", "error", "errors"].iter().find_map(|key| message_in(data.get(key)?))
            }
            Value::List(_) if *key == "data" => None,
            other => message_in(&other),
        })
        .unwrap_or_else(|| "an error without a message".to_owned());
    Some(message)
}

/// The first text that is meant for people in what describes a failure.
fn message_in(value: &Value) -> Option<String> {
    match value {
        Value::Text(text) if !text.trim().is_empty() => {
            let printable = text.trim().chars().filter(|c| !c.is_control());
            Some(printable.take(MAX_MESSAGE).collect())
        }
        Value::Object(members) => members
            .get("message")
            .and_then(message_in)
            .or_else(|| members.in_order().find_map(|(_, value)| message_in(value))),
        Value::List(values) => values.iter().find_map(message_in),
        Value::Text(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::Deep(_) => None,
    }
}

/// The keys under which V2 holds the rows of a feed; those seen live first.
const fn plurals(feed: Feed) -> &'static [&'static str] {
    match feed {
        Feed::Locations | Feed::History | Feed::Positions => &["locations"],
        Feed::Trips => &["trips"],
        Feed::Stops => &["stops"],
        Feed::Alerts => &["alerts"],
        Feed::UsageHours => &["usageHours", "usagehours"],
        Feed::GeofenceActivity => &["activity", "activities", "geofenceActivity", "geofenceActivities"],
        Feed::Trackers => &["trackers", "tracker"],
        Feed::Geofences => &["geofences"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(api: PullApi, feed: Feed, body: &str, expected: Result<&'static [&'static str], AnswerError>) {
        let rows = pulled_rows(api, feed, body.as_bytes());
        assert_eq!(rows, expected.map(<[&str]>::to_vec), "{body}");
    }

    fn says(message: &str) -> Result<&'static [&'static str], AnswerError> {
        Err(AnswerError::Provider(message.to_owned()))
    }

    #[test]
    fn every_envelope_of_v2_is_opened() {
        use Feed::{GeofenceActivity, Locations, Trips};
        let v2 = |feed, body, expected| check(PullApi::V2, feed, body, expected);
        v2(Trips, r#"{"responseType":"Success","data":{"x":[0],"trips":[1,2]}}"#, Ok(&["1", "2"]));
        v2(Trips, r#"{"responseType":"Success","data":[1]}"#, Ok(&["1"]));
        v2(Trips, "\u{feff}[1]", Ok(&["1"]));
        v2(Trips, r#"{"data":{"n":1,"zeta":[1],"alpha":[2]}}"#, Ok(&["1"]));
        v2(GeofenceActivity, r#"{"whatever":[1]}"#, Ok(&["1"]));
        v2(GeofenceActivity, r#"{"data":{"warnings":[],"notes":["x"],"visits":[{}]}}"#, Ok(&["{}"]));
        v2(GeofenceActivity, r#"{"warnings":[],"visits":[{}]}"#, Ok(&["{}"]));
        v2(GeofenceActivity, r#"{"data":{"warnings":[],"visits":[]}}"#, Ok(&[]));
        v2(Locations, r#"{"data":{"locations":[]}}"#, Ok(&[]));
        v2(Locations, r#"{"imei":"1","sensorData":[]}"#, Err(AnswerError::NoList));
        v2(Trips, r#"{"data":{"mediaId":5,"events":[{}]}}"#, Err(AnswerError::NoList));
        for denied in [r#"{"message":"no access","codes":[]}"#, r#"{"codes":["x"],"message":"no access"}"#] {
            check(PullApi::V2, Trips, denied, Err(AnswerError::NoList));
            check(PullApi::V2, Trips, &format!(r#"{{"data":{denied}}}"#), Err(AnswerError::NoList));
        }
        v2(GeofenceActivity, r#"{"data":{"message":"","visits":[]}}"#, Ok(&[]));
        v2(GeofenceActivity, r#"{"data":{"message":"two","visits":[{}]}}"#, Ok(&["{}"]));
        v2(
            Locations,
            r#"{"responseType":"Success","data":{"locations":null,"trackers":[1]}}"#,
            Err(AnswerError::NoList),
        );
        v2(Locations, r#"{"responseType":"Success","data":{}}"#, Err(AnswerError::NoList));
        v2(Locations, r#"{"responseType":"Success","data":null}"#, Err(AnswerError::NoList));
        v2(Locations, "<html>", Err(AnswerError::NotJson { line: 1, column: 1 }));
        v2(Locations, " ", Err(AnswerError::Empty));
        let many = |rows: usize| format!("[{}1]", "1,".repeat(rows - 1));
        v2(Locations, &many(MAX_ROWS + 1), Err(AnswerError::TooMany));
        assert_eq!(
            pulled_rows(PullApi::V2, Locations, many(MAX_ROWS).as_bytes()).map(|rows| rows.len()),
            Ok(MAX_ROWS)
        );
    }

    #[test]
    fn a_failure_is_told_in_the_providers_words() {
        let v2 = |body, expected| check(PullApi::V2, Feed::Trips, body, expected);
        v2(r#"{"responseType":"Error","data":{"message":"Too long."}}"#, says("Too long."));
        v2(r#"{"responseType":"Error","error":{"type":"X","message":"Bad login"}}"#, says("Bad login"));
        v2(r#"{"errors":{"fromDate":["must be set"]}}"#, says("must be set"));
        v2(r#"{"success":false,"data":{"trips":[]}}"#, says("an error without a message"));
        v2(r#"{"success":false,"data":{"trips":[{"driverName":"Jo"}]}}"#, says("an error without a message"));
        v2(r#"{"success":false,"data":[{"driverName":"Jo"}]}"#, says("an error without a message"));
        v2(r#"{"success":false,"data":{"errors":["Too long."]}}"#, says("Too long."));
        v2(r#"{"success":false,"data":"Too long."}"#, says("Too long."));
        v2(r#"{"success":true,"errors":[],"error":null,"data":{"trips":[1]}}"#, Ok(&["1"]));
        v2(r#"{"errors":0,"data":{"trips":[1]}}"#, Ok(&["1"]));
        v2(r#"{"errors":1,"data":{"trips":[1]}}"#, says("an error without a message"));
    }

    #[test]
    fn every_envelope_of_v3_is_opened() {
        let v3 = |body: &str, expected| check(PullApi::V3, Feed::Positions, body, expected);
        v3("[1]", Ok(&["1"]));
        for key in ["content", "records", "items", "data"] {
            v3(&format!(r#"{{"page":0,"{key}":[1]}}"#), Ok(&["1"]));
        }
        v3(r#"{"error":"nope"}"#, says("nope"));
        v3(r#"{"tracker":{},"sensorData":[]}"#, Err(AnswerError::NoList));
    }

    #[test]
    fn the_keys_of_an_answer_are_gone_through_once() {
        let many: Vec<String> = (0..100_000).map(|key| format!(r#""{key}":0"#)).collect();
        let answer = format!("{{{}}}", many.join(","));
        assert_eq!(feed_of(PullApi::V2, answer.as_bytes()), None);
    }

    #[test]
    fn a_single_row_has_the_key_of_one() {
        let with_a_list = r#"{"agilisGeofenceId":5,"points":[{"x":1}]}"#;
        for row in [r#"{"imei":"1"}"#, r#"{"serialNumber":"S"}"#, r#"{"mediaId":5}"#, with_a_list] {
            assert_eq!(single_row(row), Some(row));
            assert_eq!(single_row(&format!(r#"{{"responseType":"Success","data":{row}}}"#)), Some(row));
        }
        for other in [
            r#"{"message":"Unauthorized","status":401}"#,
            r#"{"results":[{"imei":"1"}]}"#,
            r#"{"responseType":"Success","mediaId":5}"#,
            r#"{"data":{"message":"none"}}"#,
            "{}",
            "1",
        ] {
            assert_eq!(single_row(other), None, "{other}");
        }
    }

    #[test]
    fn an_envelope_may_say_which_feed_it_is() {
        let feed = |body: &str| feed_of(PullApi::V2, body.as_bytes());
        assert_eq!(feed(r#"{"data":{"usageHours":[]}}"#), Some(Feed::UsageHours));
        assert_eq!(feed(r#"{"data":{"locations":[]}}"#), Some(Feed::Locations));
        assert_eq!(feed("[]"), None);
        assert_eq!(feed(r#"{"data":{"advancedTrips":[{"rowType":"ignitionOn"}]}}"#), Some(Feed::Trips));
        assert_eq!(feed(r#"[{"geofenceUUID":"u","type":"Circle","trackers":[]}]"#), Some(Feed::Geofences));
        let geofence = r#"{"geofenceUUID":"u","type":"Circle","trackers":[]}"#;
        assert_eq!(feed(geofence), Some(Feed::Geofences));
        assert_eq!(feed(&format!(r#"{{"data":{geofence}}}"#)), Some(Feed::Geofences));
        assert_eq!(feed(r#"{"imei":"1","date":1,"latitude":1,"sensorData":[]}"#), Some(Feed::History));
    }

    #[test]
    fn a_row_has_a_time_where_it_says_one() {
        let time = |row: &str| time_of_row(row.as_bytes()).map(|time| time.0);
        assert_eq!(time(r#"{"imei":"1","date":1767009600000}"#), Some(1_767_009_600_000));
        assert_eq!(time(r#"{"date":null,"startDateTime":"1767009600"}"#), Some(1_767_009_600_000));
        assert_eq!([time("{}"), time("1"), time("{\"date\":true}")], [None; 3]);
    }

    #[test]
    fn rows_may_say_which_feed_they_are_of() {
        let feed = |rows: &str| {
            let bare = feed_of(PullApi::V2, rows.as_bytes());
            let enveloped = feed_of(PullApi::V2, format!(r#"{{"data":{{"rows":{rows}}}}}"#).as_bytes());
            assert_eq!(bare, enveloped, "{rows}");
            bare
        };
        let never_reported = r#"{"imei":"1","driverId":5,"status":"Offline"}"#;
        let fix = r#"{"imei":"2","driverId":6,"date":1,"speed":4}"#;
        assert_eq!(feed(&format!("[{never_reported},{fix}]")), Some(Feed::Locations));
        assert_eq!(feed(&format!("[{fix},{never_reported}]")), Some(Feed::Locations));
        assert_eq!(feed(&format!("[{fix},{fix}]")), Some(Feed::History));
        assert_eq!(feed(r#"[{"imei":"1","driverId":5}]"#), Some(Feed::Trackers));
        assert_eq!(feed(r#"[{},{"imei":"1","driverId":5}]"#), Some(Feed::Trackers));
        assert_eq!(feed(&format!(r#"[{{"imei":"1","driverId":5,"date":null}},{fix}]"#)), Some(Feed::History));
        let trip = r#"[{"imei":"1","startDateTime":1,"durationMinutes":31,"distanceMilesDetailed":11.8}]"#;
        assert_eq!(feed(trip), Some(Feed::Trips));
        let locations = |row: &str| format!(r#"{{"data":{{"locations":[{row}]}}}}"#);
        let enveloped = |row: &str| feed_of(PullApi::V2, locations(row).as_bytes());
        assert_eq!(enveloped(fix), Some(Feed::History));
        assert_eq!(enveloped(never_reported), Some(Feed::Locations));
        assert_eq!(enveloped("{}"), Some(Feed::Locations));
    }

    #[test]
    fn a_field_without_a_value_says_nothing_about_the_feed() {
        use Feed::{Positions, Stops, Trips, UsageHours};
        let usage = r#"{"imei":"1","startDateTime":1,"durationMinutes":31,"distanceMiles":null}"#;
        let trip = r#"{"imei":"1","startDateTime":1,"durationMinutes":31,"distanceMiles":3}"#;
        let both = format!("{usage},{trip}");
        let nulls =
            r#"{"imei":"1","tripUUID":null,"startDateTime":1,"durationMinutes":31,"distanceMiles":null}"#;
        for (api, rows, expected) in [
            (
                PullApi::V3,
                r#"{"positionDate":1,"latitude":1,"longitude":2,"stopDateTime":null}"#,
                Some(Positions),
            ),
            (PullApi::V2, r#"{"imei":"1","stopType":"Idling","beginDate":1,"mediaId":null}"#, Some(Stops)),
            (PullApi::V2, r#"{"imei":"1","beginDate":1,"alertCode":""}"#, Some(Stops)),
            (PullApi::V2, usage, Some(UsageHours)),
            (PullApi::V2, both.as_str(), Some(Trips)),
            // But for the keys that one feed alone has.
            (PullApi::V2, nulls, Some(Trips)),
            (PullApi::V2, r#"{"alertCode":null,"beginDate":""}"#, None),
        ] {
            assert_eq!(feed_of(api, format!("[{rows}]").as_bytes()), expected, "{rows}");
        }
    }
}
