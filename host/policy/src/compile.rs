//! Compilation in another process with limits on time and memory, because a hostile file may make the compiler use any amount of either.

use std::cmp::Reverse;

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

/// Bytes of a page of the machine: the alignment of sections that are mapped with permissions of their own.
const PAGE: u64 = 4096;

/// Bytes of the header of an ELF file.
const HEADER: u64 = 64;

/// Runs [`compile`] in another process and returns the result.
pub type Compiler =
    Box<dyn Fn(&[u8], &Limits, Target) -> Result<Vec<u8>, CompileFailure> + Send + Sync>;

/// Why there is no result.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CompileFailure {
    /// The file cannot be compiled.
    #[error("{0}")]
    Refused(String),
    /// The compilation exceeded its limit of time or memory.
    #[error("{0}")]
    TooCostly(String),
    /// The compiler process could not be started, or ended without a result.
    #[error("the compiler did not answer: {0}")]
    Broken(String),
}

/// Checks and compiles a policy file and returns the machine code. This is the work of the compiler process. No code of the file is run.
///
/// # Errors
/// What is wrong with the file, as text. The caller checks the file again to get a [`LoadProblem`](crate::LoadProblem).
pub fn compile(bytes: &[u8], limits: &Limits, target: Target) -> Result<Vec<u8>, String> {
    panic::catch(|| Ok(translate(bytes, limits, target)))
        .unwrap_or_else(|problem| Err(problem.to_string()))
}

fn translate(bytes: &[u8], limits: &Limits, target: Target) -> Result<Vec<u8>, String> {
    let checked = check::check(bytes, limits).map_err(|problem| problem.to_string())?;
    let cause = |error: wasmtime::Error| error.root_cause().to_string();
    // The code does not depend on the allocation strategy.
    let engine = engine::compiling(limits, target).map_err(cause)?;
    let code = match module::fits(&checked.inspection) {
        true => module::Module::translate(&engine, bytes).and_then(|module| module.serialize()),
        false => bulk_memory::component(&checked.component)
            .and_then(|component| Component::new(&engine, component))
            .and_then(|component| component.serialize()),
    };
    Ok(compacted(code.map_err(cause)?))
}

/// Removes the symbol table from machine code and orders its sections, so that they take as few pages of memory as possible: a host keeps
/// them for each policy. Only debuggers read the symbol table: the runtime has tables of its own for functions and their names. Sections that
/// begin at the start of a page follow each other. Before them, the rest of the first page is filled with small sections; the others come
/// after them. Code that cannot be parsed is returned unchanged.
fn compacted(code: Vec<u8>) -> Vec<u8> {
    let compacted = |code: &[u8]| -> Result<Vec<u8>, object::build::Error> {
        let mut file = Builder::read64(code)?;
        for symbol in &mut file.symbols {
            symbol.delete = true;
        }
        let (mut whole, mut small) = (Vec::new(), Vec::new());
        for section in &mut file.sections {
            section.delete = matches!(section.data, SectionData::Symbol | SectionData::String);
            if let SectionData::Data(data) = &section.data {
                let size = data.len() as u64 + section.sh_addralign;
                match section.sh_addralign >= PAGE {
                    true => whole.push(section.id()),
                    false => small.push((size, section.id())),
                }
            }
        }
        // The largest ones that fit come first.
        small.sort_by_key(|(size, _)| Reverse(*size));
        let mut room = PAGE.saturating_sub(HEADER);
        let (first, last): (Vec<_>, Vec<_>) = small.into_iter().partition(|(size, _)| {
            let left = room.checked_sub(*size);
            room = left.unwrap_or(room);
            left.is_some()
        });
        let first = first.into_iter().map(|(_, id)| id);
        let last = last.into_iter().map(|(_, id)| id);
        for id in first.chain(whole).chain(last) {
            file.sections.copy(id);
            file.sections.get_mut(id).delete = true;
        }
        let mut bytes = Vec::new();
        file.write(&mut bytes)?;
        Ok(bytes)
    };
    compacted(&code).unwrap_or(code)
}

/// Loads the result of [`compile`] for a file that this process has checked.
///
/// `code` must come from [`compile`] in a process of the same build: directly, or from [`CodeCache`](crate::CodeCache), which has
/// authenticated it. No other bytes may be passed, because machine code is not validated.
#[allow(unsafe_code, reason = "there is no safe function to load machine code")]
pub(crate) fn take(
    engine: &Engine,
    file: &[u8],
    inspection: &Inspection,
    code: &[u8],
) -> wasmtime::Result<Code> {
    if module::fits(inspection) {
        // SAFETY: `code` is a module that `compile` of the same build serialised. The caller got it from the compiler process, or from the
        // cache, whose entries are authenticated under a key of this host and bound to the build. The runtime checks version and settings.
        let module = unsafe { Module::deserialize(engine, code) }?;
        return Ok(Code::Module(module::Module::of(file, module)?));
    }
    // SAFETY: as above, for a component.
    let component = unsafe { Component::deserialize(engine, code) }?;
    component.initialize_copy_on_write_image()?;
    Ok(Code::Component(component))
}

