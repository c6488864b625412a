//! See `conformance/src/fuzz.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| molecule_conformance::fuzz::read("cron", data));
