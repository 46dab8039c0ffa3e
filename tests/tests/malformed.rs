//! Thousands of malformed messages: the process survives, and answers a valid request after each.

#![forbid(unsafe_code)]

use portcullis_testkit::callee::Callee;
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::policy;
use portcullis_testkit::sip::{Caller, Message};

const DATAGRAMS: u64 = 4_000;
const STREAMS: u64 = 400;

/// A small seeded generator (SplitMix64), so that a failure can be repeated.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.roll() % limit.max(1) as u64) as usize
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// Fragments that are difficult for parsers.
const HURT: &[&[u8]] = &[
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\r",
    b"\0",
    b":",
    b";",
    b",",
    b"<",
    b">",
    b"\"",
    b"\\",
    b"@",
    b"[",
    b"]",
    b"%",
    b"%00",
    b"\xff\xfe",
    b"\xc3\x28",
    b" ",
    b"\t",
    b";;;;;;;;",
    b"99999999999999999999",
    b"-1",
    b"Content-Length: 4294967296\r\n",
    b"Content-Length: -5\r\n",
    b"l: 7\r\n",
    b"Via: \r\n",
    b"v: SIP/2.0/UDP ;;;branch=\r\n",
    b"Via: SIP/2.0/UDP [::1;branch=z9hG4bKx\r\n",
    b"CSeq: 99999999999 INVITE\r\n",
    b"Max-Forwards: 256\r\n",
    b"Route: <sip:\r\n",
    b"Route: ,,,,\r\n",
    b"To: <<<<>>>>\r\n",
    b"From: \"unclosed <sip:a@b>\r\n",
    b"Require: nothing\r\n",
    b"Proxy-Require: nothing\r\n",
    b"SIP/2.0 ",
    b"SIP/2.0 200 OK\r\n",
    b"INVITE sip:a@b SIP/3.0\r\n",
];

fn mutate(bytes: &mut Vec<u8>, dice: &mut Dice) {
    for _ in 0..=dice.below(6) {
        let at = dice.below(bytes.len() + 1);
        match dice.below(7) {
            0 => bytes.truncate(at),
            1 => {
                let piece = dice.of(HURT);
                bytes.splice(at..at, piece.iter().copied());
            }
            2 if at < bytes.len() => bytes[at] = dice.roll() as u8,
            3 => {
                let end = (at + dice.below(40)).min(bytes.len());
                bytes.drain(at..end);
            }
            4 => {
                let end = (at + dice.below(60)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                let to = dice.below(bytes.len() + 1);
                bytes.splice(to..to, copy);
            }
            5 => {
                let long = vec![*dice.of(b"aA1 ;,<\r"); dice.below(20_000)];
                bytes.splice(at..at, long);
            }
            _ => {
                if let Some(end) = bytes.iter().skip(at).position(|b| *b == b'\n') {
                    bytes.drain(at..at + end);
                }
            }
        }
    }
    bytes.truncate(65_000);
}

fn seed_message(caller: &Caller, host: &Host, dice: &mut Dice) -> Vec<u8> {
    let method = *dice.of(&[
        "INVITE", "ACK", "CANCEL", "OPTIONS", "BYE", "MESSAGE", "NEW",
    ]);
    let uri = *dice.of(&[
        "sip:bob@example.com",
        "sip:[2001:db8::1]:5060;transport=tcp;lr",
        "tel:+1-201-555-0123",
        "sips:bob:secret@example.com?Subject=x",
    ]);
    let request = caller
        .request(method, uri)
        .header(&format!("Route: <sip:{};lr>", host.sip()))
        .body("v=0\r\n");
    if dice.below(4) == 0 {
        let text = String::from_utf8(request.bytes()).expect("our own request is text");
        let rest = text.split_once("\r\n").expect("there is a start line").1;
        return format!("SIP/2.0 {} Hm\r\n{rest}", 100 + dice.below(700)).into_bytes();
    }
    request.bytes()
}

fn start() -> (Host, Callee) {
    let builder = Builder::new();
    let callee = Callee::start(builder.lease().addr(3, 5080));
    let host = builder
        .policy(policy("observe"))
        .set("relay", &format!("next-hop = \"sip:{}\"", callee.addr()))
        .start();
    (host, callee)
}

fn assert_answers(caller: &mut Caller, host: &Host, after: &[u8]) {
    let request = caller.request("OPTIONS", &format!("sip:{}", host.sip()));
    caller.send(&request.bytes());
    loop {
        let answer = caller.receive();
        if answer.header("Call-ID") == Some(request.call_id.as_str()) {
            assert_eq!(answer.code(), 200, "after {}", after.escape_ascii());
            return;
        }
    }
}

#[test]
fn datagrams() {
    let (mut host, _callee) = start();
    let mut attacker = host.udp(66);
    let mut witness = host.udp(10);
    for seed in 0..DATAGRAMS {
        let mut dice = Dice(seed);
        let mut bytes = seed_message(&attacker, &host, &mut dice);
        mutate(&mut bytes, &mut dice);
        attacker.send(&bytes);
        assert_answers(&mut witness, &host, &bytes);
    }
    assert!(host.is_alive());
    assert!(!host.log().contains("panicked"), "{}", host.log());
}

#[test]
fn streams() {
    let (mut host, _callee) = start();
    let mut witness = host.tcp(10);
    for seed in 0..STREAMS {
        let mut dice = Dice(seed);
        let mut attacker = host.tcp(66);
        let mut bytes = seed_message(&attacker, &host, &mut dice);
        mutate(&mut bytes, &mut dice);
        attacker.send(&bytes);
        assert_answers(&mut witness, &host, &bytes);
    }
    assert!(host.is_alive());
    assert!(!host.log().contains("panicked"), "{}", host.log());
}

#[test]
fn malformed_requests_are_answered_if_possible() {
    let (host, _callee) = start();
    let mut caller = host.udp(10);
    let good = |caller: &Caller| {
        let request = caller.request("INVITE", "sip:bob@example.com");
        String::from_utf8(request.bytes()).expect("our own request is text")
    };
    for (from, to, code) in [
        ("SIP/2.0\r\nVia", "SIP/7.0\r\nVia", 505),
        ("sip:bob@example.com SIP", "sips:bob@example.com SIP", 416),
        ("From: ", "From: x sip:mallory@example.com;x=", 400),
        ("SIP/2.0/UDP 1", "SIP/2.0/UDP ::1", 400),
        ("Max-Forwards: 70", "Max-Forwards: 0", 483),
        (
            "Max-Forwards: 70",
            "Proxy-Require: frob\r\nMax-Forwards: 70",
            420,
        ),
        ("1 INVITE", "1 OPTIONS", 400),
        ("1 INVITE", "4294967296 INVITE", 400),
        ("Content-Length: 0", "Content-Length: 10", 400),
        ("Content-Length: 0", "Content-Length: -1", 400),
        ("To: ", "X-To: ", 400),
    ] {
        let text = good(&caller);
        assert!(text.contains(from), "{from} is in {text}");
        caller.send(text.replacen(from, to, 1).as_bytes());
        let answer = caller.receive();
        assert_eq!(answer.code(), code, "{to}: {}", answer.start_line());
        if code == 420 {
            assert_eq!(answer.header("Unsupported"), Some("frob"));
        }
    }
}

/// State of a TCP connection after a message that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    GoesOn,
    Closes,
}

