//! Header fields that are added to requests on their way, and taken out.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // A panic is how a test fails.

mod edge;

use edge::{CALLER, Edge, headers, request, udp};
use portcullis_sip::{HeaderChange, RelayError, Target};

fn edge() -> Edge {
    Edge::new(|_| {})
}

fn relayed(text: &str) -> String {
    edge().relay(text, &udp(CALLER)).unwrap().1
}

/// The request as it goes out with these changes.
fn changed(text: &str, changes: &[HeaderChange<'_>]) -> Result<String, RelayError> {
    let edge = edge();
    let mut sent = Vec::new();
    let mut index = portcullis_sip::Index::default();
    let (framing, limits) = (portcullis_sip::Framing::Datagram, Default::default());
    portcullis_sip::scan(text.as_bytes(), framing, &limits, &mut index).unwrap();
    let message = portcullis_sip::Message::new(text.as_bytes(), &index);
    let (arrival, routes) = (udp(CALLER), &edge.routes);
    let relayed = edge.proxy.relay_changed(
        message,
        &arrival,
        routes,
        Target::AsRouted,
        changes,
        &mut sent,
    );
    relayed.map(|_| String::from_utf8(sent).unwrap())
}

#[test]
fn asked_for_header_fields_come_last_and_go_whole() {
    let text = request(
        "MESSAGE",
        "sip:grace@example.com",
        &["P-A: one", "s: folded\r\n\tvalue", "X-Last: 1", "p-a: two"],
    );
    let changes = [
        HeaderChange::Add {
            name: "X-New",
            value: "a, b",
        },
        HeaderChange::Remove("p-A"),
        HeaderChange::Remove("Subject"),
        HeaderChange::Remove("P-A"),
        HeaderChange::Remove("X-None"),
        HeaderChange::Add {
            name: "Subject",
            value: "other",
        },
    ];
    let plain = relayed(&text);
    let expected = plain
        .replace("P-A: one\r\n", "")
        .replace("s: folded\r\n\tvalue\r\n", "")
        .replace("p-a: two\r\n", "")
        .replacen("\r\n\r\n", "\r\nX-New: a, b\r\nSubject: other\r\n\r\n", 1);
    assert_eq!(changed(&text, &changes).unwrap(), expected);
    assert_eq!(changed(&text, &[]).unwrap(), plain);
}

#[test]
fn the_first_header_line_can_go() {
    let text = request("MESSAGE", "sip:grace@example.com", &[]).replacen(
        "\r\nVia",
        "\r\nX-First: 1\r\nVia",
        1,
    );
    let sent = changed(&text, &[HeaderChange::Remove("X-First")]).unwrap();
    assert!(!sent.contains("X-First"), "{sent}");
    assert_eq!(headers(&sent, "Via").len(), 2);
}

#[test]
fn all_lines_that_a_message_may_have_can_go() {
    let many: Vec<_> = (0..240).map(|n| format!("X-A: {n}")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let text = request("MESSAGE", "sip:grace@example.com", &many);
    let sent = changed(&text, &[HeaderChange::Remove("X-A")]).unwrap();
    assert!(!sent.contains("X-A"));
    assert_eq!(
        sent,
        relayed(&request("MESSAGE", "sip:grace@example.com", &[]))
    );
}
