//! The runtime of the commands that do several things at once. Invariant: what tokio panics at is a sentence here: a
//! `TOKIO_WORKER_THREADS` that is no number, and a system that gives no threads. Neighbours: `run`, `demo`, `check --connect` and
//! `simulate` build theirs of it.

use std::io;
use std::num::NonZero;
use std::thread;

use anyhow::Context as _;
use parking_lot::Mutex;
use tokio::runtime::Builder;

use super::remote::Mistake;

/// How many threads, where not one a core: an operator's to say.
const WORKERS: &str = "TOKIO_WORKER_THREADS";
/// Threads beside those of the runtime, about: store, log, allocator, what blocks, and the bus's client with some brokers.
const OTHERS: usize = 12;

/// One with clocks and sockets, on as many threads as there are cores.
///
/// # Errors
/// Where the environment asks for a number of threads that is none; or where the system has not as many as are needed.
pub(super) fn builder() -> anyhow::Result<Builder> {
    let mut builder = Builder::new_multi_thread();
    builder.enable_all();
    let mut workers = thread::available_parallelism().map_or(1, NonZero::get);
    if let Some(said) = std::env::var_os(WORKERS) {
        let asked = said.to_str().and_then(|said| said.parse().ok()).filter(|workers| *workers > 0);
        workers = asked.ok_or_else(|| {
            Mistake::Misuse(format!(
                "{WORKERS} is {said:?}: it is a number of threads, 1 or more; without it there is one a core"
            ))
        })?;
        builder.worker_threads(workers);
    }
    let threads = workers.saturating_add(OTHERS);
    spare(threads).with_context(|| {
        format!(
            "{threads} threads are needed, and the system gives fewer: raise the bound on processes (the container's pids limit, \
             TasksMax, `ulimit -u`)"
        )
    })?;
    Ok(builder)
}

/// Whether so many threads can be had: all are there at once, and end.
fn spare(threads: usize) -> io::Result<()> {
    let gate = Mutex::new(());
    thread::scope(|scope| {
        let _closed = gate.lock();
        (0..threads)
            .try_for_each(|_| thread::Builder::new().spawn_scoped(scope, || drop(gate.lock())).map(drop))
    })
}

/// The same, built.
///
/// # Errors
/// As [`builder`]; or where the system gives no threads.
pub(super) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    builder()?.build().context("the runtime")
}
