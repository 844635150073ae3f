//! No account can hurt another: one sends ten times what it may, its share of the store is full and its topics are refused,
//! while another goes on as if it were alone. What each is answered; `make bulkheads` compares times.

#[expect(dead_code, reason = "shared with the tests of the promises")]
#[path = "support/bridge.rs"]
mod bridge;
#[expect(dead_code, reason = "shared with the tests of the buses")]
#[path = "support/brokers.rs"]
mod brokers;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use bridge::{Bridge, TOKEN, configure};
use brokers::{shared_kafka, unique};

/// Events a second that the loud account may send.
const RATE: u32 = 40;
/// A busy machine may take longer than the deadline that is the default, and what is parked then is parked by nobody's fault.
const REST: &str = "delivery: { publish_deadline: 30s, drain_delay: 0s }";
/// One sender's pace.
const EACH: Duration = Duration::from_millis(50);
/// How long both send.
const TURN: Duration = Duration::from_secs(3);
/// What is waited for comes by then on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Senders of the quiet account, and of the loud one: ten times its rate.
const SENDERS: (usize, usize) = (8, 20);

fn position(vehicle: usize, at: i64) -> Value {
    json!({ "pushType": "POSITION", "deviceNumber": format!("{:015}", 350_000_000_000_000_u64 + vehicle as u64), "date": at,
            "latitude": 38.62701, "longitude": -90.19941, "speed": 34 })
}

/// What an account's senders met.
#[derive(Default)]
struct Met {
    statuses: BTreeMap<u16, usize>,
    parked: u64,
}

impl Met {
    fn add(&mut self, other: Self) {
        self.parked += other.parked;
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
    }
}

/// Senders of one account, each at its pace, for a time.
async fn load(webhook: &str, account: &'static str, senders: usize, time: Duration) -> Met {
    let mut tasks = tokio::task::JoinSet::new();
    for sender in 0..senders {
        let url = format!("{webhook}/webhooks/{account}");
        tasks.spawn(async move {
            let client = reqwest::Client::new();
            let (mut met, begun) = (Met::default(), Instant::now());
            let mut pace = tokio::time::interval(EACH);
            pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            while begun.elapsed() < time {
                pace.tick().await;
                let at = jiff::Timestamp::now().as_millisecond();
                let answer = client.post(&url).bearer_auth(TOKEN).json(&position(sender, at)).send().await;
                let answer = answer.expect("an answer");
                *met.statuses.entry(answer.status().as_u16()).or_default() += 1;
                let told: Value = answer.json().await.expect("counts");
                met.parked += told["parked"].as_u64().unwrap_or(0);
            }
            met
        });
    }
    let mut all = Met::default();
    while let Some(met) = tasks.join_next().await {
        all.add(met.expect("a sender"));
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_over_its_limits_with_refused_topics_hurts_no_other() {
    let (kafka, dir, prefix) = (shared_kafka(), tempfile::tempdir().unwrap(), unique("bulkheads"));
    kafka.create(&format!("{prefix}.quiet.position"), 4, 1, &[]).await;
    let bus = format!(
        "bus: {{ kafka: {{ brokers: \"{}\", topic: \"{prefix}.{{account}}.{{type}}\" }} }}",
        kafka.brokers
    );
    let accounts = format!(
        "accounts:\n  - {{ id: quiet, provider: linxup, webhook: {{ token: {{ env: TEST_TOKEN }} }} }}\n  \
         - {{ id: loud, provider: linxup, webhook: {{ token: {{ env: TEST_TOKEN }} }}, \
         limits: {{ rate: {RATE}/s, parked: 64KiB, in_flight: 1MiB }} }}"
    );
    let bridge = Bridge::start(&configure(dir.path(), &bus, &accounts, REST));
    let webhook = bridge.webhook.clone();

    // Both are warm, and the loud one's share of the store is full.
    load(&webhook, "quiet", SENDERS.0, Duration::from_secs(1)).await;
    let (mut filling, begun) = (Met::default(), Instant::now());
    while !filling.statuses.keys().any(|status| *status != 201) {
        assert!(begun.elapsed() < PATIENCE, "its share is never full: {:?}", filling.statuses);
        filling.add(load(&webhook, "loud", SENDERS.1, Duration::from_secs(1)).await);
    }

    let (quiet, loud) =
        tokio::join!(load(&webhook, "quiet", SENDERS.0, TURN), load(&webhook, "loud", SENDERS.1, TURN));
    assert_eq!(quiet.statuses.keys().collect::<Vec<_>>(), [&201], "{:?}", quiet.statuses);
    assert_eq!(quiet.parked, 0, "the quiet one's events waited for the loud one's topics");
    let refused: usize =
        loud.statuses.iter().filter(|(status, _)| **status != 201).map(|(_, count)| count).sum();
    assert!(refused > 0, "the loud one was within its limits: {:?}", loud.statuses);
    let early = loud.statuses.get(&429).copied().unwrap_or(0);
    assert!(early > 0, "it was not refused before its bodies were decoded: {:?}", loud.statuses);
}
