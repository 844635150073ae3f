//! Connections of one port: accept, TLS, HTTP/1.1 and HTTP/2, deadlines, and a stop that finishes what is in flight. Used
//! by the webhooks' port and by the operator's. Invariants: connections, head sizes, head times and idle times are
//! bounded, and so is the time for which a peer may leave an answer unread. Where there are as many as there may be, one that waits for nothing but
//! its peer gives way to the next; where all are busy, the next waits in the kernel's queue. An answer that comes before
//! the request's body was read still reaches the sender: the connection lingers.

mod guests;
mod pace;
mod tls;
mod unread;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::header::{CONNECTION, CONTENT_TYPE, TRANSFER_ENCODING};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper::{Request, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use crate::deliver::seldom::Seldom;
use guests::{Guest, Guests};
use pace::{InFlight, Pace, Paced, Protocol, Times};
pub use tls::{Tls, TlsError, certificates};
use unread::Watched;

/// What the kernel keeps while connections wait for their turn.
const BACKLOG: u32 = 1_024;
/// A request's head: start line and headers. It is the read buffer's size, too.
const HEAD_BYTES: usize = 16 << 10;
/// Requests in flight on one HTTP/2 connection.
const STREAMS: u32 = 100;
/// Unread bytes of one HTTP/2 stream, and of one connection.
const WINDOWS: (u32, u32) = (64 << 10, 128 << 10);
/// An HTTP/2 peer that is silent is asked after this time whether it lives, and has as long again to answer.
const PING: Duration = Duration::from_secs(20);
/// When a connection on which nothing comes is probed by the kernel, how often, and how many times in vain.
const VANISHED: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(15), 4);
/// How long, and for how many bytes, a sender that was answered early may go on sending.
const LINGER: (Duration, u64) = (Duration::from_secs(2), 4 << 20);
/// How long an idle connection that was told to end may take, unless a request comes meanwhile.
const FAREWELL: Duration = Duration::from_secs(1);
/// The pause after the system could not accept (no file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Between two lines about that: it may go on for hours.
const SAID: Duration = Duration::from_secs(10);

/// A port's bounds.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The port's name in logs.
    pub name: &'static str,
    /// Connections at once.
    pub connections: usize,
    /// For the TLS handshake.
    pub handshake: Duration,
    /// For a request's head, from its first byte; on a new connection, from its beginning.
    pub head: Duration,
    /// Between two requests.
    pub idle: Duration,
    /// For the peer to take an answer that is there.
    pub answer: Duration,
    /// For the peer to take a piece of an answer that is streamed: a person may look at one for a while.
    pub piece: Duration,
    /// For what is in flight when the port stops.
    pub grace: Duration,
}

impl Bounds {
    /// The webhooks' port.
    pub const WEBHOOKS: Self = Self {
        name: "webhooks",
        connections: 1_024,
        handshake: Duration::from_secs(5),
        head: Duration::from_secs(5),
        idle: Duration::from_secs(75),
        answer: Duration::from_secs(30),
        piece: Duration::from_secs(900),
        grace: Duration::from_secs(30),
    };
    /// The operator's port.
    pub const ADMIN: Self =
        Self { name: "admin", connections: 128, grace: Duration::from_secs(5), ..Self::WEBHOOKS };
}

/// A port that could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else has it.
    #[error("cannot listen on {0}: another process has the port (choose another, or stop that process)")]
    Taken(SocketAddr),
    /// This process may not have it.
    #[error("cannot listen on {0}: not permitted (ports below 1024 need a right)")]
    Forbidden(SocketAddr),
    /// This machine does not have the address.
    #[error("cannot listen on {0}: this machine does not have that address")]
    NoSuchAddress(SocketAddr),
    /// Anything else.
    #[error("cannot listen on {address}")]
    Failed {
        /// The address that was asked for.
        address: SocketAddr,
        /// The system's words.
        source: io::Error,
    },
}

