//! Apache Kafka through librdkafka: idempotent, every in-sync replica, keyed. Invariants: nothing expires inside the client
//! (`message.timeout.ms=0`, bounded queue), so that an attempt ends in an acknowledgement, a definite failure, or with the
//! client; what is submitted first for a key is produced first, and nothing is taken after a message that failed until its
//! lane knows. Batches form by themselves while requests are in flight. ADR 0008 and 0009 have what was tried.

mod contact;
mod errors;
mod leaders;
mod moved;
mod proofs;
mod properties;
mod registry;
mod stale;
#[cfg(test)]
mod tests;
mod topics;
mod turns;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use futures_util::future::OptionFuture;
use parking_lot::Mutex;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, PurgeConfig, ThreadedProducer};
use rdkafka::{ClientContext, Statistics};
use tokio::sync::Notify;
use tokio::time::{sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::{Failure, Message, OpenError, Outcome, Ticket, Window};
use crate::aside::{Aside, Miss};
use crate::config::{self, SecretError};
use crate::event::Text;
use contact::{Contact, Say, Trouble, Way};
use errors::failure_of;
use leaders::{Leaders, unreached};
use proofs::Proofs;
use properties::Properties;
use registry::SchemaRegistry;
use stale::Stale;
use turns::{Meant, STALE, Sent, Taken, Turns};

/// First and last pause between two clients.
const REBUILD_PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// How often the files of the configuration are looked at.
const LOOK: Duration = Duration::from_secs(5);
/// How long a client that is exchanged may take for what it holds.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a question about topics may take.
const ASK: Duration = Duration::from_secs(10);

/// See the module.
pub struct KafkaBus {
    kafka: config::Kafka,
    /// What the client that is in use was made of.
    properties: ArcSwap<Properties>,
    /// Where values are framed.
    registry: Option<Box<SchemaRegistry>>,
    shared: Arc<Shared>,
}

type Client = ThreadedProducer<Context>;
/// What the configuration's files held at a look.
type Looked = Result<Arc<Properties>, Miss<Arc<Properties>, SecretError>>;
/// Whether the client took a message; else why not, with the ticket.
type Produced = Result<(), (Failure, Ticket)>;

/// What the client's threads and the callers share.
struct Shared {
    client: ArcSwapOption<Client>,
    turns: Mutex<Turns>,
    /// Rung when something waits, failed or broke.
    ring: Notify,
    broken: AtomicBool,
    /// A broker failed, and none has been seen up since.
    troubled: AtomicBool,
    down: AtomicBool,
    contact: Mutex<Contact>,
    leaders: Mutex<Leaders>,
    stale: Mutex<Stale>,
    proofs: Mutex<Proofs>,
}

/// A message in the client's hands.
struct Flight {
    ticket: Ticket,
    topic: Text,
    size: usize,
    sent: Sent,
}

/// What librdkafka calls.
struct Context {
    shared: Arc<Shared>,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // librdkafka repeats itself while a broker is away: that it is away is said once, by the breaker.
        tracing::debug!(level = ?level, facility, message, "kafka.client");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(error = %error, reason, "kafka.error");
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::Fatal) => self.shared.break_down(),
            code @ (Some(_) | None) => self.shared.is_in_trouble(Trouble::of(code), reason),
        }
    }

    /// `AllBrokersDown` is not said of brokers that never were up: the connections themselves are looked at.
    fn stats(&self, statistics: Statistics) {
        let states: Vec<&str> = statistics.brokers.values().map(|broker| broker.state.as_str()).collect();
        let way = self.shared.contact.lock().way(&states, statistics.msg_cnt, Instant::now());
        if way == Way::Vain && states.is_empty() {
            self.shared.knows_no_broker();
        }
        self.shared.look_at_leaders(way, &statistics);
        self.shared.proofs.lock().look(&statistics);
        self.shared.turns.lock().look(&statistics);
        self.shared.stale.lock().look(&statistics, Instant::now());
        match way {
            Way::Open => self.shared.is_up(),
            Way::Vain => self.shared.went_down(),
            Way::Quiet if self.shared.troubled.load(Ordering::Relaxed) => self.shared.went_down(),
            Way::Quiet => {}
        }
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<Flight>;

    fn delivery(&self, result: &DeliveryResult<'_>, flight: Box<Flight>) {
        let outcome = match result {
            // It was reported because one behind it was stored: it may be missing (ADR 0016).
            Ok(message) if message.offset() < 0 => Outcome::Unresolved,
            Ok(message) => {
                self.shared.is_up();
                self.shared.proofs.lock().stored(message.topic(), message.partition(), Instant::now());
                Outcome::Delivered
            }
            Err((error, message)) => self.shared.outcome_of(error, message.partition(), &flight),
        };
        let Flight { ticket, topic, sent, .. } = *flight;
        ticket.resolve(outcome);
        self.shared.turn(|turns, produce| turns.ended(&topic, sent, produce));
        self.shared.tell_failed();
    }
}

