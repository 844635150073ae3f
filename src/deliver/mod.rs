//! The policy of delivery: lanes, deadline, retry, breaker, dedup.

pub mod dedup;
