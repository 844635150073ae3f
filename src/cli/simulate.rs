//! `fleetbus simulate linxup`: a stand-in for the provider, on loopback. Invariant: it ends, whether the target answers or not. `simulate`
//! does the work.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::ends::Ends;
use super::remote::Mistake;
use super::runtime::runtime;
use super::{Exit, complain};
use crate::simulate::Clock;
use crate::simulate::push::{self, Faults, Format, Pushed, Target};
use crate::simulate::serve::Provider;
use crate::simulate::world::World;

/// A fast fleet begins at most so long ago: what is older than dedup remembers would be told twice.
const HEAD_START_MS: i64 = 24 * 3_600_000;
/// How long after its end what has happened until then is still sent.
const PATIENCE: Duration = Duration::from_secs(10);
/// Of a thousand: all of them.
const ALL: u64 = 1_000;

/// Arguments of `fleetbus simulate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    provider: Which,
}

#[derive(Debug, clap::Subcommand)]
enum Which {
    /// A fleet with Linxup: pushes webhooks, and serves the V2 and V3 pull APIs.
    Linxup(Linxup),
}

/// Arguments of `fleetbus simulate linxup`.
#[derive(Debug, clap::Args)]
struct Linxup {
    /// Push webhooks to this URL, e.g. http://127.0.0.1:8080/webhooks/acme. Loopback only.
    #[arg(long, value_name = "URL")]
    to: Option<String>,
    /// The webhook's token: a variable's name; where it is not set, the token is `simulated`. The pull APIs take the same.
    #[arg(long, value_name = "VARIABLE", default_value = "FLEETBUS_SIMULATED_TOKEN")]
    token_env: String,
    /// The webhook's token: a file.
    #[arg(long, value_name = "FILE", conflicts_with = "token_env")]
    token_file: Option<PathBuf>,
    /// The format of the webhooks.
    #[arg(long, value_enum, default_value_t = Format::Both)]
    format: Format,
    /// How many vehicles.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    vehicles: u32,
    /// How much faster than the clock on the wall: the fleet begins in the past, and is at most as far as the present.
    #[arg(long, default_value_t = 1.0)]
    speed: f64,
    /// What decides everything that happens.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Of a thousand webhooks, how many are never sent: the pull APIs have them.
    #[arg(long, default_value_t = 0, value_name = "PER_MILLE", value_parser = clap::value_parser!(u64).range(..=ALL))]
    lose: u64,
    /// Of a thousand webhooks, how many are sent twice.
    #[arg(long, default_value_t = 0, value_name = "PER_MILLE", value_parser = clap::value_parser!(u64).range(..=ALL))]
    double: u64,
    /// Of a thousand webhooks, how many are followed by a broken copy.
    #[arg(long, default_value_t = 0, value_name = "PER_MILLE", value_parser = clap::value_parser!(u64).range(..=ALL))]
    garble: u64,
    /// Where the pull APIs are served.
    #[arg(long, default_value = "127.0.0.1:8081")]
    listen: SocketAddr,
    /// How long; without it, until interrupted.
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
}

/// Runs it.
///
/// # Errors
/// Where it cannot listen, a file cannot be read, or the target is not on this machine.
pub fn run(args: Args) -> anyhow::Result<Exit> {
    let Which::Linxup(args) = args.provider;
    let token = match &args.token_file {
        Some(file) => std::fs::read_to_string(file)
            .map_err(|source| Mistake::NoInput { name: file.display().to_string(), source })?,
        None => std::env::var(&args.token_env).unwrap_or_else(|_| "simulated".to_owned()),
    };
    if !args.speed.is_finite() || !(0.1..=1_000.0).contains(&args.speed) {
        return Err(Mistake::Misuse("--speed is between 0.1 and 1000".to_owned()).into());
    }
    if !args.listen.ip().is_loopback() || !args.to.as_deref().is_none_or(is_loopback) {
        return Err(Mistake::Misuse("a simulated fleet talks to this machine only".to_owned()).into());
    }
    let runtime = runtime()?;
    runtime.block_on(simulate(args, token.trim().to_owned()))
}

