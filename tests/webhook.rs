//! The webhooks' port as a sender meets it: real sockets, and a stand-in for what happens behind the answer.

use std::future::Future;
use std::io::Write as _;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use bytes::Bytes;
use fleetbus::config;
use fleetbus::event::AccountId;
use fleetbus::intake::accept::{Pushed, Receipt, Refusal};
use fleetbus::intake::auth::{Key, Origin, TokenDigest};
use fleetbus::intake::serve::{BindError, Bounds, Connections, Port, Tls};
use fleetbus::intake::webhook::{WebhookState, router};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

const TOKEN: &str = "live-token";
const LIMIT: usize = 2 << 20;
/// Nothing here takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

type Taken = Pin<Box<dyn Future<Output = Result<Receipt, Refusal>> + Send>>;

/// A webhooks' port, and what it was sent.
struct Webhooks {
    address: SocketAddr,
    state: WebhookState,
    seen: Arc<Mutex<Vec<Pushed>>>,
    connections: Connections,
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Webhooks {
    fn start() -> Self {
        Self::answering(|_| Ok(Receipt { events: 1, delivered: 1, ..Receipt::default() }))
    }

    fn answering(
        answer: impl Fn(&Pushed) -> Result<Receipt, Refusal> + Clone + Send + Sync + 'static,
    ) -> Self {
        Self::with(Bounds::WEBHOOKS, None, move |pushed| {
            let answer = answer(&pushed);
            Box::pin(async move { answer })
        })
    }

    fn bounded(bounds: Bounds) -> Self {
        Self::with(bounds, None, |_| Box::pin(async { Ok(Receipt::default()) }))
    }

    fn with(
        bounds: Bounds,
        tls: Option<Tls>,
        accept: impl Fn(Pushed) -> Taken + Clone + Send + Sync + 'static,
    ) -> Self {
        let state = state();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sees = Arc::clone(&seen);
        let routes = router(state.clone(), move |pushed: Pushed| {
            sees.lock().push(pushed.clone());
            accept(pushed)
        });
        let port = Port::open("127.0.0.1:0".parse().unwrap()).unwrap();
        let (address, tracker, stop) = (port.address(), TaskTracker::new(), CancellationToken::new());
        let connections = port.serve(routes, bounds, tls, &tracker, &stop);
        Self { address, state, seen, connections, tracker, stop }
    }

    /// Sends bytes, and reads until the server closes or an answer is complete.
    async fn raw(&self, request: impl AsRef<[u8]>) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_ref()).await.unwrap();
        answer(&mut stream).await
    }

    /// The same, with so small a buffer that the server's end is noticed while the sender still writes.
    async fn trickle(&self, request: &[u8]) -> String {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_send_buffer_size(4_096).unwrap();
        let mut stream = socket.connect(self.address).await.unwrap();
        stream.write_all(request).await.expect("the connection was reset while its sender wrote");
        answer(&mut stream).await
    }

    async fn post(&self, path: &str, body: &str) -> String {
        self.raw(post(path, body)).await
    }

    fn hang_ups(&self) -> u64 {
        self.state.counts.load().readings()[0].hang_ups
    }
}

fn state() -> WebhookState {
    let acme = AccountId::new("acme");
    let state = WebhookState::new(std::slice::from_ref(&acme));
    state.tokens.replace(&acme, Origin::Config, TokenDigest::of(TOKEN).map(Key::of));
    state
}

fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// One answer: to its end by `content-length`, or to the end of the stream.
async fn answer(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = async {
        loop {
            let text = String::from_utf8_lossy(&bytes);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|l| l.strip_prefix("content-length: "));
                if length.is_some_and(|l| body.len() >= l.parse().unwrap()) {
                    return;
                }
            }
            if stream.read_buf(&mut bytes).await.unwrap() == 0 {
                return;
            }
        }
    };
    timeout(PATIENCE, read).await.expect("no answer");
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

#[track_caller]
fn check(answer: &str, status: u16, parts: &[&str]) {
    let line = format!("HTTP/1.1 {status} ");
    assert!(answer.starts_with(&line), "wanted {status}: {answer}");
    for part in parts {
        assert!(answer.contains(part), "wanted {part}: {answer}");
    }
}

