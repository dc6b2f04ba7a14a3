//! Searches with [`fuzz::recovery`], which says what it looks for. Never anything else: what is found must show up in a replay.
//!
//! Holds the entry points that libFuzzer calls by name, which is why it cannot forbid unsafe code as the library does.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fuzz::recovery(data);
});
