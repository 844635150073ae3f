//! What is known, and when it is news again: what an operator throws away is forgotten, so that whoever has it still brings it again.
//! Facts, old ones too, and states, which are news by what was told last.

use serde_json::{Value, json};

use crate::bridge::{Bridge, TOKEN};
use crate::fleet::{client, flat, start};
use crate::support::{away, discard_all};

/// How many of its events were parked, and how many were known.
async fn push(bridge: &Bridge, body: &Value) -> (Value, Value) {
    let url = format!("{}/webhooks/acme", bridge.webhook);
    let answer = client().post(url).bearer_auth(TOKEN).json(body).send().await.unwrap();
    assert_eq!(answer.status(), 201);
    let counts: Value = answer.json().await.unwrap();
    (counts["parked"].clone(), counts["duplicates"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_discarded_is_news_again_facts_and_states_and_after_a_restart_too() {
    let dir = tempfile::tempdir().unwrap();
    let config = away(dir.path(), "");
    let bridge = Bridge::start(&config);
    let fence: Value =
        serde_json::from_str(include_str!("../fixtures/linxup/push-v3/geofence_change.json")).unwrap();
    let both = json!([flat(1, start()), fence]);
    let (news, known) = ((json!(2), json!(0)), (json!(0), json!(2)));
    assert_eq!(push(&bridge, &both).await, news);
    assert_eq!(push(&bridge, &both).await, known);
    assert_eq!(discard_all(&bridge).await, json!(2));
    assert_eq!(push(&bridge, &both).await, news);
    assert_eq!(discard_all(&bridge).await, json!(2));
    assert!(bridge.stop().success());
    let bridge = Bridge::start(&config);
    assert_eq!(push(&bridge, &both).await, news);
    assert_eq!(push(&bridge, &both).await, known);
}

/// A tracker that was under ground for weeks: its sender repeats what was parked, as anybody's does.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_older_than_dedup_remembers_by_its_time_is_known_when_its_sender_repeats_it() {
    let dir = tempfile::tempdir().unwrap();
    let config = away(dir.path(), "");
    let bridge = Bridge::start(&config);
    let old = json!([flat(1, start() - 40 * 24 * 3_600_000), flat(2, start() + 40 * 24 * 3_600_000)]);
    let (news, known) = ((json!(2), json!(0)), (json!(0), json!(2)));
    assert_eq!(push(&bridge, &old).await, news);
    assert_eq!(push(&bridge, &old).await, known);
    assert!(bridge.stop().success());
    let bridge = Bridge::start(&config);
    assert_eq!(push(&bridge, &old).await, known);
    assert_eq!(discard_all(&bridge).await, json!(2));
    assert_eq!(push(&bridge, &old).await, news);
}
