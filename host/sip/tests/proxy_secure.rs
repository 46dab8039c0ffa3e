//! TLS: ports, `sips` URIs that are never downgraded (RFC 5630), and the names that lead to next hops.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.

mod edge;

use edge::{CALLER, Edge, headers, local, request, response, start_line, udp};
use portcullis_sip::{
    Arrival, Choice, ConnectionId, Forward, Framing, Index, Limits, Message, Received, Target,
    Transport, mark, scan,
};

const TLS: &str = "198.51.100.1:5061";

/// A proxy with a TLS socket, and next hops over TLS and UDP.
fn edge() -> Edge {
    Edge::with(
        |config| config.locals.push(local(Transport::Tls, TLS)),
        |routes| {
            routes.domain("192.0.2.0/24").unwrap();
            routes.domain("gw.example.net").unwrap();
            routes.hop("secure", "sips:gw.example.net").unwrap();
            routes
                .hop("address", "sip:192.0.2.7;transport=tls")
                .unwrap();
            routes.hop("plain", "sip:192.0.2.8").unwrap();
        },
    )
}

fn tls(connection: u64) -> Arrival {
    Arrival {
        transport: Transport::Tls,
        local: TLS.parse().unwrap(),
        connection: Some(ConnectionId(connection)),
        ..udp(CALLER)
    }
}

#[test]
fn the_port_of_tls_is_5061_where_none_is_written() {
    let edge = edge();
    for (uri, way) in [
        ("sip:grace@192.0.2.9", "UDP 192.0.2.9:5060"),
        ("sip:grace@192.0.2.9;transport=tls", "TLS 192.0.2.9:5061"),
        (
            "sip:grace@192.0.2.9:5060;transport=TLS",
            "TLS 192.0.2.9:5060",
        ),
        ("sips:grace@192.0.2.9", "TLS 192.0.2.9:5061"),
        ("sips:grace@192.0.2.9;transport=tcp", "TLS 192.0.2.9:5061"),
        ("sips:grace@gw.example.net", "TLS 192.0.2.90:5061"),
    ] {
        assert_eq!(edge.way(&request("MESSAGE", uri, &[])), way, "{uri}");
    }
    let udp_only = edge.way(&request(
        "MESSAGE",
        "sips:grace@192.0.2.9;transport=udp",
        &[],
    ));
    assert!(udp_only.starts_with("400 "), "{udp_only}");
    // What names the host itself without a port means the socket with the port of its transport.
    let text = request("MESSAGE", "sips:198.51.100.1", &[]);
    let (to, _) = edge
        .relay_to(&text, &udp(CALLER), Target::NextHop("address"))
        .unwrap();
    assert_eq!(to.addr.to_string(), "192.0.2.7:5061");
}

#[test]
fn a_sips_request_goes_out_over_tls_or_not_at_all() {
    let edge = edge();
    let sips = request("INVITE", "sips:grace@example.com", &[]);
    assert_eq!(edge.receive(&sips, &udp(CALLER)).0, Received::Judge);
    let to = |name| edge.relay_to(&sips, &udp(CALLER), Target::NextHop(name));
    assert_eq!(to("plain").unwrap_err().code(), 480);
    let (destination, sent) = to("secure").unwrap();
    assert_eq!(destination.transport, Transport::Tls);
    assert_eq!(start_line(&sent), "INVITE sips:grace@example.com SIP/2.0");
    let via = &headers(&sent, "Via")[0];
    assert!(
        via.starts_with(&format!("SIP/2.0/TLS {TLS};branch=")),
        "{via}"
    );
    let records = headers(&sent, "Record-Route");
    assert!(
        records[0].starts_with(&format!("<sips:{TLS};lr;seal=")),
        "{records:?}"
    );
    // The side of the datagram has no TLS.
    assert_eq!(records[1], "<sip:198.51.100.1:5060;lr;r2=on>");
    // Nor may a Route, or another request URI, lead around it.
    let routed = request(
        "INVITE",
        "sips:grace@example.com",
        &["Route: <sip:192.0.2.9;lr>"],
    );
    assert!(edge.way(&routed).starts_with("480 "));
    let secure = request(
        "INVITE",
        "sips:grace@example.com",
        &["Route: <sips:192.0.2.9;lr>"],
    );
    assert_eq!(edge.way(&secure), "TLS 192.0.2.9:5061");

    let without = Edge::new(|_| {});
    let answer = without.answer(&sips, &udp(CALLER));
    assert_eq!(
        start_line(&answer),
        "SIP/2.0 416 Unsupported URI Scheme in Request URI"
    );
}

#[test]
fn another_request_uri_neither_permits_nor_hides_a_way_without_tls() {
    let edge = edge();
    let way = |received: &str, other: &str, hop: &str| {
        let text = request("INVITE", received, &[]);
        let mut index = Index::default();
        let limits = Limits::default();
        scan(text.as_bytes(), Framing::Datagram, &limits, &mut index).unwrap();
        let forward = Forward {
            target: Target::NextHop(hop),
            request_uri: Some(other.as_bytes()),
            changes: &[],
            branch: None,
            is_of_client: false,
            choice: Choice::FIRST,
            asks_for_load: false,
        };
        let (message, mut out) = (Message::new(text.as_bytes(), &index), Vec::new());
        let sent = edge
            .proxy
            .forward(message, &udp(CALLER), &edge.routes, &forward, &mut out);
        sent.map_or_else(
            |error| error.code(),
            |sent| u16::from(sent.to.transport == Transport::Tls),
        )
    };
    let (sip, sips) = ("sip:grace@example.net", "sips:grace@example.com");
    // The code of the error, or whether it goes over TLS.
    for (received, other, hop, expected) in [
        (sips, sip, "plain", 480),
        (sip, sips, "plain", 480),
        (sips, sip, "secure", 1),
        (sip, sips, "secure", 1),
        (sip, sip, "plain", 0),
    ] {
        assert_eq!(
            way(received, other, hop),
            expected,
            "{received} {other} {hop}"
        );
    }
}

