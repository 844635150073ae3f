//! From elements to events that can be delivered: decode a portion, decide which states are news, enrich, route, encode.
//! Invariants: about one key two requests decide one after the other, each with what the one before decided; the turn ends once its
//! events have entered their lanes. Neighbours: `accept` delivers, `states` keeps what was decided.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, timeout_at};

use super::portion::{self, Load};
use super::{Account, COME_AGAIN, Errand, Inner, Refusal, Way};
use crate::deliver::Arrival;
use crate::deliver::counts::Fate;
use crate::deliver::dedup::Candidate;
use crate::deliver::slot::Outgoing;
use crate::encode;
use crate::enrich;
use crate::event::ids::Ids;
use crate::event::{EventType, Millis, pb};
use crate::faults::{self, Bug};
use crate::provider::{
    self, Context, Draft, Element, Hint, Identity, LastState, Outcome, Pair, Resolved, StateKey,
};
use crate::replay::{LaneKey, ParkedRaw, RawReason};

/// Elements decoded, or events encoded, between two chances for other tasks.
const BREATH: usize = 64;
/// How long after its deadline a request may still wait for its turn: while the look-ups of another one hang, those that bear states
/// come to the end of their deadlines together, and park one after the other.
const TURN: Duration = Duration::from_millis(100);

/// What decoding made of elements.
#[derive(Default)]
pub(super) struct Decoded {
    pub(super) drafts: Vec<Draft>,
    pub(super) raw: Vec<ParkedRaw>,
    pub(super) news: Vec<Pair>,
    pub(super) unrecognized: u64,
    pub(super) undecodable: u64,
    pub(super) skipped: u64,
}

/// States that are news, or that another request has under way.
pub(super) type Decided = Vec<(StateKey, LastState)>;

/// Events that can be delivered.
#[derive(Default)]
pub(super) struct Identified {
    pub(super) arrivals: Vec<Arrival>,
    /// Known already.
    pub(super) same: u64,
    pub(super) decided: Decided,
    pub(super) turn: Option<OwnedMutexGuard<()>>,
}

