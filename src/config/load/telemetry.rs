//! Where spans go. Off where it is left out: then nothing of it runs.

use super::Walk;
use super::values::{At, Wire, carries_secrets};
use crate::config::Otlp;
use crate::config::tree::Fields;

impl Walk<'_> {
    pub(super) fn telemetry(&mut self, fields: &mut Fields<'_>) -> Option<Otlp> {
        let mut map = self.map(fields, "telemetry")?;
        let at = At::in_map(&map, "otlp");
        let otlp = self.map(&mut map, "otlp");
        if otlp.is_none() {
            self.add(&at, "is missing", "name a collector, or leave `telemetry` out");
        }
        map.finish(&mut self.problems);
        let mut otlp = otlp?;
        let endpoint = self.required(&mut otlp, "endpoint", "write e.g. http://collector:4318");
        let sample = self.text(&mut otlp, "sample").map_or(1.0, |(text, at)| {
            text.parse().ok().filter(|share| (0.0..=1.0).contains(share)).unwrap_or_else(|| {
                self.add(&at, "is not a share from 0 to 1", "write 0.1 to keep a tenth");
                1.0
            })
        });
        let at_token = At::in_map(&otlp, "token");
        let token = self.secret(&mut otlp, "token").inspect(|token| {
            self.goes_in_a_header(token, &at_token);
        });
        if let Some((endpoint, at)) = &endpoint {
            self.collector(endpoint, at, if token.is_some() { Wire::Secret } else { Wire::Open });
        }
        otlp.finish(&mut self.problems);
        Some(Otlp { endpoint: without_slash(&endpoint?.0).to_owned(), sample, token })
    }

    fn collector(&mut self, endpoint: &str, at: &At, wire: Wire) {
        let fix = "write e.g. http://collector:4318, the port of OTLP over HTTP";
        // Who sends the spans reads it more strictly than a browser would.
        let sent_to = format!("{}/v1/traces", without_slash(endpoint)).parse::<http::Uri>();
        if !sent_to.is_ok_and(|uri| uri.scheme().is_some() && uri.host().is_some_and(|host| !host.is_empty()))
        {
            self.add(at, "is not the address of a collector", fix);
            return;
        }
        match reqwest::Url::parse(endpoint) {
            Ok(url) if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() => {
                self.add(at, "is not the address of a collector", fix);
            }
            Ok(url) if wire == Wire::Secret && !carries_secrets(&url) => {
                self.add(at, "is neither https, nor http on loopback", "write https: it carries `token`");
            }
            Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                self.add(at, "holds a user or a secret", "write `token` beside it");
            }
            Ok(url) if url.query().is_some() || url.fragment().is_some() => {
                self.add(
                    at,
                    "has a query or a fragment",
                    "leave it out: /v1/traces is added behind; a secret is `token`",
                );
            }
            Ok(url) if url.path().trim_end_matches('/').ends_with("/v1/traces") => {
                self.add(at, "ends in /v1/traces", "leave it out: it is added");
            }
            Ok(_) => {}
            Err(_) => self.add(at, "is not the address of a collector", fix),
        }
    }
}

/// As requests are made under it.
fn without_slash(endpoint: &str) -> &str {
    endpoint.trim_end_matches('/')
}
