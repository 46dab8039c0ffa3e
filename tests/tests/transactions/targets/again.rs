//! Targets where the request has been before.

use std::net::SocketAddr;

use portcullis_testkit::guests::guest;
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::peer::{Peer, branch_of};

use super::BOB;
use crate::site::{Site, wait_until_idle};

#[test]
fn the_place_that_the_request_led_to_is_not_tried_again_under_a_name() {
    let builder = Builder::new();
    let callee = Peer::udp(builder.lease().ip(3));
    let host = with_names_for_one(builder, "again-unnamed", callee.local());
    let site = Site::of(&host);
    let caller = site.caller();
    let invite = caller.request("INVITE", BOB);
    site.send(&caller, &invite);
    callee.answer(&callee.first_request("INVITE"), 480);
    callee.first_request("ACK");
    let failure = caller.first_response("INVITE", 480);
    site.ack_failure(&caller, &invite, &failure);
    assert_eq!(callee.times_of("INVITE").len(), 1);
    wait_until_idle(&host);
    let refused = host.metric("portcullis_attempts_total", &["result=\"refused\""]);
    assert_eq!(refused, 1.0);
}

/// The sender gets what it would get without the second target.
#[test]
fn a_place_that_cannot_be_reached_is_not_reported_as_a_loop() {
    let builder = Builder::new();
    let closed = builder.lease().addr(4, 5080);
    let host = with_names_for_one(builder, "again-unnamed", closed);
    let site = Site::of(&host);
    let caller = site.caller();
    let invite = caller.request("INVITE", BOB);
    site.send(&caller, &invite);
    let failure = caller.first_response("INVITE", 500);
    site.ack_failure(&caller, &invite, &failure);
    let attempts = |result: &str| host.metric("portcullis_attempts_total", &[result]);
    assert_eq!((attempts("unreachable"), attempts("refused")), (1.0, 1.0));
}

/// Trunks of one SBC may share an address.
#[test]
fn a_named_next_hop_may_have_the_address_of_another() {
    for name in ["again-named", "again-with-header"] {
        let builder = Builder::new();
        let callee = Peer::udp(builder.lease().ip(3));
        let host = with_names_for_one(builder, name, callee.local());
        let site = Site::of(&host);
        let caller = site.caller();
        let message = caller.request("MESSAGE", BOB);
        site.send(&caller, &message);
        let first = callee.first_request("MESSAGE");
        callee.answer(&first, 480);
        let second = callee.nth(0, "MESSAGE on another branch", |message| {
            message.first_word() == "MESSAGE" && branch_of(message) != branch_of(&first.message)
        });
        callee.answer(&second, 200);
        caller.first_response("MESSAGE", 200);
    }
}

/// A host whose default next hop and all named ones have this address.
fn with_names_for_one(builder: Builder, name: &str, addr: SocketAddr) -> Host {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("again.wasm");
    std::fs::write(&file, guest(name)).expect("it can be written");
    let uri = format!("\"sip:{addr}\"");
    builder
        .policy(file)
        .set("relay", &format!("next-hop = {uri}"))
        .set(
            "relay.next-hops",
            &format!("trunk = {uri}\ncarrier = {uri}"),
        )
        .start()
}
