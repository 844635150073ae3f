//! Whether a row is as it was parked. SQLite has no sums over its pages: a bit that turned on the disk would go out as if it had
//! been accepted so. Invariants: what is published from the store was compared with the checksum that was taken when it was
//! parked; one bit that turned in what a checksum covers, or in the checksum, is always noticed; such a row is set aside by itself.
//! Neighbours: `rows` and `entries` write and read the checksums, `sound` counts the damaged rows, `drain` passes them by.

use std::sync::atomic::Ordering;

use flate2::Crc;
use rusqlite::{Connection, Row};
use sha2::{Digest as _, Sha256};

use super::{Kept, Named, ParkedRaw, Reason, Seq, Store, rows};
use crate::event::AccountId;

/// What an operator reads at a row that is damaged.
pub(super) const WORDS: &str = "the stored bytes are not those that were parked: they changed on the disk";
/// The format since which rows have checksums.
const SINCE: i64 = 4;

/// What the checksum of an event covers beside its payload: where it goes, and what goes with it.
pub(super) struct Covered<'r> {
    pub(super) account: &'r [u8],
    pub(super) topic: &'r [u8],
    pub(super) subject: &'r [u8],
    pub(super) event_type: &'r [u8],
    pub(super) id: &'r [u8],
    pub(super) trace: Option<&'r [u8]>,
    pub(super) enters: &'r [u8],
}

impl Covered<'_> {
    /// The checksum: a CRC-32 of this in the upper half, of the payload in the lower.
    pub(super) fn of_event(&self, payload: &[u8]) -> i64 {
        let mut of_payload = Crc::new();
        of_payload.update(payload);
        joined(self.sum(), of_payload.sum())
    }

    /// The checksum of a row that goes elsewhere from now on. A row that was damaged stays so: the difference is what is known.
    pub(super) fn moved(&self, to: &Self, checksum: i64) -> i64 {
        checksum ^ joined(self.sum() ^ to.sum(), 0)
    }

    fn sum(&self) -> u32 {
        sum([
            Some(self.account),
            Some(self.topic),
            Some(self.subject),
            Some(self.event_type),
            Some(self.id),
            self.trace,
            Some(self.enters),
        ])
    }
}

/// Each part with its length, so that a bound that moved between two parts is noticed too.
fn sum<const PARTS: usize>(parts: [Option<&[u8]>; PARTS]) -> u32 {
    let mut crc = Crc::new();
    for part in parts {
        // No part is as long as that.
        let length = part.map_or(u64::MAX, |part| part.len() as u64);
        crc.update(&length.to_le_bytes());
        crc.update(part.unwrap_or_default());
    }
    crc.sum()
}

/// The checksum of an entry: of its name (account and key), which so can be trusted where the rest changed, and of the rest. Bytes and
/// no number: no single bit in a row's header makes a NULL of eight bytes, which is what rows of older formats have.
pub(super) fn of_entry(account: &[u8], key: &[u8], value: &[u8], saved_at: i64) -> [u8; 8] {
    let name = sum([Some(account), Some(key)]);
    let rest = sum([Some(value), Some(&saved_at.to_le_bytes()[..])]);
    joined(name, rest).to_be_bytes()
}

const fn joined(upper: u32, lower: u32) -> i64 {
    (((upper as u64) << 32) | lower as u64).cast_signed()
}

/// The checksum of what the digest of raw bytes does not cover: when they came, and why they are here.
pub(super) fn of_raw(received_at: i64, reason: i64) -> i64 {
    let mut crc = Crc::new();
    crc.update(&received_at.to_le_bytes());
    crc.update(&reason.to_le_bytes());
    i64::from(crc.sum())
}

/// By it a second copy of raw bytes is known, and a changed one: account, source and body, with their lengths, so that no two
/// read alike.
pub(super) fn digest(raw: &ParkedRaw) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [raw.account.as_str().as_bytes(), raw.source.as_bytes(), &raw.body] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// How rows of a file are compared: what its statements ask for. Rows of older versions have no checksum, and a row that must have
/// one and has none is damaged: so the numbers say.
pub(super) struct Compare<'s> {
    pub(super) checksum: &'s str,
    pub(super) may_lack: &'s str,
}

impl Compare<'static> {
    /// In the store of this process.
    pub(super) const RUNNING: Self = Self {
        checksum: "checksum",
        may_lack: "coalesce(seq < (SELECT value FROM meta WHERE name = 'checksums_from'), 1)",
    };

    /// In a file that is only looked at, and may be damaged or old.
    pub(super) fn of_file(conn: &Connection) -> rusqlite::Result<Self> {
        let version: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let none = Self { checksum: "NULL", may_lack: "1" };
        let unknown = Self { checksum: "checksum", may_lack: "1" };
        if version < SINCE {
            return Ok(none);
        }
        let from = conn.query_row("SELECT value FROM meta WHERE name = 'checksums_from'", [], |row| {
            row.get::<_, i64>(0)
        });
        Ok(if from.is_ok() { Self::RUNNING } else { unknown })
    }
}

/// Whether a row's checksum, in `column`, is what its bytes have; whether it may have none is in the next.
pub(super) fn is_whole(row: &Row<'_>, column: usize, now: impl FnOnce() -> i64) -> rusqlite::Result<bool> {
    Ok(match row.get::<_, Option<i64>>(column)? {
        Some(checksum) => checksum == now(),
        None => row.get(column + 1)?,
    })
}

