//! An account's last states, from which news are told. Invariants: a state counts from the moment that it is decided, so that the
//! next one is compared with it, and is taken back where its event was neither delivered nor kept; no more are held than
//! [`MOST`], beyond which each looks like the first of its key. Neighbours: `identify` asks, `provider::state` compares.

use foldhash::{HashMap, HashSet};
use uuid::Uuid;

use crate::event::Millis;
use crate::provider::{self, Draft, LastState, Resolved, StateKey};

/// States of an account: some of each of 50,000 trackers and geofences, a kilobyte each with their row.
const MOST: usize = 200_000;

/// A state that was received after now was dated by a clock that was ahead: it was received so long ago at least.
const UNSURE: i64 = 60_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct States(HashMap<StateKey, Held>);

#[derive(Debug, Clone)]
struct Held {
    last: LastState,
    fate: Fate,
}

/// Whether what is held is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    Kept,
    /// Its event is under way; and what was kept before.
    Pending(Option<LastState>),
    /// The same, but its event has left the store undelivered meanwhile: its request does not make it durable.
    Gone(Option<LastState>),
}

impl States {
    pub(super) fn new(kept: impl IntoIterator<Item = (StateKey, LastState)>) -> Self {
        Self(kept.into_iter().map(|(key, last)| (key, Held { last, fate: Fate::Kept })).collect())
    }

    /// What a draft is, compared with the last state of its key, and the state that is to be [`kept`](Self::kept) or
    /// [`rejected`](Self::rejected) with its event: one that is news, or the same as another request has under way, whose fate is
    /// this one's, too.
    pub(super) fn resolve(
        &mut self,
        key: &StateKey,
        draft: Draft,
        now: Millis,
    ) -> (Resolved, Option<LastState>) {
        if let Some(held) = self.0.get_mut(key).filter(|held| held.last.received_at > now) {
            // Else nothing would replace it until that time has come.
            held.last.received_at = Millis(now.0.saturating_sub(UNSURE));
        }
        let held = self.0.get(key);
        let resolved = provider::resolve_state(draft, held.map(|held| &held.last));
        let under_way = held.filter(|held| held.fate != Fate::Kept).map(|held| held.last.clone());
        let unsettled = match &resolved {
            Resolved::Event { new_last, .. } => {
                new_last.iter().for_each(|news| self.decide(key, news.clone()));
                new_last.clone()
            }
            Resolved::Duplicate { new_last, .. } => {
                new_last.iter().for_each(|again| self.seen(key, again.clone()));
                under_way
            }
            Resolved::Silent { new_last } => {
                new_last.iter().for_each(|again| self.seen(key, again.clone()));
                None
            }
        };
        (resolved, unsettled)
    }

    /// It was decided that this is news.
    fn decide(&mut self, key: &StateKey, last: LastState) {
        let full = self.0.len() >= MOST;
        match self.0.get_mut(key) {
            Some(held) => {
                let before = match std::mem::replace(&mut held.fate, Fate::Kept) {
                    Fate::Kept => Some(std::mem::replace(&mut held.last, last)),
                    Fate::Pending(before) | Fate::Gone(before) => {
                        held.last = last;
                        before
                    }
                };
                held.fate = Fate::Pending(before);
            }
            None if full => {}
            None => {
                self.0.insert(key.clone(), Held { last, fate: Fate::Pending(None) });
            }
        }
    }

    /// The last state was told again, later: what was received before that does not replace it. (Not written down: after a restart
    /// it was told when it was told first.)
    fn seen(&mut self, key: &StateKey, again: LastState) {
        if let Some(held) = self.0.get_mut(key).filter(|held| held.last.id == again.id) {
            held.last = again;
        }
    }

    /// The event of a state that was decided is durable. What is to be written down of its key, where it is the newest.
    pub(super) fn kept(&mut self, key: &StateKey, state: &LastState) -> Option<LastState> {
        let full = self.0.len() >= MOST;
        let is_gone = |held: &Held| held.last.id == state.id && matches!(held.fate, Fate::Gone(_));
        if self.0.get(key).is_some_and(is_gone) {
            return self.rejected(key, state);
        }
        let Some(held) = self.0.get_mut(key) else {
            // Another one that said the same was rejected, and took it back.
            if !full {
                self.0.insert(key.clone(), Held { last: state.clone(), fate: Fate::Kept });
            }
            return (!full).then(|| state.clone());
        };
        match &mut held.fate {
            Fate::Pending(_) | Fate::Kept if held.last.id == state.id => held.fate = Fate::Kept,
            // Another one came after it, and is under way.
            Fate::Pending(before) | Fate::Gone(before) => {
                *before = Some(state.clone());
                return None;
            }
            // As above, or another one came after it and was quicker.
            Fate::Kept if state.received_at > held.last.received_at => held.last = state.clone(),
            Fate::Kept => return None,
        }
        Some(state.clone())
    }

