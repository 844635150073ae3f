//! A quota of the user or the project that is spent is a full disk: the reserve is given up, so that what is parked can leave, and a start
//! succeeds.

use std::time::Duration;

use crate::bridge::Bridge;
use crate::fleet::start;
use crate::support::{away, discard_all, push, shim};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_parked_can_leave_and_a_start_succeeds_where_a_quota_is_spent() {
    let dir = tempfile::tempdir().unwrap();
    let (config, flag) = (away(dir.path(), ""), dir.path().join("spent"));
    let (library, flag_path) = (shim(dir.path(), "quota"), flag.display().to_string());
    let environment =
        [("LD_PRELOAD", library.to_str().unwrap()), ("FLEETBUS_TEST_QUOTA", flag_path.as_str())];
    let mut at = start();
    let mut next = || {
        at += 1_000;
        at
    };
    let mut bridge = Bridge::start_with(&config, &environment);
    assert_eq!(push(&bridge, 1, next()).await, 201);
    std::fs::write(&flag, "").unwrap();
    assert_eq!(push(&bridge, 1, next()).await, 503);
    bridge.wait_for_log("store.disk_full", Duration::from_secs(20));
    assert_eq!(discard_all(&bridge).await, 1);
    std::fs::remove_file(&flag).unwrap();
    bridge.wait_for_log("store.recovered", Duration::from_secs(60));
    assert_eq!(push(&bridge, 1, next()).await, 201);
    assert!(bridge.stop().success());

    std::fs::write(&flag, "").unwrap();
    let mut bridge = Bridge::start_with(&config, &environment);
    // What is written first finds out.
    assert_eq!(push(&bridge, 1, next()).await, 503);
    bridge.wait_for_log("store.disk_full", Duration::from_secs(20));
    assert_eq!(discard_all(&bridge).await, 1);
    assert!(bridge.stop().success());
}
