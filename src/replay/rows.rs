//! Parked rows in SQL: one function a statement, values in and values out. What a row counts for is a column of its own,
//! so that the counts fall by what they rose by, whatever becomes of the row meanwhile.

use bytes::Bytes;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, ffi, params};
use uuid::Uuid;

use super::queue::RawRow;
use super::tally::Weight;
use super::whole::{self, Compare, Covered};
use super::{
    Gone, Kept, Kind, LaneKey, LaneRows, Parked, ParkedRaw, RawReason, Reason, RecoveredLane, Seq, Stored,
    WaitsFor, Why,
};
use crate::event::{AccountId, EventType, Millis};

/// What a row takes beside its own bytes: its numbers, its place in the indexes, its share of half-filled pages.
const ROW_OVERHEAD: u64 = 160;

/// What an event counts for. Its lane is in the row and in the index.
pub(super) fn event_cost(row: &Parked) -> u64 {
    let lane = 2 * (row.lane.account.as_str().len() + row.lane.topic.len() + row.lane.subject.len());
    let texts = row.error.len() + row.trace.as_ref().map_or(0, String::len);
    (row.payload.len() + 16 * row.enters.len() + lane + texts) as u64 + ROW_OVERHEAD
}

/// What raw bytes count for.
pub(super) fn raw_cost(raw: &ParkedRaw) -> u64 {
    (raw.body.len() + raw.account.as_str().len() + raw.source.len() + raw.error.len()) as u64 + ROW_OVERHEAD
}

/// SQLite's integers are signed; a sequence of one a nanosecond reaches the sign in three centuries.
pub(super) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn seq(row: &Row<'_>, column: usize) -> rusqlite::Result<Seq> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map(Seq).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, value))
}

pub(super) fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    seq(row, column).map(|value| value.0)
}

pub(super) fn account(row: &Row<'_>, column: usize) -> rusqlite::Result<AccountId> {
    Ok(AccountId::new(row.get_ref(column)?.as_str()?))
}

pub(super) fn kind(row: &Row<'_>, column: usize) -> rusqlite::Result<Kind> {
    let code = row.get(column)?;
    Kind::of_code(code).ok_or(rusqlite::Error::IntegralValueOutOfRange(column, code))
}

fn reason(row: &Row<'_>, column: usize) -> rusqlite::Result<Reason> {
    match kind(row, column)? {
        Kind::Event(reason) => Ok(reason),
        Kind::Raw(_) => Err(rusqlite::Error::IntegralValueOutOfRange(column, row.get(column)?)),
    }
}

fn raw_reason(row: &Row<'_>, column: usize) -> rusqlite::Result<RawReason> {
    match kind(row, column)? {
        Kind::Raw(reason) => Ok(reason),
        Kind::Event(_) => Err(rusqlite::Error::IntegralValueOutOfRange(column, row.get(column)?)),
    }
}

pub(super) fn event_type(row: &Row<'_>, column: usize) -> rusqlite::Result<EventType> {
    let text = row.get_ref(column)?.as_str()?;
    EventType::parse(text).ok_or_else(|| {
        let unknown = format!("unknown event type {text}");
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, unknown.into())
    })
}

pub(super) fn uuid(bytes: &[u8], column: usize) -> rusqlite::Result<Uuid> {
    Uuid::from_slice(bytes)
        .map_err(|e| rusqlite::Error::FromSqlConversionFailure(column, Type::Blob, Box::new(e)))
}

