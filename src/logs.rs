//! The way of log lines to standard error: a thread of their own writes them, so that a reader that hangs (a full pipe) holds nobody
//! up, not even a stop. Invariant: no more lines wait than a bound; what comes beyond is lost, and counted. Neighbours: `cli::telemetry`
//! makes the lines, `admin` shows the count.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};

/// Lines that may wait for the reader: some megabytes.
const LINES: usize = 16_384;

/// The logs are the process's, and so is the count of what they lost.
static LOST: OnceLock<ErrorCounter> = OnceLock::new();
/// Those that could not be written: a full disk, a reader that has left.
static UNWRITTEN: AtomicU64 = AtomicU64::new(0);

/// Counts what it cannot write: who calls it passes over that.
struct Counted<W>(W);

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write(line)
    }

    fn write_all(&mut self, line: &[u8]) -> io::Result<()> {
        self.0.write_all(line).inspect_err(|_| {
            UNWRITTEN.fetch_add(1, Ordering::Relaxed);
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Where lines are to be written, and what waits, as it is dropped, for those that are left: a second at most.
pub fn to_stderr() -> (NonBlocking, WorkerGuard) {
    let builder = NonBlockingBuilder::default().buffered_lines_limit(LINES).lossy(true).thread_name("logs");
    let (lines, written) = builder.finish(Counted(io::stderr()));
    // A second call changes nothing: logs are set up once a process.
    LOST.set(lines.error_counter()).unwrap_or_default();
    (lines, written)
}

/// Lines that were lost since the start, because nobody read them or they could not be written.
pub fn lost() -> u64 {
    let unread = LOST.get().map_or(0, |lost| lost.dropped_lines() as u64);
    unread + UNWRITTEN.load(Ordering::Relaxed)
}

/// An error and what caused it: logs in JSON do not show causes by themselves.
pub(crate) fn words(error: &dyn std::error::Error) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// The innermost cause says what is wrong; what is around it says only that something is.
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
