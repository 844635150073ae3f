//! What can be read of a store, damaged or not, as lines of JSON: every parked event and raw message, payloads in base64.
//! Invariants: the file is only read; a row that cannot be read, or is not as it was parked, costs itself alone; and what could not
//! be read is said, by number where an index still knows it.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use rusqlite::Connection;
use serde::Serialize;
use uuid::Uuid;

use super::log::{self, Look};
use super::whole::Compare;
use super::{DamagedEntry, Kept, Named, Parked, ParkedRaw, Seq, WaitsFor, entries, rows, schema, sound};
use crate::event::Millis;

/// A store to read from.
pub struct Salvage {
    conn: Connection,
    compare: Compare<'static>,
    log: Look,
}

/// Nothing can be read, or nothing be written.
#[derive(Debug, thiserror::Error)]
pub enum SalvageError {
    /// Not even its first page.
    #[error("{path} cannot be read at all: restore a backup")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// Its log cannot be read.
    #[error("the log of {path} cannot be read")]
    Log {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The lines cannot be written.
    #[error("what was read cannot be written")]
    Write(#[from] io::Error),
}

/// What was read, and what was not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exported {
    /// Events.
    pub events: u64,
    /// Raw messages.
    pub raw: u64,
    /// Rows that are there and cannot be read.
    pub unread: Named,
    /// Rows that can be read, and whose bytes are not those that were parked: they are not written.
    pub changed: Named,
    /// Cursors, tokens and the like that are not as they were saved.
    pub entries: Vec<DamagedEntry>,
    /// What is worth knowing, and no loss.
    pub notes: Vec<String>,
    /// What is wrong, a sentence each.
    pub damage: Vec<String>,
}

impl Exported {
    /// Those entries, in a sentence.
    #[must_use]
    pub fn told_entries(&self) -> Option<String> {
        sound::told(&self.entries)
    }

    /// Whether all that is known to be there was read.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.unread.count == 0 && self.changed.count == 0 && self.entries.is_empty() && self.damage.is_empty()
    }
}

/// A table of rows, and how its rows are named where it is damaged itself.
struct Rows {
    name: &'static str,
    indexes: [&'static str; 2],
}

const EVENTS: Rows = Rows {
    name: "parked",
    indexes: [
        "SELECT seq FROM parked INDEXED BY lane WHERE for_bus = 1",
        "SELECT seq FROM parked INDEXED BY unfit WHERE reason = 2",
    ],
};
const RAW: Rows = Rows {
    name: "raw",
    indexes: [
        "SELECT seq FROM raw INDEXED BY sqlite_autoindex_raw_1 WHERE digest >= x''",
        "SELECT seq FROM raw WHERE 0",
    ],
};

impl Salvage {
    /// Opens a file that nobody else has.
    ///
    /// # Errors
    /// Where not even its first page can be read.
    pub fn open(path: &Path) -> Result<Self, SalvageError> {
        let log = log::look(path).map_err(|source| SalvageError::Log { path: path.to_owned(), source })?;
        let unreadable = |source| SalvageError::Unreadable { path: path.to_owned(), source };
        let conn = schema::open_to_read(path).map_err(unreadable)?;
        conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).map_err(unreadable)?;
        let compare = Compare::of_file(&conn).map_err(unreadable)?;
        Ok(Self { conn, compare, log })
    }

