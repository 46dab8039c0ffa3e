//! Where requests go, and where they do not: this host is no open relay.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // A panic is how a test fails.

mod edge;

use edge::{CALLER, Edge, NEXT_HOP, headers, request, tcp, udp};
use portcullis_sip::{RelayError, Target, Transport};

fn way(edge: &Edge, uri: &str, lines: &[&str]) -> String {
    edge.way(&request("MESSAGE", uri, lines))
}

#[test]
fn without_a_route_the_request_uri_leads_if_it_may_and_the_next_hop_else() {
    let edge = Edge::new(|routes| {
        for domain in ["gw.example.net:*", "192.0.2.64/28:5070", "[2001:db8:7::1]"] {
            routes.domain(domain).unwrap();
        }
    });
    for (uri, expected) in [
        ("sip:grace@gw.example.net", "UDP 192.0.2.90:5060"),
        (
            "sip:grace@GW.example.net:7000;transport=TCP",
            "TCP 192.0.2.90:7000",
        ),
        ("sip:grace@192.0.2.65:5070", "UDP 192.0.2.65:5070"),
        ("sip:grace@[2001:db8:7::1]", "UDP [2001:db8:7::1]:5060"),
        (
            "sip:grace@192.0.2.80:5080;transport=tcp",
            "TCP 192.0.2.80:5080",
        ),
        (
            "sip:grace@elsewhere.example;maddr=192.0.2.66:5070",
            "UDP 192.0.2.80:5080",
        ),
        (
            "sip:grace@elsewhere.example:5070;maddr=192.0.2.66",
            "UDP 192.0.2.66:5070",
        ),
        (
            "sip:grace@edge.example.com:5070;maddr=192.0.2.66",
            "UDP 192.0.2.66:5070",
        ),
        (
            "sip:grace@edge.example.com;maddr=gw.example.net",
            "UDP 192.0.2.90:5060",
        ),
        // All others go to the next hop, which may know more.
        ("sip:grace@192.0.2.65", "UDP 192.0.2.80:5080"),
        ("sip:grace@elsewhere.example", "UDP 192.0.2.80:5080"),
        (
            "sip:grace@gw.example.net;maddr=203.0.113.9",
            "UDP 192.0.2.80:5080",
        ),
        (
            "sip:grace@elsewhere.example;transport=tls",
            "UDP 192.0.2.80:5080",
        ),
        ("sip:grace@edge.example.com", "UDP 192.0.2.80:5080"),
        ("sip:198.51.100.1:5060", "UDP 192.0.2.80:5080"),
        ("tel:+49-30-123456", "UDP 192.0.2.80:5080"),
    ] {
        assert_eq!(way(&edge, uri, &[]), expected, "{uri}");
    }
}

#[test]
fn a_route_leads_only_where_it_may() {
    let edge = Edge::new(|routes| {
        routes.domain("192.0.2.64/28").unwrap();
        routes.domain("late.example.net").unwrap();
    });
    for (route, expected) in [
        ("<sip:192.0.2.65;lr>", "UDP 192.0.2.65:5060"),
        ("<sip:192.0.2.80:5080;lr>", "UDP 192.0.2.80:5080"),
        (
            "<sip:192.0.2.80;lr>",
            "403 `sip:192.0.2.80;lr` is neither a next hop nor in [relay] domains: add its host there if requests may go to it",
        ),
        (
            "<sip:elsewhere.example;lr>",
            "403 `sip:elsewhere.example;lr` is neither a next hop nor in [relay] domains: add its host there if requests may go to it",
        ),
        (
            "<sip:192.0.2.65;maddr=8.8.8.8;lr>",
            "403 `sip:192.0.2.65;maddr=8.8.8.8;lr` is neither a next hop nor in [relay] domains: add its host there if requests may go to it",
        ),
        (
            "<sip:late.example.net;lr>",
            "503 `sip:late.example.net;lr` has no address: check that the name resolves",
        ),
        (
            "<sip:192.0.2.65;lr;transport=sctp>",
            "400 `sip:192.0.2.65;lr;transport=sctp` names an unsupported transport: use udp, tcp or tls",
        ),
        (
            "<sips:192.0.2.65;lr>",
            "416 `sips:192.0.2.65;lr` cannot be followed: its scheme is not sip, and no next hop accepts it",
        ),
        (
            "<tel:+1;lr>",
            "416 `tel:+1;lr` cannot be followed: its scheme is not sip, and no next hop accepts it",
        ),
        (
            "<sip:192.0.2.65;lr",
            "400 the Route value `<sip:192.0.2.65;lr` is not a name-addr with a SIP URI",
        ),
        (
            "<sip:>",
            "400 the Route value `sip:` is not a name-addr with a SIP URI",
        ),
    ] {
        assert_eq!(
            way(&edge, "sip:grace@192.0.2.66", &[&format!("Route: {route}")]),
            expected,
            "{route}"
        );
    }
}

