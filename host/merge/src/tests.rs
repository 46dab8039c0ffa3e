use wasmparser::{DataKind, ElementItems, ElementKind, Operator};

use super::*;
use crate::module::{Kind, Module};

/// `tests/run.rs` runs it.
const LIBRARIES: &str = include_str!("../tests/libraries.wat");

fn merged(text: &str) -> Merged {
    merge(&wat::parse_str(text).unwrap())
}

/// The modules of a component that are instantiated, the merged one first.
fn modules(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut modules: Vec<_> = Layout::parse(bytes)
        .unwrap()
        .modules
        .into_iter()
        .map(<[u8]>::to_vec)
        .collect();
    modules.sort_by_key(|module| std::cmp::Reverse(module.len()));
    modules
}

#[test]
fn libraries_become_one_module_with_its_own_memory_and_table() {
    let merged = merged(LIBRARIES);
    assert_eq!((merged.instances, &merged.unmerged), (4, &None));
    let modules = modules(&merged.bytes);
    assert_eq!(modules.len(), 3, "the trampolines and what fills them stay");
    let one = Module::parse(&modules[0]).unwrap();
    assert_eq!((one.memories.len(), one.tables.len()), (1, 1));
    assert_eq!(one.imports.len(), 1, "{:?}", one.imports);
    assert_eq!(one.imported(Kind::Func), 1);
    let offset = |expression: &wasmparser::ConstExpr<'_>| {
        let mut reader = expression.get_operators_reader();
        let Operator::I32Const { value } = reader.read().unwrap() else {
            panic!("{expression:?}");
        };
        assert!(reader.is_end_then_eof());
        value
    };
    let mut data = Vec::new();
    for segment in &one.data {
        match &segment.kind {
            DataKind::Active { offset_expr, .. } => data.push((offset(offset_expr), segment.data)),
            DataKind::Passive => assert_eq!(segment.data, b"passive"),
        }
    }
    assert_eq!(
        data,
        [
            (16, &b"main"[..]),
            (1024, b"library a"),
            (2052, b"library b")
        ]
    );
    let mut slots = Vec::new();
    for segment in &one.elements {
        let ElementItems::Functions(functions) = segment.items.clone() else {
            panic!("a list of expressions is left");
        };
        if let ElementKind::Active { offset_expr, .. } = &segment.kind {
            slots.push((offset(offset_expr), functions.count()));
        }
    }
    assert_eq!(slots, [(1, 2), (5, 2), (9, 1)]);
}

#[test]
fn the_same_component_has_the_same_result_and_a_second_call_changes_nothing() {
    let first = merged(LIBRARIES);
    assert_eq!(first, merged(LIBRARIES));
    let again = merge(&first.bytes);
    assert_eq!(again.instances, 0);
    assert_eq!(again.unmerged, None);
    assert_eq!(again.bytes, first.bytes);
}

#[test]
fn nested_components_are_merged() {
    let text = LIBRARIES.trim_start_matches(|c| c != '(');
    let nested = format!(
        r#"(component
            (import "host" (func $host (param "text" string) (result u32)))
            (component $inner {})
            (instance $inner (instantiate $inner (with "host" (func $host))))
            (export "run" (func $inner "run")))"#,
        text.strip_prefix("(component")
            .unwrap()
            .trim_end()
            .strip_suffix(')')
            .unwrap()
    );
    let merged = merged(&nested);
    assert_eq!((merged.instances, merged.unmerged), (4, None));
}

#[test]
fn names_of_functions_stay() {
    let merged = merged(LIBRARIES);
    let modules = modules(&merged.bytes);
    let one = Module::parse(&modules[0]).unwrap();
    let names: Vec<_> = one.names.values().copied().collect();
    assert_eq!(names, ["twice", "square", "minus", "third", "start"]);
}

/// A component of a module with memory and of further modules that share it: what is in each, in the order in which they are made.
fn sharing(first: &str, others: &[&str]) -> String {
    let mut text = format!(
        r#"(component (core module $m0 (memory (export "memory") 1) (table (export "table") 4 funcref) {first})
            (core instance $i0 (instantiate $m0))"#
    );
    for (number, other) in (1..).zip(others) {
        text += &format!(
            r#"(core module $m{number} (import "0" "memory" (memory 1)) (import "0" "table" (table 4 funcref)) {other})
               (core instance $i{number} (instantiate $m{number} (with "0" (instance $i0))))"#
        );
    }
    text + ")"
}

