//! What acceptance keeps in the store beside events: raw bytes that could not be decoded, and what was learnt of an account. The
//! spelling of a source is the store's: what is written there is read by every later version.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{Account, COME_AGAIN, Inner, Refusal, Way};
use crate::provider::{Feed, PullApi, Source};
use crate::replay::{Entry, ParkError, ParkedRaw, RawReason, Table};

/// How long the store may take with raw bytes, states and pairs.
const STORE_PATIENCE: Duration = Duration::from_secs(10);

impl Inner {
    pub(super) fn raw(
        &self,
        account: &Account,
        way: &Way,
        reason: RawReason,
        error: String,
        body: Bytes,
    ) -> ParkedRaw {
        tracing::debug!(account = %account.id, reason = reason.as_str(), "message.parked_raw");
        ParkedRaw {
            account: account.id.clone(),
            source: source_text(&way.source),
            received_at: way.received_at,
            reason,
            error,
            body,
        }
    }

    /// Parks raw bytes, all in one commit where that can be, and waits until all are durable.
    pub(super) async fn park_raw(&self, raws: Vec<ParkedRaw>) -> Result<(), Refusal> {
        if raws.is_empty() {
            return Ok(());
        }
        let (tell, told) = oneshot::channel();
        // Whoever waits may have given up: the rows are kept all the same.
        let done = Box::new(move |kept: Result<(), ParkError>| tell.send(kept.is_ok()).unwrap_or_default());
        let kept = match self.store.park_raw(raws, done) {
            Ok(()) => timeout(STORE_PATIENCE, told).await.is_ok_and(|kept| kept == Ok(true)),
            Err(_) => false,
        };
        if kept { Ok(()) } else { Err(Refusal::NotKept { retry_after: COME_AGAIN }) }
    }

    /// Writes down what was learnt. Where that fails it is learnt again: ids that depend on it check both.
    pub(super) async fn save(
        &self,
        account: &Account,
        table: Table,
        rows: impl Iterator<Item = (String, String)> + Send,
    ) {
        let saved_at = crate::clock::now();
        let entry = |(key, value)| Entry { account: account.id.clone(), key, value, saved_at };
        let entries: Vec<Entry> = rows.map(entry).collect();
        if entries.is_empty() {
            return;
        }
        match timeout(STORE_PATIENCE, self.store.put(table, entries)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(account = %account.id, error = %error, "account.not_saved"),
            Err(_) => tracing::warn!(account = %account.id, "account.not_saved"),
        }
    }
}

/// A key or value as the store keeps it.
pub(super) fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// The spelling of a source in the store.
fn source_text(source: &Source) -> String {
    match source {
        Source::Push { hint: None } => "push".to_owned(),
        Source::Push { hint: Some(hint) } => format!("push/{hint}"),
        Source::Pull { api, feed } => format!("{}/{}", api.as_str(), feed.as_str()),
    }
}

/// The source whose spelling is `text`.
pub(super) fn source_of(text: &str) -> Option<Source> {
    let (kind, rest) = text.split_once('/').map_or((text, None), |(kind, rest)| (kind, Some(rest)));
    match kind {
        "push" => Some(Source::Push { hint: rest.map(str::to_owned) }),
        api => Some(Source::Pull { api: PullApi::parse(api)?, feed: Feed::parse(rest?)? }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_read_as_it_was_written() {
        let sources = [
            Source::Push { hint: None },
            Source::Push { hint: Some("stop".to_owned()) },
            Source::Pull { api: PullApi::V2, feed: Feed::UsageHours },
            Source::Pull { api: PullApi::V3, feed: Feed::Positions },
        ];
        for source in sources {
            assert_eq!(source_of(&source_text(&source)), Some(source));
        }
        assert_eq!(source_of("v2/nothing"), None);
        assert_eq!(source_of("v4/stops"), None);
    }
}
