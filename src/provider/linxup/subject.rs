//! What an event is about, and under which other names the same fact may be known: the IMEI joins the provider's APIs, the
//! directory gives it where the message does not. Also what a message teaches the directory.

use std::borrow::Cow;

use crate::event::pb;
use crate::provider::directory::{Directory, Pair, TrackerIdKind};

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
    // An id that another tracker has, too, would have the facts of one taken for the other's.
    let its_own = || {
        ids(tracker).filter(|(kind, id)| {
            !directory.is_contradicted(*kind, id) && !is_of_another(tracker, directory, *kind, id)
        })
    };
    let found = its_own().find_map(|(kind, id)| directory.imei_of(kind, &id));
    let (text, source) = match found {
        Some(imei) => (imei.to_owned(), SubjectSource::Directory),
        None => (ids(tracker).next()?.1.into_owned(), SubjectSource::Fallback),
    };
    let known = found.into_iter().flat_map(|imei| directory.keys_of(imei)).map(|key| key.as_str().into());
    let mut others: Vec<String> = Vec::new();
    let own =
        its_own().filter(|(kind, id)| directory.imei_of(*kind, id).is_none_or(|imei| found == Some(imei)));
    for id in own.map(|(_, id)| id).chain(known) {
        if id != text && !others.iter().any(|other| *other == id) {
            others.push(id.into_owned());
        }
    }
    Some(Subject { text, others, source })
}

/// Whether this is a serial number that the directory knows as another tracker's, by a better id beside it.
fn is_of_another(tracker: &pb::Tracker, directory: &Directory, kind: TrackerIdKind, id: &str) -> bool {
    match kind {
        TrackerIdKind::Id | TrackerIdKind::Uuid => false,
        TrackerIdKind::Serial => {
            better_ids(tracker).any(|(better, other)| directory.is_of_another(id, better, &other))
        }
    }
}

/// What a tracker's ids teach: each leads to the IMEI that the message itself states. One that the directory found for another of
/// them is no evidence: serial numbers are shared. Without an IMEI, which better id the serial number stands beside. What the
/// directory knows already is no lesson.
pub(super) fn lessons(tracker: &pb::Tracker, directory: &Directory) -> Vec<Pair> {
    let (imei, serial) = (&tracker.imei, &tracker.serial_number);
    if !imei.is_empty() {
        return ids(tracker)
            .filter(|(kind, id)| directory.is_news(*kind, id, imei))
            .map(|(kind, id)| Pair::Tracker { key: kind.key(id.into_owned()), imei: imei.clone() })
            .collect();
    }
    if serial.is_empty() {
        return Vec::new();
    }
    better_ids(tracker)
        .filter(|(kind, id)| directory.is_new_bearer(serial, *kind, id))
        .map(|(kind, id)| Pair::Serial { serial: serial.clone(), key: kind.key(id.into_owned()) })
        .collect()
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
fn ids(tracker: &pb::Tracker) -> impl Iterator<Item = (TrackerIdKind, Cow<'_, str>)> {
    let all = [
        (TrackerIdKind::Id, Cow::Borrowed(&*tracker.id)),
        (TrackerIdKind::Uuid, lower_case(&tracker.uuid)),
        (TrackerIdKind::Serial, Cow::Borrowed(&*tracker.serial_number)),
    ];
    all.into_iter().filter(|(_, id)| !id.is_empty())
}

/// Those of them that no two trackers are known to share.
fn better_ids(tracker: &pb::Tracker) -> impl Iterator<Item = (TrackerIdKind, Cow<'_, str>)> {
    ids(tracker).filter(|(kind, _)| TrackerIdKind::BETTER.contains(kind))
}

fn lower_case(text: &str) -> Cow<'_, str> {
    let is_lower = text.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase());
    if is_lower { Cow::Borrowed(text) } else { Cow::Owned(text.to_lowercase()) }
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
        // What the directory found for one id is no evidence for the ids beside it.
        let other_id = tracker("2", "", "S");
        check(&other_id, &directory, Some(("2", &[], SubjectSource::Fallback)));
        directory.learn(&lessons(&other_id, &directory));
        check(&tracker("2", "", ""), &directory, Some(("2", &[], SubjectSource::Fallback)));
        // Nor does a serial number that it shows to be shared tell anything from now on.
        check(&tracker("", "", "S"), &directory, Some(("S", &[], SubjectSource::Fallback)));
        check(&tracker("1", "", "S"), &directory, Some(("35", &["1", "ab-c"], SubjectSource::Directory)));
    }

    #[test]
    fn a_serial_number_joins_what_has_no_better_id_yet() {
        let mut directory = Directory::default();
        let stated = pb::Tracker { imei: "35".into(), ..tracker("", "AB-C", "S") };
        directory.learn(&lessons(&stated, &directory));
        let beside = tracker("7", "", "S");
        check(&beside, &directory, Some(("35", &["7", "S", "ab-c"], SubjectSource::Directory)));
        directory.learn(&lessons(&beside, &directory));
        check(&beside, &directory, Some(("35", &["7", "S", "ab-c"], SubjectSource::Directory)));
        // Then the IMEI is stated: by it alone is the id known.
        directory.learn(&lessons(&pb::Tracker { imei: "35".into(), ..beside.clone() }, &directory));
        check(&tracker("7", "", ""), &directory, Some(("35", &["7", "ab-c", "S"], SubjectSource::Directory)));
        assert_eq!(lessons(&beside, &directory), []);
        // An id of another IMEI stands beside it: that tracker's facts are not known under the serial number.
        directory.learn(&lessons(&pb::Tracker { imei: "36".into(), ..tracker("8", "", "") }, &directory));
        check(&tracker("8", "", "S"), &directory, Some(("36", &["8"], SubjectSource::Directory)));
    }

    #[test]
    fn trackers_without_imei_that_share_a_serial_number_are_two() {
        let mut directory = Directory::default();
        let (one, other) = (tracker("17", "", "S"), tracker("25", "", "S"));
        check(&one, &directory, Some(("17", &["S"], SubjectSource::Fallback)));
        directory.learn(&lessons(&one, &directory));
        assert_eq!(lessons(&one, &directory), []);
        check(&other, &directory, Some(("25", &[], SubjectSource::Fallback)));
        directory.learn(&lessons(&other, &directory));
        check(&one, &directory, Some(("17", &[], SubjectSource::Fallback)));
    }
}
