//! What the lanes say in the log: what happens to many events at once is a few lines, and then one at intervals. Invariant: no
//! line names a vehicle. Neighbours: `docs/logs.md` has each line.

use std::time::Duration;

use crate::deliver::seldom::Seldom;
use crate::event::{AccountId, EventType};
use crate::replay::ParkError;

/// Lines about topics that are refused or taken again: so many at once, enough for all types of an account, then one in each pause.
const TOPICS: (u32, Duration) = (16, Duration::from_secs(10));
/// Lines about a store that does not take events.
const NOT_KEPT: (u32, Duration) = (4, Duration::from_secs(60));

/// See the module.
pub(super) struct Said {
    unfit: Seldom,
    not_kept: Seldom,
    refused: Seldom,
    accepted: Seldom,
    unanswered: Seldom,
}

impl Said {
    pub(super) fn new() -> Self {
        Self {
            unfit: Seldom::new(),
            not_kept: Seldom::of(NOT_KEPT.0, NOT_KEPT.1),
            refused: Seldom::of(TOPICS.0, TOPICS.1),
            accepted: Seldom::of(TOPICS.0, TOPICS.1),
            unanswered: Seldom::of(TOPICS.0, TOPICS.1),
        }
    }

    /// An event waits for the operator; a flood of them is one line a second.
    pub(super) fn unfit(&self, account: &AccountId, event_type: EventType, why: &str) {
        if let Some(events) = self.unfit.happened() {
            tracing::warn!(%account, event.type = %event_type, error = why, events, "event.unfit");
        }
    }

    /// The store does not take what the bus does not take: senders are refused from now on.
    pub(super) fn not_kept(&self, account: &AccountId, error: &ParkError) {
        if let Some(times) = self.not_kept.happened() {
            tracing::warn!(%account, error = %error, times, "park.refused");
        }
    }

    /// The words leave out the vehicle: a full stream would be a line each, and with the sender's own words.
    pub(super) fn topic_refused(&self, named: &str, why: &str) {
        if let Some(topics) = self.refused.happened() {
            tracing::error!(topic = %named, error = why, topics, "topic.refused");
        }
    }

    pub(super) fn topic_accepted(&self, named: &str) {
        if let Some(topics) = self.accepted.happened() {
            tracing::info!(topic = %named, topics, "topic.accepted");
        }
    }

    /// What waits for it is tried again by itself.
    pub(super) fn topic_unanswered(&self, named: &str, why: &str) {
        if let Some(topics) = self.unanswered.happened() {
            tracing::warn!(topic = %named, error = why, topics, "topic.unanswered");
        }
    }

    pub(super) fn topic_answered(&self, named: &str) {
        if let Some(topics) = self.accepted.happened() {
            tracing::info!(topic = %named, topics, "topic.answered");
        }
    }

    pub(super) fn topic_forgotten(&self, named: &str) {
        if let Some(topics) = self.accepted.happened() {
            tracing::info!(topic = %named, topics, "topic.forgotten");
        }
    }
}
