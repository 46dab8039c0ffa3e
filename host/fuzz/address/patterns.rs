//! A pattern of the trusted table or of a file of rules, and a text: the first byte chooses the syntax, a zero byte parts the two.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    if let Some((&syntax, rest)) = input.split_first() {
        let rest = String::from_utf8_lossy(rest);
        let (pattern, text) = rest.split_once('\0').unwrap_or((&rest, ""));
        portcullis_address::invariants::pattern(pattern, text, syntax % 2 == 0);
    }
});
