//! Policies from the same file share its code.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use portcullis_policy::{CompileFailure, Limits, LoadProblem, Policy, Runtime, Target, compile};

use crate::support::{Host, guest, invite, reject};

/// A host, and the number of its compilations.
fn counting() -> (Host, Arc<AtomicUsize>) {
    let host = Host::new();
    let times = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&times);
    host.runtime
        .compile_with(Box::new(move |file, limits, target| {
            count.fetch_add(1, Ordering::Relaxed);
            compile(file, limits, target).map_err(CompileFailure::Refused)
        }));
    (host, times)
}

/// Code with fuel metering is compiled by the compiler process, too.
#[test]
fn a_metered_runtime_compiles_metered_code() {
    let runtime = Runtime::metered(Limits::default()).unwrap();
    let times = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&times);
    runtime.compile_with(Box::new(move |file, limits, target| {
        assert_eq!(target, Target::Metered);
        count.fetch_add(1, Ordering::Relaxed);
        compile(file, limits, target).map_err(CompileFailure::Refused)
    }));
    let policy = runtime.load("reject", &guest("reject")).unwrap();
    let mut host = Host::new();
    host.ask(&policy, invite()).unwrap();
    assert!(host.evaluator.fuel().is_some_and(|fuel| fuel > 0));
    assert_eq!(times.load(Ordering::Relaxed), 1);
}

/// A file that crashed the compiler process might crash the host, so the host does not read it.
#[test]
fn a_file_that_crashes_the_compiler_is_refused_without_being_parsed() {
    let host = Host::new();
    host.runtime.compile_with(Box::new(|_, _, _| {
        Err(CompileFailure::Broken("signal: 11".to_owned()))
    }));
    let refused = host.refusal(b"no WebAssembly at all");
    let LoadProblem::Compile { cause } = refused else {
        panic!("{refused}");
    };
    assert!(cause.ends_with("signal: 11"), "{cause}");
}

#[test]
fn a_file_is_compiled_once_while_a_policy_uses_its_code() {
    let (mut host, times) = counting();
    // Each policy counts its own calls.
    let [one, other] = [(), ()].map(|()| host.load("stateful").with_reuse(true));
    for code in [301, 302] {
        for policy in [&one, &other] {
            assert_eq!(host.ask(policy, invite()), Ok(reject(code, "")));
        }
    }
    assert_eq!(times.load(Ordering::Relaxed), 1);

    drop(one);
    host.load("stateful");
    assert_eq!(times.load(Ordering::Relaxed), 1);
    host.load("reject");
    assert_eq!(times.load(Ordering::Relaxed), 2);

    drop(other);
    host.evaluator.keep_only(|_| ());
    host.load("stateful");
    assert_eq!(times.load(Ordering::Relaxed), 3);
}

#[test]
fn limits_are_checked_for_shared_code() {
    let (host, _) = counting();
    let (file, _held) = (guest("reject"), host.load("reject"));
    let problem = |change: fn(&mut Limits)| {
        let mut limits = Limits::default();
        change(&mut limits);
        let loaded = host
            .runtime
            .load_within("reject", &file, &limits, &Arc::default());
        let refused: Result<Policy, _> = loaded;
        refused.unwrap_err().problem
    };
    let too_large = problem(|limits| limits.module_bytes = 10);
    assert!(matches!(too_large, LoadProblem::TooLarge { .. }));
    let memory = problem(|limits| limits.memory_bytes = 0);
    assert!(matches!(memory, LoadProblem::Memory { .. }), "{memory}");
}
