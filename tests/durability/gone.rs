//! The data directory removed behind the process's back: what is written then would be lost with the process, so nothing is
//! promised any more, and the process ends. And who may read what is in it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use crate::bridge::{Bridge, TOKEN, acme};
use crate::fleet::{client, flat, start};
use crate::support::{away, export, fleetbus, local, seen};

/// What is done to a file.
type Strike = fn(&Path);

async fn push(bridge: &Bridge, vehicle: usize) -> Option<u16> {
    let url = format!("{}/webhooks/acme", bridge.webhook);
    let sent = client().post(url).bearer_auth(TOKEN).json(&flat(vehicle, start())).send().await;
    sent.ok().map(|answer| answer.status().as_u16())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_to_a_folder_that_is_gone_is_not_promised_and_the_process_ends() {
    let dir = tempfile::tempdir().unwrap();
    let mut bridge = Bridge::start(&away(dir.path(), ""));
    assert_eq!(push(&bridge, 1).await, Some(201));
    std::fs::remove_dir_all(dir.path().join("data")).unwrap();
    let answered = push(&bridge, 2).await;
    assert!(answered != Some(201), "{answered:?}");
    assert_eq!(bridge.ended(Duration::from_secs(30)).code(), Some(74), "{}", bridge.log_text());
    assert!(bridge.log_text().contains("was removed, replaced or moved away"), "{}", bridge.log_text());
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_without_a_request_too_and_where_the_folder_was_only_moved() {
    let dir = tempfile::tempdir().unwrap();
    let mut bridge = Bridge::start(&away(dir.path(), ""));
    assert_eq!(push(&bridge, 1).await, Some(201));
    std::fs::rename(dir.path().join("data"), dir.path().join("elsewhere")).unwrap();
    assert_eq!(bridge.ended(Duration::from_secs(30)).code(), Some(74), "{}", bridge.log_text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_restored_under_the_running_process_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut bridge = Bridge::start(&away(dir.path(), ""));
    assert_eq!(push(&bridge, 1).await, Some(201));
    let store = dir.path().join("data/store.db");
    std::fs::copy(&store, dir.path().join("backup")).unwrap();
    std::fs::rename(dir.path().join("backup"), &store).unwrap();
    assert!(push(&bridge, 2).await != Some(201));
    assert_eq!(bridge.ended(Duration::from_secs(30)).code(), Some(74), "{}", bridge.log_text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_removed_ends_it_and_takes_nothing_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut bridge = Bridge::start(&away(dir.path(), ""));
    assert_eq!(push(&bridge, 1).await, Some(201));
    std::fs::remove_file(dir.path().join("data/store.db-wal")).unwrap();
    assert!(push(&bridge, 2).await != Some(201));
    assert_eq!(bridge.ended(Duration::from_secs(30)).code(), Some(74), "{}", bridge.log_text());
    assert!(bridge.log_text().contains("store.db-wal was removed"), "{}", bridge.log_text());
    let kept = export(&dir.path().join("data"));
    let first = flat(1, start())["deviceNumber"].clone();
    assert!(seen(&kept).iter().any(|seen| seen.fact.subject == first), "{kept:?}");
}

/// Something that SQLite, which has its pages in memory, would not notice before the next start.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_were_cut_or_written_over_end_it() {
    let cut: Strike = |path| std::fs::File::options().write(true).open(path).unwrap().set_len(0).unwrap();
    let restore: Strike = |path| {
        let another = rusqlite::Connection::open(path.with_extension("other")).unwrap();
        another.execute_batch("CREATE TABLE t (x); VACUUM").unwrap();
        std::fs::copy(path.with_extension("other"), path).unwrap();
    };
    let garble: Strike = |path| std::fs::write(path, vec![b'x'; 20_000]).unwrap();
    let strikes = [
        ("store.db", cut),
        ("store.db", restore),
        ("store.db", garble),
        ("store.db-wal", cut),
        ("store.db-wal", garble),
    ];
    for (number, (file, strike)) in strikes.into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let mut bridge = Bridge::start(&away(dir.path(), ""));
        assert_eq!(push(&bridge, 1).await, Some(201));
        strike(&dir.path().join("data").join(file));
        assert!(push(&bridge, 2).await != Some(201), "{number}");
        assert_eq!(bridge.ended(Duration::from_secs(30)).code(), Some(74), "{}", bridge.log_text());
        let said = format!("{file} was cut or written over");
        assert!(bridge.log_text().contains(&said), "{number}: {}", bridge.log_text());
        // The log was left alone.
        if file == "store.db" {
            assert!(dir.path().join("data/store.db-wal").metadata().unwrap().len() > 0, "{number}");
        }
    }
}

/// The embedded bus: what would go into a log that nobody finds is parked instead, and no longer called delivered.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_embedded_bus_would_write_to_a_log_that_was_removed_is_kept_in_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let config = local(dir.path(), acme(), "");
    let bridge = Bridge::start(&config);
    assert_eq!(push(&bridge, 1).await, Some(201));
    std::fs::remove_file(dir.path().join("data/local.db-wal")).unwrap();
    assert_eq!(push(&bridge, 2).await, Some(201));
    bridge.kill9();
    let kept = export(&dir.path().join("data"));
    let second = flat(2, start())["deviceNumber"].clone();
    assert!(seen(&kept).iter().any(|seen| seen.fact.subject == second), "{kept:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_without_its_file_is_not_begun_anew() {
    for emptied in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let config = away(dir.path(), "");
        let bridge = Bridge::start(&config);
        assert_eq!(push(&bridge, 1).await, Some(201));
        bridge.kill9();
        let store = dir.path().join("data/store.db");
        let file = std::fs::read(&store).unwrap();
        std::fs::remove_file(&store).unwrap();
        if emptied {
            std::fs::write(&store, []).unwrap();
        }
        let output = fleetbus(&["run", "--config", &config.display().to_string()]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(74) && said.contains("put the file back"), "{said}");
        // As it says.
        std::fs::write(&store, file).unwrap();
        let kept = export(&dir.path().join("data"));
        assert_eq!(seen(&kept).len(), 1, "{kept:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn its_files_are_readable_by_their_owner_only_whoever_made_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let bridge = Bridge::start(&local(dir.path(), acme(), ""));
    assert_eq!(push(&bridge, 1).await, Some(201));
    let mut seen = Vec::new();
    for file in std::fs::read_dir(&data).unwrap() {
        let file = file.unwrap();
        let (name, mode) = (file.file_name(), file.metadata().unwrap().permissions().mode());
        let says_nothing = name == "LOCK" || name == "store.reserve";
        assert!(mode & 0o077 == 0 || says_nothing, "{name:?} has {mode:o}");
        seen.push(name.into_string().unwrap());
    }
    for name in ["store.db", "seen.db", "local.db", "local.db-wal"] {
        assert!(seen.iter().any(|seen| seen == name), "{name} of {seen:?}");
    }
    assert!(bridge.stop().success());
}
