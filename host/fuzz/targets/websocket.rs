//! The frames of a WebSocket connection.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    portcullis_websocket::invariants::stream(input);
});
