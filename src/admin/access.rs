//! Who may use `/v1`: whoever has an admin token whose scope suffices; where none is configured, processes of this machine,
//! and no web page that a browser on it shows: the `Host` must be loopback's (a name that was bound anew is not), and a
//! mutation must be of a content type that a page of another origin cannot send. Guesses are slowed (`throttle`).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use axum::extract::{ConnectInfo, FromRequestParts, Request};
use axum::http::header::{CONTENT_TYPE, HOST};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use parking_lot::Mutex;

use super::problem::Problem;
use super::throttle::Throttle;
use crate::config::{AdminToken, Scope, Secret};
use crate::intake::auth::{self, TokenDigest};

/// What no form and no script of another origin sends unasked.
const DATA: [&str; 4] =
    ["application/json", "application/merge-patch+json", "application/x-ndjson", "text/csv"];

/// An admin token: of it only the digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminKey {
    /// What the audit log calls its holder.
    pub name: Arc<str>,
    /// What it opens.
    pub scope: Scope,
    /// What proves it.
    pub digest: TokenDigest,
}

impl AdminKey {
    /// Of what the configuration says of it; none where the secret is but blanks.
    #[must_use]
    pub fn of(token: &AdminToken, secret: &Secret) -> Option<Self> {
        let digest = TokenDigest::of(secret.reveal())?;
        Some(Self { name: Arc::from(token.name.as_str()), scope: token.scope, digest })
    }
}

/// See the module. Cheap to clone: all clones are one.
#[derive(Debug, Clone)]
pub struct Access {
    keys: Arc<ArcSwap<Vec<AdminKey>>>,
    throttle: Arc<Mutex<Throttle>>,
}

impl Access {
    /// Whoever has one of these; none: this machine.
    #[must_use]
    pub fn new(keys: Vec<AdminKey>) -> Self {
        let throttle = Throttle::new(Instant::now());
        Self { keys: Arc::new(ArcSwap::from_pointee(keys)), throttle: Arc::new(Mutex::new(throttle)) }
    }

    /// From the next request on it is these. Whether that is news.
    pub fn replace(&self, keys: Vec<AdminKey>) -> bool {
        let is_news = **self.keys.load() != keys;
        if is_news {
            self.keys.store(Arc::new(keys));
        }
        is_news
    }

    /// What opens for this holder.
    #[must_use]
    pub fn key(&self, name: &str) -> Option<AdminKey> {
        self.keys.load().iter().find(|key| *key.name == *name).cloned()
    }

    /// Who asks, where the request may go on.
    pub(super) fn admits(&self, request: &Request) -> Result<Caller, Problem> {
        let keys = self.keys.load();
        if keys.is_empty() {
            return from_loopback(request).map(|()| Caller { name: Arc::from("loopback") });
        }
        // Who sends none guesses none: a page that waits for its token must not shut others of that address out.
        if !auth::carries_any(request.headers()) {
            let why = "the admin token is needed, as Authorization: Bearer TOKEN";
            return Err(Problem::new(StatusCode::UNAUTHORIZED, why));
        }
        let peer = peer(request);
        let slow = |wait| {
            let why = "too many wrong admin tokens came from there lately";
            Problem::new(StatusCode::TOO_MANY_REQUESTS, why).after(wait)
        };
        self.throttle.lock().may_try(peer, Instant::now()).map_err(slow)?;
        // Each is compared, whichever fits: the time does not tell which.
        let fits = keys.iter().filter(|key| auth::carries(request.headers(), &key.digest));
        let Some(key) = fits.reduce(|first, _| first) else {
            self.throttle.lock().refused(peer, Instant::now());
            let why = "the token that was sent is no admin token of this bridge";
            return Err(Problem::new(StatusCode::UNAUTHORIZED, why));
        };
        self.throttle.lock().let_in(peer, Instant::now());
        match key.scope {
            Scope::Read if mutates(request.method()) => {
                let why =
                    format!("the admin token {} may only read: a change needs one of scope write", key.name);
                Err(Problem::new(StatusCode::FORBIDDEN, why))
            }
            Scope::Read | Scope::Write => Ok(Caller { name: Arc::clone(&key.name) }),
        }
    }
}

/// Whence it comes; who cannot be told apart is one.
fn peer(request: &Request) -> IpAddr {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ConnectInfo(peer)| peer.ip())
}

/// Who asks: what the audit log names. Each `/v1` request carries one that `Access` let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    /// The name of the admin token, or `loopback`.
    pub(super) name: Arc<str>,
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let unguarded =
            || Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the request was not let in by anybody");
        parts.extensions.get().cloned().ok_or_else(unguarded)
    }
}

fn from_loopback(request: &Request) -> Result<(), Problem> {
    let forbidden = |why| Err(Problem::new(StatusCode::FORBIDDEN, why));
    if !peer(request).to_canonical().is_loopback() {
        return forbidden("no admin token is configured, so only this machine is answered: set admin.token");
    }
    let host = request.headers().get(HOST).map(|host| host.to_str().unwrap_or_default());
    let host = host.or_else(|| request.uri().authority().map(|authority| authority.as_str()));
    if !host.is_some_and(is_loopback) {
        return forbidden(
            "no admin token is configured, so only a loopback Host is answered: use 127.0.0.1, or set admin.token",
        );
    }
    if !mutates(request.method()) || is_data(request) {
        return Ok(());
    }
    let why = "no admin token is configured, so a change must be sent as content-type: application/json";
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, why))
}

