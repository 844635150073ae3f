//! One HTTP exchange with a polled host: a body that is bounded while it streams, and faults that carry no secret. Invariant:
//! bodies in memory are bounded together, whoever polls whom, and one that drips holds up those of its own size at most.
//! Neighbours: `outbound` builds the client, `host` says what to send, `fault` says what an answer means.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::bucket::Class;
use super::fault::Fault;
use super::request::{Request, Verb};
use crate::event::Millis;
use crate::outbound::{self, Deadlines, Trust, Way};

const NO_CERTIFICATES: &str = "this system has no CA certificates: install them (ca-certificates), or name a file of them in SSL_CERT_FILE";
const NO_PLACE: &str = "other answers have all the memory that there is for large ones";
/// The beginning of a failed answer's body, which may say why it failed.
const REASON: usize = 16 << 10;
/// How long it is waited for.
const REASON_WITHIN: Duration = Duration::from_secs(2);
/// A body of up to so many bytes has a place by its host's lines alone; a larger one by this, and one that is larger still.
const SMALL: usize = 256 << 10;
const MEDIUM: usize = 4 << 20;
/// Bodies of one host that are not small: fewer than there are places.
const OWN: usize = 2;
/// Those of them that sweeps and backfills may have: one is left for live feeds.
const REST: usize = OWN - 1;

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
    /// What asks this machine, and what asks others.
    near: reqwest::Client,
    far: reqwest::Client,
    trust: Trust,
    bounds: Bounds,
    places: Places,
}

/// Places of bodies that are not small: by host, and by size. A body that grows waits for the next with those that it has, in this
/// order; who has the last of them waits for nothing. So nobody waits in a circle.
#[derive(Debug, Clone)]
struct Places {
    rest: Arc<Semaphore>,
    own: Arc<Semaphore>,
    medium: Arc<Semaphore>,
    large: Arc<Semaphore>,
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

/// A body's place.
#[derive(Debug, Default)]
pub struct Held {
    rest: Option<OwnedSemaphorePermit>,
    own: Option<OwnedSemaphorePermit>,
    medium: Option<OwnedSemaphorePermit>,
    large: Option<OwnedSemaphorePermit>,
    /// It waits for one.
    waits: bool,
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
        let Bounds { connect, total, .. } = bounds;
        let client = |way| outbound::build(|| outbound::builder(Deadlines { connect, total }, way));
        let ((near, _), (far, trust)) = (client(Way::Loopback)?, client(Way::Outside)?);
        let places = |memory: usize, size: usize| Arc::new(Semaphore::new((memory / size.max(1)).max(1)));
        let places = Places {
            rest: Arc::new(Semaphore::new(REST)),
            own: Arc::new(Semaphore::new(OWN)),
            medium: places(bounds.memory / 4, MEDIUM),
            large: places(bounds.memory / 4 * 3, bounds.size),
        };
        Ok(Self { near, far, trust, bounds, places })
    }

    /// The same for another host.
    #[must_use]
    pub fn of_another(&self) -> Self {
        let [rest, own] = [REST, OWN].map(|places| Arc::new(Semaphore::new(places)));
        Self { places: Places { rest, own, ..self.places.clone() }, ..self.clone() }
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
        class: Class,
    ) -> Exchange {
        let mut headers = HeaderMap::new();
        // The client has its own deadline; this one also covers waiting for memory.
        let mut held = Held::default();
        let sent = self.send(base_url, request, opener, now, class, (&mut headers, &mut held));
        let answer = match timeout(self.bounds.total, sent).await {
            Ok(answer) => answer.map(|(headers, body)| Answer { headers, body, held }),
            // The host is not to blame.
            Err(_) if held.waits => Err(Fault::Refused(NO_PLACE.to_owned())),
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
        class: Class,
        (headers, held): (&mut HeaderMap, &mut Held),
    ) -> Result<(HeaderMap, Bytes), Fault> {
        secret.set_sensitive(true);
        let url = format!("{base_url}{}", request.path);
        if self.trust == Trust::Nobody && url.starts_with("https:") {
            return Err(Fault::Host(NO_CERTIFICATES.to_owned()));
        }
        let client = match Way::to(base_url) {
            Way::Loopback => &self.near,
            Way::Outside => &self.far,
        };
        let builder = match &request.verb {
            Verb::Get => client.get(url),
            Verb::Post(body) => {
                client.post(url).header(http::header::CONTENT_TYPE, "application/json").body(body.clone())
            }
        };
        let sending = builder
            .query(&request.query)
            .header(http::header::ACCEPT, "application/json")
            .header(name, secret)
            .send();
        let mut response = self.heard(sending).await?;
        *headers = response.headers().clone();
        let status = response.status();
        if !status.is_success() {
            let mut reason = BytesMut::new();
            let reading = async {
                while reason.len() < REASON
                    && let Ok(Some(piece)) = response.chunk().await
                {
                    reason.extend_from_slice(&piece[..piece.len().min(REASON)]);
                }
            };
            // What the status and the headers say is heeded without the rest.
            timeout(REASON_WITHIN, reading).await.ok();
            return Err(Fault::of_status(status, headers, &reason, now));
        }
        let too_large = || Fault::TooLarge(format!("{} MiB", self.bounds.size >> 20));
        let announced = response.content_length().unwrap_or(0);
        if announced > self.bounds.size as u64 {
            return Err(too_large());
        }
        let mut body = BytesMut::new();
        while let Some(piece) = self.heard(response.chunk()).await? {
            if body.len() + piece.len() > self.bounds.size {
                return Err(too_large());
            }
            held.grow(&self.places, class, body.len() + piece.len()).await;
            body.extend_from_slice(&piece);
        }
        Ok((headers.clone(), body.freeze()))
    }

    /// What the host is silent for too long with. A wait for a place is not its silence, which a timer of the client's would take
    /// it for.
    async fn heard<T>(&self, hears: impl Future<Output = Result<T, reqwest::Error>>) -> Result<T, Fault> {
        match timeout(self.bounds.silence, hears).await {
            Ok(heard) => heard.map_err(fault_of),
            Err(_) => Err(Fault::TimedOut),
        }
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
    /// Waits for a place that a body of so many bytes takes. The deadline is the caller's.
    async fn grow(&mut self, places: &Places, class: Class, bytes: usize) {
        if bytes <= SMALL || self.large.is_some() || (bytes <= MEDIUM && self.medium.is_some()) {
            return;
        }
        self.waits = true;
        if self.own.is_none() {
            self.rest = match class {
                Class::Rest => place(&places.rest).await,
                Class::Live => None,
            };
            self.own = place(&places.own).await;
        }
        if bytes <= MEDIUM {
            self.medium = place(&places.medium).await;
        } else {
            self.large = place(&places.large).await;
            self.medium = None;
        }
        self.waits = false;
    }
}

/// The semaphores are never closed.
async fn place(of: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    Arc::clone(of).acquire_owned().await.ok()
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn sweeps_and_backfills_leave_their_host_a_place_for_a_large_answer_of_a_live_feed() {
        let places = Client::new(Bounds::default()).unwrap().places;
        let [mut first, mut second, mut live] = std::array::from_fn(|_| Held::default());
        let has = |held: &mut Held, class| held.grow(&places, class, SMALL + 1).now_or_never().is_some();
        assert!(has(&mut first, Class::Rest));
        assert!(!has(&mut second, Class::Rest));
        assert!(has(&mut live, Class::Live));
        drop(first);
        assert!(has(&mut second, Class::Rest));
    }
}
