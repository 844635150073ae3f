//! Apache Kafka.

use std::time::{Duration, Instant};

use bytes::Bytes;
use fleetbus::bus::{Finding, Outcome};
use fleetbus::config::{self, Create, Property, SecretSource};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use crate::brokers::{Guard, Kafka, USER, shared_kafka, unique, until};
use crate::desk::{Desk, PATIENCE, by_key, kind, message};
use crate::door::Door;

fn config(brokers: &str, properties: &[(&str, &str)]) -> config::Kafka {
    config::Kafka {
        brokers: brokers.to_owned(),
        topic: "fleet.{type}".to_owned(),
        create: Create::Never,
        registry: None,
        properties: properties
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Property::Plain((*value).to_owned())))
            .collect(),
    }
}

fn desk(kafka: config::Kafka) -> Desk {
    Desk::open(&config::Bus::Kafka(kafka), std::env::temp_dir().as_path())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_submitted_is_what_a_stock_consumer_reads() {
    let kafka = shared_kafka();
    let topic = unique("plain");
    kafka.create(&topic, 3, 1, &[]).await;
    let desk = desk(config(&kafka.brokers, &[]));
    let sent = message(&topic, "350000000000017", 42);
    assert_eq!(desk.attempt(1, &sent).await, Outcome::Delivered);
    desk.close().await;
    let read = kafka.read(&topic);
    assert_eq!(read.len(), 1);
    assert_eq!(read[0].key, "350000000000017");
    assert_eq!(read[0].payload, b"42");
    let expected = [("ce_id", "42"), ("content-type", "application/protobuf")];
    let headers: Vec<(&str, &str)> = read[0].headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    assert_eq!(headers, expected);
}

/// The partitioner of Java clients: another producer's events of a key are in the same partition.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_goes_where_a_java_producer_would_put_it() {
    let kafka = shared_kafka();
    let topic = unique("partition");
    kafka.create(&topic, 6, 1, &[]).await;
    let desk = desk(config(&kafka.brokers, &[]));
    for number in 0..20 {
        let sent = message(&topic, &format!("key-{number}"), number);
        assert_eq!(desk.attempt(number, &sent).await, Outcome::Delivered);
    }
    desk.close().await;
    for one in kafka.read(&topic) {
        let positive = murmur2(one.key.as_bytes()) & 0x7fff_ffff;
        assert_eq!(one.partition.cast_unsigned(), positive % 6, "{}", one.key);
    }
}

