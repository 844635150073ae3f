//! One campaign: a bus, a bridge, senders and a polled account; the faults strike one after the other while the load goes on;
//! then everything is made whole, waited for, read to the end, and handed to the checker.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fleetbus::simulate::serve::FaultKind;

use super::brokers::unique;
use super::bus::{self, Bus, Room, Size};
use super::checker::{self, Findings};
use super::child::{Home, Metrics};
use super::disk::Disk;
use super::faults::{Fault, Means, Strike, plan};
use super::ledger::{self, Ledger};
use super::proxy::Mood;
use super::pull::Pull;
use super::senders::{Load, Senders, Shared};

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Settings {
    pub bus: bus::Kind,
    pub size: Size,
    pub load: Load,
    pub faults: Faults,
    /// How long a fault lasts at least.
    pub lasts: Duration,
    pub bug: Option<&'static str>,
}

/// Which faults strike.
#[derive(Debug, Clone)]
pub enum Faults {
    /// So many, by the load's seed.
    Planned(usize),
    /// These, one after the other.
    Given(Vec<Fault>),
}

/// What came of it.
pub struct Outcome {
    pub settings: Settings,
    pub findings: Findings,
    /// How often each fault struck.
    pub struck: BTreeMap<Fault, u32>,
    /// Faults that were to strike, and did not: a failpoint that was not reached.
    pub missed: BTreeMap<Fault, u32>,
    /// Requests that got no answer, though nobody had killed the bridge.
    pub cut: u64,
    pub refused: BTreeMap<u16, u64>,
    /// Requests that were sent again, all of whose events had to be known.
    pub again: u64,
    pub rudeness: u64,
    pub answered: u64,
    /// Everything else that is wrong.
    pub trouble: Vec<String>,
    pub there: Vec<Duration>,
    pub gone: Vec<Duration>,
    pub took: Duration,
}

impl Outcome {
    /// Every promise held.
    pub fn holds(&self) -> bool {
        self.findings.holds() && self.cut == 0 && self.trouble.is_empty()
    }
}

/// A failpoint may not be reached: then the fault is not counted.
const REACHED: Duration = Duration::from_secs(25);
/// With the senders held, a backlog has reached the bus by then, or a fault that needs calm is not counted.
const CALM: Duration = Duration::from_secs(240);
/// Everything that waits is on the bus by then.
const QUIET: Duration = Duration::from_secs(900);
/// How far clocks are stepped, in minutes: dedup's horizon is 48 h, retention 7 d.
const STEPS: [i64; 3] = [10, 180, 1_800];
/// Past the retention.
const EIGHT_DAYS_MS: i64 = 8 * 24 * 3_600_000;
/// A load that stands still for so long never ends.
const STUCK: Duration = Duration::from_secs(600);
/// After a full disk it takes everything again by then.
const RECOVERED: Duration = Duration::from_secs(30);
const GLANCE: Duration = Duration::from_millis(50);
/// How often the progress is said.
const SAID: Duration = Duration::from_secs(10);

struct Campaign {
    settings: Settings,
    home: Home,
    bus: Bus,
    disk: Arc<Disk>,
    pull: Pull,
    senders: Arc<Shared>,
    struck: BTreeMap<Fault, u32>,
    missed: BTreeMap<Fault, u32>,
    trouble: Vec<String>,
    begun: Instant,
    said: Instant,
    /// Events answered, and since when no more.
    progress: (u64, Instant),
    /// What waits for the operator may have been removed by age.
    aged: bool,
}

/// Runs one.
pub async fn run(settings: Settings) -> Outcome {
    let dir = tempfile::Builder::new().prefix("fleetbus-campaign-").tempdir().expect("a folder");
    let keep = std::env::var_os("KEEP").map(PathBuf::from);
    let place = keep.unwrap_or_else(|| dir.path().to_owned());
    let bus = Bus::start(settings.bus, settings.size, &unique("campaign")).await;
    let disk = Arc::new(Disk::make(place.join("disk")));
    let pull = Pull::serve(settings.load.seed).await;
    let rest = format!(
        "{}delivery: {{ drain_delay: 1s }}\naccounts:\n  - id: acme\n    provider: linxup\n    webhook: {{ token: {{ env: TEST_TOKEN }} }}\n    \
         limits: {{ in_flight: 128MiB }}\n{}",
        bus.configuration(),
        pull.configuration()
    );
    let data = disk.path().join("data");
    let mut home = Home::make(place.clone(), &data, &rest, settings.bug);
    let mut trouble = Vec::new();
    // The first start dies in its migration.
    home.start(Some("in-migration:1"));
    if home.is_up().await {
        trouble.push("it did not die in its migration".to_owned());
        home.kill9();
    }
    home.start(None);
    assert!(home.is_up().await, "it does not start after it died in its migration:\n{}", home.last_words());
    let ledger = Ledger::create(place.join("ledger"));
    let mut senders = Senders::begin(ledger, &home.webhook, Arc::clone(&disk), settings.load);
    let shared = Arc::clone(&senders.shared);
    let now = Instant::now();
    let mut campaign = Campaign {
        settings,
        home,
        bus,
        disk,
        pull,
        senders: shared,
        struck: BTreeMap::new(),
        missed: BTreeMap::new(),
        trouble,
        begun: now,
        said: now,
        progress: (0, now),
        aged: false,
    };
    campaign.strike_all().await;
    campaign.senders.no_more_faults();
    while !senders.are_done() {
        campaign.look().await;
        tokio::time::sleep(GLANCE).await;
    }
    campaign.end(&data).await
}

