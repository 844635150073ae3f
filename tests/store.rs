//! The replay store from outside, on real files: what it promises to those who park, drain and operate. Order, quotas,
//! eviction, versions and locks here; a model of it, kills and full disks in `store/`.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails, and children speak")]

#[path = "store/audit.rs"]
mod audit;
#[path = "store/crash.rs"]
mod crash;
#[path = "store/damage.rs"]
mod damage;
#[path = "store/discard.rs"]
mod discard;
#[path = "store/disk.rs"]
mod disk;
#[path = "store/entries.rs"]
mod entries;
#[path = "store/migrate.rs"]
mod migrate;
#[path = "store/model.rs"]
mod model;
#[path = "store/routing.rs"]
mod routing;
#[path = "store/share.rs"]
mod share;
#[path = "store/still.rs"]
mod still;
#[path = "store/support.rs"]
mod support;

use std::time::Duration;

use bytes::Bytes;
use fleetbus::event::{AccountId, EventType, Millis};
use fleetbus::replay::{
    AskError, Count, DataDir, Entry, Filter, Kept, Kind, LockError, ParkError, RawReason, Reason, Routing,
    Seq, Store, StoreError, StoreHealth, StoreLimits, Stored, Table, What, Why, check,
};
use support::{Running, lane, limits, now, park, park_raw, parked, raw, whole, within};

const DAY: i64 = 24 * 3600 * 1000;

#[tokio::test]
async fn a_lane_is_read_in_the_order_of_its_parks_also_after_a_restart() {
    let running = Running::start(limits()).await;
    let mut expected = Vec::new();
    for round in 0..3 {
        for name in ["a", "b"] {
            let rows: Vec<_> = (0..4).map(|_| parked(&running.store, &lane("acme", name))).collect();
            if name == "a" {
                expected.extend(rows.iter().map(|row| row.seq));
            }
            park(&running.store, rows).await.unwrap();
        }
        assert_eq!(running.lane_seqs(&lane("acme", "a")).await, expected, "after round {round}");
    }
    let (running, recovered) = running.restart(limits(), None).await;
    assert_eq!(running.lane_seqs(&lane("acme", "a")).await, expected);
    assert_eq!(recovered.next_seq, Seq(25));
    let lanes: Vec<_> = recovered.lanes.iter().map(|l| (l.key.clone(), l.rows, l.head)).collect();
    assert_eq!(lanes, [(lane("acme", "a"), 12, Seq(1)), (lane("acme", "b"), 12, Seq(5))]);
}

#[tokio::test]
async fn a_row_comes_back_as_it_was_parked() {
    let running = Running::start(limits()).await;
    let mut row = parked(&running.store, &lane("acme", "a"));
    row.trace = Some("00-11-22-01".into());
    row.error = "ä".repeat(400);
    row.enters = vec![uuid::Uuid::from_u128(7), uuid::Uuid::from_u128(8)];
    row.reason = Reason::Refused;
    park(&running.store, vec![row.clone()]).await.unwrap();
    let Some(Kept::Whole(Stored::Event(back))) = running.store.get(row.seq).await.unwrap() else {
        panic!("an event")
    };
    assert_eq!(back.lane, row.lane);
    assert_eq!(
        (back.seq, back.event_type, back.id, back.reason),
        (row.seq, row.event_type, row.id, row.reason)
    );
    assert_eq!(
        (back.enters, back.payload, back.trace, back.parked_at),
        (row.enters, row.payload, row.trace, row.parked_at)
    );
    assert_eq!(back.error, "ä".repeat(250), "errors are cut at 500 bytes");
}

#[tokio::test]
async fn a_sequence_number_is_never_given_twice() {
    let running = Running::start(limits()).await;
    let row = parked(&running.store, &lane("acme", "a"));
    let seq = row.seq;
    park(&running.store, vec![row]).await.unwrap();
    running.store.delete(vec![seq]);
    let (running, recovered) = running.restart(limits(), None).await;
    assert!(recovered.lanes.is_empty());
    assert!(running.store.next_seq() > seq);
}