#[tokio::test]
async fn what_is_taken_is_answered_201_with_its_counts() {
    let receipt = Receipt {
        events: 6,
        delivered: 1,
        parked: 2,
        duplicates: 3,
        unrecognized: 4,
        undecodable: 5,
        skipped: 7,
    };
    let webhooks = Webhooks::answering(move |_| Ok(receipt));
    let got = webhooks.post("/webhooks/acme/Stop?f=tenant", "[{\"a\":1}]").await;
    check(&got, 201, &["content-type: application/json"]);
    let body: serde_json::Value = serde_json::from_str(got.split_once("\r\n\r\n").unwrap().1).unwrap();
    let expected = serde_json::json!({"events": 6, "delivered": 1, "parked": 2, "duplicates": 3,
        "unrecognized": 4, "undecodable": 5, "skipped": 7});
    assert_eq!(body, expected);
    let seen = webhooks.seen.lock();
    assert_eq!(seen[0].account.as_str(), "acme");
    assert_eq!(seen[0].hint.as_deref(), Some("stop"));
    assert_eq!(seen[0].body, Bytes::from_static(b"[{\"a\":1}]"));
}

#[tokio::test]
async fn each_refusal_has_its_status() {
    let s = Duration::from_millis;
    let table = [
        (Refusal::NotJson { line: 3, column: 9 }, 400, vec!["\"line\":3", "\"column\":9"]),
        (Refusal::Empty, 400, vec!["empty"]),
        (Refusal::TooMany(10_000), 413, vec!["10000"]),
        (Refusal::QuotaSpent { retry_after: s(1_500) }, 429, vec!["retry-after: 2\r\n"]),
        (Refusal::NotKept { retry_after: s(0) }, 503, vec!["retry-after: 1\r\n"]),
        (Refusal::Stopping, 503, vec!["retry-after: 5\r\n", "stopping"]),
    ];
    for (refusal, status, parts) in table {
        let webhooks = Webhooks::answering(move |_| Err(refusal.clone()));
        check(&webhooks.post("/webhooks/acme", "x").await, status, &parts);
        assert_eq!(webhooks.state.counts.load().readings()[0].answered(status), 1);
    }
}

#[tokio::test]
async fn who_may_not_send_is_told_what_was_seen() {
    let webhooks = Webhooks::start();
    let send = async |path: &str, header: &str| {
        webhooks.raw(format!("POST {path} HTTP/1.1\r\nhost: x\r\n{header}content-length: 2\r\n\r\n[]")).await
    };
    check(&send("/webhooks/acme", "").await, 401, &["neither Authorization", "www-authenticate: Bearer"]);
    let url = send("/webhooks/acme", "authorization: Bearer https://secret.example/webhooks/acme\r\n").await;
    check(&url, 401, &["wrong token in Authorization", "looks like a URL"]);
    assert!(!url.contains("secret.example"), "{url}");
    let jwt = send("/webhooks/acme/stop", "authentication: eyJhbGciOi.eyJzdWIi.c2lnbmF0dXJl\r\n").await;
    check(&jwt, 401, &["wrong token in Authentication", "looks like a JWT"]);
    check(&send("/webhooks/nobody", "").await, 401, &[]);
    check(&send("/webhooks/nobody", "authorization: x\r\n").await, 404, &["no such account"]);
    check(&send("/webhooks/%ff", "authorization: x\r\n").await, 404, &[]);
    let counts = webhooks.state.counts.load();
    let readings = counts.readings();
    assert_eq!(readings[0].answered(401), 3);
    assert_eq!((readings[1].answered(401), readings[1].answered(404)), (1, 2));
    assert!(webhooks.seen.lock().is_empty());
}

#[tokio::test]
async fn a_get_says_whether_the_token_is_right() {
    let webhooks = Webhooks::start();
    let get = |auth: &str| format!("GET /webhooks/acme/stop HTTP/1.1\r\nhost: x\r\n{auth}\r\n");
    check(&webhooks.raw(get(&format!("authorization: {TOKEN}\r\n"))).await, 200, &["ready for POST"]);
    check(&webhooks.raw(get("")).await, 401, &[]);
    let put = "PUT /webhooks/acme HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";
    check(&webhooks.raw(put).await, 405, &["allow: ", "POST"]);
    check(
        &webhooks.raw("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").await,
        404,
        &["/webhooks/"],
    );
}

#[tokio::test]
async fn an_address_with_a_slash_at_its_end_works() {
    let webhooks = Webhooks::start();
    check(&webhooks.post("/webhooks/acme/", "[]").await, 201, &[]);
    assert_eq!(webhooks.seen.lock()[0].hint, None);
}

