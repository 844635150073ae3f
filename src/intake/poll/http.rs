//! One HTTP exchange with a polled host: a body that is bounded while it streams, and faults that carry no secret. Invariant:
//! bodies in memory are bounded together, whoever polls whom. Neighbours: `outbound` builds the client, `host` says what
//! to send, `fault` says what an answer means.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::fault::Fault;
use super::request::{Request, Verb};
use crate::event::Millis;
use crate::outbound::{self, Deadlines};

/// The beginning of a failed answer's body, which may say why it failed.
const REASON: usize = 16 << 10;
/// What a permit stands for.
const GRAIN: usize = 16 << 10;

/// The bounds of one exchange.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Until the connection is there.
    pub connect: Duration,
    /// Between two pieces of the answer, and until the first.
    pub silence: Duration,
    /// The whole exchange.
    pub total: Duration,
    /// The largest answer, decompressed.
    pub size: usize,
    /// All answers that are being read or handed over, together.
    pub memory: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            silence: Duration::from_secs(30),
            total: Duration::from_secs(120),
            size: 64 << 20,
            memory: 256 << 20,
        }
    }
}

/// The client of all pollers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    bounds: Bounds,
    memory: Arc<Semaphore>,
}

/// An answer with a status of success.
#[derive(Debug)]
pub struct Answer {
    /// Its headers.
    pub headers: HeaderMap,
    /// All of its body.
    pub body: Bytes,
    /// The body's share of the memory: kept until its rows are handed over.
    pub held: Held,
}

/// A share of the memory for bodies.
#[derive(Debug, Default)]
pub struct Held {
    permit: Option<OwnedSemaphorePermit>,
    bytes: usize,
}

/// What an exchange led to, and what its headers say in any case.
#[derive(Debug)]
pub struct Exchange {
    /// The answer, or why there is none.
    pub answer: Result<Answer, Fault>,
    /// The headers, where there were any.
    pub headers: HeaderMap,
}

impl Client {
    /// Builds it.
    ///
    /// # Errors
    /// Where TLS cannot be set up.
    pub fn new(bounds: Bounds) -> Result<Self, reqwest::Error> {
        let Bounds { connect, silence, total, .. } = bounds;
        let http = outbound::builder(Deadlines { connect, silence, total }).build()?;
        // A body that is over the bound must not wait for memory that there can never be.
        let memory = bounds.memory.max(bounds.size + GRAIN) / GRAIN;
        Ok(Self { http, bounds, memory: Arc::new(Semaphore::new(memory)) })
    }

    /// The largest answer that is read.
    #[must_use]
    pub const fn largest(&self) -> usize {
        self.bounds.size
    }

    /// Sends one request, and reads its answer.
    pub async fn exchange(
        &self,
        base_url: &str,
        request: &Request,
        opener: (HeaderName, HeaderValue),
        now: Millis,
    ) -> Exchange {
        let mut headers = HeaderMap::new();
        // The client has its own deadline; this one also covers waiting for memory.
        let whole = timeout(self.bounds.total, self.send(base_url, request, opener, now, &mut headers));
        let answer = match whole.await {
            Ok(answer) => answer,
            Err(_) => Err(Fault::TimedOut),
        };
        Exchange { answer, headers }
    }

    async fn send(
        &self,
        base_url: &str,
        request: &Request,
        (name, mut secret): (HeaderName, HeaderValue),
        now: Millis,
        headers: &mut HeaderMap,
    ) -> Result<Answer, Fault> {
        secret.set_sensitive(true);
        let url = format!("{base_url}{}", request.path);
        let builder = match &request.verb {
            Verb::Get => self.http.get(url),
            Verb::Post(body) => {
                self.http.post(url).header(http::header::CONTENT_TYPE, "application/json").body(body.clone())
            }
        };
        let sent = builder
            .query(&request.query)
            .header(http::header::ACCEPT, "application/json")
            .header(name, secret)
            .send()
            .await;
        let mut response = sent.map_err(fault_of)?;
        *headers = response.headers().clone();
        let status = response.status();
        if !status.is_success() {
            let mut reason = BytesMut::new();
            while reason.len() < REASON
                && let Ok(Some(piece)) = response.chunk().await
            {
                reason.extend_from_slice(&piece[..piece.len().min(REASON)]);
            }
            return Err(Fault::of_status(status, headers, &reason, now));
        }
        let too_large = || Fault::TooLarge(format!("{} MiB", self.bounds.size >> 20));
        let announced = response.content_length().unwrap_or(0);
        if announced > self.bounds.size as u64 {
            return Err(too_large());
        }
        let mut held = Held::default();
        let mut body = BytesMut::new();
        while let Some(piece) = response.chunk().await.map_err(fault_of)? {
            if body.len() + piece.len() > self.bounds.size {
                return Err(too_large());
            }
            held.grow(&self.memory, body.len() + piece.len()).await;
            body.extend_from_slice(&piece);
        }
        Ok(Answer { headers: headers.clone(), body: body.freeze(), held })
    }
}

fn fault_of(error: reqwest::Error) -> Fault {
    if error.is_timeout() {
        return Fault::TimedOut;
    }
    let is_redirect = error.is_redirect();
    let said = outbound::said(error);
    if is_redirect { Fault::Refused(said) } else { Fault::Host(said) }
}

impl Held {
    /// Waits for the memory that a body of so many bytes takes. The deadline is the caller's.
    async fn grow(&mut self, memory: &Arc<Semaphore>, bytes: usize) {
        let missing = bytes.div_ceil(GRAIN).saturating_sub(self.bytes / GRAIN);
        let Ok(grains) = u32::try_from(missing) else { return };
        if grains == 0 {
            return;
        }
        // The semaphore is never closed.
        if let Ok(more) = Arc::clone(memory).acquire_many_owned(grains).await {
            self.bytes += missing * GRAIN;
            match &mut self.permit {
                Some(permit) => permit.merge(more),
                None => self.permit = Some(more),
            }
        }
    }
}
