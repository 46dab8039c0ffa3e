//! Policies in WebAssembly text, for cases that compilers do not produce.

use std::fmt::Write as _;
use std::path::PathBuf;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::abi::{AbiVariant, WasmType};
use wit_parser::{Resolve, WorldItem};

use crate::root;

/// Compiles a core module in `tests/guests`, with the custom section that names its contract, as compilers produce it.
///
/// # Panics
/// If the guest does not exist.
pub fn guest(name: &str) -> Vec<u8> {
    let file = root().join("tests/guests").join(format!("{name}.wat"));
    let text = std::fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    module(&text)
}

/// The same for another text.
pub fn module(text: &str) -> Vec<u8> {
    let mut bytes = wat::parse_str(text).expect("the guest is valid WebAssembly text");
    let mut resolve = Resolve::default();
    let (package, _) = resolve
        .push_path(wit())
        .expect("the contract can be parsed");
    let has = |export: &str| text.contains(&format!("(export \"{export}\")"));
    let world = match (has("validate-settings"), has("on-failure")) {
        (false, false) => "routing-policy",
        (true, false) => "configured-policy",
        (false, true) => "failover-policy",
        (true, true) => "configured-failover-policy",
    };
    let world = resolve
        .select_world(&[package], Some(world))
        .expect("the contract has this world");
    embed_component_metadata(&mut bytes, &resolve, world, StringEncoding::UTF8)
        .expect("the contract can be embedded");
    bytes
}

/// Returns a policy that rejects every request with this code and reason, in plain WebAssembly.
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

/// The same with these header fields.
pub fn rejecting_with(code: u16, reason: &str, headers: &[(String, String)]) -> Vec<u8> {
    // After the verdict, at 32, come pointer and length of each header field's name and value, then the texts.
    let mut texts = 32 + 16 * headers.len();
    let mut place = |text: &str| {
        let at = texts;
        texts += text.len();
        [at, text.len()]
    };
    let verdict = [
        vec![1, code.into()],
        place(reason).to_vec(),
        vec![32, headers.len()],
    ]
    .concat();
    let fields: Vec<usize> = headers
        .iter()
        .flat_map(|(name, value)| [place(name), place(value)].concat())
        .collect();
    let words = |words: &[usize]| -> String {
        let bytes = words.iter().flat_map(|&word| (word as u32).to_le_bytes());
        bytes.map(|byte| format!("\\{byte:02x}")).collect()
    };
    let texts: String = headers
        .iter()
        .map(|(name, value)| format!("{name}{value}"))
        .collect();
    module(&format!(
        r#"(module
            (memory (export "memory") 2)
            (data (i32.const 0) "{}")
            (data (i32.const 32) "{}{reason}{texts}")
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
            (func (export "decide") (result i32) i32.const 0))"#,
        words(&verdict),
        words(&fields),
    ))
}

/// A policy that imports every function of the contract, and passes on every request.
///
/// # Panics
/// If the contract cannot be parsed.
pub fn importing_everything() -> Vec<u8> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve
        .push_path(wit())
        .expect("the contract can be parsed");
    let world = resolve
        .select_world(&[package], Some("routing-policy"))
        .expect("the contract has a world");
    let mut imports = String::new();
    for (key, item) in &resolve.worlds[world].imports {
        let WorldItem::Interface { id, .. } = item else {
            continue;
        };
        let interface = resolve.name_world_key(key);
        for (function, signature) in &resolve.interfaces[*id].functions {
            let signature = resolve.wasm_signature(AbiVariant::GuestImport, signature);
            let _infallible = writeln!(
                imports,
                r#"(import "{interface}" "{function}" (func (param {}) (result {})))"#,
                types(&signature.params),
                types(&signature.results)
            );
        }
    }
    // The verdict `pass` is discriminant 3.
    module(&format!(
        r#"(module
            {imports}
            (memory (export "memory") 1)
            (data (i32.const 0) "\03")
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
            (func (export "decide") (result i32) i32.const 0))"#
    ))
}

/// The types of parameters or results, in WebAssembly text.
fn types(types: &[WasmType]) -> String {
    let names = types.iter().map(|of| match of {
        WasmType::I32 | WasmType::Pointer | WasmType::Length => "i32",
        WasmType::I64 | WasmType::PointerOrI64 => "i64",
        WasmType::F32 => "f32",
        WasmType::F64 => "f64",
    });
    names.collect::<Vec<_>>().join(" ")
}

/// A module of the contract as a component.
///
/// # Panics
/// If it is not a module of the contract.
pub fn component(module: &[u8]) -> Vec<u8> {
    ComponentEncoder::default()
        .module(module)
        .and_then(|mut encoder| encoder.encode())
        .expect("the module can be made a component")
}

fn wit() -> PathBuf {
    root().join("policy-wit")
}

/// Returns a policy that passes every request, with one function of this many statements over many variables, which takes long to compile.
pub fn large(statements: u32) -> Vec<u8> {
    let mut body = String::new();
    for n in 0..statements {
        let (to, a, b) = (n % 200, n * 7 % 200, (n * 13 + 1) % 200);
        let _ = write!(
            body,
            "(local.set {to} (i32.add (local.get {a}) (i32.mul (local.get {b}) (i32.const {n}))))"
        );
    }
    let locals = "i32 ".repeat(200);
    module(&format!(
        r#"(module
            (memory (export "memory") 1)
            (data (i32.const 16) "\03")
            (func (export "decide") (result i32) (local {locals}) {body} i32.const 16))"#
    ))
}
