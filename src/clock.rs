//! The wall clock, asked in one place. What knows meaning never calls it: "now" comes in as an argument.

use crate::event::Millis;
use crate::faults;

/// Now.
#[must_use]
pub fn now() -> Millis {
    Millis(jiff::Timestamp::now().as_millisecond() + faults::clock_error_ms())
}
