//! A webhooks' port on a real socket, a stand-in for what happens behind it, and senders that write bytes.

use std::future::Future;
use std::io::Write as _;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use fleetbus::event::AccountId;
use fleetbus::intake::accept::{Pushed, Receipt, Refusal};
use fleetbus::intake::auth::{Key, Origin, TokenDigest};
use fleetbus::intake::serve::{Bounds, Connections, Port, Tls};
use fleetbus::intake::webhook::{WebhookState, router};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub const TOKEN: &str = "live-token";
pub const LIMIT: usize = 2 << 20;
/// Nothing here takes longer.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub type Taken = Pin<Box<dyn Future<Output = Result<Receipt, Refusal>> + Send>>;

/// A webhooks' port, and what it was sent.
pub struct Webhooks {
    pub address: SocketAddr,
    pub state: WebhookState,
    pub seen: Arc<Mutex<Vec<Pushed>>>,
    pub connections: Connections,
    pub tracker: TaskTracker,
    pub stop: CancellationToken,
}

impl Webhooks {
    pub fn start() -> Self {
        Self::answering(|_| Ok(Receipt { events: 1, delivered: 1, ..Receipt::default() }))
    }

    pub fn answering(
        answer: impl Fn(&Pushed) -> Result<Receipt, Refusal> + Clone + Send + Sync + 'static,
    ) -> Self {
        Self::with(Bounds::WEBHOOKS, None, move |pushed| {
            let answer = answer(&pushed);
            Box::pin(async move { answer })
        })
    }

    pub fn bounded(bounds: Bounds) -> Self {
        Self::with(bounds, None, |_| Box::pin(async { Ok(Receipt::default()) }))
    }

    pub fn with(
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
    pub async fn raw(&self, request: impl AsRef<[u8]>) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_ref()).await.unwrap();
        answer(&mut stream).await
    }

    /// The same, with so small a buffer that the server's end is noticed while the sender still writes.
    pub async fn trickle(&self, request: &[u8]) -> String {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_send_buffer_size(4_096).unwrap();
        let mut stream = socket.connect(self.address).await.unwrap();
        stream.write_all(request).await.expect("the connection was reset while its sender wrote");
        answer(&mut stream).await
    }

    pub async fn post(&self, path: &str, body: &str) -> String {
        self.raw(post(path, body)).await
    }

    pub fn hang_ups(&self) -> u64 {
        self.state.counts.load().readings()[0].hang_ups
    }
}

pub fn state() -> WebhookState {
    let acme = AccountId::new("acme");
    let state = WebhookState::new(std::slice::from_ref(&acme));
    state.tokens.replace(&acme, Origin::Config, TokenDigest::of(TOKEN).map(Key::of));
    state
}

pub fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// One answer: to its end by `content-length`, or to the end of the stream.
pub async fn answer(stream: &mut TcpStream) -> String {
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

pub async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

pub fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

#[track_caller]
pub fn check(answer: &str, status: u16, parts: &[&str]) {
    let line = format!("HTTP/1.1 {status} ");
    assert!(answer.starts_with(&line), "wanted {status}: {answer}");
    for part in parts {
        assert!(answer.contains(part), "wanted {part}: {answer}");
    }
}
