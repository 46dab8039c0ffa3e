//! Clients that only their flow leads to: tokens in Path and Record-Route, and requests that bring them back (RFC 3327, RFC 5626).

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // A panic is how a test fails.

mod edge;

use std::net::SocketAddr;

use edge::{CALLER, Edge, NEXT_HOP, headers, request, start_line, tcp, udp};
use portcullis_sip::{
    Clients, ConnectionId, Framing, Index, Message, ProxyConfig, RelayError, RouteFlow, Routes,
    Target, Transport, scan,
};

const BEGUN: u64 = 1_800_000_000;
const WEEK: u64 = 7 * 24 * 3_600;

/// An edge whose peers are clients.
fn edge() -> Edge {
    with(|_| {})
}

fn with(configure: impl FnOnce(&mut ProxyConfig)) -> Edge {
    let edge = Edge::with(
        |config| {
            let sockets = config.locals.iter();
            let sockets = sockets.map(|local| (local.transport, local.addr)).collect();
            config.clients = Clients {
                sockets,
                ..Clients::default()
            };
            configure(config);
        },
        |routes| {
            routes.default_hop(&format!("sip:{NEXT_HOP}")).unwrap();
            routes.hop("tcp", "sip:192.0.2.81;transport=tcp").unwrap();
        },
    );
    edge.proxy.set_time(BEGUN);
    edge
}

/// The values of Path that a registrar gets: the last one has the token.
fn path(edge: &Edge, arrival: &portcullis_sip::Arrival, lines: &[&str]) -> String {
    let register = request("REGISTER", "sip:example.com", lines);
    let (_, sent) = edge.relay(&register, arrival).unwrap();
    assert_eq!(headers(&sent, "Record-Route"), [""; 0]);
    let paths = headers(&sent, "Path");
    let last = paths.last().unwrap();
    assert!(last.starts_with("<sip:flow-"), "{paths:?}");
    paths.join(", ")
}

fn user(value: &str) -> &str {
    let at = value.find("flow-").unwrap();
    value[at..].split_once('@').unwrap().0
}

/// A request of the registrar to the client, with this Route value.
fn to_client(method: &str, route: &str) -> String {
    let line = format!("Route: {route}");
    request(method, "sip:ada@10.0.0.9:5060", &[&line])
}

fn refused(edge: &Edge, text: &str) -> (u16, &'static str) {
    let error = edge.relay(text, &udp(NEXT_HOP)).unwrap_err();
    (error.code(), error.reason())
}

#[test]
fn a_registrar_gets_the_flow_of_a_client_and_requests_come_back_along_it() {
    let edge = edge();
    for arrival in [
        udp(CALLER),
        udp("[2001:db8::10]:40000"),
        tcp(CALLER, u64::MAX),
    ] {
        let path = path(&edge, &arrival, &[]);
        // The registrar gets a value that it can reach if the client has another socket.
        let registrars = "<sip:198.51.100.1:5060;lr>, ";
        let (front, host) = match (arrival.source.is_ipv4(), arrival.transport.is_reliable()) {
            (true, false) => ("", "198.51.100.1:5060;lr"),
            (true, true) => (registrars, "198.51.100.1:5060;transport=tcp;lr"),
            (false, _) => (registrars, "[2001:db8::1]:5060;lr"),
        };
        assert_eq!(path, format!("{front}<sip:{}@{host}>", user(&path)));
        for method in ["INVITE", "OPTIONS", "MESSAGE", "CANCEL", "ACK"] {
            let text = to_client(method, &path);
            let (to, sent) = edge.relay(&text, &udp(NEXT_HOP)).unwrap();
            assert_eq!((to.addr, to.transport), (arrival.source, arrival.transport));
            assert_eq!(to.connection, arrival.connection);
            assert_eq!(to.from, Some(arrival.local));
            assert!(to.is_flow);
            let start = format!("{method} sip:ada@10.0.0.9:5060 SIP/2.0");
            assert_eq!(start_line(&sent), start);
            assert_eq!(headers(&sent, "Route"), [""; 0]);
        }
    }
}

