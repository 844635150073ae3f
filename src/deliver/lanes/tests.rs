//! The lanes against a model: the embedded bus without its thread takes messages and never answers, so that every
//! acknowledgement, failure and deadline is a step that the test takes by hand, between those of the drain; the store is a
//! real one. Whatever the order of the steps: what was kept is published once, and in the order of acceptance.

mod breaker;
mod orders;
mod probes;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::*;
use crate::bus::{Headers, Message};
use crate::clock;
use crate::config;
use crate::deliver::counts::Count;
use crate::deliver::dedup::{self, Candidate, Dated, Dedup};
use crate::deliver::slot::Tally;
use crate::event::ids::Ids;
use crate::event::{AccountId, EventType};
use crate::replay::{DataDir, Filter, LaneRows, StoreLimits};

const HOUR: Duration = Duration::from_secs(3_600);

/// One lane and all around it.
struct Ground {
    lanes: Arc<Lanes>,
    dedup: Arc<Dedup>,
    store: Store,
    counts: Arc<Counts>,
    key: LaneKey,
    writer: Option<Writing>,
    seen: Option<std::thread::JoinHandle<()>>,
    stops: CancellationToken,
    _dir: tempfile::TempDir,
}

enum Writing {
    Waits(Box<crate::replay::Writer>),
    Runs(std::thread::JoinHandle<()>),
}

impl Ground {
    async fn new(parked: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = DataDir::lock(dir.path()).await.unwrap();
        let limits = StoreLimits { parked_default: parked, reserve: 4_096, ..StoreLimits::default() };
        let (store, writer, recovered) = Store::open(&data_dir, limits, None).unwrap();
        let horizons = config::Dedup { positions: HOUR, others: HOUR, memory: 1 << 20 };
        let (dedup, seen) =
            Dedup::open(dir.path(), &horizons, recovered.era, clock::now, clock::now).unwrap();
        let stops = CancellationToken::new();
        let stop = stops.clone();
        let seen = Some(std::thread::spawn(move || seen.run(|| stop.is_cancelled())));
        let local = config::Bus::Local(config::Local { retention: HOUR, max_size: 1 << 30 });
        let bus = Arc::new(Bus::open(&local, dir.path()).unwrap());
        let account = AccountId::new("acme");
        let counts = Arc::new(Counts::new([&account]));
        let breaker = Breaker::new(config::Breaker { failure_rate: 1.0, window: HOUR });
        let lanes = Lanes::new(bus, store.clone(), breaker, Arc::clone(&counts), 3, Vec::new());
        let key = LaneKey { account, topic: "fleet.position".into(), subject: "vehicle".into() };
        let writer = Some(Writing::Waits(Box::new(writer)));
        Self { lanes, dedup, store, counts, key, writer, seen, stops, _dir: dir }
    }

    fn run_store(&mut self) {
        if let Some(Writing::Waits(writer)) = self.writer.take() {
            self.writer = Some(Writing::Runs(std::thread::spawn(move || writer.run(|_| {}))));
        }
    }

    /// Admits one event; its number in the lane, and its group.
    async fn admit(&self, id: u64, admission: Admission) -> (u64, Arc<Group>) {
        let uuid = uuid_of(id);
        let message = Message {
            topic: self.key.topic.clone(),
            key: self.key.subject.clone(),
            id: uuid,
            headers: Headers::default(),
            payload: Bytes::from_static(b"event"),
        };
        let outgoing = Outgoing {
            lane: self.key.clone(),
            event_type: EventType::Position,
            occur_ms: 0,
            enters: Ids::from_slice(&[uuid]),
            trace: None,
            message,
        };
        let candidate = Candidate {
            account: self.key.account.clone(),
            event_type: EventType::Position,
            subject: self.key.subject.clone(),
            dated: Dated::ByComing,
            received_at: clock::now(),
            checks: Ids::from_slice(&[uuid]),
            enters: Ids::from_slice(&[uuid]),
        };
        let dedup::Verdict::New(reservation) = self.dedup.reserve_one(&candidate).await else {
            panic!("event {id} is in flight or known")
        };
        self.counts.of(&self.key.account, EventType::Position, |count| count.received(1));
        let group = Group::new(&self.lanes, 1);
        let slot = Slot::new(&outgoing, reservation, &group, 0);
        let number = self.lanes.numbers.load(Ordering::Relaxed);
        self.lanes.admit(&self.key, vec![(outgoing, slot)], admission);
        (number, group)
    }

