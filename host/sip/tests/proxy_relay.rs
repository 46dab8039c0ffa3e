//! Requests on their way: the edits that a relay makes.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // A panic is how a test fails.

mod edge;

use edge::{CALLER, Edge, NEXT_HOP, branch, headers, local, request, start_line, tcp, udp};
use portcullis_sip::{RelayError, Target, Transport};

fn edge() -> Edge {
    Edge::new(|_| {})
}

fn relayed(text: &str) -> String {
    edge().relay(text, &udp(CALLER)).unwrap().1
}

/// A request within a dialog that these Routes lead.
fn with_routes(uri: &str, routes: &[&str]) -> String {
    request("BYE", uri, routes).replace(
        "To: <sip:grace@example.com>",
        "To: <sip:grace@example.com>;tag=grace1",
    )
}

#[test]
fn a_relayed_request_has_one_via_more_and_one_hop_less() {
    let text = request(
        "MESSAGE",
        "sip:grace@example.com",
        &["X-Odd :  kept  as it is ", "s: folded\r\n\tvalue"],
    );
    let (to, sent) = edge().relay(&text, &udp(CALLER)).unwrap();
    assert_eq!(
        (to.transport, to.addr.to_string()),
        (Transport::Udp, NEXT_HOP.to_owned())
    );
    assert_eq!(to.from, Some("198.51.100.1:5060".parse().unwrap()));
    let via = headers(&sent, "Via")[0];
    let (sent_by, name) = via.split_once(";branch=z9hG4bK").unwrap();
    assert_eq!(sent_by, "SIP/2.0/UDP 198.51.100.1:5060");
    let (name, mark) = name.split_once(";i=0--").unwrap();
    assert!(
        name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{name}"
    );
    assert_eq!(mark.len(), 8 + 1 + 16, "{mark}");
    let expected = text
        .replacen("Via: ", &format!("Via: {via}\r\nVia: "), 1)
        .replace("Max-Forwards: 70", "Max-Forwards: 69");
    assert_eq!(sent, expected);
}

#[test]
fn the_source_is_noted_in_the_vias_below_ours() {
    let text = request("MESSAGE", "sip:g@h", &[])
        .replace("192.0.2.10:40000;", "pc;rport;received=1.2.3.4;");
    let vias = relayed(&text);
    let vias = headers(&vias, "Via");
    assert_eq!(
        vias[1],
        "SIP/2.0/UDP pc;rport=40000;received=192.0.2.10;branch=z9hG4bKcaller-1"
    );
}

#[test]
fn max_forwards_is_counted_down_or_begun() {
    let text = request("MESSAGE", "sip:g@h", &[]);
    for (from, to, number) in [
        ("Max-Forwards: 70\r\n", "Max-Forwards:   0010  \r\n", "9"),
        ("Max-Forwards: 70\r\n", "MAX-FORWARDS: 1\r\n", "0"),
        ("Max-Forwards: 70\r\n", "", "70"),
        ("Max-Forwards: 70\r\n", "Max-Forwards: 255\r\n", "254"),
        // More than there can be is lowered, as Kamailio's maxfwd does it.
        ("Max-Forwards: 70\r\n", "Max-Forwards: 256\r\n", "70"),
        ("Max-Forwards: 70\r\n", "Max-Forwards: 4294967295\r\n", "70"),
    ] {
        assert_eq!(
            headers(&relayed(&text.replace(from, to)), "Max-Forwards")
                .concat()
                .trim(),
            number,
            "{to}"
        );
    }
    for used_up in ["0", "4294967296", "x", ""] {
        let last = text.replace("Forwards: 70", &format!("Forwards: {used_up}"));
        assert_eq!(
            edge().relay(&last, &udp(CALLER)).unwrap_err(),
            RelayError::TooManyHops
        );
    }
}

#[test]
fn a_request_that_outgrows_a_datagram_goes_over_a_stream_or_nowhere() {
    let with_body = |length: usize| {
        let text = request("MESSAGE", "sip:g@h", &[]);
        let head = text.replace("Length: 0", &format!("Length: {length}"));
        head + &"x".repeat(length)
    };
    let added = relayed(&with_body(0)).len() - with_body(0).len();
    let head = with_body(60_000).len() - 60_000;
    let fits = 65_507 - added - head;
    assert_eq!(relayed(&with_body(fits)).len(), 65_507);
    let large = with_body(fits + 1);
    let error = edge().relay(&large, &udp(CALLER)).unwrap_err();
    assert_eq!(error, RelayError::TooLarge(65_508));
    assert_eq!((error.code(), error.reason()), (513, "Message Too Large"));

    let stream = Edge::with(
        |_| {},
        |routes| {
            let hop = "sip:192.0.2.80;transport=tcp";
            routes.default_hop(hop).unwrap();
        },
    );
    assert!(stream.relay(&large, &udp(CALLER)).is_ok());
}

