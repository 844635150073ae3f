//! Types that have streams of their own: one that nobody answers for holds up no vehicle of another.

use std::time::{Duration, Instant};

use async_nats::jetstream::stream::{Config, StorageType};
use serde_json::Value;

use crate::bridge::{Bridge, TOKEN, acme, configure};
use crate::brokers::{Guard, Nats, unique};
use crate::fleet::{client, flat, imei, start};
use crate::metrics::metric;

/// More vehicles than the drain looks for at once, on either side of those whose stream is well.
const MANY: usize = 1_500;
const FEW: usize = 40;

async fn has(nats: &Nats, stream: &str, events: usize, bridge: &Bridge) {
    let begun = Instant::now();
    loop {
        let there = nats.read(stream).await.len();
        if there == events {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{there} of {events}\n{}", bridge.log_text());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_gone_holds_up_only_its_own_vehicles() {
    let (nats, dir, prefix) = (Nats::start(Guard::Open, ""), tempfile::tempdir().unwrap(), unique("streams"));
    let of = |name: &str, subject: &str, storage| Config {
        name: name.to_owned(),
        subjects: vec![format!("{prefix}.{subject}.>")],
        storage,
        ..Config::default()
    };
    let positions = format!("{prefix}-positions");
    // What a server has in memory alone is gone with it, the stream itself, too.
    let in_memory = || of(&positions, "position", StorageType::Memory);
    nats.create(of(&prefix, "stop", StorageType::File)).await;
    nats.create(in_memory()).await;
    let bus = format!(
        "bus: {{ nats: {{ url: \"{}\", subject: \"{prefix}.{{type}}.{{account}}.{{subject}}\", stream: \"{prefix}\" }} }}",
        nats.url
    );
    let mut bridge = Bridge::start(&configure(dir.path(), &bus, acme(), "delivery: { drain_delay: 0s }"));
    let stop: Value =
        serde_json::from_str(include_str!("../fixtures/linxup/push-legacy-flat/stop_idling.json")).unwrap();
    let stop = |vehicle: usize| {
        let mut stop = stop.clone();
        stop["deviceNumber"] = imei(vehicle).into();
        stop
    };
    let (client, url, from) = (client(), format!("{}/webhooks/acme", bridge.webhook), start());
    let send = async |rows: Vec<Value>| {
        for rows in rows.chunks(500) {
            let sent = client.post(&url).bearer_auth(TOKEN).json(rows).send().await.unwrap();
            assert_eq!(sent.status(), 201);
        }
    };
    let fixes = |vehicles: std::ops::Range<usize>| vehicles.map(|vehicle| flat(vehicle, from)).collect();
    send(vec![flat(0, from), stop(0)]).await;
    has(&nats, &positions, 1, &bridge).await;
    nats.kill9();
    send(fixes(1..MANY)).await;
    send((MANY..MANY + FEW).map(stop).collect()).await;
    send(fixes(MANY + FEW..MANY * 2 + FEW)).await;
    nats.restart();
    nats.wait();
    has(&nats, &prefix, 1 + FEW, &bridge).await;
    bridge.wait_for_log("topic.unanswered", Duration::from_secs(60));
    assert!(metric(&bridge.admin, "fleetbus_lanes_behind").await >= MANY, "the others wait");
    nats.create(in_memory()).await;
    has(&nats, &positions, MANY * 2 - 1, &bridge).await;
    bridge.wait_for_log("topic.answered", Duration::from_secs(60));
    assert!(bridge.stop().success());
}
