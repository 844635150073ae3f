//! The tail: the ids remembered since the last fold, and those that were forgotten. In memory, and journalled by the
//! worker one row a group commit. What is being folded stays here until it can be found on disk. Ids are kept as 96 of
//! the 122 bits that differ between them: among a hundred million ids and as many look-ups the chance of a single false
//! match is below 10⁻¹².

use std::sync::Arc;

use foldhash::HashMap;
use uuid::Uuid;

use super::Candidate;
use super::reach::{Reach, Reaches};
use crate::event::{AccountId, EventType, Millis};

/// An hour in ms.
pub const HOUR_MS: i64 = 3_600_000;
/// Ids since the last fold that are held at most, some 34 bytes each, and as many again while they are folded: reached
/// only where the disk does not keep up; what comes then is not remembered.
const MOST: usize = 2_000_000;
/// Entries that wait for the worker: beyond it they are in memory only until the next fold.
const MOST_UNWRITTEN: usize = 500_000;
/// Forgotten ids held at most.
const MOST_FORGOTTEN: usize = 1_000_000;

/// An id as it is kept.
pub type Short = [u8; 12];

/// 96 bits of an id: its first twelve bytes, those two that hold version and variant replaced by the next two.
pub fn short(id: &Uuid) -> Short {
    let bytes = id.as_bytes();
    let mut short = [0; 12];
    short.copy_from_slice(&bytes[..12]);
    (short[6], short[8]) = (bytes[12], bytes[13]);
    short
}

/// What has a time of its own.
pub type Kind = (AccountId, EventType);

/// Where ids are kept together.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bucket {
    /// Whose.
    pub account: AccountId,
    /// Their type.
    pub event_type: EventType,
    /// Hours since 1970 of their key time; of remembering, where they have none: those are looked for in every hour.
    pub hour: i64,
}

impl Bucket {
    /// The bucket of an event.
    pub fn of(candidate: &Candidate, otherwise: Millis) -> Self {
        let time = candidate.dated.key_time().unwrap_or(otherwise);
        Self { account: candidate.account.clone(), event_type: candidate.event_type, hour: hour_of(time) }
    }

    /// That of another hour.
    pub fn of_hour(&self, hour: i64) -> Self {
        Self { hour, ..self.clone() }
    }

    /// Whose, and of which type.
    pub fn kind(&self) -> Kind {
        (self.account.clone(), self.event_type)
    }

    /// When its hour ends, in ms since 1970.
    pub fn end(&self) -> i64 {
        self.hour.saturating_add(1).saturating_mul(HOUR_MS)
    }
}

/// Hours since 1970.
pub const fn hour_of(time: Millis) -> i64 {
    time.0.div_euclid(HOUR_MS)
}

/// Maps that ids are spread over: one of half a million ids would hold every request up for some ten milliseconds each time it grows.
const SHARDS: usize = 64;

/// Ids, each with the place of its bucket.
#[derive(Debug)]
struct Placed {
    shards: Vec<HashMap<Short, u32>>,
    count: usize,
}

impl Default for Placed {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| HashMap::default()).collect(), count: 0 }
    }
}

impl Placed {
    /// Ids are hashes: any byte of theirs spreads them.
    fn shard(id: &Short) -> usize {
        usize::from(id[0]) % SHARDS
    }

    /// False where it was there.
    fn insert(&mut self, id: Short, place: u32) -> bool {
        let new = self.shards[Self::shard(&id)].insert(id, place).is_none();
        self.count += usize::from(new);
        new
    }

    fn contains(&self, id: &Short) -> bool {
        self.shards[Self::shard(id)].contains_key(id)
    }

    fn iter(&self) -> impl Iterator<Item = (&Short, &u32)> {
        self.shards.iter().flatten()
    }
}

/// Ids that are folded together.
#[derive(Debug, Default)]
pub struct Generation {
    ids: Placed,
    buckets: Vec<Bucket>,
    places: HashMap<Bucket, u32>,
}

impl Generation {
    /// False where it was there.
    fn insert(&mut self, bucket: &Bucket, id: Short) -> bool {
        let place = if let Some(place) = self.places.get(bucket) {
            *place
        } else {
            let place = u32::try_from(self.buckets.len()).unwrap_or(u32::MAX);
            self.buckets.push(bucket.clone());
            self.places.insert(bucket.clone(), place);
            place
        };
        self.ids.insert(id, place)
    }

