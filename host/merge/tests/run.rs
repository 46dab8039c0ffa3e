//! Components do the same merged as they do unmerged.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fmt::Write;

use portcullis_merge::merge;
use proptest::prelude::*;
use wasmtime::component::{Component, Linker};
use wasmtime::{Engine, Store};

#[test]
fn libraries_do_the_same_when_they_are_one_module() {
    let bytes = wat::parse_str(include_str!("libraries.wat")).unwrap();
    let merged = merge(&bytes);
    assert_eq!(merged.instances, 4, "{:?}", merged.unmerged);
    let expected = 42
        + 200
        + 81
        + 999
        + 10
        + u32::from(b'a' + 1)
        + u32::from(b'l')
        + u32::from(b'a' + 1)
        + u32::from(b'a')
        + 10
        + 900
        + (65536 - 3 * 16);
    assert_eq!(run(&bytes), Ok(vec![expected]));
    assert_eq!(run(&merged.bytes), Ok(vec![expected]));
}

/// What a component returns: `run`, and then `sum` if it exports this.
fn run(bytes: &[u8]) -> Result<Vec<u32>, &'static str> {
    let engine = Engine::default();
    let component = Component::new(&engine, bytes).unwrap();
    let mut linker = Linker::new(&engine);
    let mut root = linker.root();
    root.func_wrap("host", |_, (text,): (String,)| {
        assert_eq!(text, "library b");
        Ok((900_u32,))
    })
    .unwrap();
    let mut store = Store::new(&engine, ());
    let instance = linker.instantiate(&mut store, &component);
    let instance = instance.map_err(|_| "instantiation")?;
    let mut results = Vec::new();
    let run = instance.get_typed_func::<(), (u32,)>(&mut store, "run");
    match run.unwrap().call(&mut store, ()) {
        Ok((result,)) => results.push(result),
        // No function of a component can be called after a trap.
        Err(_) => return Err("a trap"),
    }
    if let Ok(sum) = instance.get_typed_func::<(), (u32,)>(&mut store, "sum") {
        results.push(sum.call(&mut store, ()).unwrap().0);
    }
    Ok(results)
}

/// A library with three functions.
#[derive(Clone, Debug)]
struct Library {
    /// What each function does, in numbers.
    functions: [Vec<(u8, u8)>; 3],
    /// Bytes at an offset from the library's part of memory.
    data: Vec<(u16, Vec<u8>)>,
    /// Functions at an offset from the library's part of the table, and whether they are a list of expressions.
    elements: Vec<(u8, Vec<u8>, bool)>,
    /// Whether the first function is called at the start.
    starts: bool,
}

fn libraries() -> impl Strategy<Value = Vec<Library>> {
    let function = || prop::collection::vec(any::<(u8, u8)>(), 0..6);
    let data = (0..600_u16, prop::collection::vec(any::<u8>(), 0..80));
    let elements = (
        0..6_u8,
        prop::collection::vec(any::<u8>(), 0..4),
        any::<bool>(),
    );
    let library = (
        [function(), function(), function()],
        prop::collection::vec(data, 0..3),
        prop::collection::vec(elements, 0..3),
        prop::bool::weighted(0.2),
    );
    let library = library.prop_map(|(functions, data, elements, starts)| Library {
        functions,
        data,
        elements,
        starts,
    });
    prop::collection::vec(library, 1..5)
}

/// Bytes of memory, and places in the table, of each library. The last place of each stays empty, unless a segment of the next is longer.
const MEMORY: usize = 512;
const PLACES: usize = 4;

