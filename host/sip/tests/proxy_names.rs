//! Next hops with several addresses: which one a call takes, and which one comes next (RFC 3263 §4).

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // A panic is how a test fails.

mod edge;

use std::net::SocketAddr;

use edge::{CALLER, Edge, request, udp};
use portcullis_sip::{
    Candidate, Choice, Destination, Forward, Forwarded, Framing, Index, Limits, Message,
    RelayError, Routes, RoutesBuilder, Target, Transport, scan,
};

fn server(addr: &str, priority: u16, weight: u16) -> Candidate {
    let addr: SocketAddr = addr.parse().unwrap();
    Candidate {
        priority,
        weight,
        service: u64::from(addr.port()),
        ..Candidate::plain(Transport::Udp, addr)
    }
}

/// The default next hop is a name that leads to these addresses.
fn edge(candidates: &[Candidate]) -> Edge {
    let mut builder = RoutesBuilder::new();
    builder.default_hop("sip:carrier.example").unwrap();
    let routes: Routes = builder.build_of(|lookup| match &*lookup.name {
        "carrier.example" => candidates.to_vec(),
        _ => Vec::new(),
    });
    Edge {
        routes,
        ..Edge::new(|_| {})
    }
}

/// Where the request of this call goes.
fn forward(edge: &Edge, call_id: &str, choice: Choice<'_>) -> Result<Forwarded, RelayError> {
    let text = request("MESSAGE", "sip:grace@elsewhere.example", &[]);
    let line = text.lines().find(|line| line.starts_with("Call-ID:"));
    let text = text.replace(line.unwrap(), &format!("Call-ID: {call_id}"));
    let mut index = Index::default();
    let limits = Limits::default();
    scan(text.as_bytes(), Framing::Datagram, &limits, &mut index).unwrap();
    let message = Message::new(text.as_bytes(), &index);
    let forward = Forward {
        target: Target::AsRouted,
        request_uri: None,
        changes: &[],
        branch: None,
        is_of_client: false,
        choice,
        asks_for_load: false,
    };
    let (arrival, mut out) = (udp(CALLER), Vec::new());
    let proxy = &edge.proxy;
    proxy.forward(message, &arrival, &edge.routes, &forward, &mut out)
}

/// The ports in the order in which they are tried.
fn order(edge: &Edge, call_id: &str) -> Vec<u16> {
    let (mut tried, mut ports) = (Vec::<Destination>::new(), Vec::new());
    loop {
        let choice = Choice {
            tried: &tried,
            ..Choice::FIRST
        };
        let Forwarded { to, others } = forward(edge, call_id, choice).unwrap();
        ports.push(to.addr.port());
        tried.push(to);
        if others == 0 {
            return ports;
        }
    }
}

#[test]
fn all_requests_of_a_call_take_the_same_order_and_calls_are_shared_out() {
    let edge = edge(&[
        server("192.0.2.1:5071", 10, 50),
        server("192.0.2.2:5072", 10, 50),
        server("192.0.2.3:5073", 20, 0),
    ]);
    let mut firsts = [0; 2];
    for call in 0..200 {
        let call_id = format!("call{call}@test");
        let ports = order(&edge, &call_id);
        assert_eq!(ports, order(&edge, &call_id));
        assert_eq!(
            (ports.len(), ports[2]),
            (3, 5073),
            "the backup is the last one"
        );
        firsts[usize::from(ports[0] - 5071)] += 1;
    }
    // The deviation is 7.
    assert!(firsts.iter().all(|&count| count > 60), "{firsts:?}");
}

#[test]
fn an_address_that_has_failed_lately_comes_last_and_is_used_when_it_is_the_only_one() {
    let both = edge(&[
        server("192.0.2.1:5071", 10, 1),
        server("192.0.2.2:5072", 20, 1),
    ]);
    let choice = Choice {
        has_failed: &|_, addr| addr.port() == 5071,
        ..Choice::FIRST
    };
    let first = forward(&both, "x", choice).unwrap();
    assert_eq!((first.to.addr.port(), first.others), (5072, 1));
    let only = edge(&[server("192.0.2.1:5071", 10, 1)]);
    let first = forward(&only, "x", choice).unwrap();
    assert_eq!((first.to.addr.port(), first.others), (5071, 0));
}

#[test]
fn our_own_addresses_and_those_that_no_socket_reaches_are_left_out() {
    let own = "198.51.100.1:5060";
    let other = edge(&[server(own, 10, 1), server("192.0.2.2:5072", 20, 1)]);
    assert_eq!(order(&other, "x"), [5072]);
    let only = edge(&[server(own, 10, 1)]);
    let error = forward(&only, "x", Choice::FIRST).unwrap_err();
    assert!(matches!(error, RelayError::Loop(_)), "{error}");
    let none = edge(&[]);
    let error = forward(&none, "x", Choice::FIRST).unwrap_err();
    assert!(matches!(error, RelayError::Unresolved(_)), "{error}");
}
