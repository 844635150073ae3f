//! What decoding yields: drafts of events with the ids by which dedup may know them, or why there are none. Facts are final
//! but for custom data; states need the last state of their key, see [`super::state`].

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::directory::{Directory, Pair};
use crate::event::ids::Ids;
use crate::event::{AccountId, EventType, Millis, pb};

/// What decoding knows beside the bytes.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// Whose message it is.
    pub account: &'a AccountId,
    /// How it came.
    pub channel: pb::origin::Channel,
    /// When it came.
    pub received_at: Millis,
    /// What is known of the account's ids.
    pub directory: &'a Directory,
}

/// Why a message or row made no event. Never holds anything of the payload's values.
pub type Reason = Cow<'static, str>;

/// Everything that one raw element says.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// Its events, or why there are none.
    pub outcome: Outcome,
    /// Pairs of ids that it carries, for [`Directory::learn`].
    pub learnt: Vec<Pair>,
    /// Whether the hint of its URL fits.
    pub hint: Hint,
}

/// Whether a hint names the type that the message has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// There was none, or it names no type.
    None,
    /// It does.
    Fits,
    /// It names another: counted.
    Contradicts,
}

/// What became of one raw element.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// One event or more.
    Events(Vec<Draft>),
    /// A row that is skipped by rule; it may still tell something of its tracker.
    Skipped {
        /// Which rule.
        reason: Reason,
        /// What it tells all the same.
        drafts: Vec<Draft>,
    },
    /// Of no known type: kept raw.
    Unrecognized(Reason),
    /// Of a known type, but without what its identity needs: kept raw.
    Undecodable(Reason),
}

/// An event before custom data, routing and encoding.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// The event. The ids of a fact are filled; those of a state are filled by [`super::state::resolve_state`].
    pub event: Box<pb::FleetEvent>,
    /// Its type.
    pub event_type: EventType,
    /// What makes it the same as another.
    pub identity: Identity,
}

impl Draft {
    /// The key under which the last state is to be looked up; none for a fact.
    #[must_use]
    pub const fn state_key(&self) -> Option<&StateKey> {
        match &self.identity {
            Identity::Fact { .. } => None,
            Identity::State(state) => Some(&state.key),
        }
    }
}

/// What makes an event the same as another.
#[derive(Debug, Clone, PartialEq)]
pub enum Identity {
    /// Something that happened at a time.
    Fact {
        /// Known where one of these is remembered. The event's own id comes first.
        checks: Ids,
        /// To be remembered. The event's own id comes first.
        enters: Ids,
        /// The time in the record key, which the horizon of dedup is measured by; media have none.
        key_time: Option<Millis>,
    },
    /// How something is: compared with how it was last.
    State(StateIdentity),
}

/// What a state is compared by.
#[derive(Debug, Clone, PartialEq)]
pub struct StateIdentity {
    /// Whose state, and which.
    pub key: StateKey,
    /// Its canonical content: sorted keys, no blanks. Its digest is in the version.
    pub content: String,
    /// What decides whether it differs from the last one.
    pub compared: Compared,
    /// The other subjects under which the tracker may be known.
    pub other_subjects: Vec<String>,
    /// When it was received.
    pub received_at: Millis,
}

/// What decides whether a state differs from the last one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compared {
    /// The content.
    Content,
    /// The provider's word for being offline; empty: not offline, which is news only after a word.
    OfflineWord(String),
}

/// Which state of which thing, of one account.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StateKey {
    /// The subject.
    pub subject: String,
    /// The event type.
    pub event_type: EventType,
    /// Which state of it.
    pub kind: StateKind,
    /// The wire format that tells it; formats tell different things.
    pub format: Cow<'static, str>,
}

/// Which state of a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StateKind {
    /// A tracker's activation.
    Status,
    /// A tracker's names, fleet and driver.
    Update,
    /// A tracker's word for being offline.
    Offline,
    /// A geofence's definition.
    Definition,
}

impl StateKind {
    /// The spelling in record keys and the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Update => "update",
            Self::Offline => "offline",
            Self::Definition => "definition",
        }
    }
}
