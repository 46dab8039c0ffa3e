//! Requests from pieces, and the seeds of the fuzz target.

use std::path::Path;

use proptest::prelude::*;
use proptest::sample::select;

use super::*;

#[test]
fn every_seed_is_relayed_and_its_beginnings_break_nothing() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/relay");
    let seeds: Vec<_> = std::fs::read_dir(seeds).unwrap().collect();
    assert!(seeds.len() >= 17);
    for seed in seeds {
        let path = seed.unwrap().path();
        let input = std::fs::read(&path).unwrap();
        assert!(relay(&input), "{}", path.display());
        for end in 0..input.len() {
            relay(&input[..end]);
        }
    }
}

fn via() -> impl Strategy<Value = String> {
    let value = (
        select(vec!["SIP/2.0/UDP", "SIP / 2.0 / TCP", "SIP/2.0/TLS"]),
        select(vec![
            "192.0.2.10",
            "pc.example:5070",
            "[2001:db8::10]:7",
            "192.0.2.99 : 9",
        ]),
        proptest::collection::vec(
            select(vec![
                ";rport",
                "; rport=9",
                ";received=192.0.2.1",
                ";branch=z9hG4bKx",
                ";maddr=192.0.2.3",
                " ;x=\"a,;rport\"",
                ";branch=1",
            ]),
            0..5,
        ),
    );
    let value = value
        .prop_map(|(protocol, sent_by, params)| format!("{protocol} {sent_by}{}", params.concat()));
    let line = (
        select(vec!["Via: ", "v:", "VIA\t: "]),
        proptest::collection::vec(value, 1..3),
        select(vec![",", " ,\r\n "]),
    );
    line.prop_map(|(name, values, comma)| format!("{name}{}\r\n", values.join(comma)))
}

fn field() -> impl Strategy<Value = String> {
    let route = proptest::collection::vec(
        select(vec![
            "<sip:198.51.100.1;lr>",
            "<sip:edge.example.com;lr;r2=on>",
            "\"A, B\" <sip:192.0.2.9;lr>",
            "<sip:192.0.2.8>",
            "<sip:grace@192.0.2.44>",
            "<sips:192.0.2.44>",
            "",
        ]),
        0..4,
    );
    let route = (
        select(vec!["Route: ", "ROUTE:\r\n ", "route :"]),
        route,
        select(vec![",", ", ", "\r\n\t,"]),
    );
    prop_oneof![
        3 => via(),
        3 => route.prop_map(|(name, values, comma)| format!("{name}{}\r\n", values.join(comma))),
        2 => select(vec![
            "Max-Forwards: 0\r\n", "Max-Forwards: 70\r\n", "max-forwards :\r\n 00012 \r\n", "Max-Forwards: 300\r\n",
            "Content-Length: 5\r\n", "l: 0\r\n", "Content-Length: 3\r\n", "Subject: x\r\n", "s: y\r\n z\r\n", "X-A:\r\n", "x-a: 1\r\n",
            "Record-Route: <sip:p;lr>\r\n", "m: <sip:a@b>\r\n", "Proxy-Require:\r\n",
        ]).prop_map(str::to_owned),
    ]
}

fn request() -> impl Strategy<Value = Vec<u8>> {
    let method = select(vec![
        "INVITE", "ACK", "CANCEL", "BYE", "OPTIONS", "NOTIFY", "REGISTER",
    ]);
    let uri = select(vec![
        "sip:grace@example.com",
        "sip:198.51.100.1;lr",
        "sip:g@192.0.2.44:5060;transport=udp;maddr=198.51.100.1;x",
        "sip:g@gw.example.net;transport=tcp",
        "tel:+1",
    ]);
    let needed = select(vec!["", ";tag=t"])
        .prop_map(|tag| format!("f: <sip:a@b>;tag=1\r\nTo: <sip:c@d>{tag}\r\nCall-ID: i\r\n"));
    let fields = proptest::collection::vec(field(), 0..8);
    let body = select(vec!["", "hello", "\r\n\r\nINVITE"]);
    let parts = (method, uri, via(), fields, needed, body, any::<bool>());
    parts.prop_map(|(method, uri, via, fields, needed, body, has_line_feeds)| {
        let fields = fields.concat();
        let text = format!(
            "{method} {uri} SIP/2.0\r\n{via}{needed}CSeq: 7 {method}\r\n{fields}\r\n{body}"
        );
        match has_line_feeds {
            true => text.replace("\r\n", "\n").into_bytes(),
            false => text.into_bytes(),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 1024, ..ProptestConfig::default() })]

    #[test]
    fn what_is_relayed_differs_by_its_edits_alone(
        choice: u8,
        edits in proptest::collection::vec(select(vec!["+X-New: a", "-Subject", "-s", "-x-A", "-Via", "+X-A: b, c", "-Record-Route"]), 0..4),
        request in request(),
    ) {
        let input = [&[choice][..], edits.join("\n").as_bytes(), b"\0", &request].concat();
        relay(&input);
    }
}
