//! The runtime of the commands that do several things at once. Invariant: `TOKIO_WORKER_THREADS` is read here, for tokio itself panics
//! where it is no number. Neighbours: `run`, `demo`, `check --connect` and `simulate` build theirs of it.

use anyhow::Context as _;
use tokio::runtime::Builder;

use super::remote::Mistake;

/// How many threads, where not one a core: an operator's to say.
const WORKERS: &str = "TOKIO_WORKER_THREADS";

/// One with clocks and sockets, on as many threads as there are cores.
///
/// # Errors
/// Where the environment asks for a number of threads that is none.
pub(super) fn builder() -> anyhow::Result<Builder> {
    let mut builder = Builder::new_multi_thread();
    builder.enable_all();
    if let Some(said) = std::env::var_os(WORKERS) {
        let workers = said.to_str().and_then(|said| said.parse().ok()).filter(|workers| *workers > 0);
        let Some(workers) = workers else {
            return Err(Mistake::Misuse(format!(
                "{WORKERS} is {said:?}: it is a number of threads, 1 or more; without it there is one a core"
            ))
            .into());
        };
        builder.worker_threads(workers);
    }
    Ok(builder)
}

/// The same, built.
///
/// # Errors
/// As [`builder`]; or where the system gives no threads.
pub(super) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    builder()?.build().context("the runtime")
}
