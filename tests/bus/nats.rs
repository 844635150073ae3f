//! NATS JetStream.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_nats::jetstream::stream::{Config as Stream, DiscardPolicy};
use bytes::Bytes;
use fleetbus::bus::{Finding, Message, Outcome};
use fleetbus::config::{self, Create, Handshake, SecretSource};
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use crate::brokers::{Certificates, Guard, Nats, USER, free_port, shared_nats, unique};
use crate::desk::{Desk, PATIENCE, by_key, kind, message};
use crate::trust::Trust;

pub fn config(nats: &Nats, stream: &str) -> config::Nats {
    config::Nats {
        url: nats.url.clone(),
        subject: "fleet.{type}.{account}.{subject}".to_owned(),
        stream: stream.to_owned(),
        create: Create::Never,
        credentials: None,
        user: None,
        token: None,
        ca: None,
        certificate: None,
        handshake: Handshake::Greeted,
    }
}

/// Opens the bus and waits until it is connected.
pub async fn desk(config: config::Nats) -> Desk {
    let desk = Desk::open(&config::Bus::Nats(config), std::env::temp_dir().as_path());
    connected(&desk).await;
    desk
}

async fn connected(desk: &Desk) {
    let connected = async {
        while !desk.bus.is_available() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, connected).await.expect("connected in time");
}

