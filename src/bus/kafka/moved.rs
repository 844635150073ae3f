//! Whether the brokers, or the leaders of partitions, are elsewhere: librdkafka dials what they last called themselves, for ever, also where
//! they came back under other addresses; it may ask a leader of old for ever, or send nothing more (`stale`). Invariant: a client is given
//! up only where another one, made of the same properties, reaches brokers, or is told of another leader, and it still does not, or where
//! it sends nothing to a broker that both reach for longer than any request may take; an outage as such costs nothing of what is in
//! flight. ADR 0008.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::admin::AdminClient;
use rdkafka::config::{FromClientConfigAndContext as _, RDKafkaLogLevel};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::KafkaBus;
use super::stale::Led;

/// How long a client is without a connection before another one is tried, and the longest pause between two.
const DOUBT: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(120));
/// How long the other one may take.
const TRIAL: Duration = Duration::from_secs(5);
/// How long the client in use still has, once the other one was answered: it connects again each second.
const SETTLE: Duration = Duration::from_secs(5);
/// How often it is looked whether there is a connection.
const LOOK: Duration = Duration::from_secs(1);

/// When another client is tried.
struct Doubt {
    since: Option<Instant>,
    pause: Duration,
    /// The first pause.
    first: Duration,
}

impl Doubt {
    const fn after(first: Duration) -> Self {
        Self { since: None, pause: first, first }
    }

    fn is_due(&mut self, is_down: bool, now: Instant) -> bool {
        if !is_down {
            *self = Self::after(self.first);
            return false;
        }
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) < self.pause {
            return false;
        }
        self.since = Some(now);
        self.pause = (self.pause * 2).min(DOUBT.1.max(self.first));
        true
    }
}

/// What it says is the other client's to say.
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(level = ?level, facility, message, "kafka.client");
    }

    fn stats_raw(&self, _: &[u8]) {}
}

impl KafkaBus {
    /// Gives a client up that dials addresses which the brokers no longer have, or asks a leader of old.
    pub(super) async fn doubt(&self, stop: &CancellationToken) {
        let (mut doubt, mut stale) = (Doubt::after(DOUBT.0), Doubt::after(DOUBT.0));
        let mut stuck = Doubt::after(self.properties.load().longest_request() * 2);
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let doubting = async {
            loop {
                look.tick().await;
                if doubt.is_due(self.is_down(), Instant::now())
                    && self.another_connects().await
                    && self.stays_down().await
                {
                    tracing::warn!("kafka.brokers_moved");
                    self.shared.break_down();
                }
                let suspects = self.suspects();
                if stale.is_due(!suspects.is_empty(), Instant::now())
                    && let Some(led) = self.is_led_by_another(suspects).await
                    && self.stays_so(&led).await
                {
                    let Led { topic, partition, leader } = led;
                    tracing::warn!(topic, partition, leader, "kafka.leader_stale");
                    self.shared.break_down();
                }
                let still = self.still();
                if stuck.is_due(still.is_some(), Instant::now())
                    && self.another_connects().await
                    && let Some((Led { topic, partition, leader }, state)) = self.still()
                {
                    tracing::warn!(topic, partition, leader, state, "kafka.client_stuck");
                    self.shared.break_down();
                }
            }
        };
        stop.run_until_cancelled(doubting).await;
    }

    fn is_down(&self) -> bool {
        self.shared.down.load(Ordering::Relaxed)
    }

    async fn another_connects(&self) -> bool {
        self.ask_another(|other| other.inner().fetch_metadata(None, TRIAL).ok().map(|_| ())).await.is_some()
    }

