//! The front: the newest key time of each (account, type, subject). What is newer is new without a look-up. Sound because
//! all that may ever have been remembered of a subject that is not held lies at or below its account's and type's
//! *ceiling*: what was stored before this process began, and what was evicted, raises it. Bound: `memory` bytes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::tail::{Bucket, HOUR_MS};
use crate::event::{AccountId, EventType, Millis};

/// What one entry takes, by estimate: key, subject's text, time, and the map's slack.
const ENTRY_BYTES: u64 = 160;

/// Whether an event can be new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Newness {
    /// Nothing of its subject that is remembered is as new.
    New,
    /// Look it up.
    Unsure,
}

type Subjects = HashMap<Arc<str>, i64>;

/// See the module.
#[derive(Debug)]
pub struct Front {
    subjects: HashMap<(AccountId, EventType), Subjects>,
    ceilings: HashMap<(AccountId, EventType), i64>,
    /// Hours that hold ids which were ahead of their receipt: their subjects' fronts did not move.
    ahead: HashSet<Bucket>,
    held: u64,
    most: u64,
}

impl Front {
    /// An empty one of at most `memory` bytes.
    pub fn new(memory: u64) -> Self {
        Self {
            subjects: HashMap::new(),
            ceilings: HashMap::new(),
            ahead: HashSet::new(),
            held: 0,
            most: (memory / ENTRY_BYTES).max(64),
        }
    }

    /// Ids of this hour were stored by an earlier process.
    pub fn seen_before(&mut self, bucket: &Bucket, now: Millis) {
        let end = (bucket.hour + 1) * HOUR_MS;
        if bucket.hour > now.0 / HOUR_MS {
            self.ahead.insert(bucket.clone());
        } else {
            self.raise(&(bucket.account.clone(), bucket.event_type), end);
        }
    }

    /// Whether an event at `time` can be new without a look-up.
    pub fn newness(
        &self,
        account: &AccountId,
        event_type: EventType,
        subject: &Arc<str>,
        time: Millis,
    ) -> Newness {
        let key = (account.clone(), event_type);
        let held = self.subjects.get(&key).and_then(|subjects| subjects.get(subject)).copied();
        let ceiling = self.ceilings.get(&key).copied();
        let newest = held.or(ceiling).unwrap_or(i64::MIN);
        let ahead = !self.ahead.is_empty()
            && self.ahead.contains(&Bucket { account: key.0, event_type, hour: time.0.div_euclid(HOUR_MS) });
        if time.0 > newest && !ahead { Newness::New } else { Newness::Unsure }
    }

    /// An event at `time` was remembered.
    pub fn advance(&mut self, account: &AccountId, event_type: EventType, subject: &Arc<str>, time: Millis) {
        let key = (account.clone(), event_type);
        let ceiling = self.ceilings.get(&key).copied().unwrap_or(i64::MIN);
        let subjects = self.subjects.entry(key).or_default();
        if let Some(newest) = subjects.get_mut(subject) {
            *newest = (*newest).max(time.0);
            return;
        }
        subjects.insert(Arc::clone(subject), time.0.max(ceiling));
        self.held += 1;
        if self.held > self.most {
            self.evict();
        }
    }

    /// An event far ahead of its receipt was remembered.
    pub fn ahead(&mut self, bucket: &Bucket) {
        self.ahead.insert(bucket.clone());
    }

    /// Hours that have gone from the store.
    pub fn expired(&mut self, oldest_hour: impl Fn(EventType) -> i64) {
        self.ahead.retain(|bucket| bucket.hour >= oldest_hour(bucket.event_type));
    }

    fn raise(&mut self, key: &(AccountId, EventType), time: i64) {
        let ceiling = self.ceilings.entry(key.clone()).or_insert(i64::MIN);
        *ceiling = (*ceiling).max(time);
    }

    /// Lets an eighth go: which does not matter for soundness, only for how much is looked up.
    fn evict(&mut self) {
        let mut quota = (self.most / 8).max(1);
        let mut raised = Vec::new();
        for (key, subjects) in &mut self.subjects {
            let victims: Vec<Arc<str>> = subjects.keys().take(quota as usize).cloned().collect();
            quota -= victims.len() as u64;
            for victim in victims {
                if let Some(time) = subjects.remove(&victim) {
                    raised.push((key.clone(), time));
                    self.held -= 1;
                }
            }
            if quota == 0 {
                break;
            }
        }
        for (key, time) in raised {
            self.raise(&key, time);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(number: u32) -> Arc<str> {
        number.to_string().into()
    }

    fn newness(front: &Front, number: u32, time: i64) -> Newness {
        front.newness(&AccountId::new("acme"), EventType::Position, &subject(number), Millis(time))
    }

    fn advance(front: &mut Front, number: u32, time: i64) {
        front.advance(&AccountId::new("acme"), EventType::Position, &subject(number), Millis(time));
    }

    #[test]
    fn only_what_is_newer_than_its_subject_is_new() {
        let mut front = Front::new(1 << 20);
        assert_eq!(newness(&front, 1, 5), Newness::New);
        advance(&mut front, 1, 10);
        assert_eq!(newness(&front, 1, 10), Newness::Unsure);
        assert_eq!(newness(&front, 1, 11), Newness::New);
        assert_eq!(newness(&front, 2, 5), Newness::New);
    }

    #[test]
    fn after_a_restart_nothing_up_to_what_was_stored_is_called_new() {
        let mut front = Front::new(1 << 20);
        let bucket = Bucket { account: AccountId::new("acme"), event_type: EventType::Position, hour: 10 };
        front.seen_before(&bucket, Millis(11 * HOUR_MS));
        assert_eq!(newness(&front, 1, 10 * HOUR_MS + 5), Newness::Unsure);
        advance(&mut front, 1, 5);
        assert_eq!(newness(&front, 1, 10 * HOUR_MS + 5), Newness::Unsure);
        assert_eq!(newness(&front, 1, 11 * HOUR_MS + 1), Newness::New);
    }

    #[test]
    fn what_is_evicted_is_looked_up_and_memory_is_bounded() {
        let mut front = Front::new(64 * ENTRY_BYTES);
        for number in 0..10_000 {
            advance(&mut front, number, i64::from(number));
        }
        assert!(front.held <= 64);
        let sound = (0..10_000).all(|number| newness(&front, number, i64::from(number)) == Newness::Unsure);
        assert!(sound, "no remembered time is ever called new");
    }

    #[test]
    fn an_hour_with_ids_ahead_of_their_receipt_is_looked_up() {
        let mut front = Front::new(1 << 20);
        let bucket = Bucket { account: AccountId::new("acme"), event_type: EventType::Position, hour: 7 };
        front.ahead(&bucket);
        assert_eq!(newness(&front, 1, 7 * HOUR_MS), Newness::Unsure);
        assert_eq!(newness(&front, 1, 8 * HOUR_MS), Newness::New);
        front.expired(|_| 8);
        assert_eq!(newness(&front, 1, 7 * HOUR_MS), Newness::New);
    }
}
