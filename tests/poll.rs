//! Pollers against a stand-in for the provider: windows, cursors, limits, and what goes wrong with hosts, answers and clocks.

#![expect(clippy::unwrap_used, reason = "what a test cannot go on without")]

#[path = "poll/bench.rs"]
mod bench;
#[path = "poll/faults.rs"]
mod faults;
#[path = "support/hanging.rs"]
mod hanging;
#[path = "poll/hosts.rs"]
mod hosts;
#[path = "poll/windows.rs"]
mod windows;
