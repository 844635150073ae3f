//! Event and record ids (design section 4): UUIDv5 over the parts of a fact, joined by U+001F. Pure.

use uuid::Uuid;

/// `bd4bbb2d-5c42-5e0d-a562-2656493c0dd0`: UUIDv5 of the URL namespace and `urn:fleetbus:event:v1`.
pub const NAMESPACE: Uuid = Uuid::from_u128(0xbd4b_bb2d_5c42_5e0d_a562_2656_493c_0dd0);
