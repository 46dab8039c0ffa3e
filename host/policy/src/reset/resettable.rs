//! Decides which modules can be reset, and prepares them for it.
//!
//! The state of an instance is its memory, its mutable globals, its tables, and the set of passive segments that it has dropped. The host
//! can restore the memory, and a function that the host adds to the module can restore the globals. A module is therefore resettable if its
//! code changes neither tables nor segments. All other modules get a new instance for each call. Marks say which parts of the memory
//! have to be restored ([`cards`](super::cards)).
//!
//! A module may have code that runs before its first call: a start function, or `_initialize`. If this code calls only functions of the
//! module, it does the same in each instance, so the state after it is the state that a reset restores: a second added function saves the
//! globals.

use std::ops::Range;

use thiserror::Error;
use wasm_encoder::reencode::{Reencode, RoundtripReencoder};
use wasm_encoder::{
    ConstExpr, Encode, ExportKind, ExportSection, Function, GlobalSection, GlobalType, Instruction,
    Module, ValType,
};
use wasmparser::{ExternalKind, FunctionBody, Operator, Parser, Payload};

use super::data;
use crate::added_functions::{AddedFunctions, Edit, first_added};

/// The export name of the function that restores the globals. It returns the marks of the call, and clears them. No compiler uses such a name.
pub(crate) const EXPORT: &str = "portcullis:reset";

/// The export name of the function that saves the globals, in modules with code that runs before the first call.
pub(crate) const SAVE: &str = "portcullis:save";

/// The export that runs before the first call.
pub(crate) const INITIALIZE: &str = "_initialize";

/// Maximum size of a resettable memory in pages: restoring more costs more than a new instance from the pool.
const MOST_PAGES: u64 = 2;

/// Why an instance cannot be reset after a call, so that each call gets a new one.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum NoReset {
    /// The file is a component.
    #[error("it is a component")]
    Component,
    /// The module is instantiated as a component.
    #[error("it exports functions of the component model (`cabi_import_realloc`)")]
    SpecialExport,
    /// The memory is too large.
    #[error("its memory has more than 128 KiB at the start")]
    Memory,
    /// The code changes a table.
    #[error("its code changes a table")]
    Table,
    /// The code drops a segment.
    #[error("its code drops a data segment or an element segment")]
    Segment,
    /// A mutable global holds a reference.
    #[error("it has a mutable global with a reference")]
    Reference,
    /// Something other than functions is imported.
    #[error("it imports a memory, a table or a global")]
    Import,
    /// The start function or `_initialize` may call the host.
    #[error(
        "code that runs before the first call (its start function or `_initialize`) calls the host, or functions through a table"
    )]
    Start,
    /// The host cannot add its functions.
    #[error("the host cannot add the function that resets it")]
    Rewriting,
}

/// A module whose instances can be reset.
pub(crate) struct Resettable {
    globals: Vec<Global>,
    /// Whether code runs before the first call.
    initialises: bool,
}

/// A mutable global.
struct Global {
    index: u32,
    ty: ValType,
    /// The instructions that compute its initial value.
    initial: Vec<u8>,
}

impl Resettable {
    /// Examines the module of a valid file.
    ///
    /// # Errors
    /// If it has state that cannot be restored.
    pub(crate) fn of(file: &[u8]) -> Result<Self, NoReset> {
        let mut examination = Examination::default();
        for payload in Parser::new(0).parse_all(file) {
            examination.read(file, &payload.map_err(unreadable)?)?;
        }
        examination.start.check()?;
        Ok(Self {
            globals: examination.globals,
            initialises: !examination.start.roots.is_empty(),
        })
    }

    /// Adds the function [`EXPORT`] to the module, which may have got more functions and globals since it was examined, and [`SAVE`] if it
    /// needs it. `marks` is the global with the marks; without it, the function returns the marks of all cards. `None` for a module without
    /// functions of its own.
    pub(crate) fn with_reset(&self, file: &[u8], marks: Option<u32>) -> Option<Vec<u8>> {
        let saved = self.initialises.then(|| number_of_globals(file));
        let saved = match saved {
            Some(first) => Some(first?),
            None => None,
        };
        let mut bodies = vec![self.reset(marks, saved)];
        bodies.extend(saved.map(|saved| self.save(saved)));
        let functions = AddedFunctions {
            params: &[],
            results: &[ValType::I64],
            bodies,
        };
        let mut added = Added {
            function: first_added(file)?,
            saved: saved.map(|_| &*self.globals),
            keeps_image: marks.is_none(),
        };
        functions.add_to(file, &mut added)
    }

