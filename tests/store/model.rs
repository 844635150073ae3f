//! The store against a plain map: whatever is parked, freed, marked, deleted, read, restarted or killed, in whatever
//! order, both hold the same rows in the same order.

use std::collections::BTreeMap;

use fleetbus::replay::{Filter, Kind, LaneKey, ParkError, Reason, Seq, WaitsFor};
use proptest::prelude::*;

use super::support::{Running, check_file, lane, limits, park, parked, whole, within};

#[derive(Debug, Clone)]
enum Step {
    Park {
        lane: usize,
        rows: usize,
        reason: Reason,
        provisional: bool,
    },
    /// Without waiting for it.
    ParkAndGoOn {
        lane: usize,
    },
    Delete {
        which: Vec<prop::sample::Index>,
    },
    Free {
        which: prop::sample::Index,
    },
    Mark {
        which: prop::sample::Index,
        reason: Reason,
    },
    /// Another row in the place of one, which may be gone.
    Instead {
        which: prop::sample::Index,
        lane: usize,
        gone: bool,
    },
    Read {
        lane: usize,
        skip: usize,
        limit: usize,
    },
    Discard {
        lane: usize,
    },
    Restart,
    /// The files as they are, without the end of the process.
    Kill,
}

fn reason() -> impl Strategy<Value = Reason> {
    prop::sample::select(Reason::ALL.to_vec())
}

fn step() -> impl Strategy<Value = Step> {
    use prop::sample::Index;
    prop_oneof![
        6 => (0..3usize, 1..6usize, reason(), any::<bool>())
            .prop_map(|(lane, rows, reason, provisional)| Step::Park { lane, rows, reason, provisional }),
        6 => (0..3usize).prop_map(|lane| Step::ParkAndGoOn { lane }),
        4 => prop::collection::vec(any::<Index>(), 1..4).prop_map(|which| Step::Delete { which }),
        2 => any::<Index>().prop_map(|which| Step::Free { which }),
        2 => (any::<Index>(), reason()).prop_map(|(which, reason)| Step::Mark { which, reason }),
        2 => (any::<Index>(), 0..3usize, any::<bool>())
            .prop_map(|(which, lane, gone)| Step::Instead { which, lane, gone }),
        4 => (0..3usize, 0..4usize, 1..6usize).prop_map(|(lane, skip, limit)| Step::Read { lane, skip, limit }),
        1 => (0..3usize).prop_map(|lane| Step::Discard { lane }),
        1 => Just(Step::Restart),
        1 => Just(Step::Kill),
    ]
}

#[derive(Debug, Clone, PartialEq)]
struct Row {
    lane: LaneKey,
    reason: Reason,
    provisional: bool,
}

type Model = BTreeMap<Seq, Row>;

fn key(number: usize) -> LaneKey {
    [lane("acme", "a"), lane("acme", "b"), lane("other", "a")][number].clone()
}

fn of_lane<'m>(model: &'m Model, key: &'m LaneKey) -> impl Iterator<Item = (Seq, bool)> + 'm {
    let waits = |row: &&Row| row.reason.waits_for() == WaitsFor::Bus;
    model
        .iter()
        .filter(move |(_, row)| row.lane == *key && waits(row))
        .map(|(seq, row)| (*seq, row.provisional))
}

async fn check(running: &Running, model: &Model) {
    for number in 0..3 {
        let rows = running.read_lane(key(number), None, 1000, u64::MAX).await.unwrap();
        let rows: Vec<_> = whole(rows).iter().map(|row| (row.seq, row.provisional)).collect();
        assert_eq!(rows, of_lane(model, &key(number)).collect::<Vec<_>>());
    }
    let listed = running.store.list(&Filter::default(), None, 1000).await.unwrap().rows;
    let listed: Vec<_> = listed.iter().map(|row| (row.seq, row.kind)).collect();
    assert_eq!(listed, model.iter().map(|(seq, row)| (*seq, Kind::Event(row.reason))).collect::<Vec<_>>());
    assert_eq!(running.store.count(&Filter::default()).await.unwrap().rows, model.len() as u64);
}