#[tokio::test]
async fn a_row_is_provisional_until_it_is_freed_or_the_program_restarts() {
    let running = Running::start(limits()).await;
    let key = lane("acme", "a");
    let mut rows: Vec<_> = (0..2).map(|_| parked(&running.store, &key)).collect();
    rows.iter_mut().for_each(|row| row.provisional = true);
    let first = rows[0].seq;
    park(&running.store, rows).await.unwrap();
    let provisional = async |running: &Running| -> Vec<bool> {
        let rows = running.read_lane(key.clone(), None, 10, 1 << 20).await.unwrap();
        whole(rows).iter().map(|row| row.provisional).collect()
    };
    assert_eq!(provisional(&running).await, [true, true]);
    running.store.free(vec![first]);
    assert_eq!(provisional(&running).await, [false, true]);
    let (running, _) = running.restart(limits(), None).await;
    assert_eq!(provisional(&running).await, [false, false]);
}

#[tokio::test]
async fn a_read_sees_the_parks_before_it_and_not_the_rows_deleted_before_it() {
    let running = Running::start(limits()).await;
    let key = lane("acme", "a");
    let rows: Vec<_> = (0..5000).map(|_| parked(&running.store, &key)).collect();
    let seqs: Vec<_> = rows.iter().map(|row| row.seq).collect();
    for row in rows {
        running.store.park(vec![row], Box::new(|result| result.unwrap())).unwrap();
    }
    running.store.delete(seqs[..3000].to_vec());
    let found = running.read_lane(key.clone(), None, 10_000, u64::MAX).await.unwrap();
    assert_eq!(whole(found).iter().map(|row| row.seq).collect::<Vec<_>>(), seqs[3000..]);
}

#[tokio::test]
async fn a_read_is_bounded_by_rows_and_bytes_but_gives_one() {
    let running = Running::start(limits()).await;
    let key = lane("acme", "a");
    let mut rows: Vec<_> = (0..4).map(|_| parked(&running.store, &key)).collect();
    rows.iter_mut().for_each(|row| row.payload = Bytes::from(vec![1; 1000]));
    let seqs: Vec<_> = rows.iter().map(|row| row.seq).collect();
    park(&running.store, rows).await.unwrap();
    let read = async |after, rows, bytes| {
        let found = running.read_lane(key.clone(), after, rows, bytes).await.unwrap();
        whole(found).iter().map(|row| row.seq).collect::<Vec<_>>()
    };
    assert_eq!(read(None, 2, u64::MAX).await, seqs[..2]);
    assert_eq!(read(None, 10, 2500).await, seqs[..2]);
    assert_eq!(read(None, 10, 1).await, seqs[..1]);
    assert_eq!(read(Some(seqs[1]), 10, u64::MAX).await, seqs[2..]);
    assert!(read(Some(seqs[3]), 10, u64::MAX).await.is_empty());
}

#[tokio::test]
async fn what_is_unfit_leaves_its_lane_and_may_come_back_to_its_place() {
    let running = Running::start(limits()).await;
    let key = lane("acme", "a");
    let rows: Vec<_> = (0..3).map(|_| parked(&running.store, &key)).collect();
    let seqs: Vec<_> = rows.iter().map(|row| row.seq).collect();
    park(&running.store, rows).await.unwrap();
    running.store.set_reason(vec![seqs[1]], Reason::Unfit, "too large".into());
    assert_eq!(running.lane_seqs(&key).await, [seqs[0], seqs[2]]);
    let unfit = Filter { kinds: vec![Kind::Event(Reason::Unfit)], ..Filter::default() };
    let page = running.store.list(&unfit, None, 10).await.unwrap();
    assert_eq!((page.rows.len(), page.rows[0].seq, &*page.rows[0].error), (1, seqs[1], "too large"));
    running.store.set_reason(vec![seqs[1]], Reason::Unavailable, String::new());
    assert_eq!(running.lane_seqs(&key).await, seqs);
    assert_eq!(running.store.count(&unfit).await.unwrap(), Count::default());
}

