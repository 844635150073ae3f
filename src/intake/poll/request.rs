//! What to send for which feed: verbs, paths, parameters and pages of the two pull APIs (contract sections 4.2 and 5). Pure.
//! Neighbours: `plan` says what extent, `host` adds what opens the door and sends.

use serde_json::json;

use super::plan::{Extent, Window};
use crate::provider::{Feed, PullApi};

/// Rows on a full page of V3.
pub const PAGE: usize = 100;
/// Rows on a full page of geofence activity: with at most so many, 93 days may be asked for.
const ACTIVITY_PAGE: usize = 1_000;

/// An API's feed: only those that exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say all there is")]
pub enum Endpoint {
    V2Locations,
    V2History,
    V2Trips,
    V2Stops,
    V2Alerts,
    V2UsageHours,
    V2GeofenceActivity,
    V2Trackers,
    V2Geofences,
    V3Positions,
    V3Stops,
    V3Trackers,
}

impl Endpoint {
    /// The API's feed; none where the API has no such feed, which the configuration refuses.
    #[must_use]
    pub const fn of(api: PullApi, feed: Feed) -> Option<Self> {
        match (api, feed) {
            (PullApi::V2, Feed::Locations) => Some(Self::V2Locations),
            (PullApi::V2, Feed::History) => Some(Self::V2History),
            (PullApi::V2, Feed::Trips) => Some(Self::V2Trips),
            (PullApi::V2, Feed::Stops) => Some(Self::V2Stops),
            (PullApi::V2, Feed::Alerts) => Some(Self::V2Alerts),
            (PullApi::V2, Feed::UsageHours) => Some(Self::V2UsageHours),
            (PullApi::V2, Feed::GeofenceActivity) => Some(Self::V2GeofenceActivity),
            (PullApi::V2, Feed::Trackers) => Some(Self::V2Trackers),
            (PullApi::V2, Feed::Geofences) => Some(Self::V2Geofences),
            (PullApi::V3, Feed::Positions) => Some(Self::V3Positions),
            (PullApi::V3, Feed::Stops) => Some(Self::V3Stops),
            (PullApi::V3, Feed::Trackers) => Some(Self::V3Trackers),
            (PullApi::V2, Feed::Positions)
            | (
                PullApi::V3,
                Feed::Locations
                | Feed::History
                | Feed::Trips
                | Feed::Alerts
                | Feed::UsageHours
                | Feed::GeofenceActivity
                | Feed::Geofences,
            ) => None,
        }
    }

    /// How many rows a page holds: a page with fewer is the last. None where everything comes at once.
    #[must_use]
    pub const fn page(self) -> Option<usize> {
        match self {
            Self::V2GeofenceActivity => Some(ACTIVITY_PAGE),
            Self::V3Positions | Self::V3Stops | Self::V3Trackers => Some(PAGE),
            Self::V2Locations
            | Self::V2History
            | Self::V2Trips
            | Self::V2Stops
            | Self::V2Alerts
            | Self::V2UsageHours
            | Self::V2Trackers
            | Self::V2Geofences => None,
        }
    }

    /// The request for one page, counted from 0, where those before it had so many rows.
    #[must_use]
    pub fn request(self, extent: Extent, page: usize, rows: u64) -> Request {
        match self {
            Self::V2Locations => get("/locations", vec![]),
            Self::V2Trackers => get("/tracker", vec![]),
            Self::V2Geofences => get("/geofences", vec![("includeInactive", "true".to_owned())]),
            Self::V2History => post("/locations/all", extent),
            Self::V2Trips => post("/trips", extent),
            Self::V2Stops => post("/stops", extent),
            Self::V2Alerts => post("/alerts", extent),
            Self::V2UsageHours => post("/usagehours", extent),
            Self::V2GeofenceActivity => {
                let mut query = between(extent, ("start", "end"));
                query.push(("offset", rows.to_string()));
                query.push(("limit", ACTIVITY_PAGE.to_string()));
                get("/geofences/activity", query)
            }
            Self::V3Positions => pages("/positions", extent, page),
            Self::V3Stops => pages("/stops", extent, page),
            Self::V3Trackers => pages("/trackers", extent, page),
        }
    }
}

/// One HTTP request, but for what opens the door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// How.
    pub verb: Verb,
    /// Below the base URL, with its leading slash.
    pub path: &'static str,
    /// Parameters.
    pub query: Vec<(&'static str, String)>,
}

/// The verb, and what goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// `GET`.
    Get,
    /// `POST` with a JSON body.
    Post(String),
}

/// `GET` of a path.
#[must_use]
pub const fn get(path: &'static str, query: Vec<(&'static str, String)>) -> Request {
    Request { verb: Verb::Get, path, query }
}

fn post(path: &'static str, extent: Extent) -> Request {
    let body = match extent {
        Extent::Window(Window { from, to }) => json!({ "fromDate": from.0, "toDate": to.0 }),
        Extent::Whole => json!({}),
    };
    Request { verb: Verb::Post(body.to_string()), path, query: Vec::new() }
}

fn pages(path: &'static str, extent: Extent, page: usize) -> Request {
    let mut query = between(extent, ("startDate", "endDate"));
    query.push(("page", page.to_string()));
    get(path, query)
}

fn between(extent: Extent, names: (&'static str, &'static str)) -> Vec<(&'static str, String)> {
    match extent {
        Extent::Window(Window { from, to }) => {
            vec![(names.0, from.0.to_string()), (names.1, to.0.to_string())]
        }
        Extent::Whole => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Millis;

    fn check(endpoint: Endpoint, page: usize, expected: &str) {
        let extent = match super::super::plan::longest(endpoint) {
            Some(_) => Extent::Window(Window { from: Millis(1), to: Millis(2) }),
            None => Extent::Whole,
        };
        let Request { verb, path, query } = endpoint.request(extent, page, (page * ACTIVITY_PAGE) as u64);
        let query: Vec<String> = query.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let said = match verb {
            Verb::Get => format!("GET {path}?{}", query.join("&")),
            Verb::Post(body) => format!("POST {path} {body}"),
        };
        assert_eq!(said, expected);
    }

    #[test]
    fn every_feed_is_asked_for_as_its_api_wants() {
        check(Endpoint::V2Locations, 0, "GET /locations?");
        check(Endpoint::V2History, 0, r#"POST /locations/all {"fromDate":1,"toDate":2}"#);
        check(Endpoint::V2UsageHours, 0, r#"POST /usagehours {"fromDate":1,"toDate":2}"#);
        check(
            Endpoint::V2GeofenceActivity,
            2,
            "GET /geofences/activity?start=1&end=2&offset=2000&limit=1000",
        );
        check(Endpoint::V2Geofences, 0, "GET /geofences?includeInactive=true");
        check(Endpoint::V3Positions, 3, "GET /positions?startDate=1&endDate=2&page=3");
        check(Endpoint::V3Trackers, 1, "GET /trackers?page=1");
    }
}
