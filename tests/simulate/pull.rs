//! The pull APIs' rules: tokens, verbs, windows, pages, the bucket, what is late, and errors on request.

use std::time::Duration;

use fleetbus::simulate::Clock;
use fleetbus::simulate::serve::Provider;
use fleetbus::simulate::world::{Fact, What, World};
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

const BEGINS: i64 = 1_767_009_600_000;
const NOW: i64 = BEGINS + 4 * 3_600_000;
const WORLD: World = World { seed: 3, vehicles: 12, begins: BEGINS };
const KEY: &str = "key-of-the-tests";

/// The provider at a time that stands still.
struct Desk {
    base: String,
    provider: Provider,
    client: Client,
    _stop: DropGuard,
}

impl Desk {
    async fn open(late: Duration) -> Self {
        let provider = Provider::new(WORLD, Clock::new(NOW, 0.0), KEY.to_owned(), late);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let base = format!("http://{}", listener.local_addr().expect("bound"));
        let (stop, routes) = (CancellationToken::new(), provider.clone().router());
        let stops = stop.clone();
        TaskTracker::new().spawn(async move {
            axum::serve(listener, routes).with_graceful_shutdown(stops.cancelled_owned()).await
        });
        Self { base, provider, client: Client::new(), _stop: stop.drop_guard() }
    }

    async fn v2(&self, path: &str, window: Value) -> Response {
        let url = format!("{}/ibis/rest/api/v2/{path}", self.base);
        self.client.post(url).bearer_auth(KEY).json(&window).send().await.expect("an answer")
    }

    async fn v2_get(&self, path: &str) -> Response {
        let url = format!("{}/ibis/rest/api/v2/{path}", self.base);
        self.client.get(url).bearer_auth(KEY).send().await.expect("an answer")
    }

    async fn v3(&self, path: &str, jwt: &str) -> Response {
        let url = format!("{}/pullapi/api/v3/{path}", self.base);
        self.client.get(url).bearer_auth(jwt).send().await.expect("an answer")
    }

    async fn jwt(&self, key: &str) -> Response {
        let url = format!("{}/pullapi/api/v3/jwts", self.base);
        self.client.post(url).header("x-api-key", key).send().await.expect("an answer")
    }

    async fn control(&self, fault: Value) {
        let sent = self.client.post(format!("{}/control", self.base)).json(&fault).send().await;
        assert_eq!(sent.expect("an answer").status(), StatusCode::NO_CONTENT);
    }
}

fn window(from: i64, to: i64) -> Value {
    json!({ "fromDate": from, "toDate": to })
}

async fn value(answer: Response) -> Value {
    answer.json().await.expect("JSON")
}

fn rows(answer: &Value, key: &str) -> Vec<Value> {
    assert_eq!(answer["responseType"], "Success", "{answer}");
    answer["data"][key].as_array().expect("a list").clone()
}

fn happened(wanted: fn(&What) -> bool) -> Vec<Fact> {
    WORLD.facts(BEGINS, NOW).into_iter().filter(|fact| wanted(&fact.what)).collect()
}