#[test]
fn a_flow_beats_what_a_policy_names() {
    let edge = edge();
    let text = to_client("INVITE", &path(&edge, &udp(CALLER), &[]));
    for target in [
        Target::AsRouted,
        Target::NextHop("tcp"),
        Target::Uri("sip:192.0.2.80:5080"),
    ] {
        let (to, _) = edge.relay_to(&text, &udp(NEXT_HOP), target).unwrap();
        assert_eq!(to.addr, CALLER.parse::<SocketAddr>().unwrap());
        assert!(to.is_flow);
    }
}

#[test]
fn further_routes_stay_for_what_is_behind_the_client() {
    let edge = edge();
    let path = path(&edge, &udp(CALLER), &[]);
    let text = to_client("INVITE", &format!("{path}, <sip:10.0.0.1;lr>"));
    let (to, sent) = edge.relay(&text, &udp(NEXT_HOP)).unwrap();
    assert_eq!(to.addr, CALLER.parse::<SocketAddr>().unwrap());
    assert_eq!(headers(&sent, "Route"), ["<sip:10.0.0.1;lr>"]);
    // A strict router expects itself in the request URI.
    let text = to_client("INVITE", &format!("{path}, <sip:10.0.0.1>"));
    let (to, sent) = edge.relay(&text, &udp(NEXT_HOP)).unwrap();
    assert!(to.is_flow);
    assert_eq!(start_line(&sent), "INVITE sip:10.0.0.1 SIP/2.0");
    assert_eq!(headers(&sent, "Route"), ["<sip:ada@10.0.0.9:5060>"]);
}

#[test]
fn a_strict_router_brings_a_flow_back_in_the_request_uri() {
    let edge = edge();
    let path = path(&edge, &udp(CALLER), &[]);
    let uri = path.trim_start_matches('<').trim_end_matches('>');
    let text = request("INVITE", uri, &["Route: <sip:ada@10.0.0.9>"]);
    let (to, sent) = edge.relay(&text, &udp(NEXT_HOP)).unwrap();
    assert_eq!(to.addr, CALLER.parse::<SocketAddr>().unwrap());
    assert!(to.is_flow);
    assert_eq!(start_line(&sent), "INVITE sip:ada@10.0.0.9 SIP/2.0");
    // Within a dialog of a client, that of the client has its own value in the request URI, and the other end has it in the Route behind.
    let invite = request("INVITE", "sip:grace@example.com", &[]);
    let (_, sent) = edge.relay(&invite, &udp(CALLER)).unwrap();
    let values = headers(&sent, "Record-Route");
    for (order, source, is_flow) in [([1, 0], CALLER, false), ([0, 1], NEXT_HOP, true)] {
        let [first, second] = order.map(|at| values[at]);
        let uri = first.trim_start_matches('<').trim_end_matches('>');
        let lines = [
            format!("Route: {second}"),
            format!("Route: <sip:grace@{NEXT_HOP}>"),
        ];
        let text = within("BYE", uri, &lines);
        let (to, _) = edge.relay(&text, &udp(source)).unwrap();
        assert_eq!(to.is_flow, is_flow);
    }
}

#[test]
fn outbound_is_offered_to_a_client_that_asks_and_has_no_proxy_between() {
    let edge = edge();
    let contact = "Contact: <sip:ada@10.0.0.9>;reg-id=1;+sip.instance=\"<urn:uuid:0>\"";
    let asks = ["Supported: path, Outbound", contact];
    assert!(path(&edge, &udp(CALLER), &asks).ends_with(";lr;ob>"));
    // A registrar may look at either value.
    let both = path(&edge, &tcp(CALLER, 1), &asks);
    assert!(
        both.starts_with("<sip:198.51.100.1:5060;lr;ob>, <sip:flow-"),
        "{both}"
    );
    assert!(both.ends_with(";transport=tcp;lr;ob>"), "{both}");
    for other in [
        &["Supported: path", contact][..],
        &["Supported: outbound", "Contact: <sip:ada@10.0.0.9>"],
        &[
            "Supported: outbound",
            contact,
            "Via: SIP/2.0/UDP 10.0.0.9;branch=z9hG4bK0",
        ],
    ] {
        assert!(path(&edge, &udp(CALLER), other).ends_with(";lr>"));
    }
}

