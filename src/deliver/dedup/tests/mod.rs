//! Dedup as its caller sees it, with the worker's steps taken by hand: against a model with restarts and kills, and in
//! every interleaving of two events; then with the worker on its thread.

mod interleavings;
mod late;
mod many;
mod restarts;
mod schedules;

use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};
use std::task::{Context, Poll};

use futures_util::task::noop_waker;
use proptest::prelude::*;

use super::*;
use tail::HOUR_MS;

const NOW: i64 = 1_767_009_600_000;
const MINUTE_MS: i64 = 60_000;

fn horizons() -> config::Dedup {
    let hours = |hours: u64| Duration::from_secs(hours * 3_600);
    config::Dedup { positions: hours(48), others: hours(168), memory: 1 << 20 }
}

fn id(text: &str) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_URL, text.as_bytes())
}

/// What the decoders make, as far as dedup sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Fact {
    /// Known by itself.
    Fix { subject: u32, minute: i64 },
    /// Known by itself and by the full fix.
    Breadcrumb { subject: u32, minute: i64 },
    /// Under the tracker's other id, too.
    Fallback { subject: u32, minute: i64 },
    /// Remembers its record for the inexact ones.
    Stop { subject: u32, minute: i64, end: u8 },
    /// Known by any stop of its record.
    InexactStop { subject: u32, minute: i64, end: u8 },
    /// Without a time of its own.
    Media { number: u32 },
}

impl Fact {
    fn candidate(self, now: i64) -> Candidate {
        let fix = |subject: u32, minute: i64| id(&format!("fix {subject} {minute}"));
        let record = |subject: u32, minute: i64| id(&format!("stop {subject} {minute}"));
        let stop = |subject: u32, minute: i64, end: u8| id(&format!("stop {subject} {minute} {end}"));
        let (event_type, subject, minute, checks, enters) = match self {
            Self::Fix { subject, minute } => {
                let own = fix(subject, minute);
                (EventType::Position, subject, Some(minute), vec![own], vec![own])
            }
            Self::Breadcrumb { subject, minute } => {
                let own = id(&format!("crumb {subject} {minute}"));
                (EventType::Position, subject, Some(minute), vec![own, fix(subject, minute)], vec![own])
            }
            Self::Fallback { subject, minute } => {
                let ids = vec![fix(subject, minute), fix(subject + 1, minute)];
                (EventType::Position, subject, Some(minute), ids.clone(), ids)
            }
            Self::Stop { subject, minute, end } => {
                let own = stop(subject, minute, end);
                (EventType::Stop, subject, Some(minute), vec![own], vec![own, record(subject, minute)])
            }
            Self::InexactStop { subject, minute, end } => {
                let ids = vec![stop(subject, minute, end), record(subject, minute)];
                (EventType::Stop, subject, Some(minute), ids.clone(), ids)
            }
            Self::Media { number } => {
                let own = id(&format!("media {number}"));
                (EventType::Media, number, None, vec![own], vec![own])
            }
        };
        Candidate {
            account: AccountId::new("acme"),
            event_type,
            subject: subject.to_string().into(),
            dated: minute.map_or(Dated::ByComing, |minute| Dated::ByKey(Millis(NOW + minute * MINUTE_MS))),
            received_at: Millis(now),
            checks: checks.into(),
            enters: enters.into(),
        }
    }
}

type Reserving = Pin<Box<dyn Future<Output = Verdict>>>;

/// Dedup whose worker takes a step when it is told to.
struct Stepped {
    dir: tempfile::TempDir,
    now: Arc<AtomicI64>,
    /// For time-outs, which none of these tests waits for.
    runtime: tokio::runtime::Runtime,
    dedup: Arc<Dedup>,
    worker: Worker,
}

