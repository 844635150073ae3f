//! An upgrade: two processes one after the other on one `data_dir`, under load, behind a small proxy that tries again. What
//! `docs/upgrade.md` promises: no request is lost, no event is lost or doubled, order holds, and a sender only waits.

#[expect(dead_code, reason = "shared with the tests of the promises")]
#[path = "support/bridge.rs"]
mod bridge;
#[path = "support/checker.rs"]
mod checker;
#[path = "support/fleet.rs"]
mod fleet;

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::Value;
use tokio::task::JoinSet;

use bridge::{Bridge, acme, configure};
use checker::{Fact, Seen, check};
use fleet::{Address, Ledger, client, drive, start};
use nix::sys::signal::Signal;

/// How many vehicles push at once.
const VEHICLES: usize = 16;
/// No wait of these tests is longer, however busy the machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// What an ingress controller with retries does: a request whose connection fails, or that is answered 502, 503 or 504, is sent
/// again, to the endpoint that there is by then. (The sender's own time-out would end it; here it is long.)
#[derive(Clone)]
struct Proxy {
    endpoint: Address,
    client: reqwest::Client,
    tried_again: Arc<AtomicU64>,
    /// How long no try succeeded.
    gap: Arc<Mutex<Gap>>,
}

#[derive(Default)]
struct Gap {
    since: Option<Instant>,
    longest: Duration,
}

