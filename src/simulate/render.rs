//! Facts in the provider's words: push flat, push V3, rows of the V2 and V3 pull APIs (`linxup/contract`). The same fact
//! has the same key fields in each, as the provider's own channels do; names, units, nulls and strings-for-numbers are
//! those of the contract.

use serde_json::{Value, json};

use super::world::{self, Braked, Doing, Fact, Point, What};

/// What the customer painted geofences with.
const COLORS: [&str; 4] = ["2f9e6b", "4a7fd6", "c98a2b", "8d63c9"];

/// The IMEI of a vehicle.
#[must_use]
pub fn imei(vehicle: u32) -> String {
    format!("{:015}", 350_000_000_000_000_u64 + u64::from(vehicle))
}

fn uuid(kind: u32, number: u32) -> String {
    format!("{kind:08x}-2222-4333-8444-{number:012x}")
}

fn name(vehicle: u32) -> String {
    let kind = if world::is_machine(vehicle) { "Digger" } else { "Van" };
    format!("{kind} {}", vehicle + 1)
}

fn serial(vehicle: u32) -> String {
    format!("SN{vehicle:06}")
}

fn octant(direction: i64) -> &'static str {
    const OCTANTS: [&str; 8] = ["N", "NE", "E", "SE", "S", "SW", "W", "NW"];
    OCTANTS[((direction + 22) / 45 % 8) as usize]
}

fn place_name(place: u32) -> &'static str {
    world::place(place).0
}

fn braking(braked: Braked) -> Option<&'static str> {
    match braked {
        Braked::Harshly => Some("HBR"),
        Braked::No => None,
    }
}