    /// Writes all that can be read, in the order of its numbers.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn export(&self, out: &mut dyn Write) -> Result<Exported, SalvageError> {
        let mut exported = Exported::default();
        match self.log {
            Look::Sound => {}
            Look::Torn => {
                // Nobody was told of it.
                exported.notes.push("the log's last transaction is cut off, and not read".to_owned());
            }
            Look::Damaged { commits } => exported
                .damage
                .push(format!("the log is damaged: at least {commits} transactions in it are not read")),
        }
        let events = self.numbers(&EVENTS, &mut exported.damage);
        let raw = self.numbers(&RAW, &mut exported.damage);
        for seq in events.union(&raw) {
            let seq = Seq(*seq);
            if events.contains(&seq.0) {
                match rows::salvage_event(&self.conn, seq, &self.compare) {
                    Ok(Some(Kept::Damaged(_))) => exported.changed.add(seq),
                    Ok(Some(Kept::Whole(event))) => {
                        write(out, &Line::of_event(&event))?;
                        exported.events += 1;
                    }
                    Ok(None) | Err(_) => exported.unread.add(seq),
                }
            }
            if raw.contains(&seq.0) {
                match rows::get_raw(&self.conn, seq, &self.compare) {
                    Ok(Some(Kept::Damaged(_))) => exported.changed.add(seq),
                    Ok(Some(Kept::Whole(message))) => {
                        write(out, &Line::of_raw(seq, &message))?;
                        exported.raw += 1;
                    }
                    Ok(None) | Err(_) => exported.unread.add(seq),
                }
            }
        }
        out.flush()?;
        self.look_at_entries(&mut exported);
        Ok(exported)
    }

    fn look_at_entries(&self, exported: &mut Exported) {
        let places = entries::places(&self.conn).unwrap_or_else(|error| {
            exported.damage.push(format!("which tables there are cannot be read: {error}"));
            Vec::new()
        });
        for place in places {
            match entries::damaged(&self.conn, place) {
                Ok(damaged) => exported.entries.extend(damaged),
                Err(error) => exported.damage.push(format!("the table {place} is damaged: {error}")),
            }
        }
    }

    /// The numbers of a table's rows; where the table is damaged, also those that its indexes know.
    fn numbers(&self, table: &Rows, damage: &mut Vec<String>) -> BTreeSet<u64> {
        let mut found = BTreeSet::new();
        let mut from = Some(0);
        let mut whole = true;
        let mut in_order = true;
        while let Some(begin) = from {
            // A search for the first one may miss those before a number that changed.
            let which = if begin == 0 { String::new() } else { format!("WHERE seq >= {begin}") };
            let sql = format!("SELECT seq FROM {} {which} ORDER BY seq", table.name);
            let mut last = None;
            let read = self.collect(&sql, &mut |seq| {
                in_order &= last.is_none_or(|last| last < seq);
                found.insert(seq);
                last = Some(seq);
            });
            from = match read {
                Ok(()) => None,
                Err(error) => {
                    if whole {
                        damage.push(format!("the table {} is damaged: {error}", table.name));
                    }
                    whole = false;
                    self.next_readable(table, last.map_or(begin, |last| last + 1))
                }
            };
        }
        if !in_order {
            // A number that changed: what is asked for by a number may be another's, or not be found.
            damage.push(format!("the table {} is damaged: its rows are not in order", table.name));
        }
        if !whole || !in_order {
            for sql in table.indexes {
                let read = self.collect(sql, &mut |seq| {
                    found.insert(seq);
                });
                if let Err(error) = read {
                    damage.push(format!(
                        "an index of {} is damaged: rows may be missing that are not named: {error}",
                        table.name
                    ));
                }
            }
        }
        found
    }

    fn collect(&self, sql: &str, each: &mut dyn FnMut(u64)) -> rusqlite::Result<()> {
        let mut query = self.conn.prepare(sql)?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            each(row.get(0)?);
        }
        Ok(())
    }

    /// The first row after a damaged place from which the table can be read on.
    fn next_readable(&self, table: &Rows, after: u64) -> Option<u64> {
        let sql = format!("SELECT seq FROM {} WHERE seq >= ?1 ORDER BY seq LIMIT 1", table.name);
        let first_from = |from: u64| {
            let mut query = self.conn.prepare_cached(&sql)?;
            let mut rows = query.query([rows::int(from)])?;
            rows.next()?.map(|row| row.get::<_, u64>(0)).transpose()
        };
        let last = u64::try_from(i64::MAX).unwrap_or(u64::MAX);
        let (mut broken, mut step) = (after, 1_u64);
        let mut sound = loop {
            let from = after.saturating_add(step).min(last);
            match first_from(from) {
                Ok(_) => break from,
                Err(_) if from == last => return None,
                Err(_) => broken = from,
            }
            step = step.saturating_mul(2);
        };
        while sound - broken > 1 {
            let middle = broken + (sound - broken) / 2;
            match first_from(middle) {
                Ok(_) => sound = middle,
                Err(_) => broken = middle,
            }
        }
        first_from(sound).ok().flatten()
    }
}

/// A row as a line, which `fleetbus parked import` reads.
#[derive(Serialize)]
struct Line<'a> {
    seq: u64,
    kind: &'static str,
    account: &'a str,
    reason: &'static str,
    waits_for: &'static str,
    parked_at: String,
    error: &'a str,
    #[serde(flatten)]
    what: What<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum What<'a> {
    Event {
        r#type: &'static str,
        subject: &'a str,
        topic: &'a str,
        id: String,
        enters: Vec<String>,
        trace: Option<&'a str>,
        /// The encoded `FleetEvent`, in base64.
        payload: String,
    },
    Raw {
        source: &'a str,
        received_at: String,
        /// The bytes, in base64.
        body: String,
    },
}

impl<'a> Line<'a> {
    fn of_event(event: &'a Parked) -> Self {
        Self {
            seq: event.seq.0,
            kind: "event",
            account: event.lane.account.as_str(),
            reason: event.reason.as_str(),
            waits_for: match event.reason.waits_for() {
                WaitsFor::Bus => "bus",
                WaitsFor::Operator => "operator",
            },
            parked_at: time_text(event.parked_at),
            error: &event.error,
            what: What::Event {
                r#type: event.event_type.as_str(),
                subject: &event.lane.subject,
                topic: &event.lane.topic,
                id: event.id.to_string(),
                enters: event.enters.iter().map(Uuid::to_string).collect(),
                trace: event.trace.as_deref(),
                payload: BASE64.encode(&event.payload),
            },
        }
    }

    fn of_raw(seq: Seq, raw: &'a ParkedRaw) -> Self {
        Self {
            seq: seq.0,
            kind: "raw",
            account: raw.account.as_str(),
            reason: raw.reason.as_str(),
            waits_for: "operator",
            parked_at: time_text(raw.received_at),
            error: &raw.error,
            what: What::Raw {
                source: &raw.source,
                received_at: time_text(raw.received_at),
                body: BASE64.encode(&raw.body),
            },
        }
    }
}

fn time_text(time: Millis) -> String {
    jiff::Timestamp::from_millisecond(time.0).map_or_else(|_| time.0.to_string(), |time| time.to_string())
}

fn write(out: &mut dyn Write, line: &Line<'_>) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}