impl Shared {
    fn new() -> Self {
        Self {
            client: ArcSwapOption::empty(),
            turns: Mutex::default(),
            ring: Notify::new(),
            broken: AtomicBool::new(false),
            troubled: AtomicBool::new(false),
            down: AtomicBool::new(false),
            contact: Mutex::default(),
            leaders: Mutex::default(),
            stale: Mutex::default(),
            proofs: Mutex::default(),
        }
    }

    /// Called for every acknowledgement.
    fn is_up(&self) {
        if self.troubled.load(Ordering::Relaxed) {
            if self.contact.lock().is_up() {
                tracing::info!("kafka.reached");
            }
            self.troubled.store(false, Ordering::Relaxed);
        }
        self.down.store(false, Ordering::Relaxed);
    }

    fn went_down(&self) {
        self.troubled.store(true, Ordering::Relaxed);
        self.down.store(true, Ordering::Relaxed);
        // The breaker tells of it where many lanes fail; of few none do.
        let said = self.contact.lock().is_down(Instant::now());
        if let Some(reason) = said {
            tracing::warn!(reason, "kafka.unreachable");
        }
    }

    /// Names those that are not reached while others are: where none is, the bus is away.
    fn look_at_leaders(&self, way: Way, statistics: &Statistics) {
        let away = unreached(statistics).filter(|_| way == Way::Open);
        for (broker, reason) in self.leaders.lock().look(away, Instant::now()) {
            tracing::warn!(broker, reason, "kafka.leader_unreachable");
        }
    }

    fn is_in_trouble(&self, trouble: Trouble, reason: &str) {
        self.leaders.lock().heard(reason);
        let say = self.contact.lock().failed(trouble, reason, Instant::now());
        self.troubled.store(true, Ordering::Relaxed);
        match (say, trouble) {
            (Say::Now, Trouble::Login) => tracing::error!(reason, "kafka.login_refused"),
            (Say::Now, Trouble::Tls) => tracing::error!(reason, "kafka.tls_failed"),
            (Say::Now, Trouble::Name | Trouble::Away) | (Say::Nothing, _) => {}
        }
    }

    /// librdkafka lets go of all brokers, those of the configuration, too, where one that the controller fenced answers that there are
    /// none (its issue 5301): nothing is dialled ever again.
    fn knows_no_broker(&self) {
        if !self.broken.load(Ordering::Relaxed) {
            tracing::warn!("kafka.brokers_forgotten");
            self.break_down();
        }
    }

    fn break_down(&self) {
        if !self.broken.swap(true, Ordering::Relaxed) {
            self.ring.notify_one();
        }
    }

    /// How an attempt that the client gave up ended. A purge leaves open whether what was in flight has been stored. A
    /// broker refuses whole batches: which message it means is known once it is sent alone.
    fn outcome_of(&self, error: &KafkaError, partition: i32, flight: &Flight) -> Outcome {
        match error.rdkafka_error_code() {
            // The last one: the broker's answer could not be read.
            Some(
                RDKafkaErrorCode::PurgeInflight
                | RDKafkaErrorCode::MessageTimedOut
                | RDKafkaErrorCode::BadMessage,
            ) => return Outcome::Unresolved,
            Some(RDKafkaErrorCode::PurgeQueue) => {
                return Outcome::Failed(Failure::Broken("the client was closed before it sent".to_owned()));
            }
            Some(_) | None => {}
        }
        Outcome::Failed(match failure_of(error) {
            Failure::Unfit(why) => {
                match self.turns.lock().refused(&flight.topic, partition, flight.size, flight.sent) {
                    Meant::This => Failure::Unfit(why),
                    // No sign that the bus is away.
                    Meant::AnyOfTheBatch => Failure::Busy(format!(
                        "a batch was refused, its largest messages are sent one by one: {why}"
                    )),
                }
            }
            Failure::Broken(why) => {
                self.break_down();
                Failure::Broken(why)
            }
            failure @ Failure::Refused(_) => {
                self.proofs.lock().forget(&flight.topic);
                self.turns.lock().topic_refused(&flight.topic);
                failure
            }
            failure @ (Failure::Full(_)
            | Failure::Unavailable(_)
            | Failure::Unanswered(_)
            | Failure::Busy(_)) => failure,
        })
    }

    /// It may be the turn of what waits.
    fn turn(&self, of: impl FnOnce(&mut Turns, &dyn Fn(&Message, Ticket, Sent) -> Produced)) {
        let mut turns = self.turns.lock();
        of(&mut turns, &|message, ticket, sent| self.produce(message, ticket, sent));
        if turns.is_fenced() {
            self.ring.notify_one();
        }
    }

