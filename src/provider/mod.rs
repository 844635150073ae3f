//! What bytes mean: a provider's messages become drafts of events. Pure: bytes, what is known of the account
//! (directory) and the time of receipt in; values out. Each provider is one folder here and one variant.

use serde::{Deserialize, Serialize};

pub mod directory;
pub mod draft;
pub mod linxup;
mod members;
mod repair;
pub mod split;
pub mod state;
mod tree;

pub use directory::{Directory, Pair, TrackerKey};
pub use draft::{
    Compared, Context, Decoded, Draft, Hint, Identity, Outcome, Reason, StateIdentity, StateKey, StateKind,
};
pub use linxup::answer::{AnswerError, MAX_ROWS, feed_of, pulled_rows, single_row, time_of_row};
pub use repair::repaired;
pub use split::{Element, MAX_ELEMENTS, SplitError, documents, elements, split};
pub use state::{LastState, Resolved, resolve_state};
pub(crate) use tree::read_bytes;

/// Decodes one element of a request, or one row of an answer, to what it says. Any bytes will do.
#[must_use]
pub fn decode(provider: Provider, source: &Source, raw: &[u8], context: &Context<'_>) -> Decoded {
    decode_document(provider, source, split::document(raw), context)
}

/// The same, of an element that may have been checked before.
#[must_use]
pub fn decode_element(
    provider: Provider,
    source: &Source,
    element: &Element,
    context: &Context<'_>,
) -> Decoded {
    decode_document(provider, source, element.document(), context)
}

fn decode_document(
    provider: Provider,
    source: &Source,
    document: Option<&str>,
    context: &Context<'_>,
) -> Decoded {
    match provider {
        Provider::Linxup => linxup::decode(source, document, context),
    }
}

/// The providers that are known: a closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// Linxup, FleetSharp, AwareGPS, CommandGPS, MotoSafety: one platform.
    Linxup,
}

impl Provider {
    /// The spelling in ids, headers and the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Linxup => "linxup",
        }
    }
}

/// What can be polled, of either API (the configuration says which feeds an API has).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Feed {
    /// V2: every tracker's last fix.
    Locations,
    /// V2: all fixes of a window.
    History,
    /// V2: trips of a window.
    Trips,
    /// V2 and V3: stops of a window.
    Stops,
    /// V2: alerts of a window.
    Alerts,
    /// V2: usage hours of a window.
    UsageHours,
    /// V2: geofence activity of a window.
    GeofenceActivity,
    /// V2 and V3: the list of trackers.
    Trackers,
    /// V2: the list of geofences.
    Geofences,
    /// V3: positions of a window.
    Positions,
}

impl Feed {
    /// Every feed.
    pub const ALL: [Self; 10] = [
        Self::Locations,
        Self::History,
        Self::Trips,
        Self::Stops,
        Self::Alerts,
        Self::UsageHours,
        Self::GeofenceActivity,
        Self::Trackers,
        Self::Geofences,
        Self::Positions,
    ];

    /// The spelling in the configuration, the store and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Locations => "locations",
            Self::History => "history",
            Self::Trips => "trips",
            Self::Stops => "stops",
            Self::Alerts => "alerts",
            Self::UsageHours => "usage-hours",
            Self::GeofenceActivity => "geofence-activity",
            Self::Trackers => "trackers",
            Self::Geofences => "geofences",
            Self::Positions => "positions",
        }
    }

    /// The feed whose spelling is `text`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|f| f.as_str() == text)
    }
}

/// The pull APIs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PullApi {
    /// `/ibis/rest/api/v2`.
    V2,
    /// `/pullapi/api/v3`.
    V3,
}

impl PullApi {
    /// The spelling in the configuration, the API, the store and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::V3 => "v3",
        }
    }

    /// The API whose spelling is `text`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::V2, Self::V3].into_iter().find(|api| api.as_str() == text)
    }
}

/// The way by which a message came, as far as decoding asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    /// Pushed, perhaps to a URL of one message type (the last path segment).
    Push {
        /// The last path segment, in lower case.
        hint: Option<String>,
    },
    /// Pulled from a feed.
    Pull {
        /// The API.
        api: PullApi,
        /// The feed.
        feed: Feed,
    },
}
