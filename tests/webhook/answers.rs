//! What a sender is answered, and what of its request is passed on.

use std::time::Duration;

use bytes::Bytes;
use fleetbus::intake::accept::{Receipt, Refusal};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::port::{PATIENCE, TOKEN, Webhooks, answer, check, gzip, post};

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
async fn of_broken_and_cut_gzip_it_is_said_that_the_gzip_is_at_fault() {
    let webhooks = Webhooks::answering(|pushed| {
        if pushed.body.starts_with(b"[") {
            Ok(Receipt::default())
        } else {
            Err(Refusal::NotJson { line: 1, column: 2 })
        }
    });
    let send = async |body: &[u8], encoding: &str| {
        let length = format!("content-encoding: {encoding}\r\ncontent-length: {}", body.len());
        let mut request = post("/webhooks/acme", "").replace("content-length: 0", &length).into_bytes();
        request.extend(body);
        webhooks.raw(request).await
    };
    let whole = gzip(b"[{\"text\":\"low battery\"}]");
    let mut broken = whole.clone();
    *broken.last_mut().unwrap() ^= 0xff;
    for body in [&whole[..whole.len() / 2], &broken[..], &b"neither"[..]] {
        let got = send(body, "gzip").await;
        check(&got, 400, &["gzip is broken or cut off"]);
        assert!(!got.contains("column") && !got.contains("battery"), "{got}");
        assert_eq!(webhooks.seen.lock().last().unwrap().body, body, "it is kept as it came");
    }
    check(&send(b"neither", "identity").await, 400, &["\"line\":1", "\"column\":2"]);
    check(&send(b"[]", "gzip").await, 201, &[]);
    check(&send(&whole, "gzip").await, 201, &[]);
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
    let counts = webhooks.state.counts.load();
    let readings = counts.readings();
    assert_eq!((readings[0].answered(405), readings[1].answered(404)), (1, 1));
}

#[tokio::test]
async fn an_address_with_a_slash_at_its_end_works() {
    let webhooks = Webhooks::start();
    check(&webhooks.post("/webhooks/acme/", "[]").await, 201, &[]);
    check(&webhooks.post("/webhooks/acme/stop/", "[]").await, 201, &[]);
    let hints: Vec<_> = webhooks.seen.lock().iter().map(|pushed| pushed.hint.clone()).collect();
    assert_eq!(hints, [None, Some("stop".to_owned())]);
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
async fn a_body_in_chunks_is_put_together() {
    let webhooks = Webhooks::start();
    let head = format!(
        "POST /webhooks/acme HTTP/1.1\r\nhost: x\r\nauthorization: {TOKEN}\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    check(&webhooks.raw(format!("{head}2\r\n[1\r\n3\r\n,2]\r\n0\r\n\r\n")).await, 201, &[]);
    assert_eq!(webhooks.seen.lock()[0].body, Bytes::from_static(b"[1,2]"));
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
