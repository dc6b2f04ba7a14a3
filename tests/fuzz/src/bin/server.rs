//! libFuzzer binary of the target [`fuzz::server`], which documents its inputs and rules.
//!
//! The library target does all the work, so that `tests/corpus.rs` reproduces every finding. The
//! macro defines entry points that libFuzzer calls by name; `forbid(unsafe_code)` is therefore not
//! possible.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fuzz::server(data);
});
