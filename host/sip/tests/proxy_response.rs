//! Responses on their way back by Via.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // A panic is how a test fails.

mod edge;

use edge::{CALLER, Edge, NEXT_HOP, headers, local, request, response, start_line, tcp, udp};
use portcullis_sip::{
    Arrival, ConnectionId, Destination, DropReason, Limits, Received, Target, Transport,
};

fn edge() -> Edge {
    Edge::new(|routes| {
        routes.hop("tcp", "sip:192.0.2.81;transport=tcp").unwrap();
        routes.hop("six", "sip:[2001:db8::80]").unwrap();
    })
}

/// Relays a request and gives what the next hop sees.
fn sent(edge: &Edge, text: &str, arrival: &Arrival) -> String {
    edge.relay(text, arrival).unwrap().1
}

fn invite() -> String {
    request("INVITE", "sip:grace@example.com", &[])
}

fn back(edge: &Edge, text: &str) -> Destination {
    match edge.receive(text, &udp(NEXT_HOP)) {
        (Received::Forward(to), _) => to,
        (other, _) => panic!("{other:?}, not forwarded: {text}"),
    }
}

fn dropped(edge: &Edge, text: &str) -> DropReason {
    match edge.receive(text, &udp(NEXT_HOP)) {
        (Received::Drop(reason), out) if out.is_empty() => reason,
        (other, out) => panic!("{other:?}, not dropped: {out}"),
    }
}

/// An INVITE with so many Vias below that of the caller, each a line of so many bytes.
fn invite_over(vias: usize, bytes: usize) -> String {
    let line = |n: usize| format!("Via: SIP/2.0/UDP 192.0.2.9:{n:05};branch=z9hG4bK");
    let line = |n: usize| format!("{:a<1$}", line(n), bytes - 2);
    let vias: Vec<_> = (0..vias).map(line).collect();
    let vias: Vec<_> = vias.iter().map(String::as_str).collect();
    request("INVITE", "sip:grace@example.com", &vias)
}

#[test]
fn a_response_to_an_accepted_request_stays_within_the_limits() {
    let edge = edge();
    let limits = Limits::default();
    // Of 256 lines, 192 may be Vias, of which the caller has one; of 65,535 bytes, three quarters.
    for (vias, bytes) in [(191, 60), (6, 7_900)] {
        let text = invite_over(vias, bytes);
        assert_eq!(edge.receive(&text, &udp(CALLER)).0, Received::Judge);
        let sent = sent(&edge, &text, &udp(CALLER));
        let own = headers(&sent, "Record-Route").len();
        let lines = "Supported: what a callee adds\r\n".repeat(50);
        let routes = format!("Record-Route: {}\r\n", "a".repeat(200)).repeat(own);
        let ok = response(200, &sent).replace("Call-ID", &format!("{lines}{routes}Call-ID"));
        assert!(ok.len() < limits.message_bytes);
        assert_eq!(back(&edge, &ok).addr, CALLER.parse().unwrap());
        let (_, ours) = edge
            .reject(&text, &udp(CALLER), 401, "Address not authorised", &[])
            .unwrap();
        assert_eq!(headers(&ours, "Via").len(), vias + 1);
        assert!(ours.len() < 65_535 - 28, "it fits into a datagram");
    }
    for (vias, bytes) in [(192, 60), (7, 7_900)] {
        let refused = edge.answer(&invite_over(vias, bytes), &udp(CALLER));
        assert_eq!(start_line(&refused), "SIP/2.0 513 Too Many Headers");
        assert_eq!(headers(&refused, "Via").len(), vias + 1);
    }
    // Record-Routes count as well, and other header fields do not.
    let many = |line: &'static str| request("INVITE", "sip:grace@example.com", &vec![line; 200]);
    let refused = edge.answer(&many("Record-Route: <sip:p;lr>"), &udp(CALLER));
    assert_eq!(start_line(&refused), "SIP/2.0 513 Too Many Headers");
    let routed = edge.receive(&many("Subject: x"), &udp(CALLER)).0;
    assert_eq!(routed, Received::Judge);
}