impl Stepped {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let now = Arc::new(AtomicI64::new(NOW));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let (dedup, worker) = open(dir.path(), &now);
        Self { dir, now, runtime, dedup, worker }
    }

    /// What was not written is lost, as by kill -9.
    fn kill(&mut self) {
        let spare = tempfile::tempdir().expect("a folder");
        // The old one is closed before the file is opened again.
        (self.dedup, self.worker) = open(spare.path(), &self.now);
        (self.dedup, self.worker) = open(self.dir.path(), &self.now);
    }

    fn now(&self) -> i64 {
        self.now.load(Ordering::Relaxed)
    }

    fn candidate(&self, fact: Fact) -> Candidate {
        fact.candidate(self.now())
    }

    fn reserving(&self, fact: Fact) -> Reserving {
        let (dedup, candidate) = (Arc::clone(&self.dedup), self.candidate(fact));
        Box::pin(async move { dedup.reserve_one(&candidate).await })
    }

    fn poll(&self, reserving: &mut Reserving) -> Option<Verdict> {
        let _entered = self.runtime.enter();
        match reserving.as_mut().poll(&mut Context::from_waker(&noop_waker())) {
            Poll::Ready(verdict) => Some(verdict),
            Poll::Pending => None,
        }
    }

    fn reserve(&mut self, fact: Fact) -> Verdict {
        let mut reserving = self.reserving(fact);
        loop {
            if let Some(verdict) = self.poll(&mut reserving) {
                return verdict;
            }
            self.worker.answer_waiting();
        }
    }

    fn remember(&mut self, fact: Fact) {
        match self.reserve(fact) {
            Verdict::New(reservation) => reservation.remember(),
            other @ (Verdict::Known | Verdict::InFlight(_)) => panic!("{fact:?} is {other:?}"),
        }
    }

    fn is_known(&mut self, fact: Fact) -> bool {
        matches!(self.reserve(fact), Verdict::Known)
    }
}

/// As a store's starts do: each is of a later era.
fn open(dir: &Path, now: &Arc<AtomicI64>) -> (Arc<Dedup>, Worker) {
    static ERAS: AtomicU64 = AtomicU64::new(1);
    open_in(dir, now, &Era::of(ERAS.fetch_add(1, Ordering::Relaxed)))
}

fn open_in(dir: &Path, now: &Arc<AtomicI64>, era: &Era) -> (Arc<Dedup>, Worker) {
    let now = Arc::clone(now);
    let clock = move || Millis(now.load(Ordering::Relaxed));
    Dedup::open(dir, &horizons(), era.clone(), clock.clone(), clock).expect("opens")
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Publish(Fact),
    GiveUp(Fact),
    Forget(Fact),
    Write,
    Fold,
    Merge,
    Pass { minutes: i64 },
    Kill,
}

fn facts() -> impl Strategy<Value = Fact> {
    let subject = 0..3_u32;
    // Close together, so that they meet; some beyond the horizon, some ahead.
    let minute = prop_oneof![
        8 => -10..4_i64,
        3 => (-4..4_i64).prop_map(|hour| hour * 60),
        1 => Just(-49 * 60_i64),
        1 => Just(47 * 60_i64),
        1 => Just(49 * 60_i64),
    ];
    (subject, minute, 0..2_u8, 0..9_u8).prop_map(|(subject, minute, end, kind)| match kind {
        0..3 => Fact::Fix { subject, minute },
        3..5 => Fact::Breadcrumb { subject, minute },
        5 => Fact::Fallback { subject, minute },
        6 => Fact::Stop { subject, minute, end },
        7 => Fact::InexactStop { subject, minute, end },
        _ => Fact::Media { number: subject },
    })
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => facts().prop_map(Step::Publish),
        2 => facts().prop_map(Step::GiveUp),
        3 => facts().prop_map(Step::Forget),
        2 => Just(Step::Write),
        3 => Just(Step::Fold),
        2 => Just(Step::Merge),
        2 => prop_oneof![0..70_i64, Just(24 * 60)].prop_map(|minutes| Step::Pass { minutes }),
        1 => Just(Step::Kill),
    ]
}

/// What dedup is to know: each remembered id, and when it was.
#[derive(Debug, Clone, Default)]
struct Model {
    ids: HashMap<Uuid, i64>,
    written: HashMap<Uuid, i64>,
}

#[derive(Debug, PartialEq, Eq)]
enum Expected {
    New,
    Known,
    /// Ids without a time go with the hour in which they were remembered.
    Either,
}

impl Model {
    fn expect(&self, candidate: &Candidate, now: i64) -> Expected {
        let remembered = candidate.checks.iter().filter_map(|id| self.ids.get(id)).max();
        let horizon = horizon_ms(&horizons(), candidate.event_type);
        match (candidate.dated.key_time(), remembered) {
            (_, None) => Expected::New,
            (Some(time), Some(_)) if (time.0 - now).abs() > horizon => Expected::New,
            (None, Some(at)) if now - at > horizon => Expected::Either,
            (Some(_) | None, Some(_)) => Expected::Known,
        }
    }

