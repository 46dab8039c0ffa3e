//! The interface `clock`, from modules and from components.

use std::time::{Duration, Instant, SystemTime};

use portcullis_policy::{Moment, Tape, Verdict};

use crate::support::{Host, answering, both_forms, embedded, invite};

const CLOCK: &str = "portcullis:policy/clock@0.1.0";

/// 2026-11-25T21:30:15Z, a Wednesday.
pub(crate) fn moment() -> Moment {
    Moment {
        wall: SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_642_215_250),
        steady: Instant::now(),
    }
}

#[test]
fn the_time_of_a_replayed_call_is_that_of_the_tape() {
    let now = format!(r#"(import "{CLOCK}" "now" (func $now (result i64)))"#);
    let local = format!(r#"(import "{CLOCK}" "local" (func $local (param i32 i32 i32)))"#);
    let zone = "Europe/Berlin";
    let ask = |length: usize, body: &str| {
        format!(
            "(block (result i32) (call $local (i32.const 256) (i32.const {length}) (i32.const 512)) {body})"
        )
    };
    let mut host = Host::new();
    let mut code = |imports: &str, body: &str| {
        let codes = both_forms(&host, &embedded(&answering(imports, zone, body))).map(|policy| {
            host.evaluator.insert_tape(Tape::new(moment()));
            match host.ask(&policy, invite()) {
                Ok(Verdict::Reject(rejection)) => rejection.code - 300,
                other => panic!("{other:?}"),
            }
        });
        assert_eq!(codes[0], codes[1]);
        codes[0]
    };
    let milliseconds = "(i32.wrap_i64 (i64.rem_u (call $now) (i64.const 1000)))";
    // Status codes are at most 699.
    assert_eq!(code(&now, milliseconds), 250);
    let parts = [
        (
            "(i32.sub (i32.load16_u (i32.const 516)) (i32.const 2000))",
            26,
        ),
        ("(i32.load8_u (i32.const 518))", 11),
        ("(i32.load8_u (i32.const 519))", 25),
        ("(i32.load8_u (i32.const 520))", 22),
        ("(i32.load8_u (i32.const 521))", 30),
        ("(i32.load8_u (i32.const 522))", 15),
        ("(i32.load8_u (i32.const 523))", 3),
        ("(i32.div_s (i32.load (i32.const 524)) (i32.const 60))", 60),
    ];
    for (read, expected) in parts {
        assert_eq!(code(&local, &ask(zone.len(), read)), expected, "{read}");
    }
    assert_eq!(code(&local, &ask(3, "(i32.load8_u (i32.const 512))")), 0);
}