impl Inner {
    /// As many elements as make a portion, and those that are left.
    pub(super) async fn decode<'a>(
        &self,
        account: &Account,
        way: &Way,
        elements: &'a [Element],
    ) -> (Decoded, &'a [Element]) {
        let mut all = Decoded::default();
        // Elements since the last chance for others, and the drafts that they became.
        let (mut rest, mut done, mut drafts, mut load) = (elements, 0, 0, Load::default());
        while let Some((element, later)) = rest.split_first().filter(|_| !load.is_full()) {
            rest = later;
            done += 1 + all.drafts.len() - drafts;
            drafts = all.drafts.len();
            if done >= BREATH {
                done = 0;
                tokio::task::yield_now().await;
            }
            let decoded = {
                let directory = account.directory.read();
                let context = Context {
                    account: &account.id,
                    channel: way.errand.channel(),
                    received_at: way.received_at,
                    directory: &directory,
                };
                provider::decode_element(account.provider, &way.source, element, &context)
            };
            if decoded.hint == Hint::Contradicts {
                self.deliverer.counts.contradicted_hints.fetch_add(1, Ordering::Relaxed);
            }
            if !decoded.learnt.is_empty() {
                all.news.extend(account.directory.write().learn(&decoded.learnt));
            }
            match decoded.outcome {
                Outcome::Events(drafts) => all.drafts.extend(drafts),
                Outcome::Skipped { drafts, .. } => {
                    all.skipped += 1;
                    all.drafts.extend(drafts);
                }
                Outcome::Unrecognized(why) => {
                    all.unrecognized += 1;
                    let body = element.bytes().clone();
                    all.raw.push(self.raw(account, way, RawReason::Unrecognized, why.into_owned(), body));
                }
                Outcome::Undecodable(why) => {
                    all.undecodable += 1;
                    let body = element.bytes().clone();
                    all.raw.push(self.raw(account, way, RawReason::Undecodable, why.into_owned(), body));
                }
            }
            load.add(element, all.drafts.len() - drafts);
        }
        (all, rest)
    }

    /// Gives states their ids, and routes and encodes: as many drafts as may be delivered together. Where states are among them, in
    /// the account's turn, which is waited for until the deadline.
    pub(super) async fn identify(
        &self,
        account: &Account,
        way: &Way,
        drafts: &mut std::vec::IntoIter<Draft>,
        deadline: Instant,
    ) -> Result<Identified, Refusal> {
        let mut identified = Identified::default();
        if drafts.as_slice().iter().any(|draft| matches!(draft.identity, Identity::State(_))) {
            let turn = timeout_at(deadline + TURN, Arc::clone(&account.turn).lock_owned()).await;
            identified.turn = Some(turn.map_err(|_| Refusal::NotKept { retry_after: COME_AGAIN })?);
        }
        let mut bytes = 0;
        for (at, draft) in drafts.enumerate() {
            if at % BREATH == BREATH - 1 {
                tokio::task::yield_now().await;
            }
            bytes += self.draft(account, way, draft, &mut identified);
            if bytes >= portion::BYTES {
                break;
            }
        }
        Ok(identified)
    }

    /// What becomes of one draft, and how many bytes that is.
    fn draft(&self, account: &Account, way: &Way, draft: Draft, identified: &mut Identified) -> usize {
        let event_type = draft.event_type;
        let (key, key_time) = match &draft.identity {
            Identity::Fact { key_time, .. } => (None, *key_time),
            Identity::State(state) => (Some(state.key.clone()), None),
        };
        let (resolved, unsettled) = match key {
            None => (provider::resolve_state(draft, None), None),
            Some(key) => {
                let (resolved, unsettled) = account.states.lock().resolve(&key, draft, crate::clock::now());
                (resolved, unsettled.map(|state| (key, state)))
            }
        };
        let (event, checks, enters) = match resolved {
            Resolved::Event { event, checks, enters, .. } => {
                identified.decided.extend(unsettled);
                (event, checks, enters)
            }
            Resolved::Duplicate { event, .. } => {
                let id = Ids::from_slice(&[event.id.parse().unwrap_or_default()]);
                match (way.errand, unsettled) {
                    (Errand::Republish, _) => (event, Ids::new(), id),
                    (Errand::Push | Errand::Poll | Errand::Backfill, Some(under_way)) => {
                        identified.decided.push(under_way);
                        (event, id.clone(), id)
                    }
                    (Errand::Push | Errand::Poll | Errand::Backfill, None) => {
                        identified.same += 1;
                        self.deliverer.counts.of(&account.id, event_type, |count| {
                            count.received(1);
                            count.met(Fate::Duplicate);
                        });
                        return 0;
                    }
                }
            }
            Resolved::Silent { .. } => return 0,
        };
        let event = enrich::enrich(event, &account.id, &self.shelf, self.largest);
        if faults::bug(Bug::OtherId) {
            let other = uuid::Uuid::now_v7();
            let event = pb::FleetEvent { id: other.to_string(), ..(*event).clone() };
            let ids = Ids::from_slice(&[other]);
            identified.arrivals.push(self.arrival(
                account,
                way,
                &event,
                event_type,
                key_time,
                ids.clone(),
                ids,
            ));
        }
        let arrival = self.arrival(account, way, &event, event_type, key_time, checks, enters);
        let bytes = arrival.outgoing.message.payload.len();
        identified.arrivals.push(arrival);
        bytes
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of one event, taken apart by the caller's match"
    )]
    fn arrival(
        &self,
        account: &Account,
        way: &Way,
        event: &pb::FleetEvent,
        event_type: EventType,
        key_time: Option<Millis>,
        checks: Ids,
        enters: Ids,
    ) -> Arrival {
        let topic = self.router.topic(account.provider, &account.id, event_type, &event.subject);
        // The event's own id comes first.
        let id = enters.first().copied().unwrap_or_default();
        let message =
            encode::encode(event, id, event_type, topic.clone(), self.router.kind(), way.trace.as_deref());
        let subject = message.key.clone();
        let lane = LaneKey { account: account.id.clone(), topic, subject: subject.clone() };
        let occur_ms = portion::occurred(event, way.received_at);
        let (checks, dated) = self.asked_of_dedup(way, event_type, checks, key_time);
        let candidate = Candidate {
            account: account.id.clone(),
            event_type,
            subject,
            dated,
            received_at: way.received_at,
            checks,
            enters: enters.clone(),
        };
        let trace = way.trace.clone();
        Arrival { outgoing: Outgoing { lane, event_type, occur_ms, enters, trace, message }, candidate }
    }
}
