//! What a sender may not do, and that others are served meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use bytes::Bytes;
use fleetbus::intake::accept::Receipt;
use fleetbus::intake::serve::Bounds;
use fleetbus::intake::webhook::router;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tower::ServiceExt as _;

use crate::port::{LIMIT, PATIENCE, TOKEN, Webhooks, answer, check, eventually, gzip, post, state};

#[tokio::test]
async fn without_a_token_the_body_is_not_asked_for() {
    let webhooks = Webhooks::start();
    let asks = "POST /webhooks/acme HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\nexpect: 100-continue\r\n\r\n";
    check(&webhooks.raw(asks).await, 401, &[]);
    let half = "POST /webhooks/acme HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n[1,";
    check(&webhooks.raw(half).await, 401, &[]);
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
async fn a_hundred_headers_are_taken_and_no_more() {
    let webhooks = Webhooks::start();
    let with = |count: usize| {
        let more: String = (0..count).map(|n| format!("x-{n}: y\r\n")).collect();
        post("/webhooks/acme", "[]").replace("host: x\r\n", &format!("host: x\r\n{more}"))
    };
    check(&webhooks.raw(with(97)).await, 201, &[]);
    check(&webhooks.raw(with(98)).await, 431, &[]);
}

#[tokio::test]
async fn headers_of_http2_are_bounded_too_and_the_connection_goes_on() {
    let webhooks = Webhooks::start();
    let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let url = format!("http://{}/webhooks/acme", webhooks.address);
    let send = |length: usize| client.post(&url).bearer_auth(TOKEN).header("x", "a".repeat(length)).send();
    assert_eq!(send(12_000).await.unwrap().status().as_u16(), 201);
    let refused = send(20_000).await;
    assert!(refused.as_ref().map_or(true, |got| got.status().as_u16() == 431), "{refused:?}");
    assert_eq!(send(12_000).await.unwrap().status().as_u16(), 201);
    assert_eq!(webhooks.seen.lock().len(), 2);
}

#[tokio::test]
async fn a_body_without_a_live_token_is_never_read() {
    let routes = router(state(), async |_| Ok(Receipt::default()));
    let send = async |path: &str, token: &str| {
        let asked = Arc::new(AtomicUsize::new(0));
        let asks = Arc::clone(&asked);
        let body = futures_util::stream::poll_fn(move |_| {
            let more = asks.fetch_add(1, Ordering::Relaxed) == 0;
            Poll::Ready(more.then(|| Ok::<_, std::io::Error>(Bytes::from_static(b"[]"))))
        });
        let request = Request::post(path).header("authorization", token).body(Body::from_stream(body));
        let status = routes.clone().oneshot(request.unwrap()).await.unwrap().status().as_u16();
        (status, asked.load(Ordering::Relaxed) > 0)
    };
    assert_eq!(send("/webhooks/acme", "Bearer wrong").await, (401, false));
    assert_eq!(send("/webhooks/acme", "").await, (401, false));
    assert_eq!(send("/webhooks/acme/stop", "Bearer ").await, (401, false));
    assert_eq!(send("/webhooks/nobody", TOKEN).await, (404, false));
    assert_eq!(send("/elsewhere", TOKEN).await, (404, false));
    assert_eq!(send("/webhooks/acme", TOKEN).await, (201, true), "or the test would prove nothing");
}

/// Each has sent half a head.
#[tokio::test]
async fn idle_connections_over_the_bound_give_way_and_others_are_served() {
    let webhooks = Webhooks::bounded(Bounds { connections: 64, ..Bounds::WEBHOOKS });
    let mut idle = Vec::new();
    for _ in 0..500 {
        let mut stream = TcpStream::connect(webhooks.address).await.unwrap();
        stream.write_all(b"POST /webhooks/acme HTTP/1.1\r\nhost:").await.unwrap();
        idle.push(stream);
        assert!(webhooks.connections.open() <= webhooks.connections.bound());
    }
    for _ in 0..3 {
        check(&webhooks.post("/webhooks/acme", "[]").await, 201, &[]);
    }
    assert!(idle[0].read(&mut [0]).await.is_ok_and(|read| read == 0), "the first of them was let go");
}

#[tokio::test]
async fn a_connection_over_the_bound_waits_for_one_that_is_busy_and_not_for_one_that_idles() {
    let (begun, goes_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let told = (Arc::clone(&begun), Arc::clone(&goes_on));
    let webhooks = Webhooks::with(Bounds { connections: 1, ..Bounds::WEBHOOKS }, None, move |_| {
        let (begun, goes_on) = told.clone();
        Box::pin(async move {
            begun.notify_one();
            goes_on.notified().await;
            Ok(Receipt::default())
        })
    });
    let mut first = TcpStream::connect(webhooks.address).await.unwrap();
    first.write_all(post("/webhooks/acme", "[]").as_bytes()).await.unwrap();
    timeout(PATIENCE, begun.notified()).await.unwrap();
    let mut second = TcpStream::connect(webhooks.address).await.unwrap();
    second.write_all(post("/webhooks/acme", "[]").as_bytes()).await.unwrap();
    let served = timeout(Duration::from_millis(300), begun.notified()).await;
    assert!(served.is_err(), "served over the bound");
    assert_eq!((webhooks.connections.open(), webhooks.connections.bound()), (1, 1));
    goes_on.notify_one();
    check(&answer(&mut first).await, 201, &[]);
    // The first one keeps its connection open, and has nothing to say.
    goes_on.notify_one();
    check(&answer(&mut second).await, 201, &[]);
}

/// Without end requests are sent, and no answer is read: what the kernel keeps fills up, and then the server's writes.
#[tokio::test]
async fn a_sender_that_reads_no_answer_is_let_go() {
    // Whether an answer lies with the server or with the kernel is the kernel's affair: one of the two bounds holds.
    let soon = Duration::from_millis(300);
    let webhooks = Webhooks::bounded(Bounds { answer: soon, idle: soon, ..Bounds::WEBHOOKS });
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut stream = socket.connect(webhooks.address).await.unwrap();
    let requests = "GET /webhooks/acme HTTP/1.1\r\nhost: x\r\n\r\n".repeat(500);
    let ends = async { while stream.write_all(requests.as_bytes()).await.is_ok() {} };
    timeout(Duration::from_secs(60), ends).await.expect("the connection is held for ever");
    eventually("the connection ends", || webhooks.connections.open() == 0).await;
}

/// A peer of HTTP/2 that opens no window takes no answer, and answers pings all the same.
#[tokio::test]
async fn a_peer_that_opens_no_window_is_let_go() {
    let webhooks = Webhooks::bounded(Bounds { answer: Duration::from_millis(300), ..Bounds::WEBHOOKS });
    let mut stream = TcpStream::connect(webhooks.address).await.unwrap();
    let mut frames = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    // SETTINGS with SETTINGS_INITIAL_WINDOW_SIZE = 0; HEADERS with END_STREAM and END_HEADERS: `GET / HTTP/2`, `x` as authority.
    frames.extend([0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0]);
    let block = [0x82, 0x86, 0x84, 0x41, 0x01, b'x'];
    frames.extend([0, 0, block.len() as u8, 1, 5, 0, 0, 0, 1]);
    frames.extend(block);
    stream.write_all(&frames).await.unwrap();
    let ends = async { while stream.read(&mut [0; 1_024]).await.is_ok_and(|read| read > 0) {} };
    timeout(PATIENCE, ends).await.expect("the connection is held for ever");
    eventually("the connection ends", || webhooks.connections.open() == 0).await;
}
