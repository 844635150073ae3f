//! The drain: brings what waits for the bus back to it, whole lanes, oldest head first, until each is live. Invariants: a
//! lane is drained by one future at a time and only while nothing of it is unresolved; a row is deleted only once the bus
//! acknowledged it; what is unacknowledged at once is bounded by a window. Neighbours: `deliver::lanes` keeps the books.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::future::OptionFuture;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::whole::WORDS;
use super::{Kept, LaneKey, Parked, Reason, Seq, Store};
use crate::bus::{Awaiting, Bus, Failure, Outcome, Ticket, Window};
use crate::deliver::breaker::Verdict;
use crate::deliver::lanes::{Drained, Lanes, Ready};
use crate::encode;
use crate::faults::{self, Point};
use crate::route::BusKind;
use crate::trace;

/// Rows of one lane read at once, and their bytes: with `SLOW_LANES`, the bound of what the drain holds in memory.
const CHUNK: (usize, u64) = (256, 256 << 10);
/// Lanes drained at once, those that wait for a slow acknowledgement not counted.
const LANES: usize = 64;
/// Lanes looked for at once.
const QUEUE: usize = 1_024;
/// Lanes that wait for a slow acknowledgement: beyond it no new lane is begun.
const SLOW_LANES: usize = 1024;
/// How long an acknowledgement may take before the lane counts as slow and the bus as failing.
const PATIENCE: Duration = Duration::from_secs(2);
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
/// The window of unacknowledged events: fewest, first and most.
const WINDOW: (usize, usize, usize) = (16, 256, 8192);
/// An acknowledgement quicker than this opens the window; a slower one halves it.
const QUICK: Duration = Duration::from_millis(300);

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

/// How many events may be unacknowledged at once. Grows while acknowledgements stay quick. Pure.
#[derive(Debug)]
struct Opening {
    size: usize,
}

impl Opening {
    fn acknowledged(&mut self, events: usize, took: Duration) {
        self.size = if took <= QUICK { self.size + events } else { self.size / 2 };
        self.size = self.size.clamp(WINDOW.0, WINDOW.2);
    }
}

/// What the lanes' futures share.
struct Shared {
    opening: Mutex<Opening>,
    unacknowledged: AtomicUsize,
    slow: AtomicUsize,
    room: Notify,
    free_at: Mutex<Instant>,
    stop: CancellationToken,
}

