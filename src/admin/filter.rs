//! A filter of parked messages as callers write it, and what it means to the store. Pure.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::problem::Problem;
use crate::event::{AccountId, EventType, Millis};
use crate::replay::{Filter, Kind};

/// As written: in a query, or in a body.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ParkedFilter)]
pub(super) struct Written {
    /// An account's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) account: Option<String>,
    /// An event type.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub(super) event_type: Option<String>,
    /// A subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) subject: Option<String>,
    /// Reasons, comma-separated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    /// Parked at or after, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) from: Option<String>,
    /// Parked before, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) until: Option<String>,
}

impl Written {
    /// What it means.
    pub(super) fn meaning(&self) -> Result<Filter, Problem> {
        let event_type = self.event_type.as_deref().map(|text| {
            let known = || EventType::ALL.map(EventType::as_str).join(", ");
            EventType::parse(text).ok_or_else(|| {
                Problem::unprocessable(format!("type {text:?} is unknown; there are {}", known()))
            })
        });
        let kinds = self.reason.as_deref().map(|text| text.split(',').map(|r| kind(r.trim())).collect());
        Ok(Filter {
            account: self.account.as_deref().map(AccountId::new),
            event_type: event_type.transpose()?,
            subject: self.subject.clone(),
            kinds: kinds.transpose()?.unwrap_or_default(),
            from: self.from.as_deref().map(|text| time("from", text)).transpose()?,
            until: self.until.as_deref().map(|text| time("until", text)).transpose()?,
        })
    }
}

fn kind(text: &str) -> Result<Kind, Problem> {
    let known = || Kind::ALL.map(Kind::as_str).join(", ");
    Kind::parse(text)
        .ok_or_else(|| Problem::unprocessable(format!("reason {text:?} is unknown; there are {}", known())))
}

/// A time as callers write it.
pub(super) fn time(name: &str, text: &str) -> Result<Millis, Problem> {
    text.parse::<Timestamp>()
        .map(|time| Millis(time.as_millisecond()))
        .map_err(|_| Problem::unprocessable(format!("{name} is no time like 2026-01-31T12:00:00Z")))
}

/// A time as the API writes it.
pub(super) fn time_text(time: Millis) -> String {
    Timestamp::from_millisecond(time.0).map_or_else(|_| time.0.to_string(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::{RawReason, Reason};

    #[test]
    fn a_filter_means_what_it_says() {
        let written = Written {
            account: Some("acme".to_owned()),
            event_type: Some("geofence-crossing".to_owned()),
            subject: Some("350000000000017".to_owned()),
            reason: Some("unfit, not-json".to_owned()),
            from: Some("2026-01-01T00:00:00Z".to_owned()),
            until: Some("2026-01-01T01:00:00+01:00".to_owned()),
        };
        let expected = Filter {
            account: Some(AccountId::new("acme")),
            event_type: Some(EventType::GeofenceCrossing),
            subject: Some("350000000000017".to_owned()),
            kinds: vec![Kind::Event(Reason::Unfit), Kind::Raw(RawReason::NotJson)],
            from: Some(Millis(1_767_225_600_000)),
            until: Some(Millis(1_767_225_600_000)),
        };
        assert_eq!(written.meaning(), Ok(expected));
        assert!(Written::default().meaning().unwrap().is_everything());
    }

    #[test]
    fn what_is_unknown_is_refused_not_passed_over() {
        let check = |written: Written| assert_eq!(written.meaning().unwrap_err().status().as_u16(), 422);
        check(Written { event_type: Some("positions".to_owned()), ..Written::default() });
        check(Written { reason: Some("unfit,".to_owned()), ..Written::default() });
        check(Written { reason: Some(String::new()), ..Written::default() });
        check(Written { from: Some("yesterday".to_owned()), ..Written::default() });
    }
}
