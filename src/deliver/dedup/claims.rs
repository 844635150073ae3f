//! Ids in flight: who publishes which. A claim stands in the way of an event that would be known by one of its ids once
//! it is durable, and of no other: two versions of a stop remember the same record, and are two facts all the same.
//! Invariant: a settled claim leaves only after its ids can be found where remembered ids are looked up. Bound: what is
//! in flight, which memory permits bound.

use std::sync::Arc;

use foldhash::HashMap;
use parking_lot::Mutex;
use tokio::sync::watch;
use uuid::Uuid;

/// What became of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Acknowledged or parked.
    Durable,
    /// Neither: whoever waits tries for himself.
    Released,
}

/// One event's claim on its ids.
#[derive(Debug)]
pub struct Claim {
    ids: Arc<[Uuid]>,
    state: Mutex<State>,
}

/// Most claims are never waited for: a channel is made where one is.
#[derive(Debug)]
enum State {
    Alone,
    Watched(watch::Sender<Option<Settled>>),
    Settled(Settled),
}

impl Claim {
    /// Tells whoever waits.
    pub fn settle(&self, settled: Settled) {
        let before = std::mem::replace(&mut *self.state.lock(), State::Settled(settled));
        if let State::Watched(watched) = before {
            watched.send_replace(Some(settled));
        }
    }

    fn share(&self) -> Shared {
        let mut state = self.state.lock();
        let settled = match &*state {
            State::Alone => {
                let (tell, settled) = watch::channel(None);
                *state = State::Watched(tell);
                settled
            }
            State::Watched(watched) => watched.subscribe(),
            State::Settled(settled) => watch::channel(Some(*settled)).1,
        };
        Shared { settled }
    }
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
    ids: HashMap<Uuid, Vec<Arc<Claim>>>,
}

impl Claims {
    /// The claim that is to remember one of these.
    pub fn on(&self, checks: &[Uuid]) -> Option<Shared> {
        checks.iter().find_map(|id| self.ids.get(id)?.first()).map(|claim| claim.share())
    }

    /// Claims all of these.
    pub fn claim(&mut self, enters: &Arc<[Uuid]>) -> Arc<Claim> {
        let claim = Arc::new(Claim { ids: Arc::clone(enters), state: Mutex::new(State::Alone) });
        for id in enters.iter() {
            self.ids.entry(*id).or_default().push(Arc::clone(&claim));
        }
        claim
    }

    /// Takes a claim off its ids.
    pub fn remove(&mut self, claim: &Arc<Claim>) {
        for id in claim.ids.iter() {
            if let Some(claims) = self.ids.get_mut(id) {
                claims.retain(|other| !Arc::ptr_eq(other, claim));
                if claims.is_empty() {
                    self.ids.remove(id);
                }
            }
        }
    }

    /// Whether nothing is in flight.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}
