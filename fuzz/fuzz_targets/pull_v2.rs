//! See `tests/targets`.
#![no_main]

#[path = "../common.rs"]
mod common;
use common::{support, targets};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::run("pull_v2", bytes));
