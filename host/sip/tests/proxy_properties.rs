//! What holds for every message: untouched bytes stay, branches are shared, responses find back, nothing panics.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // A panic is how a test fails.

mod edge;
mod torture;

use std::net::SocketAddr;

use edge::{Edge, NEXT_HOP, local, tcp, udp};
use portcullis_sip::{
    Arrival, Framing, HeaderName, Index, Limits, Message, Received, StartLine, Target, Transport,
    scan, values,
};
use proptest::prelude::*;
use proptest::sample::select;
use torture::{outside, syntax_invalid, syntax_valid};

const SOURCE: &str = "192.0.2.10:5060";

fn edge() -> Edge {
    Edge::new(|routes| {
        routes.hop("tcp", "sip:192.0.2.81;transport=tcp").unwrap();
        routes.domain("192.0.2.0/24").unwrap();
        routes.domain("gw.example.net").unwrap();
    })
}

fn relay(edge: &Edge, bytes: &[u8], arrival: &Arrival, target: Target<'_>) -> Vec<u8> {
    let mut index = Index::default();
    scan(bytes, Framing::Datagram, &Limits::default(), &mut index).unwrap();
    let mut out = Vec::new();
    let message = Message::new(bytes, &index);
    edge.proxy
        .relay(message, arrival, &edge.routes, target, &mut out)
        .unwrap();
    out
}

fn vias(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut index = Index::default();
    let _faulty_too = scan(bytes, Framing::Datagram, &Limits::default(), &mut index);
    let message = Message::new(bytes, &index);
    let fields = message.headers(HeaderName::Via);
    fields
        .flat_map(|field| values(field.value))
        .map(|value| value.bytes.to_vec())
        .collect()
}

/// A header line that no proxy reads: any bytes but line ends, folds among them.
fn strange_header() -> impl Strategy<Value = Vec<u8>> {
    let name = "[A-Za-z0-9.!%*_+`'~-]{1,20}".prop_map(|name| format!("X-{name}").into_bytes());
    let name = prop_oneof![
        name,
        select(vec![
            b"Contact".to_vec(),
            b"m".to_vec(),
            b"Subject".to_vec()
        ])
    ];
    let part = || {
        proptest::collection::vec(
            any::<u8>().prop_filter("no line end", |byte| !b"\r\n".contains(byte)),
            0..40,
        )
    };
    let colon = select(vec![&b":"[..], b": ", b" : ", b"\t:\t "]);
    (name, colon, part(), proptest::option::of(part())).prop_map(|(name, colon, first, fold)| {
        let mut line = [&name[..], colon, &first[..]].concat();
        if let Some(fold) = fold {
            line.extend_from_slice(b"\r\n ");
            line.extend_from_slice(&fold);
        }
        line.extend_from_slice(b"\r\n");
        line
    })
}

/// A request with strange headers among those that a proxy reads, in any order.
fn request(via: &'static str) -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let known = [
        &format!("Via: {via}\r\n")[..],
        "Max-Forwards: 70\r\n",
        "f:  \"A, B\" <sip:a@b;c>;tag=f\r\n",
        "To  : sip:g@h\r\n",
        "CALL-ID: any thing\r\n",
        "CSeq:\r\n 7 INVITE\r\n",
    ]
    .map(|line| line.as_bytes().to_vec());
    let strange = proptest::collection::vec(strange_header(), 0..12);
    let body = proptest::collection::vec(any::<u8>(), 0..200);
    (strange, body)
        .prop_map(move |(strange, body)| {
            let length = format!("l:{}\r\n", body.len()).into_bytes();
            (
                known
                    .iter()
                    .cloned()
                    .chain(strange)
                    .chain([length])
                    .collect::<Vec<_>>(),
                body,
            )
        })
        .prop_flat_map(|(lines, body)| (Just(lines).prop_shuffle(), Just(body)))
        .prop_map(|(lines, body)| {
            (
                b"INVITE sip:grace@example.com SIP/2.0\r\n".to_vec(),
                [lines.concat(), b"\r\n".to_vec(), body].concat(),
            )
        })
}

