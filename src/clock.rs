//! The wall clock, asked in one place. What knows meaning never calls it: "now" comes in as an argument.

use crate::event::Millis;
use crate::faults;

/// A clock that says less is not set yet, as where a machine begins without a battery: 2025.
pub const SET: Millis = Millis(1_735_689_600_000);

/// Now.
#[must_use]
pub fn now() -> Millis {
    Millis(jiff::Timestamp::now().as_millisecond() + faults::clock_error_ms())
}
