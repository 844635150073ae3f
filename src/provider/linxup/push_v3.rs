//! Pushed V3 messages: nested objects, no type field. `classify` has told the kind.

use smallvec::smallvec;

use super::bodies;
use super::classify::Kind;
use super::geofences;
use super::media;
use super::message::{Fact, Message, Missing, Sameness};
use super::parts::{self, Layout, given};
use super::subject;
use super::values;
use crate::event::{EventType, Text, ids, pb};
use crate::provider::draft::{Compared, Draft, StateKind};
use crate::provider::members::{Keys, keys};
use pb::fleet_event::Body;
use pb::geofence_crossing::Direction;

/// The spellings of the time of a fix.
const FIX_TIMES: &Keys = keys!["date", "positionDate", "reportDateTime"];

/// What the kind's message calls the tracker.
pub(super) const fn tracker_key(kind: Kind) -> &'static str {
    match kind {
        Kind::LeftBehind => "lastSeenByTracker",
        Kind::Alert
        | Kind::Status
        | Kind::Crossing
        | Kind::Sighting
        | Kind::Media
        | Kind::Definition
        | Kind::Stop
        | Kind::Trip
        | Kind::Usage
        | Kind::Position
        | Kind::Update => "tracker",
    }
}

pub(super) fn decode(message: &mut Message<'_>, kind: Kind) -> Result<Vec<Draft>, Missing> {
    let draft = match kind {
        Kind::Position => return bodies::position(message, FIX_TIMES),
        Kind::Stop => {
            let span = bodies::span(message, keys!["startDateTime"], keys!["endDateTime"])?;
            bodies::stop(message, &span, Sameness::Stop)
        }
        Kind::Trip => {
            let span = bodies::span(message, keys!["startDateTime"], keys!["endDateTime"])?;
            bodies::trip(message, &span)
        }
        Kind::Usage => {
            let span =
                bodies::span(message, keys!["startDate", "startDateTime"], keys!["endDate", "endDateTime"])?;
            bodies::usage(message, &span)
        }
        Kind::Alert => bodies::alert(message),
        Kind::Crossing => crossing(message),
        Kind::Status => status(message),
        Kind::Update => update(message),
        Kind::Definition => definition(message),
        Kind::Media => media::media(message),
        Kind::Sighting => sighting(message),
        Kind::LeftBehind => left_behind(message),
    };
    draft.map(|draft| vec![draft])
}

fn crossing(message: &mut Message<'_>) -> Result<Draft, Missing> {
    let (_, direction) = message.fields.word(keys!["eventType"], |word| {
        Some(match word.to_ascii_uppercase().as_str() {
            "FENCE_ENTER" => Direction::Enter,
            "FENCE_EXIT" => Direction::Exit,
            _ => return None,
        })
    });
    let direction = direction.ok_or(Missing::because("no direction"))?;
    let enter = message.fields.read(keys!["enterDateTime"], values::time);
    let exit = message.fields.read(keys!["exitDateTime"], values::time);
    let time = match direction {
        Direction::Exit => exit.ok_or(Missing::because("no exit time"))?,
        Direction::Enter | Direction::Unspecified => enter.ok_or(Missing::because("no enter time"))?,
    };
    let geofence = message.geofence();
    let mut keys = bodies::crossing_keys(message, &geofence);
    if geofence.id.is_empty() && keys.is_empty() && !geofence.name.is_empty() {
        keys.push(format!("name:{}", geofence.name.to_lowercase()));
    }
    let place = pb::Place {
        point: message.point("latitude", "longitude"),
        address: given(parts::address(&mut message.fields, Layout::Nested)),
        geofence: None,
    };
    let body = pb::GeofenceCrossing {
        direction: direction.into(),
        geofence: given(geofence),
        enter_time: enter.map(values::timestamp),
        exit_time: exit.map(values::timestamp),
        dwell: message.fields.read(keys!["durationMinutes"], values::minutes),
        place: given(place),
    };
    bodies::crossing(message, &keys, time, String::new(), body)
}

fn status(message: &mut Message<'_>) -> Result<Draft, Missing> {
    use pb::tracker_change::Kind;
    let subject = message.tracker_subject()?;
    // Also an unknown word has its place: the provider's status.
    let provider_status = message.fields.text(keys!["statusChangeType"]);
    let kind = match provider_status.to_ascii_uppercase().as_str() {
        "ACTIVATE" => Kind::Activated,
        "INACTIVATE" => Kind::Deactivated,
        _ => Kind::Unspecified,
    };
    let body = Body::TrackerChange(pb::TrackerChange { kind: kind.into(), provider_status });
    Ok(message.state(subject, StateKind::Status, Compared::Content, body))
}