/// A peer that vanished is noticed also where there is nothing to tell it: a stream of events may have none for days, and its place is
/// one of few. Connections have it of the port that took them.
fn looks_for_peers(socket: &TcpSocket) -> io::Result<()> {
    socket.set_keepalive(true)?;
    let (idle, pause, times) = VANISHED;
    sockopt::set_tcp_keepidle(socket, idle)?;
    sockopt::set_tcp_keepintvl(socket, pause)?;
    Ok(sockopt::set_tcp_keepcnt(socket, times)?)
}

/// An open port that nobody answers yet: connections wait.
#[derive(Debug)]
pub struct Port {
    listener: TcpListener,
    address: SocketAddr,
}

impl Port {
    /// Opens a port; with port 0, the system picks one.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn open(address: SocketAddr) -> Result<Self, BindError> {
        let opened = || -> io::Result<Self> {
            let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            socket.set_reuseaddr(true)?;
            looks_for_peers(&socket)?;
            socket.bind(address)?;
            let listener = socket.listen(BACKLOG)?;
            let address = listener.local_addr()?;
            Ok(Self { listener, address })
        };
        opened().map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::Taken(address),
            io::ErrorKind::PermissionDenied => BindError::Forbidden(address),
            io::ErrorKind::AddrNotAvailable => BindError::NoSuchAddress(address),
            _ => BindError::Failed { address, source },
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers with `router` until `stop`: then the port closes, and requests in flight have `bounds.grace`. Everything
    /// runs on `tracker`. Handlers find the peer as `ConnectInfo<SocketAddr>`.
    pub fn serve(
        self,
        router: Router,
        bounds: Bounds,
        tls: Option<Tls>,
        tracker: &TaskTracker,
        stop: &CancellationToken,
    ) -> Connections {
        if let Some(tls) = &tls {
            tracker.spawn(tls.clone().keep_current(stop.clone()));
        }
        let server = Arc::new(Server {
            router,
            bounds,
            tls: tls.map(|tls| tls.acceptor()),
            protocols: protocols(tracker),
            tracker: tracker.clone(),
            stop: stop.clone(),
            guests: Guests::new(bounds.connections),
            not_accepted: Seldom::of(1, SAID),
        });
        let connections = Connections { guests: server.guests.clone() };
        tracker.spawn(server.accept(self.listener));
        connections
    }
}

/// How many connections a port has.
#[derive(Debug, Clone)]
pub struct Connections {
    guests: Guests,
}

impl Connections {
    /// Open now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.guests.len()
    }

    /// At most.
    #[must_use]
    pub const fn bound(&self) -> usize {
        self.guests.bound()
    }
}

struct Server {
    router: Router,
    bounds: Bounds,
    tls: Option<TlsAcceptor>,
    protocols: Builder<OnTracker>,
    tracker: TaskTracker,
    stop: CancellationToken,
    guests: Guests,
    not_accepted: Seldom,
}

/// Runs the streams of HTTP/2 connections where everything runs.
#[derive(Clone)]
struct OnTracker(TaskTracker);

impl<F> hyper::rt::Executor<F> for OnTracker
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, work: F) {
        self.0.spawn(work);
    }
}

fn protocols(tracker: &TaskTracker) -> Builder<OnTracker> {
    let mut builder = Builder::new(OnTracker(tracker.clone()));
    // `Pace` keeps the time of heads: hyper's own timer would also end idle connections.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(HEAD_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEAD_BYTES as u32)
        .initial_stream_window_size(WINDOWS.0)
        .initial_connection_window_size(WINDOWS.1);
    builder
}

