//! Whose events: accounts, what they push, what is polled for them, and their bounds.

use std::time::Duration;

use super::values::{At, LONGEST, Wire};
use super::{IN_FLIGHT_IN_ALL, Store, Walk};
use crate::config::tree::{Fields, Node, Value, nearest};
use crate::config::{Account, Limits, Poll, PollApi, Replay, units};
use crate::event::AccountId;
use crate::provider::{Feed, Provider, PullApi};

/// What an API offers.
const fn feeds_of(api: PullApi) -> &'static [&'static str] {
    match api {
        PullApi::V2 => &[
            "locations",
            "history",
            "trips",
            "stops",
            "alerts",
            "usage-hours",
            "geofence-activity",
            "trackers",
            "geofences",
        ],
        PullApi::V3 => &["positions", "stops", "trackers"],
    }
}

impl Walk<'_> {
    pub(super) fn accounts(&mut self, fields: &mut Fields<'_>, replay: &Replay) -> Vec<Account> {
        let at = At::in_map(fields, "accounts");
        let nodes = match fields.take("accounts").map(|node| &node.value) {
            Some(Value::List(nodes)) => nodes.as_slice(),
            None => &[],
            Some(Value::Null | Value::Scalar(_) | Value::Map(_)) => {
                self.add(&at, "is not a list", "write `- id: …` below it, once for each account");
                return Vec::new();
            }
        };
        if nodes.is_empty() {
            self.notes.push("no account is configured: nothing will be received or polled".to_owned());
        }
        let mut accounts: Vec<Account> = Vec::new();
        for (index, node) in nodes.iter().enumerate() {
            let taken = |id: &AccountId| accounts.iter().position(|known| known.id == *id);
            if let Some(account) = self.account(node, &format!("accounts[{index}]"), taken, replay) {
                accounts.push(account);
            }
        }
        accounts
    }

    fn account(
        &mut self,
        node: &Node,
        path: &str,
        taken: impl Fn(&AccountId) -> Option<usize>,
        replay: &Replay,
    ) -> Option<Account> {
        let mut map = Fields::of(node, path, &mut self.problems)?;
        let id = self.account_id(&mut map, taken);
        let provider = self.provider(&mut map);
        let reached = map.has("webhook") || map.has("poll");
        let webhook = self.map(&mut map, "webhook").and_then(|mut webhook| {
            let at = At::in_map(&webhook, "token");
            let token = self.required_secret(&mut webhook, "token");
            webhook.finish(&mut self.problems);
            token.inspect(|token| self.comes_in_a_header(token, &at))
        });
        let poll = self.polls(&mut map);
        let limits = self.limits(&mut map, replay);
        if !reached {
            let at = At { place: map.place, path: path.to_owned() };
            self.add(&at, "has neither `webhook` nor `poll`", "write one of them, or remove the account");
        }
        map.finish(&mut self.problems);
        Some(Account { id: id?, provider: provider?, webhook, poll, limits })
    }

    fn account_id(
        &mut self,
        map: &mut Fields<'_>,
        taken: impl Fn(&AccountId) -> Option<usize>,
    ) -> Option<AccountId> {
        let (text, at) = self.required(map, "id", "choose it once: it is part of every event's id")?;
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if text.len() > 64 || !text.chars().all(legal) {
            let fix = "1 to 64 of A-Z a-z 0-9 _ -";
            self.add(&at, format!("`{text}` is not an account's id"), fix);
            return None;
        }
        let id = AccountId::new(&text);
        if let Some(first) = taken(&id) {
            let what = format!("`{text}` is the id of accounts[{first}] too");
            self.add(&at, what, "choose another: it is part of every event's id");
        }
        Some(id)
    }

    fn provider(&mut self, map: &mut Fields<'_>) -> Option<Provider> {
        let (name, at) = self.required(map, "provider", "write linxup")?;
        if name == Provider::Linxup.as_str() {
            return Some(Provider::Linxup);
        }
        let fix = "write linxup: FleetSharp, AwareGPS, CommandGPS and MotoSafety are the same platform";
        self.add(&at, format!("`{name}` is not a provider that is known"), fix);
        None
    }

    fn polls(&mut self, map: &mut Fields<'_>) -> Vec<Poll> {
        let at = At::in_map(map, "poll");
        let nodes = match map.take("poll").map(|node| &node.value) {
            Some(Value::List(nodes)) if !nodes.is_empty() => nodes,
            None => return Vec::new(),
            Some(Value::List(_) | Value::Null | Value::Scalar(_) | Value::Map(_)) => {
                self.add(&at, "is not a list of APIs", "write `- { api: v2, … }` below it, or leave it out");
                return Vec::new();
            }
        };
        let mut polls: Vec<Poll> = Vec::new();
        for (index, node) in nodes.iter().enumerate() {
            let path = format!("{}[{index}]", at.path);
            let Some(poll) = self.poll(node, &path, &polls) else { continue };
            polls.push(poll);
        }
        polls
    }

    fn poll(&mut self, node: &Node, path: &str, before: &[Poll]) -> Option<Poll> {
        let mut map = Fields::of(node, path, &mut self.problems)?;
        let api = self.api(&mut map);
        let base_url = self.base_url(&mut map);
        let opened = match api {
            Some(PullApi::V2) => self.required_secret(&mut map, "token").map(|token| PollApi::V2 { token }),
            Some(PullApi::V3) => self.required_secret(&mut map, "key").map(|key| PollApi::V3 { key }),
            None => {
                // Either may be meant.
                let _ = (map.take("token"), map.take("key"));
                None
            }
        };
        if let Some(api) = api {
            let (other, right) = match api {
                PullApi::V2 => ("key", "token"),
                PullApi::V3 => ("token", "key"),
            };
            if map.has(other) {
                let at = At::in_map(&map, other);
                self.add(&at, format!("does not open API {}", api.as_str()), format!("write `{right}`"));
                let _ = map.take(other);
            }
        }
        let at = At { place: map.place, path: path.to_owned() };
        let feeds = self.feeds(&mut map, api, before);
        map.finish(&mut self.problems);
        let poll = Poll { api: opened?, base_url: base_url?, feeds };
        if before.iter().any(|known| same_api(known, &poll) && known.base_url == poll.base_url) {
            self.add(&at, "is an API that is polled already", "put its feeds together in one entry");
        }
        Some(poll)
    }

    fn api(&mut self, map: &mut Fields<'_>) -> Option<PullApi> {
        let (name, at) = self.required(map, "api", "write v2 or v3")?;
        let api = PullApi::parse(&name);
        if api.is_none() {
            self.add(&at, format!("`{name}` is not an API that is known"), "write v2 or v3");
        }
        api
    }

    fn base_url(&mut self, map: &mut Fields<'_>) -> Option<String> {
        let (text, at) =
            self.required(map, "base_url", "write e.g. https://app02.linxup.com/ibis/rest/api/v2")?;
        self.base(&text, &at, Wire::Secret, "https://app02.linxup.com/ibis/rest/api/v2", "`token` and `key`")
    }

    fn feeds(
        &mut self,
        map: &mut Fields<'_>,
        api: Option<PullApi>,
        before: &[Poll],
    ) -> Vec<(Feed, Duration)> {
        let at = At::in_map(map, "feeds");
        let written = map.has("feeds");
        let Some(mut feeds) = self.map(map, "feeds") else {
            if !written {
                self.add(&at, "is missing", "say what to fetch, and how often: { history: 15m }");
            }
            return Vec::new();
        };
        let mut all = Vec::new();
        let entries = feeds.rest();
        if entries.is_empty() {
            self.add(&at, "is empty", "say what to fetch, and how often: { history: 15m }");
        }
        for (place, name, node) in entries {
            let at = At { place, path: feeds.path_of(name) };
            if let Some((what, fix)) = refused_feed(name, api) {
                self.add(&at, what, fix);
                continue;
            }
            let of_same_api = |poll: &&Poll| Some(poll.api.pulls()) == api;
            let mut polled = before.iter().filter(of_same_api).flat_map(|poll| &poll.feeds);
            if polled.any(|(feed, _)| feed.as_str() == name) {
                self.add(&at, "is polled by an entry before this one too", "keep one of them");
            }
            let value = At { place: node.place, path: at.path.clone() };
            let interval = self
                .scalar(node, &value)
                .and_then(|text| self.duration_of(text, &value, Duration::from_secs(1)..=LONGEST));
            if let (Some(feed), Some(interval)) = (Feed::parse(name), interval) {
                all.push((feed, interval));
            }
        }
        all
    }

    fn limits(&mut self, map: &mut Fields<'_>, replay: &Replay) -> Limits {
        let room = match self.store {
            Store::AsWritten => replay.max_size,
            Store::Open(max_size) => max_size,
        };
        let mut limits = Limits { in_flight: 32 << 20, parked: room.min(2 << 30), rate: None };
        let Some(mut map) = self.map(map, "limits") else { return limits };
        if let Some((size, at)) = self.size(&mut map, "in_flight", 64 << 10) {
            limits.in_flight = size;
            if size > IN_FLIGHT_IN_ALL {
                let most = units::say_size(IN_FLIGHT_IN_ALL);
                let what = format!("is more than the {most} that all accounts have together");
                self.add(&at, what, format!("write {most} or less"));
            }
        }
        if let Some((size, at)) = self.size(&mut map, "parked", 64 << 10) {
            limits.parked = size;
            if size > replay.max_size {
                let most = units::say_size(replay.max_size);
                let what = format!("is more than the whole store may hold, replay.max_size {most}");
                self.add(&at, what, "lower it, or raise replay.max_size");
            }
        }
        limits.rate = self.rate(&mut map, "rate");
        map.finish(&mut self.problems);
        limits
    }
}

