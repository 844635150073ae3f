//! Rows of the V3 API: the objects of the V3 push under other names. Trips and alerts are refused: nobody has seen what their
//! identity needs.

use super::bodies::{self, Span};
use super::message::{Message, Missing, Sameness};
use super::parts;
use super::pull_v2::{Row, settled};
use super::values::{self, Read};
use crate::event::pb;
use crate::provider::Feed;
use crate::provider::draft::{Compared, Draft, StateKind};
use crate::provider::members::keys;
use crate::provider::tree::Value;
use pb::fleet_event::Body;

/// Why rows of a feed cannot be decoded, whatever they say.
pub(super) const fn refused(feed: Feed) -> Option<&'static str> {
    match feed {
        Feed::Trips => Some("no start time"),
        Feed::Alerts => Some("no known identity"),
        Feed::Locations | Feed::History | Feed::UsageHours | Feed::GeofenceActivity | Feed::Geofences => {
            Some("no such feed of v3")
        }
        Feed::Stops | Feed::Trackers | Feed::Positions => None,
    }
}

pub(super) fn decode(message: &mut Message<'_>, feed: Feed) -> Result<Row, Missing> {
    match feed {
        Feed::Positions => {
            Ok((bodies::position(message, keys!["positionDate", "date", "reportDateTime"])?, None))
        }
        Feed::Stops => Ok((vec![stop(message)?], None)),
        Feed::Trackers => Ok((vec![tracker(message)?], None)),
        Feed::Trips
        | Feed::Alerts
        | Feed::Locations
        | Feed::History
        | Feed::UsageHours
        | Feed::GeofenceActivity
        | Feed::Geofences => Err(Missing::because("no such feed of v3")),
    }
}

/// A stop whose end is known to the minute at best: any exact version of it will do.
fn stop(message: &mut Message<'_>) -> Result<Draft, Missing> {
    let start = message.key_time(keys!["stopDateTime"], "no start time")?;
    let lasted = message.fields.peek("durationMinutes").map_or(Read::Absent, values::minutes_in_millis);
    let end = match lasted {
        Read::Is(millis) => values::later(start, millis),
        Read::Absent => return Err(Missing::because("no duration, so no end time")),
        Read::Unreadable => None,
    };
    let end = end.ok_or_else(|| Missing::because("no usable duration, so no end time"))?;
    settled(message, end)?;
    bodies::stop(message, &Span { start, end }, Sameness::InexactStop)
}

/// A row of the list of trackers. Its fields stand beside each other, under names of their own.
fn tracker(message: &mut Message<'_>) -> Result<Draft, Missing> {
    let fields = &mut message.fields;
    let tracker = &mut message.parts.tracker;
    if tracker.id.is_empty() {
        tracker.id = parts::tracker_id(fields, keys!["id"]);
    }
    if tracker.serial_number.is_empty() {
        tracker.serial_number = fields.id(keys!["serialNumber"]);
    }
    if tracker.name.is_empty() {
        tracker.name = fields.text(keys!["trackerName", "name"]);
        message.parts.vehicle.name.clone_from(&tracker.name);
    }
    if tracker.custom_data.is_none() {
        tracker.custom_data = fields.read(keys!["customData"], values::custom_data);
    }
    if message.parts.driver.id.is_empty() {
        message.parts.driver.id = fields.id(keys!["personId"]);
    }
    // A tracker may be in several fleets; an event has one.
    if let Some(Value::List(fleets)) = fields.peek("fleetIds")
        && let [only] = fleets.as_slice()
        && let Read::Is(id) = values::id(only)
        && message.parts.fleet.id.is_empty()
    {
        message.parts.fleet.id = id;
        fields.take("fleetIds");
    }
    let provider_status = fields.text(keys!["statusCode"]);
    message.learn_tracker();
    let subject = message.tracker_subject()?;
    let kind = pb::tracker_change::Kind::Updated.into();
    let body = Body::TrackerChange(pb::TrackerChange { kind, provider_status });
    Ok(message.state(subject, StateKind::Update, Compared::Content, body))
}
