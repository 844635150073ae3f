//! Rows that move to other topics at a start, in a store of its own: one that was cut short between two of its transactions, and rows
//! that an operator put elsewhere. Neighbour: `../store.rs` has what a whole one does.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use fleetbus::event::AccountId;
use fleetbus::replay::{DataDir, Recovered, Routing, Store, moving};

use crate::support::{Running, lane, limits, now, park, parked};

/// More rows than one transaction moves.
const ROWS: u64 = 6_000;

fn routing(topic: &'static str) -> Routing {
    Routing {
        fingerprint: topic.to_owned(),
        topic: Box::new(move |_, _, _| Some(topic.into())),
        before: Box::new(|fingerprint| {
            let known = ["old", "new"].into_iter().find(|known| *known == fingerprint)?;
            Some(Box::new(move |_, _, _| Some(known.into())))
        }),
    }
}

/// The oldest head's first.
fn topics(recovered: &Recovered) -> Vec<String> {
    recovered.lanes.iter().map(|lane| lane.key.topic.to_string()).collect()
}

#[tokio::test]
async fn what_a_start_that_was_cut_short_has_moved_is_moved_back_by_the_old_configuration() {
    let (running, _) = Running::open(tempfile::tempdir().unwrap(), limits(), Some(routing("old"))).await;
    let mut key = lane("acme", "a");
    key.topic = "old".into();
    let mut expected = Vec::new();
    for _ in 0..ROWS {
        let row = parked(&running.store, &key);
        expected.push(row.seq);
        running.store.park(vec![row], Box::new(|kept| kept.unwrap())).unwrap();
    }
    let dir = running.stop();

    let asked = AtomicU64::new(0);
    let dies = Routing {
        fingerprint: "new".to_owned(),
        topic: Box::new(move |_, _, _| {
            assert!(asked.fetch_add(1, Ordering::Relaxed) < ROWS - 500, "as if it were killed");
            Some("new".into())
        }),
        before: Box::new(|_| None),
    };
    let lock = DataDir::lock(dir.path()).await.unwrap();
    let opened = catch_unwind(AssertUnwindSafe(|| drop(Store::open(&lock, limits(), Some(dies)))));
    assert!(opened.is_err(), "it was cut short");
    drop(lock);

    let (running, recovered) = Running::open(dir, limits(), Some(routing("old"))).await;
    assert_eq!(recovered.lanes.len(), 1, "one lane, in its order");
    assert_eq!(running.lane_seqs(&key).await, expected);
}

#[tokio::test]
async fn a_row_that_an_operator_put_elsewhere_stays_there_where_its_old_topic_can_be_told() {
    let (running, _) = Running::open(tempfile::tempdir().unwrap(), limits(), Some(routing("old"))).await;
    for topic in ["old", "chosen"] {
        let mut key = lane("acme", "a");
        key.topic = topic.into();
        park(&running.store, vec![parked(&running.store, &key)]).await.unwrap();
    }
    let (running, recovered) = running.restart(limits(), Some(routing("new"))).await;
    assert_eq!(topics(&recovered), ["new", "chosen"]);
    let unreadable = Routing { before: Box::new(|_| None), ..routing("another bus") };
    let (_running, recovered) = running.restart(limits(), Some(unreadable)).await;
    assert_eq!(topics(&recovered), ["another bus"], "nothing tells the one from the other");
}

#[tokio::test]
async fn rows_that_come_with_an_account_move_to_the_topics_here_and_what_an_operator_put_elsewhere_stays() {
    let (running, _) = Running::open(tempfile::tempdir().unwrap(), limits(), Some(routing("old"))).await;
    for topic in ["old", "chosen"] {
        let mut key = lane("zeta", "a");
        key.topic = topic.into();
        park(&running.store, vec![parked(&running.store, &key)]).await.unwrap();
    }
    let here = running.stop();
    let away = Running::start(limits()).await;
    park(&away.store, vec![parked(&away.store, &lane("acme", "a"))]).await.unwrap();
    let away = away.stop();
    let file = away.path().join("acme.moved");
    let lock = DataDir::lock(away.path()).await.unwrap();
    moving::export(&lock, &AccountId::new("acme"), &file, now()).unwrap();
    drop(lock);
    let lock = DataDir::lock(here.path()).await.unwrap();
    moving::import(&lock, &file, now()).unwrap();
    drop(lock);
    let (running, recovered) = Running::open(here, limits(), Some(routing("old"))).await;
    assert_eq!(topics(&recovered), ["old", "chosen", "old"]);
    let (_running, recovered) = running.restart(limits(), Some(routing("new"))).await;
    assert_eq!(topics(&recovered), ["new", "chosen", "new"]);
}
