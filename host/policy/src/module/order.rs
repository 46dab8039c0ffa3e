//! The order of a module's functions.
//!
//! The compiler keeps the order, and places the code that leads into and out of the module behind the last function. A compiler of a language
//! orders functions by library, so that a call of a policy runs a few lines of many pages. A host with a thousand policies pays for each page:
//! by then, the processor has forgotten where in memory it is. So the functions that a call needs most probably come last, next to each other.

use std::collections::VecDeque;
use std::convert::Infallible;

use wasm_encoder::reencode::{Error, Reencode};
use wasm_encoder::{
    CodeSection, ElementSection, ExportSection, FunctionSection, Module, RawSection, StartSection,
};
use wasmparser::{ExternalKind, FunctionBody, Operator, Parser, Payload};

/// The functions that calls begin with.
const ENTRIES: [&str; 2] = ["decide", "cabi_realloc"];

/// Orders the functions of a valid module that imports only functions: those first that calls need least. `None` if the module cannot be read.
pub(super) fn by_use(file: &[u8]) -> Option<Vec<u8>> {
    let graph = Graph::of(file)?;
    let mut new = vec![0; graph.functions.len()];
    for (position, function) in (0..).zip(graph.order()) {
        *new.get_mut(function)? = position;
    }
    Reordered {
        imported: graph.imported,
        new,
    }
    .rewrite(file)
}

/// The functions of a module and their calls.
struct Graph {
    imported: u32,
    /// The functions that the module defines.
    functions: Vec<Function>,
    entries: Vec<u32>,
}

struct Function {
    /// The functions that it calls, by their indices.
    calls: Vec<u32>,
    /// Whether it ends with a trap, as functions do that report a panic.
    is_trap: bool,
}

impl Graph {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the other sections of a file do not matter here"
    )]
    fn of(file: &[u8]) -> Option<Self> {
        let mut imported = 0;
        let mut functions = Vec::new();
        let mut entries = Vec::new();
        for payload in Parser::new(0).parse_all(file) {
            match payload.ok()? {
                Payload::ImportSection(imports) => {
                    imported = u32::try_from(imports.into_imports().count()).ok()?;
                }
                Payload::ExportSection(exports) => {
                    for export in exports {
                        let export = export.ok()?;
                        if export.kind == ExternalKind::Func && ENTRIES.contains(&export.name) {
                            entries.push(export.index);
                        }
                    }
                }
                Payload::CodeSectionEntry(body) => functions.push(Function::of(&body)?),
                _ => {}
            }
        }
        Some(Self {
            imported,
            functions,
            entries,
        })
    }

    /// The defined functions in their new order.
    fn order(&self) -> Vec<usize> {
        let defined = |index: u32| {
            let function = index.checked_sub(self.imported)? as usize;
            (function < self.functions.len()).then_some(function)
        };
        let mut is_found = vec![false; self.functions.len()];
        let mut found = Vec::new();
        let mut waiting: VecDeque<_> = self.entries.iter().copied().filter_map(defined).collect();
        while let Some(function) = waiting.pop_front() {
            if is_found[function] || self.functions[function].is_trap {
                continue;
            }
            is_found[function] = true;
            found.push(function);
            let calls = &self.functions[function].calls;
            waiting.extend(calls.iter().copied().filter_map(defined));
        }
        let mut order: Vec<_> = (0..self.functions.len())
            .filter(|&function| !is_found[function])
            .collect();
        order.extend(found.into_iter().rev());
        order
    }
}

impl Function {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the other instructions do not matter here"
    )]
    fn of(body: &FunctionBody<'_>) -> Option<Self> {
        let mut calls = Vec::new();
        let mut returns = false;
        let mut last = [false; 2];
        for operator in body.get_operators_reader().ok()? {
            let operator = operator.ok()?;
            match operator {
                Operator::Call { function_index } => calls.push(function_index),
                Operator::Return => returns = true,
                _ => {}
            }
            // The very last instruction is the `end` of the function.
            last = [last[1], matches!(operator, Operator::Unreachable)];
        }
        Some(Self {
            calls,
            is_trap: last[0] && !returns,
        })
    }
}

/// Writes a module with its functions in another order.
struct Reordered {
    imported: u32,
    /// The new position of each defined function.
    new: Vec<u32>,
}

impl Reencode for Reordered {
    type Error = Infallible;

    fn function_index(&mut self, index: u32) -> Result<u32, Error<Infallible>> {
        let defined = index.checked_sub(self.imported);
        let new = defined.and_then(|defined| self.new.get(defined as usize));
        Ok(new.map_or(index, |new| self.imported + new))
    }
}

