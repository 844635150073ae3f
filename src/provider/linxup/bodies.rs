//! Positions, trips, stops, usage and crossings: the same fields under many spellings, so one reader for all formats. What
//! differs between the formats (keys of identity, what is skipped) is in the file of each format.

use prost::Message as _;
use smallvec::smallvec;
use smol_str::format_smolstr;

use super::alerts;
use super::message::{Fact, KeyParts, KnownAs, Message, Missing, Sameness};
use super::parts::{self, Layout, Parts, Point, given};
use super::subject::{self, Subject};
use super::values::{self, METERS_PER_MILE, Read};
use crate::event::{EventType, Millis, Text, ids, pb};
use crate::provider::draft::Draft;
use crate::provider::members::{Keys, keys};
use crate::provider::tree::Value;
use pb::fleet_event::Body;

/// The most breadcrumbs that are taken from one message.
pub(super) const MAX_BREADCRUMBS: usize = 2000;
/// What each breadcrumb repeats of its carrier: there may be a thousand times as many bytes of them as of the carrier.
const MAX_SHARED_BYTES: usize = 2 << 10;

/// How often something is known under each of a tracker's subjects.
fn known_as(subject: Subject, keys: KeyParts) -> KnownAs {
    let others = subject.others.into_iter().map(|text| (text, keys.clone()));
    let mut all: KnownAs = others.collect();
    all.insert(0, (subject.text, keys));
    all
}

/// A position, and the breadcrumbs in it. The carrier comes first.
pub(super) fn position(message: &mut Message<'_>, time_keys: &Keys) -> Result<Vec<Draft>, Missing> {
    let time = message.key_time(time_keys, "no time of the fix")?;
    let subject = message.tracker_subject()?;
    // Each format's own name first, for the word is a part of the identity.
    let behaviors = match message.format.layout() {
        Layout::Flat => keys!["behaviorCd", "behaviorCode", "behaviourCode"],
        Layout::Nested => keys!["behaviorCode", "behaviourCode", "behaviorCd"],
    };
    let (behavior_word, behavior) = message.fields.word(behaviors, |word| {
        let known = [
            ("HBR", pb::position::Behavior::HarshBraking),
            ("HAC", pb::position::Behavior::RapidAcceleration),
        ];
        known.into_iter().find(|(known, _)| word.eq_ignore_ascii_case(known)).map(|(_, meaning)| meaning)
    });
    let (crumbs, truncated) = crumbs(message);
    if truncated {
        message.anomalies.push(pb::Anomaly::Truncated);
    }
    let point = match parts::point(&mut message.fields, "latitude", "longitude") {
        Point::At(point) => Some(point),
        Point::NotGiven | Point::Unusable => {
            message.anomalies.push(pb::Anomaly::NoFix);
            None
        }
    };
    let layout = message.format.layout();
    let place = pb::Place {
        point,
        address: given(parts::address(&mut message.fields, layout)),
        geofence: given(message.geofence()),
    };
    let heading_degrees = heading(message);
    let fields = &mut message.fields;
    let speed_mps = fields.read(keys!["speed"], values::speed);
    let engine_on = fields.read(keys!["engineOn"], values::boolean);
    let provider_status = match layout {
        Layout::Flat => fields.text(keys!["currentState", "status"]),
        Layout::Nested => fields.text(keys!["currentState"]),
    };
    let body = pb::Position {
        place: given(place),
        speed_mps,
        heading_degrees,
        altitude_meters: fields.read(keys!["altitude"], values::number),
        engine_on,
        motion: motion(&provider_status, engine_on, speed_mps).into(),
        odometer: odometer(message),
        fuel_percent: message.fields.read(keys!["fuelLevel", "personMisc8"], values::percent),
        speed_limit_mps: message.fields.read(keys!["estimatedSpeedLimit", "estSpeedLimit"], values::speed),
        speeding: message.fields.read(keys!["speeding"], values::boolean),
        behavior: behavior.unwrap_or_default().into(),
        power: message.fields.read(keys!["battery"], values::power),
        engine_run_time: message.fields.read(keys!["engineHours"], values::hours),
        sensors: parts::sensors(&mut message.fields),
        provider_update_time: message.fields.read(keys!["editDate"], values::time).map(values::timestamp),
        breadcrumb: false,
        provider_status,
    };
    let shared = if crumbs.is_empty() { Parts::default() } else { shared(&message.parts) };
    let crumbs: Vec<Draft> =
        crumbs.into_iter().map(|crumb| breadcrumb(message, &shared, &subject, crumb)).collect();
    let fact = Fact {
        event_type: EventType::Position,
        known_as: known_as(subject, smallvec![ids::time(time), behavior_word.to_uppercase().into()]),
        version: Text::default(),
        sameness: Sameness::Version,
        key_time: Some(time),
        occurred: time,
        record_version: 1,
    };
    let mut drafts = vec![message.fact(fact, String::new(), Body::Position(body))];
    drafts.extend(crumbs);
    Ok(drafts)
}