/// The Route values of the callee, and of the caller, who has them the other way round.
fn routes(sent: &str) -> [Vec<String>; 2] {
    let line = |value: &&str| format!("Route: {value}");
    let callee: Vec<_> = headers(sent, "Record-Route").iter().map(line).collect();
    let caller = callee.iter().rev().cloned().collect();
    [callee, caller]
}

fn within(method: &str, uri: &str, routes: &[String]) -> String {
    let lines: Vec<_> = routes.iter().map(String::as_str).collect();
    request(method, uri, &lines)
}

#[test]
fn a_dialog_that_a_client_begins_leads_back_to_its_flow_and_away_from_it() {
    for records_routes in [true, false] {
        let edge = with(|config| config.record_route = records_routes);
        for arrival in [udp(CALLER), tcp(CALLER, 7)] {
            let invite = request("INVITE", "sip:grace@example.com", &[]);
            let (to, sent) = edge.relay(&invite, &arrival).unwrap();
            assert!(!to.is_flow);
            let values = headers(&sent, "Record-Route");
            assert_eq!(values.len(), 2);
            assert!(values[0].starts_with("<sip:198.51.100.1:5060;lr;seal="));
            assert!(values[1].starts_with("<sip:flow-") && values[1].ends_with(";lr;r2=on>"));
            let [callee, caller] = routes(&sent);
            let bye = within("BYE", "sip:ada@10.0.0.9:5060", &callee);
            let (to, _) = edge.relay(&bye, &udp(NEXT_HOP)).unwrap();
            assert_eq!(
                (to.addr, to.connection),
                (arrival.source, arrival.connection)
            );
            assert!(to.is_flow);
            // Also after the client has got another address from its NAT: the order of the values tells the direction.
            for source in [arrival, udp("192.0.2.11:1024")] {
                let bye = within("BYE", &format!("sip:grace@{NEXT_HOP}"), &caller);
                let (to, _) = edge.relay(&bye, &source).unwrap();
                assert_eq!(to.addr, NEXT_HOP.parse::<SocketAddr>().unwrap());
                assert!(!to.is_flow);
            }
        }
    }
}

#[test]
fn a_dialog_that_reaches_a_client_leads_back_to_its_flow_and_away_from_it() {
    let edge = edge();
    for client in [udp(CALLER), tcp(CALLER, 7)] {
        let text = to_client("INVITE", &path(&edge, &client, &[]));
        let (_, sent) = edge.relay(&text, &udp(NEXT_HOP)).unwrap();
        let values = headers(&sent, "Record-Route");
        assert!(values[0].starts_with("<sip:flow-") && values[0].contains(";seal="));
        assert!(values[1].starts_with("<sip:198.51.100.1:5060;lr"));
        assert_eq!(values.len(), 2);
        let [callee, caller] = routes(&sent);
        let bye = within("BYE", &format!("sip:grace@{NEXT_HOP}"), &callee);
        let (to, _) = edge.relay(&bye, &client).unwrap();
        assert_eq!(to.addr, NEXT_HOP.parse::<SocketAddr>().unwrap());
        assert!(!to.is_flow);
        let bye = within("BYE", "sip:ada@10.0.0.9", &caller);
        let (to, _) = edge.relay(&bye, &udp(NEXT_HOP)).unwrap();
        assert_eq!((to.addr, to.connection), (client.source, client.connection));
        assert!(to.is_flow);
    }
}

#[test]
fn a_dialog_between_two_clients_has_both_flows() {
    let edge = edge();
    let (ada, grace) = (udp(CALLER), tcp("192.0.2.11:1024", 8));
    let text = to_client("INVITE", &path(&edge, &grace, &[]));
    let (to, sent) = edge.relay(&text, &ada).unwrap();
    assert_eq!(to.connection, Some(ConnectionId(8)));
    let [callee, caller] = routes(&sent);
    let (to, _) = edge
        .relay(&within("BYE", "sip:a@10.0.0.9", &callee), &grace)
        .unwrap();
    assert_eq!(to.addr, ada.source);
    let (to, _) = edge
        .relay(&within("BYE", "sip:a@10.0.0.9", &caller), &ada)
        .unwrap();
    assert_eq!(to.connection, grace.connection);
}

