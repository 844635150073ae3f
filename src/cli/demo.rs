//! `fleetbus demo`: a simulated fleet, a real bridge on the embedded bus, an outage in the middle, and sums that add up. Invariants: it
//! ends, by itself or by a signal, and leaves nothing behind that nobody asked for. `simulate::demo` says what is seen.

use std::fs::{DirBuilder, File};
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::ends::Ends;
use super::remote::escaped;
use super::runtime::runtime;
use super::{Exit, complain};
use crate::app::{self, Handle};
use crate::config::load::ThisProcess;
use crate::config::{self, Config};
use crate::replay::remove_if_there;
use crate::simulate::Clock;
use crate::simulate::demo::{Later, Log, crumbs, frame, sums};
use crate::simulate::push::{self, Faults, Format, Pushed, Target};
use crate::simulate::serve::Provider;
use crate::simulate::world::{World, is_newer};

/// Of a thousand webhooks, so many are never sent: the poller heals them.
const LOST: u64 = 150;
/// How much faster than the clock on the wall.
const SPEED: f64 = 60.0;
/// How long what has happened is still sent once the vehicles stop, and how long the sums may then take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Arguments of `fleetbus demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How long vehicles drive.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u64).range(15..=3_600))]
    seconds: u64,
    /// How many vehicles.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(2..=500))]
    vehicles: u32,
    /// Where the map is: a browser's address.
    #[arg(long, default_value = "127.0.0.1:9090")]
    admin: SocketAddr,
    /// Where the bridge keeps its files; without it, in a folder that is removed at the end.
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// Go on after the sums, until interrupted.
    #[arg(long)]
    keep_running: bool,
}

/// Runs it. Exits 0 when the sums add up.
///
/// # Errors
/// Where the bridge cannot be started.
pub fn run(args: Args) -> anyhow::Result<Exit> {
    let temporary = args.data_dir.is_none().then(temporary).transpose()?;
    let runtime = runtime()?;
    let data_dir = temporary.as_ref().or(args.data_dir.as_ref());
    let shown = runtime.block_on(show(&args, data_dir.map_or(Path::new("."), PathBuf::as_path)));
    runtime.shutdown_background();
    if let Some(temporary) = temporary
        && let Err(error) = std::fs::remove_dir_all(&temporary)
    {
        complain(&format!("{} could not be removed: {error}", temporary.display()));
    }
    shown
}

/// A new folder that nobody else can look into, under a name that nobody could have taken before.
fn temporary() -> anyhow::Result<PathBuf> {
    let path = std::env::temp_dir().join(format!("fleetbus-demo-{:032x}", rand::random::<u128>()));
    let made = DirBuilder::new().mode(0o700).create(&path);
    made.with_context(|| format!("{} cannot be made", path.display()))?;
    Ok(path)
}

/// A file that only its owner reads, also where an earlier demo left one that others may.
fn write_secret(path: &Path, secret: &str) -> std::io::Result<()> {
    remove_if_there(path)?;
    File::options().write(true).create_new(true).mode(0o600).open(path)?.write_all(secret.as_bytes())
}

/// A path as the configuration has it: quoted, whatever characters are in it.
fn quoted(path: &Path) -> anyhow::Result<String> {
    let text = path.to_str().with_context(|| format!("{} is not UTF-8 text", path.display()))?;
    Ok(escaped(&serde_json::to_string(text)?).into_owned())
}

fn configuration(args: &Args, data_dir: &Path, provider: SocketAddr, token: &Path) -> anyhow::Result<Config> {
    let (admin, data_dir, token) = (args.admin, quoted(data_dir)?, quoted(token)?);
    let text = format!(
        "listen: {{ address: 127.0.0.1:0 }}
admin: {{ address: {admin} }}
data_dir: {data_dir}
bus: {{ local: {{ retention: 24h, max_size: 1GiB }} }}
delivery: {{ drain_delay: 0s }}
accounts:
  - id: demo
    provider: linxup
    webhook: {{ token: {{ file: {token} }} }}
    poll:
      - api: v2
        base_url: http://{provider}/ibis/rest/api/v2
        token: {{ file: {token} }}
        feeds: {{ history: 2s, trips: 3s, stops: 3s, alerts: 3s, usage-hours: 3s, geofence-activity: 3s,
                 trackers: 20s, geofences: 20s }}
"
    );
    let loaded = config::load(&text, &ThisProcess);
    loaded.map(|loaded| loaded.config).map_err(|problems| {
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("the demo's configuration is wrong: {}", problems.join("; "))
    })
}

