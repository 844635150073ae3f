//! What an operator does to a running bridge, against the real binary: custom data, parked messages, replays and backfills,
//! also across kill -9.

#![expect(clippy::unwrap_used, reason = "what a test cannot go on without")]

#[path = "operate/backfill.rs"]
mod backfill;
#[path = "operate/bounds.rs"]
mod bounds;
#[path = "support/bridge.rs"]
mod bridge;
#[path = "operate/custom_data.rs"]
mod custom_data;
#[path = "operate/desk.rs"]
mod desk;
#[path = "operate/hangups.rs"]
mod hangups;
#[path = "operate/parked.rs"]
mod parked;
#[path = "operate/pipes.rs"]
mod pipes;
#[path = "operate/polls.rs"]
mod polls;
#[path = "operate/proxy.rs"]
mod proxy;
#[path = "operate/reload.rs"]
mod reload;
#[path = "operate/replays.rs"]
mod replays;
