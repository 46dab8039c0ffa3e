//! Thousands of malformed messages at the sockets: the process lives and answers after each.

#![forbid(unsafe_code)]

use portcullis_tests::callee::Callee;
use portcullis_tests::host::{Builder, Host};
use portcullis_tests::policy;
use portcullis_tests::sip::Caller;

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

/// Pieces that hurt parsers.
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
fn what_can_be_answered_is_answered() {
    let (host, _callee) = start();
    let mut caller = host.udp(10);
    let good = |caller: &Caller| {
        let request = caller.request("INVITE", "sip:bob@example.com");
        String::from_utf8(request.bytes()).expect("our own request is text")
    };
    for (from, to, code) in [
        ("SIP/2.0\r\nVia", "SIP/7.0\r\nVia", 505),
        (
            "sip:bob@example.com SIP",
            "nobodyKnowsThisScheme:x SIP",
            416,
        ),
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

#[test]
fn a_stream_that_cannot_be_framed_is_answered_and_closed() {
    let (host, _callee) = start();
    let mut caller = host.tcp(10);
    let request = caller.request("MESSAGE", "sip:bob@example.com");
    let text = String::from_utf8(request.bytes()).expect("our own request is text");
    caller.send(text.replace("Content-Length: 0\r\n", "").as_bytes());
    let answer = String::from_utf8(caller.read_to_end()).expect("the answer is text");
    assert!(answer.starts_with("SIP/2.0 400 "), "{answer}");
}
