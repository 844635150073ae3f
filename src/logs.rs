//! The way of log lines to standard error: a thread of their own writes them, so that a reader that hangs (a full pipe) holds nobody
//! up, not even a stop. Invariant: no more lines wait than a bound; what comes beyond is lost, and counted. Neighbours: `cli::telemetry`
//! makes the lines, `admin` shows the count.

use std::sync::OnceLock;

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};

/// Lines that may wait for the reader: some megabytes.
const LINES: usize = 16_384;

/// The logs are the process's, and so is the count of what they lost.
static LOST: OnceLock<ErrorCounter> = OnceLock::new();

/// Where lines are to be written, and what waits, as it is dropped, for those that are left: a second at most.
pub fn to_stderr() -> (NonBlocking, WorkerGuard) {
    let builder = NonBlockingBuilder::default().buffered_lines_limit(LINES).lossy(true).thread_name("logs");
    let (lines, written) = builder.finish(std::io::stderr());
    // A second call changes nothing: logs are set up once a process.
    LOST.set(lines.error_counter()).unwrap_or_default();
    (lines, written)
}

/// Lines that were lost since the start, because nobody read them.
pub fn lost() -> u64 {
    LOST.get().map_or(0, |lost| lost.dropped_lines() as u64)
}
