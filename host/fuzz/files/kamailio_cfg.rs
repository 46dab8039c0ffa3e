//! A configuration of Kamailio, with files that it includes.

#![no_main]

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    portcullis_kamailio::invariants::import(&String::from_utf8_lossy(text));
});