/// Ids are kept as their bytes, one after the other.
fn enters(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<Uuid>> {
    row.get_ref(column)?.as_blob()?.chunks(16).map(|id| uuid(id, column)).collect()
}

/// What was read of a row; none where it has what was never written there, which is a matter of that row alone.
pub(super) fn readable<T>(read: rusqlite::Result<T>) -> rusqlite::Result<Option<T>> {
    use rusqlite::Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, Utf8Error};
    match read {
        Ok(read) => Ok(Some(read)),
        Err(
            FromSqlConversionFailure(..)
            | IntegralValueOutOfRange(..)
            | InvalidColumnType(..)
            | Utf8Error(..),
        ) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What a row counts for. Where that cannot be read, the counts are not those of the rows any more: `store check` says so.
fn weight(row: &Row<'_>, from: usize) -> rusqlite::Result<Option<Weight>> {
    let read = || {
        Ok(Weight {
            account: account(row, from)?,
            kind: kind(row, from + 1)?,
            cost: unsigned(row, from + 2)?,
            at: Millis(row.get(from + 3)?),
        })
    };
    readable(read())
}

/// Inserts an event. `run` is the number of this run of the program: a provisional row carries it, and so is
/// provisional no more after a restart.
pub(super) fn insert_event(conn: &Connection, row: &Parked, run: i64) -> rusqlite::Result<Weight> {
    let kind = Kind::Event(row.reason);
    let cost = event_cost(row);
    let held = if row.provisional { run } else { 0 };
    let enters: Vec<u8> = row.enters.iter().flat_map(|id| *id.as_bytes()).collect();
    let covered = Covered {
        account: row.lane.account.as_str().as_bytes(),
        topic: row.lane.topic.as_bytes(),
        subject: row.lane.subject.as_bytes(),
        event_type: row.event_type.as_str().as_bytes(),
        id: row.id.as_bytes(),
        trace: row.trace.as_deref().map(str::as_bytes),
        enters: &enters,
    };
    let checksum = covered.of_event(&row.payload);
    conn.prepare_cached(
        "INSERT INTO parked (seq, account, topic, subject, type, id, reason, for_bus, held, parked_at, cost, error, trace,
                             enters, payload, checksum)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
    )?
    .execute(params![
        int(row.seq.0),
        row.lane.account.as_str(),
        &*row.lane.topic,
        &*row.lane.subject,
        row.event_type.as_str(),
        row.id.as_bytes().as_slice(),
        kind.code(),
        row.reason.waits_for() == WaitsFor::Bus,
        held,
        row.parked_at.0,
        int(cost),
        row.error,
        row.trace,
        enters,
        &*row.payload,
        checksum,
    ])?;
    Ok(Weight { account: row.lane.account.clone(), kind, cost, at: row.parked_at })
}

/// Inserts raw bytes; nothing where they are there already.
pub(super) fn insert_raw(conn: &Connection, row: &RawRow) -> rusqlite::Result<Option<Weight>> {
    let raw = &row.raw;
    let kind = Kind::Raw(raw.reason);
    let cost = raw_cost(raw);
    let inserted = conn
        .prepare_cached(
            "INSERT INTO raw (seq, digest, account, source, received_at, reason, cost, error, body, checksum)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT (digest) DO NOTHING",
        )?
        .execute(params![
            int(row.seq.0),
            row.digest.as_slice(),
            raw.account.as_str(),
            raw.source,
            raw.received_at.0,
            kind.code(),
            int(cost),
            raw.error,
            &*raw.body,
            whole::of_raw(raw.received_at.0, i64::from(kind.code())),
        ])?;
    Ok((inserted > 0).then(|| Weight { account: raw.account.clone(), kind, cost, at: raw.received_at }))
}

/// Deletes an event, where it is there; what it counted for, where that can be read.
pub(super) fn delete_event(conn: &Connection, seq: Seq) -> rusqlite::Result<Option<Option<Weight>>> {
    conn.prepare_cached("DELETE FROM parked WHERE seq = ?1 RETURNING account, reason, cost, parked_at")?
        .query_row([int(seq.0)], |row| weight(row, 0))
        .optional()
}

/// Deletes a row that was delivered, or decoded again.
pub(super) fn delete(conn: &Connection, seq: Seq) -> rusqlite::Result<Option<Weight>> {
    if let Some(event) = delete_event(conn, seq)? {
        return Ok(event);
    }
    let raw = conn
        .prepare_cached("DELETE FROM raw WHERE seq = ?1 RETURNING account, reason, cost, received_at")?
        .query_row([int(seq.0)], |row| weight(row, 0))
        .optional()?;
    Ok(raw.flatten())
}

/// Deletes a row that was not delivered, and says what it was, as far as that can be read.
pub(super) fn take(conn: &Connection, seq: Seq, why: Why) -> rusqlite::Result<Option<(Weight, Gone)>> {
    let event = conn
        .prepare_cached(
            "DELETE FROM parked WHERE seq = ?1
             RETURNING account, reason, cost, parked_at, topic, subject, type, enters",
        )?
        .query_row([int(seq.0)], |row| {
            let Some(weight) = weight(row, 0)? else { return Ok(None) };
            let lane_and_type = || {
                let lane = LaneKey {
                    account: weight.account.clone(),
                    topic: row.get_ref(4)?.as_str()?.into(),
                    subject: row.get_ref(5)?.as_str()?.into(),
                };
                Ok((lane, event_type(row, 6)?))
            };
            let event = readable(lane_and_type())?;
            let enters = readable(enters(row, 7))?.unwrap_or_default();
            let gone = Gone { seq, account: weight.account.clone(), kind: weight.kind, event, enters, why };
            Ok(Some((weight, gone)))
        })
        .optional()?;
    if let Some(event) = event {
        return Ok(event);
    }
    let raw = conn
        .prepare_cached("DELETE FROM raw WHERE seq = ?1 RETURNING account, reason, cost, received_at")?
        .query_row([int(seq.0)], |row| weight(row, 0))
        .optional()?;
    Ok(raw.flatten().map(|weight| {
        let account = weight.account.clone();
        let gone = Gone { seq, account, kind: weight.kind, event: None, enters: Vec::new(), why };
        (weight, gone)
    }))
}

/// Notes that an attempt failed, and how.
pub(super) fn attempted(conn: &Connection, seq: Seq, error: &str) -> rusqlite::Result<()> {
    conn.prepare_cached("UPDATE parked SET attempts = attempts + 1, error = ?2 WHERE seq = ?1")?
        .execute(params![int(seq.0), error])
        .map(|_| ())
}

/// How often a row was tried since it was parked.
pub(super) fn attempts(conn: &Connection, seq: Seq) -> rusqlite::Result<u64> {
    conn.prepare_cached("SELECT attempts FROM parked WHERE seq = ?1")?
        .query_row([int(seq.0)], |row| unsigned(row, 0))
        .optional()
        .map(Option::unwrap_or_default)
}

/// Makes a provisional row a plain one.
pub(super) fn free(conn: &Connection, seq: Seq) -> rusqlite::Result<()> {
    conn.prepare_cached("UPDATE parked SET held = 0 WHERE seq = ?1")?.execute([int(seq.0)]).map(|_| ())
}

/// Changes what a row waits for; what it counted for, and what it counts for now.
pub(super) fn mark(
    conn: &Connection,
    seq: Seq,
    reason: Reason,
    error: &str,
) -> rusqlite::Result<Option<(Weight, Weight)>> {
    let before = conn
        .prepare_cached("SELECT account, reason, cost, parked_at FROM parked WHERE seq = ?1")?
        .query_row([int(seq.0)], |row| weight(row, 0))
        .optional()?;
    let Some(before) = before else {
        return Ok(None);
    };
    let kind = Kind::Event(reason);
    conn.prepare_cached("UPDATE parked SET reason = ?2, for_bus = ?3, error = ?4, held = 0 WHERE seq = ?1")?
        .execute(params![int(seq.0), kind.code(), reason.waits_for() == WaitsFor::Bus, error])?;
    Ok(before.map(|before| {
        let after = Weight { kind, ..before.clone() };
        (before, after)
    }))
}

/// Whether a row is provisional: it carries the number of this run.
const HELD: &str = "held = (SELECT value FROM meta WHERE name = 'run')";

/// A lane's rows that wait for the bus.
pub(super) fn read_lane(conn: &Connection, wanted: &LaneRows) -> rusqlite::Result<Vec<Kept<Parked>>> {
    let LaneRows { lane, after, rows: max_rows, bytes: max_bytes } = wanted;
    let Compare { checksum, may_lack } = Compare::RUNNING;
    let mut query = conn.prepare_cached(&format!(
        "SELECT seq, type, id, reason, {HELD}, parked_at, error, trace, enters, payload, {checksum}, {may_lack}
         FROM parked INDEXED BY lane
         WHERE account = ?1 AND topic = ?2 AND subject = ?3 AND for_bus = 1 AND seq > ?4 ORDER BY seq LIMIT ?5"
    ))?;
    let after = after.map_or(-1, |seq| int(seq.0));
    let limit = int(*max_rows as u64);
    let mut rows = query.query(params![lane.account.as_str(), &*lane.topic, &*lane.subject, after, limit])?;
    let mut found = Vec::new();
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let seq = seq(row, 0)?;
        let Some(event) = readable(event(row, lane.clone()))?.flatten() else {
            found.push(Kept::Damaged(seq));
            continue;
        };
        bytes += event.payload.len() as u64;
        if bytes > *max_bytes && !found.is_empty() {
            break;
        }
        found.push(Kept::Whole(event));
    }
    Ok(found)
}

