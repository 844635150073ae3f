//! File descriptors: as many as the system lets this process have. Shells and service managers mostly start it with 1,024, of
//! which the ports alone may take more; then neither the bus nor a file could be opened any more.

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

/// No limit is none.
fn warn_below_enough(limit: Option<u64>) {
    if let Some(limit) = limit.filter(|limit| *limit < ENOUGH) {
        tracing::warn!(files.limit = limit, files.wanted = ENOUGH, "files.few");
    }
}
