//! Ports for children of the tests: given to one test each, and to no outgoing connection meanwhile.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

/// A port that nobody listens on. It lies below those that the system gives to outgoing connections, else one of these may
/// hold it when a broker that was killed comes back.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    const FIRST: u32 = 10_000;
    let given = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok();
    let given = given.as_deref().and_then(|range| range.split_whitespace().next()?.parse().ok());
    let span = given
        .unwrap_or(32_768_u32)
        .checked_sub(FIRST)
        .filter(|span| *span > 0)
        .expect("ports below the given");
    // Test binaries that run at the same time begin at different places.
    let begin = std::process::id().wrapping_mul(61);
    (0..span)
        .map(|_| FIRST + begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % span)
        .map(|port| u16::try_from(port).expect("a port"))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}
