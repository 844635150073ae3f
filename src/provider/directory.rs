//! What is known of an account's ids: which IMEI a tracker's other ids belong to, and which id a geofence's UUID has.
//!
//! Learnt from messages, passed to decoding as an argument, stored as pairs by whoever owns the store. Invariants: a pair
//! that another contradicts is remembered but never used, in whichever order the two came; a serial number that two trackers
//! have tells neither of them.

use foldhash::HashMap;
use serde::{Deserialize, Serialize};

/// The most ids of one kind that are kept for an account: a few hundred bytes each. Later ones are not learnt.
pub const MAX_IDS: usize = 200_000;

/// The IMEI side of the index keeps at most so many ids of one tracker.
const MAX_IDS_OF_TRACKER: usize = 16;

/// An id of a tracker other than its IMEI.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrackerKey {
    /// The provider's number.
    Id(String),
    /// The UUID, in lower case.
    Uuid(String),
    /// The manufacturer's serial number.
    Serial(String),
}

/// Which id of a tracker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrackerIdKind {
    /// The provider's number.
    Id,
    /// The UUID, in lower case.
    Uuid,
    /// The manufacturer's serial number.
    Serial,
}

impl TrackerIdKind {
    const COUNT: usize = 3;
    /// The kinds of which no two trackers are known to have the same.
    pub const BETTER: [Self; 2] = [Self::Id, Self::Uuid];

    /// The key that an id of this kind is.
    #[must_use]
    pub fn key(self, id: String) -> TrackerKey {
        match self {
            Self::Id => TrackerKey::Id(id),
            Self::Uuid => TrackerKey::Uuid(id),
            Self::Serial => TrackerKey::Serial(id),
        }
    }
}

impl TrackerKey {
    /// Which id it is.
    #[must_use]
    pub const fn kind(&self) -> TrackerIdKind {
        match self {
            Self::Id(_) => TrackerIdKind::Id,
            Self::Uuid(_) => TrackerIdKind::Uuid,
            Self::Serial(_) => TrackerIdKind::Serial,
        }
    }

    /// The id itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Id(text) | Self::Uuid(text) | Self::Serial(text) => text,
        }
    }
}

/// Two ids of one thing, as one message gave them. What the store keeps, one row a pair.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pair {
    /// A tracker's id and its IMEI.
    Tracker {
        /// The other id.
        key: TrackerKey,
        /// The IMEI.
        imei: String,
    },
    /// A tracker's serial number and a better id of it, where the message had no IMEI: it tells that a serial number is shared.
    Serial {
        /// The serial number.
        serial: String,
        /// The id or the UUID.
        key: TrackerKey,
    },
    /// A geofence's UUID and its id.
    Geofence {
        /// In lower case.
        uuid: String,
        /// The provider's number.
        id: String,
    },
}

/// What an id leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Link {
    One(String),
    /// Two messages disagreed: both are kept, so that each is told to the store once; neither is used.
    Contradicted(String, String),
}

impl Link {
    fn used(&self) -> Option<&str> {
        match self {
            Self::One(to) => Some(to),
            Self::Contradicted(..) => None,
        }
    }
}

/// The ids of one account's trackers and geofences.
#[derive(Debug, Clone, Default)]
pub struct Directory {
    /// By kind, so that an id is looked up as it stands in a message.
    imeis: [HashMap<String, Link>; TrackerIdKind::COUNT],
    keys: HashMap<String, Vec<TrackerKey>>,
    /// Serial numbers of messages without an IMEI, and the better id that stood beside them, by the kind of that.
    bearers: [HashMap<String, Link>; TrackerIdKind::COUNT],
    geofence_ids: HashMap<String, Link>,
    geofence_uuids: HashMap<String, Link>,
}

impl Directory {
    /// Takes what a message, or the store, says. Gives back the pairs that were news, for the store; a pair that
    /// contradicts one that is known is news too, once.
    pub fn learn(&mut self, pairs: &[Pair]) -> Vec<Pair> {
        pairs.iter().filter(|pair| self.learn_one(pair)).cloned().collect()
    }

    fn learn_one(&mut self, pair: &Pair) -> bool {
        match pair {
            Pair::Tracker { key, imei } => {
                let full = self.imeis.iter().map(HashMap::len).sum::<usize>() >= MAX_IDS;
                let news = link(&mut self.imeis[key.kind() as usize], key.as_str(), imei, full);
                if news {
                    let keys = self.keys.entry(imei.clone()).or_default();
                    if keys.len() < MAX_IDS_OF_TRACKER {
                        keys.push(key.clone());
                    }
                }
                news
            }
            Pair::Serial { serial, key } => {
                let full = self.bearers.iter().map(HashMap::len).sum::<usize>() >= MAX_IDS;
                link(&mut self.bearers[key.kind() as usize], serial, key.as_str(), full)
            }
            Pair::Geofence { uuid, id } => {
                let full = |links: &HashMap<String, Link>| links.len() >= MAX_IDS;
                let (uuids_full, ids_full) = (full(&self.geofence_ids), full(&self.geofence_uuids));
                let by_uuid = link(&mut self.geofence_ids, uuid, id, uuids_full);
                let by_id = link(&mut self.geofence_uuids, id, uuid, ids_full);
                by_uuid || by_id
            }
        }
    }

