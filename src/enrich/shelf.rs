//! The operator's data in memory, where every event looks for its objects. Looking costs two atomic loads and a hash: each
//! account has shards that are swapped whole, so no reader waits, and a change copies one shard. Invariants: it never
//! holds more than its bound; what is put together appears shard by shard, and the caller has it on disk before. Who
//! changes it takes turns: see [`Shelf::put`].

use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;
use foldhash::HashMap;
use foldhash::fast::RandomState;
use parking_lot::Mutex;

use super::{Kind, Object};
use crate::event::AccountId;

/// Shards of an account: a change copies one of them, some 400 entries where there are 100,000.
const SHARDS: usize = 256;
/// What an entry takes beside its key and bytes: two owned slices, its slot in a table that is at most 7/8 full, two
/// allocations.
const ENTRY_OVERHEAD: u64 = 144;

type Shard = HashMap<Box<str>, Bytes>;

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Shelf {
    inner: Arc<Inner>,
}

struct Inner {
    accounts: ArcSwap<HashMap<AccountId, Arc<OfAccount>>>,
    hasher: RandomState,
    bound: u64,
    bytes: AtomicU64,
    objects: AtomicU64,
    turn: Mutex<()>,
}

struct OfAccount {
    shards: Vec<ArcSwap<Shard>>,
}

/// An object to be put.
#[derive(Debug, Clone, PartialEq)]
pub struct Put {
    /// Whose.
    pub account: AccountId,
    /// Of what.
    pub kind: Kind,
    /// Of which.
    pub id: String,
    /// What is said about it.
    pub object: Object,
}

/// There is no room in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "custom data would take {wanted} bytes of memory, and {bound} are allowed: remove some, or raise custom_data.memory"
)]
pub struct NoRoom {
    /// What all of it would take.
    pub wanted: u64,
    /// What it may take.
    pub bound: u64,
}

impl Shelf {
    /// An empty one, that will hold at most so many bytes.
    #[must_use]
    pub fn new(bound: u64) -> Self {
        Self {
            inner: Arc::new(Inner {
                accounts: ArcSwap::default(),
                hasher: RandomState::default(),
                bound,
                bytes: AtomicU64::new(0),
                objects: AtomicU64::new(0),
                turn: Mutex::new(()),
            }),
        }
    }

    /// The encoded data about an object.
    #[must_use]
    pub fn get(&self, account: &AccountId, kind: Kind, id: &str) -> Option<Bytes> {
        let accounts = self.inner.accounts.load();
        let of_account = accounts.get(account)?;
        let key = key(kind, id);
        of_account.shard(self.shard_of(&key))?.load().get(key.as_str()).cloned()
    }

    /// Whether nothing is said about any object of an account.
    #[must_use]
    pub fn is_empty_of(&self, account: &AccountId) -> bool {
        !self.inner.accounts.load().contains_key(account)
    }

    /// Objects, and bytes that they take.
    #[must_use]
    pub fn holds(&self) -> (u64, u64) {
        (self.inner.objects.load(Ordering::Relaxed), self.inner.bytes.load(Ordering::Relaxed))
    }

    /// Whether these would fit, all of them. The answer holds as long as nobody else puts: callers that ask first, then
    /// write to disk, then put, do so one at a time.
    ///
    /// # Errors
    /// With what they would take.
    pub fn has_room(&self, puts: &[Put]) -> Result<(), NoRoom> {
        let more: u64 = puts.iter().map(|put| cost(put.kind, &put.id, put.object.encoded().len())).sum();
        let less: u64 = puts
            .iter()
            .filter_map(|put| Some((put, self.get(&put.account, put.kind, &put.id)?)))
            .map(|(put, old)| cost(put.kind, &put.id, old.len()))
            .sum();
        let wanted = (self.inner.bytes.load(Ordering::Relaxed) + more).saturating_sub(less);
        if wanted > self.inner.bound { Err(NoRoom { wanted, bound: self.inner.bound }) } else { Ok(()) }
    }

