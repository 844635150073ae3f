//! A file that a command writes and whose content is personal: a backup, an export. Invariants: only its owner reads it; no file is
//! written over; it has its name once it is complete and on disk, and given up, it is gone. `store` and `parked` write with it;
//! `account` does the same in `replay::moving`.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use anyhow::Context as _;

use crate::replay::{part_of, remove_if_there};

/// A file that is being written, under another name until it is complete.
pub struct NewFile {
    /// What is written to.
    pub file: File,
    /// Its name for now.
    pub part: PathBuf,
    name: Option<PathBuf>,
}

impl NewFile {
    /// Makes it, beside the place where it shall be.
    ///
    /// # Errors
    /// Where a file is there already, or none can be made.
    pub fn create(name: PathBuf) -> anyhow::Result<Self> {
        let part = part_of(&name);
        if name.exists() {
            anyhow::bail!("{} is there already: name a new file", name.display());
        }
        // Of one that was broken off by a signal.
        remove_if_there(&part).with_context(|| format!("{} cannot be removed", part.display()))?;
        let file = File::options().write(true).create_new(true).mode(0o600).open(&part);
        let file = file.with_context(|| format!("{} cannot be made", part.display()))?;
        Ok(Self { file, part, name: Some(name) })
    }

    /// It is complete: it gets its name, once it is on disk.
    ///
    /// # Errors
    /// Where it does not get there.
    pub fn finish(mut self) -> anyhow::Result<PathBuf> {
        self.file.sync_all().with_context(|| format!("{} cannot be written", self.part.display()))?;
        let name = self.name.take().unwrap_or_default();
        std::fs::rename(&self.part, &name).with_context(|| format!("{} cannot be made", name.display()))?;
        Ok(name)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if self.name.is_some() {
            // Who reads it would take it for a whole one.
            std::fs::remove_file(&self.part).unwrap_or_default();
        }
    }
}
