//! A file of address rows, whose format the first byte chooses.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    if let Some((&format, file)) = input.split_first() {
        portcullis_address::invariants::rows(file, format);
    }
});
