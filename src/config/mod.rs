//! Configuration: what was written (`tree`) becomes what it means (`meaning`) by one walk (`load`), once, with every error
//! at once. The rest of the program only sees what it means.

pub mod load;
pub mod meaning;
pub mod schema;
pub mod secret;
pub mod tree;
pub mod units;

use std::path::PathBuf;

pub use load::{Loaded, load};
pub use meaning::*;
pub use schema::schema;
pub(crate) use secret::read_bounded;
pub use secret::{SHORTEST_SENT, Secret, SecretError, SecretSource};
pub use tree::Problem;

/// Where the configuration is: as said, else `FLEETBUS_CONFIG`, else `./fleetbus.yaml`.
#[must_use]
pub fn locate(said: Option<PathBuf>) -> PathBuf {
    let set = || std::env::var_os("FLEETBUS_CONFIG").filter(|path| !path.is_empty());
    said.or_else(|| set().map(PathBuf::from)).unwrap_or_else(|| PathBuf::from("./fleetbus.yaml"))
}