    /// The function [`EXPORT`]. `saved` is the first of the globals with the saved values.
    fn reset(&self, marks: Option<u32>, saved: Option<u32>) -> Function {
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
        for (nth, global) in (0..).zip(&self.globals) {
            match saved {
                Some(first) => {
                    function.instruction(&GlobalGet(first + nth));
                }
                None => {
                    function.raw(global.initial.iter().copied());
                }
            }
            function.instruction(&GlobalSet(global.index));
        }
        function.instruction(&End);
        function
    }

    /// The function [`SAVE`]. Its result has no meaning: all added functions have the same type.
    fn save(&self, saved: u32) -> Function {
        use Instruction::{End, GlobalGet, GlobalSet, I64Const};
        let mut function = Function::new([]);
        for (nth, global) in (0..).zip(&self.globals) {
            function.instruction(&GlobalGet(global.index));
            function.instruction(&GlobalSet(saved + nth));
        }
        function.instruction(&I64Const(0));
        function.instruction(&End);
        function
    }
}

/// Exports the added functions, adds the globals for saved values, and lets the module's code copy its data.
struct Added<'r> {
    /// The index of the function [`EXPORT`]; that of [`SAVE`] is the next one.
    function: u32,
    /// The globals whose values are saved.
    saved: Option<&'r [Global]>,
    /// Whether the data stays as it is: without marks, a call may have been measured in fuel, which copying would use.
    keeps_image: bool,
}

impl Edit for Added<'_> {
    fn section(&mut self, section: &Payload<'_>, whole: &mut Module) -> Option<bool> {
        match (section, self.saved) {
            (Payload::ExportSection(section), saved) => {
                let mut exports = ExportSection::new();
                RoundtripReencoder
                    .parse_export_section(&mut exports, section.clone())
                    .ok()?;
                exports.export(EXPORT, ExportKind::Func, self.function);
                if saved.is_some() {
                    exports.export(SAVE, ExportKind::Func, self.function + 1);
                }
                whole.section(&exports);
            }
            (Payload::GlobalSection(section), Some(saved)) => {
                let mut globals = GlobalSection::new();
                RoundtripReencoder
                    .parse_global_section(&mut globals, section.clone())
                    .ok()?;
                for global in saved {
                    let ty = GlobalType {
                        val_type: global.ty,
                        mutable: true,
                        shared: false,
                    };
                    globals.global(ty, &zero(global.ty)?);
                }
                whole.section(&globals);
            }
            (Payload::DataSection(section), _) if !self.keeps_image => {
                match data::without_image(section) {
                    Some(data) => {
                        whole.section(&data);
                    }
                    None => return Some(false),
                }
            }
            _ => return Some(false),
        }
        Some(true)
    }
}

fn zero(ty: ValType) -> Option<ConstExpr> {
    Some(match ty {
        ValType::I32 => ConstExpr::i32_const(0),
        ValType::I64 => ConstExpr::i64_const(0),
        ValType::F32 => ConstExpr::f32_const(0.0.into()),
        ValType::F64 => ConstExpr::f64_const(0.0.into()),
        ValType::V128 => ConstExpr::v128_const(0),
        ValType::Ref(_) => return None,
    })
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "only the section of globals matters"
)]
fn number_of_globals(file: &[u8]) -> Option<u32> {
    for payload in Parser::new(0).parse_all(file) {
        match payload.ok()? {
            Payload::GlobalSection(globals) => return Some(globals.count()),
            Payload::CodeSectionStart { .. } => return Some(0),
            _ => {}
        }
    }
    Some(0)
}

/// A valid file can be read. If not, nothing is known about it.
fn unreadable(_: wasmparser::BinaryReaderError) -> NoReset {
    NoReset::Rewriting
}

/// What is known of a module while it is read.
#[derive(Default)]
struct Examination {
    globals: Vec<Global>,
    start: Start,
}

