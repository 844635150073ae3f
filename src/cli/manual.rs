//! `fleetbus completions` and `fleetbus man`: what shells and readers need, out of the command line's own definition, so
//! that neither says what is not there.

use std::io::{self, Write as _};
use std::path::PathBuf;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;

use super::{Cli, Exit, complain};

/// Arguments of `fleetbus completions`.
#[derive(Debug, clap::Args)]
pub struct CompletionsArgs {
    /// Whose.
    shell: Shell,
}

/// Arguments of `fleetbus man`.
#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// Write a page for each subcommand into this folder; without it, the first page goes to standard output.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

/// Prints a shell's completions.
///
/// # Errors
/// Where they cannot be printed.
pub fn completions(args: &CompletionsArgs) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "fleetbus", &mut script);
    print(&script)
}

/// Prints or writes the manual.
///
/// # Errors
/// Where it cannot be printed or written.
pub fn man(args: &ManArgs) -> anyhow::Result<Exit> {
    match &args.out {
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut page)?;
            print(&page)
        }
        Some(folder) => {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("{} cannot be made", folder.display()))?;
            clap_mangen::generate_to(Cli::command(), folder)
                .with_context(|| format!("the pages cannot be written into {}", folder.display()))?;
            complain(&format!("the manual is in {}: man -l {0}/fleetbus.1", folder.display()));
            Ok(Exit::Done)
        }
    }
}

fn print(bytes: &[u8]) -> anyhow::Result<Exit> {
    match io::stdout().write_all(bytes) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        Ok(()) | Err(_) => Ok(Exit::Done),
    }
}