#[tokio::test]
async fn without_a_token_the_body_is_not_asked_for() {
    let webhooks = Webhooks::start();
    let asks = "POST /webhooks/acme HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\nexpect: 100-continue\r\n\r\n";
    check(&webhooks.raw(asks).await, 401, &[]);
    let half = "POST /webhooks/acme HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n[1,";
    check(&webhooks.raw(half).await, 401, &[]);
}

#[tokio::test]
async fn with_a_token_a_careful_sender_is_told_to_go_on() {
    let webhooks = Webhooks::start();
    let mut stream = TcpStream::connect(webhooks.address).await.unwrap();
    let head = post("/webhooks/acme", "[]").replace("\r\n\r\n[]", "\r\nexpect: 100-continue\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut go_on = [0; 25];
    timeout(PATIENCE, stream.read_exact(&mut go_on)).await.unwrap().unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"[]").await.unwrap();
    check(&answer(&mut stream).await, 201, &[]);
}

#[tokio::test]
async fn a_body_that_says_it_is_too_large_is_refused_at_once() {
    let webhooks = Webhooks::start();
    let head = format!(
        "POST /webhooks/acme HTTP/1.1\r\nhost: x\r\nauthorization: {TOKEN}\r\ncontent-length: {}\r\nexpect: 100-continue\r\n\r\n",
        LIMIT + 1
    );
    check(&webhooks.raw(head).await, 413, &["2 MiB"]);
}

