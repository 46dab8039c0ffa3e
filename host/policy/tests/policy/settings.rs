//! The interface `settings`, and policies that validate their settings.

use std::sync::Arc;

use portcullis_policy::{LoadProblem, Policy, Scope, Settings, SettingsError};
use serde_json::json;

use crate::counters::adding;
use crate::support::{Host, answering, codes, component};

const SETTINGS: &str = "portcullis:policy/settings@0.1.0";

fn settings() -> Arc<Settings> {
    Arc::new(Settings::new(json!({
        "yes": true, "n": -7, "x": 1.5, "t": "four", "list": ["a", "bc"], "in": {"a": 1, "b": 2},
    })))
}

/// Calls a function of `settings` with a key, and answers with 300 plus `body`, which reads the result at 512.
fn by_key(function: &str, key: &str, body: &str) -> u16 {
    let import = format!(r#"(import "{SETTINGS}" "{function}" (func $ask (param i32 i32 i32)))"#);
    let length = key.len();
    let body = format!(
        "(block (result i32) (call $ask (i32.const 256) (i32.const {length}) (i32.const 512)) {body})"
    );
    let scope = || Scope::operator().with_settings(settings());
    codes(scope, 1, &answering(&import, key, &body))[0] - 300
}

#[test]
fn settings_are_read_by_type() {
    let case = "(i32.load8_u (i32.const 512))";
    let byte = "(i32.load8_u (i32.const 513))";
    assert_eq!(
        by_key("boolean", "yes", &format!("(i32.add {case} {byte})")),
        2
    );
    assert_eq!(by_key("boolean", "n", case), 0);
    let negated = "(i32.wrap_i64 (i64.sub (i64.const 0) (i64.load (i32.const 520))))";
    assert_eq!(by_key("integer", "n", negated), 7);
    assert_eq!(by_key("integer", "x", case), 0);
    let doubled = "(i32.trunc_f64_s (f64.mul (f64.const 2) (f64.load (i32.const 520))))";
    assert_eq!(by_key("number", "x", doubled), 3);
    assert_eq!(by_key("number", "n", case), 1);
    assert_eq!(by_key("text", "t", "(i32.load (i32.const 520))"), 4);
    assert_eq!(
        by_key("text", "t", "(i32.load8_u (i32.load (i32.const 516)))"),
        u16::from(b'f')
    );
    assert_eq!(by_key("text", "none", case), 0);
    assert_eq!(by_key("texts", "list", "(i32.load (i32.const 520))"), 2);
    let second_length = "(i32.load (i32.add (i32.load (i32.const 516)) (i32.const 12)))";
    assert_eq!(by_key("texts", "list", second_length), 2);
    assert_eq!(by_key("texts", "t", case), 0);
    assert_eq!(by_key("keys", "in", "(i32.load (i32.const 516))"), 2);
    assert_eq!(by_key("keys", "", "(i32.load (i32.const 516))"), 6);
    assert_eq!(by_key("keys", "t", "(i32.load (i32.const 516))"), 0);

    let import = format!(r#"(import "{SETTINGS}" "json" (func $ask (param i32)))"#);
    let body = "(block (result i32) (call $ask (i32.const 512)) (i32.load (i32.const 516)))";
    let scope = || Scope::operator().with_settings(settings());
    let length = codes(scope, 1, &answering(&import, "", body))[0] - 300;
    let expected = json!({
        "yes": true, "n": -7, "x": 1.5, "t": "four", "list": ["a", "bc"], "in": {"a": 1, "b": 2},
    });
    assert_eq!(usize::from(length), expected.to_string().len());
}

/// A policy that validates its settings: `yes` must be true, otherwise `text` is the error.
fn configured(text: &str, validate: &str) -> Vec<u8> {
    let length = text.len();
    let wat = format!(
        r#"(module
            (import "{SETTINGS}" "boolean" (func $boolean (param i32 i32 i32)))
            (memory (export "memory") 1)
            (data (i32.const 16) "\02\00\00\00")
            (data (i32.const 64) "yes")
            (data (i32.const 256) "{text}")
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
            (func (export "decide") (result i32) i32.const 16)
            (func (export "validate-settings") (result i32)
              (call $boolean (i32.const 64) (i32.const 3) (i32.const 512))
              (i32.store8 (i32.const 1024) (i32.eqz (i32.load8_u (i32.const 513))))
              (i32.store (i32.const 1028) (i32.const 256))
              (i32.store (i32.const 1032) (i32.const {length}))
              {validate}
              i32.const 1024))"#
    );
    let mut module = wat::parse_str(wat).unwrap();
    let exports = portcullis_policy::Exports {
        validate_settings: true,
        ..Default::default()
    };
    portcullis_policy::embed_with(&mut module, exports).unwrap();
    module
}

#[test]
fn settings_are_validated_when_a_policy_is_loaded() {
    let host = Host::new();
    let module = configured("say `yes`.", "");
    for bytes in [&module, &component(&module)] {
        let load = |settings: &Arc<Settings>| {
            let limits = host.runtime.limits();
            let loaded = host.runtime.load_within("x.wasm", bytes, limits, settings);
            loaded.map_err(|error| error.problem)
        };
        let refused: Result<Policy, _> = load(&Arc::default());
        let expected = SettingsError::Refused("say `yes`".into());
        assert_eq!(
            refused.unwrap_err(),
            LoadProblem::Settings(expected.clone())
        );
        let policy: Policy = load(&settings()).unwrap();
        assert_eq!(policy.check_settings(&settings()), Ok(()));
        assert_eq!(policy.check_settings(&Arc::default()), Err(expected));
    }
    // A policy without `validate-settings` accepts any settings.
    let policy = host.load_text(&adding());
    assert_eq!(policy.check_settings(&Arc::default()), Ok(()));
}

#[test]
fn validation_of_settings_is_limited_like_a_call() {
    let host = Host::hasty();
    let refusal = |text: &str, body: &str| {
        let module = configured(text, body);
        let [module, component] =
            [module.clone(), component(&module)].map(|bytes| match host.refusal(&bytes) {
                LoadProblem::Settings(SettingsError::Failed(failure)) => failure.kind().as_str(),
                other => panic!("{other}"),
            });
        assert_eq!(module, component);
        module
    };
    assert_eq!(refusal("x", "unreachable"), "trap");
    assert_eq!(refusal("x", "(loop $again (br $again))"), "timeout");
    let far = "(i32.store (i32.const 1032) (i32.const 70000))";
    let module = configured("x", far);
    for bytes in [&module, &component(&module)] {
        let problem = host.refusal(bytes);
        let is_settings = matches!(problem, LoadProblem::Settings(SettingsError::Failed(_)));
        assert!(is_settings, "{problem}");
    }
}

#[test]
fn an_export_of_another_type_is_refused() {
    let host = Host::new();
    let wat = r#"(module
        (memory (export "memory") 1)
        (data (i32.const 16) "\02\00\00\00")
        (func (export "validate-settings") (param i32) (result i32) i32.const 16)
        (func (export "decide") (result i32) i32.const 16))"#;
    let mut module = wat::parse_str(wat).unwrap();
    let exports = portcullis_policy::Exports {
        validate_settings: true,
        ..Default::default()
    };
    portcullis_policy::embed_with(&mut module, exports).unwrap();
    let problem = host.refusal(&module);
    assert!(matches!(problem, LoadProblem::Encoding { .. }), "{problem}");
}
