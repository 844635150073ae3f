//! Facts in the provider's words: push flat, push V3, rows of the V2 and V3 pull APIs (`linxup/contract`). The same fact
//! has the same key fields in each, as the provider's own channels do; names, units, nulls and strings-for-numbers are
//! those of the contract.

use serde_json::{Value, json};

use super::world::{Fact, Point, What, World};

/// The IMEI of a vehicle.
#[must_use]
pub fn imei(vehicle: u32) -> String {
    format!("{:015}", 350_000_000_000_000_u64 + u64::from(vehicle))
}

fn uuid(kind: u32, number: u32) -> String {
    format!("{kind:08x}-2222-4333-8444-{number:012x}")
}

fn name(vehicle: u32) -> String {
    format!("Van {vehicle}")
}

fn serial(vehicle: u32) -> String {
    format!("SN{vehicle:06}")
}

fn octant(direction: i64) -> &'static str {
    match direction {
        90 => "E",
        180 => "S",
        270 => "W",
        _ => "N",
    }
}

fn place_name(place: u32) -> String {
    format!("Place {place}")
}

fn merge(mut object: Value, more: Value) -> Value {
    if let (Value::Object(object), Value::Object(more)) = (&mut object, more) {
        object.extend(more);
    }
    object
}

fn minutes(from: i64, to: i64) -> i64 {
    (to - from) / 60_000
}

/// A fact as the flat push format has it.
#[must_use]
pub fn flat(world: &World, fact: &Fact) -> Value {
    let v = fact.vehicle;
    let common = json!({
        "deviceNumber": imei(v), "deviceSerialNumber": serial(v), "deviceUUID": uuid(1, v),
        "deviceTypeDescription": "Linxup Plugin", "driverNumber": null, "firstName": name(v), "lastName": "",
        "fleetName": "Default", "vin": format!("TESTVIN{v:010}"), "make": "Ford", "model": "Transit", "year": "2021",
        "customerUUID": uuid(2, 1)
    });
    let own = match &fact.what {
        What::Position { point, speed, direction, odometer, moving, .. } => json!({
            "pushType": "POSITION", "date": fact.at, "latitude": point.lat, "longitude": point.lon, "altitude": 141,
            "speed": speed, "heading": if *moving { octant(*direction) } else { "None" }, "direction": direction,
            "odo": odometer, "battery": "13.9", "fuelLevel": "61.5%", "estSpeedLimit": 35,
            "speeding": if *moving { json!(false) } else { Value::Null }, "behaviorCd": null, "street": null,
            "currentState": if *moving { "MOVING" } else { "STOPPED" }, "engineOn": moving, "sensorData": []
        }),
        What::Trip { start, from, to, miles } => json!({
            "pushType": "TRIP", "startDateTime": start, "endDateTime": fact.at - 1, "startLatitude": from.lat,
            "startLongitude": from.lon, "endLatitude": to.lat, "endLongitude": to.lon,
            "startAddress": "1 Example St, Sampletown, MO 00000", "endAddress": null,
            "durationMinutes": minutes(*start, fact.at), "distanceMiles": miles.round(), "authorizedMiles": miles.round(),
            "unauthorizedMiles": 0, "distanceMilesDetailed": miles, "authorizedMilesDetailed": miles,
            "unauthorizedMilesDetailed": 0
        }),
        What::Stop { start, point } => json!({
            "pushType": "STOP", "startDateTime": start, "endDateTime": fact.at, "stopType": "Engine Off",
            "durationMinutes": minutes(*start, fact.at), "latitude": point.lat, "longitude": point.lon,
            "street": null, "city": null, "stateCode": null, "postalCode": null, "countryCode": "USA"
        }),
        What::Crossing { place, left, .. } => {
            let point = world.place(*place);
            json!({
                "pushType": "FENCE_EVENT", "date": fact.at, "latitude": point.lat, "longitude": point.lon, "speed": 0,
                "heading": "None", "direction": 0, "currentState": "STOPPED", "engineOn": false,
                "fenceName": place_name(*place), "geofenceUUID": uuid(9, *place),
                "fenceEventCd": if left.is_some() { "FENCE_EXIT" } else { "FENCE_ENTER" }
            })
        }
        What::HighSpeed { speed } => json!({
            "pushType": "ALERT", "fenceName": null, "geofenceUUID": null, "alertCode": "HIGH_SPEED",
            "alertShortDesc": "High Speed Alert", "alertDateTime": fact.at,
            "alertDesc": format!("{} was traveling {speed} mph.", name(v))
        }),
    };
    merge(common, own)
}

