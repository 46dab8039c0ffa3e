//! A count of the calls of a module, which the module itself exports: code that is linked to it recognises the begin of a call by it.

use wasm_encoder::reencode::{Reencode, RoundtripReencoder};
use wasm_encoder::{
    ConstExpr, ExportKind, ExportSection, Function, GlobalSection, GlobalType, Instruction, Module,
    ValType,
};
use wasmparser::{ExternalKind, Parser, Payload, TypeRef};

use crate::added_functions::{AddedFunctions, Edit, first_added};
use crate::contract::{ON_FAILURE, VALIDATE};

/// The exported function that returns the number of calls, the current one included; 0 before the first.
pub const CALL_COUNT: &str = "portcullis_call_count";

/// The exports that a host calls.
const CALLED: [&str; 3] = ["decide", ON_FAILURE, VALIDATE];

/// Adds [`CALL_COUNT`] to a valid module that exports a policy's functions; `None` if it cannot be rewritten, or has an export of this name.
pub fn with_call_count(module: &[u8]) -> Option<Vec<u8>> {
    let mut counting = Counting::of(module)?;
    let count = counting.global;
    let mut read = Function::new([]);
    read.instruction(&Instruction::GlobalGet(count));
    read.instruction(&Instruction::End);
    let mut bodies = vec![read];
    for (_, function) in &counting.called {
        let mut call = Function::new([]);
        for instruction in [
            Instruction::GlobalGet(count),
            Instruction::I32Const(1),
            Instruction::I32Add,
            Instruction::GlobalSet(count),
            Instruction::Call(*function),
            Instruction::End,
        ] {
            call.instruction(&instruction);
        }
        bodies.push(call);
    }
    let functions = AddedFunctions {
        params: &[],
        results: &[ValType::I32],
        bodies,
    };
    functions.add_to(module, &mut counting)
}

/// What is known of a module before it is changed.
struct Counting {
    /// The index of the added global.
    global: u32,
    has_globals: bool,
    /// The index of the first added function, which returns the count. Those that count follow it.
    first: u32,
    /// Names and functions of the exports that a host calls.
    called: Vec<(String, u32)>,
}

impl Counting {
    fn of(module: &[u8]) -> Option<Self> {
        let mut counting = Self {
            global: 0,
            has_globals: false,
            first: first_added(module)?,
            called: Vec::new(),
        };
        for payload in Parser::new(0).parse_all(module) {
            let payload = payload.ok()?;
            if let Payload::ImportSection(imports) = payload {
                for import in imports.into_imports() {
                    counting.global += u32::from(matches!(import.ok()?.ty, TypeRef::Global(_)));
                }
            } else if let Payload::GlobalSection(globals) = payload {
                counting.global += globals.count();
            } else if let Payload::ExportSection(exports) = payload {
                for export in exports {
                    let export = export.ok()?;
                    if export.name == CALL_COUNT {
                        return None;
                    }
                    if export.kind == ExternalKind::Func && CALLED.contains(&export.name) {
                        counting.called.push((export.name.to_owned(), export.index));
                    }
                }
            }
        }
        Some(counting)
    }
}

impl Edit for Counting {
    fn section(&mut self, section: &Payload<'_>, whole: &mut Module) -> Option<bool> {
        if let Payload::GlobalSection(section) = section {
            let mut globals = GlobalSection::new();
            RoundtripReencoder
                .parse_global_section(&mut globals, section.clone())
                .ok()?;
            whole.section(&with_count(globals));
            self.has_globals = true;
            return Some(true);
        }
        let Payload::ExportSection(section) = section else {
            return Some(false);
        };
        if !self.has_globals {
            whole.section(&with_count(GlobalSection::new()));
        }
        let mut exports = ExportSection::new();
        for export in section.clone() {
            let export = export.ok()?;
            let at = self.called.iter().position(|(name, _)| name == export.name);
            match at {
                Some(at) => {
                    let counting = self.first + 1 + u32::try_from(at).ok()?;
                    exports.export(export.name, ExportKind::Func, counting);
                }
                None => {
                    let kind = RoundtripReencoder.export_kind(export.kind).ok()?;
                    exports.export(export.name, kind, export.index);
                }
            }
        }
        exports.export(CALL_COUNT, ExportKind::Func, self.first);
        whole.section(&exports);
        Some(true)
    }
}

/// The globals of the module, followed by the count.
fn with_count(mut globals: GlobalSection) -> GlobalSection {
    let ty = GlobalType {
        val_type: ValType::I32,
        mutable: true,
        shared: false,
    };
    globals.global(ty, &ConstExpr::i32_const(0));
    globals
}

#[cfg(test)]
mod tests {
    use wasmtime::{Engine, Instance, Store};

    use super::*;

    #[test]
    fn each_call_is_counted() {
        for globals in ["", "(global (mut i64) (i64.const 7))"] {
            let text = format!(
                r#"(module {globals} (memory (export "memory") 1)
                    (func $decide (export "decide") (result i32) i32.const 16)
                    (func (export "on-failure") (result i32) i32.const 32)
                    (func (export "own") (result i32) call $decide))"#
            );
            let counted = with_call_count(&wat::parse_str(text).unwrap()).unwrap();
            let engine = Engine::default();
            let module = wasmtime::Module::new(&engine, &counted).unwrap();
            let mut store = Store::new(&engine, ());
            let instance = Instance::new(&mut store, &module, &[]).unwrap();
            let mut call = |name: &str| {
                let function = instance.get_typed_func::<(), i32>(&mut store, name);
                function.unwrap().call(&mut store, ()).unwrap()
            };
            assert_eq!(call(CALL_COUNT), 0);
            assert_eq!((call("decide"), call(CALL_COUNT)), (16, 1));
            assert_eq!((call("on-failure"), call(CALL_COUNT)), (32, 2));
            assert_eq!((call("own"), call(CALL_COUNT)), (16, 2));
            assert_eq!(with_call_count(&counted), None);
        }
    }
}
