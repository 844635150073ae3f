//! Who waits for whom, and what is judged by a broker's word.

use std::sync::Arc;

use rdkafka::statistics;

use super::*;
use crate::bus::kafka::tests::Told;
use crate::bus::{Awaiting, Headers, Outcome};

struct Nobody;

impl Awaiting for Nobody {
    fn resolve(&self, _: u64, _: Outcome) {}
}

/// What was produced, and how.
#[derive(Default)]
struct Client(Vec<(String, usize, Sent)>);

impl Client {
    fn produce(&mut self) -> impl FnMut(&Message, Ticket, Sent) -> Produced {
        |message, ticket, sent| {
            ticket.withdraw();
            self.0.push((message.topic.to_string(), message.payload.len(), sent));
            Ok(())
        }
    }

    fn last(&self) -> (&str, usize, Sent) {
        let (topic, size, sent) = self.0.last().expect("some");
        (topic, *size, *sent)
    }

    fn last_alone(&self) -> Sent {
        let (_, _, sent @ Sent { how: How::Alone(_), .. }) = self.last() else { panic!("{:?}", self.0) };
        sent
    }

    fn last_among(&self) -> Sent {
        let (_, _, sent @ Sent { how: How::Among, .. }) = self.last() else { panic!("{:?}", self.0) };
        sent
    }
}

fn message(topic: &str, key: &str, size: usize) -> Message {
    Message {
        topic: topic.into(),
        key: key.into(),
        id: uuid::Uuid::nil(),
        headers: Headers::default(),
        payload: vec![7; size].into(),
    }
}

fn take_of(turns: &mut Turns, client: &mut Client, message: &Message) -> Taken {
    let taken = turns.take(message, Ticket::new(Arc::new(Nobody), 0), client.produce());
    taken.map_err(|(failure, ticket)| (failure, ticket.withdraw())).expect("taken")
}

fn take(turns: &mut Turns, client: &mut Client, topic: &str, size: usize) -> Taken {
    take_of(turns, client, &message(topic, "vehicle", size))
}

/// Time passes for all that was sent.
fn make_stale(turns: &mut Turns) {
    turns.topics.values_mut().flat_map(|topic| &mut topic.turns).for_each(|turn| turn.sent_at = None);
}

/// The client says that topic "a" has so many partitions.
fn told(partitions: i32) -> Statistics {
    let partitions = (0..partitions).map(|number| (number, statistics::Partition::default())).collect();
    let topic = statistics::Topic { partitions, ..statistics::Topic::default() };
    Statistics { topics: [("a".to_owned(), topic)].into(), ..Statistics::default() }
}

/// Keys of these partitions of six.
fn key_of(partition: usize) -> String {
    let mut keys = (0..).map(|number: u32| number.to_string());
    keys.find(|key| partition_of(key.as_bytes(), 6) == partition).expect("one")
}

#[test]
fn after_a_refusal_what_is_as_large_as_the_largest_is_sent_alone_and_other_topics_wait_for_nothing() {
    let (mut turns, mut client) = (Turns::default(), Client::default());
    for size in [10, 90, 10] {
        assert_eq!(take(&mut turns, &mut client, "a", size), Taken::HandedOver);
    }
    let sent = client.last_among();
    for size in [10, 90, 10] {
        assert_eq!(turns.refused(&"a".into(), 0, size, sent), Meant::AnyOfTheBatch);
        turns.ended("a", sent, client.produce());
    }
    assert_eq!(take(&mut turns, &mut client, "a", 10), Taken::HandedOver);
    assert_eq!(take(&mut turns, &mut client, "a", 90), Taken::WaitsFirst, "until it would be alone");
    assert_eq!(take(&mut turns, &mut client, "a", 10), Taken::Waits, "behind it");
    assert_eq!(take(&mut turns, &mut client, "b", 90), Taken::HandedOver);
    let waits_in = |topic| turns.does_any_wait_for(topic, "vehicle");
    assert_eq!((waits_in("a"), waits_in("b")), (true, false));
    turns.ended("a", sent, client.produce());
    let alone = client.last_alone();
    assert_eq!(client.last(), ("a", 90, alone));
    assert_eq!(turns.refused(&"a".into(), 0, 90, alone), Meant::This);
    turns.ended("a", alone, client.produce());
    assert_eq!(client.last(), ("a", 10, client.last_among()));
    assert!(!turns.does_any_wait());
}

#[test]
fn what_was_joined_by_others_because_it_hung_is_not_judged_by_its_batch() {
    let (mut turns, mut client) = (Turns::default(), Client::default());
    take(&mut turns, &mut client, "a", 10);
    turns.refused(&"a".into(), 0, 10, client.last_among());
    turns.ended("a", client.last_among(), client.produce());
    take(&mut turns, &mut client, "a", 10);
    let sent = client.last_alone();
    take(&mut turns, &mut client, "a", 10);
    turns.flush_stale(client.produce());
    assert!(turns.does_any_wait(), "it is not late yet");
    make_stale(&mut turns);
    turns.flush_stale(client.produce());
    assert_eq!(client.last(), ("a", 10, client.last_among()));
    assert_eq!(turns.refused(&"a".into(), 0, 10, sent), Meant::AnyOfTheBatch);
}

