//! fleetbus: what a telematics provider pushes and offers becomes protobuf events on Kafka or NATS topics.
//!
//! The modules stand in the order in which the bytes travel:
//!
//! ```text
//! intake/ ──► provider/ ──► event/ ──► enrich ──► route ──► encode ──► deliver ──► bus/
//! webhook      decode        FleetEvent  custom     topic     bytes      lanes,      kafka | nats | local
//! poll         (pure)                    data       key       headers    policy
//!                                                                          └──► replay/ ──► drain ──► deliver
//! ```
//!
//! The call stack is the pipeline: there is no queue between intake and bus. What knows meaning is pure; async,
//! clocks and I/O live at the edges; only [`app`] spawns.

// Nothing panics, and only `cli` speaks to people. Tests may.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod cli;
pub mod config;
pub mod version;

pub mod app;
mod aside;
pub mod clock;
pub mod faults;
pub mod intake;
pub mod latency;
pub mod logs;
mod outbound;
pub mod provider;
pub mod trace;

pub mod event;

pub mod enrich;

pub mod encode;
pub mod route;

pub mod deliver;

pub mod bus;
pub mod replay;

pub mod admin;
pub mod simulate;

#[cfg(test)]
#[path = "../tests/support/hanging.rs"]
mod hanging;
