//! A configuration file.

#![no_main]

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    portcullis_config::invariants::config(&String::from_utf8_lossy(text));
});
