//! `fleetbus simulate`.

use super::Exit;

/// Arguments of `fleetbus simulate`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs it.
///
/// # Errors
/// Where it cannot be done, with the reason.
pub fn run(_args: Args) -> anyhow::Result<Exit> {
    Ok(Exit::Done)
}
