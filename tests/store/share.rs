//! What waits for the operator has its share, however much of it comes: eviction keeps pace, what comes faster is refused, and
//! neither costs those who have little there, or those who wait for the bus.

use std::sync::Arc;

use fleetbus::event::AccountId;
use fleetbus::replay::{DataDir, Filter, ParkError, ParkedRaw, Reason, Store, StoreLimits, Why};
use parking_lot::Mutex;

use crate::support::{Running, lane, limits, now, park, park_raw, parked, raw, within};

/// What one request may bring that nobody understands.
const REQUEST: usize = 10_000;

fn request(account: &str, number: usize) -> Vec<ParkedRaw> {
    (0..REQUEST).map(|at| raw(account, &format!("element {at} of request {number}"))).collect()
}

fn of(account: &str) -> Filter {
    Filter { account: Some(AccountId::new(account)), ..Filter::default() }
}

#[tokio::test]
async fn eviction_keeps_pace_with_requests_of_which_nothing_is_understood() {
    let running = Running::start(StoreLimits { max_size: 1 << 20, ..limits() }).await;
    for number in 0..5 {
        park_raw(&running.store, request("acme", number)).await.unwrap();
        let left = running.store.count(&of("acme")).await.unwrap();
        assert!(left.rows > 0 && left.rows < 3_000, "{left:?} after request {number}");
    }
    let left = running.store.count(&of("acme")).await.unwrap().rows;
    let gone = running.gone();
    assert!(gone.iter().all(|row| row.why == Why::Evicted));
    assert_eq!(gone.len() as u64 + left, 5 * REQUEST as u64, "each that went is told");
}

#[tokio::test]
async fn what_comes_faster_than_it_is_evicted_is_refused_and_hurts_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let lock = DataDir::lock(dir.path()).await.unwrap();
    let few = StoreLimits { max_size: 50 << 20, ..limits() };
    let (store, writer, _) = Store::open(&lock, few, None).unwrap();
    // Its thread does not run yet: nothing is evicted, and all that is let in waits.
    let answers = Arc::new(Mutex::new(Vec::new()));
    let told = || {
        let answers = Arc::clone(&answers);
        Box::new(move |kept| answers.lock().push(kept))
    };
    let mut taken = 0;
    let refused = loop {
        match store.park_raw(request("loud", taken), told()) {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
        assert!(taken < 8, "13 MiB are seven requests at most");
    };
    assert_eq!(refused, ParkError::OperatorFull);
    let large = "what may still be needed ".repeat(10_000);
    store.park_raw(vec![raw("quiet", &large)], told()).unwrap();
    let mut unfit = parked(&store, &lane("loud", "a"));
    (unfit.reason, unfit.payload) = (Reason::Unfit, large.into());
    assert_eq!(store.park(vec![unfit], told()), Err(ParkError::OperatorFull));
    store.park(vec![parked(&store, &lane("loud", "a"))], told()).unwrap();

    let thread = std::thread::spawn(move || writer.run(|_| {}));
    park(&store, vec![parked(&store, &lane("loud", "a"))]).await.unwrap();
    while within(store.count(&of("loud"))).await.unwrap().bytes > 5 << 20 {}
    assert_eq!(store.count(&of("quiet")).await.unwrap().rows, 1);
    assert!(store.stats(now()).evicted > 0);
    park_raw(&store, vec![raw("loud", "there is room again")]).await.unwrap();
    let kept = answers.lock().iter().filter(|kept| kept.is_ok()).count();
    let refused = answers.lock().iter().filter(|kept| **kept == Err(ParkError::OperatorFull)).count();
    // The last request may have been let in by half.
    assert!(kept > taken && kept + refused == taken + 2, "{kept} kept, {refused} refused of {taken}");
    store.close();
    thread.join().unwrap();
}