impl Examination {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the other sections of a file do not matter here"
    )]
    fn read(&mut self, file: &[u8], payload: &Payload<'_>) -> Result<(), NoReset> {
        match payload {
            Payload::ImportSection(imports) => {
                for import in imports.clone().into_imports() {
                    // An imported global would shift the indices of the others.
                    match import.map_err(unreadable)?.ty {
                        wasmparser::TypeRef::Func(_) => self.start.imported += 1,
                        _ => return Err(NoReset::Import),
                    }
                }
            }
            Payload::MemorySection(memories) => {
                for memory in memories.clone() {
                    if memory.map_err(unreadable)?.initial > MOST_PAGES {
                        return Err(NoReset::Memory);
                    }
                }
            }
            Payload::GlobalSection(globals) => {
                for (index, global) in (0..).zip(globals.clone()) {
                    self.add_global(file, index, &global.map_err(unreadable)?)?;
                }
            }
            Payload::ExportSection(exports) => {
                for export in exports.clone() {
                    let export = export.map_err(unreadable)?;
                    match export.name {
                        EXPORT | SAVE => return Err(NoReset::Rewriting),
                        INITIALIZE if export.kind == ExternalKind::Func => {
                            self.start.roots.push(export.index);
                        }
                        _ => {}
                    }
                }
            }
            Payload::StartSection { func, .. } => self.start.roots.push(*func),
            Payload::CodeSectionEntry(body) => self.start.add(body)?,
            _ => {}
        }
        Ok(())
    }

    fn add_global(
        &mut self,
        file: &[u8],
        index: u32,
        global: &wasmparser::Global<'_>,
    ) -> Result<(), NoReset> {
        if !global.ty.mutable {
            return Ok(());
        }
        if matches!(global.ty.content_type, wasmparser::ValType::Ref(_)) {
            return Err(NoReset::Reference);
        }
        let ty = RoundtripReencoder.val_type(global.ty.content_type);
        let instructions = global.init_expr.get_binary_reader().range();
        self.globals.push(Global {
            index,
            ty: ty.map_err(|_| NoReset::Rewriting)?,
            initial: instructions_of(file, instructions).ok_or(NoReset::Rewriting)?,
        });
        Ok(())
    }
}

/// The functions that code before the first call may reach.
#[derive(Default)]
struct Start {
    /// The start function and `_initialize`.
    roots: Vec<u32>,
    /// Number of imported functions. They have the first indices.
    imported: u32,
    /// For each function of the module, what it calls. Empty if there are no roots.
    calls: Vec<Calls>,
}

#[derive(Default)]
struct Calls {
    functions: Vec<u32>,
    /// Whether it calls functions that are known only at run time.
    others: bool,
}

impl Start {
    /// Reads a function.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "there are hundreds of instructions, and few that matter"
    )]
    fn add(&mut self, body: &FunctionBody<'_>) -> Result<(), NoReset> {
        let mut calls = Calls::default();
        for operator in body.get_operators_reader().map_err(unreadable)? {
            match operator.map_err(unreadable)? {
                Operator::TableSet { .. }
                | Operator::TableGrow { .. }
                | Operator::TableFill { .. }
                | Operator::TableCopy { .. }
                | Operator::TableInit { .. } => return Err(NoReset::Table),
                Operator::ElemDrop { .. } | Operator::DataDrop { .. } => {
                    return Err(NoReset::Segment);
                }
                // References are called by proposals that are not supported.
                Operator::CallIndirect { .. } => calls.others = true,
                Operator::Call { function_index } if !self.roots.is_empty() => {
                    calls.functions.push(function_index);
                }
                _ => {}
            }
        }
        if !self.roots.is_empty() {
            self.calls.push(calls);
        }
        Ok(())
    }

    /// Checks that no root reaches the host.
    fn check(&self) -> Result<(), NoReset> {
        let mut reached = vec![false; self.calls.len()];
        let mut next = self.roots.clone();
        while let Some(function) = next.pop() {
            let own = function.checked_sub(self.imported).ok_or(NoReset::Start)? as usize;
            let (Some(calls), Some(reached)) = (self.calls.get(own), reached.get_mut(own)) else {
                return Err(NoReset::Rewriting);
            };
            if std::mem::replace(reached, true) {
                continue;
            }
            if calls.others {
                return Err(NoReset::Start);
            }
            next.extend(&calls.functions);
        }
        Ok(())
    }
}

/// The instructions of a constant expression, without the `end` that all expressions have.
fn instructions_of(file: &[u8], range: Range<usize>) -> Option<Vec<u8>> {
    let mut end = Vec::new();
    Instruction::End.encode(&mut end);
    Some(file.get(range)?.strip_suffix(&*end)?.to_vec())
}

#[cfg(test)]
mod tests {
    use wasm_encoder::{CodeSection, FunctionSection, TypeSection};
    use wasmtime::{Engine, Instance, Store};

    use super::*;

