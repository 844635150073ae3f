//! Why a bridge could not be started, how the process ends then, and what helps.

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
    Thread(#[source] std::io::Error),
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
    pub const fn advice(&self) -> Option<&'static str> {
        match self {
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
