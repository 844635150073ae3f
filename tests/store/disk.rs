//! Full disks: what cannot be parked is refused, what is delivered is still deleted, and room is found again.

use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use fleetbus::replay::{ParkError, Parked, Seq, StoreHealth, StoreLimits};

use super::support::{Running, check_file, lane, limits, park, parked, within};

/// Parks until it is refused; what was parked.
async fn fill(running: &Running, bytes: usize) -> (Vec<Seq>, ParkError) {
    let mut seqs = Vec::new();
    loop {
        let row = large(running, bytes);
        let seq = row.seq;
        match park(&running.store, vec![row]).await {
            Ok(()) => seqs.push(seq),
            Err(error) => return (seqs, error),
        }
    }
}

fn large(running: &Running, bytes: usize) -> Parked {
    Parked { payload: Bytes::from(vec![7; bytes]), ..parked(&running.store, &lane("acme", "a")) }
}

/// Fills, deletes, and parks as much again.
async fn fills_and_empties(running: &Running, bytes: usize) {
    let mut health = running.store.health();
    for _ in 0..3 {
        let (seqs, error) = fill(running, bytes).await;
        assert_eq!(error, ParkError::Full);
        assert_eq!(*health.borrow_and_update(), StoreHealth::Full);
        assert!(seqs.len() > 20, "only {} rows", seqs.len());
        assert_eq!(running.lane_seqs(&lane("acme", "a")).await, seqs, "what was acknowledged is there");
        running.store.delete(seqs.clone());
        running.settle().await;
        assert!(running.lane_seqs(&lane("acme", "a")).await.is_empty(), "a full disk still deletes");
        let row = large(running, bytes);
        let seq = row.seq;
        park(&running.store, vec![row]).await.unwrap();
        assert_eq!(*health.borrow_and_update(), StoreHealth::Well);
        running.store.delete(vec![seq]);
    }
}

#[tokio::test]
async fn a_file_at_its_cap_refuses_parks_deletes_and_parks_again() {
    let limits = StoreLimits { page_cap: Some(300), reserve: 64 << 10, ..limits() };
    let running = Running::start(limits).await;
    fills_and_empties(&running, 10_000).await;
    let dir = running.stop();
    check_file(&dir.path().join("store.db"));
}

/// A small file system in memory, where this user may mount one.
struct SmallDisk {
    dir: tempfile::TempDir,
}

impl SmallDisk {
    fn mount(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"])
            .arg(dir.path())
            .output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self { dir })
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg(self.dir.path()).output());
    }
}

#[tokio::test]
async fn a_full_disk_still_deletes_and_room_is_found_again() {
    let Some(disk) = SmallDisk::mount("24m") else {
        println!("not run: this user may not mount a file system");
        return;
    };
    let limits = StoreLimits { reserve: 2 << 20, ..limits() };
    let (running, _) = Running::at(disk.path(), limits.clone(), None).await;
    // Somebody else's file takes most of the disk.
    std::fs::write(disk.path().join("other"), vec![1; 8 << 20]).unwrap();
    fills_and_empties(&running, 10_000).await;
    // Full again, and nothing is delivered; then the other file goes, and the store finds the room by itself.
    let (seqs, _) = fill(&running, 10_000).await;
    let mut health = running.store.health();
    assert_eq!(*health.borrow_and_update(), StoreHealth::Full);
    std::fs::remove_file(disk.path().join("other")).unwrap();
    within(health.wait_for(|health| *health == StoreHealth::Well)).await.unwrap();
    park(&running.store, vec![large(&running, 10_000)]).await.unwrap();
    assert_eq!(running.lane_seqs(&lane("acme", "a")).await.len(), seqs.len() + 1);
    assert!(disk.path().join("store.reserve").exists());
    running.store.close();
    running.ended();
    // A start on a full disk can still deliver what is there.
    let filler = fill_disk(disk.path());
    let (running, recovered) = Running::at(disk.path(), limits, None).await;
    assert_eq!(recovered.lanes[0].rows, seqs.len() as u64 + 1);
    running.store.delete(seqs);
    running.settle().await;
    assert_eq!(running.lane_seqs(&lane("acme", "a")).await.len(), 1);
    drop(running);
    std::fs::remove_file(filler).unwrap();
    check_file(&disk.path().join("store.db"));
}

fn fill_disk(folder: &Path) -> std::path::PathBuf {
    use std::io::Write;
    let path = folder.join("filler");
    let mut file = std::fs::File::create(&path).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    path
}