impl Campaign {
    fn strikes(&self) -> Vec<Strike> {
        let means =
            Means { bus: self.settings.bus, size: self.settings.size, small_disk: self.disk.is_small() };
        match &self.settings.faults {
            Faults::Planned(count) => plan(self.settings.load.seed, *count, means),
            Faults::Given(faults) => {
                let strike = |(draw, first): (usize, &Fault)| Strike {
                    first: *first,
                    second: None,
                    draw: draw as u64,
                };
                faults.iter().enumerate().map(strike).collect()
            }
        }
    }

    async fn strike_all(&mut self) {
        let strikes = self.strikes();
        let each = self.settings.load.events / (strikes.len() as u64 + 1);
        for (number, strike) in strikes.iter().enumerate() {
            // The load goes on between two, but a strike that took long is not waited for twice.
            let next = each * (number as u64 + 1);
            while self.senders.ledger.events() < next {
                self.look().await;
                tokio::time::sleep(GLANCE).await;
            }
            let second =
                strike.second.map_or_else(String::new, |second| format!(", with {}", second.words()));
            self.say(&format!("{} of {}: {}{second}", number + 1, strikes.len(), strike.first.words()));
            self.strike(*strike).await;
            self.look().await;
        }
    }

    fn say(&self, what: &str) {
        println!(
            "{:>5} s  {:>9} answered, {:>9} consumed  {what}",
            self.begun.elapsed().as_secs(),
            self.senders.ledger.events(),
            self.bus.consumed()
        );
    }

    /// Says how far it is, and notices a bridge that ended by itself.
    async fn look(&mut self) {
        if self.said.elapsed() > SAID {
            self.said = Instant::now();
            self.say("");
        }
        self.senders.look_at_disk();
        let answered = self.senders.ledger.events();
        if answered > self.progress.0 {
            self.progress = (answered, Instant::now());
        }
        assert!(
            self.progress.1.elapsed() < STUCK,
            "nothing is answered any more:\n{}",
            self.home.last_words()
        );
        if self.home.has_died() {
            self.trouble.push(format!("it ended by itself:\n{}", self.home.last_words()));
            self.revive().await;
        }
    }

    fn count(&mut self, fault: Fault) {
        *self.struck.entry(fault).or_default() += 1;
    }

    async fn strike(&mut self, strike: Strike) {
        let Strike { first, second, draw } = strike;
        let lasts = self.settings.lasts + self.settings.lasts.mul_f64((draw % 100) as f64 / 60.0);
        // Trouble on the bus first, then what happens in it.
        let pair = match second {
            Some(second) if second.is_of_the_bus() => [Some(second), Some(first)],
            second => [Some(first), second],
        };
        let mut longest = lasts;
        for fault in pair.into_iter().flatten() {
            // A failpoint may be missed once: what leads to it is left to chance.
            if self.begin(fault, draw).await || self.begin(fault, draw).await {
                self.count(fault);
            } else {
                *self.missed.entry(fault).or_default() += 1;
            }
            if fault == Fault::BrokerPausedLong {
                longest = longest.max(match self.settings.bus {
                    bus::Kind::Kafka => Duration::from_secs(14),
                    bus::Kind::Nats => Duration::from_secs(36),
                });
            }
            tokio::time::sleep(lasts / 2).await;
        }
        let until = Instant::now() + longest / 2;
        while Instant::now() < until {
            if pair.contains(&Some(Fault::ProxyCuts)) {
                self.bus.mood(Mood::Cut);
                tokio::time::sleep(GLANCE).await;
                self.bus.mood(Mood::Fair);
                tokio::time::sleep(GLANCE * u32::try_from(draw % 13).unwrap_or(0)).await;
            }
            tokio::time::sleep(GLANCE).await;
        }
        for fault in pair.into_iter().flatten() {
            self.end_of(fault, draw).await;
        }
    }

