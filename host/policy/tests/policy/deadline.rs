//! Calls that take too long, and calls whose thread loses the processor: to them, a function of the host that takes long is the same.

use std::time::Duration;

use portcullis_policy::Failure;

use crate::support::{Host, Request, both_forms, embedded, unauthorised};

/// Attempts until a machine that is busy with other things lets a call go on for some microseconds.
const ATTEMPTS: usize = 200;

/// A module that asks for the length of the body so many times, and looks at the clock after each.
fn asking(times: u32) -> Vec<u8> {
    embedded(&format!(
        r#"(module
            (import "portcullis:policy/request@0.1.0" "body-length" (func $body (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 16) "\01\00\00\00" "\91\01\00\00" "\40\00\00\00" "\16\00\00\00" "\00\00\00\00" "\00\00\00\00")
            (data (i32.const 64) "Address not authorised")
            (func (export "decide") (result i32)
              (local $left i32)
              (local.set $left (i32.const {times}))
              (loop $next
                (if (local.get $left)
                  (then
                    (drop (call $body))
                    (local.set $left (i32.sub (local.get $left) (i32.const 1)))
                    (br $next))))
              i32.const 16))"#
    ))
}

/// A request whose body's length is told after more than the deadline.
fn slow() -> Request {
    Request {
        delay: Duration::from_millis(30),
        ..Request::invite()
    }
}

#[test]
fn a_call_that_lost_the_processor_once_goes_on() {
    let mut host = Host::hasty();
    for policy in both_forms(&host, &asking(1)) {
        assert_eq!(host.ask(&policy, Request::invite()), Ok(unauthorised()));
        let mut attempts = (0..ATTEMPTS).map(|_| host.ask(&policy, slow()));
        assert!(attempts.any(|answer| answer == Ok(unauthorised())));
    }
}

#[test]
fn a_call_that_takes_too_long_ends_all_the_same() {
    let mut host = Host::hasty();
    // Twice is enough where the clock gets the processor in time.
    for policy in both_forms(&host, &asking(20)) {
        for _ in 0..3 {
            let failed = host.ask(&policy, slow()).unwrap_err();
            assert!(matches!(failed, Failure::Timeout { .. }), "{failed}");
        }
        assert_eq!(host.ask(&policy, Request::invite()), Ok(unauthorised()));
    }
}
