//! The frames of a WebSocket connection, and the request that opens it.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    portcullis_websocket::invariants::stream(input);
    portcullis_websocket::invariants::request(input);
});
