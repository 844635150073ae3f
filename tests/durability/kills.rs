//! Kills and copies of a bridge that parks.

use std::path::Path;

use crate::bridge::Bridge;
use crate::checker::check;
use crate::fleet::start;
use crate::support::{Driving, away, export, fleetbus, seen};

fn is_sound(data: &Path) {
    let output = fleetbus(&["store", "check", "--data-dir", &data.display().to_string()]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("store.db: sound"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_are_sound_after_every_kill_and_hold_what_was_answered() {
    let dir = tempfile::tempdir().unwrap();
    let (config, data) = (away(dir.path(), ""), dir.path().join("data"));
    let mut bridge = Bridge::start(&config);
    let driving = Driving::begin(&bridge, 16, 60);
    for kill in 1..=5 {
        driving.answered(kill * 150).await;
        bridge.kill9();
        is_sound(&data);
        bridge = Bridge::start(&config);
        driving.moved(&bridge);
    }
    let ledger = driving.end().await;
    bridge.kill9();
    is_sound(&data);
    let report = check(&ledger.sent, &ledger.answered, &seen(&export(&data)));
    assert!(report.holds(), "{report}");
    // What was parked in the moment of a kill may be parked again, with its id.
    assert_eq!(report.distinct, 16 * 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_bridge_is_copied_and_its_copy_has_all_that_was_answered_before() {
    let dir = tempfile::tempdir().unwrap();
    let bridge = Bridge::start(&away(dir.path(), ""));
    let driving = Driving::begin(&bridge, 16, 40);
    driving.answered(200).await;
    let data = dir.path().join("data");
    let held = fleetbus(&["store", "check", "--data-dir", &data.display().to_string()]);
    assert_eq!(held.status.code(), Some(75), "a bridge that runs has its folder for itself");
    assert!(String::from_utf8_lossy(&held.stderr).contains("fleetbus store backup"));

    let before = driving.ledger.lock().unwrap().answered.clone();
    let restored = tempfile::tempdir().unwrap();
    let file = restored.path().join("store.db");
    let words = ["store", "backup", &file.display().to_string(), "--admin", &bridge.admin];
    let output = fleetbus(&words);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_ne!(fleetbus(&words).status.code(), Some(0), "a file that is there is not written over");
    let ledger = driving.end().await;
    assert_eq!(ledger.refused, Vec::<u16>::new(), "nobody was refused meanwhile");
    let names: Vec<_> =
        std::fs::read_dir(restored.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(names, ["store.db"], "nothing else is left there");

    is_sound(restored.path());
    let report = check(&ledger.sent, &before, &seen(&export(restored.path())));
    assert!(report.holds() && report.distinct >= before.len(), "{report}");

    // Stopped, it is copied without a bridge, and has everything.
    assert!(bridge.stop().success());
    let copy = tempfile::tempdir().unwrap();
    let file = copy.path().join("store.db").display().to_string();
    let output = fleetbus(&["store", "backup", &file, "--data-dir", &data.display().to_string()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report = check(&ledger.sent, &ledger.answered, &seen(&export(copy.path())));
    assert!(report.holds() && report.distinct == 16 * 40, "{report}");
}

/// As somebody does in a hurry, who puts the backup in the place of the store and leaves all else where it is.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_parked_after_a_backup_may_come_again_once_that_is_restored() {
    let dir = tempfile::tempdir().unwrap();
    let (config, data) = (away(dir.path(), ""), dir.path().join("data"));
    let (bridge, from) = (Bridge::start(&config), start());
    Driving::begin_at(&bridge, 4, 10, from).end().await;
    let backup = dir.path().join("backup.db");
    let output = fleetbus(&["store", "backup", &backup.display().to_string(), "--admin", &bridge.admin]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Driving::begin_at(&bridge, 8, 10, from).end().await;
    assert!(bridge.stop().success());
    assert_eq!(export(&data).len(), 80);

    std::fs::rename(&backup, data.join("store.db")).unwrap();
    assert!(data.join("seen.db").exists());
    let bridge = Bridge::start(&config);
    assert!(bridge.log_text().contains("dedup.store_is_older"), "{}", bridge.log_text());
    let ledger = Driving::begin_at(&bridge, 8, 10, from).end().await;
    assert!(bridge.stop().success());
    let report = check(&ledger.sent, &ledger.answered, &seen(&export(&data)));
    assert!(report.holds() && report.distinct == 80, "{report}");
}

#[test]
fn a_folder_without_a_store_is_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let output = fleetbus(&["store", "check", "--data-dir", &dir.path().display().to_string()]);
    assert_eq!(output.status.code(), Some(66));
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no store"));
}
