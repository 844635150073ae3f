//! The drain: brings what waits for the bus back to it, whole lanes, until each is live: those that events still come for
//! and those that wait longest, in turn. Invariants: a lane is drained by one future at a time and only while nothing of it is
//! unresolved; a row is deleted only once the bus acknowledged it; what is unacknowledged at once is bounded by a window.
//! Neighbours: `deliver::lanes` keeps the books; `rows` reads and deletes for all lanes together.

mod rows;
mod sent;
#[cfg(test)]
mod tests;
mod window;

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::future::OptionFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::whole::WORDS;
use super::{Kept, LaneKey, LaneRows, Parked, Reason, Seq, Store};
use crate::bus::{Awaiting, Bus, Failure, Outcome, Ticket, Window};
use crate::deliver::breaker::Verdict;
use crate::deliver::lanes::{Drained, Lanes, Ready};
use crate::encode;
use crate::faults::{self, Point};
use crate::route::BusKind;
use crate::trace;
use rows::Rows;
use sent::Sent;
use window::{PATIENCE, Sending};

/// Rows of one lane read at once, and their bytes: with `SLOW_LANES`, the bound of what the drain holds in memory.
const CHUNK: (usize, u64) = (128, 64 << 10);
/// Lanes drained at once, those that wait for a slow acknowledgement not counted: some that read, some that send.
const LANES: usize = 256;
/// Lanes looked for at once.
const QUEUE: usize = 1_024;
/// Lanes that wait for a slow acknowledgement: beyond it no new lane is begun.
const SLOW_LANES: usize = 1024;
/// How often lanes are looked for when nothing rang.
const TICK: Duration = Duration::from_millis(250);
/// Looking for lanes looks at all of them: of a hundred thousand, a pass takes milliseconds. The next one comes so many
/// times later as it took.
const LOOK_PAUSE: u32 = 4;
/// What is in flight when the drain is told to stop may still be acknowledged, so that it is not sent again after the
/// restart.
const LAST: Duration = Duration::from_secs(4);
/// First and last pause after the bus was found unavailable.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// What the drain works with.
#[derive(Clone)]
pub struct Drain {
    /// The books.
    pub lanes: Arc<Lanes>,
    /// Where it reads.
    pub store: Store,
    /// Where it sends.
    pub bus: Arc<Bus>,
    /// How messages are encoded.
    pub kind: BusKind,
    /// Events a second; none: as fast as the window allows.
    pub rate: watch::Receiver<Option<u32>>,
}

/// How much of a lane is drained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// Until it is live.
    Whole,
    /// One event, to see whether the bus or the topic takes it.
    Probe,
}

/// How the work on one lane ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// Live, or as far as was wanted.
    Done,
    /// The topic is refused: a state of the topic, which holds no other lane up.
    Refused,
    /// The bus failed.
    Failed,
}

/// What the lanes' futures share.
struct Shared {
    sending: Sending,
    rows: Rows,
    slow: AtomicUsize,
    stop: CancellationToken,
}

