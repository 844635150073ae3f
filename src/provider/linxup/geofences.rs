//! Definitions of geofences, pushed or listed: a state of the geofence, in the format that tells it.

use super::fields::{Fields, is_nothing};
use super::message::{Message, Missing};
use super::parts::{self, Point, given};
use super::subject::{Subject, SubjectSource};
use super::values;
use crate::event::pb;
use crate::provider::draft::{Compared, Draft, StateKind};
use crate::provider::members::keys;
use crate::provider::tree::Value;
use pb::geofence_definition::Action;

/// A definition.
pub(super) fn definition(
    message: &mut Message<'_>,
    id: String,
    uuid: String,
    action: Action,
    active: Option<bool>,
) -> Result<Draft, Missing> {
    let text = if id.is_empty() { uuid.to_lowercase() } else { id.clone() };
    if text.is_empty() {
        return Err(Missing::because("no geofence id"));
    }
    let geofence = pb::Geofence {
        name: message.fields.text(keys!["name"]),
        group: parts::group(&mut message.fields),
        shape: given(shape(message)),
        active,
        custom_data: message.fields.read(keys!["customData"], values::custom_data),
        id,
        uuid,
    };
    message.learn_geofence(&geofence);
    let subject = Subject { text, others: Vec::new(), source: SubjectSource::Message };
    let body = pb::GeofenceDefinition { action: action.into(), geofence: Some(geofence) };
    let body = pb::fleet_event::Body::GeofenceDefinition(body);
    Ok(message.state(subject, StateKind::Definition, Compared::Content, body))
}

fn shape(message: &mut Message<'_>) -> pb::GeofenceShape {
    use pb::geofence_shape::Kind;
    let points = points(message);
    let fields = &mut message.fields;
    let (_, kind) = fields.word(keys!["type"], |word| {
        Some(match word.to_ascii_lowercase().as_str() {
            "circle" => Kind::Circle,
            "polygon" => Kind::Polygon,
            "landmark" => Kind::Landmark,
            _ => return None,
        })
    });
    pb::GeofenceShape {
        kind: kind.unwrap_or_default().into(),
        points,
        color: fields.read(keys!["color"], values::color).unwrap_or_default(),
        radius_meters: fields.read(keys!["radius"], values::distance),
    }
}

/// The points that can be used; where one cannot, all of them stay as they came, too.
fn points(message: &mut Message<'_>) -> Vec<pb::LatLng> {
    const KEY: &str = "points";
    let given = match message.fields.take(KEY) {
        Some(Value::List(points)) => points,
        None => return Vec::new(),
        Some(nothing) if is_nothing(&nothing) => return Vec::new(),
        Some(other) => {
            message.fields.mark_unreadable();
            message.fields.leave(KEY, other);
            return Vec::new();
        }
    };
    let mut points = Vec::with_capacity(given.len());
    let mut all_understood = true;
    for value in &given {
        let Value::Object(members) = value else {
            message.fields.mark_unreadable();
            all_understood = false;
            continue;
        };
        let mut inner = Fields::new(members.clone());
        match parts::point(&mut inner, "latitude", "longitude") {
            Point::At(point) => points.push(point),
            Point::NotGiven | Point::Unusable => {
                message.anomalies.push(pb::Anomaly::NoFix);
                all_understood = false;
            }
        }
        if inner.some_unreadable() {
            message.fields.mark_unreadable();
        }
        all_understood &= inner.rest().is_empty();
    }
    if !all_understood {
        message.fields.leave(KEY, Value::List(given));
    }
    points
}
