//! From a file's text to what it means: every error at once, each with its path and
//! line. Pure but for the two questions that it is given: an environment variable's value, and what is in a file.
//! `run` and `check` both come through here. `bus` and `accounts` read those parts, `values` the forms of single values;
//! contradictions between parts are found at the end, here.

mod accounts;
mod admin;
mod bus;
mod registry;
mod telemetry;
mod values;

use std::env::VarError;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::values::{At, DAY, HOUR, LONGEST};
use super::tree::{Fields, Node, Problem, Problems, parse};
use super::{Account, Admin, Breaker, Config, CustomData, Dedup, Delivery, Listen, Replay, Tls, units};

/// What loading asks the world.
pub trait World {
    /// The value of an environment variable.
    fn variable(&self, name: &str) -> Option<String>;
    /// Whether an environment variable without a value is set all the same, to bytes that are no text.
    fn is_no_text(&self, _name: &str) -> bool {
        false
    }
    /// What is in a file.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
}

/// The process's environment and files.
#[derive(Debug, Clone, Copy)]
pub struct ThisProcess;

impl World for ThisProcess {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn is_no_text(&self, name: &str) -> bool {
        matches!(std::env::var(name), Err(VarError::NotUnicode(_)))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        super::secret::read_bounded(path)
    }
}

/// A configuration, and what its reader should know.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What it means.
    pub config: Config,
    /// E.g. that no bus was written, and the local one is used.
    pub notes: Vec<String>,
}

/// All accounts' decoded bytes together: the process's bound, which no single account may exceed.
const IN_FLIGHT_IN_ALL: u64 = 256 << 20;

/// Loads a configuration from its text.
///
/// # Errors
/// Every problem, in the order of the file.
pub fn load(text: &str, world: &dyn World) -> Result<Loaded, Vec<Problem>> {
    load_for(text, world, Store::AsWritten)
}

/// What has room for what is parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// One that is opened with the configuration.
    AsWritten,
    /// One that is open, of so many bytes until a restart: quotas that are not written follow it.
    Open(u64),
}

/// The same, for a process that may run already.
///
/// # Errors
/// Every problem, in the order of the file.
pub fn load_for(text: &str, world: &dyn World, store: Store) -> Result<Loaded, Vec<Problem>> {
    let root = parse(text.trim_start_matches('\u{feff}')).map_err(|problem| vec![problem])?;
    let mut walk = Walk { world, store, problems: Problems::default(), notes: Vec::new() };
    let config = walk.config(&root);
    match config {
        Some(config) if walk.problems.is_empty() => Ok(Loaded { config, notes: walk.notes }),
        Some(_) | None => Err(walk.problems.sorted()),
    }
}

/// Whether something has to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needed {
    Yes,
    No,
}

/// One walk over the tree: what it asks, and what it found.
struct Walk<'w> {
    world: &'w dyn World,
    store: Store,
    problems: Problems,
    notes: Vec<String>,
}