    /// The breaker has been open for so many seconds.
    fn open_breaker_since(&self, ago: u64) {
        let mut breaker = Breaker::new(config::Breaker { failure_rate: 0.5, window: HOUR });
        let then = Instant::now().checked_sub(Duration::from_secs(ago)).unwrap();
        assert!(breaker.record(then, Verdict::Failure, 20).is_some());
        *self.lanes.breaker.lock() = breaker;
    }

    /// Whether the event with this id could be published again: neither in flight nor known.
    async fn is_free(&self, id: u64) -> bool {
        let uuid = uuid_of(id);
        let candidate = Candidate {
            account: self.key.account.clone(),
            event_type: EventType::Position,
            subject: self.key.subject.clone(),
            dated: Dated::ByComing,
            received_at: clock::now(),
            checks: Ids::from_slice(&[uuid]),
            enters: Ids::from_slice(&[uuid]),
        };
        matches!(self.dedup.reserve_one(&candidate).await, dedup::Verdict::New(_))
    }

    /// What is in the bus's hands, in the order in which it got there.
    fn sent(&self) -> Vec<u64> {
        let shard = self.lanes.shard(&self.key).lock();
        let entries = shard.get(&self.key).map(|lane| &lane.entries).into_iter().flatten();
        entries.filter(|entry| entry.attempt == Attempt::Sent).map(|entry| entry.number).collect()
    }

    fn is_gone(&self) -> bool {
        self.lanes.shard(&self.key).lock().get(&self.key).is_none()
    }

    fn rows(&self) -> u64 {
        self.lanes.shard(&self.key).lock().get(&self.key).map_or(0, |lane| lane.rows)
    }

    async fn read(&self, after: Option<Seq>) -> Vec<Parked> {
        let wanted = LaneRows { lane: self.key.clone(), after, rows: 2, bytes: 1 << 20 };
        let found = self.store.read_lanes(vec![wanted]).await.unwrap();
        found.into_iter().flatten().map(|row| row.whole().unwrap()).collect()
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        self.stops.cancel();
        self.store.close();
        self.run_store();
        if let Some(Writing::Runs(thread)) = self.writer.take() {
            thread.join().unwrap();
        }
        self.seen.take().unwrap().join().unwrap();
    }
}

/// Dedup keeps the beginning of an id; the end says which event it is.
fn uuid_of(id: u64) -> Uuid {
    Uuid::from_u64_pair(id << 32 | id, id)
}

fn unavailable() -> Outcome {
    Outcome::Failed(Failure::Unavailable("away".to_owned()))
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Admit,
    AdmitParked,
    /// The oldest in flight is acknowledged.
    Acknowledge,
    /// The client gives up everything in flight from one on, as an idempotent producer does.
    FailFrom(usize),
    /// It lost track of everything in flight from one on, and none of it was stored.
    LoseFrom(usize),
    Unfit(usize),
    Resume,
    /// The deadline of the oldest that waits.
    Expire,
    TakeAway,
    BringBack,
    Drain,
    /// The drain's attempt fails.
    FailDrain,
    /// It is late: the drain leaves its row with the bus, and forgets the others that it read.
    Late,
    /// What was late is acknowledged.
    LateComes,
    /// The store's thread does what is queued.
    Store,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Admit),
        1 => Just(Step::AdmitParked),
        4 => Just(Step::Acknowledge),
        2 => (0..4usize).prop_map(Step::FailFrom),
        1 => (0..4usize).prop_map(Step::LoseFrom),
        1 => (0..4usize).prop_map(Step::Unfit),
        2 => Just(Step::Resume),
        2 => Just(Step::Expire),
        1 => Just(Step::TakeAway),
        2 => Just(Step::BringBack),
        6 => Just(Step::Drain),
        1 => Just(Step::FailDrain),
        2 => Just(Step::Late),
        2 => Just(Step::LateComes),
        2 => Just(Step::Store),
    ]
}

