//! The operator's view of what is parked: events and raw bytes together, by one filter, in the order of their sequence
//! numbers. Matching is done here, on a row's head, a bounded slice of rows at a time, so that no question of an
//! operator's keeps a park waiting for longer than a slice takes.

use bytes::Bytes;
use uuid::Uuid;

use super::{Kind, Parked, ParkedRaw, Seq};
use crate::event::{AccountId, EventType, Millis};

/// What is asked for. Empty asks for everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only this account's.
    pub account: Option<AccountId>,
    /// Only events of this type.
    pub event_type: Option<EventType>,
    /// Only events of this subject.
    pub subject: Option<String>,
    /// Only of these kinds; all where empty.
    pub kinds: Vec<Kind>,
    /// Only those parked at or after.
    pub from: Option<Millis>,
    /// Only those parked before.
    pub until: Option<Millis>,
    /// Only those whose error has this text, in any case (ASCII).
    pub error: Option<String>,
}

/// What a filter looks at in a row.
pub(super) struct Head<'r> {
    pub(super) account: &'r str,
    pub(super) kind: Kind,
    pub(super) at: Millis,
    pub(super) error: &'r str,
    /// An event's type and subject.
    pub(super) event: Option<(&'r str, &'r str)>,
}

impl Filter {
    /// Whether it asks for everything.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a row is asked for.
    #[must_use]
    pub fn matches(&self, row: &Listed) -> bool {
        let event = match &row.what {
            What::Event { subject, event_type, .. } => Some((event_type.as_str(), subject.as_str())),
            What::Raw { .. } => None,
        };
        let Listed { account, kind, at, error, .. } = row;
        self.matches_head(&Head { account: account.as_str(), kind: *kind, at: *at, error, event })
    }

    pub(super) fn matches_head(&self, head: &Head<'_>) -> bool {
        let of_event = match head.event {
            Some((event_type, subject)) => {
                self.event_type.is_none_or(|t| t.as_str() == event_type)
                    && self.subject.as_ref().is_none_or(|s| s == subject)
            }
            None => !self.asks_only_for_events(),
        };
        of_event
            && self.account.as_ref().is_none_or(|a| a.as_str() == head.account)
            && self.wants(head.kind)
            && self.from.is_none_or(|from| head.at >= from)
            && self.until.is_none_or(|until| head.at < until)
            && self.error.as_ref().is_none_or(|text| has(head.error, text))
    }

    /// Whether a row of this kind may be asked for.
    pub(super) fn wants(&self, kind: Kind) -> bool {
        self.kinds.is_empty() || self.kinds.contains(&kind)
    }

    /// Whether a row of this account and kind may be asked for: where there is none, nothing is found.
    pub(super) fn may_want(&self, account: &AccountId, kind: Kind) -> bool {
        let is_event = matches!(kind, Kind::Event(_));
        self.wants(kind)
            && self.account.as_ref().is_none_or(|a| a == account)
            && (is_event || !self.asks_only_for_events())
    }

    /// Raw bytes have neither type nor subject.
    pub(super) fn asks_only_for_events(&self) -> bool {
        self.event_type.is_some() || self.subject.is_some()
    }

    /// Whether the counts alone can answer.
    pub(super) fn is_by_account_and_kind(&self) -> bool {
        !self.asks_only_for_events() && self.from.is_none() && self.until.is_none() && self.error.is_none()
    }
}

/// Whether a text has another in it, in any case. A million rows are asked: nothing is copied.
fn has(text: &str, part: &str) -> bool {
    let (text, part) = (text.as_bytes(), part.as_bytes());
    part.is_empty() || text.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part))
}

/// A row without its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its place in the order, and its name in the API. Events and raw bytes share the sequence.
    pub seq: Seq,
    /// Whose.
    pub account: AccountId,
    /// Why it is there.
    pub kind: Kind,
    /// When it was parked; raw bytes: received.
    pub at: Millis,
    /// What it counts for in the quotas.
    pub bytes: u64,
    /// What went wrong.
    pub error: String,
    /// What it is.
    pub what: What,
}

/// What a listed row is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// An event.
    Event {
        /// Its topic.
        topic: String,
        /// Its subject.
        subject: String,
        /// Its type.
        event_type: EventType,
        /// Its id.
        id: Uuid,
        /// An attempt of this process's is unresolved.
        provisional: bool,
    },
    /// Raw bytes.
    Raw {
        /// The way they came.
        source: String,
    },
}