impl Walk<'_> {
    fn add(&mut self, at: &At, what: impl Into<String>, fix: impl Into<String>) {
        self.problems.add(at.place, &at.path, what, fix);
    }

    fn config(&mut self, root: &Node) -> Option<Config> {
        let mut fields = Fields::of(root, "", &mut self.problems)?;
        let (listen, admin) = self.ports(&mut fields);
        let data_dir = self.text(&mut fields, "data_dir").map(|(text, _)| PathBuf::from(text));
        let bus = self.bus(&mut fields);
        let replay = self.replay(&mut fields);
        let accounts = self.accounts(&mut fields, &replay);
        let delivery = self.delivery(&mut fields);
        let dedup = self.dedup(&mut fields, &accounts);
        let custom_data = self.custom_data(&mut fields);
        let otlp = self.telemetry(&mut fields);
        fields.finish(&mut self.problems);
        Some(Config {
            listen,
            admin,
            data_dir: data_dir.unwrap_or_else(|| PathBuf::from("./data")),
            bus: bus?,
            accounts,
            delivery,
            replay,
            dedup,
            custom_data,
            otlp,
        })
    }

    fn ports(&mut self, fields: &mut Fields<'_>) -> (Listen, Admin) {
        let nowhere = At::in_map(fields, "admin.address");
        let listen = self.listen(fields);
        let (admin, at) = self.admin(fields);
        let (one, other) = (listen.address, admin.address);
        if one.port() != 0 && one.port() == other.port() && overlap(one.ip(), other.ip()) {
            let what = format!("is the port of listen too: {}", one.port());
            self.add(&at.unwrap_or(nowhere), what, "give the operator's port a number of its own");
        }
        if admin.tokens.is_empty() && !admin.address.ip().is_loopback() {
            self.notes.push(
                "admin.token is not set: what is not open to all is answered to loopback peers only"
                    .to_owned(),
            );
        }
        (listen, admin)
    }

    /// A certificate and its key; a problem where there is but one of them, or where `needed`, none.
    fn pair(&mut self, map: &mut Fields<'_>, needed: Needed) -> Option<Tls> {
        let written = (map.has("cert"), map.has("key"));
        let (cert, key) = (self.file(map, "cert"), self.file(map, "key"));
        if written.0 != written.1 || (needed == Needed::Yes && !written.0) {
            let at = At { place: map.place, path: map.path.clone() };
            self.add(&at, "is not both `cert` and `key`", "name two PEM files");
        }
        cert.zip(key).map(|(cert, key)| Tls { cert, key })
    }

    fn listen(&mut self, fields: &mut Fields<'_>) -> Listen {
        let mut listen = Listen { address: SocketAddr::from(([0, 0, 0, 0], 8080)), tls: None };
        let Some(mut map) = self.map(fields, "listen") else { return listen };
        if let Some((address, _)) = self.address(&mut map) {
            listen.address = address;
        }
        if let Some(mut tls) = self.map(&mut map, "tls") {
            listen.tls = self.pair(&mut tls, Needed::Yes);
            tls.finish(&mut self.problems);
        }
        map.finish(&mut self.problems);
        listen
    }

    fn delivery(&mut self, fields: &mut Fields<'_>) -> Delivery {
        let mut delivery = Delivery {
            publish_deadline: Duration::from_secs(2),
            retries: 3,
            breaker: Breaker { failure_rate: 0.5, window: Duration::from_secs(30) },
            drain_delay: Duration::from_secs(5),
        };
        let Some(mut map) = self.map(fields, "delivery") else { return delivery };
        // Senders do not wait longer than half a minute; a stop must end within a whole one.
        let half_a_minute = Duration::from_secs(30);
        let deadlines = Duration::from_millis(10)..=half_a_minute;
        if let Some(deadline) = self.duration(&mut map, "publish_deadline", deadlines) {
            delivery.publish_deadline = deadline;
        }
        if let Some(delay) = self.duration(&mut map, "drain_delay", Duration::ZERO..=half_a_minute) {
            delivery.drain_delay = delay;
        }
        if let Some((text, at)) = self.text(&mut map, "retries") {
            match text.parse() {
                Ok(retries) if retries <= 10 => delivery.retries = retries,
                Ok(_) | Err(_) => self.add(&at, "is not a number from 0 to 10", "write 3"),
            }
        }
        if let Some(mut breaker) = self.map(&mut map, "breaker") {
            if let Some((text, at)) = self.text(&mut breaker, "failure_rate") {
                match text.parse::<f64>() {
                    Ok(rate) if rate > 0.0 && rate <= 1.0 => delivery.breaker.failure_rate = rate,
                    Ok(_) | Err(_) => self.add(&at, "is not a share between 0 and 1", "write 0.5"),
                }
            }
            if let Some(window) = self.duration(&mut breaker, "window", Duration::from_secs(1)..=HOUR) {
                delivery.breaker.window = window;
            }
            breaker.finish(&mut self.problems);
        }
        map.finish(&mut self.problems);
        delivery
    }

    fn replay(&mut self, fields: &mut Fields<'_>) -> Replay {
        let mut replay = Replay { retention: DAY * 7, max_size: 10 << 30, drain_rate: None };
        let Some(mut map) = self.map(fields, "replay") else { return replay };
        if let Some(retention) = self.duration(&mut map, "retention", Duration::from_secs(60)..=LONGEST) {
            replay.retention = retention;
            if retention < DAY * 2 {
                self.notes.push(format!(
                    "replay.retention is {}: the alert that comes a day before parked events are removed leaves \
                     less than a day to act",
                    units::say_duration(retention)
                ));
            }
        }
        if let Some((size, _)) = self.size(&mut map, "max_size", 1 << 20) {
            replay.max_size = size;
        }
        replay.drain_rate = self.rate(&mut map, "drain_rate");
        map.finish(&mut self.problems);
        replay
    }

    fn dedup(&mut self, fields: &mut Fields<'_>, accounts: &[Account]) -> Dedup {
        let mut dedup = Dedup { positions: HOUR * 48, others: DAY * 7, memory: 64 << 20 };
        let Some(mut map) = self.map(fields, "dedup") else { return dedup };
        let polled = accounts.iter().any(|account| !account.poll.is_empty());
        for (name, horizon) in [("positions", &mut dedup.positions), ("others", &mut dedup.others)] {
            let at = At::in_map(&map, name);
            if let Some(written) = self.duration(&mut map, name, HOUR..=LONGEST) {
                *horizon = written;
                if polled && written < Dedup::READ_AGAIN {
                    let again = units::say_duration(Dedup::READ_AGAIN);
                    let what = format!("is shorter than the {again} that pollers read again");
                    self.add(&at, what, "write 48h or more, else what is read again is published again");
                }
            }
        }
        if let Some((size, _)) = self.size(&mut map, "memory", 1 << 20) {
            dedup.memory = size;
        }
        map.finish(&mut self.problems);
        dedup
    }

    fn custom_data(&mut self, fields: &mut Fields<'_>) -> CustomData {
        let mut custom_data = CustomData { memory: 64 << 20 };
        let Some(mut map) = self.map(fields, "custom_data") else { return custom_data };
        if let Some((size, _)) = self.size(&mut map, "memory", 1 << 20) {
            custom_data.memory = size;
        }
        map.finish(&mut self.problems);
        custom_data
    }
}

fn overlap(a: IpAddr, b: IpAddr) -> bool {
    a == b || a.is_unspecified() || b.is_unspecified()
}