#[test]
fn a_response_loses_our_via_and_nothing_else() {
    let edge = edge();
    let request = sent(&edge, &invite(), &udp(CALLER));
    let ours = format!("Via: {}\r\n", headers(&request, "Via")[0]);
    for code in [100, 180, 200, 404, 699] {
        let text = response(code, &request);
        let (received, out) = edge.receive(&text, &udp(NEXT_HOP));
        let expected = Destination {
            is_flow: false,
            transport: Transport::Udp,
            addr: CALLER.parse().unwrap(),
            from: Some("198.51.100.1:5060".parse().unwrap()),
            connection: None,
            name: None,
        };
        assert_eq!(received, Received::Forward(expected));
        assert_eq!(out, text.replacen(&ours, "", 1));
    }
}

#[test]
fn a_response_without_content_length_gets_one_on_a_stream() {
    let edge = edge();
    for line_end in ["\r\n", "\n"] {
        for (arrival, added) in [(udp(CALLER), ""), (tcp(CALLER, 3), "Content-Length: 5\r\n")] {
            let text = response(200, &sent(&edge, &invite(), &arrival));
            let text = text.replace("Content-Length: 0\r\n\r\n", "\r\nhello");
            let ours = format!("Via: {}\r\n", headers(&text, "Via")[0]);
            let (received, out) = edge.receive(&text.replace("\r\n", line_end), &udp(NEXT_HOP));
            assert!(matches!(received, Received::Forward(_)), "{received:?}");
            let expected = text
                .replacen(&ours, "", 1)
                .replace("\r\n\r\n", &format!("\r\n{added}\r\n"));
            assert_eq!(out, expected.replace("\r\n", line_end));
        }
    }
}

#[test]
fn vias_may_share_a_line() {
    let edge = edge();
    let text = response(200, &sent(&edge, &invite(), &udp(CALLER)));
    for between in [",", " , ", ",\r\n\t"] {
        let joined = text.replacen(
            "\r\nVia: SIP/2.0/UDP 192",
            &format!("{between}SIP/2.0/UDP 192"),
            1,
        );
        assert_ne!(joined, text);
        let (received, out) = edge.receive(&joined, &udp(NEXT_HOP));
        assert!(matches!(received, Received::Forward(to) if to.addr.to_string() == CALLER));
        assert_eq!(
            headers(&out, "Via"),
            ["SIP/2.0/UDP 192.0.2.10:40000;branch=z9hG4bKcaller-1"]
        );
        assert_eq!(out.lines().count(), text.lines().count() - 1);
    }
}

/// Values of Via at the limits of a request, which the host lengthens further: the responses are not dropped.
#[test]
fn the_response_to_the_longest_vias_is_forwarded() {
    let edge = edge();
    let six = "[2001:db8:1111:2222:3333:4444:5555:6666]:54321";
    let via = |rest: String| format!("SIP/2.0/UDP pc:5070;rport;branch=z9hG4bK1{rest}");
    let long = |length: usize| {
        via(format!(
            ";x={}",
            "y".repeat(length - via(";x=".into()).len())
        ))
    };
    let most = via(";y".repeat(62));
    let line = |value: String| {
        let others = ",SIP/2.0/UDP b;branch=z9hG4bK2".repeat(300);
        let length = 8_192 - "Via: \r\n".len();
        let mut line = format!("{value}{others}");
        line.truncate(line[..length].rfind(',').unwrap());
        let left = length - line.len();
        line + &"c".repeat(left)
    };
    for via in [long(1_023), long(1_024), most, line(long(100))] {
        for source in [CALLER, six] {
            let invite =
                invite().replace("SIP/2.0/UDP 192.0.2.10:40000;branch=z9hG4bKcaller-1", &via);
            let (received, _) = edge.receive(&invite, &udp(source));
            assert_eq!(received, Received::Judge, "{via}");
            let to = back(&edge, &response(200, &sent(&edge, &invite, &udp(source))));
            assert_eq!(to.addr, source.parse().unwrap());
        }
    }
    for via in [long(1_025), via(";y".repeat(63))] {
        let invite = invite().replace("SIP/2.0/UDP 192.0.2.10:40000;branch=z9hG4bKcaller-1", &via);
        let reply = edge.answer(&invite, &udp(CALLER));
        assert!(reply.starts_with("SIP/2.0 400 Bad Via\r\n"), "{reply}");
    }
}

