//! Pushes what happens as webhooks, as a faithful sender: per vehicle in order, each message only once the one before was
//! answered 2xx, again with growing pauses until it is. Messages may be left out on purpose, for the pull
//! APIs to heal, sent twice, or garbled.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use reqwest::Response;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Clock;
use super::render;
use super::world::{Fact, World, is_newer};

/// Messages of one vehicle that may wait: what happens beyond it is left out, and counted.
const QUEUE: usize = 1_024;
/// How often what happened is looked for.
const TICK: Duration = Duration::from_millis(100);
/// First and last pause before a message is sent again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));

/// The wire formats of webhooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// The legacy flat one.
    Flat,
    /// V3.
    V3,
    /// Half the vehicles each.
    Both,
}

/// Where and how to push.
#[derive(Debug, Clone)]
pub struct Target {
    /// The webhook URL.
    pub url: String,
    /// Its token.
    pub token: String,
    /// The format.
    pub format: Format,
    /// What happened until then is not sent.
    pub after: i64,
    /// What goes wrong on the way.
    pub faults: Faults,
}

/// What goes wrong on the way: of a thousand messages, how many. Decided by the message alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Are never sent, of those that the pull APIs have.
    pub lost: u64,
    /// Are sent again after they were answered.
    pub doubled: u64,
    /// Are followed by the first half of themselves, which no receiver can read, and nobody sends again.
    pub garbled: u64,
}

/// The faults, as what they are decided by.
#[derive(Clone, Copy)]
enum Fault {
    Lost = 1,
    Doubled,
    Garbled,
}

/// What was pushed.
#[derive(Debug, Default)]
pub struct Pushed {
    /// Messages that happened.
    pub happened: AtomicU64,
    /// Breadcrumbs inside them.
    pub crumbs: AtomicU64,
    /// Answered 2xx.
    pub answered: AtomicU64,
    /// Sent again, for the answer was not 2xx or did not come.
    pub again: AtomicU64,
    /// Left out on purpose.
    pub lost: AtomicU64,
    /// Sent a second time on purpose.
    pub doubled: AtomicU64,
    /// Garbled on purpose.
    pub garbled: AtomicU64,
    /// Left out because the vehicle's queue was full.
    pub dropped: AtomicU64,
}

/// Pushes until `stop`; what has happened by then is still sent. Returns when all of it was answered.
pub async fn run(
    world: World,
    clock: Clock,
    target: Target,
    pushed: Arc<Pushed>,
    tracker: TaskTracker,
    stop: CancellationToken,
) -> Result<(), reqwest::Error> {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(20)).build()?;
    let senders = TaskTracker::new();
    let queues: Vec<mpsc::Sender<Fact>> = (0..world.vehicles)
        .map(|_| {
            let (queue, facts) = mpsc::channel(QUEUE);
            let (client, target, pushed) = (client.clone(), target.clone(), Arc::clone(&pushed));
            let sending = send_all(client, target, pushed, facts);
            tracker.spawn(senders.track_future(sending));
            queue
        })
        .collect();
    let mut seen = target.after;
    let mut last = false;
    while !last {
        last = stop.is_cancelled();
        tokio::time::sleep(TICK).await;
        let now = clock.now();
        for fact in world.facts(seen, now) {
            if let Some(queue) = queues.get(fact.vehicle as usize)
                && queue.try_send(fact).is_err()
            {
                pushed.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
        seen = now;
    }
    drop(queues);
    senders.close();
    senders.wait().await;
    Ok(())
}

async fn send_all(
    client: reqwest::Client,
    target: Target,
    pushed: Arc<Pushed>,
    mut facts: mpsc::Receiver<Fact>,
) {
    while let Some(fact) = facts.recv().await {
        let flat = match target.format {
            Format::Flat => true,
            Format::V3 => false,
            Format::Both => !is_newer(fact.vehicle),
        };
        let message = if flat { render::flat(&fact) } else { Some(render::nested(&fact)) };
        let Some(message) = message else { continue };
        pushed.happened.fetch_add(1, Ordering::Relaxed);
        let crumbs = message.get("batchedPositions").and_then(|crumbs| crumbs.as_str());
        let crumbs = crumbs.map_or(0, |crumbs| crumbs.matches(';').count());
        let heals = !is_newer(fact.vehicle) && fact.what.is_pulled();
        let Faults { lost, doubled, garbled } = target.faults;
        // Breadcrumbs are not in the pull APIs: only what is in them may be lost.
        if heals && befalls(&fact, Fault::Lost, lost) {
            pushed.lost.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        pushed.crumbs.fetch_add(crumbs as u64, Ordering::Relaxed);
        let body = Bytes::from(message.to_string());
        send(&client, &target, body.clone(), &pushed).await;
        if befalls(&fact, Fault::Doubled, doubled) {
            pushed.doubled.fetch_add(1, Ordering::Relaxed);
            send(&client, &target, body.clone(), &pushed).await;
        }
        if befalls(&fact, Fault::Garbled, garbled) {
            pushed.garbled.fetch_add(1, Ordering::Relaxed);
            // Whatever the answer is, or none.
            let _answer = request(&client, &target, body.slice(..body.len() / 2)).await;
        }
    }
}

/// Whether a fault befalls a message: decided by the fact alone.
fn befalls(fact: &Fact, fault: Fault, per_mille: u64) -> bool {
    let salt = 0x9e37_79b9 * (2 * fault as u64 - 1);
    let hash = (fact.at.unsigned_abs() / 1_000).wrapping_mul(salt) ^ u64::from(fact.vehicle);
    hash % 1_000 < per_mille
}

async fn request(client: &reqwest::Client, target: &Target, body: Bytes) -> reqwest::Result<Response> {
    let request = client.post(&target.url).bearer_auth(&target.token);
    request.header("content-type", "application/json").body(body).send().await
}

async fn send(client: &reqwest::Client, target: &Target, body: Bytes, pushed: &Pushed) {
    let mut pause = PAUSE.0;
    loop {
        let sent = request(client, target, body.clone()).await;
        if sent.is_ok_and(|answer| answer.status().is_success()) {
            pushed.answered.fetch_add(1, Ordering::Relaxed);
            return;
        }
        pushed.again.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}
