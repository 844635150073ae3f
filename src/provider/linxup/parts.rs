//! The objects that many messages share: tracker, vehicle, driver, fleet, company, places. Flat rows name them with prefixes,
//! V3 nests them; both become the same parts. Names of "drivers" in flat rows are names of the device.

use super::fields::Fields;
use super::values::{self, Read};
use crate::event::pb;
use crate::provider::members::{Keys, keys};
use crate::provider::tree::Value;

/// Who and what an event is about, beside its body.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Parts {
    pub(super) tracker: pb::Tracker,
    pub(super) vehicle: pb::Vehicle,
    pub(super) driver: pb::Person,
    pub(super) fleet: pb::Fleet,
    pub(super) company: pb::Company,
}

/// How a format names the shared objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// One row of prefixed fields: push flat and pull V2.
    Flat,
    /// Objects: V3.
    Nested,
}

/// How an id is read.
type ReadId = fn(&Value) -> Read<String>;

const IMEI: &Keys = keys!["deviceNumber", "imei", "deviceNbr"];
const NO_DRIVER: &str = "No Driver Assigned";
const NO_GROUP: &str = "No Group";

/// What is there, or nothing where all of it is empty.
pub(super) fn given<T: Default + PartialEq>(part: T) -> Option<T> {
    (part != T::default()).then_some(part)
}

pub(super) fn parts(fields: &mut Fields, layout: Layout) -> Parts {
    match layout {
        Layout::Flat => flat(fields),
        Layout::Nested => nested(fields, "tracker"),
    }
}

fn imei(fields: &mut Fields) -> String {
    fields.read(IMEI, values::imei).unwrap_or_default()
}

pub(super) fn tracker_id(fields: &mut Fields, keys: &Keys) -> String {
    fields.read(keys, values::id_but_zero).unwrap_or_default()
}

fn flat(fields: &mut Fields) -> Parts {
    let name = device_name(fields);
    Parts {
        tracker: pb::Tracker {
            id: tracker_id(fields, keys!["driverId", "agilisTrackerId"]),
            imei: imei(fields),
            serial_number: fields.id(keys!["deviceSerialNumber"]),
            uuid: fields.id(keys!["deviceUUID"]),
            name: name.clone(),
            model: fields.text(keys!["deviceTypeDescription"]),
            customer_number: fields.text(keys!["driverNumber"]),
            custom_data: None,
        },
        // The numbered twins hold the same as the named ones.
        vehicle: pb::Vehicle {
            name,
            vin: fields.text(keys!["vin", "personMisc4"]),
            make: fields.text(keys!["make", "personMisc6"]),
            model: fields.text(keys!["model", "personMisc5"]),
            year: fields.read(keys!["year", "personMisc7"], values::small),
            license_plate: fields.text(keys!["licensePlate"]),
            custom_data: None,
        },
        driver: pb::Person {
            id: fields.read(keys!["appDriverId"], values::id_but_zero).unwrap_or_default(),
            name: fields.read(keys!["appDriverName"], values::text_but(NO_DRIVER)).unwrap_or_default(),
            custom_data: None,
        },
        fleet: named_fleet(
            fields.id(keys!["fleetId", "groupId"]),
            fields.text(keys!["fleetName", "groupName"]),
            None,
        ),
        company: pb::Company { uuid: fields.id(keys!["customerUUID"]), ..Default::default() },
    }
}

/// What the customer calls the device: often all of it is in the first name.
fn device_name(fields: &mut Fields) -> String {
    let (first, last) = (fields.text(keys!["firstName"]), fields.text(keys!["lastName"]));
    let joined = match (first.is_empty(), last.is_empty()) {
        (false, false) => [first, last].join(" "),
        (false, true) => first,
        (true, _) => last,
    };
    let twins = keys!["personName", "driverName"];
    if joined.is_empty() {
        return fields.text(twins);
    }
    for twin in twins.texts() {
        match fields.peek(twin).map(values::text) {
            Some(Read::Is(same)) if same == joined => drop(fields.take(twin)),
            Some(Read::Unreadable) => fields.leave_unread(),
            Some(Read::Is(_) | Read::Absent) | None => {}
        }
    }
    joined
}