const START: &str = "(func $start (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))) (start $start)";

#[test]
fn start_functions_run_in_order() {
    let merged = merged(&sharing("", &[START, "", START]));
    assert_eq!((merged.instances, &merged.unmerged), (4, &None));
    let modules = modules(&merged.bytes);
    let one = Module::parse(&modules[0]).unwrap();
    assert_eq!(one.start, Some(2), "a function that calls both");
    let mut calls = Vec::new();
    for operator in one.bodies[2].get_operators_reader().unwrap() {
        if let Operator::Call { function_index } = operator.unwrap() {
            calls.push(function_index);
        }
    }
    assert_eq!(calls, [0, 1]);
}

#[test]
fn functions_that_only_an_export_declares_are_declared_by_a_segment() {
    let merged = merged(&sharing(
        "",
        &[r#"(func $f (export "f")) (func (drop (ref.func $f)))"#],
    ));
    assert_eq!((merged.instances, &merged.unmerged), (2, &None));
    let modules = modules(&merged.bytes);
    let one = Module::parse(&modules[0]).unwrap();
    assert!(matches!(one.elements[0].kind, ElementKind::Declared));
}

#[test]
fn segments_behind_a_start_function_stay_behind_it() {
    let merged = merged(&sharing(
        "",
        &[START, r#"(data (i32.const 0) "\05")"#, START],
    ));
    assert_eq!(
        merged.instances, 2,
        "the last one starts when the data is there"
    );
    let said = merged.unmerged.unwrap();
    assert!(
        said.contains("core instance 2") && said.contains("start function"),
        "{said}"
    );
}

#[test]
fn a_start_function_stays_behind_the_segments_of_modules_outside() {
    // The function might call one of the second table.
    let text = format!(
        r#"(component
        (core module $m0 (memory (export "memory") 1) (table 1 funcref))
        (core module $m1 (table (export "table") 1 funcref))
        (core module $m2 (import "0" "table" (table 1 funcref)) (func $f) (elem (i32.const 0) $f))
        (core module $m3 (import "0" "memory" (memory 1)) {START})
        (core instance $i0 (instantiate $m0))
        (core instance $i1 (instantiate $m1))
        (core instance $i2 (instantiate $m2 (with "0" (instance $i1))))
        (core instance $i3 (instantiate $m3 (with "0" (instance $i0)))))"#
    );
    let merged = merged(&text);
    assert_eq!(merged.instances, 0);
    let said = merged.unmerged.unwrap();
    assert!(
        said.contains("core instance 3") && said.contains("come after"),
        "{said}"
    );
}

#[test]
fn what_stays_outside_keeps_its_place_among_those_that_write() {
    // The last one needs a function that is made with the memory of the first, and writes before the third one starts.
    let text = r#"(component
        (import "host" (func $host (param "text" string)))
        (core module $m0 (memory (export "memory") 1))
        (core module $m1 (import "0" "memory" (memory 1)) (import "0" "host" (func (param i32 i32))) (data (i32.const 0) "a"))
        (core module $m2 (import "0" "memory" (memory 1)) (data (i32.const 0) "b"))
        (core module $m3 (import "0" "memory" (memory 1)) (data (i32.const 8) "c"))
        (core instance $i0 (instantiate $m0))
        (core func $lowered (canon lower (func $host) (memory $i0 "memory") string-encoding=utf8))
        (core instance $i1 (instantiate $m1 (with "0" (instance
            (export "memory" (memory $i0 "memory")) (export "host" (func $lowered))))))
        (core instance $i2 (instantiate $m2 (with "0" (instance $i0))))
        (core instance $i3 (instantiate $m3 (with "0" (instance $i0)))))"#;
    let merged = merged(text);
    assert_eq!(merged.instances, 0);
    let said = merged.unmerged.unwrap();
    assert!(
        said.contains("core instance 2") && said.contains("made of"),
        "{said}"
    );
}

#[test]
fn a_module_that_is_instantiated_twice_stays() {
    let text = r#"(component
        (core module $m0 (memory (export "memory") 1))
        (core module $m1 (import "0" "memory" (memory 1)) (global (mut i32) (i32.const 0)))
        (core instance $i0 (instantiate $m0))
        (core instance $i1 (instantiate $m1 (with "0" (instance $i0))))
        (core instance $i2 (instantiate $m1 (with "0" (instance $i0)))))"#;
    let merged = merged(text);
    assert_eq!(merged.instances, 0);
    assert!(merged.unmerged.unwrap().contains("more than once"));
}

