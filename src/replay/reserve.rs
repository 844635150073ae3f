//! Room on the disk that nobody uses, so that a full disk can still delete: a delete writes to the log before it frees a
//! page. When the disk is full the file is given up, and made again as soon as there is room for twice as much.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::schema::remove_if_there;

/// Written at once.
const PIECE: usize = 1 << 20;
/// Written to see whether there is room: what a transaction wants, at least.
const TRIED: u64 = 64 << 10;

/// The file that keeps the room.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    bytes: u64,
}

impl Reserve {
    pub(super) const fn new(path: PathBuf, bytes: u64) -> Self {
        Self { path, bytes }
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes the file, where it is missing or of another size.
    ///
    /// # Errors
    /// Where there is no room for twice its size: with less, the next park would only take it again. How much that is, it says.
    pub(super) fn make(&self) -> io::Result<()> {
        if self.path.metadata().is_ok_and(|file| file.len() == self.bytes) {
            return Ok(());
        }
        let made = filled(&self.path, self.bytes * 2).and_then(|file| {
            file.set_len(self.bytes)?;
            file.sync_all()
        });
        if made.is_err() {
            self.give_up();
        }
        made.map_err(|error| {
            io::Error::new(error.kind(), format!("{error}: {} MiB must be free", (self.bytes * 2) >> 20))
        })
    }

    /// Whether the disk, or a quota, takes no more.
    pub(super) fn is_room_spent(&self) -> bool {
        let path = self.path.with_extension("probe");
        let tried = filled(&path, TRIED);
        remove(&path);
        tried.is_err_and(|error| {
            matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        })
    }

    /// Gives the room up. Where that fails there is nothing else to do about it: the disk stays full.
    pub(super) fn give_up(&self) {
        remove(&self.path);
    }
}

/// A new file of so many bytes, on the disk: such that no file system keeps in less room than they take, neither holes nor zeros.
fn filled(path: &Path, bytes: u64) -> io::Result<File> {
    let mut file = File::create(path)?;
    let mut piece = vec![0; PIECE];
    rand::fill(&mut piece[..]);
    let mut left = bytes;
    while left > 0 {
        let length = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        file.write_all(&piece[..length])?;
        left -= length as u64;
    }
    file.sync_all()?;
    Ok(file)
}

fn remove(path: &Path) {
    if let Err(error) = remove_if_there(path) {
        tracing::warn!(error = %error, "store.reserve_kept");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_given_up_and_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let reserve = Reserve::new(dir.path().join("reserve"), 3 << 20);
        let length = || dir.path().join("reserve").metadata().map(|file| file.len()).ok();
        reserve.make().unwrap();
        assert_eq!(length(), Some(3 << 20));
        reserve.give_up();
        assert_eq!(length(), None);
        reserve.give_up();
        reserve.make().unwrap();
        assert_eq!(length(), Some(3 << 20));
    }

    #[test]
    fn where_it_cannot_be_made_nothing_is_left_of_it() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Reserve::new(dir.path().join("missing/reserve"), 1).make().is_err());
    }
}
