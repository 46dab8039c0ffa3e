//! Function names, which a host keeps in memory for each policy and shows in failures.

use std::borrow::Cow;
use std::collections::BTreeMap;

use rustc_demangle::demangle;
use wasm_encoder::{NameMap, NameSection, RawSection};
use wasmparser::{KnownCustom, Name, NameSectionReader, Parser, Payload};

/// Bytes of a name that are kept.
const LONGEST: usize = 96;

/// The demangled form of a function's name, without hashes.
pub(crate) fn readable(name: &str) -> String {
    format!("{:#}", demangle(name))
}

/// Replaces the names of a valid module by those that [`readable`] returns, cut to 96 bytes: mangled names take as much memory as a tenth of
/// the machine code. A module whose names cannot be read is returned unchanged.
pub(crate) fn shortened(file: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    match rewritten(&file) {
        Some(rewritten) => Cow::Owned(rewritten),
        None => file,
    }
}

fn rewritten(file: &[u8]) -> Option<Vec<u8>> {
    let mut whole = wasm_encoder::Module::new();
    let mut has_names = false;
    for payload in Parser::new(0).parse_all(file) {
        let payload = payload.ok()?;
        if let Payload::CustomSection(custom) = &payload
            && let KnownCustom::Name(names) = custom.as_known()
        {
            whole.section(&functions(names)?);
            has_names = true;
        } else if let Some((id, range)) = payload.as_section() {
            let data = file.get(range)?;
            whole.section(&RawSection { id, data });
        }
    }
    has_names.then(|| whole.finish())
}

/// A name section with the names of functions only, which are the only ones that backtraces show.
fn functions(names: NameSectionReader<'_>) -> Option<NameSection> {
    let mut short = BTreeMap::new();
    for names in names {
        if let Name::Function(names) = names.ok()? {
            for name in names {
                let name = name.ok()?;
                let mut text = readable(name.name);
                text.truncate(text.floor_char_boundary(LONGEST));
                short.insert(name.index, text);
            }
        }
    }
    let mut map = NameMap::new();
    for (index, name) in &short {
        map.append(*index, name);
    }
    let mut section = NameSection::new();
    section.functions(&map);
    Some(section)
}

#[cfg(test)]
mod tests {
    use wasmtime::{Engine, Instance, Module, Store, WasmBacktrace};

    use super::*;

    /// A module whose function `run` has this name.
    fn module(name: &str) -> Vec<u8> {
        let text = format!(
            r#"(module $m (memory 1) (func $unused (param $p i32)) (func (@name "{name}") (export "run") unreachable))"#
        );
        wat::parse_str(text).unwrap()
    }

    /// The name of `run` in a backtrace.
    fn name_in_failure(file: &[u8]) -> Option<String> {
        let engine = Engine::default();
        let mut store = Store::new(&engine, ());
        let module = Module::new(&engine, file).unwrap();
        let instance = Instance::new(&mut store, &module, &[]).unwrap();
        let run = instance.get_typed_func::<(), ()>(&mut store, "run");
        let error = run.unwrap().call(&mut store, ()).unwrap_err();
        let backtrace = error.downcast_ref::<WasmBacktrace>().unwrap();
        backtrace.frames()[0].func_name().map(str::to_owned)
    }

    #[test]
    fn names_are_demangled_and_cut() {
        let long = "long ".repeat(40);
        for (name, expected) in [
            ("_ZN6policy6decide17h0123456789abcdefE", "policy::decide"),
            ("_RNvCs1234_7mycrate3foo", "mycrate::foo"),
            ("decide", "decide"),
            ("", ""),
            (&long, &long[..LONGEST]),
            (
                &format!("{}é", "x".repeat(LONGEST - 1)),
                &"x".repeat(LONGEST - 1),
            ),
        ] {
            let short = shortened(Cow::Owned(module(name)));
            assert_eq!(name_in_failure(&short).as_deref(), Some(expected));
        }
    }

    #[test]
    fn the_rest_of_a_module_is_unchanged() {
        let sections = |file: &[u8]| {
            let payloads = Parser::new(0).parse_all(file);
            let sections = payloads.filter_map(|payload| payload.unwrap().as_section());
            let sections = sections.map(|(id, range)| (id, file[range].to_vec()));
            sections.filter(|(id, _)| *id != 0).collect::<Vec<_>>()
        };
        let file = module("decide");
        let short = shortened(Cow::Borrowed(&file));
        assert!(short.len() < file.len());
        assert_eq!(sections(&short), sections(&file));
    }

    #[test]
    fn a_module_without_names_is_unchanged() {
        let file = wasm_encoder::Module::new().finish();
        assert!(matches!(shortened(Cow::Borrowed(&file)), Cow::Borrowed(same) if same == file));
    }
}
