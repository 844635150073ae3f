//! Bits that turned on the disk: they are noticed and said, and what can still be read is exported.

use std::collections::BTreeSet;
use std::path::Path;

use bytes::Bytes;
use fleetbus::replay::{DataDir, Exported, Salvage, Store, StoreError, check};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Running, lane, limits, park, park_raw, parked, raw};

/// What can be read: the numbers of the rows, and what was said.
fn export(dir: &Path) -> (BTreeSet<u64>, Exported) {
    let mut lines = Vec::new();
    let exported = Salvage::open(&dir.join("store.db")).unwrap().export(&mut lines).unwrap();
    let lines = String::from_utf8(lines).unwrap();
    let rows =
        lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["seq"].as_u64().unwrap());
    (rows.collect(), exported)
}

async fn findings(dir: &Path) -> Vec<String> {
    let lock = DataDir::lock(dir).await.unwrap();
    check(&lock).into_iter().flat_map(|checked| checked.findings).collect()
}

/// A store with events, some of them unfit, and raw messages, closed in order.
async fn filled(events: usize) -> TempDir {
    let running = Running::start(limits()).await;
    for number in 0..events {
        let mut row = parked(&running.store, &lane("acme", &format!("s{}", number % 7)));
        row.payload = Bytes::from(vec![0xAB; 500]);
        running.store.park(vec![row], Box::new(|result| result.unwrap())).unwrap();
    }
    let bodies = (0..events / 10).map(|number| raw("acme", &format!("{number} {}", "x".repeat(300))));
    park_raw(&running.store, bodies.collect()).await.unwrap();
    running.stop()
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_sound_store_is_exported_whole_and_nothing_is_found() {
    let dir = filled(1_000).await;
    let before = std::fs::read(dir.path().join("store.db")).unwrap();
    assert_eq!(findings(dir.path()).await, Vec::<String>::new());
    let (rows, exported) = export(dir.path());
    assert_eq!((exported.events, exported.raw, exported.is_whole()), (1_000, 100, true));
    assert_eq!(rows, (1..=1_100).collect());
    assert!(before == std::fs::read(dir.path().join("store.db")).unwrap(), "looking changed it");
}

#[tokio::test]
async fn pages_that_were_overwritten_cost_their_own_rows_and_each_is_named() {
    let dir = filled(1_000).await;
    // Leaves of the table, here and there: each has some seven rows.
    let mut lost = 0;
    change(&dir.path().join("store.db"), |bytes| {
        let is_leaf = |page: &&mut [u8]| page.iter().filter(|byte| **byte == 0xAB).count() > 2_000;
        for page in bytes.chunks_mut(4096).filter(is_leaf).skip(3).step_by(40) {
            page[..300].fill(0xFF);
            lost += 1;
        }
    });
    assert!(lost >= 3);
    let findings = findings(dir.path()).await;
    assert!(!findings.is_empty());
    let (rows, exported) = export(dir.path());
    assert!(!exported.is_whole() && !exported.damage.is_empty());
    assert!((lost..lost * 9).contains(&exported.unread), "{lost} pages, {} rows", exported.unread);
    assert_eq!(exported.events + exported.raw + exported.unread, 1_100, "each is there, or is named");
    let named: BTreeSet<u64> = exported.named.iter().map(|seq| seq.0).collect();
    assert!(named.is_disjoint(&rows) && named.len() + rows.len() == 1_100);
}

#[tokio::test]
async fn a_store_without_its_first_page_is_said_to_be_lost() {
    let dir = filled(10).await;
    change(&dir.path().join("store.db"), |bytes| bytes[..100].fill(0));
    assert!(!findings(dir.path()).await.is_empty());
    let Err(error) = Salvage::open(&dir.path().join("store.db")) else { panic!("opened") };
    assert!(error.to_string().contains("restore a backup"), "{error}");
}

/// A store as a kill leaves it: what was parked last is in the log alone. Six transactions of ten rows.
async fn killed() -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    let running = Running::start(limits()).await;
    // Nothing is moved from the log while this is held.
    let held = running.store.hold_still().await.unwrap();
    for _ in 0..6 {
        let rows = (0..10).map(|_| parked(&running.store, &lane("acme", "a"))).collect();
        park(&running.store, rows).await.unwrap();
    }
    for name in ["store.db", "store.db-wal"] {
        std::fs::copy(running.path().join(name), copy.path().join(name)).unwrap();
    }
    drop(held);
    copy
}

fn open(dir: &Path, lock: &DataDir) -> Result<u64, StoreError> {
    let (_store, _writer, recovered) = Store::open(lock, limits(), None)?;
    assert!(dir.join("store.db").exists());
    Ok(recovered.lanes.iter().map(|lane| lane.rows).sum())
}

#[tokio::test]
async fn a_log_that_was_damaged_is_refused_and_what_comes_before_is_exported() {
    let dir = killed().await;
    let log = dir.path().join("store.db-wal");
    let length = std::fs::metadata(&log).unwrap().len() as usize;
    change(&log, |bytes| bytes[length / 2] ^= 1);
    let before = std::fs::read(&log).unwrap();
    let lock = DataDir::lock(dir.path()).await.unwrap();
    let Err(error) = open(dir.path(), &lock) else { panic!("opened") };
    assert!(matches!(error, StoreError::LogDamaged { commits, .. } if commits >= 2), "{error:?}");
    assert!(error.to_string().contains("fleetbus store export"), "{error}");
    assert!(before == std::fs::read(&log).unwrap(), "the evidence is gone");
    drop(lock);
    assert!(findings(dir.path()).await.iter().any(|finding| finding.contains("log is damaged")));
    let (rows, exported) = export(dir.path());
    assert!(!exported.is_whole() && (10..60).contains(&rows.len()), "{exported:?}");
    assert_eq!(rows, (1..=rows.len() as u64).collect(), "all that came before");
}

#[tokio::test]
async fn a_log_whose_last_transaction_is_torn_opens_with_all_that_came_before() {
    let dir = killed().await;
    assert!(findings(dir.path()).await.is_empty());
    let log = dir.path().join("store.db-wal");
    let length = std::fs::metadata(&log).unwrap().len() as usize;
    // The last byte of the last page: as a power cut may leave it.
    change(&log, |bytes| bytes[length - 1] ^= 1);
    let lock = DataDir::lock(dir.path()).await.unwrap();
    let checked = check(&lock).remove(0);
    assert!(checked.is_sound() && checked.notes.iter().any(|note| note.contains("cut off")), "{checked:?}");
    assert_eq!(open(dir.path(), &lock).unwrap(), 50);
}
