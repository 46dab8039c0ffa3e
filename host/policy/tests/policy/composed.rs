//! Policies that are compositions of components.

use portcullis_policy::{Failure, Limits, LoadProblem, Refused};

use wasm_encoder::{
    Component, ComponentSectionId, CustomSection, Encode, NestedComponentSection, Section,
};

use crate::support::{Host, guest, invite, reject};

/// A policy of two components: one counts the letters of a text, the other rejects with 400 plus that number. `body` is executed before, with
/// the memory of the second component.
pub(crate) fn composition(body: &str) -> Vec<u8> {
    let text = format!(
        r#"(component
            (type $types (instance
                (type $h (record (field "name" string) (field "value" string)))
                (export "header" (type $header (eq $h)))
                (type $list (list $header))
                (type $r (record (field "code" u16) (field "reason" string) (field "headers" $list)))
                (export "rejection" (type $rejection (eq $r)))
                (type $hop (option string))
                (type $v (variant (case "relay" $hop) (case "reject" $rejection) (case "drop") (case "pass")))
                (export "verdict" (type (eq $v)))))
            (import "portcullis:policy/types@0.1.0" (instance $shared (type $types)))
            (component $counter
                (core module $module
                    (memory (export "memory") 1)
                    (func (export "length") (param i32 i32) (result i32) local.get 1)
                    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 1024))
                (core instance $own (instantiate $module))
                (func (export "length") (param "text" string) (result u32)
                    (canon lift (core func $own "length") (memory $own "memory")
                        (realloc (func $own "cabi_realloc")))))
            (component $decider
                (alias outer 1 $types (type $types))
                (import "portcullis:policy/types@0.1.0" (instance $shared (type $types)))
                (import "length" (func $length (param "text" string) (result u32)))
                (alias export $shared "verdict" (type $verdict))
                (core module $store (memory (export "memory") 1))
                (core instance $store (instantiate $store))
                (core func $lowered (canon lower (func $length) (memory $store "memory")))
                (core module $module
                    (import "host" "memory" (memory 1))
                    (import "host" "length" (func $length (param i32 i32) (result i32)))
                    (data (i32.const 16) "\01")
                    (data (i32.const 64) "hello")
                    (func (export "decide") (result i32)
                        {body}
                        (i32.store16 (i32.const 20)
                            (i32.add (i32.const 400) (call $length (i32.const 64) (i32.const 5))))
                        i32.const 16))
                (core instance $own (instantiate $module (with "host" (instance
                    (export "memory" (memory $store "memory"))
                    (export "length" (func $lowered))))))
                (func (export "decide") (result $verdict)
                    (canon lift (core func $own "decide") (memory $store "memory"))))
            (instance $counter (instantiate $counter))
            (instance $decider (instantiate $decider
                (with "portcullis:policy/types@0.1.0" (instance $shared))
                (with "length" (func $counter "length"))))
            (export "decide" (func $decider "decide")))"#
    );
    wat::parse_str(text).unwrap()
}

#[test]
fn components_of_a_policy_call_each_other() {
    let mut host = Host::new();
    let policy = host.runtime.load("composed", &composition("")).unwrap();

    assert_eq!(host.ask(&policy, invite()), Ok(reject(405, "")));
}

#[test]
fn the_memories_of_all_components_are_limited_together() {
    let mut host = Host::with(Limits {
        memory_bytes: 10 << 16,
        ..Limits::default()
    });
    let growing = |pages: u32| composition(&format!("(drop (memory.grow (i32.const {pages})))"));
    let fits = host.runtime.load("composed", &growing(8)).unwrap();
    assert_eq!(host.ask(&fits, invite()), Ok(reject(405, "")));
    let beyond = host.runtime.load("composed", &growing(9)).unwrap();
    let refused = Refused::Memory {
        wanted: 11 << 16,
        limit: 10 << 16,
    };
    let failed = host.ask(&beyond, invite());
    assert_eq!(failed, Err(Failure::Memory(refused)));
}

#[test]
fn the_nesting_depth_of_components_is_limited() {
    let host = Host::new();
    let nested = |depth: usize| {
        let mut file = Component::new();
        for _ in 0..depth {
            let mut around = Component::new();
            around.section(&NestedComponentSection(&file));
            file = around;
        }
        host.refusal(&file.finish())
    };
    assert!(matches!(nested(100), LoadProblem::OtherWorld { .. }));
    assert_eq!(nested(101), LoadProblem::TooDeep { limit: 100 });
}

/// A file whose component types are nested this deep.
fn nested_types(depth: usize) -> Vec<u8> {
    // A component type with one declaration, which is a type.
    const LEVEL: [u8; 3] = [0x41, 1, 1];
    let mut types = vec![1];
    types.extend(LEVEL.repeat(depth));
    // The innermost type: bool.
    types.push(0x7f);
    let mut file = Component::HEADER.to_vec();
    file.push(ComponentSectionId::Type.into());
    types.encode(&mut file);
    file
}

#[test]
fn the_nesting_depth_of_types_is_limited_before_they_are_read() {
    let host = Host::new();
    let too_deep = LoadProblem::TooDeep { limit: 100 };
    for depth in [20, 150] {
        let refusal = host.refusal(&nested_types(depth));
        let is_read = matches!(refusal, LoadProblem::OtherWorld { .. });
        assert!(is_read, "{depth}: {refusal}");
    }
    for depth in [151, 10_000, 1_000_000] {
        assert_eq!(host.refusal(&nested_types(depth)), too_deep);
    }
}

#[test]
fn the_description_of_a_world_is_limited_too() {
    let host = Host::new();
    for depth in [151, 10_000, 1_000_000] {
        let described = nested_types(depth);
        let section = CustomSection {
            name: "component-type:deep".into(),
            data: (&described).into(),
        };
        let mut module = guest("reject");
        section.append_to(&mut module);
        let refusal = host.refusal(&module);
        assert_eq!(refusal, LoadProblem::TooDeep { limit: 100 });
    }
}

#[test]
fn a_component_with_too_many_instances_is_refused_before_it_is_compiled() {
    let host = Host::new();
    host.runtime.compile_with(Box::new(|file, limits, target| {
        portcullis_policy::compile(file, limits, target)
            .map(|_| panic!("it was compiled"))
            .map_err(portcullis_policy::CompileFailure::Refused)
    }));
    let mut inner = "(core module $m) (core instance (instantiate $m))".to_owned();
    for _ in 0..30 {
        inner = format!(
            "(component $c {inner}) (instance (instantiate $c)) (instance (instantiate $c))"
        );
    }
    let bomb = wat::parse_str(format!("(component {inner})")).unwrap();
    let refused = LoadProblem::Footprint {
        what: "core instances",
        wanted: 1 << 30,
        limit: 64,
    };
    assert_eq!(host.refusal(&bomb), refused);
}
