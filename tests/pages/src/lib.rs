//! The policies in the README and in `docs`, each in a module, with the tests that the pages show.

#![forbid(unsafe_code)]

/// What the pages import, or leave to the reader.
#[allow(
    unused_imports,
    reason = "each page uses a part, and the test host only in tests"
)]
mod common {
    pub(crate) use std::time::Duration;

    pub(crate) use portcullis_sdk::outcome;
    pub(crate) use portcullis_sdk::prelude::*;
    pub(crate) use portcullis_sdk::testing::{Callee, Host, Request};
}

#[allow(
    dead_code,
    unused_imports,
    clippy::all,
    reason = "excerpts: what calls them is not on the page, and they are written for readers"
)]
mod pages {
    include!(concat!(env!("OUT_DIR"), "/pages.rs"));
}