#[test]
fn retransmission_cancel_and_ack_have_the_branch_of_the_invite() {
    let invite = request("INVITE", "sip:grace@example.com", &[]);
    let (way, sent) = edge().relay(&invite, &udp(CALLER)).unwrap();
    let of = |text: &str| {
        let (to, sent) = edge().relay(text, &udp(CALLER)).unwrap();
        assert_eq!(to, way);
        branch(headers(&sent, "Via")[0]).to_owned()
    };
    let expected = branch(headers(&sent, "Via")[0]);
    assert_eq!(of(&invite), expected);
    assert_eq!(of(&invite.replace("INVITE", "CANCEL")), expected);
    assert_eq!(
        of(&invite
            .replace("INVITE", "ACK")
            .replace("m>\r\nCall", "m>;tag=g\r\nCall")),
        expected
    );
    assert_ne!(of(&invite.replace("caller-1", "caller-2")), expected);
}

#[test]
fn a_cancel_over_another_connection_still_has_the_branch_of_its_invite() {
    let invite = request("INVITE", "sip:grace@example.com", &[]).replace("/UDP ", "/TCP ");
    let via = |text: &str, connection| {
        let (_, sent) = edge()
            .relay(text, &tcp("192.0.2.10:41000", connection))
            .unwrap();
        headers(&sent, "Via")[0].to_owned()
    };
    let first = via(&invite, 1);
    let second = via(&invite.replace("INVITE", "CANCEL"), 2);
    assert_eq!(branch(&first), branch(&second));
    assert_ne!(first, second, "each says which connection it came over");
}

#[test]
fn requests_that_may_start_a_dialog_are_record_routed_once() {
    const OURS: &str = "<sip:198.51.100.1:5060;lr>";
    for (method, count) in [
        ("INVITE", 1),
        ("SUBSCRIBE", 1),
        ("REFER", 1),
        ("NOTIFY", 1),
        ("MESSAGE", 0),
        ("REGISTER", 0),
    ] {
        let text = request(
            method,
            "sip:g@h",
            &["Record-Route: <sip:before.example;lr>"],
        );
        let sent = relayed(&text);
        let routes = headers(&sent, "Record-Route");
        assert_eq!(routes.len(), count + 1, "{method}");
        assert_eq!(routes.last(), Some(&"<sip:before.example;lr>"));
        assert!(count == 0 || without_seal(routes[0]) == OURS, "{routes:?}");
        assert_eq!(routes.concat().matches(";seal=").count(), count);
    }
    let within = request("INVITE", "sip:g@h", &[]).replace("m>\r\nCall", "m>;tag=g\r\nCall");
    assert!(headers(&relayed(&within), "Record-Route").is_empty());
    let silent = Edge::with(
        |config| config.record_route = false,
        |routes| {
            routes.default_hop("sip:192.0.2.80").unwrap();
        },
    );
    let (_, sent) = silent
        .relay(&request("INVITE", "sip:g@h", &[]), &udp(CALLER))
        .unwrap();
    assert!(headers(&sent, "Record-Route").is_empty());
}

#[test]
fn two_sides_get_a_record_route_each_the_leaving_one_on_top() {
    let invite = request("INVITE", "sip:g@h", &[]);
    let edge = Edge::new(|routes| {
        routes.hop("tcp", "sip:192.0.2.81;transport=tcp").unwrap();
        routes.hop("six", "sip:[2001:db8::80]:5080").unwrap();
    });
    const UDP: &str = "<sip:198.51.100.1:5060;lr;r2=on>";
    const TCP: &str = "<sip:198.51.100.1:5060;transport=tcp;lr;r2=on>";
    const SIX: &str = "<sip:[2001:db8::1]:5060;lr;r2=on>";
    for (arrival, hop, expected) in [
        (udp(CALLER), "tcp", [TCP, UDP]),
        (udp(CALLER), "six", [SIX, UDP]),
        (udp("[2001:db8::9]:7000"), "tcp", [TCP, SIX]),
    ] {
        let (_, sent) = edge
            .relay_to(&invite, &arrival, Target::NextHop(hop))
            .unwrap();
        assert_eq!(routes_of(&sent), expected);
    }
    let (to, sent) = edge.relay(&invite, &tcp(CALLER, 3)).unwrap();
    assert_eq!(to.transport, Transport::Udp);
    assert_eq!(routes_of(&sent), [UDP, TCP]);
}

