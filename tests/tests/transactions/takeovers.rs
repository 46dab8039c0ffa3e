//! Two hosts with one key and one address that moves between them, in networks of their own: any message of a call may reach the host that has not seen
//! the messages before it.

use portcullis_testkit::host::Builder;
use portcullis_testkit::pair::{self, KEY, Pair};
use portcullis_testkit::peer::branch_of;
use portcullis_testkit::steady::Steady;
use portcullis_testkit::wait;

use crate::call::Call;
use crate::site::Site;

/// As every host that shares its addresses is configured.
fn shares(builder: Builder) -> Builder {
    builder.set("transactions", "adopt = \"always\"")
}

fn start() -> (Pair, Site) {
    let pair = Pair::start(shares);
    let site = site_of(&pair);
    (pair, site)
}

/// A site whose caller is outside, and sends to the shared address.
fn site_of(pair: &Pair) -> Site {
    Site::of(pair.host(0)).at(Pair::shared(), Pair::outside())
}

/// The 200 is relayed by its Vias, ACK and BYE by their seal.
#[test]
fn peers_a_call_that_rings_is_answered_at_the_other_host() {
    let (mut pair, site) = start();
    let (call, callee) = Call::start(site);
    let seen = call.rings_at(&callee);
    pair.kill_holder();
    let ok = call.is_answered_by(&callee, &seen);
    call.is_completed_with(&callee, &ok);
    assert_eq!(pair.unmatched(1, "adopted"), 1.0);
    assert_eq!(pair.host(1).complaints(), [""; 0]);
}

/// The host that has the transaction lives on, and has lost the address only.
#[test]
fn peers_an_answer_finds_its_way_while_the_other_host_lives() {
    let (mut pair, site) = start();
    let (call, callee) = Call::start(site);
    let seen = call.rings_at(&callee);
    pair.move_address();
    let ok = call.is_answered_by(&callee, &seen);
    call.is_completed_with(&callee, &ok);
    assert_eq!(pair.host(1).complaints(), [""; 0]);
}

/// CANCEL has the branch of the INVITE, whichever host relays it, and so has the ACK to the failure.
#[test]
fn peers_a_call_that_rings_is_cancelled_at_the_other_host() {
    let (mut pair, site) = start();
    let (call, callee) = Call::start(site);
    let seen = call.rings_at(&callee);
    pair.kill_holder();
    call.is_cancelled_on_the_branch_of(&callee, &seen);
}

/// A CANCEL of a request that nobody has any more is answered by the callee: 481.
#[test]
fn peers_a_late_cancel_at_the_other_host_gets_the_answer_of_the_callee() {
    let (mut pair, site) = start();
    let (call, callee) = Call::start(site);
    let seen = call.rings_at(&callee);
    call.is_refused_by(&callee, &seen, 486);
    call.fails_with(486);
    pair.kill_holder();
    site.send(&call.caller, &call.invite.cancel());
    callee.answer(&callee.first_request("CANCEL"), 481);
    call.caller.first_response("CANCEL", 481);
}

/// The caller has not heard that the other host has failed, and sends its INVITE again.
#[test]
fn peers_a_copy_at_the_other_host_is_a_copy_for_the_callee() {
    let (mut pair, site) = start();
    let (call, callee) = Call::start(site);
    let seen = call.arrives_at(&callee);
    pair.kill_holder();
    call.is_copied_to(&callee, &seen);
    // The answer to the first one, whose Via the other host has written.
    let ok = call.is_answered_by(&callee, &seen);
    call.is_completed_with(&callee, &ok);
}

/// The ACK to a failure that one host has relayed comes to the other one, which passes it on: the callee takes it for a copy.
#[test]
fn peers_an_ack_to_a_failure_ends_nothing_but_its_transaction() {
    let (mut pair, site) = start();
    let (call, callee) = Call::start(site);
    let seen = call.rings_at(&callee);
    call.is_refused_by(&callee, &seen, 486);
    let failure = call.caller.first_response("INVITE", 486);
    pair.kill_holder();
    site.ack_failure(&call.caller, &call.invite, &failure);
    let ack = callee.nth_request(1, "ACK");
    assert_eq!(branch_of(&ack.message), branch_of(&seen.message));
}

