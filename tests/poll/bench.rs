//! A stand-in for a provider, pollers that poll it, and a clock that only moves when a test says so. Calls go over real sockets;
//! a test lets them finish (`settle`) before it lets time pass.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use fleetbus::config::{Account, Limits, Poll, PollApi, SecretSource};
use fleetbus::event::{AccountId, Millis};
use fleetbus::intake::accept::{Pulled, Receipt, Refusal};
use fleetbus::intake::poll::desk::Steered;
use fleetbus::intake::poll::feed::{Cursors, Name, Status};
use fleetbus::intake::poll::host::Host;
use fleetbus::intake::poll::http::Bounds;
use fleetbus::intake::poll::plan::Cursor;
use fleetbus::intake::poll::{Pollers, Settings, Statuses};
use fleetbus::provider::{Feed, Provider};
use fleetbus::replay::Entry;
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// When every test begins: 2025-12-29T12:00:00Z.
pub const T: i64 = 1_767_009_600_000;
pub const SECOND: i64 = 1_000;
pub const MINUTE: i64 = 60 * SECOND;
pub const HOUR: i64 = 60 * MINUTE;
pub const DAY: i64 = 24 * HOUR;
/// Where a feed stands that was not polled yet.
pub const BEGINS: i64 = T - 30 * SECOND - 46 * HOUR;
/// Never printed, whatever fails.
pub const SECRET: &str = "c2VjcmV0";
/// Real time within which everything must settle.
const PATIENCE: Duration = Duration::from_secs(30);

/// A call as the stand-in saw it.
#[derive(Debug, Clone)]
pub struct Call {
    pub at: Instant,
    pub what: String,
    pub query: HashMap<String, String>,
    pub body: Value,
    pub authorization: String,
    pub key: String,
    /// How many calls of the same verb and path came before.
    pub nth: usize,
}

impl Call {
    pub fn number(&self, name: &str) -> i64 {
        self.query
            .get(name)
            .and_then(|text| text.parse().ok())
            .unwrap_or_else(|| self.body[name].as_i64().unwrap())
    }

    /// Begin and end of the window.
    pub fn window(&self) -> (i64, i64) {
        let (from, to) = match self.what.as_str() {
            "GET /geofences/activity" => ("start", "end"),
            "GET /positions" | "GET /stops" => ("startDate", "endDate"),
            _ => ("fromDate", "toDate"),
        };
        (self.number(from), self.number(to))
    }
}