#[tokio::test]
async fn a_full_account_hurts_no_other_and_has_room_again_when_its_rows_are_delivered() {
    let limits = StoreLimits { parked_default: 2000, ..limits() };
    let running = Running::start(limits).await;
    let mut seqs = Vec::new();
    let refused = loop {
        let row = parked(&running.store, &lane("acme", "a"));
        let seq = row.seq;
        match park(&running.store, vec![row]).await {
            Ok(()) => seqs.push(seq),
            Err(error) => break error,
        }
    };
    assert_eq!(refused, ParkError::AccountFull);
    assert!(seqs.len() > 2, "{seqs:?}");
    park(&running.store, vec![parked(&running.store, &lane("other", "a"))]).await.unwrap();
    let room = running.store.room(&AccountId::new("acme"));
    running.store.delete(seqs.clone());
    running.settle().await;
    assert_eq!(running.store.room(&AccountId::new("acme")), 2000);
    assert!(room < 1000);
    park(&running.store, vec![parked(&running.store, &lane("acme", "a"))]).await.unwrap();
}

#[tokio::test]
async fn what_waits_for_the_bus_is_refused_when_the_store_is_full_and_never_evicted() {
    let limits = StoreLimits { max_size: 20_000, ..limits() };
    let running = Running::start(limits).await;
    let mut kept = 0;
    while park(&running.store, vec![parked(&running.store, &lane("acme", "a"))]).await.is_ok() {
        kept += 1;
    }
    assert_eq!(
        park(&running.store, vec![parked(&running.store, &lane("b", "a"))]).await,
        Err(ParkError::Full)
    );
    assert_eq!(running.store.health().borrow().clone(), StoreHealth::Well, "a quota is no disk");
    // Far more than the operator's share.
    for number in 0..200 {
        park_raw(&running.store, vec![raw("acme", &format!("body {number}"))]).await.unwrap();
    }
    running.settle().await;
    assert_eq!(running.lane_seqs(&lane("acme", "a")).await.len(), kept);
    let raws = Filter { kinds: vec![Kind::Raw(RawReason::NotJson)], ..Filter::default() };
    let left = running.store.count(&raws).await.unwrap();
    assert!(left.bytes <= 2000 && left.rows > 2, "{left:?}");
    // The oldest went, and each was told.
    let page = running.store.list(&raws, None, 100).await.unwrap();
    let first = page.rows[0].seq;
    let gone = running.gone();
    assert_eq!(gone.len() as u64, 200 - left.rows);
    assert!(gone.iter().all(|row| row.seq < first && row.why == Why::Evicted && row.event.is_none()));
    assert_eq!(running.store.stats(now()).evicted, gone.len() as u64);
}

#[tokio::test]
async fn the_oldest_that_waits_for_the_operator_goes_first_whatever_it_is() {
    let limits = StoreLimits { max_size: 10_000, ..limits() };
    let running = Running::start(limits).await;
    let mut unfit = parked(&running.store, &lane("acme", "a"));
    unfit.reason = Reason::Unfit;
    unfit.enters = vec![uuid::Uuid::from_u128(9)];
    let seq = unfit.seq;
    park(&running.store, vec![unfit]).await.unwrap();
    for number in 0..5 {
        park_raw(&running.store, vec![raw("acme", &format!("body {number}"))]).await.unwrap();
    }
    running.settle().await;
    let gone = running.gone();
    assert_eq!(gone[0].seq, seq);
    assert_eq!(gone[0].enters, [uuid::Uuid::from_u128(9)]);
    assert_eq!(gone[0].event, Some((lane("acme", "a"), EventType::Position)));
}