/// The next hop adds `received` and `rport` to our Via, and later requests name our Record-Route in Route.
#[test]
fn the_values_of_a_host_with_the_longest_name_are_recognised() {
    let name = vec!["a".repeat(63); 4].join(".");
    let advertised = Some((name.clone(), 65_535));
    let edge = Edge::with(
        |config| config.locals[0].advertised = advertised,
        |routes| {
            routes.default_hop(&format!("sip:{NEXT_HOP}")).unwrap();
        },
    );
    let sent = sent(&edge, &invite(), &udp(CALLER));
    assert!(headers(&sent, "Via")[0].contains(&name));
    let noted = ";received=2001:db8:1111:2222:3333:4444:5555:6666;rport=54321\r\n";
    let ours = headers(&sent, "Via")[0];
    let text = response(200, &sent).replacen(&format!("{ours}\r\n"), &format!("{ours}{noted}"), 1);
    assert_eq!(back(&edge, &text).addr, CALLER.parse().unwrap());

    let route = format!("Route: {}", headers(&sent, "Record-Route")[0]);
    let bye = request("BYE", &format!("sip:grace@{NEXT_HOP}"), &[&route]);
    let (to, sent) = edge.relay(&bye, &udp(CALLER)).unwrap();
    assert_eq!(to.addr, NEXT_HOP.parse().unwrap());
    assert!(headers(&sent, "Route").is_empty());
}

/// Where the response to a request with this Via goes.
fn back_to(edge: &Edge, via: &str, arrival: &Arrival) -> Destination {
    let invite = invite().replace("SIP/2.0/UDP 192.0.2.10:40000;branch=z9hG4bKcaller-1", via);
    back(edge, &response(200, &sent(edge, &invite, arrival)))
}

#[test]
fn a_response_goes_where_its_request_came_from() {
    let edge = edge();
    for (via, source, to) in [
        ("SIP/2.0/UDP 192.0.2.10:40000;branch=z9", CALLER, CALLER),
        ("SIP/2.0/UDP 192.0.2.10", CALLER, "192.0.2.10:5060"),
        ("SIP/2.0/UDP pc:5070", CALLER, "192.0.2.10:5070"),
        ("SIP/2.0/UDP pc:5070;rport", CALLER, CALLER),
        (
            "SIP/2.0/UDP pc:5070;received=192.0.2.11;rport=4444",
            CALLER,
            CALLER,
        ),
        (
            "SIP/2.0/UDP pc:5070;received=192.0.2.11",
            CALLER,
            "192.0.2.10:5070",
        ),
        (
            "SIP/2.0/UDP 10.0.0.1:5070;received=nonsense",
            CALLER,
            "192.0.2.10:5070",
        ),
        (
            "SIP/2.0/UDP pc;maddr=many.example",
            CALLER,
            "192.0.2.10:5060",
        ),
        (
            "SIP/2.0/UDP [2001:db8::12];rport=7",
            "[2001:db8::11]:9",
            "[2001:db8::11]:9",
        ),
        (
            "SIP/2.0/UDP [2001:db8::11]:9",
            "[2001:db8::11]:7",
            "[2001:db8::11]:9",
        ),
        ("SIP/2.0/UDP [::ffff:192.0.2.10]:9", CALLER, "192.0.2.10:9"),
        // A datagram is answered by a datagram, whatever its Via says.
        ("SIP/2.0/TCP 192.0.2.10:5070", CALLER, "192.0.2.10:5070"),
        ("SIP/2.0/TLS 192.0.2.10:5061", CALLER, "192.0.2.10:5061"),
    ] {
        let back = back_to(&edge, via, &udp(source));
        assert_eq!(back.transport, Transport::Udp, "{via}");
        assert_eq!(back.addr.to_string(), to, "{via}");
    }
}

