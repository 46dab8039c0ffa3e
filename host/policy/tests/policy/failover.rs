//! The export `on-failure` and the interface `outcome`, from modules and from components.

use std::sync::Arc;

use portcullis_policy::{
    Attempt, Cause, FailedAttempts, Failure, FailureKind, InvalidVerdict, MAX_MEMO,
    MAX_TARGET_BYTES, NextStep, Place, Policy, Rejection, Scope, Settings, Tape, TriedTarget,
    Verdict,
};
use serde_json::json;

use crate::clock::moment;
use crate::forwarding::{forwarding, forwarding_with};
use crate::support::{Host, both_forms, embedded, guest, invite, reject};

const OUTCOME: &str = "portcullis:policy/outcome@0.1.0";

/// `$to` with the text at 256.
const TO_CARRIER: &str = "(call $to (i32.const 0) (i32.const 256) (i32.const 7) (i32.const 0))";

fn failed() -> FailedAttempts {
    let attempt = |place: &str, status, cause| Attempt {
        place: place.into(),
        status,
        cause,
        milliseconds: 4000,
    };
    FailedAttempts {
        attempts: vec![
            attempt("carrier-a", 408, Cause::NoAnswer),
            attempt("sip:192.0.2.9", 302, Cause::Answered),
        ],
        best: Some(1),
        best_response: Some(
            b"SIP/2.0 302 Moved\r\nVia: SIP/2.0/UDP h\r\nContact: <sip:b@h>;q=0.5, <sip:a@h>\r\nX-Why: moved\r\nContent-Length: 0\r\n\r\n".to_vec(),
        ),
        tries_left: 7,
        memo: b"memo".to_vec(),
        named: 2,
        ..FailedAttempts::default()
    }
}

impl Host {
    fn fail(&mut self, policy: &Policy, failed: FailedAttempts) -> Result<NextStep, Failure> {
        let (scope, addresses) = (&self.scope, &self.addresses);
        let request = invite();
        let (back, step) =
            self.evaluator
                .on_failure(policy, scope, addresses, request.clone(), failed);
        assert_eq!(back.bytes, request.bytes, "the request comes back");
        step
    }
}

/// A module whose `on-failure` answers with 300 plus the value of `body`, or wants the best response if it is 0. The imports of `outcome` are
/// there. `$length` is the length of a list or text at 512, and 99 is the value of none.
fn observing(body: &str) -> String {
    let imports = format!(
        r#"(import "{OUTCOME}" "attempts" (func $attempts (param i32)))
           (import "{OUTCOME}" "best" (func $best (param i32)))
           (import "{OUTCOME}" "header" (func $header (param i32 i32 i32)))
           (import "{OUTCOME}" "contacts" (func $contacts (param i32)))
           (import "{OUTCOME}" "tries-left" (func $tries (result i32)))
           (import "{OUTCOME}" "memo" (func $reminder (param i32)))"#
    );
    let step = format!(
        r#"(func $value (result i32) {body})
           (func (export "on-failure") (result i32)
             (local $n i32)
             (local.set $n (call $value))
             (if (i32.eqz (local.get $n)) (then (return (i32.const 32))))
             (i32.store16 (i32.const 20) (i32.add (i32.const 300) (local.get $n)))
             i32.const 16)"#
    );
    forwarding_with(&imports, "carrierX-Why", "(call $value)", &step)
}

