//! A list of destinations of the dispatcher, with their attributes.

#![no_main]

libfuzzer_sys::fuzz_target!(|list: &[u8]| portcullis_dispatcher::invariants::list(list));
