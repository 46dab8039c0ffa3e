//! Programs of this machine: where they are, and how Rust is compiled to WebAssembly.
//!
//! Shared by `portcullis policy build` and by the build of this repository, which must not wait for an engine to be compiled. So this crate
//! depends on nothing.

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

pub use program::{are_installed, cargo, find, is_program, show};
pub use rust::{PACKAGES, RustCompiler, TARGET, has_target};

mod program;
mod rust;