/// A fix between the last one and the one that carries it.
struct Crumb {
    time: Millis,
    point: Point,
    altitude_meters: Option<f64>,
    /// The entry as it came, where not all of it is understood.
    kept: Option<String>,
    unreadable: bool,
}

/// The entries of `batchedPositions`, and whether there were too many. Those that cannot be read stay with the carrier.
fn crumbs(message: &mut Message<'_>) -> (Vec<Crumb>, bool) {
    const KEY: &str = "batchedPositions";
    let text = match message.fields.take(KEY) {
        Some(Value::Text(text)) => text,
        Some(Value::Null) | None => return (Vec::new(), false),
        Some(Value::List(list)) if list.is_empty() => return (Vec::new(), false),
        Some(other) => {
            message.fields.mark_unreadable();
            message.fields.leave(KEY, other);
            return (Vec::new(), false);
        }
    };
    let mut crumbs = Vec::new();
    let mut unread = Vec::new();
    for entry in text.split(';').map(str::trim).filter(|entry| !entry.is_empty()) {
        match crumb(entry) {
            Some(crumb) => crumbs.push(crumb),
            None => unread.push(entry),
        }
    }
    if !unread.is_empty() {
        message.fields.mark_unreadable();
        message.fields.leave(KEY, Value::Text(unread.join(";").into()));
    }
    let surplus = crumbs.len().saturating_sub(MAX_BREADCRUMBS);
    if surplus > 0 {
        crumbs.sort_by_key(|crumb| crumb.time);
        crumbs.drain(..surplus);
    }
    (crumbs, surplus > 0)
}

/// `milliseconds,latitude,longitude,altitude`, the altitude perhaps missing.
fn crumb(entry: &str) -> Option<Crumb> {
    fn text(part: &str) -> Value<'_> {
        Value::Text(part.into())
    }
    let mut parts = entry.split(',');
    let Read::Is(time) = values::time(&text(parts.next()?)) else { return None };
    let Read::Is(latitude) = values::number(&text(parts.next()?)) else { return None };
    let Read::Is(longitude) = values::number(&text(parts.next()?)) else { return None };
    let altitude = parts.next().map_or(Read::Absent, |part| values::number(&text(part)));
    let more = parts.any(|part| !part.trim().is_empty());
    let unreadable = altitude == Read::Unreadable;
    let altitude_meters = match altitude {
        Read::Is(meters) => Some(meters),
        Read::Absent | Read::Unreadable => None,
    };
    let point = Point::of(latitude, longitude);
    // As with a position: what is no place is kept as it came, but for the provider's word for none.
    let lost = point == Point::Unusable && (latitude, longitude) != (0.0, 0.0);
    let kept = (more || unreadable || lost).then(|| entry.to_owned());
    Some(Crumb { time, point, altitude_meters, kept, unreadable })
}

/// What each breadcrumb repeats of its carrier: tracker, vehicle and fleet. Of what is too large to be repeated, what is not custom
/// data; of that, what tells one tracker, vehicle and fleet from another; of that, the tracker's ids.
fn shared(carrier: &Parts) -> Parts {
    let all = Parts {
        tracker: carrier.tracker.clone(),
        vehicle: carrier.vehicle.clone(),
        fleet: carrier.fleet.clone(),
        ..Default::default()
    };
    let smaller: [fn(Parts) -> Parts; 2] = [without_custom_data, ids_alone];
    let found =
        smaller.into_iter().fold(all, |parts, less| if is_small(&parts) { parts } else { less(parts) });
    if is_small(&found) { found } else { Parts { tracker: found.tracker, ..Default::default() } }
}

fn is_small(Parts { tracker, vehicle, fleet, .. }: &Parts) -> bool {
    tracker.encoded_len() + vehicle.encoded_len() + fleet.encoded_len() <= MAX_SHARED_BYTES
}

fn without_custom_data(Parts { tracker, vehicle, fleet, .. }: Parts) -> Parts {
    Parts {
        tracker: pb::Tracker { custom_data: None, ..tracker },
        vehicle: pb::Vehicle { custom_data: None, ..vehicle },
        fleet: pb::Fleet { custom_data: None, ..fleet },
        ..Default::default()
    }
}

