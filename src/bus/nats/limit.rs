//! The server's `max_payload`, as the client knows it: it hears of it when it connects and never again, while an operator raises it by
//! a reload; and the smaller one of a user or account, which it is never told: the server ends the connection of who sends more.
//! Invariant: what is too large by a limit that is a minute old is not judged by it: the client connects anew, once a
//! minute at most, and asks, or sends it. Pure, but for `now`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// A limit that was heard within this time counts as the server's.
const FRESH: Duration = Duration::from_secs(60);

/// What to do about a message that is larger than the limit that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TooLarge {
    /// Connect anew, and send it then.
    Ask,
    /// That is under way: wait for it, and send it then.
    Wait,
    /// It is.
    Believe,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Limit {
    heard: Instant,
    asked: Option<Instant>,
}

impl Limit {
    pub(super) const fn new(now: Instant) -> Self {
        Self { heard: now, asked: None }
    }

    /// There is a new connection.
    pub(super) const fn heard(&mut self, now: Instant) {
        *self = Self::new(now);
    }

    pub(super) fn too_large(&mut self, now: Instant) -> TooLarge {
        let is_fresh = |at: Instant| now.saturating_duration_since(at) < FRESH;
        if is_fresh(self.heard) {
            return TooLarge::Believe;
        }
        if self.asked.is_some_and(is_fresh) {
            return TooLarge::Wait;
        }
        self.asked = Some(now);
        TooLarge::Ask
    }
}

/// How large the messages are that were sent and not answered. The server names none of them when it ends the connection: the largest
/// is too large, whichever it meant.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    sent: BTreeMap<usize, usize>,
    too_large: Option<(usize, Instant)>,
}

impl Sizes {
    /// The server has ended the connection for what was sent.
    pub(super) fn violated(&mut self, now: Instant) {
        if let Some((largest, _)) = self.sent.last_key_value() {
            self.too_large = Some((*largest, now));
        }
    }

    pub(super) fn is_too_large(&self, size: usize, now: Instant) -> bool {
        self.too_large.is_some_and(|(least, at)| size >= least && now.saturating_duration_since(at) < FRESH)
    }
}

/// A message of this size was sent, and is not answered while this is held.
pub(super) struct Open<'a> {
    sizes: &'a Mutex<Sizes>,
    size: usize,
}

impl<'a> Open<'a> {
    pub(super) fn new(sizes: &'a Mutex<Sizes>, size: usize) -> Self {
        *sizes.lock().sent.entry(size).or_default() += 1;
        Self { sizes, size }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let mut sizes = self.sizes.lock();
        if let Some(count) = sizes.sent.get_mut(&self.size) {
            *count -= 1;
            if *count == 0 {
                sizes.sent.remove(&self.size);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_that_is_not_answered_is_what_a_server_ends_the_connection_for() {
        let (sizes, begin) = (Mutex::new(Sizes::default()), Instant::now());
        sizes.lock().violated(begin);
        assert!(!sizes.lock().is_too_large(usize::MAX, begin), "nothing was sent");
        drop(Open::new(&sizes, 900));
        let _small = [Open::new(&sizes, 10), Open::new(&sizes, 300)];
        sizes.lock().violated(begin);
        let is = |size, seconds| sizes.lock().is_too_large(size, begin + Duration::from_secs(seconds));
        assert!(is(300, 0) && is(900, 59) && !is(299, 0));
        assert!(!is(900, 60), "it may have been raised");
    }

    #[test]
    fn a_limit_is_believed_for_a_minute_and_asked_for_once_after_that() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut limit = Limit::new(begin);
        assert_eq!(limit.too_large(at(59)), TooLarge::Believe);
        assert_eq!(limit.too_large(at(60)), TooLarge::Ask);
        assert_eq!(limit.too_large(at(61)), TooLarge::Wait, "another message, meanwhile");
        assert_eq!(limit.too_large(at(120)), TooLarge::Ask, "in vain");
        limit.heard(at(121));
        assert_eq!(limit.too_large(at(180)), TooLarge::Believe);
        assert_eq!(limit.too_large(at(181)), TooLarge::Ask);
    }
}
