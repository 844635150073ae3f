//! Which program this is: its version, and the commit that it was built from. A release names the commit in
//! `FLEETBUS_REVISION` while it is compiled. Invariant: a developer's build never asks git, so that a commit rebuilds nothing.

use std::sync::LazyLock;

/// The version of `Cargo.toml`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit; `unreleased` where the build was told none.
pub const REVISION: &str = match option_env!("FLEETBUS_REVISION") {
    Some(revision) if !revision.is_empty() => revision,
    Some(_) | None => "unreleased",
};

/// Both in one line, as `--version` prints them.
pub static LINE: LazyLock<String> = LazyLock::new(|| format!("{VERSION} ({REVISION})"));