#[test]
fn what_is_advertised_stands_in_via_and_record_route() {
    let edge = Edge::with(
        |config| config.locals[0].advertised = Some(("sip.example.org".into(), 5090)),
        |routes| {
            routes.default_hop("sip:192.0.2.80").unwrap();
        },
    );
    let (to, sent) = edge
        .relay(&request("INVITE", "sip:g@h", &[]), &udp(CALLER))
        .unwrap();
    assert_eq!(to.from, Some("198.51.100.1:5060".parse().unwrap()));
    assert!(headers(&sent, "Via")[0].starts_with("SIP/2.0/UDP sip.example.org:5090;branch="));
    assert_eq!(routes_of(&sent), ["<sip:sip.example.org:5090;lr>"]);
}

#[test]
fn our_own_routes_are_taken_off() {
    const OURS: &str = "<sip:198.51.100.1;lr>";
    const HOP: &str = "<sip:192.0.2.80:5080;lr>";
    const LAST: &str = "<sip:last.example;lr>";
    for (routes, left) in [
        (vec![format!("Route: {OURS}")], vec![]),
        (vec![format!("Route: {HOP}")], vec![HOP.to_owned()]),
        (vec![format!("Route: {OURS}, {HOP}")], vec![HOP.to_owned()]),
        (
            vec![format!("Route: {OURS}"), format!("Route: {HOP},{LAST}")],
            vec![format!("{HOP},{LAST}")],
        ),
        (
            vec![format!("Route: {OURS} , {OURS} ,{HOP}, {LAST}")],
            vec![format!("{HOP}, {LAST}")],
        ),
        // Double Record-Route, by another of our names, on two lines.
        (
            vec![
                "Route: \"a, b\" <sip:edge.example.com;transport=tcp;r2=on;lr>".into(),
                format!("Route: {OURS};x=y, {HOP}"),
            ],
            vec![HOP.to_owned()],
        ),
        // One that comes later is for a later pass.
        (
            vec![format!("Route: {OURS},{HOP},{OURS}")],
            vec![format!("{HOP},{OURS}")],
        ),
    ] {
        let lines: Vec<&str> = routes.iter().map(String::as_str).collect();
        let text = with_routes("sip:grace@192.0.2.80:5080", &lines);
        let (to, sent) = edge().relay(&text, &udp(CALLER)).unwrap();
        assert_eq!(headers(&sent, "Route"), left, "{routes:?}");
        assert_eq!(to.addr.to_string(), NEXT_HOP);
        assert_eq!(start_line(&sent), start_line(&text));
        assert!(sent.ends_with("Content-Length: 0\r\n\r\n"));
    }
}

#[test]
fn a_route_that_leads_back_and_back_again_is_a_loop() {
    let line = format!("Route: {}", ["<sip:198.51.100.1;lr>"; 5].join(", "));
    let error = edge()
        .relay(
            &with_routes("sip:g@192.0.2.80:5080", &[&line]),
            &udp(CALLER),
        )
        .unwrap_err();
    assert_eq!(error.code(), 482);
}

#[test]
fn a_strict_router_behind_us_finds_itself_in_the_request_uri() {
    let edge = Edge::new(|routes| {
        routes.domain("192.0.2.81:*").unwrap();
    });
    let text = with_routes(
        "sip:grace@pc.example",
        &[
            "Route: <sip:198.51.100.1;lr>, <sip:192.0.2.81:5070>",
            "Route: <sip:p2.example;lr>",
        ],
    );
    let (to, sent) = edge.relay(&text, &udp(CALLER)).unwrap();
    assert_eq!(to.addr.to_string(), "192.0.2.81:5070");
    assert_eq!(start_line(&sent), "BYE sip:192.0.2.81:5070 SIP/2.0");
    assert_eq!(
        headers(&sent, "Route"),
        ["<sip:p2.example;lr>", "<sip:grace@pc.example>"]
    );
}

