//! Who is handed to the client when: everything at once, but what is as large as the largest of a batch that a broker refused for its
//! size. For a while that is sent alone in its partition, for only then it is known which message the broker means. Invariants: one
//! key's messages are handed over in the order in which they came; another partition's wait for none of them, once it is known how many
//! there are; what waits is bounded; nothing is taken after a message that failed until its lane knows. ADR 0008.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use foldhash::HashMap;
use rdkafka::Statistics;

use super::Produced;
use super::proofs::{partition_of, partitions_of};
use crate::bus::{Failure, Message, Ticket};
use crate::event::Text;

/// Messages that wait for their turn, of all topics, and their bytes: past their deadline no memory permit counts them.
const WAITING: Load = Load { count: 65_536, bytes: 32 << 20 };
/// A message in flight this long does not hold back those that wait: a partition may hang. Longer than brokers that are well take,
/// far away as they may be, else none would ever be in flight alone.
pub(super) const STALE: Duration = Duration::from_secs(1);
/// How long after a refusal what is as large is sent alone.
const SUSPECT: Duration = Duration::from_secs(10);
/// Refusals that follow each other so closely are those of one batch.
const ONE_BATCH: Duration = Duration::from_millis(50);

/// Of a topic's partitions, one; of which nothing else is sent while it must be alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    index: usize,
    /// The topic's, when it was handed over.
    era: u64,
}

/// How a message was handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sent {
    place: Place,
    how: How,
}