/// The damaged rows of a file.
pub(super) fn damaged(conn: &Connection) -> rusqlite::Result<Named> {
    let compare = Compare::of_file(conn)?;
    let mut damaged = Named::default();
    let mut events = conn.prepare("SELECT seq FROM parked ORDER BY seq")?;
    let mut raw = conn.prepare("SELECT seq FROM raw ORDER BY seq")?;
    let mut found = events.query([])?;
    while let Some(row) = found.next()? {
        if let Some(Kept::Damaged(seq)) = rows::salvage_event(conn, rows::seq(row, 0)?, &compare)? {
            damaged.add(seq);
        }
    }
    let mut found = raw.query([])?;
    while let Some(row) = found.next()? {
        if let Some(Kept::Damaged(seq)) = rows::get_raw(conn, rows::seq(row, 0)?, &compare)? {
            damaged.add(seq);
        }
    }
    Ok(damaged)
}

impl Store {
    /// A row of a lane is not as it was parked: it waits for the operator from now on. Never blocks.
    pub fn set_damaged_aside(&self, account: &AccountId, seq: Seq) {
        self.set_reason(vec![seq], Reason::Unfit, WORDS.to_owned());
        self.say_damaged(Some(account), seq);
    }

    /// A row was not sent, as it is not as it was parked. A flood of them is one line a second.
    pub fn say_damaged(&self, account: Option<&AccountId>, seq: Seq) {
        self.shared.damaged.fetch_add(1, Ordering::Relaxed);
        if let Some(rows) = self.shared.saying_damaged.happened() {
            let account = account.map(tracing::field::display);
            tracing::error!(account, seq = seq.0, rows, "parked.damaged");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An event's parts: account, topic, subject, type, id, trace, enters, payload.
    type Parts = [Vec<u8>; 8];

    fn covered(parts: &Parts) -> (Covered<'_>, &[u8]) {
        let [account, topic, subject, event_type, id, trace, enters, payload] = parts;
        let trace = Some(trace.as_slice());
        (Covered { account, topic, subject, event_type, id, trace, enters }, payload)
    }

    fn checksum(parts: &Parts) -> i64 {
        let (covered, payload) = covered(parts);
        covered.of_event(payload)
    }

    fn parts() -> impl Strategy<Value = Parts> {
        proptest::array::uniform8(prop::collection::vec(any::<u8>(), 1..60))
    }

    proptest! {
        #[test]
        fn any_bit_of_what_is_covered_that_turns_is_noticed(parts in parts()) {
            let whole = checksum(&parts);
            for part in 0..parts.len() {
                for bit in 0..parts[part].len() * 8 {
                    let mut flipped = parts.clone();
                    flipped[part][bit / 8] ^= 1 << (bit % 8);
                    prop_assert_ne!(checksum(&flipped), whole, "bit {} of part {}", bit, part);
                }
            }
        }

        #[test]
        fn a_byte_that_moved_from_one_part_to_the_next_is_noticed(parts in parts(), part in 0..7_usize) {
            let mut moved = parts.clone();
            let byte = moved[part].pop().unwrap();
            moved[part + 1].insert(0, byte);
            prop_assert_ne!(checksum(&moved), checksum(&parts));
        }

        #[test]
        fn a_row_that_goes_elsewhere_is_whole_there_and_a_damaged_one_stays_damaged(
            parts in parts(), topic in prop::collection::vec(any::<u8>(), 0..60), damage in any::<i64>(),
        ) {
            let mut after = parts.clone();
            after[1] = topic;
            let moved = covered(&parts).0.moved(&covered(&after).0, checksum(&parts) ^ damage);
            prop_assert_eq!(moved == checksum(&after), damage == 0);
        }

        #[test]
        fn any_bit_of_an_entry_that_turns_is_noticed_and_its_name_is_known_where_the_rest_changed(
            texts in proptest::array::uniform3(prop::collection::vec(any::<u8>(), 0..60)), saved_at in any::<i64>(),
        ) {
            let whole = of_entry(&texts[0], &texts[1], &texts[2], saved_at);
            for part in 0..3 {
                for bit in 0..texts[part].len() * 8 {
                    let mut flipped = texts.clone();
                    flipped[part][bit / 8] ^= 1 << (bit % 8);
                    let now = of_entry(&flipped[0], &flipped[1], &flipped[2], saved_at);
                    prop_assert_eq!((now[..4] == whole[..4], now[4..] == whole[4..]), (part == 2, part != 2));
                }
            }
            for bit in 0..64 {
                prop_assert_ne!(of_entry(&texts[0], &texts[1], &texts[2], saved_at ^ (1 << bit)), whole);
            }
        }

        #[test]
        fn any_bit_of_raw_bytes_and_of_their_time_that_turns_is_noticed(
            body in prop::collection::vec(any::<u8>(), 1..60), received_at in any::<i64>(), bit in 0..480_usize,
        ) {
            let raw = |body: Vec<u8>| ParkedRaw {
                account: AccountId::new("acme"),
                source: "push".into(),
                received_at: crate::event::Millis(received_at),
                reason: crate::replay::RawReason::NotJson,
                error: String::new(),
                body: body.into(),
            };
            let mut flipped = body.clone();
            let at = bit % (body.len() * 8);
            flipped[at / 8] ^= 1 << (at % 8);
            prop_assert_ne!(digest(&raw(flipped)), digest(&raw(body)));
            prop_assert_ne!(of_raw(received_at ^ (1 << (bit % 64)), 5), of_raw(received_at, 5));
        }
    }

    #[test]
    fn no_trace_is_not_an_empty_one() {
        let parts: Parts = Default::default();
        let (with, payload) = covered(&parts);
        let without = Covered { trace: None, ..covered(&parts).0 };
        assert_ne!(with.of_event(payload), without.of_event(payload));
    }
}
