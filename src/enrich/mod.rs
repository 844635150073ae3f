//! An operator's own data onto the objects of an event: between what a message means and where it goes. Pure but for a look
//! into memory ([`Shelf`]): no I/O, no lock that waits. Invariant: an event's ids are made before, and nothing here touches
//! them; an event that it would make larger than the bus takes goes without, and says so.

pub mod import;
pub mod object;
mod shelf;

use std::borrow::BorrowMut;

use prost::Message as _;

pub use object::{Object, ObjectError};
pub use shelf::{NoRoom, Put, Shelf};

use crate::event::{AccountId, pb};

/// What an operator may say something about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The device, by its IMEI, else id, serial number or UUID.
    Tracker,
    /// By its VIN, else licence plate, else name.
    Vehicle,
    /// By id, else name.
    Person,
    /// By id, else name.
    Fleet,
    /// By id, else UUID.
    Company,
    /// By id, else UUID.
    Geofence,
    /// By id, else the id of its tag.
    Item,
}

impl Kind {
    /// Every kind, in the order of the documentation.
    pub const ALL: [Self; 7] =
        [Self::Tracker, Self::Vehicle, Self::Person, Self::Fleet, Self::Company, Self::Geofence, Self::Item];

    /// The spelling in the API and the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tracker => "tracker",
            Self::Vehicle => "vehicle",
            Self::Person => "person",
            Self::Fleet => "fleet",
            Self::Company => "company",
            Self::Geofence => "geofence",
            Self::Item => "item",
        }
    }

    /// The kind whose spelling is `text`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// No event's custom data is longer: it has eight objects at most, and what 16 KiB of JSON say takes less than 96 KiB.
const MOST: usize = 8 * (96 << 10);

/// What is looked into for one event.
struct Look<'a> {
    shelf: &'a Shelf,
    account: &'a AccountId,
    found: bool,
}

impl Look<'_> {
    /// What the first of these ids has, over what the provider said, key by key.
    fn overlay(&mut self, kind: Kind, ids: &[&str], data: &mut Option<prost_types::Struct>) {
        let named = ids.iter().filter(|id| !id.is_empty());
        let Some(encoded) = named.filter_map(|id| self.shelf.get(self.account, kind, id)).next() else {
            return;
        };
        // What is on the shelf was encoded by `Object`.
        if let Ok(own) = prost_types::Struct::decode(encoded) {
            self.found = true;
            data.get_or_insert_default().fields.extend(own.fields);
        }
    }

    fn geofence(&mut self, geofence: Option<&mut pb::Geofence>) {
        if let Some(pb::Geofence { id, uuid, custom_data, .. }) = geofence {
            self.overlay(Kind::Geofence, &[id, uuid], custom_data);
        }
    }

    fn place(&mut self, place: Option<&mut pb::Place>) {
        self.geofence(place.and_then(|place| place.geofence.as_mut()));
    }

    fn item(&mut self, item: Option<&mut pb::Item>) {
        if let Some(pb::Item { id, tag_id, custom_data, .. }) = item {
            self.overlay(Kind::Item, &[id, tag_id], custom_data);
        }
    }

    fn event(&mut self, event: &mut pb::FleetEvent) {
        let subject = if is_about_tracker(event) { event.subject.as_str() } else { "" };
        if let Some(pb::Tracker { imei, id, serial_number, uuid, custom_data, .. }) = &mut event.tracker {
            // The message may have no IMEI where the directory knows it.
            self.overlay(Kind::Tracker, &[imei, subject, id, serial_number, uuid], custom_data);
        }
        if let Some(pb::Vehicle { vin, license_plate, name, custom_data, .. }) = &mut event.vehicle {
            self.overlay(Kind::Vehicle, &[vin, license_plate, name], custom_data);
        }
        if let Some(pb::Person { id, name, custom_data }) = &mut event.driver {
            self.overlay(Kind::Person, &[id, name], custom_data);
        }
        if let Some(pb::Fleet { id, name, custom_data }) = &mut event.fleet {
            self.overlay(Kind::Fleet, &[id, name], custom_data);
        }
        if let Some(pb::Company { id, uuid, custom_data, .. }) = &mut event.company {
            self.overlay(Kind::Company, &[id, uuid], custom_data);
        }
        if let Some(body) = &mut event.body {
            self.body(body);
        }
    }

    fn body(&mut self, body: &mut pb::fleet_event::Body) {
        use pb::fleet_event::Body;
        match body {
            Body::Position(position) => self.place(position.place.as_mut()),
            Body::Trip(trip) => {
                self.place(trip.start.as_mut());
                self.place(trip.end.as_mut());
            }
            Body::Stop(stop) => self.place(stop.place.as_mut()),
            Body::Usage(usage) => {
                self.place(usage.start.as_mut());
                self.place(usage.end.as_mut());
            }
            Body::Alert(alert) => self.place(alert.place.as_mut()),
            Body::GeofenceCrossing(crossing) => {
                self.geofence(crossing.geofence.as_mut());
                self.place(crossing.place.as_mut());
            }
            Body::GeofenceDefinition(definition) => self.geofence(definition.geofence.as_mut()),
            Body::TrackerChange(_) | Body::Media(_) => {}
            Body::ItemSighting(sighting) => {
                self.item(sighting.item.as_mut());
                self.place(sighting.place.as_mut());
            }
            Body::ItemLeftBehind(left) => {
                self.item(left.item.as_mut());
                self.place(left.last_seen.as_mut());
            }
        }
    }
}

