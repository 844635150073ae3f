//! The drain with a real store and the local bus, by hand.

use prost::Message as _;

use super::*;
use crate::config;
use crate::deliver::breaker::Breaker;
use crate::deliver::counts::Counts;
use crate::event::{AccountId, EventType, pb};
use crate::replay::testing::store;

fn lane() -> LaneKey {
    LaneKey { account: AccountId::new("acme"), topic: "fleet.position".into(), subject: "vehicle".into() }
}

fn row(seq: u64) -> Parked {
    let id = uuid::Uuid::now_v7();
    let event = pb::FleetEvent { id: id.to_string(), ..pb::FleetEvent::default() };
    Parked {
        seq: Seq(seq),
        lane: lane(),
        event_type: EventType::Position,
        id,
        enters: Vec::new(),
        payload: event.encode_to_vec().into(),
        trace: None,
        reason: Reason::Unavailable,
        error: String::new(),
        provisional: false,
        parked_at: crate::clock::now(),
    }
}

/// A local bus that does not run yet, the lanes to it, and what they count.
/// A drain of all that is parked, at no rate.
fn drain(bus: &Arc<Bus>, lanes: &Arc<Lanes>, store: &Store) -> Drain {
    let (lanes, bus, rate) = (Arc::clone(lanes), Arc::clone(bus), watch::channel(None).1);
    Drain { lanes, store: store.clone(), bus, kind: BusKind::Local, rate }
}

fn lanes(dir: &std::path::Path, store: &Store, failure_rate: f64) -> (Arc<Bus>, Arc<Lanes>, Arc<Counts>) {
    let hour = Duration::from_secs(3_600);
    let local = config::Bus::Local(config::Local { retention: hour, max_size: 1 << 30 });
    let bus = Arc::new(Bus::open(&local, dir).unwrap());
    let counts = Arc::new(Counts::new([&lane().account]));
    let breaker = Breaker::new(config::Breaker { failure_rate, window: hour });
    let lanes = Lanes::new(Arc::clone(&bus), store.clone(), breaker, Arc::clone(&counts), 3, Vec::new());
    (bus, lanes, counts)
}

/// Lanes of one row each, in the books and in the store.
fn park(
    lanes: &Arc<Lanes>,
    store: &Store,
    subjects: std::ops::Range<u64>,
    payload: impl Fn(Parked) -> Parked,
) {
    for subject in subjects {
        let lane = LaneKey { subject: subject.to_string().into(), ..lane() };
        let row = payload(Parked { lane, ..row(store.next_seq().0) });
        let aside = Parked { reason: Reason::Unfit, ..row.clone() };
        store.park(vec![aside], Box::new(|kept| assert!(kept.is_ok()))).unwrap();
        lanes.requeue(row, Box::new(|kept| assert!(kept.is_ok()))).unwrap();
    }
}

/// How many rows of the lane wait for the bus.
async fn waiting(store: &Store) -> usize {
    let wanted = LaneRows { lane: lane(), after: None, rows: 9, bytes: 1 << 20 };
    store.read_lanes(vec![wanted]).await.unwrap().iter().map(Vec::len).sum()
}

#[tokio::test]
async fn no_lane_reads_a_row_that_it_has_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let (store, thread) = store(dir.path()).await;
    store.park((1..=300).map(row).collect(), Box::new(|kept| assert!(kept.is_ok()))).unwrap();
    let rows = Rows::new(store.clone());
    let read = async {
        for first in 1..=300u64 {
            // As a lane that begins anew does.
            let wanted = LaneRows { lane: lane(), after: None, rows: 1, bytes: 1 << 20 };
            let read = rows.read(wanted).await.unwrap();
            assert_eq!(read.iter().map(Kept::<Parked>::seq).collect::<Vec<_>>(), [Seq(first)]);
            rows.delivered(&lane(), &[Seq(first)]);
            assert!(rows.due().is_some(), "deleted soon, whatever comes");
        }
    };
    tokio::select! {
        () = read => {}
        never = rows.serve() => match never {},
    }
    rows.delete();
    assert_eq!(rows.due(), None);
    assert_eq!(waiting(&store).await, 0);
    store.close();
    thread.join().unwrap();
}

#[tokio::test]
async fn what_was_delivered_is_not_deleted_for_the_reading_of_others() {
    let dir = tempfile::tempdir().unwrap();
    let (store, thread) = store(dir.path()).await;
    let rows = Rows::new(store.clone());
    let other = LaneKey { subject: "other".into(), ..lane() };
    let read = async {
        rows.delivered(&lane(), &[Seq(1)]);
        for (lane, after, waits) in [(other, None, true), (lane(), Some(Seq(1)), true), (lane(), None, false)]
        {
            rows.read(LaneRows { lane, after, rows: 1, bytes: 1 << 20 }).await.unwrap();
            assert_eq!(rows.due().is_some(), waits);
        }
    };
    tokio::select! {
        () = read => {}
        never = rows.serve() => match never {},
    }
    store.close();
    thread.join().unwrap();
}

