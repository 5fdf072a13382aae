//! Reads arbitrary bytes as a summary and a digest.
#![no_main]

#[path = "../../schemas/tests/decoders/mod.rs"]
#[allow(dead_code, reason = "the other target uses the rest")]
mod decoders;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    decoders::sketches(bytes);
});
