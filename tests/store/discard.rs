//! What an operator throws away: what a filter says, and what was there when it was said.

use fleetbus::replay::{Count, Discarded, Filter, Why};

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
