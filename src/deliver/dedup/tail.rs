//! The tail: the ids remembered since the last fold, by (account, type, hour of the key time), and the ids that were
//! forgotten. In memory, and journalled by the worker one row a group commit. Ids are kept as the first 12 of their 16
//! bytes: 96 bits, so that among a hundred million ids the chance of one false match is below 10⁻¹³.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::Candidate;
use crate::event::{AccountId, EventType, Millis};

/// An hour in ms.
pub const HOUR_MS: i64 = 3_600_000;
/// Entries that wait for the worker: beyond it ids are not written down (and not lost from memory before the next fold).
const MOST_UNWRITTEN: usize = 1_000_000;
/// Forgotten ids held at most.
const MOST_FORGOTTEN: usize = 1_000_000;

/// An id as it is kept.
pub type Short = [u8; 12];

/// The first 96 bits.
pub fn short(id: &Uuid) -> Short {
    let mut short = [0; 12];
    short.copy_from_slice(&id.as_bytes()[..12]);
    short
}

/// Where ids are kept together.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bucket {
    /// Whose.
    pub account: AccountId,
    /// Their type.
    pub event_type: EventType,
    /// Hours since 1970 of their key time; of remembering, where they have none.
    pub hour: i64,
}

impl Bucket {
    /// The bucket of an event.
    pub fn of(candidate: &Candidate, otherwise: Millis) -> Self {
        let time = candidate.key_time.unwrap_or(otherwise);
        let hour = time.0.div_euclid(HOUR_MS);
        Self { account: candidate.account.clone(), event_type: candidate.event_type, hour }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Tail {
    ids: HashSet<Short>,
    buckets: HashMap<Bucket, Vec<Short>>,
    forgotten: HashMap<Short, i64>,
    unwritten: Unwritten,
}

/// What the worker is to write.
#[derive(Debug, Default)]
pub struct Unwritten {
    /// Remembered.
    pub entered: Vec<(Bucket, Short)>,
    /// Forgotten, with the time.
    pub forgotten: Vec<(Short, i64)>,
    /// Remembered again after having been forgotten.
    pub recalled: Vec<Short>,
    /// Left out for want of room.
    pub left_out: u64,
}

impl Tail {
    /// Whether one of these is known, as far as memory can tell.
    pub fn knows(&self, checks: &[Uuid]) -> Option<bool> {
        let found =
            checks.iter().map(short).any(|id| self.ids.contains(&id) && !self.forgotten.contains_key(&id));
        found.then_some(true)
    }

    /// Those of these that are worth a look on disk.
    pub fn look_up(&self, checks: &[Uuid]) -> Vec<Short> {
        checks.iter().map(short).filter(|id| !self.forgotten.contains_key(id)).collect()
    }

    /// Remembers.
    pub fn enter(&mut self, bucket: &Bucket, enters: &[Uuid]) {
        for id in enters.iter().map(short) {
            if self.forgotten.remove(&id).is_some() {
                self.unwritten.recalled.push(id);
            }
            if self.ids.insert(id) {
                self.buckets.entry(bucket.clone()).or_default().push(id);
                if self.unwritten.entered.len() < MOST_UNWRITTEN {
                    self.unwritten.entered.push((bucket.clone(), id));
                } else {
                    self.unwritten.left_out += 1;
                }
            }
        }
    }

    /// Forgets.
    pub fn forget(&mut self, ids: &[Uuid], now: Millis) {
        for id in ids.iter().map(short) {
            if self.forgotten.len() < MOST_FORGOTTEN {
                self.forgotten.insert(id, now.0);
                self.unwritten.forgotten.push((id, now.0));
            }
        }
    }

    /// Puts back what an earlier process wrote down.
    pub fn restore(&mut self, bucket: &Bucket, id: Short) {
        if self.ids.insert(id) {
            self.buckets.entry(bucket.clone()).or_default().push(id);
        }
    }

    /// Puts back what an earlier process forgot.
    pub fn restore_forgotten(&mut self, id: Short, at: i64) {
        self.forgotten.insert(id, at);
    }

    /// What is to be written.
    pub fn unwritten(&mut self) -> Unwritten {
        std::mem::take(&mut self.unwritten)
    }

    /// A copy of all buckets, sorted, for the fold.
    pub fn copy(&self) -> Vec<(Bucket, Vec<Short>)> {
        let sorted = |(bucket, ids): (&Bucket, &Vec<Short>)| {
            let mut ids = ids.clone();
            ids.sort_unstable();
            (bucket.clone(), ids)
        };
        self.buckets.iter().map(sorted).collect()
    }

    /// What was folded, and can be found on disk now, leaves memory.
    pub fn folded(&mut self, folded: &[(Bucket, Vec<Short>)]) {
        for (bucket, ids) in folded {
            let gone: HashSet<&Short> = ids.iter().collect();
            if let Some(held) = self.buckets.get_mut(bucket) {
                held.retain(|id| !gone.contains(id));
                if held.is_empty() {
                    self.buckets.remove(bucket);
                }
            }
            for id in ids {
                self.ids.remove(id);
            }
        }
    }

    /// Forgotten ids older than `before` are nowhere remembered any more.
    pub fn expire_forgotten(&mut self, before: i64) {
        self.forgotten.retain(|_, at| *at >= before);
    }

    /// How many ids it holds.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Its buckets.
    pub fn buckets(&self) -> impl Iterator<Item = &Bucket> {
        self.buckets.keys()
    }
}
