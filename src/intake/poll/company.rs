//! `GET /company`, once at start: confirms that a V2 token and its host belong together, and warns where the account lives
//! elsewhere. Feeds do not wait for it. Neighbour: `host` makes the call.

use std::time::Duration;

use serde_json::Value;
use tokio::time::sleep;

use super::bucket::Class;
use super::fault::Fault;
use super::host::Host;
use super::request::get;
use crate::event::AccountId;

/// A host's name is no longer: what a provider says goes into our log.
const HOST_CHARS: usize = 253;
/// The first and the longest pause between two attempts.
const PAUSE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3_600));

/// Asks until there is an answer.
pub(super) async fn confirm(account: &AccountId, base_url: &str, host: &Host) {
    let mut pause = PAUSE.0;
    loop {
        match host.call(&get("/company", Vec::new()), Class::Rest).await {
            Ok(answer) => {
                match api_host(&answer.body) {
                    Some(api_host) if Some(&api_host) != host_of(base_url).as_ref() => {
                        tracing::warn!(%account, base_url, api_host, "poll.other_host");
                    }
                    Some(_) => tracing::info!(%account, base_url, "poll.host_confirmed"),
                    None => tracing::info!(%account, base_url, "poll.host_unconfirmed"),
                }
                return;
            }
            // Some tokens may not ask; the feeds will tell whether it works.
            Err(fault @ (Fault::Refused(_) | Fault::TooLarge(_))) => {
                tracing::info!(%account, base_url, error = %fault, "poll.host_unconfirmed");
                return;
            }
            Err(Fault::Host(_) | Fault::TimedOut | Fault::Unauthorized(_) | Fault::Limited(_)) => {}
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// The host in an answer, in its envelope or without, as a name or as a URL.
fn api_host(body: &[u8]) -> Option<String> {
    let said: Value = serde_json::from_slice(body).ok()?;
    let company = said.get("data").unwrap_or(&said);
    host_of(company.get("apiHost")?.as_str()?)
}

fn host_of(text: &str) -> Option<String> {
    let text = text.trim();
    let bare = text.split_once("://").map_or(text, |(_, rest)| rest);
    let host = bare.split(['/', ':', '?']).next().unwrap_or_default();
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    ((1..=HOST_CHARS).contains(&host.len()) && host.chars().all(legal)).then(|| host.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accounts_host_is_found_however_it_is_written() {
        let check = |body: &str, expected: Option<&str>| {
            assert_eq!(api_host(body.as_bytes()).as_deref(), expected, "{body}");
        };
        check(r#"{"apiHost":"app02.linxup.com"}"#, Some("app02.linxup.com"));
        check(
            r#"{"responseType":"Success","data":{"apiHost":"https://APP02.linxup.com/ibis"}}"#,
            Some("app02.linxup.com"),
        );
        check(r#"{"data":{"apiHost":null}}"#, None);
        check(r#"{"apiHost":""}"#, None);
        check("<html>", None);
        check(r#"{"apiHost":"a b"}"#, None);
        check(&format!(r#"{{"apiHost":"{}"}}"#, "a".repeat(254)), None);
        assert_eq!(host_of("https://app02.linxup.com/ibis/rest/api/v2").as_deref(), Some("app02.linxup.com"));
    }
}
