//! Event and record ids: UUIDv5 over the parts of a fact, joined by U+001F. Pure.
//!
//! Invariant: a part never contains the joint, nor any other control character, so two facts with different parts never
//! have one id. What the parts are, type by type, is decided in `provider`.

use std::borrow::Cow;

use sha1::{Digest as _, Sha1};
use smallvec::SmallVec;
use smol_str::ToSmolStr as _;
use uuid::{Builder, Uuid};

use super::{AccountId, EventType, Millis, Text};

/// `bd4bbb2d-5c42-5e0d-a562-2656493c0dd0`: UUIDv5 of the URL namespace and `urn:fleetbus:event:v1`.
pub const NAMESPACE: Uuid = Uuid::from_u128(0xbd4b_bb2d_5c42_5e0d_a562_2656_493c_0dd0);

/// The ids of one event: mostly one, and seldom more than two.
pub type Ids = SmallVec<[Uuid; 2]>;

/// What joins the parts.
const JOINT: &str = "\u{1f}";

/// The id that all versions of one fact have: `keys` are its key parts in the order of the contract, an absent one empty.
#[must_use]
pub fn record_id(
    provider: &str,
    account: &AccountId,
    event_type: EventType,
    subject: &str,
    keys: &[impl AsRef<str>],
) -> Uuid {
    let mut digest = Sha1::new().chain_update(NAMESPACE).chain_update(&*without_controls(provider));
    let fixed = [account.as_str(), event_type.as_str(), subject];
    for part in fixed.into_iter().chain(keys.iter().map(AsRef::as_ref)) {
        digest.update(JOINT);
        digest.update(&*without_controls(part));
    }
    of_digest(digest)
}

/// A time as a part of a key.
#[must_use]
pub fn time(at: Millis) -> Text {
    at.0.to_smolstr()
}

/// The id of one version of a fact.
#[must_use]
pub fn event_id(record_id: Uuid, version: &str) -> Uuid {
    v5(&record_id, version)
}

/// `Uuid::new_v5`, by the processor's own instructions where it has them.
fn v5(namespace: &Uuid, name: &str) -> Uuid {
    of_digest(Sha1::new().chain_update(namespace).chain_update(name))
}

fn of_digest(digest: Sha1) -> Uuid {
    let digest: [u8; 20] = digest.finalize().into();
    digest.first_chunk().map_or(Uuid::nil(), |half| Builder::from_sha1_bytes(*half).into_uuid())
}

/// An id as events have it.
#[must_use]
pub fn text(id: &Uuid) -> String {
    id.hyphenated().encode_lower(&mut Uuid::encode_buffer()).to_owned()
}

/// The version of a state: the digest of its content and the id of the state before it.
#[must_use]
pub fn state_version(digest: &str, previous: Option<Uuid>) -> String {
    let previous = previous.map(|id| id.to_string()).unwrap_or_default();
    format!("{digest}{JOINT}{previous}")
}