    /// Puts objects in place of what was there, all or none.
    ///
    /// # Errors
    /// Where they do not fit.
    pub fn put(&self, puts: &[Put]) -> Result<(), NoRoom> {
        let _turn = self.inner.turn.lock();
        self.has_room(puts)?;
        let mut by_shard: HashMap<(&AccountId, usize), Vec<(String, Bytes)>> = HashMap::default();
        for put in puts {
            let key = key(put.kind, &put.id);
            let place = (&put.account, self.shard_of(&key));
            by_shard.entry(place).or_default().push((key, put.object.encoded().into()));
        }
        for ((account, shard), entries) in by_shard {
            let of_account = self.of_account(account);
            let Some(shard) = of_account.shard(shard) else { continue };
            let mut changed = Shard::clone(&shard.load());
            for (key, value) in entries {
                let (key_len, more) = (key.len(), value.len());
                let old = changed.insert(key.into(), value);
                self.inner.bytes.fetch_add(cost_of(key_len, more), Ordering::Relaxed);
                match old {
                    Some(old) => self.less(key_len, &old),
                    None => {
                        self.inner.objects.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
            shard.store(Arc::new(changed));
        }
        Ok(())
    }

    /// Takes away what is said about an object.
    pub fn remove(&self, account: &AccountId, kind: Kind, id: &str) {
        let _turn = self.inner.turn.lock();
        let key = key(kind, id);
        let accounts = self.inner.accounts.load();
        let Some(shard) = accounts.get(account).and_then(|of| of.shard(self.shard_of(&key))) else { return };
        let mut changed = Shard::clone(&shard.load());
        if let Some(old) = changed.remove(key.as_str()) {
            self.less(key.len(), &old);
            self.inner.objects.fetch_sub(1, Ordering::Relaxed);
            shard.store(Arc::new(changed));
        }
    }

    fn less(&self, key_len: usize, old: &Bytes) {
        self.inner.bytes.fetch_sub(cost_of(key_len, old.len()), Ordering::Relaxed);
    }

    fn shard_of(&self, key: &str) -> usize {
        usize::try_from(self.inner.hasher.hash_one(key) % SHARDS as u64).unwrap_or(0)
    }

    /// Called with the turn: nobody else makes one meanwhile.
    fn of_account(&self, account: &AccountId) -> Arc<OfAccount> {
        if let Some(known) = self.inner.accounts.load().get(account) {
            return Arc::clone(known);
        }
        let new = Arc::new(OfAccount { shards: (0..SHARDS).map(|_| ArcSwap::default()).collect() });
        let mut accounts = HashMap::clone(&self.inner.accounts.load());
        accounts.insert(account.clone(), Arc::clone(&new));
        self.inner.accounts.store(Arc::new(accounts));
        new
    }
}

impl OfAccount {
    fn shard(&self, at: usize) -> Option<&ArcSwap<Shard>> {
        self.shards.get(at)
    }
}

/// The key of an object, as in the store.
fn key(kind: Kind, id: &str) -> String {
    format!("{}/{id}", kind.as_str())
}

fn cost(kind: Kind, id: &str, bytes: usize) -> u64 {
    cost_of(kind.as_str().len() + 1 + id.len(), bytes)
}

const fn cost_of(key_len: usize, bytes: usize) -> u64 {
    (key_len + bytes) as u64 + ENTRY_OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(account: &str, id: &str, text: &str) -> Put {
        Put {
            account: AccountId::new(account),
            kind: Kind::Tracker,
            id: id.to_owned(),
            object: Object::parse(text.as_bytes()).unwrap(),
        }
    }

    fn has(shelf: &Shelf, account: &str, id: &str) -> bool {
        shelf.get(&AccountId::new(account), Kind::Tracker, id).is_some()
    }

    #[test]
    fn what_is_put_is_found_by_account_kind_and_id_alone() {
        let shelf = Shelf::new(1 << 20);
        shelf.put(&[put("a", "1", "{}"), put("b", "2", "{}")]).unwrap();
        assert!(has(&shelf, "a", "1") && has(&shelf, "b", "2"));
        assert!(!has(&shelf, "a", "2") && !has(&shelf, "b", "1"));
        assert_eq!(shelf.get(&AccountId::new("a"), Kind::Person, "1"), None);
        assert!(!shelf.is_empty_of(&AccountId::new("a")) && shelf.is_empty_of(&AccountId::new("c")));
        shelf.remove(&AccountId::new("a"), Kind::Tracker, "1");
        assert!(!has(&shelf, "a", "1"));
    }

    #[test]
    fn bytes_rise_and_fall_with_what_is_held_and_never_pass_the_bound() {
        let shelf = Shelf::new(400);
        let long = |id: &str| put("a", id, &format!(r#"{{"a":"{}"}}"#, "x".repeat(40)));
        shelf.put(&[long("1")]).unwrap();
        let (_, one) = shelf.holds();
        // In place of itself there is room, beside itself there is not, and a refusal changes nothing.
        shelf.put(&[long("1")]).unwrap();
        assert_eq!(shelf.holds(), (1, one));
        let refused = shelf.put(&[put("a", "2", "{}"), long("3")]).unwrap_err();
        assert!(refused.wanted > 400 && refused.bound == 400, "{refused}");
        assert_eq!(shelf.holds(), (1, one));
        assert!(!has(&shelf, "a", "2"));
        shelf.put(&[put("a", "1", "{}")]).unwrap();
        assert!(shelf.holds().1 < one);
        shelf.remove(&AccountId::new("a"), Kind::Tracker, "1");
        shelf.remove(&AccountId::new("a"), Kind::Tracker, "1");
        assert_eq!(shelf.holds(), (0, 0));
    }
}