fn same_api(one: &Poll, other: &Poll) -> bool {
    one.api.pulls() == other.api.pulls()
}

/// Why an API does not have a feed, and what to do.
fn refused_feed(name: &str, api: Option<PullApi>) -> Option<(String, String)> {
    if Feed::parse(name).is_none() {
        let known: Vec<&'static str> = api.map_or_else(
            || Feed::ALL.iter().map(|feed| feed.as_str()).collect(),
            |api| feeds_of(api).to_vec(),
        );
        let fix = nearest(name, &known).map_or_else(
            || format!("known here: {}", known.join(", ")),
            |near| format!("did you mean `{near}`?"),
        );
        return Some(("is not a feed".to_owned(), fix));
    }
    let api = api?;
    if feeds_of(api).contains(&name) {
        return None;
    }
    let without_id = |why: &str| {
        (format!("cannot be polled from API v3: {why}"), "poll it from v2, or take webhooks".to_owned())
    };
    let (what, fix) = match (api, name) {
        (PullApi::V3, "trips") => {
            without_id("no start time of its rows has been seen, and so they have no id")
        }
        (PullApi::V3, "alerts") => without_id("no identity of its rows is known"),
        (PullApi::V2 | PullApi::V3, _) => {
            (format!("is not a feed of API {}", api.as_str()), format!("it has {}", feeds_of(api).join(", ")))
        }
    };
    Some((what, fix))
}
