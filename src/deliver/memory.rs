//! Memory is bounded by decoded bytes: each account has its share, and all together have 256 MiB. A permit is waited for
//! at most 500 ms and owned by the delivery. Neighbours: `intake::accept` takes permits before it decodes, and
//! `intake::webhook` waits as long for room for a body.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use foldhash::HashMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::event::AccountId;

/// What all accounts together may have in work.
pub const IN_ALL: u64 = 256 << 20;
/// How long a permit is waited for.
const PATIENCE: Duration = Duration::from_millis(500);
/// Permits are counted in KiB, for a semaphore counts to 2^32 at a time.
const UNIT: u64 = 1024;

/// An account's permits, and how many there are.
type Share = (Arc<Semaphore>, u64);

/// See the module.
#[derive(Debug)]
pub struct Memory {
    all: Arc<Semaphore>,
    accounts: ArcSwap<HashMap<AccountId, Share>>,
}

/// The right to so many bytes, given back when it is dropped.
#[derive(Debug)]
pub struct Permit {
    _account: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Memory {
    /// Shares of these accounts, in bytes.
    pub fn new(accounts: impl IntoIterator<Item = (AccountId, u64)>) -> Self {
        let memory =
            Self { all: Arc::new(Semaphore::new((IN_ALL / UNIT) as usize)), accounts: ArcSwap::default() };
        memory.settle(accounts);
        memory
    }

    /// These shares hold from now on. Where one changes, what is in work still counts against the old one.
    pub fn settle(&self, accounts: impl IntoIterator<Item = (AccountId, u64)>) {
        let known = self.accounts.load();
        let share = |id: &AccountId, bytes: u64| -> Share {
            let units = (bytes / UNIT).max(1);
            let same = known.get(id).filter(|(_, had)| *had == units).cloned();
            same.unwrap_or_else(|| (Arc::new(Semaphore::new(units as usize)), units))
        };
        let accounts = accounts
            .into_iter()
            .map(|(id, bytes)| {
                let share = share(&id, bytes);
                (id, share)
            })
            .collect();
        self.accounts.store(Arc::new(accounts));
    }

    /// Waits for the right to `bytes`; what is larger than the account's share counts as the whole share. None where
    /// the account is unknown or the wait was too long.
    pub async fn take(&self, account: &AccountId, bytes: u64) -> Option<Permit> {
        let (share, units) = self.accounts.load().get(account)?.clone();
        let wanted = bytes.div_ceil(UNIT).clamp(1, units.min(IN_ALL / UNIT));
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
        let (account, all) = take_both(&share, &self.all, wanted).await?;
        Some(Permit { _account: account, _all: all })
    }
}

/// So many permits of both, waited for where they are not free; none where the wait was too long.
pub(crate) async fn take_both(
    share: &Arc<Semaphore>,
    all: &Arc<Semaphore>,
    permits: u32,
) -> Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
    let (share, all) = (|| Arc::clone(share), || Arc::clone(all));
    // Mostly there is room, and no timer to be made.
    if let Ok(one) = share().try_acquire_many_owned(permits)
        && let Ok(other) = all().try_acquire_many_owned(permits)
    {
        return Some((one, other));
    }
    let both = async {
        let one = share().acquire_many_owned(permits).await.ok()?;
        Some((one, all().acquire_many_owned(permits).await.ok()?))
    };
    timeout(PATIENCE, both).await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_account_that_holds_its_share_waits_half_a_second_and_hinders_no_other() {
        let (greedy, other) = (AccountId::new("greedy"), AccountId::new("other"));
        let memory = Memory::new([(greedy.clone(), 1 << 20), (other.clone(), 1 << 20)]);
        let held = memory.take(&greedy, 5 << 20).await;
        assert!(held.is_some(), "a request larger than the share takes the whole share");
        assert!(memory.take(&greedy, 1).await.is_none());
        assert!(memory.take(&other, 1 << 20).await.is_some());
        drop(held);
        assert!(memory.take(&greedy, 1 << 20).await.is_some());
        assert!(memory.take(&AccountId::new("unknown"), 1).await.is_none());
    }
}