#[test]
fn a_request_that_passes_twice_follows_the_flow_of_the_far_end() {
    // The registrar is between both passes, and records no route.
    let edge = edge();
    let (ada, grace) = (udp(CALLER), udp("192.0.2.11:1024"));
    let invite = request("INVITE", "sip:grace@example.com", &[]);
    let (_, first) = edge.relay(&invite, &ada).unwrap();
    let recorded: Vec<_> = headers(&first, "Record-Route")
        .iter()
        .map(|value| format!("Record-Route: {value}"))
        .collect();
    let route = format!("Route: {}", path(&edge, &grace, &[]));
    let mut lines = vec![route.as_str()];
    lines.extend(recorded.iter().map(String::as_str));
    let second = request("INVITE", "sip:grace@10.0.0.8", &lines);
    let (to, sent) = edge.relay(&second, &udp(NEXT_HOP)).unwrap();
    assert_eq!(to.addr, grace.source);
    assert_eq!(headers(&sent, "Record-Route").len(), 4);
    let [callee, caller] = routes(&sent);
    let (to, _) = edge
        .relay(&within("BYE", "sip:a@10.0.0.9", &callee), &grace)
        .unwrap();
    assert_eq!(to.addr, ada.source);
    let (to, _) = edge
        .relay(&within("BYE", "sip:g@10.0.0.8", &caller), &ada)
        .unwrap();
    assert_eq!(to.addr, grace.source);
}

#[test]
fn next_hops_get_no_token() {
    let edge = edge();
    for source in [udp(NEXT_HOP), tcp("192.0.2.81:40000", 3)] {
        for method in ["INVITE", "REGISTER"] {
            let text = request(method, "sip:grace@example.com", &[]);
            let (_, sent) = edge
                .relay_to(&text, &source, Target::NextHop("tcp"))
                .unwrap();
            assert!(!sent.contains("flow-"), "{sent}");
        }
    }
    // Another port of the same address is another sender over UDP, and may be the same one over TCP.
    let text = request("REGISTER", "sip:example.com", &[]);
    let (_, sent) = edge.relay(&text, &udp("192.0.2.80:5999")).unwrap();
    assert_eq!(headers(&sent, "Path").len(), 1);
    // No socket is for clients.
    let edge = Edge::new(|_| {});
    let (_, sent) = edge.relay(&text, &udp(CALLER)).unwrap();
    assert_eq!(headers(&sent, "Path").len(), 0);
}

#[test]
fn a_token_that_is_not_ours_leads_nowhere() {
    let edge = edge();
    let path = path(&edge, &udp(CALLER), &[]);
    let token = user(&path).to_owned();
    let forged = (403, "Invalid Flow Token");
    let mut last = token.clone();
    let digit = if last.pop() == Some('a') { 'b' } else { 'a' };
    last.push(digit);
    for bad in [
        "flow-",
        "flow-a",
        "FLOW-aaaaaaaa",
        &token[..token.len() - 1],
        &format!("{token}a"),
        &last,
        &token.replacen("flow-", "flow-a", 1),
    ] {
        let text = to_client("INVITE", &path.replace(&token, bad));
        assert_eq!(refused(&edge, &text), forged, "{bad}");
    }
    let foreign = with(|config| config.key = [1; 16]);
    assert_eq!(refused(&foreign, &to_client("INVITE", &path)), forged);
    let changed = with(|config| {
        config.key = [1; 16];
        config.earlier_keys = vec![[0x5a; 16]];
    });
    let text = to_client("INVITE", &path);
    assert!(changed.relay(&text, &udp(NEXT_HOP)).unwrap().0.is_flow);
}

#[test]
fn a_token_expires_and_a_socket_may_be_gone() {
    let edge = edge();
    let text = to_client("INVITE", &path(&edge, &udp(CALLER), &[]));
    edge.proxy.set_time(BEGUN + WEEK - 60);
    assert!(edge.relay(&text, &udp(NEXT_HOP)).is_ok());
    edge.proxy.set_time(BEGUN + WEEK);
    assert_eq!(refused(&edge, &text), (430, "Flow Failed"));
    let six = path(&edge, &udp("[2001:db8::10]:40000"), &[]);
    let six = format!("<sip:{}@198.51.100.1:5060;lr>", user(&six));
    let fewer = with(|config| config.locals.truncate(1));
    assert_eq!(
        refused(&fewer, &to_client("INVITE", &six)),
        (430, "Flow Failed")
    );
}