/// A Via value as hops before us may have written it.
fn via_value() -> impl Strategy<Value = String> {
    let transport = select(vec!["UDP", "TCP", "SCTP", "x-Pigeon"]);
    let host = select(vec![
        "192.0.2.10",
        "192.0.2.10:5060",
        "pc.example:5070",
        "[2001:db8::9]",
        "[::ffff:192.0.2.10]:7",
    ]);
    let params = select(vec![
        "",
        ";rport",
        ";rport ; x=\"a,b;c\"",
        ";received=[2001:db8::1]",
        ";rport=9;ttl=1",
        ";maddr=192.0.2.99",
    ]);
    let branch = select(vec![
        "",
        ";branch=z9hG4bKa.b",
        ";branch=old",
        ";branch=z9hG4bK",
    ]);
    (transport, host, branch, params).prop_map(|(transport, host, branch, params)| {
        format!("SIP/2.0/{transport} {host}{branch}{params}")
    })
}

/// Via lines with one to three values each.
fn via_lines() -> impl Strategy<Value = String> {
    let line = proptest::collection::vec(via_value(), 1..4);
    let comma = select(vec![",", ", ", " ,\r\n "]);
    let name = select(vec!["Via: ", "v:", "VIA : "]);
    let lines = (line, comma, name)
        .prop_map(|(values, comma, name)| format!("{name}{}\r\n", values.join(comma)));
    proptest::collection::vec(lines, 1..4).prop_map(|lines| lines.concat())
}

