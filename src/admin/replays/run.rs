//! A replay at work: page by page, each sent before the next is read, at its rate. What is behind `after` is done and written down.
//! It is cancelled between two parts of a page only: what was begun is seen through.

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::Instrument as _;

use super::{Moved, Replay, Replays, Source, for_operator};
use crate::admin::events::{LocalLog, LogRow};
use crate::admin::jobs::Phase;
use crate::admin::problem::Problem;
use crate::deliver::lanes::Admission;
use crate::event::ids::Ids;
use crate::event::{EventType, pb::FleetEvent};
use crate::intake::accept::{Acceptance, Encoded, Receipt, Refusal, Republish};
use crate::replay::{Filter, Kept, Kind, Parked, ParkedRaw, Reason, Seq, Stored, WaitsFor};
use crate::trace;

/// Messages read at once.
const PAGE: usize = 500;
/// Failures in a row before a replay gives up, and the pause after each.
const FAILURES: (u32, Duration) = (30, Duration::from_secs(2));
/// How often it is written down how far it is, at least: so much is counted anew after a kill.
const SAVE: Duration = Duration::from_secs(1);
/// How often one that waits for the bus looks again.
const LOOK: Duration = Duration::from_millis(250);
/// How long the lanes may take for what was put back into them, before a replay ends without knowing what came of it.
const SETTLE: Duration = Duration::from_secs(5);

/// One replay at work.
pub(super) struct Run {
    pub(super) replays: Replays,
    pub(super) replay: Arc<Replay>,
}

/// What became of some messages.
#[derive(Default)]
struct Fate {
    tried: u64,
    sent: u64,
    events: u64,
    left: u64,
    gone: u64,
    /// What is up to here is done.
    last: Option<u64>,
}

impl Fate {
    /// So many messages up to a place.
    const fn done(&mut self, messages: u64, last: Seq) {
        self.tried += messages;
        self.last = Some(last.0);
    }
}

/// One message to be sent again.
#[derive(Clone)]
enum Message {
    Parked(Kept<Stored>),
    Delivered(LogRow),
}

impl Message {
    const fn place(&self) -> u64 {
        match self {
            Self::Parked(stored) => stored.seq().0,
            Self::Delivered(row) => row.offset,
        }
    }

    /// In which it came, where that is known.
    fn trace(&self) -> Option<&str> {
        match self {
            Self::Parked(Kept::Whole(Stored::Event(parked))) => parked.trace.as_deref(),
            Self::Parked(Kept::Whole(Stored::Raw(..)) | Kept::Damaged(_)) | Self::Delivered(_) => None,
        }
    }
}

/// Messages of one page, and where the next one begins.
struct Page {
    rows: Vec<Message>,
    next: Option<u64>,
}

impl Run {
    pub(super) async fn through(self) {
        let how = Box::pin(self.work()).await;
        self.replays.book.ended(&self.replay, how).await;
    }

    async fn work(&self) -> Result<Phase, String> {
        let (source, filter) = {
            let job = self.replay.job.lock();
            (job.work.source, job.work.filter.clone())
        };
        let filter = filter.meaning().map_err(|_| "its filter cannot be read by this version".to_owned())?;
        let filter = match source {
            Source::Parked => {
                for_operator(filter).map_err(|_| "its filter asks for what waits for the bus")?
            }
            Source::History => filter,
        };
        self.pages(source, filter).await
    }

    async fn read(&self, source: Source, filter: &Filter, after: Option<u64>) -> Result<Page, String> {
        match source {
            Source::Parked => {
                let page = self.replays.again.store.read(filter, after.map(Seq), PAGE).await;
                let page = page.map_err(|error| error.to_string())?;
                let rows = page.rows.into_iter().map(Message::Parked).collect();
                Ok(Page { rows, next: page.next.map(|seq| seq.0) })
            }
            Source::History => {
                let log = self.replays.log.clone().ok_or("the bus is not the local one any more")?;
                read_history(log, filter.clone(), after).await
            }
        }
    }

