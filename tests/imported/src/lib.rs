//! Policies that `portcullis import --policy` makes of the files in `cfg`, one in each file of `examples`.
//! `PORTCULLIS_WRITE=1 cargo nextest run -p portcullis-tests --test imported` writes them.

#![forbid(unsafe_code)]
