//! cargo-fuzz target: see the function of this name in `harness`.
#![no_main]

#[path = "../harness/mod.rs"]
#[allow(dead_code, reason = "the other targets")]
mod harness;

libfuzzer_sys::fuzz_target!(|data: &[u8]| harness::signature(data));
