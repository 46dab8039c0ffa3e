//! The interface `guard`, from modules and from components.

use std::sync::Arc;

use portcullis_policy::{FailureKind, Offence, Scope, Standing, StatedHost, Tape, Wishes};
use serde_json::json;

use crate::clock::moment;
use crate::support::{
    Host, answering, asking, both_forms, embedded, failures, invite, number_guest, reject,
};

const GUARD: &str = "portcullis:policy/guard@0.1.0";

fn host_with(standing: Standing) -> Host {
    let mut host = Host::new();
    host.evaluator.set_host(Arc::new(StatedHost {
        standing,
        ..StatedHost::default()
    }));
    host
}

/// Reports these offences, and rejects with 300 and the number of reports that count.
fn reporting(offences: &[u32]) -> String {
    let import = format!(r#"(import "{GUARD}" "report" (func $report (param i32) (result i32)))"#);
    let reports = offences
        .iter()
        .fold("(i32.const 0)".to_owned(), |sum, offence| {
            format!("(i32.add {sum} (call $report (i32.const {offence})))")
        });
    answering(&import, "", &reports)
}

#[test]
fn the_standing_of_the_source_is_that_of_the_host() {
    let wat = number_guest(GUARD, "source-standing", "", "");
    for (number, standing) in (300..).zip(Standing::ALL) {
        let mut host = host_with(standing);
        for policy in both_forms(&host, &embedded(&wat)) {
            assert_eq!(host.ask(&policy, invite()), Ok(reject(number, "")));
        }
    }
    // Without a host there is no guard.
    let mut host = Host::new();
    for policy in both_forms(&host, &embedded(&wat)) {
        assert_eq!(host.ask(&policy, invite()), Ok(reject(300, "")));
    }
}

#[test]
fn one_report_of_a_call_counts() {
    for (offences, code, reported) in [
        (&[0][..], 301, Some(Offence::Guess)),
        (&[1], 301, Some(Offence::Scan)),
        (&[1, 0, 0], 301, Some(Offence::Scan)),
        (&[], 300, None),
    ] {
        let mut host = host_with(Standing::Held);
        for policy in both_forms(&host, &embedded(&reporting(offences))) {
            assert_eq!(host.ask(&policy, invite()), Ok(reject(code, "")));
            let wishes = Wishes {
                report: reported,
                ..Wishes::default()
            };
            assert_eq!(host.evaluator.wishes(), wishes, "{offences:?}");
        }
    }
}

#[test]
fn a_source_that_is_exempt_is_not_reported() {
    let mut host = host_with(Standing::Exempt);
    for policy in both_forms(&host, &embedded(&reporting(&[0, 1]))) {
        assert_eq!(host.ask(&policy, invite()), Ok(reject(300, "")));
        assert_eq!(host.evaluator.wishes(), Wishes::default());
    }
}

#[test]
fn a_call_that_fails_reports_nothing() {
    let import = format!(r#"(import "{GUARD}" "report" (func $report (param i32) (result i32)))"#);
    let wat = asking(
        &import,
        "",
        "(drop (call $report (i32.const 0))) unreachable",
    );
    let mut host = host_with(Standing::Observed);
    for policy in both_forms(&host, &embedded(&wat)) {
        assert!(host.ask(&policy, invite()).is_err());
        assert_eq!(host.evaluator.wishes(), Wishes::default());
    }
}

#[test]
fn an_offence_that_does_not_exist_ends_the_call() {
    let failure = failures(Scope::operator, &reporting(&[2]));
    assert_eq!(failure.kind(), FailureKind::Trap);
}

#[test]
fn a_replay_reports_as_recorded() {
    let mut host = host_with(Standing::Observed);
    let policy = host.runtime.load("inline", &embedded(&reporting(&[0])));
    let policy = policy.unwrap();
    host.evaluator.insert_tape(Tape::new(moment()));
    let live = host.ask(&policy, invite()).unwrap();
    let tape = host.evaluator.take_tape().unwrap();
    let [asked] = tape.asked() else {
        panic!("{tape:?}")
    };
    assert_eq!(asked.function, "guard.report");
    assert_eq!(
        (&asked.arguments, &asked.answer),
        (&json!(["guess"]), &json!(true))
    );
    let mut host = host_with(Standing::Exempt);
    let replaying = Tape::replaying(moment(), tape.asked().to_vec());
    host.evaluator.insert_tape(replaying);
    assert_eq!(host.ask(&policy, invite()).unwrap(), live);
    assert!(host.evaluator.take_tape().unwrap().unanswered().is_empty());
}
