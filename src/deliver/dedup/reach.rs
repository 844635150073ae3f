//! How far the ids of each (account, type) reach in time: kept in `seen.db`, so that after a restart what is newer than all
//! that is stored is new without a look-up. Invariant: no stored id's key time is beyond its kind's reach; where nothing is
//! written down of a kind, its hours are taken to be full. Neighbours: `tail`, which holds it; `front`, which begins with it.

use foldhash::HashMap;

use super::tail::{Bucket, HOUR_MS, Kind};
use crate::event::Millis;

/// A key time further ahead of receipt than this says nothing about what is newest.
const AHEAD_MS: i64 = 300_000;

/// See the module. In ms since 1970; `i64::MIN` where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// The newest key time, of ids that are not ahead.
    pub newest: i64,
    /// The newest key time of those that were ahead of their receipt.
    pub ahead: i64,
}

impl Reach {
    const NONE: Self = Self { newest: i64::MIN, ahead: i64::MIN };

    /// That of one id.
    pub fn of(key_time: Millis, received_at: Millis) -> Self {
        if key_time.0.saturating_sub(received_at.0) > AHEAD_MS {
            Self { ahead: key_time.0, ..Self::NONE }
        } else {
            Self { newest: key_time.0, ..Self::NONE }
        }
    }

    /// That of a full hour.
    fn of_hour(bucket: &Bucket, now: Millis) -> Self {
        Self::of(
            Millis(bucket.end()),
            Millis(now.0.div_euclid(HOUR_MS).saturating_add(1).saturating_mul(HOUR_MS)),
        )
    }

    /// Whether it is ahead of its receipt.
    pub fn is_ahead(self) -> bool {
        self.ahead > self.newest
    }

    fn with(self, other: Self) -> Self {
        Self { newest: self.newest.max(other.newest), ahead: self.ahead.max(other.ahead) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    Written,
    Unwritten,
}

/// The reach of each kind. Bound: accounts × types within the horizon.
#[derive(Debug, Default)]
pub struct Reaches(HashMap<Kind, (Reach, Kept)>);

impl Reaches {
    /// An id is remembered.
    pub fn raise(&mut self, bucket: &Bucket, reach: Reach) {
        let (held, kept) = self.0.entry(bucket.kind()).or_insert((Reach::NONE, Kept::Unwritten));
        let raised = held.with(reach);
        if raised != *held {
            (*held, *kept) = (raised, Kept::Unwritten);
        }
    }

    /// Puts back what an earlier process wrote down.
    pub fn restore(&mut self, kind: Kind, reach: Reach) {
        self.0.insert(kind, (reach, Kept::Written));
    }

    /// Takes the stored hours to be full, of each kind of which nothing was written down.
    pub fn assume(&mut self, stored: &[Bucket], now: Millis) {
        let mut assumed = Self::default();
        for bucket in stored.iter().filter(|bucket| !self.0.contains_key(&bucket.kind())) {
            assumed.raise(bucket, Reach::of_hour(bucket, now));
        }
        self.0.extend(assumed.0);
    }

    /// That of a bucket's kind.
    pub fn of(&self, bucket: &Bucket) -> Reach {
        self.0.get(&bucket.kind()).map_or(Reach::NONE, |(reach, _)| *reach)
    }

    /// What is to be written; counts as written from now on.
    pub fn unwritten(&mut self) -> Vec<(Kind, Reach)> {
        let unwritten = self.0.iter_mut().filter(|(_, (_, kept))| *kept == Kept::Unwritten);
        unwritten
            .map(|(kind, (reach, kept))| {
                *kept = Kept::Written;
                (kind.clone(), *reach)
            })
            .collect()
    }

    /// These could not be written.
    pub fn not_written<'a>(&mut self, kinds: impl Iterator<Item = &'a Kind>) {
        for kind in kinds {
            if let Some((_, kept)) = self.0.get_mut(kind) {
                *kept = Kept::Unwritten;
            }
        }
    }

    /// The file was begun anew: all is to be written again.
    pub fn write_again(&mut self) {
        self.0.values_mut().for_each(|(_, kept)| *kept = Kept::Unwritten);
    }

    /// Kinds none of whose ids is as new as this have none left.
    pub fn expire(&mut self, before: i64) {
        self.0.retain(|_, (reach, _)| reach.newest.max(reach.ahead) >= before);
    }
}
