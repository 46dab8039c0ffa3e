//! Connections, and several workers.

use std::net::{Ipv6Addr, SocketAddr};

use portcullis_testkit::host::Builder;
use portcullis_testkit::lease::free_port_v6;
use portcullis_testkit::messages::Transport::{Tcp, Udp};
use portcullis_testkit::sip::Caller;
use portcullis_testkit::{policy, wait};

use crate::call::Call;
use crate::site::{Scenario, Site, at_once, builder, wait_until_idle};
use crate::{cancelling, inviting};

/// 30: scenarios with each combination of transports, with four workers.
#[test]
fn four_workers_lose_nothing_between_transports() {
    let host = builder(Builder::new().workers(4)).start();
    let scenarios: &[(&str, Scenario)] = &[
        ("lost_ack", inviting::lost_ack),
        ("unavailable", inviting::unavailable),
        ("crosses_200", cancelling::crosses_200),
        ("after_200", cancelling::after_200),
        ("cancelled", cancelling::cancelled),
    ];
    for (up, down) in [(Udp, Tcp), (Tcp, Udp), (Tcp, Tcp), (Udp, Udp)] {
        let site = Site::of(&host).over(up, down);
        for _ in 0..4 {
            let summaries = at_once(&site, scenarios);
            let finals: Vec<_> = summaries.iter().map(|s| s.finals[0]).collect();
            assert_eq!(finals, [200, 500, 200, 200, 487], "{up} to {down}");
        }
    }
    wait_until_idle(&host);
    assert!(host.metric("portcullis_handovers_total", &["result=\"taken\""]) > 0.0);
    assert_eq!(
        host.metric("portcullis_handovers_total", &["result=\"full\""]),
        0.0
    );
    assert_eq!(host.metric("portcullis_dropped_total", &[]), 0.0);
}

#[test]
fn transactions_work_over_ipv6() {
    let ip = Ipv6Addr::LOCALHOST.into();
    let proxy = SocketAddr::new(ip, free_port_v6());
    let host = Builder::new()
        .workers(2)
        .policy(policy("observe"))
        .listen(&format!("udp:{proxy}"))
        .listen(&format!("tcp:{proxy}"))
        .set("relay", "domains = [\"[::1]:*\"]")
        .start();
    let scenarios: &[(&str, Scenario)] = &[
        ("lost_ack", inviting::lost_ack),
        ("unavailable", inviting::unavailable),
        ("cancelled", cancelling::cancelled),
    ];
    for (up, down) in [(Udp, Udp), (Udp, Tcp), (Tcp, Udp), (Tcp, Tcp)] {
        let site = Site::of(&host).at(proxy, ip).over(up, down);
        let summaries = at_once(&site, scenarios);
        let finals: Vec<_> = summaries.iter().map(|s| s.finals[0]).collect();
        assert_eq!(finals, [200, 500, 487], "{up} to {down}");
    }
    wait_until_idle(&host);
}

/// 23: the caller's connection ends before the answer comes.
#[test]
fn a_final_answer_finds_its_way_without_the_connection() {
    let (host, site) = Site::host();
    let site = site.over(Tcp, Udp);
    let (call, callee) = Call::start(site);
    let seen = call.arrives_at(&callee);
    call.is_tried();
    call.caller.hang_up();
    wait_until_no_connection_is_open(&host);
    // To the address in Via, on a new connection (RFC 3261 §18.2.2).
    let ok = call.is_answered_by(&callee, &seen);
    call.is_confirmed_to(&callee, &ok);
    wait_until_idle(&host);
}

/// 23: the caller does not listen.
#[test]
fn an_answer_that_cannot_be_delivered_leaves_nothing_behind() {
    let (host, site) = Site::host();
    let callee = site.callee();
    let mut caller = Caller::tcp(host.lease().ip(10), host.sip());
    let invite = caller.request("INVITE", &callee.uri());
    caller.send(&invite.bytes());
    let seen = callee.first_request("INVITE");
    drop(caller);
    wait_until_no_connection_is_open(&host);
    callee.answer(&seen, 486);
    callee.first_request("ACK");
    wait_until_idle(&host);
}

fn wait_until_no_connection_is_open(host: &portcullis_testkit::host::Host) {
    wait::until("the connection is gone", || {
        (host.metric("portcullis_connections_open", &[]) == 0.0).then_some(())
    });
}
