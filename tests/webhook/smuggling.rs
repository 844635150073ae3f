//! What two servers on one way could read in two ways is refused, and nothing behind it is taken for a request.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::port::{PATIENCE, TOKEN, Webhooks};

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