    /// Begins a fault. False where it did not strike.
    async fn begin(&mut self, fault: Fault, draw: u64) -> bool {
        let nth = 1 + draw % 7;
        match fault {
            Fault::Kill => self.kill(None).await,
            Fault::DieBeforePark => return self.die("before-park", nth, Fault::BrokerPaused).await,
            Fault::DieAfterPark => return self.die("after-park", nth, Fault::BrokerPaused).await,
            Fault::DieAfterAck => return self.die("after-ack", 50 * nth, Fault::Kill).await,
            Fault::DieBeforeCursor => return self.die("before-cursor", 1 + draw % 3, Fault::Kill).await,
            Fault::DieInDrain => return self.die("in-drain", nth, Fault::BrokerPaused).await,
            Fault::DieInRetention => return self.die_in_retention().await,
            Fault::Terminate => self.terminate().await,
            Fault::BrokerKilled => {
                self.senders.bus_gone.store(true, Ordering::Relaxed);
                self.bus.kill(draw);
            }
            Fault::BrokerPaused | Fault::BrokerPausedLong => {
                self.senders.bus_gone.store(true, Ordering::Relaxed);
                self.bus.pause(draw);
            }
            Fault::ProxyCuts => {}
            Fault::ProxyDelays => self.bus.mood(Mood::Delay(Duration::from_millis(20 + draw % 400))),
            Fault::ProxyDrips => self.bus.mood(Mood::Drip),
            Fault::HoleUp | Fault::HoleDown => {
                self.senders.bus_gone.store(true, Ordering::Relaxed);
                self.bus.mood(if fault == Fault::HoleUp { Mood::HoleUp } else { Mood::HoleDown });
            }
            Fault::TopicDeleted => return self.delete_topic().await,
            Fault::Denied => self.bus.forbid(),
            Fault::TooLarge => self.senders.large.store(3 + (draw % 5).cast_signed(), Ordering::Relaxed),
            Fault::StreamFull => self.bus.bound(Room::None).await,
            Fault::DiskFull => {
                self.senders.may_refuse(STUCK);
                self.disk.fill();
                self.senders.bus_gone.store(true, Ordering::Relaxed);
                self.bus.pause(draw);
            }
            Fault::ClockForward | Fault::ClockBack => {
                let minutes = STEPS[usize::try_from(draw).unwrap_or(0) % STEPS.len()];
                let sign = if fault == Fault::ClockBack { -1 } else { 1 };
                self.senders.steps();
                self.home.step_clock(sign * minutes * 60_000);
            }
            Fault::RudeSenders => self.senders.rude.store(true, Ordering::Relaxed),
            Fault::PullTimesOut => self.pull.fail(FaultKind::Timeout, 2),
            Fault::PullErrs => self.pull.fail(FaultKind::Error200, 3),
            Fault::PullEmpty => self.pull.fail(FaultKind::Empty, 2),
            Fault::PullRepeats => self.pull.fail(FaultKind::RepeatPage, 2),
            Fault::PullRefuses => self.pull.fail(FaultKind::Unauthorized, 2),
            Fault::PullLimits => self.pull.fail(FaultKind::Limited, 8),
        }
        true
    }

    /// Ends it.
    async fn end_of(&mut self, fault: Fault, draw: u64) {
        match fault {
            Fault::BrokerKilled => self.bus.restart(draw),
            Fault::BrokerPaused | Fault::BrokerPausedLong => self.bus.resume(draw),
            Fault::HoleDown => {
                self.bus.mood(Mood::Cut);
                tokio::time::sleep(GLANCE).await;
                self.bus.mood(Mood::Fair);
            }
            Fault::ProxyCuts | Fault::ProxyDelays | Fault::ProxyDrips | Fault::HoleUp => {
                self.bus.mood(Mood::Fair);
            }
            Fault::Denied => self.bus.permit(),
            Fault::StreamFull => self.bus.bound(Room::Any).await,
            Fault::DiskFull => {
                self.bus.resume(draw);
                self.disk.free();
                self.senders.may_refuse(RECOVERED);
            }
            Fault::ClockForward | Fault::ClockBack => {
                self.senders.steps();
                self.home.step_clock(0);
            }
            Fault::RudeSenders => self.senders.rude.store(false, Ordering::Relaxed),
            Fault::Kill
            | Fault::DieBeforePark
            | Fault::DieAfterPark
            | Fault::DieAfterAck
            | Fault::DieBeforeCursor
            | Fault::DieInRetention
            | Fault::DieInDrain
            | Fault::Terminate
            | Fault::TopicDeleted
            | Fault::TooLarge
            | Fault::PullTimesOut
            | Fault::PullErrs
            | Fault::PullEmpty
            | Fault::PullRepeats
            | Fault::PullRefuses
            | Fault::PullLimits => {}
        }
        if fault.is_of_the_bus() {
            self.senders.bus_gone.store(false, Ordering::Relaxed);
        }
    }