impl Drain {
    /// Drains until `stop`; then begins nothing more, and books what is still acknowledged.
    pub async fn run(self, stop: CancellationToken) {
        let shared = Shared {
            sending: Sending::new(self.bus.window(), self.rate.clone(), self.lanes.came()),
            rows: Rows::new(self.store.clone()),
            slow: AtomicUsize::new(0),
            stop: stop.clone(),
        };
        let mut serving = pin!(shared.rows.serve());
        let mut working = FuturesUnordered::new();
        let mut queue = VecDeque::new();
        let mut pause = PAUSE.0;
        let mut not_before = Instant::now();
        let mut looking: Option<JoinHandle<Looked>> = None;
        let mut look_at = Instant::now();
        // Whether there may be lanes that the last look did not find.
        let mut changed = true;
        let mut tick = Instant::now() + TICK;
        loop {
            if self.lanes.take_hurry() {
                (pause, not_before) = (PAUSE.0, Instant::now());
            }
            let active = working.len().saturating_sub(shared.slow.load(Ordering::Relaxed));
            let now = Instant::now();
            let wanted = if now < not_before || working.len() >= SLOW_LANES {
                0
            } else {
                LANES.saturating_sub(active)
            };
            for (lane, extent) in self.choose(wanted, &mut queue) {
                if self.lanes.begin_drain(&lane.key) {
                    working.push(self.lane(lane, extent, &shared));
                }
            }
            let wants = wanted > 0 && queue.is_empty() && changed && !self.lanes.is_breaker_open();
            if wants && looking.is_none() && now >= look_at {
                changed = false;
                let lanes = Arc::clone(&self.lanes);
                looking = Some(tokio::task::spawn_blocking(move || look(&lanes)));
            }
            let delete_at = shared.rows.due();
            if working.is_empty() || delete_at.is_some_and(|due| due <= now) {
                shared.rows.delete();
            }
            tokio::select! {
                () = stop.cancelled() => break,
                never = &mut serving => match never {},
                Some(ended) = working.next(), if !working.is_empty() => {
                    changed = true;
                    match ended {
                        Ended::Done => pause = PAUSE.0,
                        Ended::Refused => {}
                        Ended::Failed => {
                            not_before = Instant::now() + pause;
                            pause = (pause * 2).min(PAUSE.1);
                        }
                    }
                }
                Some(looked) = OptionFuture::from(looking.as_mut()), if looking.is_some() => {
                    looking = None;
                    let Looked { found, took } = looked.unwrap_or_default();
                    look_at = Instant::now() + took * LOOK_PAUSE;
                    changed |= !found.is_empty();
                    queue.extend(found);
                }
                () = self.lanes.ready.notified() => changed = true,
                () = sleep_until(look_at.into()), if wants && looking.is_none() => {}
                () = sleep_until(tick.into()) => {
                    tick = Instant::now() + TICK;
                    changed = true;
                }
                Some(()) = OptionFuture::from(delete_at.map(|due| sleep_until(due.into()))) => {}
            }
        }
        let last = async { while working.next().await.is_some() {} };
        tokio::select! {
            () = last => {}
            never = serving => match never {},
            () = sleep(LAST) => {}
        }
        shared.rows.delete();
    }

    /// What to work on next.
    fn choose(&self, wanted: usize, queue: &mut VecDeque<Ready>) -> Vec<(Ready, Extent)> {
        if wanted == 0 {
            return Vec::new();
        }
        if self.lanes.is_breaker_open() {
            queue.clear();
            if !self.lanes.is_probe_due() {
                return Vec::new();
            }
            return match self.lanes.ready(1).pop() {
                Some(lane) if self.lanes.take_probe() => vec![(lane, Extent::Probe)],
                Some(_) => Vec::new(),
                None => {
                    self.lanes.close_breaker_for_want_of_probes();
                    Vec::new()
                }
            };
        }
        let probes = self.lanes.topic_probes().into_iter().map(|lane| (lane, Extent::Probe));
        let whole = queue.drain(..wanted.min(queue.len()));
        // A topic may have been refused since its lanes were looked for.
        let whole = whole
            .filter(|lane| !self.lanes.is_topic_refused(&lane.key.topic))
            .map(|lane| (lane, Extent::Whole));
        probes.chain(whole).collect()
    }

    async fn lane(&self, lane: Ready, extent: Extent, shared: &Shared) -> Ended {
        let account = lane.key.account.as_str();
        let span = tracing::info_span!(target: trace::SPANS, "drain", fleetbus.account = account);
        self.work_on(&lane.key, extent, shared).instrument(span).await
    }