fn v3_objects(vehicle: u32) -> Value {
    json!({
        "tracker": {
            "trackerId": 18_000_100_000_u64 + u64::from(vehicle), "name": name(vehicle),
            "deviceNumber": imei(vehicle), "deviceSerialNumber": serial(vehicle)
        },
        "person": null, "company": { "companyId": 180_001, "name": "Example Co" },
        "fleet": { "fleetId": 18_000_300_002_u64, "name": "Default" },
        "asset": { "vin": format!("TESTVIN{vehicle:010}"), "make": "Ford", "model": "Transit", "year": 2021 }
    })
}

fn v3_geofence(place: u32) -> Value {
    json!({ "geofenceId": 18_000_400_000_u64 + u64::from(place), "name": place_name(place), "fenceGroup": "No Group" })
}

fn crumbs(crumbs: &[(i64, Point)]) -> Value {
    if crumbs.is_empty() {
        return Value::Null;
    }
    let text = crumbs.iter().map(|(at, point)| format!("{at},{},{},141.0;", point.lat, point.lon));
    Value::String(text.collect())
}

/// A fact as the V3 push format has it.
#[must_use]
pub fn nested(_world: &World, fact: &Fact) -> Value {
    let own = match &fact.what {
        What::Position { point, speed, direction, odometer, moving, crumbs: between } => json!({
            "date": fact.at, "latitude": point.lat, "longitude": point.lon, "altitude": 141.0, "speed": speed,
            "heading": if *moving { json!(octant(*direction)) } else { Value::Null }, "direction": direction,
            "odometer": odometer, "battery": "13.912/4.144", "fuelLevel": null, "accuracy": "3", "signal": "-71",
            "estimatedSpeedLimit": 35, "speeding": false, "behaviorCode": null, "editDate": fact.at + 2_300,
            "engineOn": moving, "batchedPositions": crumbs(between), "sensorData": [], "address": null
        }),
        What::Trip { start, from, to, miles } => json!({
            "startDateTime": start, "endDateTime": fact.at - 1, "startLatitude": from.lat, "startLongitude": from.lon,
            "endLatitude": to.lat, "endLongitude": to.lon, "startAddress": {}, "endAddress": {}, "authorized": true,
            "durationMinutes": minutes(*start, fact.at), "distanceMiles": miles, "authorizedMiles": miles,
            "unauthorizedMiles": 0.0, "startGeofence": null, "endGeofence": null
        }),
        What::Stop { start, point } => json!({
            "startDateTime": start, "endDateTime": fact.at, "stopType": "OFF", "latitude": point.lat,
            "longitude": point.lon, "durationMinutes": minutes(*start, fact.at), "address": {}, "geofence": null
        }),
        What::Crossing { place, entered, left } => json!({
            "eventType": if left.is_some() { "FENCE_EXIT" } else { "FENCE_ENTER" }, "enterDateTime": entered,
            "exitDateTime": left, "durationMinutes": left.map(|left| minutes(*entered, left)),
            "geofence": v3_geofence(*place)
        }),
        What::HighSpeed { speed } => json!({
            "alertId": fact.at * 1_000 + i64::from(fact.vehicle), "alertCode": "HIGH_SPEED",
            "alertShortDescription": "High Speed", "alertDateTime": fact.at, "latitude": null, "longitude": null,
            "alertDescription": format!("{} was traveling {speed} mph.", name(fact.vehicle))
        }),
    };
    merge(v3_objects(fact.vehicle), own)
}

/// The fields of a device in rows of the V2 pull API.
fn v2_device(vehicle: u32) -> Value {
    json!({
        "imei": imei(vehicle), "deviceUUID": uuid(1, vehicle), "deviceSerialNumber": serial(vehicle),
        "firstName": name(vehicle), "lastName": "", "appDriverName": "No Driver Assigned"
    })
}

