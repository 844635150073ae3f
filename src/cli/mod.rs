//! The command line: one file a subcommand. Exit codes: 0 done, 64 misuse or broken configuration, 65 input that
//! cannot be decoded, 66 a file that cannot be read, 74 a failing store, 75 a locked `data_dir`.

use std::process::ExitCode;

/// Parses the arguments and runs the subcommand.
#[must_use]
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