#[tokio::test]
async fn v2_answers_a_token_the_right_verb_and_a_window_of_at_most_48_hours() {
    let desk = Desk::open(Duration::ZERO).await;
    let trips = format!("{}/ibis/rest/api/v2/trips", desk.base);
    let bare = desk.client.post(&trips).json(&window(BEGINS, NOW)).send().await.expect("an answer");
    assert_eq!(bare.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(desk.v2_get("trips").await.status(), StatusCode::METHOD_NOT_ALLOWED);
    let unknown = desk.v2_get("vehicles").await;
    assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
    assert!(unknown.text().await.expect("a page").starts_with("<html>"));
    assert_eq!(desk.v2("trips", json!({})).await.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let long = desk.v2("trips", window(NOW - 48 * 3_600_000 - 1, NOW)).await;
    assert_eq!(long.status(), StatusCode::OK);
    assert_eq!(value(long).await["responseType"], "Error");
    let dated = desk.v2("trips", window(NOW - 48 * 3_600_000, NOW)).await;
    assert_eq!(dated.headers()["date"], "Mon, 29 Dec 2025 16:00:00 GMT", "the simulated time");
}

#[tokio::test]
async fn v2_lists_hold_what_happened() {
    let desk = Desk::open(Duration::ZERO).await;
    type Wanted = fn(&What) -> bool;
    let lists: [(&str, &str, Wanted); 5] = [
        ("locations/all", "locations", |what| matches!(what, What::Position { .. })),
        ("trips", "trips", |what| matches!(what, What::Trip { .. })),
        ("stops", "stops", |what| matches!(what, What::Stop { .. })),
        ("usagehours", "usageHours", |what| matches!(what, What::Usage { .. })),
        ("alerts", "alerts", |what| what.word() == "alert"),
    ];
    for (path, key, wanted) in lists {
        let found = rows(&value(desk.v2(path, window(BEGINS, NOW)).await).await, key);
        assert_eq!(found.len(), happened(wanted).len(), "{path}");
        assert!(!found.is_empty(), "{path}");
    }
    let current = rows(&value(desk.v2_get("locations").await).await, "locations");
    assert_eq!(current.len(), 12);
    assert_eq!(value(desk.v2_get("tracker").await).await.as_array().map(Vec::len), Some(12));
}

#[tokio::test]
async fn v2_windows_give_what_overlaps_them_unclipped() {
    let desk = Desk::open(Duration::ZERO).await;
    let trips = happened(|what| matches!(what, What::Trip { .. }));
    let trip = trips.iter().find(|trip| trip.at > BEGINS + 3_600_000).expect("one in the second hour");
    let What::Trip { start, .. } = trip.what else { panic!("a trip") };
    let middle = (start + trip.at) / 2;
    let found = rows(&value(desk.v2("trips", window(middle, middle + 1)).await).await, "trips");
    assert!(found.iter().any(|row| row["startDateTime"] == start && row["endDateTime"] == trip.at - 1));
}

#[tokio::test]
async fn v2_activity_is_one_row_a_visit_in_pages() {
    let desk = Desk::open(Duration::ZERO).await;
    let path = |page: &str| format!("geofences/activity?start={BEGINS}&end={NOW}{page}");
    let all = value(desk.v2_get(&path("")).await).await.as_array().expect("a list").clone();
    let entered = happened(|what| matches!(what, What::Crossing { left: None, .. })).len();
    assert_eq!(all.len(), entered);
    assert!(all.iter().any(|row| row["exitDateTime"].is_null()), "one is still inside");
    let mut paged = Vec::new();
    loop {
        let page = path(&format!("&offset={}&limit=17", paged.len()));
        let page = value(desk.v2_get(&page).await).await.as_array().expect("a list").clone();
        paged.extend_from_slice(&page);
        if page.len() < 17 {
            break;
        }
    }
    assert_eq!(paged, all);
}

#[tokio::test]
async fn v3_wants_a_live_jwt_and_gives_pages_of_a_hundred() {
    let desk = Desk::open(Duration::ZERO).await;
    assert_eq!(desk.jwt("another").await.status(), StatusCode::UNAUTHORIZED);
    let path = |page: usize| format!("positions?startDate={BEGINS}&endDate={NOW}&page={page}");
    assert_eq!(desk.v3(&path(0), KEY).await.status(), StatusCode::UNAUTHORIZED, "the key is no JWT");
    let jwt = desk.jwt(KEY).await.text().await.expect("a JWT");
    let mut found = Vec::new();
    for page in 0.. {
        let rows = value(desk.v3(&path(page), &jwt).await).await.as_array().expect("a list").clone();
        found.extend_from_slice(&rows);
        if rows.len() < 100 {
            break;
        }
        assert_eq!(rows.len(), 100);
    }
    assert_eq!(found.len(), happened(|what| matches!(what, What::Position { .. })).len());
    desk.provider.expire_jwts();
    assert_eq!(desk.v3(&path(0), &jwt).await.status(), StatusCode::UNAUTHORIZED);
    let long = BEGINS - 93 * 24 * 3_600_000;
    let jwt = desk.jwt(KEY).await.text().await.expect("a JWT");
    let long = desk.v3(&format!("stops?startDate={long}&endDate={NOW}"), &jwt).await;
    assert_eq!(long.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn v3_lets_two_hundred_calls_through_and_tells_how_many_are_left() {
    let desk = Desk::open(Duration::ZERO).await;
    let jwt = desk.jwt(KEY).await.text().await.expect("a JWT");
    let first = desk.v3("trackers", &jwt).await;
    assert_eq!(
        (&first.headers()["x-ratelimit-limit"], first.status()),
        (&"25".parse().unwrap(), StatusCode::OK)
    );
    assert_eq!(first.headers()["x-rate-limit-remaining"], "199");
    let mut limited = None;
    for call in 2..260 {
        let answer = desk.v3("trackers", &jwt).await;
        if answer.status() == StatusCode::TOO_MANY_REQUESTS {
            assert_eq!(answer.headers()["x-rate-limit-remaining"], "0");
            limited = Some(call);
            break;
        }
    }
    // Some tokens come back meanwhile.
    assert!(limited.is_some_and(|call| call > 200), "{limited:?}");
    assert_eq!(desk.jwt(KEY).await.status(), StatusCode::OK, "a JWT costs nothing");
}

#[tokio::test]
async fn what_is_late_has_happened_but_is_not_seen() {
    let (at_once, late) = (Desk::open(Duration::ZERO).await, Desk::open(Duration::from_secs(600)).await);
    let count = async |desk: &Desk| {
        rows(&value(desk.v2("locations/all", window(BEGINS, NOW)).await).await, "locations").len()
    };
    let younger = WORLD.facts(NOW - 600_000, NOW);
    let younger = younger.iter().filter(|fact| matches!(fact.what, What::Position { .. })).count();
    assert!(younger > 0);
    assert_eq!(count(&at_once).await, count(&late).await + younger);
    let ledger = late.client.get(format!("{}/control/ledger", late.base)).send().await.expect("an answer");
    let ledger = ledger.text().await.expect("lines");
    assert_eq!(ledger.lines().count(), WORLD.facts(BEGINS, NOW).len());
}

#[tokio::test]
async fn errors_come_on_request_as_often_as_asked_and_where() {
    let desk = Desk::open(Duration::ZERO).await;
    let stops = async || desk.v2("stops", window(BEGINS, NOW)).await;
    for (fault, status) in
        [("unauthorized", 401), ("limited", 429), ("broken", 500), ("html", 404), ("error200", 200)]
    {
        desk.control(json!({ "fault": fault, "calls": 2, "path": "stops" })).await;
        assert_eq!(desk.v2("trips", window(BEGINS, NOW)).await.status(), StatusCode::OK, "{fault}");
        for _ in 0..2 {
            let answer = stops().await;
            assert_eq!(answer.status().as_u16(), status, "{fault}");
            if fault == "error200" {
                assert_eq!(value(answer).await["responseType"], "Error");
            }
        }
        assert!(!rows(&value(stops().await).await, "stops").is_empty(), "{fault}");
    }
    desk.control(json!({ "fault": "empty" })).await;
    assert_eq!(value(stops().await).await, json!([]));
    desk.control(json!({ "fault": "timeout", "path": "stops" })).await;
    let silent = tokio::time::timeout(Duration::from_millis(200), stops());
    assert!(silent.await.is_err(), "it hangs");
}

#[tokio::test]
async fn a_page_is_repeated_on_request() {
    let desk = Desk::open(Duration::ZERO).await;
    let jwt = desk.jwt(KEY).await.text().await.expect("a JWT");
    let page = async |page: u32| {
        value(desk.v3(&format!("positions?startDate={BEGINS}&endDate={NOW}&page={page}"), &jwt).await).await
    };
    let (first, second) = (page(0).await, page(1).await);
    assert_ne!(first, second);
    desk.control(json!({ "fault": "repeat-page", "path": "positions" })).await;
    assert_eq!(page(1).await, first);
    assert_eq!(page(1).await, second);
}

#[tokio::test]
async fn a_window_may_be_as_wide_and_as_far_away_as_a_number_can_say() {
    let desk = Desk::open(Duration::ZERO).await;
    for (from, to, expected) in [
        (i64::MIN, i64::MAX, "Error"),
        (i64::MAX, i64::MIN, "Success"),
        (i64::MIN, i64::MIN, "Success"),
        (i64::MAX, i64::MAX, "Success"),
    ] {
        let said = value(desk.v2("trips", window(from, to)).await).await;
        assert_eq!(said["responseType"], expected, "{said}");
        let said = value(desk.v2_get(&format!("geofences/activity?start={from}&end={to}")).await).await;
        assert_eq!(said.is_array(), expected == "Success", "{said}");
        let jwt = desk.jwt(KEY).await.text().await.expect("a JWT");
        let said = desk.v3(&format!("positions?startDate={from}&endDate={to}"), &jwt).await;
        let refused = said.status() == StatusCode::BAD_REQUEST;
        assert!(refused || said.status() == StatusCode::OK, "{}", said.status());
        assert_eq!(refused, expected == "Error" && to != i64::MAX);
    }
}
