//! What webhooks were answered, by account and status, who hung up, and who was last heard of. Atomics in maps of
//! the configured accounts: no lock, no growth but by a reload, and labels from closed sets only. Read by `admin`.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use foldhash::HashMap;

use crate::deliver::seldom::Seldom;
use crate::event::{AccountId, Millis};
use crate::latency::{Histograms, Latencies};

/// The label of all accounts that are not configured.
pub const UNKNOWN: &str = "_unknown";
/// Every status that [`super::Answer`] can have.
const STATUSES: [u16; 11] = [200, 201, 400, 401, 404, 405, 408, 413, 415, 429, 503];
/// A sender that is refused again and again is logged once in this time.
const QUIET: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub struct Counts {
    accounts: HashMap<AccountId, Arc<Account>>,
    unknown: Arc<Account>,
    /// From a request's headers to its answer.
    answering: Arc<Latencies>,
}

#[derive(Debug)]
struct Account {
    since: Millis,
    answers: [AtomicU64; STATUSES.len()],
    hang_ups: AtomicU64,
    last_taken_ms: AtomicI64,
    refused: Seldom,
}

/// One account's numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading<'a> {
    /// The account's id, or [`UNKNOWN`].
    pub account: &'a str,
    /// How many answers had which status.
    pub answers: Vec<(u16, u64)>,
    /// Requests whose sender hung up before the answer.
    pub hang_ups: u64,
    /// When a request was last answered 201.
    pub last_taken: Option<Millis>,
    /// Since when it may send.
    pub since: Millis,
}

impl Reading<'_> {
    /// How many answers had this status.
    #[must_use]
    pub fn answered(&self, status: u16) -> u64 {
        self.answers.iter().find(|(s, _)| *s == status).map_or(0, |(_, count)| *count)
    }
}

/// Refusals since one was last logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused<'a> {
    pub(super) account: &'a str,
    pub(super) count: u64,
}

impl Counts {
    /// For these accounts, which may send from now on.
    #[must_use]
    pub fn new(ids: &[AccountId], now: Millis) -> Self {
        let accounts = ids.iter().map(|id| (id.clone(), Account::since(now))).collect();
        Self { accounts, unknown: Account::since(now), answering: Arc::new(Latencies::new(ids)) }
    }

    /// The same numbers, for these accounts; one that is new may send from now on.
    #[must_use]
    pub(super) fn of_accounts(&self, accounts: &[AccountId], now: Millis) -> Self {
        self.answering.admit(accounts);
        let known = |id: &AccountId| self.accounts.get(id).cloned();
        let of = |id: &AccountId| (id.clone(), known(id).unwrap_or_else(|| Account::since(now)));
        Self {
            accounts: accounts.iter().map(of).collect(),
            unknown: Arc::clone(&self.unknown),
            answering: Arc::clone(&self.answering),
        }
    }

    /// From a request's headers to its answer.
    #[must_use]
    pub fn answering(&self) -> Histograms {
        self.answering.histograms()
    }

    /// A request whose sender was known was answered after so long.
    pub(super) fn took(&self, account: &AccountId, took: Duration, traceparent: Option<&str>) {
        self.answering.observe_in(account, took, traceparent);
    }