#[test]
fn maddr_is_followed_only_where_requests_may_go() {
    let edge = Edge::new(|routes| {
        routes.domain("192.0.2.12").unwrap();
    });
    for (via, to) in [
        ("SIP/2.0/UDP pc;maddr=192.0.2.12;rport", "192.0.2.12:5060"),
        ("SIP/2.0/UDP pc:5061;maddr=192.0.2.12", "192.0.2.12:5061"),
        // A port that requests may not go to; a third party; everybody.
        ("SIP/2.0/UDP pc:5070;maddr=192.0.2.12;rport", CALLER),
        ("SIP/2.0/UDP pc;maddr=192.0.2.13;rport", CALLER),
        ("SIP/2.0/UDP pc;maddr=127.0.0.1;rport", CALLER),
        ("SIP/2.0/UDP pc;maddr=239.255.255.1;rport", CALLER),
        ("SIP/2.0/UDP pc;maddr=255.255.255.255;rport", CALLER),
        // Where the request came from.
        ("SIP/2.0/UDP pc:40000;maddr=192.0.2.10", CALLER),
    ] {
        assert_eq!(
            back_to(&edge, via, &udp(CALLER)).addr.to_string(),
            to,
            "{via}"
        );
    }
    let to = back_to(
        &edge,
        "SIP/2.0/TCP pc:5070;maddr=192.0.2.12",
        &tcp(CALLER, 3),
    );
    assert_eq!(
        to.addr.to_string(),
        "192.0.2.10:5070",
        "a stream is its own way"
    );
}

#[test]
fn a_branch_that_was_seen_leads_nowhere_else() {
    let edge = Edge::new(|routes| {
        routes.domain("192.0.2.12:*").unwrap();
    });
    for (own, arrival) in [
        (
            "SIP/2.0/UDP 192.0.2.10:40000;branch=z9hG4bKcaller-1",
            udp(CALLER),
        ),
        ("SIP/2.0/UDP pc;rport;branch=z9hG4bKcaller-1", udp(CALLER)),
        (
            "SIP/2.0/TCP 192.0.2.10:40000;branch=z9hG4bKcaller-1",
            tcp(CALLER, 9),
        ),
    ] {
        let invite = invite().replace("SIP/2.0/UDP 192.0.2.10:40000;branch=z9hG4bKcaller-1", own);
        let text = response(200, &sent(&edge, &invite, &arrival));
        let own = headers(&text, "Via")[1];
        assert!(matches!(
            edge.receive(&text, &udp(NEXT_HOP)).0,
            Received::Forward(_)
        ));
        for via in [
            "SIP/2.0/UDP 192.0.2.99:5060",
            "SIP/2.0/UDP x;received=192.0.2.99;rport=40000",
            "SIP/2.0/UDP x:5060;maddr=192.0.2.99",
            "SIP/2.0/UDP 192.0.2.12:6379",
            "SIP/2.0/UDP x;maddr=192.0.2.12",
            "SIP/2.0/TCP 192.0.2.99:6379",
            "SIP/2.0/TCP 192.0.2.12:5060",
            "SIP/2.0/UDP 127.0.0.1:5060",
            "SIP/2.0/UDP 192.0.2.10:40001",
            "SIP/2.0/UDP 192.0.2.10:40000;rport=40001",
            "SIP/2.0/UDP 192.0.2.10:40000;received=192.0.2.99",
            "SIP/2.0/UDP 198.51.100.1:5060",
            "SIP/2.0/UDP [2001:db8::1]:40000",
        ] {
            // A stream is the way, whatever rport says.
            if arrival.connection.is_some() && via.contains("rport=40001") {
                continue;
            }
            let turned = text.replace(own, via);
            let reason = dropped(&edge, &turned);
            let ends = [DropReason::TurnedResponse, DropReason::NoWayBack];
            assert!(ends.contains(&reason), "{own} -> {via}: {reason}");
        }
    }
}