    fn remember(&mut self, candidate: &Candidate, now: i64) {
        let horizon = horizon_ms(&horizons(), candidate.event_type);
        if candidate.dated.key_time().is_none_or(|time| (time.0 - now).abs() <= horizon) {
            self.ids.extend(candidate.enters.iter().map(|id| (*id, now)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn it_knows_what_a_set_of_ids_would_know_through_folds_and_kills(
        steps in prop::collection::vec(steps(), 1..120)
    ) {
        let mut stepped = Stepped::new();
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Publish(fact) | Step::GiveUp(fact) => {
                    let (candidate, now) = (stepped.candidate(fact), stepped.now());
                    let verdict = stepped.reserve(fact);
                    let expected = model.expect(&candidate, now);
                    match verdict {
                        Verdict::Known => prop_assert!(expected != Expected::New, "{fact:?} is swallowed"),
                        Verdict::New(reservation) => {
                            prop_assert!(expected != Expected::Known, "{fact:?} is published twice");
                            if matches!(step, Step::Publish(_)) {
                                reservation.remember();
                                model.remember(&candidate, now);
                            }
                        }
                        Verdict::InFlight(_) => prop_assert!(false, "nothing is in flight"),
                    }
                }
                Step::Forget(fact) => {
                    let candidate = stepped.candidate(fact);
                    stepped.dedup.forget(&candidate.enters);
                    for id in candidate.enters.iter() {
                        model.ids.remove(id);
                    }
                }
                Step::Write => {
                    stepped.worker.write();
                    model.written = model.ids.clone();
                }
                Step::Fold => {
                    stepped.worker.fold();
                    model.written = model.ids.clone();
                }
                Step::Merge => stepped.worker.merge(),
                Step::Pass { minutes } => {
                    stepped.now.fetch_add(minutes * MINUTE_MS, Ordering::Relaxed);
                }
                Step::Kill => {
                    stepped.kill();
                    model.ids = model.written.clone();
                }
            }
            prop_assert!(stepped.dedup.claims.lock().is_empty());
        }
        prop_assert_eq!(stepped.dedup.stats.look_ups_failed.load(Ordering::Relaxed), 0);
    }
}

const NEWEST: Fact = Fact::Fix { subject: 1, minute: 0 };

#[test]
fn a_full_fix_follows_its_breadcrumb_and_a_breadcrumb_does_not_follow_its_fix() {
    let crumb = |minute| Fact::Breadcrumb { subject: 1, minute };
    let fix = |minute| Fact::Fix { subject: 1, minute };
    let mut stepped = Stepped::new();
    for fact in [NEWEST, crumb(-9), fix(-9), fix(-8)] {
        stepped.remember(fact);
    }
    assert!(stepped.is_known(crumb(-8)));
    // In flight it is the same.
    let Verdict::New(first) = stepped.reserve(crumb(-7)) else { panic!("not new") };
    let Verdict::New(second) = stepped.reserve(fix(-7)) else { panic!("not new") };
    assert!(matches!(stepped.reserve(crumb(-7)), Verdict::InFlight(_)));
    drop(first);
    assert!(matches!(stepped.reserve(crumb(-7)), Verdict::InFlight(_)), "the full fix is on its way");
    drop(second);
    stepped.remember(crumb(-7));
}

#[test]
fn live_fixes_and_their_breadcrumbs_are_not_looked_up() {
    let mut stepped = Stepped::new();
    for minute in -100..0 {
        stepped.remember(Fact::Breadcrumb { subject: 1, minute });
        stepped.remember(Fact::Fix { subject: 2, minute });
    }
    assert_eq!(stepped.dedup.stats.look_ups.load(Ordering::Relaxed), 0);
}

#[test]
fn a_fix_far_ahead_of_its_receipt_does_not_have_its_vehicle_looked_up() {
    let mut stepped = Stepped::new();
    stepped.remember(Fact::Fix { subject: 1, minute: 600 });
    for minute in -10..4 {
        stepped.remember(Fact::Fix { subject: 1, minute });
    }
    assert_eq!(stepped.dedup.stats.look_ups.load(Ordering::Relaxed), 0);
    assert!(stepped.is_known(Fact::Fix { subject: 1, minute: 600 }));
}

#[test]
fn an_id_of_several_subjects_is_known_whichever_subject_asks_and_has_a_front() {
    let mut stepped = Stepped::new();
    stepped.remember(Fact::Fallback { subject: 1, minute: -5 });
    assert!(stepped.is_known(Fact::Fix { subject: 2, minute: -5 }));
    stepped.remember(Fact::Fix { subject: 2, minute: -500 });
    assert!(stepped.is_known(Fact::Fallback { subject: 1, minute: -500 }));
}

#[test]
fn a_fold_that_failed_is_done_again_and_loses_nothing_that_came_meanwhile() {
    let mut stepped = Stepped::new();
    let fact = |minute| Fact::Fix { subject: 1, minute };
    stepped.remember(fact(-9));
    let renamed = |stepped: &Stepped, sql| {
        stepped.worker.idle.file.connection.execute_batch(sql).expect("renamed");
    };
    renamed(&stepped, "ALTER TABLE piece RENAME TO gone");
    stepped.worker.fold();
    stepped.remember(fact(-8));
    stepped.worker.write();
    assert!(stepped.is_known(fact(-9)) && stepped.is_known(fact(-8)));
    renamed(&stepped, "ALTER TABLE gone RENAME TO piece");
    stepped.worker.fold();
    assert!(stepped.is_known(fact(-9)) && stepped.is_known(fact(-8)));
    stepped.kill();
    assert!(stepped.is_known(fact(-9)) && stepped.is_known(fact(-8)));
}

#[test]
fn a_reservation_that_is_dropped_while_it_is_looked_up_leaves_nothing_behind() {
    let mut stepped = Stepped::new();
    stepped.remember(NEWEST);
    let late = Fact::Fix { subject: 1, minute: -5 };
    let mut reserving = stepped.reserving(late);
    assert!(stepped.poll(&mut reserving).is_none());
    drop(reserving);
    stepped.remember(late);
}

#[test]
fn ten_thousand_ids_an_hour_are_known_after_folds_and_a_kill_and_gone_beyond_the_horizon() {
    let mut stepped = Stepped::new();
    let fact = |n: u16| Fact::Fix { subject: u32::from(n % 200), minute: -i64::from(n / 200) };
    for n in (0..12_000).rev() {
        stepped.remember(fact(n));
        if n % 1_000 == 0 {
            stepped.worker.fold();
        }
    }
    stepped.kill();
    for n in (0..12_000).step_by(11) {
        assert!(stepped.is_known(fact(n)), "{n}");
    }
    stepped.now.fetch_add(51 * HOUR_MS, Ordering::Relaxed);
    stepped.worker.fold();
    assert_eq!(stepped.worker.file().buckets().count(), 0, "whole hours are dropped");
    stepped.remember(fact(0));
    assert_eq!(stepped.dedup.stats.beyond_horizon.load(Ordering::Relaxed), 1);
}

#[test]
fn a_stop_in_flight_is_waited_for_though_another_version_of_it_has_ended() {
    let mut stepped = Stepped::new();
    let stop = |end| Fact::Stop { subject: 1, minute: -5, end };
    let Verdict::New(first) = stepped.reserve(stop(0)) else { panic!("not new") };
    let Verdict::New(second) = stepped.reserve(stop(1)) else { panic!("not new") };
    drop(first);
    let inexact = Fact::InexactStop { subject: 1, minute: -5, end: 2 };
    assert!(matches!(stepped.reserve(inexact), Verdict::InFlight(_)));
    second.remember();
    assert!(stepped.is_known(inexact));
}

#[test]
fn a_file_that_breaks_while_it_is_used_is_replaced_and_what_memory_holds_is_not_lost() {
    const PAGE: usize = 4_096;
    let mut stepped = Stepped::new();
    let fact = |subject| Fact::Fix { subject, minute: -5 };
    for subject in 0..3_000 {
        stepped.remember(fact(subject));
    }
    stepped.worker.fold();
    stepped.kill();
    // The pages on which large values go on, so that opening finds nothing wrong: where they go on leads nowhere.
    let path = stepped.dir.path().join("seen.db");
    let mut bytes = std::fs::read(&path).expect("read");
    for page in bytes.chunks_exact_mut(PAGE).skip(1).filter(|page| page[0] == 0) {
        page[..4].fill(0xff);
    }
    std::fs::write(&path, bytes).expect("written");
    let aside = stepped.dir.path().join("seen.db.broken");
    stepped.kill();
    assert!(!aside.exists(), "nothing has been read yet");
    stepped.remember(Fact::Fix { subject: 1, minute: -4 });
    stepped.remember(fact(7));
    assert!(aside.exists());
    stepped.worker.fold();
    stepped.kill();
    assert!(stepped.is_known(fact(7)) && stepped.is_known(Fact::Fix { subject: 1, minute: -4 }));
}

#[test]
fn what_is_no_database_is_set_aside() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("seen.db"), vec![7_u8; 8_192]).expect("written");
    open(dir.path(), &Arc::new(AtomicI64::new(NOW)));
    assert!(dir.path().join("seen.db.broken").exists());
}

