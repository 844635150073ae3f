//! Rows of the V2 API: flat, with names of their own for the same fields. A row without the time that its identity needs is
//! skipped, and so is what may still grow.

use super::bodies::{self, Span};
use super::fields::is_nothing;
use super::geofences;
use super::media;
use super::message::{Message, Missing, Sameness};
use super::values::{self, Read};
use crate::event::{Millis, pb};
use crate::provider::Feed;
use crate::provider::draft::{Compared, Draft, Reason, StateKind};
use crate::provider::members::{Keys, Members, keys};
use pb::fleet_event::Body;
use pb::geofence_crossing::Direction;

/// What ended so shortly before the fetch may still be extended.
const SETTLING_MILLIS: u64 = 10 * 60 * 1000;

/// The drafts of a row, and why it, or a part of it, was skipped.
pub(super) type Row = (Vec<Draft>, Option<Reason>);

/// Ids that rows of the APIs have, at least as keys, and those of the old mobile API have not.
const OWN_IDS: [&str; 15] = [
    "imei",
    "deviceNumber",
    "deviceUUID",
    "deviceSerialNumber",
    "stopUUID",
    "tripUUID",
    "segmentId",
    "alertUUID",
    "geofenceUUID",
    "fenceUUID",
    "agilisGeofenceId",
    "mediaId",
    "tracker",
    "trackerId",
    "serialNumber",
];

/// Why a row is none of the polled feeds', though it looks like it.
pub(super) fn foreign(members: &Members) -> Option<&'static str> {
    let has = |key: &str| members.get(key).is_some_and(|value| !is_nothing(value));
    // Positions of the old API have a label; its stops and trips have the device's number alone.
    let old_marks = has("label") || has("simDeviceNumber") || has("deviceNbr");
    if has("rowType") {
        Some("a row of the advanced trips")
    } else if old_marks && !OWN_IDS.iter().any(|key| members.contains_key(key)) {
        Some("a row of the old mobile api")
    } else {
        None
    }
}

pub(super) fn decode(message: &mut Message<'_>, feed: Feed) -> Result<Row, Missing> {
    let one = |draft: Draft| (vec![draft], None);
    match feed {
        Feed::Locations => locations(message),
        Feed::History | Feed::Positions => Ok((bodies::position(message, keys!["date"])?, None)),
        Feed::Trips => {
            let span = closed(message, keys!["startDateTime"], keys!["endDateTime"])?;
            bodies::trip(message, &span).map(one)
        }
        Feed::Stops => {
            let span = closed(message, keys!["beginDate", "startDateTime"], keys!["endDate", "endDateTime"])?;
            bodies::stop(message, &span, Sameness::Stop).map(one)
        }
        Feed::UsageHours => {
            let span = closed(message, keys!["startDateTime"], keys!["endDateTime"])?;
            bodies::usage(message, &span).map(one)
        }
        // An alert's media are asked for one by one, and have no feed of their own.
        Feed::Alerts if media::is_media(message) => media::media(message).map(one),
        Feed::Alerts => bodies::alert(message).map(one),
        Feed::GeofenceActivity => activity(message),
        Feed::Trackers => tracker(message).map(one),
        Feed::Geofences => geofence(message).map(one),
    }
}

/// The start and end of something that will not be extended any more.
pub(super) fn closed(message: &mut Message<'_>, starts: &Keys, ends: &Keys) -> Result<Span, Missing> {
    let span = bodies::span(message, starts, ends)?;
    settled(message, span.end)?;
    Ok(span)
}

/// Whether what ended then can be believed to have ended.
pub(super) fn settled(message: &Message<'_>, end: Millis) -> Result<(), Missing> {
    if end.0.abs_diff(message.context.received_at.0) <= SETTLING_MILLIS {
        return Err(Missing::because("ended within ten minutes of the fetch"));
    }
    Ok(())
}

