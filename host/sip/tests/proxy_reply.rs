//! Replies of our own: what is copied, what is added, where they go.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // A panic is how a test fails.

mod edge;

use edge::{CALLER, Edge, headers, request, start_line, tcp, udp};
use portcullis_sip::{
    Arrival, ConnectionId, OverloadAlgorithm, OverloadControl, Received, Transport,
};

const PLAIN_VIA: &str = "SIP/2.0/UDP 192.0.2.10:40000;branch=z9hG4bKcaller-1";

fn edge() -> Edge {
    Edge::new(|_| {})
}

fn rejected(text: &str, source: &str) -> (String, String) {
    let (to, reply) = edge()
        .reject(text, &udp(source), 401, "Address not authorised", &[])
        .unwrap();
    assert_eq!((to.transport, to.connection), (Transport::Udp, None));
    assert_eq!(to.from, Some(udp(source).local));
    (to.addr.to_string(), reply)
}

#[test]
fn a_reply_is_the_copied_headers_a_tag_and_nothing_more() {
    let invite = request(
        "INVITE",
        "sip:grace@example.com",
        &["Record-Route: <sip:p;lr>", "Subject: x"],
    );
    let (to, reply) = rejected(&invite, CALLER);
    let (before, after) = reply
        .split_once(";tag=")
        .filter(|(first, _)| first.contains("From"))
        .unwrap();
    assert!(before.ends_with("From: <sip:ada@example.net>"));
    let (ada, after) = after
        .split_once("\r\nTo: <sip:grace@example.com>;tag=")
        .unwrap();
    assert_eq!(ada, "ada1");
    let (tag, rest) = after.split_once("\r\n").unwrap();
    assert!(tag.len() == 16 && tag.bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert_eq!(
        before,
        "SIP/2.0 401 Address not authorised\r\n\
         Via: SIP/2.0/UDP 192.0.2.10:40000;branch=z9hG4bKcaller-1\r\nFrom: <sip:ada@example.net>"
    );
    assert_eq!(
        rest,
        "Call-ID: call-1\r\nCSeq: 7 INVITE\r\nServer: Portcullis\r\nContent-Length: 0\r\n\r\n"
    );
    assert_eq!(to, CALLER);
}

/// RFC 7339 §4.1, §5.1, §5.7: a client that has asked always gets values, and only such a client.
#[test]
fn a_reply_says_how_loaded_the_host_is_to_a_client_that_has_asked() {
    let mut edge = edge();
    let plain = request("INVITE", "sip:grace@example.com", &[]);
    let asking = plain.replace(
        ";branch=z9hG4bKcaller-1",
        ";oc;branch=z9hG4bKcaller-1;oc-algo=\"loss,A\"",
    );
    assert_ne!(plain, asking);
    let via = |edge: &Edge, text: &str, source: &str| {
        let (_, reply) = edge.reject(text, &udp(source), 401, "", &[]).unwrap();
        headers(&reply, "Via")[0].to_owned()
    };
    let is_unchanged = |edge: &Edge| via(edge, &asking, CALLER).contains(";oc;branch");
    edge.proxy.ask_clients(35, 0, 7);
    assert!(is_unchanged(&edge), "the host takes no part");
    let clients = |algorithm| OverloadControl {
        clients: Some(algorithm),
        next_hops: None,
    };
    edge = self::edge();
    edge.proxy = edge
        .proxy
        .with_overload_control(clients(OverloadAlgorithm::Loss));
    assert!(is_unchanged(&edge), "it has not looked at its load yet");
    let told = |edge: &Edge, values: &str| {
        assert!(!via(edge, &plain, CALLER).contains("oc"));
        for source in [CALLER, "192.0.2.99:5060"] {
            let via = via(edge, &asking, source);
            let expected = format!("{values};branch=z9hG4bKcaller-1");
            assert!(via.contains(&expected), "{via}");
            assert!(!via.contains("loss,A"), "{via}");
        }
    };
    edge.proxy.ask_clients(35, 200, 128_232_161_500_042);
    assert_eq!((edge.proxy.asked_loss(), edge.proxy.asked_rate()), (35, 0));
    let values = ";oc=35;oc-algo=\"loss\";oc-validity=1500;oc-seq=1282321615.00042";
    told(&edge, values);
    edge.proxy.ask_clients(0, 0, 128_232_161_500_043);
    let nothing = ";oc=0;oc-algo=\"loss\";oc-validity=0;oc-seq=1282321615.00043";
    told(&edge, nothing);
    // RFC 7415: a client that has it is asked by rate, others by loss.
    edge = self::edge();
    edge.proxy = edge
        .proxy
        .with_overload_control(clients(OverloadAlgorithm::Rate));
    edge.proxy.ask_clients(35, 200, 128_232_161_500_042);
    assert_eq!(edge.proxy.asked_rate(), 200);
    told(&edge, values);
    let by_rate = asking.replace("loss,A", "loss,rate");
    let values = ";oc=200;oc-algo=\"rate\";oc-validity=1500;oc-seq=1282321615.00042";
    let via = via(&edge, &by_rate, CALLER);
    assert!(via.contains(values), "{via}");
}

/// What a client must not write (RFC 7339 §4.3, §4.4) does not come back as if this host had written it.
#[test]
fn values_in_a_request_are_replaced() {
    let mut edge = edge();
    edge.proxy = edge.proxy.with_overload_control(OverloadControl {
        clients: Some(OverloadAlgorithm::Loss),
        next_hops: None,
    });
    edge.proxy.ask_clients(5, 0, 100_000);
    let text = request("INVITE", "sip:grace@example.com", &[]).replace(
        ";branch",
        ";oc-seq=9.9;oc=90;oc-validity=99999;oc-algo=\"loss\";branch",
    );
    let (_, reply) = edge.reject(&text, &udp(CALLER), 401, "", &[]).unwrap();
    assert_eq!(
        headers(&reply, "Via")[0],
        format!(
            "SIP/2.0/UDP {CALLER};oc=5;oc-algo=\"loss\";oc-validity=1500;oc-seq=1.00000;branch=z9hG4bKcaller-1"
        )
    );
}

/// Lines that are written as ours are copied many at a time, all others by themselves.
#[test]
fn all_vias_come_back_in_their_order() {
    let vias = [
        "Via: SIP/2.0/UDP p1;branch=1",
        "Via: SIP/2.0/UDP p2;branch=2, SIP/2.0/UDP p3",
        "v: SIP/2.0/UDP p4",
        "Subject: between",
        "Via: SIP/2.0/UDP p5",
        "via: SIP/2.0/UDP p6",
        "Via: SIP/2.0/UDP p7",
        "Via:  SIP/2.0/UDP p8 ",
        "Via: SIP/2.0/UDP p9;a\r\n ;b",
        "Via: SIP/2.0/UDP p10",
        "Via: SIP/2.0/UDP p11",
    ];
    for count in 1..=vias.len() {
        let invite = request("INVITE", "sip:grace@example.com", &vias[..count]);
        let (_, reply) = rejected(&invite, CALLER);
        let value = |via: &&str| {
            let (name, value) = via.split_once(':')?;
            name.to_ascii_lowercase()
                .starts_with('v')
                .then(|| value.trim().replace("\r\n", "  "))
        };
        let expected: Vec<_> = vias[..count].iter().filter_map(value).collect();
        assert_eq!(headers(&reply, "Via")[1..], expected);
        assert_eq!(
            reply.matches("\r\n").count(),
            1 + 1 + expected.len() + 6 + 1,
            "{reply}"
        );
    }
}

#[test]
fn the_standard_phrase_stands_in_for_none() {
    let text = request("INVITE", "sip:grace@example.com", &[]);
    let line = |code, reason: &str| {
        let (_, reply) = edge()
            .reject(&text, &udp(CALLER), code, reason, &[])
            .unwrap();
        start_line(&reply).to_owned()
    };
    assert_eq!(line(403, ""), "SIP/2.0 403 Forbidden");
    assert_eq!(line(499, ""), "SIP/2.0 499 Bad Request");
    assert_eq!(line(600, "No\r\nFoo: bar"), "SIP/2.0 600 No  Foo: bar");
    for code in [0, 99, 199, 700, u16::MAX] {
        assert_eq!(
            line(code, "Never mind"),
            "SIP/2.0 500 Server Internal Error"
        );
    }
}

#[test]
fn extra_headers_are_written_and_can_not_break_the_reply() {
    let text = request("INVITE", "sip:grace@example.com", &[]);
    let extra = [
        ("Retry-After", "30"),
        ("Warning", "399 a \"b\"\r\nContent-Length: 7"),
        ("Via", "SIP/2.0/UDP elsewhere"),
        ("v", "SIP/2.0/UDP elsewhere"),
        ("to", "<sip:mallory@example.org>"),
        ("Content-Length", "99"),
        ("Bad Name", "x"),
        ("", "x"),
        ("Server", "Drawbridge"),
        ("Server", "another"),
    ];
    let (_, reply) = edge().reject(&text, &udp(CALLER), 480, "", &extra).unwrap();
    assert!(reply.ends_with(
        "CSeq: 7 INVITE\r\nRetry-After: 30\r\nWarning: 399 a \"b\"  Content-Length: 7\r\n\
         Server: Drawbridge\r\nContent-Length: 0\r\n\r\n"
    ));
    assert_eq!(headers(&reply, "Via"), [PLAIN_VIA]);
}

#[test]
fn the_source_is_noted_where_the_rules_want_it() {
    for (via, source, noted, goes_to) in [
        // Sent-by says the source address.
        (
            "192.0.2.10:40000;branch=z9",
            CALLER,
            "192.0.2.10:40000;branch=z9",
            CALLER,
        ),
        (
            "192.0.2.10;branch=z9",
            CALLER,
            "192.0.2.10;branch=z9",
            "192.0.2.10:5060",
        ),
        // It says another one, or a name.
        (
            "10.0.0.1:5070;branch=z9",
            CALLER,
            "10.0.0.1:5070;branch=z9;received=192.0.2.10",
            "192.0.2.10:5070",
        ),
        (
            "pc;branch=z9",
            CALLER,
            "pc;branch=z9;received=192.0.2.10",
            "192.0.2.10:5060",
        ),
        ("pc", CALLER, "pc;received=192.0.2.10", "192.0.2.10:5060"),
        // RFC 3581: the port on demand, and then the address in any case.
        (
            "192.0.2.10;rport;branch=z9",
            CALLER,
            "192.0.2.10;rport=40000;branch=z9;received=192.0.2.10",
            CALLER,
        ),
        (
            "pc:9;branch=z9;rport",
            CALLER,
            "pc:9;branch=z9;rport=40000;received=192.0.2.10",
            CALLER,
        ),
        (
            "pc ; rport ;branch=z9",
            CALLER,
            "pc ;rport=40000 ;branch=z9;received=192.0.2.10",
            CALLER,
        ),
        // What the sender claims does not count.
        (
            "pc;rport=7;received=8.8.8.8",
            CALLER,
            "pc;rport=40000;received=192.0.2.10",
            CALLER,
        ),
        (
            "192.0.2.10;received=8.8.8.8",
            CALLER,
            "192.0.2.10;received=192.0.2.10",
            "192.0.2.10:5060",
        ),
        (
            "pc;maddr=8.8.8.8",
            CALLER,
            "pc;maddr=8.8.8.8;received=192.0.2.10",
            "192.0.2.10:5060",
        ),
        // IPv6 goes into `received` without brackets (RFC 5118).
        (
            "[2001:db8::7]:9",
            "[2001:db8::7]:40000",
            "[2001:db8::7]:9",
            "[2001:db8::7]:9",
        ),
        (
            "[2001:db8:0::7]",
            "[2001:db8::7]:40000",
            "[2001:db8:0::7]",
            "[2001:db8::7]:5060",
        ),
        (
            "[::ffff:192.0.2.10]",
            CALLER,
            "[::ffff:192.0.2.10]",
            "192.0.2.10:5060",
        ),
        (
            "[2001:db8::8];rport",
            "[2001:db8::7]:40000",
            "[2001:db8::8];rport=40000;received=2001:db8::7",
            "[2001:db8::7]:40000",
        ),
    ] {
        let text = request("INVITE", "sip:grace@example.com", &[])
            .replace("192.0.2.10:40000;branch=z9hG4bKcaller-1", via);
        let (to, reply) = rejected(&text, source);
        assert_eq!(
            headers(&reply, "Via"),
            [format!("SIP/2.0/UDP {noted}")],
            "{via}"
        );
        assert_eq!(to, goes_to, "{via}");
    }
}

#[test]
fn every_via_is_copied_and_only_the_first_is_changed() {
    let vias = "v: SIP/2.0/UDP pc;branch=z9hG4bK1 , SIP/2.0/TCP p1;rport\r\nSubject: between\r\n\
                Via: SIP / 2.0 / SCTP p2\r\n ;branch=old\r\nVIA: SIP/2.0/UDP p3";
    let text =
        request("INVITE", "sip:grace@example.com", &[]).replace(&format!("Via: {PLAIN_VIA}"), vias);
    let (_, reply) = rejected(&text, CALLER);
    assert_eq!(
        headers(&reply, "Via"),
        [
            "SIP/2.0/UDP pc;branch=z9hG4bK1;received=192.0.2.10 , SIP/2.0/TCP p1;rport",
            "SIP / 2.0 / SCTP p2   ;branch=old",
            "SIP/2.0/UDP p3",
        ]
    );
}

#[test]
fn to_keeps_its_tag_and_gets_one_where_it_has_none() {
    let to = |to: &str| {
        let text = request("INVITE", "sip:grace@example.com", &[])
            .replace("To: <sip:grace@example.com>", to);
        let (_, reply) = rejected(&text, CALLER);
        headers(&reply, "To")[0].to_owned()
    };
    assert_eq!(to("To: <sip:g@h>;tag=its-own"), "<sip:g@h>;tag=its-own");
    assert_eq!(to("t: <sip:g@h;tag=no>;TAG=x"), "<sip:g@h;tag=no>;TAG=x");
    let plain = to("To: sip:g@h");
    assert!(
        plain.starts_with("sip:g@h;tag=") && plain.len() == "sip:g@h;tag=".len() + 16,
        "{plain}"
    );
    assert!(to("To: \";tag=\" <sip:g@h;tag=no>").starts_with("\";tag=\" <sip:g@h;tag=no>;tag="));
    assert!(to("To :\r\n <sip:g@h>").starts_with("<sip:g@h>;tag="));
}

#[test]
fn the_tag_is_the_same_for_a_retransmission_and_differs_for_another_request() {
    let invite = request("INVITE", "sip:grace@example.com", &[]);
    let tag = |text: &str| headers(&rejected(text, CALLER).1, "To")[0].to_owned();
    assert_eq!(tag(&invite), tag(&invite));
    for (from, to) in [
        ("caller-1", "caller-2"),
        ("call-1", "call-2"),
        ("CSeq: 7", "CSeq: 8"),
        ("40000", "40001"),
    ] {
        assert_ne!(
            tag(&invite),
            tag(&invite.replace(from, to)),
            "{from} -> {to}"
        );
    }
}

#[test]
fn a_reply_over_a_stream_takes_its_connection_and_knows_where_to_open_another() {
    let text = request("INVITE", "sip:grace@example.com", &[]).replace("40000;", "5070;rport;");
    let (to, reply) = edge()
        .reject(&text, &tcp(CALLER, 17), 403, "", &[])
        .unwrap();
    assert_eq!(
        (to.transport, to.connection),
        (Transport::Tcp, Some(ConnectionId(17)))
    );
    assert_eq!(
        to.addr.to_string(),
        "192.0.2.10:5070",
        "nobody listens on the port that a connection came from"
    );
    assert!(headers(&reply, "Via")[0].contains(";rport=40000;"));
}

#[test]
fn the_ack_to_a_rejection_is_absorbed_even_if_to_has_the_longest_value() {
    let invite = request("INVITE", "sip:grace@example.com", &[]);
    let to = "<sip:grace@example.com>";
    let long = format!("{to};x={}", "y".repeat(2_048 - to.len() - ";x=".len()));
    let invite = invite.replace(to, &long);
    assert_eq!(edge().receive(&invite, &udp(CALLER)).0, Received::Judge);
    let (_, reply) = rejected(&invite, CALLER);
    let tagged = headers(&reply, "To")[0];
    assert!(tagged.len() > 2_048);
    let ack = invite.replace("INVITE", "ACK").replace(&long, tagged);
    assert_eq!(edge().receive(&ack, &udp(CALLER)).0, Received::Absorbed);
}

#[test]
fn some_things_are_never_answered() {
    let ack = request("ACK", "sip:grace@example.com", &[]);
    assert_eq!(edge().reject(&ack, &udp(CALLER), 401, "", &[]), None);
    let invite = request("INVITE", "sip:grace@example.com", &[]);
    assert_eq!(
        edge().reject(&invite, &udp("192.0.2.10:0"), 401, "", &[]),
        None
    );
    let response = invite.replace("INVITE sip:grace@example.com SIP/2.0", "SIP/2.0 200 OK");
    assert_eq!(edge().reject(&response, &udp(CALLER), 401, "", &[]), None);
    for via in [
        "",
        "SIP/2.0/UDP",
        "SIP/2.0/UDP ;branch=1",
        "SIP/2.0/UDP 2001:db8::1",
        ",",
    ] {
        let text = invite.replace(PLAIN_VIA, via);
        assert_eq!(
            edge().reject(&text, &udp(CALLER), 401, "", &[]),
            None,
            "{via}"
        );
    }
}

#[test]
fn what_was_in_the_buffer_is_gone() {
    let (received, out) = edge().receive(
        &request("INVITE", "sip:grace@example.com", &[]),
        &udp(CALLER),
    );
    assert_eq!((received, out.as_str()), (Received::Judge, ""));
}

#[test]
fn rport_can_be_forced_for_a_listener() {
    let forced = |listener: &str| {
        let listener = listener.parse().unwrap();
        Edge::with(|config| config.force_rport = vec![listener], |_| {})
    };
    let text = request("INVITE", "sip:grace@example.com", &[]);
    let behind_nat = "192.0.2.77:1024";
    let answer = |edge: &Edge, arrival: &Arrival| {
        let (to, reply) = edge.reject(&text, arrival, 401, "", &[]).unwrap();
        (to.addr.to_string(), headers(&reply, "Via")[0].to_owned())
    };
    let here = forced("198.51.100.1:5060");
    assert_eq!(
        answer(&here, &udp(behind_nat)),
        (
            behind_nat.to_owned(),
            format!("{PLAIN_VIA};rport=1024;received=192.0.2.77")
        )
    );
    // A source that is as it says is told of all the same, as after `rport`.
    assert_eq!(
        answer(&here, &udp(CALLER)).1,
        format!("{PLAIN_VIA};rport=40000;received=192.0.2.10")
    );
    // What asks for it itself has it once.
    let asks = text.replacen(PLAIN_VIA, &format!("{PLAIN_VIA};rport"), 1);
    let (_, reply) = here.reject(&asks, &udp(behind_nat), 401, "", &[]).unwrap();
    assert_eq!(
        headers(&reply, "Via")[0],
        format!("{PLAIN_VIA};rport=1024;received=192.0.2.77")
    );
    // Neither another listener nor a stream.
    let via = format!("{PLAIN_VIA};received=192.0.2.77");
    for (edge, arrival) in [
        (&forced("[2001:db8::1]:5060"), udp(behind_nat)),
        (&here, tcp(behind_nat, 1)),
    ] {
        let (to, written) = answer(edge, &arrival);
        assert_eq!((&*to, &*written), ("192.0.2.77:40000", &*via));
    }
    // What the host refuses itself goes there, too.
    let (received, _) = here.receive(&text.replace("CSeq: 7", "CSeq: x"), &udp(behind_nat));
    let Received::Reply(to) = received else {
        panic!("{received:?}");
    };
    assert_eq!(to.addr.to_string(), behind_nat);
}
