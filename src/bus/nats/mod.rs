//! NATS JetStream: published with `Nats-Msg-Id`, acknowledged by the stream. Invariants: only the acknowledgement counts;
//! an attempt begins only while connected, so that nothing is buffered in the client; an attempt whose acknowledgement did
//! not come is made again under the same message id within the stream's duplicate window, and a `duplicate` is delivered.
//! One task owns all attempts. ADR 0008 has what async-nats reports on a disconnect in flight.

mod errors;
mod inbox;
mod limit;
mod login;
mod promise;
mod silence;
mod stream;
mod subjects;
mod under_way;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use async_nats::connection::State;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::{
    Client, ClientError, ConnectErrorKind, ConnectOptions, Event, HeaderMap, HeaderName, Server, ServerError,
    Subscriber, header,
};
use futures_util::StreamExt as _;
use futures_util::future::OptionFuture;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Failure, Message, OpenError, Outcome, Ticket};
use crate::config;
use crate::deliver::seldom::Seldom;
use crate::event::Text;
use errors::{Reaction, Sending, Stream, reaction};
use inbox::{Connection, Ended, Waiting, hear};
use limit::{Limit, Open, Sizes, TooLarge};
use login::Login;
use silence::Heard;
use stream::Unanswered;
use subjects::{Seen, without_subject};
use under_way::UnderWay;

/// Messages handed over and not yet taken by the task, and attempts under way: beyond it the client is busy.
const QUEUE: usize = 4_096;
/// How long one acknowledgement is waited for before the message is sent again.
const ACK: Duration = Duration::from_secs(5);
/// How long an attempt goes on under one message id: well within the two minutes that a stream remembers ids by default.
const WINDOW: Duration = Duration::from_secs(90);
/// Pause between two sends of one attempt, where an answer took its time; and twice as long after each that did not, up to `ACK`.
const AGAIN: Duration = Duration::from_millis(250);
/// How long the first connection is waited for with what comes meanwhile, before the bus counts as away.
const BEGINNING: Duration = Duration::from_secs(1);
/// The longest subject that is published. A server reads 4,096 bytes (`max_control_line`) of subject, inbox and lengths, and
/// ends the connection of who sends more: one message would take everyone's connection away, again and again.
const SUBJECT: usize = 3_072;
/// Between two lines about another stream than the configured one.
const OTHER_STREAM: Duration = Duration::from_secs(60);
/// What a server says before it ends the connection of who sends more than a user or account may at once.
const TOO_LARGE: &str = "maximum payload violation";
/// In the server's words where the user may not subscribe: to the inbox, and no acknowledgement arrives.
const MAY_NOT_SUBSCRIBE: &str = "permissions violation for subscription";
/// Messages that the task takes over at once.
const BATCH: usize = 64;

/// See the module.
pub struct NatsBus {
    config: config::Nats,
    options: tokio::sync::Mutex<Option<ConnectOptions>>,
    door: mpsc::Sender<Begun>,
    inside: tokio::sync::Mutex<mpsc::Receiver<Begun>>,
    answers: tokio::sync::Mutex<Option<Subscriber>>,
    shared: Arc<Shared>,
}

/// A message on its way, and the bytes that it holds.
struct Begun {
    message: Message,
    ticket: Ticket,
    _bytes: OwnedSemaphorePermit,
}

struct Shared {
    opened: Instant,
    connection: ArcSwapOption<Connection>,
    connected: AtomicBool,
    /// Another stream than the configured one took messages.
    saying_other: Seldom,
    /// The stream has had messages of the ids that were sent for the first time.
    saying_duplicate: Seldom,
    /// The server does not let this client in, and that was said.
    turned_away: AtomicBool,
    /// Rises with every connection that is made: what was in flight on the one before is sent again.
    connections: watch::Sender<u64>,
    /// For how many ms one message id is sent again.
    window_ms: AtomicU64,
    waiting: Waiting,
    seen: Mutex<Seen>,
    unanswered: Unanswered,
    under_way: UnderWay,
    heard: Heard,
    /// There is a new connection, and nobody has asked for news of topics since.
    news: AtomicBool,
    limit: Mutex<Limit>,
    sizes: Mutex<Sizes>,
    /// A whole round of tries to connect failed since there was a connection.
    fails: AtomicBool,
    /// Why the last try to connect failed.
    why_not: Mutex<Option<String>>,
}