#[tokio::test]
async fn the_account_that_has_the_most_for_the_operator_loses_its_oldest_and_no_other_loses_any() {
    let running = Running::start(StoreLimits { max_size: 20_000, ..limits() }).await;
    park_raw(&running.store, vec![raw("quiet", "what may still be needed")]).await.unwrap();
    for number in 0..100 {
        park_raw(&running.store, vec![raw("loud", &format!("body {number}"))]).await.unwrap();
    }
    running.settle().await;
    let of = |account: &str| Filter { account: Some(AccountId::new(account)), ..Filter::default() };
    assert_eq!(running.store.count(&of("quiet")).await.unwrap().rows, 1);
    let loud = running.store.list(&of("loud"), None, 1000).await.unwrap().rows;
    assert!(loud.len() > 2 && loud.len() < 20, "{}", loud.len());
    assert_eq!(loud.last().map(|row| row.seq), Some(Seq(101)), "the latest is there");
}

#[tokio::test]
async fn what_is_too_old_goes_whatever_it_waits_for() {
    let running = Running::start(limits()).await;
    let mut rows: Vec<_> = (0..4).map(|_| parked(&running.store, &lane("acme", "a"))).collect();
    rows[0].parked_at = Millis(now().0 - 8 * DAY);
    rows[1].parked_at = Millis(now().0 - 8 * DAY);
    rows[1].reason = Reason::Unfit;
    rows[2].parked_at = Millis(now().0 - 7 * DAY + DAY / 2);
    let seqs: Vec<_> = rows.iter().map(|row| row.seq).collect();
    let mut old = raw("acme", "old");
    old.received_at = Millis(now().0 - 8 * DAY);
    park(&running.store, rows).await.unwrap();
    park_raw(&running.store, vec![old]).await.unwrap();
    running.settle().await;
    assert_eq!(running.lane_seqs(&lane("acme", "a")).await, seqs[2..]);
    let gone = running.gone();
    assert_eq!(gone.len(), 3);
    assert!(gone.iter().all(|row| row.why == Why::Expired));
    let stats = running.store.stats(now());
    assert_eq!((stats.expired, stats.expiring_for_bus, stats.expiring_for_operator), (3, 1, 0));
    assert!(stats.oldest_for_bus.is_some_and(|at| now().0 - at.0 > 6 * DAY));
    assert_eq!(stats.oldest_for_operator, None);
}

#[tokio::test]
async fn raw_bytes_are_parked_once_by_account_source_and_content() {
    let running = Running::start(limits()).await;
    let second = fleetbus::replay::ParkedRaw { source: "v2/trips".into(), ..raw("acme", "x") };
    park_raw(&running.store, vec![raw("acme", "x"), raw("acme", "x"), raw("other", "x"), second])
        .await
        .unwrap();
    park_raw(&running.store, vec![raw("acme", "x")]).await.unwrap();
    let page = running.store.read(&Filter::default(), None, 10).await.unwrap();
    assert_eq!(page.rows.len(), 3);
    let Kept::Whole(Stored::Raw(seq, first)) = &page.rows[0] else { panic!("raw") };
    assert_eq!((&*first.body, &*first.source, first.reason), (&b"x"[..], "push", RawReason::NotJson));
    running.store.delete(vec![*seq]);
    running.settle().await;
    assert_eq!(running.store.count(&Filter::default()).await.unwrap().rows, 2);
    park_raw(&running.store, vec![raw("acme", "x")]).await.unwrap();
    assert_eq!(running.store.count(&Filter::default()).await.unwrap().rows, 3);
}

#[tokio::test]
async fn the_view_shows_events_and_raw_bytes_together_in_pages() {
    let running = Running::start(limits()).await;
    for number in 0..30 {
        park(&running.store, vec![parked(&running.store, &lane("acme", "a"))]).await.unwrap();
        park_raw(&running.store, vec![raw("acme", &format!("{number}"))]).await.unwrap();
    }
    let (mut seen, mut after, mut events) = (Vec::new(), None, 0);
    loop {
        let page = running.store.list(&Filter::default(), after, 7).await.unwrap();
        assert!(page.rows.len() <= 7);
        events += page.rows.iter().filter(|row| matches!(row.what, What::Event { .. })).count();
        seen.extend(page.rows.iter().map(|row| row.seq.0));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, (1..=60).collect::<Vec<_>>());
    assert_eq!(events, 30);
}