#[cfg(test)]
impl Sent {
    /// Of a topic of which nothing is known.
    pub(super) const fn among() -> Self {
        Self { place: Place { index: 0, era: 0 }, how: How::Among }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// With others, perhaps.
    Among,
    /// By itself, as this one of its place: what the broker says of its batch, it says of this message, unless more followed.
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
    /// Whose partitions are known, of which something is in flight or waits, or of which a batch was refused lately.
    topics: HashMap<Text, Topic>,
    waiting: Load,
    /// To be told outside of every lane's critical section. Until their lanes know, nothing more is taken: a later message
    /// must not overtake one that failed.
    failed: Vec<(Failure, Ticket)>,
    /// Threads that tell some of them at the moment.
    tellers: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Load {
    count: usize,
    bytes: usize,
}

impl Load {
    const fn add(&mut self, message: &Message) {
        self.count += 1;
        self.bytes += message.payload.len();
    }

    const fn take(&mut self, message: &Message) {
        self.count -= 1;
        self.bytes -= message.payload.len();
    }

    const fn is_full(self) -> bool {
        self.count >= WAITING.count || self.bytes >= WAITING.bytes
    }
}

/// One topic's.
struct Topic {
    /// One for each partition; one for all of them while nobody knows how many there are.
    turns: Vec<Turn>,
    is_known: bool,
    /// Rises when it is told of another number of partitions.
    era: u64,
    /// In flight since an era before: nobody knows in which partition.
    elsewhere: usize,
}

/// One partition's.
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
#[derive(Clone, Copy)]
struct Suspect {
    size: usize,
    refused_at: Instant,
}

impl Default for Topic {
    fn default() -> Self {
        Self { turns: vec![Turn::default()], is_known: false, era: 0, elsewhere: 0 }
    }
}

impl Topic {
    /// Where the client puts this message.
    fn place_of(&self, message: &Message) -> Place {
        Place { index: partition_of(message.key.as_bytes(), self.turns.len()), era: self.era }
    }

    /// There are so many partitions: none, where that is not known. What waits of one key waits in one place, in order, before and after.
    fn partitioned(&mut self, partitions: usize) {
        let turns = partitions.max(1);
        self.is_known = partitions > 0;
        if turns == self.turns.len() {
            return;
        }
        let old = std::mem::take(&mut self.turns);
        let suspect = old.iter().filter_map(|turn| turn.suspect).max_by_key(|suspect| suspect.refused_at);
        self.turns.resize_with(turns, || Turn { suspect, ..Turn::default() });
        self.era += 1;
        self.elsewhere += old.iter().map(|turn| turn.in_flight).sum::<usize>();
        for (message, ticket) in old.into_iter().flat_map(|turn| turn.waiting) {
            let Place { index, .. } = self.place_of(&message);
            self.turns[index].waiting.push_back((message, ticket));
        }
    }

    fn is_idle(&self) -> bool {
        !self.is_known && self.elsewhere == 0 && self.turns.iter().all(Turn::is_idle)
    }
}

impl Turn {
    /// How a message of this size may go now, beside so many that may be of this place, too; none where it has to wait.
    fn next(&self, size: usize, elsewhere: usize) -> Option<How> {
        let is_suspect = |s: &Suspect| size >= s.size && s.refused_at.elapsed() < SUSPECT;
        let alone = self.suspect.as_ref().is_some_and(is_suspect);
        if self.in_flight > 0 && (alone || self.is_alone) || elsewhere > 0 && alone {
            return None;
        }
        Some(if alone { How::Alone(self.count + 1) } else { How::Among })
    }

    fn went(&mut self, how: How) {
        self.in_flight += 1;
        self.count += 1;
        self.is_alone = how != How::Among;
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

    pub(super) const fn does_any_wait(&self) -> bool {
        self.waiting.count > 0
    }

    /// Whether any waits where this key's messages go.
    pub(super) fn does_any_wait_for(&self, topic: &str, key: &str) -> bool {
        let topic = self.topics.get(topic);
        let turn = topic.and_then(|topic| topic.turns.get(partition_of(key.as_bytes(), topic.turns.len())));
        turn.is_some_and(|turn| !turn.waiting.is_empty())
    }

    /// How many partitions topics have, as the client knows it.
    pub(super) fn look(&mut self, statistics: &Statistics) {
        for (topic, told) in &statistics.topics {
            self.topics.entry(topic.as_str().into()).or_default().partitioned(partitions_of(told));
        }
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
        let topic = self.topics.entry(message.topic.clone()).or_default();
        let place = topic.place_of(message);
        let turn = &mut topic.turns[place.index];
        let how = turn.next(message.payload.len(), topic.elsewhere);
        if let Some(how) = how.filter(|_| turn.waiting.is_empty()) {
            let produced = produce(message, ticket, Sent { place, how });
            if produced.is_ok() {
                turn.went(how);
            } else if topic.is_idle() {
                self.topics.remove(&message.topic);
            }
            return produced.map(|()| Taken::HandedOver);
        }
        if self.waiting.is_full() {
            return Err((Failure::Busy("too many messages wait for their turn".to_owned()), ticket));
        }
        turn.waiting.push_back((message.clone(), ticket));
        self.waiting.add(message);
        Ok(if self.waiting.count == 1 { Taken::WaitsFirst } else { Taken::Waits })
    }

    /// The broker of this partition refused the batch of a message of this size, for what is in it. The largest is suspect first; where
    /// batches are refused without it, what is smaller is.
    pub(super) fn refused(&mut self, topic: &Text, partition: i32, size: usize, sent: Sent) -> Meant {
        let topic = self.topics.entry(topic.clone()).or_default();
        let Place { index, era } = sent.place;
        let is_there = !topic.is_known || usize::try_from(partition) == Ok(index);
        let Some(turn) = topic.turns.get_mut(index).filter(|_| era == topic.era && is_there) else {
            return Meant::AnyOfTheBatch;
        };
        let of_one_batch = |s: &&Suspect| s.refused_at.elapsed() < ONE_BATCH;
        let known = turn.suspect.as_ref();
        if sent.how == How::Alone(turn.count) {
            let least = known.map_or(size, |s| s.size.min(size));
            turn.suspect = Some(Suspect { size: least, refused_at: Instant::now() });
            return Meant::This;
        }
        let most = known.filter(of_one_batch).map_or(size, |s| s.size.max(size));
        turn.suspect = Some(Suspect { size: most, refused_at: Instant::now() });
        Meant::AnyOfTheBatch
    }

    /// The broker takes nothing of this topic: neither what waits, which would go out behind what was not taken.
    pub(super) fn topic_refused(&mut self, topic: &str) {
        let turns = self.topics.get_mut(topic).map_or(&mut [][..], |topic| &mut topic.turns);
        for turn in turns {
            give_up(turn, &mut self.waiting, &mut self.failed, &one_before_was_refused());
        }
    }

    /// A message of this topic is not in flight any more: it may be another one's turn.
    pub(super) fn ended(
        &mut self,
        topic: &str,
        sent: Sent,
        mut produce: impl FnMut(&Message, Ticket, Sent) -> Produced,
    ) {
        let Some(of) = self.topics.get_mut(topic) else { return };
        let Place { index, era } = sent.place;
        match of.turns.get_mut(index).filter(|_| era == of.era) {
            Some(turn) => {
                turn.in_flight = turn.in_flight.saturating_sub(1);
                flush(of, index, &mut self.waiting, &mut self.failed, &mut produce);
            }
            None => {
                of.elsewhere = of.elsewhere.saturating_sub(1);
                for index in 0..of.turns.len() {
                    flush(of, index, &mut self.waiting, &mut self.failed, &mut produce);
                }
            }
        }
        if of.is_idle() {
            self.topics.remove(topic);
        }
    }

    /// Where a message in flight takes too long, it is the next one's turn.
    pub(super) fn flush_stale(&mut self, mut produce: impl FnMut(&Message, Ticket, Sent) -> Produced) {
        for topic in self.topics.values_mut() {
            for index in 0..topic.turns.len() {
                let turn = &mut topic.turns[index];
                if !turn.is_stale() {
                    continue;
                }
                turn.is_alone = false;
                if let Some((message, _)) = turn.waiting.front()
                    && turn.next(message.payload.len(), topic.elsewhere).is_none()
                {
                    let sent = Sent { place: Place { index, era: topic.era }, how: How::Among };
                    flush_one(turn, &mut self.waiting, &mut self.failed, sent, &mut produce);
                }
                flush(topic, index, &mut self.waiting, &mut self.failed, &mut produce);
            }
        }
        self.topics.retain(|_, topic| !topic.is_idle());
    }

    /// There is no client: all that waits fails.
    pub(super) fn fail_all(&mut self, failure: &Failure) {
        for turn in self.topics.values_mut().flat_map(|topic| &mut topic.turns) {
            give_up(turn, &mut self.waiting, &mut self.failed, failure);
        }
    }

    /// There is another client, with nothing in flight; it will tell how many partitions there are.
    pub(super) fn begin_anew(&mut self) {
        for topic in self.topics.values_mut() {
            topic.turns.iter_mut().for_each(|turn| turn.in_flight = 0);
            topic.partitioned(0);
            topic.elsewhere = 0;
        }
        self.topics.retain(|_, topic| !topic.is_idle());
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

/// Produces what waits in one place of a topic, in order, as far as it may go.
fn flush(
    topic: &mut Topic,
    index: usize,
    waiting: &mut Load,
    failed: &mut Vec<(Failure, Ticket)>,
    mut produce: impl FnMut(&Message, Ticket, Sent) -> Produced,
) {
    let Some(turn) = topic.turns.get_mut(index) else { return };
    let place = Place { index, era: topic.era };
    let next = |turn: &Turn| {
        let (message, _) = turn.waiting.front()?;
        turn.next(message.payload.len(), topic.elsewhere)
    };
    while let Some(how) = next(turn) {
        if !flush_one(turn, waiting, failed, Sent { place, how }, &mut produce) {
            return;
        }
    }
}

/// Produces the first that waits. Whether another one may follow.
fn flush_one(
    turn: &mut Turn,
    waiting: &mut Load,
    failed: &mut Vec<(Failure, Ticket)>,
    sent: Sent,
    produce: &mut impl FnMut(&Message, Ticket, Sent) -> Produced,
) -> bool {
    let Some((message, ticket)) = turn.waiting.pop_front() else { return false };
    waiting.take(&message);
    match produce(&message, ticket, sent) {
        Ok(()) => turn.went(sent.how),
        // It waits on: whoever comes next, an acknowledgement or `STALE`, tries again.
        Err((Failure::Busy(_), ticket)) => {
            waiting.add(&message);
            turn.waiting.push_front((message, ticket));
            return false;
        }
        Err((failure, ticket)) => {
            let rest = match &failure {
                Failure::Unfit(_) => None,
                Failure::Refused(_) | Failure::Full(_) => Some(one_before_was_refused()),
                Failure::Unavailable(_) | Failure::Unanswered(_) | Failure::Busy(_) | Failure::Broken(_) => {
                    Some(failure.clone())
                }
            };
            failed.push((failure, ticket));
            if let Some(rest) = rest {
                give_up(turn, waiting, failed, &rest);
            }
        }
    }
    true
}

/// All that waits in one place fails.
fn give_up(turn: &mut Turn, waiting: &mut Load, failed: &mut Vec<(Failure, Ticket)>, failure: &Failure) {
    for (message, ticket) in turn.waiting.drain(..) {
        waiting.take(&message);
        failed.push((failure.clone(), ticket));
    }
}

fn one_before_was_refused() -> Failure {
    Failure::Unavailable("one before it was refused".to_owned())
}
