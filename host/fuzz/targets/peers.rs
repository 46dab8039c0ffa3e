//! The packets of hosts that share an address.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    portcullis_peers::invariants::received(input);
});
