//! The command line: one file a subcommand, each with its `Args` and a `run` that ends in an [`Exit`]. Invariant: no
//! subcommand exits by itself, and what it says to people goes to standard error, what it yields to standard output.

use std::io::{ErrorKind, Write as _};
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::version;

pub mod account;
pub mod accounts;
pub mod audit;
pub mod backfill;
pub mod check;
pub mod connect;
pub mod convert;
pub mod custom_data;
pub mod demo;
mod ends;
mod files;
pub mod health;
mod input;
pub mod job;
pub mod licenses;
pub mod manual;
mod new_file;
pub mod output;
pub mod parked;
pub mod remote;
pub mod replay;
pub mod run;
mod runtime;
pub mod simulate;
pub mod store;
pub mod tail;
pub mod telemetry;
pub mod tokens;

/// How a command ended, as the shell sees it (the numbers of `sysexits.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// Something failed; the message says what.
    Failed,
    /// Misuse, or a configuration that is wrong.
    Usage,
    /// Input that cannot be decoded.
    Data,
    /// A file that cannot be read.
    NoInput,
    /// The store failed: data at risk.
    Store,
    /// Another process holds `data_dir`.
    Locked,
}

impl Exit {
    /// The process ends here, without what C libraries left to be done `atexit`: threads of theirs may still run (a broker that
    /// hangs holds its client back), and OpenSSL's part frees what they use. Nothing waits for it: what was answered is on disk.
    fn leave(self) -> ! {
        // Nobody is left to tell where it cannot be written.
        std::io::stdout().flush().ok();
        signal_hook::low_level::exit(match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 64,
            Self::Data => 65,
            Self::NoInput => 66,
            Self::Store => 74,
            Self::Locked => 75,
        })
    }
}

/// What the numbers mean, for `--help` and the manual.
const EXITS: &str = "\
Exit codes:
   0  done
   1  something failed; the message says what
  64  misuse, or a configuration that is wrong
  65  input that cannot be decoded
  66  a file that cannot be read
  74  the replay store failed: data at risk
  75  another process holds data_dir

A command that asks a running bridge takes its address from --admin or FLEETBUS_ADMIN, and the admin token from
--token-file or FLEETBUS_ADMIN_TOKEN. Nothing that it prints is coloured where NO_COLOR is set or nobody looks.";

/// The bridge from fleet telematics to a message bus.
#[derive(Debug, Parser)]
#[command(name = "fleetbus", version = version::LINE.as_str(), about, propagate_version = true, after_help = EXITS)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the bridge.
    Run(run::Args),
    /// Check the configuration, all errors at once; with --connect, also what it names.
    Check(check::Args),
    /// Ask a running bridge whether it is ready.
    Health(health::Args),
    /// Turn a provider's payloads into events, without a server.
    Convert(convert::Args),
    /// Follow the events of a running bridge's local bus.
    Tail(tail::Args),
    /// Move an account from one stopped instance to another.
    Account(account::Args),
    /// List, show or discard what waits in the replay store.
    Parked(parked::Args),
    /// Send parked messages again.
    Replay(replay::Args),
    /// How accounts do; pause their polls, move a cursor.
    Accounts(accounts::Args),
    /// Make, list, end or rotate the tokens of webhooks.
    Tokens(tokens::Args),
    /// List what operators did.
    Audit(audit::Args),
    /// Say something about trackers, vehicles, people and the rest, for events to carry.
    CustomData(custom_data::Args),
    /// Check a replay store, export what can be read of it, or back it up.
    Store(store::Args),
    /// Fetch a stretch of the past from a provider.
    Backfill(backfill::Args),
    /// Stand in for a provider.
    Simulate(simulate::Args),
    /// Print the licences of what this program is made of.
    Licenses(licenses::Args),
    /// Watch a simulated fleet move through a real bridge.
    Demo(demo::Args),
    /// Print completions for a shell.
    Completions(manual::CompletionsArgs),
    /// Print the manual, or write its pages.
    Man(manual::ManArgs),
}

/// How long a reader of standard error may hold a sentence up.
const HEARD: Duration = Duration::from_secs(1);

/// Parses the arguments and runs the subcommand. Misuse exits 64; `--help` and `--version` exit 0.
pub fn main() -> ! {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(problem) => {
            let unread = problem.print().err().filter(|error| error.kind() != ErrorKind::BrokenPipe);
            match (problem.use_stderr(), unread) {
                (true, _) => Exit::Usage.leave(),
                // Who reads has enough.
                (false, None) => Exit::Done.leave(),
                (false, Some(error)) => {
                    complain(&format!("cannot write to standard output: {error}"));
                    Exit::Failed.leave()
                }
            }
        }
    };
    if let Err(error) = files::survive_size_limit() {
        complain(&format!("SIGXFSZ cannot be awaited: {error}"));
        Exit::Failed.leave();
    }
    let ended = match cli.command {
        Command::Run(args) => run::run(args),
        Command::Check(args) => check::run(args),
        Command::Health(args) => health::run(args),
        Command::Convert(args) => convert::run(args),
        Command::Tail(args) => tail::run(args),
        Command::Account(args) => account::run(args),
        Command::Parked(args) => parked::run(args),
        Command::Replay(args) => replay::run(args),
        Command::Accounts(args) => accounts::run(args),
        Command::Tokens(args) => tokens::run(args),
        Command::Audit(args) => audit::run(args),
        Command::CustomData(args) => custom_data::run(args),
        Command::Store(args) => store::run(args),
        Command::Backfill(args) => backfill::run(args),
        Command::Simulate(args) => simulate::run(args),
        Command::Licenses(args) => licenses::run(args),
        Command::Demo(args) => demo::run(args),
        Command::Completions(args) => manual::completions(&args),
        Command::Man(args) => manual::man(&args),
    };
    match ended {
        Ok(exit) => exit.leave(),
        Err(error) => {
            complain(&format!("{error:#}"));
            error.downcast_ref::<remote::Mistake>().map_or(Exit::Failed, remote::Mistake::exit).leave()
        }
    }
}

/// Says a sentence to the person at the terminal. Where nobody reads, the exit code still tells: who holds a full pipe and does not read
/// is waited for a second, and no longer.
pub fn complain(sentence: &str) {
    let line = format!("fleetbus: {sentence}\n");
    let say = |line: &str| std::io::stderr().write_all(line.as_bytes()).unwrap_or_default();
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    let says = {
        let line = line.clone();
        move || {
            say(&line);
            // Who waited may have left.
            tell.send(()).unwrap_or_default();
        }
    };
    match std::thread::Builder::new().name("says".to_owned()).spawn(says) {
        Ok(_) => told.recv_timeout(HEARD).unwrap_or_default(),
        // The system has no thread for it.
        Err(_) => say(&line),
    }
}
