//! What the process looks at again and again until it stops: the bus's topics and state, tokens in files, ages in the store.
//! Each is a loop that `app` spawns and cancels; none holds anything that a cancelled await would lose.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::bus::{Bus, Finding};
use crate::config::{self, SecretSource};
use crate::deliver::lanes::Lanes;
use crate::event::AccountId;
use crate::intake::auth::{Origin, TokenDigest};
use crate::intake::webhook::WebhookState;
use crate::replay::Store;

/// How often the bus's state is looked at for the pollers and for readiness.
const LOOK: Duration = Duration::from_millis(200);
/// How often an unreachable bus is asked for its topics again.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// How often tokens in files are read again.
const READ_AGAIN: Duration = Duration::from_secs(5);
/// How often ages in the store are looked at.
const AGES: Duration = Duration::from_secs(600);

/// Something that is looked at again and again, until the process stops.
pub(super) type Looking = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Tokens from files are read again: a secret may be rotated without a restart.
pub(super) async fn look_at_tokens(accounts: Vec<config::Account>, hooks: WebhookState) {
    let mut said: HashSet<AccountId> = HashSet::new();
    loop {
        sleep(READ_AGAIN).await;
        for account in &accounts {
            let Some(source @ SecretSource::File(_)) = &account.webhook else { continue };
            match source.read() {
                Ok(token) => {
                    said.remove(&account.id);
                    let digest = TokenDigest::of(token.reveal());
                    hooks.tokens.replace(&account.id, Origin::Config, digest.as_slice());
                }
                Err(error) => {
                    if said.insert(account.id.clone()) {
                        tracing::error!(account = %account.id, error = %error, "token.unreadable");
                    }
                }
            }
        }
    }
}

/// The same for the operator's token. One that cannot be read leaves the last one in force.
pub(super) async fn look_at_admin_token(source: SecretSource, live: Arc<ArcSwap<TokenDigest>>) {
    let mut failing = false;
    loop {
        sleep(READ_AGAIN).await;
        match source.read() {
            Ok(token) => {
                failing = false;
                if let Some(digest) = TokenDigest::of(token.reveal())
                    && **live.load() != digest
                {
                    live.store(Arc::new(digest));
                    tracing::info!("admin.token_changed");
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::error!(error = %error, "admin.token_unreadable");
                }
            }
        }
    }
}

/// Looks the topics up until the bus answers, and says what is missing or weak.
pub(super) async fn ask_for_topics(bus: Arc<Bus>, lanes: Arc<Lanes>, topics: Vec<Arc<str>>) {
    loop {
        let findings = bus.check(&topics).await;
        let mut reached = true;
        for finding in &findings {
            match finding {
                Finding::Fine(what) => tracing::debug!(what, "bus.fine"),
                Finding::Made(what) => tracing::info!(what, "bus.made"),
                Finding::Weak(what) => tracing::warn!(what, "bus.weak"),
                Finding::Missing { what, command } => tracing::warn!(what, command, "bus.missing"),
                Finding::Unreachable(what) => {
                    tracing::warn!(what, "bus.unreachable");
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
    let mut connected = true;
    loop {
        let reached = bus.is_available();
        if reached && !std::mem::replace(&mut connected, reached) {
            lanes.probe_bus_now();
        }
        connected = reached;
        let is = reached && !lanes.is_breaker_open();
        available.send_if_modified(|was| std::mem::replace(was, is) != is);
        sleep(LOOK).await;
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