impl Shared {
    fn new() -> Self {
        Self {
            opened: Instant::now(),
            connection: ArcSwapOption::empty(),
            connected: AtomicBool::new(false),
            saying_other: Seldom::of(1, OTHER_STREAM),
            saying_duplicate: Seldom::of(1, OTHER_STREAM),
            turned_away: AtomicBool::new(false),
            connections: watch::Sender::new(0),
            window_ms: AtomicU64::new(millis(WINDOW)),
            waiting: Waiting::default(),
            seen: Mutex::default(),
            unanswered: Unanswered::default(),
            under_way: UnderWay::new(),
            heard: Heard::default(),
            news: AtomicBool::new(false),
            limit: Mutex::new(Limit::new(Instant::now())),
            sizes: Mutex::default(),
            fails: AtomicBool::new(false),
            why_not: Mutex::default(),
        }
    }

    /// How much longer the first connection is waited for.
    fn begins(&self) -> Option<Duration> {
        let left = BEGINNING.checked_sub(self.opened.elapsed()).filter(|left| !left.is_zero());
        left.filter(|_| self.connections() == 0)
    }

    /// How many connections there were.
    fn connections(&self) -> u64 {
        *self.connections.borrow()
    }

    /// Until there is another connection than there were so many of, but not for longer.
    async fn next_connection(&self, seen: u64, patience: Duration) {
        let mut connections = self.connections.subscribe();
        timeout(patience, connections.wait_for(|count| *count != seen)).await.ok();
    }

    fn happened(&self, event: &Event) {
        match event {
            Event::Connected => {
                self.connected.store(true, Ordering::Relaxed);
                self.turned_away.store(false, Ordering::Relaxed);
                self.fails.store(false, Ordering::Relaxed);
                self.news.store(true, Ordering::Relaxed);
                self.limit.lock().heard(Instant::now());
                *self.why_not.lock() = None;
                self.connections.send_modify(|count| *count += 1);
                self.waiting.disconnected();
                tracing::info!("nats.connected");
            }
            Event::Disconnected | Event::Closed => {
                self.connected.store(false, Ordering::Relaxed);
                tracing::warn!("nats.disconnected");
            }
            Event::ServerError(ServerError::Other(text)) => {
                if let Some(subject) = violated_subject(text) {
                    self.waiting.forbidden(subject);
                    // Its words name the subject, and so the vehicle.
                    tracing::debug!(error = "no permission to publish", "nats.server_error");
                } else {
                    let words = text.to_ascii_lowercase();
                    if words.contains(MAY_NOT_SUBSCRIBE) {
                        tracing::error!("nats.may_not_subscribe");
                    }
                    if words.contains(TOO_LARGE) {
                        self.sizes.lock().violated(Instant::now());
                    }
                    tracing::debug!(error = %text, "nats.server_error");
                }
            }
            // The one comes where rights are taken away, the other from each try to connect after that.
            Event::ServerError(ServerError::AuthorizationViolation) => self.turn_away(),
            Event::ClientError(ClientError::Other(text)) if is_no_login(text) => self.turn_away(),
            Event::ClientError(ClientError::Other(text)) => {
                self.fails.store(true, Ordering::Relaxed);
                // It is of no server's last errors: the client did not come so far.
                if text.starts_with(&ConnectErrorKind::Dns.to_string()) {
                    self.unreachable(text);
                }
                tracing::debug!(error = %text, "nats.event");
            }
            other => tracing::debug!(event = %other, "nats.event"),
        }
    }

    /// What the client met when it tried these servers last, before it tries them again. One that is away is not worth a word where
    /// another one takes the client.
    fn tried(&self, servers: &[Server]) {
        if self.fails.load(Ordering::Relaxed)
            && let Some(why) = servers.iter().find_map(|server| server.last_error.as_ref())
        {
            self.unreachable(why);
        }
    }

    /// Said once until there is a connection.
    fn unreachable(&self, why: &str) {
        let is_news = self.why_not.lock().replace(why.to_owned()).is_none();
        // That is said by itself.
        if is_news && !is_no_login(why) {
            tracing::warn!(error = why, "nats.unreachable");
        }
    }

    /// Said once until there is a connection: the client tries every two seconds.
    fn turn_away(&self) {
        if !self.turned_away.swap(true, Ordering::Relaxed) {
            tracing::error!("nats.login_refused");
        }
    }
}

/// Whether the client says that the server refused who it is. It hands on the kind's words, and what follows them at most.
fn is_no_login(text: &str) -> bool {
    text.starts_with(&ConnectErrorKind::AuthorizationViolation.to_string())
}

/// The subject of a `Permissions Violation for Publish to "subject"`. Kept in lower case, as servers and clients differ.
fn violated_subject(text: &str) -> Option<&str> {
    let rest = text.split_once("ublish to ").map(|(_, rest)| rest)?;
    Some(rest.trim_matches(|c: char| c == '"' || c == '\'' || c.is_whitespace()))
}

