//! What an operator throws away: what a filter says, and what was there when it was said.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fleetbus::replay::{Count, DataDir, Discarded, Filter, Forgets, Store, Why};

use crate::support::{Running, lane, limits, park, park_raw, parked, raw};

#[tokio::test]
async fn a_discard_takes_what_the_filter_says_and_tells_of_each() {
    let running = Running::start(limits()).await;
    let rows: Vec<_> = (0..1200)
        .map(|n| parked(&running.store, &lane("acme", if n % 2 == 0 { "a" } else { "b" })))
        .collect();
    park(&running.store, rows).await.unwrap();
    park_raw(&running.store, vec![raw("acme", "x")]).await.unwrap();
    let filter = Filter { subject: Some("a".into()), ..Filter::default() };
    assert_eq!(running.store.discard(&filter).await.unwrap(), Discarded { events: 600, raw: 0 });
    assert!(running.lane_seqs(&lane("acme", "a")).await.is_empty());
    assert_eq!(running.lane_seqs(&lane("acme", "b")).await.len(), 600);
    let gone = running.gone();
    assert!(gone.len() == 600 && gone.iter().all(|row| row.why == Why::Discarded && row.enters.len() == 1));
    assert_eq!(running.store.discard(&Filter::default()).await.unwrap(), Discarded { events: 600, raw: 1 });
    assert_eq!(running.store.count(&Filter::default()).await.unwrap(), Count::default());
}

#[tokio::test]
async fn what_is_parked_while_it_is_discarded_stays() {
    let running = Running::start(limits()).await;
    let rows =
        |count: usize| (0..count).map(|_| parked(&running.store, &lane("acme", "a"))).collect::<Vec<_>>();
    park(&running.store, rows(3_000)).await.unwrap();
    let everything = Filter::default();
    let parking = async {
        for _ in 0..20 {
            park(&running.store, rows(10)).await.unwrap();
        }
    };
    let (discarded, ()) = tokio::join!(running.store.discard(&everything), parking);
    assert_eq!(discarded.unwrap(), Discarded { events: 3_000, raw: 0 });
    assert_eq!(running.lane_seqs(&lane("acme", "a")).await.len(), 200);
}

/// Dedup hears of it after the commit, and may not have written it down when the process dies.
#[tokio::test]
async fn ids_of_what_was_discarded_are_there_at_the_next_start_until_dedup_has_written_them_down() {
    let running = Running::start(limits()).await;
    let rows: Vec<_> = (0..3).map(|_| parked(&running.store, &lane("acme", "a"))).collect();
    let enters: Vec<_> = rows.iter().flat_map(|row| row.enters.clone()).collect();
    park(&running.store, rows).await.unwrap();
    let (running, recovered) = running.restart(limits(), None).await;
    assert!(recovered.forgotten.is_empty());
    running.store.discard(&Filter::default()).await.unwrap();
    let mut dir = running.stop();
    for (written, is_left) in [(0, true), (1, false)] {
        let asked = Arc::new(AtomicU64::new(0));
        let (asks, lock) = (Arc::clone(&asked), DataDir::lock(dir.path()).await.unwrap());
        let (store, mut writer, recovered) = Store::open(&lock, limits(), None).unwrap();
        assert_eq!(recovered.forgotten, enters);
        writer.asks(move || {
            asks.fetch_add(1, Ordering::Relaxed);
            Forgets { told: 1, written }
        });
        let thread = std::thread::spawn(move || writer.run(|_| {}));
        // Once to know what there is, and once more whether that is written.
        while asked.load(Ordering::Relaxed) < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        store.close();
        thread.join().unwrap();
        drop((store, lock));
        let (running, recovered) = Running::open(dir, limits(), None).await;
        assert_eq!(!recovered.forgotten.is_empty(), is_left);
        dir = running.stop();
    }
}