/// The drain, one row a step, as `replay::drain` does it.
#[derive(Default)]
struct Draining {
    after: Option<Seq>,
    rows: VecDeque<Parked>,
}

struct Model {
    ground: Ground,
    /// Every event by its number in the lane: its id and group.
    events: BTreeMap<u64, (u64, Arc<Group>)>,
    next: u64,
    log: Vec<u64>,
    unfit: Vec<u64>,
    draining: Option<Draining>,
    late: Option<Parked>,
}

impl Model {
    async fn new(parked: u64) -> Self {
        let mut ground = Ground::new(parked).await;
        ground.run_store();
        Self {
            ground,
            events: BTreeMap::new(),
            next: 0,
            log: Vec::new(),
            unfit: Vec::new(),
            draining: None,
            late: None,
        }
    }

    async fn take(&mut self, step: Step) {
        let lanes = Arc::clone(&self.ground.lanes);
        let key = self.ground.key.clone();
        let sent = self.ground.sent();
        match step {
            Step::Admit => self.admit(Admission::Normal).await,
            Step::AdmitParked => self.admit(Admission::Park).await,
            Step::Acknowledge => {
                if let Some(number) = sent.first() {
                    self.log.push(self.events[number].0);
                    lanes.resolve(&key, *number, Outcome::Delivered);
                }
            }
            Step::FailFrom(at) => {
                sent.iter().skip(at).for_each(|number| lanes.resolve(&key, *number, unavailable()));
            }
            Step::LoseFrom(at) => {
                sent.iter().skip(at).for_each(|number| lanes.resolve(&key, *number, Outcome::Unresolved));
            }
            Step::Unfit(at) => {
                if let Some(number) = sent.get(at) {
                    self.unfit.push(self.events[number].0);
                    let unfit = Failure::Unfit("too large".to_owned());
                    lanes.resolve(&key, *number, Outcome::Failed(unfit));
                }
            }
            Step::Resume => drop(lanes.resume(&key)),
            Step::Expire => {
                let waits = self.events.values().find(|(_, group)| group.tally().rejected > 0);
                if let Some((_, group)) = waits {
                    lanes.expire(&key, group);
                }
            }
            Step::TakeAway => lanes.bus.as_local().unwrap().take_away(),
            Step::BringBack => lanes.bus.as_local().unwrap().bring_back(),
            Step::Drain => self.drain().await,
            Step::FailDrain => {
                if self.draining.take().is_some() {
                    lanes.end_drain(&key);
                }
            }
            Step::Late => {
                if let Some(row) = self.draining.as_mut().and_then(|draining| draining.rows.pop_front()) {
                    (self.draining, self.late) = (None, Some(row));
                    lanes.drain_is_late(&key);
                }
            }
            Step::LateComes => {
                if let Some(row) = self.late.take() {
                    self.log.push(row.id.as_u128() as u64);
                    self.ground.store.delete(vec![row.seq]);
                    if !lanes.drained(&key, &Drained::Delivered(1), None) {
                        lanes.end_drain(&key);
                    }
                }
            }
            Step::Store => drop(self.ground.read(None).await),
        }
    }

    async fn admit(&mut self, admission: Admission) {
        self.next += 1;
        let (number, group) = self.ground.admit(self.next, admission).await;
        self.events.insert(number, (self.next, group));
    }