    /// Is cancelled between two parts of a page only: what was begun is seen through.
    async fn pages(&self, source: Source, filter: Filter) -> Result<Phase, String> {
        let (before, rate, mut after) = {
            let job = self.replay.job.lock();
            (job.work.before, job.work.rate, job.work.after)
        };
        // A tenth of a second's messages at once, where there is a rate.
        let step = rate.map_or(PAGE, |rate| (rate as usize / 10).clamp(1, PAGE));
        let (mut due, mut saved) = (Instant::now(), Instant::now());
        let mut failures = 0;
        loop {
            let Page { mut rows, next } = self.read(source, &filter, after).await?;
            let all = rows.len();
            rows.retain(|message| message.place() < before);
            let is_last = rows.len() < all || next.is_none_or(|next| next >= before);
            let mut rest = rows.as_slice();
            while !rest.is_empty() {
                let (now, later) = rest.split_at(step.min(rest.len()));
                if rate.is_some() {
                    self.replay.cancelled.run_until_cancelled(sleep_until(due)).await;
                }
                self.bus_is_there().await;
                if self.replay.cancelled.is_cancelled() {
                    return Ok(Phase::Cancelled);
                }
                if let Some(rate) = rate {
                    let took = Duration::from_secs_f64(now.len() as f64 / f64::from(rate));
                    due = due.max(Instant::now()) + took;
                }
                let span = tracing::info_span!(
                    target: trace::SPANS,
                    "replay",
                    messaging.batch.message_count = trace::number(now.len()),
                );
                trace::link(&span, now.iter().filter_map(Message::trace));
                let mut fate = Fate::default();
                let sent = self.send(now.to_vec(), &mut fate).instrument(span).await;
                self.did(&fate);
                match sent {
                    Ok(()) => {
                        (failures, rest) = (0, later);
                        if saved.elapsed() >= SAVE {
                            self.replays.book.save(&self.replay).await;
                            saved = Instant::now();
                        }
                    }
                    Err(error) => {
                        failures += 1;
                        self.replay.job.lock().work.errors += 1;
                        if failures >= FAILURES.0 {
                            return Err(error);
                        }
                        // What of it was sent is gone from what is read next.
                        self.replay.cancelled.run_until_cancelled(sleep(FAILURES.1)).await;
                        break;
                    }
                }
            }
            if rest.is_empty() {
                if is_last {
                    if source == Source::Parked {
                        self.settle(&filter, before).await;
                        self.count_gone();
                    }
                    return Ok(Phase::Done);
                }
                self.replay.job.lock().work.after = next;
            }
            after = self.replay.job.lock().work.after;
            self.replays.book.save(&self.replay).await;
            saved = Instant::now();
        }
    }

    /// What went back into its lane may be set aside anew: then it did not leave. All of it was parked from `first` on.
    async fn settle(&self, filter: &Filter, first: u64) {
        let end = self.replays.again.store.next_seq().0;
        let narrowed = |kinds| Filter { kinds, from: None, until: None, error: None, ..filter.clone() };
        let waits =
            narrowed(Kind::ALL.into_iter().filter(|kind| kind.waits_for() == WaitsFor::Bus).collect());
        let settles = async {
            while self.parked_in(&waits, first..end, 1).await > 0 {
                sleep(LOOK).await;
            }
        };
        self.replay.cancelled.run_until_cancelled(timeout(SETTLE, settles)).await;
        let unfit = narrowed(vec![Kind::Event(Reason::Unfit)]);
        let sent = self.replay.job.lock().work.sent;
        let anew = self.parked_in(&unfit, first..end, sent).await;
        let work = &mut self.replay.job.lock().work;
        let anew = anew.min(work.sent);
        work.sent -= anew;
        work.left += anew;
    }

    /// What was found at the beginning, and is neither tried nor there, went before its page was read.
    fn count_gone(&self) {
        let work = &mut self.replay.job.lock().work;
        let gone = work.found.saturating_sub(work.tried);
        work.tried += gone;
        work.gone += gone;
    }

    /// How many rows of these places are parked, counted up to `most`. None where the store cannot say.
    async fn parked_in(&self, filter: &Filter, places: std::ops::Range<u64>, most: u64) -> u64 {
        let limit = usize::try_from(most).map_or(PAGE, |most| most.min(PAGE));
        let (mut rows, mut after) = (0, places.start.checked_sub(1).map(Seq));
        loop {
            let Ok(page) = self.replays.again.store.list(filter, after, limit).await else { return rows };
            let all = page.rows.len();
            let within = page.rows.iter().filter(|row| row.seq.0 < places.end).count();
            rows += within as u64;
            after = page.next;
            if rows >= most || within < all || after.is_none() {
                return rows;
            }
        }
    }

    /// Live traffic first: while the bus fails, nothing is added to what it owes.
    async fn bus_is_there(&self) {
        while self.replays.again.lanes.is_breaker_open() && !self.replay.cancelled.is_cancelled() {
            self.replay.cancelled.run_until_cancelled(sleep(LOOK)).await;
        }
    }

    /// Events that follow each other go together; raw messages one by one, so that each one's events come in order.
    async fn send(&self, messages: Vec<Message>, fate: &mut Fate) -> Result<(), String> {
        let (mut events, mut delivered) = (Vec::new(), Vec::new());
        let last = messages.last().map(Message::place);
        for message in messages {
            match message {
                Message::Delivered(row) => {
                    delivered.push(Encoded { payload: row.payload, trace: None, enters: Ids::new() });
                }
                Message::Parked(Kept::Whole(Stored::Event(parked))) => events.push(parked),
                Message::Parked(Kept::Damaged(seq)) => {
                    self.requeue(&mut events, fate).await?;
                    self.replays.again.store.say_damaged(None, seq);
                    fate.left += 1;
                    fate.done(1, seq);
                }
                Message::Parked(Kept::Whole(Stored::Raw(seq, raw))) => {
                    self.requeue(&mut events, fate).await?;
                    self.raw(seq, raw, fate).await?;
                    fate.done(1, seq);
                }
            }
        }
        self.requeue(&mut events, fate).await?;
        if !delivered.is_empty() {
            self.deliver(delivered, fate).await?;
        }
        fate.last = last;
        Ok(())
    }

