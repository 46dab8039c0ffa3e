//! Profiles: fuel by function.

use std::sync::Arc;

use portcullis_policy::{Evaluator, Limits, Profile, Runtime, with_marks};

use crate::support::{component, embedded, invite};

/// `decide` calls `loops` for a loop of ten rounds, and `recurses`, which calls itself four times.
const GUEST: &str = r#"(module
    (memory (export "memory") 1)
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 1024)
    (func $loops (param i32)
        (loop $again
            (local.set 0 (i32.sub (local.get 0) (i32.const 1)))
            (br_if $again (local.get 0))))
    (func $recurses (param i32)
        (if (local.get 0) (then (call $recurses (i32.sub (local.get 0) (i32.const 1))))))
    (func $decide (export "decide") (result i32)
        (call $loops (i32.const 10))
        (call $recurses (i32.const 4))
        (call $loops (i32.const 1))
        i32.const 16))"#;

fn fuel(runtime: &Runtime, bytes: &[u8]) -> u64 {
    let mut evaluator = Evaluator::new();
    let policy = runtime.load("plain", bytes).unwrap();
    let (_, answer) = evaluator.decide(&policy, &Arc::default(), &Arc::default(), invite());
    answer.unwrap();
    evaluator.fuel().unwrap()
}

fn profile(runtime: &Runtime, bytes: &[u8]) -> Profile {
    let marked = with_marks(bytes).unwrap();
    let policy = runtime.load("marked", &marked).unwrap();
    let profiled = Evaluator::new().profile(&policy, &Arc::default(), &Arc::default(), invite());
    profiled.1.unwrap();
    profiled.0.unwrap()
}

#[test]
fn the_fuel_of_all_functions_is_that_of_the_call() {
    let runtime = Runtime::metered(Limits::default()).unwrap();
    let module = embedded(GUEST);
    for bytes in [module.clone(), component(&module)] {
        let profile = profile(&runtime, &bytes);
        assert_eq!(profile.fuel(), fuel(&runtime, &bytes), "{profile:?}");
        let of = |name: &str| {
            let at = profile
                .functions
                .iter()
                .position(|function| function.name == name)
                .unwrap();
            (profile.functions[at].calls, profile.own_and_total()[at])
        };
        let (calls, (own, total)) = of("decide");
        assert_eq!((calls, total), (1, profile.fuel()));
        let (loops, (in_loops, _)) = of("loops");
        let (recurses, (in_recursion, with_recursion)) = of("recurses");
        assert_eq!((loops, recurses), (2, 5));
        assert_eq!(in_recursion, with_recursion);
        assert_eq!(own + in_loops + in_recursion, total);
        assert!(in_loops > 11 * 4 && own < 12, "{profile:?}");
    }
}

#[test]
fn a_runtime_without_fuel_has_no_profile() {
    let runtime = Runtime::new(Limits::default()).unwrap();
    let policy = runtime
        .load("marked", &with_marks(&embedded(GUEST)).unwrap())
        .unwrap();
    let (profile, answer) =
        Evaluator::new().profile(&policy, &Arc::default(), &Arc::default(), invite());
    answer.unwrap();
    assert!(profile.is_none());
}
