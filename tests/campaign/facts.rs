//! What a fact is, how a provider says it in either format, which id it must have, and how it is read back from a consumed
//! message. The ids are computed here from the identity table of the documentation, and share no code with the bridge.

use fleetbus::event::pb;
use pb::fleet_event::Body;
use serde_json::{Value, json};
use uuid::Uuid;

/// The namespace of all ids.
const NAMESPACE: Uuid = Uuid::from_u128(0xbd4b_bb2d_5c42_5e0d_a562_2656_493c_0dd0);
/// How long a trip lasts, in ms.
const TRIP_MS: i64 = 600_000;
/// Larger than what either bus takes in one message.
const TOO_LARGE: usize = 1_200_000;

/// Whose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Account {
    /// Pushed.
    Acme,
    /// Polled, V2.
    PolledV2,
    /// Polled, V3: an account of its own, so that neither API heals what the other leaves out.
    PolledV3,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A fix.
    Position,
    /// A fix at which it braked harshly.
    Braking,
    /// A trip that ended.
    Trip,
    /// It was too fast.
    Alert,
}

/// Something that happened to a vehicle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fact {
    pub account: Account,
    pub kind: Kind,
    pub vehicle: u32,
    /// When it happened or ended, in ms.
    pub at: i64,
}

/// The unit of order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane {
    pub account: Account,
    pub topic: &'static str,
    pub vehicle: u32,
}

/// A push format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Flat,
    V3,
}

/// Whether a bus can take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bulk {
    Fits,
    TooLarge,
}

/// The topics that events come on.
pub const TOPICS: [&str; 3] = ["position", "trip", "alert"];

impl Account {
    pub const ALL: [Self; 3] = [Self::Acme, Self::PolledV2, Self::PolledV3];
    pub const POLLED: [Self; 2] = [Self::PolledV2, Self::PolledV3];

    pub const fn word(self) -> &'static str {
        match self {
            Self::Acme => "acme",
            Self::PolledV2 => "polled-v2",
            Self::PolledV3 => "polled-v3",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|account| account.word() == word)
    }
}

impl Kind {
    pub const fn topic(self) -> &'static str {
        match self {
            Self::Position | Self::Braking => "position",
            Self::Trip => "trip",
            Self::Alert => "alert",
        }
    }

    /// Its letter in the ledger.
    pub const fn letter(self) -> char {
        match self {
            Self::Position => 'p',
            Self::Braking => 'b',
            Self::Trip => 't',
            Self::Alert => 'a',
        }
    }

    pub fn of_letter(letter: &str) -> Option<Self> {
        [Self::Position, Self::Braking, Self::Trip, Self::Alert]
            .into_iter()
            .find(|kind| letter.chars().eq([kind.letter()]))
    }
}

pub fn imei(vehicle: u32) -> String {
    format!("{:015}", 350_000_000_000_000_u64 + u64::from(vehicle))
}

fn v5(namespace: &Uuid, parts: &[&str]) -> Uuid {
    Uuid::new_v5(namespace, parts.join("\u{1f}").as_bytes())
}

impl Fact {
    pub const fn lane(&self) -> Lane {
        Lane { account: self.account, topic: self.kind.topic(), vehicle: self.vehicle }
    }

    /// The one id that its event may have.
    pub fn id(&self) -> Uuid {
        let (account, subject, at) = (self.account.word(), imei(self.vehicle), self.at.to_string());
        let begun = (self.at - TRIP_MS).to_string();
        let (keys, version): (&[&str], &str) = match self.kind {
            Kind::Position => (&[&at, ""], ""),
            Kind::Braking => (&[&at, "HBR"], ""),
            Kind::Trip => (&[&begun], &at),
            Kind::Alert => (&["HIGH_SPEED", &at, ""], ""),
        };
        let parts = [&["linxup", account, self.kind.topic(), &subject], keys].concat();
        v5(&v5(&NAMESPACE, &parts), &[version])
    }

    /// The key of its message, or the last token of its subject.
    pub fn key(&self) -> String {
        imei(self.vehicle)
    }

