//! States: changes of a tracker and definitions of a geofence have no time and no id of their own. Each is compared with the
//! *last* state of its key, never with older ones: activated, deactivated, activated are three events. Pure.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::draft::{Compared, Draft, Identity, StateIdentity};
use crate::event::ids::Ids;
use crate::event::{AccountId, Millis, ids, pb};

/// So much of an offline word is compared: it is kept in memory for as long as the process lives.
const MAX_WORD_CHARS: usize = 256;

/// What is kept of the last state of a [`super::StateKey`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastState {
    /// Its event id.
    #[serde(with = "uuid_text")]
    pub id: Uuid,
    /// What the next one is compared with: a digest of the content, or the offline word.
    pub compared: String,
    /// When it was received.
    pub received_at: Millis,
}

/// What a draft is once the last state of its key is known.
#[derive(Debug, Clone, PartialEq)]
pub enum Resolved {
    /// An event to be published.
    Event {
        /// With its ids.
        event: Box<pb::FleetEvent>,
        /// Known where one of these is remembered.
        checks: Ids,
        /// To be remembered.
        enters: Ids,
        /// The last state from now on; none where that stays.
        new_last: Option<LastState>,
    },
    /// The last state again, with its id.
    Duplicate {
        /// With the ids of the last state.
        event: Box<pb::FleetEvent>,
        /// The last state from now on, where it was seen later than before: what was received earlier does not replace it.
        new_last: Option<LastState>,
    },
    /// No news, and never an event: a tracker that is not offline, and was not.
    Silent {
        /// As of a duplicate.
        new_last: Option<LastState>,
    },
}

/// Makes an event of a draft. A fact is one already. Of a state, `last` is what its key had last.
#[must_use]
pub fn resolve_state(draft: Draft, last: Option<&LastState>) -> Resolved {
    let Draft { mut event, event_type, identity } = draft;
    let state = match identity {
        Identity::Fact { checks, enters, .. } => {
            return Resolved::Event { event, checks, enters, new_last: None };
        }
        Identity::State(state) => state,
    };
    let digest = hex(&Sha256::digest(state.content.as_bytes()));
    let compared = match &state.compared {
        Compared::Content => digest.clone(),
        Compared::OfflineWord(word) => word.chars().take(MAX_WORD_CHARS).collect(),
    };
    let origin = event.origin.clone().unwrap_or_default();
    let account = AccountId::new(&origin.account);
    let record = |subject: &str| {
        let keys = [state.key.kind.as_str(), &*state.key.format];
        ids::record_id(&origin.provider, &account, event_type, subject, &keys)
    };
    let own_record = record(&state.key.subject);
    event.record_id = own_record.to_string();
    // Digests have no upper case; the provider's words may have any.
    let is_last = last.is_some_and(|last| last.compared.eq_ignore_ascii_case(&compared));
    if is_last || (last.is_none() && is_back_online(&state)) {
        let new_last = last
            .filter(|last| last.received_at < state.received_at)
            .map(|last| LastState { received_at: state.received_at, ..last.clone() });
        return match last {
            Some(last) if !is_back_online(&state) => {
                event.id = last.id.to_string();
                Resolved::Duplicate { event, new_last }
            }
            Some(_) | None => Resolved::Silent { new_last },
        };
    }
    let digest = digest.get(..16).unwrap_or(&digest);
    let version = ids::state_version(digest, last.map(|last| last.id));
    let id = ids::event_id(own_record, &version);
    event.id = id.to_string();
    let mut all = Ids::from_slice(&[id]);
    all.extend(state.other_subjects.iter().map(|subject| ids::event_id(record(subject), &version)));
    let stays = last.is_some_and(|last| state.received_at < last.received_at);
    let new_last = (!stays).then_some(LastState { id, compared, received_at: state.received_at });
    Resolved::Event { event, checks: all.clone(), enters: all, new_last }
}

fn is_back_online(state: &StateIdentity) -> bool {
    match &state.compared {
        Compared::Content => false,
        Compared::OfflineWord(word) => word.is_empty(),
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A UUID as text in the store.
mod uuid_text {
    use serde::{Deserialize as _, Deserializer, Serializer, de};
    use uuid::Uuid;

    pub(super) fn serialize<S: Serializer>(id: &Uuid, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(id)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Uuid, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        Uuid::parse_str(&text).map_err(de::Error::custom)
    }
}
