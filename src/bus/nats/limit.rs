//! The server's `max_payload`, as the client knows it: it hears of it when it connects and never again, while an operator raises it by
//! a reload. Invariant: what is too large by a limit that is a minute old is not judged by it: the client connects anew, once a
//! minute at most, and asks. Pure, but for `now`.

use std::time::{Duration, Instant};

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

#[cfg(test)]
mod tests {
    use super::*;

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