#[test]
fn a_tenant_reaches_its_own_clients_and_the_operator_reaches_all() {
    let edges = ["acme", "other"].map(|owner| {
        let edge = Edge::with(
            |config| {
                config.clients.sockets =
                    vec![(Transport::Udp, "198.51.100.1:5060".parse().unwrap())];
            },
            |routes| {
                routes
                    .owner(owner)
                    .default_hop(&format!("sip:{NEXT_HOP}"))
                    .unwrap();
            },
        );
        edge.proxy.set_time(BEGUN);
        edge
    });
    let path = path(&edges[0], &udp(CALLER), &[]);
    let text = to_client("INVITE", &path);
    assert!(edges[0].relay(&text, &udp(NEXT_HOP)).is_ok());
    assert!(edge().relay(&text, &udp(NEXT_HOP)).is_ok());
    let error = edges[1].relay(&text, &udp(NEXT_HOP)).unwrap_err();
    assert_eq!(error, RelayError::ForeignFlow(user(&path).to_owned()));
    assert_eq!(error.code(), 403);
}

fn route_flow(edge: &Edge, text: &str, routes: &Routes) -> RouteFlow {
    let mut index = Index::default();
    scan(
        text.as_bytes(),
        Framing::Datagram,
        &Default::default(),
        &mut index,
    )
    .unwrap();
    let message = Message::new(text.as_bytes(), &index);
    edge.proxy.route_flow(message, &udp(NEXT_HOP), routes)
}

#[test]
fn the_flow_of_a_route_is_known_before_the_request_is_relayed() {
    let edge = edge();
    let over_udp = path(&edge, &udp(CALLER), &[]);
    let over_tcp = path(&edge, &tcp(CALLER, 7), &[]);
    let of = |text: &str| route_flow(&edge, text, &edge.routes);
    assert_eq!(of(&to_client("INVITE", &over_udp)), RouteFlow::Client(None));
    let stream = RouteFlow::Client(Some(ConnectionId(7)));
    assert_eq!(of(&to_client("INVITE", &over_tcp)), stream);
    // From a strict router.
    let uri = over_udp.trim_start_matches('<').trim_end_matches('>');
    let strict = request("INVITE", uri, &["Route: <sip:ada@10.0.0.9>"]);
    assert_eq!(of(&strict), RouteFlow::Client(None));
    for none in ["<sip:198.51.100.1:5060;lr>", "<sip:192.0.2.80;lr>"] {
        assert_eq!(of(&to_client("INVITE", none)), RouteFlow::None, "{none}");
    }
    let forged = over_udp.replacen("flow-", "flow-a", 1);
    assert_eq!(of(&to_client("INVITE", &forged)), RouteFlow::Invalid);
    edge.proxy.set_time(BEGUN + WEEK);
    assert_eq!(of(&to_client("INVITE", &over_udp)), RouteFlow::Gone);
}

#[test]
fn a_client_is_recognised_by_the_flow_in_its_routes() {
    let edge = edge();
    let came = |text: &str, arrival: &portcullis_sip::Arrival| {
        let mut index = Index::default();
        scan(
            text.as_bytes(),
            Framing::Datagram,
            &Default::default(),
            &mut index,
        )
        .unwrap();
        let message = Message::new(text.as_bytes(), &index);
        edge.proxy.came_along_flow(message, arrival, &edge.routes)
    };
    let own = to_client("BYE", &path(&edge, &udp(CALLER), &[]));
    assert!(came(&own, &udp(CALLER)));
    assert!(!came(&own, &udp("192.0.2.10:40001")), "another port");
    assert!(!came(&own, &tcp(CALLER, 7)), "another transport");
    let own = to_client("BYE", &path(&edge, &tcp(CALLER, 7), &[]));
    assert!(came(&own, &tcp(CALLER, 7)));
    assert!(!came(&own, &tcp(CALLER, 8)), "another connection");
    let none = to_client("BYE", "<sip:198.51.100.1:5060;lr>");
    assert!(!came(&none, &udp(CALLER)));
    let forged = own.replacen("flow-", "flow-a", 1);
    assert!(!came(&forged, &tcp(CALLER, 7)));
}