    async fn drain(&mut self) {
        let lanes = Arc::clone(&self.ground.lanes);
        let key = self.ground.key.clone();
        if self.draining.is_none() && lanes.begin_drain(&key) {
            self.draining = Some(Draining::default());
        }
        let Some(draining) = &mut self.draining else { return };
        if let Some(row) = draining.rows.pop_front() {
            self.log.push(row.id.as_u128() as u64);
            let next = draining.rows.front().map(|row| row.seq);
            let live = lanes.drained(&key, &Drained::Delivered(1), next);
            self.ground.store.delete(vec![row.seq]);
            if live {
                assert!(draining.rows.is_empty(), "live, and rows of it are in the drain's hands");
                self.draining = None;
            }
            return;
        }
        let Some(last_came) = lanes.last_came(&key) else {
            lanes.end_drain(&key);
            self.draining = None;
            return;
        };
        draining.rows = self.ground.read(draining.after).await.into();
        match draining.rows.back() {
            Some(last) => draining.after = Some(last.seq),
            None if draining.after.take().is_none() && lanes.exhausted(&key, last_came) => {
                self.draining = None;
            }
            None => {}
        }
    }

    /// The bus is back and acknowledges everything; every deadline passes.
    async fn finish(&mut self) {
        self.take(Step::BringBack).await;
        for _ in 0..10_000 {
            self.take(Step::Resume).await;
            while !self.ground.sent().is_empty() {
                self.take(Step::Acknowledge).await;
            }
            self.take(Step::LateComes).await;
            self.take(Step::Drain).await;
            if self.ground.is_gone() {
                self.take(Step::Store).await;
                return;
            }
        }
        panic!("the lane stays behind: {} rows", self.ground.rows());
    }