/// Kafka's own, from its definition.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mix = |k: u32| {
        let k = k.wrapping_mul(M);
        (k ^ (k >> 24)).wrapping_mul(M)
    };
    let mut h = 0x9747_b28c ^ u32::try_from(data.len()).expect("short");
    let mut chunks = data.chunks_exact(4);
    for chunk in &mut chunks {
        h = h.wrapping_mul(M) ^ mix(u32::from_le_bytes(chunk.try_into().expect("four")));
    }
    let rest = chunks.remainder();
    for (index, byte) in rest.iter().enumerate() {
        h ^= u32::from(*byte) << (8 * index);
    }
    if !rest.is_empty() {
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

/// 5,000 messages on 50 keys, while the broker hangs, and while it is killed and comes back.
#[tokio::test(flavor = "multi_thread")]
async fn order_holds_and_nothing_is_lost_or_doubled_through_a_hang_and_a_kill() {
    let kafka = Kafka::start(1, Guard::Open, "");
    let topic = unique("outage");
    kafka.create(&topic, 6, 1, &[]).await;
    let desk = desk(config(&kafka.brokers, &[]));
    let send = async |range: std::ops::Range<u64>| {
        for number in range {
            desk.submit_at_last(number, &message(&topic, &format!("key-{}", number % 50), number)).await;
            if number % 50 == 0 {
                sleep(Duration::from_millis(2)).await;
            }
        }
    };
    send(0..1_000).await;
    kafka.pause(0);
    send(1_000..2_500).await;
    sleep(Duration::from_secs(3)).await;
    kafka.resume(0);
    send(2_500..3_000).await;
    kafka.kill9(0);
    send(3_000..4_500).await;
    sleep(Duration::from_secs(2)).await;
    kafka.restart(0);
    send(4_500..5_000).await;
    desk.ended(5_000).await;
    assert_eq!(desk.tally(), [("delivered", 5_000)].into());
    desk.close().await;
    let keys = by_key(&kafka.read(&topic));
    assert_eq!(keys.len(), 50);
    for (key, numbers) in keys {
        let first: u64 = key.trim_start_matches("key-").parse().expect("a number");
        let expected: Vec<u64> = (0..100).map(|n| first + n * 50).collect();
        assert_eq!(numbers, expected, "{key}");
    }
}

/// The controller fences a broker that hangs for longer than its session; when that goes on, it answers for a moment that there are no
/// brokers, and librdkafka lets go of all that it knew.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_was_fenced_while_it_hung_is_found_again() {
    let kafka = Kafka::start(1, Guard::Open, "");
    let topic = unique("fenced");
    kafka.create(&topic, 6, 1, &[]).await;
    // So that it asks in that moment.
    let desk = desk(config(&kafka.brokers, &[("topic.metadata.refresh.interval.ms", "300")]));
    desk.delivers(0, &message(&topic, "key", 0)).await;
    // Longer than a session, while messages come, and for longer than that moment.
    let begun = Instant::now();
    let mut hangs = Some(Duration::from_millis(10_500));
    kafka.pause(0);
    let mut number = 1_000_000;
    while begun.elapsed() < Duration::from_secs(16) {
        if hangs.take_if(|hangs| begun.elapsed() >= *hangs).is_some() {
            kafka.resume(0);
        }
        number += 1;
        desk.submit(number, &message(&topic, &format!("key-{}", number % 48), number)).ok();
        sleep(Duration::from_millis(20)).await;
    }
    desk.delivers(1, &message(&topic, "key", 1)).await;
    desk.close().await;
}

