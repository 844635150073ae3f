//! What the process looks at again and again until it stops: the bus's topics and state, tokens in files, ages in the store.
//! Each is a loop that `app` spawns and cancels; none holds anything that a cancelled await would lose.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::{MutexGuard, watch};
use tokio::time::{sleep, timeout};

use super::reload::Reloader;
use super::secrets::Reading;
use crate::admin::{Access, AdminKey};
use crate::bus::{Bus, Finding};
use crate::config::{AdminToken, Config, SecretError, SecretSource};
use crate::deliver::lanes::Lanes;
use crate::event::{AccountId, Text};
use crate::intake::auth::{Key, Origin, TokenDigest};
use crate::intake::tokens::Registry;
use crate::intake::webhook::WebhookState;
use crate::replay::{Store, StoreHealth};

/// How often the bus's state is looked at for the pollers and for readiness.
const LOOK: Duration = Duration::from_millis(200);
/// How often an unreachable bus is asked for its topics again.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// How often tokens in files are read again.
const READ_AGAIN: Duration = Duration::from_secs(5);
/// How often it is written down when tokens were last used.
const LAST_USE: Duration = Duration::from_secs(60);
/// How long that may take: a stop waits for it.
const LAST_USE_SAVED: Duration = Duration::from_secs(3);
/// How often it is looked whether the store still comes to an end with what it does.
const HANGING: Duration = Duration::from_secs(1);
/// How often ages in the store are looked at.
const AGES: Duration = Duration::from_secs(600);

/// Something that is looked at again and again, until the process stops.
pub(super) type Looking = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Tokens from files are read again: a secret may be rotated without a restart. One that no header carries is as good as none.
pub(super) async fn look_at_tokens(reloader: Arc<Reloader>, hooks: WebhookState) {
    let mut reading = Reading::new();
    let mut said: HashSet<AccountId> = HashSet::new();
    loop {
        sleep(READ_AGAIN).await;
        let in_files = |running: &Config| -> Vec<(AccountId, SecretSource)> {
            let sources = running.accounts.iter().filter_map(|a| Some((a.id.clone(), a.webhook.clone()?)));
            sources.filter(|(_, source)| matches!(source, SecretSource::File(_))).collect()
        };
        let (sources, before) = wanted(&reloader, in_files).await;
        let tokens = reading.read(sources).await;
        let Some(_running) = unchanged(&reloader, before).await else { continue };
        for (account, token) in tokens {
            match token {
                Ok(token) => {
                    said.remove(&account);
                    let Some(digest) = TokenDigest::of(token.reveal()) else { continue };
                    let were = hooks.tokens.keys(&account, Origin::Config).unwrap_or_default();
                    if !were.iter().any(|key| key.is_of(&digest)) {
                        hooks.tokens.replace(&account, Origin::Config, [Key::of(digest)]);
                        tracing::info!(account = %account, "token.changed");
                    }
                }
                Err(error) => {
                    if said.insert(account.clone()) {
                        tracing::error!(account = %account, error = %error, "token.unreadable");
                    }
                }
            }
        }
    }
}

/// The same for the operator's tokens. Of one that cannot be read the last one stays in force.
pub(super) async fn look_at_admin_tokens(reloader: Arc<Reloader>, access: Access) {
    let mut reading = Reading::new();
    let mut said: HashSet<String> = HashSet::new();
    let mut twins = Vec::new();
    loop {
        sleep(READ_AGAIN).await;
        let sources = |running: &Config| -> Vec<(AdminToken, SecretSource)> {
            running.admin.tokens.iter().map(|token| (token.clone(), token.token.clone())).collect()
        };
        let (sources, before) = wanted(&reloader, sources).await;
        let read = reading.read(sources).await;
        let Some(running) = unchanged(&reloader, before).await else { continue };
        let mut keys = Vec::with_capacity(read.len());
        for (token, secret) in read {
            match secret {
                Ok(secret) => {
                    said.remove(&token.name);
                    keys.extend(AdminKey::of(&token, &secret));
                }
                Err(error) => {
                    if said.insert(token.name.clone()) {
                        tracing::error!(name = token.name, error = %error, "admin.token_unreadable");
                    }
                    keys.extend(access.key(&token.name));
                }
            }
        }
        let (mut keys, held_twice) = told_apart(keys, |name| access.key(name));
        for name in held_twice.iter().filter(|name| !twins.contains(*name)) {
            tracing::error!(
                name = &**name,
                error = "another token has this secret",
                "admin.token_unreadable"
            );
        }
        twins = held_twice;
        keys.sort_by_key(|key| running.admin.tokens.iter().position(|token| *token.name == *key.name));
        if access.replace(keys) {
            tracing::info!("admin.token_changed");
        }
    }
}

