//! What is sent as a tenant.

#![no_main]

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    portcullis_config::invariants::tenant(&String::from_utf8_lossy(text));
});
