//! What may have been published before, taken again: rows of a backfill (what dedup is asked about them), events that another store exported, and delivered ones that a consumer wants once
//! more. They are not decoded and keep their ids; topics are today's. The events of one lane keep the order in which they are given.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use tracing::Instrument as _;
use uuid::Uuid;

use super::portion::{self, Load};
use super::{Acceptance, COME_AGAIN, Errand, Inner, Receipt, Refusal, Way};
use crate::deliver::dedup::{Candidate, Dated};
use crate::deliver::lanes::Admission;
use crate::deliver::slot::Outgoing;
use crate::deliver::{Arrival, Sums};
use crate::encode;
use crate::event::ids::Ids;
use crate::event::pb::fleet_event::Body;
use crate::event::{AccountId, EventType, Millis, pb};
use crate::replay::LaneKey;
use crate::trace;

/// Whether what was published before is published again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Republish {
    /// What is known is a duplicate.
    New,
    /// Everything, whatever is remembered.
    All,
}

/// An event as it was published, or parked.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// The encoded `FleetEvent`.
    pub payload: Bytes,
    /// `traceparent`, where there was one.
    pub trace: Option<String>,
    /// Ids by which it may be known, beside its own.
    pub enters: Ids,
}

/// Why an encoded event cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// The bytes say nothing that this version knows.
    #[error("the payload is not an event of a known type with an id")]
    NotAnEvent,
    /// It is of nobody here.
    #[error("its account is not configured here")]
    UnknownAccount,
}

/// One event, read.
struct Read {
    event: pb::FleetEvent,
    id: Uuid,
    event_type: EventType,
    account: AccountId,
    encoded: Encoded,
}

impl Acceptance {
    /// Whether an event could be taken: its id, type and account.
    ///
    /// # Errors
    /// Why not.
    pub fn readable(&self, encoded: &Encoded) -> Result<(Uuid, EventType, AccountId), Unreadable> {
        let read = self.inner.read(encoded.clone())?;
        Ok((read.id, read.event_type, read.account))
    }

    /// Takes encoded events: to the bus, or to the end of their lanes in the store, as `admission` says. Those that are not
    /// [readable](Self::readable) are passed over.
    ///
    /// # Errors
    /// Where not all of them are durable: those that are will be known, or published twice with one id.
    pub async fn anew(
        &self,
        events: Vec<Encoded>,
        republish: Republish,
        admission: Admission,
    ) -> Result<Receipt, Refusal> {
        let inner = Arc::clone(&self.inner);
        self.detached(async move { inner.anew(events, republish, admission).await }).await
    }
}

impl Inner {
    /// What is fetched again on purpose is new, whatever is remembered. And what is older than dedup remembers by its time is
    /// remembered by the time of its coming: a backfill that was interrupted knows what it has published, what each answer of a
    /// feed has again is published once, and so is what a sender repeats.
    pub(super) fn asked_of_dedup(
        &self,
        way: &Way,
        event_type: EventType,
        checks: Ids,
        key_time: Option<Millis>,
    ) -> (Ids, Dated) {
        let by_key = |time: Millis| {
            let within = self.deliverer.dedup.is_within_horizon(event_type, time);
            match way.errand {
                Errand::Push if !within => Dated::Late(time),
                Errand::Poll | Errand::Backfill if !within => Dated::ByComing,
                Errand::Push | Errand::Poll | Errand::Backfill | Errand::Republish => Dated::ByKey(time),
            }
        };
        let checks = match way.errand {
            Errand::Push | Errand::Poll | Errand::Backfill => checks,
            Errand::Republish => Ids::new(),
        };
        (checks, key_time.map_or(Dated::ByComing, by_key))
    }

    fn read(&self, encoded: Encoded) -> Result<Read, Unreadable> {
        let event = pb::FleetEvent::decode(encoded.payload.clone()).map_err(|_| Unreadable::NotAnEvent)?;
        let id = event.id.parse().map_err(|_| Unreadable::NotAnEvent)?;
        let event_type = event.body.as_ref().map(EventType::of).ok_or(Unreadable::NotAnEvent)?;
        let account = event.origin.as_ref().map(|origin| AccountId::new(&origin.account));
        let account = account.filter(|account| self.accounts.load().contains_key(account));
        let account = account.ok_or(Unreadable::UnknownAccount)?;
        Ok(Read { event, id, event_type, account, encoded })
    }

