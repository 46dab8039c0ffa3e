//! Hostile guests: each fails with its expected failure, and the next call is not affected.

use portcullis_policy::{Failure, InvalidVerdict, Limits, Refused};

use crate::support::{Host, component, guest, invite, unauthorised, with_body};

#[test]
fn an_endless_loop_ends_at_the_deadline() {
    let mut host = Host::hasty();

    for failure in fails(&mut host, "loop-with-body") {
        let Failure::Timeout { deadline, function } = failure else {
            panic!("{failure}");
        };
        assert_eq!(deadline, host.runtime.limits().deadline);
        assert_eq!(function.as_deref(), Some("forever"));
    }
}

#[test]
fn memory_is_limited() {
    let refused = Refused::Memory {
        wanted: (16 << 20) + (64 << 10),
        limit: 16 << 20,
    };
    fails_with("memory-growth", Failure::Memory(refused));
}

#[test]
fn tables_are_limited() {
    let refused = Refused::Table {
        wanted: 10_001,
        limit: 10_000,
    };
    fails_with("table-growth", Failure::Memory(refused));
}

#[test]
fn recursion_is_limited() {
    let function = Some("deeper".into());
    fails_with("recursion", Failure::Stack { function });
}

#[test]
fn traps_name_their_kind_and_function() {
    fails_with(
        "trap",
        Failure::Trap {
            cause: "wasm `unreachable` instruction executed (a panic, as a rule)".into(),
            function: Some("broken".into()),
        },
    );
}

#[test]
fn reads_beyond_memory_trap() {
    fails_with(
        "out-of-bounds",
        Failure::Trap {
            cause: "out of bounds memory access".into(),
            function: None,
        },
    );
}

#[test]
fn a_string_larger_than_memory_exceeds_the_memory_limit() {
    let refused = Refused::Memory {
        wanted: 1601 << 16,
        limit: 16 << 20,
    };
    fails_with("huge-string", Failure::Memory(refused));
}

#[test]
fn a_string_of_100_mb_is_not_copied() {
    let mut host = Host::with(Limits {
        memory_bytes: 256 << 20,
        ..Host::new().runtime.limits().clone()
    });

    for failure in fails(&mut host, "huge-string") {
        assert_eq!(failure, Failure::HostCall { limit: 64 << 10 });
    }
}

#[test]
fn a_string_beyond_the_host_call_limit_is_not_copied() {
    fails_with("long-string", Failure::HostCall { limit: 64 << 10 });
}

#[test]
fn a_string_out_of_bounds_is_unreadable() {
    unreadable("claimed-string");
}

#[test]
fn texts_that_are_not_utf8_are_refused() {
    fails_with("invalid-utf8", InvalidVerdict::NotUtf8.into());
}

#[test]
fn status_codes_are_validated() {
    fails_with("invalid-code", InvalidVerdict::Code(200).into());
}

#[test]
fn a_reason_phrase_with_line_breaks_is_refused() {
    let reason = "No\\r\\nX-Smuggled: 1".into();
    fails_with("line-break", InvalidVerdict::Reason(reason).into());
}

#[test]
fn header_fields_of_the_host_are_refused() {
    let name = "Via".into();
    fails_with(
        "reserved-header",
        InvalidVerdict::ReservedHeader(name).into(),
    );
}

#[test]
fn malformed_verdicts_are_unreadable() {
    unreadable("unknown-case");
    unreadable("stray-pointer");
    unreadable("odd-pointer");
}

#[test]
fn log_messages_are_validated() {
    let cause = "a text passed to the host is not UTF-8".into();
    let function = Some("garbled".into());
    fails_with("log-invalid", Failure::Trap { cause, function });
    fails_with("log-huge", Failure::HostCall { limit: 64 << 10 });
    traps_in("log-stray", "stray");
    traps_in("log-level", "level");
}

#[test]
fn results_of_cabi_realloc_are_validated() {
    traps_in("stray-realloc", "");
    traps_in("odd-return-area", "stray");
}

#[test]
fn host_functions_trap_within_cabi_realloc() {
    let cause = "cannot leave component instance".into();
    let function = Some("realloc".into());
    fails_with("call-in-realloc", Failure::Trap { cause, function });
}

#[test]
fn an_exhausted_pool_is_a_failure() {
    let mut host = Host::with(Limits {
        instances: 1,
        ..Host::new().runtime.limits().clone()
    });
    let policy = host.load("reject");
    let kept = policy.clone().with_reuse(true);
    assert_eq!(host.ask(&kept, invite()), Ok(unauthorised()));

    let mut other = portcullis_policy::Evaluator::new();
    let (_, outcome) = other.decide(&policy, &host.scope, &host.addresses, invite());

    assert!(matches!(outcome, Err(Failure::Exhausted(_))), "{outcome:?}");
    assert_eq!(host.ask(&kept, invite()), Ok(unauthorised()));
}

#[test]
fn a_failure_drops_the_sandbox() {
    let mut host = Host::hasty();
    let policy = host.load("loop-with-body").with_reuse(true);
    let with_body = with_body(1);

    for _ in 0..2 {
        assert_eq!(host.ask(&policy, invite()), Ok(unauthorised()));
        let failed = host.ask(&policy, with_body.clone());
        assert!(matches!(failed, Err(Failure::Timeout { .. })));
    }
    assert_eq!(host.runtime.pool_use().live, 0);
}

/// Checks that both forms of the guest fail with `expected`.
fn fails_with(name: &str, expected: Failure) {
    for failure in fails(&mut Host::new(), name) {
        assert_eq!(failure, expected);
    }
}

fn unreadable(name: &str) {
    for failure in fails(&mut Host::new(), name) {
        let unreadable = matches!(
            failure,
            Failure::InvalidVerdict(InvalidVerdict::Unreadable(_))
        );
        assert!(unreadable, "{name}: {failure}");
    }
}

/// Checks that both forms of the guest trap in this function; "" for any function.
fn traps_in(name: &str, expected: &str) {
    for failure in fails(&mut Host::new(), name) {
        let Failure::Trap { function, .. } = &failure else {
            panic!("{name}: {failure}");
        };
        let function = function.as_deref().unwrap_or_default();
        assert!(expected.is_empty() || function == expected, "{failure}");
    }
}

/// The failures of both forms of the guest, module and component, for a request with a body. After each, a correct policy returns its verdict
/// with the same evaluator and pool.
fn fails(host: &mut Host, name: &str) -> [Failure; 2] {
    let good = host.load("reject");
    let module = guest(name);
    let request = with_body(1);
    [module.clone(), component(&module)].map(|bytes| {
        let policy = host.runtime.load(name, &bytes).unwrap();
        let failure = host.ask(&policy, request.clone()).unwrap_err();
        assert_eq!(host.ask(&good, request.clone()), Ok(unauthorised()));
        let again = host.ask(&policy, request.clone()).unwrap_err();
        assert_eq!(failure, again, "{name}");
        // Only the sandbox of the correct policy is kept.
        assert_eq!(host.runtime.pool_use().live, 1, "{name}");
        failure
    })
}
