//! The event: the generated types of `proto/fleetbus/v1`, its type, its ids and its canonical JSON. Everything
//! here is pure. Decoders in `provider` make events; `route` and `encode` read them.

pub mod ids;
pub mod json;

use std::fmt;

use serde::{Deserialize, Serialize};

/// The generated types of `proto/fleetbus/v1`.
#[expect(missing_docs, clippy::all, reason = "generated from the schema, which carries the comments")]
pub mod pb {
    include!(concat!(env!("OUT_DIR"), "/fleetbus.v1.rs"));
}

/// What happened: the closed set of event types, spelt as topics and ids spell them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventType {
    /// A fix, or a breadcrumb.
    Position,
    /// Ignition on to ignition off.
    Trip,
    /// A stop that ended.
    Stop,
    /// A session in which an asset ran.
    Usage,
    /// An alert.
    Alert,
    /// A geofence entered or left.
    GeofenceCrossing,
    /// A geofence made, changed or deleted.
    GeofenceDefinition,
    /// A change of a tracker itself.
    Tracker,
    /// Pictures and videos of an alert.
    Media,
    /// An item seen by a tracker.
    ItemSighting,
    /// An item left behind.
    ItemLeftBehind,
}

impl EventType {
    /// Whether some of its events tell how something is, and are news by what was told before.
    #[must_use]
    pub const fn has_states(self) -> bool {
        match self {
            Self::GeofenceDefinition | Self::Tracker => true,
            Self::Position
            | Self::Trip
            | Self::Stop
            | Self::Usage
            | Self::Alert
            | Self::GeofenceCrossing
            | Self::Media
            | Self::ItemSighting
            | Self::ItemLeftBehind => false,
        }
    }

    /// Every type, in the order of the documentation.
    pub const ALL: [Self; 11] = [
        Self::Position,
        Self::Trip,
        Self::Stop,
        Self::Usage,
        Self::Alert,
        Self::GeofenceCrossing,
        Self::GeofenceDefinition,
        Self::Tracker,
        Self::Media,
        Self::ItemSighting,
        Self::ItemLeftBehind,
    ];

    /// Its place in [`EventType::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The spelling in topics, ids, metrics and the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Position => "position",
            Self::Trip => "trip",
            Self::Stop => "stop",
            Self::Usage => "usage",
            Self::Alert => "alert",
            Self::GeofenceCrossing => "geofence-crossing",
            Self::GeofenceDefinition => "geofence-definition",
            Self::Tracker => "tracker",
            Self::Media => "media",
            Self::ItemSighting => "item-sighting",
            Self::ItemLeftBehind => "item-left-behind",
        }
    }

    /// The type whose spelling is `text`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.as_str() == text)
    }

    /// The type of an event's body; none where a body of a later schema is missing here.
    #[must_use]
    pub const fn of(body: &pb::fleet_event::Body) -> Self {
        use pb::fleet_event::Body;
        match body {
            Body::Position(_) => Self::Position,
            Body::Trip(_) => Self::Trip,
            Body::Stop(_) => Self::Stop,
            Body::Usage(_) => Self::Usage,
            Body::Alert(_) => Self::Alert,
            Body::GeofenceCrossing(_) => Self::GeofenceCrossing,
            Body::GeofenceDefinition(_) => Self::GeofenceDefinition,
            Body::TrackerChange(_) => Self::Tracker,
            Body::Media(_) => Self::Media,
            Body::ItemSighting(_) => Self::ItemSighting,
            Body::ItemLeftBehind(_) => Self::ItemLeftBehind,
        }
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A topic, subject or id. Short ones are copied where they are cloned: counted references to texts that all events share would be
/// handed from one core to the other many times for each event.
pub type Text = smol_str::SmolStr;

/// An account's id in the configuration: a part of every event id. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountId(Text);

impl AccountId {
    /// Takes the text as it is: `config` has checked its form.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A point in time, in milliseconds since 1970, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Millis(pub i64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_stands_at_its_place() {
        for (index, event_type) in EventType::ALL.into_iter().enumerate() {
            assert_eq!(event_type.index(), index, "{event_type}");
        }
    }
}