/// A fact as a row of the V2 pull API.
#[must_use]
pub fn v2_row(_world: &World, fact: &Fact) -> Value {
    let v = fact.vehicle;
    let own = match &fact.what {
        What::Position { point, speed, direction, odometer, moving, .. } => json!({
            "driverId": 18_000_100_000_u64 + u64::from(v), "date": fact.at, "editDate": null, "personName": name(v),
            "assetTracker": false, "deviceReportTypeCode": "XX", "latitude": point.lat, "longitude": point.lon,
            "heading": octant(*direction), "direction": direction, "speed": speed, "speeding": false,
            "behaviorCd": null, "estSpeedLimit": 35, "fleetId": 18_000_300_002_u64,
            "vin": format!("TESTVIN{v:010}"), "make": "Ford", "model": "Transit", "year": "2021",
            "fuelLevel": "61.5%", "battery": "13.9", "trueOdo": null, "virtualOdo": odometer, "sensorData": [],
            "status": if *moving { "Moving" } else { "Stopped" }
        }),
        What::Trip { start, from, to, miles } => json!({
            "driverName": name(v), "startDateTime": start, "startLatitude": from.lat, "startLongitude": from.lon,
            "startAddress": null, "endDateTime": fact.at - 1, "endLatitude": to.lat, "endLongitude": to.lon,
            "endAddress": null, "durationMinutes": minutes(*start, fact.at), "distanceMiles": miles.round(),
            "distanceMilesDetailed": miles, "authorized": true, "tripUUID": uuid(3, (fact.at % 1_000_000_000) as u32)
        }),
        What::Stop { start, point } => json!({
            "deviceNbr": imei(v), "stopType": "Engine Off", "beginDate": start, "endDate": fact.at,
            "duration": minutes(*start, fact.at), "driverName": name(v), "latitude": point.lat,
            "longitude": point.lon, "geofenceName": null, "stopUUID": uuid(4, (fact.at % 1_000_000_000) as u32)
        }),
        What::Crossing { place, entered, left } => json!({
            "id": fact.at * 100 + i64::from(v), "driverId": 18_000_100_000_u64 + u64::from(v), "driverName": name(v),
            "appDriverId": 0, "fenceUUID": uuid(9, *place), "fenceId": 18_000_400_000_u64 + u64::from(*place),
            "fenceName": place_name(*place), "fenceGroup": "No Group", "enterDateTime": entered,
            "exitDateTime": left, "totalTimeInFence": left.map(|left| minutes(*entered, left))
        }),
        What::HighSpeed { speed } => json!({
            "deviceNumber": imei(v), "deviceTypeDescription": "Linxup Plugin", "alertCode": "HIGH_SPEED",
            "alertShortDesc": "High Speed Alert", "alertDateTime": fact.at, "alertUUID": uuid(5, v),
            "alertDesc": format!("{} was traveling {speed} mph.", name(v)), "mediaId": null
        }),
    };
    merge(v2_device(v), own)
}

/// A fact as a row of the V3 pull API.
#[must_use]
pub fn v3_row(world: &World, fact: &Fact) -> Value {
    let mut row = nested(world, fact);
    if let Value::Object(row) = &mut row {
        match &fact.what {
            What::Position { odometer, .. } => {
                row.remove("date");
                row.remove("odometer");
                row.remove("batchedPositions");
                row.insert("positionDate".to_owned(), json!(fact.at));
                row.insert("virtualOdo".to_owned(), json!(odometer));
            }
            What::Stop { start, .. } => {
                for absent in ["startDateTime", "endDateTime", "stopType"] {
                    row.remove(absent);
                }
                row.insert("stopDateTime".to_owned(), json!(start));
            }
            What::Trip { .. } | What::Crossing { .. } | What::HighSpeed { .. } => {}
        }
    }
    row
}

/// A tracker of the V2 list.
#[must_use]
pub fn v2_tracker(vehicle: u32) -> Value {
    merge(
        v2_device(vehicle),
        json!({
            "customerUUID": uuid(2, 1), "deviceTypeDescription": "Linxup Plugin", "year": "2021", "make": "Ford",
            "vin": format!("TESTVIN{vehicle:010}"), "driverId": 18_000_100_000_u64 + u64::from(vehicle),
            "groupId": 18_000_300_002_u64
        }),
    )
}

/// A tracker of the V3 list.
#[must_use]
pub fn v3_tracker(vehicle: u32) -> Value {
    json!({
        "trackerId": 18_000_100_000_u64 + u64::from(vehicle), "serialNumber": serial(vehicle),
        "trackerName": name(vehicle), "statusCode": "ACT", "fleetIds": [18_000_300_002_u64], "personId": null,
        "customData": null
    })
}

/// A geofence of the V2 list.
#[must_use]
pub fn v2_geofence(world: &World, place: u32) -> Value {
    let point = world.place(place);
    json!({
        "agilisGeofenceId": (18_000_400_000_u64 + u64::from(place)).to_string(), "geofenceUUID": uuid(9, place),
        "name": place_name(place), "color": "00ff00", "type": "Circle", "fenceGroup": "No Group", "status": "ACT",
        "points": [{ "latitude": point.lat, "longitude": point.lon }], "radius": 0.1, "trackers": [], "drivers": [],
        "groups": []
    })
}