#[test]
fn the_name_that_led_to_a_next_hop_goes_with_the_request() {
    let edge = edge();
    let name = |text: &str, target| {
        let (to, _) = edge.relay_to(text, &udp(CALLER), target).unwrap();
        to.name
    };
    let plain = request("MESSAGE", "sip:grace@example.com", &[]);
    let expected = Some(mark("gw.example.net"));
    assert_eq!(name(&plain, Target::NextHop("secure")), expected);
    assert_eq!(name(&plain, Target::NextHop("address")), None);
    let named = request("MESSAGE", "sips:grace@GW.example.net.", &[]);
    assert_eq!(name(&named, Target::AsRouted), expected);
    assert_eq!(
        edge.routes.name_of_mark(mark("gw.example.net")),
        Some("gw.example.net")
    );
    assert_eq!(edge.routes.name_of_mark(mark("other.example")), None);
}

/// A proxy names itself by its address in Record-Route, and its certificate names its domain.
#[test]
fn a_request_within_a_dialog_demands_the_name_that_led_to_the_next_hop() {
    let edge = edge();
    let invite = request("INVITE", "sip:grace@example.com", &[]);
    let (to, sent) = edge
        .relay_to(&invite, &udp(CALLER), Target::NextHop("secure"))
        .unwrap();
    assert_eq!(to.addr.to_string(), "192.0.2.90:5061");
    let own = headers(&sent, "Record-Route");
    assert_eq!(own.len(), 2, "one for each side: {own:?}");
    let name = |theirs: &str, contact: &str| {
        // The route set of the caller has the order of the way.
        let routes = [own[1], own[0], theirs].into_iter();
        let routes: Vec<_> = routes
            .filter(|value| !value.is_empty())
            .map(|value| format!("Route: {value}"))
            .collect();
        let routes: Vec<_> = routes.iter().map(String::as_str).collect();
        let bye = request("BYE", contact, &routes).replace(
            "To: <sip:grace@example.com>\r\n",
            "To: <sip:grace@example.com>;tag=g\r\n",
        );
        let (to, _) = edge.relay(&bye, &udp(CALLER)).unwrap();
        assert_eq!(to.transport, Transport::Tls, "{theirs} {contact}");
        to.name
    };
    let (there, contact) = ("192.0.2.90:5061", "sip:grace@198.51.100.77");
    let expected = Some(mark("gw.example.net"));
    for theirs in [
        format!("<sip:{there};transport=tls;lr>"),
        format!("<sips:{there};lr>"),
    ] {
        assert_eq!(name(&theirs, contact), expected, "{theirs}");
    }
    assert_eq!(
        name("<sip:192.0.2.90:5071;transport=tls;lr>", contact),
        expected
    );
    let direct = format!("sip:grace@{there};transport=tls");
    assert_eq!(name("", &direct), expected);
    // No name leads to another address, and one that is configured as it is proves itself as such.
    for other in ["192.0.2.91", "192.0.2.7"] {
        let theirs = format!("<sip:{other}:5061;transport=tls;lr>");
        assert_eq!(name(&theirs, contact), None, "{theirs}");
    }
}

#[test]
fn a_response_and_a_request_within_the_dialog_take_the_connection_of_the_caller() {
    let edge = edge();
    let invite = request("INVITE", "sip:grace@example.com", &[])
        .replace("/UDP 192.0.2.10:40000", "/TLS client.invalid");
    let (_, sent) = edge
        .relay_to(&invite, &tls(7), Target::NextHop("plain"))
        .unwrap();
    let (received, _) = edge.receive(&response(200, &sent), &udp("192.0.2.8:5060"));
    let Received::Forward(back) = received else {
        panic!("{received:?}");
    };
    assert_eq!(
        (back.transport, back.connection),
        (Transport::Tls, Some(ConnectionId(7)))
    );
    // Without the connection, the port of TLS (RFC 3261 §18.2.2).
    assert_eq!(back.addr.to_string(), "192.0.2.10:5061");

    let routes = headers(&sent, "Record-Route");
    let routes: Vec<_> = routes
        .iter()
        .map(|value| format!("Route: {value}"))
        .collect();
    let routes: Vec<_> = routes.iter().map(String::as_str).collect();
    let bye = request("BYE", "sip:ada@client.invalid;transport=tls", &routes)
        .replace(
            "From: <sip:ada@example.net>;tag=ada1",
            "From: <sip:grace@example.com>;tag=g",
        )
        .replace(
            "To: <sip:grace@example.com>\r\n",
            "To: <sip:ada@example.net>;tag=ada1\r\n",
        );
    let (to, sent) = edge.relay(&bye, &udp("192.0.2.8:5060")).unwrap();
    assert_eq!(
        (to.transport, to.connection),
        (Transport::Tls, Some(ConnectionId(7)))
    );
    assert!(headers(&sent, "Via")[0].starts_with(&format!("SIP/2.0/TLS {TLS}")));
}