impl Reordered {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "all other sections are copied"
    )]
    fn rewrite(mut self, file: &[u8]) -> Option<Vec<u8>> {
        let mut whole = Module::new();
        let mut bodies = Vec::new();
        for payload in Parser::new(0).parse_all(file) {
            let payload = payload.ok()?;
            match &payload {
                Payload::FunctionSection(section) => {
                    let types: Result<Vec<_>, _> = section.clone().into_iter().collect();
                    let mut functions = FunctionSection::new();
                    for ty in self.ordered(&types.ok()?)? {
                        functions.function(ty);
                    }
                    whole.section(&functions);
                }
                Payload::ExportSection(section) => {
                    let mut exports = ExportSection::new();
                    self.parse_export_section(&mut exports, section.clone())
                        .ok()?;
                    whole.section(&exports);
                }
                Payload::StartSection { func, .. } => {
                    let function_index = self.function_index(*func).ok()?;
                    whole.section(&StartSection { function_index });
                }
                Payload::ElementSection(section) => {
                    let mut elements = ElementSection::new();
                    self.parse_element_section(&mut elements, section.clone())
                        .ok()?;
                    whole.section(&elements);
                }
                Payload::CodeSectionStart { .. } => {}
                Payload::CodeSectionEntry(body) => {
                    bodies.push(body.clone());
                    if bodies.len() == self.new.len() {
                        let mut code = CodeSection::new();
                        for body in self.ordered(&bodies)? {
                            self.parse_function_body(&mut code, body).ok()?;
                        }
                        whole.section(&code);
                    }
                }
                Payload::GlobalSection(section) => {
                    let mut globals = wasm_encoder::GlobalSection::new();
                    self.parse_global_section(&mut globals, section.clone())
                        .ok()?;
                    whole.section(&globals);
                }
                Payload::CustomSection(section) => {
                    self.parse_custom_section(&mut whole, section.clone())
                        .ok()?;
                }
                payload => {
                    if let Some((id, range)) = payload.as_section() {
                        let data = file.get(range)?;
                        whole.section(&RawSection { id, data });
                    }
                }
            }
        }
        Some(whole.finish())
    }

    /// What belongs to the defined functions, in the new order.
    fn ordered<T: Clone>(&self, old: &[T]) -> Option<Vec<T>> {
        let mut order = vec![0; self.new.len()];
        for (old, &new) in self.new.iter().enumerate() {
            *order.get_mut(new as usize)? = old;
        }
        order.into_iter().map(|at| old.get(at).cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use wasmtime::{Engine, Instance, Store, WasmBacktrace};

    use super::*;

    const TEXT: &str = r#"(module
        (import "host" "f" (func $host (result i32)))
        (table 2 funcref) (elem (i32.const 0) $indirect $rare) (elem declare func $leaf)
        (global (mut funcref) (ref.func $leaf))
        (memory (export "memory") 1)
        (func $decide (export "decide") (param i32) (result i32)
            (if (i32.eqz (local.get 0)) (then (call $panic)))
            (i32.add (call $leaf) (i32.add (call $host) (call_indirect (result i32) (i32.sub (local.get 0) (i32.const 1))))))
        (func $rare (result i32) i32.const 1000)
        (func $panic (param) (drop (call $rare)) unreachable)
        (func $leaf (result i32) (call $inner))
        (func $indirect (result i32) i32.const 100)
        (func $early (export "early") (param i32) (result i32) (if (local.get 0) (then (return (i32.const 7)))) unreachable)
        (func $inner (result i32) i32.const 10))"#;

    #[test]
    fn functions_of_a_call_come_last() {
        let graph = Graph::of(&wat::parse_str(TEXT).unwrap()).unwrap();
        // The rest in the old order: $rare, $panic, $indirect, $early; then by distance: $inner, $leaf, $decide.
        assert_eq!(graph.order(), [1, 2, 4, 5, 6, 3, 0]);
        let traps = graph.functions.iter().map(|function| function.is_trap);
        let traps: Vec<_> = traps.collect();
        assert_eq!(traps, [false, false, true, false, false, false, false]);
    }

    #[test]
    fn the_module_does_the_same() {
        let plain = wat::parse_str(TEXT).unwrap();
        let ordered = by_use(&plain).unwrap();
        assert_ne!(plain, ordered);
        let engine = Engine::default();
        for file in [plain, ordered] {
            let mut store = Store::new(&engine, ());
            let module = wasmtime::Module::new(&engine, file).unwrap();
            let host = wasmtime::Func::wrap(&mut store, || 1_u32);
            let instance = Instance::new(&mut store, &module, &[host.into()]).unwrap();
            let mut call = |name: &str, argument: u32| {
                let function = instance.get_typed_func::<u32, u32>(&mut store, name);
                function.unwrap().call(&mut store, argument)
            };
            assert_eq!(call("decide", 1).unwrap(), 111);
            assert_eq!(call("decide", 2).unwrap(), 1011);
            assert_eq!(call("early", 1).unwrap(), 7);
            let error = call("decide", 0).unwrap_err();
            let backtrace = error.downcast_ref::<WasmBacktrace>().unwrap();
            let names = backtrace.frames().iter().map(|frame| frame.func_name());
            assert_eq!(names.collect::<Vec<_>>(), [Some("panic"), Some("decide")]);
        }
    }
}