/// Code, title and text of an alert: the same in every format, as the text may be part of what makes it one fact.
fn alert(fact: &Fact) -> Option<(&'static str, &'static str, String)> {
    let name = name(fact.vehicle);
    match &fact.what {
        What::HighSpeed { speed } => {
            Some(("HIGH_SPEED", "High Speed Alert", format!("{name} was traveling {speed} mph.")))
        }
        What::HarshBraking => Some(("HARSH_BRAKING", "Harsh Braking", format!("{name} braked harshly."))),
        What::Arrived { place } => {
            let place = place_name(*place);
            Some(("GEOFENCE_ENTERED", "Geofence Entered", format!("{name} entered {place}.")))
        }
        What::Introduced
        | What::Position { .. }
        | What::Trip { .. }
        | What::Usage { .. }
        | What::Stop { .. }
        | What::Crossing { .. }
        | What::Media
        | What::Sighting { .. }
        | What::LeftBehind { .. } => None,
    }
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

/// A fact as the flat push format has it: none where it has no such message.
#[must_use]
pub fn flat(fact: &Fact) -> Option<Value> {
    let v = fact.vehicle;
    let device = json!({
        "deviceNumber": imei(v), "deviceSerialNumber": serial(v), "deviceUUID": uuid(1, v),
        "deviceTypeDescription": "Linxup Plugin", "driverNumber": null, "firstName": name(v), "lastName": "",
        "fleetName": "Default", "vin": format!("TESTVIN{v:010}"), "make": "Ford", "model": "Transit", "year": "2021",
        "customerUUID": uuid(2, 1)
    });
    let own = match &fact.what {
        What::Position { point, speed, direction, odometer, doing, braked, .. } => json!({
            "pushType": "POSITION", "date": fact.at, "latitude": point.lat, "longitude": point.lon, "altitude": 141,
            "speed": speed, "heading": if *doing == Doing::Moving { octant(*direction) } else { "None" },
            "direction": direction, "odo": odometer, "battery": "13.9", "fuelLevel": "61.5%", "estSpeedLimit": 35,
            "speeding": if *doing == Doing::Moving { json!(false) } else { Value::Null },
            "behaviorCd": braking(*braked), "street": null, "city": null, "sensorData": [],
            "currentState": if *doing == Doing::Moving { "MOVING" } else { "STOPPED" },
            "engineOn": *doing != Doing::Parked
        }),
        What::Trip { start, from, to, miles } => json!({
            "pushType": "TRIP", "startDateTime": start, "endDateTime": fact.at - 1, "startLatitude": from.lat,
            "startLongitude": from.lon, "endLatitude": to.lat, "endLongitude": to.lon,
            "startAddress": "1 Example St, Sampletown, MO 00000", "endAddress": null,
            "durationMinutes": minutes(*start, fact.at), "distanceMiles": miles.round(), "authorizedMiles": miles.round(),
            "unauthorizedMiles": 0, "distanceMilesDetailed": miles, "authorizedMilesDetailed": miles,
            "unauthorizedMilesDetailed": 0
        }),
        What::Usage { start, from, to } => json!({
            "pushType": "USAGE_HOURS", "startDateTime": start, "endDateTime": fact.at - 1, "startLatitude": from.lat,
            "startLongitude": from.lon, "endLatitude": to.lat, "endLongitude": to.lon, "startAddress": null,
            "endAddress": null, "startFenceName": null, "endFenceName": null,
            "durationMinutes": minutes(*start, fact.at)
        }),
        What::Stop { start, point, doing } => json!({
            "pushType": "STOP", "startDateTime": start, "endDateTime": fact.at,
            "stopType": if *doing == Doing::Idling { "Idling" } else { "Engine Off" },
            "durationMinutes": minutes(*start, fact.at), "latitude": point.lat, "longitude": point.lon,
            "street": null, "city": null, "stateCode": null, "postalCode": null, "countryCode": "USA"
        }),
        What::Crossing { place, left, .. } => {
            let point = world::place(*place).1;
            json!({
                "pushType": "FENCE_EVENT", "date": fact.at, "latitude": point.lat, "longitude": point.lon, "speed": 0,
                "heading": "None", "direction": 0, "currentState": "STOPPED", "engineOn": false,
                "fenceName": place_name(*place), "geofenceUUID": uuid(9, *place),
                "fenceEventCd": if left.is_some() { "FENCE_EXIT" } else { "FENCE_ENTER" }
            })
        }
        What::HighSpeed { .. } | What::HarshBraking | What::Arrived { .. } => {
            let (code, title, text) = alert(fact)?;
            json!({
                "pushType": "ALERT", "fenceName": null, "geofenceUUID": null, "alertCode": code,
                "alertShortDesc": title, "alertDesc": text, "alertDateTime": fact.at
            })
        }
        // A device update: no type, no time.
        What::Introduced => json!({}),
        What::Media | What::Sighting { .. } | What::LeftBehind { .. } => return None,
    };
    Some(merge(device, own))
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

/// The tool whose tag a vehicle's tracker sees.
fn v3_item(vehicle: u32) -> Value {
    json!({
        "trackedItem": {
            "itemId": 18_000_800_000_u64 + u64::from(vehicle), "itemName": format!("Drill {}", vehicle + 1),
            "makeModel": "Bosch GSB 18V", "serialNumber": format!("IT{vehicle:06}")
        },
        "toolTracker": {
            "toolTrackerId": 18_000_900_000_u64 + u64::from(vehicle), "serialNumber": format!("TG{vehicle:06}"),
            "fleetId": null, "leftBehindAlertExcluded": false, "notes": null, "markerInitials": "DR",
            "homeBaseGeofenceId": null
        }
    })
}

/// A fact as the V3 push format has it.
#[must_use]
pub fn nested(fact: &Fact) -> Value {
    let v = fact.vehicle;
    let own = match &fact.what {
        What::Position { point, speed, direction, odometer, doing, braked, crumbs: between } => json!({
            "date": fact.at, "latitude": point.lat, "longitude": point.lon, "altitude": 141.0, "speed": speed,
            "heading": if *doing == Doing::Moving { json!(octant(*direction)) } else { Value::Null },
            "direction": direction, "odometer": odometer, "battery": "13.912/4.144", "fuelLevel": null,
            "accuracy": "3", "signal": "-71", "estimatedSpeedLimit": 35, "speeding": false,
            "behaviorCode": braking(*braked), "editDate": fact.at + 2_300, "engineOn": *doing != Doing::Parked,
            "batchedPositions": crumbs(between), "sensorData": [], "address": null
        }),
        What::Trip { start, from, to, miles } => json!({
            "startDateTime": start, "endDateTime": fact.at - 1, "startLatitude": from.lat, "startLongitude": from.lon,
            "endLatitude": to.lat, "endLongitude": to.lon, "startAddress": {}, "endAddress": {}, "authorized": true,
            "durationMinutes": minutes(*start, fact.at), "distanceMiles": miles, "authorizedMiles": miles,
            "unauthorizedMiles": 0.0, "startGeofence": null, "endGeofence": null
        }),
        What::Usage { start, from, to } => json!({
            "startDate": start, "endDate": fact.at - 1, "startLatitude": from.lat, "startLongitude": from.lon,
            "endLatitude": to.lat, "endLongitude": to.lon, "engineOn": true,
            "durationMinutes": minutes(*start, fact.at), "startAddress": {}, "endAddress": {}, "startGeofence": null,
            "endGeofence": null
        }),
        What::Stop { start, point, doing } => json!({
            "startDateTime": start, "endDateTime": fact.at,
            "stopType": if *doing == Doing::Idling { "Idling" } else { "OFF" }, "latitude": point.lat,
            "longitude": point.lon, "durationMinutes": minutes(*start, fact.at), "address": {}, "geofence": null
        }),
        What::Crossing { place, entered, left } => json!({
            "eventType": if left.is_some() { "FENCE_EXIT" } else { "FENCE_ENTER" }, "enterDateTime": entered,
            "exitDateTime": left, "durationMinutes": left.map(|left| minutes(*entered, left)),
            "geofence": v3_geofence(*place)
        }),
        What::HighSpeed { .. } | What::HarshBraking | What::Arrived { .. } => {
            let (code, title, text) = alert(fact).unwrap_or_default();
            json!({
                "alertId": fact.at * 1_000 + i64::from(v), "alertCode": code, "alertShortDescription": title,
                "alertDescription": text, "alertDateTime": fact.at, "latitude": null, "longitude": null
            })
        }
        What::Introduced => json!({ "statusChangeType": "ACTIVATE" }),
        // Neither tracker nor company.
        What::Media => {
            let id = (fact.at * 1_000 + i64::from(v)).to_string();
            let url = |what: &str| format!("https://media.example.invalid/{id}/{what}");
            return json!({
                "mediaId": id, "mediaTimestamp": fact.at, "videoInside": null, "videoOutside": url("outside.mp4"),
                "videoAux": null, "thumbnailInside": null, "thumbnailOutside": url("outside.jpg"), "thumbnailAux": null
            });
        }
        What::Sighting { point } => merge(
            json!({
                "timestamp": fact.at, "latitude": point.lat, "longitude": point.lon, "rssi": -64, "batteryPercent": 88
            }),
            v3_item(v),
        ),
        What::LeftBehind { seen, point } => {
            let own = json!({
                "leftBehindTimestamp": fact.at, "lastSeenTimestamp": seen, "lastSeenLatitude": point.lat,
                "lastSeenLongitude": point.lon, "lastSeenRssi": -91, "lastSeenBatteryPercent": 87,
                "company": { "id": 180_001 }, "lastSeenByTracker": v3_objects(v)["tracker"]
            });
            return merge(own, v3_item(v));
        }
    };
    merge(v3_objects(v), own)
}

/// The fields of a device in rows of the V2 pull API.
fn v2_device(vehicle: u32) -> Value {
    json!({
        "imei": imei(vehicle), "deviceUUID": uuid(1, vehicle), "deviceSerialNumber": serial(vehicle),
        "firstName": name(vehicle), "lastName": "", "appDriverName": "No Driver Assigned"
    })
}

/// A fact as a row of the V2 pull API: none where it has no such list.
#[must_use]
pub fn v2_row(fact: &Fact) -> Option<Value> {
    let v = fact.vehicle;
    let own = match &fact.what {
        What::Position { point, speed, direction, odometer, doing, braked, .. } => json!({
            "driverId": 18_000_100_000_u64 + u64::from(v), "date": fact.at, "editDate": null, "personName": name(v),
            "assetTracker": false, "deviceReportTypeCode": "XX", "latitude": point.lat, "longitude": point.lon,
            "heading": octant(*direction), "direction": direction, "speed": speed, "speeding": false,
            "behaviorCd": braking(*braked), "estSpeedLimit": 35, "fleetId": 18_000_300_002_u64,
            "vin": format!("TESTVIN{v:010}"), "make": "Ford", "model": "Transit", "year": "2021",
            "fuelLevel": "61.5%", "battery": "13.9", "trueOdo": null, "virtualOdo": odometer, "sensorData": [],
            "status": match doing {
                Doing::Moving => "Moving",
                Doing::Idling => "Idle",
                Doing::Parked => "Stopped",
            }
        }),
        What::Trip { start, from, to, miles } => json!({
            "driverName": name(v), "startDateTime": start, "startLatitude": from.lat, "startLongitude": from.lon,
            "startAddress": null, "endDateTime": fact.at - 1, "endLatitude": to.lat, "endLongitude": to.lon,
            "endAddress": null, "durationMinutes": minutes(*start, fact.at), "distanceMiles": miles.round(),
            "distanceMilesDetailed": miles, "authorized": true, "tripUUID": uuid(3, (fact.at % 1_000_000_000) as u32)
        }),
        What::Usage { start, from, to } => json!({
            "segmentId": fact.at * 100 + i64::from(v), "driverId": 18_000_100_000_u64 + u64::from(v),
            "fleetId": 18_000_300_002_u64, "deviceNbr": imei(v), "startDateTime": start, "endDateTime": fact.at - 1,
            "startLatitude": from.lat, "startLongitude": from.lon, "endLatitude": to.lat, "endLongitude": to.lon,
            "startAddress": null, "endAddress": null, "durationMinutes": minutes(*start, fact.at),
            "minutesToNextSegment": null, "startGeofenceName": null, "endGeofenceName": null
        }),
        What::Stop { start, point, doing } => json!({
            "deviceNbr": imei(v), "stopType": if *doing == Doing::Idling { "Idling" } else { "Engine Off" }, "beginDate": start, "endDate": fact.at,
            "duration": minutes(*start, fact.at), "driverName": name(v), "latitude": point.lat,
            "longitude": point.lon, "geofenceName": null, "stopUUID": uuid(4, (fact.at % 1_000_000_000) as u32)
        }),
        What::Crossing { place, entered, left } => json!({
            "id": fact.at * 100 + i64::from(v), "driverId": 18_000_100_000_u64 + u64::from(v), "driverName": name(v),
            "appDriverId": 0, "fenceUUID": uuid(9, *place), "fenceId": 18_000_400_000_u64 + u64::from(*place),
            "fenceName": place_name(*place), "fenceGroup": "No Group", "enterDateTime": entered,
            "exitDateTime": left, "totalTimeInFence": left.map(|left| minutes(*entered, left))
        }),
        What::HighSpeed { .. } | What::HarshBraking | What::Arrived { .. } => {
            let (code, title, text) = alert(fact)?;
            json!({
                "deviceNumber": imei(v), "deviceTypeDescription": "Linxup Plugin", "alertCode": code,
                "alertShortDesc": title, "alertDesc": text, "alertDateTime": fact.at,
                "alertUUID": uuid(5, (fact.at % 1_000_000_000) as u32), "mediaId": null
            })
        }
        What::Introduced | What::Media | What::Sighting { .. } | What::LeftBehind { .. } => return None,
    };
    Some(merge(v2_device(v), own))
}

/// A fact as a row of the V3 pull API.
#[must_use]
pub fn v3_row(fact: &Fact) -> Option<Value> {
    let mut row = nested(fact);
    if let Value::Object(row) = &mut row {
        match &fact.what {
            What::Position { odometer, .. } => {
                for absent in ["date", "odometer", "batchedPositions"] {
                    row.remove(absent);
                }
                row.insert("positionDate".to_owned(), json!(fact.at));
                row.insert("virtualOdo".to_owned(), json!(odometer));
            }
            What::Stop { start, .. } => {
                for absent in ["startDateTime", "endDateTime", "stopType"] {
                    row.remove(absent);
                }
                row.insert("stopDateTime".to_owned(), json!(start));
            }
            What::Introduced
            | What::Trip { .. }
            | What::Usage { .. }
            | What::Crossing { .. }
            | What::HighSpeed { .. }
            | What::HarshBraking
            | What::Arrived { .. }
            | What::Media
            | What::Sighting { .. }
            | What::LeftBehind { .. } => return None,
        }
    }
    Some(row)
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
pub fn v2_geofence(place: u32) -> Value {
    let point = world::place(place).1;
    json!({
        "agilisGeofenceId": (18_000_400_000_u64 + u64::from(place)).to_string(), "geofenceUUID": uuid(9, place),
        "name": place_name(place), "color": COLORS[place as usize % COLORS.len()], "type": "Circle", "fenceGroup": "No Group", "status": "ACT",
        "points": [{ "latitude": point.lat, "longitude": point.lon }], "radius": 0.1, "trackers": [], "drivers": [],
        "groups": []
    })
}