    async fn work_on(&self, key: &LaneKey, extent: Extent, shared: &Shared) -> Ended {
        let mut after = None;
        let limit = match extent {
            Extent::Probe => 1,
            Extent::Whole => CHUNK.0,
        };
        loop {
            let last_came = self.lanes.last_came(key).filter(|_| !shared.stop.is_cancelled());
            let Some(last_came) = last_came else {
                self.lanes.end_drain(key);
                return Ended::Done;
            };
            let wanted = LaneRows { lane: key.clone(), after, rows: limit, bytes: CHUNK.1 };
            let rows = match shared.rows.read(wanted).await {
                Ok(rows) => rows,
                Err(error) => {
                    tracing::error!(error = %error, "drain.read_failed");
                    self.lanes.end_drain(key);
                    return Ended::Failed;
                }
            };
            let Some(last) = rows.last().map(Kept::<Parked>::seq) else {
                // The books have rows that were not read: before they are forgotten, the lane is read from its beginning.
                if after.take().is_none() && self.lanes.exhausted(key, last_came) {
                    return Ended::Done;
                }
                continue;
            };
            match self.chunk(key, rows, shared).await {
                Chunk::Live => return Ended::Done,
                Chunk::More if extent == Extent::Probe => {
                    self.lanes.end_drain(key);
                    return Ended::Done;
                }
                Chunk::More => after = Some(last),
                Chunk::Refused => {
                    self.lanes.end_drain(key);
                    return Ended::Refused;
                }
                Chunk::Stuck => {
                    self.lanes.end_drain(key);
                    return Ended::Failed;
                }
            }
        }
    }

    /// Sends rows of one lane in order, as many at once as the bus and the window allow, and settles each.
    async fn chunk(&self, key: &LaneKey, rows: Vec<Kept<Parked>>, shared: &Shared) -> Chunk {
        let step = match self.bus.window() {
            Window::One => 1,
            Window::Unlimited => rows.len(),
        };
        let mut rest = rows.as_slice();
        let mut live = false;
        while !rest.is_empty() && !shared.stop.is_cancelled() {
            let room = shared.sending.room(step.min(rest.len())).await;
            let (now, later) = rest.split_at(room);
            rest = later;
            let next = rest.first().map(Kept::<Parked>::seq);
            let outcomes = self.send(key, now, shared).await;
            match self.settle(key, now, &outcomes, next, shared) {
                ended @ (Chunk::Stuck | Chunk::Refused) => return ended,
                Chunk::Live => live = true,
                Chunk::More => live = false,
            }
        }
        if live { Chunk::Live } else { Chunk::More }
    }

    async fn send(&self, key: &LaneKey, rows: &[Kept<Parked>], shared: &Shared) -> Vec<Option<Outcome>> {
        let sent = Arc::new(Sent::new(rows.len()));
        let span = trace::publish(self.kind.as_str(), rows.len());
        trace::link(
            &span,
            rows.iter().filter_map(|row| match row {
                Kept::Whole(row) => row.trace.as_deref(),
                Kept::Damaged(_) => None,
            }),
        );
        let begun = Instant::now();
        for (place, row) in rows.iter().enumerate() {
            let to: Arc<dyn Awaiting> = Arc::clone(&sent) as Arc<dyn Awaiting>;
            let ticket = Ticket::new(to, place as u64);
            let row = match row {
                Kept::Whole(row) => row,
                Kept::Damaged(_) => {
                    ticket.resolve(Outcome::Failed(Failure::Unfit(WORDS.into())));
                    continue;
                }
            };
            let topic = row.lane.topic.clone();
            let trace = row.trace.as_deref();
            let Some(message) = encode::again(&row.payload, row.id, row.event_type, topic, self.kind, trace)
            else {
                ticket.resolve(Outcome::Failed(Failure::Unfit("the stored bytes are not an event".into())));
                continue;
            };
            if let Err((failure, ticket)) = self.bus.submit(&message, ticket) {
                let unfit = matches!(failure, Failure::Unfit(_));
                ticket.resolve(Outcome::Failed(failure));
                if !unfit {
                    sent.skip_from(place + 1);
                    break;
                }
            }
        }
        let slow = timeout(PATIENCE, sent.settled()).await.is_err();
        // What is slow gives its places back, so that one partition that hangs does not close the window for all.
        shared.sending.give_back(rows.len());
        if slow {
            self.lanes.record(Verdict::Failure);
            shared.slow.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(account = %key.account, "drain.lane_waits");
            sent.settled().await;
            shared.slow.fetch_sub(1, Ordering::Relaxed);
        }
        shared.sending.acknowledged(rows.len(), begun.elapsed(), self.lanes.came());
        let outcomes = sent.outcomes();
        let delivered = outcomes.iter().filter(|outcome| **outcome == Some(Outcome::Delivered)).count();
        span.record("fleetbus.delivered", trace::number(delivered));
        outcomes
    }

