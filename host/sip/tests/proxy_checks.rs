//! The first look at a message: what is answered, absorbed, dropped and left to the policy.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // A panic is how a test fails.

mod edge;

use edge::{CALLER, Edge, headers, request, start_line, udp};
use portcullis_sip::{DropReason, Received};

fn edge() -> Edge {
    Edge::new(|_| {})
}

fn received(text: &str) -> Received {
    edge().receive(text, &udp(CALLER)).0
}

fn answered(text: &str) -> String {
    start_line(&edge().answer(text, &udp(CALLER))).to_owned()
}

fn invite() -> String {
    request("INVITE", "sip:grace@example.com", &[])
}

#[test]
fn requests_in_order_are_for_the_policy() {
    for method in [
        "INVITE",
        "ACK",
        "CANCEL",
        "BYE",
        "REGISTER",
        "OPTIONS",
        "FROBNICATE",
        "invite",
    ] {
        assert_eq!(
            received(&request(method, "sip:grace@example.com", &[])),
            Received::Judge,
            "{method}"
        );
    }
    for uri in [
        "sip:edge.example.com",
        "sip:[2001:db8::9]:5061;x=y",
        "tel:+49-30-123456;phone-context=x",
        "SIP:a@b",
    ] {
        assert_eq!(
            received(&request("INVITE", uri, &[])),
            Received::Judge,
            "{uri}"
        );
    }
    assert_eq!(
        received(&invite().replace("Max-Forwards: 70\r\n", "")),
        Received::Judge
    );
    assert_eq!(received(&invite().replace("\r\n", "\n")), Received::Judge);
}

#[test]
fn what_is_wrong_is_said() {
    for (from, to, answer) in [
        (
            "SIP/2.0\r\nVia",
            "SIP/3.0\r\nVia",
            "505 Version Not Supported",
        ),
        (
            "sip:grace@example.com SIP",
            "sips:grace@example.com SIP",
            "416 Unsupported URI Scheme in Request URI",
        ),
        (
            "sip:grace@example.com SIP",
            "mailto: SIP",
            "400 Bad Request-URI",
        ),
        (
            "sip:grace@example.com SIP",
            "urn:\"sos\" SIP",
            "400 Bad Request-URI",
        ),
        (
            "sip:grace@example.com SIP",
            "sip:@example.com SIP",
            "400 Bad User in Request-URI",
        ),
        (
            "sip:grace@example.com SIP",
            "grace@example.com SIP",
            "400 Bad Request-URI",
        ),
        (
            "sip:grace@example.com SIP",
            "sip: SIP",
            "400 Bad Host in Request-URI",
        ),
        (
            "sip:grace@example.com SIP",
            "sip:a@b:0 SIP",
            "400 Bad Port in Request-URI",
        ),
        (
            "sip:grace@example.com SIP",
            "sip:a@b> SIP",
            "400 Bad Character in Request-URI",
        ),
        (
            "sip:grace@example.com SIP",
            "sip:a@b?Subject=x SIP",
            "400 Headers in Request-URI",
        ),
        (
            "sip:grace@example.com SIP",
            "sip:a@b  SIP",
            "400 Bad Request Line",
        ),
        (
            "CSeq: 7 INVITE",
            "CSeq: 7 BYE",
            "400 CSeq Method Does Not Match",
        ),
        ("CSeq: 7 INVITE", "CSeq: 4294967296 INVITE", "400 Bad CSeq"),
        ("CSeq: 7 INVITE\r\n", "", "400 Missing CSeq"),
        ("Call-ID: call-1\r\n", "", "400 Missing Call-ID"),
        (
            "To: <sip:grace@example.com>",
            "To: <sip:grace@example.com",
            "400 Bad To",
        ),
        ("From: <", "From: \"<", "400 Bad From"),
        (
            "Call-ID: call-1",
            "Call-ID: call-1\r\ni: call-2",
            "400 Two Call-ID Headers",
        ),
        (
            "Max-Forwards: 70",
            "Max-Forwards: 4294967296",
            "400 Bad Max-Forwards",
        ),
        ("Max-Forwards: 70", "Max-Forwards: 0", "483 Too Many Hops"),
        (
            "Content-Length: 0",
            "Content-Length: 3",
            "400 Body Shorter Than Content-Length",
        ),
        (
            ";branch=z9hG4bKcaller-1",
            ";;branch=z9hG4bKcaller-1",
            "400 Bad Via",
        ),
        (
            ";branch=z9hG4bKcaller-1",
            ";branch=z9hG4bKcaller-1;",
            "400 Bad Via",
        ),
        (
            ";branch=z9hG4bKcaller-1",
            ";branch=z9hG4bKcaller-1, rubbish",
            "400 Bad Via",
        ),
        (
            "Max-Forwards: 70",
            "Max-Forwards: 70\r\nProxy-Require: a",
            "420 Bad Proxy Require Extension",
        ),
        (
            "Call-ID: call-1",
            "Call-ID : call-1\r\nnonsense",
            "400 Bad Header Line",
        ),
    ] {
        let text = invite();
        assert!(text.contains(from), "{from}");
        assert_eq!(
            answered(&text.replacen(from, to, 1)),
            format!("SIP/2.0 {answer}"),
            "{to}"
        );
    }
}

