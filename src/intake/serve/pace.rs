//! The pace of one connection: when its head, or its next request, must be there. The stream says when bytes come, the
//! service when a request begins and ends; `serve` asks for what is due after every poll. Pure but for its clock. Neither a
//! peer that sends nothing nor one that reads nothing holds a connection for longer than its bounds; while a request is worked on, nothing
//! is due, also where the connection was told to end just when it came.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Pace(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    times: Times,
    protocol: Protocol,
    waiting: Waiting,
    since: Instant,
    in_flight: usize,
    /// Whether it has had a request.
    proven: bool,
    /// Until when answers, or pieces of them, must have been taken: at most as many as there are requests in flight.
    answers: Vec<(u64, Instant)>,
    next: u64,
}

/// A connection's bounds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// For a head.
    pub(super) head: Duration,
    /// Between two requests.
    pub(super) idle: Duration,
    /// For the peer to take an answer whose length is known.
    pub(super) answer: Duration,
    /// For the peer to take a piece of one that is streamed.
    pub(super) piece: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    /// For the rest of a head.
    Head,
    /// For the first byte of one.
    Idle,
    /// For the peer to take its leave, until then.
    Farewell(Instant),
}

/// What the connection speaks, as far as bytes tell anything: those of HTTP/2 may belong to no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// A byte while nothing is in flight begins a head.
    Http1,
    /// Only requests tell.
    Http2,
}

/// What must happen, and by when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) at: Instant,
    /// Nothing was begun: the connection can end politely.
    pub(super) idle: bool,
}

impl Pace {
    /// A new connection owes its first head.
    pub(super) fn new(times: Times) -> Self {
        let state = State {
            times,
            protocol: Protocol::Http1,
            waiting: Waiting::Head,
            since: Instant::now(),
            in_flight: 0,
            proven: false,
            answers: Vec::new(),
            next: 0,
        };
        Self(Arc::new(Mutex::new(state)))
    }

    /// The handshake is over: the head's time begins.
    pub(super) fn greeted(&self) {
        self.0.lock().since = Instant::now();
    }

    /// None while a request is worked on: that has deadlines of its own.
    pub(super) fn due(&self) -> Option<Due> {
        let state = self.0.lock();
        if state.in_flight > 0 {
            return state.answers.iter().map(|(_, at)| Due { at: *at, idle: false }).min_by_key(|due| due.at);
        }
        match state.waiting {
            Waiting::Head => Some(Due { at: state.since + state.times.head, idle: false }),
            Waiting::Idle => Some(Due { at: state.since + state.times.idle, idle: true }),
            Waiting::Farewell(until) => Some(Due { at: until, idle: false }),
        }
    }

    /// Who gives way first where there are too many: who never had a request, then who has waited longest. None while a
    /// request is in flight.
    pub(super) fn rank(&self) -> Option<(bool, Instant)> {
        let state = self.0.lock();
        let waits = match state.waiting {
            Waiting::Head | Waiting::Idle => state.in_flight == 0,
            Waiting::Farewell(_) => false,
        };
        waits.then_some((state.proven, state.since))
    }

    /// The connection was told to end: nothing more is due from it but its end, by then. A request of HTTP/2 that crossed what it was told
    /// is answered first.
    pub(super) fn farewell(&self, until: Instant) {
        self.0.lock().waiting = Waiting::Farewell(until);
    }

    /// A request's head is complete.
    pub(super) fn begin(&self, protocol: Protocol) -> InFlight {
        let mut state = self.0.lock();
        state.protocol = protocol;
        state.in_flight += 1;
        state.proven = true;
        state.next += 1;
        InFlight { pace: self.clone(), number: state.next }
    }

    fn came(&self) {
        let mut state = self.0.lock();
        if state.in_flight == 0 && state.waiting == Waiting::Idle && state.protocol == Protocol::Http1 {
            state.waiting = Waiting::Head;
            state.since = Instant::now();
        }
    }
}

/// A request in flight, until its answer was sent or given up.
#[derive(Debug)]
pub(super) struct InFlight {
    pace: Pace,
    number: u64,
}

impl InFlight {
    /// The answer is there: from now on only the peer holds it up.
    pub(super) fn answered(&self) {
        let mut state = self.pace.0.lock();
        let until = Instant::now() + state.times.answer;
        state.answers.push((self.number, until));
    }

    /// A piece of the answer is there: only the peer holds up that the next one is wanted.
    pub(super) fn has_piece(&self) {
        let mut state = self.pace.0.lock();
        let until = Instant::now() + state.times.piece;
        state.answers.push((self.number, until));
    }

    /// The peer has taken what was there.
    pub(super) fn wants_piece(&self) {
        self.pace.0.lock().answers.retain(|(number, _)| *number != self.number);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut state = self.pace.0.lock();
        state.in_flight -= 1;
        state.answers.retain(|(number, _)| *number != self.number);
        if state.in_flight == 0 {
            state.since = Instant::now();
            state.waiting = match state.waiting {
                Waiting::Head | Waiting::Idle => Waiting::Idle,
                // The last answer may be on its way still.
                Waiting::Farewell(_) => Waiting::Farewell(state.since + state.times.answer),
            };
        }
    }
}

