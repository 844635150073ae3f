//! The ledger: every request, its events and its answers, written to disk as they happen and read back by the checker, which
//! trusts nothing else. A line each: `request N MARK FACT…`, `answer N STATUS MS AT BUS`, with the ms
//! since the ledger was begun; a fact is kind, vehicle and time.

use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::facts::{Account, Bulk, Fact, Kind};

/// What is written. Shared by all senders.
pub struct Ledger {
    path: PathBuf,
    begun: Instant,
    state: Mutex<State>,
}

struct State {
    file: BufWriter<File>,
    requests: u64,
    answers: u64,
    events: u64,
    latencies: Vec<Latency>,
}

/// How long an answer took.
#[derive(Debug, Clone, Copy)]
pub struct Latency {
    pub took: Duration,
    pub bus: Bus,
}

/// How the bus was while a request waited, as far as the faults say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bus {
    There,
    Gone,
    /// The sender itself was slow.
    NotMeasured,
}

/// One request, read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub bulk: Bulk,
    pub facts: Vec<Fact>,
    /// Elements in it that nobody understands.
    pub unknown: u64,
    pub answered: bool,
}

impl Ledger {
    pub fn create(path: PathBuf) -> Self {
        let file = BufWriter::new(File::create(&path).expect("a writable folder"));
        let state = State { file, requests: 0, answers: 0, events: 0, latencies: Vec::new() };
        Self { path, begun: Instant::now(), state: Mutex::new(state) }
    }

    /// A request that is about to be sent; its number.
    pub fn request(&self, facts: &[Fact], bulk: Bulk, unknown: u64) -> u64 {
        let mut state = self.state.lock().expect("no panic");
        let number = state.requests;
        state.requests += 1;
        let mark = if bulk == Bulk::TooLarge { "large" } else { "fits" };
        write!(state.file, "request {number} {mark} {unknown}").expect("room for the ledger");
        for fact in facts {
            write!(state.file, " {}{}:{}", fact.kind.letter(), fact.vehicle, fact.at).expect("room");
        }
        writeln!(state.file).expect("room for the ledger");
        number
    }

    /// Its answer; 0 where none came.
    pub fn answer(&self, number: u64, status: u16, events: usize, latency: Latency) {
        let mut state = self.state.lock().expect("no panic");
        let (took, at) = (latency.took.as_millis(), self.begun.elapsed().as_millis());
        writeln!(state.file, "answer {number} {status} {took} {at} {:?}", latency.bus).expect("room");
        if (200..300).contains(&status) {
            state.answers += 1;
            state.events += events as u64;
            state.latencies.push(latency);
        }
    }

    /// Events answered 2xx so far.
    pub fn events(&self) -> u64 {
        self.state.lock().expect("no panic").events
    }

    /// Requests answered 2xx so far.
    pub fn answers(&self) -> u64 {
        self.state.lock().expect("no panic").answers
    }

    /// How long answers took, sorted.
    pub fn latencies(&self, bus: Bus) -> Vec<Duration> {
        let state = self.state.lock().expect("no panic");
        let mut took: Vec<Duration> =
            state.latencies.iter().filter(|latency| latency.bus == bus).map(|latency| latency.took).collect();
        took.sort_unstable();
        took
    }

    /// Everything on disk, and from there.
    pub fn read(&self) -> Vec<Request> {
        self.state.lock().expect("no panic").file.flush().expect("room for the ledger");
        read(&self.path)
    }
}

fn read(path: &Path) -> Vec<Request> {
    let mut requests: Vec<Request> = Vec::new();
    for line in BufReader::new(File::open(path).expect("the ledger")).lines() {
        let line = line.expect("text");
        let mut words = line.split(' ');
        let (what, number) = (words.next().expect("a word"), words.next().expect("a number"));
        let number: usize = number.parse().expect("a number");
        if what == "answer" {
            let status: u16 = words.next().and_then(|word| word.parse().ok()).expect("a status");
            requests[number].answered |= (200..300).contains(&status);
            continue;
        }
        assert_eq!(number, requests.len(), "requests are numbered");
        let bulk = if words.next() == Some("large") { Bulk::TooLarge } else { Bulk::Fits };
        let unknown = words.next().and_then(|word| word.parse().ok()).expect("a count");
        let facts = words.map(|word| fact(word).expect("a fact")).collect();
        requests.push(Request { bulk, facts, unknown, answered: false });
    }
    requests
}

fn fact(word: &str) -> Option<Fact> {
    let (letter, rest) = word.split_at_checked(1)?;
    let (vehicle, at) = rest.split_once(':')?;
    Some(Fact {
        account: Account::Acme,
        kind: Kind::of_letter(letter)?,
        vehicle: vehicle.parse().ok()?,
        at: at.parse().ok()?,
    })
}

#[test]
fn a_ledger_is_read_as_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::create(dir.path().join("ledger"));
    let fact = |kind, at| Fact { account: Account::Acme, kind, vehicle: 7, at };
    let facts = [fact(Kind::Position, 5), fact(Kind::Trip, 6)];
    let latency = Latency { took: Duration::from_millis(3), bus: Bus::There };
    let first = ledger.request(&facts, Bulk::Fits, 2);
    let second = ledger.request(&facts[..1], Bulk::TooLarge, 0);
    ledger.answer(second, 503, 1, latency);
    ledger.answer(first, 503, 2, latency);
    ledger.answer(first, 201, 2, latency);
    let read = ledger.read();
    assert_eq!(read[0], Request { bulk: Bulk::Fits, facts: facts.to_vec(), unknown: 2, answered: true });
    assert_eq!(
        read[1],
        Request { bulk: Bulk::TooLarge, facts: facts[..1].to_vec(), unknown: 0, answered: false }
    );
    assert_eq!((ledger.answers(), ledger.events()), (1, 2));
}