#[test]
fn two_memories_stay_apart() {
    let text = r#"(component
        (core module $m0 (memory (export "memory") 1))
        (core module $m1 (import "0" "memory" (memory 1)) (memory 1))
        (core instance $i0 (instantiate $m0))
        (core instance $i1 (instantiate $m1 (with "0" (instance $i0)))))"#;
    let merged = merged(text);
    assert_eq!(merged.instances, 0);
    assert!(merged.unmerged.unwrap().contains("two memories"));
}

#[test]
fn each_group_of_a_component_becomes_one_module() {
    let text = r#"(component
        (core module $m0 (memory (export "memory") 1))
        (core module $m1 (import "0" "memory" (memory 1)) (data (i32.const 0) "a"))
        (core module $m2 (memory (export "memory") 2))
        (core module $m3 (import "0" "memory" (memory 2)) (data (i32.const 0) "b"))
        (core instance $i0 (instantiate $m0))
        (core instance $i1 (instantiate $m1 (with "0" (instance $i0))))
        (core instance $i2 (instantiate $m2))
        (core instance $i3 (instantiate $m3 (with "0" (instance $i2)))))"#;
    let merged = merged(text);
    assert_eq!((merged.instances, merged.groups), (4, 2));
    assert_eq!(merged.unmerged, None);
    assert_eq!(modules(&merged.bytes).len(), 2);
    assert_eq!(merge(&merged.bytes).bytes, merged.bytes);
}

#[test]
fn an_instance_that_joins_later_is_counted_once() {
    // The first would start behind the second, until the second is merged with the third.
    let text = r#"(component
        (core module $m0 (func $start) (start $start))
        (core module $m1 (func (export "f")) (func $start) (start $start))
        (core module $m2 (import "0" "f" (func)) (memory 1))
        (core instance $i0 (instantiate $m0))
        (core instance $i1 (instantiate $m1))
        (core instance $i2 (instantiate $m2 (with "0" (instance $i1)))))"#;
    let merged = merged(text);
    assert_eq!((merged.instances, merged.groups), (3, 1));
    assert_eq!((modules(&merged.bytes).len(), merged.unmerged), (1, None));
}

#[test]
fn what_is_not_merged_has_the_number_of_the_result() {
    let text = r#"(component
        (core module $m0 (memory (export "memory") 1))
        (core module $m1 (import "0" "memory" (memory 1)) (data (i32.const 0) "a"))
        (core module $m2 (import "0" "memory" (memory 1)) (memory 1))
        (core instance $i0 (instantiate $m0))
        (core instance $i1 (instantiate $m1 (with "0" (instance $i0))))
        (core instance $i2 (instantiate $m2 (with "0" (instance $i0)))))"#;
    let merged = merged(text);
    assert_eq!((merged.instances, merged.groups), (2, 1));
    let said = merged.unmerged.clone().unwrap();
    assert!(said.contains("two memories"), "{said}");
    // A second call reads the same numbers.
    assert_eq!(merge(&merged.bytes).unmerged, merged.unmerged);
}

#[test]
fn other_files_stay_as_they_are() {
    for text in [
        "(module (memory 1))",
        "(component)",
        r#"(component (core module $m (memory 1)) (core instance (instantiate $m)))"#,
    ] {
        let bytes = wat::parse_str(text).unwrap();
        let merged = merge(&bytes);
        assert_eq!(merged.bytes, bytes, "{text}");
        assert_eq!((merged.instances, merged.unmerged), (0, None), "{text}");
    }
    let cut = &wat::parse_str(LIBRARIES).unwrap();
    let cut = &cut[..cut.len() - 5];
    let merged = merge(cut);
    assert_eq!(merged.bytes, cut);
    assert!(merged.unmerged.is_some());
}

#[test]
fn objects_are_not_handled() {
    let text = sharing("", &["(type (struct (field i32)))"]);
    let merged = merged(&text);
    assert_eq!(merged.instances, 0);
    assert!(merged.unmerged.is_some());
}

proptest::proptest! {
    #[test]
    fn damaged_files_never_panic(position in 0_usize..4096, byte: u8) {
        let mut bytes = wat::parse_str(LIBRARIES).unwrap();
        let position = position % bytes.len();
        bytes[position] = byte;
        let merged = merge(&bytes);
        proptest::prop_assert!(merged.instances > 0 || merged.bytes == bytes);
    }
}
