//! Decides which modules can be reset, and prepares them for it.
//!
//! The state of an instance is its memory, its mutable globals, its tables, and the set of passive segments that it has dropped. The host
//! can restore the memory, and a function that the host adds to the module can restore the globals. A module is therefore resettable if its
//! code changes neither tables nor segments. All other modules get a new instance for each call. Marks tell which parts of the memory
//! have to be restored ([`cards`](super::cards)).

use std::ops::Range;

use wasm_encoder::reencode::{Reencode, RoundtripReencoder};
use wasm_encoder::{Encode, ExportKind, ExportSection, Function, Instruction, Module, ValType};
use wasmparser::{Operator, Parser, Payload};

use crate::added_functions::{AddedFunctions, Edit, first_added};

/// The export name of the function that restores the globals. It returns the marks of the call, and clears them. No compiler uses such a name.
pub(crate) const EXPORT: &str = "portcullis:reset";

/// Maximum size of a resettable memory in pages: restoring more costs more than a new instance from the pool.
const MOST_PAGES: u64 = 2;

/// A module whose instances can be reset.
pub(crate) struct Resettable {
    globals: Vec<Global>,
}

/// A mutable global.
struct Global {
    index: u32,
    /// The instructions that compute its initial value.
    initial: Vec<u8>,
}

impl Resettable {
    /// Examines the module of a valid file; `None` if it has state that cannot be restored.
    pub(crate) fn of(file: &[u8]) -> Option<Self> {
        let globals = mutable_globals(file)?;
        Some(Self { globals })
    }

    /// Adds the function [`EXPORT`] to the module, which may have got more functions and globals since it was examined. `marks` is the global
    /// with the marks; without it, the function returns the marks of all cards. `None` for a module without functions of its own.
    pub(crate) fn with_reset(&self, file: &[u8], marks: Option<u32>) -> Option<Vec<u8>> {
        let functions = AddedFunctions {
            params: &[],
            results: &[ValType::I64],
            bodies: vec![self.reset(marks)],
        };
        functions.add_to(file, &mut Exported(first_added(file)?))
    }

    /// The function [`EXPORT`].
    fn reset(&self, marks: Option<u32>) -> Function {
        use Instruction::{End, GlobalGet, GlobalSet, I64Const};
        let mut function = Function::new([]);
        match marks {
            Some(marks) => {
                for instruction in [GlobalGet(marks), I64Const(0), GlobalSet(marks)] {
                    function.instruction(&instruction);
                }
            }
            None => {
                function.instruction(&I64Const(-1));
            }
        }
        for global in &self.globals {
            function.raw(global.initial.iter().copied());
            function.instruction(&GlobalSet(global.index));
        }
        function.instruction(&End);
        function
    }
}

/// Exports the function of this index as [`EXPORT`].
struct Exported(u32);

impl Edit for Exported {
    fn section(&mut self, section: &Payload<'_>, whole: &mut Module) -> Option<bool> {
        let Payload::ExportSection(section) = section else {
            return Some(false);
        };
        let mut exports = ExportSection::new();
        RoundtripReencoder
            .parse_export_section(&mut exports, section.clone())
            .ok()?;
        exports.export(EXPORT, ExportKind::Func, self.0);
        whole.section(&exports);
        Some(true)
    }
}

