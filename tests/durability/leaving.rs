//! The end of the process: what C libraries left to be done `atexit` is not done, for threads of theirs may still run then. A stop
//! under load ended in SIGABRT by that once. And whoever reads the logs may hang: nothing waits for that.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::bridge::{Bridge, TOKEN, acme, binary, configure};
use crate::fleet::{client, flat, start};
use crate::ports::free_port;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_the_logs_that_hangs_holds_up_neither_senders_nor_the_stop() {
    let dir = tempfile::tempdir().unwrap();
    let config = configure(dir.path(), "", acme(), "delivery: { drain_delay: 0s }");
    let port = free_port();
    let text =
        std::fs::read_to_string(&config).unwrap().replacen("127.0.0.1:0", &format!("127.0.0.1:{port}"), 1);
    std::fs::write(&config, text).unwrap();
    // Of a pipe that holds 64 KiB nobody reads.
    let mut bridge = Command::new(binary())
        .args(["run", "--config"])
        .arg(&config)
        .env("TEST_TOKEN", TOKEN)
        .env("FLEETBUS_LOG", "trace")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (client, url) = (client(), format!("http://127.0.0.1:{port}/webhooks/acme"));
    let begun = Instant::now();
    let push = async |step: i64| {
        let sent = client.post(&url).bearer_auth(TOKEN).json(&flat(1, start() + step * 1_000)).send().await;
        sent.is_ok_and(|answer| answer.status() == 201)
    };
    while !push(0).await {
        assert!(begun.elapsed() < Duration::from_secs(60), "it does not start");
    }
    for step in 1..500 {
        assert!(push(step).await, "request {step}");
    }
    kill(Pid::from_raw(bridge.id().cast_signed()), Signal::SIGTERM).unwrap();
    let begun = Instant::now();
    let ended = loop {
        if let Some(ended) = bridge.try_wait().unwrap() {
            break ended;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "it does not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(ended.code(), Some(0));
}
