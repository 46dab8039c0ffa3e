//! Every call starts from the initial state of the policy, in a new sandbox or in one that was reset.

use std::sync::Arc;

use portcullis_policy::{Evaluator, KEPT, NoReset, Verdict};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::support::{COUNTS_AND_TRAPS, Host, component, embedded, invite, reject, with_body};

/// Number of calls of each policy.
const CALLS: usize = 5;

#[test]
fn memory_is_reset() {
    // Adds the values at the start of memory, in a data segment, after it and at the end to its status code, and changes all of them.
    let body = "
        (local $code i32)
        (local.set $code (i32.add
            (i32.add (i32.load8_u (i32.const 0)) (i32.load8_u (i32.const 1000)))
            (i32.add (i32.load8_u (i32.const 1001)) (i32.load8_u (i32.const 65535)))))
        (memory.fill (i32.const 0) (i32.const 1) (i32.const 16))
        (memory.fill (i32.const 40) (i32.const 1) (i32.const 65496))
        (i32.store16 (i32.const 20) (i32.add (i32.const 300) (local.get $code)))
        i32.const 16";
    stays_the_same("(data (i32.const 1000) \"\\07\")", body, 307, 1);
}

/// Calls write to different parts of the memory by different instructions, and each finds the memory of a new sandbox.
#[test]
fn every_written_part_of_memory_is_reset() {
    let mut host = Host::new();
    // Adds all bytes of memory after the verdict to the status code, then writes at the offset given by the length of the body.
    let wat = r#"(module
        (import "portcullis:policy/request@0.1.0" "body-length" (func $length (result i32)))
        (import "portcullis:policy/request@0.1.0" "method" (func $method (param i32)))
        (memory (export "memory") 2)
        (global $heap (mut i32) (i32.const 90000))
        (data (i32.const 16) "\01\00\00\00" "\00\00\00\00" "\40\00\00\00" "\00\00\00\00" "\00\00\00\00" "\00\00\00\00")
        (data (i32.const 3000) "\01\01\01")
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
            (global.set $heap (i32.add (global.get $heap) (i32.const 64)))
            global.get $heap)
        (func (export "decide") (result i32)
            (local $at i32) (local $sum i32)
            (local.set $at (i32.const 64))
            (loop $next
                (local.set $sum (i32.add (local.get $sum) (i32.load8_u (local.get $at))))
                (local.set $at (i32.add (local.get $at) (i32.const 1)))
                (br_if $next (i32.lt_u (local.get $at) (i32.const 131072))))
            (i32.store16 (i32.const 20) (i32.add (i32.const 300) (local.get $sum)))
            (local.set $at (call $length))
            (i64.store (local.get $at) (i64.const -1))
            (memory.fill (i32.xor (local.get $at) (i32.const 65536)) (i32.const 9) (i32.const 7))
            (call $method (i32.and (i32.xor (local.get $at) (i32.const 32768)) (i32.const -4)))
            i32.const 16))"#;
    let policy = host.load_text(wat);
    for at in [2_045, 131_064, 64, 3_000, 65_528, 67_580, 100_000, 2_048] {
        let request = with_body(at);
        assert_eq!(host.ask(&policy, request), Ok(reject(303, "")), "{at}");
    }
    assert_eq!(
        host.runtime.pool_use().live,
        1,
        "the sandbox was reset and kept"
    );
}

#[test]
fn globals_are_reset() {
    let globals = "(global $a (mut i32) (i32.const 1)) (global $b (mut i64) (i64.const 2)) (global $c (mut f32) (f32.const 3))
        (global $d (mut f64) (f64.const 4)) (global $e (mut v128) (v128.const i32x4 5 0 0 0)) (global $f i32 (i32.const 6))";
    let body = "
        (i32.store16 (i32.const 20) (i32.add (i32.const 300) (i32.add (global.get $f) (i32.add
            (i32.add (global.get $a) (i32.wrap_i64 (global.get $b)))
            (i32.add (i32.add (i32.trunc_f32_s (global.get $c)) (i32.trunc_f64_s (global.get $d)))
                (i32x4.extract_lane 0 (global.get $e)))))))
        (global.set $a (i32.const 11)) (global.set $b (i64.const 12)) (global.set $c (f32.const 13))
        (global.set $d (f64.const 14)) (global.set $e (v128.const i32x4 15 0 0 0))
        i32.const 16";
    stays_the_same(globals, body, 321, 1);
}