#[test]
fn a_seal_is_one_of_a_transaction() {
    let edge = edge();
    let text = |branch: &str, source: &str| {
        let invite = invite()
            .replace("192.0.2.10:40000", source)
            .replace("caller-1", branch);
        response(200, &sent(&edge, &invite, &udp(source)))
    };
    let mark = |text: &str| {
        let (_, mark) = headers(text, "Via")[0].split_once(";i=").unwrap();
        mark.to_owned()
    };
    let (one, other) = (text("a", CALLER), text("b", "192.0.2.66:40000"));
    // A branch, and the way back of another request: neither the one nor the other.
    let mixed = one.replace(&mark(&one), &mark(&other));
    assert_eq!(dropped(&edge, &mixed), DropReason::TurnedResponse);
    let turned = mixed.replace("192.0.2.10:40000", "192.0.2.66:40000");
    assert_eq!(dropped(&edge, &turned), DropReason::TurnedResponse);
    let bare = one.replace(&format!(";i={}", mark(&one)), "");
    assert_eq!(dropped(&edge, &bare), DropReason::TurnedResponse);
}

#[test]
fn a_response_may_take_a_day_and_no_longer() {
    const BEGUN: u64 = 1_800_000_000;
    const DAY: u64 = 24 * 60 * 60;
    let edge = edge();
    edge.proxy.set_time(BEGUN);
    let text = response(200, &sent(&edge, &invite(), &udp(CALLER)));
    for (seconds, comes) in [
        (BEGUN, true),
        (BEGUN + 240, true),
        (BEGUN + DAY, true),
        (BEGUN + DAY + 120, false),
        // A clock that was put back, or another host whose clock is behind.
        (BEGUN - 3_600, true),
    ] {
        edge.proxy.set_time(seconds);
        match edge.receive(&text, &udp(NEXT_HOP)).0 {
            Received::Forward(_) => assert!(comes, "{seconds}"),
            other => {
                assert_eq!(other, Received::Drop(DropReason::LateResponse));
                assert!(!comes, "{seconds}");
            }
        }
    }
}

#[test]
fn another_process_with_the_key_knows_the_way_back() {
    let text = response(200, &sent(&edge(), &invite(), &udp(CALLER)));
    assert_eq!(back(&edge(), &text).addr.to_string(), CALLER);
    let changed = Edge::with(
        |config| {
            config.key = [3; 16];
            config.earlier_keys = vec![[0x5a; 16]];
        },
        |_| {},
    );
    assert_eq!(back(&changed, &text).addr.to_string(), CALLER);
}

#[test]
fn a_via_that_leads_nowhere_ends_the_way() {
    let edge = edge();
    let text = response(200, &sent(&edge, &invite(), &udp(CALLER)));
    for via in [
        "SIP/2.0/UDP pc",
        "SIP/2.0/TCP pc;branch=1",
        "SIP/2.0/UDP 255.255.255.255",
        "SIP/2.0/UDP 0.0.0.0",
        "SIP/2.0/UDP [::]",
        "SIP/2.0/UDP 224.0.1.75",
        "SIP/2.0/UDP pc;received=ff02::1",
        "SIP/2.0/UDP pc;maddr=239.255.255.1",
    ] {
        let text = text.replace("SIP/2.0/UDP 192.0.2.10:40000;branch=z9hG4bKcaller-1", via);
        assert_eq!(dropped(&edge, &text), DropReason::NoWayBack, "{via}");
    }
    // A request that says that it came from this host.
    let looped = invite().replace("192.0.2.10:40000", "198.51.100.1:5060");
    let text = response(200, &sent(&edge, &looped, &udp("198.51.100.1:5060")));
    assert_eq!(dropped(&edge, &text), DropReason::NoWayBack);
}