impl NatsBus {
    pub(super) fn open(nats: &config::Nats) -> Result<Self, OpenError> {
        let shared = Arc::new(Shared::new());
        let (told, tries) = (Arc::clone(&shared), Arc::clone(&shared));
        let (login, fails) = (Login::open(nats)?, Arc::new(AtomicBool::new(false)));
        let mut options =
            ConnectOptions::with_auth_callback(move |nonce| login.clone().answers(nonce, Arc::clone(&fails)))
                .name("fleetbus")
                .retry_on_initial_connect()
                .connection_timeout(Duration::from_secs(5))
                .ping_interval(Duration::from_secs(10))
                .reconnect_delay_callback(|attempts| {
                    Duration::from_millis((attempts as u64 * 100).min(2_000))
                })
                .reconnect_to_server_callback(move |servers, _| {
                    tries.tried(&servers);
                    // Whichever it would take.
                    std::future::ready(None)
                })
                .event_callback(move |event| {
                    let told = Arc::clone(&told);
                    async move { told.happened(&event) }
                });
        if let Some(ca) = &nats.ca {
            options = options.add_root_certificates(ca.clone());
        }
        if let Some(config::Tls { cert, key }) = &nats.certificate {
            options = options.add_client_certificate(cert.clone(), key.clone());
        }
        match nats.handshake {
            config::Handshake::First => options = options.tls_first(),
            config::Handshake::Greeted => {}
        }
        let (door, inside) = mpsc::channel(QUEUE);
        Ok(Self {
            config: nats.clone(),
            options: tokio::sync::Mutex::new(Some(options)),
            door,
            inside: tokio::sync::Mutex::new(inside),
            answers: tokio::sync::Mutex::new(None),
            shared,
        })
    }

    pub(super) fn submit(&self, message: &Message, ticket: Ticket) -> Result<(), (Failure, Ticket)> {
        if message.topic.len() > SUBJECT {
            let why = format!("the NATS subject is longer than {SUBJECT} bytes: the vehicle's id is");
            return Err((Failure::Unfit(why), ticket));
        }
        if !self.is_available() && self.shared.begins().is_none() {
            return Err((Failure::Unavailable("NATS is not connected".to_owned()), ticket));
        }
        if self.shared.under_way.is_silent(|| self.name_of(&message.topic)) {
            return Err((Failure::Unanswered("its stream is silent".to_owned()), ticket));
        }
        let full = || Failure::Busy("the queue to NATS is full".to_owned());
        let Some(bytes) = self.shared.under_way.hold(message.payload.len()) else {
            return Err((full(), ticket));
        };
        match self.door.try_reserve() {
            Ok(place) => {
                place.send(Begun { message: message.clone(), ticket, _bytes: bytes });
                Ok(())
            }
            Err(TrySendError::Full(())) => Err((full(), ticket)),
            Err(TrySendError::Closed(())) => {
                Err((Failure::Unavailable("the client has ended".to_owned()), ticket))
            }
        }
    }

    /// What a topic is called before people: without the vehicle.
    pub(super) fn name_of(&self, topic: &str) -> String {
        without_subject(&self.config.subject, topic)
    }

    pub(super) fn is_available(&self) -> bool {
        self.shared.connected.load(Ordering::Relaxed)
    }

    /// A new connection may be to servers that lead again.
    pub(super) fn has_news_of_topics(&self) -> bool {
        self.shared.news.swap(false, Ordering::Relaxed)
    }

    /// Connects, and owns every attempt.
    pub(super) async fn run(&self, stop: CancellationToken) {
        if let Err(error) = self.connect().await {
            tracing::error!(error = %error, "nats.cannot_connect");
        }
        let mut inside = self.inside.lock().await;
        let answers = self.answers.lock().await.take();
        let mut hearing =
            pin!(OptionFuture::from(answers.map(|answers| hear(answers, &self.shared.waiting))));
        let mut attempts = FuturesUnordered::new();
        let mut taken = Vec::with_capacity(BATCH);
        let mut asking = pin!(self.ask_where_nobody_answers());
        let mut moving = pin!(self.move_where_nothing_is_heard());
        loop {
            let room = QUEUE.saturating_sub(attempts.len()).min(BATCH);
            tokio::select! {
                () = stop.cancelled() => break,
                Some(never) = &mut hearing => match never {},
                never = &mut asking => match never {},
                never = &mut moving => match never {},
                Some(()) = attempts.next(), if !attempts.is_empty() => {}
                _ = inside.recv_many(&mut taken, room), if room > 0 => {
                    // It is large, and the set would move it more than once.
                    attempts.extend(taken.drain(..).map(|begun| Box::pin(self.attempt(begun))));
                }
            }
        }
        // What is still here is unresolved: its tickets say so when they are dropped.
    }