    /// The event of a state that was decided was neither delivered nor kept: its sender comes again, and is to find what was. What
    /// is to be written down of its key.
    pub(super) fn rejected(&mut self, key: &StateKey, state: &LastState) -> Option<LastState> {
        let held = self.0.get_mut(key).filter(|held| held.last.id == state.id)?;
        match std::mem::replace(&mut held.fate, Fate::Kept) {
            Fate::Kept => None,
            Fate::Pending(Some(before)) | Fate::Gone(Some(before)) => {
                held.last = before;
                Some(held.last.clone())
            }
            Fate::Pending(None) | Fate::Gone(None) => {
                self.0.remove(key);
                None
            }
        }
    }

    /// Events with these ids left the store undelivered: their states are news again when they come. The keys of what was kept.
    pub(super) fn forget(&mut self, ids: &HashSet<Uuid>) -> Vec<StateKey> {
        let mut forgotten = Vec::new();
        self.0.retain(|key, held| {
            let goes = ids.contains(&held.last.id);
            match &mut held.fate {
                Fate::Kept => {
                    if goes {
                        forgotten.push(key.clone());
                    }
                    return !goes;
                }
                Fate::Pending(before) | Fate::Gone(before) => {
                    // It is what is on disk, until the one under way is durable.
                    if before.take_if(|before| ids.contains(&before.id)).is_some() {
                        forgotten.push(key.clone());
                    }
                }
            }
            if goes && let Fate::Pending(before) = &mut held.fate {
                held.fate = Fate::Gone(before.take());
            }
            true
        });
        forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{AccountId, EventType, pb};
    use crate::provider::{
        Context, Directory, Feed, Identity, Outcome, Provider, PullApi, Source, StateKind,
    };

    fn key() -> StateKey {
        StateKey {
            subject: "350000000000001".into(),
            event_type: EventType::Tracker,
            kind: StateKind::Update,
            format: "linxup.push.v3".into(),
        }
    }

    fn state(number: u128) -> LastState {
        let received_at = Millis(i64::try_from(number).unwrap());
        LastState { id: Uuid::from_u128(number), compared: number.to_string(), received_at }
    }

    /// The last state, and whether its event is under way.
    #[derive(Debug, PartialEq, Eq)]
    enum Last<'a> {
        Kept(&'a LastState),
        Pending(&'a LastState),
    }

    impl States {
        fn last(&self, key: &StateKey) -> Option<Last<'_>> {
            self.0.get(key).map(|held| match held.fate {
                Fate::Kept => Last::Kept(&held.last),
                Fate::Pending(_) | Fate::Gone(_) => Last::Pending(&held.last),
            })
        }
    }

    fn pending(state: &LastState) -> Option<Last<'_>> {
        Some(Last::Pending(state))
    }

    #[test]
    fn what_was_decided_is_what_the_next_one_is_compared_with_and_kept_once_it_is_durable() {
        let (mut states, one, two) = (States::new([(key(), state(1))]), state(1), state(2));
        assert_eq!(states.last(&key()), Some(Last::Kept(&one)));
        states.decide(&key(), state(2));
        assert_eq!(states.last(&key()), pending(&two));
        assert_eq!(states.kept(&key(), &two), Some(state(2)));
        assert_eq!(states.last(&key()), Some(Last::Kept(&two)));
    }

