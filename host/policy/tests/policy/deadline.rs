//! Calls that exceed their deadline, and calls whose thread is preempted. The tests simulate preemption by a slow host function.

use portcullis_policy::Failure;

use crate::support::{Host, both_forms, embedded, invite, unauthorised, with_slow_log};

/// Maximum number of attempts, because a busy machine may preempt a call for longer than its deadline.
const ATTEMPTS: usize = 200;

/// A module that logs this many lines and checks the deadline after each.
fn asking(times: u32) -> Vec<u8> {
    embedded(&format!(
        r#"(module
            (import "portcullis:policy/log@0.1.0" "log" (func $log (param i32 i32 i32)))
            (memory (export "memory") 1)
            (data (i32.const 16) "\01\00\00\00" "\91\01\00\00" "\40\00\00\00" "\16\00\00\00" "\00\00\00\00" "\00\00\00\00")
            (data (i32.const 64) "Address not authorised")
            (func (export "decide") (result i32)
              (local $left i32)
              (local.set $left (i32.const {times}))
              (loop $next
                (if (local.get $left)
                  (then
                    (call $log (i32.const 0) (i32.const 64) (i32.const 22))
                    (local.set $left (i32.sub (local.get $left) (i32.const 1)))
                    (br $next))))
              i32.const 16))"#
    ))
}

#[test]
fn a_call_that_was_preempted_once_continues() {
    let mut host = Host::hasty();
    for policy in both_forms(&host, &asking(1)) {
        assert_eq!(host.ask(&policy, invite()), Ok(unauthorised()));
        let mut attempts = (0..ATTEMPTS).map(|_| with_slow_log(|| host.ask(&policy, invite())));
        assert!(attempts.any(|answer| answer == Ok(unauthorised())));
    }
}

#[test]
fn a_call_that_exceeds_its_spare_ticks_ends() {
    let mut host = Host::hasty();
    // Two lines are enough if the clock thread is scheduled in time.
    for policy in both_forms(&host, &asking(20)) {
        for _ in 0..3 {
            let failed = with_slow_log(|| host.ask(&policy, invite())).unwrap_err();
            assert!(matches!(failed, Failure::Timeout { .. }), "{failed}");
        }
        assert_eq!(host.ask(&policy, invite()), Ok(unauthorised()));
    }
}
