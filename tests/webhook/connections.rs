//! How connections live and end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fleetbus::intake::accept::Receipt;
use fleetbus::intake::serve::{BindError, Bounds, Port};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::port::{LIMIT, PATIENCE, TOKEN, Webhooks, answer, check, eventually, post};

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

/// A connection whose request was refused before its body was read cannot be used again, and the answer says so: who keeps connections
/// would send the next request, perhaps another's, on one that ends.
#[tokio::test]
async fn an_answer_says_so_where_its_connection_ends() {
    let webhooks = Webhooks::start();
    let refused = |path: &str| {
        format!("POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: wrong\r\ncontent-length: 2\r\n\r\n")
    };
    let no_body = "POST /webhooks/acme HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n".to_owned();
    for (request, status, closes) in [
        (post("/webhooks/acme", "[]"), 201, false),
        (no_body, 401, false),
        (refused("/webhooks/acme"), 401, true),
        (refused("/webhooks/nobody"), 404, true),
        (refused("/elsewhere"), 404, true),
    ] {
        let answer = webhooks.raw(&request).await;
        check(&answer, status, &[]);
        assert_eq!(answer.contains("connection: close\r\n"), closes, "{request}: {answer}");
    }
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

#[tokio::test]
async fn the_kernel_looks_for_a_peer_of_whom_nothing_comes() {
    let webhooks = Webhooks::start();
    let peer = TcpStream::connect(webhooks.address).await.unwrap();
    let of = |address: SocketAddr| format!("0100007F:{:04X}", address.port());
    let (here, there) = (of(webhooks.address), of(peer.local_addr().unwrap()));
    // The kernel's table: local and remote address, state, queues, timer: 2 is that of probes, with hundredths of a second.
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table.lines().map(|row| row.split_whitespace().collect::<Vec<_>>());
    let row = rows.into_iter().find(|row| row[1] == here && row[2] == there).expect("the connection");
    let (timer, when) = row[5].split_once(':').unwrap();
    assert_eq!(timer, "02", "{row:?}");
    assert!(u64::from_str_radix(when, 16).unwrap() <= 60 * 100, "{row:?}");
}

/// Kinds of frames of HTTP/2.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `POST /webhooks/acme` with the token and an empty list, on a stream.
fn request_of_http2(stream: u32) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    // POST, http, and by their places in the static table: :path, :authority, authorization.
    let head =
        [&[0x83, 0x86, 0x04][..], &text("/webhooks/acme"), &[0x01], &text("x"), &[0x0f, 0x08], &text(TOKEN)];
    [frame(HEADERS, 0x4, stream, &head.concat()), frame(DATA, 0x1, stream, b"[]")].concat()
}

/// The next frame of this kind: its stream and payload. What is asked meanwhile is not answered.
async fn next_frame(connection: &mut TcpStream, wanted: u8) -> Option<(u32, Vec<u8>)> {
    loop {
        let mut head = [0; 9];
        connection.read_exact(&mut head).await.ok()?;
        let [a, b, c, kind, _, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        connection.read_exact(&mut payload).await.ok()?;
        if kind == wanted {
            return Some((u32::from_be_bytes(stream), payload));
        }
    }
}

/// Time stands still but where everybody waits for it.
#[tokio::test(start_paused = true)]
async fn a_request_that_crosses_the_farewell_of_an_idle_connection_is_answered() {
    let (begun, goes_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let told = (Arc::clone(&begun), Arc::clone(&goes_on));
    let idle = Duration::from_secs(1);
    let webhooks = Webhooks::with(Bounds { idle, ..Bounds::WEBHOOKS }, None, move |_| {
        let (begun, goes_on) = told.clone();
        Box::pin(async move {
            begun.notify_one();
            goes_on.notified().await;
            Ok(Receipt::default())
        })
    });
    let mut connection = TcpStream::connect(webhooks.address).await.unwrap();
    let hello =
        [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &[]), request_of_http2(1)];
    connection.write_all(&hello.concat()).await.unwrap();
    goes_on.notify_one();
    let (stream, _) = next_frame(&mut connection, DATA).await.unwrap();
    assert_eq!(stream, 1);
    begun.notified().await;
    next_frame(&mut connection, GOAWAY).await.unwrap();
    connection.write_all(&request_of_http2(3)).await.unwrap();
    begun.notified().await;
    // Longer than a connection has that was told to end and does nothing.
    tokio::time::sleep(Duration::from_secs(5)).await;
    goes_on.notify_one();
    let (stream, answer) = next_frame(&mut connection, DATA).await.expect("an answer, not the end");
    let answer = String::from_utf8(answer).unwrap();
    assert_eq!((stream, answer.contains("\"events\":0")), (3, true), "{answer}");
}