async fn reopened(running: Running, model: &mut Model, kill: bool) -> Running {
    let (running, recovered) = if kill {
        running.settle().await;
        let copy = tempfile::tempdir().unwrap();
        // The file before its log: what upkeep moves meanwhile is in both.
        for name in ["store.db", "store.db-wal"] {
            let from = running.path().join(name);
            if from.exists() {
                std::fs::copy(from, copy.path().join(name)).unwrap();
            }
        }
        drop(running);
        Running::open(copy, limits(), None).await
    } else {
        running.restart(limits(), None).await
    };
    model.values_mut().for_each(|row| row.provisional = false);
    let mut lanes = BTreeMap::new();
    for (seq, row) in model.iter().filter(|(_, row)| row.reason.waits_for() == WaitsFor::Bus) {
        let entry = lanes.entry(row.lane.clone()).or_insert((*seq, 0));
        entry.1 += 1;
    }
    let found: BTreeMap<_, _> =
        recovered.lanes.into_iter().map(|lane| (lane.key, (lane.head, lane.rows))).collect();
    assert_eq!(found, lanes);
    assert!(model.last_key_value().is_none_or(|(last, _)| *last < recovered.next_seq));
    running
}

async fn play(steps: Vec<Step>) {
    let mut running = Running::start(limits()).await;
    let mut model = Model::new();
    let at = |model: &Model, index: &prop::sample::Index| {
        (!model.is_empty()).then(|| *model.keys().nth(index.index(model.len())).unwrap())
    };
    for step in steps {
        match step {
            Step::Park { lane, rows, reason, provisional } => {
                let mut batch: Vec<_> = (0..rows).map(|_| parked(&running.store, &key(lane))).collect();
                for row in &mut batch {
                    (row.reason, row.provisional) = (reason, provisional);
                    model.insert(row.seq, Row { lane: key(lane), reason, provisional });
                }
                park(&running.store, batch).await.unwrap();
            }
            Step::ParkAndGoOn { lane } => {
                let row = parked(&running.store, &key(lane));
                model.insert(row.seq, Row { lane: key(lane), reason: row.reason, provisional: false });
                running.store.park(vec![row], Box::new(|result| result.unwrap())).unwrap();
            }
            Step::Delete { which } => {
                let seqs: Vec<_> = which.iter().filter_map(|index| at(&model, index)).collect();
                seqs.iter().for_each(|seq| drop(model.remove(seq)));
                running.store.delete(seqs);
            }
            Step::Free { which } => {
                if let Some(seq) = at(&model, &which) {
                    model.entry(seq).and_modify(|row| row.provisional = false);
                    running.store.free(vec![seq]);
                }
            }
            Step::Mark { which, reason } => {
                if let Some(seq) = at(&model, &which) {
                    model.entry(seq).and_modify(|row| (row.reason, row.provisional) = (reason, false));
                    running.store.set_reason(vec![seq], reason, "changed".into());
                }
            }
            Step::Instead { which, lane, gone } => {
                let Some(old) = at(&model, &which) else { continue };
                if gone {
                    model.remove(&old);
                    running.store.delete(vec![old]);
                    running.settle().await;
                }
                let row = parked(&running.store, &key(lane));
                let (seq, reason) = (row.seq, row.reason);
                let (done, told) = tokio::sync::oneshot::channel();
                let tell = Box::new(move |kept| done.send(kept).unwrap());
                running.store.park_instead(old, row, tell).unwrap();
                let there = model.remove(&old).is_some();
                if there {
                    model.insert(seq, Row { lane: key(lane), reason, provisional: false });
                }
                assert_eq!(within(told).await.unwrap(), if there { Ok(()) } else { Err(ParkError::Gone) });
            }
            Step::Read { lane, skip, limit } => {
                let key = key(lane);
                let after =
                    skip.checked_sub(1).and_then(|n| of_lane(&model, &key).nth(n)).map(|(seq, _)| seq);
                let found = running.read_lane(key.clone(), after, limit, u64::MAX).await.unwrap();
                let expected = of_lane(&model, &key)
                    .filter(|(seq, _)| after.is_none_or(|after| *seq > after))
                    .take(limit);
                assert_eq!(
                    whole(found).iter().map(|row| (row.seq, row.provisional)).collect::<Vec<_>>(),
                    expected.collect::<Vec<_>>()
                );
            }
            Step::Discard { lane } => {
                let key = key(lane);
                let filter = Filter {
                    account: Some(key.account.clone()),
                    subject: Some(key.subject.to_string()),
                    ..Filter::default()
                };
                let before = model.len();
                model.retain(|_, row| row.lane != key);
                assert_eq!(
                    running.store.discard(&filter).await.unwrap().events,
                    (before - model.len()) as u64
                );
            }
            Step::Restart => running = reopened(running, &mut model, false).await,
            Step::Kill => running = reopened(running, &mut model, true).await,
        }
    }
    check(&running, &model).await;
    let dir = running.stop();
    check_file(&dir.path().join("store.db"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_store_holds_what_a_plain_map_would(steps in prop::collection::vec(step(), 1..40)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(play(steps));
    }
}
