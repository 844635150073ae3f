//! The buses against real brokers: what is submitted is what a stock consumer reads, in order, through kills and hangs.

#[expect(dead_code, reason = "shared with the campaign")]
#[path = "support/brokers.rs"]
mod brokers;
#[path = "bus/desk.rs"]
mod desk;
#[path = "bus/door.rs"]
mod door;
#[path = "bus/kafka.rs"]
mod kafka;
#[path = "bus/local.rs"]
mod local;
#[path = "bus/nats.rs"]
mod nats;
#[path = "bus/nats_check.rs"]
mod nats_check;
#[path = "support/trust.rs"]
mod trust;
