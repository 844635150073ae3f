//! The front: the newest key time of each (account, type, subject). What is newer is new without a look-up. Sound because
//! every remembered id is either at or below its subject's front, or, where that is not held (stored before this process
//! began, or evicted), at or below the *ceiling* of its account and type, or in a *mixed* hour. Bound: `memory` bytes.

use foldhash::{HashMap, HashSet};

use super::reach::Reach;
use super::tail::{Bucket, HOUR_MS, Kind};
use crate::event::{EventType, Millis, Text};

/// What one entry takes beside its subject's text: key, time, counters and the map's slack.
const ENTRY_BYTES: u64 = 112;

/// Whether an event can be new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Newness {
    /// Nothing of its subject that is remembered is as new.
    New,
    /// Look it up.
    Unsure,
}

type Subjects = HashMap<Text, i64>;

/// See the module. Beside the subjects it holds one ceiling an account and type, and the mixed hours within the horizon.
#[derive(Debug)]
pub struct Front {
    subjects: HashMap<Kind, Subjects>,
    ceilings: HashMap<Kind, i64>,
    /// Hours with ids that no subject's front speaks for: ahead of their receipt, or of several subjects.
    mixed: HashSet<Bucket>,
    held: u64,
    most: u64,
}

impl Front {
    /// An empty one of at most `memory` bytes.
    pub fn new(memory: u64) -> Self {
        Self {
            subjects: HashMap::default(),
            ceilings: HashMap::default(),
            mixed: HashSet::default(),
            held: 0,
            most: memory.max(64 * ENTRY_BYTES),
        }
    }

    /// Ids of this hour were stored by an earlier process, whose ids of this account and type reached so far.
    pub fn seen_before(&mut self, bucket: &Bucket, reach: Reach) {
        self.raise(bucket.kind(), reach.newest);
        let begin = bucket.hour.saturating_mul(HOUR_MS);
        if begin > reach.newest || (bucket.end() > reach.newest && reach.is_ahead()) {
            self.mix(bucket);
        }
    }

    /// Whether an event at `time` can be new without a look-up.
    pub fn newness(&self, bucket: &Bucket, subject: &Text, time: Millis) -> Newness {
        if self.mixed.contains(bucket) {
            return Newness::Unsure;
        }
        let kind = bucket.kind();
        let held = self.subjects.get(&kind).and_then(|subjects| subjects.get(subject));
        let newest = held.or_else(|| self.ceilings.get(&kind));
        if newest.is_none_or(|newest| time.0 > *newest) { Newness::New } else { Newness::Unsure }
    }

    /// An event of `subject` alone at `time` was remembered.
    pub fn advance(&mut self, bucket: &Bucket, subject: &Text, time: Millis) {
        let kind = bucket.kind();
        let ceiling = self.ceilings.get(&kind).copied().unwrap_or(i64::MIN);
        let subjects = self.subjects.entry(kind).or_default();
        if let Some(newest) = subjects.get_mut(subject) {
            *newest = (*newest).max(time.0);
            return;
        }
        subjects.insert(subject.clone(), time.0.max(ceiling));
        self.held += bytes(subject);
        if self.held > self.most {
            self.evict();
        }
    }

    /// An event of which its subject's front cannot tell was remembered: its hour is looked up from now on.
    pub fn mix(&mut self, bucket: &Bucket) {
        if !self.mixed.contains(bucket) {
            self.mixed.insert(bucket.clone());
        }
    }

    /// Hours that have gone from the store.
    pub fn expired(&mut self, oldest_hour: impl Fn(EventType) -> i64) {
        self.mixed.retain(|bucket| bucket.hour >= oldest_hour(bucket.event_type));
    }

    fn raise(&mut self, kind: Kind, time: i64) {
        let ceiling = self.ceilings.entry(kind).or_insert(i64::MIN);
        *ceiling = (*ceiling).max(time);
    }