#[tokio::test]
async fn a_question_that_finds_little_among_much_is_answered_whole() {
    let running = Running::start(limits()).await;
    let rows: Vec<_> = (0..12_000).map(|_| parked(&running.store, &lane("acme", "a"))).collect();
    park(&running.store, rows).await.unwrap();
    let rare = parked(&running.store, &lane("acme", "rare"));
    let seq = rare.seq;
    park(&running.store, vec![rare]).await.unwrap();
    let filter = Filter { subject: Some("rare".into()), ..Filter::default() };
    // A page that took its time says where to go on.
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = running.store.list(&filter, after, 10).await.unwrap();
        found.extend(page.rows.iter().map(|row| row.seq));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(found, [seq]);
    assert_eq!(running.store.count(&filter).await.unwrap().rows, 1);
}

#[tokio::test]
async fn entries_survive_and_are_told_apart_by_table_account_and_key() {
    let running = Running::start(limits()).await;
    let entry = |account: &str, key: &str, value: &str| Entry {
        account: AccountId::new(account),
        key: key.into(),
        value: value.into(),
        saved_at: Millis(5),
    };
    let store = &running.store;
    store
        .put(Table::Cursors, vec![entry("acme", "v2/trips", "1"), entry("b", "v2/trips", "2")])
        .await
        .unwrap();
    store
        .put(Table::Cursors, vec![entry("acme", "v2/trips", "3"), entry("acme", "v2/stops", "4")])
        .await
        .unwrap();
    store.put(Table::CustomData, vec![entry("acme", "tracker/1", "{}")]).await.unwrap();
    store
        .remove(Table::Cursors, AccountId::new("b"), vec!["v2/trips".into(), "missing".into()])
        .await
        .unwrap();
    let found = store.entry(Table::Cursors, AccountId::new("acme"), "v2/trips".into()).await.unwrap();
    assert_eq!(found, Some(entry("acme", "v2/trips", "3")));
    let page = store.entries(Table::Cursors, Some(AccountId::new("acme")), None).await.unwrap();
    assert_eq!(page, [entry("acme", "v2/stops", "4"), entry("acme", "v2/trips", "3")]);
    let after = Some((AccountId::new("acme"), "v2/stops".into()));
    assert_eq!(store.entries(Table::Cursors, None, after).await.unwrap(), page[1..]);
    let (running, recovered) = running.restart(limits(), None).await;
    assert_eq!(recovered.cursors, page);
    assert!(recovered.directory.is_empty() && recovered.states.is_empty() && recovered.tokens.is_empty());
    let custom = running.store.entries(Table::CustomData, None, None).await.unwrap();
    assert_eq!(custom, [entry("acme", "tracker/1", "{}")]);
}

#[tokio::test]
async fn many_entries_are_saved_in_more_than_one_transaction() {
    let running = Running::start(limits()).await;
    let entry = |number: usize| Entry {
        account: AccountId::new("acme"),
        key: format!("{number:04}"),
        value: "{}".into(),
        saved_at: Millis(5),
    };
    let new: Vec<_> = (0..1_200).map(entry).collect();
    let before = running.store.stats(now()).commits;
    running.store.put(Table::States, new.clone()).await.unwrap();
    assert_eq!(running.store.stats(now()).commits - before, 3);
    assert_eq!(running.store.all_entries(Table::States, None).await.unwrap(), new);
}