/// A stream of its own on `root.>`.
pub async fn stream(nats: &Nats, root: &str, more: Stream) -> String {
    let name = root.replace('.', "-").to_uppercase();
    nats.create(Stream { name: name.clone(), subjects: vec![format!("{root}.>")], ..more }).await;
    name
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_is_what_a_stock_consumer_reads_and_a_copy_is_stored_once() {
    let nats = shared_nats();
    let root = unique("plain");
    let name = stream(nats, &root, Stream::default()).await;
    let desk = desk(config(nats, &name)).await;
    let sent = message(&format!("{root}.position.acme.1"), "1", 42);
    assert_eq!(desk.attempt(1, &sent).await, Outcome::Delivered);
    assert_eq!(desk.attempt(2, &sent).await, Outcome::Delivered, "a duplicate is delivered");
    desk.close().await;
    let read = nats.read(&name).await;
    assert_eq!(read.len(), 1);
    assert_eq!(read[0].key, format!("{root}.position.acme.1"));
    assert_eq!(read[0].payload, b"42");
    let header = |name: &str| read[0].headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    assert_eq!(header("Nats-Msg-Id"), Some(sent.id.to_string()));
    assert_eq!(header("ce_id"), Some("42".to_owned()));
}

/// One lane: the next is published once the one before is delivered, and what failed or is unresolved is published again;
/// until the trouble is over, and some more. How many were delivered.
async fn lane(desk: &Desk, topic: &str, first: u64, over: &AtomicBool) -> u64 {
    let (mut attempts, mut index, mut left) = (0, 0, 10);
    while left > 0 {
        left -= u64::from(over.load(Ordering::Relaxed));
        let sent = message(topic, "key", index);
        loop {
            let number = first + attempts;
            attempts += 1;
            match desk.attempt(number, &sent).await {
                Outcome::Delivered => break,
                Outcome::Failed(_) | Outcome::Unresolved => sleep(Duration::from_millis(50)).await,
            }
        }
        index += 1;
    }
    index
}

#[tokio::test(flavor = "multi_thread")]
async fn order_holds_and_nothing_is_lost_or_doubled_through_a_hang_and_kills() {
    let nats = Nats::start(Guard::Open, "");
    let root = unique("outage");
    let name = stream(&nats, &root, Stream::default()).await;
    let desk = desk(config(&nats, &name)).await;
    let topics: Vec<String> = (0..50).map(|n| format!("{root}.position.acme.{n}")).collect();
    let over = AtomicBool::new(false);
    let lanes =
        topics.iter().enumerate().map(|(index, topic)| lane(&desk, topic, index as u64 * 1_000_000, &over));
    let trouble = async {
        for round in 0..3 {
            sleep(Duration::from_millis(60)).await;
            nats.pause();
            sleep(Duration::from_millis(700)).await;
            nats.resume();
            sleep(Duration::from_millis(60)).await;
            nats.kill9();
            sleep(Duration::from_millis(300 * round)).await;
            nats.restart();
            nats.wait();
        }
        over.store(true, Ordering::Relaxed);
    };
    let all = futures_util::future::join(join_all(lanes), trouble);
    let (sent, ()) = timeout(PATIENCE, all).await.expect("in time");
    let tally = desk.tally();
    assert_eq!(tally["delivered"] as u64, sent.iter().sum::<u64>(), "{tally:?}");
    desk.close().await;
    let keys = by_key(&nats.read(&name).await);
    assert_eq!(keys.len(), 50);
    for (topic, sent) in topics.iter().zip(sent) {
        assert_eq!(keys[topic], (0..sent).collect::<Vec<u64>>(), "{topic}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_buffered_in_the_client_while_it_is_not_connected() {
    let nats = Nats::start(Guard::Open, "");
    let root = unique("away");
    let name = stream(&nats, &root, Stream::default()).await;
    let desk = desk(config(&nats, &name)).await;
    let sent = message(&format!("{root}.a"), "key", 1);
    nats.kill9();
    // Until it notices an attempt stays open; from then on it fails at once.
    timeout(PATIENCE, async {
        while desk.bus.is_available() {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("noticed");
    let begun = Instant::now();
    for number in 0..100 {
        assert_eq!(kind(&desk.attempt(number, &sent).await), "unavailable");
    }
    assert!(begun.elapsed() < Duration::from_secs(1));
    nats.restart();
    nats.wait();
    connected(&desk).await;
    assert_eq!(nats.read(&name).await, []);
    desk.delivers(1_000, &sent).await;
    desk.close().await;
    assert_eq!(nats.read(&name).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_stream_is_a_refusal_and_recovers_once_it_is_made() {
    let nats = shared_nats();
    let root = unique("late");
    let name = root.to_uppercase();
    let desk = desk(config(nats, &name)).await;
    let sent = message(&format!("{root}.a"), "key", 1);
    assert_eq!(kind(&desk.attempt(1, &sent).await), "refused");
    assert_eq!(stream(nats, &root, Stream::default()).await, name);
    assert_eq!(desk.attempt(2, &sent).await, Outcome::Delivered);
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_unfit() {
    let nats = shared_nats();
    let root = unique("large");
    let name = stream(nats, &root, Stream { max_message_size: 1_000, ..Stream::default() }).await;
    let desk = desk(config(nats, &name)).await;
    let of = |size: usize| Message {
        payload: Bytes::from(vec![b'7'; size]),
        ..message(&format!("{root}.a"), "key", size as u64)
    };
    assert_eq!(kind(&desk.attempt(1, &of(2_000_000)).await), "unfit", "more than the server takes");
    assert_eq!(kind(&desk.attempt(2, &of(2_000)).await), "unfit", "more than the stream takes");
    assert_eq!(desk.attempt(3, &of(100)).await, Outcome::Delivered);
    desk.close().await;
}

/// Somebody listens who is no stream, so that nothing is answered: more vehicles wait for that than there are places.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_silent_leaves_places_to_the_others() {
    let nats = shared_nats();
    let root = unique("silent");
    let name = stream(nats, &format!("{root}.position"), Stream::default()).await;
    let client = nats.client().await;
    let listening = client.subscribe(format!("{root}.trip.>")).await.expect("heard");
    client.flush().await.expect("known to the server");
    let desk =
        desk(config::Nats { subject: format!("{root}.{{type}}.{{subject}}"), ..config(nats, &name) }).await;
    let of = |kind: &str, number: u64| message(&format!("{root}.{kind}.{number}"), "key", number);
    let mut all = 0;
    while desk.submit(all, &of("trip", all)).is_ok() {
        all += 1;
    }
    assert_eq!(kind(&desk.attempt(all, &of("trip", all)).await), "busy");
    desk.delivers(1 << 20, &of("position", 1)).await;
    assert_eq!(kind(&desk.attempt(all, &of("trip", all)).await), "unanswered", "none more is begun");
    let trips = stream(nats, &format!("{root}.trip"), Stream::default()).await;
    drop(listening);
    for number in 0..all {
        assert!(matches!(desk.outcome(number).await, Outcome::Delivered | Outcome::Unresolved));
    }
    desk.delivers(1 << 21, &of("trip", all)).await;
    let tally = desk.tally();
    assert!(tally["unresolved"] > 0 && tally["delivered"] > 2_000, "{tally:?}");
    desk.close().await;
    assert_eq!(nats.read(&trips).await.len(), tally["delivered"] - 1);
}

/// A stream that is full and discards what is new is its owner's to cure: a state of the topic.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_stream_is_a_refusal_and_recovers() {
    let nats = shared_nats();
    let root = unique("full");
    let full = Stream { max_messages: 2, discard: DiscardPolicy::New, ..Stream::default() };
    let name = stream(nats, &root, full).await;
    let desk = desk(config(nats, &name)).await;
    let of = |number: u64| message(&format!("{root}.a"), "key", number);
    assert_eq!(desk.attempt(1, &of(1)).await, Outcome::Delivered);
    assert_eq!(desk.attempt(2, &of(2)).await, Outcome::Delivered);
    assert_eq!(kind(&desk.attempt(3, &of(3)).await), "full");
    let jetstream = async_nats::jetstream::new(nats.client().await);
    jetstream.get_stream(&name).await.expect("a stream").purge().await.expect("purged");
    assert_eq!(desk.attempt(4, &of(3)).await, Outcome::Delivered);
    desk.close().await;
}

/// TLS, a user, and a right to some subjects only.
#[tokio::test(flavor = "multi_thread")]
async fn a_secured_nats_takes_what_it_allows() {
    let nats = Nats::start(Guard::Secured, "");
    nats.create(Stream {
        name: "OK".into(),
        subjects: vec!["ok.>".into(), "no.>".into()],
        ..Stream::default()
    })
    .await;
    let dir = TempDir::new().expect("a folder");
    let password = dir.path().join("password");
    std::fs::write(&password, USER.1).expect("a writable folder");
    let wrong = dir.path().join("wrong");
    std::fs::write(&wrong, "wrong").expect("a writable folder");
    let secured = |password| config::Nats {
        user: Some((USER.0.to_owned(), SecretSource::File(password))),
        ca: Some(nats.certificates.as_ref().expect("secured").ca.clone()),
        ..config(&nats, "OK")
    };
    let allowed = desk(secured(password)).await;
    assert_eq!(allowed.attempt(1, &message("ok.a", "key", 1)).await, Outcome::Delivered);
    // The server says so once, on the connection and not to the publisher; the outcome does not wait for a time-out.
    let begun = Instant::now();
    assert_eq!(kind(&allowed.attempt(2, &message("no.a", "key", 2)).await), "refused");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(kind(&allowed.attempt(3, &message("no.B", "key", 2)).await), "refused");
    assert_eq!(allowed.attempt(4, &message("ok.b", "key", 3)).await, Outcome::Delivered);
    allowed.close().await;
    let stranger = Desk::open(&config::Bus::Nats(secured(wrong)), dir.path());
    let findings = stranger.bus.check(&["ok.a".into()]).await;
    assert!(
        matches!(&findings[..], [Finding::Barred { what, .. }] if what.contains("login")),
        "{findings:?}"
    );
    assert_eq!(kind(&stranger.attempt(1, &message("ok.a", "key", 9)).await), "unavailable");
    stranger.close().await;
}

/// Of its clients, or before it says anything.
#[tokio::test(flavor = "multi_thread")]
async fn a_nats_that_asks_for_a_certificate_takes_who_shows_one() {
    let dir = TempDir::new().expect("a folder");
    let Certificates { ca, cert, key, .. } = Certificates::make(dir.path());
    let (ca_file, cert_file, key_file) = (ca.display(), cert.display(), key.display());
    let tls = format!(
        "tls {{ verify: true, ca_file: \"{ca_file}\", cert_file: \"{cert_file}\", key_file: \"{key_file}\" }}"
    );
    let nats = Nats::start(Guard::Open, &tls);
    let with = |certificate, handshake| {
        let ca = Some(ca.clone());
        config::Bus::Nats(config::Nats {
            create: Create::Missing,
            ca,
            certificate,
            handshake,
            ..config(&nats, "OK")
        })
    };
    let pair = config::Tls { cert: cert.clone(), key: key.clone() };
    let stranger = Desk::open(&with(None, Handshake::Greeted), dir.path());
    let findings = stranger.bus.check(&["ok.a".into()]).await;
    let Finding::Barred { what, fix } = &findings[0] else { panic!("{findings:?}") };
    assert!(format!("{what} {fix}").contains("certificate"), "{findings:?}");
    stranger.close().await;
    let shows = Desk::open(&with(Some(pair.clone()), Handshake::Greeted), dir.path());
    let made = shows.bus.check(&["ok.a".into()]).await;
    assert!(matches!(made[..], [Finding::Made(_), Finding::Weak(_)]), "{made:?}");
    assert_eq!(shows.attempt(1, &message("ok.a", "key", 1)).await, Outcome::Delivered);
    shows.close().await;
    nats.kill9();
    nats.replace("verify: true", "verify: true, handshake_first: true");
    nats.restart();
    let first = Desk::open(&with(Some(pair), Handshake::First), dir.path());
    connected(&first).await;
    first.delivers(1_000, &message("ok.a", "key", 2)).await;
    first.close().await;
}

#[tokio::test]
async fn a_nats_that_asks_for_a_token_takes_who_has_it() {
    let nats = Nats::start(Guard::Open, "authorization { token: \"a-token-of-the-tests\" }");
    let dir = TempDir::new().expect("a folder");
    let token = dir.path().join("token");
    std::fs::write(&token, "a-token-of-the-tests\n").expect("a writable folder");
    let with = |token| config::Nats { token, create: Create::Missing, ..config(&nats, "TOKEN") };
    let allowed = Desk::open(&config::Bus::Nats(with(Some(SecretSource::File(token.clone())))), dir.path());
    let made = allowed.bus.check(&["token.a".into()]).await;
    assert!(matches!(made[..], [Finding::Made(_), Finding::Weak(_)]), "{made:?}");
    assert_eq!(allowed.attempt(1, &message("token.a", "key", 1)).await, Outcome::Delivered);
    // Another token from now on: the client has it from the file as soon as it needs it.
    nats.kill9();
    nats.replace("a-token-of-the-tests", "another-token-of-the-tests");
    std::fs::write(&token, "another-token-of-the-tests\n").expect("a writable folder");
    nats.restart();
    nats.wait();
    connected(&allowed).await;
    allowed.delivers(1_000, &message("token.a", "key", 2)).await;
    allowed.close().await;
    let stranger = Desk::open(&config::Bus::Nats(with(None)), dir.path());
    let findings = stranger.bus.check(&["token.a".into()]).await;
    assert!(matches!(findings[..], [Finding::Barred { .. }]), "{findings:?}");
    stranger.close().await;
}

/// What most managed NATS services hand out: a credentials file with a JWT and the seed that proves it.
#[tokio::test(flavor = "multi_thread")]
async fn a_nats_that_trusts_an_operator_takes_who_has_credentials_of_its_account() {
    let trust = Trust::new();
    let nats = Nats::start(Guard::Open, trust.lines());
    let dir = TempDir::new().expect("a folder");
    let file = |name: &str, text: String| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("a writable folder");
        SecretSource::File(path)
    };
    let with =
        |credentials| config::Nats { credentials, create: Create::Missing, ..config(&nats, "CREDENTIALS") };
    let allowed = desk(with(Some(file("own", trust.credentials())))).await;
    let made = allowed.bus.check(&["credentials.a".into()]).await;
    assert!(matches!(made[..], [Finding::Made(_), Finding::Weak(_)]), "{made:?}");
    assert_eq!(allowed.attempt(1, &message("credentials.a", "key", 1)).await, Outcome::Delivered);
    // A connection that was lost is signed in again with them.
    nats.kill9();
    nats.restart();
    nats.wait();
    connected(&allowed).await;
    allowed.delivers(1_000, &message("credentials.a", "key", 2)).await;
    allowed.close().await;
    for stranger in [Some(file("other", Trust::stranger())), None] {
        let stranger = Desk::open(&config::Bus::Nats(with(stranger)), dir.path());
        let findings = stranger.bus.check(&["credentials.a".into()]).await;
        assert!(matches!(findings[..], [Finding::Barred { .. }]), "{findings:?}");
        stranger.close().await;
    }
}

/// The server tells nobody of a user's own limit, and ends the connection of who sends more.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_larger_than_a_user_may_send_is_unfit_and_stops_nobody_else() {
    let trust = Trust::new();
    let nats = Nats::start(Guard::Open, trust.lines());
    let dir = TempDir::new().expect("a folder");
    let path = dir.path().join("limited");
    std::fs::write(&path, trust.credentials_for(2_000)).expect("a writable folder");
    let limited = config::Nats {
        credentials: Some(SecretSource::File(path)),
        create: Create::Missing,
        ..config(&nats, "LIMITED")
    };
    let desk = desk(limited).await;
    desk.bus.check(&["limited.a".into()]).await;
    let mut large = message("limited.a", "key", 1);
    large.payload = vec![b'7'; 3_000].into();
    let mut number = 1;
    let unfit = async {
        while kind(&desk.attempt(number, &large).await) != "unfit" {
            number += 1;
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(20), unfit).await.expect("unfit, and not sent again and again");
    desk.delivers(1_000, &message("limited.b", "key", 2)).await;
    assert_eq!(kind(&desk.attempt(2_000, &large).await), "unfit", "at once");
    assert!(desk.bus.is_available(), "the connection is still there");
    desk.close().await;
}

/// A stream of the test's own on `root.>`, which answers one copy after the other so, and with nothing where that is empty; then
/// no more.
async fn played<T>(nats: &Nats, root: &str, answers: &[&'static str], asks: impl Future<Output = T>) -> T {
    let client = nats.client().await;
    let mut copies = client.subscribe(format!("{root}.>")).await.expect("subscribed");
    // The server has done what was asked before once it has answered this: nobody is there.
    let done =
        async || drop(client.request(format!("nobody.{root}"), Bytes::new()).await.expect_err("nobody"));
    done().await;
    let plays = async {
        for answer in answers {
            let copy = copies.next().await.expect("a copy");
            if !answer.is_empty() {
                let to = copy.reply.expect("a publisher that waits");
                client.publish(to, Bytes::from_static(answer.as_bytes())).await.expect("answered");
            }
        }
        std::future::pending::<()>().await;
    };
    let told = tokio::select! {
        told = asks => told,
        () = plays => unreachable!("it waits"),
    };
    copies.unsubscribe().await.expect("connected");
    done().await;
    told
}

const STORED: &str = r#"{ "stream": "PLAYED", "seq": 1 }"#;
const PENDING: &str = r#"{ "error": { "code": 409, "err_code": 10158, "description": "duplicate message id is in process" }, "stream": "PLAYED", "seq": 0 }"#;
const AWAY: &str = r#"{ "error": { "code": 503, "err_code": 10008, "description": "JetStream system temporarily unavailable" }, "stream": "PLAYED", "seq": 0 }"#;
const FULL: &str = r#"{ "error": { "code": 503, "err_code": 10077, "description": "maximum messages exceeded" }, "stream": "PLAYED", "seq": 0 }"#;

/// The first copy may have been stored, or be about to be: what is said of a later one does not make it a failure.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_stream_says_of_a_later_copy_proves_nothing_of_the_first() {
    let nats = shared_nats();
    let desk = desk(config(nats, "PLAYED")).await;
    let cases: [(&[&str], &str); 6] = [
        (&[PENDING, PENDING, STORED], "delivered"),
        (&["", AWAY, STORED], "delivered"),
        (&["", PENDING, FULL], "unresolved"),
        (&["", FULL], "unresolved"),
        (&[AWAY], "unavailable"),
        (&[FULL], "full"),
    ];
    let all = cases.iter().enumerate().map(async |(number, (answers, expected))| {
        let root = unique("played");
        let sent = message(&format!("{root}.a"), "key", 1);
        let outcome = played(nats, &root, answers, desk.attempt(number as u64, &sent)).await;
        assert_eq!(kind(&outcome), *expected, "{answers:?}");
    });
    join_all(all).await;
    desk.close().await;
}

/// Nobody answers for a stream without a leader: it is not one that is missing.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_was_seen_and_does_not_answer_is_unavailable() {
    let nats = shared_nats();
    let root = unique("played");
    let desk = desk(config(nats, "PLAYED")).await;
    // As its template has it: of another vehicle, too.
    let of = |vehicle: u64| message(&format!("{root}.trip.acme.{vehicle}"), "key", vehicle);
    assert_eq!(kind(&desk.attempt(1, &of(1)).await), "refused", "nobody was there yet");
    assert_eq!(played(nats, &root, &[STORED], desk.attempt(2, &of(2))).await, Outcome::Delivered);
    assert_eq!(kind(&desk.attempt(3, &of(3)).await), "unanswered");
    desk.close().await;
}

/// So is one that the check found, before anything was sent; until the server says that it is gone. That it is there again is news.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_a_check_found_and_does_not_answer_is_unavailable_and_refused_once_it_is_known_to_be_gone()
 {
    let nats = shared_nats();
    let held = unique("held");
    let name = stream(nats, &held, Stream::default()).await;
    let desk = desk(config(nats, &name)).await;
    assert!(
        desk.bus
            .check(&[format!("{held}.a").into()])
            .await
            .contains(&Finding::Fine(format!("stream {name}")))
    );
    let jetstream = async_nats::jetstream::new(nats.client().await);
    jetstream.delete_stream(&name).await.expect("it was there");
    let of = |number: u64| message(&format!("{held}.a"), "key", number);
    assert_eq!(kind(&desk.attempt(4, &of(4)).await), "unanswered");
    let mut number = 5;
    let refused = async {
        while kind(&desk.attempt(number, &of(4)).await) != "refused" {
            number += 1;
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, refused).await.expect("it is known to be gone");
    while desk.bus.has_news_of_topics() {}
    stream(nats, &held, Stream::default()).await;
    let news = async {
        while !desk.bus.has_news_of_topics() {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, news).await.expect("it is known to be there");
    desk.delivers(1_000, &of(5)).await;
    desk.close().await;
}

/// Three servers and three replicas, of which two die: the first copy waits at the leader, and is stored once they are back.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_a_quorum_is_waited_for_and_stores_each_once() {
    let ports = [free_port(), free_port(), free_port()];
    let routes = ports.map(|port| format!("\"nats://127.0.0.1:{port}\"")).join(", ");
    let servers: Vec<Nats> = ports
        .iter()
        .map(|port| {
            let lines = format!(
                "server_name: \"server-{port}\"\n\
                 cluster {{ name: three, listen: \"127.0.0.1:{port}\", routes: [{routes}] }}"
            );
            Nats::start(Guard::Open, &lines)
        })
        .collect();
    let root = unique("quorum");
    let name = root.replace('.', "-").to_uppercase();
    let jetstream = async_nats::jetstream::new(servers[0].client().await);
    let wanted = Stream {
        name: name.clone(),
        subjects: vec![format!("{root}.>")],
        num_replicas: 3,
        ..Stream::default()
    };
    let made = async {
        loop {
            // Until they have found each other.
            match jetstream.create_stream(wanted.clone()).await {
                Ok(stream) => return stream.cached_info().cluster.clone().expect("a cluster"),
                Err(_) => sleep(Duration::from_millis(200)).await,
            }
        }
    };
    let leader = timeout(PATIENCE, made).await.expect("made").leader.expect("a leader");
    let leads = ports.iter().position(|port| leader == format!("server-{port}")).expect("one of them");
    let desk = desk(config(&servers[leads], &name)).await;
    let of = |number: u64| message(&format!("{root}.position.acme.{number}"), "key", number);
    assert_eq!(desk.attempt(0, &of(0)).await, Outcome::Delivered);
    let others = || servers.iter().enumerate().filter(|(at, _)| *at != leads).map(|(_, server)| server);
    others().for_each(Nats::kill9);
    for number in 1..20 {
        desk.submit(number, &of(number)).expect("taken");
    }
    // Past the first copies' time.
    sleep(Duration::from_secs(7)).await;
    assert_eq!(desk.tally(), [("delivered", 1)].into(), "nothing is known of them");
    others().for_each(Nats::restart);
    desk.ended(20).await;
    assert_eq!(desk.tally(), [("delivered", 20)].into());
    desk.close().await;
    let jetstream = async_nats::jetstream::new(servers[leads].client().await);
    let stored = async {
        loop {
            // Until the three have settled again.
            match jetstream.get_stream(&name).await {
                Ok(stream) => return stream.cached_info().state.messages,
                Err(_) => sleep(Duration::from_millis(200)).await,
            }
        }
    };
    assert_eq!(timeout(PATIENCE, stored).await.expect("it says"), 20, "each once");
}
