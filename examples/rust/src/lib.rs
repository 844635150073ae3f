//! The generated code of the schema.

include!(concat!(env!("OUT_DIR"), "/fleetbus.v1.rs"));
