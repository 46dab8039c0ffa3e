//! The filter that steers datagrams to the workers, run by an interpreter of classic BPF, agrees with the names of transactions.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // A panic is how a test fails.

mod edge;
mod torture;

use edge::{CALLER, Edge, udp};
use portcullis_sip::{
    Branch, DEFAULT_BREADTH, FilterStep, Forward, Framing, HeaderName, Index, Limits, Message,
    Steering, Target, Transaction, Via, scan,
};
use proptest::prelude::*;
use torture::{ipv6, outside, syntax_invalid, syntax_valid};

const WORKERS: u32 = 4;

fn edge() -> Edge {
    Edge::new(|_| {})
}

/// The result of a filter for a datagram: a worker, or a number that none has.
///
/// Panics if the filter loads bytes beyond the end.
fn run(filter: &[FilterStep], datagram: &[u8]) -> u32 {
    let (mut a, mut x, mut memory, mut at) = (0_u32, 0_u32, [None; 16], 0);
    loop {
        let (code, on_true, on_false, k) = filter[at];
        at += 1;
        // Big-endian, as on the wire.
        let load = |from: u32, size: usize| {
            let bytes = &datagram[from as usize..from as usize + size];
            bytes
                .iter()
                .fold(0, |word, byte| word << 8 | u32::from(*byte))
        };
        let skipped = |holds| usize::from(if holds { on_true } else { on_false });
        // Names as in linux/filter.h.
        match code {
            /* LD W ABS */ 0x20 => a = load(k, 4),
            /* LD W LEN */ 0x80 => a = datagram.len() as u32,
            /* LD IMM */ 0x00 => a = k,
            /* LD W IND */ 0x40 => a = load(x + k, 4),
            /* LD H IND */ 0x48 => a = load(x + k, 2),
            /* LD B IND */ 0x50 => a = load(x + k, 1),
            /* LD MEM */ 0x60 => a = memory[k as usize].unwrap(),
            /* LDX IMM */ 0x01 => x = k,
            /* LDX MEM */ 0x61 => x = memory[k as usize].unwrap(),
            /* ST */ 0x02 => memory[k as usize] = Some(a),
            /* STX */ 0x03 => memory[k as usize] = Some(x),
            /* ADD X */ 0x0c => a = a.wrapping_add(x),
            /* SUB X */ 0x1c => a = a.wrapping_sub(x),
            /* MUL K */ 0x24 => a = a.wrapping_mul(k),
            /* OR X */ 0x4c => a |= x,
            /* AND K */ 0x54 => a &= k,
            /* RSH K */ 0x74 => a >>= k,
            /* NEG */ 0x84 => a = a.wrapping_neg(),
            /* MOD K */ 0x94 => a %= k,
            /* XOR X */ 0xac => a ^= x,
            /* JA */ 0x05 => at += k as usize,
            /* JEQ K */ 0x15 => at += skipped(a == k),
            /* JGE K */ 0x35 => at += skipped(a >= k),
            /* RET K */ 0x06 => return k,
            /* RET A */ 0x16 => return a,
            /* TAX */ 0x07 => x = a,
            _ => panic!("{code:#x} is not an instruction"),
        }
    }
}

/// The transaction of a request.
fn transaction(edge: &Edge, bytes: &[u8]) -> Option<Transaction> {
    let mut index = Index::default();
    let _may_be_faulty = scan(bytes, Framing::Datagram, &Limits::default(), &mut index);
    let message = Message::new(bytes, &index);
    let name = edge.proxy.name_of(message, &udp(CALLER))?;
    Some(name.transaction)
}

/// Whether the first branch in a request is that of its top Via, and names a transaction.
fn has_first_branch(bytes: &[u8]) -> bool {
    let mut index = Index::default();
    let _may_be_faulty = scan(bytes, Framing::Datagram, &Limits::default(), &mut index);
    let message = Message::new(bytes, &index);
    let first = bytes.windows(7).position(|word| word == b"z9hG4bK");
    let top = message.header(HeaderName::Via);
    let top = top.and_then(|field| Via::parse(field.value).ok()?.rfc3261_branch());
    let (Some(first), Some(branch)) = (first, top) else {
        return false;
    };
    // A bare cookie names nothing (RFC 4475 §3.2.1).
    let is_named = branch.len() > 7 && bytes[first..].starts_with(branch);
    is_named && !bytes.starts_with(b"SIP/")
}

/// The request as one target sees it.
fn relayed(edge: &Edge, request: &str, transaction: Transaction, number: u8) -> String {
    let mut index = Index::default();
    scan(
        request.as_bytes(),
        Framing::Datagram,
        &Limits::default(),
        &mut index,
    )
    .unwrap();
    let branch = Branch {
        transaction,
        number,
    };
    let mut out = Vec::new();
    let relayed = edge.proxy.forward(
        Message::new(request.as_bytes(), &index),
        &udp(CALLER),
        &edge.routes,
        &Forward::new(Target::AsRouted, branch, DEFAULT_BREADTH),
        &mut out,
    );
    relayed.unwrap();
    String::from_utf8(out).unwrap()
}