async fn show(args: &Args, data_dir: &Path) -> anyhow::Result<Exit> {
    let mut ends = Ends::new()?;
    std::fs::create_dir_all(data_dir).with_context(|| format!("{} cannot be made", data_dir.display()))?;
    let token_file = data_dir.join("demo-token");
    let token = format!("demo-{:032x}", rand::random::<u128>());
    write_secret(&token_file, &token).context("the token cannot be written")?;

    // The simulated present moves fast, and is never in the future.
    let begins = jiff::Timestamp::now().as_millisecond() - (args.seconds as i64 + 120) * 1_000 * SPEED as i64;
    let world = World { seed: 1, vehicles: args.vehicles, begins };
    let clock = Clock::new(begins, SPEED);
    let (stop, tracker) = (CancellationToken::new(), TaskTracker::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.context("no port for the simulator")?;
    let provider = listener.local_addr()?;
    let routes = Provider::new(world, clock.clone(), token.clone(), Duration::ZERO).router();
    let served = stop.clone();
    tracker.spawn(async move {
        axum::serve(listener, routes).with_graceful_shutdown(served.cancelled_owned()).await
    });

    let bridge = match app::build(configuration(args, data_dir, provider, &token_file)?).await {
        Ok(bridge) => bridge,
        Err(error) => {
            complain(&format!("{:#}", anyhow::Error::from(error)));
            complain("is another bridge or demo running? --admin takes another port");
            return Ok(Exit::Failed);
        }
    };
    let handle = bridge.handle();
    let Some(local) = handle.bus.as_local() else { bail!("the demo runs on the local bus") };
    // Before the bridge runs: what an earlier demo left in the log is not of this one.
    let log_begins = *local.newest().borrow();
    let (bridge_stops, running) = (CancellationToken::new(), TaskTracker::new());
    let bridge = running.spawn(bridge.run(bridge_stops.clone()));
    let url = format!("http://{}/webhooks/demo", handle.webhook_address);
    let faults = Faults { lost: LOST, ..Faults::default() };
    let target = Target { url, token, format: Format::Both, after: begins, faults, patience: PATIENCE };
    let drive = Drive { args, world, clock, target, tracker, handle: &handle, log_begins };
    let mut verdict = None;
    tokio::select! {
        driven = drive.through(&mut verdict) => driven?,
        () = ends.asked() => complain("interrupted: the bridge stops"),
    }
    bridge_stops.cancel();
    tokio::select! {
        ended = bridge => {
            ended.context("the bridge ended badly")?;
        }
        () = ends.asked() => complain("interrupted again: nothing is waited for"),
    }
    stop.cancel();
    Ok(match verdict {
        Some(Verdict::Right) => Exit::Done,
        Some(Verdict::Wrong) | None => Exit::Failed,
    })
}

/// Whether the sums add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Right,
    Wrong,
}

/// The vehicles' drive past a running bridge.
struct Drive<'a> {
    args: &'a Args,
    world: World,
    clock: Clock,
    target: Target,
    tracker: TaskTracker,
    handle: &'a Handle,
    /// What the log has up to here is an earlier demo's.
    log_begins: u64,
}

impl Drive<'_> {
    /// To its end, and on for ever where that is asked for; `verdict` is there once the sums are.
    async fn through(self, verdict: &mut Option<Verdict>) -> anyhow::Result<()> {
        let Self { args, world, clock, target, tracker, handle, log_begins } = self;
        let Some(local) = handle.bus.as_local() else { bail!("the demo runs on the local bus") };
        complain(&format!(
            "{} vehicles of a simulated provider push webhooks to a real bridge, {SPEED} times as fast as life",
            args.vehicles
        ));
        complain(
            "of each thousand webhooks of half of them 150 are never sent: the poller finds them by the pull API",
        );
        complain(&format!("the map: http://{}/", handle.admin_address));
        let (stop, pushed) = (CancellationToken::new(), Arc::new(Pushed::default()));
        // Also where this is interrupted.
        let _stops = stop.clone().drop_guard();
        let driving = tracker.spawn(push::run(
            world,
            clock.clone(),
            target.clone(),
            Arc::clone(&pushed),
            tracker.clone(),
            stop.clone(),
        ));
        let (away, back) = (args.seconds * 2 / 5, args.seconds * 3 / 5);
        for second in 1..=args.seconds {
            sleep(Duration::from_secs(1)).await;
            if second == away {
                complain("the bus goes away: events are parked, senders are answered all the same");
                local.take_away();
            }
            if second == back {
                complain("the bus is back: what was parked is drained, each vehicle's events in order");
                local.bring_back();
            }
            if second % 2 == 0 || second == away || second == back {
                let outage = (away..back).contains(&second);
                let waiting = handle.deliverer.lanes.behind().1;
                complain(&frame(second, &handle.deliverer.counts.total(None), waiting, outage));
            }
        }
        let to = clock.stop();
        stop.cancel();
        driving.await.context("pushing ended badly")?.context("the client cannot be made")?;
        complain("the vehicles stop; the last polls and the drain come to an end");
        let facts = world.facts(world.begins, to);
        let expected = crumbs(&facts, is_newer);
        let (text, right) = settle(handle, log_begins, |log, later| {
            let reading = handle.deliverer.counts.total(None);
            sums(&facts, expected, log, &reading, later)
        })
        .await?;
        complain(&text);
        complain(if right { "the sums add up" } else { "the sums do NOT add up" });
        *verdict = Some(if right { Verdict::Right } else { Verdict::Wrong });
        if args.keep_running {
            complain("driving on: Ctrl-C ends it");
            clock.go_on();
            let target = Target { after: to, ..target };
            let goes_on = CancellationToken::new();
            push::run(world, clock, target, pushed, tracker, goes_on)
                .await
                .context("the client cannot be made")?;
        }
        Ok(())
    }
}

/// Waits until the sums of what is in the log from a place on add up, or for as long as that may take.
async fn settle(
    handle: &Handle,
    log_begins: u64,
    check: impl Fn(&Log, Later) -> (String, bool),
) -> anyhow::Result<(String, bool)> {
    let Some(local) = handle.bus.as_local() else { bail!("the demo runs on the local bus") };
    let begun = Instant::now();
    let (mut log, mut offset) = (Log::default(), log_begins);
    loop {
        loop {
            let rows = local.read(None, offset, 5_000)?;
            let Some(last) = rows.last() else { break };
            offset = last.offset;
            rows.iter().for_each(|row| log.take(&row.topic, row.id));
        }
        let drained = handle.deliverer.counts.drained.load(Ordering::Relaxed);
        let checked = check(&log, Later { drained, waiting: handle.deliverer.lanes.behind().1 });
        if checked.1 || begun.elapsed() > PATIENCE {
            return Ok(checked);
        }
        sleep(Duration::from_millis(500)).await;
    }
}
