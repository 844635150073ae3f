//! Stores that released versions left, with what was parked in them: the real process of today brings all of it to its bus.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::bridge::Bridge;
use crate::metrics::metric;
use crate::support::{drained, export, local};

const ACCOUNTS: &str = "accounts:
  - { id: acme, provider: linxup, webhook: { token: { env: TEST_TOKEN } } }
  - { id: other, provider: linxup, webhook: { token: { env: TEST_TOKEN } } }
";

/// As if it had been written a moment ago: what is too old is removed.
fn written_now(file: &Path) {
    let store = rusqlite::Connection::open(file).unwrap();
    let newest: i64 = store.query_row("SELECT max(minute) FROM ages", [], |row| row.get(0)).unwrap();
    let minutes = jiff::Timestamp::now().as_millisecond() / 60_000 - newest;
    store
        .execute_batch(&format!(
            "UPDATE parked SET parked_at = parked_at + {minutes} * 60000;
             UPDATE raw SET received_at = received_at + {minutes} * 60000;
             UPDATE ages SET minute = -(minute + {minutes});
             UPDATE ages SET minute = -minute;"
        ))
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_older_version_parked_is_delivered_once_each_and_in_its_order() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/store");
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let stores: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "db")).collect();
    assert!(stores.len() >= 2);
    for store in stores {
        let told: Value =
            serde_json::from_slice(&std::fs::read(store.with_extension("json")).unwrap()).unwrap();
        let parked = told["parked"].as_array().unwrap();
        let mut waiting = BTreeMap::<_, Vec<_>>::new();
        for row in parked.iter().filter(|row| row["reason"] != "unfit") {
            let text = |name: &str| row[name].as_str().unwrap().to_owned();
            let lane = (format!("fleet.{}", text("type")), text("account"), text("subject"));
            waiting.entry(lane).or_default().push(text("id"));
        }
        let events: usize = waiting.values().map(Vec::len).sum();
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        std::fs::copy(&store, data.join("store.db")).unwrap();
        written_now(&data.join("store.db"));
        let bridge = Bridge::start(&local(dir.path(), ACCOUNTS, ""));
        let mut seen = BTreeMap::<_, Vec<_>>::new();
        for event in drained(&bridge, events).await {
            seen.entry((event.topic, event.account, event.subject)).or_default().push(event.id);
        }
        assert_eq!(seen, waiting, "{}", store.display());
        assert_eq!(metric(&bridge.admin, "fleetbus_parked_damaged_total").await, 0);
        assert!(bridge.stop().success());
        let left = export(&data);
        let unfit = parked.iter().filter(|row| row["reason"] == "unfit");
        let mut expected: Vec<_> =
            unfit.chain(told["raw"].as_array().unwrap()).map(|row| row["seq"].as_u64()).collect();
        expected.sort_unstable();
        let left: Vec<_> = left.iter().map(|row| row["seq"].as_u64()).collect();
        assert_eq!(left, expected, "what waits for the operator waits on: {}", store.display());
    }
}
