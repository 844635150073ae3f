//! `fleetbus licenses`: the licences of what is linked into this binary. Whoever gets the binary gets the texts with it.
//! Collected by `make licenses`; that the list matches Cargo.lock is a test's to say.

use std::io::{self, ErrorKind};

use anyhow::Context as _;
use flate2::read::GzDecoder;

use super::Exit;

/// Some hundred texts, of which many differ in a name only.
const TEXTS: &[u8] = include_bytes!("licenses.txt.gz");

/// Arguments of `fleetbus licenses`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Prints them.
///
/// # Errors
/// Where they cannot be printed for another reason than that nobody reads.
pub fn run(_: Args) -> anyhow::Result<Exit> {
    match io::copy(&mut GzDecoder::new(TEXTS), &mut io::stdout().lock()) {
        Ok(_) => Ok(Exit::Done),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Exit::Done),
        Err(error) => Err(error).context("cannot write to standard output"),
    }
}
