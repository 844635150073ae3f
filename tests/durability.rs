//! What the disk holds, with the real process: sound after every kill, refused when it is damaged, copied while it is used,
//! and never promised after a failed fsync. No broker is needed: the bus of these bridges is away, so that all is parked.

#[expect(dead_code, reason = "shared with tests of other kinds")]
#[path = "support/bridge.rs"]
mod bridge;
#[path = "support/checker.rs"]
mod checker;
#[path = "support/fleet.rs"]
mod fleet;
#[path = "support/metrics.rs"]
mod metrics;
#[path = "support/ports.rs"]
mod ports;

#[path = "durability/discarded.rs"]
mod discarded;
#[path = "durability/flipped.rs"]
mod flipped;
#[path = "durability/fsync.rs"]
mod fsync;
#[path = "durability/gone.rs"]
mod gone;
#[path = "durability/heal.rs"]
mod heal;
#[path = "durability/kills.rs"]
mod kills;
#[path = "durability/leaving.rs"]
mod leaving;
#[path = "durability/migrated.rs"]
mod migrated;
#[path = "durability/quota.rs"]
mod quota;
#[path = "durability/support.rs"]
mod support;