/// A request with this method, and this text after its branch.
fn request(method: &str, user: &str, before: &str, identifier: &str, after: &str) -> String {
    format!(
        "{method} sip:{user}@example.com SIP/2.0\r\n{before}Via: SIP/2.0/UDP {CALLER};branch=z9hG4bK{identifier}{after}\r\n\
         Max-Forwards: 70\r\nFrom: <sip:a@example.net>;tag=1\r\nTo: <sip:b@example.com>\r\nCall-ID: {user}\r\n\
         CSeq: 1 {method}\r\nContent-Length: 0\r\n\r\n"
    )
}

fn filter(edge: &Edge, blocks: u32) -> Vec<FilterStep> {
    edge.proxy.steering().filter(WORKERS, blocks)
}

#[test]
fn a_datagram_without_a_branch_is_left_to_the_kernel() {
    let edge = edge();
    let filter = filter(&edge, Steering::MOST_BLOCKS);
    let old = request("INVITE", "b", "", "x", "").replace("z9hG4bK", "old");
    let half = request("INVITE", "b", "", "x", "").replace("z9hG4bK", "z9hG4b-");
    let late = request("INVITE", &"b".repeat(2_100), "", "x", "");
    let cut = &request("INVITE", "b", "", "abcdef", "")[..95];
    for datagram in ["", "\r\n\r\n", &old, &half, &late, cut] {
        assert_eq!(run(&filter, datagram.as_bytes()), WORKERS, "{datagram}");
    }
}

#[test]
fn messages_with_odd_syntax_reach_the_owner_of_their_transaction() {
    let edge = edge();
    let filter = filter(&edge, Steering::MOST_BLOCKS);
    let cases = [
        syntax_valid::cases(),
        syntax_invalid::cases(),
        outside::cases(),
        ipv6::cases(),
    ];
    let mut placed = 0;
    for case in cases.concat() {
        let worker = run(&filter, &case.bytes);
        assert!(worker <= WORKERS);
        // Where another branch comes before that of the top Via, the kernel chooses another worker, which hands the message over.
        if worker == WORKERS || !has_first_branch(&case.bytes) {
            continue;
        }
        let name = transaction(&edge, &case.bytes).unwrap();
        assert_eq!(
            worker as usize,
            name.owner(WORKERS as usize),
            "{}",
            case.name
        );
        placed += 1;
    }
    assert!(placed > 20, "{placed}");
}

proptest! {
    #[test]
    fn a_request_and_its_responses_reach_the_owner_of_its_transaction(
        user in "[a-z0-9]{1,60}",
        before in prop::option::of("[ -~]{0,300}"),
        identifier in "[A-Za-z0-9.!%*_+`'~-]{1,60}",
        after in prop::sample::select(vec!["", ";rport", ";rport;x=y", ", SIP/2.0/UDP a;branch=z9hG4bKother", " ;a"]),
        number: u8,
        blocks in 16..=Steering::MOST_BLOCKS,
    ) {
        let edge = edge();
        let filter = filter(&edge, blocks);
        let before = before.map_or(String::new(), |text| format!("X-Before: {text}\r\n"));
        let invite = request("INVITE", &user, &before, &identifier, after);
        let name = transaction(&edge, invite.as_bytes()).unwrap();
        let owner = name.owner(WORKERS as usize);
        prop_assert_eq!(run(&filter, invite.as_bytes()) as usize, owner);
        for method in ["CANCEL", "ACK"] {
            // Another header field may follow, and sent-by may be another one.
            let later = request(method, &user, "", &identifier, after).replace(CALLER, "203.0.113.9:1");
            prop_assert_eq!(run(&filter, later.as_bytes()) as usize, owner);
            prop_assert_eq!(transaction(&edge, later.as_bytes()), Some(name));
        }
        let sent = relayed(&edge, &invite, name, number);
        let response = edge::response(180, &sent);
        prop_assert_eq!(run(&filter, response.as_bytes()) as usize, owner);
        let response = response.replacen("SIP/2.0 180 ", &format!("SIP/2.0 180 {before}").replace("\r\n", ""), 1);
        prop_assert_eq!(run(&filter, response.as_bytes()) as usize, owner);
    }

    #[test]
    fn no_bytes_make_the_filter_read_beyond_their_end(
        pieces in prop::collection::vec(
            prop_oneof![
                "[ -~]{0,40}",
                Just("z9hG4bK".to_owned()),
                Just("hG4bK".to_owned()),
                Just("SIP/".to_owned()),
                Just("z9hG".to_owned()),
            ],
            0..40,
        ),
        blocks in 0..=Steering::MOST_BLOCKS,
    ) {
        let edge = edge();
        let filter = filter(&edge, blocks);
        prop_assert!(run(&filter, pieces.concat().as_bytes()) <= WORKERS);
    }
}