#[test]
fn what_was_not_asked_for_is_dropped() {
    let edge = edge();
    let text = response(200, &sent(&edge, &invite(), &udp(CALLER)));
    let foreign = text.replacen("198.51.100.1:5060", "198.51.100.1:5061", 1);
    assert_eq!(dropped(&edge, &foreign), DropReason::ForeignResponse);
    let foreign = text.replacen("SIP/2.0/UDP 198", "SIP/2.0/TLS 198", 1);
    assert_eq!(dropped(&edge, &foreign), DropReason::ForeignResponse);

    let via = headers(&text, "Via")[0];
    let ours = edge::branch(via);
    let mut turned = ours.to_owned();
    let last = turned.pop().unwrap();
    turned.push(if last == '0' { '1' } else { '0' });
    for forged in [
        "z9hG4bKforged",
        "1",
        "z9hG4bK",
        &turned,
        &format!("{ours}00"),
        &ours.replace("bK", "bk0"),
    ] {
        let text = text.replacen(ours, forged, 1);
        assert_eq!(
            dropped(&edge, &text),
            DropReason::ForgedResponse,
            "{forged}"
        );
    }
    let other_key = Edge::with(|config| config.key = [3; 16], |_| {});
    assert_eq!(dropped(&other_key, &text), DropReason::ForgedResponse);

    let alone = text.replace(
        "Via: SIP/2.0/UDP 192.0.2.10:40000;branch=z9hG4bKcaller-1\r\n",
        "",
    );
    assert_eq!(dropped(&edge, &alone), DropReason::ResponseToUs);
}

#[test]
fn what_can_not_be_read_is_dropped() {
    let edge = edge();
    let text = response(200, &sent(&edge, &invite(), &udp(CALLER)));
    for (from, to) in [
        ("SIP/2.0 200", "SIP/2.0 2000"),
        ("SIP/2.0 200", "SIP/2.0 099"),
        ("SIP/2.0 200", "SIP/3.0 200"),
        ("CSeq: 7", "CSeq: 99999999999"),
        ("Content-Length: 0", "Content-Length: 9"),
        ("Via: SIP/2.0/UDP 198", "Via: SIP/2.0/UDP @198"),
        ("Via: SIP/2.0/UDP 192", "Via: SIP/2.0/UDP @192"),
        ("Via", "X-Via"),
    ] {
        let text = text.replace(from, to);
        assert_eq!(dropped(&edge, &text), DropReason::BadResponse, "{to}");
    }
}

#[test]
fn a_stream_is_found_again_by_its_number() {
    let edge = edge();
    let invite = invite().replace("/UDP 192.0.2.10:40000", "/TCP pc.example:5070");
    let text = response(200, &sent(&edge, &invite, &tcp(CALLER, u64::MAX - 1)));
    let to = back(&edge, &text);
    assert_eq!(
        (to.transport, to.connection),
        (Transport::Tcp, Some(ConnectionId(u64::MAX - 1)))
    );
    assert_eq!(
        to.addr.to_string(),
        "192.0.2.10:5070",
        "where to open another one"
    );
    assert_eq!(to.from, Some("198.51.100.1:5060".parse().unwrap()));

    // A number that we did not write leads to no one's connection.
    let (before, after) = text.split_once(";i=").unwrap();
    let (mark, rest) = after.split_once("\r\n").unwrap();
    let (socket, more) = mark.split_once('-').unwrap();
    let (connection, more) = more.split_once('-').unwrap();
    let (minute, seal) = more.split_once('-').unwrap();
    assert_eq!((connection.len(), minute.len(), seal.len()), (16, 8, 16));
    for forged in [
        format!("{socket}-0000000000000001-{minute}-{seal}"),
        format!("{socket}--{minute}-{seal}"),
        format!("9-{connection}-{minute}-{seal}"),
        format!("{socket}-{connection}-00000001-{seal}"),
        format!("{socket}-{connection}-{minute}"),
        format!("{mark}-{seal}"),
        String::new(),
    ] {
        let text = format!("{before};i={forged}\r\n{rest}");
        assert_eq!(
            dropped(&edge, &text),
            DropReason::TurnedResponse,
            "{forged}"
        );
    }
    // Nor does a number from another transaction.
    let other = response(
        200,
        &sent(
            &edge,
            &invite.replace("caller-1", "caller-2"),
            &tcp(CALLER, 5),
        ),
    );
    let other_mark = other
        .split_once(";i=")
        .unwrap()
        .1
        .split_once("\r\n")
        .unwrap()
        .0;
    let mixed = format!("{before};i={other_mark}\r\n{rest}");
    assert_eq!(dropped(&edge, &mixed), DropReason::TurnedResponse);
}