fn is_loopback(url: &str) -> bool {
    reqwest::Url::parse(url).is_ok_and(|url| {
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    })
}

/// How long ago a fleet begins that is faster than the clock, in ms: nothing may happen in the future.
fn head_start(speed: f64, seconds: Option<u64>) -> i64 {
    let lasts = seconds.unwrap_or(3_600).min(86_400);
    ((lasts as f64 * (speed - 1.0) * 1_000.0) as i64).clamp(0, HEAD_START_MS)
}

async fn simulate(args: Linxup, token: String) -> anyhow::Result<Exit> {
    let mut ends = Ends::new()?;
    let begins = jiff::Timestamp::now().as_millisecond() - head_start(args.speed, args.seconds);
    let world = World { seed: args.seed, vehicles: args.vehicles, begins };
    let clock = Clock::new(begins, args.speed);
    let provider = Provider::new(world, clock.clone(), token.clone(), Duration::from_secs(5));
    let listener =
        TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
    complain(&format!("the pull APIs are at http://{}", listener.local_addr()?));
    let stop = CancellationToken::new();
    let tracker = TaskTracker::new();
    let served = stop.clone();
    tracker.spawn(async move {
        axum::serve(listener, provider.router()).with_graceful_shutdown(served.cancelled_owned()).await
    });
    let pushed = Arc::new(Pushed::default());
    let faults = Faults { lost: args.lose, doubled: args.double, garbled: args.garble };
    let pushing = args.to.map(|url| {
        let target = Target { url, token, format: args.format, after: begins, faults, patience: PATIENCE };
        tracker.spawn(push::run(world, clock, target, Arc::clone(&pushed), tracker.clone(), stop.clone()))
    });
    let lasts = async {
        match args.seconds {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(lasts);
    loop {
        tokio::select! {
            () = &mut lasts => break,
            () = ends.asked() => break,
            () = tokio::time::sleep(Duration::from_secs(2)) => complain(&sums(&pushed)),
        }
    }
    stop.cancel();
    if let Some(pushing) = pushing {
        complain("it ends; what has happened is still sent");
        tokio::select! {
            ended = pushing => ended.context("pushing ended badly")?.context("the client cannot be made")?,
            () = ends.asked() => {
                complain("interrupted again: what was not answered yet is not sent any more");
                return Ok(Exit::Failed);
            }
        }
    }
    complain(&sums(&pushed));
    match (pushed.given_up.load(Ordering::Relaxed), pushed.dropped.load(Ordering::Relaxed)) {
        (0, 0) => Ok(Exit::Done),
        (given_up, dropped) => {
            let seconds = PATIENCE.as_secs();
            complain(&format!(
                "{given_up} were not answered 2xx by {seconds} s after the end, {dropped} never sent: too many waited"
            ));
            Ok(Exit::Failed)
        }
    }
}

/// The pushed messages in one line.
fn sums(pushed: &Pushed) -> String {
    let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    format!(
        "{} messages: {} answered 2xx, {} tries repeated; on purpose {} left out, {} doubled, {} garbled",
        read(&pushed.happened),
        read(&pushed.answered),
        read(&pushed.again),
        read(&pushed.lost),
        read(&pushed.doubled),
        read(&pushed.garbled)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(speed: f64, seconds: Option<u64>, expected: i64) {
        assert_eq!(head_start(speed, seconds), expected);
    }

    #[test]
    fn a_fast_fleet_begins_so_early_that_it_reaches_the_present_at_its_end() {
        check(1.0, None, 0);
        check(0.5, Some(10), 0);
        check(60.0, Some(10), 590_000);
        check(1_000.0, None, HEAD_START_MS);
    }
}