    /// Connects once; the client itself connects again, for ever.
    async fn connect(&self) -> Result<Arc<Connection>, String> {
        let mut options = self.options.lock().await;
        let Some(options) = options.take() else {
            // Whoever comes second waits for the first one's connection.
            let made = self.shared.connection.load_full();
            return made.ok_or_else(|| "the connection could not be made, or is closed".to_owned());
        };
        let addresses: Vec<String> = self.config.url.split(',').map(|url| url.trim().to_owned()).collect();
        let client = options.connect(addresses).await.map_err(|error| error.to_string())?;
        if client.connection_state() == State::Connected {
            self.shared.connected.store(true, Ordering::Relaxed);
        }
        let (connection, answers) = Connection::new(client).await?;
        *self.answers.lock().await = Some(answers);
        let connection = Arc::new(connection);
        self.shared.connection.store(Some(Arc::clone(&connection)));
        Ok(connection)
    }

    /// One attempt: sent until the stream acknowledges it, refuses it, or its window is over; or is silent, and too many wait for it.
    async fn attempt(&self, Begun { message, ticket, _bytes }: Begun) {
        let begun = Instant::now();
        // It may be another one once the stream was looked at.
        let is_over =
            || begun.elapsed() >= Duration::from_millis(self.shared.window_ms.load(Ordering::Relaxed));
        let mut sent = false;
        let mut asked = false;
        let mut every = AGAIN;
        let size = size_of(&message);
        let mut open = None;
        let mut late = None;
        loop {
            // Before it looks for one, so that none is missed.
            let seen = self.shared.connections();
            let connection = self.shared.connection.load_full().filter(|_| self.is_available());
            let Some(connection) = connection else {
                let pause = if sent { Some(AGAIN) } else { self.shared.begins() };
                let Some(pause) = pause else {
                    return ticket.resolve(failed_unavailable("NATS is not connected"));
                };
                if sent && is_over() {
                    return ticket.resolve(Outcome::Unresolved);
                }
                self.shared.next_connection(seen, pause).await;
                continue;
            };
            let sending = if sent { Sending::Again } else { Sending::First };
            let now = Instant::now();
            if self.shared.sizes.lock().is_too_large(size, now) {
                let why = "larger than the server takes from this user at once (max_payload of the server, the account or the user)".to_owned();
                return ticket.resolve(failed(Failure::Unfit(why), sending));
            }
            open.get_or_insert_with(|| Open::new(&self.shared.sizes, size));
            sent = true;
            let payload = message.payload.clone();
            let sent_so = connection.send(&self.shared.waiting, &message.topic, headers(&message), payload);
            match sent_so.await {
                Ended::Told(Ok(taken)) => {
                    // Stored before: by this process, or its like before a kill; or by another bridge whose stream it is, too.
                    if taken.duplicate
                        && sending == Sending::First
                        && let Some(times) = self.shared.saying_duplicate.happened()
                    {
                        tracing::warn!(stream = taken.stream, times, "nats.duplicate");
                    }
                    // It is stored, but nobody has looked how: types may have streams of their own, or one has taken another's place.
                    if taken.stream != self.config.stream
                        && let Some(times) = self.shared.saying_other.happened()
                    {
                        tracing::warn!(stream = taken.stream, times, "nats.other_stream");
                    }
                    self.shared.heard.acknowledged();
                    self.shared.seen.lock().took(&self.config.subject, &message.topic, &taken.stream);
                    return ticket.resolve(Outcome::Delivered);
                }
                Ended::Forbidden => {
                    let why = "no permission to publish to this subject".to_owned();
                    return ticket.resolve(failed(Failure::Refused(why), sending));
                }
                Ended::Told(Err(error))
                    if !asked
                        && error.kind() == PublishErrorKind::MaxPayloadExceeded
                        && self.asks_for_limit(&connection.client).await =>
                {
                    // It was not sent.
                    (asked, sent, open) = (true, sending == Sending::Again, None);
                    self.shared.next_connection(seen, ACK).await;
                }
                Ended::Told(Err(error)) => match self.react(&error, sending, &message.topic) {
                    Reaction::End(failure) => return ticket.resolve(Outcome::Failed(failure)),
                    Reaction::Lose => return ticket.resolve(Outcome::Unresolved),
                    Reaction::Again if is_over() => return ticket.resolve(Outcome::Unresolved),
                    Reaction::Again => {
                        if late.is_none() {
                            late = self.shared.under_way.late(self.name_of(&message.topic));
                        }
                        if late.is_none() {
                            return ticket.resolve(Outcome::Unresolved);
                        }
                        let pause = every.saturating_sub(now.elapsed()).max(AGAIN);
                        every = (every * 2).min(ACK);
                        self.shared.next_connection(seen, pause).await;
                    }
                },
                // A connection that comes and goes has it sent again each time.
                Ended::Disconnected if is_over() => return ticket.resolve(Outcome::Unresolved),
                Ended::Disconnected => {}
            }
        }
    }