/// What the stand-in answers.
pub enum Reply {
    Is(u16, Vec<(&'static str, String)>, String),
    /// A body that is compressed.
    Gzip(Vec<u8>),
    /// Headers, the beginning of a body, and then nothing.
    Stuck,
    /// The same, with so many bytes of a beginning.
    StuckAfter(usize),
    /// Nothing at all.
    Never,
}

pub fn ok(body: impl Into<String>) -> Reply {
    Reply::Is(200, vec![], body.into())
}

pub fn status(status: u16) -> Reply {
    Reply::Is(status, vec![], String::new())
}

/// An answer of V2 with so many rows.
pub fn v2(rows: usize) -> Reply {
    ok(format!(r#"{{"responseType":"Success","data":{{"rows":{}}}}}"#, array(0, rows)))
}

/// A JSON array of rows.
pub fn array(from: usize, rows: usize) -> String {
    let rows: Vec<String> = (from..from + rows).map(|n| format!(r#"{{"imei":"{n}"}}"#)).collect();
    format!("[{}]", rows.join(","))
}

type Respond = Box<dyn Fn(&Call) -> Reply + Send + Sync>;

/// A provider.
#[derive(Clone)]
pub struct Stand {
    pub address: SocketAddr,
    calls: Arc<Mutex<Vec<Call>>>,
    under_way: Arc<AtomicU32>,
    respond: Arc<Respond>,
}

impl Stand {
    pub async fn start(respond: impl Fn(&Call) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let respond: Respond = Box::new(respond);
        let stand =
            Self { address, calls: Arc::default(), under_way: Arc::default(), respond: Arc::new(respond) };
        let routes = Router::new().fallback(answer).with_state(stand.clone());
        TaskTracker::new().spawn(async move { axum::serve(listener, routes).await });
        stand
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The calls so far, but for those for the company.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().iter().filter(|call| call.what != "GET /company").cloned().collect()
    }

    pub fn calls_of(&self, what: &str) -> Vec<Call> {
        self.calls.lock().iter().filter(|call| call.what == what).cloned().collect()
    }
}

async fn answer(State(stand): State<Stand>, request: Request) -> Response {
    stand.under_way.fetch_add(1, Ordering::SeqCst);
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let header = |name: &str| {
        parts.headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    };
    let query = parts.uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let what = format!("{} {}", parts.method, parts.uri.path());
    let call = {
        let mut calls = stand.calls.lock();
        let call = Call {
            at: Instant::now(),
            nth: calls.iter().filter(|call| call.what == what).count(),
            what,
            query: query.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            body: serde_json::from_slice(&body).unwrap_or_default(),
            authorization: header("authorization"),
            key: header("x-api-key"),
        };
        calls.push(call.clone());
        call
    };
    let reply = match call.what.as_str() {
        "GET /company" => ok(format!(r#"{{"data":{{"apiHost":"{}"}}}}"#, stand.address)),
        _ => (stand.respond)(&call),
    };
    stand.under_way.fetch_sub(1, Ordering::SeqCst);
    match reply {
        Reply::Is(status, headers, body) => {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            response.body(Body::from(body)).unwrap()
        }
        Reply::Gzip(body) => {
            Response::builder().header("content-encoding", "gzip").body(Body::from(body)).unwrap()
        }
        Reply::Stuck => stuck(Bytes::from_static(b"[")),
        Reply::StuckAfter(bytes) => stuck(vec![b' '; bytes].into()),
        Reply::Never => std::future::pending().await,
    }
}

fn stuck(begun: Bytes) -> Response {
    let begun = futures_util::stream::once(async { Ok::<_, std::io::Error>(begun) });
    Response::new(Body::from_stream(futures_util::StreamExt::chain(begun, futures_util::stream::pending())))
}

/// Cursors in memory, and whether they are written.
#[derive(Default)]
pub struct Memory {
    pub entries: Mutex<Vec<Entry>>,
    pub broken: Mutex<bool>,
}

impl Cursors for Memory {
    async fn save(&self, name: &Name, cursor: &Cursor) -> bool {
        if *self.broken.lock() {
            return false;
        }
        let entry = Entry {
            account: name.account.clone(),
            key: name.key(),
            value: serde_json::to_string(cursor).unwrap(),
            saved_at: Millis(0),
        };
        let mut entries = self.entries.lock();
        entries.retain(|known| (&known.account, &known.key) != (&entry.account, &entry.key));
        entries.push(entry);
        true
    }
}

/// Pollers under test.
pub struct Bench {
    pub statuses: Statuses,
    pub hosts: Vec<Arc<Host>>,
    pub steered: Vec<Steered>,
    /// Cursors that may be removed.
    pub left_over: Vec<(AccountId, String)>,
    pub taken: Arc<Mutex<Vec<Pulled>>>,
    /// What the next hand-overs are refused with.
    pub refusals: Arc<Mutex<VecDeque<Refusal>>>,
    pub cursors: Arc<Memory>,
    pub bus: watch::Sender<bool>,
    pub stop: CancellationToken,
    pub tracker: TaskTracker,
    /// How far our clock is off.
    pub off: Arc<AtomicI64>,
    stands: Vec<Stand>,
    _still: std::sync::mpsc::SyncSender<()>,
    secrets: tempfile::TempDir,
}

/// What is polled: an account, the API, where, and what how often.
pub struct Asked<'a> {
    pub account: &'a str,
    pub v3: bool,
    pub stand: &'a Stand,
    pub feeds: Vec<(Feed, u64)>,
}

impl Bench {
    pub fn start(asked: &[Asked<'_>]) -> Self {
        Self::with(asked, Bounds::default(), Vec::new(), true)
    }

    pub fn one(stand: &Stand, v3: bool, feed: Feed, seconds: u64) -> Self {
        Self::start(&[Asked { account: "acme", v3, stand, feeds: vec![(feed, seconds)] }])
    }

    pub fn with(asked: &[Asked<'_>], bounds: Bounds, entries: Vec<Entry>, available: bool) -> Self {
        let secrets = tempfile::tempdir().unwrap();
        let (begun, off) = (Instant::now(), Arc::new(AtomicI64::new(0)));
        let ours = Arc::clone(&off);
        let settings = Settings {
            bounds,
            clock: Arc::new(move || {
                let passed = i64::try_from(begun.elapsed().as_millis()).unwrap();
                Millis(T + passed + ours.load(Ordering::SeqCst))
            }),
            spread: |_| Duration::ZERO,
        };
        let accounts: Vec<Account> = asked.iter().map(|asked| account(asked, &secrets)).collect();
        let pollers = Pollers::with(&accounts, &entries, settings).unwrap();
        let (bus, bus_available) = watch::channel(available);
        // While something blocks, time does not pass by itself.
        let (still, until) = std::sync::mpsc::sync_channel(1);
        let (stop, tracker) = (CancellationToken::new(), TaskTracker::new());
        tokio::task::spawn_blocking(move || until.recv());
        let bench = Self {
            statuses: pollers.statuses(),
            hosts: pollers.hosts(),
            steered: pollers.steered(),
            left_over: pollers.left_over(),
            taken: Arc::default(),
            refusals: Arc::default(),
            cursors: Arc::new(Memory { entries: Mutex::new(entries), ..Memory::default() }),
            bus,
            stop,
            tracker,
            off,
            stands: asked.iter().map(|asked| asked.stand.clone()).collect(),
            _still: still,
            secrets,
        };
        let (taken, refusals) = (Arc::clone(&bench.taken), Arc::clone(&bench.refusals));
        let accept = move |pulled: Pulled| {
            let verdict = match refusals.lock().pop_front() {
                Some(refusal) => Err(refusal),
                None => {
                    taken.lock().push(pulled);
                    Ok(Receipt::default())
                }
            };
            async move { verdict }
        };
        pollers.run(accept, Arc::clone(&bench.cursors), &bus_available, &bench.tracker, &bench.stop);
        bench
    }

    /// Where an account's secret is.
    pub fn secret(&self, account: &str) -> PathBuf {
        self.secrets.path().join(account)
    }

    /// Lets everything happen that happens now.
    pub async fn settle(&self) {
        self.settle_but(0).await;
    }

    /// The same, where so many calls are not answered.
    pub async fn settle_but(&self, hanging: usize) {
        let begun = std::time::Instant::now();
        let mut quiet = 0;
        while quiet < 3 {
            for _ in 0..200 {
                tokio::task::yield_now().await;
            }
            let calling: usize = self.hosts.iter().map(|host| host.under_way()).sum();
            let answering: u32 = self.stands.iter().map(|stand| stand.under_way.load(Ordering::SeqCst)).sum();
            let reading = self.hosts.iter().any(|host| host.reads_secret());
            quiet = if calling == hanging && answering == 0 && !reading { quiet + 1 } else { 0 };
            assert!(begun.elapsed() < PATIENCE, "it does not settle: {calling} calls, {answering} answers");
        }
    }

    /// Lets time pass, in steps.
    pub async fn pass(&self, seconds: u64, step: u64) {
        self.settle().await;
        for _ in 0..seconds.div_ceil(step) {
            tokio::time::advance(Duration::from_secs(step)).await;
            self.settle().await;
        }
    }

    pub fn status(&self) -> Status {
        self.statuses[0].1.lock().clone()
    }

    pub fn position(&self) -> Option<i64> {
        self.status().cursor.position.map(|at| at.0)
    }

    /// What went wrong last.
    pub fn said(&self) -> String {
        self.status().failed.map(|(_, said)| said).unwrap_or_default()
    }

    /// How many rows each hand-over had.
    pub fn rows(&self) -> Vec<usize> {
        self.taken.lock().iter().map(|pulled| pulled.rows.len()).collect()
    }

    pub fn saved_position(&self) -> Option<i64> {
        self.saved().and_then(|cursor| cursor.position).map(|at| at.0)
    }

    pub fn saved(&self) -> Option<Cursor> {
        self.cursors.entries.lock().first().map(|entry| serde_json::from_str(&entry.value).unwrap())
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn account(asked: &Asked<'_>, secrets: &tempfile::TempDir) -> Account {
    let file = secrets.path().join(asked.account);
    std::fs::write(&file, format!("Bearer {SECRET}\n")).unwrap();
    let secret = SecretSource::File(file);
    let api = if asked.v3 { PollApi::V3 { key: secret } } else { PollApi::V2 { token: secret } };
    let feeds = asked.feeds.iter().map(|(feed, seconds)| (*feed, Duration::from_secs(*seconds))).collect();
    Account {
        id: AccountId::new(asked.account),
        provider: Provider::Linxup,
        webhook: None,
        poll: vec![Poll { api, base_url: asked.stand.url(), feeds }],
        limits: Limits { in_flight: 1 << 20, parked: 1 << 20, rate: None },
    }
}