    /// What the provider pushes.
    pub fn said(&self, format: Format, bulk: Bulk) -> Value {
        let (at, begun) = (self.at, self.at - TRIP_MS);
        let mut said = match (format, self.kind) {
            (Format::Flat, Kind::Position | Kind::Braking) => json!({
                "pushType": "POSITION", "date": at, "latitude": 38.62701, "longitude": -90.19941, "speed": 34,
                "heading": "NE", "direction": 47, "currentState": "MOVING", "engineOn": true
            }),
            (Format::V3, Kind::Position | Kind::Braking) => json!({
                "date": at, "latitude": 38.62701, "longitude": -90.19941, "speed": 34, "direction": 47, "engineOn": true
            }),
            (Format::Flat, Kind::Trip) => json!({
                "pushType": "TRIP", "startDateTime": begun, "endDateTime": at, "durationMinutes": 10, "distanceMiles": 5
            }),
            (Format::V3, Kind::Trip) => json!({
                "startDateTime": begun, "endDateTime": at, "startLatitude": 38.6, "startLongitude": -90.2,
                "endLatitude": 38.7, "endLongitude": -90.3, "startAddress": {}, "endAddress": {}, "authorized": true,
                "durationMinutes": 10, "distanceMiles": 5.2, "authorizedMiles": 5.2, "unauthorizedMiles": 0.0
            }),
            (Format::Flat, Kind::Alert) => json!({
                "pushType": "ALERT", "alertCode": "HIGH_SPEED", "alertShortDesc": "High Speed Alert",
                "alertDesc": "was traveling 83 mph.", "alertDateTime": at
            }),
            (Format::V3, Kind::Alert) => json!({
                "alertId": 18_000_500_000_i64 + at % 1_000_000, "alertCode": "HIGH_SPEED", "alertDateTime": at,
                "alertShortDescription": "High Speed Alert", "alertDescription": "was traveling 83 mph.",
                "latitude": 38.62701, "longitude": -90.19941
            }),
        };
        match (format, self.kind) {
            (_, Kind::Position | Kind::Trip | Kind::Alert) => {}
            (Format::Flat, Kind::Braking) => said["behaviorCd"] = json!("HBR"),
            (Format::V3, Kind::Braking) => said["behaviorCode"] = json!("HBR"),
        }
        let (device, serial) = (imei(self.vehicle), format!("SN{:06}", self.vehicle));
        match format {
            Format::Flat => {
                said["deviceNumber"] = json!(device);
                said["deviceSerialNumber"] = json!(serial);
            }
            Format::V3 => {
                said["tracker"] = json!({
                    "trackerId": 18_000_100_000_u64 + u64::from(self.vehicle), "name": "Van",
                    "deviceNumber": device, "deviceSerialNumber": serial
                });
            }
        }
        if bulk == Bulk::TooLarge {
            said["somethingNew"] = json!("x".repeat(TOO_LARGE));
        }
        said
    }

    /// Reads a consumed message: the fact that it tells, and its id.
    pub fn read(payload: &[u8]) -> Option<(Self, Uuid)> {
        let event = <pb::FleetEvent as prost::Message>::decode(payload).ok()?;
        let kind = match event.body.as_ref()? {
            Body::Position(position) if position.behavior() == pb::position::Behavior::HarshBraking => {
                Kind::Braking
            }
            Body::Position(_) => Kind::Position,
            Body::Trip(_) => Kind::Trip,
            Body::Alert(_) => Kind::Alert,
            _ => return None,
        };
        let account = Account::parse(&event.origin.as_ref()?.account)?;
        let vehicle = event.subject.parse::<u64>().ok()?.checked_sub(350_000_000_000_000)?;
        let at = event.occur_time.as_ref()?;
        let at = at.seconds * 1_000 + i64::from(at.nanos) / 1_000_000;
        let id = event.id.parse().ok()?;
        Some((Self { account, kind, vehicle: u32::try_from(vehicle).ok()?, at }, id))
    }
}

#[test]
fn the_golden_ids_of_the_documentation() {
    let fact = |kind, at| Fact { account: Account::Acme, kind, vehicle: 17, at }.id().to_string();
    assert_eq!(fact(Kind::Position, 1_767_009_600_000), "8a1b7959-ffe7-5f92-b699-bc2107218705");
    assert_eq!(fact(Kind::Braking, 1_767_009_600_000), "251ad431-73ea-5fec-9086-1c927754d68d");
    assert_eq!(fact(Kind::Alert, 1_767_009_600_000), "088fbdab-ffdb-53b8-81fe-10c1d1ad6f2b");
}