/// Of two tokens that have come to hold one secret, the one whose secret is new is as it was, as where it could not be read; and whose
/// those are. Else who writes might be let in as who reads.
fn told_apart(keys: Vec<AdminKey>, was: impl Fn(&str) -> Option<AdminKey>) -> (Vec<AdminKey>, Vec<Arc<str>>) {
    let (mut apart, mut held_twice) = (Vec::with_capacity(keys.len()), Vec::new());
    for key in &keys {
        let before = was(&key.name);
        let is_new = before.as_ref().is_none_or(|before| before.digest != key.digest);
        if is_new && keys.iter().any(|other| other.name != key.name && other.digest == key.digest) {
            held_twice.push(Arc::clone(&key.name));
            apart.extend(before);
        } else {
            apart.push(key.clone());
        }
    }
    (apart, held_twice)
}

/// What is to be read of a configuration, and which that was: read beside the reloads, for a disk that hangs holds none up.
async fn wanted<W>(reloader: &Reloader, what: impl FnOnce(&Config) -> W) -> (W, u64) {
    let running = reloader.running.lock().await;
    (what(&running), reloader.reloads.load(Ordering::Relaxed))
}

/// The configuration, held, unless a reload has read the same files since.
async fn unchanged(reloader: &Reloader, before: u64) -> Option<MutexGuard<'_, Config>> {
    let running = reloader.running.lock().await;
    (reloader.reloads.load(Ordering::Relaxed) == before).then_some(running)
}

/// Reads the operator's tokens.
pub(super) fn admin_keys(tokens: &[AdminToken]) -> Result<Vec<AdminKey>, SecretError> {
    let key = |token: &AdminToken| Ok(AdminKey::of(token, &token.token.read_sendable()?));
    tokens.iter().filter_map(|token| key(token).transpose()).collect()
}

/// When tokens of webhooks were last used is written down now and then: a crash forgets a minute of it.
pub(super) async fn look_at_last_use(tokens: Arc<Registry>) {
    loop {
        sleep(LAST_USE).await;
        note_last_use(&tokens).await;
    }
}

/// Writes it down now.
pub(super) async fn note_last_use(tokens: &Registry) {
    match timeout(LAST_USE_SAVED, tokens.flush()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(error = %error, "token.last_use_not_saved"),
        Err(_) => tracing::warn!(error = "no answer in time", "token.last_use_not_saved"),
    }
}

/// Looks the topics up until the bus answers, and says what is missing or weak.
pub(super) async fn ask_for_topics(bus: Arc<Bus>, lanes: Arc<Lanes>, topics: Vec<Text>) {
    loop {
        let findings = bus.check(&topics).await;
        let mut reached = true;
        for finding in &findings {
            match finding {
                Finding::Fine(what) => tracing::debug!(what, "bus.fine"),
                Finding::Made(what) => tracing::info!(what, "bus.made"),
                Finding::Weak(what) => tracing::warn!(what, "bus.weak"),
                Finding::Missing { what, command } => tracing::warn!(what, command, "bus.missing"),
                Finding::Unusable { what, fix } => tracing::warn!(what, fix, "bus.unusable"),
                Finding::Unreachable(what) => {
                    tracing::warn!(what, "bus.unreachable");
                    reached = false;
                }
                Finding::Barred { what, fix } => {
                    tracing::warn!(what, fix, "bus.unreachable");
                    reached = false;
                }
            }
        }
        if reached {
            lanes.probe_topics_now();
            tracing::info!("bus.checked");
            return;
        }
        sleep(ASK_AGAIN).await;
    }
}

