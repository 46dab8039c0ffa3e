//! What all pages have.

use clap_mangen::roff::{Inline, bold, roman};

/// The name of another page.
pub(super) fn reference(page: &str, section: &str) -> Vec<Inline> {
    vec![bold(page), roman(format!("({section})"))]
}

/// The program and its version, at the foot of a page.
pub(super) fn source() -> String {
    format!("portcullis {}", env!("CARGO_PKG_VERSION"))
}