fn ids_alone(Parts { tracker, vehicle, fleet, .. }: Parts) -> Parts {
    let pb::Tracker { id, imei, serial_number, uuid, .. } = tracker;
    let pb::Vehicle { vin, license_plate, .. } = vehicle;
    Parts {
        tracker: pb::Tracker { id, imei, serial_number, uuid, ..Default::default() },
        vehicle: pb::Vehicle { vin, license_plate, ..Default::default() },
        fleet: pb::Fleet { id: fleet.id, ..Default::default() },
        ..Default::default()
    }
}

/// A breadcrumb is a position of its own, with what it [shares](shared) with its carrier, and nothing else of that.
fn breadcrumb(carrier: &Message<'_>, shared: &Parts, subject: &Subject, crumb: Crumb) -> Draft {
    let mut fields = super::fields::Fields::default();
    if let Some(entry) = crumb.kept {
        fields.leave("batchedPositions", Value::Text(entry.into()));
    }
    if crumb.unreadable {
        fields.mark_unreadable();
    }
    let fallback = |anomaly: &&pb::Anomaly| **anomaly == pb::Anomaly::SubjectFallback;
    let mut anomalies: Vec<pb::Anomaly> = carrier.anomalies.iter().filter(fallback).copied().collect();
    let point = crumb.point.usable();
    if point.is_none() {
        anomalies.push(pb::Anomaly::NoFix);
    }
    let mut message = Message {
        context: carrier.context,
        format: carrier.format,
        fields,
        parts: shared.clone(),
        anomalies,
        learnt: Vec::new(),
    };
    let body = pb::Position {
        place: given(pb::Place { point, ..Default::default() }),
        altitude_meters: crumb.altitude_meters,
        breadcrumb: true,
        ..Default::default()
    };
    let fact = Fact {
        event_type: EventType::Position,
        known_as: known_as(subject.clone(), smallvec![ids::time(crumb.time), Text::default()]),
        version: Text::new_static("breadcrumb"),
        sameness: Sameness::Breadcrumb,
        key_time: Some(crumb.time),
        occurred: crumb.time,
        record_version: 0,
    };
    message.fact(fact, String::new(), Body::Position(body))
}

/// From the degrees; failing that the middle of the octant. A word that the degrees do not say stays as it came.
fn heading(message: &mut Message<'_>) -> Option<f64> {
    let fields = &mut message.fields;
    let came = fields.peek("heading").cloned().unwrap_or(Value::Null);
    let word = fields.text(keys!["heading"]);
    let degrees = fields.read(keys!["direction"], values::degrees);
    if word.eq_ignore_ascii_case("none") {
        return degrees.filter(|degrees| *degrees != 0.0);
    }
    if word.is_empty() {
        return degrees;
    }
    match (degrees, values::octant(&word)) {
        (Some(degrees), Some(middle)) if values::in_octant(degrees, middle) => Some(degrees),
        (Some(degrees), Some(_)) => {
            fields.leave("heading", came);
            Some(degrees)
        }
        (None, Some(middle)) => Some(middle),
        (degrees, None) => {
            fields.mark_unreadable();
            fields.leave("heading", came);
            degrees
        }
    }
}

fn motion(status: &str, engine_on: Option<bool>, speed_mps: Option<f64>) -> pb::position::Motion {
    use pb::position::Motion;
    let is = |word: &str| status.eq_ignore_ascii_case(word);
    if is("moving") {
        return Motion::Moving;
    }
    if is("stopped") {
        return if engine_on == Some(true) { Motion::Idling } else { Motion::Stopped };
    }
    if is("idle") || is("idling") {
        return Motion::Idling;
    }
    if is_offline(status) {
        return Motion::Offline;
    }
    match (engine_on, speed_mps) {
        (Some(true), Some(0.0)) => Motion::Idling,
        (Some(false), _) => Motion::Stopped,
        (_, Some(speed)) if speed > 0.0 => Motion::Moving,
        (_, _) => Motion::Unspecified,
    }
}

/// Whether the provider's status is one of its words for being offline.
pub(super) fn is_offline(status: &str) -> bool {
    status.trim().get(..7).is_some_and(|start| start.eq_ignore_ascii_case("offline"))
}

/// The best known reading; another measurement beside it stays.
fn odometer(message: &mut Message<'_>) -> Option<pb::Odometer> {
    use pb::odometer::Source;
    let keys = keys!["trueOdo", "virtualOdo", "estimatedOdo", "odometer", "odo"];
    let (key, meters) = message.fields.read_like(keys, values::distance, f64::eq)?;
    let source = match key {
        "trueOdo" => Source::Vehicle,
        "virtualOdo" => Source::Gps,
        "estimatedOdo" => Source::Estimate,
        _ => Source::Unspecified,
    };
    Some(pb::Odometer { meters, source: source.into() })
}