/// The objects of V3. `tracker_key` is the name of the tracker's object, which some messages call otherwise.
pub(super) fn nested(fields: &mut Fields, tracker_key: &str) -> Parts {
    let mut tracker = fields.within(tracker_key, |inner| pb::Tracker {
        id: tracker_id(inner, keys!["trackerId", "id"]),
        imei: imei(inner),
        serial_number: inner.id(keys!["deviceSerialNumber", "serialNumber"]),
        uuid: inner.id(keys!["deviceUUID", "uuid"]),
        name: inner.text(keys!["name", "trackerName"]),
        model: inner.text(keys!["deviceTypeDescription"]),
        customer_number: String::new(),
        custom_data: inner.read(keys!["customData"], values::custom_data),
    });
    // Beside the object, where it has none of them; what says the same there is not repeated.
    let beside: [(&mut String, &Keys, ReadId); 4] = [
        (&mut tracker.id, keys!["trackerId"], values::id_but_zero),
        (&mut tracker.imei, IMEI, values::imei),
        (&mut tracker.serial_number, keys!["deviceSerialNumber"], values::id),
        (&mut tracker.uuid, keys!["deviceUUID"], values::id),
    ];
    for (slot, keys, read) in beside {
        if slot.is_empty() {
            *slot = fields.read(keys, read).unwrap_or_default();
            continue;
        }
        for key in keys.texts() {
            if fields.peek(key).is_some_and(|value| values::id(value) == Read::Is(slot.clone())) {
                fields.take(key);
            }
        }
    }
    let mut vehicle = fields.within("asset", |inner| pb::Vehicle {
        name: String::new(),
        vin: inner.text(keys!["vin"]),
        make: inner.text(keys!["make"]),
        model: inner.text(keys!["model"]),
        year: inner.read(keys!["year"], values::small),
        license_plate: inner.text(keys!["licensePlate"]),
        custom_data: inner.read(keys!["customData"], values::custom_data),
    });
    vehicle.name.clone_from(&tracker.name);
    Parts {
        tracker,
        vehicle,
        driver: fields.within("person", |inner| pb::Person {
            id: inner.id(keys!["personId", "id"]),
            name: inner.read(keys!["name"], values::text_but(NO_DRIVER)).unwrap_or_default(),
            custom_data: inner.read(keys!["customData"], values::custom_data),
        }),
        fleet: fields.within("fleet", |inner| {
            let custom_data = inner.read(keys!["customData"], values::custom_data);
            named_fleet(inner.id(keys!["fleetId", "id"]), inner.text(keys!["name"]), custom_data)
        }),
        company: fields.within("company", |inner| pb::Company {
            id: inner.id(keys!["companyId", "id"]),
            name: inner.text(keys!["name"]),
            uuid: inner.id(keys!["companyUUID", "customerUUID"]),
            custom_data: inner.read(keys!["customData"], values::custom_data),
        }),
    }
}

/// `Default` without an id is how the provider says that there is no fleet.
fn named_fleet(id: String, name: String, custom_data: Option<prost_types::Struct>) -> pb::Fleet {
    let name = if id.is_empty() && name.eq_ignore_ascii_case("default") { String::new() } else { name };
    pb::Fleet { id, name, custom_data }
}

/// A geofence as an object of V3.
pub(super) fn nested_geofence(fields: &mut Fields, key: &str) -> pb::Geofence {
    fields.within(key, |inner| pb::Geofence {
        id: inner.id(keys!["geofenceId", "id"]),
        uuid: inner.id(keys!["geofenceUUID"]),
        name: inner.text(keys!["name"]),
        group: group(inner),
        custom_data: inner.read(keys!["customData"], values::custom_data),
        ..Default::default()
    })
}

/// A geofence as fields of a flat row.
pub(super) fn flat_geofence(fields: &mut Fields) -> pb::Geofence {
    pb::Geofence {
        id: fields.id(keys!["agilisGeofenceId", "fenceId"]),
        uuid: fields.id(keys!["geofenceUUID", "fenceUUID"]),
        name: fields.text(keys!["fenceName", "geofenceName"]),
        group: group(fields),
        ..Default::default()
    }
}

/// The geofence that a message stands in.
pub(super) fn geofence(fields: &mut Fields, layout: Layout) -> pb::Geofence {
    match layout {
        Layout::Flat => flat_geofence(fields),
        Layout::Nested => nested_geofence(fields, "geofence"),
    }
}

pub(super) fn group(fields: &mut Fields) -> String {
    fields.read(keys!["fenceGroup"], values::text_but(NO_GROUP)).unwrap_or_default()
}

/// What says that there is nothing says so also where it has no place: a heading of `None`, with its direction 0, and a fence group
/// of `No Group`.
pub(super) fn drop_sentinels(fields: &mut Fields) {
    if says(fields, "fenceGroup", NO_GROUP) {
        fields.take("fenceGroup");
    }
    if says(fields, "heading", "none") {
        fields.take("heading");
        if fields.peek("direction").map(values::number) == Some(Read::Is(0.0)) {
            fields.take("direction");
        }
    }
}

