//! A body that a client sends as JSON-RPC.

#![no_main]

libfuzzer_sys::fuzz_target!(|body: &[u8]| portcullis_rpc::invariants::json_rpc(body));