/// Something that lasted: its key is its start, its version its end.
pub(super) struct Span {
    pub(super) start: Millis,
    pub(super) end: Millis,
}

/// The start and end of a trip, stop or usage.
pub(super) fn span(message: &mut Message<'_>, starts: &Keys, ends: &Keys) -> Result<Span, Missing> {
    let start = message.key_time(starts, "no start time")?;
    let end = message.key_time(ends, "no end time")?;
    Ok(Span { start, end })
}

fn lasted(
    message: &mut Message<'_>,
    event_type: EventType,
    span: &Span,
    sameness: Sameness,
) -> Result<Fact, Missing> {
    let subject = message.tracker_subject()?;
    let received_at = message.context.received_at.0;
    Ok(Fact {
        event_type,
        known_as: known_as(subject, smallvec![ids::time(span.start)]),
        version: ids::time(span.end),
        sameness,
        key_time: Some(span.start),
        occurred: span.end,
        record_version: if sameness == Sameness::InexactStop { 0 } else { received_at },
    })
}

pub(super) fn trip(message: &mut Message<'_>, span: &Span) -> Result<Draft, Missing> {
    let fact = lasted(message, EventType::Trip, span, Sameness::Version)?;
    let (start, end) = (end_place(message, &START), end_place(message, &END));
    let fields = &mut message.fields;
    let body = pb::Trip {
        start_time: Some(values::timestamp(span.start)),
        end_time: Some(values::timestamp(span.end)),
        start,
        end,
        duration: fields.read(keys!["durationMinutes"], values::minutes),
        distance_meters: miles(fields, keys!["distanceMilesDetailed", "distanceMiles"]),
        authorized_distance_meters: miles(
            fields,
            keys!["authorizedMilesDetailed", "authorizedMiles", "authorized Miles"],
        ),
        unauthorized_distance_meters: miles(fields, keys!["unauthorizedMilesDetailed", "unauthorizedMiles"]),
        authorized: fields.read(keys!["authorized"], values::boolean),
        idle_duration: fields.read(keys!["idleMinutes"], values::minutes),
    };
    let id = fields.id(keys!["tripUUID"]);
    Ok(message.fact(fact, id, Body::Trip(body)))
}

/// Detailed miles, else rounded ones, which say the same where they are the detailed ones rounded.
fn miles(fields: &mut super::fields::Fields, keys: &Keys) -> Option<f64> {
    let rounded = |detailed: &f64, whole: &f64| (detailed - whole).abs() <= 0.5 * METERS_PER_MILE + 1e-6;
    fields.read_like(keys, values::distance, rounded).map(|(_, meters)| meters)
}

pub(super) fn stop(message: &mut Message<'_>, span: &Span, sameness: Sameness) -> Result<Draft, Missing> {
    let fact = lasted(message, EventType::Stop, span, sameness)?;
    let layout = message.format.layout();
    let (_, kind) = message.fields.word(keys!["stopType"], |word| {
        let word = word.to_ascii_lowercase();
        Some(match word.as_str() {
            "engine off" | "off" => pb::stop::Kind::EngineOff,
            "idling" | "idle" => pb::stop::Kind::Idling,
            _ => return None,
        })
    });
    let place = pb::Place {
        point: message.point("latitude", "longitude"),
        address: given(parts::address(&mut message.fields, layout)),
        geofence: given(message.geofence()),
    };
    let body = pb::Stop {
        kind: kind.unwrap_or_default().into(),
        start_time: Some(values::timestamp(span.start)),
        end_time: Some(values::timestamp(span.end)),
        duration: message.fields.read(keys!["durationMinutes", "duration"], values::minutes),
        place: given(place),
    };
    let id = message.fields.id(keys!["stopUUID"]);
    Ok(message.fact(fact, id, Body::Stop(body)))
}

pub(super) fn usage(message: &mut Message<'_>, span: &Span) -> Result<Draft, Missing> {
    let fact = lasted(message, EventType::Usage, span, Sameness::Version)?;
    let (start, end) = (end_place(message, &START), end_place(message, &END));
    let body = pb::Usage {
        start_time: Some(values::timestamp(span.start)),
        end_time: Some(values::timestamp(span.end)),
        duration: message.fields.read(keys!["durationMinutes"], values::minutes),
        start,
        end,
        engine_on: message.fields.read(keys!["engineOn"], values::boolean),
    };
    let id = message.fields.id(keys!["segmentId"]);
    Ok(message.fact(fact, id, Body::Usage(body)))
}

