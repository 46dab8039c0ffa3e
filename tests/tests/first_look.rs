//! Checks before the first policy call: malformed addresses, request lines and requests that are too large, other URI schemes, numbers out
//! of range.

#![forbid(unsafe_code)]

use portcullis_testkit::callee::Callee;
use portcullis_testkit::host::Builder;
use portcullis_testkit::office::{OFFICE, start};
use portcullis_testkit::policy;
use portcullis_testkit::sip::Caller;

/// Notations of mallory's address that a rule about mallory would not match.
const UNREADABLE: &[&str] = &[
    "x sip:mallory@example.com",
    "\"x\" sip:mallory@example.com",
    "<sip: mallory@example.com>",
    "<sip :mallory@example.com>",
    "<sip:mallory @example.com>",
    "<sip:mallory\0@example.com>",
    "<\r\n sip:mallory@example.com>",
    "a;b <sip:mallory@example.com>",
    "<sip:bob@example.com>;x=1, <sip:mallory@example.com>",
    "sip:bob@example.com,sip:mallory@example.com",
    "\"sip:mallory@example.com\"",
    "sip:bob@example.com <sip:mallory@example.com>",
    "mallory@example.com",
];

/// Notations of the address that are parsed.
const READABLE: &[&str] = &[
    "<sip:mallory@example.com>",
    "sip:mallory@example.com",
    "\"A, \\\" <sip:bob@example.com>\" <sip:mallory@example.com>",
    "Bell, A <sip:mallory@example.com>",
    "Jane<sip:mallory@example.com>",
    "J\u{e4}ne <sip:mallory@example.com>",
    "< sip:mallory@example.com >",
    "\r\n <sip:mallory@example.com>",
];

/// A request with this in place of the part `from`.
fn changed(caller: &Caller, method: &str, from: &str, to: &str) -> Vec<u8> {
    let request = caller.request(method, "sip:bob@example.com");
    let text = String::from_utf8(request.bytes()).expect("our own request is text");
    assert!(text.contains(from), "{from} is in {text}");
    text.replacen(from, to, 1).into_bytes()
}

fn code(caller: &mut Caller, bytes: &[u8]) -> u16 {
    caller.send(bytes);
    caller.receive().code()
}

/// The answer to a request with these addresses.
fn answer(caller: &mut Caller, method: &str, from: Option<&str>, to: Option<&str>) -> u16 {
    let mut request = caller.request(method, "sip:bob@example.com");
    request.from = from.unwrap_or("<sip:ann@example.com>").into();
    request.to = to.unwrap_or("<sip:bob@example.com>").into();
    caller.ask(&request).code()
}

#[test]
fn a_deny_rule_about_from_matches_every_notation() {
    let files = [
        ("group-200.allow", "\"^sip:zed@\" : ALL\n"),
        ("group-200.deny", "\"^sip:mallory@\" : ALL\n"),
    ];
    let (host, callee, _folder) = start("call-routing", &files);
    let mut office = host.udp(OFFICE);
    for (forms, expected) in [(UNREADABLE, 400), (READABLE, 403)] {
        for form in forms {
            let code = answer(&mut office, "MESSAGE", Some(form), None);
            assert_eq!(code, expected, "{form:?}");
        }
    }
    assert!(callee.saw_nothing_more());
    let form = "sip:LASTNAME,%20FIRSTNAME@example.com";
    assert_eq!(answer(&mut office, "MESSAGE", Some(form), None), 200);
    let from = callee.next().header("From").map(str::to_owned);
    assert!(from.is_some_and(|from| from.starts_with(form)));
}

#[test]
fn a_deny_rule_about_to_matches_every_notation() {
    let files = [
        ("register.allow", "\"^sip:zed@\" : ALL\n"),
        ("register.deny", "\"^sip:mallory@\" : ALL\n"),
    ];
    let (host, callee, _folder) = start("register-guard", &files);
    let mut office = host.udp(OFFICE);
    for (forms, expected) in [(UNREADABLE, 400), (READABLE, 403)] {
        for form in forms {
            let code = answer(&mut office, "REGISTER", None, Some(form));
            assert_eq!(code, expected, "{form:?}");
        }
    }
    assert!(callee.saw_nothing_more());
}

#[test]
fn an_emergency_call_is_routed_like_a_telephone_number() {
    let (host, callee, _folder) = start("observe", &[]);
    let mut office = host.udp(OFFICE);
    for uri in [
        "tel:+4930123",
        "urn:service:sos",
        "urn:service:sos.ambulance",
    ] {
        let request = office.request("INVITE", uri);
        assert_eq!(office.ask(&request).code(), 200, "{uri}");
        assert_eq!(callee.next().start_line(), format!("INVITE {uri} SIP/2.0"));
        let route = format!("Route: <sip:{};lr>", callee.addr());
        let request = office.request("INVITE", uri).header(&route);
        assert_eq!(office.ask(&request).code(), 200, "{uri} with a Route");
        assert_eq!(callee.next().start_line(), format!("INVITE {uri} SIP/2.0"));
    }
    for route in ["sips:192.0.2.1;lr", "tel:+1"] {
        let request = office
            .request("INVITE", "sip:bob@example.com")
            .header(&format!("Route: <{route}>"));
        assert_eq!(office.ask(&request).code(), 416, "{route}");
    }
}

