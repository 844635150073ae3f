//! What dedup knows of one account, out of one `seen.db` and into another, while neither process runs. Invariant: what was known there
//! is known here; that an id comes twice does no harm. Neighbour: `replay::moving`, whose file it rides in.

use std::collections::{HashMap, HashSet};
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

    /// What was forgotten, and when; of whom, nobody knows: whoever takes it in takes what is among the account's ids.
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
    // What was forgotten there of other accounts may have been delivered here since.
    let mut forgotten_there = forgotten_of(away)?;
    let mut forgets = Vec::new();
    while let Some(row) = rows.next()? {
        let Some(event_type) = EventType::parse(row.get_ref(0)?.as_str()?) else { continue };
        let bucket = Bucket { account: account.clone(), event_type, hour: row.get(1)? };
        let ids = row.get_ref(2)?.as_blob()?.as_chunks::<WIDTH>().0.to_vec();
        seen += ids.len() as u64;
        for id in &ids {
            if forgotten_here.contains(id) {
                file.remember(id)?;
            }
            forgets.extend(forgotten_there.remove_entry(id));
        }
        file.add_runs(&[(bucket, ids)])?;
    }
    // Once all are remembered: an id may be in more than one hour.
    for (id, at) in forgets {
        file.forget(&id, at)?;
    }
    file.forget_reach(account)?;
    file.settle()?;
    Ok(seen)
}

fn forgotten_of(away: &Connection) -> rusqlite::Result<HashMap<Short, i64>> {
    let mut forgotten = away.prepare("SELECT id, at FROM forgotten")?;
    let mut rows = forgotten.query([])?;
    let mut all = HashMap::new();
    while let Some(row) = rows.next()? {
        if let Ok(id) = Short::try_from(row.get_ref(0)?.as_blob()?) {
            all.insert(id, row.get(1)?);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_forgotten_of_the_account_is_forgotten_where_it_moves_to() {
        let dir = tempfile::tempdir().expect("a folder");
        let (moves, stays) = (AccountId::new("moves"), AccountId::new("stays"));
        let bucket = |account: &AccountId, hour| Bucket {
            account: account.clone(),
            event_type: EventType::Trip,
            hour,
        };
        let [known, discarded, of_the_other]: [Short; 3] = [[1; 12], [2; 12], [3; 12]];
        let (mut file, _) = File::open(&dir.path().join("seen.db")).expect("opens");
        file.add_runs(&[(bucket(&stays, 7), vec![of_the_other])]).expect("written");
        // It lived here before, and was discarded here.
        for id in [known, discarded] {
            file.forget(&id, 1).expect("written");
        }
        drop(file);
        let away = Connection::open_in_memory().expect("opens");
        away.execute_batch("CREATE TABLE seen (type, hour, ids); CREATE TABLE forgotten (id, at);")
            .expect("made");
        for (hour, ids) in [(7, [known, discarded].concat()), (8, discarded.to_vec())] {
            away.execute("INSERT INTO seen VALUES (?1, ?2, ?3)", (EventType::Trip.as_str(), hour, ids))
                .expect("written");
        }
        for id in [discarded, of_the_other] {
            away.execute("INSERT INTO forgotten VALUES (?1, 9)", [id.to_vec()]).expect("written");
        }
        assert_eq!(write(dir.path(), &moves, &away).expect("written"), 3);
        let (file, tail) = File::open(&dir.path().join("seen.db")).expect("opens");
        assert_eq!(tail.forgotten().collect::<Vec<_>>(), [(discarded, 9)]);
        assert!(file.holds(&bucket(&moves, 7), &[known]).expect("answers"));
    }
}
