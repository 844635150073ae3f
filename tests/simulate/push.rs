//! The pusher as a faithful sender: in order, again until it is answered 2xx, and nothing but what it leaves out on purpose.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use fleetbus::simulate::push::{self, Faults, Format, Pushed, Target};
use fleetbus::simulate::world::{World, is_newer};
use fleetbus::simulate::{Clock, render};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const BEGINS: i64 = 1_767_009_600_000;
const WORLD: World = World { seed: 5, vehicles: 6, begins: BEGINS };
/// The loopback address of nobody yet.
const ANY: &str = "127.0.0.1:0";

/// Takes messages, in the order in which it answered 201; refuses every third try.
#[derive(Clone, Default)]
struct Receiver {
    taken: Arc<Mutex<Vec<Value>>>,
    tries: Arc<AtomicU64>,
    unreadable: Arc<AtomicU64>,
}

impl Receiver {
    fn listen(&self, listener: TcpListener, tracker: &TaskTracker) {
        let receiver = self.clone();
        let take = async move |headers: HeaderMap, body: Bytes| {
            assert_eq!(headers["authorization"], "Bearer secret");
            if receiver.tries.fetch_add(1, Ordering::Relaxed) % 3 == 2 {
                return StatusCode::SERVICE_UNAVAILABLE;
            }
            let Ok(message) = serde_json::from_slice(&body) else {
                receiver.unreadable.fetch_add(1, Ordering::Relaxed);
                return StatusCode::BAD_REQUEST;
            };
            receiver.taken.lock().push(message);
            StatusCode::CREATED
        };
        let routes = Router::new().route("/webhooks/acme", post(take));
        tracker.spawn(async move { axum::serve(listener, routes).await });
    }
}

fn target(address: std::net::SocketAddr, faults: Faults) -> Target {
    let url = format!("http://{address}/webhooks/acme");
    let (token, patience) = ("secret".to_owned(), Duration::from_secs(30));
    Target { url, token, format: Format::Both, after: BEGINS, faults, patience }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What each vehicle should have sent.
fn expected(to: i64) -> HashMap<u32, Vec<Value>> {
    let of = |vehicle| {
        let facts = WORLD.facts_of(vehicle, BEGINS, to);
        let message = |fact| if is_newer(vehicle) { Some(render::nested(fact)) } else { render::flat(fact) };
        facts.iter().filter_map(message).collect()
    };
    (0..WORLD.vehicles).map(|vehicle| (vehicle, of(vehicle))).collect()
}

#[tokio::test]
async fn each_vehicle_sends_everything_in_order_though_it_is_refused() {
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    let listener = TcpListener::bind(ANY).await.expect("a port");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    let (receiver, pushed) = (Receiver::default(), Arc::new(Pushed::default()));
    let clock = Clock::new(BEGINS, 300.0);
    let (target, sums) = (target(address, Faults::default()), Arc::clone(&pushed));
    let run = push::run(WORLD, clock.clone(), target, sums, tracker.clone(), stop.clone());
    let running = tracker.spawn(run);
    until("it tries again while nobody listens", || pushed.again.load(Ordering::Relaxed) > 3).await;
    receiver.listen(TcpListener::bind(address).await.expect("the same port"), &tracker);
    until("it sends", || receiver.taken.lock().len() > 60).await;
    let to = clock.stop();
    stop.cancel();
    running.await.expect("no panic").expect("a client");

    let mut left = expected(to);
    let all: usize = left.values().map(Vec::len).sum();
    for message in receiver.taken.lock().iter() {
        // The first that is expected of one of the vehicles, or it is out of order, twice, or made up.
        let sender = left.values_mut().find(|messages| messages.first() == Some(message));
        sender.unwrap_or_else(|| panic!("not now: {message}")).remove(0);
    }
    assert!(left.values().all(Vec::is_empty));
    assert_eq!(pushed.answered.load(Ordering::Relaxed), all as u64);
    assert_eq!(pushed.dropped.load(Ordering::Relaxed), 0);
    assert_eq!(receiver.unreadable.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn what_nobody_answers_is_given_up_and_counted() {
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    let listener = TcpListener::bind(ANY).await.expect("a port");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    let pushed = Arc::new(Pushed::default());
    let target = Target { patience: Duration::from_millis(1), ..target(address, Faults::default()) };
    let run = push::run(
        WORLD,
        Clock::new(BEGINS, 300.0),
        target,
        Arc::clone(&pushed),
        tracker.clone(),
        stop.clone(),
    );
    let running = tracker.spawn(run);
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    until("it tries again", || read(&pushed.again) > 3).await;
    stop.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(30), running).await.expect("it goes on");
    ended.expect("no panic").expect("a client");
    let (happened, given_up) = (read(&pushed.happened), read(&pushed.given_up));
    assert!(happened > 0 && given_up == happened, "{happened} happened, {given_up} were given up");
    assert_eq!(read(&pushed.answered), 0);
}

#[tokio::test]
async fn what_it_leaves_out_is_counted_and_can_be_pulled() {
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    let listener = TcpListener::bind(ANY).await.expect("a port");
    let (receiver, pushed) = (Receiver::default(), Arc::new(Pushed::default()));
    let target = target(listener.local_addr().expect("bound"), Faults { lost: 500, ..Faults::default() });
    receiver.listen(listener, &tracker);
    let clock = Clock::new(BEGINS, 300.0);
    let sums = Arc::clone(&pushed);
    let run = push::run(WORLD, clock.clone(), target, sums, tracker.clone(), stop.clone());
    let running = tracker.spawn(run);
    until("it leaves out", || pushed.lost.load(Ordering::Relaxed) > 10).await;
    let to = clock.stop();
    stop.cancel();
    running.await.expect("no panic").expect("a client");

    let taken = receiver.taken.lock().clone();
    let lost: Vec<Value> =
        expected(to).into_values().flatten().filter(|message| !taken.contains(message)).collect();
    assert_eq!(lost.len() as u64, pushed.lost.load(Ordering::Relaxed));
    assert_eq!(taken.len() as u64, pushed.answered.load(Ordering::Relaxed));
    assert!(lost.iter().all(|message| message.get("pushType").is_some()), "only of what V2 has");
}

#[tokio::test]
async fn what_it_doubles_and_garbles_is_counted_and_harms_nothing_else() {
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    let listener = TcpListener::bind(ANY).await.expect("a port");
    let (receiver, pushed) = (Receiver::default(), Arc::new(Pushed::default()));
    let faults = Faults { doubled: 300, garbled: 300, ..Faults::default() };
    let target = target(listener.local_addr().expect("bound"), faults);
    receiver.listen(listener, &tracker);
    let clock = Clock::new(BEGINS, 300.0);
    let sums = Arc::clone(&pushed);
    let run = push::run(WORLD, clock.clone(), target, sums, tracker.clone(), stop.clone());
    let running = tracker.spawn(run);
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    until("it errs", || read(&pushed.doubled) > 5 && read(&receiver.unreadable) > 5).await;
    let to = clock.stop();
    stop.cancel();
    running.await.expect("no panic").expect("a client");

    let mut taken = receiver.taken.lock().clone();
    assert_eq!(taken.len() as u64, read(&pushed.happened) + read(&pushed.doubled));
    assert!(read(&receiver.unreadable) <= read(&pushed.garbled), "some were refused before they were read");
    taken.sort_by_key(Value::to_string);
    taken.dedup();
    let mut all: Vec<Value> = expected(to).into_values().flatten().collect();
    all.sort_by_key(Value::to_string);
    assert!(taken == all);
}
