//! Who is handed to the client when: everything at once, but what is as large as the largest of a batch that a broker refused for its
//! size. For a while that is sent alone in its topic, for only then it is known which message the broker means. Invariants: one topic's
//! messages are handed over in the order in which they came; another topic's wait for none of them; what waits is bounded; nothing is
//! taken after a message that failed until its lane knows. ADR 0008.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use foldhash::HashMap;

use super::Produced;
use crate::bus::{Failure, Message, Ticket};
use crate::event::Text;

/// Messages that wait for their turn, of all topics; what they weigh is bounded by the memory permits.
const WAITING: usize = 65_536;
/// A message in flight this long does not hold back those that wait: a partition may hang. Longer than brokers that are well take,
/// far away as they may be, else none would ever be in flight alone.
pub(super) const STALE: Duration = Duration::from_secs(1);
/// How long after a refusal what is as large is sent alone.
const SUSPECT: Duration = Duration::from_secs(10);
/// Refusals that follow each other so closely are those of one batch.
const ONE_BATCH: Duration = Duration::from_millis(50);

/// How a message was handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// With others, perhaps.
    Among,
    /// By itself, as this one of its topic: what the broker says of its batch, it says of this message, unless more followed.
    Alone(u64),
}

/// Of which message a broker's refusal of a batch speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meant {
    This,
    AnyOfTheBatch,
}

/// Whether a message is with the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    HandedOver,
    /// It is the first of all that wait.
    WaitsFirst,
    Waits,
}

/// See the module.
#[derive(Default)]
pub(super) struct Turns {
    /// Of which something is in flight or waits, or of which a batch was refused lately.
    topics: HashMap<Text, Turn>,
    waiting: usize,
    /// To be told outside of every lane's critical section. Until their lanes know, nothing more is taken: a later message
    /// must not overtake one that failed.
    failed: Vec<(Failure, Ticket)>,
    /// Threads that tell some of them at the moment.
    tellers: usize,
}

/// One topic's.
#[derive(Default)]
struct Turn {
    /// In order.
    waiting: VecDeque<(Message, Ticket)>,
    in_flight: usize,
    /// What is in flight must stay alone.
    is_alone: bool,
    sent_at: Option<Instant>,
    /// How many were handed over.
    count: u64,
    suspect: Option<Suspect>,
}

/// What is as large as this may be what a broker refused.
struct Suspect {
    size: usize,
    refused_at: Instant,
}

impl Turn {
    /// How a message of this size may go now; none where it has to wait.
    fn next(&self, size: usize) -> Option<Sent> {
        let is_suspect = |s: &Suspect| size >= s.size && s.refused_at.elapsed() < SUSPECT;
        let alone = self.suspect.as_ref().is_some_and(is_suspect);
        if self.in_flight > 0 && (alone || self.is_alone) {
            return None;
        }
        Some(if alone { Sent::Alone(self.count + 1) } else { Sent::Among })
    }

    fn went(&mut self, sent: Sent) {
        self.in_flight += 1;
        self.count += 1;
        self.is_alone = sent != Sent::Among;
        self.sent_at = Some(Instant::now());
    }

    fn is_stale(&self) -> bool {
        self.sent_at.is_none_or(|at| at.elapsed() >= STALE)
    }

    fn is_idle(&self) -> bool {
        let was_refused = self.suspect.as_ref().is_some_and(|s| s.refused_at.elapsed() < SUSPECT);
        self.in_flight == 0 && self.waiting.is_empty() && !was_refused
    }
}

impl Turns {
    /// Whether a lane does not know yet that a message of its failed.
    pub(super) fn is_fenced(&self) -> bool {
        !self.failed.is_empty() || self.tellers > 0
    }

    pub(super) fn does_any_wait(&self) -> bool {
        self.waiting > 0
    }

    pub(super) fn does_any_wait_in(&self, topic: &str) -> bool {
        self.topics.get(topic).is_some_and(|turn| !turn.waiting.is_empty())
    }

    /// Hands a message over by `produce`, or keeps it until its turn.
    pub(super) fn take(
        &mut self,
        message: &Message,
        ticket: Ticket,
        produce: impl FnOnce(&Message, Ticket, Sent) -> Produced,
    ) -> Result<Taken, (Failure, Ticket)> {
        if self.is_fenced() {
            return Err((Failure::Busy("messages before it failed".to_owned()), ticket));
        }
        let turn = self.topics.entry(message.topic.clone()).or_default();
        if let Some(sent) = turn.next(message.payload.len()).filter(|_| turn.waiting.is_empty()) {
            let produced = produce(message, ticket, sent);
            if produced.is_ok() {
                turn.went(sent);
            } else if turn.is_idle() {
                self.topics.remove(&message.topic);
            }
            return produced.map(|()| Taken::HandedOver);
        }
        if self.waiting >= WAITING {
            return Err((Failure::Busy("too many messages wait for their turn".to_owned()), ticket));
        }
        turn.waiting.push_back((message.clone(), ticket));
        self.waiting += 1;
        Ok(if self.waiting == 1 { Taken::WaitsFirst } else { Taken::Waits })
    }

