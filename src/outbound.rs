//! HTTP to others, the pull APIs and the schema registry: how each client is built, and what its failures say. Invariants: an
//! exchange has its deadlines; no redirect leaves the host that was asked, so that no secret does; what is said names no URL.

use std::error::Error as _;
use std::time::Duration;

use reqwest::redirect::Policy;

/// Redirects within a host.
const REDIRECTS: usize = 3;

/// How long an exchange may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadlines {
    /// Until the connection is there.
    pub(crate) connect: Duration,
    /// Between two pieces of the answer, and until the first.
    pub(crate) silence: Duration,
    /// The whole exchange.
    pub(crate) total: Duration,
}

/// What every client is built of.
pub(crate) fn builder(deadlines: Deadlines) -> reqwest::ClientBuilder {
    let same_host = Policy::custom(|attempt| {
        let origin =
            |url: &reqwest::Url| (url.scheme().to_owned(), url.host_str().map(str::to_owned), url.port());
        let first = attempt.previous().first().map(origin);
        if attempt.previous().len() > REDIRECTS {
            attempt.error("too many redirects")
        } else if first.as_ref() == Some(&origin(attempt.url())) {
            attempt.follow()
        } else {
            attempt.error("a redirect to another host is not followed")
        }
    });
    reqwest::Client::builder()
        .user_agent(concat!("fleetbus/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(deadlines.connect)
        .read_timeout(deadlines.silence)
        .timeout(deadlines.total)
        .redirect(same_host)
        .gzip(true)
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
