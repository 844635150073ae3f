//! Which kind of file system a folder is on, read from `/proc/self/mountinfo`: on some, "durable" means less than it
//! says. Pure but for [`Volume::of`].

use std::path::{Path, PathBuf};

/// A file system, named for what an fsync on it is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Volume {
    /// A disk, or something that is not known to be less.
    Disk,
    /// Memory: gone with the machine, or the pod.
    Memory(String),
    /// A container's own layer: gone with the container.
    Container(String),
    /// Another machine's disk: locks and fsync are as good as its server.
    Network(String),
}

impl Volume {
    /// The file system of an existing path. What cannot be read counts as a disk.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        let Ok(path) = path.canonicalize() else {
            return Self::Disk;
        };
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Self::among(&mounts, &path)
    }

    /// A sentence for the operator, where there is something to say.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let (kind, what) = match self {
            Self::Disk => return None,
            Self::Memory(kind) => (kind, "it is gone when the machine or the pod is"),
            Self::Container(kind) => (kind, "it is gone when the container is"),
            Self::Network(kind) => (kind, "its locks and its durability are those of the server"),
        };
        Some(format!("the data directory is on {kind}: durable means only as durable as that, for {what}"))
    }

    /// The file system of `path` by the text of a `mountinfo`.
    fn among(mountinfo: &str, path: &Path) -> Self {
        let mut best: Option<(usize, &str)> = None;
        for (point, kind) in mountinfo.lines().filter_map(mount) {
            let depth = point.components().count();
            // A later mount on the same point hides the earlier one.
            if path.starts_with(&point) && best.is_none_or(|(deepest, _)| depth >= deepest) {
                best = Some((depth, kind));
            }
        }
        best.map_or(Self::Disk, |(_, kind)| Self::named(kind))
    }

    fn named(kind: &str) -> Self {
        match kind {
            "tmpfs" | "ramfs" => Self::Memory(kind.to_owned()),
            "overlay" | "overlayfs" | "aufs" | "fuse-overlayfs" | "fuse.fuse-overlayfs" => {
                Self::Container(kind.to_owned())
            }
            "nfs" | "nfs4" | "cifs" | "smb3" | "smbfs" | "9p" | "virtiofs" | "ceph" | "glusterfs"
            | "fuse.glusterfs" | "lustre" | "afs" | "gfs2" | "ocfs2" | "beegfs" | "gpfs" | "fuse.sshfs"
            | "fuse.s3fs" | "fuse.gcsfuse" | "fuse.rclone" | "davfs" | "fuse.davfs" => {
                Self::Network(kind.to_owned())
            }
            _ => Self::Disk,
        }
    }
}

/// Mount point and type of one line: `36 35 98:0 /root /point options [optional…] - type source options`.
fn mount(line: &str) -> Option<(PathBuf, &str)> {
    let (before, after) = line.split_once(" - ")?;
    let point = before.split(' ').nth(4)?;
    let kind = after.split(' ').next()?;
    Some((PathBuf::from(unescaped(point)), kind))
}

/// Blanks, tabs, newlines and backslashes are written as three octal digits.
fn unescaped(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 0:21 / / rw,relatime - overlay overlay rw,lowerdir=/a
23 22 8:1 / /data rw,relatime shared:1 - ext4 /dev/sda1 rw
24 23 0:40 / /data/fast rw - tmpfs tmpfs rw
25 22 0:41 / /mnt/two\\040words rw - nfs4 server:/export rw
26 22 8:2 / /srv rw - tmpfs tmpfs rw
27 22 8:2 / /srv rw - xfs /dev/sdb1 rw
";

    #[track_caller]
    fn check(path: &str, expected: Volume) {
        assert_eq!(Volume::among(MOUNTS, Path::new(path)), expected);
    }

    #[test]
    fn the_deepest_and_latest_mount_decides() {
        check("/var/lib/fleetbus", Volume::Container("overlay".into()));
        check("/data/fleetbus", Volume::Disk);
        check("/data/fast/x", Volume::Memory("tmpfs".into()));
        check("/data/faster", Volume::Disk);
        check("/mnt/two words/x", Volume::Network("nfs4".into()));
        check("/srv", Volume::Disk);
    }

    #[test]
    fn without_mounts_nothing_is_claimed() {
        assert_eq!(Volume::among("", Path::new("/data")), Volume::Disk);
        assert_eq!(Volume::Disk.warning(), None);
        assert!(Volume::Memory("tmpfs".into()).warning().is_some_and(|w| w.contains("tmpfs")));
    }
}