    /// A broker refused the batch of a message of this size, for what is in it. The largest is suspect first; where batches are refused
    /// without it, what is smaller is.
    pub(super) fn refused(&mut self, topic: &Text, size: usize, sent: Sent) -> Meant {
        let turn = self.topics.entry(topic.clone()).or_default();
        let of_one_batch = |s: &&Suspect| s.refused_at.elapsed() < ONE_BATCH;
        let known = turn.suspect.as_ref();
        if sent == Sent::Alone(turn.count) {
            let least = known.map_or(size, |s| s.size.min(size));
            turn.suspect = Some(Suspect { size: least, refused_at: Instant::now() });
            return Meant::This;
        }
        let most = known.filter(of_one_batch).map_or(size, |s| s.size.max(size));
        turn.suspect = Some(Suspect { size: most, refused_at: Instant::now() });
        Meant::AnyOfTheBatch
    }

    /// A message of this topic is not in flight any more: it may be another one's turn.
    pub(super) fn ended(&mut self, topic: &str, produce: impl FnMut(&Message, Ticket, Sent) -> Produced) {
        let Some(turn) = self.topics.get_mut(topic) else { return };
        turn.in_flight = turn.in_flight.saturating_sub(1);
        flush(turn, &mut self.waiting, &mut self.failed, produce);
        if turn.is_idle() {
            self.topics.remove(topic);
        }
    }

    /// Where a message in flight takes too long, it is the next one's turn.
    pub(super) fn flush_stale(&mut self, mut produce: impl FnMut(&Message, Ticket, Sent) -> Produced) {
        for turn in self.topics.values_mut().filter(|turn| turn.is_stale()) {
            turn.is_alone = false;
            if let Some((message, _)) = turn.waiting.front()
                && turn.next(message.payload.len()).is_none()
            {
                flush_one(turn, &mut self.waiting, &mut self.failed, Sent::Among, &mut produce);
            }
            flush(turn, &mut self.waiting, &mut self.failed, &mut produce);
        }
        self.topics.retain(|_, turn| !turn.is_idle());
    }

    /// There is no client: all that waits fails, as `produce` says.
    pub(super) fn fail_all(&mut self, mut produce: impl FnMut(&Message, Ticket, Sent) -> Produced) {
        for turn in self.topics.values_mut() {
            while flush_one(turn, &mut self.waiting, &mut self.failed, Sent::Among, &mut produce) {}
        }
    }

    /// There is another client, with nothing in flight.
    pub(super) fn begin_anew(&mut self) {
        self.topics.values_mut().for_each(|turn| turn.in_flight = 0);
        self.topics.retain(|_, turn| !turn.is_idle());
    }

    #[cfg(test)]
    pub(super) fn fail(&mut self, failure: Failure, ticket: Ticket) {
        self.failed.push((failure, ticket));
    }

    /// What failed before it was sent. Where there is any, the fence stands until [`told`](Self::told).
    pub(super) fn begin_to_tell(&mut self) -> Vec<(Failure, Ticket)> {
        let failed = std::mem::take(&mut self.failed);
        self.tellers += usize::from(!failed.is_empty());
        failed
    }

    pub(super) fn told(&mut self) {
        self.tellers = self.tellers.saturating_sub(1);
    }
}

/// Produces what waits, in order, as far as it may go.
fn flush(
    turn: &mut Turn,
    waiting: &mut usize,
    failed: &mut Vec<(Failure, Ticket)>,
    mut produce: impl FnMut(&Message, Ticket, Sent) -> Produced,
) {
    while let Some(sent) = turn.waiting.front().and_then(|(message, _)| turn.next(message.payload.len())) {
        if !flush_one(turn, waiting, failed, sent, &mut produce) {
            return;
        }
    }
}

