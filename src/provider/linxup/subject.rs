//! What an event is about, and under which other names the same fact may be known: the IMEI joins the provider's APIs, the
//! directory gives it where the message does not. Also what a message teaches the directory.

use crate::event::pb;
use crate::provider::directory::{Directory, Pair, TrackerKey};

/// The subject of an event about a tracker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) text: String,
    /// The other ids of the tracker, where it could be known under one of them: none where the message itself has the IMEI.
    pub(super) others: Vec<String>,
    pub(super) source: SubjectSource,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SubjectSource {
    /// The message has the IMEI.
    Message,
    /// The directory had it.
    Directory,
    /// It is not known.
    Fallback,
}

/// The subject of a tracker; none where it has no id at all.
pub(super) fn of_tracker(tracker: &pb::Tracker, directory: &Directory) -> Option<Subject> {
    if !tracker.imei.is_empty() {
        return Some(Subject {
            text: tracker.imei.clone(),
            others: Vec::new(),
            source: SubjectSource::Message,
        });
    }
    let keys = keys(tracker);
    let found = keys.iter().find_map(|key| directory.imei(key));
    let (text, source) = match found {
        Some(imei) => (imei.to_owned(), SubjectSource::Directory),
        None => (keys.first()?.as_str().to_owned(), SubjectSource::Fallback),
    };
    let known = found.into_iter().flat_map(|imei| directory.keys_of(imei));
    let mut others: Vec<String> = Vec::new();
    // An id that two trackers claim would have the facts of one taken for the other's.
    for key in keys.iter().filter(|key| !directory.is_contradicted(key)).chain(known) {
        if key.as_str() != text && !others.iter().any(|other| other == key.as_str()) {
            others.push(key.as_str().to_owned());
        }
    }
    Some(Subject { text, others, source })
}

/// What a tracker's ids teach: each other id leads to its IMEI, the message's own or the one that another of its ids has.
pub(super) fn lessons(tracker: &pb::Tracker, directory: &Directory) -> Vec<Pair> {
    let keys = keys(tracker);
    let imei = if tracker.imei.is_empty() {
        keys.iter().find_map(|key| directory.imei(key)).map(str::to_owned)
    } else {
        Some(tracker.imei.clone())
    };
    let Some(imei) = imei else { return Vec::new() };
    keys.into_iter().map(|key| Pair::Tracker { key, imei: imei.clone() }).collect()
}

/// What a geofence's ids teach.
pub(super) fn geofence_lesson(geofence: &pb::Geofence) -> Option<Pair> {
    let both = !geofence.id.is_empty() && !geofence.uuid.is_empty();
    both.then(|| Pair::Geofence { uuid: geofence.uuid.to_lowercase(), id: geofence.id.clone() })
}

/// The keys by which a crossing's geofence may be known, its own first: its id, from the message or the directory; else its
/// UUID; none where it has neither.
pub(super) fn geofence_keys(geofence: &pb::Geofence, directory: &Directory) -> Vec<String> {
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let uuid_given = given(&geofence.uuid.to_lowercase());
    let id = given(&geofence.id).or_else(|| directory.geofence_id(uuid_given.as_deref()?).map(str::to_owned));
    let uuid = uuid_given.or_else(|| directory.geofence_uuid(id.as_deref()?).map(str::to_owned));
    id.into_iter().chain(uuid.map(|uuid| format!("uuid:{uuid}"))).collect()
}

/// The ids of a tracker but for the IMEI, the best first.
fn keys(tracker: &pb::Tracker) -> Vec<TrackerKey> {
    let mut keys = Vec::with_capacity(3);
    if !tracker.id.is_empty() {
        keys.push(TrackerKey::Id(tracker.id.clone()));
    }
    if !tracker.uuid.is_empty() {
        keys.push(TrackerKey::Uuid(tracker.uuid.to_lowercase()));
    }
    if !tracker.serial_number.is_empty() {
        keys.push(TrackerKey::Serial(tracker.serial_number.clone()));
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracker(id: &str, uuid: &str, serial: &str) -> pb::Tracker {
        pb::Tracker { id: id.into(), uuid: uuid.into(), serial_number: serial.into(), ..Default::default() }
    }

    fn check(tracker: &pb::Tracker, directory: &Directory, expected: Option<(&str, &[&str], SubjectSource)>) {
        let subject = of_tracker(tracker, directory);
        let subject = subject
            .as_ref()
            .map(|s| (s.text.as_str(), s.others.iter().map(String::as_str).collect::<Vec<_>>(), s.source));
        assert_eq!(subject, expected.map(|(text, others, source)| (text, others.to_vec(), source)));
    }

    #[test]
    fn the_subject_is_the_best_id_and_the_others_are_remembered() {
        let empty = Directory::default();
        let mut full = tracker("1", "AB-C", "S");
        check(&full, &empty, Some(("1", &["ab-c", "S"], SubjectSource::Fallback)));
        check(&tracker("", "AB-C", "S"), &empty, Some(("ab-c", &["S"], SubjectSource::Fallback)));
        check(&tracker("", "", ""), &empty, None);
        full.imei = "35".into();
        check(&full, &empty, Some(("35", &[], SubjectSource::Message)));

        let mut directory = Directory::default();
        directory.learn(&lessons(&full, &empty));
        check(&tracker("", "", "S"), &directory, Some(("35", &["S", "1", "ab-c"], SubjectSource::Directory)));
        // What the directory found is learnt for the ids beside it.
        directory.learn(&lessons(&tracker("2", "", "S"), &directory));
        check(
            &tracker("2", "", ""),
            &directory,
            Some(("35", &["2", "1", "ab-c", "S"], SubjectSource::Directory)),
        );
    }
}
