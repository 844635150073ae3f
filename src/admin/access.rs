//! Who may use `/v1`: whoever has the admin token; where none is configured, processes of this machine, and no web page
//! that a browser on it shows: the `Host` must be loopback's (a name that was bound anew is not), and a mutation must be
//! JSON or CSV by its `content-type` (which a page of another origin cannot send). Pure.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::extract::{ConnectInfo, FromRequestParts, Request};
use axum::http::header::{CONTENT_TYPE, HOST};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};

use super::problem::Problem;
use crate::intake::auth::{self, TokenDigest};

const DATA: [&str; 4] =
    ["application/json", "application/merge-patch+json", "application/x-ndjson", "text/csv"];

/// See the module.
#[derive(Debug, Clone)]
pub enum Access {
    /// Whoever has the token; it may be swapped while requests come.
    Token(Arc<ArcSwap<TokenDigest>>),
    /// No token is configured.
    Loopback,
}

impl Access {
    /// Whoever has this token.
    #[must_use]
    pub fn token(digest: TokenDigest) -> Self {
        Self::Token(Arc::new(ArcSwap::from_pointee(digest)))
    }

    /// Who asks, where the request may go on.
    pub(super) fn admits(&self, request: &Request) -> Result<Caller, Problem> {
        match self {
            Self::Token(digest) if auth::carries(request.headers(), &digest.load()) => {
                Ok(Caller { name: Arc::from("admin") })
            }
            Self::Token(_) => Err(Problem::new(
                StatusCode::UNAUTHORIZED,
                "the admin token is needed, as Authorization: Bearer TOKEN",
            )),
            Self::Loopback => from_loopback(request).map(|()| Caller { name: Arc::from("loopback") }),
        }
    }
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
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    if !peer.is_some_and(|ConnectInfo(peer)| peer.ip().to_canonical().is_loopback()) {
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

    #[test]
    fn with_a_token_only_the_token_counts() {
        let access = Access::token(TokenDigest::of("admin").unwrap());
        let away = "192.0.2.1:1";
        check(&access, &ask("GET", away, &[("authorization", "Bearer admin")]), Ok(()));
        check(&access, &ask("DELETE", away, &[("authorization", "admin")]), Ok(()));
        check(&access, &ask("GET", "127.0.0.1:1", &[("host", "localhost")]), Err(401));
        check(&access, &ask("GET", away, &[("authorization", "Bearer other")]), Err(401));
    }

    #[test]
    fn without_one_only_this_machine_is_answered_and_no_web_page() {
        let loopback = Access::Loopback;
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
