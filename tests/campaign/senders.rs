//! The senders: each owns some vehicles, sends its next request only once the last was answered 2xx, and the same one again
//! until it is. Some requests hang up, are slow, come twice, carry what nobody understands or what no bus takes. The ledger
//! has it all before it is sent.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::child::TOKEN;
use super::disk::Disk;
use super::facts::{Account, Bulk, Fact, Format, Kind};
use super::ledger::{Bus, Latency, Ledger};

/// What one load is like.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub senders: u32,
    /// Vehicles of each sender.
    pub vehicles: u32,
    /// Most events of one request.
    pub most: usize,
    pub events: u64,
    pub seed: u64,
}

/// Between two attempts of one request.
const PAUSE: Duration = Duration::from_millis(150);
/// How long a sender waits for its answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// After a start, a stop or a full disk it takes everything again by then.
const STARTED: Duration = Duration::from_secs(20);
/// A disk that has room again is used by then.
const FREED: Duration = Duration::from_secs(30);
/// Acme's vehicles begin here: the others are polled.
const FIRST_VEHICLE: u32 = 100_000;

/// What the campaign tells its senders, and sees of them.
pub struct Shared {
    pub ledger: Ledger,
    webhook: String,
    client: reqwest::Client,
    /// Events still to be sent,
    left: AtomicI64,
    /// and more, as long as faults strike.
    faults: AtomicBool,
    /// Requests with an event that no bus takes, still to be sent.
    pub large: AtomicI64,
    /// Some of the requests misbehave.
    pub rude: AtomicBool,
    /// Whether the faults have taken the bus away.
    pub bus_gone: AtomicBool,
    /// How many times over the bridge may cut connections now, for it is being killed or is starting,
    excuses: AtomicU64,
    /// and how often that has changed.
    changes: AtomicU64,
    /// Requests that were written, and got no answer, though nobody had killed the bridge.
    pub cut: AtomicU64,
    /// Answers that were not 2xx, by their status,
    pub refused: Mutex<BTreeMap<u16, u64>>,
    /// and those of them that nothing explains.
    pub unasked: Mutex<BTreeMap<u16, u64>>,
    /// Until when 503 has its reason: a start, a stop, a full disk.
    may_refuse: Mutex<Instant>,
    /// What is parked may fill it.
    disk: Arc<Disk>,
    /// How often its clock was stepped: off by an odd number, right by an even one.
    steps: AtomicU64,
    /// Requests that were sent again, though answered 2xx, with nothing in between that dedup may forget at; and those of them of which
    /// not every event was known.
    pub again: AtomicU64,
    pub unknown_again: AtomicU64,
    /// Requests that misbehaved, and were sent again.
    pub rudeness: AtomicU64,
    open: watch::Sender<bool>,
    /// Requests under way.
    under_way: AtomicI64,
}

/// A load that runs.
pub struct Senders {
    pub shared: Arc<Shared>,
    work: JoinSet<()>,
}

impl Senders {
    pub fn begin(ledger: Ledger, webhook: &str, disk: Arc<Disk>, load: Load) -> Self {
        let client = reqwest::Client::builder()
            .timeout(PATIENCE)
            .pool_max_idle_per_host(load.senders as usize)
            .build()
            .expect("a client");
        let (open, gate) = watch::channel(true);
        let shared = Arc::new(Shared {
            ledger,
            webhook: webhook.to_owned(),
            client,
            left: AtomicI64::new(load.events.cast_signed()),
            faults: AtomicBool::new(true),
            large: AtomicI64::new(0),
            rude: AtomicBool::new(false),
            bus_gone: AtomicBool::new(false),
            excuses: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            cut: AtomicU64::new(0),
            refused: Mutex::default(),
            unasked: Mutex::default(),
            may_refuse: Mutex::new(Instant::now()),
            disk,
            steps: AtomicU64::new(0),
            again: AtomicU64::new(0),
            unknown_again: AtomicU64::new(0),
            rudeness: AtomicU64::new(0),
            open,
            under_way: AtomicI64::new(0),
        });
        // Nothing that will be sent is ahead of the clock, and dedup remembers all of it.
        let from = jiff::Timestamp::now().as_millisecond() / 1_000 * 1_000 - 20 * 3_600_000;
        let mut work = JoinSet::new();
        for number in 0..load.senders {
            let sender = Sender {
                shared: Arc::clone(&shared),
                gate: gate.clone(),
                random: StdRng::seed_from_u64(load.seed.wrapping_mul(1_000_003) + u64::from(number)),
                first: FIRST_VEHICLE + number * load.vehicles,
                next: vec![from; load.vehicles as usize],
                most: load.most,
            };
            work.spawn(sender.run());
        }
        Self { shared, work }
    }

    /// Whether all has been sent and answered.
    pub fn are_done(&mut self) -> bool {
        while let Some(ended) = self.work.try_join_next() {
            ended.expect("a sender that goes on");
        }
        self.work.is_empty()
    }
}