/// A partition whose leader hangs holds back its own messages only; they come in order once it is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_hangs_holds_only_its_own() {
    // The fence comes late, so that the leader hangs and is not replaced.
    let kafka = Kafka::start(2, Guard::Open, "broker.session.timeout.ms=120000\n");
    let topic = unique("hanging");
    kafka.create(&topic, 2, 1, &[]).await;
    let leaders = kafka.leaders(&topic, 2);
    let hanging = leaders.iter().position(|leader| *leader == 1).expect("each leads one partition");
    let key_in = |partition: usize| {
        let mut keys = (0..).map(|n| format!("key-{n}"));
        let lands = |key: &String| (murmur2(key.as_bytes()) & 0x7fff_ffff) as usize % 2 == partition;
        keys.find(lands).expect("one of them")
    };
    let (slow, quick) = (key_in(hanging), key_in(1 - hanging));
    let desk = desk(config(&kafka.brokers, &[]));
    let send = |range: std::ops::Range<u64>| {
        for number in range {
            let key = if number % 2 == 0 { &slow } else { &quick };
            desk.submit(number, &message(&topic, key, number)).expect("taken");
        }
    };
    send(0..200);
    desk.ended(200).await;
    kafka.pause(1);
    send(200..1_200);
    // All of the healthy partition's.
    timeout(PATIENCE, async {
        for number in (201..1_200).step_by(2) {
            assert_eq!(desk.outcome(number).await, Outcome::Delivered);
        }
    })
    .await
    .expect("the other partition goes on");
    assert!(desk.outcomes.all().len() < 750, "the hanging one's are open");
    kafka.resume(1);
    send(1_200..1_400);
    desk.ended(1_400).await;
    assert_eq!(desk.tally(), [("delivered", 1_400)].into());
    desk.close().await;
    let keys = by_key(&kafka.read(&topic));
    assert_eq!(keys[&slow], (0..1_400).step_by(2).collect::<Vec<u64>>());
    assert_eq!(keys[&quick], (1..1_400).step_by(2).collect::<Vec<u64>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_a_busy_client_and_what_was_taken_is_delivered_in_order() {
    let kafka = shared_kafka();
    let topic = unique("full");
    kafka.create(&topic, 1, 1, &[]).await;
    let away = Kafka::start(1, Guard::Open, "");
    away.create(&topic, 1, 1, &[]).await;
    let desk = desk(config(&away.brokers, &[]));
    desk.delivers(1_000_000, &message(&topic, "key", 0)).await;
    away.pause(0);
    let mut taken = Vec::new();
    let mut refusals = 0;
    let payload = Bytes::from(vec![b'7'; 200_000]);
    for number in 1..1_000 {
        let mut sent = message(&topic, "key", number);
        sent.payload = payload.clone();
        match desk.submit(number, &sent) {
            Ok(()) => taken.push(number),
            Err(failure) => {
                assert_eq!(kind(&Outcome::Failed(failure)), "busy");
                refusals += 1;
            }
        }
        if number % 10 == 0 {
            sleep(Duration::from_millis(5)).await;
        }
    }
    assert!(refusals > 0, "the queue has a bound");
    away.resume(0);
    let mut delivered = Vec::new();
    for number in taken {
        if desk.outcome(number).await == Outcome::Delivered {
            delivered.push(number.to_string());
        }
    }
    desk.close().await;
    let read = away.read(&topic);
    let ids: Vec<&str> = read.iter().skip(1).map(|one| one.headers[0].1.as_str()).collect();
    assert_eq!(ids, delivered);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_unfit_and_holds_nothing_back() {
    let kafka = shared_kafka();
    let topic = unique("large");
    kafka.create(&topic, 1, 1, &[("max.message.bytes", "20000")]).await;
    let desk = desk(config(&kafka.brokers, &[]));
    // Refused by the client.
    let mut sent = message(&topic, "key", 1);
    sent.payload = vec![b'7'; 2_000_000].into();
    assert_eq!(kind(&desk.attempt(1, &sent).await), "unfit");
    // Refused by the broker, alone in its batch.
    sent.payload = vec![b'7'; 30_000].into();
    let mut outcome = desk.attempt(2, &sent).await;
    if kind(&outcome) == "busy" {
        outcome = desk.attempt(20, &sent).await;
    }
    assert_eq!(kind(&outcome), "unfit");
    assert_eq!(desk.attempt(3, &message(&topic, "key", 3)).await, Outcome::Delivered);
    desk.close().await;
    assert_eq!(by_key(&kafka.read(&topic))["key"], [3]);
}

/// The topic's bounds against the clock say nothing of the message: the same one is taken once they allow it.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_topic_finds_too_old_or_too_early_is_refused_and_recovers() {
    let kafka = shared_kafka();
    let topic = unique("clock");
    kafka.create(&topic, 1, 1, &[("message.timestamp.before.max.ms", "0")]).await;
    let desk = desk(config(&kafka.brokers, &[]));
    let refused = async {
        // One that comes within its millisecond is taken.
        let mut number = 1;
        while kind(&desk.attempt(number, &message(&topic, "key", 1)).await) != "refused" {
            number += 1;
        }
    };
    timeout(PATIENCE, refused).await.expect("refused, and not unfit");
    kafka.configure(&topic, "message.timestamp.before.max.ms", "9223372036854775807").await;
    desk.delivers(1_000, &message(&topic, "key", 2)).await;
    desk.close().await;
}

/// Where one of a batch is too large for the topic, the broker refuses the batch: the others are not lost with it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_takes_no_neighbour_with_it() {
    let kafka = shared_kafka();
    let topic = unique("neighbours");
    kafka.create(&topic, 1, 1, &[("max.message.bytes", "20000")]).await;
    let desk = desk(config(&kafka.brokers, &[]));
    desk.delivers(1_000, &message(&topic, "key", 1_000)).await;
    let mut large = message(&topic, "key", 500);
    large.payload = vec![b'7'; 30_000].into();
    let of = |number: u64| if number == 10 { large.clone() } else { message(&topic, "key", number) };
    for number in 0..20 {
        desk.submit(number, &of(number)).expect("taken");
    }
    // As a lane does: what was not its own fault is tried again.
    for number in 0..20 {
        let mut outcome = desk.outcome(number).await;
        for again in (1..5).map(|round| round * 100 + number) {
            if !["busy", "unavailable"].contains(&kind(&outcome)) {
                break;
            }
            outcome = desk.attempt(again, &of(number)).await;
        }
        let expected = if number == 10 { "unfit" } else { "delivered" };
        assert_eq!(kind(&outcome), expected, "{number}");
    }
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_topic_is_refused_and_recovers_once_it_is_made() {
    let kafka = shared_kafka();
    let (topic, other) = (unique("late"), unique("there"));
    kafka.create(&other, 1, 1, &[]).await;
    let desk = desk(config(&kafka.brokers, &[]));
    let first = desk.submit(1, &message(&topic, "key", 1));
    first.expect("taken: it is not known yet to be missing");
    assert_eq!(desk.attempt(2, &message(&other, "key", 2)).await, Outcome::Delivered, "others go on");
    assert_eq!(kind(&desk.outcome(1).await), "refused");
    kafka.create(&topic, 1, 1, &[]).await;
    desk.delivers(3, &message(&topic, "key", 3)).await;
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_not_there_leaves_attempts_open_and_closing_resolves_them() {
    let desk = desk(config("127.0.0.1:1", &[]));
    desk.submit(1, &message("any", "key", 1)).expect("taken");
    until("the client has noticed", PATIENCE, || !desk.bus.is_available());
    let findings = desk.bus.check(&["any".into()]).await;
    assert!(matches!(findings[..], [Finding::Unreachable(_)]), "{findings:?}");
    let outcomes = desk.close().await;
    let all = outcomes.all();
    assert_eq!(all[&1].len(), 1);
    assert_ne!(all[&1][0], Outcome::Delivered);
}

/// Its kernel does: it takes connections, and nobody reads.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_takes_connections_and_never_answers_is_noticed() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("an address").to_string();
    let desk = desk(config(&address, &[]));
    until("the client has noticed", PATIENCE, || !desk.bus.is_available());
    desk.close().await;
}

/// The bootstrap address leads to other brokers, and those before are gone.
#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_are_back_under_other_addresses_are_found() {
    let topic = unique("moved");
    let before = Kafka::start(1, Guard::Open, "");
    before.create(&topic, 1, 1, &[]).await;
    let after = shared_kafka();
    after.create(&topic, 1, 1, &[]).await;
    let door = Door::open(&before.brokers).await;
    let desk = desk(config(&door.address, &[]));
    assert_eq!(desk.attempt(1, &message(&topic, "key", 1)).await, Outcome::Delivered);
    before.kill9(0);
    desk.submit(2, &message(&topic, "key", 2)).expect("taken");
    until("the client has noticed", PATIENCE, || !desk.bus.is_available());
    door.lead(&after.brokers);
    // It is in the hands of a client that will never reach anybody.
    desk.ended(2).await;
    assert_ne!(desk.outcome(2).await, Outcome::Delivered);
    desk.delivers(100, &message(&topic, "key", 3)).await;
    desk.close().await;
    assert_eq!(by_key(&after.read(&topic))["key"], [3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_finds_makes_and_warns() {
    let kafka = shared_kafka();
    let topic = unique("checked");
    let topics = [topic.as_str().into()];
    let never = desk(config(&kafka.brokers, &[]));
    let findings = never.bus.check(&topics).await;
    let [Finding::Missing { what, command }] = &findings[..] else { panic!("{findings:?}") };
    assert!(what.contains(&topic) && command.contains("--create --topic"), "{findings:?}");
    never.close().await;
    let missing = config::Kafka { create: Create::Missing, ..config(&kafka.brokers, &[]) };
    let makes = desk(missing);
    let findings = makes.bus.check(&topics).await;
    assert!(
        findings.iter().any(|f| matches!(f, Finding::Made(what) if what.contains(&topic))),
        "{findings:?}"
    );
    makes.delivers(1, &message(&topic, "key", 1)).await;
    let findings = makes.bus.check(&topics).await;
    assert!(
        findings.iter().any(|f| matches!(f, Finding::Weak(why) if why.contains("one replica"))),
        "{findings:?}"
    );
    kafka.configure(&topic, "max.message.bytes", "20000").await;
    let is_small = |f: &Finding| matches!(f, Finding::Weak(why) if why.contains("batch.size to 20000"));
    let findings = makes.bus.check(&topics).await;
    assert!(findings.iter().any(is_small), "{findings:?}");
    makes.close().await;
    let fits = desk(config(&kafka.brokers, &[("batch.size", "20000")]));
    let findings = fits.bus.check(&topics).await;
    assert!(!findings.iter().any(is_small), "{findings:?}");
    kafka.configure(&topic, "cleanup.policy", "compact").await;
    let findings = fits.bus.check(&topics).await;
    let is_compacted =
        |f: &Finding| matches!(f, Finding::Weak(why) if why.contains("cleanup.policy compact"));
    assert!(findings.iter().any(is_compacted), "{findings:?}");
    fits.close().await;
}

/// TLS, a user, and rights given one by one.
#[tokio::test(flavor = "multi_thread")]
async fn a_secured_kafka_takes_what_it_allows() {
    let kafka = Kafka::start(1, Guard::Secured, "");
    let (allowed, denied) = (unique("ok"), unique("denied"));
    kafka.create(&allowed, 1, 1, &[]).await;
    kafka.create(&denied, 1, 1, &[]).await;
    let dir = TempDir::new().expect("a folder");
    let password = |text: &str| {
        let path = dir.path().join(unique("password"));
        std::fs::write(&path, text).expect("a writable folder");
        Property::Secret(SecretSource::File(path))
    };
    let ca = kafka.certificates.as_ref().expect("secured").ca.display().to_string();
    let secured = |secret: Property| {
        let mut config = config(
            &kafka.brokers,
            &[
                ("security.protocol", "SASL_SSL"),
                ("sasl.mechanism", "PLAIN"),
                ("sasl.username", USER.0),
                ("ssl.ca.location", &ca),
            ],
        );
        config.properties.push(("sasl.password".to_owned(), secret));
        desk(config)
    };
    // No right to anything: not even to be a producer, which is fatal to the client; it is rebuilt until it may.
    let desk = secured(password(USER.1));
    let refused = kind(&desk.attempt(1, &message(&allowed, "key", 1)).await);
    assert!(refused == "refused" || refused == "broken", "{refused}");
    kafka.allow_writing(&allowed);
    desk.delivers(100, &message(&allowed, "key", 2)).await;
    // A right to one topic and not to the other; and then to that, too.
    assert_eq!(kind(&desk.attempt(2, &message(&denied, "key", 2)).await), "refused");
    assert_eq!(desk.attempt(3, &message(&allowed, "key", 3)).await, Outcome::Delivered);
    kafka.allow_writing(&denied);
    desk.delivers(200, &message(&denied, "key", 4)).await;
    desk.close().await;
    assert_eq!(by_key(&kafka.read(&denied))["key"], [4]);
    // A password that is wrong is no broker, until its file holds the right one.
    let late = dir.path().join("late");
    std::fs::write(&late, "not yet").expect("a writable folder");
    let mended = secured(Property::Secret(SecretSource::File(late.clone())));
    mended.submit(1, &message(&allowed, "late", 1)).expect("taken");
    until("the client has noticed", PATIENCE, || !mended.bus.is_available());
    std::fs::write(&late, USER.1).expect("a writable folder");
    mended.delivers(300, &message(&allowed, "late", 2)).await;
    mended.close().await;
    // A wrong password is no broker.
    let wrong = secured(password("wrong"));
    wrong.submit(1, &message(&allowed, "key", 9)).expect("taken");
    until("the client has noticed", PATIENCE, || !wrong.bus.is_available());
    let findings = wrong.bus.check(&[allowed.as_str().into()]).await;
    let [Finding::Barred { what, fix }] = &findings[..] else { panic!("{findings:?}") };
    assert!(what.contains("refuses the login") && fix.contains("sasl."), "{findings:?}");
    let outcomes = wrong.close().await;
    assert!(!matches!(outcomes.all()[&1][..], [Outcome::Delivered]), "{:?}", outcomes.all());
}

#[test]
fn a_client_is_not_made_of_properties_that_do_not_exist() {
    let config = config::Bus::Kafka(config("127.0.0.1:1", &[("no.such.property", "1")]));
    let opened = fleetbus::bus::Bus::open(&config, std::env::temp_dir().as_path());
    assert!(matches!(opened, Err(fleetbus::bus::OpenError::Kafka(_))));
}
