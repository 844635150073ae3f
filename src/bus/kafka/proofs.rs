//! Which partitions have stored something of this client, so that their brokers know its numbers. Where one does not, a batch is taken
//! though the one before it failed, as where the partition was just made or has too few replicas for a moment; and librdkafka reports
//! both as stored (ADR 0016). Invariant: a lane has one message in flight until its partition is known to be one of them; so what was
//! not stored is sent again before anything that came after it. Pure, but for `now`.

use std::time::{Duration, Instant};

use foldhash::HashMap;
use rdkafka::Statistics;
use rdkafka::statistics::Topic;

use crate::bus::Window;
use crate::event::Text;

/// Brokers forget a producer that is still for `producer.id.expiration.ms`: a day, and hardly anybody makes it less than this.
const LASTS: Duration = Duration::from_secs(3_600);

/// See the module.
#[derive(Default)]
pub(super) struct Proofs {
    /// Per topic, for each partition when it last stored something.
    topics: HashMap<Text, Vec<Option<Instant>>>,
}

impl Proofs {
    /// How many partitions topics have, as the client knows it.
    pub(super) fn look(&mut self, statistics: &Statistics) {
        for (topic, told) in &statistics.topics {
            self.topics.entry(topic.as_str().into()).or_default().resize(partitions_of(told), None);
        }
    }

    /// A partition stored a message at a place that it told.
    pub(super) fn stored(&mut self, topic: &str, partition: i32, now: Instant) {
        let place = usize::try_from(partition).ok();
        let proof = place.and_then(|place| self.topics.get_mut(topic)?.get_mut(place));
        if let Some(proof) = proof {
            *proof = Some(now);
        }
    }

    /// How many messages of a key may be in flight.
    pub(super) fn window(&self, topic: &str, key: &str, now: Instant) -> Window {
        let partitions = self.topics.get(topic).map_or(&[][..], Vec::as_slice);
        let stored_at = partitions.get(partition_of(key.as_bytes(), partitions.len())).copied().flatten();
        match stored_at {
            Some(at) if now.saturating_duration_since(at) < LASTS => Window::Unlimited,
            Some(_) | None => Window::One,
        }
    }

    /// The topic may be another one when it takes messages again.
    pub(super) fn forget(&mut self, topic: &str) {
        if let Some(partitions) = self.topics.get_mut(topic) {
            partitions.fill(None);
        }
    }

    /// There is another client.
    pub(super) fn begin_anew(&mut self) {
        self.topics.clear();
    }
}

/// How many partitions the client knows of. Beside them is one for what has no partition yet.
pub(super) fn partitions_of(told: &Topic) -> usize {
    told.partitions.keys().filter(|partition| **partition >= 0).count()
}

/// Where the client puts a key: its partitioner is `murmur2_random`, that of Java clients.
pub(super) fn partition_of(key: &[u8], partitions: usize) -> usize {
    (murmur2(key) & 0x7fff_ffff) as usize % partitions.max(1)
}

/// Kafka's: `org.apache.kafka.common.utils.Utils.murmur2`.
fn murmur2(key: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let (words, rest) = key.as_chunks::<4>();
    // What is longer than 4 GiB is no key.
    let seed = 0x9747_b28c ^ u32::try_from(key.len()).unwrap_or(u32::MAX);
    let mut hash = words.iter().fold(seed, |hash, word| {
        let word = u32::from_le_bytes(*word).wrapping_mul(M);
        hash.wrapping_mul(M) ^ (word ^ (word >> 24)).wrapping_mul(M)
    });
    if !rest.is_empty() {
        let tail = rest.iter().rev().fold(0, |tail, byte| (tail << 8) | u32::from(*byte));
        hash = (hash ^ tail).wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use rdkafka::statistics::Partition;

    use super::*;

    fn told(partitions: i32) -> Statistics {
        let partitions = (-1..partitions).map(|number| (number, Partition::default())).collect();
        let topic = Topic { partitions, ..Topic::default() };
        Statistics { topics: [("fleet.position".to_owned(), topic)].into(), ..Statistics::default() }
    }

    /// Those that librdkafka compares itself with Java's by.
    #[test]
    fn keys_are_where_the_client_puts_them() {
        let known: [(&str, u32); 8] = [
            ("kafka", 0xd067_cf64),
            ("giberish123456789", 0x8f55_2b0c),
            ("1234", 0x9fc9_7b14),
            ("234", 0xe7c0_09ca),
            ("34", 0x8739_30da),
            ("4", 0x5a4b_5ca1),
            ("PreAmbleWillBeRemoved,ThePrePartThatIs", 0x7842_4f1c),
            ("", 0x106e_08d9),
        ];
        for (key, expected) in known {
            assert_eq!(murmur2(key.as_bytes()), expected, "{key}");
        }
    }

    #[test]
    fn a_key_has_one_message_in_flight_until_its_partition_stored_one() {
        let (mut proofs, now) = (Proofs::default(), Instant::now());
        let place = i32::try_from(partition_of(b"350000000000017", 6)).unwrap();
        let window = |proofs: &Proofs, at| proofs.window("fleet.position", "350000000000017", at);
        proofs.stored("fleet.position", place, now);
        assert_eq!(window(&proofs, now), Window::One, "nobody knows how many partitions there are");
        proofs.look(&told(6));
        proofs.stored("fleet.position", (place + 1) % 6, now);
        proofs.stored("fleet.position", -1, now);
        assert_eq!(window(&proofs, now), Window::One);
        proofs.stored("fleet.position", place, now);
        proofs.look(&told(6));
        assert_eq!(window(&proofs, now), Window::Unlimited);
        assert_eq!(window(&proofs, now + LASTS), Window::One, "its broker may have forgotten the client");
        proofs.forget("fleet.position");
        assert_eq!(window(&proofs, now), Window::One);
        proofs.stored("fleet.position", place, now);
        proofs.begin_anew();
        proofs.look(&told(6));
        assert_eq!(window(&proofs, now), Window::One);
    }
}