#[cfg(test)]
mod tests {
    use object::Endianness;
    use object::elf::FileHeader64;
    use object::read::elf::{FileHeader as _, SectionHeader as _};

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
        let stripped = compacted(code);
        assert!(!has_symbols(&stripped));

        #[allow(unsafe_code, reason = "there is no safe function to load machine code")]
        // SAFETY: the runtime serialised the module above.
        let module = unsafe { Module::deserialize(&engine, stripped) }.unwrap();
        let mut store = wasmtime::Store::new(&engine, ());
        let instance = wasmtime::Instance::new(&mut store, &module, &[]).unwrap();
        let answer = instance.get_typed_func::<(), i32>(&mut store, "answer");
        assert_eq!(answer.unwrap().call(&mut store, ()).unwrap(), 42);
    }

    /// A section as it is in a file.
    struct Section<'f> {
        name: &'f [u8],
        offset: u64,
        alignment: u64,
        bytes: &'f [u8],
    }

    /// The sections with bytes, in the order in which they are in the file.
    fn sections(code: &[u8]) -> Vec<Section<'_>> {
        let header = FileHeader64::<Endianness>::parse(code).unwrap();
        let endian = header.endian().unwrap();
        let table = header.sections(endian, code).unwrap();
        let sections = table.iter().map(|section| Section {
            name: table.section_name(endian, section).unwrap(),
            offset: section.sh_offset(endian),
            alignment: section.sh_addralign(endian),
            bytes: section.data(endian, code).unwrap(),
        });
        let has_bytes = |section: &Section<'_>| !section.bytes.is_empty();
        let mut sections: Vec<_> = sections.filter(has_bytes).collect();
        sections.sort_by_key(|section| section.offset);
        sections
    }

    #[test]
    fn sections_of_whole_pages_follow_each_other_and_smaller_ones_fill_the_first_page() {
        let engine = engine::compiling(&Limits::default(), Target::Serving).unwrap();
        // Code, and an image of the memory.
        let file = wat::parse_str(
            r#"(module (memory (export "memory") 1) (data (i32.const 9) "image")
                (func (export "answer") (result i32) i32.const 42))"#,
        );
        let code = Module::new(&engine, file.unwrap())
            .and_then(|module| module.serialize())
            .unwrap();
        let compacted = compacted(code.clone());

        let is_whole = |section: &Section<'_>| section.alignment >= PAGE;
        let (before, after) = (sections(&code), sections(&compacted));
        let first_whole = |of: &[Section<'_>]| of.iter().position(is_whole).unwrap();
        assert!(
            !before[first_whole(&before)..].is_sorted_by_key(|section| !is_whole(section)),
            "the compiler's order needs no change any more"
        );
        let begin = first_whole(&after);
        assert!(after[begin..].is_sorted_by_key(|section| !is_whole(section)));
        assert!(after[begin..].iter().filter(|one| is_whole(one)).count() > 1);
        assert_eq!(after[begin].offset, PAGE);
        // What comes after the whole pages does not fit into the first one.
        let room = PAGE - (after[begin - 1].offset + after[begin - 1].bytes.len() as u64);
        let mut small = after[begin..].iter().filter(|one| !is_whole(one));
        assert!(
            small.all(
                |one| one.name == b".shstrtab" || one.bytes.len() as u64 + one.alignment > room
            )
        );
        assert!(
            after
                .iter()
                .all(|one| one.offset % one.alignment.max(1) == 0)
        );
        assert!(compacted.len() < code.len());
        // What the runtime reads is as it was.
        for section in after.iter().filter(|one| one.name != b".shstrtab") {
            let same = before.iter().find(|one| one.name == section.name).unwrap();
            assert!(section.bytes == same.bytes && section.alignment == same.alignment);
        }
        assert_eq!(
            before
                .iter()
                .filter(|one| !matches!(one.name, b".symtab" | b".strtab"))
                .count(),
            after.len()
        );
    }

    #[test]
    fn bytes_that_are_not_machine_code_are_unchanged() {
        assert_eq!(compacted(b"code".to_vec()), b"code");
    }
}