    /// Books what became of each row, in order. A failure leaves the row where it is.
    fn settle(
        &self,
        key: &LaneKey,
        rows: &[Kept<Parked>],
        outcomes: &[Option<Outcome>],
        next: Option<Seq>,
        shared: &Shared,
    ) -> Chunk {
        let mut delivered = Vec::with_capacity(rows.len());
        // Delivered one after the other, and not booked yet.
        let mut run = Run::default();
        let mut stuck = false;
        let mut refused = false;
        let mut live = false;
        for (at, row) in rows.iter().enumerate() {
            let follower = rows.get(at + 1).map(Kept::<Parked>::seq).or(next).filter(|_| !stuck);
            match outcomes.get(at).and_then(Option::as_ref) {
                Some(Outcome::Delivered) => {
                    delivered.push(row.seq());
                    run = Run { rows: run.rows + 1, follower };
                }
                Some(Outcome::Failed(Failure::Unfit(why))) => {
                    self.book(key, std::mem::take(&mut run));
                    match row {
                        Kept::Whole(row) => {
                            self.lanes.note_unfit(&key.account, row.event_type, why);
                            self.store.set_reason(vec![row.seq], Reason::Unfit, why.clone());
                        }
                        Kept::Damaged(seq) => self.store.set_damaged_aside(&key.account, *seq),
                    }
                    live = self.lanes.drained(key, &Drained::SetAside, follower);
                }
                Some(Outcome::Failed(failure)) => {
                    if !stuck {
                        self.lanes.drain_failed(key, failure);
                        self.store.attempted(row.seq(), failure.to_string());
                        refused = matches!(failure, Failure::Refused(_));
                    }
                    stuck = true;
                }
                Some(Outcome::Unresolved) | None => stuck = true,
            }
        }
        if !delivered.is_empty() {
            faults::point(Point::InDrain);
            shared.rows.delivered(&delivered);
        }
        live |= self.book(key, run);
        match (stuck, live) {
            (_, true) => Chunk::Live,
            (true, false) if refused => Chunk::Refused,
            (true, false) => Chunk::Stuck,
            (false, false) => Chunk::More,
        }
    }

    /// Books rows that were delivered. True where the lane is live.
    fn book(&self, key: &LaneKey, run: Run) -> bool {
        run.rows > 0 && self.lanes.drained(key, &Drained::Delivered(run.rows), run.follower)
    }
}

/// Rows of a lane that were delivered one after the other, and the row after them, where known.
#[derive(Default)]
struct Run {
    rows: u64,
    follower: Option<Seq>,
}

/// Lanes that were found, and how long that took.
#[derive(Default)]
struct Looked {
    found: Vec<Ready>,
    took: Duration,
}

/// Looks for lanes: of a hundred thousand that takes milliseconds, which on a runtime's thread others would wait for.
fn look(lanes: &Lanes) -> Looked {
    let begun = Instant::now();
    Looked { found: lanes.ready(QUEUE), took: begun.elapsed() }
}

/// How a chunk of a lane went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunk {
    /// The lane is live.
    Live,
    /// The lane has more.
    More,
    /// The topic is refused.
    Refused,
    /// The bus failed.
    Stuck,
}
