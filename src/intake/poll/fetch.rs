//! One extent of one feed, taken in full: all its pages fetched, each handed over and durable before the next is asked for. A page
//! that is not full is the last, says the provider; sweeps, backfills, lists and a feed's first window look behind it whether that holds.
//! `Ok` means that whoever asked may move a cursor over it. Neighbours: `feed` and backfills ask, `host` makes the calls.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::watch;

use super::Clock;
use super::bucket::Class;
use super::fault::Fault;
use super::host::{Host, Page};
use super::past;
use super::plan::{Extent, Size};
use super::request::Endpoint;
use super::steer::Steering;
use crate::event::{AccountId, Millis};
use crate::faults::{self, Bug};
use crate::intake::accept::{Errand, Pulled, Receipt, Refusal};
use crate::provider::{Feed, PullApi};

/// Pages of one extent; where there are more, a shorter window is asked for. As many calls as V3 saves up.
const PAGES: usize = 200;

/// Who fetches what from whom.
pub struct Fetch<'a> {
    /// The host that is called.
    pub host: &'a Host,
    /// What is asked of it.
    pub endpoint: Endpoint,
    /// Whose rows they are.
    pub account: &'a AccountId,
    /// The API.
    pub api: PullApi,
    /// The feed.
    pub feed: Feed,
    /// Whether live feeds go first.
    pub class: Class,
    /// Whether it looks behind a page that is not full.
    pub behind_short: BehindShort,
    /// How an operator steers it, where one does: while it stands in line for its first page, a pause takes it out.
    pub steering: Option<&'a Steering>,
    /// What events are to say about why they were fetched.
    pub errand: Errand,
    /// Whether the bus is there: no page is asked for while it is not.
    pub bus_available: &'a watch::Receiver<bool>,
    /// Our clock.
    pub clock: &'a Clock,
}

/// Whether something is looked for behind a page that is not full, which is the last, says the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BehindShort {
    /// Yes.
    Looks,
    /// Where something was found there.
    AsKnown,
}

/// What is happening, for those who watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The next page waits for the bus.
    WaitingForBus,
    /// A page is asked for.
    Calling,
    /// So many rows are handed over.
    HandingOver(u64),
    /// They are durable, or were skipped.
    HandedOver(Receipt),
}

/// An extent that was taken in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Taken {
    /// Rows, all of them durable or known.
    pub rows: u64,
    /// The earliest time that an answer says it was sent.
    pub sent_at: Option<Millis>,
    /// Whether a longer window would do.
    pub size: Size,
}

/// Why an extent was not taken in full.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The provider's side.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// Ours.
    #[error("the rows were not taken: {0}")]
    Refusal(Refusal),
    /// It stood in line when it was paused.
    #[error("it was paused before it was asked for")]
    Paused,
    /// It stood in line for so long that dedup may have forgotten what it would read again.
    #[error("it was held up for hours")]
    HeldUp,
}

impl Trouble {
    /// A stable word for logs and metrics.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Fault(fault) => fault.kind(),
            Self::Refusal(_) => "not-kept",
            Self::Paused => "paused",
            Self::HeldUp => "held-up",
        }
    }
}

