//! A disk that cannot fsync any more, and one whose bits turned: the process says so and exits 74, and promises nothing.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::bridge::{Bridge, TOKEN, acme, configure};
use crate::checker::check;
use crate::fleet::{Ledger, client, flat, imei, start};
use crate::support::{away, export, fleetbus, push, seen, shim};

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failed_fsync_nothing_is_promised_and_the_process_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (config, flag) = (away(dir.path(), ""), dir.path().join("fails"));
    let (library, flag_path) = (shim(dir.path(), "fsync_fails"), flag.display().to_string());
    let environment =
        [("LD_PRELOAD", library.to_str().unwrap()), ("FLEETBUS_TEST_FSYNC_FAILS", flag_path.as_str())];
    let mut bridge = Bridge::start_with(&config, &environment);
    let mut ledger = Ledger::default();
    let from = start();
    for number in 0..20 {
        let fact = crate::checker::Fact { subject: imei(1), at: from + number * 1_000 };
        assert_eq!(push(&bridge, 1, fact.at).await, 201);
        ledger.sent.insert(fact.clone());
        ledger.answered.push(fact);
    }
    std::fs::write(&flag, "").unwrap();
    let mut after = Vec::new();
    for number in 20..40 {
        let at = from + number * 1_000;
        ledger.sent.insert(crate::checker::Fact { subject: imei(1), at });
        after.push(push(&bridge, 1, at).await);
    }
    assert!(after.iter().all(|status| *status == 503 || *status == 0), "{after:?}");
    let status = bridge.ended(Duration::from_secs(90));
    assert_eq!(status.code(), Some(74), "{}", bridge.log_text());
    let log = bridge.log_text();
    assert!(log.contains("disk I/O error") && log.contains("store cannot be trusted"), "{log}");
    // The disk is sound again: what was answered is there.
    std::fs::remove_file(&flag).unwrap();
    let rows = export(&dir.path().join("data"));
    let report = check(&ledger.sent, &ledger.answered, &seen(&rows));
    assert!(report.holds(), "{report}");
    let bridge = Bridge::start(&config);
    assert_eq!(push(&bridge, 1, from + 50_000).await, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_were_overwritten_end_the_process_and_the_rest_is_exported() {
    let dir = tempfile::tempdir().unwrap();
    let config = away(dir.path(), "");
    let bridge = Bridge::start(&config);
    let from = start();
    let filler = "x".repeat(900);
    for number in 0..60 {
        let mut body = flat(1, from + number * 1_000);
        body["filler"] = Value::from(filler.clone());
        let url = format!("{}/webhooks/acme", bridge.webhook);
        let answer = client().post(url).bearer_auth(TOKEN).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 201);
    }
    assert!(bridge.stop().success());
    let file = dir.path().join("data/store.db");
    let mut bytes = std::fs::read(&file).unwrap();
    let is_leaf = |page: &&mut [u8]| page.iter().filter(|byte| **byte == b'x').count() > 2_000;
    let mut leaves: Vec<_> = bytes.chunks_mut(4096).filter(is_leaf).collect();
    let middle = leaves.len() / 2;
    leaves[middle][..100].fill(0xFF);
    std::fs::write(&file, bytes).unwrap();
    // Another bus: each row is looked at, for its topic may be another.
    let local = "bus: { local: { retention: 24h, max_size: 1GiB } }";
    let config = configure(dir.path(), local, acme(), "delivery: { drain_delay: 0s }");
    let mut run = Command::new(env!("CARGO_BIN_EXE_fleetbus"));
    let output =
        run.arg("run").arg("--config").arg(config).env("TEST_TOKEN", TOKEN).output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(74), "{said}");
    assert!(said.contains("is damaged") && said.contains("fleetbus store export"), "{said}");

    let data = dir.path().join("data").display().to_string();
    let output = fleetbus(&["store", "check", "--data-dir", &data]);
    assert_eq!(output.status.code(), Some(74));
    assert!(String::from_utf8_lossy(&output.stdout).contains("store.db: damaged"));
    let saved = dir.path().join("saved.ndjson");
    let output = fleetbus(&["store", "export", "--data-dir", &data, "--out", &saved.display().to_string()]);
    assert_eq!(output.status.code(), Some(74));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("cannot be read"), "{said}");
    let lines = std::fs::read_to_string(&saved).unwrap().lines().count();
    assert!((20..60).contains(&lines), "{lines}: {said}");
}