fn mutates(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
}

/// A content type that no form and no script of another origin sends unasked.
fn is_data(request: &Request) -> bool {
    let value = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let value = value.split(';').next().unwrap_or_default().trim();
    DATA.iter().any(|data| value.eq_ignore_ascii_case(data))
}

/// Whether a `Host` names this machine, with or without a port.
fn is_loopback(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, rest)) => (name, rest.strip_prefix(':').or(rest.is_empty().then_some("0"))),
        None => host.split_once(':').map_or((host, Some("0")), |(name, port)| (name, Some(port))),
    };
    let named = name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback());
    named && port.is_some_and(|port| port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::HeaderName;

    fn ask(method: &str, peer: &str, headers: &[(&str, &str)]) -> Request {
        let mut request = Request::builder().method(method).uri("/v1/parked").body(Body::empty()).unwrap();
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        request.extensions_mut().insert(ConnectInfo(peer.parse::<SocketAddr>().unwrap()));
        request
    }

    #[track_caller]
    fn check(access: &Access, request: &Request, expected: Result<(), u16>) {
        let got = access.admits(request).map(|_| ()).map_err(|problem| problem.status().as_u16());
        assert_eq!(got, expected);
    }

    fn key(name: &str, scope: Scope, token: &str) -> AdminKey {
        AdminKey { name: Arc::from(name), scope, digest: TokenDigest::of(token).unwrap() }
    }

    #[test]
    fn a_reader_looks_and_changes_nothing() {
        let keys = vec![key("admin", Scope::Write, "w"), key("grafana", Scope::Read, "r")];
        let access = Access::new(keys.clone());
        let away = "192.0.2.1:1";
        check(&access, &ask("GET", away, &[("authorization", "Bearer r")]), Ok(()));
        check(&access, &ask("POST", away, &[("authorization", "Bearer r")]), Err(403));
        check(&access, &ask("DELETE", away, &[("authorization", "Bearer r")]), Err(403));
        check(&access, &ask("POST", away, &[("authorization", "Bearer w")]), Ok(()));
        let caller = access.admits(&ask("GET", away, &[("authorization", "r")])).unwrap();
        assert_eq!(&*caller.name, "grafana");
        assert!(!access.replace(keys));
        assert!(access.replace(vec![key("admin", Scope::Write, "new")]));
        check(&access, &ask("GET", away, &[("authorization", "Bearer r")]), Err(401));
    }

    #[test]
    fn who_guesses_waits_and_hinders_nobody_else() {
        let access = Access::new(vec![key("admin", Scope::Write, "admin")]);
        let (guesser, other) = ("192.0.2.1:1", "192.0.2.2:1");
        for _ in 0..10 {
            check(&access, &ask("GET", guesser, &[("authorization", "Bearer guess")]), Err(401));
        }
        check(&access, &ask("GET", guesser, &[("authorization", "Bearer admin")]), Err(429));
        check(&access, &ask("GET", other, &[("authorization", "Bearer admin")]), Ok(()));
    }

    #[test]
    fn with_a_token_only_the_token_counts() {
        let access = Access::new(vec![key("admin", Scope::Write, "admin")]);
        let away = "192.0.2.1:1";
        check(&access, &ask("GET", away, &[("authorization", "Bearer admin")]), Ok(()));
        check(&access, &ask("DELETE", away, &[("authorization", "admin")]), Ok(()));
        check(&access, &ask("GET", "127.0.0.1:1", &[("host", "localhost")]), Err(401));
        check(&access, &ask("GET", away, &[("authorization", "Bearer other")]), Err(401));
    }

    #[test]
    fn without_one_only_this_machine_is_answered_and_no_web_page() {
        let loopback = Access::new(Vec::new());
        let local = "127.0.0.1:1";
        let json = ("content-type", "application/json; charset=utf-8");
        check(&loopback, &ask("GET", local, &[("host", "localhost:9090")]), Ok(()));
        check(&loopback, &ask("GET", "[::1]:1", &[("host", "[::1]:9090")]), Ok(()));
        check(&loopback, &ask("GET", "[::ffff:127.0.0.1]:1", &[("host", "127.0.0.1")]), Ok(()));
        check(&loopback, &ask("GET", "192.0.2.1:1", &[("host", "localhost")]), Err(403));
        check(&loopback, &ask("GET", local, &[("host", "evil.example")]), Err(403));
        check(&loopback, &ask("GET", local, &[("host", "127.0.0.1.evil.example")]), Err(403));
        check(&loopback, &ask("GET", local, &[("host", "localhost:x")]), Err(403));
        check(&loopback, &ask("GET", local, &[]), Err(403));
        check(&loopback, &ask("POST", local, &[("host", "localhost"), json]), Ok(()));
        check(&loopback, &ask("POST", local, &[("host", "localhost")]), Err(415));
        check(&loopback, &ask("DELETE", local, &[("host", "localhost")]), Err(415));
        check(
            &loopback,
            &ask("POST", local, &[("host", "localhost"), ("content-type", "text/plain")]),
            Err(415),
        );
    }
}
