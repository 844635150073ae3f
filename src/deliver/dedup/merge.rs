//! Runs of an hour that are alike in size become one, step by step: however many ids an hour has, a few pieces of them are in memory,
//! a step is a short transaction between two answers, and an id is written again as often as its run grows fourfold. Invariant: at
//! every step each id of the hour is in a run that `file` knows; a merge that ends anywhere leaves ids twice, and none out. One whose
//! step failed is undone, so that a full disk is not filled further.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::file::{File, insert_piece};
use super::tail::{Bucket, Short};

/// So many runs of like size become one: within a factor of as much they are alike.
const FAN: usize = 4;
/// Ids in one piece: 12 KiB.
pub const PIECE: usize = 1_024;
/// Pieces that one step writes, or deletes.
const STEP: usize = 64;

/// One run of an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Its number in the hour.
    pub number: i64,
    /// How many pieces it has.
    pub pieces: usize,
}

/// Those that are to become one: the smallest that are alike, where there are enough of them.
pub fn alike(runs: &[Run]) -> Option<Vec<Run>> {
    // Nearly all hours: nothing is copied for them when the file is opened.
    if runs.len() < FAN {
        return None;
    }
    let size = |run: &Run| run.pieces.max(1).ilog(FAN);
    let mut runs = runs.to_vec();
    runs.sort_by_key(size);
    runs.chunk_by(|one, other| size(one) == size(other)).find(|alike| alike.len() >= FAN).map(<[Run]>::to_vec)
}

/// Whether what is done step by step has more to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Another step.
    More,
    /// It is done.
    Done,
}

/// Several runs on their way to become one.
pub struct Merge {
    bucket: Bucket,
    /// Those that are read.
    sources: Vec<Source>,
    /// The one that is written.
    into: i64,
    last: Option<Short>,
    /// Those whose ids are in others, and that are to be deleted.
    spent: Vec<i64>,
}

/// A run that is read piece by piece.
struct Source {
    run: i64,
    /// How many it has.
    pieces: usize,
    piece: std::vec::IntoIter<Short>,
    /// Where the piece in hand begins.
    first: Vec<u8>,
    /// There is no piece after it.
    ended: bool,
}

impl Source {
    /// The next id, left where it is.
    fn peek(&mut self, connection: &Connection, bucket: &Bucket) -> rusqlite::Result<Option<Short>> {
        while self.piece.as_slice().is_empty() && !self.ended {
            let sql = "SELECT first, ids FROM piece WHERE account = ?1 AND type = ?2 AND hour = ?3 AND run = ?4 AND first > ?5
                       ORDER BY first LIMIT 1";
            let (account, event_type) = (bucket.account.as_str(), bucket.event_type.as_str());
            let place = params![account, event_type, bucket.hour, self.run, self.first];
            let next = connection.prepare_cached(sql)?.query_row(place, |row| {
                let ids: Vec<Short> = row.get_ref(1)?.as_blob()?.as_chunks::<12>().0.to_vec();
                Ok((row.get(0)?, ids))
            });
            match next.optional()? {
                Some((first, ids)) => (self.first, self.piece) = (first, ids.into_iter()),
                None => self.ended = true,
            }
        }
        Ok(self.piece.as_slice().first().copied())
    }
}

impl Merge {
    /// Of these runs of an hour into another one, which the file knows from now on.
    pub(super) fn new(bucket: Bucket, runs: &[Run], into: i64) -> Self {
        let source = |run: &Run| Source {
            run: run.number,
            pieces: run.pieces,
            piece: vec![].into_iter(),
            first: vec![],
            ended: false,
        };
        Self { bucket, sources: runs.iter().map(source).collect(), into, last: None, spent: Vec::new() }
    }

    /// Whether it is of this hour.
    pub fn is_of(&self, bucket: &Bucket) -> bool {
        self.bucket == *bucket
    }

    /// What is left to do after a step that failed: where its runs are not one yet, what was written of that one goes.
    pub fn undone(mut self) -> Self {
        if !self.sources.is_empty() {
            self.sources.clear();
            self.spent = vec![self.into];
        }
        self
    }

    /// One short transaction.
    ///
    /// # Errors
    /// What SQLite says; it is to be [undone](Self::undone) then.
    pub fn step(&mut self, file: &mut File) -> rusqlite::Result<Progress> {
        if self.sources.is_empty() { self.delete(file) } else { self.write(file) }
    }

