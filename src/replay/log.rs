//! The write-ahead log before SQLite reads it. SQLite ends a log at the first frame whose checksum is wrong, and says
//! nothing: after a kill that is an end that nobody was told of, after damage it would be rows that senders were answered
//! for. Invariant: only looks. The layout is that of <https://sqlite.org/fileformat2.html#the_write_ahead_log>.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
/// The first word of a log; with the last bit set, its checksums are of big-endian words.
const MAGIC: u32 = 0x377f_0682;

/// What a log looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// SQLite will read all that was committed.
    Sound,
    /// Its last transaction is broken: a power cut leaves that, and nobody was told of it; but damage may, too.
    Torn,
    /// More than what was being written last is broken: committed transactions would be passed over.
    Damaged {
        /// How many, at least.
        commits: u64,
    },
}

/// The log that belongs to a file.
pub(crate) fn path_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// Whether a log that was begun has no header any more: SQLite, which has it in memory, goes on, and whoever opens it next
/// reads nothing.
pub(super) fn is_headless(log: &File) -> bool {
    let mut magic = [0; 4];
    match log.read_exact_at(&mut magic, 0) {
        Ok(()) => u32::from_be_bytes(magic) & !1 != MAGIC,
        Err(error) => error.kind() == io::ErrorKind::UnexpectedEof,
    }
}

/// Looks at the log of a file, if there is one.
///
/// # Errors
/// Where it cannot be read.
pub(super) fn look(file: &Path) -> io::Result<Look> {
    let mut log = match File::open(path_of(file)) {
        Ok(log) => BufReader::with_capacity(1 << 20, log),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Look::Sound),
        Err(error) => return Err(error),
    };
    let mut header = [0; HEADER];
    if log.read_exact(&mut header).is_err() {
        return Ok(Look::Sound);
    }
    let [magic, _, page, _, salt_1, salt_2, sum_1, sum_2] = words(&header);
    let order = if magic & 1 == 1 { u32::from_be_bytes } else { u32::from_le_bytes };
    let sum = checksum((0, 0), &header[..24], order);
    let sound = magic & !1 == MAGIC && sum == (sum_1, sum_2) && page.is_power_of_two() && page >= 512;
    // A header is synced before any frame is written: where it is broken, its frames are looked at as they mostly are.
    let page = if sound { page as usize } else { 4096 };
    let mut walk = Walk { sum, salt: sound.then_some((salt_1, salt_2)), order, whole: sound, passed_over: 0 };
    let mut frame = vec![0; FRAME_HEADER + page];
    loop {
        match log.read_exact(&mut frame) {
            Ok(()) => walk.frame(&frame),
            // What is shorter than a frame was never a whole one.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error),
        }
    }
    Ok(match walk.passed_over {
        0 => Look::Sound,
        1 if sound => Look::Torn,
        commits => Look::Damaged { commits },
    })
}

/// Frames, one after the other.
struct Walk {
    sum: (u32, u32),
    /// Those of an older log, which this one is being written over, have another salt.
    salt: Option<(u32, u32)>,
    order: fn([u8; 4]) -> u32,
    whole: bool,
    /// Commits from the first broken frame on.
    passed_over: u64,
}

impl Walk {
    fn frame(&mut self, frame: &[u8]) {
        let mut head = [0; FRAME_HEADER];
        head.copy_from_slice(&frame[..FRAME_HEADER]);
        let [number, commit, salt_1, salt_2, sum_1, sum_2] = words(&head);
        let salt = *self.salt.get_or_insert((salt_1, salt_2));
        let fits = salt == (salt_1, salt_2) && salt != (0, 0);
        let sum = checksum(self.sum, &frame[..8], self.order);
        self.sum = checksum(sum, &frame[FRAME_HEADER..], self.order);
        let right = self.sum == (sum_1, sum_2);
        self.whole &= fits && right && number > 0;
        // One whose sum is right is of this log, even if its salt is not.
        if !fits && !right {
            return;
        }
        if !self.whole && commit > 0 {
            self.passed_over += 1;
        }
    }
}

fn words<const BYTES: usize, const WORDS: usize>(bytes: &[u8; BYTES]) -> [u32; WORDS] {
    let mut words = [0; WORDS];
    for (word, four) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = u32::from_be_bytes(*four);
    }
    words
}

/// Goes on with SQLite's checksum: pairs of words, each sum fed with the other.
fn checksum(from: (u32, u32), bytes: &[u8], order: fn([u8; 4]) -> u32) -> (u32, u32) {
    bytes.as_chunks::<8>().0.iter().fold(from, |(first, second), [a, b, c, d, e, f, g, h]| {
        let first = first.wrapping_add(order([*a, *b, *c, *d])).wrapping_add(second);
        (first, second.wrapping_add(order([*e, *f, *g, *h])).wrapping_add(first))
    })
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    /// A database whose log has three transactions, copied as a kill would leave it.
    fn three_transactions() -> (tempfile::TempDir, PathBuf, Vec<u8>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        let conn = Connection::open(&path).unwrap();
        conn.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (x ANY) STRICT;").unwrap();
        for _ in 0..2 {
            conn.execute("INSERT INTO t VALUES (randomblob(9000))", []).unwrap();
        }
        let log = std::fs::read(path_of(&path)).unwrap();
        let copy = dir.path().join("copy.db");
        std::fs::copy(&path, &copy).unwrap();
        (dir, copy, log)
    }

    fn look_at(copy: &Path, log: &[u8]) -> Look {
        std::fs::write(path_of(copy), log).unwrap();
        look(copy).unwrap()
    }

    #[test]
    fn a_log_is_sound_whole_absent_empty_or_cut_off() {
        let (_dir, copy, log) = three_transactions();
        assert_eq!(look(&copy).unwrap(), Look::Sound);
        for end in (0..=log.len()).step_by(509).chain([log.len()]) {
            assert_eq!(look_at(&copy, &log[..end]), Look::Sound, "cut at {end}");
        }
        let mut over = log.clone();
        // The rest of an older log, behind.
        over.extend(log[HEADER..].iter().map(|byte| byte ^ 0x55));
        assert_eq!(look_at(&copy, &over), Look::Sound);
    }

    #[test]
    fn a_bit_that_turned_is_noticed_wherever_it_is() {
        let (_dir, copy, log) = three_transactions();
        let frame = FRAME_HEADER + 4096;
        let frames = (log.len() - HEADER) / frame;
        let ends: Vec<usize> = (0..frames).map(|at| HEADER + at * frame).collect();
        let commits =
            |from: usize| ends[from..].iter().filter(|at| log[**at + 4..**at + 8] != [0; 4]).count() as u64;
        assert_eq!(commits(0), 3);
        for (number, at) in ends.iter().enumerate() {
            // The page's number, its checksum, its first and last byte.
            for byte in [at + 3, at + 9, at + 16, at + FRAME_HEADER, at + frame - 1] {
                let mut flipped = log.clone();
                flipped[byte] ^= 1;
                let expected = match commits(number) {
                    1 => Look::Torn,
                    commits => Look::Damaged { commits },
                };
                assert_eq!(look_at(&copy, &flipped), expected, "byte {byte} of frame {number}");
            }
        }
        for byte in [0, 10, 17, 24] {
            let mut flipped = log.clone();
            flipped[byte] ^= 1;
            assert!(matches!(look_at(&copy, &flipped), Look::Damaged { .. }), "byte {byte} of the header");
        }
    }
}