    /// Whether there will be a connection that knows the server's limit better.
    async fn asks_for_limit(&self, client: &Client) -> bool {
        let decided = self.shared.limit.lock().too_large(Instant::now());
        match decided {
            TooLarge::Ask => {
                tracing::info!("nats.asks_for_limit");
                timeout(ACK, client.force_reconnect()).await.is_ok_and(|asked| asked.is_ok())
            }
            TooLarge::Wait => true,
            TooLarge::Believe => false,
        }
    }

    fn react(&self, error: &PublishError, sending: Sending, topic: &Text) -> Reaction {
        if error.kind() == PublishErrorKind::StreamNotFound {
            self.shared.unanswered.is(topic);
        }
        let reaction = reaction(error, sending, self.stream_of(topic));
        if matches!(
            reaction,
            Reaction::Again | Reaction::End(Failure::Unavailable(_) | Failure::Unanswered(_))
        ) {
            self.shared.heard.missed();
        }
        reaction
    }

    fn stream_of(&self, topic: &str) -> Stream {
        let seen = self.shared.seen.lock().has(&self.config.subject, topic);
        if seen { Stream::Seen } else { Stream::Unseen }
    }

    pub(super) async fn close(&self, patience: Duration) {
        if let Some(connection) = self.shared.connection.swap(None) {
            timeout(patience, connection.client.drain())
                .await
                .map_or(Ok(()), |drained| drained)
                .unwrap_or_else(|error| {
                    tracing::debug!(error = %error, "nats.drain");
                });
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn headers(message: &Message) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in &message.headers {
        headers.insert(HeaderName::from_static(name), value);
    }
    let id = message.id.as_hyphenated();
    headers.insert(header::NATS_MESSAGE_ID, &*id.encode_lower(&mut Uuid::encode_buffer()));
    headers
}

fn failed_unavailable(why: &str) -> Outcome {
    Outcome::Failed(Failure::Unavailable(why.to_owned()))
}

/// The outcome where this copy failed so: one before it may have been stored.
fn failed(failure: Failure, sending: Sending) -> Outcome {
    match sending {
        Sending::First => Outcome::Failed(failure),
        Sending::Again => Outcome::Unresolved,
    }
}

/// What a server counts of a message, but for what is the same in all.
fn size_of(message: &Message) -> usize {
    message.payload.len()
        + message.headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_news_of_topics_once() {
        let bus = NatsBus::open(&config::Nats {
            url: "nats://127.0.0.1:1".to_owned(),
            subject: "fleet.{type}".to_owned(),
            stream: "FLEET".to_owned(),
            create: config::Create::Never,
            credentials: None,
            user: None,
            token: None,
            ca: None,
            certificate: None,
            handshake: config::Handshake::Greeted,
        });
        let bus = bus.unwrap();
        assert!(!bus.has_news_of_topics());
        bus.shared.happened(&Event::Connected);
        assert!(bus.has_news_of_topics() && !bus.has_news_of_topics());
    }

    #[test]
    fn that_the_server_takes_nobody_in_is_noticed_until_there_is_a_connection() {
        let shared = Shared::new();
        let away = |event: Event| {
            shared.happened(&event);
            shared.turned_away.load(Ordering::Relaxed)
        };
        let failed = |kind: ConnectErrorKind| Event::ClientError(ClientError::Other(kind.to_string()));
        assert!(!away(failed(ConnectErrorKind::Io)), "nobody is there");
        assert!(away(failed(ConnectErrorKind::AuthorizationViolation)), "a try to connect");
        assert!(away(Event::Disconnected));
        assert!(!away(Event::Connected));
        assert!(away(Event::ServerError(ServerError::AuthorizationViolation)), "taken away while connected");
    }

    #[test]
    fn a_violation_names_its_subject() {
        let text = "permissions violation for publish to \"fleet.trip.acme.1\"";
        assert_eq!(violated_subject(text), Some("fleet.trip.acme.1"));
        assert_eq!(violated_subject("maximum connections exceeded"), None);
    }
}