    fn write(&mut self, file: &mut File) -> rusqlite::Result<Progress> {
        let transaction = file.connection.transaction()?;
        let mut written = 0;
        while written < STEP {
            let piece = self.piece(&transaction)?;
            if piece.is_empty() {
                break;
            }
            insert_piece(&transaction, &self.bucket, self.into, &piece)?;
            written += 1;
        }
        let (mut spent, mut progress) = (Vec::new(), Progress::More);
        if written < STEP {
            spent = self.sources.iter().map(|source| source.run).collect();
            // Most are small: all of it is one step then.
            if self.sources.iter().map(|source| source.pieces).sum::<usize>() < STEP {
                for run in &spent {
                    delete_step(&transaction, &self.bucket, *run)?;
                }
                progress = Progress::Done;
            }
        }
        transaction.commit()?;
        file.grew(&self.bucket, self.into, written);
        file.forget_runs(&self.bucket, &spent);
        if !spent.is_empty() {
            self.sources.clear();
            self.spent = spent;
        }
        Ok(progress)
    }

    /// The next ids of all sources, in order, each once.
    fn piece(&mut self, connection: &Connection) -> rusqlite::Result<Vec<Short>> {
        let mut ids = Vec::with_capacity(PIECE);
        while ids.len() < PIECE {
            let mut least: Option<(Short, usize)> = None;
            for (at, source) in self.sources.iter_mut().enumerate() {
                if let Some(id) = source.peek(connection, &self.bucket)?
                    && least.is_none_or(|(least, _)| id < least)
                {
                    least = Some((id, at));
                }
            }
            let Some((id, at)) = least else { break };
            if let Some(source) = self.sources.get_mut(at) {
                source.piece.next();
            }
            if self.last != Some(id) {
                self.last = Some(id);
                ids.push(id);
            }
        }
        Ok(ids)
    }

    fn delete(&mut self, file: &mut File) -> rusqlite::Result<Progress> {
        let Some(run) = self.spent.last() else { return Ok(Progress::Done) };
        if delete_step(&file.connection, &self.bucket, *run)? == Progress::Done {
            // Not before: until then no other run may have its number.
            file.forget_runs(&self.bucket, &[*run]);
            self.spent.pop();
        }
        Ok(Progress::More)
    }
}