/// A module whose `on-failure` adds targets by `body` and returns `again`.
fn again(body: &str) -> String {
    let step = format!(r#"(func (export "on-failure") (result i32) {body} i32.const 64)"#);
    forwarding("carrier", "(i32.const 0)", &step)
}

#[test]
fn a_policy_reads_what_became_of_the_targets() {
    // The values at 512: a list, or an option of a record.
    for (body, in_failure, in_decide) in [
        (
            "(call $attempts (i32.const 512)) (i32.load (i32.const 516))",
            2,
            0,
        ),
        // Status of the first attempt, its cause, and the length of its place.
        (
            "(call $attempts (i32.const 512)) (i32.sub (i32.load16_u (i32.add (i32.load (i32.const 512)) (i32.const 8))) (i32.const 400))",
            8,
            0,
        ),
        (
            "(call $attempts (i32.const 512)) (i32.load8_u (i32.add (i32.load (i32.const 512)) (i32.const 10)))",
            1,
            0,
        ),
        (
            "(call $attempts (i32.const 512)) (i32.load (i32.add (i32.load (i32.const 512)) (i32.const 20)))",
            13,
            0,
        ),
        (
            "(call $attempts (i32.const 512)) (i32.div_u (i32.load (i32.add (i32.load (i32.const 512)) (i32.const 28))) (i32.const 100))",
            40,
            0,
        ),
        (
            "(call $best (i32.const 512)) (i32.load8_u (i32.const 512))",
            1,
            0,
        ),
        (
            "(call $best (i32.const 512)) (i32.load16_u (i32.const 524))",
            302,
            0,
        ),
        (
            "(call $best (i32.const 512)) (i32.load (i32.const 520))",
            13,
            0,
        ),
        (
            "(call $header (i32.const 263) (i32.const 5) (i32.const 512)) (i32.load (i32.const 520))",
            5,
            0,
        ),
        (
            "(call $header (i32.const 256) (i32.const 7) (i32.const 512)) (i32.load8_u (i32.const 512))",
            0,
            0,
        ),
        (
            "(call $contacts (i32.const 512)) (i32.load (i32.const 516))",
            2,
            0,
        ),
        // The sixth letter of the first Contact is that of the user: a is 97.
        (
            "(call $contacts (i32.const 512)) (i32.sub (i32.load8_u offset=4 (i32.load (i32.load (i32.const 512)))) (i32.const 90))",
            7,
            0,
        ),
        ("(call $tries)", 7, 0),
        (
            "(call $reminder (i32.const 512)) (i32.load (i32.const 516))",
            4,
            0,
        ),
    ] {
        let mut host = Host::new();
        for policy in both_forms(&host, &embedded(&observing(body))) {
            assert!(policy.asks_on_failure());
            let step = host.fail(&policy, failed());
            let expected = match in_failure {
                0 => NextStep::Best,
                code => NextStep::Answer(rejection(300 + code)),
            };
            assert_eq!(step, Ok(expected), "{body}");
            if in_decide == 0 && !body.contains("(i32.load (i32.const 512))") {
                // Outside of `on-failure` there is nothing to read, and the next call does not find what this one had.
                assert_eq!(
                    host.ask(&policy, invite()),
                    Ok(Verdict::Relay(None)),
                    "{body}"
                );
            }
        }
    }
}

fn rejection(code: u16) -> Rejection {
    match reject(code, "") {
        Verdict::Reject(rejection) => rejection,
        other => panic!("{other}"),
    }
}

#[test]
fn new_targets_have_their_turn() {
    let mut host = Host::new();
    for policy in both_forms(&host, &embedded(&again(&format!("(drop {TO_CARRIER})")))) {
        assert_eq!(host.fail(&policy, failed()), Ok(NextStep::Again));
        let said = host.evaluator.take_forwarding().unwrap();
        assert_eq!(said.targets.len(), 1);
        assert_eq!(said.memo, b"memo", "the memo stays");
        // A call of `decide` finds neither memo nor targets.
        host.ask(&policy, invite()).unwrap();
        assert_eq!(host.evaluator.take_forwarding(), None);
    }
    let body = format!("(drop {TO_CARRIER}) (drop (call $remember (i32.const 256) (i32.const 3)))");
    for policy in both_forms(&host, &embedded(&again(&body))) {
        assert_eq!(host.fail(&policy, failed()), Ok(NextStep::Again));
        let said = host.evaluator.take_forwarding().unwrap();
        assert_eq!(said.memo, b"car");
    }
}

/// RFC 3261 §16.5. The received request URI is that of a target without one.
#[test]
fn a_place_is_not_tried_again() {
    let received = invite();
    let received = String::from_utf8_lossy(received.request_uri()).into_owned();
    let tried = |request_uri: Option<&str>| TriedTarget {
        place: Place::NextHop("carrier".into()),
        request_uri: request_uri.map(str::to_owned),
    };
    let invalid = Failure::InvalidVerdict(InvalidVerdict::NoTargets);
    let mut host = Host::new();
    for policy in both_forms(&host, &embedded(&again(&format!("(drop {TO_CARRIER})")))) {
        for (request_uri, expected) in [
            (None, Err(invalid.clone())),
            (Some(&*received), Err(invalid.clone())),
            (Some("sip:other@example.com"), Ok(NextStep::Again)),
        ] {
            let mut failed = failed();
            failed.tried.push(tried(request_uri));
            assert_eq!(host.fail(&policy, failed), expected, "{request_uri:?}");
        }
    }
}

/// The core has a branch for each of them.
#[test]
fn targets_that_had_no_turn_count() {
    let invalid = Failure::InvalidVerdict(InvalidVerdict::NoTargets);
    let mut host = Host::new();
    for policy in both_forms(&host, &embedded(&again(&format!("(drop {TO_CARRIER})")))) {
        for (named, expected) in [(15, Ok(NextStep::Again)), (16, Err(invalid.clone()))] {
            let failed = FailedAttempts { named, ..failed() };
            assert_eq!(host.fail(&policy, failed), expected, "{named}");
        }
    }
}

/// A transaction stores them until it ends.
#[test]
fn the_texts_of_all_targets_are_bounded() {
    let to_domain = "(call $to (i32.const 1) (i32.const 263) (i32.const 15) (i32.const 0))";
    let step = format!(
        r#"(func (export "on-failure") (result i32) (drop {TO_CARRIER}) (drop {to_domain}) i32.const 64)"#
    );
    let module = forwarding("carriersip:example.com", "(i32.const 0)", &step);
    let most = MAX_TARGET_BYTES - MAX_MEMO;
    let mut host = Host::new();
    for policy in both_forms(&host, &embedded(&module)) {
        for (named_bytes, added) in [(most - 22, 2), (most - 21, 1), (most - 7, 1), (most - 6, 0)] {
            let failed = FailedAttempts {
                named_bytes,
                ..failed()
            };
            let step = host.fail(&policy, failed);
            let said = host.evaluator.take_forwarding();
            assert_eq!(step.is_ok(), added > 0, "{named_bytes}");
            assert_eq!(
                said.map_or(0, |said| said.targets.len()),
                added,
                "{named_bytes}"
            );
        }
    }
}

#[test]
fn targets_of_another_step_are_discarded() {
    let module = observing(&format!("(drop {TO_CARRIER}) (i32.const 104)"));
    let mut host = Host::new();
    for policy in both_forms(&host, &embedded(&module)) {
        assert_eq!(
            host.fail(&policy, failed()),
            Ok(NextStep::Answer(rejection(404)))
        );
        assert_eq!(host.evaluator.take_forwarding(), None);
    }
}

#[test]
fn new_targets_may_have_codes_of_their_own() {
    let codes = "(i32.store16 (i32.const 640) (i32.const 5)) (drop (call $codes (i32.const 640) (i32.const 1)))";
    let mut host = Host::new();
    for (codes, expected) in [(codes, Some(vec![5])), ("", None)] {
        let module = again(&format!("{codes} (drop {TO_CARRIER})"));
        for policy in both_forms(&host, &embedded(&module)) {
            assert_eq!(host.fail(&policy, failed()), Ok(NextStep::Again));
            let said = host.evaluator.take_forwarding().unwrap();
            assert_eq!(said.retry_on, expected);
        }
    }
}

#[test]
fn again_needs_a_new_target() {
    let mut host = Host::new();
    for policy in both_forms(&host, &guest("again-without-target")) {
        let failure = host.fail(&policy, failed()).unwrap_err();
        assert_eq!(failure, Failure::InvalidVerdict(InvalidVerdict::NoTargets));
        assert_eq!(host.evaluator.take_forwarding(), None);
    }
}

/// The targets that were tried count, so that a policy that never gives up ends after 16.
#[test]
fn a_policy_that_never_gives_up_runs_out_of_targets() {
    let mut host = Host::new();
    for policy in both_forms(&host, &guest("endless-again")) {
        let mut failed = failed();
        failed.attempts.truncate(1);
        failed.named = 1;
        for tried in 1..16 {
            assert_eq!(failed.attempts.len(), tried);
            let step = host.fail(&policy, failed.clone());
            assert_eq!(step, Ok(NextStep::Again), "{tried}");
            failed.attempts.push(failed.attempts[0].clone());
            failed.named += 1;
            let said = host.evaluator.take_forwarding().unwrap();
            let said = said.targets.into_iter();
            failed.tried.extend(said.map(|target| TriedTarget {
                place: target.place,
                request_uri: target.request_uri,
            }));
        }
        let failure = host.fail(&policy, failed).unwrap_err();
        assert_eq!(failure, Failure::InvalidVerdict(InvalidVerdict::NoTargets));
    }
}

#[test]
fn an_answer_follows_the_rules_of_a_verdict() {
    // The status code 200.
    let module = observing("(i32.const -100)");
    let mut host = Host::new();
    for policy in both_forms(&host, &embedded(&module)) {
        let failure = host.fail(&policy, failed()).unwrap_err();
        assert_eq!(failure, Failure::InvalidVerdict(InvalidVerdict::Code(200)));
    }
}

#[test]
fn an_endless_loop_ends_at_the_deadline() {
    let mut host = Host::hasty();
    for policy in both_forms(&host, &guest("loop-with-tries")) {
        let failure = host.fail(&policy, failed()).unwrap_err();
        assert_eq!(failure.kind(), FailureKind::Timeout);
        assert_eq!(host.ask(&policy, invite()), Ok(Verdict::Relay(None)));
    }
}

#[test]
fn a_policy_without_the_export_wants_the_best_response() {
    let mut host = Host::new();
    for policy in both_forms(&host, &guest("many-targets")) {
        assert!(!policy.asks_on_failure());
        assert_eq!(host.fail(&policy, failed()), Ok(NextStep::Best));
        assert_eq!(host.evaluator.take_forwarding(), None);
    }
}

#[test]
fn a_policy_can_export_both_functions() {
    let both = r#"(func (export "on-failure") (result i32) i32.const 32)
        (data (i32.const 768) "\01\00\00\00" "\00\01\00\00" "\07\00\00\00")
        (func (export "validate-settings") (result i32) i32.const 768)"#;
    let module = embedded(&forwarding("carrier", "(i32.const 0)", both));
    let host = Host::new();
    let refused = host.refusal(&module);
    assert!(
        refused
            .to_string()
            .contains("refuses its settings: carrier"),
        "{refused}"
    );
    let fine = both.replace(r#""\01\00"#, r#""\00\00"#);
    let mut host = Host::new();
    for policy in both_forms(
        &host,
        &embedded(&forwarding("carrier", "(i32.const 0)", &fine)),
    ) {
        assert!(policy.asks_on_failure());
        assert_eq!(policy.check_settings(&Arc::<Settings>::default()), Ok(()));
        assert_eq!(host.fail(&policy, failed()), Ok(NextStep::Best));
    }
}

/// `reuse` keeps an instance for both exports.
#[test]
fn a_kept_sandbox_serves_both_exports() {
    let mut host = Host::new();
    let policy = host.load("endless-again").with_reuse(true);
    for _ in 0..3 {
        assert_eq!(host.ask(&policy, invite()), Ok(Verdict::Relay(None)));
        assert_eq!(host.evaluator.take_forwarding().unwrap().targets.len(), 1);
        assert_eq!(host.fail(&policy, failed()), Ok(NextStep::Again));
        assert_eq!(host.evaluator.take_forwarding().unwrap().targets.len(), 1);
    }
}

#[test]
fn answers_are_recorded_and_replayed() {
    let body = format!(
        "(call $attempts (i32.const 512)) (call $best (i32.const 512)) (call $contacts (i32.const 512)) (call $reminder (i32.const 512))
         (call $header (i32.const 263) (i32.const 5) (i32.const 512)) (drop (call $tries)) {TO_CARRIER}"
    );
    let mut host = Host::new();
    for policy in both_forms(&host, &embedded(&observing(&body))) {
        host.scope = Arc::new(Scope::tenant("acme"));
        host.evaluator.insert_tape(Tape::new(moment()));
        let step = host.fail(&policy, failed());
        assert_eq!(
            step,
            Ok(NextStep::Answer(rejection(302))),
            "the place is not permitted"
        );
        let tape = host.evaluator.take_tape().unwrap();
        let asked: Vec<_> = tape
            .asked()
            .iter()
            .map(|one| (&*one.function, one.answer.clone()))
            .collect();
        let first = json!({"place": "carrier-a", "status": 408, "cause": "no-answer", "milliseconds": 4000});
        let best = json!({"place": "sip:192.0.2.9", "status": 302, "cause": "answered", "milliseconds": 4000});
        let expected = [
            ("outcome.attempts", json!([first, best])),
            ("outcome.best", best),
            ("outcome.contacts", json!(["sip:a@h", "sip:b@h"])),
            ("outcome.memo", json!("memo")),
            ("outcome.header", json!("moved")),
            ("outcome.tries-left", json!(7)),
            ("forwarding.add", json!("not-permitted")),
        ];
        assert_eq!(asked, expected);
        let added = json!([{"next-hop": "carrier", "rank": 0, "weight": 1}]);
        assert_eq!(tape.asked()[6].arguments, added);

        // The replay knows neither the scope nor the attempts.
        host.scope = Arc::new(Scope::operator());
        host.evaluator
            .insert_tape(Tape::replaying(moment(), tape.asked().to_vec()));
        let step = host.fail(&policy, FailedAttempts::default());
        assert_eq!(step, Ok(NextStep::Answer(rejection(302))));
        let replayed = host.evaluator.take_tape().unwrap();
        assert_eq!(replayed.asked(), tape.asked());
        assert!(replayed.unanswered().is_empty());
    }
}

/// A policy can repeat a query whose answer was recorded once. It gets no more targets by that.
#[test]
fn a_replay_has_no_more_targets_than_a_request() {
    let mut host = Host::new();
    let body = format!(
        "(block (result i32) (loop $more (drop {TO_CARRIER})
           (global.set $left (i32.sub (global.get $left) (i32.const 1))) (br_if $more (global.get $left))) (i32.const 0))"
    );
    let left = "(global $left (mut i32) (i32.const 17))";
    let [policy, _] = both_forms(&host, &embedded(&forwarding("carrier", &body, left)));
    host.evaluator.insert_tape(Tape::new(moment()));
    host.ask(&policy, invite()).unwrap();
    let tape = host.evaluator.take_tape().unwrap();
    let first = tape.asked()[..1].to_vec();
    assert_eq!(tape.asked().len(), 17);
    host.evaluator.insert_tape(Tape::replaying(moment(), first));
    host.ask(&policy, invite()).unwrap();
    assert_eq!(host.evaluator.take_forwarding().unwrap().targets.len(), 16);
}