impl Server {
    async fn accept(self: Arc<Self>, listener: TcpListener) {
        let Bounds { head, idle, answer, piece, .. } = self.bounds;
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let guest = tokio::select! {
                        biased;
                        () = self.stop.cancelled() => return,
                        guest = self.guests.admit(|| Pace::new(Times { head, idle, answer, piece })) => guest,
                    };
                    self.tracker.spawn(Arc::clone(&self).connection(stream, peer, guest));
                }
                Err(error) if concerns_the_peer(&error) => {}
                Err(error) => {
                    if let Some(times) = self.not_accepted.happened() {
                        let port = self.bounds.name;
                        tracing::warn!(port, error = %error, times, "connection.not_accepted");
                    }
                    // Mostly for want of file descriptors: one that idles gives its own back.
                    self.guests.dismiss_one();
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, guest: Guest) {
        // Without it answers wait for the peer's delayed acknowledgements; a socket that refuses it still works.
        stream.set_nodelay(true).ok();
        match &self.tls {
            None => self.converse(stream, peer, &guest).await,
            // Apart, so that a connection without TLS does not have the room that a handshake takes: six kilobytes.
            Some(tls) => Box::pin(self.secured(tls, stream, peer, &guest)).await,
        }
    }

    async fn secured(&self, tls: &TlsAcceptor, stream: TcpStream, peer: SocketAddr, guest: &Guest) {
        let shaken = timeout(self.bounds.handshake, tls.accept(stream));
        match guest.dismissed.run_until_cancelled(shaken).await {
            Some(Ok(Ok(stream))) => {
                guest.pace.greeted();
                self.converse(stream, peer, guest).await;
            }
            Some(Ok(Err(error))) => {
                tracing::debug!(port = self.bounds.name, error = %error, "connection.handshake_failed");
            }
            Some(Err(_)) => tracing::debug!(port = self.bounds.name, "connection.handshake_timed_out"),
            None => tracing::debug!(port = self.bounds.name, "connection.gave_way"),
        }
    }

    async fn converse<S>(&self, stream: S, peer: SocketAddr, guest: &Guest)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (stream, left) = Paced::new(stream, guest.pace.clone());
        let (router, begun) = (self.router.clone(), guest.pace.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let multiplexed = request.version() == Version::HTTP_2;
            let in_flight = begun.begin(if multiplexed { Protocol::Http2 } else { Protocol::Http1 });
            let coding = Coding::of(request.headers());
            let (parts, body) = request.into_parts();
            let (body, read) = Watched::new(body);
            let mut request = Request::from_parts(parts, Body::new(body));
            request.extensions_mut().insert(ConnectInfo(peer));
            let answer = router.clone().oneshot(request);
            async move {
                let mut answer = match coding {
                    Coding::Plain => answer.await?,
                    Coding::Unknown => not_undone(),
                };
                if !multiplexed && !read.is_to_its_end() {
                    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(answer.map(|body| Counted::new(body, in_flight)))
            }
        });
        let ended = {
            let connection = self.protocols.serve_connection(TokioIo::new(stream), service);
            drive(pin!(connection), guest, &self.stop, self.bounds.grace).await
        };
        match ended {
            Ended::ByItself => {
                if let Some(stream) = left.take() {
                    linger(stream).await;
                }
            }
            Ended::OutOfTime => tracing::debug!(port = self.bounds.name, "connection.timed_out"),
        }
    }
}

/// How a request's body comes on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    /// With a length, in chunks, or not at all.
    Plain,
    /// In a coding below the chunks. hyper undoes the chunks alone: what is left is not what the sender means.
    Unknown,
}

impl Coding {
    /// Beside chunks no length is left to be seen here: hyper drops it, and ends the connection after the answer.
    fn of(headers: &HeaderMap) -> Self {
        let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
        match (codings.next(), codings.next()) {
            (None, _) => Self::Plain,
            (Some(one), None) if one.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") => Self::Plain,
            (Some(_), _) => Self::Unknown,
        }
    }
}

fn not_undone() -> Response {
    let headers = [(CONNECTION, "close"), (CONTENT_TYPE, "application/json")];
    let body = r#"{"error":"the transfer coding is not chunked alone"}"#;
    (StatusCode::BAD_REQUEST, headers, body).into_response()
}

/// An error of one peer, not of this machine.
fn concerns_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

enum Ended {
    ByItself,
    OutOfTime,
}

