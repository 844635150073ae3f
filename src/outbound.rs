//! HTTP to others, the pull APIs and the schema registry: how each client is built, and what its failures say. Invariants: an
//! exchange has its deadlines; no redirect leaves the host that was asked, so that no secret does, or makes another question of the one
//! asked; nothing that is asked of this machine goes through a proxy, which would read it; what is said names no URL.

use std::error::Error as _;
use std::net::IpAddr;
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{StatusCode, Url};

/// Redirects within a host.
const REDIRECTS: usize = 3;

/// By the others what was posted is asked for again without its body: for another window, perhaps.
const ASKS_THE_SAME: [StatusCode; 2] = [StatusCode::TEMPORARY_REDIRECT, StatusCode::PERMANENT_REDIRECT];

/// How long an exchange may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadlines {
    /// Until the connection is there.
    pub(crate) connect: Duration,
    /// The whole exchange.
    pub(crate) total: Duration,
}

/// How far away is whom a client asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// On this machine: plain HTTP may carry a secret there, and no proxy leads there.
    Loopback,
    /// Elsewhere: through a proxy, where the environment names one.
    Outside,
}

impl Way {
    /// Where a URL leads. One that cannot be read leads nowhere.
    pub(crate) fn to(url: &str) -> Self {
        Url::parse(url).map_or(Self::Outside, |url| Self::to_host_of(&url))
    }

    /// Where its host is.
    pub(crate) fn to_host_of(url: &Url) -> Self {
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if loopback { Self::Loopback } else { Self::Outside }
    }
}

/// What every client is built of.
pub(crate) fn builder(deadlines: Deadlines, way: Way) -> reqwest::ClientBuilder {
    let same_host = Policy::custom(|attempt| {
        let origin = |url: &Url| (url.scheme().to_owned(), url.host_str().map(str::to_owned), url.port());
        let first = attempt.previous().first().map(origin);
        if attempt.previous().len() > REDIRECTS {
            attempt.error("too many redirects")
        } else if first.as_ref() != Some(&origin(attempt.url())) {
            attempt.error("a redirect to another host is not followed")
        } else if !ASKS_THE_SAME.contains(&attempt.status()) {
            attempt
                .error("a redirect that may ask without what was asked for (not 307 or 308) is not followed")
        } else {
            attempt.follow()
        }
    });
    let builder = reqwest::Client::builder()
        .user_agent(concat!("fleetbus/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(deadlines.connect)
        .timeout(deadlines.total)
        .redirect(same_host)
        .gzip(true);
    match way {
        Way::Loopback => builder.no_proxy(),
        Way::Outside => builder,
    }
}

/// Whose certificates a client believes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Those that the system does.
    AsTheSystem,
    /// Nobody's, for the system has none: plain HTTP needs none.
    Nobody,
}

/// Builds a client, also on a system without CA certificates, as far as one is possible there.
///
/// # Errors
/// Where TLS cannot be set up for another reason.
pub(crate) fn build(
    builder: impl Fn() -> reqwest::ClientBuilder,
) -> reqwest::Result<(reqwest::Client, Trust)> {
    if let Ok(client) = builder().build() {
        return Ok((client, Trust::AsTheSystem));
    }
    builder().tls_certs_only([]).build().map(|client| (client, Trust::Nobody))
}

/// Builds a client of one address: where that is plain HTTP, also on a system without CA certificates.
///
/// # Errors
/// Where TLS cannot be set up, and is needed.
pub(crate) fn build_for(
    url: &str,
    builder: impl Fn() -> reqwest::ClientBuilder,
) -> reqwest::Result<reqwest::Client> {
    if url.starts_with("https:") { builder().build() } else { build(builder).map(|(client, _)| client) }
}

/// A failure without its URL, and its causes, which say what is wrong.
pub(crate) fn said(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        let text = source.to_string();
        if !said.contains(&text) {
            said = format!("{said}: {text}");
        }
        cause = source.source();
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_leads_to_this_machine_or_outside() {
        let check = |url: &str, way: Way| assert_eq!(Way::to(url), way, "{url}");
        check("http://127.0.0.1:8080/v2", Way::Loopback);
        check("http://127.8.9.10", Way::Loopback);
        check("http://[::1]:8080", Way::Loopback);
        check("https://localhost/v2", Way::Loopback);
        check("https://app02.linxup.com", Way::Outside);
        check("http://127.0.0.1.example", Way::Outside);
        check("nowhere", Way::Outside);
    }
}
