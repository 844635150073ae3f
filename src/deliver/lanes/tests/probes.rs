//! Which lanes are probed, and how often all of them are looked at for it.

use super::*;

/// So many lanes of one account and topic, each of one row.
fn behind(ground: &Ground, account: &str, topic: &str, lanes: u64) -> Vec<LaneKey> {
    let one = || {
        let head = ground.lanes.numbers.fetch_add(1, Ordering::Relaxed);
        let (account, subject) = (AccountId::new(account), head.to_string().into());
        let key = LaneKey { account, topic: topic.into(), subject };
        let lane = Lane { rows: 1, last_came: head, head: Some(Seq(head)), ..Lane::default() };
        ground.lanes.shard(&key).lock().insert(key.clone(), lane);
        key
    };
    (0..lanes).map(|_| one()).collect()
}

#[tokio::test]
async fn the_breaker_is_probed_by_each_account_and_topic_in_turn() {
    let ground = Ground::new(1 << 30).await;
    behind(&ground, "acme", "trip", 500);
    behind(&ground, "beta", "trip", 1);
    behind(&ground, "acme", "alert", 1);
    behind(&ground, "acme", "stop", 9);
    behind(&ground, "acme", "trip", 500);
    ground.lanes.refuse(&"stop".into(), "no rights", Cure::Owner);
    let probes = |most, asked: Option<&Kin>| -> Vec<Kin> {
        let found = ground.lanes.breaker_probes(most, asked);
        assert_eq!(
            found.iter().map(|lane| &lane.key).collect::<HashSet<_>>().len(),
            found.len(),
            "each once"
        );
        found.iter().map(|lane| ground.lanes.kin_of(&lane.key)).collect()
    };
    let kin = |account: &str, topic: &str| (AccountId::new(account), Text::from(topic));
    let [alert, trip, other] = [kin("acme", "alert"), kin("acme", "trip"), kin("beta", "trip")];
    let turns = [alert.clone(), trip.clone(), other.clone()];
    assert_eq!(probes(64, None)[..3], turns);
    assert_eq!(probes(64, None).len(), 64);
    assert_eq!(probes(2_000, None).len(), 1_002, "all but those of the topic that is refused");
    assert_eq!(probes(3, Some(&alert)), [trip.clone(), other.clone(), alert.clone()]);
    assert_eq!(probes(3, Some(&kin("acme", "stop"))), [trip.clone(), other.clone(), alert]);
    assert_eq!(probes(3, Some(&other)), turns);
    assert_eq!(probes(1, Some(&trip)), [other]);
}

#[tokio::test]
async fn what_waits_for_a_lane_that_is_busy_looks_at_all_lanes_once_in_a_while() {
    let ground = Ground::new(1 << 30).await;
    let [key] = &behind(&ground, "acme", "trip", 1)[..] else { panic!("one") };
    ground.lanes.refuse(&key.topic, "full", Cure::Time);
    assert!(ground.lanes.begin_drain(key));
    ground.lanes.probe_topics_now();
    assert_eq!(ground.lanes.topic_probes(), []);
    ground.lanes.end_drain(key);
    assert_eq!(ground.lanes.topic_probes(), [], "all lanes were looked at just now");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(ground.lanes.topic_probes().len(), 1);
}

/// The first event of one may be refused for what is in it.
#[tokio::test]
async fn a_topic_that_is_refused_is_probed_by_one_lane_and_another() {
    let ground = Ground::new(1 << 30).await;
    let lanes = behind(&ground, "acme", "trip", 500);
    ground.lanes.refuse(&lanes[0].topic, "an invalid record", Cure::Owner);
    let mut probed = HashSet::new();
    for _ in 0..50 {
        ground.lanes.probe_topics_now();
        let [probe] = &ground.lanes.topic_probes()[..] else { panic!("one") };
        probed.insert(probe.key.clone());
    }
    assert!(probed.len() > 1);
}

/// Then nothing that waits says anything of the other streams.
#[tokio::test]
async fn an_open_breaker_is_not_held_by_topics_that_nobody_answers_for() {
    let ground = Ground::new(1 << 30).await;
    let lanes = behind(&ground, "acme", "trip", 3);
    ground.lanes.drain_failed(&lanes[0], &Failure::Unanswered("no leader".into()));
    ground.open_breaker_since(1);
    assert_eq!(ground.lanes.breaker_probes(64, None).len(), 3, "the leader may change");
    ground.open_breaker_since(60);
    assert_eq!(ground.lanes.breaker_probes(64, None), []);
    behind(&ground, "acme", "stop", 1);
    assert_eq!(ground.lanes.breaker_probes(64, None).len(), 1, "of another stream, perhaps");
}

#[tokio::test]
async fn a_store_that_gives_no_rows_does_not_hold_the_breaker_open() {
    let ground = Ground::new(1 << 30).await;
    for (ago, is_open) in [(1, true), (60, false)] {
        ground.open_breaker_since(ago);
        ground.lanes.close_breaker_for_want_of_rows();
        assert_eq!(ground.lanes.is_breaker_open(), is_open, "after {ago} s");
    }
}
