//! What asks a command to end: SIGTERM, as an orchestrator sends it, and SIGINT, as Ctrl-C does. Invariant: once made, neither ends
//! the process by itself, so whoever made it goes on listening. `run`, `demo` and `simulate` each listen twice.

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// See the module.
pub struct Ends {
    terminate: Signal,
    interrupt: Signal,
}

impl Ends {
    /// Listens from now on.
    ///
    /// # Errors
    /// Where the system does not let it; outside of a runtime it panics.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("SIGTERM cannot be awaited")?,
            interrupt: signal(SignalKind::interrupt()).context("SIGINT cannot be awaited")?,
        })
    }

    /// The next of either.
    pub async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
