//! Files that are refused, and the error messages.

use portcullis_policy::{Failure, Kind, Limits, LoadProblem, inspect};

use crate::support::{Host, component, guest, invite};

#[test]
fn files_that_are_not_webassembly_are_refused() {
    let host = Host::new();

    assert_eq!(host.refusal(b""), LoadProblem::Empty);
    assert_eq!(host.refusal(b"\x7fELF\x02\x01\x01"), LoadProblem::NotWasm);
    assert_eq!(host.refusal(b"\0as"), LoadProblem::NotWasm);
    assert_eq!(host.refusal(b"  (module)"), LoadProblem::Text);
    assert_eq!(host.refusal(b";; text\n(module)"), LoadProblem::Text);
}

#[test]
fn random_bytes_are_refused() {
    let host = Host::new();
    // xorshift: the same bytes in every run.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };

    for length in [8, 100, 5000] {
        let noise: Vec<u8> = (0..length).map(|_| random()).collect();
        assert_eq!(host.refusal(&noise), LoadProblem::NotWasm);
        let wasm = [b"\0asm\x01\0\0\0", &*noise].concat();
        assert!(matches!(host.refusal(&wasm), LoadProblem::Invalid { .. }));
    }
}

#[test]
fn precompiled_code_is_refused() {
    let engine = wasmtime::Engine::default();
    let blob = engine.precompile_module(&guest("reject")).unwrap();

    assert_eq!(Host::new().refusal(&blob), LoadProblem::Precompiled);
}

#[test]
fn every_truncation_is_refused() {
    let host = Host::new();

    for whole in [guest("page"), component(&guest("page"))] {
        for length in (8..whole.len()).step_by(7) {
            let problem = host.refusal(&whole[..length]);
            // A truncation between two sections leaves a valid module that does not fit the contract.
            let expected = matches!(
                problem,
                LoadProblem::Invalid { .. }
                    | LoadProblem::NoWorld
                    | LoadProblem::MissingExport
                    | LoadProblem::OtherWorld { .. }
            );
            assert!(expected, "{length}: {problem}");
        }
    }
}

#[test]
fn large_files_are_refused_without_being_parsed() {
    let host = Host::with(Limits {
        module_bytes: 100,
        ..Limits::default()
    });

    assert_eq!(
        host.refusal(&[0; 101]),
        LoadProblem::TooLarge {
            size: 101,
            limit: 100
        }
    );
}

#[test]
fn errors_name_the_import() {
    let host = Host::new();
    let message = |name| host.refusal(&guest(name)).to_string();

    assert_eq!(
        message("unknown-import"),
        "the policy imports env gettimeofday, which this host does not offer; a policy may import \
         portcullis:policy/permissions@0.1.0, portcullis:policy/request@0.1.0, portcullis:policy/log@0.1.0, \
         portcullis:policy/trusted@0.1.0, portcullis:policy/rules@0.1.0, \
                portcullis:policy/counters@0.1.0, portcullis:policy/settings@0.1.0, portcullis:policy/clock@0.1.0, \
                portcullis:policy/edits@0.1.0, portcullis:policy/forwarding@0.1.0, portcullis:policy/outcome@0.1.0, \
         portcullis:policy/dispatcher@0.1.0, portcullis:policy/peer@0.1.0, portcullis:policy/guard@0.1.0, \
         portcullis:policy/flows@0.1.0"
    );
    assert_eq!(
        message("wasi-import"),
        "the policy imports wasi_snapshot_preview1 fd_write, but policies have no WASI (files, network, environment); adapt it \
         (portcullis policy adapt), or build it for a target without WASI (in Rust: cargo build --release --target wasm32-unknown-unknown)"
    );
    assert!(matches!(
        host.refusal(&guest("unknown-function")),
        LoadProblem::UnknownFunction { import } if import == "portcullis:policy/request@0.1.0 body"
    ));
    assert!(matches!(
        host.refusal(&guest("other-version")),
        LoadProblem::OtherVersion { import, .. } if import == "portcullis:policy/request@0.9.0 method"
    ));
}