/// A stream that tells its pace of bytes, and that outlives the connection which drops it.
#[derive(Debug)]
pub(super) struct Paced<S> {
    /// Always there until it is dropped.
    stream: Option<S>,
    pace: Pace,
    left: Left<S>,
}

/// Where a dropped [`Paced`] leaves its stream.
#[derive(Debug)]
pub(super) struct Left<S>(Arc<Mutex<Option<S>>>);

impl<S> Left<S> {
    /// The stream, once the connection has dropped it.
    pub(super) fn take(&self) -> Option<S> {
        self.0.lock().take()
    }
}

impl<S> Paced<S> {
    pub(super) fn new(stream: S, pace: Pace) -> (Self, Left<S>) {
        let left = Arc::new(Mutex::new(None));
        (Self { stream: Some(stream), pace, left: Left(Arc::clone(&left)) }, Left(left))
    }
}

impl<S> Drop for Paced<S> {
    fn drop(&mut self) {
        *self.left.0.lock() = self.stream.take();
    }
}

impl<S: Unpin> Paced<S> {
    fn stream(&mut self) -> io::Result<Pin<&mut S>> {
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = self.stream()?.poll_read(cx, buf);
        if buf.filled().len() > before {
            self.pace.came();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Duration = Duration::from_secs(5);
    const IDLE: Duration = Duration::from_secs(75);
    const PIECE: Duration = Duration::from_secs(900);
    const TIMES: Times = Times { head: HEAD, idle: IDLE, answer: Duration::from_secs(30), piece: PIECE };

    fn left(pace: &Pace) -> Option<(Duration, bool)> {
        pace.due().map(|due| (due.at - Instant::now(), due.idle))
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_connection_owes_a_head_and_bytes_do_not_extend_it() {
        let pace = Pace::new(TIMES);
        tokio::time::advance(Duration::from_secs(3)).await;
        pace.came();
        assert_eq!(left(&pace), Some((Duration::from_secs(2), false)));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_due_while_a_request_is_in_flight() {
        let pace = Pace::new(TIMES);
        let request = pace.begin(Protocol::Http1);
        pace.came();
        assert_eq!(left(&pace), None);
        drop(request);
        assert_eq!(left(&pace), Some((IDLE, true)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_byte_of_the_next_head_starts_its_time() {
        let pace = Pace::new(TIMES);
        drop(pace.begin(Protocol::Http1));
        tokio::time::advance(Duration::from_secs(30)).await;
        pace.came();
        assert_eq!(left(&pace), Some((HEAD, false)));
    }

    #[tokio::test(start_paused = true)]
    async fn pings_of_http2_neither_begin_a_head_nor_extend_idleness() {
        let pace = Pace::new(TIMES);
        drop(pace.begin(Protocol::Http2));
        tokio::time::advance(Duration::from_secs(30)).await;
        pace.came();
        assert_eq!(left(&pace), Some((IDLE - Duration::from_secs(30), true)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_answer_that_is_not_taken_is_due_first_and_work_is_not() {
        let pace = Pace::new(TIMES);
        let (first, second) = (pace.begin(Protocol::Http2), pace.begin(Protocol::Http2));
        assert_eq!(left(&pace), None, "both are worked on");
        second.answered();
        tokio::time::advance(Duration::from_secs(10)).await;
        first.answered();
        assert_eq!(left(&pace), Some((Duration::from_secs(20), false)));
        drop(second);
        assert_eq!(left(&pace), Some((Duration::from_secs(30), false)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_waits_for_its_next_piece_without_end_and_for_its_peer_to_take_one_no_longer_than_its_bound()
     {
        let pace = Pace::new(TIMES);
        let (stream, other) = (pace.begin(Protocol::Http2), pace.begin(Protocol::Http2));
        assert_eq!(left(&pace), None, "nothing has come yet");
        stream.has_piece();
        assert_eq!(left(&pace), Some((PIECE, false)));
        other.answered();
        assert_eq!(left(&pace), Some((Duration::from_secs(30), false)), "whatever is due first");
        drop(other);
        stream.wants_piece();
        assert_eq!(left(&pace), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_crosses_a_farewell_has_its_time_and_its_answer_too() {
        let pace = Pace::new(TIMES);
        drop(pace.begin(Protocol::Http2));
        pace.farewell(Instant::now() + Duration::from_secs(1));
        assert_eq!(left(&pace), Some((Duration::from_secs(1), false)));
        let crossed = pace.begin(Protocol::Http2);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(left(&pace), None, "it is worked on");
        drop(crossed);
        assert_eq!(left(&pace), Some((TIMES.answer, false)));
        assert_eq!(pace.rank(), None, "it was told to leave already");
    }

    #[tokio::test(start_paused = true)]
    async fn who_never_asked_gives_way_before_who_did_and_who_is_busy_never_does() {
        let (proven, fresh, busy) = (Pace::new(TIMES), Pace::new(TIMES), Pace::new(TIMES));
        drop(proven.begin(Protocol::Http1));
        tokio::time::advance(Duration::from_secs(1)).await;
        fresh.greeted();
        let _request = busy.begin(Protocol::Http1);
        assert!(fresh.rank() < proven.rank());
        assert_eq!(busy.rank(), None);
    }
}
