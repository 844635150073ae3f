//! One message while it is read: its fields, the parts that it shares with others, and what must be said about it. Makes the
//! drafts, so that every event has its ids, origin, anomalies and leftovers by the same rules.

use smallvec::SmallVec;

use super::fields::Fields;
use super::parts::{self, Layout, Parts, Point, given};
use super::subject::{self, Subject, SubjectSource};
use super::values;
use crate::event::ids::Ids;
use crate::event::{EventType, Millis, Text, ids, json, pb};
use crate::provider::Provider;
use crate::provider::directory::Pair;
use crate::provider::draft::{
    Compared, Context, Draft, Identity, Reason, StateIdentity, StateKey, StateKind,
};
use crate::provider::members::{Keys, Members};

/// A fix may be so far ahead of the time of receipt.
const CLOCK_TOLERANCE_MILLIS: i64 = 5 * 60 * 1000;

/// The wire formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    PushFlat,
    PushV3,
    PullV2,
    PullV3,
}

impl Format {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::PushFlat => "linxup.push.flat",
            Self::PushV3 => "linxup.push.v3",
            Self::PullV2 => "linxup.pull.v2",
            Self::PullV3 => "linxup.pull.v3",
        }
    }

    pub(super) const fn layout(self) -> Layout {
        match self {
            Self::PushFlat | Self::PullV2 => Layout::Flat,
            Self::PushV3 | Self::PullV3 => Layout::Nested,
        }
    }
}

/// What identity needs and the message has not: a pushed message is undecodable then, a pulled row is skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Missing(pub(super) Reason);

impl Missing {
    pub(super) const fn because(reason: &'static str) -> Self {
        Self(Reason::Borrowed(reason))
    }
}

/// A message while it is read.
pub(super) struct Message<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) format: Format,
    pub(super) fields: Fields<'a>,
    pub(super) parts: Parts,
    pub(super) anomalies: Vec<pb::Anomaly>,
    pub(super) learnt: Vec<Pair>,
}

/// The parts of a record's key, in their order: times and words stand in it without an allocation.
pub(super) type KeyParts = SmallVec<[Text; 3]>;
/// The ways in which a fact may be known: a subject and key parts each.
pub(super) type KnownAs = SmallVec<[(String, KeyParts); 1]>;

/// What makes a fact: the ways in which it may be known, and its version.
pub(super) struct Fact {
    pub(super) event_type: EventType,
    /// Subject and key parts; the event's own first, those under which it could be known elsewhere after it.
    pub(super) known_as: KnownAs,
    pub(super) version: Text,
    pub(super) sameness: Sameness,
    pub(super) key_time: Option<Millis>,
    pub(super) occurred: Millis,
    pub(super) record_version: i64,
}

/// Which versions of a record are the same fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sameness {
    /// The same version.
    Version,
    /// A breadcrumb is known by the full fix, too.
    Breadcrumb,
    /// A stop remembers its record, for the inexact ones.
    Stop,
    /// An inexact stop is known by any version of its record.
    InexactStop,
}

impl<'a> Message<'a> {
    /// Reads the shared parts. `tracker_key` is the name of the tracker's object in V3.
    pub(super) fn open(
        members: Members<'a>,
        format: Format,
        tracker_key: &str,
        context: &'a Context<'a>,
    ) -> Self {
        let mut fields = Fields::new(members);
        let parts = match format.layout() {
            Layout::Flat => parts::parts(&mut fields, Layout::Flat),
            Layout::Nested => parts::nested(&mut fields, tracker_key),
        };
        let mut message = Self { context, format, fields, parts, anomalies: Vec::new(), learnt: Vec::new() };
        message.learn_tracker();
        message
    }

    /// Learns from the tracker's ids.
    pub(super) fn learn_tracker(&mut self) {
        self.learnt = subject::lessons(&self.parts.tracker, self.context.directory);
    }

    /// The subject of an event about the tracker. Says so where the IMEI is not known.
    pub(super) fn tracker_subject(&mut self) -> Result<Subject, Missing> {
        let subject = subject::of_tracker(&self.parts.tracker, self.context.directory)
            .ok_or(Missing::because("no tracker id"))?;
        if subject.source == SubjectSource::Fallback {
            self.anomalies.push(pb::Anomaly::SubjectFallback);
        }
        Ok(subject)
    }

    /// A time that the identity needs.
    pub(super) fn key_time(&mut self, keys: &Keys, missing: &'static str) -> Result<Millis, Missing> {
        self.fields.read(keys, values::time).ok_or(Missing::because(missing))
    }

    /// The coordinate under two keys; says so where one was given that cannot be used.
    pub(super) fn point(&mut self, latitude: &str, longitude: &str) -> Option<pb::LatLng> {
        let point = parts::point(&mut self.fields, latitude, longitude);
        if point == Point::Unusable {
            self.anomalies.push(pb::Anomaly::NoFix);
        }
        point.usable()
    }

    /// The geofence that the message stands in; learns its ids.
    pub(super) fn geofence(&mut self) -> pb::Geofence {
        let geofence = parts::geofence(&mut self.fields, self.format.layout());
        self.learn_geofence(&geofence);
        geofence
    }

    /// A geofence under a key of V3; learns its ids.
    pub(super) fn geofence_at(&mut self, key: &str) -> pb::Geofence {
        let geofence = parts::nested_geofence(&mut self.fields, key);
        self.learn_geofence(&geofence);
        geofence
    }

    pub(super) fn learn_geofence(&mut self, geofence: &pb::Geofence) {
        self.learnt.extend(subject::geofence_lesson(geofence));
    }

