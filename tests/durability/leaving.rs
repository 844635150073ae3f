//! The end of the process: what C libraries left to be done `atexit` is not done, for threads of theirs may still run then. A stop
//! under load ended in SIGABRT by that once.

use std::process::Command;

use crate::bridge::{Bridge, acme, configure};
use crate::support::shim;

#[test]
fn the_process_ends_without_the_handlers_of_c_libraries() {
    let dir = tempfile::tempdir().unwrap();
    let (library, left) = (shim(dir.path(), "leaves"), dir.path().join("left"));
    let environment =
        [("LD_PRELOAD", library.to_str().unwrap()), ("FLEETBUS_TEST_LEFT", left.to_str().unwrap())];
    let config = configure(dir.path(), "", acme(), "delivery: { drain_delay: 0s }");
    let bridge = Bridge::start_with(&config, &environment);
    assert_eq!(bridge.stop().code(), Some(0));
    assert!(!left.exists(), "a handler ran");
    // Of another process it does.
    assert!(Command::new("true").envs(environment).status().unwrap().success());
    assert!(left.exists());
}