    /// The indices of the mutable globals.
    fn globals(wat: &str) -> Result<Vec<u32>, NoReset> {
        let found = Resettable::of(&wat::parse_str(wat).unwrap())?;
        Ok(found.globals.iter().map(|global| global.index).collect())
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

    /// The globals have the values that they had after the start function.
    #[test]
    fn globals_return_to_the_values_that_the_start_function_left() {
        for marks in [None, Some(2)] {
            let module = with_reset(
                r#"(module (memory (export "memory") 1)
                    (global $a (export "a") (mut i32) (i32.const 1)) (global $b (export "b") (mut v128) (v128.const i64x2 1 1))
                    (global $marks (mut i64) (i64.const 0))
                    (func $s (global.set $a (i32.add (global.get $a) (i32.const 6))) (global.set $b (v128.const i64x2 3 4)))
                    (start $s)
                    (func (export "write") (global.set $a (i32.const 8)) (global.set $b (v128.const i64x2 5 6))))"#,
                marks,
            );
            let engine = Engine::default();
            let mut store = Store::new(&engine, ());
            let module = wasmtime::Module::new(&engine, module).unwrap();
            let instance = Instance::new(&mut store, &module, &[]).unwrap();
            let values = |store: &mut Store<()>| {
                ["a", "b"].map(|name| {
                    let global = instance.get_global(&mut *store, name).unwrap();
                    format!("{:?}", global.get(&mut *store))
                })
            };
            let save = instance.get_typed_func::<(), u64>(&mut store, SAVE);
            save.unwrap().call(&mut store, ()).unwrap();
            let initial = values(&mut store);
            assert_eq!(initial[0], "I32(7)");
            let write = instance.get_typed_func::<(), ()>(&mut store, "write");
            let write = write.unwrap();
            let reset = instance.get_typed_func::<(), u64>(&mut store, EXPORT);
            let reset = reset.unwrap();
            for _ in 0..2 {
                write.call(&mut store, ()).unwrap();
                assert_ne!(values(&mut store), initial);
                reset.call(&mut store, ()).unwrap();
                assert_eq!(values(&mut store), initial);
            }
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
        let table = "(memory 1) (table 1 funcref)";
        for (rest, expected) in [
            ("(memory 3)", NoReset::Memory),
            (
                "(memory 1) (global (mut funcref) (ref.null func))",
                NoReset::Reference,
            ),
            (
                "{table} (func (table.set (i32.const 0) (ref.null func)))",
                NoReset::Table,
            ),
            (
                "{table} (func (drop (table.grow (ref.null func) (i32.const 1))))",
                NoReset::Table,
            ),
            (
                "{table} (func (table.fill (i32.const 0) (ref.null func) (i32.const 1)))",
                NoReset::Table,
            ),
            (
                "{table} (func (table.copy (i32.const 0) (i32.const 0) (i32.const 1)))",
                NoReset::Table,
            ),
            (
                "{table} (elem $e funcref (ref.null func)) (func (table.init $e (i32.const 0) (i32.const 0) (i32.const 1)))",
                NoReset::Table,
            ),
            (
                "(memory 1) (elem $e funcref (ref.null func)) (func (elem.drop $e))",
                NoReset::Segment,
            ),
            (
                "(memory 1) (data $d \"x\") (func (data.drop $d))",
                NoReset::Segment,
            ),
            (
                "(memory 1) (global (export \"portcullis:reset\") (mut i32) (i32.const 1))",
                NoReset::Rewriting,
            ),
            (
                "(memory 1) (global (export \"portcullis:save\") (mut i32) (i32.const 1))",
                NoReset::Rewriting,
            ),
            (
                "(import \"a\" \"b\" (global i32)) (memory 1)",
                NoReset::Import,
            ),
            (
                "(import \"a\" \"b\" (func $host)) (memory 1) (start $host)",
                NoReset::Start,
            ),
            (
                "(import \"a\" \"b\" (func $host)) (memory 1) (func $s (call $t)) (func $t (call $s) (call $host)) (start $s)",
                NoReset::Start,
            ),
            (
                "(import \"a\" \"b\" (func $host)) (memory 1) (func (export \"_initialize\") (call $host))",
                NoReset::Start,
            ),
            (
                "{table} (type $t (func)) (func $s (call_indirect (type $t) (i32.const 0))) (start $s)",
                NoReset::Start,
            ),
        ] {
            let rest = rest.replace("{table}", table);
            let wat = match rest.starts_with("(import") {
                true => format!("(module {rest} {decide})"),
                false => format!("(module {decide} {rest})"),
            };
            assert_eq!(globals(&wat), Err(expected), "{rest}");
        }
        for rest in [
            "(memory 2)",
            "(memory 1) (func $s) (start $s)",
            "(memory 1) (func $s (call $s)) (start $s)",
            "(memory 1) (func $s (call $t)) (func $t) (export \"_initialize\" (func $s))",
        ] {
            assert!(
                globals(&format!("(module {decide} {rest})")).is_ok(),
                "{rest}"
            );
        }
    }
}