/// Produces the first that waits. Whether another one may follow.
fn flush_one(
    turn: &mut Turn,
    waiting: &mut usize,
    failed: &mut Vec<(Failure, Ticket)>,
    sent: Sent,
    produce: &mut impl FnMut(&Message, Ticket, Sent) -> Produced,
) -> bool {
    let Some((message, ticket)) = turn.waiting.pop_front() else { return false };
    *waiting -= 1;
    match produce(&message, ticket, sent) {
        Ok(()) => turn.went(sent),
        // It waits on: whoever comes next, an acknowledgement or `STALE`, tries again.
        Err((Failure::Busy(_), ticket)) => {
            *waiting += 1;
            turn.waiting.push_front((message, ticket));
            return false;
        }
        Err((failure, ticket)) => {
            let rest = match &failure {
                Failure::Unfit(_) => None,
                Failure::Refused(_) | Failure::Full(_) => {
                    Some(Failure::Unavailable("one before it was refused".to_owned()))
                }
                Failure::Unavailable(_) | Failure::Unanswered(_) | Failure::Busy(_) | Failure::Broken(_) => {
                    Some(failure.clone())
                }
            };
            failed.push((failure, ticket));
            if let Some(rest) = rest {
                *waiting -= turn.waiting.len();
                let others = std::mem::take(&mut turn.waiting).into_iter();
                failed.extend(others.map(|(_, ticket)| (rest.clone(), ticket)));
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
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
    }

    fn take(turns: &mut Turns, client: &mut Client, topic: &str, size: usize) -> Taken {
        let message = Message {
            topic: topic.into(),
            key: "vehicle".into(),
            id: uuid::Uuid::nil(),
            headers: Headers::default(),
            payload: vec![7; size].into(),
        };
        let taken = turns.take(&message, Ticket::new(Arc::new(Nobody), 0), client.produce());
        taken.map_err(|(failure, ticket)| (failure, ticket.withdraw())).expect("taken")
    }

    #[test]
    fn after_a_refusal_what_is_as_large_as_the_largest_is_sent_alone_and_other_topics_wait_for_nothing() {
        let (mut turns, mut client) = (Turns::default(), Client::default());
        for size in [10, 90, 10] {
            assert_eq!(take(&mut turns, &mut client, "a", size), Taken::HandedOver);
        }
        for size in [10, 90, 10] {
            assert_eq!(turns.refused(&"a".into(), size, Sent::Among), Meant::AnyOfTheBatch);
            turns.ended("a", client.produce());
        }
        assert_eq!(take(&mut turns, &mut client, "a", 10), Taken::HandedOver);
        assert_eq!(take(&mut turns, &mut client, "a", 90), Taken::WaitsFirst, "until it would be alone");
        assert_eq!(take(&mut turns, &mut client, "a", 10), Taken::Waits, "behind it");
        assert_eq!(take(&mut turns, &mut client, "b", 90), Taken::HandedOver);
        assert_eq!((turns.does_any_wait_in("a"), turns.does_any_wait_in("b")), (true, false));
        turns.ended("a", client.produce());
        let ("a", 90, sent @ Sent::Alone(_)) = client.last() else { panic!("{:?}", client.0) };
        assert_eq!(turns.refused(&"a".into(), 90, sent), Meant::This);
        turns.ended("a", client.produce());
        assert_eq!(client.last(), ("a", 10, Sent::Among));
        assert!(!turns.does_any_wait());
    }

    #[test]
    fn what_was_joined_by_others_because_it_hung_is_not_judged_by_its_batch() {
        let (mut turns, mut client) = (Turns::default(), Client::default());
        take(&mut turns, &mut client, "a", 10);
        turns.refused(&"a".into(), 10, Sent::Among);
        turns.ended("a", client.produce());
        take(&mut turns, &mut client, "a", 10);
        let (_, _, sent @ Sent::Alone(_)) = client.last() else { panic!("{:?}", client.0) };
        take(&mut turns, &mut client, "a", 10);
        turns.flush_stale(client.produce());
        assert!(turns.does_any_wait(), "it is not late yet");
        turns.topics.values_mut().for_each(|turn| turn.sent_at = None);
        turns.flush_stale(client.produce());
        assert_eq!(client.last(), ("a", 10, Sent::Among));
        assert_eq!(turns.refused(&"a".into(), 10, sent), Meant::AnyOfTheBatch);
    }

    #[test]
    fn where_batches_are_refused_without_the_largest_what_is_smaller_is_suspect() {
        let (mut turns, mut client) = (Turns::default(), Client::default());
        let past = |turns: &mut Turns| {
            turns.topics.values_mut().filter_map(|turn| turn.suspect.as_mut()).for_each(|s| {
                s.refused_at = s.refused_at.checked_sub(ONE_BATCH).expect("a clock that ran");
            });
        };
        take(&mut turns, &mut client, "a", 90);
        turns.refused(&"a".into(), 90, Sent::Among);
        past(&mut turns);
        turns.refused(&"a".into(), 20, Sent::Among);
        turns.ended("a", client.produce());
        take(&mut turns, &mut client, "a", 30);
        assert!(matches!(client.last(), ("a", 30, Sent::Alone(_))));
    }
}
