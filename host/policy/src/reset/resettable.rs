//! Decides which modules can be reset, and prepares them for it.
//!
//! The state of an instance is its memory, its mutable globals, its tables, and the set of passive segments that it has dropped. The host
//! can restore memory, and globals if they are exported. A module is therefore resettable if its code changes neither tables nor segments;
//! it gets an export for each mutable global. All other modules get a new instance for each call. Marks tell which parts of the memory
//! have to be restored ([`cards`](super::cards)).

use wasm_encoder::reencode::{Reencode, RoundtripReencoder};
use wasm_encoder::{ExportKind, ExportSection, Module, RawSection};
use wasmparser::{Operator, Parser, Payload, ValType};

use super::cards;

/// Maximum size of a resettable memory in pages: restoring more costs more than a new instance from the pool.
const MOST_PAGES: u64 = 2;

/// Prefix of the names of the exported globals. No compiler uses such names.
const PREFIX: &str = "portcullis:global:";

/// A module whose instances can be reset.
pub(crate) struct Resettable {
    /// The module with all its mutable globals exported.
    pub(crate) module: Vec<u8>,
    /// The names of these exports.
    pub(crate) globals: Vec<String>,
}

impl Resettable {
    /// Prepares the module of a valid file; `None` if it has state that cannot be restored.
    pub(crate) fn of(file: &[u8]) -> Option<Self> {
        let globals = mutable_globals(file)?;
        let names = globals.iter().map(|global| format!("{PREFIX}{global}"));
        let names: Vec<_> = names.collect();
        let mut module = Module::new();
        for payload in Parser::new(0).parse_all(file) {
            let payload = payload.ok()?;
            if let Payload::ExportSection(exports) = &payload {
                let mut section = ExportSection::new();
                RoundtripReencoder
                    .parse_export_section(&mut section, exports.clone())
                    .ok()?;
                for (name, &global) in names.iter().zip(&globals) {
                    section.export(name, ExportKind::Global, global);
                }
                module.section(&section);
            } else if let Some((id, range)) = payload.as_section() {
                let data = file.get(range)?;
                module.section(&RawSection { id, data });
            }
        }
        Some(Self {
            module: module.finish(),
            globals: names,
        })
    }
}

/// The indices of the mutable globals; `None` if the module has other state, or a mutable global with a reference.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the other sections of a file do not matter here"
)]
fn mutable_globals(file: &[u8]) -> Option<Vec<u32>> {
    let mut mutable = Vec::new();
    for payload in Parser::new(0).parse_all(file) {
        match payload.ok()? {
            // A start function runs once per instance, and must run for each call.
            Payload::StartSection { .. } => return None,
            Payload::ImportSection(imports) => {
                let mut imports = imports.into_imports();
                // An imported global would shift the indices of the others.
                if !imports.all(|import| import.is_ok_and(|import| is_function(&import.ty))) {
                    return None;
                }
            }
            Payload::MemorySection(memories) => {
                for memory in memories {
                    let memory = memory.ok()?;
                    if memory.initial > MOST_PAGES {
                        return None;
                    }
                }
            }
            Payload::GlobalSection(globals) => {
                for (number, global) in (0..).zip(globals) {
                    let ty = global.ok()?.ty;
                    match ty.content_type {
                        _ if !ty.mutable => {}
                        ValType::Ref(_) => return None,
                        ValType::I32
                        | ValType::I64
                        | ValType::F32
                        | ValType::F64
                        | ValType::V128 => mutable.push(number),
                    }
                }
            }
            Payload::ExportSection(exports) => {
                let is_ours = |export: wasmparser::Export<'_>| {
                    export.name.starts_with(PREFIX) || export.name == cards::EXPORT
                };
                if exports.into_iter().any(|export| export.is_ok_and(is_ours)) {
                    return None;
                }
            }
            Payload::CodeSectionEntry(body) => {
                for operator in body.get_operators_reader().ok()? {
                    if changes_other_state(&operator.ok()?) {
                        return None;
                    }
                }
            }
            _ => {}
        }
    }
    Some(mutable)
}

