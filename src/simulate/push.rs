//! Pushes what happens as webhooks, as a faithful sender: per vehicle in order, each message only once the one before was
//! answered 2xx, again with growing pauses until it is, or until the patience that it has after the stop is at its end. Messages may be
//! left out on purpose, for the pull APIs to heal, sent twice, or garbled. `cli/simulate` and `cli/demo` run it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use reqwest::Response;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
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
    /// How long after the stop what happened until then is still sent.
    pub patience: Duration,
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
    /// Given up: not answered 2xx when the patience was at its end.
    pub given_up: AtomicU64,
}

/// Pushes until `stop`; what has happened by then is still sent. Returns when all of it was answered, or given up.
pub async fn run(
    world: World,
    clock: Clock,
    target: Target,
    pushed: Arc<Pushed>,
    tracker: TaskTracker,
    stop: CancellationToken,
) -> Result<(), reqwest::Error> {
    // The target is on this machine: no proxy is between, whatever the environment says about the world outside.
    let client = reqwest::Client::builder().timeout(Duration::from_secs(20)).no_proxy().build()?;
    let patience = target.patience;
    let (senders, given_up) = (TaskTracker::new(), CancellationToken::new());
    let queues: Vec<mpsc::Sender<Fact>> = (0..world.vehicles)
        .map(|_| {
            let (queue, facts) = mpsc::channel(QUEUE);
            let sender = Sender {
                client: client.clone(),
                target: target.clone(),
                pushed: Arc::clone(&pushed),
                given_up: given_up.clone(),
            };
            tracker.spawn(senders.track_future(sender.send_all(facts)));
            queue
        })
        .collect();
    let mut seen = target.after;
    let mut last = false;
    while !last {
        last = stop.is_cancelled();
        sleep(TICK).await;
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
    if timeout(patience, senders.wait()).await.is_err() {
        given_up.cancel();
        senders.wait().await;
    }
    Ok(())
}

/// Sends one vehicle's messages.
struct Sender {
    client: reqwest::Client,
    target: Target,
    pushed: Arc<Pushed>,
    /// What is not answered by then is counted, and not sent any more.
    given_up: CancellationToken,
}

impl Sender {
    async fn send_all(self, mut facts: mpsc::Receiver<Fact>) {
        while let Some(fact) = facts.recv().await {
            let flat = match self.target.format {
                Format::Flat => true,
                Format::V3 => false,
                Format::Both => !is_newer(fact.vehicle),
            };
            let message = if flat { render::flat(&fact) } else { Some(render::nested(&fact)) };
            let Some(message) = message else { continue };
            self.pushed.happened.fetch_add(1, Ordering::Relaxed);
            let crumbs = message.get("batchedPositions").and_then(|crumbs| crumbs.as_str());
            let crumbs = crumbs.map_or(0, |crumbs| crumbs.matches(';').count());
            let heals = !is_newer(fact.vehicle) && fact.what.is_pulled();
            let Faults { lost, doubled, garbled } = self.target.faults;
            // Breadcrumbs are not in the pull APIs: only what is in them may be lost.
            if heals && befalls(&fact, Fault::Lost, lost) {
                self.pushed.lost.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            self.pushed.crumbs.fetch_add(crumbs as u64, Ordering::Relaxed);
            let body = Bytes::from(message.to_string());
            self.send(body.clone()).await;
            if befalls(&fact, Fault::Doubled, doubled) {
                self.pushed.doubled.fetch_add(1, Ordering::Relaxed);
                self.send(body.clone()).await;
            }
            if befalls(&fact, Fault::Garbled, garbled) {
                self.pushed.garbled.fetch_add(1, Ordering::Relaxed);
                // Whatever the answer is, or none.
                let garbled = self.request(body.slice(..body.len() / 2));
                let _answer = self.given_up.run_until_cancelled(garbled).await;
            }
        }
    }

    async fn send(&self, body: Bytes) {
        if self.given_up.run_until_cancelled(self.insist(body)).await.is_none() {
            self.pushed.given_up.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Sends until it is answered 2xx.
    async fn insist(&self, body: Bytes) {
        let mut pause = PAUSE.0;
        loop {
            let sent = self.request(body.clone()).await;
            if sent.is_ok_and(|answer| answer.status().is_success()) {
                self.pushed.answered.fetch_add(1, Ordering::Relaxed);
                return;
            }
            self.pushed.again.fetch_add(1, Ordering::Relaxed);
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    async fn request(&self, body: Bytes) -> reqwest::Result<Response> {
        let request = self.client.post(&self.target.url).bearer_auth(&self.target.token);
        request.header("content-type", "application/json").body(body).send().await
    }
}

/// Whether a fault befalls a message: decided by the fact alone.
fn befalls(fact: &Fact, fault: Fault, per_mille: u64) -> bool {
    let salt = 0x9e37_79b9 * (2 * fault as u64 - 1);
    let hash = (fact.at.unsigned_abs() / 1_000).wrapping_mul(salt) ^ u64::from(fact.vehicle);
    hash % 1_000 < per_mille
}