    /// Its buckets, each with its ids in order. Takes its time: not to be called under a lock.
    pub fn sorted(&self) -> Vec<(Bucket, Vec<Short>)> {
        let mut sorted: Vec<(Bucket, Vec<Short>)> =
            self.buckets.iter().map(|bucket| (bucket.clone(), Vec::new())).collect();
        for (id, place) in self.ids.iter() {
            if let Some((_, ids)) = sorted.get_mut(*place as usize) {
                ids.push(*id);
            }
        }
        for (_, ids) in &mut sorted {
            ids.sort_unstable();
        }
        sorted
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Tail {
    fresh: Generation,
    folding: Option<Arc<Generation>>,
    folds: u64,
    forgotten: HashMap<Short, i64>,
    reaches: Reaches,
    unwritten: Unwritten,
}

/// What the worker is to write.
#[derive(Debug, Default)]
pub struct Unwritten {
    /// Remembered.
    pub entered: Vec<(Bucket, Short)>,
    /// Forgotten, with the time; none where it was remembered again.
    pub forgotten: HashMap<Short, Option<i64>>,
    /// How far the kinds reach whose reach has grown.
    pub reaches: Vec<(Kind, Reach)>,
}

impl Unwritten {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.entered.is_empty() && self.forgotten.is_empty() && self.reaches.is_empty()
    }
}

impl Tail {
    /// Whether one of these is known, as far as memory can tell.
    pub fn knows(&self, checks: &[Uuid]) -> bool {
        checks.iter().map(short).any(|id| self.holds(&id) && !self.forgotten.contains_key(&id))
    }

    /// Those of these that are worth a look on disk.
    pub fn worth_a_look(&self, checks: &[Uuid]) -> Vec<Short> {
        checks.iter().map(short).filter(|id| !self.forgotten.contains_key(id)).collect()
    }

    fn holds(&self, id: &Short) -> bool {
        self.fresh.ids.contains(id) || self.folding.as_ref().is_some_and(|folding| folding.ids.contains(id))
    }

    /// Remembers ids of this reach, none where they have no time; how many could not be.
    pub fn enter(&mut self, bucket: &Bucket, enters: &[Uuid], reach: Option<Reach>) -> u64 {
        if let Some(reach) = reach {
            self.reaches.raise(bucket, reach);
        }
        self.enter_short(bucket, enters.iter().map(short))
    }

    fn enter_short(&mut self, bucket: &Bucket, enters: impl Iterator<Item = Short>) -> u64 {
        let mut left_out = 0;
        for id in enters {
            if self.fresh.ids.count >= MOST && !self.fresh.ids.contains(&id) {
                left_out += 1;
                continue;
            }
            if self.forgotten.remove(&id).is_some() {
                self.unwritten.forgotten.insert(id, None);
            }
            if self.fresh.insert(bucket, id) {
                if self.unwritten.entered.len() < MOST_UNWRITTEN {
                    self.unwritten.entered.push((bucket.clone(), id));
                } else {
                    left_out += 1;
                }
            }
        }
        left_out
    }

    /// Remembers ids as of now that were found on disk, but for those that were forgotten meanwhile; how many could not be.
    pub fn renew(&mut self, bucket: &Bucket, there: &[Short]) -> u64 {
        let known: Vec<Short> =
            there.iter().filter(|id| !self.forgotten.contains_key(*id)).copied().collect();
        self.enter_short(bucket, known.into_iter())
    }

    /// Forgets; how many could not be.
    pub fn forget(&mut self, ids: &[Uuid], now: Millis) -> u64 {
        let mut left_out = 0;
        for id in ids.iter().map(short) {
            if self.forgotten.len() >= MOST_FORGOTTEN && !self.forgotten.contains_key(&id) {
                left_out += 1;
                continue;
            }
            self.forgotten.insert(id, now.0);
            self.unwritten.forgotten.insert(id, Some(now.0));
        }
        left_out
    }

    /// Puts back what an earlier process wrote down.
    pub fn restore(&mut self, bucket: &Bucket, id: Short) {
        self.fresh.insert(bucket, id);
    }

    /// Whether it counts as unknown, though it was remembered.
    pub fn has_forgotten(&self, id: Uuid) -> bool {
        self.forgotten.contains_key(&short(&id))
    }

    /// Puts back what an earlier process forgot.
    pub fn restore_forgotten(&mut self, id: Short, at: i64) {
        self.forgotten.insert(id, at);
    }

    /// Puts back how far an earlier process says that a kind reaches.
    pub fn restore_reach(&mut self, kind: Kind, reach: Reach) {
        self.reaches.restore(kind, reach);
    }

    /// How far the kinds reach of which these hours are stored.
    pub fn reaches(&mut self, stored: &[Bucket], now: Millis) -> &Reaches {
        self.reaches.assume(stored, now);
        &self.reaches
    }

    /// Everything since the last fold, by buckets, each with its ids in order.
    pub fn sorted(&self) -> Vec<(Bucket, Vec<Short>)> {
        self.fresh.sorted()
    }