#[test]
fn the_version_is_looked_at_before_what_another_version_may_have_changed() {
    let text = invite()
        .replacen("SIP/2.0\r\nVia", "SIP/3.0\r\nVia", 1)
        .replace("CSeq: 7", "CSeq: seven");
    assert_eq!(answered(&text), "SIP/2.0 505 Version Not Supported");
}

#[test]
fn every_extension_that_is_missing_is_listed() {
    let text = request(
        "INVITE",
        "sip:grace@example.com",
        &["Proxy-Require: a, b", "Proxy-Require: c", "Require: d"],
    );
    let reply = edge().answer(&text, &udp(CALLER));
    assert_eq!(headers(&reply, "Unsupported"), ["a, b", "c"]);
    // An empty list asks for nothing.
    assert_eq!(
        received(&request("INVITE", "sip:a@b", &["Proxy-Require: ,"])),
        Received::Judge
    );
    // CANCEL and ACK cannot be refused for it.
    for method in ["CANCEL", "ACK"] {
        assert_eq!(
            received(&request(method, "sip:a@b", &["Proxy-Require: a"])),
            Received::Judge
        );
    }
}

#[test]
fn the_missing_is_missing_in_the_answer_too() {
    let text = invite()
        .replace("From: <sip:ada@example.net>;tag=ada1\r\n", "")
        .replace("CSeq: 7 INVITE\r\n", "");
    let reply = edge().answer(&text, &udp(CALLER));
    assert_eq!(start_line(&reply), "SIP/2.0 400 Missing From");
    assert!(headers(&reply, "From").is_empty() && headers(&reply, "CSeq").is_empty());
    assert_eq!(headers(&reply, "Call-ID"), ["call-1"]);
}

#[test]
fn an_options_to_the_host_itself_is_answered() {
    for uri in [
        "sip:198.51.100.1",
        "sip:198.51.100.1:5060;transport=tcp",
        "sip:edge.example.com",
        "sip:[2001:db8::1]",
    ] {
        let reply = edge().answer(&request("OPTIONS", uri, &[]), &udp(CALLER));
        assert_eq!(start_line(&reply), "SIP/2.0 200 OK", "{uri}");
        assert!(headers(&reply, "Allow")[0].contains("INVITE"));
        assert_eq!(headers(&reply, "Accept"), ["*/*"]);
        assert_eq!(headers(&reply, "Supported"), [""]);
        assert!(headers(&reply, "To")[0].contains(";tag="));
    }
    let last_hop =
        request("OPTIONS", "sip:198.51.100.1", &[]).replace("Forwards: 70", "Forwards: 0");
    assert_eq!(answered(&last_hop), "SIP/2.0 200 OK");
    let by_us = request(
        "OPTIONS",
        "sip:198.51.100.1",
        &["Route: <sip:edge.example.com;lr>, <sip:198.51.100.1;lr>"],
    );
    assert_eq!(answered(&by_us), "SIP/2.0 200 OK");
}

#[test]
fn an_options_to_others_is_for_the_policy() {
    for (uri, route) in [
        ("sip:grace@198.51.100.1", "Subject: a user"),
        ("sip:198.51.100.1:5070", "Subject: a port"),
        ("sip:example.com", "Subject: a host"),
        ("sip:198.51.100.1;maddr=192.0.2.7", "Subject: an maddr"),
        ("sip:198.51.100.1", "Route: <sip:192.0.2.7;lr>"),
        (
            "sip:198.51.100.1",
            "Route: <sip:198.51.100.1;lr>, <sip:192.0.2.7;lr>",
        ),
        ("sip:198.51.100.1", "Route: nonsense"),
        ("tel:+1", "Subject: a telephone"),
    ] {
        assert_eq!(
            received(&request("OPTIONS", uri, &[route])),
            Received::Judge,
            "{uri} {route}"
        );
    }
    assert_eq!(
        received(&request("MESSAGE", "sip:198.51.100.1", &[])),
        Received::Judge
    );
}