#[test]
fn without_a_next_hop_nothing_is_guessed() {
    let edge = Edge::with(
        |_| {},
        |routes| {
            routes.domain("192.0.2.64/28").unwrap();
        },
    );
    for (uri, expected) in [
        ("sip:grace@192.0.2.65", "UDP 192.0.2.65:5060"),
        (
            "sip:grace@edge.example.com",
            "404 `sip:grace@edge.example.com` names this host and [relay] next-hop is not set: set it, or let the policy name a next hop",
        ),
    ] {
        assert_eq!(way(&edge, uri, &[]), expected);
    }
    for uri in ["sip:grace@elsewhere.example", "sip:8.8.8.8"] {
        assert!(
            way(&edge, uri, &[]).starts_with(&format!("403 `{uri}` is neither")),
            "{uri}"
        );
    }
    for uri in ["tel:+1", "urn:service:sos"] {
        assert!(
            way(&edge, uri, &[]).starts_with(&format!("416 `{uri}` cannot be followed")),
            "{uri}"
        );
    }
}

#[test]
fn any_scheme_goes_where_a_route_or_the_next_hop_takes_it() {
    let edge = Edge::new(|routes| {
        routes.domain("192.0.2.64/28").unwrap();
    });
    for uri in [
        "tel:+1",
        "urn:service:sos",
        "URN:service:sos.ambulance",
        "pneumatic-tube:9/left",
    ] {
        assert_eq!(way(&edge, uri, &[]), format!("UDP {}", edge::NEXT_HOP));
        let route = ["Route: <sip:192.0.2.65;lr>"];
        assert_eq!(way(&edge, uri, &route), "UDP 192.0.2.65:5060");
        let strict = ["Route: <sip:192.0.2.65>"];
        let (_, sent) = edge
            .relay(&request("INVITE", uri, &strict), &udp(CALLER))
            .unwrap();
        assert_eq!(headers(&sent, "Route"), [format!("<{uri}>")]);
    }
}

#[test]
fn a_named_next_hop_is_taken_whatever_the_request_says() {
    let edge = Edge::new(|routes| {
        routes
            .hop("carrier", "sip:gw.example.net:5090;transport=tcp")
            .unwrap();
        routes.hop("late", "sip:late.example.net").unwrap();
    });
    let text = request("MESSAGE", "sip:g@h", &["Route: <sip:elsewhere.example;lr>"]);
    let to = |name| edge.relay_to(&text, &udp(CALLER), Target::NextHop(name));
    let (destination, sent) = to("carrier").unwrap();
    assert_eq!(
        (destination.transport, destination.addr.to_string()),
        (Transport::Tcp, "192.0.2.90:5090".into())
    );
    assert!(
        sent.contains("\r\nRoute: <sip:elsewhere.example;lr>\r\n"),
        "the next hop has to know the rest of the way"
    );
    assert_eq!(
        to("nobody").unwrap_err(),
        RelayError::UnknownNextHop("nobody".into())
    );
    assert_eq!(to("nobody").unwrap_err().code(), 500);
    assert_eq!(to("late").unwrap_err().code(), 503);
}

