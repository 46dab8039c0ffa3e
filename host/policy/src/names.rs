//! Function names, which a host keeps in memory for each policy and shows in failures.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use rustc_demangle::demangle;
use wasm_encoder::{NameMap, NameSection, RawSection};
use wasmparser::{KnownCustom, Name, NameSectionReader, Parser, Payload, TypeRef};

/// Bytes of a name that are kept.
pub(crate) const LONGEST: usize = 96;

/// Bytes that are kept of the names of the language's functions, where only failures show names: they name one of these only if the policy has no
/// other function on its stack.
pub(crate) const OF_LANGUAGE: usize = 24;

/// The first 96 bytes of the demangled form of a function's name, without hashes. A name of a few bytes may demangle to a megabyte, of which
/// only these are written.
pub(crate) fn readable(name: &str) -> String {
    let mut short = Short(String::new());
    // The only error is that of the limit.
    let _is_whole = write!(short, "{:#}", demangle(name));
    of_policy(&short.0).unwrap_or(short.0)
}

/// The name of a function that the SDK's macro writes around one of the author's, which is inlined there as a rule: `acl::decide` in place of
/// `<acl::_::Policy as portcullis_sdk::guest::Guest>::decide`.
fn of_policy(name: &str) -> Option<String> {
    let (policy, rest) = name
        .strip_prefix('<')?
        .split_once("::_::Policy as portcullis_sdk::guest::")?;
    let (_, function) = rest.split_once(">::")?;
    Some(format!("{policy}::{function}"))
}

/// Whether a function, by its readable name, belongs to the language, which handles panics by such functions.
pub(crate) fn is_panic_handling(function: &str) -> bool {
    const PREFIXES: [&str; 5] = ["core::", "std::", "alloc::", "__rust", "rust_"];
    let function = function.trim_start_matches('<');
    PREFIXES.iter().any(|prefix| function.starts_with(prefix))
}

/// Text up to [`LONGEST`] bytes. Writing more is an error.
struct Short(String);

impl fmt::Write for Short {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = LONGEST - self.0.len();
        let fits = text.floor_char_boundary(room);
        self.0.push_str(&text[..fits]);
        if fits < text.len() {
            Err(fmt::Error)
        } else {
            Ok(())
        }
    }
}