#[test]
fn an_options_to_the_host_that_requires_something_is_refused() {
    let text = request("OPTIONS", "sip:198.51.100.1", &["Require: 100rel, path"]);
    let reply = edge().answer(&text, &udp(CALLER));
    assert_eq!(start_line(&reply), "SIP/2.0 420 Bad Extension");
    assert_eq!(headers(&reply, "Unsupported"), ["100rel, path"]);
    // For anybody else it is the callee's to say.
    assert_eq!(
        received(&request("INVITE", "sip:198.51.100.1", &["Require: 100rel"])),
        Received::Judge
    );
}

/// Whoever sends the same INVITE from an address of its own gets a tag, too.
#[test]
fn a_tag_proves_its_receipt_at_the_address_that_it_was_sent_to() {
    let edge = edge();
    let ack_with_tag_for = |source: &str| {
        let (_, reply) = edge.reject(&invite(), &udp(source), 401, "", &[]).unwrap();
        let to = headers(&reply, "To")[0];
        invite().replace("INVITE", "ACK").replace(
            "<sip:grace@example.com>\r\n",
            &format!("{to}\r\n").replace("To: ", ""),
        )
    };
    let forger = "192.0.2.66:5060";
    let proves = |ack: &str, source: &str| edge.proves_receipt(ack, &udp(source));
    assert!(proves(&ack_with_tag_for(CALLER), CALLER));
    assert!(proves(&ack_with_tag_for(forger), forger));
    let forged = ack_with_tag_for(forger);
    assert!(!proves(&forged, CALLER));
    assert_eq!(edge.receive(&forged, &udp(CALLER)).0, Received::Absorbed);
    assert!(!proves(&invite().replace("INVITE", "ACK"), CALLER));

    // Whoever had the address before proves nothing.
    let ack = ack_with_tag_for(CALLER);
    edge.proxy.set_time(5 * 60);
    assert!(proves(&ack, CALLER));
    edge.proxy.set_time(10 * 60);
    assert!(!proves(&ack, CALLER));
    assert_eq!(edge.receive(&ack, &udp(CALLER)).0, Received::Absorbed);
}

#[test]
fn the_ack_to_our_own_answer_ends_here() {
    let edge = edge();
    let (_, reply) = edge.reject(&invite(), &udp(CALLER), 401, "", &[]).unwrap();
    let to = headers(&reply, "To")[0];
    let ack = invite().replace("INVITE", "ACK").replace(
        "<sip:grace@example.com>\r\n",
        &format!("{to}\r\n").replace("To: ", ""),
    );
    assert!(ack.contains(";tag="), "{ack}");
    assert_eq!(edge.receive(&ack, &udp(CALLER)).0, Received::Absorbed);
    // A port of its own, as NAT may give it, and headers as another stack writes them.
    let other = ack
        .replace("Call-ID: ", "i:")
        .replace("Max-Forwards: 70\r\n", "");
    assert_eq!(
        edge.receive(&other, &udp("192.0.2.10:41111")).0,
        Received::Absorbed
    );
    // An ACK that comes from elsewhere ends here as well.
    assert_eq!(
        edge.receive(&ack, &udp("192.0.2.99:5060")).0,
        Received::Absorbed
    );
    // Nothing else that is wrong with it matters any more.
    assert_eq!(
        edge.receive(&ack.replace("Forwards: 70", "Forwards: 0"), &udp(CALLER))
            .0,
        Received::Absorbed
    );
    assert_eq!(
        edge.receive(
            &ack.replace("example.com SIP", "example.com:x SIP"),
            &udp(CALLER)
        )
        .0,
        Received::Absorbed
    );
}

#[test]
fn the_ack_to_another_answer_goes_on() {
    let edge = edge();
    let (_, reply) = edge.reject(&invite(), &udp(CALLER), 401, "", &[]).unwrap();
    let to = format!("To: {}", headers(&reply, "To")[0]);
    let ack = invite()
        .replace("INVITE", "ACK")
        .replace("To: <sip:grace@example.com>", &to);
    for (from, into) in [
        ("caller-1", "caller-2"),
        ("call-1", "call-2"),
        ("CSeq: 7", "CSeq: 8"),
        (to.as_str(), "To: <sip:grace@example.com>;tag=grace1"),
        (to.as_str(), "To: <sip:grace@example.com>"),
    ] {
        let other = ack.replace(from, into);
        assert_ne!(other, ack);
        assert_eq!(
            edge.receive(&other, &udp(CALLER)).0,
            Received::Judge,
            "{into}"
        );
    }
    // Only an ACK is absorbed.
    let bye = ack.replace("ACK", "BYE");
    assert_eq!(edge.receive(&bye, &udp(CALLER)).0, Received::Judge);
    // Another key makes other tags.
    let stranger = Edge::with(|config| config.key = [1; 16], |_| {});
    assert_eq!(stranger.receive(&ack, &udp(CALLER)).0, Received::Judge);
}