#[test]
fn where_batches_are_refused_without_the_largest_what_is_smaller_is_suspect() {
    let (mut turns, mut client) = (Turns::default(), Client::default());
    let past = |turns: &mut Turns| {
        let turns = turns.topics.values_mut().flat_map(|topic| &mut topic.turns);
        turns.filter_map(|turn| turn.suspect.as_mut()).for_each(|s| {
            s.refused_at = s.refused_at.checked_sub(ONE_BATCH).expect("a clock that ran");
        });
    };
    take(&mut turns, &mut client, "a", 90);
    let sent = client.last_among();
    turns.refused(&"a".into(), 0, 90, sent);
    past(&mut turns);
    turns.refused(&"a".into(), 0, 20, sent);
    turns.ended("a", sent, client.produce());
    take(&mut turns, &mut client, "a", 30);
    assert_eq!(client.last(), ("a", 30, client.last_alone()));
}

#[test]
fn what_is_suspect_is_alone_in_its_partition_while_another_one_hangs() {
    let (mut turns, mut client) = (Turns::default(), Client::default());
    turns.look(&told(6));
    let [hangs, well] = [0, 1].map(|partition| message("a", &key_of(partition), 90));
    take_of(&mut turns, &mut client, &hangs);
    take_of(&mut turns, &mut client, &well);
    let sent = client.last_among();
    assert_eq!(turns.refused(&"a".into(), 1, 90, sent), Meant::AnyOfTheBatch);
    turns.ended("a", sent, client.produce());
    assert_eq!(take_of(&mut turns, &mut client, &well), Taken::HandedOver);
    assert_eq!(take_of(&mut turns, &mut client, &well), Taken::WaitsFirst);
    assert_eq!(take_of(&mut turns, &mut client, &hangs), Taken::HandedOver, "nothing was refused there");
    let waits_for = |message: &Message| turns.does_any_wait_for("a", &message.key);
    assert_eq!((waits_for(&well), waits_for(&hangs)), (true, false));
    let alone = client.0[2].2;
    assert_eq!(turns.refused(&"a".into(), 5, 90, alone), Meant::AnyOfTheBatch, "it went elsewhere");
    assert_eq!(turns.refused(&"a".into(), 1, 90, alone), Meant::This);
}

#[test]
fn what_waits_keeps_its_order_when_the_number_of_partitions_is_told_and_is_alone_once_all_from_before_ended()
{
    let (mut turns, mut client) = (Turns::default(), Client::default());
    take(&mut turns, &mut client, "a", 90);
    let before = client.last_among();
    turns.refused(&"a".into(), 0, 90, before);
    for size in [91, 92, 93] {
        take(&mut turns, &mut client, "a", size);
    }
    turns.look(&told(6));
    assert_eq!(turns.refused(&"a".into(), 0, 90, before), Meant::AnyOfTheBatch);
    assert!(turns.does_any_wait_for("a", "vehicle"));
    assert_eq!(
        take(&mut turns, &mut client, "a", 94),
        Taken::Waits,
        "what is in flight may be in its partition"
    );
    turns.ended("a", before, client.produce());
    for size in [91, 92, 93, 94] {
        assert_eq!(client.last(), ("a", size, client.last_alone()));
        turns.ended("a", client.last_alone(), client.produce());
    }
    assert!(!turns.does_any_wait());
}

#[test]
fn nothing_that_waits_goes_out_behind_what_the_broker_refused_with_its_topic() {
    let (mut turns, mut client) = (Turns::default(), Client::default());
    turns.look(&told(6));
    take(&mut turns, &mut client, "a", 90);
    let sent = client.last_among();
    turns.refused(&"a".into(), i32::try_from(sent.place.index).expect("few"), 90, sent);
    let (tells, mut told) = tokio::sync::mpsc::channel(2);
    let tells: Arc<dyn Awaiting> = Arc::new(Told(tells));
    for entry in [7, 8] {
        let ticket = Ticket::new(Arc::clone(&tells), entry);
        assert!(turns.take(&message("a", "vehicle", 90), ticket, client.produce()).is_ok());
    }
    turns.topic_refused("a");
    assert!(turns.is_fenced() && !turns.does_any_wait());
    for (failure, ticket) in turns.begin_to_tell() {
        ticket.resolve(Outcome::Failed(failure));
    }
    let failed = Outcome::Failed(one_before_was_refused());
    assert_eq!(told.try_recv(), Ok((7, failed.clone())));
    assert_eq!(told.try_recv(), Ok((8, failed)));
    turns.ended("a", sent, client.produce());
    assert_eq!(client.0.len(), 1);
}

#[test]
fn what_waits_is_bounded_in_bytes() {
    let (mut turns, mut client) = (Turns::default(), Client::default());
    let large = message("a", "vehicle", WAITING.bytes / 4);
    take_of(&mut turns, &mut client, &large);
    turns.refused(&"a".into(), 0, large.payload.len(), client.last_among());
    let mut take = || {
        let taken = turns.take(&large, Ticket::new(Arc::new(Nobody), 0), client.produce());
        taken.map_err(|(failure, ticket)| (failure, ticket.withdraw()).0)
    };
    assert_eq!(take(), Ok(Taken::WaitsFirst));
    for _ in 0..3 {
        assert_eq!(take(), Ok(Taken::Waits));
    }
    assert!(matches!(take(), Err(Failure::Busy(_))));
}