#[test]
fn a_sandbox_whose_memory_grew_is_dropped() {
    let body = "
        (drop (memory.grow (i32.const 1)))
        (i32.store16 (i32.const 20) (i32.add (i32.const 300) (memory.size)))
        i32.const 16";
    stays_the_same("", body, 302, 0);
}

#[test]
fn modules_with_other_state_get_a_new_sandbox() {
    let table = "(table 1 funcref) (elem (i32.const 0) $one) (elem declare func $two) (type $code (func (result i32)))
        (func $one (type $code) i32.const 301) (func $two (type $code) i32.const 302)";
    let body = "
        (i32.store16 (i32.const 20) (call_indirect (type $code) (i32.const 0)))
        (table.set (i32.const 0) (ref.func $two))
        i32.const 16";
    stays_the_same(table, body, 301, 0);

    // Reading from a dropped segment traps.
    let body = "
        (memory.init $d (i32.const 20) (i32.const 0) (i32.const 2))
        (data.drop $d)
        i32.const 16";
    stays_the_same("(data $d \"\\2e\\01\")", body, 302, 0);
}

/// The state after the start function is that of a new sandbox.
#[test]
fn what_a_start_function_leaves_is_kept() {
    let start = r#"(global $g (mut i32) (i32.const 303)) (data (i32.const 3000) "\01") (func $more (i32.store8 (i32.const 3001) (i32.const 2)))
        (func $s (call $more) (global.set $g (i32.add (global.get $g) (i32.const 1)))) "#;
    let body = "
        (i32.store16 (i32.const 20) (i32.add (global.get $g) (i32.add (i32.load8_u (i32.const 3000)) (i32.load8_u (i32.const 3001)))))
        (global.set $g (i32.const 0)) (memory.fill (i32.const 2900) (i32.const 9) (i32.const 200))
        i32.const 16";
    for begin in ["(start $s)", r#"(export "_initialize" (func $s))"#] {
        stays_the_same(&format!("{start} {begin}"), body, 307, 1);
    }

    // A memory that grows before the first call has no marks for its new part.
    let start = r#"(func $s (drop (memory.grow (i32.const 1)))) (export "_initialize" (func $s))"#;
    let body = "
        (i32.store16 (i32.const 20) (i32.add (i32.const 300) (i32.load8_u (i32.const 70000))))
        (i32.store8 (i32.const 70000) (i32.const 7))
        i32.const 16";
    stays_the_same(start, body, 300, 0);
}

/// `_initialize` runs for each call if it calls the host.
#[test]
fn code_before_the_first_call_may_call_the_host() {
    let mut host = Host::new();
    let wat = r#"(module
        (import "portcullis:policy/request@0.1.0" "body-length" (func $length (result i32)))
        (memory (export "memory") 1) (global $seen (mut i32) (i32.const 0))
        (data (i32.const 16) "\01\00\00\00" "\00\00\00\00" "\40\00\00\00" "\00\00\00\00" "\00\00\00\00" "\00\00\00\00")
        (func (export "_initialize") (global.set $seen (call $length)))
        (func (export "decide") (result i32)
            (i32.store16 (i32.const 20) (i32.add (i32.const 300) (global.get $seen)))
            i32.const 16))"#;
    let module = embedded(wat);
    for (bytes, reason) in [
        (&module, NoReset::Start),
        (&component(&module), NoReset::Component),
    ] {
        let policy = host.runtime.load("fresh", bytes).unwrap();
        assert_eq!(policy.no_reset(), Some(reason));
        for length in [3, 5] {
            let code = 300 + length as u16;
            assert_eq!(host.ask(&policy, with_body(length)), Ok(reject(code, "")));
        }
    }
}

#[test]
fn a_failed_call_leaves_no_state() {
    let mut host = Host::new();
    let policy = host.load_text(COUNTS_AND_TRAPS);
    let with_body = with_body(1);
    for _ in 0..CALLS {
        assert_eq!(host.ask(&policy, invite()), Ok(reject(301, "")));
        assert!(host.ask(&policy, with_body.clone()).is_err());
    }
}

