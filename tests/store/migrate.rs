//! Stores of released versions, as those versions wrote them: `tests/fixtures/store/vN.db` beside `vN.json`, which has what is
//! in it, told by another program. Today's version opens each and has the same.

use std::path::PathBuf;
use std::time::Duration;

use fleetbus::encode::again;
use fleetbus::event::AccountId;
use fleetbus::replay::{Filter, Kept, Routing, StoreLimits, Stored, Table, What};
use fleetbus::route::BusKind;
use serde_json::Value;

use crate::support::{Running, check_file, limits};

fn fixtures() -> Vec<(PathBuf, Value)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/store");
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let stores = files.filter(|path| path.extension().is_some_and(|extension| extension == "db"));
    stores
        .map(|path| {
            let told = std::fs::read(path.with_extension("json")).unwrap();
            (path, serde_json::from_slice(&told).unwrap())
        })
        .collect()
}

fn text<'v>(row: &'v Value, key: &str) -> &'v str {
    row[key].as_str().unwrap()
}

#[tokio::test]
async fn what_an_older_version_parked_is_there_in_its_order() {
    let fixtures = fixtures();
    assert!(!fixtures.is_empty());
    for (path, told) in fixtures {
        let dir = tempfile::tempdir().unwrap();
        std::fs::copy(&path, dir.path().join("store.db")).unwrap();
        // They grow old, and are kept.
        let limits = StoreLimits { retention: Duration::from_secs(1_000 * 366 * 86_400), ..limits() };
        let routing = Routing {
            fingerprint: "another bus".to_owned(),
            topic: Box::new(|_, event_type, _| Some(format!("fleet.{event_type}").into())),
            before: Box::new(|_| None),
        };
        let (running, recovered) = Running::open(dir, limits.clone(), Some(routing)).await;
        let parked = told["parked"].as_array().unwrap();
        for row in parked {
            let seq = fleetbus::replay::Seq(row["seq"].as_u64().unwrap());
            let Some(Kept::Whole(Stored::Event(event))) = running.store.get(seq).await.unwrap() else {
                panic!("{row}")
            };
            let lane = &event.lane;
            assert_eq!((lane.account.as_str(), &*lane.subject), (text(row, "account"), text(row, "subject")));
            assert_eq!(&*lane.topic, format!("fleet.{}", text(row, "type")), "it goes to today's topic");
            assert_eq!(
                (event.id.to_string().as_str(), event.reason.as_str()),
                (text(row, "id"), text(row, "reason"))
            );
            let topic = lane.topic.clone();
            let message = again(&event.payload, event.id, event.event_type, topic, BusKind::Local, None);
            assert_eq!(&*message.unwrap().key, text(row, "subject"), "it can be sent");
        }
        let lanes: u64 = recovered.lanes.iter().map(|lane| lane.rows).sum();
        assert_eq!(lanes as usize, parked.iter().filter(|row| row["reason"] != "unfit").count());
        for lane in recovered.lanes {
            let seqs = running.lane_seqs(&lane.key).await;
            assert!(seqs.len() as u64 == lane.rows && seqs.is_sorted());
        }
        let listed = running.store.list(&Filter::default(), None, 1_000).await.unwrap().rows;
        let sources: Vec<_> = listed
            .iter()
            .filter_map(|row| match &row.what {
                What::Raw { source } => Some((row.seq.0, source.as_str(), row.kind.as_str())),
                What::Event { .. } => None,
            })
            .collect();
        let raw = told["raw"].as_array().unwrap();
        let expected: Vec<_> = raw
            .iter()
            .map(|row| (row["seq"].as_u64().unwrap(), text(row, "source"), text(row, "reason")))
            .collect();
        assert_eq!(sources, expected);
        for (name, table) in
            [("cursors", Table::Cursors), ("directory", Table::Directory), ("states", Table::States)]
        {
            let entries = running.store.entries(table, None, None).await.unwrap();
            let entries =
                entries.into_iter().map(|e| [e.account.to_string(), e.key, e.value]).collect::<Vec<_>>();
            let expected: Vec<[String; 3]> = serde_json::from_value(told[name].clone()).unwrap();
            assert_eq!(entries, expected, "{name}");
        }
        let acme = AccountId::new("acme");
        assert!(running.store.room(&acme) < limits.parked_default, "what waits is counted");
        let dir = running.stop();
        check_file(&dir.path().join("store.db"));
    }
}
