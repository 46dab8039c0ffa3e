//! The interface `edits`, from modules and from components.

use std::sync::Arc;

use portcullis_policy::{Edit, Failure, InvalidVerdict, Scope};

use crate::counters::adding;
use crate::support::{Host, answering, both_forms, embedded, failures, invite};

const EDITS: &str = "portcullis:policy/edits@0.1.0";

/// Adds `X-A: bc` and removes header fields of this name. The text in memory is `X-Abc` and the name.
fn editing(name: &str) -> String {
    let imports = format!(
        r#"(import "{EDITS}" "add-header" (func $add (param i32 i32 i32 i32) (result i32)))
           (import "{EDITS}" "remove-header" (func $remove (param i32 i32) (result i32)))"#
    );
    let length = name.len();
    let body = format!(
        "(i32.add
           (call $add (i32.const 256) (i32.const 3) (i32.const 259) (i32.const 2))
           (call $remove (i32.const 261) (i32.const {length})))"
    );
    answering(&imports, &format!("X-Abc{name}"), &body)
}

#[test]
fn changes_are_returned_in_order() {
    let mut host = Host::new();
    for policy in both_forms(&host, &embedded(&editing("Subject"))) {
        host.ask(&policy, invite()).unwrap();
        let edits = host.evaluator.take_edits();
        assert_eq!(edits.to_string(), "add X-A: bc, remove Subject");
        assert!(host.evaluator.take_edits().is_empty(), "taken");
    }
    // The next call starts without changes.
    let policy = host.load_text(&adding());
    host.ask(&policy, invite()).unwrap();
    assert!(host.evaluator.take_edits().is_empty());
}

#[test]
fn header_fields_outside_the_scope_are_not_changed() {
    let scope = || Scope::tenant("acme").with_headers(["x-a"]);
    let mut host = Host::new();
    for policy in both_forms(&host, &embedded(&editing("Subject"))) {
        host.scope = Arc::new(scope());
        let answer = host.ask(&policy, invite()).unwrap();
        assert_eq!(answer.to_string(), "reject 301");
        let edits = host.evaluator.take_edits();
        let names: Vec<_> = edits.iter().map(Edit::name).collect();
        assert_eq!(names, ["X-A"]);
        assert_eq!(host.scope.crossings(), 1);
    }
    for name in [
        "Via",
        "v",
        "contact",
        "m",
        "CSeq",
        "Route",
        "Record-Route",
        "Max-Forwards",
    ] {
        let failure = failures(Scope::operator, &editing(name));
        let expected = InvalidVerdict::ReservedHeader(name.into());
        assert_eq!(failure, Failure::InvalidVerdict(expected), "{name}");
    }
    let failure = failures(Scope::operator, &editing("a b"));
    let expected = InvalidVerdict::HeaderName("a b".into());
    assert_eq!(failure, Failure::InvalidVerdict(expected));
}

#[test]
fn the_number_of_changes_is_limited() {
    let imports = format!(
        r#"(import "{EDITS}" "remove-header" (func $remove (param i32 i32) (result i32)))"#
    );
    let body = "(loop $again (result i32)
        (drop (call $remove (i32.const 256) (i32.const 3)))
        (br $again))";
    let failure = failures(Scope::operator, &answering(&imports, "X-A", body));
    assert_eq!(failure, Failure::InvalidVerdict(InvalidVerdict::ManyEdits));
}