#[test]
fn a_bad_ack_is_dropped_and_never_answered() {
    for (from, to) in [
        ("SIP/2.0\r\nVia", "SIP/3.0\r\nVia"),
        ("sip:grace@example.com SIP", "sips:grace@example.com SIP"),
        ("CSeq: 7 ACK", "CSeq: 7 INVITE"),
        ("Max-Forwards: 70", "Max-Forwards: 0"),
        ("Content-Length: 0", "Content-Length: 5"),
        ("Call-ID: call-1\r\n", ""),
    ] {
        let text = request("ACK", "sip:grace@example.com", &[]).replacen(from, to, 1);
        assert_eq!(
            edge().receive(&text, &udp(CALLER)),
            (Received::Drop(DropReason::BadAck), String::new()),
            "{to}"
        );
    }
}

#[test]
fn what_can_not_be_answered_is_dropped_for_a_reason() {
    let via = "Via: SIP/2.0/UDP 192.0.2.10:40000;branch=z9hG4bKcaller-1\r\n";
    for (text, reason) in [
        ("\r\n\r\n".to_owned(), DropReason::KeepAlive),
        (String::new(), DropReason::KeepAlive),
        (
            "GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
            DropReason::NotSip,
        ),
        ("\0\0\0\0".to_owned(), DropReason::NotSip),
        (invite().replace(via, ""), DropReason::UnreadableVia),
        (
            request("ACK", "sip:a@b", &[]).replace(via, "Via: nonsense\r\n"),
            DropReason::UnreadableVia,
        ),
    ] {
        assert_eq!(received(&text), Received::Drop(reason), "{text}");
    }
    let from_zero = edge().receive(&invite(), &udp("192.0.2.10:0")).0;
    assert_eq!(from_zero, Received::Drop(DropReason::SourcePortZero));
}

#[test]
fn a_via_that_can_not_be_read_is_answered_at_the_source() {
    let via = "SIP/2.0/UDP 192.0.2.10:40000;branch=z9hG4bKcaller-1";
    for bad in [
        "nonsense",
        "SIP/2.0/UDP :5060",
        "SIP/2.0/UDP 192.0.2.77:0;branch=z9hG4bKx",
        "SIP/2.0/UDP 192.0.2.77:65536;branch=z9hG4bKx",
        "SIP/2.0/UDP [fe80::1%eth0];branch=z9hG4bKx",
        "SIP/2.0/UDP FFFF:67C:FFD8:E07F:0:0:0:8:5060;rport;branch=z9hG4bKx",
        "SIP/2.0/UDP 192.0.2.77;x=\"",
    ] {
        let second = format!("{bad}\r\nVia: SIP/2.0/UDP 192.0.2.5;branch=z9hG4bK2");
        let text = invite().replacen(via, &second, 1);
        let (received, reply) = edge().receive(&text, &udp(CALLER));
        let Received::Reply(to) = received else {
            panic!("{bad}: {received:?}");
        };
        assert_eq!(to.addr.to_string(), CALLER, "{bad}");
        assert_eq!(start_line(&reply), "SIP/2.0 400 Bad Via");
        assert_eq!(
            headers(&reply, "Via"),
            [bad, "SIP/2.0/UDP 192.0.2.5;branch=z9hG4bK2"]
        );
        assert_eq!(headers(&reply, "Call-ID"), ["call-1"]);
        let to = headers(&reply, "To")[0].to_owned();
        assert!(to.contains(";tag="), "{to}");
        let again = edge().answer(&text, &udp(CALLER));
        assert_eq!(headers(&again, "To"), [to], "a retransmission");
    }
    // What else is wrong is said first.
    let text = invite()
        .replacen(via, "nonsense", 1)
        .replace("CSeq: 7", "CSeq: x");
    assert_eq!(answered(&text), "SIP/2.0 400 Bad CSeq");
}