    /// What was forgotten, and when.
    pub fn forgotten(&self) -> impl Iterator<Item = (Short, i64)> {
        self.forgotten.iter().map(|(id, at)| (*id, *at))
    }

    /// What is to be written.
    pub fn unwritten(&mut self) -> Unwritten {
        let reaches = self.reaches.unwritten();
        Unwritten { reaches, ..std::mem::take(&mut self.unwritten) }
    }

    /// What could not be written waits for the next time; how many ids find no room.
    pub fn not_written(&mut self, unwritten: Unwritten) -> u64 {
        let room = MOST_UNWRITTEN.saturating_sub(self.unwritten.entered.len());
        let left_out = unwritten.entered.len().saturating_sub(room);
        self.unwritten.entered.extend(unwritten.entered.into_iter().take(room));
        for (id, at) in unwritten.forgotten {
            // What was decided meanwhile stands.
            self.unwritten.forgotten.entry(id).or_insert(at);
        }
        self.reaches.not_written(unwritten.reaches.iter().map(|(kind, _)| kind));
        left_out as u64
    }

    /// The file was begun anew: what is forgotten is to be written again, and how far the kinds reach.
    pub fn write_again(&mut self) {
        self.reaches.write_again();
        self.unwritten.forgotten = self.forgotten.iter().map(|(id, at)| (*id, Some(*at))).collect();
    }

    /// What is to be folded: all that is remembered until now, or what could not be folded the last time.
    pub fn freeze(&mut self) -> Arc<Generation> {
        let fresh = &mut self.fresh;
        Arc::clone(self.folding.get_or_insert_with(|| Arc::new(std::mem::take(fresh))))
    }

    /// Whether a fold has begun and not ended.
    pub fn is_folding(&self) -> bool {
        self.folding.is_some()
    }

    /// What was folded can be found on disk. To be dropped where no lock is held.
    pub fn folded(&mut self) -> Option<Arc<Generation>> {
        self.folds += 1;
        self.folding.take()
    }

    /// How often ids have gone from here to the disk.
    pub fn folds(&self) -> u64 {
        self.folds
    }

    /// Ids older than `before` are nowhere remembered any more.
    pub fn expire(&mut self, before: i64) {
        self.forgotten.retain(|_, at| *at >= before);
        self.reaches.expire(before);
    }

    /// How many ids wait for the next fold.
    pub fn len(&self) -> usize {
        self.fresh.ids.count
    }

    /// The buckets that wait for the next fold.
    pub fn buckets(&self) -> impl Iterator<Item = &Bucket> {
        self.fresh.buckets.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> Uuid {
        Uuid::new_v5(&Uuid::NAMESPACE_URL, &[number])
    }

    fn bucket() -> Bucket {
        Bucket { account: AccountId::new("acme"), event_type: EventType::Trip, hour: 1 }
    }

    #[test]
    fn what_is_kept_of_an_id_has_neither_version_nor_variant() {
        let same = [0, 1].map(|n| short(&Uuid::from_u128((0x5000_u128 << 64 | 0x8 << 60) * n)));
        assert_eq!(same[0], same[1]);
        let (all, none) = (short(&Uuid::max()), short(&Uuid::nil()));
        assert!(all.iter().zip(none).all(|(a, b)| *a == 0xff && b == 0));
    }

    #[test]
    fn the_last_word_about_an_id_is_what_is_written() {
        let mut tail = Tail::default();
        tail.forget(&[id(1), id(2)], Millis(5));
        tail.enter(&bucket(), &[id(1), id(2)], None);
        tail.forget(&[id(1)], Millis(6));
        let unwritten = tail.unwritten();
        assert_eq!(unwritten.forgotten[&short(&id(1))], Some(6));
        assert_eq!(unwritten.forgotten[&short(&id(2))], None);
        // A write that failed does not undo what came after it.
        tail.enter(&bucket(), &[id(1)], None);
        assert_eq!(tail.not_written(unwritten), 0);
        let unwritten = tail.unwritten();
        assert_eq!(unwritten.forgotten[&short(&id(1))], None);
        assert_eq!(unwritten.entered.len(), 2);
    }

    #[test]
    fn what_could_not_be_folded_stays_known_and_is_folded_before_what_came_later() {
        let mut tail = Tail::default();
        tail.enter(&bucket(), &[id(1)], None);
        let first = tail.freeze();
        tail.enter(&bucket(), &[id(2)], None);
        assert!(tail.knows(&[id(1)]) && tail.knows(&[id(2)]));
        assert!(Arc::ptr_eq(&first, &tail.freeze()));
        tail.folded();
        assert!(!tail.knows(&[id(1)]) && tail.knows(&[id(2)]));
        assert_eq!(tail.freeze().sorted(), [(bucket(), vec![short(&id(2))])]);
    }
}