    /// Lets a quarter go where most is held, so that no account costs a smaller one its fronts; the oldest, so that what
    /// comes next is above the ceiling which they raise.
    fn evict(&mut self) {
        let Some((kind, subjects)) = self.subjects.iter_mut().max_by_key(|(_, subjects)| subjects.len())
        else {
            return;
        };
        let mut times: Vec<i64> = subjects.values().copied().collect();
        let quarter = times.len() / 4;
        let (_, oldest, _) = times.select_nth_unstable(quarter);
        let oldest = *oldest;
        let mut freed = 0;
        subjects.retain(|subject, time| {
            let stays = *time > oldest;
            freed += if stays { 0 } else { bytes(subject) };
            stays
        });
        // The map's own room is part of the estimate only while it is not much larger than what it holds.
        subjects.shrink_to(subjects.len() * 2);
        self.held = self.held.saturating_sub(freed);
        let kind = kind.clone();
        self.raise(kind, oldest);
    }
}

fn bytes(subject: &str) -> u64 {
    ENTRY_BYTES + subject.len() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::AccountId;

    fn bucket(time: i64) -> Bucket {
        Bucket {
            account: AccountId::new("acme"),
            event_type: EventType::Position,
            hour: time.div_euclid(HOUR_MS),
        }
    }

    fn subject(number: u32) -> Text {
        format!("3500000{number:08}").into()
    }

    fn newness(front: &Front, number: u32, time: i64) -> Newness {
        front.newness(&bucket(time), &subject(number), Millis(time))
    }

    fn advance(front: &mut Front, number: u32, time: i64) {
        front.advance(&bucket(time), &subject(number), Millis(time));
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
        let reach = Reach { newest: 10 * HOUR_MS + 5, ahead: i64::MIN };
        front.seen_before(&bucket(10 * HOUR_MS), reach);
        assert_eq!(newness(&front, 1, 10 * HOUR_MS + 5), Newness::Unsure);
        advance(&mut front, 1, 5);
        assert_eq!(newness(&front, 1, 10 * HOUR_MS + 5), Newness::Unsure);
        assert_eq!(newness(&front, 1, 10 * HOUR_MS + 6), Newness::New);
    }

    #[test]
    fn after_a_restart_an_hour_that_may_hold_what_was_ahead_is_looked_up() {
        let mut front = Front::new(1 << 20);
        let reach = Reach { newest: 10 * HOUR_MS + 5, ahead: 12 * HOUR_MS + 5 };
        for hour in [10, 12] {
            front.seen_before(&bucket(hour * HOUR_MS), reach);
        }
        assert_eq!(newness(&front, 1, 10 * HOUR_MS + 6), Newness::Unsure);
        assert_eq!(newness(&front, 1, 11 * HOUR_MS), Newness::New);
        assert_eq!(newness(&front, 1, 12 * HOUR_MS), Newness::Unsure);
        assert_eq!(newness(&front, 1, 13 * HOUR_MS), Newness::New);
    }

    #[test]
    fn two_hundred_thousand_subjects_stay_within_memory_and_none_remembered_is_called_new() {
        let memory = 4 << 20;
        let mut front = Front::new(memory);
        for number in 0..200_000 {
            advance(&mut front, number, i64::from(number));
            assert!(front.held <= memory);
        }
        let counted: u64 = front.subjects.values().flat_map(HashMap::keys).map(|key| bytes(key)).sum();
        assert_eq!(front.held, counted);
        assert!(counted > memory / 2, "it holds what it may");
        let sound = (0..200_000).all(|number| newness(&front, number, i64::from(number)) == Newness::Unsure);
        assert!(sound, "no remembered time is ever called new");
        assert_eq!(newness(&front, 7, 200_000), Newness::New, "what is newer than all still is");
    }

    #[test]
    fn a_large_account_does_not_cost_a_small_one_its_fronts() {
        let mut front = Front::new(1 << 20);
        let small = Bucket { account: AccountId::new("small"), ..bucket(0) };
        front.advance(&small, &subject(1), Millis(1));
        for number in 0..50_000 {
            advance(&mut front, number, 1_000 + i64::from(number));
        }
        assert_eq!(front.newness(&small, &subject(1), Millis(2)), Newness::New);
        assert_eq!(front.ceilings.len(), 1);
    }

    #[test]
    fn a_mixed_hour_is_looked_up_until_it_expires() {
        let mut front = Front::new(1 << 20);
        front.mix(&bucket(7 * HOUR_MS));
        assert_eq!(newness(&front, 1, 7 * HOUR_MS), Newness::Unsure);
        assert_eq!(newness(&front, 1, 8 * HOUR_MS), Newness::New);
        front.expired(|_| 8);
        assert_eq!(newness(&front, 1, 7 * HOUR_MS), Newness::New);
    }
}