#[test]
fn a_strict_router_before_us_is_undone() {
    // It put our Record-Route value into the request URI and the request URI behind the Routes.
    for (routes, left, to) in [
        (
            vec!["Route: <sip:grace@192.0.2.80:5080;x=y>"],
            vec![],
            NEXT_HOP,
        ),
        (
            vec!["Route: <sip:192.0.2.81;lr>, <sip:grace@pc.example>"],
            vec!["<sip:192.0.2.81;lr>"],
            "192.0.2.81:5060",
        ),
        (
            vec![
                "Route: <sip:192.0.2.81;lr>",
                "Route: <sip:grace@pc.example>",
            ],
            vec!["<sip:192.0.2.81;lr>"],
            "192.0.2.81:5060",
        ),
        (
            vec![
                "Route: <sip:198.51.100.1;transport=tcp;r2=on;lr>, <sip:192.0.2.81;lr>, <sip:grace@pc.example>",
            ],
            vec!["<sip:192.0.2.81;lr>"],
            "192.0.2.81:5060",
        ),
    ] {
        let edge = Edge::new(|routes| {
            routes.domain("192.0.2.81:*").unwrap();
        });
        let text = with_routes("sip:198.51.100.1:5060;lr;r2=on", &routes);
        let (destination, sent) = edge.relay(&text, &udp(CALLER)).unwrap();
        let uri = if to == NEXT_HOP {
            "sip:grace@192.0.2.80:5080;x=y"
        } else {
            "sip:grace@pc.example"
        };
        assert_eq!(
            start_line(&sent),
            format!("BYE {uri} SIP/2.0"),
            "{routes:?}"
        );
        assert_eq!(headers(&sent, "Route"), left);
        assert_eq!(destination.addr.to_string(), to);
    }
}

#[test]
fn a_request_uri_from_a_route_obeys_the_rules_for_one_that_is_received() {
    let edge = Edge::new(|routes| {
        routes.domain("192.0.2.0/24").unwrap();
        routes.hop("pstn", "sip:192.0.2.81").unwrap();
    });
    let strict_before = "sip:198.51.100.1;lr";
    let other = "sip:grace@example.com";
    for (uri, route, code) in [
        (strict_before, "Route: <sips:grace@192.0.2.44>", 416),
        (
            strict_before,
            "Route: <sip:grace@192.0.2.44?Subject=x>",
            400,
        ),
        (other, "Route: <sip:192.0.2.9?Subject=x>", 400),
        (other, "Route: <sips:192.0.2.9>", 416),
    ] {
        let text = with_routes(uri, &[route]);
        let refused = edge.relay(&text, &udp(CALLER)).unwrap_err();
        assert_eq!(refused.code(), code, "{route}: {refused}");
    }
    let text = with_routes(strict_before, &["Route: <sips:grace@192.0.2.44>"]);
    let refused = edge.relay_to(&text, &udp(CALLER), Target::NextHop("pstn"));
    assert_eq!(refused.unwrap_err().code(), 416);
    let tel = with_routes(strict_before, &["Route: <tel:+15551234567>"]);
    let (_, sent) = edge
        .relay_to(&tel, &udp(CALLER), Target::NextHop("pstn"))
        .unwrap();
    assert_eq!(start_line(&sent), "BYE tel:+15551234567 SIP/2.0");
}

#[test]
fn a_request_uri_that_just_means_us_is_no_strict_route() {
    for uri in ["sip:198.51.100.1", "sip:grace@198.51.100.1;lr"] {
        let text = with_routes(uri, &["Route: <sip:192.0.2.80:5080;lr>"]);
        let sent = relayed(&text);
        assert_eq!(start_line(&sent), start_line(&text));
        assert_eq!(headers(&sent, "Route"), ["<sip:192.0.2.80:5080;lr>"]);
    }
}

#[test]
fn a_strict_route_on_both_sides_passes_through_us_unchanged() {
    let edge = Edge::new(|routes| {
        routes.domain("192.0.2.81:*").unwrap();
    });
    let text = with_routes(
        "sip:198.51.100.1;lr",
        &["Route: <sip:192.0.2.81>, <sip:p2.example;lr>, <sip:grace@pc.example>"],
    );
    let (to, sent) = edge.relay(&text, &udp(CALLER)).unwrap();
    assert_eq!(to.addr.to_string(), "192.0.2.81:5060");
    assert_eq!(start_line(&sent), "BYE sip:192.0.2.81 SIP/2.0");
    assert_eq!(
        headers(&sent, "Route"),
        ["<sip:p2.example;lr>", "<sip:grace@pc.example>"]
    );
}