/// Every request within a dialog is good at either host, in both directions, and the flow of a phone behind NAT is one of the shared address.
#[test]
fn peers_an_established_call_goes_on_at_either_host() {
    let nat = format!("clients = [\"udp:{}\"]", Pair::shared());
    let mut pair = Pair::start(|builder| shares(builder).set("nat", &nat));
    let call = pair::Call::establish();
    for turn in 0..2 {
        pair.move_address();
        call.caller_asks("INVITE", 2 + 3 * turn);
        call.callee_asks("INFO");
        call.caller_asks("UPDATE", 3 + 3 * turn);
    }
    pair.kill_holder();
    call.callee_asks("BYE");
    assert_eq!(
        pair.metric(1, "portcullis_in_dialog_total", &["forged"]),
        0.0
    );
}

/// The first key of one host is the second one of the other: the middle of the replacement of a key.
#[test]
fn peers_calls_go_on_while_the_key_is_replaced() {
    const NEW: &str = "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff";
    let keys = [format!("{KEY}\n{NEW}\n"), format!("{NEW}\n{KEY}\n")];
    let mut pair = Pair::start_with([&keys[0], &keys[1]], |_, builder| shares(builder));
    let old = pair::Call::establish();
    pair.move_address();
    let new = pair::Call::establish();
    old.caller_asks("UPDATE", 2);
    pair.move_address();
    new.callee_asks("BYE");
    old.callee_asks("BYE");
    // A call that rings.
    let site = site_of(&pair);
    let (call, callee) = Call::start(site);
    let seen = call.rings_at(&callee);
    pair.move_address();
    let ok = call.is_answered_by(&callee, &seen);
    call.is_completed_with(&callee, &ok);
}

/// What `adopt` is for: without it, the other host drops the answer, as a proxy does with an answer to nothing that it has asked (RFC 6026 §7.3).
#[test]
fn peers_a_host_that_shares_nothing_drops_the_answer() {
    let mut pair = Pair::start_with([KEY, KEY], |_, builder| {
        builder.set("transactions", "adopt = \"0s\"")
    });
    let site = site_of(&pair);
    let (call, callee) = Call::start(site);
    let seen = call.rings_at(&callee);
    pair.kill_holder();
    callee.answer(&seen, 200);
    wait::until("the answer is dropped", || {
        (pair.unmatched(1, "stray") == 1.0).then_some(())
    });
    assert_eq!(call.caller.times_of_responses("INVITE", 200).len(), 0);
}

/// The address moves while requests come, to a host that lives, and from one that is killed. Each request is answered, some of them when they are sent
/// again, and calls that ring or are established go on. `portcullis-soak vip` does the same for longer, at a higher rate, and measures it.
#[test]
fn peers_no_request_is_lost_when_the_address_moves_under_traffic() {
    const MOVES: usize = 4;
    let mut pair = Pair::start(|builder| {
        // A machine that is busy with other tests.
        shares(builder).set("policy", "deadline = \"10s\"")
    });
    let site = site_of(&pair);
    let steady = Steady::start(Pair::shared(), Pair::outside(), 300);
    let mut answered = 0;
    for nth in 0..MOVES {
        wait::until("the traffic goes on", || {
            (steady.sums().answered > answered + 300).then_some(())
        });
        let established = pair::Call::establish();
        let (ringing, callee) = Call::start(site);
        let seen = ringing.rings_at(&callee);
        let left = pair.holder();
        match nth % 2 {
            0 => pair.move_address(),
            _ => pair.kill_holder(),
        }
        let ok = ringing.is_answered_by(&callee, &seen);
        ringing.is_completed_with(&callee, &ok);
        established.caller_asks("BYE", 2);
        if nth % 2 == 1 {
            pair.start_again(left);
        }
        answered = steady.sums().answered;
    }
    let sums = steady.stop();
    eprintln!("{MOVES} moves: {sums:?}");
    assert_eq!((sums.lost, sums.refused), (0, 0), "{sums:?}");
    assert_eq!(sums.answered, sums.sent, "{sums:?}");
}

#[test]
fn a_host_that_shares_its_addresses_needs_the_key_of_the_others() {
    let host = shares(Builder::new()).start();
    let said = host.run("check");
    assert!(said.contains("without a key-file"), "{said}");
    let other = shares(Builder::new())
        .set("sip", "key-file = \"seal.key\"")
        .start();
    let file = other.folder().join("seal.key");
    let said = other.run("check");
    assert!(!said.contains("copy"), "{said}");
    std::fs::remove_file(file).expect("the host has made the file");
    let said = other.run("check");
    assert!(said.contains("copy their file first"), "{said}");
}
