//! What a check says of NATS.

use async_nats::jetstream::stream::{
    Config as Stream, DiscardPolicy, PersistenceMode, RetentionPolicy, StorageType, SubjectTransform,
};
use fleetbus::bus::{Finding, Outcome};
use fleetbus::config::{self, Create};

use crate::brokers::{Guard, Nats, shared_nats, unique};
use crate::desk::message;
use crate::nats::{config, desk, stream};

#[tokio::test(flavor = "multi_thread")]
async fn a_check_finds_makes_and_warns() {
    let nats = shared_nats();
    let (root, other) = (unique("checked"), unique("uncovered"));
    let topics = [format!("{root}.position.*.*").into()];
    let never = desk(config(nats, &root)).await;
    let findings = never.bus.check(&topics).await;
    assert!(matches!(&findings[..], [Finding::Missing { what, .. }] if what.contains(&root)), "{findings:?}");
    never.close().await;
    let makes = desk(config::Nats { create: Create::Missing, ..config(nats, &root) }).await;
    let findings = makes.bus.check(&topics).await;
    assert!(
        matches!(&findings[..], [Finding::Made(what), Finding::Weak(why)] if what.contains(&root) && why.contains("one replica")),
        "{findings:?}"
    );
    let sent = message(&format!("{root}.position.acme.1"), "key", 1);
    assert_eq!(makes.attempt(1, &sent).await, Outcome::Delivered);
    let findings = makes.bus.check(&topics).await;
    assert!(
        findings.iter().any(|f| matches!(f, Finding::Weak(why) if why.contains("one replica"))),
        "{findings:?}"
    );
    let findings = makes.bus.check(&[format!("{other}.position.*.*").into()]).await;
    assert!(
        findings.iter().any(|f| matches!(f, Finding::Missing { what, .. } if what.contains(&other))),
        "{findings:?}"
    );
    makes.close().await;
    // A stream's edit replaces its subjects: the command has those that it has, too. What is taken one by one is not missing.
    let (by_one, parts) = (unique("one"), unique("parts"));
    let subjects = vec![format!("{by_one}.position.>"), format!("{by_one}.trip.>")];
    let name = parts.to_uppercase();
    nats.create(Stream { name: name.clone(), subjects: subjects.clone(), ..Stream::default() }).await;
    let desk = desk(config(nats, &name)).await;
    let topics = ["position", "trip"].map(|kind| format!("{by_one}.{kind}.*.*").into());
    let findings = desk.bus.check(&topics).await;
    assert!(!findings.iter().any(|f| matches!(f, Finding::Missing { .. })), "{findings:?}");
    let topics = [topics.to_vec(), vec![format!("{by_one}.stop.*.*").into()]].concat();
    let findings = desk.bus.check(&topics).await;
    let whole = format!("'{},{by_one}.stop.*.*'", subjects.join(","));
    assert!(
        findings.iter().any(|f| matches!(f, Finding::Missing { command, .. } if command.contains(&whole))),
        "{findings:?}"
    );
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_tells_what_a_stream_does_not_take_or_keep() {
    let nats = shared_nats();
    let check = async |more: Stream| {
        let root = unique("promise");
        let name = stream(nats, &root, more).await;
        let desk = desk(config(nats, &name)).await;
        let findings = desk.bus.check(&[format!("{root}.position.*.*").into()]).await;
        desk.close().await;
        findings
    };
    let weak = |findings: &[Finding], words: &str| {
        assert!(
            findings.iter().any(|f| matches!(f, Finding::Weak(why) if why.contains(words))),
            "{words}: {findings:?}"
        );
    };
    weak(&check(Stream { storage: StorageType::Memory, ..Stream::default() }).await, "in memory");
    weak(&check(Stream { retention: RetentionPolicy::Interest, ..Stream::default() }).await, "interest");
    weak(&check(Stream { max_messages_per_subject: 1, ..Stream::default() }).await, "keeps 1 of");
    let transform = SubjectTransform { source: ">".to_owned(), destination: "moved.>".to_owned() };
    weak(&check(Stream { subject_transform: Some(transform), ..Stream::default() }).await, "moved.>");
    weak(&check(Stream { persist_mode: Some(PersistenceMode::Async), ..Stream::default() }).await, "async");
    let per_subject = Stream {
        discard: DiscardPolicy::New,
        discard_new_per_subject: true,
        max_messages_per_subject: 1,
        ..Stream::default()
    };
    weak(&check(per_subject).await, "refuses the next");
    let no_ack = check(Stream { no_ack: true, ..Stream::default() }).await;
    assert!(
        matches!(&no_ack[..], [Finding::Unusable { what, .. }] if what.contains("acknowledges nothing")),
        "{no_ack:?}"
    );
}

/// A stream that is full has room for less than one more message; and so has an account.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_tells_that_there_is_no_room() {
    let accounts = "accounts { A: { jetstream: { max_file: 1M }, users: [ { user: a, password: a } ] } }\nno_auth_user: a\n";
    let nats = Nats::start(Guard::Open, accounts);
    let fill = async |more: Stream, words: &str| {
        let root = unique("full");
        let name = stream(&nats, &root, more).await;
        let desk = desk(config(&nats, &name)).await;
        let mut outcome = Outcome::Delivered;
        for number in 1..2_000 {
            let mut sent = message(&format!("{root}.position.acme.1"), "key", number);
            sent.payload = vec![b'x'; 10_000].into();
            outcome = desk.attempt(number, &sent).await;
            if outcome != Outcome::Delivered {
                break;
            }
        }
        assert!(matches!(outcome, Outcome::Failed(_)), "{words}: {outcome:?}");
        let findings = desk.bus.check(&[format!("{root}.position.*.*").into()]).await;
        let said =
            findings.iter().any(|f| matches!(f, Finding::Unusable { what, .. } if what.contains(words)));
        assert!(said, "{words}: {findings:?}");
        desk.close().await;
    };
    let bounded = Stream { max_bytes: 300_000, discard: DiscardPolicy::New, ..Stream::default() };
    fill(bounded, "is full").await;
    fill(Stream::default(), "the account has").await;
}
