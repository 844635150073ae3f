//! How long things take: one histogram an account, with an exemplar where a trace of it is kept. Invariant: accounts are the only
//! label, and the look-up of a configured one allocates nothing. Neighbours: `intake` and `deliver` observe, `admin::metrics` shows.

use std::fmt;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use foldhash::HashMap;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::Family;

use crate::event::AccountId;
use crate::trace;

/// Upper bounds in seconds; `delivery.publish_deadline` is 2 by default.
const BOUNDS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0];

/// An account.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfAccount {
    account: String,
}

/// A trace that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfTrace {
    trace_id: String,
}

/// A histogram in seconds.
pub type Histogram = HistogramWithExemplars<OfTrace>;
/// One an account, as the page of metrics takes it.
pub type Histograms = Family<OfAccount, Histogram>;

/// See the module.
pub struct Latencies {
    all: Histograms,
    configured: ArcSwap<HashMap<AccountId, Histogram>>,
}

impl fmt::Debug for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Latencies").field("accounts", &self.configured.load().len()).finish_non_exhaustive()
    }
}

impl Latencies {
    /// For these accounts.
    pub fn new<'a>(accounts: impl IntoIterator<Item = &'a AccountId>) -> Self {
        let new = Self { all: histograms(), configured: ArcSwap::default() };
        new.admit(accounts);
        new
    }

    /// These accounts are timed too, from now on.
    pub fn admit<'a>(&self, accounts: impl IntoIterator<Item = &'a AccountId>) {
        let of =
            |id: &AccountId| self.all.get_or_create_owned(&OfAccount { account: id.as_str().to_owned() });
        let came: Vec<_> = accounts.into_iter().map(|id| (id.clone(), of(id))).collect();
        self.configured.rcu(|known| {
            let mut known = HashMap::clone(known);
            known.extend(came.iter().cloned());
            known
        });
    }

    /// Something took so long; `trace` is the id of a trace that is kept.
    pub fn observe(&self, account: &AccountId, took: Duration, trace: Option<&str>) {
        let configured = self.configured.load();
        let Some(histogram) = configured.get(account) else { return };
        let exemplar = trace.map(|id| OfTrace { trace_id: id.to_owned() });
        let now = exemplar.is_some().then(SystemTime::now);
        histogram.observe(took.as_secs_f64(), exemplar, now);
    }

    /// The same, of a `traceparent`.
    pub fn observe_in(&self, account: &AccountId, took: Duration, traceparent: Option<&str>) {
        self.observe(account, took, traceparent.and_then(trace::sampled));
    }

    /// What was observed so far, and will be: shared, not copied.
    #[must_use]
    pub fn histograms(&self) -> Histograms {
        self.all.clone()
    }
}

/// None yet.
#[must_use]
pub fn histograms() -> Histograms {
    Family::new_with_constructor(|| Histogram::new(BOUNDS.into_iter()))
}
