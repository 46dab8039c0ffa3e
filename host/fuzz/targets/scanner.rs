//! Any bytes as a datagram and as a framed message, and every value in them as every kind of value.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portcullis_sip::invariants::scanner(bytes));