/// Columns: `seq, type, id, reason, held, parked_at, error, trace, enters, payload`, its checksum, and whether it may have
/// none. None where it is not as it was parked.
fn event(row: &Row<'_>, lane: LaneKey) -> rusqlite::Result<Option<Parked>> {
    let payload = row.get_ref(9)?.as_blob()?;
    let covered = Covered {
        account: lane.account.as_str().as_bytes(),
        topic: lane.topic.as_bytes(),
        subject: lane.subject.as_bytes(),
        event_type: row.get_ref(1)?.as_bytes()?,
        id: row.get_ref(2)?.as_blob()?,
        trace: row.get_ref(7)?.as_bytes_or_null()?,
        enters: row.get_ref(8)?.as_blob()?,
    };
    if !whole::is_whole(row, 10, || covered.of_event(payload))? {
        return Ok(None);
    }
    let payload = Bytes::copy_from_slice(payload);
    Ok(Some(Parked {
        seq: seq(row, 0)?,
        lane,
        event_type: event_type(row, 1)?,
        id: uuid(row.get_ref(2)?.as_blob()?, 2)?,
        reason: reason(row, 3)?,
        provisional: row.get(4)?,
        parked_at: Millis(row.get(5)?),
        error: row.get(6)?,
        trace: row.get(7)?,
        enters: enters(row, 8)?,
        payload,
    }))
}

