//! Compiling somewhere else: in a process whose time and memory are bounded, because a compiler may take any amount of either for a file
//! that was made to let it.

use object::build::elf::{Builder, SectionData};
use thiserror::Error;
use wasmtime::component::Component;
use wasmtime::{Engine, Module};

use crate::bulk_memory;
use crate::check;
use crate::engine::{self, Target};
use crate::inspect::Inspection;
use crate::limits::Limits;
use crate::module;
use crate::panic;
use crate::sandbox::Code;

/// Takes a policy file to [`compile`] in another process, and brings the result back.
pub type Compiler =
    Box<dyn Fn(&[u8], &Limits, Target) -> Result<Vec<u8>, CompileFailure> + Send + Sync>;

/// Why no result came back.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CompileFailure {
    /// The file can't be compiled.
    #[error("{0}")]
    Refused(String),
    /// It took too much time or memory.
    #[error("{0}")]
    TooCostly(String),
    /// The other process could not be made, or ended in a way that says nothing of the file.
    #[error("the compiler did not answer: {0}")]
    Broken(String),
}

/// Checks and compiles a policy file, and gives the machine code: what the other process does. Nothing of the file is run.
///
/// # Errors
/// What is wrong with the file, in words. Whoever asked checks it again, to know.
pub fn compile(bytes: &[u8], limits: &Limits, target: Target) -> Result<Vec<u8>, String> {
    panic::caught(|| Ok(translate(bytes, limits, target)))
        .unwrap_or_else(|problem| Err(problem.to_string()))
}

fn translate(bytes: &[u8], limits: &Limits, target: Target) -> Result<Vec<u8>, String> {
    let checked = check::check(bytes, limits).map_err(|problem| problem.to_string())?;
    let cause = |error: wasmtime::Error| error.root_cause().to_string();
    // Where memory comes from makes no difference to the code.
    let engine = engine::compiling(limits, target).map_err(cause)?;
    let code = match module::fits(&checked.inspection) {
        true => module::Module::translate(&engine, bytes).and_then(|module| module.serialize()),
        false => bulk_memory::component(&checked.component)
            .and_then(|component| Component::new(&engine, component))
            .and_then(|component| component.serialize()),
    };
    Ok(without_symbols(code.map_err(cause)?))
}

/// Takes the symbol table out of machine code. Only debuggers read it, and a host would keep it in memory for each policy: the runtime finds
/// functions by tables of its own, and their names in another section. Code that cannot be read stays as it is.
fn without_symbols(code: Vec<u8>) -> Vec<u8> {
    let stripped = |code: &[u8]| -> Result<Vec<u8>, object::build::Error> {
        let mut file = Builder::read64(code)?;
        for symbol in &mut file.symbols {
            symbol.delete = true;
        }
        for section in &mut file.sections {
            let data = &section.data;
            section.delete = matches!(data, SectionData::Symbol | SectionData::String);
        }
        let mut bytes = Vec::new();
        file.write(&mut bytes)?;
        Ok(bytes)
    };
    stripped(&code).unwrap_or(code)
}

/// Makes code of what [`compile`] gave, for a file that has been checked here.
///
/// The bytes come from a process of this program that ran [`compile`], now or before a restart: they are what the compiler of this very
/// build has written, and what [`CodeCache`](crate::CodeCache) has authenticated. Nothing else may be passed.
#[allow(unsafe_code, reason = "there is no safe way to take machine code")]
pub(crate) fn take(
    engine: &Engine,
    file: &[u8],
    inspection: &Inspection,
    code: &[u8],
) -> wasmtime::Result<Code> {
    if module::fits(inspection) {
        // SAFETY: `code` is a module that `compile` serialised, in this build of the program: whoever calls has it from that process, or
        // from the cache, whose entries are under a key of this host and name the build. The runtime checks its version and settings.
        let module = unsafe { Module::deserialize(engine, code) }?;
        return Ok(Code::Module(module::Module::of(file, module)?));
    }
    // SAFETY: the same, for a component.
    let component = unsafe { Component::deserialize(engine, code) }?;
    component.initialize_copy_on_write_image()?;
    Ok(Code::Component(component))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_without_its_symbols_runs_as_before() {
        let engine = Engine::default();
        let file = wat::parse_str(r#"(module (func (export "answer") (result i32) i32.const 42))"#);
        let code = Module::new(&engine, file.unwrap())
            .and_then(|module| module.serialize())
            .unwrap();
        let has_symbols = |code: &[u8]| code.windows(8).any(|name| name == b".symtab\0");
        assert!(has_symbols(&code));
        let stripped = without_symbols(code);
        assert!(!has_symbols(&stripped));

        #[allow(unsafe_code, reason = "there is no safe way to take machine code")]
        // SAFETY: the runtime serialised the module above.
        let module = unsafe { Module::deserialize(&engine, stripped) }.unwrap();
        let mut store = wasmtime::Store::new(&engine, ());
        let instance = wasmtime::Instance::new(&mut store, &module, &[]).unwrap();
        let answer = instance.get_typed_func::<(), i32>(&mut store, "answer");
        assert_eq!(answer.unwrap().call(&mut store, ()).unwrap(), 42);
    }

    #[test]
    fn what_is_not_machine_code_keeps_its_bytes() {
        assert_eq!(without_symbols(b"code".to_vec()), b"code");
    }
}
