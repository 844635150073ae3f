//! Linxup, and the brands that run the same platform: two generations of pushes, two pull APIs, one meaning.
//!
//! [`decode`] finds the format and the kind of one element; a file a format reads it with the shared readers: `values` (how
//! values are written), `fields` (what is left), `parts` (shared objects), `bodies` (shared bodies), `subject` (who it is
//! about), `message` (ids, anomalies, leftovers). `answer` opens the envelopes of polled answers.

mod alerts;
pub mod answer;
mod bodies;
mod classify;
mod fields;
mod geofences;
mod media;
mod message;
mod parts;
mod pull_v2;
mod pull_v3;
mod push_flat;
mod push_v3;
mod subject;
mod values;

use super::draft::{Context, Decoded, Draft, Hint, Outcome, Reason};
use super::{Feed, PullApi, Source};
use super::{members::Members, tree::Value};
use classify::Shape;
use message::{Format, Message, Missing};

/// Decodes one pushed element or pulled row: a valid document, or none where the bytes were not JSON.
#[must_use]
pub fn decode(source: &Source, document: Option<&str>, context: &Context<'_>) -> Decoded {
    let members = match document.and_then(Value::of) {
        Some(Value::Object(members)) => members,
        Some(_) => return nothing(Outcome::Unrecognized(Reason::Borrowed("not a json object")), Hint::None),
        None => return nothing(Outcome::Undecodable(Reason::Borrowed("not json")), Hint::None),
    };
    match source {
        Source::Push { hint } => {
            let decoded = pushed(members, hint.as_deref(), context);
            let is_incomplete =
                decoded.hint == Hint::Fits && matches!(decoded.outcome, Outcome::Undecodable(_));
            if is_incomplete { without_hint(document, context).unwrap_or(decoded) } else { decoded }
        }
        Source::Pull { api, feed } => pulled(members, *api, *feed, context),
    }
}

fn pushed<'a>(members: Members<'a>, hint: Option<&str>, context: &'a Context<'a>) -> Decoded {
    let (shape, hint) = classify::classify(&members, hint);
    let (mut message, drafts): (Message<'_>, Result<Vec<Draft>, Missing>);
    match shape {
        Shape::Flat(kind) => {
            message = Message::open(members, Format::PushFlat, "tracker", context);
            drafts = push_flat::decode(&mut message, kind);
        }
        Shape::Nested(kind) => {
            message = Message::open(members, Format::PushV3, push_v3::tracker_key(kind), context);
            drafts = push_v3::decode(&mut message, kind);
        }
        Shape::Unknown => {
            return nothing(Outcome::Unrecognized(Reason::Borrowed("no known message has this shape")), hint);
        }
    }
    let outcome = match drafts {
        Ok(drafts) => Outcome::Events(drafts),
        Err(Missing(reason)) => Outcome::Undecodable(reason),
    };
    Decoded { outcome, learnt: message.learnt, hint }
}

/// What lacks something that the kind of its hint needs, and nothing that its kind by the order of the rules needs, is of the
/// latter: a hint breaks ties, and costs no message.
fn without_hint(document: Option<&str>, context: &Context<'_>) -> Option<Decoded> {
    let Some(Value::Object(members)) = document.and_then(Value::of) else { return None };
    let decoded = pushed(members, None, context);
    let is_whole = matches!(decoded.outcome, Outcome::Events(_));
    is_whole.then_some(Decoded { hint: Hint::Contradicts, ..decoded })
}

fn pulled<'a>(members: Members<'a>, api: PullApi, feed: Feed, context: &'a Context<'a>) -> Decoded {
    let (refused, format) = match api {
        PullApi::V2 => (pull_v2::foreign(&members), Format::PullV2),
        PullApi::V3 => (pull_v3::refused(feed).or_else(|| pull_v2::foreign(&members)), Format::PullV3),
    };
    if let Some(reason) = refused {
        return nothing(Outcome::Undecodable(Reason::Borrowed(reason)), Hint::None);
    }
    let mut message = Message::open(members, format, "tracker", context);
    let row = match api {
        PullApi::V2 => pull_v2::decode(&mut message, feed),
        PullApi::V3 => pull_v3::decode(&mut message, feed),
    };
    let outcome = match row {
        Ok((drafts, None)) => Outcome::Events(drafts),
        Ok((drafts, Some(reason))) => Outcome::Skipped { reason, drafts },
        Err(Missing(reason)) => Outcome::Skipped { reason, drafts: Vec::new() },
    };
    Decoded { outcome, learnt: message.learnt, hint: Hint::None }
}

fn nothing(outcome: Outcome, hint: Hint) -> Decoded {
    Decoded { outcome, learnt: Vec::new(), hint }
}
