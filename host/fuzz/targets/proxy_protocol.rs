//! The header with which a load balancer begins a connection.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    portcullis_proxy_protocol::invariants::stream(input);
});