#[test]
fn what_is_not_broken_is_not_set_aside() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("seen.db");
    let refused = || match Dedup::open(dir.path(), &horizons(), Era::of(1), || Millis(NOW), || Millis(NOW)) {
        Ok(_) => panic!("it opens"),
        Err(error) => std::error::Error::source(&error).expect("a reason").to_string(),
    };
    // As where the system has no room or no file descriptor for it.
    std::fs::create_dir(&path).expect("made");
    refused();
    assert!(path.is_dir());
    std::fs::remove_dir(&path).expect("removed");
    let newer = rusqlite::Connection::open(&path).expect("opens");
    newer.pragma_update(None, "user_version", 99).expect("written");
    drop(newer);
    let said = refused();
    assert!(said.contains("has format 99, and this version knows 2"), "{said}");
    assert!(path.exists() && !dir.path().join("seen.db.broken").exists());
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_does_not_answer_costs_one_wait_and_swallows_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let (dedup, worker) = open(dir.path(), &Arc::new(AtomicI64::new(NOW)));
    let started = Instant::now();
    for number in 0..100 {
        let verdict = dedup.reserve_one(&Fact::Media { number }.candidate(NOW)).await;
        assert!(matches!(verdict, Verdict::New(_)));
    }
    assert_eq!(started.elapsed(), PATIENCE);
    assert_eq!(dedup.stats.look_ups_failed.load(Ordering::Relaxed), 100);
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn who_has_no_time_left_does_not_wait_and_costs_nobody_else_the_look_up() {
    let dir = tempfile::tempdir().expect("a folder");
    let (dedup, worker) = open(dir.path(), &Arc::new(AtomicI64::new(NOW)));
    let candidate = Fact::Media { number: 1 }.candidate(NOW);
    let (started, moment) = (Instant::now(), Duration::from_millis(20));
    let verdicts = dedup.reserve_all(&[&candidate], started + moment).await;
    assert!(matches!(verdicts[..], [Verdict::New(_)]));
    assert_eq!(started.elapsed(), moment);
    drop(verdicts);
    // The next one has time: the disk is asked again, and waited for.
    dedup.reserve_one(&candidate).await;
    assert_eq!(started.elapsed(), moment + PATIENCE);
    drop(worker);
}

