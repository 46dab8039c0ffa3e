//! A request that is relayed with edits, and its response on the way back.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    portcullis_sip::invariants::relay(input);
});