    /// Tells what failed before it was sent. The fence is lifted by the last who tells, for several threads may. Never called
    /// inside a lane's critical section.
    fn tell_failed(&self) {
        let failed = self.turns.lock().begin_to_tell();
        if failed.is_empty() {
            return;
        }
        for (failure, ticket) in failed {
            ticket.resolve(Outcome::Failed(failure));
        }
        self.turns.lock().told();
    }

    fn produce(&self, message: &Message, ticket: Ticket, sent: Sent) -> Produced {
        let client = self.client.load();
        let Some(client) = client.as_ref().filter(|_| !self.broken.load(Ordering::Relaxed)) else {
            return Err((no_client(), ticket));
        };
        let headers = message
            .headers
            .iter()
            .fold(OwnedHeaders::new_with_capacity(message.headers.len()), |headers, (key, value)| {
                headers.insert(Header { key, value: Some(value.as_bytes()) })
            });
        let flight = Flight { ticket, topic: message.topic.clone(), size: message.payload.len(), sent };
        let record = BaseRecord::with_opaque_to(&message.topic, Box::new(flight))
            .key(message.key.as_bytes())
            .payload(message.payload.as_ref())
            .headers(headers);
        client.send(record).map_err(|(error, record)| {
            let failure = failure_of(&error);
            if matches!(failure, Failure::Broken(_)) {
                self.break_down();
            }
            (failure, record.delivery_opaque.ticket)
        })
    }
}

impl KafkaBus {
    /// Makes the client; brokers need not be up.
    pub(super) fn open(kafka: &config::Kafka) -> Result<Self, OpenError> {
        let properties = Properties::read(kafka)?;
        let shared = Arc::new(Shared::new());
        let properties = ArcSwap::from_pointee(properties);
        let registry = kafka.registry.as_ref().map(SchemaRegistry::open).transpose()?.map(Box::new);
        let bus = Self { kafka: kafka.clone(), properties, registry, shared };
        bus.shared.client.store(Some(Arc::new(bus.client(&bus.properties.load())?)));
        Ok(bus)
    }

    fn client(&self, properties: &Properties) -> Result<Client, KafkaError> {
        properties.producer().create_with_context(Context { shared: Arc::clone(&self.shared) })
    }

    pub(super) fn submit(&self, message: &Message, ticket: Ticket) -> Result<(), (Failure, Ticket)> {
        let Some(registry) = &self.registry else { return self.hand_over(message, ticket) };
        match registry.frame(&message.topic, &message.payload) {
            Ok(payload) => self.hand_over(&Message { payload, ..message.clone() }, ticket),
            Err(failure) => Err((failure, ticket)),
        }
    }

    fn hand_over(&self, message: &Message, ticket: Ticket) -> Result<(), (Failure, Ticket)> {
        let mut turns = self.shared.turns.lock();
        let produce = |message: &Message, ticket, sent| self.shared.produce(message, ticket, sent);
        if turns.take(message, ticket, produce)? == Taken::WaitsFirst {
            self.shared.ring.notify_one();
        }
        Ok(())
    }

    pub(super) fn holds_back(&self, topic: &str, key: &str) -> bool {
        self.shared.turns.lock().does_any_wait_for(topic, key)
    }

    pub(super) fn window_of(&self, topic: &str, key: &str) -> Window {
        self.shared.proofs.lock().window(topic, key, Instant::now())
    }

    pub(super) fn is_available(&self) -> bool {
        !self.shared.broken.load(Ordering::Relaxed) && !self.shared.down.load(Ordering::Relaxed)
    }

    pub(super) async fn prepare(&self, topics: &[Text]) {
        if let Some(registry) = &self.registry {
            registry.look_up(topics).await;
        }
    }

    pub(super) fn has_news_of_topics(&self) -> bool {
        self.registry.as_ref().is_some_and(|registry| registry.take_found())
    }

    pub(super) async fn run(&self, stop: CancellationToken) {
        let looking_up = async {
            if let Some(registry) = &self.registry {
                registry.run(&stop).await;
            }
        };
        tokio::join!(self.tend(&stop), looking_up, self.doubt(&stop));
    }