#[test]
fn a_sandbox_that_keeps_its_state_serves_only_its_policy_handle() {
    let mut host = Host::new();
    let policy = host.load("stateful");
    let kept = policy.clone().with_reuse(true);

    for code in [301, 302] {
        assert_eq!(host.ask(&kept, invite()), Ok(reject(code, "")));
    }
    for _ in 0..CALLS {
        assert_eq!(host.ask(&policy, invite()), Ok(reject(301, "")));
    }
    assert_eq!(host.ask(&kept, invite()), Ok(reject(303, "")));
}

#[test]
fn sandboxes_of_replaced_policies_are_dropped() {
    let mut host = Host::new();
    let policy = host.load("reject");
    host.ask(&policy, invite()).unwrap();
    assert_eq!(host.runtime.pool_use().live, 1);

    host.evaluator.keep_only(|keep| keep(&policy));
    assert_eq!(host.runtime.pool_use().live, 1);
    host.evaluator.keep_only(|_| ());
    assert_eq!(host.runtime.pool_use().live, 0);
}

/// Checks that both forms of a policy answer every call with the same status code. `live` is the number of sandboxes that its module keeps.
fn stays_the_same(fields: &str, decide: &str, code: u16, live: u64) {
    let verdict: Verdict = reject(code, "");
    let wat = format!(
        r#"(module (memory (export "memory") 1)
            (data (i32.const 16) "\01\00\00\00" "\00\00\00\00" "\40\00\00\00" "\00\00\00\00" "\00\00\00\00" "\00\00\00\00")
            {fields}
            (func (export "decide") (result i32) {decide}))"#
    );
    let module = embedded(&wat);
    for (bytes, live) in [(&module, live), (&component(&module), 0)] {
        let mut host = Host::new();
        let policy = host.runtime.load("fresh", bytes).unwrap();
        for call in 0..CALLS {
            assert_eq!(
                host.ask(&policy, invite()),
                Ok(verdict.clone()),
                "call {call} of {wat}"
            );
        }
        assert_eq!(host.runtime.pool_use().live, live, "{wat}");
    }
}

/// An evaluator that calls many policies keeps the most recently used sandboxes.
#[test]
fn the_number_of_idle_sandboxes_is_limited() {
    let mut host = Host::new();
    let policies: Vec<_> = (0..KEPT + 2).map(|_| host.load("reject")).collect();
    for policy in &policies {
        host.ask(policy, invite()).unwrap();
    }
    assert_eq!(host.runtime.pool_use().live, KEPT as u64);
    host.evaluator.keep_only(|_| ());
    assert_eq!(host.runtime.pool_use().live, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Each policy counts its calls while its sandbox is kept. The most recently used are kept, and at most four of one scope.
    #[test]
    fn the_most_recently_used_sandboxes_are_kept(asked in vec(0_usize..12, 1..80)) {
        const KEEPING: usize = 6;
        let mut host = Host::new();
        host.evaluator = Evaluator::keeping(KEEPING);
        let scopes = [Arc::default(), Arc::default()];
        let load = |_| host.load("stateful").with_reuse(true);
        let policies: Vec<_> = (0..12).map(load).collect();
        // The most recently used policy is first.
        let mut kept: Vec<(usize, u16)> = Vec::new();
        for nth in asked {
            let at = kept.iter().position(|(policy, _)| *policy == nth);
            let before = at.map_or(300, |at| kept.remove(at).1);
            let of_scope = |(policy, _): &(usize, u16)| policy % 2 == nth % 2;
            if at.is_none() && kept.iter().filter(|kept| of_scope(kept)).count() == 4 {
                kept.remove(kept.iter().rposition(of_scope).unwrap());
            } else if at.is_none() && kept.len() == KEEPING {
                kept.pop();
            }
            kept.insert(0, (nth, before + 1));
            host.scope = Arc::clone(&scopes[nth % 2]);
            let answer = host.ask(&policies[nth], invite());
            prop_assert_eq!(answer, Ok(reject(before + 1, "")));
            prop_assert_eq!(host.runtime.pool_use().live, kept.len() as u64);
        }
    }
}