fn says(fields: &Fields, key: &str, word: &str) -> bool {
    matches!(fields.peek(key), Some(Value::Text(text)) if text.trim().eq_ignore_ascii_case(word))
}

/// An address beside other fields, or as an object.
pub(super) fn address(fields: &mut Fields, layout: Layout) -> pb::Address {
    match layout {
        Layout::Flat => address_parts(fields),
        Layout::Nested => address_at(fields, "address"),
    }
}

/// An address under a key: one line, or an object.
pub(super) fn address_at(fields: &mut Fields, key: &str) -> pb::Address {
    if matches!(fields.peek(key), Some(Value::Text(_) | Value::Number(_))) {
        return pb::Address {
            formatted: fields.read_one(key, values::text).unwrap_or_default(),
            ..Default::default()
        };
    }
    fields.within(key, address_parts)
}

fn address_parts(fields: &mut Fields) -> pb::Address {
    pb::Address {
        formatted: String::new(),
        street: fields.text(keys!["street"]),
        street2: fields.text(keys!["street2", "street_2"]),
        street3: fields.text(keys!["street3", "street_3"]),
        city: fields.text(keys!["city"]),
        county: fields.text(keys!["county"]),
        region: fields.text(keys!["stateCode"]),
        postal_code: fields.text(keys!["postalCode"]),
        postal_code_extension: fields.text(keys!["postalCodeExtension"]),
        country_code: fields.text(keys!["countryCode"]),
    }
}

/// A coordinate, as far as it can be used.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Point {
    At(pb::LatLng),
    NotGiven,
    /// Given, but (0, 0), out of range, half, or not numbers.
    Unusable,
}

impl Point {
    pub(super) fn of(latitude: f64, longitude: f64) -> Self {
        let in_range = latitude.abs() <= 90.0 && longitude.abs() <= 180.0;
        if in_range && (latitude, longitude) != (0.0, 0.0) {
            Self::At(pb::LatLng { latitude, longitude })
        } else {
            Self::Unusable
        }
    }

    pub(super) fn usable(self) -> Option<pb::LatLng> {
        match self {
            Self::At(point) => Some(point),
            Self::NotGiven | Self::Unusable => None,
        }
    }
}

/// The coordinate under two keys. What cannot be used stays in the fields, but for (0, 0), which says nothing.
pub(super) fn point(fields: &mut Fields, latitude_key: &str, longitude_key: &str) -> Point {
    let given = fields.has(latitude_key) || fields.has(longitude_key);
    let raw = [latitude_key, longitude_key].map(|key| (key, fields.peek(key).cloned()));
    let latitude = fields.read_one(latitude_key, values::number);
    let longitude = fields.read_one(longitude_key, values::number);
    let point = match (latitude, longitude) {
        (Some(latitude), Some(longitude)) => Point::of(latitude, longitude),
        (None, None) if !given => Point::NotGiven,
        (_, _) => Point::Unusable,
    };
    if point == Point::Unusable && (latitude, longitude) != (Some(0.0), Some(0.0)) {
        for (key, value) in raw {
            if let Some(value) = value {
                fields.leave(key, value);
            }
        }
    }
    point
}

/// The readings under `sensorData`. A reading that is not quite understood stays as it came.
pub(super) fn sensors(fields: &mut Fields) -> Vec<pb::SensorReading> {
    let readings = match fields.take("sensorData") {
        Some(Value::List(readings)) => readings,
        Some(Value::Null) | None => return Vec::new(),
        Some(Value::Text(text)) if text.trim().is_empty() => return Vec::new(),
        Some(other) => {
            fields.mark_unreadable();
            fields.leave("sensorData", other);
            return Vec::new();
        }
    };
    let mut understood = Vec::with_capacity(readings.len());
    let mut kept = Vec::new();
    for reading in readings {
        let Value::Object(members) = &reading else {
            if reading != Value::Null {
                fields.mark_unreadable();
                kept.push(reading);
            }
            continue;
        };
        let mut inner = Fields::new(members.clone());
        let number = inner.read(keys!["sensorNumber"], values::small);
        let temperature_celsius = inner.read(keys!["temperature"], values::fahrenheit);
        let humidity_percent = inner.read(keys!["humidity"], values::percent);
        let unreadable = inner.some_unreadable() || number.is_none();
        if let Some(number) = number {
            understood.push(pb::SensorReading { number, temperature_celsius, humidity_percent });
        }
        if unreadable {
            fields.mark_unreadable();
        }
        if unreadable || !inner.rest().is_empty() {
            kept.push(reading);
        }
    }
    if !kept.is_empty() {
        fields.leave("sensorData", Value::List(kept));
    }
    understood
}