/// Replaces the names of a valid module by those that [`readable`] returns: mangled names take as much memory as a tenth of
/// the machine code. A module whose names cannot be read is returned unchanged. `of_language` is how many bytes are kept of the names of the
/// language's functions.
pub(crate) fn shortened(file: Cow<'_, [u8]>, of_language: usize) -> Cow<'_, [u8]> {
    match rewritten(&file, of_language) {
        Some(rewritten) => Cow::Owned(rewritten),
        None => file,
    }
}

fn rewritten(file: &[u8], of_language: usize) -> Option<Vec<u8>> {
    let mut whole = wasm_encoder::Module::new();
    let (mut functions, mut has_names) = (0, false);
    for payload in Parser::new(0).parse_all(file) {
        let payload = payload.ok()?;
        if let Payload::ImportSection(imports) = &payload {
            let imports = imports.clone().into_imports();
            let is_function = |ty: &TypeRef| matches!(ty, TypeRef::Func(_));
            functions += imports
                .filter(|import| import.as_ref().is_ok_and(|one| is_function(&one.ty)))
                .count();
        } else if let Payload::FunctionSection(section) = &payload {
            functions += section.count() as usize;
        }
        if let Payload::CustomSection(custom) = &payload
            && let KnownCustom::Name(names) = custom.as_known()
        {
            whole.section(&names_of(names, functions, of_language)?);
            has_names = true;
        } else if let Some((id, range)) = payload.as_section() {
            let data = file.get(range)?;
            whole.section(&RawSection { id, data });
        }
    }
    has_names.then(|| whole.finish())
}

/// A name section with the names of the module's `count` functions only, which are the only ones that backtraces show.
fn names_of(names: NameSectionReader<'_>, count: usize, of_language: usize) -> Option<NameSection> {
    let mut short = BTreeMap::new();
    for names in names {
        if let Name::Function(names) = names.ok()? {
            for name in names {
                let name = name.ok()?;
                if (name.index as usize) < count {
                    let mut readable = readable(name.name);
                    if is_panic_handling(&readable) {
                        readable.truncate(readable.floor_char_boundary(of_language));
                    }
                    short.insert(name.index, readable);
                }
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
            (
                "_ZN71_$LT$address_acl.._..Policy$u20$as$u20$portcullis_sdk..guest..Guest$GT$6decide17he6da700c7281dc2eE",
                "address_acl::decide",
            ),
            (
                "<a::_::Policy as portcullis_sdk::guest::configured_failover::Guest>::on_failure",
                "a::on_failure",
            ),
            ("", ""),
            (&long, &long[..LONGEST]),
            (
                &format!("{}é", "x".repeat(LONGEST - 1)),
                &"x".repeat(LONGEST - 1),
            ),
        ] {
            let short = shortened(Cow::Owned(module(name)), LONGEST);
            assert_eq!(name_in_failure(&short).as_deref(), Some(expected));
        }
    }

    /// Names of a few bytes that expand to a megabyte: the second one hides the first.
    #[test]
    fn a_short_name_that_stands_for_a_long_one_costs_no_more_than_its_start() {
        for name in [
            "_RMC0FGZZZ_Eu",
            "_ZN22_RINvC4core1fFGZZZ_EuE17h0123456789abcdefE",
            "_RINvC4core1fFGZZZ_EuE",
        ] {
            let short = readable(name);
            assert!(short.len() <= LONGEST, "{name}");
            assert!(short.capacity() <= 2 * LONGEST, "{name}");
        }
        assert!(readable("_RINvC4core1fFGZZZ_EuE").starts_with("core::f::<for<'a, 'b, 'c"));
    }

    #[test]
    fn functions_of_the_panic_handling_are_recognised() {
        assert!(is_panic_handling("core::panicking::panic_fmt"));
        assert!(is_panic_handling(
            "<alloc::string::String as core::fmt::Write>::write_str"
        ));
        assert!(!is_panic_handling("address_acl::decide"));
    }

    #[test]
    fn names_of_the_languages_functions_are_cut_more() {
        for (name, expected) in [
            (
                "core::ptr::drop_in_place::<alloc::string::String>",
                "core::ptr::drop_in_place",
            ),
            ("core::fmt::write", "core::fmt::write"),
            (
                "portcullis_sdk::heap::SizeClasses::alloc",
                "portcullis_sdk::heap::SizeClasses::alloc",
            ),
        ] {
            let short = shortened(Cow::Owned(module(name)), OF_LANGUAGE);
            assert_eq!(name_in_failure(&short).as_deref(), Some(expected));
        }
    }

    #[test]
    fn names_of_functions_that_do_not_exist_are_dropped() {
        let mut file = wat::parse_str(r#"(module (import "a" "b" (func)) (func))"#).unwrap();
        let mut map = NameMap::new();
        for index in [0, 1, 2, 7, u32::MAX] {
            map.append(index, "name");
        }
        let mut names = NameSection::new();
        names.functions(&map);
        wasm_encoder::Section::append_to(&names, &mut file);
        let short = shortened(Cow::Owned(file), LONGEST);
        let mut found = Vec::new();
        for payload in Parser::new(0).parse_all(&short) {
            let payload = payload.unwrap();
            if let Payload::CustomSection(custom) = &payload
                && let KnownCustom::Name(names) = custom.as_known()
            {
                for names in names {
                    if let Name::Function(names) = names.unwrap() {
                        found.extend(names.into_iter().map(|name| name.unwrap().index));
                    }
                }
            }
        }
        assert_eq!(found, [0, 1]);
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
        let short = shortened(Cow::Borrowed(&file), LONGEST);
        assert!(short.len() < file.len());
        assert_eq!(sections(&short), sections(&file));
    }

    #[test]
    fn a_module_without_names_is_unchanged() {
        let file = wasm_encoder::Module::new().finish();
        assert!(
            matches!(shortened(Cow::Borrowed(&file), LONGEST), Cow::Borrowed(same) if same == file)
        );
    }
}
