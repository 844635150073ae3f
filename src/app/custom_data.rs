//! Custom data at start: from the store into memory, and how large an event may become by it.

use crate::config::{Bus, Property};
use crate::enrich::{Kind, Object, Put, Shelf};
use crate::replay::Entry;

/// Objects put at once.
const CHUNK: usize = 1_000;
/// What brokers take, where nobody says otherwise: a megabyte.
const LARGEST: usize = 1_000_000;
/// Left for headers and the key.
const HEADROOM: usize = 4 << 10;

/// All that the store has, as far as the bound allows.
pub(super) fn shelf(bound: u64, entries: Vec<Entry>) -> Shelf {
    let shelf = Shelf::new(bound);
    let (puts, unreadable): (Vec<_>, Vec<_>) = entries.into_iter().map(put).partition(Option::is_some);
    let puts: Vec<Put> = puts.into_iter().flatten().collect();
    let mut left_out = 0;
    for chunk in puts.chunks(CHUNK) {
        if shelf.put(chunk).is_err() {
            left_out += chunk.iter().filter(|put| shelf.put(std::slice::from_ref(put)).is_err()).count();
        }
    }
    let (objects, bytes) = shelf.holds();
    if left_out + unreadable.len() > 0 {
        tracing::error!(objects, bytes, left_out, unreadable = unreadable.len(), "custom_data.incomplete");
    } else if objects > 0 {
        tracing::info!(objects, bytes, "custom_data.loaded");
    }
    shelf
}

fn put(entry: Entry) -> Option<Put> {
    let (kind, id) = entry.key.split_once('/')?;
    let (kind, object) = (Kind::parse(kind)?, Object::parse(entry.value.as_bytes()).ok()?);
    Some(Put { account: entry.account, kind, id: id.to_owned(), object })
}

/// How large an event may become.
pub(super) fn largest(bus: &Bus) -> usize {
    let taken = match bus {
        Bus::Kafka(kafka) => kafka.properties.iter().find_map(|(name, value)| match value {
            Property::Plain(text) if name == "message.max.bytes" => text.parse().ok(),
            Property::Plain(_) | Property::Secret(_) => None,
        }),
        Bus::Nats(_) | Bus::Local(_) => None,
    };
    taken.unwrap_or(LARGEST).saturating_sub(HEADROOM)
}