fn is_function(ty: &wasmparser::TypeRef) -> bool {
    matches!(ty, wasmparser::TypeRef::Func(_))
}

/// Whether an instruction changes tables or drops segments.
fn changes_other_state(operator: &Operator<'_>) -> bool {
    matches!(
        operator,
        Operator::TableSet { .. }
            | Operator::TableGrow { .. }
            | Operator::TableFill { .. }
            | Operator::TableCopy { .. }
            | Operator::TableInit { .. }
            | Operator::ElemDrop { .. }
            | Operator::DataDrop { .. }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn globals(wat: &str) -> Option<Vec<String>> {
        let module = wat::parse_str(wat).unwrap();
        let found = Resettable::of(&module)?;
        wasmparser::validate(&found.module).unwrap();
        Some(found.globals)
    }

    #[test]
    fn mutable_globals_are_exported() {
        let names = globals(
            r#"(module (memory (export "memory") 1)
                (global i32 (i32.const 1)) (global (mut i64) (i64.const 2)) (global (mut v128) (v128.const i64x2 0 0))
                (func (export "decide") (result i32) i32.const 0))"#,
        );
        assert_eq!(
            names.unwrap(),
            ["portcullis:global:1", "portcullis:global:2"]
        );
    }

    #[test]
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the other sections of a file do not matter here"
    )]
    fn exports_and_custom_sections_stay() {
        let wat = r#"(module (@custom "mine" "text") (memory (export "memory") 1)
            (global $g (export "g") (mut i32) (i32.const 1)) (func (export "decide") (result i32) global.get $g))"#;
        let module = Resettable::of(&wat::parse_str(wat).unwrap())
            .unwrap()
            .module;
        let mut exports = Vec::new();
        let mut customs = Vec::new();
        for payload in Parser::new(0).parse_all(&module) {
            match payload.unwrap() {
                Payload::ExportSection(section) => {
                    exports.extend(section.into_iter().map(|export| export.unwrap().name));
                }
                Payload::CustomSection(section) => customs.push(section.name()),
                _ => {}
            }
        }
        assert_eq!(exports, ["memory", "g", "decide", "portcullis:global:0"]);
        assert!(customs.contains(&"mine"));
    }

    #[test]
    fn modules_with_state_that_cannot_be_restored_are_refused() {
        let decide = r#"(func (export "decide") (result i32) i32.const 0)"#;
        for rest in [
            "(memory 3)",
            "(memory 1) (func $s) (start $s)",
            "(memory 1) (global (mut funcref) (ref.null func))",
            "(memory 1) (table 1 funcref) (func (table.set (i32.const 0) (ref.null func)))",
            "(memory 1) (table 1 funcref) (func (drop (table.grow (ref.null func) (i32.const 1))))",
            "(memory 1) (table 1 funcref) (func (table.fill (i32.const 0) (ref.null func) (i32.const 1)))",
            "(memory 1) (table 1 funcref) (func (table.copy (i32.const 0) (i32.const 0) (i32.const 1)))",
            "(memory 1) (table 1 funcref) (elem $e funcref (ref.null func)) (func (table.init $e (i32.const 0) (i32.const 0) (i32.const 1)))",
            "(memory 1) (elem $e funcref (ref.null func)) (func (elem.drop $e))",
            "(memory 1) (data $d \"x\") (func (data.drop $d))",
            "(memory 1) (global (export \"portcullis:global:0\") (mut i32) (i32.const 1))",
            "(memory 1) (global (export \"portcullis:cards\") (mut i64) (i64.const 1))",
            "(import \"a\" \"b\" (global i32)) (memory 1)",
        ] {
            let wat = match rest.starts_with("(import") {
                true => format!("(module {rest} {decide})"),
                false => format!("(module {decide} {rest})"),
            };
            assert_eq!(globals(&wat), None, "{rest}");
        }
        assert!(globals(&format!("(module {decide} (memory 2))")).is_some());
    }
}