#[test]
fn a_stream_that_was_taken_out_of_tls_before_us_is_a_stream() {
    let edge = edge();
    let invite = invite().replace("/UDP 192.0.2.10:40000", "/TLS 192.0.2.10:5061");
    let text = response(200, &sent(&edge, &invite, &tcp(CALLER, 3)));
    let to = back(&edge, &text);
    assert_eq!(
        (to.transport, to.connection),
        (Transport::Tcp, Some(ConnectionId(3)))
    );
}

#[test]
fn a_response_leaves_by_the_socket_that_its_request_came_to() {
    let edge = Edge::with(
        |config| {
            config
                .locals
                .push(local(Transport::Udp, "198.51.100.9:5062"));
        },
        |routes| {
            routes.default_hop("sip:[2001:db8::80]").unwrap();
        },
    );
    let mut arrival = udp(CALLER);
    for socket in ["198.51.100.9:5062", "198.51.100.1:5060"] {
        arrival.local = socket.parse().unwrap();
        let text = response(200, &sent(&edge, &invite(), &arrival));
        let (received, _) = edge.receive(&text, &udp("[2001:db8::80]:5060"));
        let Received::Forward(to) = received else {
            panic!("{received:?}");
        };
        assert_eq!(to.from, Some(arrival.local));
        assert_eq!(to.addr.to_string(), CALLER);
    }
}

#[test]
fn transports_may_differ_on_both_sides() {
    let edge = edge();
    let (_, request) = edge
        .relay_to(&invite(), &udp(CALLER), Target::NextHop("tcp"))
        .unwrap();
    let (received, out) = edge.receive(&response(200, &request), &tcp("192.0.2.81:5060", 9));
    let Received::Forward(to) = received else {
        panic!("{received:?}");
    };
    assert_eq!(
        (to.transport, to.addr.to_string(), to.connection),
        (Transport::Udp, CALLER.into(), None)
    );
    assert_eq!(to.from, Some("198.51.100.1:5060".parse().unwrap()));
    assert_eq!(headers(&out, "Via").len(), 1);
}

#[test]
fn a_failure_that_the_host_makes_up_for_a_dead_next_hop_finds_its_way() {
    // What a server does when it cannot deliver: it rejects its own relayed request in the name of the next hop.
    let edge = edge();
    for arrival in [udp(CALLER), tcp(CALLER, 4)] {
        let (to, relayed) = edge
            .relay_to(&invite(), &arrival, Target::NextHop("tcp"))
            .unwrap();
        let from_next_hop = Arrival {
            source: to.addr,
            local: to.from.unwrap(),
            transport: to.transport,
            connection: None,
        };
        let (_, reply) = edge.reject(&relayed, &from_next_hop, 503, "", &[]).unwrap();
        let (received, out) = edge.receive(&reply, &from_next_hop);
        let Received::Forward(to) = received else {
            panic!("{received:?}: {reply}");
        };
        assert_eq!(to.connection, arrival.connection);
        assert_eq!(headers(&out, "Via").len(), 1);
    }
}
