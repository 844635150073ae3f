//! A page of the operator's view in SQL: rows of both tables by their numbers, those that a filter asks for, without their payloads.
//! Invariant: what does not match is looked at and never copied; one page looks at a bounded number of rows.

use rusqlite::fallible_streaming_iterator::FallibleStreamingIterator as _;
use rusqlite::{Connection, Row, Rows, Statement};

use super::rows::{account, event_type, int, kind, readable, seq, unsigned, uuid};
use super::view::Head;
use super::{Filter, Kind, Listed, Page, Seq, WaitsFor, What};
use crate::event::Millis;

/// The most rows that are looked at for one question before others get their turn: some milliseconds.
const SLICE_ROWS: usize = 5000;

pub(super) const EVENT_HEADS: &str =
    "SELECT seq, account, reason, parked_at, cost, error, topic, subject, type, id,
     held = (SELECT value FROM meta WHERE name = 'run') FROM parked WHERE seq > ?1 ORDER BY seq";
pub(super) const UNFIT_HEADS: &str =
    "SELECT seq, account, reason, parked_at, cost, error, topic, subject, type, id,
     0 FROM parked INDEXED BY unfit WHERE reason = 2 AND seq > ?1 ORDER BY seq";
const RAW_HEADS: &str = "SELECT seq, account, reason, received_at, cost, error, source FROM raw
     WHERE seq > ?1 ORDER BY seq";

/// Up to `limit` rows that match, after a place, and where to go on: by then they are found, or enough was looked at.
pub(super) fn slice(
    conn: &Connection,
    filter: &Filter,
    after: Option<Seq>,
    limit: usize,
) -> rusqlite::Result<Page<Listed>> {
    let wants = |waits| {
        Kind::ALL
            .into_iter()
            .any(|k| filter.wants(k) && matches!(k, Kind::Event(r) if r.waits_for() == waits))
    };
    let raw = !filter.asks_only_for_events()
        && Kind::ALL.into_iter().any(|k| filter.wants(k) && matches!(k, Kind::Raw(_)));
    let of_events = match (wants(WaitsFor::Bus), wants(WaitsFor::Operator)) {
        (true, _) => Some(EVENT_HEADS),
        (false, true) => Some(UNFIT_HEADS),
        (false, false) => None,
    };
    let after = after.map_or(-1, |seq| int(seq.0));
    let mut of_events = of_events.map(|sql| conn.prepare_cached(sql)).transpose()?;
    let mut of_raw = raw.then(|| conn.prepare_cached(RAW_HEADS)).transpose()?;
    let mut events = Side::new(of_events.as_deref_mut(), after, Columns::Event)?;
    let mut raws = Side::new(of_raw.as_deref_mut(), after, Columns::Raw)?;
    let mut page = Page { rows: Vec::new(), next: None };
    for _ in 0..SLICE_ROWS {
        let first = match (events.seq, raws.seq) {
            (Some(event), Some(raw)) if raw < event => &mut raws,
            (Some(_), _) => &mut events,
            (None, _) => &mut raws,
        };
        let Some(seq) = first.seq else {
            page.next = None;
            return Ok(page);
        };
        page.next = Some(seq);
        page.rows.extend(first.row(filter)?);
        if page.rows.len() >= limit {
            break;
        }
        first.advance()?;
    }
    Ok(page)
}

/// One table's rows, at one of them. Most are passed over: what does not match is never copied.
struct Side<'s> {
    rows: Option<Rows<'s>>,
    seq: Option<Seq>,
    what: Columns,
}

/// What a side's columns from the sixth on are.
#[derive(Clone, Copy)]
enum Columns {
    Event,
    Raw,
}

impl<'s> Side<'s> {
    fn new(statement: Option<&'s mut Statement<'_>>, after: i64, what: Columns) -> rusqlite::Result<Self> {
        let rows = statement.map(|statement| statement.query([after])).transpose()?;
        let mut side = Self { rows, seq: None, what };
        side.advance()?;
        Ok(side)
    }

    fn advance(&mut self) -> rusqlite::Result<()> {
        self.seq = match &mut self.rows {
            Some(rows) => rows.next()?.map(|row| seq(row, 0)).transpose()?,
            None => None,
        };
        Ok(())
    }

    /// The row that it is at, where the filter asks for it. One that has what was never written there is passed over, so that
    /// the others are listed.
    fn row(&self, filter: &Filter) -> rusqlite::Result<Option<Listed>> {
        let Some(row) = self.rows.as_ref().and_then(|rows| rows.get()) else { return Ok(None) };
        Ok(readable(self.listed(row, filter))?.flatten())
    }

    fn listed(&self, row: &Row<'_>, filter: &Filter) -> rusqlite::Result<Option<Listed>> {
        let event = match self.what {
            Columns::Event => Some((row.get_ref(8)?.as_str()?, row.get_ref(7)?.as_str()?)),
            Columns::Raw => None,
        };
        let (account, error) = (row.get_ref(1)?.as_str()?, row.get_ref(5)?.as_str()?);
        let seen = Head { account, kind: kind(row, 2)?, at: Millis(row.get(3)?), error, event };
        if !filter.matches_head(&seen) {
            return Ok(None);
        }
        match self.what {
            Columns::Event => event_head(row).map(Some),
            Columns::Raw => raw_head(row).map(Some),
        }
    }
}

fn event_head(row: &Row<'_>) -> rusqlite::Result<Listed> {
    let what = What::Event {
        topic: row.get(6)?,
        subject: row.get(7)?,
        event_type: event_type(row, 8)?,
        id: uuid(row.get_ref(9)?.as_blob()?, 9)?,
        provisional: row.get(10)?,
    };
    head(row, what)
}

fn raw_head(row: &Row<'_>) -> rusqlite::Result<Listed> {
    head(row, What::Raw { source: row.get(6)? })
}

/// The columns that events and raw bytes have in common.
fn head(row: &Row<'_>, what: What) -> rusqlite::Result<Listed> {
    Ok(Listed {
        seq: seq(row, 0)?,
        account: account(row, 1)?,
        kind: kind(row, 2)?,
        at: Millis(row.get(3)?),
        bytes: unsigned(row, 4)?,
        error: row.get(5)?,
        what,
    })
}
