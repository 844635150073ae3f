//! The page at `/`: one file, no outside resources. It holds nothing that is secret, so that it is open to all; what it
//! shows it asks of `/v1`, with the token that its reader types.

use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use axum::http::header::{HeaderName, X_CONTENT_TYPE_OPTIONS};

/// The page.
pub const CONSOLE: &str = include_str!("console.html");

/// What it may do: talk to where it came from, and nothing else. It writes text only as text.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `GET /`.
pub(super) async fn page() -> ([(HeaderName, &'static str); 5], &'static str) {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (CACHE_CONTROL, "no-cache"),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, CONSOLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_needs_nothing_from_elsewhere_and_writes_no_markup() {
        for outside in ["src=\"http", "href=\"http", "@import", "url(", "//cdn", "integrity="] {
            assert!(!CONSOLE.contains(outside), "{outside}");
        }
        for markup in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!CONSOLE.contains(markup), "{markup}");
        }
    }
}
