//! Apache Kafka through librdkafka: idempotent, every in-sync replica, keyed, batched by load. Invariants: nothing expires
//! inside the client (`message.timeout.ms=0`, bounded queue), so that an attempt ends in an acknowledgement, a definite
//! failure, or with the client; what is submitted first for a key is produced first. ADR 0008 has what was tried.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Statistics};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Failure, Finding, Message, OpenError, Outcome, Ticket};
use crate::config;

/// Messages gathered outside of the client while a send is in flight; what they weigh is bounded by the memory permits.
const GATHERED: usize = 65_536;
/// A send in flight this long does not hold back what was gathered: a partition may hang.
const STALE: Duration = Duration::from_millis(3);
/// First and last pause between two clients.
const REBUILD_PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// How long a question about topics may take.
const ASK: Duration = Duration::from_secs(10);

/// See the module.
pub struct KafkaBus {
    config: ClientConfig,
    brokers: String,
    create: config::Create,
    shared: Arc<Shared>,
}

type Client = ThreadedProducer<Context>;

/// What the client's threads and the callers share.
struct Shared {
    client: ArcSwapOption<Client>,
    gather: Mutex<Gather>,
    /// Rung when something was gathered, failed or broke.
    ring: Notify,
    broken: AtomicBool,
    down: AtomicBool,
}

#[derive(Default)]
struct Gather {
    waiting: VecDeque<(Message, Ticket)>,
    in_flight: usize,
    sent_at: Option<Instant>,
    /// To be told outside of every lane's critical section.
    failed: Vec<(Failure, Ticket)>,
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
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AllBrokersDown) => self.shared.down.store(true, Ordering::Relaxed),
            Some(RDKafkaErrorCode::Fatal) => self.shared.break_down(),
            Some(_) | None => {}
        }
        tracing::debug!(error = %error, reason, "kafka.error");
    }

    fn stats(&self, _statistics: Statistics) {}
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        let outcome = match result {
            Ok(_) => {
                self.shared.down.store(false, Ordering::Relaxed);
                Outcome::Delivered
            }
            Err((error, _)) => outcome_of(error, &self.shared),
        };
        ticket.resolve(outcome);
        let mut gather = self.shared.gather.lock();
        gather.in_flight = gather.in_flight.saturating_sub(1);
        if gather.in_flight == 0 {
            self.shared.flush(&mut gather);
        }
        let failed = std::mem::take(&mut gather.failed);
        drop(gather);
        tell(failed);
    }
}

/// How an attempt that the client gave up ended. A purge leaves open whether what was in flight has been stored.
fn outcome_of(error: &KafkaError, shared: &Shared) -> Outcome {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::PurgeInflight | RDKafkaErrorCode::MessageTimedOut) => Outcome::Unresolved,
        Some(RDKafkaErrorCode::PurgeQueue) => {
            Outcome::Failed(Failure::Broken("the client was closed before it sent".to_owned()))
        }
        Some(_) | None => {
            let failure = failure_of(error);
            if matches!(failure, Failure::Broken(_)) {
                shared.break_down();
            }
            Outcome::Failed(failure)
        }
    }
}

/// What helps against an error of the client. Every code that a producer of this kind can see is named; codes that are not
/// (consumers', administrators', transactions') count as unavailability, which parks and tries again.
fn failure_of(error: &KafkaError) -> Failure {
    use RDKafkaErrorCode as Code;
    let why = error.to_string();
    match error.rdkafka_error_code() {
        Some(
            Code::MessageSizeTooLarge
            | Code::InvalidMessage
            | Code::InvalidMessageSize
            | Code::InvalidRecord
            | Code::InvalidTimestamp
            | Code::UnsupportedForMessageFormat
            | Code::BadMessage
            | Code::BadCompression
            | Code::UnsupportedCompressionType
            | Code::MessageBatchTooLarge
            | Code::PolicyViolation,
        ) => Failure::Unfit(why),
        Some(
            Code::UnknownTopicOrPartition
            | Code::UnknownTopic
            | Code::UnknownPartition
            | Code::InvalidTopic
            | Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::InvalidRequiredAcks
            | Code::TopicDeletionDisabled,
        ) => Failure::Refused(why),
        Some(
            Code::Fatal
            | Code::OutOfOrderSequenceNumber
            | Code::UnknownProducerId
            | Code::InvalidProducerEpoch
            | Code::InvalidProducerIdMapping
            | Code::Fenced
            | Code::GaplessGuarantee
            | Code::Inconsistent,
        ) => Failure::Broken(why),
        Some(_) | None => Failure::Unavailable(why),
    }
}