/// One row with everything.
pub(super) fn get(conn: &Connection, at: Seq) -> rusqlite::Result<Option<Kept<Stored>>> {
    let event = get_event(conn, at, HELD, &Compare::RUNNING)?;
    if let Some(event) = event {
        return Ok(Some(event.map(Stored::Event)));
    }
    let raw = get_raw(conn, at, &Compare::RUNNING)?;
    Ok(raw.map(|raw| raw.map(|raw| Stored::Raw(at, raw))))
}

/// One event of a file that nobody runs, and that may be damaged: nothing but its own row is asked for.
pub(super) fn salvage_event(
    conn: &Connection,
    at: Seq,
    compare: &Compare<'_>,
) -> rusqlite::Result<Option<Kept<Parked>>> {
    get_event(conn, at, "0", compare)
}

fn get_event(
    conn: &Connection,
    at: Seq,
    held: &str,
    compare: &Compare<'_>,
) -> rusqlite::Result<Option<Kept<Parked>>> {
    let Compare { checksum, may_lack } = compare;
    let sql = format!(
        "SELECT seq, type, id, reason, {held}, parked_at, error, trace, enters, payload, {checksum}, {may_lack},
                account, topic, subject
         FROM parked WHERE seq = ?1"
    );
    let read = |row: &Row<'_>| {
        let lane = LaneKey {
            account: account(row, 12)?,
            topic: row.get_ref(13)?.as_str()?.into(),
            subject: row.get_ref(14)?.as_str()?.into(),
        };
        event(row, lane)
    };
    let found = conn.prepare_cached(&sql)?.query_row([int(at.0)], |row| readable(read(row))).optional()?;
    Ok(found.map(|event| Kept::of(at, event.flatten())))
}

/// One message as raw bytes.
pub(super) fn get_raw(
    conn: &Connection,
    at: Seq,
    compare: &Compare<'_>,
) -> rusqlite::Result<Option<Kept<ParkedRaw>>> {
    let Compare { checksum, may_lack } = compare;
    let sql = format!(
        "SELECT account, source, received_at, reason, error, body, digest, {checksum}, {may_lack} FROM raw WHERE seq = ?1"
    );
    let read = |row: &Row<'_>| {
        let raw = ParkedRaw {
            account: account(row, 0)?,
            source: row.get(1)?,
            received_at: Millis(row.get(2)?),
            reason: raw_reason(row, 3)?,
            error: row.get(4)?,
            body: Bytes::from(row.get::<_, Vec<u8>>(5)?),
        };
        let of_rest = || whole::of_raw(raw.received_at.0, i64::from(Kind::Raw(raw.reason).code()));
        let is_whole = row.get_ref(6)?.as_blob()? == whole::digest(&raw) && whole::is_whole(row, 7, of_rest)?;
        Ok(is_whole.then_some(raw))
    };
    let found = conn.prepare_cached(&sql)?.query_row([int(at.0)], |row| readable(read(row))).optional()?;
    Ok(found.map(|raw| Kept::of(at, raw.flatten())))
}