/// Deletes pieces of a run, a step's worth at most.
pub fn delete_step(connection: &Connection, bucket: &Bucket, run: i64) -> rusqlite::Result<Progress> {
    let sql = format!(
        "DELETE FROM piece WHERE rowid IN
         (SELECT rowid FROM piece WHERE account = ?1 AND type = ?2 AND hour = ?3 AND run = ?4 LIMIT {STEP})"
    );
    let (account, event_type) = (bucket.account.as_str(), bucket.event_type.as_str());
    let deleted = connection.prepare_cached(&sql)?.execute(params![account, event_type, bucket.hour, run])?;
    Ok(if deleted < STEP { Progress::Done } else { Progress::More })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{AccountId, EventType};

    fn bucket() -> Bucket {
        Bucket { account: AccountId::new("acme"), event_type: EventType::Position, hour: 7 }
    }

    fn id(n: u64) -> Short {
        let mut id = [0; 12];
        id[..8].copy_from_slice(&(n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        id
    }

    fn run(numbers: std::ops::Range<u64>) -> Vec<(Bucket, Vec<Short>)> {
        let mut ids: Vec<Short> = numbers.map(id).collect();
        ids.sort_unstable();
        vec![(bucket(), ids)]
    }

    #[test]
    fn runs_are_alike_within_a_factor_of_four_and_the_smallest_come_first() {
        let of = |pieces: &[usize]| -> Vec<Run> {
            pieces.iter().enumerate().map(|(at, pieces)| Run { number: at as i64, pieces: *pieces }).collect()
        };
        let alike = |pieces: &[usize]| -> Option<Vec<i64>> {
            alike(&of(pieces)).map(|runs| runs.iter().map(|run| run.number).collect())
        };
        assert_eq!(alike(&[1, 1, 1]), None);
        assert_eq!(alike(&[1, 3, 2, 1]), Some(vec![0, 1, 2, 3]));
        assert_eq!(alike(&[1, 4, 15, 1, 1, 7]), None);
        assert_eq!(alike(&[20, 16, 1, 63, 1, 1, 40, 0]), Some(vec![2, 4, 5, 7]));
    }

    /// Two steps of writing at least, and of deleting.
    const EACH: u64 = (STEP * PIECE * 2 / 3) as u64;

    /// Has steps made of a merge, and then no more: of a process that goes on, or of the next one. True where it was all of them.
    fn cut_after(most: usize, next_process: impl Fn(File, &std::path::Path) -> File) -> bool {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("seen.db");
        let (mut file, _) = File::open(&path).expect("opens");
        for number in 0..FAN as u64 {
            // Half of each is in the one before, too.
            file.add_runs(&run(number * EACH / 2..number * EACH / 2 + EACH)).expect("written");
        }
        let knows_all = |file: &File| {
            (0..(FAN as u64 + 1) * EACH / 2)
                .step_by(97)
                .all(|n| file.holds(&bucket(), &[id(n)]).expect("answers"))
        };
        let mut merge = file.next_merge().expect("four are alike");
        let (mut steps, mut progress) = (0, Progress::More);
        while progress == Progress::More && steps < most {
            progress = merge.step(&mut file).expect("steps");
            steps += 1;
            assert!(knows_all(&file), "step {steps}");
        }
        drop(merge);
        let mut file = next_process(file, &path);
        assert!(knows_all(&file));
        assert!(!file.holds(&bucket(), &[id(9 * EACH)]).expect("answers"));
        file.merge_all();
        file.add_runs(&run(9 * EACH..9 * EACH + 1)).expect("a number of its own");
        assert!(file.holds(&bucket(), &[id(9 * EACH)]).expect("answers"));
        assert!(knows_all(&file));
        progress == Progress::Done
    }

    #[test]
    fn wherever_a_merge_ends_every_id_is_found_and_the_next_one_goes_on() {
        let last = (0..).find(|most| cut_after(*most, |file, _| file)).expect("it ends");
        assert!(last > 4, "more than a step each: {last}");
    }

    #[test]
    fn wherever_a_process_dies_in_a_merge_every_id_is_found_and_the_next_process_goes_on() {
        let again = |file: File, path: &std::path::Path| {
            drop(file);
            File::open(path).expect("opens again").0
        };
        (0..).find(|most| cut_after(*most, again)).expect("it ends");
    }

    #[test]
    fn a_merge_without_room_is_undone_and_done_once_there_is() {
        let dir = tempfile::tempdir().expect("a folder");
        let (mut file, _) = File::open(&dir.path().join("seen.db")).expect("opens");
        for number in 0..FAN as u64 {
            file.add_runs(&run(number * EACH..(number + 1) * EACH)).expect("written");
        }
        let count = |file: &File, sql: &str| -> i64 {
            file.connection.query_row(sql, [], |row| row.get(0)).expect("a number")
        };
        let (pages, most) = ("PRAGMA page_count", 1 << 30);
        let pieces = "SELECT count(*) FROM piece";
        let before = count(&file, pieces);
        // Room for one step, and not for two.
        let room = count(&file, pages) + (STEP * PIECE * 12 / 4_096) as i64 * 3 / 2;
        for (room, ends_as) in [(room, FAN), (room, FAN), (most, 1)] {
            count(&file, &format!("PRAGMA max_page_count = {room}"));
            let mut merge = file.next_merge().expect("four are alike");
            let mut failed = 0;
            loop {
                match merge.step(&mut file) {
                    Ok(Progress::More) => {}
                    Ok(Progress::Done) => break,
                    Err(_) => {
                        failed += 1;
                        merge = merge.undone();
                    }
                }
            }
            assert_eq!((failed, file.runs_of(&bucket())), (usize::from(ends_as > 1), ends_as));
            assert!(ends_as == 1 || count(&file, pieces) == before);
            assert!(
                (0..FAN as u64 * EACH).step_by(97).all(|n| file.holds(&bucket(), &[id(n)]).expect("answers"))
            );
        }
    }

    #[test]
    fn an_hour_is_dropped_by_short_steps() {
        let dir = tempfile::tempdir().expect("a folder");
        let (mut file, _) = File::open(&dir.path().join("seen.db")).expect("opens");
        for number in 0..2 {
            file.add_runs(&run(number * 2 * EACH..(number + 1) * 2 * EACH)).expect("written");
        }
        let count = |file: &File| -> usize {
            let sql = "SELECT count(*) FROM piece";
            file.connection.query_row(sql, [], |row| row.get(0)).expect("a number")
        };
        let (mut left, mut progress) = (count(&file), Progress::More);
        assert!(left > 2 * STEP);
        while progress == Progress::More {
            progress = file.drop_step(&bucket()).expect("steps");
            let now = count(&file);
            assert!(left - now <= STEP, "{left} to {now}");
            left = now;
        }
        assert_eq!((left, file.buckets().count()), (0, 0));
        assert!(file.next_merge().is_none());
    }

    #[test]
    fn an_id_of_several_runs_is_once_in_their_merge_and_runs_stay_few() {
        let dir = tempfile::tempdir().expect("a folder");
        let (mut file, _) = File::open(&dir.path().join("seen.db")).expect("opens");
        let pieces = |file: &File| -> usize {
            let sql = "SELECT count(*) FROM piece";
            file.connection.query_row(sql, [], |row| row.get(0)).expect("a count")
        };
        for round in 0..100u64 {
            file.add_runs(&run(round * 500..round * 500 + 1_000)).expect("written");
            file.merge_all();
            assert!(file.runs_of(&bucket()) < FAN * 4);
        }
        // 50,500 ids, in at most one piece a run that is not full.
        assert!(pieces(&file) <= 50_500 / PIECE + 1 + FAN * 4, "{}", pieces(&file));
    }
}
