//! Canonical ProtoJSON of an event.