/// The current list: a position, and perhaps news of being offline, also of a tracker that never reported.
fn locations(message: &mut Message<'_>) -> Result<Row, Missing> {
    let word = match message.fields.peek("status").map(values::text) {
        Some(Read::Is(word)) if bodies::is_offline(&word) => Some(word),
        // What cannot be read does not say that it came back.
        Some(Read::Unreadable) => None,
        Some(Read::Is(_) | Read::Absent) | None => Some(String::new()),
    };
    let offline = word.and_then(|word| offline(message, word));
    let position = bodies::position(message, keys!["date"]);
    let (mut drafts, skipped) = match position {
        Ok(drafts) => (drafts, None),
        Err(Missing(reason)) => (Vec::new(), Some(reason)),
    };
    drafts.extend(offline);
    Ok((drafts, skipped))
}

/// The tracker's word for being offline, or that it is not: the last state decides whether that is news.
fn offline(message: &Message<'_>, word: String) -> Option<Draft> {
    let mut change = Message {
        context: message.context,
        format: message.format,
        fields: super::fields::Fields::default(),
        parts: message.parts.clone(),
        anomalies: Vec::new(),
        learnt: Vec::new(),
    };
    let subject = change.tracker_subject().ok()?;
    let kind = pb::tracker_change::Kind::StatusChanged.into();
    let body = Body::TrackerChange(pb::TrackerChange { kind, provider_status: word.clone() });
    Some(change.state(subject, StateKind::Offline, Compared::OfflineWord(word), body))
}

/// A visit: it was entered, and left where it says when.
fn activity(message: &mut Message<'_>) -> Result<Row, Missing> {
    let enter = message.fields.read(keys!["enterDateTime"], values::time);
    let exit = message.fields.read(keys!["exitDateTime"], values::time);
    let id = message.fields.id(keys!["id"]);
    let geofence = message.geofence();
    let keys = bodies::crossing_keys(message, &geofence);
    if enter.is_none() && exit.is_none() {
        return Err(Missing::because("no enter time"));
    }
    let crossing = |direction: Direction| pb::GeofenceCrossing {
        direction: direction.into(),
        geofence: Some(geofence.clone()),
        enter_time: enter.map(values::timestamp),
        ..Default::default()
    };
    let mut drafts = Vec::with_capacity(2);
    // Of a visit that has ended, how long it lasted belongs to the exit.
    let dwell =
        if exit.is_some() { message.fields.read(keys!["totalTimeInFence"], values::minutes) } else { None };
    let parts = message.parts.clone();
    if let Some(time) = enter {
        drafts.push(bodies::crossing(message, &keys, time, id.clone(), crossing(Direction::Enter))?);
    }
    if let Some(time) = exit {
        let body = pb::GeofenceCrossing {
            exit_time: Some(values::timestamp(time)),
            dwell,
            ..crossing(Direction::Exit)
        };
        message.parts = parts;
        drafts.push(bodies::crossing(message, &keys, time, id, body)?);
    }
    let skipped = enter.is_none().then_some(Reason::Borrowed("no enter time: the exit alone"));
    Ok((drafts, skipped))
}

fn tracker(message: &mut Message<'_>) -> Result<Draft, Missing> {
    let subject = message.tracker_subject()?;
    let kind = pb::tracker_change::Kind::Updated.into();
    let body = Body::TrackerChange(pb::TrackerChange { kind, provider_status: String::new() });
    Ok(message.state(subject, StateKind::Update, Compared::Content, body))
}

fn geofence(message: &mut Message<'_>) -> Result<Draft, Missing> {
    use pb::geofence_definition::Action;
    let id = message.fields.id(keys!["agilisGeofenceId"]);
    let uuid = message.fields.id(keys!["geofenceUUID"]);
    let (_, active) = message.fields.word(keys!["status"], |word| {
        Some(match word.to_ascii_uppercase().as_str() {
            "ACT" => true,
            "INA" => false,
            _ => return None,
        })
    });
    let action = if active == Some(false) { Action::Deleted } else { Action::Updated };
    geofences::definition(message, id, uuid, action, active)
}
