//! Why a bridge could not be started, how the process ends then, and what helps.

use std::io;

use rustix::io::Errno;

use crate::bus;
use crate::cli::Exit;
use crate::config::SecretError;
use crate::deliver::dedup;
use crate::event::AccountId;
use crate::intake::serve::{BindError, TlsError};
use crate::replay::{AskError, LockError, StoreError};

/// The bridge could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// `data_dir` is held by another process, or cannot be written.
    #[error(transparent)]
    DataDir(#[from] LockError),
    /// The replay store.
    #[error("the replay store cannot be opened")]
    Store(#[from] StoreError),
    /// An account lives elsewhere.
    #[error("account {0} was moved to another instance")]
    MovedOut(AccountId),
    /// What was seen.
    #[error(transparent)]
    Dedup(#[from] dedup::OpenError),
    /// The bus's client.
    #[error("the bus cannot be configured")]
    Bus(#[from] bus::OpenError),
    /// A port.
    #[error(transparent)]
    Listen(#[from] BindError),
    /// The certificate.
    #[error("TLS cannot be set up")]
    Tls(#[from] TlsError),
    /// What was paused.
    #[error("the replay store cannot be read")]
    Ask(#[from] AskError),
    /// A token.
    #[error("a token cannot be read")]
    Token(#[from] SecretError),
    /// The client of the pollers.
    #[error("the client of the pull APIs cannot be made")]
    Poll(#[from] reqwest::Error),
    /// A thread.
    #[error("a thread cannot be started")]
    Thread(#[source] io::Error),
}

impl StartError {
    /// How the process ends.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        match self {
            Self::DataDir(LockError::Held { .. }) => Exit::Locked,
            Self::Store(_) | Self::Ask(_) => Exit::Store,
            Self::MovedOut(_) => Exit::Usage,
            Self::DataDir(LockError::Unwritable { .. } | LockError::ReadOnly { .. })
            | Self::Dedup(_)
            | Self::Bus(_)
            | Self::Listen(_)
            | Self::Tls(_)
            | Self::Token(_)
            | Self::Poll(_)
            | Self::Thread(_) => Exit::Failed,
        }
    }

    /// What to do, where the error itself does not say it.
    #[must_use]
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            Self::DataDir(LockError::Unwritable { source, .. })
            | Self::Store(StoreError::Unwritable { source, .. } | StoreError::Unreadable { source, .. })
                if is_out_of_files(source) =>
            {
                Some(
                    "let the process open more files: its limit is that of `ulimit -n`, LimitNOFILE= or nofile",
                )
            }
            Self::DataDir(LockError::Held { .. }) => {
                Some("stop that process, or give this one a data_dir and ports of its own")
            }
            Self::DataDir(LockError::Unwritable { .. } | LockError::ReadOnly { .. })
            | Self::Store(StoreError::Unwritable { .. }) => Some(
                "let this user write there, or name another folder on a local disk as data_dir in the configuration",
            ),
            Self::Store(StoreError::NoRoom { .. }) => Some("make room on the volume of data_dir"),
            Self::MovedOut(_) => Some(
                "take it out of this configuration, or take it back with `fleetbus account import` and the file of its export",
            ),
            Self::Store(
                StoreError::Newer { .. }
                | StoreError::Damaged { .. }
                | StoreError::LogDamaged { .. }
                | StoreError::Missing { .. }
                | StoreError::Unreadable { .. }
                | StoreError::Unusable { .. },
            )
            | Self::Dedup(_)
            | Self::Bus(_)
            | Self::Listen(_)
            | Self::Tls(_)
            | Self::Ask(_)
            | Self::Token(_)
            | Self::Poll(_)
            | Self::Thread(_) => None,
        }
    }
}

/// Whether the process, or the machine, may not open another file.
fn is_out_of_files(error: &io::Error) -> bool {
    [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error).map(Some).contains(&error.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_open_no_more_files_is_told_so_and_not_to_change_rights() {
        let advice = |source: io::Error| {
            StartError::DataDir(LockError::Unwritable { path: "data".into(), source }).advice().unwrap()
        };
        assert!(advice(Errno::MFILE.into()).contains("ulimit -n"));
        assert!(advice(Errno::ACCESS.into()).contains("let this user write there"));
    }
}