#[tokio::test]
async fn rows_move_to_the_topics_of_todays_configuration_in_their_order() {
    let routing = |fingerprint: &str, topic: &'static str| Routing {
        fingerprint: fingerprint.into(),
        topic: Box::new(move |account, _, _| (account.as_str() == "acme").then(|| topic.into())),
        before: Box::new(|_| None),
    };
    let running = Running::start(limits()).await;
    let mut expected = Vec::new();
    for number in 0..2500 {
        let mut key = lane("acme", "a");
        key.topic = if number % 2 == 0 { "even".into() } else { "odd".into() };
        let row = parked(&running.store, &key);
        expected.push(row.seq);
        running.store.park(vec![row], Box::new(|result| result.unwrap())).unwrap();
    }
    let other = parked(&running.store, &lane("other", "a"));
    park(&running.store, vec![other]).await.unwrap();
    let (running, recovered) = running.restart(limits(), Some(routing("1", "even"))).await;
    assert_eq!(recovered.rerouted, 1250);
    assert_eq!(recovered.lanes.len(), 2, "what no topic is known for stays where it is");
    let mut key = lane("acme", "a");
    key.topic = "even".into();
    assert_eq!(running.lane_seqs(&key).await, expected);
    let (running, recovered) = running.restart(limits(), Some(routing("1", "never asked"))).await;
    assert_eq!(recovered.rerouted, 0);
    let (_running, recovered) = running.restart(limits(), Some(routing("2", "new"))).await;
    assert_eq!(recovered.rerouted, 2500);
}

