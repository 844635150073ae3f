//! A copy of a running store: as of one moment, whatever goes on.

use std::path::Path;
use std::time::Duration;

use fleetbus::replay::{DataDir, Filter, Salvage, Still, Store, check_copy};

use crate::support::{Running, lane, limits, park, parked};

fn copy(still: &Still, to: &Path) {
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < still.bytes() {
        bytes.extend(still.read(bytes.len() as u64, 10_000).unwrap());
    }
    std::fs::write(to, bytes).unwrap();
}

async fn park_some(running: &Running, count: usize) {
    let rows = (0..count).map(|_| parked(&running.store, &lane("acme", "a"))).collect();
    park(&running.store, rows).await.unwrap();
}

#[tokio::test]
async fn a_copy_has_what_was_parked_before_it_and_parks_go_on() {
    let running = Running::start(limits()).await;
    park_some(&running, 300).await;
    let still = running.store.hold_still().await.unwrap();
    let file = running.path().join("store.db");
    let before = std::fs::read(&file).unwrap();
    // More than would be moved into the file otherwise.
    for _ in 0..12 {
        park_some(&running, 1_000).await;
    }
    running.store.delete(running.lane_seqs(&lane("acme", "a")).await[..5_000].to_vec());
    running.settle().await;
    assert!(std::fs::read(&file).unwrap() == before, "the file changed under the copy");
    let to = running.path().join("copy.db");
    copy(&still, &to);
    drop(still);
    let checked = check_copy(&to);
    assert!(checked.is_sound(), "{checked:?}");
    let mut lines = Vec::new();
    let exported = Salvage::open(&to).unwrap().export(&mut lines).unwrap();
    assert!(exported.is_whole() && exported.events == 300, "{exported:?}");
    // And now it moves.
    park_some(&running, 1).await;
    let begun = std::time::Instant::now();
    while std::fs::read(&file).unwrap() == before {
        assert!(begun.elapsed() < Duration::from_secs(30), "the log is never moved");
        running.settle().await;
    }
    assert_eq!(running.store.count(&Filter::default()).await.unwrap().rows, 7_301);
}

#[tokio::test]
async fn a_store_that_stops_or_is_copied_again_cuts_the_copy() {
    let running = Running::start(limits()).await;
    park_some(&running, 10).await;
    let first = running.store.hold_still().await.unwrap();
    first.read(0, 100).unwrap();
    let second = running.store.hold_still().await.unwrap();
    assert!(first.read(0, 100).unwrap_err().to_string().contains("cut"));
    second.read(0, 100).unwrap();
    let dir = running.stop();
    assert!(second.read(0, 100).is_err());
    assert!(check_copy(&dir.path().join("store.db")).is_sound());
}

#[tokio::test]
async fn a_copy_that_is_opened_is_of_no_later_era_than_what_was_parked_after_it() {
    let (running, recovered) = Running::open(tempfile::tempdir().unwrap(), limits(), None).await;
    let still = running.store.hold_still().await.unwrap();
    let restored = tempfile::tempdir().unwrap();
    copy(&still, &restored.path().join("store.db"));
    drop(still);
    let after = recovered.era.now();
    let dir = running.stop();
    let era = |path: std::path::PathBuf| async move {
        let dir = DataDir::lock(&path).await.unwrap();
        Store::open(&dir, limits(), None).unwrap().2.era.now()
    };
    assert!(era(restored.path().to_owned()).await <= after, "a restored copy");
    assert!(era(dir.path().to_owned()).await > after, "the next start");
}
