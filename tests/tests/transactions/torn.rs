//! Calls of many callers while the host is killed and started again.

use std::thread;

use portcullis_load::{End, Mode, Plan, run};
use portcullis_testkit::host::Builder;
use portcullis_testkit::{policy, wait};

use crate::call::Call;
use crate::site::{Site, builder, wait_until_idle};

/// Number of calls without PORTCULLIS_TORN_CALLS.
const CALLS: u64 = 2_000;

/// Calls that ring while the host is killed.
const RINGING: usize = 40;

/// 29: calls at the highest rate that the host stands. The callers send requests again that have no answer.
#[test]
fn no_call_is_lost_when_the_host_is_killed() {
    let calls = std::env::var("PORTCULLIS_TORN_CALLS");
    let calls = calls.map_or(CALLS, |n| n.parse().expect("a number"));
    let builder = Builder::new().workers(2);
    let callee = builder.lease().addr(3, 5060);
    let mut host = builder
        .policy(policy("observe"))
        .set("log", "level = \"warn,policy=off\"")
        .set("sip", "key-file = \"seal.key\"")
        .set("relay", &format!("next-hop = \"sip:{callee}\""))
        .start();
    let mut load = Plan::new(host.sip(), Mode::Call, host.lease().ip(100));
    load.sink = Some(callee);
    load.end = End::Requests(calls);
    load.patience = wait::PATIENCE;
    let report = thread::scope(|scope| {
        let running = scope.spawn(|| run(&load).expect("the load runs"));
        wait::until("about half of the calls have begun", || {
            let begun = host.metric("portcullis_transactions_begun_total", &[]);
            (begun >= calls as f64).then_some(())
        });
        host.kill_and_start();
        running.join().expect("the load does not panic")
    });
    assert_eq!((report.sent, report.answered), (calls, calls));
    assert_eq!(report.unexpected, 0, "a 481, for example: {report:?}");
    assert_ne!(report.resent, 0, "calls were in progress: {report:?}");
    wait_until_idle(&host);
}

/// 29: calls that ring.
#[test]
fn calls_that_ring_complete_after_a_kill() {
    let mut host = builder(Builder::new().workers(4))
        .set("sip", "key-file = \"seal.key\"")
        .start();
    let site = Site::of(&host);
    let calls: Vec<_> = (0..RINGING)
        .map(|_| {
            let (call, callee) = Call::start(site);
            let seen = call.rings_at(&callee);
            (call, callee, seen)
        })
        .collect();
    host.kill_and_start();
    for (call, callee, seen) in &calls {
        let ok = call.is_answered_by(callee, seen);
        call.is_completed_with(callee, &ok);
    }
    let adopted = host.metric("portcullis_unmatched_messages_total", &["adopted"]);
    assert_eq!(adopted, RINGING as f64);
    wait_until_idle(&host);
}
