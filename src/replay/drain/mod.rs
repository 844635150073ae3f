//! The drain: brings what waits for the bus back to it, whole lanes, until each is live: those that events still come for
//! and those that wait longest, in turn. Invariants: a lane is drained by one future at a time and only while nothing of it is
//! unresolved; a row is deleted only once the bus acknowledged it; what is unacknowledged at once is bounded by a window; a
//! lane whose acknowledgement is late takes no other's place. Neighbours: `deliver::lanes` keeps the books; `rows` reads and
//! deletes for all lanes together.

mod probing;
mod rows;
mod sent;
#[cfg(test)]
mod tests;
mod window;

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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
use super::{AskError, Kept, LaneKey, LaneRows, Parked, Reason, Seq, Store};
use crate::bus::{Awaiting, Bus, Failure, Outcome, Ticket, Window};
use crate::deliver::breaker::Verdict;
use crate::deliver::lanes::{Drained, Lanes, Ready};
use crate::encode;
use crate::faults::{self, Point};
use crate::route::BusKind;
use crate::trace;
use probing::{Probing, Turn};
use rows::Rows;
use sent::{Late, Mark, Sent, Settled};
use window::{PATIENCE, Sending};

/// Rows of one lane read at once, and their bytes: with `LANES`, the bound of what the drain holds in memory.
const CHUNK: (usize, u64) = (128, 64 << 10);
/// Lanes drained at once: some that read, some that send. One that waits for longer than `PATIENCE` is left with the bus.
const LANES: usize = 256;
/// So many times as many, each with so much less, where the bus is far away: most of them wait for what is on its way.
const FAR: usize = 8;
/// Lanes looked for at once.
const QUEUE: usize = 1_024;
/// How often lanes are looked for when nothing rang.
const TICK: Duration = Duration::from_millis(250);
/// Looking for lanes looks at all of them: of a hundred thousand, a pass takes milliseconds. The next one comes so many
/// times later as it took.
const LOOK_PAUSE: u32 = 4;
/// What is in flight when the drain is told to stop may still be acknowledged, so that it is not sent again after the
/// restart.
const LAST: Duration = Duration::from_secs(4);
/// How long a probe's row is waited for.
const READ: Duration = Duration::from_secs(10);
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

/// What one future works on.
struct Work {
    lane: Ready,
    extent: Extent,
}

/// How the work on one lane ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// Live, or as far as was wanted.
    Done,
    /// Live without anything sent: the operator or age took its rows.
    Empty,
    /// The topic is refused, or nobody answers for it: a state of the topic, which holds no other lane up.
    Refused,
    /// The bus failed.
    Failed,
    /// Its acknowledgement is late: it is left with the bus.
    Late,
}

/// What the lanes' futures share.
struct Shared {
    sending: Sending,
    rows: Rows,
    late: Arc<Late>,
    /// Rows that the bus acknowledged.
    acknowledged: AtomicU64,
    stop: CancellationToken,
}