/// The mutable globals; `None` if the module has other state, or a mutable global with a reference.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the other sections of a file do not matter here"
)]
fn mutable_globals(file: &[u8]) -> Option<Vec<Global>> {
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
                for (index, global) in (0..).zip(globals) {
                    let global = global.ok()?;
                    if !global.ty.mutable {
                        continue;
                    }
                    if matches!(global.ty.content_type, wasmparser::ValType::Ref(_)) {
                        return None;
                    }
                    let instructions = global.init_expr.get_binary_reader().range();
                    let initial = instructions_of(file, instructions)?;
                    mutable.push(Global { index, initial });
                }
            }
            Payload::ExportSection(exports) => {
                let is_ours = |export: wasmparser::Export<'_>| export.name == EXPORT;
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

/// The instructions of a constant expression, without the `end` that all expressions have.
fn instructions_of(file: &[u8], range: Range<usize>) -> Option<Vec<u8>> {
    let mut end = Vec::new();
    Instruction::End.encode(&mut end);
    Some(file.get(range)?.strip_suffix(&*end)?.to_vec())
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
    use wasm_encoder::{CodeSection, FunctionSection, TypeSection};
    use wasmtime::{Engine, Instance, Store};

    use super::*;

    /// The indices of the mutable globals.
    fn globals(wat: &str) -> Option<Vec<u32>> {
        let found = Resettable::of(&wat::parse_str(wat).unwrap())?;
        Some(found.globals.iter().map(|global| global.index).collect())
    }

    fn with_reset(wat: &str, marks: Option<u32>) -> Vec<u8> {
        let file = wat::parse_str(wat).unwrap();
        let module = Resettable::of(&file).unwrap().with_reset(&file, marks);
        let module = module.unwrap();
        wasmparser::validate(&module).unwrap();
        module
    }

    #[test]
    fn globals_return_to_their_initial_values() {
        const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
        let module = with_reset(
            r#"(module (import "host" "unused" (func)) (memory (export "memory") 1)
                (global $first i32 (i32.const 5))
                (global (export "a") (mut i32) (i32.const -1))
                (global (export "b") (mut i64) (i64.const 0x8000000000000000))
                (global (export "c") (mut f32) (f32.const nan:0x200001))
                (global (export "d") (mut f64) (f64.const -0.0))
                (global (export "e") (mut i32) (i32.add (global.get $first) (i32.const 6)))
                (global $marks (export "marks") (mut i64) (i64.const 0))
                (func (export "write") (param i64)
                    (global.set 1 (i32.const 0)) (global.set 2 (i64.const 0)) (global.set 3 (f32.const 0))
                    (global.set 4 (f64.const 0)) (global.set 5 (i32.const 0)) (global.set $marks (local.get 0))))"#,
            Some(6),
        );
        let engine = Engine::default();
        let mut store = Store::new(&engine, ());
        let module = wasmtime::Module::new(&engine, module).unwrap();
        let unused = wasmtime::Func::wrap(&mut store, || {});
        let instance = Instance::new(&mut store, &module, &[unused.into()]).unwrap();
        let values = |store: &mut Store<()>| {
            NAMES.map(|name| {
                let global = instance.get_global(&mut *store, name).unwrap();
                format!("{:?}", global.get(&mut *store))
            })
        };
        let initial = values(&mut store);
        assert_eq!(initial[4], "I32(11)");
        let write = instance.get_typed_func::<u64, ()>(&mut store, "write");
        let write = write.unwrap();
        let reset = instance.get_typed_func::<(), u64>(&mut store, EXPORT);
        let reset = reset.unwrap();
        for marks in [7, 0, u64::MAX] {
            write.call(&mut store, marks).unwrap();
            let written = ["I32(0)", "I64(0)", "F32(0)", "F64(0)", "I32(0)"];
            assert_eq!(values(&mut store), written);
            assert_eq!(reset.call(&mut store, ()).unwrap(), marks);
            assert_eq!(values(&mut store), initial);
            assert_eq!(reset.call(&mut store, ()).unwrap(), 0);
        }
    }

    /// The added function would be an import, or missing.
    #[test]
    fn modules_without_functions_of_their_own_are_not_reset() {
        for text in [
            r#"(module (import "a" "b" (func (result i32))) (memory 1) (export "decide" (func 0)))"#,
            r#"(module (memory 1) (export "memory" (memory 0)))"#,
        ] {
            let file = wat::parse_str(text).unwrap();
            let resettable = Resettable::of(&file).unwrap();
            assert!(resettable.with_reset(&file, None).is_none(), "{text}");
        }
        // Function and code sections without entries.
        let mut file = wasm_encoder::Module::new();
        file.section(&TypeSection::new())
            .section(&FunctionSection::new())
            .section(&ExportSection::new())
            .section(&CodeSection::new());
        let file = file.finish();
        let resettable = Resettable::of(&file).unwrap();
        assert!(resettable.with_reset(&file, None).is_none());
        assert!(super::super::marked(&file).is_none());
    }

    #[test]
    fn without_marks_all_cards_are_marked() {
        let module = with_reset(
            r#"(module (memory 1) (func (export "decide") (result i32) i32.const 0))"#,
            None,
        );
        let engine = Engine::default();
        let mut store = Store::new(&engine, ());
        let module = wasmtime::Module::new(&engine, module).unwrap();
        let instance = Instance::new(&mut store, &module, &[]).unwrap();
        let reset = instance.get_typed_func::<(), u64>(&mut store, EXPORT);
        assert_eq!(reset.unwrap().call(&mut store, ()).unwrap(), u64::MAX);
    }

    #[test]
    fn mutable_globals_are_found() {
        let found = globals(
            r#"(module (memory (export "memory") 1)
                (global i32 (i32.const 1)) (global (mut i64) (i64.const 2)) (global (mut v128) (v128.const i64x2 0 0))
                (func (export "decide") (result i32) i32.const 0))"#,
        );
        assert_eq!(found.unwrap(), [1, 2]);
    }

    #[test]
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the other sections of a file do not matter here"
    )]
    fn exports_and_custom_sections_stay() {
        let module = with_reset(
            r#"(module (@custom "mine" "text") (memory (export "memory") 1)
            (global $g (export "g") (mut i32) (i32.const 1)) (func (export "decide") (result i32) global.get $g))"#,
            None,
        );
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
        assert_eq!(exports, ["memory", "g", "decide", EXPORT]);
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
            "(memory 1) (global (export \"portcullis:reset\") (mut i32) (i32.const 1))",
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
