//! The stand-in for the provider: what it says is the same whoever asks, how often and in which format; its pull APIs keep
//! the provider's rules; its pusher is a faithful sender; its commands end. The bridge's tests and the demo rest on it.

#![expect(clippy::expect_used, clippy::panic, reason = "tests fail by panicking, also in what they share")]

#[path = "simulate/facts.rs"]
mod facts;
#[path = "simulate/process.rs"]
mod process;
#[path = "simulate/pull.rs"]
mod pull;
#[path = "simulate/push.rs"]
mod push;
#[path = "meaning/support.rs"]
#[expect(dead_code, reason = "shared with the tests of meaning, which use more of it")]
mod support;
