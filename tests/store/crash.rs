//! Kills and second processes: this test binary starts itself again as a child.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fleetbus::replay::{DataDir, Kept, LockError, Seq, Stored};

use super::support::{Running, check_file, lane, limits, parked};

/// Says to a child which folder is its.
const FOLDER: &str = "FLEETBUS_TEST_FOLDER";

fn child(test: &str, folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The folder, where this process is a child.
fn folder() -> Option<PathBuf> {
    std::env::var_os(FOLDER).map(PathBuf::from)
}

#[tokio::test]
async fn what_was_acknowledged_before_a_kill_is_there_after_it() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        let mut child = child("crash::child_parks_until_it_is_killed", dir.path());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let seq_of = |line: String| line.strip_prefix("parked ").map(|seq| Seq(seq.parse().unwrap()));
        let mut acknowledged = Vec::new();
        while acknowledged.len() < 300 {
            acknowledged.extend(seq_of(lines.next().unwrap().unwrap()));
        }
        child.kill().unwrap();
        // What it still said, but for the last line: it may be cut.
        let mut rest: Vec<_> = lines.map_while(Result::ok).collect();
        rest.pop();
        acknowledged.extend(rest.into_iter().filter_map(seq_of));
        child.wait().unwrap();
        let (running, recovered) = Running::at(dir.path(), limits(), None).await;
        assert!(acknowledged.iter().all(|seq| *seq < recovered.next_seq));
        for seq in acknowledged {
            let found = running.store.get(seq).await.unwrap();
            assert!(
                matches!(found, Some(Kept::Whole(Stored::Event(row))) if row.seq == seq),
                "{seq:?} is lost"
            );
        }
        drop(running);
        check_file(&dir.path().join("store.db"));
    }
}

#[tokio::test]
#[ignore = "a child of the test above"]
async fn child_parks_until_it_is_killed() {
    let Some(folder) = folder() else { return };
    let (running, _) = Running::at(&folder, limits(), None).await;
    loop {
        for number in 0..64 {
            let row = parked(&running.store, &lane("acme", &format!("s{number}")));
            let seq = row.seq.0;
            running
                .store
                .park(
                    vec![row],
                    Box::new(move |result| {
                        result.unwrap();
                        println!("parked {seq}");
                    }),
                )
                .unwrap();
        }
        running.settle().await;
    }
}

#[tokio::test]
async fn a_second_process_waits_for_the_directory_and_has_it_when_the_first_ends() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = child("crash::child_holds_the_directory", dir.path());
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "held"));
    let error = DataDir::lock_within(dir.path(), Duration::from_millis(150)).await.unwrap_err();
    assert!(matches!(error, LockError::Held { .. }), "{error:?}");
    drop(child.stdin.take());
    DataDir::lock(dir.path()).await.unwrap();
    assert!(child.wait().unwrap().success());
}

#[tokio::test]
#[ignore = "a child of the test above"]
async fn child_holds_the_directory() {
    let Some(folder) = folder() else { return };
    let _held = DataDir::lock(&folder).await.unwrap();
    println!("\nheld");
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}