#[test]
fn errors_name_the_import_of_a_component() {
    let host = Host::new();
    let component = wat::parse_str(
        r#"(component (import "wasi:cli/environment@0.2.3" (instance (export "get" (func)))))"#,
    )
    .unwrap();

    assert_eq!(
        host.refusal(&component),
        LoadProblem::Wasi {
            import: "wasi:cli/environment@0.2.3".into(),
            mend: "build it for a target without WASI (in Rust: cargo build --release --target wasm32-unknown-unknown)",
        }
    );
}

#[test]
fn advice_is_for_the_toolchain_of_the_file() {
    let host = Host::new();
    let of = |import: &str, role: &str, tool: &str| {
        let (module, item) = import.split_once(' ').unwrap();
        let producers = format!(r#"(@producers ({role} "{tool}" "1"))"#);
        let text = format!(r#"(module {producers} (import "{module}" "{item}" (func)))"#);
        let bytes = wat::parse_str(text).unwrap();
        host.refusal(&bytes).to_string()
    };
    let wasi = "wasi_snapshot_preview1 fd_write";
    for (import, role, tool, flag) in [
        (wasi, "language", "Rust", "--target wasm32-unknown-unknown"),
        (wasi, "language", "C11", "clang -nostartfiles"),
        (wasi, "language", "Go", "portcullis policy adapt"),
        (wasi, "processed-by", "TinyGo", "-target=wasm-unknown"),
        (wasi, "language", "JavaScript", "--disable all"),
        (wasi, "processed-by", "componentize-qjs", "--stub-wasi"),
        (wasi, "processed-by", "componentize-py", "--stub-wasi"),
        ("env abort", "processed-by", "asc", "asc --use abort="),
    ] {
        let said = of(import, role, tool);
        assert!(said.contains(flag), "{tool}: {said}");
        assert!(tool == "Rust" || !said.contains("cargo"), "{tool}: {said}");
    }
}

#[test]
fn modules_without_a_world_are_refused() {
    let module = wat::parse_str(r#"(module (func (export "decide")))"#).unwrap();

    assert_eq!(Host::new().refusal(&module), LoadProblem::NoWorld);
}

#[test]
fn modules_for_another_world_are_refused() {
    let module = for_world(
        r#"package acme:filters@1.0.0; world filter { export filter: func(x: u32) -> u32; }"#,
        "filter",
        r#"(module (func (export "filter") (param i32) (result i32) local.get 0))"#,
    );

    let problem = Host::new().refusal(&module);

    let LoadProblem::OtherWorld { world, .. } = &problem else {
        panic!("{problem}");
    };
    assert_eq!(world.as_deref(), Some("acme:filters/filter@1.0.0"));
    assert!(
        problem.to_string().starts_with(
            "the policy does not fit world portcullis:policy/routing-policy@0.1.0 (it is built for \
             acme:filters/filter@1.0.0): "
        ),
        "{problem}"
    );
}

#[test]
fn modules_with_other_signatures_than_the_contract_are_refused() {
    let module = for_world(
        "package portcullis:policy@0.1.0;
         interface permissions { allow-source-address: func(group: s32) -> bool; }
         world routing-policy { import permissions; export decide: func() -> u32; }",
        "routing-policy",
        r#"(module
            (import "portcullis:policy/permissions@0.1.0" "allow-source-address" (func (param i32) (result i32)))
            (func (export "decide") (result i32) i32.const 0))"#,
    );

    let problem = Host::new().refusal(&module);

    assert!(
        matches!(problem, LoadProblem::OtherWorld { .. }),
        "{problem}"
    );
}

#[test]
fn texts_in_utf16_are_refused() {
    let module = for_encoding(wit_component::StringEncoding::UTF16);

    assert_eq!(Host::new().refusal(&module), LoadProblem::NotUtf8);
}

#[test]
fn exports_are_checked() {
    let host = Host::new();

    let missing = host.refusal(&guest("missing-export"));
    let wrong = host.refusal(&guest("wrong-signature"));

    assert_eq!(missing, LoadProblem::MissingExport);
    assert!(matches!(wrong, LoadProblem::Encoding { .. }), "{wrong}");
}

#[test]
fn files_that_exceed_the_limits_of_a_sandbox_are_refused() {
    let host = Host::new();

    assert_eq!(
        host.refusal(&guest("huge-memory")),
        LoadProblem::Memory {
            wanted: 1600 << 16,
            limit: 16 << 20,
            mend: "reduce its initial memory",
        }
    );
    assert_eq!(
        host.refusal(&guest("huge-table")),
        LoadProblem::Table {
            wanted: 1_000_000,
            limit: 10_000
        }
    );
}

#[test]
fn policies_that_cannot_start_are_refused() {
    let host = Host::hasty();

    assert!(matches!(
        host.refusal(&guest("trap-in-start")),
        LoadProblem::Start(Failure::Trap { function: Some(function), .. }) if function == "broken"
    ));
    assert!(matches!(
        host.refusal(&guest("loop-in-start")),
        LoadProblem::Start(Failure::Timeout { .. })
    ));
}

#[test]
fn policies_that_do_not_return_from_the_trial_run_are_refused() {
    let host = Host::hasty();

    for name in ["loop-in-decide", "loop-in-realloc"] {
        let problem = host.refusal(&guest(name));
        assert_eq!(problem, LoadProblem::Endless { limit_ms: 250 }, "{name}");
    }
    let problem = host.refusal(&guest("loop-in-on-failure"));
    let endless = LoadProblem::EndlessAfterFailure { limit_ms: 250 };
    assert_eq!(problem, endless);
}

#[test]
fn a_failure_in_the_trial_run_is_reported_but_not_refused() {
    let host = Host::new();

    let policy = host.load("trap");

    assert!(matches!(policy.trial_failure(), Some(Failure::Trap { .. })));
    let policy = host.load("trap-in-on-failure");
    assert!(matches!(policy.trial_failure(), Some(Failure::Trap { .. })));
    assert_eq!(host.load("reject").trial_failure(), None);
}

#[test]
fn an_inspection_reports_the_content_of_a_file() {
    let module = guest("page");
    let component = component(&module);

    let module = inspect(&module).unwrap();
    let component = inspect(&component).unwrap();

    assert_eq!(module.kind, Kind::Module);
    assert_eq!(module.world.as_deref(), Some(portcullis_policy::WORLD));
    assert_eq!(module.memory_bytes, 65536);
    assert_eq!(module.max_memory_bytes, None);
    let imports: Vec<_> = module.imports.iter().map(ToString::to_string).collect();
    assert_eq!(
        imports,
        [
            "portcullis:policy/permissions@0.1.0 allow-source-address",
            "portcullis:policy/log@0.1.0 log"
        ]
    );
    assert!(module.exports.iter().any(|export| export.name == "decide"));
    assert_eq!(component.kind, Kind::Component);
    assert_eq!(component.memory_bytes, 65536);
    assert!(
        component
            .producers
            .iter()
            .any(|made| made.name == "wit-component")
    );
    assert!(
        component
            .exports
            .iter()
            .any(|export| export.name == "decide")
    );
}

#[test]
fn an_evaluator_works_after_a_refusal() {
    let mut host = Host::new();
    let policy = host.load("reject");

    host.refusal(&guest("missing-export"));

    assert!(host.ask(&policy, invite()).is_ok());
}

fn for_world(wit: &str, world: &str, wat: &str) -> Vec<u8> {
    let mut resolve = wit_parser::Resolve::default();
    let package = resolve.push_source("test.wit", wit).unwrap();
    let world = resolve.select_world(&[package], Some(world)).unwrap();
    let mut module = wat::parse_str(wat).unwrap();
    let encoding = wit_component::StringEncoding::UTF8;
    wit_component::embed_component_metadata(&mut module, &resolve, world, encoding).unwrap();
    module
}

fn for_encoding(encoding: wit_component::StringEncoding) -> Vec<u8> {
    let mut resolve = wit_parser::Resolve::default();
    let package = resolve
        .push_source("routing-policy.wit", portcullis_policy::WIT)
        .unwrap();
    let world = resolve
        .select_world(&[package], Some("routing-policy"))
        .unwrap();
    let mut module = wat::parse_str(
        r#"(module
            (memory (export "memory") 1)
            (func (export "decide") (result i32) i32.const 16))"#,
    )
    .unwrap();
    wit_component::embed_component_metadata(&mut module, &resolve, world, encoding).unwrap();
    module
}