    /// Every account's numbers, in order, the unknown ones last.
    #[must_use]
    pub fn readings(&self) -> Vec<Reading<'_>> {
        let mut all: Vec<_> = self.accounts.iter().map(|(id, account)| account.read(id.as_str())).collect();
        all.sort_by_key(|reading| reading.account);
        all.push(self.unknown.read(UNKNOWN));
        all
    }

    /// One configured account's numbers.
    #[must_use]
    pub fn reading(&self, account: &AccountId) -> Option<Reading<'_>> {
        self.accounts.get_key_value(account).map(|(id, account)| account.read(id.as_str()))
    }

    pub(super) fn answered(&self, account: &AccountId, status: StatusCode, now: Millis) {
        let account = self.of(account);
        let place = STATUSES.iter().position(|s| *s == status.as_u16());
        debug_assert!(place.is_some(), "{status} is not in the list");
        if let Some(count) = place.and_then(|place| account.answers.get(place)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if status == StatusCode::CREATED {
            account.last_taken_ms.fetch_max(now.0, Ordering::Relaxed);
        }
    }

    /// Counts a refusal, and tells where it is time to say so: by the time that passes, for a wall clock may be set back.
    pub(super) fn refused(&self, account: &AccountId) -> Option<Refused<'_>> {
        let (label, account) = (self.label(account), self.of(account));
        account.refused.happened().map(|count| Refused { account: label, count })
    }

    /// Counts a hang-up, unless the request is [`Waiting::answered`].
    pub(super) fn waiting(&self, account: &AccountId) -> Waiting<'_> {
        Waiting { hang_ups: Some(&self.of(account).hang_ups) }
    }

    /// The account's id, or [`UNKNOWN`]: what stands in a URL that nobody configured may be a token put in the wrong place.
    pub(super) fn label(&self, account: &AccountId) -> &str {
        self.accounts.get_key_value(account).map_or(UNKNOWN, |(id, _)| id.as_str())
    }

    fn of(&self, account: &AccountId) -> &Account {
        self.accounts.get(account).unwrap_or(&self.unknown)
    }
}

impl Account {
    fn since(since: Millis) -> Arc<Self> {
        Arc::new(Self {
            since,
            answers: Default::default(),
            hang_ups: AtomicU64::new(0),
            last_taken_ms: AtomicI64::new(0),
            refused: Seldom::of(1, QUIET),
        })
    }

    fn read<'a>(&self, account: &'a str) -> Reading<'a> {
        let answers = STATUSES.into_iter().zip(&self.answers);
        let last_taken = self.last_taken_ms.load(Ordering::Relaxed);
        Reading {
            account,
            answers: answers.map(|(status, count)| (status, count.load(Ordering::Relaxed))).collect(),
            hang_ups: self.hang_ups.load(Ordering::Relaxed),
            last_taken: (last_taken > 0).then_some(Millis(last_taken)),
            since: self.since,
        }
    }
}

/// A request whose sender waits.
#[derive(Debug)]
pub(super) struct Waiting<'a> {
    hang_ups: Option<&'a AtomicU64>,
}

impl Waiting<'_> {
    /// The sender is still there.
    pub(super) fn answered(mut self) {
        self.hang_ups = None;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(hang_ups) = self.hang_ups {
            hang_ups.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acme() -> AccountId {
        AccountId::new("acme")
    }

    #[test]
    fn unknown_accounts_share_one_label() {
        let counts = Counts::new(&[acme()], Millis(3));
        counts.answered(&acme(), StatusCode::CREATED, Millis(7));
        counts.answered(&AccountId::new("x"), StatusCode::NOT_FOUND, Millis(8));
        counts.answered(&AccountId::new("y"), StatusCode::NOT_FOUND, Millis(9));
        let readings = counts.readings();
        assert_eq!(readings.len(), 2);
        assert_eq!((readings[0].account, readings[0].answered(201)), ("acme", 1));
        assert_eq!(readings[0].last_taken, Some(Millis(7)));
        assert_eq!((readings[1].account, readings[1].answered(404)), (UNKNOWN, 2));
        assert_eq!(readings[1].last_taken, None);
    }

    /// The rest is [`Seldom`]'s, which knows no wall clock that could be set back.
    #[test]
    fn refusals_are_said_at_first_and_then_seldom_and_of_each_account_by_itself() {
        let counts = Counts::new(&[acme()], Millis(3));
        let said = |id: &str| counts.refused(&AccountId::new(id)).map(|r| (r.account, r.count));
        assert_eq!(said("acme"), Some(("acme", 1)));
        assert_eq!(said("acme"), None);
        assert_eq!(said("x"), Some((UNKNOWN, 1)));
        assert_eq!(said("y"), None);
    }

    #[test]
    fn only_who_was_not_answered_hung_up() {
        let counts = Counts::new(&[acme()], Millis(3));
        counts.waiting(&acme()).answered();
        drop(counts.waiting(&acme()));
        assert_eq!(counts.readings()[0].hang_ups, 1);
    }
}