    /// kill -9, and a start, armed with a failpoint where one is given.
    async fn kill(&mut self, failpoint: Option<&str>) {
        self.senders.excuse();
        if let Some(status) = self.home.kill9() {
            self.trouble.push(format!("it had ended by itself, {status}:\n{}", self.home.last_words()));
        }
        self.home.start(failpoint);
        if !self.home.is_up().await && failpoint.is_none() {
            self.trouble.push(format!("it does not start:\n{}", self.home.last_words()));
        }
        self.senders.excuse_no_more();
    }

    /// Starts it again after it died.
    async fn revive(&mut self) {
        self.senders.excuse();
        for _ in 0..5 {
            self.home.kill9();
            self.home.start(None);
            if self.home.is_up().await {
                break;
            }
            self.trouble.push(format!("it does not start:\n{}", self.home.last_words()));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert!(!self.home.has_died(), "it does not start any more:\n{}", self.home.last_words());
        self.senders.excuse_no_more();
    }

    /// Has it die at a failpoint, in trouble on the bus where that leads there. False where it was not reached.
    async fn die(&mut self, word: &str, nth: u64, trouble: Fault) -> bool {
        self.senders.excuse();
        self.kill(Some(&format!("{word}:{nth}"))).await;
        if trouble == Fault::BrokerPaused {
            self.bus.pause(0);
            let until = Instant::now() + self.settings.lasts.max(Duration::from_millis(2_500));
            while Instant::now() < until && !self.home.has_died() {
                tokio::time::sleep(GLANCE).await;
            }
            self.bus.resume(0);
        }
        let begun = Instant::now();
        while !self.home.has_died() && begun.elapsed() < REACHED {
            tokio::time::sleep(GLANCE).await;
        }
        let died = self.died();
        self.revive().await;
        self.senders.excuse_no_more();
        died
    }

    /// Whether it died at its failpoint; of anything else is said.
    fn died(&mut self) -> bool {
        let (died, aborted) = (self.home.has_died(), self.home.has_aborted());
        if died && !aborted {
            self.trouble.push(format!("it ended, and not at its failpoint:\n{}", self.home.last_words()));
        }
        aborted
    }

    /// Nothing waits for the bus, the clock is a week ahead, and it dies while it removes what waited for the operator.
    async fn die_in_retention(&mut self) -> bool {
        let quiet = self.senders.hold(Duration::from_secs(60)).await && self.is_quiet(CALM).await;
        let mut died = false;
        if quiet {
            self.senders.excuse();
            self.aged = true;
            self.senders.steps();
            self.home.step_clock(EIGHT_DAYS_MS);
            self.kill(Some("in-retention:1")).await;
            let begun = Instant::now();
            while !self.home.has_died() && begun.elapsed() < REACHED {
                tokio::time::sleep(GLANCE).await;
            }
            died = self.died();
            self.senders.steps();
            self.home.step_clock(0);
            self.revive().await;
            self.senders.excuse_no_more();
        }
        self.senders.go_on();
        died
    }

    /// SIGTERM under load. Endpoints are removed a little later; then it must end by itself, in time, with nothing cut.
    async fn terminate(&mut self) {
        self.senders.may_refuse(STUCK);
        self.home.terminate();
        tokio::time::sleep(Duration::from_millis(300)).await;
        self.senders.stop_beginning();
        let status = self.home.ended().await;
        if !status.success() {
            self.trouble.push(format!("SIGTERM: {status}\n{}", self.home.last_words()));
        }
        self.home.start(None);
        if !self.home.is_up().await {
            self.trouble.push(format!("it does not start after SIGTERM:\n{}", self.home.last_words()));
            self.revive().await;
        }
        self.senders.may_refuse(RECOVERED);
        self.senders.go_on();
    }

    async fn is_quiet(&self, patience: Duration) -> bool {
        self.is(Metrics::is_quiet, patience).await
    }

    async fn is(&self, so: fn(&Metrics) -> bool, patience: Duration) -> bool {
        let begun = Instant::now();
        loop {
            if self.home.metrics().await.is_some_and(|metrics| so(&metrics)) {
                return true;
            }
            if begun.elapsed() > patience {
                return false;
            }
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// Deletes a topic when nobody publishes to it, lets the senders try, and makes it again.
    async fn delete_topic(&mut self) -> bool {
        let quiet = self.senders.hold(Duration::from_secs(60)).await && self.is_quiet(CALM).await;
        if quiet {
            self.bus.delete_spare().await;
        }
        self.senders.go_on();
        if quiet {
            tokio::time::sleep(self.settings.lasts).await;
            self.bus.restore_spare().await;
        }
        quiet
    }

    async fn end(mut self, data: &std::path::Path) -> Outcome {
        self.say("all answered");
        let took = self.begun.elapsed();
        if !self.is_quiet(QUIET).await {
            let metrics = self.home.metrics().await;
            let behind = metrics.map(|metrics| metrics.sum("events_behind", &[]));
            self.trouble
                .push(format!("{behind:?} events still wait for the bus\n{}", self.home.last_words()));
        }
        if !self.is(Metrics::has_polled, CALM).await {
            self.trouble.push(format!("nothing is polled any more\n{}", self.home.last_words()));
        }
        self.home.pause_polls().await;
        if !self.is(Metrics::is_still, CALM).await {
            self.trouble.push(format!("something is still on its way\n{}", self.home.last_words()));
        }
        let last = self.home.metrics().await;
        self.home.terminate();
        let status = self.home.ended().await;
        if !status.success() {
            self.trouble.push(format!("the last SIGTERM: {status}\n{}", self.home.last_words()));
        }
        self.trouble.extend(self.home.panics());
        let (polled, pollable) = (self.pull.polled(data), self.pull.pollable());
        let requests = self.senders.ledger.read();
        let read = self.bus.finish().await;
        println!("{:>5} s  {} read, checking", self.begun.elapsed().as_secs(), read.seen.len());
        self.trouble.extend(read.odd.into_iter().take(5));
        let findings = checker::check(&requests, &polled, &pollable, &read.seen);
        if findings.unanswered > 0 {
            self.trouble.push(format!("{} requests were never answered", findings.unanswered));
        }
        self.trouble.extend(unexplained(&self.senders, &self.struck, &findings));
        if let Some(metrics) = last {
            self.trouble.extend(metrics.not_adding_up());
            if !self.aged {
                let raw = metrics.sum("parked_messages", &["unrecognized"]);
                if raw != findings.unknown {
                    self.trouble.push(format!("{raw} raw messages kept of {}", findings.unknown));
                }
                let unfit = metrics.sum("parked_messages", &["unfit"]);
                if unfit != findings.too_large.len() as u64 {
                    self.trouble.push(format!("{unfit} set aside of {}", findings.too_large.len()));
                }
            }
        }
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        Outcome {
            findings,
            struck: self.struck,
            missed: self.missed,
            cut: load(&self.senders.cut),
            refused: self.senders.refused.lock().expect("no panic").clone(),
            again: load(&self.senders.again),
            rudeness: load(&self.senders.rudeness),
            answered: self.senders.ledger.answers(),
            trouble: self.trouble,
            there: self.senders.ledger.latencies(ledger::Bus::There),
            gone: self.senders.ledger.latencies(ledger::Bus::Gone),
            took,
            settings: self.settings,
        }
    }
}

/// Answers without a reason, a dedup that knows nothing, and faults of which there is no trace.
fn unexplained(senders: &Shared, struck: &BTreeMap<Fault, u32>, findings: &Findings) -> Vec<String> {
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let mut wrong = Vec::new();
    let unasked = senders.unasked.lock().expect("no panic");
    if !unasked.is_empty() {
        wrong.push(format!("answers that nothing explains, by status: {unasked:?}"));
    }
    // A look-up on a disk that is too slow counts as new, which is rare.
    let (again, unknown) = (load(&senders.again), load(&senders.unknown_again));
    if unknown * 20 > again {
        wrong.push(format!("of {again} requests that were sent again {unknown} were not known"));
    }
    if findings.polled == 0 {
        wrong.push("nothing was polled".to_owned());
    }
    let without_trace = [
        (Fault::TooLarge, findings.too_large.is_empty()),
        (Fault::RudeSenders, load(&senders.rudeness) == 0),
    ];
    for (fault, none) in without_trace {
        if none && struck.contains_key(&fault) {
            wrong.push(format!("{}: there is no trace of it", fault.words()));
        }
    }
    wrong
}
