//! A filter of parked messages as callers write it, and what it means to the store. Pure.

use std::fmt;

use axum::extract::FromRequestParts;
use axum::http::Uri;
use axum::http::request::Parts;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::problem::{Problem, read_query};
use crate::event::{AccountId, EventType, Millis};
use crate::replay::{Filter, Kind};

/// As written: in a query, or in a body.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[schema(as = ParkedFilter)]
#[into_params(parameter_in = Query)]
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
    /// Text of the error, in any case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

/// The keys of a filter in a query.
const KEYS: [&str; 7] = ["account", "type", "subject", "reason", "from", "until", "error"];

/// A query of a filter and of what else a call asks for, every key of it known.
pub(super) struct Filtered<T>(pub(super) Written, pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Filtered<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        let is_filter = |pair: &&str| KEYS.contains(&pair.split('=').next().unwrap_or_default());
        let (filter, rest): (Vec<&str>, Vec<&str>) = query.split('&').partition(is_filter);
        let more = || format!("; a filter has {}", KEYS.map(|key| format!("`{key}`")).join(", "));
        Ok(Self(query_of(&filter)?, query_of(&rest).map_err(|problem: Problem| problem.and(&more()))?))
    }
}

fn query_of<T: DeserializeOwned>(pairs: &[&str]) -> Result<T, Problem> {
    let unreadable = |_| Problem::unprocessable("the query cannot be read");
    let uri: Uri = format!("/?{}", pairs.join("&")).parse().map_err(unreadable)?;
    read_query(&uri)
}

impl fmt::Display for Written {
    /// As an act names it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { account, event_type, subject, reason, from, until, error } = self;
        let values = [account, event_type, subject, reason, from, until, error];
        let set =
            KEYS.iter().zip(values).filter_map(|(key, value)| Some(format!("{key}={}", value.as_ref()?)));
        let set: Vec<String> = set.collect();
        f.write_str(if set.is_empty() { "everything" } else { "" })?;
        f.write_str(&set.join(" "))
    }
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
            // Every text has an empty one in it: who asks for that has asked for nothing, and a discard is to know it.
            error: self.error.clone().filter(|text| !text.is_empty()),
        })
    }
}

fn kind(text: &str) -> Result<Kind, Problem> {
    let known = || Kind::ALL.map(Kind::as_str).join(", ");
    Kind::parse(text)
        .ok_or_else(|| Problem::unprocessable(format!("reason {text:?} is unknown; there are {}", known())))
}

/// A time as callers write it, under the name that they know it by.
pub(super) fn time(name: &str, text: &str) -> Result<Millis, Problem> {
    let no_time = || Problem::unprocessable(format!("{name} is no time like 2026-01-31T12:00:00Z"));
    time_of(text).ok_or_else(no_time)
}

/// A time as callers write it.
pub(super) fn time_of(text: &str) -> Option<Millis> {
    text.parse::<Timestamp>().ok().map(|time| Millis(time.as_millisecond()))
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
            error: Some("too large".to_owned()),
        };
        let expected = Filter {
            account: Some(AccountId::new("acme")),
            event_type: Some(EventType::GeofenceCrossing),
            subject: Some("350000000000017".to_owned()),
            kinds: vec![Kind::Event(Reason::Unfit), Kind::Raw(RawReason::NotJson)],
            from: Some(Millis(1_767_225_600_000)),
            until: Some(Millis(1_767_225_600_000)),
            error: Some("too large".to_owned()),
        };
        assert_eq!(written.meaning(), Ok(expected));
        assert!(Written::default().meaning().unwrap().is_everything());
    }

    #[test]
    fn an_empty_text_of_the_error_is_no_filter() {
        let empty = Written { error: Some(String::new()), ..Written::default() };
        assert!(empty.meaning().unwrap().is_everything());
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