#[tokio::test]
async fn a_sender_that_writes_all_of_a_large_body_first_still_reads_the_413() {
    let webhooks = Webhooks::start();
    let body = vec![b' '; LIMIT + 1_500_000];
    let mut request = format!(
        "POST /webhooks/acme HTTP/1.1\r\nhost: x\r\nauthorization: {TOKEN}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend(&body);
    check(&webhooks.trickle(&request).await, 413, &[]);
    let mut chunked =
        format!("POST /webhooks/acme HTTP/1.1\r\nhost: x\r\nauthorization: {TOKEN}\r\ntransfer-encoding: chunked\r\n\r\n")
            .into_bytes();
    for part in body.chunks(60_000) {
        chunked.extend(format!("{:x}\r\n", part.len()).into_bytes());
        chunked.extend(part);
        chunked.extend(b"\r\n");
    }
    chunked.extend(b"0\r\n\r\n");
    check(&webhooks.trickle(&chunked).await, 413, &[]);
    assert!(webhooks.seen.lock().is_empty());
}

#[tokio::test]
async fn a_body_in_chunks_is_put_together() {
    let webhooks = Webhooks::start();
    let head = format!(
        "POST /webhooks/acme HTTP/1.1\r\nhost: x\r\nauthorization: {TOKEN}\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    check(&webhooks.raw(format!("{head}2\r\n[1\r\n3\r\n,2]\r\n0\r\n\r\n")).await, 201, &[]);
    assert_eq!(webhooks.seen.lock()[0].body, Bytes::from_static(b"[1,2]"));
}

#[tokio::test]
async fn gzip_is_undone_a_bomb_is_refused_and_another_encoding_too() {
    let webhooks = Webhooks::start();
    let send = async |encoding: &str, body: &[u8]| {
        let mut request = format!(
            "POST /webhooks/acme HTTP/1.1\r\nhost: x\r\nauthorization: {TOKEN}\r\ncontent-encoding: {encoding}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend(body);
        webhooks.raw(request).await
    };
    check(&send("gzip", &gzip(b"[1]")).await, 201, &[]);
    check(&send("identity", b"[2]").await, 201, &[]);
    check(&send("gzip", &gzip(&vec![b' '; 300 << 20])).await, 413, &[]);
    check(&send("br", b"[3]").await, 415, &["accept-encoding: gzip, identity"]);
    let bodies: Vec<_> = webhooks.seen.lock().iter().map(|p| p.body.clone()).collect();
    assert_eq!(bodies, ["[1]", "[2]"]);
}

#[tokio::test]
async fn a_byte_order_mark_and_odd_bytes_pass_through() {
    let webhooks = Webhooks::start();
    check(&webhooks.post("/webhooks/acme", "\u{feff}{\"a\":1}").await, 201, &[]);
    assert_eq!(webhooks.seen.lock()[0].body, Bytes::from_static(b"\xef\xbb\xbf{\"a\":1}"));
}

#[tokio::test]
async fn only_a_well_formed_trace_is_passed_on() {
    let webhooks = Webhooks::start();
    let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for value in [good, "nonsense"] {
        let request =
            post("/webhooks/acme", "[]").replace("host: x", &format!("host: x\r\ntraceparent: {value}"));
        check(&webhooks.raw(request).await, 201, &[]);
    }
    let traces: Vec<_> = webhooks.seen.lock().iter().map(|p| p.trace.clone()).collect();
    assert_eq!(traces, [Some(good.to_owned()), None]);
}

#[tokio::test]
async fn headers_over_16_kib_are_refused_and_the_sender_can_read_it() {
    let webhooks = Webhooks::start();
    let request = post("/webhooks/acme", "[]");
    let large = request.replace("host: x", &format!("host: x\r\nx: {}", "a".repeat(20_000)));
    check(&webhooks.raw(large).await, 431, &[]);
    let below = request.replace("host: x", &format!("host: x\r\nx: {}", "a".repeat(12_000)));
    check(&webhooks.raw(below).await, 201, &[]);
}

#[tokio::test]
async fn a_head_that_comes_too_slowly_ends_its_connection_also_on_a_connection_that_is_reused() {
    let webhooks = Webhooks::bounded(Bounds { head: Duration::from_millis(300), ..Bounds::WEBHOOKS });
    let closes = async |mut stream: TcpStream| {
        let drip = async {
            for byte in post("/webhooks/acme", "[]").bytes().cycle() {
                if stream.write_all(&[byte]).await.is_err() {
                    return;
                }
                if let Ok(read) = timeout(Duration::from_millis(40), stream.read(&mut [0])).await {
                    assert_eq!(read.unwrap_or(0), 0, "an answer to half a head");
                    return;
                }
            }
        };
        timeout(Duration::from_secs(5), drip).await.expect("the connection was held open");
    };
    closes(TcpStream::connect(webhooks.address).await.unwrap()).await;
    let mut reused = TcpStream::connect(webhooks.address).await.unwrap();
    reused.write_all(post("/webhooks/acme", "[]").as_bytes()).await.unwrap();
    check(&answer(&mut reused).await, 201, &[]);
    closes(reused).await;
    eventually("the connections end", || webhooks.connections.open() == 0).await;
}

#[tokio::test]
async fn an_idle_connection_is_kept_for_the_idle_time_and_not_longer() {
    let bounds =
        Bounds { head: Duration::from_millis(100), idle: Duration::from_millis(600), ..Bounds::WEBHOOKS };
    let webhooks = Webhooks::bounded(bounds);
    let mut stream = TcpStream::connect(webhooks.address).await.unwrap();
    for _ in 0..2 {
        stream.write_all(post("/webhooks/acme", "[]").as_bytes()).await.unwrap();
        check(&answer(&mut stream).await, 201, &[]);
        let early = timeout(Duration::from_millis(300), stream.read(&mut [0])).await;
        assert!(early.is_err(), "closed before its time");
    }
    assert_eq!(timeout(PATIENCE, stream.read(&mut [0])).await.unwrap().unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_comes_too_slowly_is_refused_after_ten_seconds() {
    let routes = router(state(), async |_| Ok(Receipt::default()));
    let never = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
    let request = Request::post("/webhooks/acme").header("authorization", TOKEN).body(never).unwrap();
    let began = Instant::now();
    let got = routes.oneshot(request).await.unwrap();
    assert_eq!(got.status(), 408);
    assert_eq!(began.elapsed().as_secs(), 10);
}

#[tokio::test]
async fn a_sender_that_hangs_up_is_counted_and_takes_nothing_back() {
    let (begun, goes_on, done) = (Arc::new(Notify::new()), Arc::new(Notify::new()), Arc::new(Notify::new()));
    let tracker = TaskTracker::new();
    let told = (Arc::clone(&begun), Arc::clone(&goes_on), Arc::clone(&done));
    let webhooks = Webhooks::with(Bounds::WEBHOOKS, None, move |_| {
        let (begun, goes_on, done) = told.clone();
        let delivery = tracker.spawn(async move {
            begun.notify_one();
            goes_on.notified().await;
            done.notify_one();
        });
        Box::pin(async move {
            delivery.await.unwrap();
            Ok(Receipt::default())
        })
    });
    let mut stream = TcpStream::connect(webhooks.address).await.unwrap();
    stream.write_all(post("/webhooks/acme", "[]").as_bytes()).await.unwrap();
    timeout(PATIENCE, begun.notified()).await.unwrap();
    drop(stream);
    eventually("the hang-up is counted", || webhooks.hang_ups() == 1).await;
    goes_on.notify_one();
    timeout(PATIENCE, done.notified()).await.expect("the delivery ended with its sender");
}

#[tokio::test]
async fn a_connection_over_the_bound_waits_for_another_to_end() {
    let webhooks = Webhooks::bounded(Bounds { connections: 1, ..Bounds::WEBHOOKS });
    let mut first = TcpStream::connect(webhooks.address).await.unwrap();
    first.write_all(post("/webhooks/acme", "[]").as_bytes()).await.unwrap();
    check(&answer(&mut first).await, 201, &[]);
    assert_eq!((webhooks.connections.open(), webhooks.connections.bound()), (1, 1));
    let mut second = TcpStream::connect(webhooks.address).await.unwrap();
    second.write_all(post("/webhooks/acme", "[]").as_bytes()).await.unwrap();
    assert!(
        timeout(Duration::from_millis(200), second.read(&mut [0])).await.is_err(),
        "served over the bound"
    );
    drop(first);
    check(&answer(&mut second).await, 201, &[]);
}

#[tokio::test]
async fn nothing_is_smuggled_behind_a_body() {
    let webhooks = Webhooks::start();
    let auth = format!("host: x\r\nauthorization: {TOKEN}\r\n");
    let hidden = format!("POST /webhooks/acme/hidden HTTP/1.1\r\n{auth}content-length: 2\r\n\r\n[]");
    let table = [
        ("content-length: 4\r\ntransfer-encoding: chunked", "0\r\n\r\n"),
        ("transfer-encoding: chunked\r\ncontent-length: 4", "0\r\n\r\n"),
        ("transfer-encoding: chunked, identity", "0\r\n\r\n"),
        ("transfer-encoding: xchunked", "0\r\n\r\n"),
        ("content-length: 2\r\ncontent-length: 60", "[]"),
        ("content-length: 2, 60", "[]"),
        ("content-length: +2", "[]"),
        ("content-length : 2", "[]"),
    ];
    for (headers, body) in table {
        let mut stream = TcpStream::connect(webhooks.address).await.unwrap();
        let request = format!("POST /webhooks/acme HTTP/1.1\r\n{auth}{headers}\r\n\r\n{body}{hidden}");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut all = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut all)).await.expect("the connection stays open").unwrap();
        assert_eq!(all.matches("HTTP/1.1 ").count(), 1, "{headers}: {all}");
    }
    let hints: Vec<_> = webhooks.seen.lock().iter().filter_map(|p| p.hint.clone()).collect();
    assert_eq!(hints, Vec::<String>::new());
}

#[tokio::test]
async fn http2_is_spoken_without_tls_too() {
    let webhooks = Webhooks::start();
    let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let url = format!("http://{}/webhooks/acme", webhooks.address);
    let send = || client.post(&url).header("authentication", TOKEN).body("[]").send();
    for got in futures_util::future::join_all([send(), send(), send()]).await {
        let got = got.unwrap();
        assert_eq!((got.status().as_u16(), got.version()), (201, reqwest::Version::HTTP_2));
    }
    let refused = client.post(&url).body(vec![b' '; LIMIT]).send().await.unwrap();
    assert_eq!(refused.status().as_u16(), 401);
    let large =
        client.post(&url).header("authorization", TOKEN).body(vec![b' '; LIMIT + 1]).send().await.unwrap();
    assert_eq!(large.status().as_u16(), 413);
    assert_eq!(webhooks.connections.open(), 1);
}

struct Certificates {
    folder: tempfile::TempDir,
}

impl Certificates {
    fn files(&self) -> config::Tls {
        config::Tls { cert: self.folder.path().join("cert.pem"), key: self.folder.path().join("key.pem") }
    }

    /// Puts a new pair there, and returns the certificate.
    fn renew(&self) -> String {
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(self.files().cert, pair.cert.pem()).unwrap();
        std::fs::write(self.files().key, pair.signing_key.serialize_pem()).unwrap();
        pair.cert.pem()
    }
}

/// A client that trusts this certificate alone, and makes a connection of its own.
fn trusting(certificate: &str) -> reqwest::Client {
    let root = reqwest::Certificate::from_pem(certificate.as_bytes()).unwrap();
    reqwest::Client::builder().tls_certs_only([root]).build().unwrap()
}

#[tokio::test]
async fn tls_speaks_http2_and_takes_a_renewed_certificate_but_no_broken_one() {
    let certificates = Certificates { folder: tempfile::tempdir().unwrap() };
    let first = certificates.renew();
    let tls = Tls::load_and_look_every(certificates.files(), Duration::from_millis(20)).await.unwrap();
    let webhooks =
        Webhooks::with(Bounds::WEBHOOKS, Some(tls), |_| Box::pin(async { Ok(Receipt::default()) }));
    let url = format!("https://localhost:{}/webhooks/acme", webhooks.address.port());
    let send = async |certificate: &str| {
        trusting(certificate).post(&url).header("authorization", TOKEN).body("[]").send().await
    };
    let got = send(&first).await.unwrap();
    assert_eq!((got.status().as_u16(), got.version()), (201, reqwest::Version::HTTP_2));

    let renewed = certificates.renew();
    let taken = async { while send(&renewed).await.is_err() {} };
    timeout(PATIENCE, taken).await.expect("the new certificate was not taken");
    assert!(send(&first).await.is_err());

    std::fs::write(certificates.files().cert, "no certificate").unwrap();
    let held = Instant::now();
    while held.elapsed() < Duration::from_millis(200) {
        send(&renewed).await.expect("the last good certificate stays");
    }
    webhooks.stop.cancel();
    webhooks.tracker.close();
    timeout(PATIENCE, webhooks.tracker.wait()).await.expect("the look at the files ends with the port");
}

#[tokio::test]
async fn a_pair_that_cannot_be_used_is_named() {
    let certificates = Certificates { folder: tempfile::tempdir().unwrap() };
    let missing = Tls::load(certificates.files()).await.unwrap_err().to_string();
    assert!(missing.starts_with("cannot read ") && missing.ends_with("cert.pem"), "{missing}");
    certificates.renew();
    let other = rcgen::KeyPair::generate().unwrap();
    std::fs::write(certificates.files().key, other.serialize_pem()).unwrap();
    let unfit = Tls::load(certificates.files()).await.unwrap_err().to_string();
    assert!(unfit.ends_with("are no usable pair"), "{unfit}");
    std::fs::write(certificates.files().key, "x").unwrap();
    let no_key = Tls::load(certificates.files()).await.unwrap_err().to_string();
    assert!(no_key.ends_with("holds no private key in PEM"), "{no_key}");
}

#[tokio::test]
async fn a_stop_finishes_what_is_in_flight_and_refuses_the_rest() {
    let (begun, goes_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let told = (Arc::clone(&begun), Arc::clone(&goes_on));
    let webhooks = Webhooks::with(Bounds::WEBHOOKS, None, move |_| {
        let (begun, goes_on) = told.clone();
        Box::pin(async move {
            begun.notify_one();
            goes_on.notified().await;
            Ok(Receipt::default())
        })
    });
    let mut idle = TcpStream::connect(webhooks.address).await.unwrap();
    let mut busy = TcpStream::connect(webhooks.address).await.unwrap();
    busy.write_all(post("/webhooks/acme", "[]").as_bytes()).await.unwrap();
    timeout(PATIENCE, begun.notified()).await.unwrap();
    webhooks.stop.cancel();
    webhooks.tracker.close();
    assert_eq!(timeout(PATIENCE, idle.read(&mut [0])).await.unwrap().unwrap_or(0), 0);
    let refused = async { while TcpStream::connect(webhooks.address).await.is_ok() {} };
    timeout(PATIENCE, refused).await.expect("new connections are refused");
    goes_on.notify_one();
    check(&answer(&mut busy).await, 201, &[]);
    drop(busy);
    timeout(PATIENCE, webhooks.tracker.wait()).await.expect("everything ended");
}

#[tokio::test]
async fn a_port_that_is_taken_is_named_in_a_sentence() {
    let port = Port::open("127.0.0.1:0".parse().unwrap()).unwrap();
    let error = Port::open(port.address()).unwrap_err();
    assert!(matches!(error, BindError::Taken(_)));
    let sentence = format!("cannot listen on {}: another process has the port", port.address());
    assert!(error.to_string().starts_with(&sentence), "{error}");
}