/// Whether the subject is a tracker.
const fn is_about_tracker(event: &pb::FleetEvent) -> bool {
    use pb::fleet_event::Body;
    match &event.body {
        Some(
            Body::Position(_)
            | Body::Trip(_)
            | Body::Stop(_)
            | Body::Usage(_)
            | Body::Alert(_)
            | Body::GeofenceCrossing(_)
            | Body::TrackerChange(_),
        ) => true,
        Some(
            Body::GeofenceDefinition(_) | Body::Media(_) | Body::ItemSighting(_) | Body::ItemLeftBehind(_),
        )
        | None => false,
    }
}

/// The event with what the operator says about its objects; as it was, and marked, where that would be more than `largest`
/// bytes.
#[must_use]
pub fn enrich<E: BorrowMut<pb::FleetEvent>>(
    mut event: E,
    account: &AccountId,
    shelf: &Shelf,
    largest: usize,
) -> E {
    if shelf.is_empty_of(account) {
        return event;
    }
    let enriched = event.borrow_mut();
    let plain = (enriched.encoded_len() + MOST > largest).then(|| enriched.clone());
    let mut look = Look { shelf, account, found: false };
    look.event(enriched);
    if let Some(plain) = plain.filter(|_| look.found && enriched.encoded_len() > largest) {
        *enriched = plain;
        enriched.anomalies.push(pb::Anomaly::CustomDataLeftOut.into());
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::json;

    fn acme() -> AccountId {
        AccountId::new("acme")
    }

    fn shelf(entries: &[(Kind, &str, &str)]) -> Shelf {
        let shelf = Shelf::new(1 << 20);
        let puts = entries.iter().map(|(kind, id, text)| {
            let object = Object::parse(text.as_bytes()).expect("an object");
            Put { account: acme(), kind: *kind, id: (*id).to_owned(), object }
        });
        shelf.put(&puts.collect::<Vec<_>>()).expect("room");
        shelf
    }

    fn event() -> pb::FleetEvent {
        let text =
            |t: &str| prost_types::Value { kind: Some(prost_types::value::Kind::StringValue(t.to_owned())) };
        let said =
            [("depot", text("north")), ("team", text("a"))].map(|(key, value)| (key.to_owned(), value));
        pb::FleetEvent {
            id: "an-id".to_owned(),
            tracker: Some(pb::Tracker {
                imei: "350000000000017".to_owned(),
                id: "17".to_owned(),
                custom_data: Some(prost_types::Struct { fields: said.into() }),
                ..Default::default()
            }),
            vehicle: Some(pb::Vehicle { name: "Truck 1".to_owned(), ..Default::default() }),
            body: Some(pb::fleet_event::Body::GeofenceCrossing(pb::GeofenceCrossing {
                geofence: Some(pb::Geofence { id: "9".to_owned(), ..Default::default() }),
                ..Default::default()
            })),
            ..Default::default()
        }
    }

    #[track_caller]
    fn check(entries: &[(Kind, &str, &str)], largest: usize, expected: &str) {
        let enriched = enrich(event(), &acme(), &shelf(entries), largest);
        assert_eq!(json::to_json(&enriched).unwrap(), expected);
    }

    #[test]
    fn what_the_operator_says_overlays_what_the_provider_said_key_by_key() {
        let entries = [
            (Kind::Tracker, "350000000000017", r#"{"team":"b","cost":{"center":7}}"#),
            // The IMEI has some, so that the id is not asked.
            (Kind::Tracker, "17", r#"{"depot":"never"}"#),
            (Kind::Vehicle, "Truck 1", r#"{"axles":3}"#),
            (Kind::Geofence, "9", r#"{"gate":null}"#),
            (Kind::Person, "", r#"{"nobody":1}"#),
        ];
        check(
            &entries,
            1_000,
            r#"{"id":"an-id","tracker":{"id":"17","imei":"350000000000017","customData":{"cost":{"center":7.0},"depot":"north","team":"b"}},"vehicle":{"name":"Truck 1","customData":{"axles":3.0}},"geofenceCrossing":{"geofence":{"id":"9","customData":{"gate":null}}}}"#,
        );
    }

    #[test]
    fn a_tracker_is_found_by_the_imei_that_only_the_directory_knew() {
        let shelf = shelf(&[(Kind::Tracker, "350000000000101", r#"{"depot":"east"}"#)]);
        let found = |body| {
            let tracker = pb::Tracker { id: "101".to_owned(), ..pb::Tracker::default() };
            let subject = "350000000000101".to_owned();
            let event = pb::FleetEvent { subject, tracker: Some(tracker), body: Some(body), ..event() };
            enrich(event, &acme(), &shelf, 1_000).tracker.unwrap().custom_data.is_some()
        };
        use pb::fleet_event::Body;
        assert!(found(Body::Position(pb::Position::default())));
        assert!(!found(Body::Media(pb::Media::default())), "of that it is the media's id");
    }

    #[test]
    fn an_event_that_it_would_make_too_large_goes_without_and_says_so() {
        check(
            &[(Kind::Vehicle, "Truck 1", r#"{"axles":3}"#)],
            50,
            r#"{"id":"an-id","tracker":{"id":"17","imei":"350000000000017","customData":{"depot":"north","team":"a"}},"vehicle":{"name":"Truck 1"},"anomalies":["ANOMALY_CUSTOM_DATA_LEFT_OUT"],"geofenceCrossing":{"geofence":{"id":"9"}}}"#,
        );
    }

    #[test]
    fn an_event_about_which_nothing_is_said_stays_as_it_is() {
        let enriched = enrich(event(), &acme(), &shelf(&[(Kind::Fleet, "1", r#"{"a":1}"#)]), 0);
        assert_eq!(enriched, event());
        let other = enrich(event(), &AccountId::new("other"), &shelf(&[(Kind::Geofence, "9", "{}")]), 1_000);
        assert_eq!(other, event());
    }
}
