//! `fleetbus demo`: a simulated fleet, a real bridge on the embedded bus, an outage in the middle, and sums that add up.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Exit, complain};
use crate::app::{self, Handle};
use crate::config::load::ThisProcess;
use crate::config::{self, Config};
use crate::simulate::Clock;
use crate::simulate::demo::{Later, Log, crumbs, frame, sums};
use crate::simulate::push::{self, Faults, Format, Pushed, Target};
use crate::simulate::serve::Provider;
use crate::simulate::world::{World, is_newer};

/// Of a thousand webhooks, so many are never sent: the poller heals them.
const LOST: u64 = 150;
/// How much faster than the clock on the wall.
const SPEED: f64 = 60.0;

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
    let temporary = std::env::temp_dir().join(format!("fleetbus-demo-{}", std::process::id()));
    let data_dir = args.data_dir.clone().unwrap_or_else(|| temporary.clone());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let shown = runtime.block_on(show(&args, &data_dir));
    runtime.shutdown_background();
    if args.data_dir.is_none()
        && let Err(error) = std::fs::remove_dir_all(&temporary)
    {
        complain(&format!("{} could not be removed: {error}", temporary.display()));
    }
    shown
}

fn configuration(args: &Args, data_dir: &Path, provider: SocketAddr, token: &Path) -> anyhow::Result<Config> {
    let (admin, data_dir, token) = (args.admin, data_dir.display(), token.display());
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
    std::fs::create_dir_all(data_dir).with_context(|| format!("{} cannot be made", data_dir.display()))?;
    let token_file = data_dir.join("demo-token");
    let token = format!("demo-{:032x}", rand::random::<u128>());
    std::fs::write(&token_file, &token).context("the token cannot be written")?;

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
    let (bridge_stops, running) = (CancellationToken::new(), TaskTracker::new());
    let bridge = running.spawn(bridge.run(bridge_stops.clone()));
    complain(&format!(
        "{} vehicles of a simulated provider push webhooks to a real bridge, {SPEED} times as fast as life",
        args.vehicles
    ));
    complain(
        "of each thousand webhooks of half of them 150 are never sent: the poller finds them by the pull API",
    );
    complain(&format!("the map: http://{}/", handle.admin_address));

    let (drive_stops, pushed) = (CancellationToken::new(), Arc::new(Pushed::default()));
    let url = format!("http://{}/webhooks/demo", handle.webhook_address);
    let target = Target {
        url,
        token,
        format: Format::Both,
        after: begins,
        faults: Faults { lost: LOST, ..Faults::default() },
    };
    let driving = tracker.spawn(push::run(
        world,
        clock.clone(),
        target.clone(),
        Arc::clone(&pushed),
        tracker.clone(),
        drive_stops.clone(),
    ));
    let Some(local) = handle.bus.as_local() else { bail!("the demo runs on the local bus") };
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
    drive_stops.cancel();
    driving.await.context("pushing ended badly")?.context("the client cannot be made")?;
    complain("the vehicles stop; the last polls and the drain come to an end");
    let facts = world.facts(world.begins, to);
    let expected = crumbs(&facts, is_newer);
    let (text, right) = settle(&handle, |log, later| {
        let reading = handle.deliverer.counts.total(None);
        sums(&facts, expected, log, &reading, later)
    })
    .await?;
    complain(&text);
    complain(if right { "the sums add up" } else { "the sums do NOT add up" });
    if args.keep_running {
        complain("driving on: Ctrl-C ends it");
        clock.go_on();
        let drive_stops = CancellationToken::new();
        let target = Target { after: to, ..target };
        let driving = push::run(world, clock, target, pushed, tracker.clone(), drive_stops.clone());
        let driving = tracker.spawn(driving);
        tokio::signal::ctrl_c().await?;
        drive_stops.cancel();
        driving.await.context("pushing ended badly")?.context("the client cannot be made")?;
    }
    bridge_stops.cancel();
    bridge.await.context("the bridge ended badly")?;
    stop.cancel();
    Ok(if right { Exit::Done } else { Exit::Failed })
}

/// Waits until the sums add up, or half a minute.
async fn settle(
    handle: &Handle,
    check: impl Fn(&Log, Later) -> (String, bool),
) -> anyhow::Result<(String, bool)> {
    let Some(local) = handle.bus.as_local() else { bail!("the demo runs on the local bus") };
    let begun = Instant::now();
    let (mut log, mut offset) = (Log::default(), 0);
    loop {
        loop {
            let rows = local.read(None, offset, 5_000)?;
            let Some(last) = rows.last() else { break };
            offset = last.offset;
            rows.iter().for_each(|row| log.take(&row.topic, row.id));
        }
        let drained = handle.deliverer.counts.drained.load(Ordering::Relaxed);
        let checked = check(&log, Later { drained, waiting: handle.deliverer.lanes.behind().1 });
        if checked.1 || begun.elapsed() > Duration::from_secs(30) {
            return Ok(checked);
        }
        sleep(Duration::from_millis(500)).await;
    }
}
