//! Policies in WebAssembly text, for what no honest compiler would write.

use std::path::PathBuf;

use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use crate::root;

/// A core module of `tests/guests` that says which contract it is built for, as compilers leave it.
///
/// # Panics
/// When there is no such guest.
pub fn guest(name: &str) -> Vec<u8> {
    let file = root().join("tests/guests").join(format!("{name}.wat"));
    let text = std::fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    module(&text)
}

/// The same for text of a test's own.
pub fn module(text: &str) -> Vec<u8> {
    let mut bytes = wat::parse_str(text).expect("the guest is valid WebAssembly text");
    let mut resolve = Resolve::default();
    let (package, _) = resolve
        .push_path(wit())
        .expect("the contract can be parsed");
    let world = resolve
        .select_world(&[package], Some("routing-policy"))
        .expect("the contract has a world");
    embed_component_metadata(&mut bytes, &resolve, world, StringEncoding::UTF8)
        .expect("the contract can be embedded");
    bytes
}

/// A policy that rejects everything with this code and reason, as plain WebAssembly.
pub fn rejecting(code: u16, reason: &str) -> Vec<u8> {
    // The verdict lies at 0: discriminant 1 (reject), then code at 4, reason pointer and length at 8 and 12, no headers.
    let data: String = [1, 0, 0, 0]
        .into_iter()
        .chain(u32::from(code).to_le_bytes())
        .chain(64u32.to_le_bytes())
        .chain((reason.len() as u32).to_le_bytes())
        .chain([0; 8])
        .map(|byte: u8| format!("\\{byte:02x}"))
        .collect();
    module(&format!(
        r#"(module
            (memory (export "memory") 1)
            (data (i32.const 0) "{data}")
            (data (i32.const 64) "{reason}")
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
            (func (export "decide") (result i32) i32.const 0))"#
    ))
}

fn wit() -> PathBuf {
    root().join("policy-wit")
}