    /// The IMEI of the tracker with this id, where it is known and nothing contradicts it.
    #[must_use]
    pub fn imei(&self, key: &TrackerKey) -> Option<&str> {
        self.imei_of(key.kind(), key.as_str())
    }

    /// The IMEI of the tracker with this id, as [`Directory::imei`].
    #[must_use]
    pub fn imei_of(&self, kind: TrackerIdKind, id: &str) -> Option<&str> {
        self.stated(kind, id).filter(|_| !self.is_shared(kind, id))
    }

    /// The IMEI that every message which stated one gave this id.
    fn stated(&self, kind: TrackerIdKind, id: &str) -> Option<&str> {
        self.link_of(kind, id)?.used()
    }

    fn link_of(&self, kind: TrackerIdKind, id: &str) -> Option<&Link> {
        self.imeis[kind as usize].get(id)
    }

    /// Whether two trackers claim this id: it tells none of them.
    #[must_use]
    pub fn is_contradicted(&self, kind: TrackerIdKind, id: &str) -> bool {
        self.link_of(kind, id).is_some_and(|link| link.used().is_none()) || self.is_shared(kind, id)
    }

    /// Whether this is a serial number that a message without an IMEI has shown to be another tracker's, too.
    fn is_shared(&self, kind: TrackerIdKind, id: &str) -> bool {
        match kind {
            TrackerIdKind::Id | TrackerIdKind::Uuid => false,
            TrackerIdKind::Serial => TrackerIdKind::BETTER.into_iter().any(|better| {
                self.bearers[better as usize].get(id).is_some_and(|bearer| match bearer.used() {
                    Some(bearer) => self.is_of_another(id, better, bearer),
                    None => true,
                })
            }),
        }
    }

    /// Whether what is known of this serial number is another tracker's than the one with this better id.
    #[must_use]
    pub fn is_of_another(&self, serial: &str, kind: TrackerIdKind, id: &str) -> bool {
        let bearer = self.bearers[kind as usize].get(serial).and_then(Link::used);
        let imei = self.stated(TrackerIdKind::Serial, serial);
        bearer.is_some_and(|bearer| bearer != id) || imei.is_some_and(|imei| self.is_other(imei, kind, id))
    }

    /// Whether the tracker with this IMEI has an id of this kind that nothing contradicts, and was never given this one.
    fn is_other(&self, imei: &str, kind: TrackerIdKind, id: &str) -> bool {
        let given = || self.keys.get(imei).into_iter().flatten().filter(|key| key.kind() == kind);
        given().any(|key| self.stated(kind, key.as_str()).is_some()) && given().all(|key| key.as_str() != id)
    }

    /// Whether it would be news that this id has this IMEI.
    #[must_use]
    pub fn is_news(&self, kind: TrackerIdKind, id: &str, imei: &str) -> bool {
        differs(self.link_of(kind, id), imei)
    }

    /// Whether it would be news that this serial number stands beside this id, without an IMEI. It is none where messages
    /// that stated the IMEI gave both the same.
    #[must_use]
    pub fn is_new_bearer(&self, serial: &str, kind: TrackerIdKind, id: &str) -> bool {
        let imei = self.stated(kind, id);
        let is_stated = imei.is_some() && imei == self.stated(TrackerIdKind::Serial, serial);
        !is_stated && differs(self.bearers[kind as usize].get(serial), id)
    }

    /// The other ids of the tracker with this IMEI that nothing contradicts.
    pub fn keys_of<'a>(&'a self, imei: &'a str) -> impl Iterator<Item = &'a TrackerKey> {
        self.keys.get(imei).into_iter().flatten().filter(move |key| self.imei(key) == Some(imei))
    }

    /// The id of the geofence with this UUID (lower case), where nothing contradicts it.
    #[must_use]
    pub fn geofence_id(&self, uuid: &str) -> Option<&str> {
        let id = self.geofence_ids.get(uuid)?.used()?;
        (self.geofence_uuids.get(id)?.used()? == uuid).then_some(id)
    }

    /// The UUID of the geofence with this id, where nothing contradicts it.
    #[must_use]
    pub fn geofence_uuid(&self, id: &str) -> Option<&str> {
        let uuid = self.geofence_uuids.get(id)?.used()?;
        (self.geofence_ids.get(uuid)?.used()? == id).then_some(uuid)
    }
}

