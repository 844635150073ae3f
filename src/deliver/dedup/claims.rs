//! Ids in flight: who publishes which. A claim stands in the way of an event that would be known by one of its ids once
//! it is durable, and of no other: two versions of a stop remember the same record, and are two facts all the same.
//! Invariant: a settled claim leaves only after its ids can be found where remembered ids are looked up. Bound: what is
//! in flight, which memory permits bound.

use std::sync::Arc;

use foldhash::HashMap;
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::watch;
use uuid::Uuid;

use crate::event::ids::Ids;

/// What became of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Acknowledged or parked.
    Durable,
    /// Neither: whoever waits tries for himself.
    Released,
}

/// What is known of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// On its way to the bus or into the store.
    Open,
    /// The store refused it. The attempt that is in flight may still succeed.
    NotKept,
    /// Over.
    Settled(Settled),
}

/// One event's claim on its ids.
#[derive(Debug)]
pub struct Claim {
    ids: Ids,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    standing: Standing,
    /// Most claims are never waited for: a channel is made where one is.
    watched: Option<watch::Sender<Standing>>,
}

impl Claim {
    /// Tells whoever waits what became of it.
    pub fn settle(&self, settled: Settled) {
        self.turn(Standing::Settled(settled));
    }

    /// Tells whoever waits that only the attempt in flight can still settle it as durable.
    pub fn not_kept(&self) {
        self.turn(Standing::NotKept);
    }

    fn turn(&self, standing: Standing) {
        let mut state = self.state.lock();
        state.standing = standing;
        if let Some(watched) = &state.watched {
            watched.send_replace(standing);
        }
    }

    fn share(&self) -> Shared {
        let mut state = self.state.lock();
        let standing = state.standing;
        let watched = state.watched.get_or_insert_with(|| watch::channel(standing).0);
        Shared { standing: watched.subscribe() }
    }
}

/// Another event's claim, waited for.
#[derive(Debug)]
pub struct Shared {
    standing: watch::Receiver<Standing>,
}

impl Shared {
    /// Until the claim is settled. Cancel-safe.
    pub async fn outcome(&mut self) -> Settled {
        let over = |standing: &Standing| matches!(standing, Standing::Settled(_));
        match self.standing.wait_for(over).await.as_deref() {
            Ok(Standing::Settled(settled)) => *settled,
            Ok(Standing::Open | Standing::NotKept) | Err(_) => Settled::Released,
        }
    }

    /// Until the claim is settled; none once the store refused it, whatever is in flight.
    pub async fn unless_refused(&mut self) -> Option<Settled> {
        match self.standing.wait_for(|standing| *standing != Standing::Open).await.as_deref() {
            Ok(Standing::Settled(settled)) => Some(*settled),
            Ok(Standing::Open | Standing::NotKept) => None,
            Err(_) => Some(Settled::Released),
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Claims {
    /// Mostly one of each.
    ids: HashMap<Uuid, SmallVec<[Arc<Claim>; 1]>>,
}

impl Claims {
    /// The claim that is to remember one of these.
    pub fn on(&self, checks: &[Uuid]) -> Option<Shared> {
        checks.iter().find_map(|id| self.ids.get(id)?.first()).map(|claim| claim.share())
    }

    /// Claims all of these.
    pub fn claim(&mut self, enters: &Ids) -> Arc<Claim> {
        let state = Mutex::new(State { standing: Standing::Open, watched: None });
        let claim = Arc::new(Claim { ids: enters.clone(), state });
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn who_waits_hears_that_the_store_refused_it_and_after_that_what_became_of_the_attempt() {
        let claim = Claims::default().claim(&Ids::from_slice(&[Uuid::nil()]));
        let (mut early, mut late) = (claim.share(), claim.share());
        assert_eq!(early.unless_refused().now_or_never(), None);
        claim.not_kept();
        assert_eq!(early.unless_refused().now_or_never(), Some(None));
        assert_eq!(late.outcome().now_or_never(), None, "the attempt is in flight");
        claim.settle(Settled::Durable);
        for mut shared in [early, late, claim.share()] {
            assert_eq!(shared.outcome().now_or_never(), Some(Settled::Durable));
            assert_eq!(shared.unless_refused().now_or_never(), Some(Some(Settled::Durable)));
        }
    }
}
