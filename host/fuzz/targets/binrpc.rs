//! A stream of BINRPC that is fed whole, byte by byte and in chunks, whose length is the first byte.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    if let Some((&chunk, stream)) = input.split_first() {
        portcullis_rpc::invariants::binrpc(stream, chunk.into());
    }
});