const LANES: &str = "SELECT account, topic, subject, count(*), min(seq) FROM parked INDEXED BY lane
     WHERE for_bus = 1 GROUP BY account, topic, subject";

/// Lanes with rows that wait for the bus, oldest head first. Reads the index alone; one that is not in order would hide rows, and is
/// an error of SQLite's.
pub(super) fn lanes(conn: &Connection) -> rusqlite::Result<Vec<RecoveredLane>> {
    let mut query = conn.prepare(LANES)?;
    let mut rows = query.query([])?;
    let mut lanes = Vec::new();
    while let Some(row) = rows.next()? {
        let this = (row.get_ref(0)?.as_str()?, row.get_ref(1)?.as_str()?, row.get_ref(2)?.as_str()?);
        let before = lanes.last().map(|RecoveredLane { key, .. }| key);
        if before.is_some_and(|key| (key.account.as_str(), &*key.topic, &*key.subject) >= this) {
            let error = ffi::Error::new(ffi::SQLITE_CORRUPT_INDEX);
            return Err(rusqlite::Error::SqliteFailure(error, Some("lanes are not in order".to_owned())));
        }
        let (account, topic, subject) = this;
        let key = LaneKey { account: AccountId::new(account), topic: topic.into(), subject: subject.into() };
        lanes.push(RecoveredLane { key, rows: unsigned(row, 3)?, head: seq(row, 4)? });
    }
    lanes.sort_by_key(|lane| lane.head);
    Ok(lanes)
}

/// An account's oldest rows that wait for the operator, raw bytes only after a place. Quick where the account has many of them.
pub(super) fn oldest_for_operator(
    conn: &Connection,
    account: &AccountId,
    after: Seq,
    limit: u64,
) -> rusqlite::Result<Vec<Seq>> {
    seqs(
        conn,
        "SELECT seq FROM (SELECT seq FROM parked INDEXED BY unfit WHERE reason = 2 AND account = ?1 ORDER BY seq LIMIT ?2)
         UNION ALL SELECT seq FROM (SELECT seq FROM raw WHERE account = ?1 AND seq > ?3 ORDER BY seq LIMIT ?2) ORDER BY seq LIMIT ?2",
        params![account.as_str(), int(limit), int(after.0)],
    )
}

/// The first events that were parked before a time. Looks at rows until it has them: ask for no more than there are.
pub(super) fn events_before(conn: &Connection, time: Millis, limit: u64) -> rusqlite::Result<Vec<Seq>> {
    let sql = "SELECT seq FROM parked WHERE parked_at < ?1 ORDER BY seq LIMIT ?2";
    seqs(conn, sql, params![time.0, int(limit)])
}

/// The first raw bytes that were received before a time.
pub(super) fn raw_before(conn: &Connection, time: Millis, limit: u64) -> rusqlite::Result<Vec<Seq>> {
    let sql = "SELECT seq FROM raw WHERE received_at < ?1 ORDER BY seq LIMIT ?2";
    seqs(conn, sql, params![time.0, int(limit)])
}

fn seqs(conn: &Connection, sql: &str, params: impl rusqlite::Params) -> rusqlite::Result<Vec<Seq>> {
    conn.prepare_cached(sql)?.query_map(params, |row| seq(row, 0))?.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::listing::{EVENT_HEADS, UNFIT_HEADS};
    use crate::replay::schema;

    #[track_caller]
    fn check(sql: &str, expected: &str) {
        let dir = tempfile::tempdir().unwrap();
        let conn = schema::open(&dir.path().join("store.db"), None).unwrap();
        let mut query = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let plan: Vec<String> = query.query_map([], |row| row.get(3)).unwrap().map(Result::unwrap).collect();
        assert_eq!(plan.first().map(String::as_str), Some(expected));
    }

    #[test]
    fn lanes_are_counted_from_their_index_and_operators_rows_found_by_theirs() {
        check(LANES, "SCAN parked USING COVERING INDEX lane");
        check(&UNFIT_HEADS.replace("?1", "1"), "SEARCH parked USING INDEX unfit (reason=? AND rowid>?)");
        check(&EVENT_HEADS.replace("?1", "1"), "SEARCH parked USING INTEGER PRIMARY KEY (rowid>?)");
    }
}
