//! Kills and copies of a bridge that parks.

use std::path::Path;

use crate::bridge::Bridge;
use crate::checker::check;
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

#[test]
fn a_folder_without_a_store_is_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let output = fleetbus(&["store", "check", "--data-dir", &dir.path().display().to_string()]);
    assert_eq!(output.status.code(), Some(66));
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no store"));
}
