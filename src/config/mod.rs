//! Configuration: what was written (`written`) becomes what it means (`meaning`), once, with every error at once. The
//! rest of the program only sees what it means.

pub mod meaning;
pub mod secret;

pub use meaning::*;
pub use secret::{Secret, SecretSource};
