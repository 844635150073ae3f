//! The client's keeper where it matters most: in trouble, and at the stop.

use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use tokio::sync::mpsc;

use super::*;
use crate::bus::{Awaiting, Headers};
use crate::hanging::Hanging;

/// A configuration with these brokers and properties.
pub(super) fn of(brokers: &str, properties: Vec<(String, config::Property)>) -> config::Kafka {
    config::Kafka {
        brokers: brokers.to_owned(),
        topic: "fleet.{type}".to_owned(),
        create: config::Create::Never,
        properties,
        registry: None,
    }
}

/// A message of this topic.
pub(super) fn message(topic: &str, size: usize) -> Message {
    Message {
        topic: topic.into(),
        key: "acme:1".into(),
        id: uuid::Uuid::nil(),
        headers: Headers::default(),
        payload: vec![0; size].into(),
    }
}

/// While it is told, another thread tells what failed meanwhile, and comes to its end first.
struct Slow(Arc<Shared>);

impl Awaiting for Slow {
    fn resolve(&self, entry: u64, _: Outcome) {
        if entry == 0 {
            fail(&self.0, 1);
            self.0.tell_failed();
            assert!(self.0.turns.lock().is_fenced(), "this one is not told yet");
            fail(&self.0, 2);
        }
    }
}

fn fail(shared: &Arc<Shared>, entry: u64) {
    let ticket = Ticket::new(Arc::new(Slow(Arc::clone(shared))), entry);
    shared.turns.lock().fail(Failure::Busy("full".to_owned()), ticket);
}

/// Hands every outcome on, with the entry that it is of.
pub(super) struct Told(pub(super) mpsc::Sender<(u64, Outcome)>);

impl Awaiting for Told {
    fn resolve(&self, entry: u64, outcome: Outcome) {
        self.0.try_send((entry, outcome)).ok();
    }
}

/// Who is told takes its time, as where the store is busy.
struct Dawdling(Told);

impl Awaiting for Dawdling {
    #[expect(clippy::disallowed_methods, reason = "time is what is taken, nothing is waited for")]
    fn resolve(&self, entry: u64, outcome: Outcome) {
        std::thread::sleep(Duration::from_millis(10));
        self.0.resolve(entry, outcome);
    }
}

/// Nothing else ever resolves them: a lane of one that is left out would wait until a restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_goes_once_all_that_it_held_was_told() {
    const HELD: usize = 800;
    let bus = KafkaBus::open(&of("localhost:1", Vec::new())).unwrap();
    let (tells, mut told) = mpsc::channel(HELD);
    let slow: Arc<dyn Awaiting> = Arc::new(Dawdling(Told(tells)));
    for entry in 0..HELD {
        let ticket = Ticket::new(Arc::clone(&slow), u64::try_from(entry).unwrap());
        // The client tells of each topic by itself.
        assert!(bus.submit(&message(&format!("fleet.{entry}"), 1), ticket).is_ok());
    }
    drop(slow);
    bus.rebuild().await;
    let mut count = 0;
    while let Ok((_, outcome)) = told.try_recv() {
        assert!(matches!(outcome, Outcome::Failed(Failure::Broken(_))), "{outcome:?}");
        count += 1;
    }
    assert_eq!(count, HELD);
}

/// A partition that is not there for the first batch, and is for the second: a real broker does that for a moment after the topic was
/// made. It takes the second, though it never had the first, and the client reports both as stored.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_stored_is_not_delivered_though_what_came_behind_it_was() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("fleet.position", 1, 1).unwrap();
    // Each is a batch of its own.
    let alone = ("batch.num.messages".to_owned(), config::Property::Plain("1".to_owned()));
    let bus = KafkaBus::open(&of(&cluster.bootstrap_servers(), vec![alone])).unwrap();
    let (tells, mut told) = mpsc::channel(3);
    let submit = |entry| {
        let ticket = Ticket::new(Arc::new(Told(tells.clone())), entry);
        assert!(bus.submit(&message("fleet.position", 1), ticket).is_ok());
    };
    submit(0);
    assert_eq!(timeout(ASK, told.recv()).await.unwrap(), Some((0, Outcome::Delivered)));
    // Both are on their way before the first is refused.
    cluster.broker_round_trip_time(1, Duration::from_millis(500)).unwrap();
    let refused = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION];
    cluster.request_errors(RDKafkaApiKey::Produce, &refused);
    submit(1);
    submit(2);
    let mut outcomes = Vec::new();
    while outcomes.len() < 2 {
        outcomes.push(timeout(ASK, told.recv()).await.unwrap().unwrap());
    }
    outcomes.sort_by_key(|(entry, _)| *entry);
    assert_eq!(outcomes, [(1, Outcome::Unresolved), (2, Outcome::Delivered)]);
}

#[test]
fn the_fence_is_lifted_once_every_lane_whose_message_failed_was_told() {
    let shared = Arc::new(Shared::new());
    fail(&shared, 0);
    shared.tell_failed();
    assert!(shared.turns.lock().is_fenced(), "one failed meanwhile");
    shared.tell_failed();
    assert!(!shared.turns.lock().is_fenced());
}

#[tokio::test]
async fn a_stop_is_not_held_up_by_messages_that_wait_for_their_turn() {
    let bus = KafkaBus::open(&of("localhost:1", Vec::new())).unwrap();
    let message = message("fleet.position", 1_000);
    // What is so large is sent alone, so that the others wait: each a second, where no broker answers.
    bus.shared.turns.lock().refused(&message.topic, 0, message.payload.len(), Sent::among());
    let nobody = Arc::new(Slow(Arc::clone(&bus.shared)));
    for entry in 1..80 {
        assert!(bus.submit(&message, Ticket::new(Arc::clone(&nobody) as Arc<dyn Awaiting>, entry)).is_ok());
    }
    let stop = CancellationToken::new();
    let handed_over = || bus.shared.client.load().as_ref().map_or(0, |client| client.in_flight_count());
    let stops = async {
        while handed_over() < 2 {
            sleep(Duration::from_millis(10)).await;
        }
        stop.cancel();
    };
    let ends = async { tokio::join!(bus.tend(&stop), stops) };
    assert!(timeout(ASK, ends).await.is_ok(), "it goes on");
    assert!(bus.somebody_waits());
}

/// Time passes by itself until the file is read, and not while it hangs.
#[tokio::test(start_paused = true)]
async fn a_file_that_hangs_does_not_keep_a_broken_client_from_being_rebuilt() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("password");
    std::fs::write(&path, "secret").unwrap();
    let password = config::Property::Secret(config::SecretSource::File(path.clone()));
    let bus = KafkaBus::open(&of("localhost:1", vec![("sasl.password".to_owned(), password)])).unwrap();
    let hanging = Hanging::put(&path);
    let stop = CancellationToken::new();
    let breaks = async {
        tokio::time::advance(LOOK).await;
        hanging.is_read().await;
        bus.shared.break_down();
        let begun = Instant::now();
        while bus.shared.broken.load(Ordering::Relaxed) {
            assert!(begun.elapsed() < ASK, "it is not rebuilt");
            tokio::task::yield_now().await;
        }
        stop.cancel();
    };
    tokio::join!(bus.tend(&stop), breaks);
    assert!(bus.shared.client.load().is_some());
}