impl Drain {
    /// Drains until `stop`; then begins nothing more, and books what is still acknowledged.
    pub async fn run(self, stop: CancellationToken) {
        let shared = Shared {
            opening: Mutex::new(Opening { size: WINDOW.1 }),
            unacknowledged: AtomicUsize::new(0),
            slow: AtomicUsize::new(0),
            room: Notify::new(),
            free_at: Mutex::new(Instant::now()),
            stop: stop.clone(),
        };
        let mut working = FuturesUnordered::new();
        let mut queue = VecDeque::new();
        let mut pause = PAUSE.0;
        let mut not_before = Instant::now();
        let mut looking: Option<JoinHandle<Looked>> = None;
        let mut look_at = Instant::now();
        // Whether there may be lanes that the last look did not find.
        let mut changed = true;
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
            tokio::select! {
                () = stop.cancelled() => break,
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
                () = sleep(TICK) => changed = true,
            }
        }
        timeout(LAST, async { while working.next().await.is_some() {} }).await.ok();
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
            let rows = match self.store.read_lane(key.clone(), after, limit, CHUNK.1).await {
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
            let room = self.room(step.min(rest.len()), shared).await;
            let (now, later) = rest.split_at(room);
            rest = later;
            let next = rest.first().map(Kept::<Parked>::seq);
            self.pace(now.len(), shared).await;
            let outcomes = self.send(key, now, shared).await;
            match self.settle(key, now, &outcomes, next) {
                ended @ (Chunk::Stuck | Chunk::Refused) => return ended,
                Chunk::Live => live = true,
                Chunk::More => live = false,
            }
        }
        if live { Chunk::Live } else { Chunk::More }
    }

    /// Waits until at least one event fits the window, and takes up to `wanted` places.
    async fn room(&self, wanted: usize, shared: &Shared) -> usize {
        loop {
            let notified = shared.room.notified();
            let size = shared.opening.lock().size;
            let taken = shared.unacknowledged.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                let free = size.saturating_sub(used);
                (free > 0).then(|| used + free.min(wanted))
            });
            if let Ok(before) = taken {
                return size.saturating_sub(before).min(wanted);
            }
            // The window shrinks and grows without a ring: look again after a tick.
            timeout(TICK, notified).await.ok();
        }
    }

    /// Keeps to the configured rate, all lanes together.
    async fn pace(&self, events: usize, shared: &Shared) {
        let Some(rate) = *self.rate.borrow() else { return };
        let turn = {
            let mut free_at = shared.free_at.lock();
            let turn = (*free_at).max(Instant::now());
            *free_at = turn + Duration::from_secs_f64(events as f64 / f64::from(rate.max(1)));
            turn
        };
        sleep_until(turn.into()).await;
    }

    async fn send(&self, key: &LaneKey, rows: &[Kept<Parked>], shared: &Shared) -> Vec<Option<Outcome>> {
        let run = Arc::new(Run::new(rows.len()));
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
            let to: Arc<dyn Awaiting> = Arc::clone(&run) as Arc<dyn Awaiting>;
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
                    run.skip_from(place + 1);
                    break;
                }
            }
        }
        let slow = timeout(PATIENCE, run.settled()).await.is_err();
        // What is slow gives its places back, so that one partition that hangs does not close the window for all.
        shared.unacknowledged.fetch_sub(rows.len(), Ordering::Relaxed);
        shared.room.notify_waiters();
        if slow {
            self.lanes.record(Verdict::Failure);
            shared.slow.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(account = %key.account, "drain.lane_waits");
            run.settled().await;
            shared.slow.fetch_sub(1, Ordering::Relaxed);
        }
        shared.opening.lock().acknowledged(rows.len(), begun.elapsed());
        let outcomes = run.outcomes();
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
    ) -> Chunk {
        let mut delivered = Vec::with_capacity(rows.len());
        let mut stuck = false;
        let mut refused = false;
        let mut live = false;
        for (at, row) in rows.iter().enumerate() {
            let follower = rows.get(at + 1).map(Kept::<Parked>::seq).or(next);
            match outcomes.get(at).and_then(Option::as_ref) {
                Some(Outcome::Delivered) => {
                    delivered.push(row.seq());
                    self.lanes.record(Verdict::Success);
                    live = self.lanes.drained(key, &Drained::Delivered, follower.filter(|_| !stuck));
                }
                Some(Outcome::Failed(Failure::Unfit(why))) => {
                    match row {
                        Kept::Whole(row) => {
                            self.lanes.note_unfit(&key.account, row.event_type, why);
                            self.store.set_reason(vec![row.seq], Reason::Unfit, why.clone());
                        }
                        Kept::Damaged(seq) => self.store.set_damaged_aside(&key.account, *seq),
                    }
                    live = self.lanes.drained(key, &Drained::SetAside, follower.filter(|_| !stuck));
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
            self.store.delete(delivered);
        }
        match (stuck, live) {
            (_, true) => Chunk::Live,
            (true, false) if refused => Chunk::Refused,
            (true, false) => Chunk::Stuck,
            (false, false) => Chunk::More,
        }
    }
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

/// The outcomes of one send.
struct Run {
    outcomes: Mutex<Vec<Option<Outcome>>>,
    left: AtomicUsize,
    done: Notify,
}

impl Run {
    fn new(events: usize) -> Self {
        Self { outcomes: Mutex::new(vec![None; events]), left: AtomicUsize::new(events), done: Notify::new() }
    }

    /// Those from `place` on were not sent.
    fn skip_from(&self, place: usize) {
        let skipped = self.outcomes.lock().len().saturating_sub(place);
        if skipped > 0 && self.left.fetch_sub(skipped, Ordering::AcqRel) == skipped {
            self.done.notify_one();
        }
    }

    async fn settled(&self) {
        while self.left.load(Ordering::Acquire) > 0 {
            self.done.notified().await;
        }
    }

    fn outcomes(&self) -> Vec<Option<Outcome>> {
        std::mem::take(&mut *self.outcomes.lock())
    }
}

impl Awaiting for Run {
    fn resolve(&self, entry: u64, outcome: Outcome) {
        if let Some(place) = self.outcomes.lock().get_mut(entry as usize) {
            *place = Some(outcome);
        }
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.done.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::config;
    use crate::deliver::breaker::Breaker;
    use crate::deliver::counts::Counts;
    use crate::event::{AccountId, EventType, pb};
    use crate::replay::{DataDir, StoreLimits};

    #[test]
    fn the_window_opens_while_acknowledgements_are_quick_and_halves_when_they_are_not() {
        let mut opening = Opening { size: WINDOW.1 };
        opening.acknowledged(256, Duration::from_millis(5));
        assert_eq!(opening.size, 512);
        opening.acknowledged(256, Duration::from_secs(1));
        assert_eq!(opening.size, 256);
        for _ in 0..20 {
            opening.acknowledged(1, Duration::from_secs(1));
        }
        assert_eq!(opening.size, WINDOW.0);
        for _ in 0..100 {
            opening.acknowledged(256, Duration::from_millis(5));
        }
        assert_eq!(opening.size, WINDOW.2);
    }

    #[tokio::test]
    async fn a_run_is_settled_once_all_that_was_sent_is() {
        let run = Run::new(3);
        run.resolve(0, Outcome::Delivered);
        run.skip_from(2);
        run.resolve(1, Outcome::Unresolved);
        run.settled().await;
        assert_eq!(run.outcomes(), [Some(Outcome::Delivered), Some(Outcome::Unresolved), None]);
    }

    #[tokio::test]
    async fn what_is_acknowledged_after_the_stop_is_booked_and_not_sent_again_by_the_next_run() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = DataDir::lock(dir.path()).await.unwrap();
        let limits = StoreLimits { reserve: 4_096, ..StoreLimits::default() };
        let (store, writer, _) = Store::open(&data_dir, limits, None).unwrap();
        let thread = std::thread::spawn(move || writer.run(|_| {}));
        let hour = Duration::from_secs(3_600);
        let local = config::Bus::Local(config::Local { retention: hour, max_size: 1 << 30 });
        let bus = Arc::new(Bus::open(&local, dir.path()).unwrap());
        let account = AccountId::new("acme");
        let counts = Arc::new(Counts::new([&account]));
        let breaker = Breaker::new(config::Breaker { failure_rate: 0.5, window: hour });
        let lanes = Lanes::new(Arc::clone(&bus), store.clone(), breaker, Arc::clone(&counts), 3, Vec::new());
        let lane = LaneKey { account, topic: "fleet.position".into(), subject: "vehicle".into() };
        let id = uuid::Uuid::now_v7();
        let event = pb::FleetEvent { id: id.to_string(), ..pb::FleetEvent::default() };
        let row = Parked {
            seq: Seq(0),
            lane: lane.clone(),
            event_type: EventType::Position,
            id,
            enters: Vec::new(),
            payload: event.encode_to_vec().into(),
            trace: None,
            reason: Reason::Unfit,
            error: String::new(),
            provisional: false,
            parked_at: crate::clock::now(),
        };
        lanes.requeue(row, Box::new(|kept| assert!(kept.is_ok()))).unwrap();
        let stop = CancellationToken::new();
        let kind = BusKind::Local;
        let (lanes_of, store_of, bus_of) = (Arc::clone(&lanes), store.clone(), Arc::clone(&bus));
        let drain =
            Drain { lanes: lanes_of, store: store_of, bus: bus_of, kind, rate: watch::channel(None).1 };
        let drains = drain.run(stop.clone());
        let stops = async {
            while !lanes.ready(1).is_empty() {
                tokio::task::yield_now().await;
            }
            // Answered after the drain's own question; then its message is with the bus, whose thread does not run yet.
            assert_eq!(store.read_lane(lane.clone(), None, 9, 1 << 20).await.unwrap().len(), 1);
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            stop.cancel();
            tokio::task::yield_now().await;
            tokio::join!(bus.run(CancellationToken::new()), bus.close(Duration::ZERO));
        };
        tokio::join!(drains, stops);
        assert_eq!(bus.as_local().unwrap().read(None, 0, 9).unwrap().len(), 1);
        assert_eq!(counts.drained.load(Ordering::Relaxed), 1);
        assert_eq!(store.read_lane(lane, None, 9, 1 << 20).await.unwrap().len(), 0);
        store.close();
        thread.join().unwrap();
    }
}