impl Fetch<'_> {
    /// Takes an extent. May be dropped at any await: what was handed over is delivered, and nobody was told that it is all.
    ///
    /// # Errors
    /// See [`Trouble`]: no cursor may move.
    pub async fn take<A, F>(
        &self,
        extent: Extent,
        accept: &A,
        told: impl Fn(Moment) + Send,
    ) -> Result<Taken, Trouble>
    where
        A: Fn(Pulled) -> F + Sync,
        F: Future<Output = Result<Receipt, Refusal>> + Send,
    {
        let mut taken = Taken::default();
        // A digest: the page itself would have no place in memory any more.
        let (mut before, digests) = (None, RandomState::default());
        let mut behind_short = false;
        for number in 0..PAGES {
            // Where the bus went away meanwhile, the provider keeps the rest. The wait ends with the process at the latest.
            if !*self.bus_available.borrow() {
                told(Moment::WaitingForBus);
                self.bus_available.clone().wait_for(|available| *available).await.ok();
            }
            told(Moment::Calling);
            let request = self.endpoint.request(extent, number, taken.rows);
            let gone_out = AtomicBool::new(false);
            let page = self.host.page(self.feed, &request, self.class, &gone_out);
            let page = match self.steering.filter(|_| number == 0) {
                Some(steering) => tokio::select! {
                    page = page => page,
                    () = steering.paused_before(&gone_out) => return Err(Trouble::Paused),
                },
                // What has begun is finished.
                None => page.await,
            };
            let page = match page {
                // As the provider says: there is no such page. Where there was one, a host that fails may have another.
                Err(Fault::Refused(_)) if behind_short => return Ok(taken),
                Err(_) if behind_short && !self.host.has_short_pages() => return Ok(taken),
                page => page?,
            };
            if self.reads_again() && past::is_too_old_to_read_again(extent, (self.clock)()) {
                return Err(Trouble::HeldUp);
            }
            let Page { rows, sent_at, bytes, held } = page;
            let count = rows.len();
            let is_short = self.endpoint.page().is_none_or(|full| count < full);
            let is_last = is_short && (count == 0 || !self.looks_behind_short(extent));
            // One page alone is compared with none.
            let digest = (number > 0 || !is_last).then(|| digests.hash_one(&rows));
            if number > 0 && count > 0 && digest == before {
                // Perhaps pages are not known here: what fits into one is taken by a shorter window.
                if behind_short {
                    return Ok(taken);
                }
                return Err(Fault::TooLarge("one page, and the pages repeat".to_owned()).into());
            }
            if behind_short && count > 0 {
                self.found_short_pages();
            }
            taken.rows += count as u64;
            if number >= PAGES / 3 || bytes >= self.host.largest() / 3 {
                taken.size = Size::Large;
            }
            // An older time is the safer one.
            taken.sent_at = match (taken.sent_at, sent_at) {
                (Some(first), Some(now)) => Some(first.min(now)),
                (first, now) => first.or(now),
            };
            before = digest;
            if count > 0 && !faults::bug(Bug::Skipped) {
                told(Moment::HandingOver(count as u64));
                let pulled = Pulled {
                    account: self.account.clone(),
                    api: self.api,
                    feed: self.feed,
                    rows,
                    received_at: (self.clock)(),
                    errand: self.errand,
                };
                let receipt = accept(pulled).await.map_err(Trouble::Refusal)?;
                told(Moment::HandedOver(receipt));
            }
            drop(held);
            if is_last {
                return Ok(taken);
            }
            behind_short = is_short;
        }
        Err(Fault::TooLarge(format!("{PAGES} pages")).into())
    }

    /// Whether it is a sweep, which dedup is to know most of.
    fn reads_again(&self) -> bool {
        self.class == Class::Rest && self.errand == Errand::Poll
    }

    /// Live windows do, but for a feed's first, once something was found there: a call more for each of them would be half of what V3
    /// allows.
    fn looks_behind_short(&self, extent: Extent) -> bool {
        let is_worth_a_call = match self.behind_short {
            BehindShort::Looks => true,
            BehindShort::AsKnown => extent == Extent::Whole || self.host.has_short_pages(),
        };
        self.endpoint.page().is_some() && is_worth_a_call
    }

    fn found_short_pages(&self) {
        if self.host.saw_short_pages() {
            let (account, api, feed) = (self.account, self.api.as_str(), self.feed.as_str());
            tracing::warn!(%account, api, feed, "feed.short_pages");
        }
    }
}

/// How long the side that refused asks to wait.
#[must_use]
pub const fn refused_for(refusal: &Refusal) -> Option<Duration> {
    match refusal {
        Refusal::QuotaSpent { retry_after } | Refusal::NotKept { retry_after } => Some(*retry_after),
        Refusal::NotJson { .. } | Refusal::Empty | Refusal::TooMany(_) | Refusal::Stopping => None,
    }
}