#[test]
fn a_next_hop_that_is_this_host_is_a_loop() {
    let edge = Edge::with(
        |_| {},
        |routes| {
            routes.default_hop("sip:198.51.100.1:5060").unwrap();
            routes.hop("other-name", "sip:gw.example.net:5060").unwrap();
        },
    );
    assert!(
        way(&edge, "sip:g@h", &[]).starts_with("482 `sip:198.51.100.1:5060` is this host itself")
    );
    // The same address, but another transport or port, is another server.
    let edge = Edge::with(
        |config| config.locals.truncate(1),
        |routes| {
            routes.default_hop("sip:198.51.100.1:5070").unwrap();
            routes.domain("198.51.100.1").unwrap();
        },
    );
    assert_eq!(way(&edge, "sip:g@h", &[]), "UDP 198.51.100.1:5070");
    assert_eq!(
        way(&edge, "sip:g@198.51.100.1:5060", &[]),
        "UDP 198.51.100.1:5070"
    );
}

#[test]
fn what_no_socket_can_reach_is_said() {
    let edge = Edge::with(
        |config| config.locals.truncate(1),
        |routes| {
            routes.default_hop("sip:192.0.2.80;transport=tcp").unwrap();
            routes.domain("2001:db8::/32").unwrap();
            routes.domain("gw.example.net").unwrap();
            routes.domain("six.example.net").unwrap();
        },
    );
    assert_eq!(
        way(&edge, "sip:g@h", &[]),
        "503 no TCP socket for 192.0.2.80: add an address of this family and transport to `listen`"
    );
    assert!(
        way(&edge, "sip:g@[2001:db8::5]", &[]).starts_with("503 no UDP socket for 2001:db8::5")
    );
    assert!(
        way(&edge, "sip:g@six.example.net", &[]).starts_with("503 no UDP socket for 2001:db8::66")
    );
    // Of several addresses the first that can be reached is taken.
    assert_eq!(
        way(&edge, "sip:g@gw.example.net", &[]),
        "UDP 192.0.2.90:5060"
    );
}

#[test]
fn a_request_within_a_dialog_does_not_go_back_to_its_sender() {
    let edge = Edge::new(|_| {});
    let bye = request(
        "BYE",
        "sip:ada@pc.example",
        &["Route: <sip:198.51.100.1;lr>"],
    )
    .replace("m>\r\nCall", "m>;tag=g\r\nCall");
    let error = edge.relay(&bye, &udp(NEXT_HOP)).unwrap_err();
    assert_eq!(error, RelayError::NotPermitted("sip:ada@pc.example".into()));
    let error = edge.relay(&bye, &tcp("192.0.2.80:33333", 1)).unwrap_err();
    assert_eq!(error.code(), 403);
    // Anyone else's goes to the next hop, and so does what starts a dialog.
    assert_eq!(
        edge.relay(&bye, &udp(CALLER)).unwrap().0.addr.to_string(),
        NEXT_HOP
    );
    let invite = request("INVITE", "sip:ada@pc.example", &[]);
    assert_eq!(
        edge.relay(&invite, &udp(NEXT_HOP))
            .unwrap()
            .0
            .addr
            .to_string(),
        NEXT_HOP
    );
    // A request URI that names this host never was the other end.
    let to_us = bye.replace("sip:ada@pc.example", "sip:198.51.100.1");
    assert_eq!(
        edge.relay(&to_us, &udp(NEXT_HOP))
            .unwrap()
            .0
            .addr
            .to_string(),
        NEXT_HOP
    );
    // So does the ACK to a failure, which has the callee's To-tag.
    let ack = invite
        .replace("INVITE", "ACK")
        .replace("m>\r\nCall", "m>;tag=g\r\nCall");
    assert_eq!(
        edge.relay(&ack, &udp(NEXT_HOP)).unwrap().0.addr.to_string(),
        NEXT_HOP
    );
}