/// Tells the pollers whether the bus takes events: while it does not, the provider is their store.
pub(super) async fn look_at_bus(bus: Arc<Bus>, lanes: Arc<Lanes>, available: watch::Sender<bool>) {
    let (mut lost, mut silent) = (None, false);
    loop {
        match (lanes.silent_for(), silent) {
            (Some(since), false) if lost.is_none() => {
                tracing::warn!(silent_s = since.as_secs(), "bus.silent");
                silent = true;
            }
            (None, true) => {
                tracing::info!("bus.heard");
                silent = false;
            }
            (Some(_), _) | (None, false) => {}
        }
        let reached = bus.is_available();
        if bus.has_news_of_topics() {
            lanes.probe_topics_now();
        }
        if !reached {
            lost.get_or_insert_with(Instant::now);
        } else if let Some(since) = lost.take() {
            lanes.probe_bus_now(since.elapsed());
        }
        let is = reached && !lanes.is_breaker_open();
        available.send_if_modified(|was| std::mem::replace(was, is) != is);
        sleep(LOOK).await;
    }
}

/// A disk that hangs fails nothing: nobody but who looks from outside can tell of it.
pub(super) async fn look_at_disk(store: Store) {
    let mut hangs = false;
    loop {
        sleep(HANGING).await;
        let is = store.health_now() == StoreHealth::Hanging;
        match (std::mem::replace(&mut hangs, is), is) {
            (false, true) => tracing::error!("store.hangs"),
            (true, false) => tracing::info!("store.goes_on"),
            (false, false) | (true, true) => {}
        }
    }
}

/// An alert a day before age removes what is parked.
pub(super) async fn look_at_ages(store: Store) {
    loop {
        let stats = store.stats(crate::clock::now());
        let (bus, operator) = (stats.expiring_for_bus, stats.expiring_for_operator);
        if bus + operator > 0 {
            tracing::error!(for_bus = bus, for_operator = operator, "parked.expires_within_a_day");
        }
        sleep(AGES).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Scope;
    use crate::event::Millis;
    use crate::intake::auth::Tokens;
    use crate::replay::{DataDir, Entry, StoreLimits};

    #[test]
    fn a_secret_that_another_token_has_is_not_taken_over() {
        let key = |name: &str, secret: &str| AdminKey {
            name: name.into(),
            scope: if name == "wr" { Scope::Write } else { Scope::Read },
            digest: TokenDigest::of(secret).unwrap(),
        };
        let was = [key("rd", "one"), key("wr", "two")];
        let told = |now: [AdminKey; 2]| {
            let (keys, twice) =
                told_apart(now.into(), |name| was.iter().find(|key| *key.name == *name).cloned());
            (keys, twice.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert_eq!(told([key("rd", "two"), key("wr", "two")]), (was.to_vec(), vec!["rd".to_owned()]));
        assert_eq!(told([key("rd", "one"), key("wr", "one")]), (was.to_vec(), vec!["wr".to_owned()]));
        let swapped = [key("rd", "two"), key("wr", "one")];
        assert_eq!(told(swapped.clone()), (swapped.to_vec(), vec![]));
        let (keys, twice) = told_apart(vec![key("a", "x"), key("b", "x")], |_| None);
        assert_eq!((keys.len(), twice.len()), (0, 2), "neither is known");
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_does_not_answer_holds_up_no_stop() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::lock(folder.path()).await.unwrap();
        // Nobody runs its writer.
        let (store, _writer, _) = Store::open(&dir, StoreLimits::default(), None).unwrap();
        // It ended long ago, and would be removed.
        let value = r#"{"prefix":"abc","digest":"00","created_at":0,"expires_at":1}"#.to_owned();
        let account = AccountId::new("acme");
        let ended = Entry { account: account.clone(), key: "1".to_owned(), value, saved_at: Millis(0) };
        let tokens = Registry::new(store, Arc::new(Tokens::new([account])), vec![ended]);
        note_last_use(&tokens).await;
    }
}
