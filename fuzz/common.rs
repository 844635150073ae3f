//! What every binary takes from the tests of fleetbus: the targets, and what they decode with.

#[path = "../tests/meaning/support.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
pub(crate) mod support;
#[path = "../tests/targets/mod.rs"]
pub(crate) mod targets;
