//! The interface `flows`, from modules and from components.

use std::sync::Arc;

use portcullis_policy::{FlowState, StatedHost, Tape, Wishes};
use serde_json::json;

use crate::clock::moment;
use crate::support::{Host, asking, both_forms, embedded, invite, number_guest, reject};

const FLOWS: &str = "portcullis:policy/flows@0.1.0";

fn host_with(state: StatedHost) -> Host {
    let mut host = Host::new();
    host.evaluator.set_host(Arc::new(state));
    host
}

fn keeping(then: &str) -> Vec<u8> {
    let import = format!(r#"(import "{FLOWS}" "keep" (func $keep))"#);
    embedded(&asking(&import, "", &format!("(call $keep) {then}")))
}

#[test]
fn the_flow_of_the_route_is_that_of_the_host() {
    let wat = number_guest(FLOWS, "route", "", "");
    for (number, flow) in (300..).zip(FlowState::ALL) {
        let mut host = host_with(StatedHost {
            flow,
            ..StatedHost::default()
        });
        for policy in both_forms(&host, &embedded(&wat)) {
            assert_eq!(host.ask(&policy, invite()), Ok(reject(number, "")));
        }
    }
}

#[test]
fn what_is_known_of_the_sender_is_told() {
    for (function, is_client, came_along_flow, code) in [
        ("is-client", true, false, 301),
        ("is-client", false, true, 300),
        ("came-along", false, true, 301),
        ("came-along", true, false, 300),
    ] {
        let mut host = host_with(StatedHost {
            is_client,
            came_along_flow,
            ..StatedHost::default()
        });
        let wat = number_guest(FLOWS, function, "", "");
        for policy in both_forms(&host, &embedded(&wat)) {
            let answer = host.ask(&policy, invite());
            assert_eq!(answer, Ok(reject(code, "")), "{function}");
        }
    }
    // Nothing is known without a host.
    let mut host = Host::new();
    for function in ["route", "is-client", "came-along"] {
        let wat = number_guest(FLOWS, function, "", "");
        for policy in both_forms(&host, &embedded(&wat)) {
            assert_eq!(host.ask(&policy, invite()), Ok(reject(300, "")));
        }
    }
}

#[test]
fn a_flow_is_kept_after_the_call_unless_it_fails() {
    let kept = Wishes {
        keeps_flow: true,
        ..Wishes::default()
    };
    for (then, wishes) in [("", kept), ("unreachable", Wishes::default())] {
        let mut host = host_with(StatedHost::default());
        for policy in both_forms(&host, &keeping(then)) {
            assert_eq!(host.ask(&policy, invite()).is_ok(), then.is_empty());
            assert_eq!(host.evaluator.wishes(), wishes);
        }
    }
    // The wishes of a call are not those of the next one.
    let mut host = host_with(StatedHost::default());
    let [keeps, _] = both_forms(&host, &keeping(""));
    let [asks, _] = both_forms(&host, &embedded(&number_guest(FLOWS, "route", "", "")));
    host.ask(&keeps, invite()).unwrap();
    host.ask(&asks, invite()).unwrap();
    assert_eq!(host.evaluator.wishes(), Wishes::default());
}

#[test]
fn a_replay_has_the_recorded_flow() {
    let mut host = host_with(StatedHost {
        flow: FlowState::Gone,
        ..StatedHost::default()
    });
    let wat = number_guest(FLOWS, "route", "", "");
    let policy = host.runtime.load("inline", &embedded(&wat)).unwrap();
    host.evaluator.insert_tape(Tape::new(moment()));
    assert_eq!(host.ask(&policy, invite()), Ok(reject(302, "")));
    let tape = host.evaluator.take_tape().unwrap();
    let [asked] = tape.asked() else {
        panic!("{tape:?}")
    };
    assert_eq!(asked.function, "flows.route");
    assert_eq!(asked.answer, json!("gone"));
    host.evaluator.set_host(Arc::new(StatedHost::default()));
    let replaying = Tape::replaying(moment(), tape.asked().to_vec());
    host.evaluator.insert_tape(replaying);
    assert_eq!(host.ask(&policy, invite()), Ok(reject(302, "")));
    assert!(host.evaluator.take_tape().unwrap().unanswered().is_empty());
}
