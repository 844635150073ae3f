//! The client's keeper where it matters most: in trouble, and at the stop.

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
    bus.shared.turns.lock().refused(&message.topic, message.payload.len(), Sent::Among);
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
