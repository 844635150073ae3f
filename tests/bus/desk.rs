//! The lanes' side of a bus, for tests: submits, keeps every outcome, and waits for them.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleetbus::bus::{Awaiting, Bus, Failure, Headers, Message, Outcome, Ticket};
use fleetbus::config;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Longer than any single step on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Outcomes by number.
#[derive(Default)]
pub struct Outcomes {
    ended: Mutex<HashMap<u64, Vec<Outcome>>>,
    rang: watch::Sender<u64>,
}

impl Awaiting for Outcomes {
    fn resolve(&self, entry: u64, outcome: Outcome) {
        self.ended.lock().entry(entry).or_default().push(outcome);
        self.rang.send_modify(|rung| *rung += 1);
    }
}

/// A bus that runs, and what became of what was submitted.
pub struct Desk {
    pub bus: Arc<Bus>,
    pub outcomes: Arc<Outcomes>,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Desk {
    /// Opens the bus and runs its tasks.
    pub fn open(config: &config::Bus, data_dir: &Path) -> Self {
        let bus = Arc::new(Bus::open(config, data_dir).expect("a bus"));
        let stop = CancellationToken::new();
        let (runs, until) = (Arc::clone(&bus), stop.clone());
        #[expect(clippy::disallowed_methods, reason = "a test is its own app")]
        let running = tokio::spawn(async move { runs.run(until).await });
        Self { bus, outcomes: Arc::default(), stop, running }
    }

    /// Hands a message over.
    pub fn submit(&self, number: u64, message: &Message) -> Result<(), Failure> {
        let ticket = Ticket::new(Arc::clone(&self.outcomes) as Arc<dyn Awaiting>, number);
        self.bus.submit(message, ticket).map_err(|(failure, ticket)| {
            ticket.withdraw();
            failure
        })
    }

    /// Hands a message over until it is taken: what the drain does while the bus is away.
    pub async fn submit_at_last(&self, number: u64, message: &Message) {
        let taken = async {
            while self.submit(number, message).is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, taken).await.expect("the bus takes it in time");
    }

    /// The one outcome of an attempt.
    pub async fn outcome(&self, number: u64) -> Outcome {
        let mut rang = self.outcomes.rang.subscribe();
        let ended = async {
            loop {
                if let Some(ended) = self.outcomes.ended.lock().get(&number) {
                    assert_eq!(ended.len(), 1, "a ticket is resolved once: {ended:?}");
                    return ended[0].clone();
                }
                rang.changed().await.expect("we hold it");
            }
        };
        timeout(PATIENCE, ended).await.unwrap_or_else(|_| panic!("no outcome for {number}"))
    }

    /// Waits until so many attempts have ended.
    pub async fn ended(&self, count: usize) {
        let mut rang = self.outcomes.rang.subscribe();
        let all = async {
            while self.outcomes.ended.lock().len() < count {
                rang.changed().await.expect("we hold it");
            }
        };
        let has = || self.outcomes.ended.lock().len();
        timeout(PATIENCE, all).await.unwrap_or_else(|_| panic!("{} of {count} ended", has()));
    }

    /// How often each outcome was seen; failures by their kind.
    pub fn tally(&self) -> HashMap<&'static str, usize> {
        let mut tally = HashMap::new();
        for outcome in self.outcomes.ended.lock().values().flatten() {
            *tally.entry(kind(outcome)).or_default() += 1;
        }
        tally
    }

    /// Submits one message and says how it ended, wherever the refusal came from.
    pub async fn attempt(&self, number: u64, message: &Message) -> Outcome {
        match self.submit(number, message) {
            Ok(()) => self.outcome(number).await,
            Err(failure) => Outcome::Failed(failure),
        }
    }

    /// Waits until a message is taken and delivered.
    pub async fn delivers(&self, first: u64, message: &Message) {
        let mut number = first;
        let delivered = async {
            while self.attempt(number, message).await != Outcome::Delivered {
                number += 1;
                sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(PATIENCE, delivered).await.expect("delivered in time");
    }

    /// Stops the tasks and closes.
    pub async fn close(self) -> Arc<Outcomes> {
        self.bus.close(Duration::from_secs(5)).await;
        self.stop.cancel();
        timeout(PATIENCE, self.running).await.expect("the tasks end").expect("no panic");
        self.outcomes
    }
}

impl Outcomes {
    /// Everything by number.
    pub fn all(&self) -> HashMap<u64, Vec<Outcome>> {
        self.ended.lock().clone()
    }
}

/// The name of an outcome.
pub fn kind(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Delivered => "delivered",
        Outcome::Failed(Failure::Unavailable(_)) => "unavailable",
        Outcome::Failed(Failure::Unanswered(_)) => "unanswered",
        Outcome::Failed(Failure::Busy(_)) => "busy",
        Outcome::Failed(Failure::Refused(_)) => "refused",
        Outcome::Failed(Failure::Full(_)) => "full",
        Outcome::Failed(Failure::Unfit(_)) => "unfit",
        Outcome::Failed(Failure::Broken(_)) => "broken",
        Outcome::Unresolved => "unresolved",
    }
}

/// A message whose payload is its number.
pub fn message(topic: &str, key: &str, number: u64) -> Message {
    Message {
        topic: topic.into(),
        key: key.into(),
        id: Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{topic} {key} {number}").as_bytes()),
        headers: Headers::from_iter([
            ("ce_id", &*number.to_string()),
            ("content-type", "application/protobuf"),
        ]),
        payload: Bytes::from(number.to_string()),
    }
}

/// The numbers that a consumer read of each key, in its order.
pub fn by_key(consumed: &[crate::brokers::Consumed]) -> HashMap<String, Vec<u64>> {
    let mut keys: HashMap<String, Vec<u64>> = HashMap::new();
    for one in consumed {
        let number = std::str::from_utf8(&one.payload).expect("text").parse().expect("a number");
        keys.entry(one.key.clone()).or_default().push(number);
    }
    keys
}