impl Proxy {
    /// Serves it until the set is dropped; where it listens, and itself.
    async fn serve(endpoint: &str, serving: &mut JoinSet<()>) -> (String, Self) {
        let proxy = Self {
            endpoint: Arc::new(Mutex::new(endpoint.to_owned())),
            client: client(),
            tried_again: Arc::default(),
            gap: Arc::default(),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let at = format!("http://{}", listener.local_addr().expect("an address"));
        let routes = axum::Router::new().fallback(pass).with_state(proxy.clone());
        serving.spawn(async move { axum::serve(listener, routes).await.expect("it serves") });
        (at, proxy)
    }

    fn moved(&self, bridge: &Bridge) {
        self.endpoint.lock().expect("no panic").clone_from(&bridge.webhook);
    }

    fn failed(&self) {
        self.tried_again.fetch_add(1, Ordering::Relaxed);
        self.gap.lock().expect("no panic").since.get_or_insert_with(Instant::now);
    }

    fn succeeded(&self) {
        let mut gap = self.gap.lock().expect("no panic");
        if let Some(since) = gap.since.take() {
            gap.longest = gap.longest.max(since.elapsed());
        }
    }
}

async fn pass(State(proxy): State<Proxy>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let begun = Instant::now();
    loop {
        let url = format!("{}{uri}", proxy.endpoint.lock().expect("no panic"));
        let mut request = proxy.client.post(url).body(body.clone());
        for name in [header::AUTHORIZATION, header::CONTENT_TYPE] {
            request = request.header(&name, &headers[&name]);
        }
        let answer = request.send().await;
        let status = answer.as_ref().map_or(StatusCode::BAD_GATEWAY, reqwest::Response::status);
        if !matches!(status.as_u16(), 502..=504) || begun.elapsed() > PATIENCE {
            proxy.succeeded();
            return status.into_response();
        }
        proxy.failed();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The fleet behind the proxy.
struct Load {
    ledger: Arc<Mutex<Ledger>>,
    vehicles: JoinSet<()>,
}

impl Load {
    fn begin(proxy: &str, positions: usize) -> Self {
        let address: Address = Arc::new(Mutex::new(proxy.to_owned()));
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        // A sender waits longer than an upgrade takes.
        let client = reqwest::Client::builder().timeout(PATIENCE).build().expect("a client");
        let mut vehicles = JoinSet::new();
        for vehicle in 0..VEHICLES {
            let (client, address, ledger) = (client.clone(), Arc::clone(&address), Arc::clone(&ledger));
            vehicles.spawn(drive(client, address, ledger, vehicle, positions, start()));
        }
        Self { ledger, vehicles }
    }

    async fn answered(&self, count: usize) {
        let begun = Instant::now();
        while self.ledger.lock().expect("no panic").answered.len() < count {
            assert!(begun.elapsed() < PATIENCE, "fewer than {count} answers");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn end(mut self) -> Ledger {
        while let Some(ended) = self.vehicles.join_next().await {
            ended.expect("a vehicle that drives on");
        }
        std::mem::take(&mut *self.ledger.lock().expect("no panic"))
    }
}

/// The whole local bus, oldest first.
async fn published(bridge: &Bridge) -> Vec<Seen> {
    let url = format!("{}/v1/events?after=0&follow=false&topic=fleet.position", bridge.admin);
    let text = client().get(url).send().await.expect("an answer").text().await.expect("lines");
    let seen = |line: &str| {
        let row: Value = serde_json::from_str(line).expect("JSON");
        let event = &row["event"];
        let at: jiff::Timestamp = event["occurTime"].as_str().expect("a time").parse().expect("a time");
        let word = |key: &str| event[key].as_str().expect("a word").to_owned();
        Seen { fact: Fact { subject: word("subject"), at: at.as_millisecond() }, id: word("id") }
    };
    text.lines().map(seen).collect()
}

/// How the next process comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Once the one before has ended: a StatefulSet, `strategy: Recreate`.
    AfterTheEnd,
    /// At once: it waits for `data_dir`.
    Waiting,
}

/// Upgrades three times under load.
async fn check_upgrades(next: Next) {
    const POSITIONS: usize = 400;
    let folder = tempfile::tempdir().expect("a folder");
    let config = configure(folder.path(), "bus: { local: {} }", acme(), "delivery: { drain_delay: 1s }");
    let mut running = Bridge::start(&config);
    let mut serving = JoinSet::new();
    let (address, proxy) = Proxy::serve(&running.webhook, &mut serving).await;
    let load = Load::begin(&address, POSITIONS);
    for upgrade in 1..=3 {
        load.answered(upgrade * VEHICLES * POSITIONS / 4).await;
        let start = || {
            let config = config.clone();
            tokio::task::spawn_blocking(move || Bridge::start(&config))
        };
        let waiting = (next == Next::Waiting).then(start);
        running.signal(Signal::SIGTERM);
        let (status, log) = tokio::task::spawn_blocking(move || {
            let status = running.ended(PATIENCE);
            (status, running.log_text())
        })
        .await
        .expect("no panic");
        assert!(status.success(), "{status}\n{log}");
        running = waiting.unwrap_or_else(start).await.expect("no panic");
        proxy.moved(&running);
    }
    let ledger = load.end().await;
    let (sent, facts): (usize, &HashSet<Fact>) = (VEHICLES * POSITIONS, &ledger.sent);
    assert_eq!(ledger.refused, Vec::<u16>::new(), "a request was lost");
    assert_eq!(ledger.answered.len(), sent);
    let seen = published(&running).await;
    let report = check(facts, &ledger.answered, &seen);
    assert!(report.holds(), "{report}\n{}", running.log_text());
    assert_eq!((report.distinct, report.duplicates), (sent, 0), "each event once");
    let again = proxy.tried_again.load(Ordering::Relaxed);
    let gap = proxy.gap.lock().expect("no panic").longest;
    assert!(again > 0, "the load did not meet an upgrade");
    println!(
        "{next:?}: 3 upgrades under the load of {VEHICLES} senders: {sent} requests, 0 lost, {} events, 0 lost, 0 doubled; \
         the proxy tried {again} times again; the longest gap was {} ms",
        report.distinct,
        gap.as_millis()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_behind_a_proxy_that_tries_again_loses_no_request() {
    check_upgrades(Next::AfterTheEnd).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_waits_for_the_other_ones_folder_takes_over_without_a_loss() {
    check_upgrades(Next::Waiting).await;
}