    async fn anew(
        &self,
        events: Vec<Encoded>,
        republish: Republish,
        admission: Admission,
    ) -> Result<Receipt, Refusal> {
        let read: Vec<Read> = events.into_iter().filter_map(|encoded| self.read(encoded).ok()).collect();
        let mut weights: BTreeMap<AccountId, u64> = BTreeMap::new();
        for read in &read {
            *weights.entry(read.account.clone()).or_default() +=
                portion::weight(read.encoded.payload.len(), Load::ONE);
        }
        let mut permits = HashMap::new();
        for (account, weight) in weights {
            let permit = self.memory.take(&account, weight).await;
            permits.insert(account, permit.ok_or(Refusal::NotKept { retry_after: COME_AGAIN })?);
        }
        let arrivals = (0..).zip(read).filter_map(|(place, read)| self.encoded(place, read, republish));
        let arrivals: Vec<Arrival> = arrivals.collect();
        let span = trace::publish(self.router.kind().as_str(), arrivals.len());
        trace::link(&span, arrivals.iter().filter_map(|arrival| arrival.outgoing.trace.as_deref()));
        let delivering = self.deliverer.deliver(arrivals, admission, self.deliverer.deadline(), None);
        let Sums { delivered, parked, duplicates, rejected } = delivering.instrument(span.clone()).await;
        span.record("fleetbus.delivered", trace::number(delivered));
        span.record("fleetbus.parked", trace::number(parked));
        if rejected > 0 {
            return Err(Refusal::NotKept { retry_after: COME_AGAIN });
        }
        let events = delivered + parked + duplicates;
        Ok(Receipt { events, delivered, parked, duplicates, ..Receipt::default() })
    }

    /// `place` keeps the given order: within one lane it stands for the time that events of a request are sorted by.
    fn encoded(&self, place: i64, read: Read, republish: Republish) -> Option<Arrival> {
        let Read { event, id, event_type, account, encoded } = read;
        let Encoded { payload, trace, enters: others } = encoded;
        let provider = self.accounts.load().get(&account)?.provider;
        let topic = self.router.topic(provider, &account, event_type, &event.subject);
        let kind = self.router.kind();
        let message = encode::again(&payload, id, event_type, topic.clone(), kind, trace.as_deref())?;
        let subject = message.key.clone();
        let lane = LaneKey { account: account.clone(), topic, subject: subject.clone() };
        let checks = match republish {
            Republish::New => Ids::from_slice(&[id]),
            Republish::All => Ids::new(),
        };
        let mut enters = Ids::from_slice(&[id]);
        enters.extend(others.into_iter().filter(|other| *other != id));
        let candidate = Candidate {
            account,
            event_type,
            subject,
            dated: key_time(&event).map_or(Dated::ByComing, Dated::ByKey),
            received_at: event.ingest_time.map_or_else(crate::clock::now, millis),
            checks,
            enters: enters.clone(),
        };
        let outgoing = Outgoing { lane, event_type, occur_ms: place, enters, trace, message };
        Some(Arrival { outgoing, candidate })
    }
}

/// The time in an event's key, as decoders give it: what lasted is known by its start, what happened by when; media and
/// states have none. Under another one a copy that is polled later would not be found.
fn key_time(event: &pb::FleetEvent) -> Option<Millis> {
    let time = match event.body.as_ref()? {
        Body::Trip(trip) => trip.start_time,
        Body::Stop(stop) => stop.start_time,
        Body::Usage(usage) => usage.start_time,
        Body::Position(_)
        | Body::Alert(_)
        | Body::GeofenceCrossing(_)
        | Body::ItemSighting(_)
        | Body::ItemLeftBehind(_) => event.occur_time,
        Body::GeofenceDefinition(_) | Body::TrackerChange(_) | Body::Media(_) => None,
    };
    time.map(millis)
}

const fn millis(time: prost_types::Timestamp) -> Millis {
    Millis(time.seconds.saturating_mul(1_000).saturating_add(time.nanos as i64 / 1_000_000))
}