    /// A row of the trackers' list.
    fn tracker(name: &str, received_at: Millis) -> (StateKey, Draft) {
        let context = Context {
            account: &AccountId::new("acme"),
            channel: pb::origin::Channel::Poll,
            received_at,
            directory: &Directory::default(),
        };
        let source = Source::Pull { api: PullApi::V2, feed: Feed::Trackers };
        let row = format!(r#"{{"imei":"350000000000001","firstName":"{name}"}}"#);
        let decoded = provider::decode(Provider::Linxup, &source, row.as_bytes(), &context);
        let Outcome::Events(mut drafts) = decoded.outcome else { panic!("{decoded:?}") };
        let draft = drafts.pop().unwrap();
        let Identity::State(state) = &draft.identity else { panic!("{draft:?}") };
        (state.key.clone(), draft)
    }

    #[test]
    fn a_state_that_a_clock_dated_that_was_ahead_is_replaced_by_the_next_one() {
        let (now, ahead) = (Millis(1_767_009_600_000), Millis(1_767_009_600_000 + 3_600_000));
        let mut states = States::default();
        let mut told = |name: &str, received_at: Millis, now: Millis| {
            let (key, draft) = tracker(name, received_at);
            let (resolved, decided) = states.resolve(&key, draft, now);
            decided.iter().for_each(|state| drop(states.kept(&key, state)));
            matches!(resolved, Resolved::Event { .. })
        };
        assert!(told("red", ahead, ahead));
        assert!(told("blue", now, now), "it is right again");
        assert!(told("red", Millis(now.0 + 1), Millis(now.0 + 1)), "and not what it was an hour from now");
        let long_ago = Millis(now.0 - 3_600_000);
        assert!(told("green", long_ago, Millis(now.0 + 2)), "raw, and decoded again");
        assert!(!told("red", Millis(now.0 + 3), Millis(now.0 + 3)), "what is older replaces nothing");
    }

    #[test]
    fn what_is_told_again_is_dated_by_it() {
        let mut states = States::new([(key(), state(1))]);
        let again = LastState { received_at: Millis(9), ..state(1) };
        states.seen(&key(), again.clone());
        states.seen(&key(), state(2));
        assert_eq!(states.last(&key()), Some(Last::Kept(&again)));
    }

    #[test]
    fn what_was_rejected_is_taken_back_to_what_was_kept() {
        let (one, two, three) = (state(1), state(2), state(3));
        let mut states = States::default();
        states.decide(&key(), state(1));
        states.rejected(&key(), &one);
        assert_eq!(states.last(&key()), None);

        let mut states = States::new([(key(), state(1))]);
        states.decide(&key(), state(2));
        states.decide(&key(), state(3));
        states.rejected(&key(), &two);
        assert_eq!(states.last(&key()), pending(&three), "another one came after it");
        states.rejected(&key(), &three);
        assert_eq!(states.last(&key()), Some(Last::Kept(&one)));
    }

    #[test]
    fn of_two_that_are_under_way_the_later_counts_in_whichever_order_they_become_durable() {
        let (two, three) = (state(2), state(3));
        let mut states = States::new([(key(), state(1))]);
        states.decide(&key(), state(2));
        states.decide(&key(), state(3));
        assert_eq!(states.kept(&key(), &two), None, "what comes after it will be written down");
        assert_eq!(states.rejected(&key(), &three), Some(state(2)), "and now it is");
        assert_eq!(states.last(&key()), Some(Last::Kept(&two)));

        let mut states = States::new([(key(), state(1))]);
        states.decide(&key(), state(2));
        states.decide(&key(), state(3));
        assert_eq!(states.kept(&key(), &three), Some(state(3)));
        assert_eq!(states.kept(&key(), &two), None);
        states.rejected(&key(), &three);
        assert_eq!(states.last(&key()), Some(Last::Kept(&three)), "a copy of it was durable");
    }

    #[test]
    fn of_two_that_say_the_same_the_one_that_is_durable_counts() {
        for before in [None, Some(state(1))] {
            let mut states = States::new(before.map(|before| (key(), before)));
            states.decide(&key(), state(2));
            states.rejected(&key(), &state(2));
            assert_eq!(states.kept(&key(), &state(2)), Some(state(2)));
            assert_eq!(states.last(&key()), Some(Last::Kept(&state(2))));
        }
    }

    #[test]
    fn what_left_the_store_is_news_again() {
        let mut states = States::new([(key(), state(1))]);
        let gone = |number| HashSet::from_iter([Uuid::from_u128(number)]);
        assert!(states.forget(&gone(2)).is_empty());
        assert_eq!(states.forget(&gone(1)), [key()]);
        assert_eq!(states.last(&key()), None);

        let mut states = States::new([(key(), state(1))]);
        states.decide(&key(), state(2));
        assert_eq!(states.forget(&gone(1)), [key()], "it is on disk");
        states.rejected(&key(), &state(2));
        assert_eq!(states.last(&key()), None, "what was before is not gone back to");
    }

    #[test]
    fn what_left_the_store_before_its_request_had_ended_is_news_again() {
        let gone = || HashSet::from_iter([Uuid::from_u128(2)]);
        for before in [None, Some(state(1))] {
            let mut states = States::new(before.clone().map(|before| (key(), before)));
            states.decide(&key(), state(2));
            assert!(states.forget(&gone()).is_empty(), "it is not on disk");
            assert_eq!(states.kept(&key(), &state(2)), before);
            assert_eq!(states.last(&key()), before.as_ref().map(Last::Kept));
            // A copy that came meanwhile, and was published.
            assert_eq!(states.kept(&key(), &state(2)), Some(state(2)));
            assert_eq!(states.last(&key()), Some(Last::Kept(&state(2))));
        }
    }

    #[test]
    fn no_more_are_held_than_the_bound() {
        let of = |number: usize| StateKey { subject: number.to_string(), ..key() };
        let mut states = States::new((0..MOST).map(|number| (of(number), state(1))));
        states.decide(&of(MOST), state(2));
        assert_eq!(states.last(&of(MOST)), None);
        states.decide(&of(0), state(2));
        assert_eq!(states.last(&of(0)), pending(&state(2)), "what is known changes on");
    }
}
