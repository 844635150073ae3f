//! `fleetbus run`: the bridge, until SIGTERM or SIGINT. A second signal exits at once; SIGHUP reads the configuration again.
//! Invariant: signals are listened to before anything else is done. No SIGHUP that comes during the start ends the process or is lost; the
//! others end it at once until the configuration is read, for reading may hang, and for the first process of a container the system's
//! default is that they do nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag::register_conditional_shutdown;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::ends::Ends;
use super::{Exit, complain, files, runtime, telemetry};
use crate::admin::Phase;
use crate::app::{self, Ended};
use crate::config::{self, Loaded, Problem, load::ThisProcess};
use crate::trace::Exporter;

/// Arguments of `fleetbus run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration; else FLEETBUS_CONFIG, else ./fleetbus.yaml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// How long a thread for what blocks is kept: the runtime panics where it has none, and the system gives it none, as at a bound on
/// processes.
const KEPT: Duration = Duration::from_secs(365 * 24 * 3_600);

/// Runs it.
///
/// # Errors
/// Where the runtime cannot be made, or no signal be awaited; all else is an [`Exit`] with a sentence.
pub fn run(args: Args) -> anyhow::Result<Exit> {
    let early = Arc::new(AtomicBool::new(true));
    for signal in [SIGTERM, SIGINT] {
        // As a shell says it of one that a signal ended.
        register_conditional_shutdown(signal, 128 + signal, Arc::clone(&early))
            .context("signals cannot be awaited")?;
    }
    let runtime = runtime::builder()?.thread_keep_alive(KEPT).build().context("the runtime")?;
    // While there is one, work for which no other can be made waits for it.
    runtime.spawn_blocking(|| ());
    let hangup = {
        // Only so far: what follows may not be done inside a runtime.
        let _inside = runtime.enter();
        signal(SignalKind::hangup()).context("SIGHUP cannot be awaited")?
    };
    let path = config::locate(args.config);
    let loaded = match read_config(Some(path.clone()))? {
        Ok(loaded) => loaded,
        Err(exit) => return Ok(exit),
    };
    let spans = match loaded.config.otlp.as_ref().map(Exporter::open).transpose() {
        Ok(spans) => spans,
        Err(error) => {
            complain(&format!("{:#}", anyhow::Error::from(error)));
            return Ok(Exit::Failed);
        }
    };
    let _written = telemetry::start(spans.as_ref());
    files::raise_limit();
    for note in &loaded.notes {
        tracing::warn!(note, "config.note");
    }
    let exit = runtime.block_on(serve(loaded, path, hangup, &early))?;
    // What still blocks a thread (a broker that hangs) must not hold the exit back.
    runtime.shutdown_background();
    if let Some(spans) = spans {
        spans.close();
    }
    Ok(exit)
}

/// Reads the configuration, and says all that is wrong with it.
///
/// # Errors
/// Never: what is wrong is said, and is an [`Exit`].
pub fn read_config(said: Option<PathBuf>) -> anyhow::Result<Result<Loaded, Exit>> {
    let path = config::locate(said);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) => {
            complain(&format!("{} cannot be read: {error}", path.display()));
            if error.kind() == std::io::ErrorKind::NotFound {
                complain("write one, or name it with --config FILE or FLEETBUS_CONFIG");
            }
            return Ok(Err(Exit::Usage));
        }
    };
    match config::load(&text, &ThisProcess) {
        Ok(loaded) => Ok(Ok(loaded)),
        Err(problems) => Ok(Err(complain_of(&problems, &path))),
    }
}

/// Says all problems of a configuration, and how many they are.
pub fn complain_of(problems: &[Problem], path: &Path) -> Exit {
    for problem in problems {
        complain(&format!("{}:{problem}", path.display()));
    }
    let what = if problems.len() == 1 { "problem" } else { "problems" };
    complain(&format!("{} {what} in {}", problems.len(), path.display()));
    Exit::Usage
}

/// `hangup` keeps a signal that nobody awaits yet until somebody does; several are one.
async fn serve(
    loaded: Loaded,
    path: PathBuf,
    mut hangup: Signal,
    early: &AtomicBool,
) -> anyhow::Result<Exit> {
    let mut ends = Ends::new()?;
    early.store(false, Ordering::SeqCst);
    let built = tokio::select! {
        built = app::build(loaded.config) => built,
        // Nothing was accepted yet: it may have waited for data_dir.
        () = ends.asked() => {
            tracing::info!("app.stopped");
            return Ok(Exit::Done);
        }
    };
    let bridge = match built {
        Ok(bridge) => bridge,
        Err(error) => {
            let (exit, advice) = (error.exit(), error.advice());
            complain(&format!("{:#}", anyhow::Error::from(error)));
            if let Some(advice) = advice {
                complain(advice);
            }
            return Ok(exit);
        }
    };
    bridge.reloads_from(path);
    let handle = bridge.handle();
    let mut phase = handle.phase.clone();
    let reloading = async {
        // One that came during the start is heeded after it: the file may have changed since it was read.
        if phase.wait_for(|phase| *phase != Phase::Starting).await.is_err() {
            return;
        }
        // What came of it is in the log.
        while hangup.recv().await.is_some() {
            handle.reload("SIGHUP").await.ok();
        }
    };
    let stop = CancellationToken::new();
    let running = bridge.run(stop.clone());
    // A reload that has begun goes on while the bridge stops: it holds what others wait for.
    let running = async {
        tokio::pin!(running, reloading);
        tokio::select! {
            ended = &mut running => ended,
            () = &mut reloading => running.await,
        }
    };
    tokio::pin!(running);
    let ended = tokio::select! {
        ended = &mut running => ended,
        () = ends.asked() => {
            stop.cancel();
            tokio::select! {
                ended = &mut running => ended,
                () = ends.asked() => {
                    tracing::warn!("app.stopped_at_once");
                    return Ok(Exit::Failed);
                }
            }
        }
    };
    Ok(match ended {
        Ended::Stopped => Exit::Done,
        Ended::DrainDied => {
            complain("the drain ended by a bug: please report it, with the log");
            Exit::Failed
        }
        Ended::StoreBroken => {
            complain("the replay store cannot be trusted any more: see the log, and `docs/operate.md`");
            Exit::Store
        }
    })
}
