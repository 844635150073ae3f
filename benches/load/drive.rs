//! The generator: connections that are kept, in a closed loop (the next request when the last is answered) or an open
//! one (at a fixed rate, latency from the intended start, so that a stall is charged to every request that it delayed).
//! One thread, one task a connection. Only what is answered inside the measured window counts.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::body::{Fleet, Requests};
use crate::process::Usage;

/// An answer that takes longer is no answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// How requests follow each other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Loop {
    /// The next when the last is answered.
    Closed,
    /// So many a second over all connections.
    Open(f64),
}

/// What is sent.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Connections.
    pub connections: usize,
    /// Events a request.
    pub events: usize,
    /// How requests follow each other.
    pub pace: Loop,
    /// Not measured.
    pub warm_up: Duration,
    /// Measured.
    pub measured: Duration,
}

/// What was seen.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Answered 2xx in the window.
    pub requests: usize,
    /// Their events.
    pub events: usize,
    /// Answered otherwise, or not at all.
    pub refused: usize,
    /// The window.
    pub seconds: f64,
    /// Microseconds, in rising order.
    pub latencies: Vec<u32>,
    /// CPU seconds of the process under test, in the window.
    pub cpu: f64,
}

impl Seen {
    /// A quantile of the latencies, in µs.
    pub fn quantile(&self, of: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        self.latencies.get((last as f64 * of).round() as usize).map_or(f64::NAN, |us| f64::from(*us))
    }

    /// Requests a second.
    pub fn rate(&self) -> f64 {
        self.requests as f64 / self.seconds
    }

    /// Events a second.
    pub fn event_rate(&self) -> f64 {
        self.events as f64 / self.seconds
    }

    /// CPU of the process under test, in µs a request.
    pub fn cpu_a_request(&self) -> f64 {
        self.cpu * 1e6 / self.requests as f64
    }
}

struct Window {
    from: Instant,
    to: Instant,
    seen: RefCell<Seen>,
}

/// Drives the paths of one address, connection by connection in turn, and looks at the process's CPU meanwhile.
pub async fn drive(address: &str, paths: &[String], fleet: &Fleet, load: Load, usage: &Usage) -> Seen {
    let from = Instant::now() + load.warm_up;
    let window = Rc::new(Window { from, to: from + load.measured, seen: RefCell::default() });
    let local = LocalSet::new();
    let tasks: Vec<_> = (0..load.connections)
        .map(|index| {
            let path = &paths[index % paths.len()];
            let requests = Requests::new(path, fleet, load.events, index, load.connections);
            let (address, window) = (address.to_owned(), Rc::clone(&window));
            local.spawn_local(async move { connection(&address, requests, &window, load, index).await })
        })
        .collect();
    let cpu = local
        .run_until(async {
            sleep_until(window.from).await;
            let before = usage.cpu();
            sleep_until(window.to).await;
            usage.cpu() - before
        })
        .await;
    local.await;
    for task in tasks {
        task.await.expect("a connection that ends");
    }
    let mut seen = window.seen.take();
    seen.latencies.sort_unstable();
    seen.seconds = load.measured.as_secs_f64();
    seen.cpu = cpu;
    seen
}

async fn connection(address: &str, mut requests: Requests, window: &Window, load: Load, index: usize) {
    let mut wire = Wire::connect(address).await;
    let interval = match load.pace {
        Loop::Closed => Duration::ZERO,
        Loop::Open(rate) => Duration::from_secs_f64(load.connections as f64 / rate),
    };
    // Connections begin one after the other, so that their requests are spread.
    let mut intended = Instant::now() + interval.mul_f64(index as f64 / load.connections as f64);
    while Instant::now() < window.to {
        match load.pace {
            Loop::Closed => intended = Instant::now(),
            Loop::Open(_) => {
                sleep_until(intended).await;
            }
        }
        let answered = timeout(PATIENCE, wire.ask(requests.next())).await;
        let now = Instant::now();
        let counts = now >= window.from && now < window.to;
        match answered {
            Ok(Ok(status)) if (200..300).contains(&status) => {
                if counts {
                    let mut seen = window.seen.borrow_mut();
                    seen.requests += 1;
                    seen.events += requests.events();
                    let us = now.duration_since(intended).as_micros();
                    seen.latencies.push(u32::try_from(us).unwrap_or(u32::MAX));
                }
            }
            Ok(Ok(_)) => window.seen.borrow_mut().refused += 1,
            Ok(Err(_)) | Err(_) => {
                window.seen.borrow_mut().refused += 1;
                wire = Wire::connect(address).await;
            }
        }
        intended += interval;
    }
}

/// One connection: HTTP/1.1 as far as a generator needs it.
struct Wire {
    socket: TcpStream,
    buffer: Vec<u8>,
}

impl Wire {
    async fn connect(address: &str) -> Self {
        let begun = Instant::now();
        loop {
            match TcpStream::connect(address).await {
                Ok(socket) => {
                    socket.set_nodelay(true).expect("a socket");
                    return Self { socket, buffer: vec![0; 16 << 10] };
                }
                Err(error) => assert!(begun.elapsed() < PATIENCE, "{address}: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sends a request and reads its answer to the end: the status.
    async fn ask(&mut self, request: &[u8]) -> std::io::Result<u16> {
        self.socket.write_all(request).await?;
        let mut filled = 0;
        loop {
            let read = self.socket.read(&mut self.buffer[filled..]).await?;
            if read == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            filled += read;
            if let Some(status) = complete(&self.buffer[..filled]) {
                return Ok(status);
            }
        }
    }
}

/// The status of an answer, once all of it is there.
fn complete(bytes: &[u8]) -> Option<u16> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let text = std::str::from_utf8(&bytes[..head]).ok()?;
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let whole = head + 4 + length.unwrap_or(0);
    (bytes.len() >= whole).then(|| text.get(9..12).and_then(|code| code.parse().ok()))?
}
