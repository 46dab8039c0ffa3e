//! Calls that take too long, and calls whose thread loses the processor: to them, a function of the host that takes long is the same.

use portcullis_policy::Failure;

use crate::support::{Host, both_forms, embedded, invite, unauthorised, with_slow_log};

/// Attempts until a machine that is busy with other things lets a call go on for some microseconds.
const ATTEMPTS: usize = 200;

/// A module that logs so many lines, and looks at the clock after each.
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
fn a_call_that_lost_the_processor_once_goes_on() {
    let mut host = Host::hasty();
    for policy in both_forms(&host, &asking(1)) {
        assert_eq!(host.ask(&policy, invite()), Ok(unauthorised()));
        let mut attempts = (0..ATTEMPTS).map(|_| with_slow_log(|| host.ask(&policy, invite())));
        assert!(attempts.any(|answer| answer == Ok(unauthorised())));
    }
}

#[test]
fn a_call_that_takes_too_long_ends_all_the_same() {
    let mut host = Host::hasty();
    // Twice is enough where the clock gets the processor in time.
    for policy in both_forms(&host, &asking(20)) {
        for _ in 0..3 {
            let failed = with_slow_log(|| host.ask(&policy, invite())).unwrap_err();
            assert!(matches!(failed, Failure::Timeout { .. }), "{failed}");
        }
        assert_eq!(host.ask(&policy, invite()), Ok(unauthorised()));
    }
}