/// The worker on its thread, as in the process.
struct Running {
    dedup: Arc<Dedup>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    fn open(dir: &Path) -> Self {
        let (dedup, worker) = open(dir, &Arc::new(AtomicI64::new(NOW)));
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let thread = std::thread::spawn(move || worker.run(|| stopping.load(Ordering::Relaxed)));
        Self { dedup, stop, thread: Some(thread) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("it ends");
        }
    }
}

/// Tries until it is published or known: as a delivery does, whose every third attempt fails.
async fn deliver(dedup: &Arc<Dedup>, candidate: &Candidate, number: u64) -> u64 {
    for attempt in number.. {
        match dedup.reserve_one(candidate).await {
            Verdict::New(reservation) => {
                tokio::task::yield_now().await;
                if attempt % 3 != 0 {
                    reservation.remember();
                    return 1;
                }
            }
            Verdict::Known => return 0,
            Verdict::InFlight(mut shared) => {
                if shared.outcome().await == Settled::Durable {
                    return 0;
                }
            }
        }
    }
    0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_copies_at_once_exactly_one_is_published_and_a_restart_after_it_knows_all() {
    const COPIES: u64 = 4;
    let dir = tempfile::tempdir().expect("a folder");
    let running = Running::open(dir.path());
    let facts: HashSet<Fact> = (0..500)
        .map(|n| match n % 3 {
            0 => Fact::Fix { subject: (n % 7) as u32, minute: -n },
            1 => Fact::Stop { subject: 1, minute: -n, end: 0 },
            _ => Fact::Media { number: (n % 100) as u32 },
        })
        .collect();
    let tracker = tokio_util::task::TaskTracker::new();
    let published = Arc::new(AtomicU64::new(0));
    for fact in &facts {
        for number in 0..COPIES {
            let (dedup, candidate) = (Arc::clone(&running.dedup), fact.candidate(NOW));
            let published = Arc::clone(&published);
            tracker.spawn(async move {
                published.fetch_add(deliver(&dedup, &candidate, number).await, Ordering::Relaxed);
            });
        }
    }
    tracker.close();
    tracker.wait().await;
    assert_eq!(published.load(Ordering::Relaxed), facts.len() as u64);
    assert_eq!(running.dedup.stats.look_ups_failed.load(Ordering::Relaxed), 0);
    assert!(running.dedup.claims.lock().is_empty());
    drop(running);
    let running = Running::open(dir.path());
    for fact in &facts {
        let verdict = running.dedup.reserve_one(&fact.candidate(NOW)).await;
        assert!(matches!(verdict, Verdict::Known), "{fact:?} is {verdict:?}");
    }
}
