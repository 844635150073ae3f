//! File descriptors: as many as the system lets this process have. Shells and service managers mostly start it with 1,024, of
//! which the ports alone may take more; then neither the bus nor a file could be opened any more.

use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Both ports' connections, the files in `data_dir`, the connections to the bus and to providers.
const ENOUGH: u64 = 2_048;

/// Raises the limit, and says where it is too low all the same.
pub fn raise_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return warn_below_enough(current);
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => warn_below_enough(maximum),
        Err(error) => {
            tracing::debug!(error = %error, "files.limit_not_raised");
            warn_below_enough(current);
        }
    }
}

/// A file that may not grow (`ulimit -f`) is a disk that fails, with a word and an exit code, and does not end the process by a signal.
///
/// # Errors
/// Where the signal cannot be awaited.
pub fn survive_size_limit() -> std::io::Result<()> {
    signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default()).map(|_| ())
}

/// No limit is none.
fn warn_below_enough(limit: Option<u64>) {
    if let Some(limit) = limit.filter(|limit| *limit < ENOUGH) {
        tracing::warn!(files.limit = limit, files.wanted = ENOUGH, "files.few");
    }
}