/// A text as it may stand in an id, a subject or a key: without control characters.
#[must_use]
pub fn without_controls(part: &str) -> Cow<'_, str> {
    // Without a branch a byte: nearly all parts are short and plain.
    let is_plain = part.bytes().fold(true, |plain, byte| plain & matches!(byte, b' '..=b'~'));
    if !is_plain && part.contains(char::is_control) {
        Cow::Owned(part.chars().filter(|c| !c.is_control()).collect())
    } else {
        Cow::Borrowed(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACKER: &str = "350000000000017";
    const T: &str = "1767009600000";

    fn check(event_type: EventType, subject: &str, keys: &[&str], version: &str, expected: (&str, &str)) {
        let record = record_id("linxup", &AccountId::new("acme"), event_type, subject, keys);
        let id = event_id(record, version);
        assert_eq!((record.to_string().as_str(), id.to_string().as_str()), expected, "{event_type} {keys:?}");
    }

    #[test]
    fn an_id_is_a_uuid_of_version_five() {
        for name in ["", "a", "urn:fleetbus:event:v1", &"x".repeat(200)] {
            assert_eq!(v5(&Uuid::NAMESPACE_URL, name), Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes()));
        }
    }

    #[test]
    fn the_golden_ids_of_the_design() {
        use EventType::{Alert, Position, Trip};
        check(
            Position,
            TRACKER,
            &[T, ""],
            "",
            ("bbb0fcdc-a080-5a4c-9cb3-2eb8beef5377", "8a1b7959-ffe7-5f92-b699-bc2107218705"),
        );
        check(
            Position,
            TRACKER,
            &[T, "HBR"],
            "",
            ("4eba108e-4fa1-517c-8494-120690d536fa", "251ad431-73ea-5fec-9086-1c927754d68d"),
        );
        check(
            Position,
            TRACKER,
            &["1767009580000", ""],
            "breadcrumb",
            ("f2aefd7e-e764-5d57-94d9-ab29a050a146", "ba064dfd-5b82-5d2e-ba30-df87bd73c551"),
        );
        check(
            Trip,
            TRACKER,
            &[T],
            "1767011460000",
            ("e87d21d0-ed76-510f-8890-9a775e0f6677", "3bf3649a-6236-50a1-9298-faedb9ef39d7"),
        );
        check(
            Alert,
            TRACKER,
            &["HIGH_SPEED", T, ""],
            "",
            ("d838fd8d-46c2-54d9-864d-2d0f96095023", "088fbdab-ffdb-53b8-81fe-10c1d1ad6f2b"),
        );
    }

    #[test]
    fn the_golden_ids_of_the_mapping() {
        use EventType::{Alert, GeofenceCrossing, ItemLeftBehind, ItemSighting, Media, Stop, Usage};
        check(
            Stop,
            TRACKER,
            &[T],
            "1767013200000",
            ("8bc06868-357e-557b-bcdc-ebb9b10867e8", "d40cf731-6acb-5565-9d94-3307778624ab"),
        );
        check(
            Usage,
            TRACKER,
            &[T],
            "1767011460000",
            ("cc3d139e-b134-54f2-acd4-b0a1969c9859", "6021db97-076c-5930-b138-edfd407f9971"),
        );
        check(
            Alert,
            TRACKER,
            &["GEOFENCE_ENTERED", T, "van 17 entered depot a."],
            "",
            ("81caae96-3241-5eb8-aee0-ee6f9a6b4657", "87408a8f-c954-56c7-a767-48119a1de0bc"),
        );
        check(
            Alert,
            TRACKER,
            &["HIGH_SPEED", T, ""],
            "media:5",
            ("d838fd8d-46c2-54d9-864d-2d0f96095023", "45ccf8a1-1141-54eb-893d-b740b8ce5869"),
        );
        check(
            GeofenceCrossing,
            TRACKER,
            &["18000400009", "ENTER", T],
            "",
            ("e03a028e-30df-5ca7-865d-23d421562dd2", "012e3e38-e045-5a04-8e65-ef095fea7779"),
        );
        check(
            GeofenceCrossing,
            TRACKER,
            &["uuid:99999999-8888-4777-8666-555555550001", "ENTER", T],
            "",
            ("9c034178-e2d2-5794-b933-6fda542cf80a", "01b4aaeb-ab93-5a49-9b68-5968eebdb9b0"),
        );
        check(
            ItemSighting,
            "18000800001",
            &[T, TRACKER],
            "",
            ("9d88af32-42aa-5c1a-9f53-a9a5ff1623c8", "9b77d1fe-a95c-5571-95e9-7389662b2b5e"),
        );
        check(
            ItemLeftBehind,
            "18000800001",
            &["1767009600001"],
            "",
            ("5b32331a-72db-5517-9e37-9c76ead928f5", "3e4ec1f2-afee-5408-823b-3b4726cd661f"),
        );
        check(
            Media,
            "18000600001",
            &["18000600001"],
            "videoOutside",
            ("214ddeed-989c-52d1-9153-492e7955ad53", "71b54dbe-69bc-50d6-bef4-565e3f9de6c1"),
        );
    }

    #[test]
    fn control_characters_never_reach_an_id() {
        let account = AccountId::new("acme");
        let clean = record_id("linxup", &account, EventType::Alert, "17", &["A", "b"]);
        assert_eq!(
            clean,
            record_id("linxup", &account, EventType::Alert, "1\u{1f}7\0", &["A\u{7f}", "\u{85}b"])
        );
        assert_ne!(clean, record_id("linxup", &account, EventType::Alert, "17", &["A", "b", ""]));
    }
}
