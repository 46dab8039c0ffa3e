//! Messages, decisions, errors and times for the transactions of a stateful proxy.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    portcullis_transaction::invariants::inputs(input);
});
