//! What two servers on one way could read in two ways is refused, and nothing behind it is taken for a request.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::port::{PATIENCE, TOKEN, Webhooks, check};

#[tokio::test]
async fn nothing_is_smuggled_behind_a_body() {
    let webhooks = Webhooks::start();
    let hidden = format!(
        "POST /webhooks/acme/hidden HTTP/1.1\r\nhost: x\r\nauthorization: {TOKEN}\r\ncontent-length: 2\r\n\r\n[]"
    );
    let table = [
        ("content-length: 4\r\ntransfer-encoding: chunked", "0\r\n\r\n"),
        ("transfer-encoding: chunked\r\ncontent-length: 4", "0\r\n\r\n"),
        ("transfer-encoding: chunked, identity", "0\r\n\r\n"),
        ("transfer-encoding: xchunked", "0\r\n\r\n"),
        ("content-length: 2\r\ncontent-length: 60", "[]"),
        ("content-length: 2, 60", "[]"),
        ("content-length: +2", "[]"),
        ("content-length : 2", "[]"),
        ("content-length: 2\r\n 60", "[]"),
        ("x: y\r\n\tcontent-length: 60\r\ncontent-length: 2", "[]"),
        ("content-length: -2", "[]"),
        ("content-length: 0x2", "[]"),
        ("content-length: 2\r\ncontent-length: 2, 60", "[]"),
        ("content-length: 18446744073709551618", "[]"),
        ("transfer-encoding: chunked\r\ntransfer-encoding: identity", "2\r\n[]\r\n0\r\n\r\n"),
        ("transfer-encoding : chunked", "0\r\n\r\n"),
        ("transfer-encoding:\x0bchunked", "0\r\n\r\n"),
        ("transfer-encoding: chunked", "2;\n[]\r\n0\r\n\r\n"),
        ("transfer-encoding: chunked", "+2\r\n[]\r\n0\r\n\r\n"),
        ("transfer-encoding: chunked", "0x2\r\n[]\r\n0\r\n\r\n"),
        ("transfer-encoding: chunked", "-1\r\n[]\r\n0\r\n\r\n"),
        ("transfer-encoding: chunked", "10000000000000002\r\n[]\r\n0\r\n\r\n"),
        ("transfer-encoding: chunked", "2\r\n[]0\r\n\r\n"),
        ("transfer-encoding: chunked", "2\n[]\n0\n\n"),
        ("transfer-encoding: chunked", "\r\n2\r\n[]\r\n0\r\n\r\n"),
    ];
    for (headers, body) in table {
        to_the_end(&webhooks, headers, &format!("{body}{hidden}")).await;
    }
    let hints: Vec<_> = webhooks.seen.lock().iter().filter_map(|p| p.hint.clone()).collect();
    assert_eq!(hints, Vec::<String>::new());
}

/// As RFC 9112 has it: a server may take the chunks and drop the length, where it ends the connection after the answer.
#[tokio::test]
async fn of_chunks_and_a_length_the_chunks_count_and_the_connection_ends() {
    let webhooks = Webhooks::start();
    for headers in [
        "content-length: 4\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 4",
        "content-length: 4\r\ntransfer-encoding: chunked\r\nconnection: keep-alive",
    ] {
        let all = to_the_end(&webhooks, headers, "4\r\n[{}]\r\n0\r\n\r\n").await;
        check(&all, 201, &["connection: close"]);
    }
    let seen: Vec<_> = webhooks.seen.lock().iter().map(|pushed| pushed.body.clone()).collect();
    assert_eq!(seen, ["[{}]", "[{}]", "[{}]"]);
}

#[tokio::test]
async fn a_transfer_coding_that_nobody_undoes_is_refused_and_the_connection_ends() {
    let webhooks = Webhooks::start();
    for headers in [
        "transfer-encoding: gzip, chunked",
        "transfer-encoding: gzip,chunked\r\ncontent-length: 4",
        "transfer-encoding: gzip\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked, chunked",
    ] {
        let all = to_the_end(&webhooks, headers, "4\r\n[{}]\r\n0\r\n\r\n").await;
        check(&all, 400, &["connection: close", "transfer coding"]);
    }
    assert!(webhooks.seen.lock().is_empty());
    let all = to_the_end(&webhooks, "Transfer-Encoding: Chunked\r\nconnection: close", "0\r\n\r\n").await;
    check(&all, 201, &[]);
}

/// Everything that is answered to one request, until the server ends the connection.
async fn to_the_end(webhooks: &Webhooks, headers: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(webhooks.address).await.unwrap();
    let request = format!(
        "POST /webhooks/acme HTTP/1.1\r\nhost: x\r\nauthorization: {TOKEN}\r\n{headers}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut all = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut all)).await.expect("the connection stays open").unwrap();
    assert_eq!(all.matches("HTTP/1.1 ").count(), 1, "{headers}: {all}");
    all
}