impl Shared {
    /// The bridge may cut connections, until [`Self::excuse_no_more`].
    pub fn excuse(&self) {
        self.excuses.fetch_add(1, Ordering::SeqCst);
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    /// 503 has its reason for so long.
    pub fn may_refuse(&self, during: Duration) {
        *self.may_refuse.lock().expect("no panic") = Instant::now() + during;
    }

    /// Where what is parked has filled the disk by itself, 503 has its reason, and for a while after that.
    pub fn look_at_disk(&self) {
        if self.disk.has_little_room() {
            self.may_refuse(FREED);
        }
    }

    /// Its clock is stepped.
    pub fn steps(&self) {
        self.steps.fetch_add(1, Ordering::SeqCst);
    }

    /// What dedup may forget at: kills, and steps of the clock. None while it is being killed or is starting, and while its clock is
    /// wrong, for what is older than it remembers it does not know.
    fn steady(&self) -> Option<[u64; 2]> {
        let counts = [&self.changes, &self.steps].map(|count| count.load(Ordering::SeqCst));
        (self.excuses.load(Ordering::SeqCst) == 0 && counts[1] % 2 == 0).then_some(counts)
    }

    /// Whether this answer has its reason.
    fn explains(&self, status: u16) -> bool {
        self.look_at_disk();
        let until = *self.may_refuse.lock().expect("no panic");
        status == 503 && (Instant::now() < until || self.excuses.load(Ordering::SeqCst) > 0)
    }

    pub fn excuse_no_more(&self) {
        self.may_refuse(STARTED);
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.excuses.fetch_sub(1, Ordering::SeqCst);
    }

    /// No more faults: once all has been sent that was to be, they end.
    pub fn no_more_faults(&self) {
        self.faults.store(false, Ordering::Relaxed);
    }

    /// No request is begun, until [`Self::go_on`].
    pub fn stop_beginning(&self) {
        self.open.send_replace(false);
    }

    /// The same; returns once none is under way, or after the patience.
    pub async fn hold(&self, patience: Duration) -> bool {
        self.stop_beginning();
        let begun = Instant::now();
        while self.under_way.load(Ordering::Relaxed) > 0 {
            if begun.elapsed() > patience {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        true
    }

    pub fn go_on(&self) {
        self.open.send_replace(true);
    }
}

struct Sender {
    shared: Arc<Shared>,
    gate: watch::Receiver<bool>,
    random: StdRng,
    first: u32,
    /// The next time of each vehicle.
    next: Vec<i64>,
    most: usize,
}

/// How a request is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Fine,
    /// Hangs up after so many thousandths of it.
    HangsUp(u32),
    /// In pieces, with pauses.
    Slow,
}

impl Sender {
    async fn run(mut self) {
        loop {
            let wanted = self.random.random_range(1..=self.most);
            let before = self.shared.left.fetch_sub(wanted as i64, Ordering::Relaxed);
            if before <= 0 && !self.shared.faults.load(Ordering::Relaxed) {
                return;
            }
            let count = if before > 0 { wanted.min(usize::try_from(before).unwrap_or(1)) } else { wanted };
            self.one(count).await;
        }
    }

    /// One request, until it is answered 2xx.
    async fn one(&mut self, count: usize) {
        let facts = self.facts(count);
        let large = self
            .shared
            .large
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| (left > 0).then(|| left - 1));
        // What no bus takes comes alone: the others of its request are not to be told apart from it.
        let (facts, bulk) = match large {
            Ok(_) => (vec![facts[0]], Bulk::TooLarge),
            Err(_) => (facts, Bulk::Fits),
        };
        let unknown = u64::from(bulk == Bulk::Fits && self.random.random_ratio(1, 200));
        let number = self.shared.ledger.request(&facts, bulk, unknown);
        let body = self.body(&facts, bulk, unknown, number);
        let again = self.random.random_ratio(1, 50);
        self.until_answered(number, &body, facts.len()).await;
        if again {
            let before = self.shared.steady();
            let known = self.until_answered(number, &body, 0).await;
            if let Some(known) = known.filter(|_| before.is_some() && before == self.shared.steady())
                && bulk == Bulk::Fits
            {
                self.shared.again.fetch_add(1, Ordering::Relaxed);
                let unknown = known != facts.len() as u64;
                self.shared.unknown_again.fetch_add(u64::from(unknown), Ordering::Relaxed);
            }
        }
    }

    fn facts(&mut self, count: usize) -> Vec<Fact> {
        let mut facts = Vec::with_capacity(count);
        for _ in 0..count {
            let vehicle = self.random.random_range(0..self.next.len());
            let at = self.next[vehicle];
            self.next[vehicle] += 1_000;
            let kind = match self.random.random_range(0..20) {
                0 => Kind::Trip,
                1 => Kind::Alert,
                2 => Kind::Braking,
                _ => Kind::Position,
            };
            facts.push(Fact { account: Account::Acme, kind, vehicle: self.first + vehicle as u32, at });
        }
        facts
    }

    fn body(&mut self, facts: &[Fact], bulk: Bulk, unknown: u64, number: u64) -> Vec<u8> {
        let format = if self.random.random_bool(0.5) { Format::Flat } else { Format::V3 };
        let mut said: Vec<Value> = facts.iter().map(|fact| fact.said(format, bulk)).collect();
        for _ in 0..unknown {
            said.push(json!({ "pushType": "NOBODY_KNOWS", "number": number }));
        }
        if self.random.random_ratio(1, 5) {
            // The order within a request is that of the times.
            said.reverse();
        }
        let body = if said.len() == 1 && self.random.random_bool(0.5) {
            said.remove(0)
        } else if self.random.random_ratio(1, 3) {
            json!({ "messages": said })
        } else {
            Value::Array(said)
        };
        serde_json::to_vec(&body).expect("JSON")
    }

    fn manner(&mut self) -> Manner {
        if !self.shared.rude.load(Ordering::Relaxed) {
            return Manner::Fine;
        }
        match self.random.random_range(0..4) {
            0 => Manner::HangsUp(self.random.random_range(1..=1_000)),
            1 => Manner::Slow,
            _ => Manner::Fine,
        }
    }

    /// How many of its events were known, where its answer was read.
    async fn until_answered(&mut self, number: u64, body: &[u8], events: usize) -> Option<u64> {
        loop {
            // The gate outlives its senders.
            self.gate.wait_for(|open| *open).await.expect("a gate");
            self.shared.under_way.fetch_add(1, Ordering::Relaxed);
            let before = self.shared.changes.load(Ordering::SeqCst);
            let bus = if self.shared.bus_gone.load(Ordering::Relaxed) { Bus::Gone } else { Bus::There };
            let manner = self.manner();
            let begun = Instant::now();
            let sent = match manner {
                Manner::Fine => self.post(body).await,
                Manner::HangsUp(_) | Manner::Slow => {
                    self.shared.rudeness.fetch_add(1, Ordering::Relaxed);
                    rude(&self.shared.webhook, body, manner).await
                }
            };
            let bus = if manner == Manner::Fine { bus } else { Bus::NotMeasured };
            let latency = Latency { took: begun.elapsed(), bus };
            let (status, known) = match sent {
                Sent::Answered(status, known) => (status, known),
                Sent::Cut => {
                    let excused = self.shared.excuses.load(Ordering::SeqCst) > 0
                        || self.shared.changes.load(Ordering::SeqCst) != before;
                    // One that is slow is answered as well.
                    let blameless = !matches!(manner, Manner::HangsUp(_)) && !excused;
                    self.shared.cut.fetch_add(u64::from(blameless), Ordering::Relaxed);
                    (0, None)
                }
                Sent::NotTaken => (0, None),
            };
            if manner == Manner::Fine || status != 0 {
                self.shared.ledger.answer(number, status, events, latency);
            }
            self.shared.under_way.fetch_sub(1, Ordering::Relaxed);
            if (200..300).contains(&status) {
                return known;
            }
            if status != 0 {
                if !self.shared.explains(status) {
                    *self.shared.unasked.lock().expect("no panic").entry(status).or_default() += 1;
                }
                *self.shared.refused.lock().expect("no panic").entry(status).or_default() += 1;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn post(&self, body: &[u8]) -> Sent {
        let url = format!("http://{}/webhooks/acme", self.shared.webhook);
        match self.shared.client.post(url).bearer_auth(TOKEN).body(body.to_vec()).send().await {
            Ok(answer) => {
                let status = answer.status().as_u16();
                let receipt = answer.json::<Value>().await.ok();
                Sent::Answered(status, receipt.and_then(|receipt| receipt["duplicates"].as_u64()))
            }
            Err(error) if error.is_connect() => Sent::NotTaken,
            Err(_) => Sent::Cut,
        }
    }
}

/// What became of one attempt.
enum Sent {
    /// With this status; and how many of its events were known, where that was read.
    Answered(u16, Option<u64>),
    /// Written, and no answer came.
    Cut,
    /// Nobody listened.
    NotTaken,
}

/// A client that is slow, or hangs up somewhere.
async fn rude(webhook: &str, body: &[u8], manner: Manner) -> Sent {
    let head = format!(
        "POST /webhooks/acme HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    let request = [head.as_bytes(), body].concat();
    let Ok(mut socket) = TcpStream::connect(webhook).await else { return Sent::NotTaken };
    match manner {
        Manner::Fine | Manner::HangsUp(_) => {
            let thousandths = if let Manner::HangsUp(thousandths) = manner { thousandths } else { 1_000 };
            let upto = request.len() * thousandths as usize / 1_000;
            socket.write_all(&request[..upto]).await.ok();
            Sent::Cut
        }
        Manner::Slow => {
            for piece in request.chunks(request.len() / 5 + 1) {
                // It may have been answered already.
                if socket.write_all(piece).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            let mut answer = Vec::new();
            let read = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut answer)).await;
            let status = std::str::from_utf8(answer.get(9..12).unwrap_or_default()).ok();
            match (read, status.and_then(|status| status.parse().ok())) {
                (Ok(_), Some(status)) => Sent::Answered(status, None),
                _ => Sent::Cut,
            }
        }
    }
}
