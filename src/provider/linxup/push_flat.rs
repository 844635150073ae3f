//! Pushed flat messages: the older generation. They say what they are; a device update alone does not.

use super::bodies;
use super::classify::Kind;
use super::message::{Message, Missing};
use super::parts::{self, Layout, given};
use super::values;
use crate::event::pb;
use crate::provider::draft::{Compared, Draft, StateKind};
use crate::provider::members::{Keys, keys};
use pb::geofence_crossing::Direction;

const STARTS: &Keys = keys!["startDateTime", "startDate"];
const ENDS: &Keys = keys!["endDateTime", "endDate"];

pub(super) fn decode(message: &mut Message<'_>, kind: Kind) -> Result<Vec<Draft>, Missing> {
    message.fields.take("pushType");
    match kind {
        Kind::Position => bodies::position(message, keys!["date"]),
        Kind::Stop => {
            let span = bodies::span(message, STARTS, ENDS)?;
            Ok(vec![bodies::stop(message, &span, super::message::Sameness::Stop)?])
        }
        Kind::Trip => {
            let span = bodies::span(message, STARTS, ENDS)?;
            Ok(vec![bodies::trip(message, &span)?])
        }
        Kind::Usage => {
            let span =
                bodies::span(message, keys!["startDate", "startDateTime"], keys!["endDate", "endDateTime"])?;
            Ok(vec![bodies::usage(message, &span)?])
        }
        Kind::Alert => Ok(vec![bodies::alert(message)?]),
        Kind::Crossing => Ok(vec![crossing(message)?]),
        Kind::Update => Ok(vec![update(message)?]),
        Kind::Status | Kind::LeftBehind | Kind::Sighting | Kind::Media | Kind::Definition => {
            Err(Missing::because("no such flat message"))
        }
    }
}

/// A flat fence event has one time, and no pair of times. Its speed, odometer, fuel and battery have no place in a crossing.
fn crossing(message: &mut Message<'_>) -> Result<Draft, Missing> {
    let (word, direction) = message.fields.word(keys!["fenceEventCd"], |word| {
        Some(match word.to_ascii_uppercase().as_str() {
            "FENCE_ENTER" => Direction::Enter,
            "FENCE_EXIT" => Direction::Exit,
            _ => return None,
        })
    });
    let direction = direction.ok_or(Missing::because(if word.is_empty() {
        "no fence event code"
    } else {
        "an unknown fence event code"
    }))?;
    let time = message.key_time(keys!["date"], "no time of the crossing")?;
    let geofence = message.geofence();
    let keys = bodies::crossing_keys(message, &geofence);
    let place = pb::Place {
        point: message.point("latitude", "longitude"),
        address: given(parts::address(&mut message.fields, Layout::Flat)),
        geofence: None,
    };
    let at = Some(values::timestamp(time));
    let (enter_time, exit_time) = match direction {
        Direction::Exit => (None, at),
        Direction::Enter | Direction::Unspecified => (at, None),
    };
    let body = pb::GeofenceCrossing {
        direction: direction.into(),
        geofence: given(geofence),
        enter_time,
        exit_time,
        dwell: None,
        place: given(place),
    };
    bodies::crossing(message, &keys, time, String::new(), body)
}

fn update(message: &mut Message<'_>) -> Result<Draft, Missing> {
    let subject = message.tracker_subject()?;
    let body =
        pb::TrackerChange { kind: pb::tracker_change::Kind::Updated.into(), provider_status: String::new() };
    let body = pb::fleet_event::Body::TrackerChange(body);
    Ok(message.state(subject, StateKind::Update, Compared::Content, body))
}