    async fn check(&self) {
        let in_order = self.log.windows(2).all(|pair| pair[0] < pair[1]);
        assert!(in_order, "published twice or out of order: {:?}", self.log);
        for (id, group) in self.events.values() {
            let Tally { delivered, parked, rejected } = group.tally();
            assert_eq!(delivered + parked + rejected, 1);
            let published = self.log.contains(id);
            let kept = published || self.unfit.contains(id);
            assert!(kept || rejected == 1, "{id} was answered for, and is nowhere");
            if !kept {
                assert!(self.ground.is_free(*id).await, "the reservation of {id} has leaked");
            } else if published {
                assert!(!self.ground.is_free(*id).await, "{id} could be published again");
            }
        }
        let left = self.ground.store.list(&Filter::default(), None, 1_000).await.unwrap();
        let for_bus = left.rows.iter().filter(|row| row.kind.waits_for() == crate::replay::WaitsFor::Bus);
        assert_eq!(for_bus.count(), 0, "rows are left that no lane knows of");
        let account = &self.ground.key.account;
        let count = self.ground.counts.of(account, EventType::Position, Count::read);
        assert_eq!((count.received, count.in_flight()), (self.next, 0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn what_is_kept_is_published_once_and_in_order(
        steps in proptest::collection::vec(step(), 1..60),
        // The store has room for everything, or for a few rows.
        parked in prop_oneof![Just(1 << 30), Just(1_500u64)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut model = Model::new(parked).await;
            for step in steps {
                model.take(step).await;
            }
            model.finish().await;
            model.check().await;
        });
    }
}

#[tokio::test]
async fn an_orphan_that_the_client_loses_track_of_lets_the_next_one_go() {
    let ground = Ground::new(0).await;
    let (orphan, group) = ground.admit(1, Admission::Normal).await;
    ground.lanes.expire(&ground.key, &group);
    assert_eq!(group.tally().rejected, 1, "the store has no room");
    // As on a bus that takes one at a time: the next waits for the orphan.
    let local = ground.lanes.bus.as_local().unwrap();
    local.take_away();
    ground.admit(2, Admission::Normal).await;
    local.bring_back();
    ground.lanes.shard(&ground.key).lock().get_mut(&ground.key).unwrap().stalled = false;
    assert_eq!(ground.sent(), [orphan]);
    ground.lanes.resolve(&ground.key, orphan, Outcome::Unresolved);
    assert_eq!(ground.sent().len(), 1, "nobody else would send it before its deadline");
    assert!(ground.is_free(1).await);
}

#[tokio::test]
async fn a_drain_that_outlived_its_lane_does_not_empty_the_books_of_the_next_one() {
    let mut ground = Ground::new(1 << 30).await;
    ground.admit(1, Admission::Park).await;
    assert!(ground.lanes.begin_drain(&ground.key));
    let before = ground.lanes.last_came(&ground.key).unwrap();
    // The lane turns live and is forgotten; another one comes under the same key.
    assert!(ground.lanes.drained(&ground.key, &Drained::SetAside, None));
    assert!(ground.is_gone());
    ground.admit(2, Admission::Park).await;
    assert_eq!(ground.lanes.last_came(&ground.key), None, "it is not that drain's lane");
    assert!(!ground.lanes.exhausted(&ground.key, before));
    assert_eq!(ground.rows(), 1);
    ground.run_store();
}

#[tokio::test]
async fn a_lane_that_turned_live_under_the_drain_is_left_alone() {
    let ground = Ground::new(1 << 30).await;
    ground.admit(1, Admission::Park).await;
    assert!(ground.lanes.begin_drain(&ground.key));
    // The store refused the row after all.
    ground.lanes.shard(&ground.key).lock().get_mut(&ground.key).unwrap().take_rows(1);
    let (number, _) = ground.admit(2, Admission::Normal).await;
    assert_eq!(ground.sent(), [number]);
    assert_eq!(ground.lanes.last_came(&ground.key), None);
}

#[tokio::test]
async fn a_requeued_row_is_counted_when_it_gets_its_place_and_not_where_it_is_refused() {
    let mut ground = Ground::new(1_000_000).await;
    ground.admit(1, Admission::Park).await;
    let row = {
        ground.run_store();
        ground.read(None).await.remove(0)
    };
    assert!(ground.lanes.begin_drain(&ground.key));
    ground.store.set_reason(vec![row.seq], Reason::Unfit, "too large".to_owned());
    assert!(ground.lanes.drained(&ground.key, &Drained::SetAside, None));
    ground.lanes.requeue(row.clone(), Box::new(|kept| assert!(kept.is_ok()))).unwrap();
    assert_eq!(ground.rows(), 1);
    let rows = ground.read(None).await;
    assert_eq!(rows.len(), 1);
    assert!(rows[0].seq > row.seq);
    // Who read the same row before comes too late.
    let (tell, told) = tokio::sync::oneshot::channel();
    ground.lanes.requeue(row.clone(), Box::new(move |kept| tell.send(kept).unwrap())).unwrap();
    assert_eq!(told.await.unwrap(), Err(ParkError::Gone));
    assert_eq!(ground.rows(), 1);
    let all = ground.store.list(&Filter::default(), None, 10).await.unwrap().rows;
    assert_eq!(all.iter().map(|row| row.seq).collect::<Vec<_>>(), [rows[0].seq]);
    ground.store.close();
    assert!(ground.lanes.requeue(row, Box::new(|_| panic!("refused at once"))).is_err());
    assert_eq!(ground.rows(), 1);
}

#[tokio::test]
async fn what_waits_unsent_where_a_row_is_requeued_is_parked_and_not_left_to_its_deadline() {
    let mut ground = Ground::new(1 << 30).await;
    ground.admit(1, Admission::Park).await;
    ground.run_store();
    let row = ground.read(None).await.remove(0);
    assert!(ground.lanes.begin_drain(&ground.key));
    ground.store.set_reason(vec![row.seq], Reason::Unfit, "too large".to_owned());
    assert!(ground.lanes.drained(&ground.key, &Drained::SetAside, None));
    ground.lanes.bus.as_local().unwrap().take_away();
    let (_, group) = ground.admit(2, Admission::Normal).await;
    assert!(group.stalls().await.is_some());
    ground.lanes.requeue(row.clone(), Box::new(|kept| assert!(kept.is_ok()))).unwrap();
    group.settled().await;
    assert_eq!(group.tally(), Tally { parked: 1, ..Tally::default() });
    let ids: Vec<Uuid> = ground.read(None).await.iter().map(|row| row.id).collect();
    assert_eq!(ids, [uuid_of(2), uuid_of(1)]);
}

#[tokio::test]
async fn a_requeued_row_that_the_store_loses_leaves_the_books() {
    let mut ground = Ground::new(1 << 30).await;
    let row = {
        let (_, _) = ground.admit(1, Admission::Park).await;
        ground.run_store();
        ground.read(None).await.remove(0)
    };
    let mut broken = Ground::new(1 << 30).await;
    broken.lanes.requeue(row, Box::new(|kept| assert!(kept.is_err()))).unwrap();
    assert_eq!(broken.rows(), 1);
    // The thread never runs: what was queued is refused.
    broken.writer = None;
    assert!(broken.is_gone());
}

#[tokio::test]
async fn half_of_the_ready_lanes_are_the_busiest_then_come_the_oldest_and_refused_topics_are_probed_by_one_lane_each()
 {
    let ground = Ground::new(1 << 30).await;
    let key = |topic: &str, subject: usize| LaneKey {
        account: ground.key.account.clone(),
        topic: topic.into(),
        subject: subject.to_string().into(),
    };
    for at in 0..100usize {
        let head = Seq(((at * 37) % 100) as u64);
        let key = key(if at % 2 == 0 { "refused" } else { "fine" }, at);
        let mut shard = ground.lanes.shard(&key).lock();
        shard.entry(key).or_default().add_row(head, &ground.lanes.numbers);
    }
    ground.lanes.refuse(&"refused".into(), "no rights", Cure::Owner);
    let heads: Vec<u64> = ground.lanes.ready(4).iter().map(|lane| lane.head.0).collect();
    assert_eq!(heads, [63, 89, 1, 3], "those to which rows came last, then the oldest");
    assert_eq!(ground.lanes.ready(1).len(), 1);
    let all = ground.lanes.ready(1_000);
    assert!(all.iter().all(|lane| &*lane.key.topic == "fine"));
    assert_eq!(all.iter().map(|lane| &lane.key).collect::<HashSet<_>>().len(), 50, "each once");
    assert_eq!(all.len(), 50);
    assert!(ground.lanes.topic_probes().is_empty(), "not due");
    ground.lanes.probe_topics_now();
    assert_eq!(ground.lanes.topic_probes().len(), 1);
    assert!(ground.lanes.topic_probes().is_empty(), "spent");
}

#[tokio::test]
async fn a_refused_topic_of_which_nothing_waits_any_more_is_not_called_refused() {
    let ground = Ground::new(1 << 30).await;
    let (waits, gone) = (LaneKey { topic: "waits".into(), ..ground.key.clone() }, "gone".into());
    let lane = Lane { rows: 1, head: Some(Seq(1)), ..Lane::default() };
    ground.lanes.shard(&waits).lock().insert(waits.clone(), lane);
    ground.lanes.refuse(&waits.topic, "full", Cure::Owner);
    ground.lanes.refuse(&gone, "full", Cure::Owner);
    assert_eq!(ground.lanes.topic_probes(), [], "no probe is due");
    assert_eq!(ground.lanes.refused_topics().len(), 2);
    ground.lanes.probe_topics_now();
    assert_eq!(ground.lanes.topic_probes(), [Ready { head: Seq(1), key: waits.clone() }]);
    assert_eq!(ground.lanes.refused_topics(), [(waits.topic, "full".to_owned())]);
}
