//! Guesses at the admin token are slowed: each peer has few, and all together have more. Invariants: memory is bounded,
//! whoever asks; a peer that was let in before is not shut out by what others do. Pure: "now" comes in. `access` asks.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Guesses that a peer has at once, and how long one takes to come back.
const PEER: (f64, f64) = (10.0, 6.0);
/// The same of all peers together.
const ALL: (f64, f64) = (200.0, 0.6);
/// Peers that are remembered: 100 bytes each.
const PEERS: usize = 4_096;

/// A bucket of guesses.
#[derive(Debug)]
struct Guesses {
    left: f64,
    at: Instant,
}

impl Guesses {
    const fn full((most, _): (f64, f64), now: Instant) -> Self {
        Self { left: most, at: now }
    }

    /// When a guess is left: now, or after a while.
    fn wait(&mut self, (most, seconds): (f64, f64), now: Instant) -> Option<Duration> {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.left = (self.left + passed / seconds).min(most);
        (self.left < 1.0).then(|| Duration::from_secs_f64((1.0 - self.left) * seconds))
    }
}

#[derive(Debug)]
struct Peer {
    guesses: Guesses,
    was_let_in: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Throttle {
    all: Guesses,
    peers: HashMap<IpAddr, Peer>,
}

impl Throttle {
    pub(super) fn new(now: Instant) -> Self {
        Self { all: Guesses::full(ALL, now), peers: HashMap::new() }
    }

    /// Whether a peer may try a token now.
    ///
    /// # Errors
    /// When to come again.
    pub(super) fn may_try(&mut self, peer: IpAddr, now: Instant) -> Result<(), Duration> {
        let of_all = self.all.wait(ALL, now);
        match self.peers.get_mut(&network(peer)) {
            Some(peer) => match peer.guesses.wait(PEER, now) {
                Some(wait) => Err(wait),
                None if peer.was_let_in => Ok(()),
                None => of_all.map_or(Ok(()), Err),
            },
            None => of_all.map_or(Ok(()), Err),
        }
    }

    /// A peer's token was right.
    pub(super) fn let_in(&mut self, peer: IpAddr, now: Instant) {
        self.of(peer, now).was_let_in = true;
    }

    /// A peer's token was wrong.
    pub(super) fn refused(&mut self, peer: IpAddr, now: Instant) {
        let of_peer = &mut self.of(peer, now).guesses;
        of_peer.left = (of_peer.left - 1.0).max(0.0);
        self.all.left = (self.all.left - 1.0).max(0.0);
    }

    fn of(&mut self, peer: IpAddr, now: Instant) -> &mut Peer {
        let peer = network(peer);
        if self.peers.len() >= PEERS && !self.peers.contains_key(&peer) {
            self.make_room(now);
        }
        self.peers
            .entry(peer)
            .or_insert_with(|| Peer { guesses: Guesses::full(PEER, now), was_let_in: false })
    }

    /// Forgets who has all guesses again, and at least one, whose last guess is oldest; who was let in goes last.
    fn make_room(&mut self, now: Instant) {
        self.peers.retain(|_, peer| {
            let _ = peer.guesses.wait(PEER, now);
            peer.was_let_in || peer.guesses.left < PEER.0
        });
        if self.peers.len() >= PEERS {
            let oldest = self.peers.iter().min_by(|(_, a), (_, b)| {
                let rank = |peer: &Peer| (peer.was_let_in, -peer.guesses.left);
                rank(a).partial_cmp(&rank(b)).unwrap_or(std::cmp::Ordering::Equal)
            });
            if let Some(oldest) = oldest.map(|(peer, _)| *peer) {
                self.peers.remove(&oldest);
            }
        }
    }
}

/// Whoever has an IPv6 address has a whole network of them.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        v4 @ IpAddr::V4(_) => v4,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    #[test]
    fn a_peer_has_ten_guesses_and_then_one_in_six_seconds() {
        let start = Instant::now();
        let mut throttle = Throttle::new(start);
        for _ in 0..10 {
            assert_eq!(throttle.may_try(peer(1), start), Ok(()));
            throttle.refused(peer(1), start);
        }
        assert_eq!(throttle.may_try(peer(1), start), Err(Duration::from_secs(6)));
        assert_eq!(throttle.may_try(peer(2), start), Ok(()));
        assert_eq!(throttle.may_try(peer(1), start + Duration::from_secs(6)), Ok(()));
    }

    #[test]
    fn many_peers_together_are_slowed_but_not_who_was_let_in() {
        let start = Instant::now();
        let mut throttle = Throttle::new(start);
        throttle.let_in(peer(0), start);
        for number in 1..=200 {
            throttle.refused(peer(number), start);
        }
        assert!(throttle.may_try(peer(1_000), start).is_err());
        assert!(throttle.may_try(peer(5), start).is_err());
        assert_eq!(throttle.may_try(peer(0), start), Ok(()));
    }

    #[test]
    fn no_more_peers_are_remembered_than_the_bound() {
        let start = Instant::now();
        let mut throttle = Throttle::new(start);
        throttle.let_in(peer(0), start);
        for number in 1..6_000 {
            throttle.refused(peer(number), start);
        }
        assert!(throttle.peers.len() <= PEERS);
        assert!(throttle.peers[&peer(0)].was_let_in);
    }

    #[test]
    fn an_ipv6_network_is_one_peer() {
        assert_eq!(network("2001:db8::1".parse().unwrap()), network("2001:db8::ffff".parse().unwrap()));
        assert_ne!(network("2001:db8::1".parse().unwrap()), network("2001:db8:0:1::1".parse().unwrap()));
        assert_eq!(network("::ffff:192.0.2.1".parse().unwrap()), "192.0.2.1".parse::<IpAddr>().unwrap());
    }
}
