//! A server that is there and brings no acknowledgement: it may be cut off from the others, which lead the stream among themselves.
//! Invariant: the connection is given up only where nothing at all was acknowledged for long, and then ever more seldom; what was in
//! flight goes on, under its ids, on the next one.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_nats::Event;
use async_nats::connection::State;
use tokio::time::{sleep, timeout};

use super::NatsBus;

/// How long nothing is acknowledged before the client connects anew, and the longest pause between two times.
const SILENCE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(120));
const LOOK: Duration = Duration::from_secs(1);

/// What was heard of the stream since this was asked last.
#[derive(Debug, Default)]
pub(super) struct Heard {
    acknowledged: AtomicBool,
    missed: AtomicBool,
}

impl Heard {
    pub(super) fn acknowledged(&self) {
        self.acknowledged.store(true, Ordering::Relaxed);
    }

    /// No acknowledgement came, or the stream is not to be had.
    pub(super) fn missed(&self) {
        self.missed.store(true, Ordering::Relaxed);
    }
}

/// When to connect anew.
struct Silence {
    since: Option<Instant>,
    pause: Duration,
}

impl Silence {
    const fn none() -> Self {
        Self { since: None, pause: SILENCE.0 }
    }

    fn is_over(&mut self, heard: &Heard, now: Instant) -> bool {
        let missed = heard.missed.swap(false, Ordering::Relaxed);
        if heard.acknowledged.swap(false, Ordering::Relaxed) {
            *self = Self::none();
            return false;
        }
        if missed {
            self.since.get_or_insert(now);
        }
        let is_over = self.since.is_some_and(|since| now.saturating_duration_since(since) >= self.pause);
        if is_over {
            *self = Self { since: None, pause: (self.pause * 2).min(SILENCE.1) };
        }
        is_over
    }
}

impl NatsBus {
    /// Another server may have what this one has not: the client takes any of those that it knows.
    pub(super) async fn move_where_nothing_is_heard(&self) -> Infallible {
        let mut silence = Silence::none();
        let mut untold = false;
        loop {
            sleep(LOOK).await;
            untold = self.look_at_connection(untold);
            let connection = self.shared.connection.load_full().filter(|_| self.is_available());
            if silence.is_over(&self.shared.heard, Instant::now())
                && let Some(connection) = connection
            {
                tracing::warn!("nats.tries_another_server");
                timeout(LOOK, connection.client.force_reconnect()).await.ok();
            }
        }
    }

    /// The client's events have a queue, and what finds it full is dropped: the connection's own state, at two looks, is as good as an
    /// event. Whether it is another one than was told.
    fn look_at_connection(&self, was_untold: bool) -> bool {
        let Some(connection) = self.shared.connection.load_full() else { return false };
        let is_connected = connection.client.connection_state() == State::Connected;
        let untold = is_connected != self.is_available();
        if untold && was_untold {
            self.shared.happened(if is_connected { &Event::Connected } else { &Event::Disconnected });
        }
        untold
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_connects_anew_where_nothing_is_acknowledged_for_long_and_ever_more_seldom() {
        let (mut silence, heard, begin) = (Silence::none(), Heard::default(), Instant::now());
        let mut over = |seconds: std::ops::Range<u64>, missed: bool, acknowledged: bool| {
            seconds
                .filter(|second| {
                    heard.missed.store(missed, Ordering::Relaxed);
                    heard.acknowledged.store(acknowledged, Ordering::Relaxed);
                    silence.is_over(&heard, begin + Duration::from_secs(*second))
                })
                .collect::<Vec<_>>()
        };
        let never: [u64; 0] = [];
        assert_eq!(over(0..100, false, false), never, "nothing was sent");
        assert_eq!(over(100..200, true, true), never, "of some subjects");
        assert_eq!(over(200..700, true, false), [230, 291, 412, 533, 654]);
        assert_eq!(over(700..701, true, true), never);
        assert_eq!(over(701..740, true, false), [731]);
    }
}
