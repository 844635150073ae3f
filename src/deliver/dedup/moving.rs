//! What dedup knows of one account, out of one `seen.db` and into another, while neither process runs. Invariant: what was known there
//! is known here; that an id comes twice does no harm. Neighbour: `replay::moving`, whose file it rides in.

use std::collections::HashSet;
use std::path::Path;

use rusqlite::Connection;

use super::file::{File, FileError};
use super::tail::{Bucket, Short, Tail};
use crate::event::{AccountId, EventType};

/// Bytes of an id.
pub const WIDTH: usize = size_of::<Short>();

/// An account's ids.
pub struct Known {
    file: File,
    account: AccountId,
    tail: Tail,
}

/// Opens `seen.db` in a folder.
///
/// # Errors
/// Where it is damaged: what is in it may be lost, so move it away, and consumers see some events again, with the same ids.
pub fn read(dir: &Path, account: &AccountId) -> Result<Known, FileError> {
    let (file, tail) = File::open(&dir.join("seen.db"))?;
    Ok(Known { file, account: account.clone(), tail })
}

impl Known {
    /// Whether it knows nothing.
    pub fn is_nothing(&self) -> bool {
        let mut buckets = self.file.buckets().chain(self.tail.buckets());
        !buckets.any(|bucket| bucket.account == self.account)
    }

    /// Each hour of each type, with its ids one after the other, in order.
    pub fn hours(&self) -> impl Iterator<Item = rusqlite::Result<(EventType, i64, Vec<u8>)>> {
        let of_disk = self.file.buckets().filter(|bucket| bucket.account == self.account).map(|bucket| {
            let ids = self.file.ids(bucket)?;
            Ok((bucket.event_type, bucket.hour, ids.as_flattened().to_vec()))
        });
        let fresh = self.tail.sorted().into_iter().filter(|(bucket, _)| bucket.account == self.account);
        let of_tail =
            fresh.map(|(bucket, ids)| Ok((bucket.event_type, bucket.hour, ids.as_flattened().to_vec())));
        of_disk.chain(of_tail)
    }

    /// What was forgotten, and when; of whom, nobody knows: other accounts' ids do no harm.
    pub fn forgotten(&self) -> impl Iterator<Item = (Short, i64)> {
        self.tail.forgotten()
    }
}

/// Takes in what an exported account's file has: how many ids.
///
/// # Errors
/// Where it cannot be opened, read or written.
pub fn write(dir: &Path, account: &AccountId, away: &Connection) -> Result<u64, FileError> {
    let (file, tail) = File::open(&dir.join("seen.db"))?;
    Ok(take_in(file, &tail, account, away)?)
}

fn take_in(mut file: File, tail: &Tail, account: &AccountId, away: &Connection) -> rusqlite::Result<u64> {
    // It may have lived here before, and what was forgotten then may have been remembered since.
    let forgotten_here: HashSet<Short> = tail.forgotten().map(|(id, _)| id).collect();
    let mut hours = away.prepare("SELECT type, hour, ids FROM seen ORDER BY rowid")?;
    let mut rows = hours.query([])?;
    let mut seen = 0;
    while let Some(row) = rows.next()? {
        let Some(event_type) = EventType::parse(row.get_ref(0)?.as_str()?) else { continue };
        let bucket = Bucket { account: account.clone(), event_type, hour: row.get(1)? };
        let ids = row.get_ref(2)?.as_blob()?.as_chunks::<WIDTH>().0.to_vec();
        seen += ids.len() as u64;
        for id in ids.iter().filter(|id| forgotten_here.contains(*id)) {
            file.remember(id)?;
        }
        file.add_runs(&[(bucket, ids)])?;
    }
    let mut forgotten = away.prepare("SELECT id, at FROM forgotten")?;
    let mut rows = forgotten.query([])?;
    while let Some(row) = rows.next()? {
        let (id, at) = (row.get_ref(0)?.as_blob()?, row.get::<_, i64>(1)?);
        file.forget(id, at)?;
    }
    file.forget_reach(account)?;
    file.settle()?;
    Ok(seen)
}