    async fn requeue(&self, events: &mut Vec<Parked>, fate: &mut Fate) -> Result<(), String> {
        let Some(last) = events.last().map(|event| event.seq) else { return Ok(()) };
        let Moved { sent, gone, failed } = self.replays.again.events(std::mem::take(events)).await;
        fate.sent += sent;
        fate.gone += gone;
        match failed {
            // Those that went are not there any more when the page is read again.
            Some(error) => {
                fate.tried += sent + gone;
                Err(error.to_string())
            }
            None => {
                fate.done(sent + gone, last);
                Ok(())
            }
        }
    }

    async fn raw(&self, seq: Seq, raw: ParkedRaw, fate: &mut Fate) -> Result<(), String> {
        // The page was read some time ago.
        let there = self.replays.again.store.get(seq).await.map_err(|error| error.to_string())?;
        if there.is_none() {
            fate.gone += 1;
            return Ok(());
        }
        // Nobody can decode it, and what is behind it is another's.
        if !self.replays.again.acceptance.has(&raw.account) || !Acceptance::knows(&raw.source) {
            fate.left += 1;
            return Ok(());
        }
        match self.replays.again.raw(raw).await {
            Ok(receipt) if receipt.unrecognized == 0 && receipt.undecodable == 0 => {
                self.replays.again.store.delete(vec![seq]);
                fate.sent += 1;
                fate.events += receipt.events;
            }
            Ok(_) | Err(Refusal::NotJson { .. } | Refusal::Empty | Refusal::TooMany(_)) => fate.left += 1,
            Err(refusal @ (Refusal::QuotaSpent { .. } | Refusal::NotKept { .. } | Refusal::Stopping)) => {
                return Err(refusal.to_string());
            }
        }
        Ok(())
    }

    async fn deliver(&self, delivered: Vec<Encoded>, fate: &mut Fate) -> Result<(), String> {
        let tried = delivered.len() as u64;
        let sent = self.replays.again.acceptance.anew(delivered, Republish::All, Admission::Normal).await;
        let Receipt { events, .. } = sent.map_err(|refusal| refusal.to_string())?;
        fate.tried += tried;
        fate.sent += events;
        fate.events += events;
        fate.left += tried.saturating_sub(events);
        Ok(())
    }

    fn did(&self, fate: &Fate) {
        let work = &mut self.replay.job.lock().work;
        work.tried += fate.tried;
        work.sent += fate.sent;
        work.events += fate.events;
        work.left += fate.left;
        work.gone += fate.gone;
        work.after = fate.last.or(work.after);
    }
}

/// A page of what the local bus delivered and a filter asks for; a page may be empty though there is more.
async fn read_history(log: LocalLog, filter: Filter, after: Option<u64>) -> Result<Page, String> {
    let read = tokio::task::spawn_blocking(move || {
        let mut rows = (log.read)(None, after.unwrap_or(0), PAGE)?;
        // A page of large ones has fewer: the end is where nothing is.
        let next = rows.last().map(|row| row.offset);
        rows.retain(|row| asked_for(&filter, &row.payload));
        Ok(Page { rows: rows.into_iter().map(Message::Delivered).collect(), next })
    });
    read.await.unwrap_or_else(|_| Err("the log could not be read".to_owned()))
}

/// Whether a filter asks for a delivered event; its times are those of receipt.
fn asked_for(filter: &Filter, payload: &[u8]) -> bool {
    let Ok(event) = FleetEvent::decode(payload) else { return false };
    let received =
        event.ingest_time.map_or(0, |time| time.seconds * 1_000 + i64::from(time.nanos) / 1_000_000);
    let account = event.origin.as_ref().map_or("", |origin| &origin.account);
    filter.account.as_ref().is_none_or(|wanted| wanted.as_str() == account)
        && filter.subject.as_ref().is_none_or(|wanted| *wanted == event.subject)
        && filter.event_type.is_none_or(|wanted| event.body.as_ref().map(EventType::of) == Some(wanted))
        && filter.from.is_none_or(|from| received >= from.0)
        && filter.until.is_none_or(|until| received < until.0)
}

pub(super) async fn count_history(
    log: &LocalLog,
    filter: Filter,
    newest: u64,
) -> Result<crate::replay::Count, Problem> {
    let mut count = crate::replay::Count::default();
    let mut after = None;
    loop {
        let page = read_history(log.clone(), filter.clone(), after).await;
        let page = page.map_err(|error| Problem::unavailable(format!("the log cannot be read: {error}")))?;
        for message in &page.rows {
            match message {
                Message::Delivered(row) if row.offset <= newest => {
                    count.rows += 1;
                    count.bytes += row.payload.len() as u64;
                }
                Message::Delivered(_) | Message::Parked(_) => {}
            }
        }
        after = page.next;
        if after.is_none_or(|after| after >= newest) {
            return Ok(count);
        }
    }
}