fn tell(failed: Vec<(Failure, Ticket)>) {
    for (failure, ticket) in failed {
        ticket.resolve(Outcome::Failed(failure));
    }
}

impl Shared {
    fn break_down(&self) {
        if !self.broken.swap(true, Ordering::Relaxed) {
            self.ring.notify_one();
        }
    }

    /// Produces what was gathered, in order.
    fn flush(&self, gather: &mut Gather) {
        if gather.waiting.is_empty() {
            return;
        }
        gather.sent_at = Some(Instant::now());
        while let Some((message, ticket)) = gather.waiting.pop_front() {
            match self.produce(&message, ticket) {
                Ok(()) => gather.in_flight += 1,
                Err(failed) => gather.failed.push(failed),
            }
        }
        if !gather.failed.is_empty() {
            self.ring.notify_one();
        }
    }

    fn produce(&self, message: &Message, ticket: Ticket) -> Result<(), (Failure, Ticket)> {
        let client = self.client.load();
        let Some(client) = client.as_ref().filter(|_| !self.broken.load(Ordering::Relaxed)) else {
            return Err((Failure::Broken("the client is being rebuilt".to_owned()), ticket));
        };
        let headers = message
            .headers
            .iter()
            .fold(OwnedHeaders::new_with_capacity(message.headers.len()), |headers, (key, value)| {
                headers.insert(Header { key, value: Some(value.as_bytes()) })
            });
        let record = BaseRecord::with_opaque_to(&message.topic, Box::new(ticket))
            .key(message.key.as_bytes())
            .payload(message.payload.as_ref())
            .headers(headers);
        client.send(record).map_err(|(error, record)| {
            let failure = failure_of(&error);
            if matches!(failure, Failure::Broken(_)) {
                self.break_down();
            }
            (failure, *record.delivery_opaque)
        })
    }
}

impl KafkaBus {
    /// Makes the client; brokers need not be up.
    pub(super) fn open(kafka: &config::Kafka) -> Result<Self, OpenError> {
        let mut config = ClientConfig::new();
        for (name, property) in &kafka.properties {
            let value = match property {
                config::Property::Plain(value) => value.clone(),
                config::Property::Secret(source) => source.read()?.reveal().to_owned(),
            };
            config.set(name, value);
        }
        config
            .set("bootstrap.servers", &kafka.brokers)
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("max.in.flight.requests.per.connection", "5")
            .set("message.timeout.ms", "0")
            .set("linger.ms", "0")
            .set("queue.buffering.max.kbytes", "65536")
            .set("queue.buffering.max.messages", "200000")
            .set("partitioner", "murmur2_random")
            .set("topic.metadata.propagation.max.ms", "5000")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000")
            .set("log.connection.close", "false");
        let shared = Arc::new(Shared {
            client: ArcSwapOption::empty(),
            gather: Mutex::default(),
            ring: Notify::new(),
            broken: AtomicBool::new(false),
            down: AtomicBool::new(false),
        });
        let bus = Self { config, brokers: kafka.brokers.clone(), create: kafka.create, shared };
        bus.shared.client.store(Some(Arc::new(bus.client()?)));
        Ok(bus)
    }

    fn client(&self) -> Result<Client, KafkaError> {
        self.config.create_with_context(Context { shared: Arc::clone(&self.shared) })
    }

