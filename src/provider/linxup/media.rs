//! Pictures and videos of an alert, pushed (V3) or asked for one by one (V2). Their URLs are signed and change, so the version
//! is which slots are filled.

use smallvec::smallvec;

use super::message::{Fact, Message, Missing, Sameness};
use super::values;
use crate::event::{EventType, pb};
use crate::provider::draft::Draft;
use crate::provider::members::keys;
use pb::fleet_event::Body;

/// The slots of a media message, and what each shows.
const SLOTS: [(&str, &str, pb::media_clip::View); 3] = [
    ("videoInside", "thumbnailInside", pb::media_clip::View::Inside),
    ("videoOutside", "thumbnailOutside", pb::media_clip::View::Outside),
    ("videoAux", "thumbnailAux", pb::media_clip::View::Auxiliary),
];

/// Media of an alert: a fact of its own, under the id that the alert has, too.
pub(super) fn media(message: &mut Message<'_>) -> Result<Draft, Missing> {
    let id = message.fields.id(keys!["mediaId"]);
    if id.is_empty() {
        return Err(Missing::because("no media id"));
    }
    let time = message.fields.read(keys!["mediaTimestamp"], values::time);
    let mut filled = Vec::new();
    let mut clips = Vec::new();
    for (video, thumbnail, view) in SLOTS {
        let [video_url, thumbnail_url] = [video, thumbnail].map(|slot| {
            let url = message.fields.read_one(slot, values::text).unwrap_or_default();
            if !url.is_empty() {
                filled.push(slot);
            }
            url
        });
        if !(video_url.is_empty() && thumbnail_url.is_empty()) {
            clips.push(pb::MediaClip { view: view.into(), video_url, thumbnail_url });
        }
    }
    filled.sort_unstable();
    let fact = Fact {
        event_type: EventType::Media,
        known_as: smallvec![(id.clone(), smallvec![id.as_str().into()])],
        version: filled.join(",").into(),
        sameness: Sameness::Version,
        key_time: None,
        occurred: time.unwrap_or(message.context.received_at),
        record_version: 0,
    };
    Ok(message.fact(fact, String::new(), Body::Media(pb::Media { id, clips })))
}

/// Whether a V2 row is the answer to the question for an alert's media. It may have no slot, or an empty one: they expire. Neither
/// makes media of a row that has anything of an alert.
pub(super) fn is_media(message: &Message<'_>) -> bool {
    let has = |key: &str| message.fields.has(key);
    let filled = SLOTS.iter().any(|(video, thumbnail, _)| has(video) || has(thumbnail));
    let is_there = |key: &str| message.fields.peek(key).is_some();
    let is_alert = ["alertCode", "alertDateTime", "alertDesc", "alertUUID"].into_iter().any(is_there);
    (filled && !has("alertCode")) || (has("mediaId") && !is_alert)
}
