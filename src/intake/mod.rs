//! How bytes arrive: pushed to `webhook`, or fetched by `poll`. Both hand what came to `accept`, which decodes it
//! and has it delivered on a tracked task, and both await the same receipt. `serve` holds the connections.

pub mod accept;
pub mod auth;
pub mod limit;
pub mod poll;
pub mod receipt;
pub mod serve;
pub mod tokens;
pub mod webhook;