/// The keys of one end of a trip or usage.
struct EndKeys {
    latitude: &'static str,
    longitude: &'static str,
    address: &'static str,
    geofence: &'static str,
    /// The geofence's name alone, in flat rows and in those of V2.
    names: &'static Keys,
}

const START: EndKeys = EndKeys {
    latitude: "startLatitude",
    longitude: "startLongitude",
    address: "startAddress",
    geofence: "startGeofence",
    names: keys!["startFenceName", "startGeofenceName"],
};

const END: EndKeys = EndKeys {
    latitude: "endLatitude",
    longitude: "endLongitude",
    address: "endAddress",
    geofence: "endGeofence",
    names: keys!["endFenceName", "endGeofenceName"],
};

/// Where a trip or usage began or ended.
fn end_place(message: &mut Message<'_>, keys: &EndKeys) -> Option<pb::Place> {
    let point = message.point(keys.latitude, keys.longitude);
    let address = parts::address_at(&mut message.fields, keys.address);
    let mut geofence = message.geofence_at(keys.geofence);
    if geofence.name.is_empty() {
        geofence.name = message.fields.text(keys.names);
    }
    given(pb::Place { point, address: given(address), geofence: given(geofence) })
}

pub(super) fn alert(message: &mut Message<'_>) -> Result<Draft, Missing> {
    let code =
        message.fields.read(keys!["alertCode"], values::text).ok_or(Missing::because("no alert code"))?;
    let time = message.key_time(keys!["alertDateTime"], "no time of the alert")?;
    let subject = message.tracker_subject()?;
    let layout = message.format.layout();
    let description = message.fields.text(match layout {
        Layout::Flat => keys!["alertDesc", "alertDescription"],
        Layout::Nested => keys!["alertDescription", "alertDesc"],
    });
    let place = pb::Place {
        point: message.point("latitude", "longitude"),
        address: given(parts::address(&mut message.fields, layout)),
        geofence: given(message.geofence()),
    };
    let speed_mps = message.fields.read(keys!["speed"], values::speed);
    let meaning = alerts::meaning(&code);
    let body = pb::Alert {
        id: message.fields.id(keys!["alertId"]),
        kind: meaning.kind.into(),
        title: message.fields.text(keys!["alertShortDescription", "alertShortDesc"]),
        place: given(place),
        media_id: message.fields.id(keys!["mediaId"]),
        speed_mps: speed_mps.or_else(|| alerts::speed_in(&description)),
        sensor_number: meaning.sensor_number,
        description,
        code,
    };
    let with_media = !body.media_id.is_empty();
    let keys = smallvec![
        alerts::key_of(&body.code).into(),
        ids::time(time),
        alerts::discriminator(&body.code, &body.description).into(),
    ];
    let fact = Fact {
        event_type: EventType::Alert,
        known_as: known_as(subject, keys),
        version: if with_media { format_smolstr!("media:{}", body.media_id) } else { Text::default() },
        sameness: Sameness::Version,
        key_time: Some(time),
        occurred: time,
        record_version: i64::from(with_media),
    };
    let id = message.fields.id(keys!["alertUUID"]);
    Ok(message.fact(fact, id, Body::Alert(body)))
}

/// A crossing of a geofence: known under each subject of its tracker with each key of its geofence.
pub(super) fn crossing(
    message: &mut Message<'_>,
    geofence_keys: &[String],
    time: Millis,
    provider_record_id: String,
    body: pb::GeofenceCrossing,
) -> Result<Draft, Missing> {
    let subject = message.tracker_subject()?;
    let direction = match body.direction() {
        pb::geofence_crossing::Direction::Enter => "ENTER",
        pb::geofence_crossing::Direction::Exit => "EXIT",
        pb::geofence_crossing::Direction::Unspecified => return Err(Missing::because("no direction")),
    };
    let mut all = KnownAs::new();
    for key in geofence_keys {
        let keys = smallvec![key.into(), Text::new_static(direction), ids::time(time)];
        all.extend(known_as(subject.clone(), keys));
    }
    if all.is_empty() {
        return Err(Missing::because("no geofence id"));
    }
    let fact = Fact {
        event_type: EventType::GeofenceCrossing,
        known_as: all,
        version: Text::default(),
        sameness: Sameness::Version,
        key_time: Some(time),
        occurred: time,
        record_version: 0,
    };
    Ok(message.fact(fact, provider_record_id, Body::GeofenceCrossing(body)))
}

/// The keys of a crossing's geofence.
pub(super) fn crossing_keys(message: &Message<'_>, geofence: &pb::Geofence) -> Vec<String> {
    subject::geofence_keys(geofence, message.context.directory)
}