fn update(message: &mut Message<'_>) -> Result<Draft, Missing> {
    let subject = message.tracker_subject()?;
    if message.parts.tracker.custom_data.is_none() {
        message.parts.tracker.custom_data = message.fields.read(keys!["customData"], values::custom_data);
    }
    let kind = pb::tracker_change::Kind::Updated.into();
    let body = Body::TrackerChange(pb::TrackerChange { kind, provider_status: String::new() });
    Ok(message.state(subject, StateKind::Update, Compared::Content, body))
}

fn definition(message: &mut Message<'_>) -> Result<Draft, Missing> {
    use pb::geofence_definition::Action;
    let (_, action) = message.fields.word(keys!["action"], |word| {
        Some(match word.to_ascii_uppercase().as_str() {
            "CREATE" => Action::Created,
            "UPDATE" => Action::Updated,
            "DELETE" => Action::Deleted,
            _ => return None,
        })
    });
    let id = message.fields.id(keys!["geofenceId"]);
    let uuid = message.fields.id(keys!["geofenceUUID"]);
    geofences::definition(message, id, uuid, action.unwrap_or_default(), None)
}

/// The item of a message, and what a tag's fleet says where the message has no other.
fn item(message: &mut Message<'_>) -> pb::Item {
    let mut item = message.fields.within("trackedItem", |inner| pb::Item {
        id: inner.id(keys!["itemId", "id"]),
        name: inner.text(keys!["itemName", "name"]),
        make_model: inner.text(keys!["makeModel"]),
        serial_number: inner.id(keys!["serialNumber"]),
        custom_data: inner.read(keys!["customData"], values::custom_data),
        ..Default::default()
    });
    let without_fleet = message.parts.fleet == pb::Fleet::default();
    let (tag_id, tag_serial_number, fleet_id) = message.fields.within("toolTracker", |inner| {
        let fleet_id = if without_fleet { inner.id(keys!["fleetId"]) } else { String::new() };
        (inner.id(keys!["toolTrackerId", "id"]), inner.id(keys!["serialNumber"]), fleet_id)
    });
    if without_fleet {
        message.parts.fleet.id = fleet_id;
    }
    item.tag_id = tag_id;
    item.tag_serial_number = tag_serial_number;
    item
}

/// The subject of an event about an item.
fn item_subject(item: &pb::Item) -> Result<String, Missing> {
    [&item.id, &item.tag_id, &item.tag_serial_number]
        .into_iter()
        .find(|id| !id.is_empty())
        .cloned()
        .ok_or(Missing::because("no item or tag id"))
}

fn sighting(message: &mut Message<'_>) -> Result<Draft, Missing> {
    let time = message.key_time(keys!["timestamp"], "no time of the sighting")?;
    let item = item(message);
    let subject = item_subject(&item)?;
    let seen_by = subject::of_tracker(&message.parts.tracker, message.context.directory)
        .ok_or(Missing::because("no id of the tracker that saw it"))?;
    let place = pb::Place {
        point: message.point("latitude", "longitude"),
        address: given(parts::address(&mut message.fields, Layout::Nested)),
        geofence: given(message.geofence()),
    };
    let body = pb::ItemSighting {
        item: given(item),
        place: given(place),
        rssi: message.fields.read(keys!["rssi"], values::number),
        battery_percent: message.fields.read(keys!["batteryPercent"], values::percent),
    };
    let trackers = std::iter::once(&seen_by.text).chain(&seen_by.others);
    let fact = Fact {
        event_type: EventType::ItemSighting,
        known_as: trackers
            .map(|tracker| (subject.clone(), smallvec![ids::time(time), tracker.into()]))
            .collect(),
        version: Text::default(),
        sameness: Sameness::Version,
        key_time: Some(time),
        occurred: time,
        record_version: 0,
    };
    Ok(message.fact(fact, String::new(), Body::ItemSighting(body)))
}

fn left_behind(message: &mut Message<'_>) -> Result<Draft, Missing> {
    let time = message.key_time(keys!["leftBehindTimestamp"], "no time of leaving it behind")?;
    let item = item(message);
    let subject = item_subject(&item)?;
    let last_seen = pb::Place {
        point: message.point("lastSeenLatitude", "lastSeenLongitude"),
        address: given(parts::address(&mut message.fields, Layout::Nested)),
        geofence: given(message.geofence()),
    };
    let body = pb::ItemLeftBehind {
        item: given(item),
        last_seen_time: message.fields.read(keys!["lastSeenTimestamp"], values::time).map(values::timestamp),
        last_seen: given(last_seen),
        rssi: message.fields.read(keys!["lastSeenRssi"], values::number),
        battery_percent: message.fields.read(keys!["lastSeenBatteryPercent"], values::percent),
    };
    let fact = Fact {
        event_type: EventType::ItemLeftBehind,
        known_as: smallvec![(subject, smallvec![ids::time(time)])],
        version: Text::default(),
        sameness: Sameness::Version,
        key_time: Some(time),
        occurred: time,
        record_version: 0,
    };
    Ok(message.fact(fact, String::new(), Body::ItemLeftBehind(body)))
}