/// A row with everything.
#[derive(Debug, Clone)]
pub enum Stored {
    /// An event.
    Event(Parked),
    /// Raw bytes.
    Raw(Seq, ParkedRaw),
}

impl Stored {
    /// Its place in the order.
    #[must_use]
    pub const fn seq(&self) -> Seq {
        match self {
            Self::Event(event) => event.seq,
            Self::Raw(seq, _) => *seq,
        }
    }

    /// The payload or the body.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        match self {
            Self::Event(event) => &event.payload,
            Self::Raw(_, raw) => &raw.body,
        }
    }
}

/// Some rows, and where to go on.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// The rows, by sequence number.
    pub rows: Vec<T>,
    /// Ask for those after it; none where there are no more.
    pub next: Option<Seq>,
}

/// What a discard took away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Discarded {
    /// Events.
    pub events: u64,
    /// Raw messages.
    pub raw: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::{RawReason, Reason};

    fn event() -> Listed {
        Listed {
            seq: Seq(1),
            account: AccountId::new("acme"),
            kind: Kind::Event(Reason::Unfit),
            at: Millis(1000),
            bytes: 1,
            error: "it is too large".into(),
            what: What::Event {
                topic: "t".into(),
                subject: "s".into(),
                event_type: EventType::Trip,
                id: Uuid::nil(),
                provisional: false,
            },
        }
    }

    fn raw() -> Listed {
        Listed { kind: Kind::Raw(RawReason::NotJson), what: What::Raw { source: "push".into() }, ..event() }
    }

    #[track_caller]
    fn check(filter: &Filter, matches_event: bool, matches_raw: bool) {
        assert_eq!(filter.matches(&event()), matches_event, "{filter:?}");
        assert_eq!(filter.matches(&raw()), matches_raw, "{filter:?}");
    }

    #[test]
    fn each_part_of_a_filter_narrows_it() {
        let all = Filter::default();
        check(&all, true, true);
        check(&Filter { account: Some(AccountId::new("acme")), ..all.clone() }, true, true);
        check(&Filter { account: Some(AccountId::new("other")), ..all.clone() }, false, false);
        check(&Filter { event_type: Some(EventType::Trip), ..all.clone() }, true, false);
        check(&Filter { event_type: Some(EventType::Stop), ..all.clone() }, false, false);
        check(&Filter { subject: Some("s".into()), ..all.clone() }, true, false);
        check(&Filter { subject: Some("x".into()), ..all.clone() }, false, false);
        check(&Filter { kinds: vec![Kind::Event(Reason::Unfit)], ..all.clone() }, true, false);
        check(&Filter { kinds: vec![Kind::Raw(RawReason::NotJson)], ..all.clone() }, false, true);
        check(&Filter { from: Some(Millis(1000)), ..all.clone() }, true, true);
        check(&Filter { from: Some(Millis(1001)), ..all.clone() }, false, false);
        check(&Filter { until: Some(Millis(1000)), ..all.clone() }, false, false);
        check(&Filter { until: Some(Millis(1001)), ..all.clone() }, true, true);
        check(&Filter { error: Some("too LARGE".into()), ..all.clone() }, true, true);
        check(&Filter { error: Some("refused".into()), ..all.clone() }, false, false);
        check(&Filter { error: Some(String::new()), ..all.clone() }, true, true);
        assert!(all.is_everything());
    }

    #[test]
    fn what_there_is_none_of_is_not_looked_for() {
        let (acme, unfit) = (AccountId::new("acme"), Kind::Event(Reason::Unfit));
        let raw = Kind::Raw(RawReason::NotJson);
        let check = |filter: &Filter, event: bool, of_raw: bool| {
            assert_eq!(
                (filter.may_want(&acme, unfit), filter.may_want(&acme, raw)),
                (event, of_raw),
                "{filter:?}"
            );
        };
        let all = Filter::default();
        check(&all, true, true);
        check(&Filter { account: Some(AccountId::new("other")), ..all.clone() }, false, false);
        check(&Filter { kinds: vec![raw], ..all.clone() }, false, true);
        check(&Filter { subject: Some("s".into()), ..all.clone() }, true, false);
        check(&Filter { subject: Some("s".into()), kinds: vec![raw], ..all.clone() }, false, false);
        check(&Filter { error: Some("nothing says this".into()), ..all }, true, true);
    }
}