/// Whether it would be news for what this link starts from that it leads to `to`.
fn differs(link: Option<&Link>, to: &str) -> bool {
    match link {
        None => true,
        Some(Link::One(known)) => known != to,
        Some(Link::Contradicted(..)) => false,
    }
}

/// Whether it was news that `from` leads to `to`.
fn link(links: &mut HashMap<String, Link>, from: &str, to: &str, full: bool) -> bool {
    match links.get_mut(from) {
        Some(Link::One(known)) if known == to => false,
        Some(slot @ Link::One(_)) => {
            if let Link::One(known) = &*slot {
                *slot = Link::Contradicted(known.clone(), to.to_owned());
            }
            true
        }
        Some(Link::Contradicted(..)) => false,
        None if full => false,
        None => {
            links.insert(from.to_owned(), Link::One(to.to_owned()));
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serial(serial: &str, imei: &str) -> Pair {
        Pair::Tracker { key: TrackerKey::Serial(serial.into()), imei: imei.into() }
    }

    #[test]
    fn what_was_learnt_is_known_and_news_only_once() {
        let mut directory = Directory::default();
        assert_eq!(directory.learn(&[serial("S", "1"), serial("S", "1")]), [serial("S", "1")]);
        assert_eq!(directory.imei(&TrackerKey::Serial("S".into())), Some("1"));
        assert_eq!(directory.imei(&TrackerKey::Id("S".into())), None);
        assert_eq!(directory.keys_of("1").map(TrackerKey::as_str).collect::<Vec<_>>(), ["S"]);
    }

    #[test]
    fn a_contradicted_pair_is_never_used_in_either_order_and_survives_the_store() {
        for order in [[serial("S", "1"), serial("S", "2")], [serial("S", "2"), serial("S", "1")]] {
            let mut directory = Directory::default();
            let stored = directory.learn(&order);
            assert_eq!(stored.len(), 2, "both are told to the store");
            let mut reloaded = Directory::default();
            reloaded.learn(&stored);
            for directory in [&directory, &reloaded] {
                assert_eq!(directory.imei(&TrackerKey::Serial("S".into())), None);
                assert!(directory.is_contradicted(TrackerIdKind::Serial, "S"));
                assert_eq!(directory.keys_of("1").count() + directory.keys_of("2").count(), 0);
            }
            assert!(directory.learn(&[serial("S", "1"), serial("S", "3")]).is_empty());
        }
    }

    #[test]
    fn a_serial_number_that_a_second_tracker_has_tells_none() {
        let beside =
            |serial: &str, id: &str| Pair::Serial { serial: serial.into(), key: TrackerKey::Id(id.into()) };
        let id = |id: &str, imei: &str| Pair::Tracker { key: TrackerKey::Id(id.into()), imei: imei.into() };
        let shared = |pairs: &[Pair]| {
            let mut directory = Directory::default();
            let stored = directory.learn(pairs);
            let mut reloaded = Directory::default();
            reloaded.learn(&stored);
            let [now, later] =
                [&directory, &reloaded].map(|known| known.is_contradicted(TrackerIdKind::Serial, "S"));
            assert_eq!(now, later, "as the store has it");
            now
        };
        assert!(!shared(&[beside("S", "7"), beside("S", "7")]));
        assert!(shared(&[beside("S", "7"), beside("S", "8")]));
        assert!(!shared(&[serial("S", "1"), beside("S", "8")]), "the tracker's id was not known yet");
        assert!(!shared(&[serial("S", "1"), beside("S", "8"), id("8", "1")]));
        assert!(shared(&[id("7", "1"), serial("S", "1"), beside("S", "8")]));
        assert!(shared(&[beside("S", "8"), id("7", "1"), serial("S", "1")]));
        assert!(!shared(&[id("7", "1"), id("8", "1"), serial("S", "1"), beside("S", "8")]), "it has two ids");
        assert!(
            !shared(&[id("7", "1"), id("7", "2"), serial("S", "1"), beside("S", "8")]),
            "7 tells nothing"
        );
    }

    #[test]
    fn a_geofence_is_known_both_ways_unless_either_contradicts() {
        let pair = |uuid: &str, id: &str| Pair::Geofence { uuid: uuid.into(), id: id.into() };
        let mut directory = Directory::default();
        directory.learn(&[pair("u", "1")]);
        assert_eq!((directory.geofence_id("u"), directory.geofence_uuid("1")), (Some("1"), Some("u")));
        directory.learn(&[pair("w", "1")]);
        assert_eq!(
            (directory.geofence_id("u"), directory.geofence_id("w"), directory.geofence_uuid("1")),
            (None, None, None)
        );
    }
}
