//! Calls that ring while the host is killed and started again. The new process has the key of the old one, and no transactions.

use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::messages::Transport::{Tcp, Udp};

use crate::call::Call;
use crate::site::{Site, builder, wait_until_idle};

fn start() -> (Host, Site) {
    let host = builder(Builder::new().workers(4))
        .set("sip", "key-file = \"seal.key\"")
        .start();
    let site = Site::of(&host);
    (host, site)
}

/// 29: the 200 is relayed by its Vias.
#[test]
fn a_call_that_rings_completes_after_a_restart() {
    let (mut host, site) = start();
    let (call, callee) = Call::start(site);
    let seen = call.rings_at(&callee);
    host.kill_and_start();
    let ok = call.is_answered_by(&callee, &seen);
    call.is_completed_with(&callee, &ok);
    let adopted = host.metric("portcullis_unmatched_messages_total", &["adopted"]);
    assert_eq!(adopted, 1.0);
    wait_until_idle(&host);
}

/// 29: the CANCEL has the branch of the INVITE.
#[test]
fn a_call_that_rings_can_be_cancelled_after_a_restart() {
    let (mut host, site) = start();
    let (call, callee) = Call::start(site);
    let seen = call.rings_at(&callee);
    host.kill_and_start();
    // The ACK is that of the caller, as there is no transaction to send one.
    call.is_cancelled_on_the_branch_of(&callee, &seen);
    wait_until_idle(&host);
}

/// 29: a copy of the INVITE is a copy for the callee, too.
#[test]
fn a_copy_after_a_restart_has_the_branch_of_the_first() {
    let (mut host, site) = start();
    let (call, callee) = Call::start(site);
    let seen = call.arrives_at(&callee);
    host.kill_and_start();
    let copy = call.is_copied_to(&callee, &seen);
    let ok = call.is_answered_by(&callee, &copy);
    call.is_completed_with(&callee, &ok);
    wait_until_idle(&host);
}

/// 29: the callee sends its answer over a connection to the address in Via.
#[test]
fn a_call_over_tcp_completes_after_a_restart() {
    let (mut host, site) = start();
    let site = site.over(Udp, Tcp);
    let (call, callee) = Call::start(site);
    let seen = call.rings_at(&callee);
    host.kill_and_start();
    callee.send(&callee.response(&seen.message, 200, &[]), site.proxy);
    let ok = call.caller.first_response("INVITE", 200);
    call.is_completed_with(&callee, &ok);
    wait_until_idle(&host);
}
