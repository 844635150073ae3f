//! The embedded log.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use fleetbus::bus::{Bus, Message, Outcome};
use fleetbus::config;
use tempfile::TempDir;
use tokio::time::timeout;

use crate::desk::{Desk, PATIENCE, kind, message};

fn desk(dir: &Path, limits: config::Local) -> Desk {
    Desk::open(&config::Bus::Local(limits), dir)
}

const fn ample() -> config::Local {
    config::Local { retention: Duration::from_secs(86_400), max_size: 1 << 30 }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_is_read_in_order_and_survives_a_restart() {
    let dir = TempDir::new().expect("a folder");
    let first = desk(dir.path(), ample());
    for number in 0..5_000 {
        let key = format!("key-{}", number % 50);
        let topic = if number % 2 == 0 { "fleet.position" } else { "fleet.trip" };
        first.submit(number, &message(topic, &key, number)).expect("taken");
    }
    first.ended(5_000).await;
    assert_eq!(first.tally(), [("delivered", 5_000)].into());
    first.close().await;
    let again = desk(dir.path(), ample());
    let log = again.bus.as_local().expect("the local bus");
    assert_eq!(*log.newest().borrow(), 5_000);
    let (mut after, mut numbers) = (0, Vec::<u64>::new());
    loop {
        let rows = log.read(None, after, 700).expect("readable");
        let Some(last) = rows.last() else { break };
        after = last.offset;
        let number = |payload: &[u8]| -> u64 {
            std::str::from_utf8(payload).expect("text").parse().expect("a number")
        };
        numbers.extend(rows.iter().map(|row| number(&row.payload)));
    }
    assert_eq!(numbers, (0..5_000).collect::<Vec<u64>>());
    let trips = log.read(Some("fleet.trip"), 0, 10_000).expect("readable");
    assert_eq!(trips.len(), 2_500);
    assert_eq!((trips[0].topic.as_str(), trips[0].key.as_str(), trips[0].offset), ("fleet.trip", "key-1", 2));
    assert_eq!(trips[0].id, message("fleet.trip", "key-1", 1).id);
    again.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_is_woken_by_what_is_new() {
    let dir = TempDir::new().expect("a folder");
    let desk = desk(dir.path(), ample());
    let log = desk.bus.as_local().expect("the local bus");
    let mut newest = log.newest();
    assert_eq!(*newest.borrow_and_update(), 0);
    desk.submit(1, &message("fleet.trip", "key", 1)).expect("taken");
    timeout(PATIENCE, newest.changed()).await.expect("in time").expect("open");
    assert_eq!(*newest.borrow(), 1);
    assert_eq!(log.read(None, 0, 10).expect("readable").len(), 1);
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_that_is_shown_is_unavailability_and_ends() {
    let dir = TempDir::new().expect("a folder");
    let desk = desk(dir.path(), ample());
    let log = desk.bus.as_local().expect("the local bus");
    log.take_away();
    assert_eq!(kind(&desk.attempt(1, &message("t", "key", 1)).await), "unavailable");
    assert!(!desk.bus.is_available());
    log.bring_back();
    assert_eq!(desk.attempt(2, &message("t", "key", 2)).await, Outcome::Delivered);
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn size_and_age_bound_the_log_and_offsets_go_on() {
    let dir = TempDir::new().expect("a folder");
    let bound = 4 << 20;
    let small = config::Local { max_size: bound, ..ample() };
    let desk = desk(dir.path(), small);
    let payload = Bytes::from(vec![b'7'; 2_000]);
    for number in 0..10_000 {
        let sent = Message { payload: payload.clone(), ..message("t", "key", number) };
        desk.submit_at_last(number, &sent).await;
    }
    desk.ended(10_000).await;
    // One more, so that the thread has looked after the last batch.
    assert_eq!(desk.attempt(10_000, &message("t", "key", 1)).await, Outcome::Delivered);
    let log = desk.bus.as_local().expect("the local bus");
    let rows = log.read(None, 0, 20_000).expect("readable");
    assert!(rows.len() < 4_000 && rows.len() > 500, "{} rows are left", rows.len());
    assert_eq!(rows.last().expect("the newest").offset, 10_001);
    desk.close().await;
    let file = std::fs::metadata(dir.path().join("local.db")).expect("a file").len();
    assert!(file < bound * 3, "freed pages are used again: {file} bytes");
}

/// A transaction that fails takes what queued behind it along: a later message must not overtake an earlier one.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_written_is_unavailability_for_all_that_queued() {
    let dir = TempDir::new().expect("a folder");
    let desk = desk(dir.path(), ample());
    assert_eq!(desk.attempt(0, &message("t", "key", 0)).await, Outcome::Delivered);
    let other = rusqlite::Connection::open(dir.path().join("local.db")).expect("the same file");
    other.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    for number in 1..100 {
        desk.submit(number, &message("t", "key", number)).expect("taken");
    }
    desk.ended(100).await;
    assert_eq!(desk.tally(), [("delivered", 1), ("unavailable", 99)].into());
    other.execute_batch("ROLLBACK").expect("the lock is given back");
    // What comes before all of them were told is refused, too.
    desk.delivers(100, &message("t", "key", 100)).await;
    let log = desk.bus.as_local().expect("the local bus");
    let rows = log.read(None, 0, 1_000).expect("readable");
    assert_eq!(rows.iter().map(|row| row.payload.as_ref()).collect::<Vec<_>>(), [&b"0"[..], b"100"]);
    desk.close().await;
}

/// What is written to a file that nobody finds any more is lost with the process.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_removed_or_replaced_acknowledges_nothing() {
    let dir = TempDir::new().expect("a folder");
    let path = dir.path().join("local.db");
    let desk = desk(dir.path(), ample());
    assert_eq!(desk.attempt(0, &message("t", "key", 0)).await, Outcome::Delivered);
    std::fs::remove_file(&path).expect("it was there");
    assert_eq!(kind(&desk.attempt(1, &message("t", "key", 1)).await), "unavailable");
    std::fs::write(&path, "").expect("another");
    // Until all that queued have been told.
    let mut number = 2;
    let mut again = "busy";
    while again == "busy" {
        again = kind(&desk.attempt(number, &message("t", "key", number)).await);
        number += 1;
    }
    assert_eq!(again, "unavailable");
    desk.close().await;
}

#[test]
fn a_file_of_a_newer_format_is_refused_as_it_is_and_one_without_a_number_is_taken() {
    let dir = TempDir::new().expect("a folder");
    let path = dir.path().join("local.db");
    let bus = config::Bus::Local(ample());
    drop(Bus::open(&bus, dir.path()).expect("a new one"));
    let set = |format: i64| {
        let other = rusqlite::Connection::open(&path).expect("the file");
        other.pragma_update(None, "user_version", format).expect("written");
    };
    set(99);
    let Err(error) = Bus::open(&bus, dir.path()) else { panic!("it is newer") };
    assert!(error.to_string().starts_with("local.db has format 99, "), "{error}");
    set(0);
    drop(Bus::open(&bus, dir.path()).expect("as those of 0.1 were"));
}