    /// Asks a client that is made for it, of the same properties as the one in use. None where there is none, or no answer.
    async fn ask_another<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&AdminClient<Quiet>) -> Option<T> + Send + 'static,
    ) -> Option<T> {
        let properties = self.properties.load_full();
        let asked = tokio::task::spawn_blocking(move || {
            ask(&AdminClient::from_config_and_context(&properties.administrator(), Quiet).ok()?)
        });
        asked.await.ok()?
    }

    fn suspects(&self) -> Vec<Led> {
        self.shared.stale.lock().suspects(Instant::now())
    }

    /// The first partition that nothing is sent to, with what the client does about its producer id.
    fn still(&self) -> Option<(Led, String)> {
        let stale = self.shared.stale.lock();
        let first = stale.still(Instant::now()).into_iter().next()?;
        Some((first, stale.state().to_owned()))
    }

    /// The first of these that another client is told another leader of. Its topics are asked for one by one: a question about all
    /// that there are may be large.
    async fn is_led_by_another(&self, suspects: Vec<Led>) -> Option<Led> {
        self.ask_another(move |other| {
            let begun = Instant::now();
            suspects.chunk_by(|one, next| one.topic == next.topic).find_map(|of_topic| {
                let left = TRIAL.saturating_sub(begun.elapsed());
                let topic = of_topic.first().map(|led| led.topic.as_str()).filter(|_| !left.is_zero());
                let told = other.inner().fetch_metadata(Some(topic?), left).ok()?;
                let partitions = told.topics().first()?.partitions();
                let is_another = |led: &&Led| {
                    let now = partitions.iter().find(|of| of.id() == led.partition).map(|of| of.leader());
                    now.is_some_and(|leader| leader >= 0 && leader != led.leader)
                };
                of_topic.iter().find(is_another).cloned()
            })
        })
        .await
    }

    /// Whether this client goes on taking that broker for the leader, and nothing of the partition moves.
    async fn stays_so(&self, led: &Led) -> bool {
        sleep(SETTLE).await;
        self.suspects().contains(led)
    }

    async fn stays_down(&self) -> bool {
        let comes = async {
            while self.is_down() {
                sleep(LOOK).await;
            }
        };
        timeout(SETTLE, comes).await.is_err()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rdkafka::mocking::MockCluster;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
    use tokio::sync::mpsc;

    use super::*;
    use crate::bus::kafka::tests::{Told, message, of};
    use crate::bus::{Failure, Outcome, Ticket};
    use crate::config;

    const NEVER: [u64; 0] = [];

    /// No real broker can be made to withhold a producer id for so long.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_client_that_sends_nothing_to_a_leader_that_is_connected_is_replaced() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("fleet.position", 1, 1).unwrap();
        let not_yet = RDKafkaRespErr::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS;
        cluster.request_errors(RDKafkaApiKey::InitProducerId, &[not_yet; 1_000]);
        let time = |name: &str| (name.to_owned(), config::Property::Plain("1000".to_owned()));
        let properties = ["socket.timeout.ms", "request.timeout.ms"].map(time).to_vec();
        let bus = KafkaBus::open(&of(&cluster.bootstrap_servers(), properties)).unwrap();
        let stop = CancellationToken::new();
        let (tells, mut told) = mpsc::channel(1);
        let message = message("fleet.position", 1);
        assert!(bus.submit(&message, Ticket::new(Arc::new(Told(tells)), 0)).is_ok());
        let ends = async {
            let outcome = timeout(Duration::from_secs(120), told.recv()).await;
            stop.cancel();
            outcome
        };
        let ((), outcome) = tokio::join!(bus.run(stop.clone()), ends);
        let (_, outcome) = outcome.expect("it is given up").unwrap();
        assert!(matches!(outcome, Outcome::Failed(Failure::Broken(_))), "{outcome:?}");
    }

    #[test]
    fn another_client_is_tried_once_there_is_no_connection_for_long_and_ever_more_seldom() {
        let (mut doubt, begin) = (Doubt::after(DOUBT.0), Instant::now());
        let mut due = |seconds: std::ops::Range<u64>, is_down: bool| {
            seconds
                .filter(|second| doubt.is_due(is_down, begin + Duration::from_secs(*second)))
                .collect::<Vec<_>>()
        };
        assert_eq!(due(0..20, true), NEVER);
        assert_eq!(due(20..21, false), NEVER, "it came back by itself");
        assert_eq!(due(21..500, true), [51, 111, 231, 351, 471]);
        assert_eq!(due(500..501, false), NEVER);
        assert_eq!(due(501..540, true), [531]);
    }
}
