//! The interface `counters`, from modules and from components.

use std::sync::Arc;

use portcullis_policy::{Counters, Scope, Verdict};

use crate::support::{Host, answering, codes, failures, invite};

const COUNTERS: &str = "portcullis:policy/counters@0.1.0";

pub(crate) fn adding() -> String {
    let import =
        format!(r#"(import "{COUNTERS}" "add" (func $add (param i32 i32 i64 i32) (result i64)))"#);
    let add =
        "(i32.wrap_i64 (call $add (i32.const 256) (i32.const 4) (i64.const 3) (i32.const 60)))";
    answering(&import, "name", add)
}

#[test]
fn counters_outlive_calls_and_belong_to_one_scope() {
    assert_eq!(codes(Scope::operator, 3, &adding()), [303, 306, 309]);

    let shared = Arc::new(Counters::new(100));
    let mut host = Host::new();
    let policy = host.load_text(&adding());
    let mut ask = |counters: &Arc<Counters>| {
        host.scope = Arc::new(Scope::tenant("acme").with_counters(Arc::clone(counters)));
        match host.ask(&policy, invite()) {
            Ok(Verdict::Reject(rejection)) => rejection.code,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!([ask(&shared), ask(&shared)], [303, 306]);
    assert_eq!(
        ask(&Arc::default()),
        303,
        "another tenant has other counters"
    );
    assert_eq!(ask(&shared), 309);
}

#[test]
fn rate_limits_and_values() {
    let import = format!(
        r#"(import "{COUNTERS}" "rate-limit" (func $limit (param i32 i32 f64 i32) (result i32)))"#
    );
    let take = "(call $limit (i32.const 256) (i32.const 3) (f64.const 0.001) (i32.const 2))";
    let codes_of = codes(Scope::operator, 3, &answering(&import, "key", take));
    assert_eq!(codes_of, [301, 301, 300]);
    let import =
        format!(r#"(import "{COUNTERS}" "value" (func $value (param i32 i32) (result i64)))"#);
    let value = "(i32.wrap_i64 (call $value (i32.const 256) (i32.const 4)))";
    assert_eq!(
        codes(Scope::operator, 1, &answering(&import, "name", value)),
        [300]
    );
    let stray = "(i32.wrap_i64 (call $value (i32.const 65530) (i32.const 64)))";
    let failure = failures(Scope::operator, &answering(&import, "", stray));
    assert!(failure.to_string().contains("out of bounds"), "{failure}");
}