/// A request in pieces, so that one of them can be replaced by something too long.
struct Parts {
    start_line: String,
    fields: String,
    length: String,
    body: String,
}

impl Parts {
    fn of(caller: &Caller, method: &str) -> Self {
        let request = caller.request(method, "sip:bob@example.com");
        let text = String::from_utf8(request.bytes()).expect("our own request is text");
        let (start_line, fields) = text.split_once("\r\n").expect("there is a start line");
        Self {
            start_line: start_line.to_owned(),
            fields: fields.replace("Content-Length: 0\r\n\r\n", ""),
            length: "Content-Length: 4\r\n".to_owned(),
            body: "body".to_owned(),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let Self {
            start_line,
            fields,
            length,
            body,
        } = self;
        format!("{start_line}\r\n{fields}{length}\r\n{body}").into_bytes()
    }
}

/// Sends a message over a new connection; checks the response or its absence, and the state of the connection.
fn assert_over_tcp(host: &Host, message: &[u8], answer: Option<(u16, &str)>, then: Then) {
    let mut caller = host.tcp(66);
    let shown = message[..message.len().min(60)].escape_ascii().to_string();
    caller.send(message);
    if then == Then::Closes {
        let got = Message::new(caller.read_to_end());
        match answer {
            Some((code, reason)) => {
                assert_eq!(
                    got.start_line(),
                    format!("SIP/2.0 {code} {reason}"),
                    "{shown}"
                );
            }
            None => assert!(got.bytes.is_empty(), "{shown}"),
        }
        return;
    }
    if let Some((code, reason)) = answer {
        let got = caller.receive();
        assert_eq!(
            got.start_line(),
            format!("SIP/2.0 {code} {reason}"),
            "{shown}"
        );
        let sent = Message::new(message.to_vec());
        for name in ["Via", "From", "Call-ID", "CSeq"] {
            let copied = got.headers(name);
            let value = sent.header(name).expect("the request has it");
            // Via notes where the request came from.
            assert!(
                copied.len() == 1 && copied[0].starts_with(value),
                "{shown}: {copied:?}"
            );
        }
    }
    // The next message on the connection is the first that is answered now.
    let request = caller.request("OPTIONS", &format!("sip:{}", host.sip()));
    assert_eq!(caller.ask(&request).code(), 200, "after {shown}");
}

#[test]
fn a_message_that_is_too_long_is_answered_and_the_connection_stays_open() {
    let (host, _callee) = start();
    let caller = host.tcp(10);
    let check = |change: &dyn Fn(&mut Parts), answer: Option<(u16, &str)>| {
        let mut parts = Parts::of(&caller, "INVITE");
        change(&mut parts);
        assert_over_tcp(&host, &parts.bytes(), answer, Then::GoesOn);
    };
    let large = Some((513, "Message Too Large"));
    let many = Some((513, "Too Many Headers"));
    for length in [9_000, 65_000, 65_536, 70_000, 900_000] {
        let long = "x".repeat(length);
        let uri = |parts: &mut Parts| parts.start_line = format!("INVITE sip:{long} SIP/2.0");
        check(&uri, Some((414, "Request-URI Too Long")));
        // A response is not answered.
        let reason = |parts: &mut Parts| parts.start_line = format!("SIP/2.0 200 {long}");
        check(&reason, None);
        let is_framed = length < 65_536;
        let expected = match is_framed {
            true => Some((513, "Header Too Long")),
            false => large,
        };
        let before = |parts: &mut Parts| parts.fields.insert_str(0, &format!("X: {long}\r\n"));
        check(&before, expected);
        let behind = |parts: &mut Parts| parts.fields.push_str(&format!("X: a\r\n {long}\r\n"));
        check(&behind, expected);
        let body = |parts: &mut Parts| {
            parts.length = format!("l: {length}\r\n");
            parts.body.clone_from(&long);
        };
        if !is_framed {
            check(&body, large);
        }
    }
    for lines in [300, 600, 100_000] {
        let lines = |parts: &mut Parts| parts.fields.push_str(&"X: 1\r\n".repeat(lines));
        check(&lines, many);
    }
    let folds = |parts: &mut Parts| {
        parts
            .fields
            .push_str(&format!("X:\r\n{}", " 1\r\n".repeat(900)));
    };
    check(&folds, many);
    // An ACK is never answered.
    let mut ack = Parts::of(&caller, "ACK");
    ack.start_line = format!("ACK sip:{} SIP/2.0", "x".repeat(70_000));
    assert_over_tcp(&host, &ack.bytes(), None, Then::GoesOn);
    assert_eq!(lost_unframed(&host), 0.0);
    assert!(host.metric("portcullis_dropped_total", &["reason=\"bad_response\""]) >= 5.0);
}

#[test]
fn a_stream_whose_next_message_cannot_be_located_is_answered_and_closed() {
    let (host, _callee) = start();
    let caller = host.tcp(10);
    let mut closed = 0.0;
    let mut check = |method: &str, change: &dyn Fn(&mut Parts), answer: Option<(u16, &str)>| {
        let mut parts = Parts::of(&caller, method);
        change(&mut parts);
        assert_over_tcp(&host, &parts.bytes(), answer, Then::Closes);
        closed += 1.0;
        assert_eq!(lost_unframed(&host), closed);
    };
    for (length, reason) in [
        ("", "Missing Content-Length"),
        ("Content-Length: -1\r\n", "Bad Content-Length"),
        ("Content-Length: four\r\n", "Bad Content-Length"),
        ("Content-Length: 4 4\r\n", "Bad Content-Length"),
        ("Content-Length:\r\n", "Bad Content-Length"),
        ("l: 2147483648\r\n", "Bad Content-Length"),
        ("l: 18446744073709551620\r\n", "Bad Content-Length"),
        (
            "l: 4\r\nContent-Length: 4\r\n",
            "Two Content-Length Headers",
        ),
    ] {
        let change = |parts: &mut Parts| length.clone_into(&mut parts.length);
        check("INVITE", &change, Some((400, reason)));
        check("ACK", &change, None);
    }
    let mixed = |parts: &mut Parts| parts.fields.push_str("X: 1\n");
    check("INVITE", &mixed, Some((400, "Bad Line End")));
    let response = |parts: &mut Parts| {
        "SIP/2.0 200 OK".clone_into(&mut parts.start_line);
        parts.length.clear();
    };
    check("INVITE", &response, None);

    // Too far away: more than sixteen times the limit.
    let too_large = Some((513, "Message Too Large"));
    for length in ["1048561", "2147483647"] {
        let far = |parts: &mut Parts| parts.length = format!("Content-Length: {length}\r\n");
        check("INVITE", &far, too_large);
    }
    let endless_field = |parts: &mut Parts| parts.length = format!("X: {}", "x".repeat(1_200_000));
    check("INVITE", &endless_field, too_large);
    let endless_header = |parts: &mut Parts| parts.length = "X: 1\r\n".repeat(200_000);
    check("INVITE", &endless_header, Some((513, "Too Many Headers")));
    // Without a complete start line, there is nothing to answer.
    let endless_line =
        |parts: &mut Parts| parts.start_line = format!("INVITE {}", "x".repeat(1_200_000));
    check("INVITE", &endless_line, None);
    let http = |parts: &mut Parts| "GET / HTTP/1.1".clone_into(&mut parts.start_line);
    check("INVITE", &http, None);
}

fn lost_unframed(host: &Host) -> f64 {
    host.metric("portcullis_dropped_total", &["reason=\"unframed\""])
}