#[tokio::test]
async fn what_is_acknowledged_after_the_stop_is_booked_and_not_sent_again_by_the_next_run() {
    let dir = tempfile::tempdir().unwrap();
    let (store, thread) = store(dir.path()).await;
    let (bus, lanes, counts) = lanes(dir.path(), &store, 0.5);
    let unfit = Parked { reason: Reason::Unfit, ..row(0) };
    store.park(vec![unfit], Box::new(|kept| assert!(kept.is_ok()))).unwrap();
    lanes.requeue(row(0), Box::new(|kept| assert!(kept.is_ok()))).unwrap();
    let stop = CancellationToken::new();
    let drains = drain(&bus, &lanes, &store).run(stop.clone());
    let stops = async {
        while !lanes.ready(1).is_empty() {
            tokio::task::yield_now().await;
        }
        // The second is answered after the drain's own question; then its message is with the bus, whose thread does not
        // run yet.
        for _ in 0..2 {
            assert_eq!(waiting(&store).await, 1);
        }
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        stop.cancel();
        tokio::task::yield_now().await;
        tokio::join!(bus.run(CancellationToken::new()), bus.close(Duration::ZERO));
    };
    tokio::join!(drains, stops);
    assert_eq!(bus.as_local().unwrap().read(None, 0, 9).unwrap().len(), 1);
    assert_eq!(counts.drained.load(Ordering::Relaxed), 1);
    assert_eq!(waiting(&store).await, 0);
    store.close();
    thread.join().unwrap();
}

/// More lanes than are drained at once, on a bus that does not answer; behind them others that need no answer.
#[tokio::test]
async fn lanes_that_hang_keep_no_others_from_being_drained_and_are_booked_when_the_bus_answers() {
    const HANG: u64 = 1_100;
    let dir = tempfile::tempdir().unwrap();
    let (store, thread) = store(dir.path()).await;
    // The breaker stays closed whatever fails.
    let (bus, lanes, counts) = lanes(dir.path(), &store, 1.0);
    park(&lanes, &store, 0..HANG, |row| row);
    park(&lanes, &store, HANG..HANG + 10, |row| Parked { payload: "no event".into(), ..row });
    let stop = CancellationToken::new();
    let drain = drain(&bus, &lanes, &store);
    let behind = async |left: u64| {
        while lanes.behind().0 > left {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let steps = async {
        behind(HANG).await;
        assert_eq!(counts.drained.load(Ordering::Relaxed), 0, "the bus has answered nothing");
        // One of them has another row, which queues behind what is late.
        park(&lanes, &store, 7..8, |row| row);
        let closing = CancellationToken::new();
        let running = async {
            behind(0).await;
            bus.close(Duration::ZERO).await;
            stop.cancel();
        };
        tokio::join!(bus.run(closing), running);
    };
    let all = async { tokio::join!(drain.run(stop.clone()), steps) };
    timeout(Duration::from_secs(120), Box::pin(all)).await.expect("drained");
    let log = bus.as_local().unwrap().read(None, 0, 2_000).unwrap();
    assert_eq!(log.len() as u64, HANG + 1, "each once");
    assert_eq!(counts.drained.load(Ordering::Relaxed), HANG + 1);
    store.close();
    thread.join().unwrap();
}

/// Many lanes whose rows an operator threw away, and one that has a row: the bus is not asked for nothing, again and again.
async fn what_is_left_is_probed_with(fail: impl Fn(&Lanes)) {
    let dir = tempfile::tempdir().unwrap();
    let (store, thread) = store(dir.path()).await;
    let (bus, lanes, counts) = lanes(dir.path(), &store, 0.5);
    fail(&lanes);
    park(&lanes, &store, 0..300, |row| row);
    let gone = store.discard(&crate::replay::Filter::default()).await.unwrap();
    assert_eq!((gone.events, lanes.behind()), (300, (300, 300)), "the books do not know yet");
    park(&lanes, &store, 300..301, |row| row);
    let stop = CancellationToken::new();
    let drain = drain(&bus, &lanes, &store);
    let drained = async {
        while lanes.behind().0 > 0 {
            sleep(Duration::from_millis(20)).await;
        }
        bus.close(Duration::ZERO).await;
        stop.cancel();
    };
    let all = async { tokio::join!(drain.run(stop.clone()), bus.run(CancellationToken::new()), drained) };
    timeout(Duration::from_secs(30), Box::pin(all)).await.expect("drained");
    assert_eq!(counts.drained.load(Ordering::Relaxed), 1);
    store.close();
    thread.join().unwrap();
}

#[tokio::test]
async fn a_refused_topic_is_probed_with_what_is_left_of_it() {
    what_is_left_is_probed_with(|lanes| lanes.drain_failed(&lane(), &Failure::Refused("missing".into())))
        .await;
}

#[tokio::test]
async fn the_breaker_is_probed_with_what_is_left() {
    what_is_left_is_probed_with(|lanes| (0..20).for_each(|_| lanes.record(Verdict::Failure))).await;
}