#[test]
fn a_long_request_line_is_answered_414() {
    let text = |length: usize| invite().replacen("grace", &"g".repeat(length), 1);
    let other = "INVITE sip:@example.com SIP/2.0".len();
    assert_eq!(received(&text(8_192 - other)), Received::Judge);
    assert_eq!(
        answered(&text(8_193 - other)),
        "SIP/2.0 414 Request-URI Too Long"
    );
    let reply = edge().answer(&text(60_000), &udp(CALLER));
    assert_eq!(start_line(&reply), "SIP/2.0 414 Request-URI Too Long");
    assert_eq!(headers(&reply, "Call-ID"), ["call-1"]);
}

/// Forms of From and To in which a rule about `mallory` could look at another address than the next reader, or at none.
#[test]
fn a_party_that_can_not_be_read_is_refused_before_any_policy() {
    for form in [
        "x sip:mallory@example.com",
        "\"x\" sip:mallory@example.com",
        "<sip: mallory@example.com>",
        "<sip :mallory@example.com>",
        "<sip:mallory @example.com>",
        "<sip:mallory\0@example.com>",
        "<sip:mallory@example.com>;x\0",
        "<\r\n sip:mallory@example.com>",
        "a;b <sip:mallory@example.com>",
        "<sip:bob@example.com>;x=1, <sip:mallory@example.com>",
        "sip:bob@example.com,sip:mallory@example.com",
        "\"sip:mallory@example.com\"",
        "mallory@example.com",
        "<mallory@example.com>",
        "<sip:@example.com>",
        "<sip:mallory@>",
        "sip:mallory@example.com>",
        "*",
    ] {
        for (header, rest, reason) in [
            ("From: <sip:ada@example.net>", "From: ", "Bad From"),
            ("To: <sip:grace@example.com>", "To: ", "Bad To"),
        ] {
            let text = invite().replacen(header, &format!("{rest}{form}"), 1);
            assert_eq!(
                answered(&text),
                format!("SIP/2.0 400 {reason}"),
                "{form:?} in {rest}"
            );
        }
    }
    for form in [
        "sip:LASTNAME,%20FIRSTNAME@example.com",
        "\r\n <sip:bob@example.com>",
        "\"THOMPSON,ALICIA\" <sip:alice@example.com>",
        "\"a <sip:trusted@trusted.example>\" <sip:evil@evil.example>",
        "\"\" <sip:222@example.com>;epid=1",
        "Jane<sip:jane@example.com>",
        "J\u{e4}ne <sip:jane@example.com>",
        "< sip:blank@example.org >",
        "Bell, Alexander <sip:bell@example.com>",
        "<sip:1@0fb38bfd0a0d>",
        "<tel:+1;postd=2>",
        "<urn:service:sos>",
    ] {
        for header in ["From: <sip:ada@example.net>", "To: <sip:grace@example.com>"] {
            let name = header.split('<').next().unwrap();
            let text = invite().replacen(header, &format!("{name}{form}"), 1);
            assert_eq!(received(&text), Received::Judge, "{form:?} in {name}");
        }
    }
}

#[test]
fn a_call_id_that_nobody_writes_is_refused() {
    let with = |length: usize| {
        let text = invite();
        let (before, after) = text.split_once("Call-ID: ").unwrap();
        let (_, after) = after.split_once("\r\n").unwrap();
        format!("{before}Call-ID: {}\r\n{after}", "i".repeat(length))
    };
    assert_eq!(received(&with(2_048)), Received::Judge);
    assert_eq!(answered(&with(2_049)), "SIP/2.0 400 Call-ID Too Long");
}

#[test]
fn lists_without_end_are_refused() {
    let routes = |lines: usize, commas: usize| {
        let line = format!("Route: <sip:192.0.2.1;lr>{}", ",".repeat(commas));
        request("INVITE", "sip:a@b", &vec![&*line; lines])
    };
    assert_eq!(received(&routes(128, 0)), Received::Judge);
    assert_eq!(received(&routes(1, 127)), Received::Judge);
    for (lines, commas) in [(129, 0), (1, 128), (8, 8_000)] {
        assert_eq!(
            answered(&routes(lines, commas)),
            "SIP/2.0 400 Too Many Routes"
        );
    }
    let empty = format!("Proxy-Require: {}", ",".repeat(65));
    assert_eq!(
        answered(&request("INVITE", "sip:a@b", &[&empty])),
        "SIP/2.0 420 Bad Proxy Require Extension"
    );
    let params = invite().replacen(
        ";branch=z9hG4bKcaller-1",
        &format!(";branch=z9hG4bKcaller-1{}", ";x".repeat(64)),
        1,
    );
    assert_eq!(answered(&params), "SIP/2.0 400 Bad Via");
}
