//! A packet capture.

#![no_main]

libfuzzer_sys::fuzz_target!(|file: &[u8]| {
    portcullis_records::invariants::capture(file);
});