#[test]
fn an_maddr_of_ours_has_done_its_work() {
    let text = request(
        "MESSAGE",
        "sip:grace@192.0.2.80:5080;maddr=198.51.100.1;x=y",
        &[],
    );
    // The port is the one that the request came to, the default one, as far as `maddr` goes: it is not ours.
    assert_eq!(start_line(&relayed(&text)), start_line(&text));
    let text = request(
        "MESSAGE",
        "sip:grace@h.example:5060;transport=udp;maddr=198.51.100.1;x=y",
        &[],
    );
    assert_eq!(
        start_line(&relayed(&text)),
        "MESSAGE sip:grace@h.example;x=y SIP/2.0"
    );
    // It did not come over TCP.
    let text = request(
        "MESSAGE",
        "sip:grace@h.example;transport=tcp;maddr=198.51.100.1",
        &[],
    );
    assert_eq!(start_line(&relayed(&text)), start_line(&text));
}

#[test]
fn a_stream_gets_the_length_that_a_datagram_did_without() {
    let edge = Edge::new(|routes| {
        routes.hop("tcp", "sip:192.0.2.81;transport=tcp").unwrap();
    });
    let text = request("MESSAGE", "sip:g@h", &[]).replace("Content-Length: 0\r\n\r\n", "\r\nfive!");
    let (to, sent) = edge
        .relay_to(&text, &udp(CALLER), Target::NextHop("tcp"))
        .unwrap();
    assert_eq!(to.transport, Transport::Tcp);
    assert!(
        sent.ends_with("\r\nContent-Length: 5\r\n\r\nfive!"),
        "{sent}"
    );
    let (_, sent) = edge.relay(&text, &udp(CALLER)).unwrap();
    assert!(headers(&sent, "Content-Length").is_empty());
    let (_, sent) = edge
        .relay_to(
            &request("MESSAGE", "sip:g@h", &[]),
            &udp(CALLER),
            Target::NextHop("tcp"),
        )
        .unwrap();
    assert_eq!(headers(&sent, "Content-Length"), ["0"]);
}

#[test]
fn what_follows_the_body_of_a_datagram_stays_behind() {
    let text = request("MESSAGE", "sip:g@h", &[]).replace(
        "Content-Length: 0\r\n\r\n",
        "l: 4\r\n\r\nbodyINVITE rubbish",
    );
    assert!(relayed(&text).ends_with("l: 4\r\n\r\nbody"));
}

#[test]
fn a_message_of_bare_line_feeds_gets_bare_line_feeds() {
    let text = request("INVITE", "sip:g@h", &[])
        .replace("Max-Forwards: 70\r\n", "")
        .replace("\r\n", "\n");
    let sent = relayed(&text);
    assert!(!sent.contains('\r'), "{sent}");
    assert_eq!(sent.matches("\nVia: ").count(), 2);
    assert_eq!(sent.matches("\nMax-Forwards: 70\n").count(), 1);
}

#[test]
fn a_response_is_no_request_to_relay() {
    let text =
        request("INVITE", "sip:g@h", &[]).replace("INVITE sip:g@h SIP/2.0", "SIP/2.0 200 OK");
    assert_eq!(
        edge().relay(&text, &udp(CALLER)).unwrap_err(),
        RelayError::Unrelayable
    );
}

#[test]
fn the_socket_of_the_arrival_is_preferred() {
    let edge = Edge::with(
        |config| {
            config
                .locals
                .insert(0, local(Transport::Udp, "198.51.100.9:5062"));
        },
        |routes| {
            routes.default_hop("sip:192.0.2.80").unwrap();
        },
    );
    let mut arrival = udp(CALLER);
    let from = |arrival| {
        edge.relay(&request("MESSAGE", "sip:g@h", &[]), &arrival)
            .unwrap()
            .0
            .from
            .unwrap()
            .to_string()
    };
    assert_eq!(from(arrival), "198.51.100.1:5060");
    arrival.local = "198.51.100.9:5062".parse().unwrap();
    assert_eq!(from(arrival), "198.51.100.9:5062");
}

/// The Record-Route values without what says nothing about the way.
fn routes_of(sent: &str) -> Vec<String> {
    let routes = headers(sent, "Record-Route");
    routes.into_iter().map(without_seal).collect()
}

fn without_seal(route: &str) -> String {
    let Some((before, rest)) = route.split_once(";seal=") else {
        return route.to_owned();
    };
    let end = rest.find([';', '>']).unwrap();
    format!("{before}{}", &rest[end..])
}
