//! What bytes mean: fixtures in, events out. One binary; nothing here needs a network, and `convert` alone a process.

#![expect(clippy::expect_used, clippy::panic, reason = "tests fail by panicking, also in what they share")]

#[path = "meaning/agreement.rs"]
mod agreement;
#[path = "meaning/convert.rs"]
mod convert;
#[path = "meaning/fuzzed.rs"]
mod fuzzed;
#[path = "meaning/mutation.rs"]
mod mutation;
#[path = "meaning/properties.rs"]
mod properties;
#[path = "meaning/rules.rs"]
mod rules;
#[path = "meaning/snapshots.rs"]
mod snapshots;
#[path = "meaning/states.rs"]
mod states;
#[path = "meaning/support.rs"]
mod support;
#[path = "targets/mod.rs"]
mod targets;