    /// The event of a fact. It takes the parts along: a message of several facts gives them back.
    pub(super) fn fact(
        &mut self,
        fact: Fact,
        provider_record_id: String,
        body: pb::fleet_event::Body,
    ) -> Draft {
        let Fact { event_type, known_as, version, sameness, key_time, occurred, record_version } = fact;
        let records: Ids = known_as
            .iter()
            .map(|(subject, keys)| {
                let provider = Provider::Linxup.as_str();
                ids::record_id(provider, self.context.account, event_type, subject, keys)
            })
            .collect();
        let mut checks: Ids = records.iter().map(|record| ids::event_id(*record, &version)).collect();
        let mut enters = checks.clone();
        match sameness {
            Sameness::Version => {}
            Sameness::Breadcrumb => checks.extend(records.iter().map(|record| ids::event_id(*record, ""))),
            Sameness::Stop => enters.extend_from_slice(&records),
            Sameness::InexactStop => {
                checks.extend_from_slice(&records);
                enters.extend_from_slice(&records);
            }
        }
        let mut event = self.event(occurred, body);
        event.subject = known_as.into_iter().next().map(|(subject, _)| subject).unwrap_or_default();
        event.record_id = records.first().map(ids::text).unwrap_or_default();
        event.id = checks.first().map(ids::text).unwrap_or_default();
        event.record_version = record_version;
        event.provider_record_id = provider_record_id;
        Draft { event, event_type, identity: Identity::Fact { checks, enters, key_time } }
    }

    /// The event of a state, to be compared with the last one of its kind. It takes the parts along.
    pub(super) fn state(
        &mut self,
        subject: Subject,
        kind: StateKind,
        compared: Compared,
        body: pb::fleet_event::Body,
    ) -> Draft {
        let received_at = self.context.received_at;
        let event_type = EventType::of(&body);
        let mut event = self.event(received_at, body);
        event.subject.clone_from(&subject.text);
        event.record_version = received_at.0;
        let content = content(&event);
        let key = StateKey { subject: subject.text, event_type, kind, format: self.format.as_str().into() };
        let identity = Identity::State(StateIdentity {
            key,
            content,
            compared,
            other_subjects: subject.others,
            received_at,
        });
        Draft { event, event_type, identity }
    }

    fn event(&mut self, occurred: Millis, body: pb::fleet_event::Body) -> Box<pb::FleetEvent> {
        parts::drop_sentinels(&mut self.fields);
        let received = self.context.received_at;
        let ahead = occurred.0 > received.0.saturating_add(CLOCK_TOLERANCE_MILLIS);
        let ahead = ahead.then_some(pb::Anomaly::ClockAhead);
        let unreadable = self.fields.some_unreadable().then_some(pb::Anomaly::UnreadableField);
        let anomalies = self.anomalies.iter().copied().chain(ahead).chain(unreadable);
        let mut anomalies: Vec<i32> = anomalies.map(i32::from).collect();
        anomalies.sort_unstable();
        anomalies.dedup();
        let Parts { tracker, vehicle, driver, fleet, company } = std::mem::take(&mut self.parts);
        // It is large: made once, in its place.
        Box::new(pb::FleetEvent {
            occur_time: Some(values::timestamp(occurred)),
            ingest_time: Some(values::timestamp(received)),
            origin: Some(pb::Origin {
                provider: Provider::Linxup.as_str().to_owned(),
                account: self.context.account.as_str().to_owned(),
                channel: self.context.channel.into(),
                format: self.format.as_str().to_owned(),
            }),
            tracker: given(tracker),
            vehicle: given(vehicle),
            driver: given(driver),
            fleet: given(fleet),
            company: given(company),
            anomalies,
            provider_fields: self.fields.rest_as_struct(),
            body: Some(body),
            ..Default::default()
        })
    }
}

/// What a state is compared by, as ProtoJSON with sorted keys: of a tracker change its kind, its status and who it is about,
/// without the tracker's custom data; of a definition what the geofence is, without its ids. What nobody knows tells no two apart
/// (mapping, section 3).
fn content(event: &pb::FleetEvent) -> String {
    use pb::fleet_event::Body;
    let compared = match &event.body {
        Some(Body::GeofenceDefinition(definition)) => {
            let deleted = definition.action == i32::from(pb::geofence_definition::Action::Deleted);
            let action = if deleted { definition.action } else { 0 };
            let geofence = definition.geofence.clone().map(|geofence| pb::Geofence {
                name: geofence.name,
                group: geofence.group,
                shape: geofence.shape,
                ..Default::default()
            });
            let body = Body::GeofenceDefinition(pb::GeofenceDefinition { action, geofence });
            pb::FleetEvent { body: Some(body), ..Default::default() }
        }
        body => pb::FleetEvent {
            tracker: event.tracker.clone().map(|tracker| pb::Tracker { custom_data: None, ..tracker }),
            vehicle: event.vehicle.clone(),
            driver: event.driver.clone(),
            fleet: event.fleet.clone(),
            body: match body {
                Some(Body::TrackerChange(change)) => Some(Body::TrackerChange(without_case(change))),
                other => other.clone(),
            },
            ..Default::default()
        },
    };
    // An event that a decoder made always has JSON; were it not so, every state would differ from the last: never lost.
    json::to_sorted(&compared).map_or_else(|_| format!("{compared:?}"), |value| value.to_string())
}

/// A word that is known says the same in whichever case it comes. (The digests in the stores are of upper case.)
fn without_case(change: &pb::TrackerChange) -> pb::TrackerChange {
    use pb::tracker_change::Kind;
    let word = &change.provider_status;
    let provider_status = match change.kind() {
        Kind::Activated | Kind::Deactivated => word.to_ascii_uppercase(),
        Kind::Unspecified | Kind::Updated | Kind::StatusChanged => word.clone(),
    };
    pb::TrackerChange { provider_status, ..*change }
}