#[tokio::test]
async fn a_hundred_thousand_parks_share_commits() {
    let running = Running::start(limits()).await;
    let (done, mut told) = tokio::sync::mpsc::channel(100_000);
    for number in 0..100_000 {
        let row = parked(&running.store, &lane("acme", &format!("s{}", number % 100)));
        let mut job = Some(row);
        while let Some(row) = job.take() {
            let done = done.clone();
            let again = row.clone();
            let told = Box::new(move |result| done.try_send(result).unwrap());
            match running.store.park(vec![row], told) {
                Ok(()) => {}
                Err(ParkError::Busy) => {
                    running.settle().await;
                    job = Some(again);
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    for _ in 0..100_000 {
        told.recv().await.unwrap().unwrap();
    }
    assert_eq!(running.store.count(&Filter::default()).await.unwrap().rows, 100_000);
    let commits = running.store.stats(now()).commits;
    assert!(commits < 20_000, "{commits} commits");
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_refused_by_name_and_left_alone() {
    let running = Running::start(limits()).await;
    let dir = running.stop();
    let path = dir.path().join("store.db");
    let newer = rusqlite::Connection::open(&path).unwrap();
    newer.pragma_update(None, "user_version", 1000).unwrap();
    newer.close().unwrap();
    newer_is_refused(dir.path(), 1000).await;
    // The number may still be in the log.
    let newer = rusqlite::Connection::open(&path).unwrap();
    newer.pragma_update(None, "user_version", 1001).unwrap();
    let copy = tempfile::tempdir().unwrap();
    for name in ["store.db", "store.db-wal"] {
        std::fs::copy(dir.path().join(name), copy.path().join(name)).unwrap();
    }
    newer_is_refused(copy.path(), 1001).await;
}

async fn newer_is_refused(dir: &std::path::Path, version: i64) {
    let files = || ["store.db", "store.db-wal"].map(|name| std::fs::read(dir.join(name)).ok());
    let before = files();
    let lock = DataDir::lock(dir).await.unwrap();
    let Err(error) = Store::open(&lock, limits(), None) else { panic!("opened") };
    assert!(matches!(error, StoreError::Newer { found, .. } if found == version), "{error:?}");
    assert!(error.to_string().contains("store.db"), "{error}");
    assert_eq!(files(), before);
    let checked = check(&lock);
    let said = checked[0].unjudged.as_deref();
    assert!(said.is_some_and(|why| why.contains(&format!("format {version}"))), "{checked:?}");
    assert!(checked[0].findings.is_empty(), "{checked:?}");
}

#[tokio::test]
async fn what_is_no_database_is_refused_as_damaged() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("store.db"),
        "not a database at all, but longer than a header of SQLite's. ".repeat(100),
    )
    .unwrap();
    let lock = DataDir::lock(dir.path()).await.unwrap();
    let Err(error) = Store::open(&lock, limits(), None) else { panic!("opened") };
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
}

#[tokio::test]
async fn a_damaged_page_breaks_the_store_and_everybody_hears_of_it() {
    let running = Running::start(limits()).await;
    let mut rows: Vec<_> = (0..2000).map(|_| parked(&running.store, &lane("acme", "a"))).collect();
    rows.iter_mut().for_each(|row| row.payload = Bytes::from(vec![0xAB; 500]));
    park(&running.store, rows).await.unwrap();
    let dir = running.stop();
    let path = dir.path().join("store.db");
    let mut bytes = std::fs::read(&path).unwrap();
    // Leaves of the table, full of payload: their headers are overwritten.
    for page in bytes.chunks_mut(4096).filter(|page| page.iter().filter(|byte| **byte == 0xAB).count() > 2000)
    {
        page[..200].fill(0xFF);
    }
    std::fs::write(&path, bytes).unwrap();
    let (running, _) = Running::open(dir, limits(), None).await;
    let mut health = running.store.health();
    let read = running.read_lane(lane("acme", "a"), None, 5000, u64::MAX).await;
    assert!(matches!(read, Err(AskError::Failing(_))), "{read:?}");
    within(health.wait_for(|health| *health == StoreHealth::Broken)).await.unwrap();
    running.ended();
    let row = parked(&running.store, &lane("acme", "a"));
    assert_eq!(park(&running.store, vec![row]).await, Err(ParkError::Closed));
    assert_eq!(running.store.get(Seq(1)).await.err(), Some(AskError::Closed));
}

#[tokio::test]
async fn a_closed_store_does_what_was_queued_and_takes_no_more() {
    let running = Running::start(limits()).await;
    let rows: Vec<_> = (0..3000).map(|_| parked(&running.store, &lane("acme", "a"))).collect();
    let seqs: Vec<_> = rows.iter().map(|row| row.seq).collect();
    for row in rows {
        running.store.park(vec![row], Box::new(|result| result.unwrap())).unwrap();
    }
    running.store.delete(seqs[..2990].to_vec());
    running.store.close();
    let refused = park(&running.store, vec![parked(&running.store, &lane("acme", "a"))]).await;
    assert_eq!(refused, Err(ParkError::Closed));
    running.ended();
    assert_eq!(*running.store.health().borrow(), StoreHealth::Well);
    assert_eq!(running.store.get(Seq(1)).await.err(), Some(AskError::Closed));
    let (running, _) = running.restart(limits(), None).await;
    assert_eq!(running.lane_seqs(&lane("acme", "a")).await, seqs[2990..]);
}

#[tokio::test]
async fn a_writer_that_never_ran_leaves_nobody_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let lock = DataDir::lock(dir.path()).await.unwrap();
    let (store, writer, _) = Store::open(&lock, limits(), None).unwrap();
    let (done, told) = tokio::sync::oneshot::channel();
    store
        .park(vec![parked(&store, &lane("acme", "a"))], Box::new(|result| done.send(result).unwrap()))
        .unwrap();
    drop(writer);
    assert_eq!(told.await.unwrap(), Err(ParkError::Closed));
    assert_eq!(*store.health().borrow(), StoreHealth::Broken);
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_is_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    let error = DataDir::lock(&dir.path().join("file/data")).await.unwrap_err();
    assert!(matches!(error, LockError::Unwritable { .. }), "{error:?}");
    assert!(error.to_string().contains("file/data"), "{error}");
}

#[tokio::test]
async fn a_directory_is_held_for_as_long_as_a_clone_lives() {
    let dir = tempfile::tempdir().unwrap();
    let first = DataDir::lock(dir.path()).await.unwrap();
    let second = first.clone();
    drop(first);
    let error = DataDir::lock_within(dir.path(), Duration::from_millis(1)).await.unwrap_err();
    assert!(matches!(error, LockError::Held { .. }), "{error:?}");
    drop(second);
    DataDir::lock_within(dir.path(), Duration::from_millis(1)).await.unwrap();
}
