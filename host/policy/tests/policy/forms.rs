//! Modules and components of one policy have the same verdicts and failures, although the host runs them by different code.

use std::collections::BTreeMap;
use std::mem::discriminant;

use portcullis_policy::{Failure, FailureKind, Verdict};

use crate::support::{Host, component, embedded, with_body};

#[test]
fn random_verdicts_are_read_alike() {
    let mut host = Host::new();
    let module = embedded(NOISE);
    let [module, component] = [module.clone(), component(&module)]
        .map(|bytes| host.runtime.load("noise", &bytes).unwrap());
    let mut seen: BTreeMap<Option<FailureKind>, u32> = BTreeMap::new();

    for seed in 0..4000 {
        let request = with_body(seed);
        let one = host.ask(&module, request.clone());
        let other = host.ask(&component, request);
        assert!(alike(&one, &other), "{seed}: {one:?}, {other:?}");
        *seen
            .entry(one.err().map(|failure| failure.kind()))
            .or_default() += 1;
    }

    // Enough of the random verdicts are valid.
    assert!(seen[&None] > 100, "{seen:?}");
    assert!(seen[&Some(FailureKind::InvalidVerdict)] > 100, "{seen:?}");
}

fn alike(one: &Result<Verdict, Failure>, other: &Result<Verdict, Failure>) -> bool {
    match (one, other) {
        (Err(Failure::InvalidVerdict(one)), Err(Failure::InvalidVerdict(other))) => {
            discriminant(one) == discriminant(other)
        }
        (Err(one), Err(other)) => one.kind() == other.kind(),
        (one, other) => one == other,
    }
}

/// Writes a verdict with random parts. The seed is the length of the request's body. At 4096 is a text with one random byte; at 1024 are
/// three header fields whose names and values are parts of that text.
const NOISE: &str = r#"
(module
  (import "portcullis:policy/request@0.1.0" "body-length" (func $seed (result i32)))
  (memory (export "memory") 1)
  (global $state (mut i32) (i32.const 0))
  ;; xorshift
  (func $noise (result i32)
    (local $x i32)
    (local.set $x (global.get $state))
    (local.set $x (i32.xor (local.get $x) (i32.shl (local.get $x) (i32.const 13))))
    (local.set $x (i32.xor (local.get $x) (i32.shr_u (local.get $x) (i32.const 17))))
    (local.set $x (i32.xor (local.get $x) (i32.shl (local.get $x) (i32.const 5))))
    (global.set $state (local.get $x))
    local.get $x)
  (func $put (param $at i32) (param $mask i32)
    (i32.store (local.get $at) (i32.and (call $noise) (local.get $mask))))
  ;; Pointer and length of a part of the text, rarely beyond the memory.
  (func $part (param $at i32)
    (i32.store (local.get $at)
      (i32.add (i32.const 4096) (i32.rem_u (call $noise) (i32.const 61500))))
    (call $put (i32.add (local.get $at) (i32.const 4)) (i32.const 0x7f)))
  (func (export "decide") (result i32)
    (local $at i32)
    (global.set $state
      (i32.add (i32.mul (call $seed) (i32.const 0x9e3779b1)) (i32.const 0x2545f491)))
    (memory.fill (i32.const 4096) (i32.const 0x61) (i32.const 61440))
    (i32.store8
      (i32.add (i32.const 4096) (i32.rem_u (call $noise) (i32.const 61440)))
      (call $noise))
    (local.set $at (i32.const 1024))
    (loop $more
      (call $part (local.get $at))
      (local.set $at (i32.add (local.get $at) (i32.const 8)))
      (br_if $more (i32.lt_u (local.get $at) (i32.const 1072))))
    ;; The case, mostly a rejection.
    (i32.store (i32.const 16)
      (select (i32.const 1) (i32.rem_u (call $noise) (i32.const 6)) (i32.and (call $noise) (i32.const 3))))
    (call $put (i32.const 20) (i32.const 0x3ff))
    ;; For a relay: whether there is a name.
    (if (i32.eqz (i32.load (i32.const 16)))
      (then (call $put (i32.const 20) (i32.const 3))))
    (call $part (i32.const 24))
    ;; The list of header fields: mostly the one at 1024.
    (i32.store (i32.const 32)
      (select (i32.const 1024) (i32.and (call $noise) (i32.const 0x1ffff)) (i32.and (call $noise) (i32.const 7))))
    (call $put (i32.const 36) (i32.const 3))
    ;; Sometimes a huge count or a huge text.
    (if (i32.eqz (i32.and (call $noise) (i32.const 15)))
      (then (call $put (i32.const 36) (i32.const 0x1ffff))))
    (if (i32.eqz (i32.and (call $noise) (i32.const 15)))
      (then (call $put (i32.const 28) (i32.const -1))))
    ;; Sometimes a pointer that is not aligned or beyond the memory.
    (select
      (i32.const 16)
      (i32.and (call $noise) (i32.const 0x1ffff))
      (i32.and (call $noise) (i32.const 15)))))
"#;