fn with_vias(method: &str, vias: &str, to: &str) -> Vec<u8> {
    format!(
        "{method} sip:grace@example.com SIP/2.0\r\n{vias}From: <sip:a@b>;tag=f\r\nTo: <sip:g@h>{to}\r\n\
         Call-ID: c\r\nCSeq: 7 {method}\r\nContent-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

/// The response that answers what a callee got: every Via as it came.
fn answer(request: &[u8]) -> Vec<u8> {
    let vias: Vec<u8> = vias(request)
        .iter()
        .flat_map(|via| [b"Via: ", &via[..], b"\r\n"].concat())
        .collect();
    let rest = b"From: <sip:a@b>;tag=f\r\nTo: <sip:g@h>;tag=t\r\nCall-ID: c\r\nCSeq: 7 INVITE\r\nl: 0\r\n\r\n";
    [b"SIP/2.0 200 OK\r\n", &vias[..], rest].concat()
}

fn receive(edge: &Edge, bytes: &[u8], arrival: &Arrival) -> (Received, Vec<u8>) {
    let mut index = Index::default();
    let scanned = scan(bytes, Framing::Datagram, &Limits::default(), &mut index);
    let mut out = Vec::new();
    let received = edge
        .proxy
        .receive(Message::new(bytes, &index), scanned, arrival, &mut out);
    (received, out)
}

/// Every torture message, well-formed or not.
fn corpus() -> Vec<Vec<u8>> {
    let cases = [
        syntax_valid::cases(),
        syntax_invalid::cases(),
        outside::cases(),
        torture::ipv6::cases(),
    ];
    cases.concat().into_iter().map(|case| case.bytes).collect()
}

/// One change of some bytes.
#[derive(Clone, Debug)]
enum Damage {
    Replace(usize, u8),
    Cut(usize, usize),
    Insert(usize, &'static str),
    Double(usize, usize, usize),
}

impl Damage {
    fn strategy() -> impl Strategy<Value = Self> {
        let at = || any::<usize>();
        let piece = select(vec![
            "\r\n",
            "\r",
            "\n",
            "\0",
            ";",
            ",",
            "<",
            ">",
            "\"",
            "\\",
            "@",
            "[",
            "]",
            "%",
            " ",
            ":",
            "=",
            "-",
            "Via: ",
            "v: SIP/2.0/UDP 198.51.100.1:5060;branch=z9hG4bK\r\n",
            "Route: <sip:198.51.100.1;lr>,\r\n",
            "Route: <sip:192.0.2.9>\r\n",
            "Max-Forwards: 0\r\n",
            "l: 9\r\n",
            ";rport",
            ";lr",
            ";maddr=198.51.100.1",
            "SIP/2.0 200 OK\r\n",
            "ACK sip:a SIP/2.0\r\n",
            "sip:198.51.100.1;lr",
        ]);
        prop_oneof![
            (at(), any::<u8>()).prop_map(|(at, byte)| Self::Replace(at, byte)),
            (at(), 0_usize..80).prop_map(|(at, length)| Self::Cut(at, length)),
            (at(), piece).prop_map(|(at, piece)| Self::Insert(at, piece)),
            (at(), 0_usize..80, at()).prop_map(|(at, length, to)| Self::Double(at, length, to)),
        ]
    }

    fn apply(&self, bytes: &mut Vec<u8>) {
        let length = bytes.len();
        let place = |at: usize| at % (length + 1);
        match *self {
            Self::Replace(at, byte) => {
                if let Some(old) = bytes.get_mut(place(at)) {
                    *old = byte;
                }
            }
            Self::Cut(at, length) => {
                let start = place(at);
                bytes.drain(start..(start + length).min(bytes.len()));
            }
            Self::Insert(at, piece) => {
                let start = place(at);
                bytes.splice(start..start, piece.bytes());
            }
            Self::Double(at, length, to) => {
                let (start, to) = (place(at), place(to));
                let copy = bytes[start..(start + length).min(bytes.len())].to_vec();
                bytes.splice(to..to, copy);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_relay_leaves_untouched_bytes_as_they_are(
        (start, rest) in request("SIP/2.0/UDP 192.0.2.10;branch=z9hG4bKx")
    ) {
        let bytes = [&start[..], &rest[..]].concat();
        let sent = relay(&edge(), &bytes, &udp(SOURCE), Target::AsRouted);
        let at = rest.windows(16).position(|part| part == b"Max-Forwards: 70").unwrap();
        let mut expected = rest.clone();
        expected[at + 14..at + 16].copy_from_slice(b"69");
        prop_assert!(sent.starts_with(&start));
        prop_assert!(sent.ends_with(&expected));
        let added = String::from_utf8(sent[start.len()..sent.len() - rest.len()].to_vec()).unwrap();
        let names: Vec<&str> = added.lines().map(|line| line.split(':').next().unwrap()).collect();
        prop_assert_eq!(names, ["Via", "Record-Route"]);
    }

    #[test]
    fn a_relay_notes_the_source_and_touches_nothing_else_of_the_vias(
        (start, rest) in request("SIP / 2.0 / UDP\r\n pc.example ; rport; branch=1 , SIP/2.0/UDP next;rport")
    ) {
        let bytes = [&start[..], &rest[..]].concat();
        let sent = relay(&edge(), &bytes, &tcp(SOURCE, 3), Target::NextHop("tcp"));
        let expected = String::from("SIP / 2.0 / UDP\r\n pc.example ;rport=5060; branch=1;received=192.0.2.10");
        prop_assert_eq!(&vias(&sent)[1..], [expected.into_bytes(), b"SIP/2.0/UDP next;rport".to_vec()]);
    }

    #[test]
    fn cancel_ack_and_retransmission_share_the_branch(lines in via_lines()) {
        let edge = edge();
        let via = |method: &str, to: &str| {
            let sent = relay(&edge, &with_vias(method, &lines, to), &udp(SOURCE), Target::AsRouted);
            vias(&sent)[0].clone()
        };
        let invite = via("INVITE", "");
        prop_assert_eq!(&via("INVITE", ""), &invite);
        prop_assert_eq!(&via("CANCEL", ""), &invite);
        prop_assert_eq!(&via("ACK", ";tag=callee"), &invite);
    }

    #[test]
    fn the_way_back_inverts_the_way_there(
        lines in via_lines(),
        hops in proptest::collection::vec((any::<bool>(), any::<bool>()), 1..4),
    ) {
        // Each hop is a proxy of its own with UDP, TCP and a second UDP socket.
        let place = |hop: usize| SocketAddr::from(([198, 51, 100, hop as u8 + 1], 5060));
        let edges: Vec<Edge> = hops
            .iter()
            .enumerate()
            .map(|(hop, &(leaves_by_tcp, _))| {
                let transport = if leaves_by_tcp { ";transport=tcp" } else { "" };
                Edge::with(
                    |config| {
                        let addr = place(hop).to_string();
                        config.locals = [Transport::Udp, Transport::Tcp].map(|transport| local(transport, &addr)).into();
                        config.locals.insert(0, local(Transport::Udp, &format!("{}:7", place(hop).ip())));
                        config.key = [hop as u8; 16];
                    },
                    |routes| {
                        routes.default_hop(&format!("sip:{}{transport}", place(hop + 1))).unwrap();
                    },
                )
            })
            .collect();

        let first = Arrival { local: place(0), ..if hops[0].1 { tcp(SOURCE, 1) } else { udp(SOURCE) } };
        let (mut bytes, mut arrival) = (with_vias("INVITE", &lines, ""), first);
        let mut passed = Vec::new();
        for (hop, edge) in edges.iter().enumerate() {
            let mut index = Index::default();
            scan(&bytes, Framing::Datagram, &Limits::default(), &mut index).unwrap();
            let mut out = Vec::new();
            let to = edge.proxy.relay(Message::new(&bytes, &index), &arrival, &edge.routes, Target::AsRouted, &mut out).unwrap();
            prop_assert_eq!(to.addr, place(hop + 1));
            let next = Arrival {
                source: to.from.unwrap(),
                local: to.addr,
                transport: to.transport,
                connection: to.transport.is_reliable().then_some(portcullis_sip::ConnectionId(hop as u64 + 100)),
            };
            passed.push((arrival, out.clone(), to));
            (bytes, arrival) = (out, next);
        }

        let mut response = answer(&bytes);
        for (edge, (arrival, sent, to)) in edges.iter().zip(&passed).rev() {
            let came = Arrival { source: to.addr, local: to.from.unwrap(), transport: to.transport, connection: None };
            let (received, out) = receive(edge, &response, &came);
            let is_first = arrival.source.to_string() == SOURCE;
            match received {
                Received::Forward(back) => {
                    prop_assert_eq!(&vias(&out), &vias(sent)[1..]);
                    prop_assert_eq!(back.from, Some(arrival.local));
                    prop_assert_eq!(back.connection, arrival.connection);
                    if !is_first {
                        prop_assert_eq!((back.addr, back.transport), (arrival.source, arrival.transport));
                    }
                }
                // The caller's Via may name a transport that nobody here speaks or a way that came in otherwise.
                other => prop_assert!(is_first, "{:?}", other),
            }
            response = out;
        }
    }

    #[test]
    fn a_seal_holds_for_its_dialog_and_for_no_other(
        ids in proptest::collection::vec("[A-Za-z0-9.!~_-]{1,40}", 4),
        over_tcp: bool,
        source: SocketAddr,
    ) {
        let [call_id, tag, other_id, other_tag] = &ids[..] else { unreachable!() };
        let edge = edge();
        let source = SocketAddr::new(source.ip().to_canonical(), source.port().max(1));
        let arrival = Arrival { source, ..if over_tcp { tcp(SOURCE, 9) } else { udp(SOURCE) } };
        let text = |method: &str, call_id: &str, from: &str, to: &str, route: &str| {
            let to = if to.is_empty() { String::new() } else { format!(";tag={to}") };
            format!(
                "{method} sip:b@h SIP/2.0\r\nVia: SIP/2.0/UDP a;rport;branch=z9hG4bK1\r\nFrom: <sip:a@h>;tag={from}\r\n\
                 To: <sip:b@h>{to}\r\nCall-ID: {call_id}\r\nCSeq: 1 {method}\r\n{route}Content-Length: 0\r\n\r\n"
            )
            .into_bytes()
        };
        let sent = relay(&edge, &text("INVITE", call_id, tag, "", ""), &arrival, Target::AsRouted);
        let sent = String::from_utf8(sent).unwrap();
        let routes: String = edge::headers(&sent, "Record-Route").iter().map(|route| format!("Route: {route}\r\n")).collect();
        let holds = |call_id: &str, from: &str, to: &str| {
            let text = text("BYE", call_id, from, to, &routes);
            let mut index = Index::default();
            scan(&text, Framing::Datagram, &Limits::default(), &mut index).unwrap();
            matches!(edge.proxy.dialog(Message::new(&text, &index)), portcullis_sip::DialogSeal::Valid(_))
        };
        prop_assert!(holds(call_id, tag, other_tag));
        prop_assert!(holds(call_id, other_tag, tag));
        prop_assert_eq!(holds(other_id, tag, other_tag), other_id == call_id);
        prop_assert_eq!(holds(call_id, other_tag, other_tag), other_tag == tag);
    }

    #[test]
    fn a_rejection_can_be_read_and_has_every_via(lines in via_lines(), code in 300_u16..700) {
        let bytes = with_vias("INVITE", &lines, "");
        let mut index = Index::default();
        scan(&bytes, Framing::Datagram, &Limits::default(), &mut index).unwrap();
        let message = Message::new(&bytes, &index);
        let mut out = Vec::new();
        let headers = [("X-Why", "because")];
        edge().proxy.reject(message, &udp(SOURCE), code, "", &headers, &mut out).unwrap();

        let mut index = Index::default();
        scan(&out, Framing::Stream, &Limits::default(), &mut index).unwrap();
        let reply = Message::new(&out, &index);
        let is_ours = matches!(reply.start_line(), StartLine::Response { code: got, .. } if got == code);
        prop_assert!(is_ours);
        prop_assert_eq!(vias(&out).len(), vias(&bytes).len());
        let blank = |via: &[u8]| via.iter().map(|&byte| if byte < b' ' { b' ' } else { byte }).collect::<Vec<u8>>();
        let received: Vec<_> = vias(&bytes)[1..].iter().map(|via| blank(via)).collect();
        prop_assert_eq!(&vias(&out)[1..], received);
        prop_assert_eq!(reply.cseq(), message.cseq());
        prop_assert!(reply.body().is_empty());
    }

    #[test]
    fn no_damage_breaks_the_proxy(
        message in select(corpus()),
        damage in proptest::collection::vec(Damage::strategy(), 0..6),
        over_tcp: bool,
    ) {
        let edge = edge();
        let mut bytes = message;
        if let Some(at) = bytes.windows(5).position(|part| part == b"{VIA}") {
            let sent = relay(&edge, &with_vias("INVITE", "Via: SIP/2.0/UDP a\r\n", ""), &udp(SOURCE), Target::AsRouted);
            bytes.splice(at..at + 5, [b"Via: ".to_vec(), vias(&sent)[0].clone()].concat());
        }
        for one in damage {
            one.apply(&mut bytes);
        }
        let arrival = if over_tcp { tcp(NEXT_HOP, 1) } else { udp(NEXT_HOP) };
        let mut index = Index::default();
        let scanned = scan(&bytes, Framing::Datagram, &Limits::default(), &mut index);
        let message = Message::new(&bytes, &index);
        let mut out = Vec::new();
        let received = edge.proxy.receive(message, scanned, &arrival, &mut out);
        let is_ack = matches!(message.start_line(), StartLine::Request { method: b"ACK", .. });
        match received {
            Received::Reply(to) => {
                prop_assert!(!is_ack && to.addr.ip() == arrival.source.ip());
                prop_assert!(out.ends_with(b"Content-Length: 0\r\n\r\n"));
            }
            Received::Forward(_) => prop_assert!(out.starts_with(b"SIP/2.0 ")),
            Received::Judge | Received::Absorbed | Received::Drop(_) => prop_assert!(out.is_empty()),
        }
        for target in [Target::AsRouted, Target::NextHop("tcp"), Target::NextHop("nobody")] {
            let relayed = edge.proxy.relay(message, &arrival, &edge.routes, target, &mut out);
            prop_assert!(received != Received::Judge || relayed.is_err() || !out.is_empty());
            if received == Received::Judge && relayed.is_ok() {
                let mut index = Index::default();
                let again = scan(&out, Framing::Datagram, &Limits::default(), &mut index);
                prop_assert!(again.is_ok(), "{:?}: {}", again, out.escape_ascii());
                prop_assert_eq!(Message::new(&out, &index).body(), message.body());
            }
        }
        let replied = edge.proxy.reject(message, &arrival, 403, "", &[("a", "b")], &mut out);
        prop_assert!(!is_ack || replied.is_none());
        prop_assert!(received != Received::Judge || is_ack || replied.is_some());
    }
}
