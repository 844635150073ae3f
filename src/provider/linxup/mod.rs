//! Linxup.

pub mod answer;

use super::Source;
use super::draft::{Context, Decoded, Hint, Outcome};

/// Decodes.
#[must_use]
pub fn decode(_source: &Source, _raw: &[u8], _context: &Context<'_>) -> Decoded {
    Decoded { outcome: Outcome::Unrecognized("".into()), learnt: vec![], hint: Hint::None }
}