#[test]
fn a_long_request_line_is_answered_and_the_connection_goes_on() {
    let (host, callee, _folder) = start("observe", &[]);
    let long = format!("sip:{}@example.com", "u".repeat(9_000));
    let mut udp = host.udp(OFFICE);
    let request = udp.request("MESSAGE", &long);
    let answer = udp.ask(&request);
    assert_eq!(answer.start_line(), "SIP/2.0 414 Request-URI Too Long");

    let mut tcp = host.tcp(OFFICE);
    let before = tcp.request("MESSAGE", "sip:bob@example.com");
    let request = tcp.request("MESSAGE", &long);
    let after = tcp.request("MESSAGE", "sip:bob@example.com");
    let mut codes = std::collections::HashMap::new();
    tcp.send(&[before.bytes(), request.bytes(), after.bytes()].concat());
    for _ in 0..3 {
        let answer = tcp.receive();
        let call_id = answer.header("Call-ID").expect("an answer has one");
        codes.insert(call_id.to_owned(), answer.code());
    }
    assert_eq!(codes[&before.call_id], 200);
    assert_eq!(codes[&request.call_id], 414);
    assert_eq!(codes[&after.call_id], 200);
    callee.next();
    callee.next();
    assert!(callee.saw_nothing_more());
}

#[test]
fn a_request_that_outgrows_a_datagram_is_answered() {
    let (host, callee, _folder) = start("observe", &[]);
    let mut office = host.udp(OFFICE);
    let length = |body: usize| {
        let request = office.request("MESSAGE", "sip:bob@example.com");
        request.body("x".repeat(body)).bytes().len()
    };
    let body = 60_000 + 65_450 - length(60_000);
    let request = office
        .request("MESSAGE", "sip:bob@example.com")
        .body("x".repeat(body));
    assert_eq!(request.bytes().len(), 65_450);
    let answer = office.ask(&request);
    assert_eq!(answer.start_line(), "SIP/2.0 513 Message Too Large");
    assert!(callee.saw_nothing_more());
    assert_eq!(host.metric("portcullis_relayed_total", &["request"]), 0.0);
    assert_eq!(
        host.metric("portcullis_relay_errors_total", &["too_large"]),
        1.0
    );
}

#[test]
fn harmless_violations_of_the_grammar_are_relayed() {
    let (host, callee, _folder) = start("observe", &[]);
    let mut office = host.udp(OFFICE);
    for (from, to, header, expected) in [
        (
            "Max-Forwards: 70",
            "Max-Forwards: 300",
            "Max-Forwards",
            "70",
        ),
        (
            "Max-Forwards: 70",
            "Max-Forwards: 255",
            "Max-Forwards",
            "254",
        ),
        ("CSeq: 1 ", "CSeq: 2554554301 ", "CSeq", "2554554301 NOTIFY"),
        ("CSeq: 1 ", "CSeq: 4294967295 ", "CSeq", "4294967295 NOTIFY"),
    ] {
        let bytes = changed(&office, "NOTIFY", from, to);
        assert_eq!(code(&mut office, &bytes), 200, "{to}");
        assert_eq!(callee.next().header(header), Some(expected));
    }
    let colons = office.request("MESSAGE", "sip:user@[2001:db8:::192.0.2.1]");
    assert_eq!(office.ask(&colons).code(), 200);
}

#[test]
fn a_request_with_a_malformed_via_is_answered_at_its_source() {
    let (host, _callee, _folder) = start("observe", &[]);
    let mut udp = host.udp(OFFICE);
    let mut tcp = host.tcp(OFFICE);
    for caller in [&mut udp, &mut tcp] {
        let sent_by = caller.local().to_string();
        for bad in ["127.0.0.1:0", "FFFF:67C:FFD8:E07F:0:0:0:8:5060"] {
            let bytes = changed(caller, "MESSAGE", &sent_by, bad);
            caller.send(&bytes);
            assert_eq!(caller.receive().start_line(), "SIP/2.0 400 Bad Via");
        }
        let good = caller.request("MESSAGE", "sip:bob@example.com");
        assert_eq!(caller.ask(&good).code(), 200);
    }
}

#[test]
fn answers_go_to_the_source_port_where_rport_is_forced() {
    let builder = Builder::new();
    let callee = Callee::start(builder.lease().addr(3, 5080));
    let host = builder
        .policy(policy("observe"))
        .set("relay", &format!("next-hop = \"sip:{}\"", callee.addr()))
        .set("sip", "force-rport = true")
        .start();
    let mut phone = host.udp(OFFICE);
    let written = format!("{};branch", phone.local());
    // The address that the phone uses behind NAT.
    let inside = format!("{}:9;branch", phone.local().ip());
    let plain = |caller: &Caller, method: &str| {
        let bytes = changed(caller, method, &written, &inside);
        String::from_utf8(bytes)
            .expect("our own request is text")
            .replacen(";rport", "", 1)
    };
    let request = plain(&phone, "MESSAGE");
    assert_eq!(code(&mut phone, request.as_bytes()), 200);
    let via = callee.next().headers("Via")[1].to_owned();
    let expected = format!(
        ";rport={};received={}",
        phone.local().port(),
        phone.local().ip()
    );
    assert!(via.ends_with(&expected), "{via}");
    let refused = plain(&phone, "MESSAGE").replacen("CSeq: 1 ", "CSeq: x ", 1);
    assert_eq!(code(&mut phone, refused.as_bytes()), 400);
}