/// Drives a connection to its end, within its deadlines. Reading and beginning happen inside the connection's own poll,
/// so the deadline is current whenever that returns.
async fn drive<C>(
    mut connection: Pin<&mut C>,
    guest: &Guest,
    stop: &CancellationToken,
    grace: Duration,
) -> Ended
where
    C: Conversation,
{
    let pace = &guest.pace;
    let mut stopped = pin!(stop.cancelled());
    let mut dismissed = pin!(guest.dismissed.cancelled());
    let mut leaving = false;
    let mut alarm = pin!(sleep_until(Instant::now()));
    // By the stop alone: it cuts also what is in flight.
    let mut last: Option<Instant> = None;
    std::future::poll_fn(|cx| {
        loop {
            if connection.as_mut().poll_end(cx).is_ready() {
                return Poll::Ready(Ended::ByItself);
            }
            if last.is_none() && stopped.as_mut().poll(cx).is_ready() {
                last = Some(Instant::now() + grace);
                connection.as_mut().wind_up();
                continue;
            }
            if !leaving && dismissed.as_mut().poll(cx).is_ready() {
                leaving = true;
                match pace.due() {
                    Some(due) if !due.idle && pace.rank().is_some() => return Poll::Ready(Ended::OutOfTime),
                    Some(due) if due.idle => pace.farewell(Instant::now() + FAREWELL),
                    // A request came at the same moment: it is answered first.
                    Some(_) | None => {}
                }
                connection.as_mut().wind_up();
                continue;
            }
            let due = pace.due().map(|due| due.at);
            let Some(at) = due.into_iter().chain(last).min() else { return Poll::Pending };
            if !rings(alarm.as_mut(), at, cx) {
                return Poll::Pending;
            }
            let idle = pace.due().is_some_and(|due| due.idle) && last.is_none();
            if !idle {
                return Poll::Ready(Ended::OutOfTime);
            }
            pace.farewell(Instant::now() + FAREWELL);
            connection.as_mut().wind_up();
        }
    })
    .await
}

fn rings(mut alarm: Pin<&mut Sleep>, at: Instant, cx: &mut Context<'_>) -> bool {
    if alarm.deadline() != at {
        alarm.as_mut().reset(at);
    }
    alarm.poll(cx).is_ready()
}

/// What [`drive`] asks of a connection.
trait Conversation {
    fn poll_end(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()>;
    fn wind_up(self: Pin<&mut Self>);
}

impl<I, S, B> Conversation for hyper_util::server::conn::auto::Connection<'_, I, S, OnTracker>
where
    S: hyper::service::Service<Request<Incoming>, Response = hyper::Response<B>>,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: HttpBody + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
    OnTracker: hyper_util::server::conn::auto::HttpServerConnExec<S::Future, B>,
{
    fn poll_end(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // How a peer broke the protocol, or off, is its own affair: what it was due was answered.
        self.poll(cx).map(|ended| {
            if let Err(error) = ended {
                tracing::debug!(error = %error, "connection.broke");
            }
        })
    }

    fn wind_up(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Closing a socket on unread bytes resets it, and the answer may be lost with it: end the sending half, and read on.
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    let (time, bytes) = LINGER;
    let read_on = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut (&mut stream).take(bytes), &mut tokio::io::sink()).await
    };
    // Whatever the peer does now, the connection is over.
    timeout(time, read_on).await.map(Result::unwrap_or_default).unwrap_or_default();
}

/// An answer's body that counts as in flight until it was sent.
struct Counted {
    body: Body,
    in_flight: InFlight,
    /// Nobody knows how long it will be.
    is_streamed: bool,
}

impl Counted {
    fn new(body: Body, in_flight: InFlight) -> Self {
        let is_streamed = body.size_hint().exact().is_none();
        if !is_streamed {
            in_flight.answered();
        }
        Self { body, in_flight, is_streamed }
    }
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if !self.is_streamed {
            return Pin::new(&mut self.body).poll_frame(cx);
        }
        self.in_flight.wants_piece();
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(polled, Poll::Ready(Some(Ok(_)))) {
            self.in_flight.has_piece();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