/// A component of these libraries, with the memory, the table and all addresses in a module before them.
fn component(libraries: &[Library]) -> String {
    let mut text = String::from(
        r#"(component (import "host" (func $host (param "text" string) (result u32)))
        (core module $main (memory (export "memory") 1) (table (export "table") 32 funcref)
            (global (export "left") (mut i32) (i32.const 100))
            (func (export "sum") (result i32) (local $at i32) (local $sum i32)
                (loop $next
                    (local.set $sum (i32.add (i32.mul (local.get $sum) (i32.const 31)) (i32.load8_u (local.get $at))))
                    (br_if $next (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 1))) (i32.const 4096))))
                (local.get $sum))"#,
    );
    for number in 0..libraries.len() {
        let (base, places) = (MEMORY * number, PLACES * number);
        write!(
            text,
            r#"(global (export "memory{number}") i32 (i32.const {base})) (global (export "table{number}") i32 (i32.const {places}))"#
        )
        .unwrap();
    }
    text += ") (core instance $main (instantiate $main))";
    for (number, library) in libraries.iter().enumerate() {
        text += &module(number, library);
        write!(
            text,
            r#"(core instance $i{number} (instantiate $m{number} (with "main" (instance $main))"#
        )
        .unwrap();
        for before in 0..number {
            write!(text, r#"(with "{before}" (instance $i{before}))"#).unwrap();
        }
        text += "))";
    }
    let last = libraries.len() - 1;
    write!(
        text,
        r#"(core module $run (import "" "f" (func $f (param i32) (result i32)))
            (func (export "run") (result i32) (call $f (i32.const 7))))
        (core instance $run (instantiate $run (with "" (instance (export "f" (func $i{last} "f0"))))))
        (func (export "run") (result u32) (canon lift (core func $run "run")))
        (func (export "sum") (result u32) (canon lift (core func $main "sum"))))"#
    )
    .unwrap();
    text
}

fn module(number: usize, library: &Library) -> String {
    let mut text = format!(
        r#"(core module $m{number} (type $f (func (param i32) (result i32)))
        (import "main" "memory" (memory 1)) (import "main" "table" (table 1 funcref))
        (import "main" "left" (global $left (mut i32)))
        (import "main" "memory{number}" (global $base i32)) (import "main" "table{number}" (global $places i32))"#
    );
    for before in 0..number {
        for function in 0..3 {
            write!(
                text,
                r#"(import "{before}" "f{function}" (func $before{before}_{function} (type $f)))"#
            )
            .unwrap();
        }
    }
    for (name, steps) in library.functions.iter().enumerate() {
        // Each call leaves less, so that functions that call each other end.
        write!(
            text,
            r#"(func $f{name} (export "f{name}") (type $f) (local $value i32)
            (if (i32.eqz (global.get $left)) (then unreachable))
            (global.set $left (i32.sub (global.get $left) (i32.const 1)))
            (local.set $value (local.get 0))"#
        )
        .unwrap();
        for step in steps {
            text += &statement(number, *step);
        }
        text += "(local.get $value))";
    }
    if library.starts {
        text += "(func $start (drop (call $f0 (i32.const 3)))) (start $start)";
    }
    for (offset, bytes) in &library.data {
        let bytes: String = bytes.iter().map(|byte| format!("\\{byte:02x}")).collect();
        write!(
            text,
            r#"(data (offset (i32.add (global.get $base) (i32.const {offset}))) "{bytes}")"#
        )
        .unwrap();
    }
    for (offset, functions, are_expressions) in &library.elements {
        write!(
            text,
            "(elem (table 0) (offset (i32.add (global.get $places) (i32.const {offset})))"
        )
        .unwrap();
        text += match are_expressions {
            true => " funcref",
            false => " func",
        };
        for function in functions {
            match (are_expressions, function % 4) {
                (true, 3) => text += " (ref.null func)",
                (true, name) => write!(text, " (ref.func $f{name})").unwrap(),
                (false, name) => write!(text, " $f{}", name % 3).unwrap(),
            }
        }
        text += ")";
    }
    text + ")"
}

/// Changes `value`.
fn statement(number: usize, (what, with): (u8, u8)) -> String {
    let address = format!("(i32.add (global.get $base) (i32.const {with}))");
    match what % 7 {
        0 => format!("(local.set $value (i32.add (local.get $value) (i32.const {with})))"),
        1 => format!("(local.set $value (i32.mul (local.get $value) (i32.const {with})))"),
        2 => format!("(local.set $value (i32.xor (local.get $value) (i32.load8_u {address})))"),
        3 => format!("(i32.store8 {address} (local.get $value))"),
        4 => format!(
            "(local.set $value (call_indirect (type $f) (local.get $value) (i32.const {})))",
            with % 20
        ),
        5 if number > 0 => format!(
            "(local.set $value (call $before{}_{} (local.get $value)))",
            usize::from(with) % number,
            with % 3
        ),
        _ => "(local.set $value (i32.add (local.get $value) (global.get $left)))".to_owned(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_libraries_do_the_same_merged(libraries in libraries()) {
        let text = component(&libraries);
        let bytes = wat::parse_str(&text).unwrap();
        let merged = merge(&bytes);
        prop_assert!(merged.instances > 1, "{:?}", merged.unmerged);
        prop_assert_eq!(run(&bytes), run(&merged.bytes), "{}", text);
    }
}
