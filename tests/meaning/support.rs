//! Runs payloads through splitting, decoding and resolving, as `convert` does: one directory, one set of states a run.

use std::collections::HashMap;
use std::path::PathBuf;

use fleetbus::event::{AccountId, EventType, Millis, json, pb};
use fleetbus::provider::{
    Context, Decoded, Directory, Feed, LastState, Outcome, Provider, PullApi, Resolved, Source, StateKey,
    decode, pulled_rows, resolve_state, split,
};
use serde_json::{Value, json};

/// 2026-01-01T00:00:00Z: some days after everything in the fixtures.
pub(crate) const RECEIVED: Millis = Millis(1_767_225_600_000);

/// 2025-12-29T12:00:00Z: the time in the golden ids.
pub(crate) const T: i64 = 1_767_009_600_000;

/// One run over payloads of one account.
pub(crate) struct Run {
    pub(crate) account: AccountId,
    pub(crate) received_at: Millis,
    pub(crate) directory: Directory,
    states: HashMap<StateKey, LastState>,
}

/// What one element became.
#[derive(Debug, Clone)]
pub(crate) enum Said {
    Event { event_type: EventType, event: Box<pb::FleetEvent>, checks: Vec<String>, enters: Vec<String> },
    Skipped(String),
    Refused(String),
}

impl Run {
    pub(crate) fn new() -> Self {
        Self {
            account: AccountId::new("acme"),
            received_at: RECEIVED,
            directory: Directory::default(),
            states: HashMap::new(),
        }
    }

    pub(crate) fn decode(&self, source: &Source, raw: &[u8]) -> Decoded {
        let channel = match source {
            Source::Push { .. } => pb::origin::Channel::Webhook,
            Source::Pull { .. } => pb::origin::Channel::Poll,
        };
        let context = Context {
            account: &self.account,
            channel,
            received_at: self.received_at,
            directory: &self.directory,
        };
        decode(Provider::Linxup, source, raw, &context)
    }

    /// One element or row.
    pub(crate) fn say(&mut self, source: &Source, raw: &[u8]) -> Vec<Said> {
        let Decoded { outcome, learnt, hint: _ } = self.decode(source, raw);
        self.directory.learn(&learnt);
        let (mut said, drafts) = match outcome {
            Outcome::Events(drafts) => (Vec::new(), drafts),
            Outcome::Skipped { reason, drafts } => (vec![Said::Skipped(reason.into_owned())], drafts),
            Outcome::Unrecognized(reason) => {
                (vec![Said::Refused(format!("unrecognized: {reason}"))], Vec::new())
            }
            Outcome::Undecodable(reason) => {
                (vec![Said::Refused(format!("undecodable: {reason}"))], Vec::new())
            }
        };
        for draft in drafts {
            let (event_type, key) = (draft.event_type, draft.state_key().cloned());
            let text =
                |ids: fleetbus::event::ids::Ids| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
            match resolve_state(draft, key.as_ref().and_then(|key| self.states.get(key))) {
                Resolved::Event { event, checks, enters, new_last } => {
                    if let Some((key, last)) = key.zip(new_last) {
                        self.states.insert(key, last);
                    }
                    said.push(Said::Event { event_type, event, checks: text(checks), enters: text(enters) });
                }
                Resolved::Duplicate { event, new_last } => {
                    if let Some((key, last)) = key.zip(new_last) {
                        self.states.insert(key, last);
                    }
                    let ids = vec![event.id.clone()];
                    said.push(Said::Event { event_type, event, checks: ids.clone(), enters: ids });
                }
                Resolved::Silent { new_last } => {
                    if let Some((key, last)) = key.zip(new_last) {
                        self.states.insert(key, last);
                    }
                }
            }
        }
        said
    }

    /// A whole body or answer.
    pub(crate) fn body(&mut self, source: &Source, body: &[u8]) -> Vec<Said> {
        let rows = match source {
            Source::Push { .. } => split(body).map_err(|problem| problem.to_string()),
            Source::Pull { api, feed } => {
                pulled_rows(*api, *feed, body).map_err(|problem| problem.to_string())
            }
        };
        match rows {
            Ok(rows) => rows.into_iter().flat_map(|row| self.say(source, row.as_bytes())).collect(),
            Err(problem) => vec![Said::Refused(problem)],
        }
    }
}

pub(crate) fn push() -> Source {
    Source::Push { hint: None }
}

pub(crate) fn pull(api: PullApi, feed: Feed) -> Source {
    Source::Pull { api, feed }
}

/// Events of one element, with the empty directory.
pub(crate) fn events(source: &Source, raw: &Value) -> Vec<Said> {
    Run::new().say(source, raw.to_string().as_bytes())
}

/// The one event of an element, as its JSON.
pub(crate) fn event(source: &Source, raw: &Value) -> Value {
    match events(source, raw).as_slice() {
        [Said::Event { event, .. }, ..] => to_value(event),
        other => panic!("no event: {other:?} of {raw}"),
    }
}

pub(crate) fn to_value(event: &pb::FleetEvent) -> Value {
    serde_json::from_str(&json::to_json(event).expect("an event has json")).expect("json")
}

impl Said {
    pub(crate) fn id(&self) -> &str {
        match self {
            Self::Event { event, .. } => &event.id,
            other => panic!("no event: {other:?}"),
        }
    }

    pub(crate) fn to_value(&self) -> Value {
        match self {
            Self::Event { event, checks, enters, event_type: _ } => {
                json!({ "event": to_value(event), "checks": checks, "enters": enters })
            }
            Self::Skipped(reason) => json!({ "skipped": reason }),
            Self::Refused(reason) => json!({ "refused": reason }),
        }
    }
}

pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/linxup")
}

/// A fixture by its path below `tests/fixtures/linxup`.
pub(crate) fn fixture(path: &str) -> Value {
    let bytes = std::fs::read(root().join(path)).unwrap_or_else(|problem| panic!("{path}: {problem}"));
    serde_json::from_slice(&bytes).expect("json")
}

/// The first row of an answer, enveloped or not.
pub(crate) fn first_row(path: &str) -> Value {
    let answer = fixture(path);
    let list = if answer.is_array() {
        Some(&answer)
    } else {
        answer.get("data").and_then(Value::as_object).and_then(|data| data.values().next())
    };
    list.and_then(|list| list.get(0)).cloned().unwrap_or_else(|| panic!("{path} has no row"))
}

/// The fixture with some fields replaced.
pub(crate) fn with(mut value: Value, changes: Value) -> Value {
    let Value::Object(changes) = changes else { panic!("changes are an object") };
    for (key, change) in changes {
        value[key] = change;
    }
    value
}

/// The fixture without some fields.
pub(crate) fn without(mut value: Value, keys: &[&str]) -> Value {
    for key in keys {
        value.as_object_mut().expect("an object").remove(*key);
    }
    value
}