    pub(super) fn submit(&self, message: &Message, ticket: Ticket) -> Result<(), (Failure, Ticket)> {
        let mut gather = self.shared.gather.lock();
        let stale = gather.sent_at.is_none_or(|at| at.elapsed() >= STALE);
        if gather.waiting.is_empty() && (gather.in_flight == 0 || stale) {
            self.shared.produce(message, ticket)?;
            gather.in_flight += 1;
            gather.sent_at = Some(Instant::now());
            return Ok(());
        }
        if gather.waiting.len() >= GATHERED {
            return Err((Failure::Unavailable("the client's queue is full".to_owned()), ticket));
        }
        gather.waiting.push_back((message.clone(), ticket));
        if gather.in_flight == 0 || stale {
            self.shared.flush(&mut gather);
        } else if gather.waiting.len() == 1 {
            self.shared.ring.notify_one();
        }
        Ok(())
    }

    pub(super) fn is_available(&self) -> bool {
        !self.shared.broken.load(Ordering::Relaxed) && !self.shared.down.load(Ordering::Relaxed)
    }

    pub(super) async fn run(&self, stop: CancellationToken) {
        let mut pause = REBUILD_PAUSE.0;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.shared.ring.notified() => {}
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
            // A burst in flight normally brings what was gathered along when it ends; this is for one that hangs.
            while self.gathered_waits() {
                sleep(STALE).await;
                let mut gather = self.shared.gather.lock();
                if gather.sent_at.is_none_or(|at| at.elapsed() >= STALE) {
                    self.shared.flush(&mut gather);
                }
            }
            let failed = std::mem::take(&mut self.shared.gather.lock().failed);
            tell(failed);
        }
    }

    fn gathered_waits(&self) -> bool {
        !self.shared.gather.lock().waiting.is_empty()
    }

    /// The client is beyond repair: what it holds is given up, and a new one is made.
    async fn rebuild(&self) {
        tracing::warn!("kafka.client_rebuilt");
        let old = self.shared.client.swap(None);
        let purged = tokio::task::spawn_blocking(move || {
            if let Some(client) = &old {
                client.purge(rdkafka::producer::PurgeConfig::default().queue().inflight());
                // Serves the purged messages' reports.
                client.flush(Duration::from_secs(2)).unwrap_or_else(|error| {
                    tracing::debug!(error = %error, "kafka.flush_after_purge");
                });
            }
        });
        purged.await.unwrap_or_default();
        let waiting = std::mem::take(&mut self.shared.gather.lock().waiting);
        tell(waiting.into_iter().map(|(_, t)| (Failure::Broken("the client broke".to_owned()), t)).collect());
        match self.client() {
            Ok(client) => {
                self.shared.gather.lock().in_flight = 0;
                self.shared.client.store(Some(Arc::new(client)));
                self.shared.broken.store(false, Ordering::Relaxed);
            }
            Err(error) => {
                tracing::error!(error = %error, "kafka.rebuild_failed");
                self.shared.ring.notify_one();
            }
        }
    }

    pub(super) async fn close(&self, patience: Duration) {
        let client = self.shared.client.swap(None);
        let closed = tokio::task::spawn_blocking(move || {
            if let Some(client) = &client {
                client.flush(patience).unwrap_or_else(|error| {
                    tracing::debug!(error = %error, "kafka.flush");
                });
                client.purge(rdkafka::producer::PurgeConfig::default().queue().inflight());
                client.flush(Duration::from_millis(500)).unwrap_or_else(|error| {
                    tracing::debug!(error = %error, "kafka.flush_after_purge");
                });
            }
        });
        timeout(patience + Duration::from_secs(3), closed).await.ok();
    }

    pub(super) async fn check(&self, topics: &[Arc<str>]) -> Vec<Finding> {
        let Some(client) = self.shared.client.load_full() else {
            return vec![Finding::Unreachable("the Kafka client is being rebuilt".to_owned())];
        };
        let asked = tokio::task::spawn_blocking(move || client.client().fetch_metadata(None, ASK)).await;
        let metadata = match asked {
            Ok(Ok(metadata)) => metadata,
            Ok(Err(error)) => {
                let what = format!("Kafka at {} cannot be reached: {error}", self.brokers);
                return vec![Finding::Unreachable(what)];
            }
            Err(_) => return vec![Finding::Unreachable("Kafka could not be asked".to_owned())],
        };
        let mut findings = Vec::new();
        let mut missing = Vec::new();
        for topic in topics {
            let known = metadata.topics().iter().find(|known| known.name() == &**topic);
            match known {
                Some(known) if known.error().is_none() => {
                    let fewest = known.partitions().iter().map(|p| p.replicas().len()).min().unwrap_or(0);
                    findings.push(if fewest < 2 {
                        Finding::Weak(format!(
                            "topic {topic} has one replica: an acknowledgement survives a process, not a machine"
                        ))
                    } else {
                        Finding::Fine(format!("topic {topic}, {fewest} replicas"))
                    });
                }
                Some(_) | None => missing.push(Arc::clone(topic)),
            }
        }
        findings.extend(self.weak_in_sync(topics, &missing).await);
        findings.extend(self.missing(&missing).await);
        findings
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>, KafkaError> {
        let mut config = self.config.clone();
        for ours in ["enable.idempotence", "acks", "message.timeout.ms", "linger.ms", "partitioner"] {
            config.remove(ours);
        }
        config.create()
    }

    /// Topics with several replicas of which one is enough for an acknowledgement.
    async fn weak_in_sync(&self, topics: &[Arc<str>], missing: &[Arc<str>]) -> Vec<Finding> {
        let there: Vec<&Arc<str>> = topics.iter().filter(|topic| !missing.contains(topic)).collect();
        let Ok(admin) = self.admin() else { return Vec::new() };
        let asked: Vec<ResourceSpecifier<'_>> =
            there.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
        let options = AdminOptions::new().request_timeout(Some(ASK));
        let Ok(Ok(answers)) = timeout(ASK, admin.describe_configs(asked.iter(), &options)).await else {
            return Vec::new();
        };
        let weak = answers.into_iter().flatten().zip(there).filter(|(answer, _)| {
            answer.entry_map().get("min.insync.replicas").is_some_and(|e| e.value.as_deref() == Some("1"))
        });
        weak.map(|(_, topic)| {
            Finding::Weak(format!(
                "topic {topic} has min.insync.replicas 1: one broker's word is enough for an acknowledgement"
            ))
        })
        .collect()
    }

    async fn missing(&self, missing: &[Arc<str>]) -> Vec<Finding> {
        let told = |topic: &Arc<str>| Finding::Missing {
            what: format!("topic {topic}"),
            command: format!(
                "kafka-topics.sh --bootstrap-server {} --create --topic {topic}",
                self.brokers.split(',').next().unwrap_or_default()
            ),
        };
        if missing.is_empty() || self.create == config::Create::Never {
            return missing.iter().map(told).collect();
        }
        let Ok(admin) = self.admin() else { return missing.iter().map(told).collect() };
        let topics: Vec<NewTopic<'_>> =
            missing.iter().map(|topic| NewTopic::new(topic, -1, TopicReplication::Fixed(-1))).collect();
        let options = AdminOptions::new().request_timeout(Some(ASK));
        match timeout(ASK, admin.create_topics(topics.iter(), &options)).await {
            Ok(Ok(results)) => results
                .into_iter()
                .zip(missing)
                .map(|(result, topic)| match result {
                    Ok(name) => Finding::Made(format!("topic {name}")),
                    Err((name, RDKafkaErrorCode::TopicAlreadyExists)) => {
                        Finding::Fine(format!("topic {name}"))
                    }
                    Err(_) => told(topic),
                })
                .collect(),
            Ok(Err(_)) | Err(_) => missing.iter().map(told).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_helps() {
        let check = |code, expected: fn(String) -> Failure| {
            let failure = failure_of(&KafkaError::MessageProduction(code));
            assert_eq!(
                std::mem::discriminant(&failure),
                std::mem::discriminant(&expected(String::new())),
                "{code:?}"
            );
        };
        check(RDKafkaErrorCode::QueueFull, Failure::Unavailable);
        check(RDKafkaErrorCode::BrokerTransportFailure, Failure::Unavailable);
        check(RDKafkaErrorCode::NotEnoughReplicas, Failure::Unavailable);
        check(RDKafkaErrorCode::MessageSizeTooLarge, Failure::Unfit);
        check(RDKafkaErrorCode::TopicAuthorizationFailed, Failure::Refused);
        check(RDKafkaErrorCode::UnknownTopic, Failure::Refused);
        check(RDKafkaErrorCode::Fatal, Failure::Broken);
    }
}