    /// Looks after the client.
    async fn tend(&self, stop: &CancellationToken) {
        let mut pause = REBUILD_PAUSE.0;
        let mut seen = self.properties.load_full();
        let aside = Aside::new();
        // Beside the rest, which a disk that hangs does not hold up.
        let look = async || {
            sleep(LOOK).await;
            let kafka = self.kafka.clone();
            aside.read(move || Properties::read(&kafka).map(Arc::new)).await
        };
        let mut looking = pin!(look());
        let mut missed = 0;
        // An acknowledgement brings the next along; this is for one that does not come. No ring puts it off.
        let mut stale_at = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.shared.ring.notified() => {}
                Some(()) = OptionFuture::from(stale_at.map(sleep_until)) => {
                    stale_at = None;
                    self.shared.turn(|turns, produce| turns.flush_stale(produce));
                }
                looked = &mut looking, if seen.reads_files => {
                    seen = self.exchange(seen, looked, &mut missed).await;
                    looking.set(look());
                }
            }
            if self.shared.broken.load(Ordering::Relaxed) {
                self.rebuild().await;
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = sleep(pause) => {}
                }
                pause = (pause * 2).min(REBUILD_PAUSE.1);
                continue;
            }
            pause = REBUILD_PAUSE.0;
            self.shared.tell_failed();
            let from_now = || tokio::time::Instant::now() + STALE;
            stale_at = self.somebody_waits().then(|| stale_at.unwrap_or_else(from_now));
        }
    }

    fn somebody_waits(&self) -> bool {
        self.shared.turns.lock().does_any_wait()
    }

    /// Where a secret or certificate is another one, a client that has it takes the place of the one that has not. What was seen.
    async fn exchange(&self, seen: Arc<Properties>, looked: Looked, missed: &mut u32) -> Arc<Properties> {
        let now = match looked {
            Ok(now) => now,
            Err(miss) => {
                *missed = missed.saturating_add(1);
                // One that is not there once is about to be: files are exchanged in several steps.
                if *missed == 2 {
                    let error = match miss {
                        Miss::Failed(error) => error.to_string(),
                        Miss::Late(_) => "a file of bus.kafka does not come: its disk hangs".to_owned(),
                    };
                    tracing::error!(error, "kafka.secret_unreadable");
                }
                return seen;
            }
        };
        *missed = 0;
        if now == seen {
            return seen;
        }
        match self.client(&now) {
            Ok(client) => {
                tracing::info!("kafka.files_changed");
                self.properties.store(Arc::clone(&now));
                self.let_go(GoingOut::Whole).await;
                self.put_in(client);
            }
            Err(error) => tracing::error!(error = %error, "kafka.files_refused"),
        }
        now
    }

    /// The client is beyond repair: what it holds is given up, and a new one is made.
    async fn rebuild(&self) {
        tracing::warn!("kafka.client_rebuilt");
        self.let_go(GoingOut::Broken).await;
        match self.client(&self.properties.load()) {
            Ok(client) => self.put_in(client),
            Err(error) => {
                tracing::error!(error = %error, "kafka.rebuild_failed");
                self.shared.ring.notify_one();
            }
        }
    }

    /// From here on there is no client: what waits fails, and what the old one holds ends.
    async fn let_go(&self, going: GoingOut) {
        let old = {
            // Nobody is in the middle of handing it something.
            let _turns = self.shared.turns.lock();
            self.shared.client.swap(None)
        };
        let patience = match going {
            GoingOut::Whole => PATIENCE,
            GoingOut::Broken => Duration::ZERO,
        };
        let_end(old, patience).await;
        self.shared.turn(|turns, _| turns.fail_all(&no_client()));
        self.shared.tell_failed();
    }

    fn put_in(&self, client: Client) {
        self.shared.turns.lock().begin_anew();
        self.shared.proofs.lock().begin_anew();
        self.shared.client.store(Some(Arc::new(client)));
        self.shared.broken.store(false, Ordering::Relaxed);
    }

    pub(super) async fn close(&self, patience: Duration) {
        let client = self.shared.client.swap(None);
        timeout(patience + PATIENCE, let_end(client, patience)).await.ok();
    }
}

fn no_client() -> Failure {
    Failure::Broken("the client is being rebuilt".to_owned())
}

/// In which state a client is taken out of use.
#[derive(Clone, Copy)]
enum GoingOut {
    /// It still sends.
    Whole,
    /// It never sends again.
    Broken,
}

/// Waits for what a client holds, gives the rest up, and waits for all reports of that: one that is not told when the client goes never
/// is, and its lane would wait for ever. One of the client's threads may hang in the resolver for minutes: it keeps what it has, and no
/// report of the others'.
async fn let_end(client: Option<Arc<Client>>, patience: Duration) {
    let ended = tokio::task::spawn_blocking(move || {
        let Some(client) = client else { return };
        if !patience.is_zero() {
            client.flush(patience).unwrap_or_else(|error| {
                tracing::debug!(error = %error, "kafka.flush");
            });
        }
        client.purge(PurgeConfig::default().queue().inflight().non_blocking());
        while let Err(error) = client.flush(PATIENCE) {
            tracing::warn!(error = %error, unreported = client.in_flight_count(), "kafka.client_lingers");
        }
    });
    ended.await.unwrap_or_default();
}
