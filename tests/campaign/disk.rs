//! A small disk of its own for `data_dir`, where this user may mount one: filled with a ballast, and freed. Where not, a folder,
//! and disks are not filled.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Where `data_dir` is.
pub struct Disk {
    dir: PathBuf,
    is_small: bool,
}

impl Disk {
    pub fn make(dir: PathBuf) -> Self {
        std::fs::create_dir_all(&dir).expect("a writable folder");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1g,mode=0700", "campaign"])
            .arg(&dir)
            .status();
        Self { dir, is_small: mounted.is_ok_and(|status| status.success()) }
    }

    pub const fn is_small(&self) -> bool {
        self.is_small
    }

    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Whether what is parked has filled it by itself: the bridge wants 32 MiB that are free, and then takes what the drain frees.
    pub fn has_little_room(&self) -> bool {
        let free = nix::sys::statvfs::statvfs(&self.dir).map(|of| of.blocks_available() * of.fragment_size());
        self.is_small && free.is_ok_and(|free| free < 48 << 20)
    }

    fn ballast(&self) -> PathBuf {
        self.dir.join("ballast")
    }

    /// Not a byte is left.
    pub fn fill(&self) {
        use std::io::Write as _;
        let mut file = std::fs::File::create(self.ballast()).expect("a writable folder");
        let (mut piece, zeros) = (1 << 20, vec![0; 1 << 20]);
        while piece >= 512 {
            if file.write_all(&zeros[..piece]).is_err() {
                piece /= 2;
            }
        }
    }

    pub fn free(&self) {
        std::fs::remove_file(self.ballast()).ok();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.is_small {
            Command::new("umount").arg("-l").arg(&self.dir).status().ok();
        }
    }
}