impl Drain {
    /// Drains until `stop`; then begins nothing more, and books what is still acknowledged.
    pub async fn run(self, stop: CancellationToken) {
        let shared = Shared {
            sending: Sending::new(self.bus.window(), self.rate.clone(), self.lanes.came()),
            rows: Rows::new(self.store.clone()),
            late: Arc::default(),
            acknowledged: AtomicU64::new(0),
            stop: stop.clone(),
        };
        let mut serving = pin!(shared.rows.serve());
        let mut working = FuturesUnordered::new();
        let mut queue = VecDeque::new();
        let mut probing = Probing::default();
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
            changed |= self.book_late(&shared);
            let now = Instant::now();
            let lanes = LANES * shared.sending.times_as_far(FAR);
            let wanted = if now < not_before { 0 } else { lanes.saturating_sub(working.len()) };
            let whole = if shared.late.is_full(self.bus.window()) { 0 } else { wanted };
            for work in self.choose(wanted, whole, &mut queue, &mut probing) {
                working.push(self.work(work, &shared));
            }
            let wants = whole > 0 && queue.is_empty() && changed && !self.lanes.is_breaker_open();
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
                        Ended::Empty | Ended::Refused | Ended::Late => {}
                        // What was begun before the pause says no more than the first.
                        Ended::Failed if Instant::now() < not_before => {}
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
                () = shared.late.rung() => {}
                () = self.lanes.ready.notified() => changed = true,
                () = sleep_until(look_at.into()), if wants && looking.is_none() => {}
                () = sleep_until(tick.into()) => {
                    tick = Instant::now() + TICK;
                    changed = true;
                }
                Some(()) = OptionFuture::from(delete_at.map(|due| sleep_until(due.into()))) => {}
            }
        }
        let last = async {
            while !working.is_empty() || shared.late.is_any() {
                tokio::select! {
                    Some(_) = working.next(), if !working.is_empty() => {}
                    () = shared.late.rung() => {}
                }
                self.book_late(&shared);
            }
        };
        tokio::select! {
            () = last => {}
            never = serving => match never {},
            () = sleep(LAST) => {}
        }
        self.book_late(&shared);
        shared.rows.delete();
    }

    /// What to work on next, begun: so many lanes at most, and so many of them whole. The breaker's probe has pauses of its own,
    /// and goes whatever else waits.
    fn choose(
        &self,
        wanted: usize,
        whole: usize,
        queue: &mut VecDeque<Ready>,
        probing: &mut Probing,
    ) -> Vec<Work> {
        if self.lanes.is_breaker_open() {
            queue.clear();
            return self.choose_probe(probing).into_iter().collect();
        }
        if wanted == 0 {
            return Vec::new();
        }
        let work = |lane, extent| Work { lane, extent };
        let probes = self.lanes.topic_probes().into_iter().map(|lane| work(lane, Extent::Probe));
        let whole = queue.drain(..whole.min(queue.len()));
        // A topic may have been refused since its lanes were looked for.
        let whole = whole
            .filter(|lane| !self.lanes.is_topic_left_alone(&lane.key.topic))
            .map(|lane| work(lane, Extent::Whole));
        probes.chain(whole).filter(|work| self.lanes.begin_drain(&work.lane.key)).collect()
    }

    /// The lane that asks whether the bus is there, where it is time to.
    fn choose_probe(&self, probing: &mut Probing) -> Option<Work> {
        if !self.lanes.is_probe_due() {
            return None;
        }
        match probing.next(&self.lanes, Instant::now()) {
            Turn::Of(lane) if self.lanes.take_probe() => return Some(Work { lane, extent: Extent::Probe }),
            Turn::Of(lane) => self.lanes.end_drain(&lane.key),
            Turn::Nobodys => self.lanes.close_breaker_for_want_of_probes(),
            Turn::Later => {}
        }
        None
    }

    /// A probe of a lane that had nothing to send has asked the bus nothing: it is given back.
    async fn work(&self, work: Work, shared: &Shared) -> Ended {
        let Work { lane, extent } = work;
        let topic = lane.key.topic.clone();
        let ended = self.lane(lane, extent, shared).await;
        if ended == Ended::Empty && extent == Extent::Probe {
            self.lanes.give_probe_back(&topic);
        }
        ended
    }

    async fn lane(&self, lane: Ready, extent: Extent, shared: &Shared) -> Ended {
        let account = lane.key.account.as_str();
        let span = tracing::info_span!(target: trace::SPANS, "drain", fleetbus.account = account);
        self.work_on(&lane.key, extent, shared).instrument(span).await
    }

    async fn work_on(&self, key: &LaneKey, extent: Extent, shared: &Shared) -> Ended {
        let (mut after, mut sent) = (None, false);
        let share = shared.sending.times_as_far(FAR);
        let limit = match extent {
            Extent::Probe => 1,
            Extent::Whole => CHUNK.0 / share,
        };
        loop {
            let last_came = self.lanes.last_came(key).filter(|_| !shared.stop.is_cancelled());
            let Some(last_came) = last_came else {
                self.lanes.end_drain(key);
                return Ended::Done;
            };
            // While anything hangs, a lane shows by one row that it does not: what it has with the bus may stay there.
            let rows = if after.is_none() && shared.late.is_any() { 1 } else { limit };
            let wanted = LaneRows { lane: key.clone(), after, rows, bytes: CHUNK.1 / share as u64 };
            let reading = shared.rows.read(wanted);
            let read = match extent {
                Extent::Whole => reading.await,
                Extent::Probe => timeout(READ, reading)
                    .await
                    .unwrap_or_else(|_| Err(AskError::Failing("nothing came in time".to_owned()))),
            };
            let rows = match read {
                Ok(rows) => rows,
                Err(error) => {
                    tracing::error!(error = %error, "drain.read_failed");
                    self.lanes.end_drain(key);
                    if extent == Extent::Probe {
                        self.lanes.close_breaker_for_want_of_rows();
                    }
                    return Ended::Failed;
                }
            };
            let Some(last) = rows.last().map(Kept::<Parked>::seq) else {
                // The books have rows that were not read: before they are forgotten, the lane is read from its beginning.
                if after.take().is_none() && self.lanes.exhausted(key, last_came) {
                    return if sent { Ended::Done } else { Ended::Empty };
                }
                continue;
            };
            sent = true;
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
                Chunk::Late => {
                    self.lanes.drain_is_late(key);
                    return Ended::Late;
                }
            }
        }
    }

    /// Sends rows of one lane in order, as many at once as the bus and the window allow, and settles each.
    async fn chunk(&self, key: &LaneKey, rows: Vec<Kept<Parked>>, shared: &Shared) -> Chunk {
        let mut rest = rows.as_slice();
        while !rest.is_empty() && !shared.stop.is_cancelled() {
            let room = shared.sending.room(self.step(key, rest.len())).await;
            // The wait may have been long, and the client be another one since.
            let step = self.step(key, room);
            shared.sending.give_back(room - step);
            let (now, later) = rest.split_at(step);
            rest = later;
            let next = rest.first().map(Kept::<Parked>::seq);
            let Some(settled) = self.send(key, now, shared).await else { return Chunk::Late };
            match self.settle(&settled, next, shared) {
                Chunk::More => {}
                // Live, it has no rows left; what is sent from here on would race its senders.
                ended @ (Chunk::Live | Chunk::Stuck | Chunk::Refused | Chunk::Late) => return ended,
            }
        }
        Chunk::More
    }

    /// How many of so many rows of a lane may be in flight.
    fn step(&self, key: &LaneKey, rows: usize) -> usize {
        match self.bus.window_of(&key.topic, &key.subject) {
            Window::One => 1,
            Window::Unlimited => rows,
        }
    }

    /// None where that is late: [`book_late`](Self::book_late) has it once nothing of it is open.
    async fn send(&self, key: &LaneKey, rows: &[Kept<Parked>], shared: &Shared) -> Option<Settled> {
        let sent = Arc::new(Sent::new(key, rows));
        let span = trace::publish(self.kind.as_str(), rows.len());
        trace::link(
            &span,
            rows.iter().filter_map(|row| match row {
                Kept::Whole(row) => row.trace.as_deref(),
                Kept::Damaged(_) => None,
            }),
        );
        let before = shared.acknowledged.load(Ordering::Relaxed);
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
            // While others are acknowledged it is a partition that hangs, and not the bus.
            if shared.acknowledged.load(Ordering::Relaxed) == before {
                self.lanes.record(Verdict::Failure);
            }
            if sent.leave_to(&shared.late) {
                tracing::debug!(account = %key.account, "drain.lane_waits");
                return None;
            }
        }
        let settled = sent.take();
        self.took(&settled, shared);
        span.record("fleetbus.delivered", trace::number(settled.delivered()));
        Some(settled)
    }

    /// How long it took is the bus's own pace only where it took all of it: a failure comes at once, or after any time.
    fn took(&self, settled: &Settled, shared: &Shared) {
        if settled.delivered() == settled.marks.len() {
            shared.sending.acknowledged(settled.marks.len(), settled.begun.elapsed(), self.lanes.came());
        }
    }

    /// Books what became of sends that were late: their lanes may be drained again. Whether there were any.
    fn book_late(&self, shared: &Shared) -> bool {
        let late = shared.late.take();
        for settled in &late {
            self.took(settled, shared);
            if self.settle(settled, None, shared) != Chunk::Live {
                self.lanes.end_drain(&settled.key);
            }
        }
        !late.is_empty()
    }

    /// Books what became of each row, in order. A failure leaves the row where it is.
    fn settle(&self, settled: &Settled, next: Option<Seq>, shared: &Shared) -> Chunk {
        let Settled { key, marks, outcomes, .. } = settled;
        let mut delivered = Vec::with_capacity(marks.len());
        // Delivered one after the other, and not booked yet.
        let mut run = Run::default();
        let mut stuck = false;
        let mut refused = false;
        let mut live = false;
        for (at, row) in marks.iter().enumerate() {
            let follower = marks.get(at + 1).map(|row| row.seq()).or(next).filter(|_| !stuck);
            match outcomes.get(at).and_then(Option::as_ref) {
                Some(Outcome::Delivered) => {
                    delivered.push(row.seq());
                    run = Run { rows: run.rows + 1, follower };
                }
                Some(Outcome::Failed(Failure::Unfit(why))) => {
                    self.book(key, std::mem::take(&mut run));
                    match row {
                        Mark::Whole(seq, event_type) => {
                            self.lanes.note_unfit(&key.account, *event_type, why);
                            self.store.set_reason(vec![*seq], Reason::Unfit, why.clone());
                        }
                        Mark::Damaged(seq) => self.store.set_damaged_aside(&key.account, *seq),
                    }
                    live = self.lanes.drained(key, &Drained::SetAside, follower);
                }
                Some(Outcome::Failed(failure)) => {
                    if !stuck {
                        self.lanes.drain_failed(key, failure);
                        if !matches!(failure, Failure::Busy(_)) {
                            self.store.attempted(row.seq(), failure.to_string());
                        }
                        refused = matches!(
                            failure,
                            Failure::Refused(_) | Failure::Full(_) | Failure::Unanswered(_)
                        );
                    }
                    stuck = true;
                }
                Some(Outcome::Unresolved) | None => stuck = true,
            }
        }
        if !delivered.is_empty() {
            faults::point(Point::InDrain);
            shared.acknowledged.fetch_add(delivered.len() as u64, Ordering::Relaxed);
            shared.rows.delivered(key, &delivered);
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
    /// The topic is refused, or nobody answers for it.
    Refused,
    /// The bus failed.
    Stuck,
    /// Its acknowledgement is late.
    Late,
}
