//! Ids in flight: who publishes which. Invariant: a claim takes all its ids or none; a settled claim leaves the map only
//! after its ids can be found where remembered ids are looked up. Bound: what is in flight, which memory permits bound.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use uuid::Uuid;

/// What became of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Acknowledged or parked, or known before.
    Durable,
    /// Neither: whoever waits tries for himself.
    Released,
}

/// One event's claim on its ids.
#[derive(Debug)]
pub struct Claim {
    ids: Vec<Uuid>,
    settled: watch::Sender<Option<Settled>>,
}

/// Another event's claim, waited for.
#[derive(Debug)]
pub struct Shared {
    settled: watch::Receiver<Option<Settled>>,
}

impl Shared {
    /// Until the claim is settled.
    pub async fn outcome(mut self) -> Settled {
        let settled = self.settled.wait_for(Option::is_some).await;
        settled.ok().and_then(|settled| *settled).unwrap_or(Settled::Released)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Claims {
    ids: Mutex<HashMap<Uuid, Arc<Claim>>>,
}

impl Claims {
    /// Claims `enters`, unless one of `checks` or `enters` is claimed.
    pub fn claim(&self, checks: &[Uuid], enters: &[Uuid]) -> Result<Arc<Claim>, Shared> {
        let mut ids = self.ids.lock();
        if let Some(other) = checks.iter().chain(enters).find_map(|id| ids.get(id)) {
            return Err(Shared { settled: other.settled.subscribe() });
        }
        let claim = Arc::new(Claim { ids: enters.to_vec(), settled: watch::Sender::new(None) });
        for id in enters {
            ids.insert(*id, Arc::clone(&claim));
        }
        Ok(claim)
    }

    /// Ends a claim.
    pub fn settle(&self, claim: &Arc<Claim>, settled: Settled) {
        let mut ids = self.ids.lock();
        for id in &claim.ids {
            ids.remove(id);
        }
        drop(ids);
        claim.settled.send_replace(Some(settled));
    }
}
