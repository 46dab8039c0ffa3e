//! Requests within a dialog that this host let in: what the seal in their Route says, and where they go.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // A panic is how a test fails.

mod edge;

use edge::{CALLER, Edge, NEXT_HOP, headers, local, request, tcp, udp};
use portcullis_sip::{
    Arrival, ConnectionId, Destination, DialogSeal, Framing, Index, Limits, Message, RelayError,
    RoutesBuilder, Target, Transport, mark, scan,
};

const DAY: u64 = 24 * 60 * 60;
const BEGUN: u64 = 1_800_000_000;

fn edge() -> Edge {
    let edge = Edge::new(add_hops);
    edge.proxy.set_time(BEGUN);
    edge
}

fn add_hops(routes: &mut RoutesBuilder) {
    routes.hop("carrier", "sip:192.0.2.85").unwrap();
    routes.hop("tcp", "sip:192.0.2.81;transport=tcp").unwrap();
    routes.domain("192.0.2.64/26").unwrap();
}

/// A dialog as its ends know it.
struct Call {
    /// The Record-Route values, as the callee got them.
    routes: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    Caller,
    Callee,
}

impl Call {
    fn begin(edge: &Edge, arrival: &Arrival, target: Target<'_>) -> Self {
        let invite = request("INVITE", "sip:grace@example.com", &[]);
        let (_, sent) = edge.relay_to(&invite, arrival, target).unwrap();
        let routes = headers(&sent, "Record-Route");
        Self {
            routes: routes.into_iter().map(str::to_owned).collect(),
        }
    }

    /// A request of one end: that of the caller has the Routes the other way round (RFC 3261 §12.1.2).
    fn request(&self, from: From, method: &str, uri: &str) -> String {
        let mut routes: Vec<String> = self
            .routes
            .iter()
            .map(|route| format!("Route: {route}"))
            .collect();
        if from == From::Caller {
            routes.reverse();
        }
        let routes: Vec<&str> = routes.iter().map(String::as_str).collect();
        let text = request(method, uri, &routes);
        let (ada, grace) = ("<sip:ada@example.net>;tag=ada1", "<sip:grace@example.com>");
        match from {
            From::Caller => {
                text.replace(&format!("To: {grace}"), &format!("To: {grace};tag=grace1"))
            }
            From::Callee => text
                .replace(
                    &format!("From: {ada}"),
                    &format!("From: {grace};tag=grace1"),
                )
                .replace(&format!("To: {grace}\r"), &format!("To: {ada}\r")),
        }
    }
}

fn seal(edge: &Edge, text: &str) -> DialogSeal {
    let mut index = Index::default();
    scan(
        text.as_bytes(),
        Framing::Datagram,
        &Limits::default(),
        &mut index,
    )
    .unwrap();
    edge.proxy.dialog(Message::new(text.as_bytes(), &index))
}

fn is_valid(edge: &Edge, text: &str) -> bool {
    matches!(seal(edge, text), DialogSeal::Valid(_))
}

/// Where a request within its dialog goes.
fn follow(edge: &Edge, text: &str, arrival: &Arrival) -> Result<(Destination, String), RelayError> {
    let DialogSeal::Valid(dialog) = seal(edge, text) else {
        panic!("{:?}: {text}", seal(edge, text));
    };
    edge.relay_to(text, arrival, Target::Within(dialog))
}

fn way(edge: &Edge, text: &str, arrival: &Arrival) -> String {
    match follow(edge, text, arrival) {
        Ok((to, _)) => format!("{} {}", to.transport, to.addr),
        Err(error) => format!("{}", error.code()),
    }
}

#[test]
fn both_ends_bring_the_seal_of_their_dialog() {
    let edge = edge();
    let calls = [
        Call::begin(&edge, &udp(CALLER), Target::AsRouted),
        Call::begin(&edge, &udp(CALLER), Target::NextHop("carrier")),
        // Two values of ours, of which one has the seal.
        Call::begin(&edge, &udp(CALLER), Target::NextHop("tcp")),
        Call::begin(&edge, &tcp(CALLER, 7), Target::AsRouted),
        Call::begin(&edge, &tcp(CALLER, 7), Target::NextHop("tcp")),
    ];
    for call in &calls {
        assert_eq!(call.routes.join(" ").matches(";seal=").count(), 1);
        for from in [From::Caller, From::Callee] {
            for method in [
                "ACK", "BYE", "INVITE", "UPDATE", "INFO", "PRACK", "REFER", "CANCEL", "X",
            ] {
                let text = call.request(from, method, "sip:ada@192.0.2.70");
                assert!(is_valid(&edge, &text), "{text}");
            }
        }
    }
    // Who may be the victim of the other end: the address of the caller need not be that of the caller.
    for call in &calls {
        let dialog = |from| match seal(&edge, &call.request(from, "BYE", "sip:a@192.0.2.70")) {
            DialogSeal::Valid(dialog) => dialog,
            other => panic!("{other:?}"),
        };
        let (of_caller, of_callee) = (dialog(From::Caller), dialog(From::Callee));
        let (caller, callee) = (udp(CALLER).source.ip(), udp(NEXT_HOP).source.ip());
        assert!(of_caller.is_from_caller(caller) && !of_caller.is_from_caller(callee));
        assert!(!of_caller.calls_back());
        assert!(of_callee.calls_back() && !of_callee.is_from_caller(caller));
    }
    // On one line, in capitals as some rewrite them, or in the request URI (strict routing).
    let text = calls[2].request(From::Caller, "BYE", "sip:grace@192.0.2.70");
    assert!(is_valid(&edge, &text.replace(">\r\nRoute: <", ">, <")));
    let route = &calls[0].routes[0];
    let uri = route.strip_prefix('<').unwrap().strip_suffix('>').unwrap();
    let strict = request("BYE", uri, &["Route: <sip:grace@192.0.2.70>"]).replace(
        "To: <sip:grace@example.com>",
        "To: <sip:grace@example.com>;tag=g",
    );
    assert!(is_valid(&edge, &strict));
}

#[test]
fn what_is_not_within_a_dialog_has_no_seal() {
    let edge = edge();
    let call = Call::begin(&edge, &udp(CALLER), Target::AsRouted);
    let bye = call.request(From::Caller, "BYE", "sip:grace@192.0.2.70");
    for text in [
        request("INVITE", "sip:grace@example.com", &[]),
        // Without a tag in To it would begin a dialog.
        bye.replace(";tag=grace1", ""),
        call.request(From::Caller, "REGISTER", "sip:example.com"),
        call.request(From::Caller, "PUBLISH", "sip:grace@example.com"),
        // Somebody else's Route comes first.
        bye.replacen("Route: <", "Route: <sip:192.0.2.99;lr>, <", 1),
        bye.replace("Route: ", "X-Route: "),
        bye.replace(";seal=", ";zeal="),
    ] {
        assert_eq!(seal(&edge, &text), DialogSeal::None, "{text}");
    }
    let no_tag = request("INVITE", "sip:grace@example.com", &[]).replace(";tag=ada1", "");
    let (_, sent) = edge.relay(&no_tag, &udp(CALLER)).unwrap();
    assert!(!sent.contains(";seal="), "{sent}");
}

#[test]
fn a_seal_is_one_of_its_dialog() {
    let edge = edge();
    let call = Call::begin(&edge, &udp(CALLER), Target::AsRouted);
    let bye = call.request(From::Caller, "BYE", "sip:grace@192.0.2.70");
    assert!(is_valid(&edge, &bye));
    for text in [
        bye.replace("Call-ID: call-1", "Call-ID: call-2"),
        bye.replace("Call-ID: call-1", "Call-ID: call-1x"),
        bye.replace("tag=ada1", "tag=ada2"),
        bye.replace("tag=ada1", "tag=ada"),
        bye.replace(";tag=ada1", ""),
    ] {
        assert_eq!(seal(&edge, &text), DialogSeal::Forged, "{text}");
    }
    let other = Edge::with(|config| config.key = [3; 16], |_| {});
    assert_eq!(seal(&other, &bye), DialogSeal::Forged);
    // The callee's tag is not known when the dialog is sealed: an early dialog has several.
    assert!(is_valid(&edge, &bye.replace("grace1", "grace2")));
}

#[test]
fn no_part_of_a_seal_can_be_another() {
    let edge = edge();
    let call = Call::begin(&edge, &tcp(CALLER, 7), Target::NextHop("carrier"));
    let bye = call.request(From::Callee, "BYE", "sip:ada@192.0.2.70");
    let (before, rest) = bye.split_once(";seal=").unwrap();
    let end = rest.find(['>', ';']).unwrap();
    let (text, after) = rest.split_at(end);
    let with = |text: &str| format!("{before};seal={text}{after}");
    assert!(is_valid(&edge, &with(text)));
    for (at, byte) in text.bytes().enumerate() {
        let mut turned = text.as_bytes().to_vec();
        turned[at] = match byte {
            b'-' => b'0',
            b'0' => b'1',
            _ => b'0',
        };
        let turned = with(std::str::from_utf8(&turned).unwrap());
        assert_eq!(seal(&edge, &turned), DialogSeal::Forged, "{at}");
        assert_eq!(seal(&edge, &with(&text[..at])), DialogSeal::Forged);
    }
    for odd in [
        "-",
        "--------",
        "x",
        &format!("{text}-"),
        &format!("-{text}"),
        &"0".repeat(900),
    ] {
        assert_eq!(seal(&edge, &with(odd)), DialogSeal::Forged, "{odd}");
    }
}

#[test]
fn a_seal_ends() {
    let edge = edge();
    let call = Call::begin(&edge, &udp(CALLER), Target::AsRouted);
    let bye = call.request(From::Caller, "BYE", "sip:grace@192.0.2.70");
    for (seconds, holds) in [
        (BEGUN + 10 * 60 * 60, true),
        (BEGUN + DAY - 60, true),
        (BEGUN + DAY, false),
        (BEGUN + 400 * DAY, false),
        // Another host's clock may be behind.
        (BEGUN - 600, true),
    ] {
        edge.proxy.set_time(seconds);
        match seal(&edge, &bye) {
            DialogSeal::Valid(_) => assert!(holds, "{seconds}"),
            other => assert_eq!((other, holds), (DialogSeal::Expired, false), "{seconds}"),
        }
        // It is no proof for another dialog for that.
        let other = bye.replace("call-1", "call-2");
        assert_eq!(seal(&edge, &other), DialogSeal::Forged);
    }
}

#[test]
fn another_process_with_the_key_knows_the_dialog() {
    let call = Call::begin(&edge(), &udp(CALLER), Target::NextHop("carrier"));
    let bye = call.request(From::Caller, "BYE", "sip:grace@10.0.0.1");
    let another = edge();
    assert_eq!(way(&another, &bye, &udp(CALLER)), "UDP 192.0.2.85:5060");
    let changed = Edge::with(
        |config| {
            config.key = [3; 16];
            config.earlier_keys = vec![[0x5a; 16]];
        },
        add_hops,
    );
    changed.proxy.set_time(BEGUN);
    assert_eq!(way(&changed, &bye, &udp(CALLER)), "UDP 192.0.2.85:5060");
}

/// The key file of each host while a key is replaced, host after host: the new key is accepted everywhere before one host writes it.
#[test]
fn a_key_is_replaced_on_several_hosts_without_a_lost_dialog() {
    const OLD: [u8; 16] = [0x5a; 16];
    const NEW: [u8; 16] = [3; 16];
    let host = |key: [u8; 16], earlier: &[[u8; 16]]| {
        let edge = Edge::with(
            |config| {
                config.key = key;
                config.earlier_keys = earlier.to_vec();
            },
            add_hops,
        );
        edge.proxy.set_time(BEGUN);
        edge
    };
    let steps = [
        host(OLD, &[]),
        host(OLD, &[NEW]),
        host(NEW, &[OLD]),
        host(NEW, &[]),
    ];
    let knows = |there: &Edge, here: &Edge| {
        let call = Call::begin(here, &udp(CALLER), Target::NextHop("carrier"));
        let bye = call.request(From::Caller, "BYE", "sip:grace@10.0.0.1");
        is_valid(there, &bye)
    };
    for pair in steps.windows(2) {
        assert!(knows(&pair[0], &pair[1]) && knows(&pair[1], &pair[0]));
    }
    // Without the step between, the host that has the old key only would lose the calls of the others.
    assert!(!knows(&steps[0], &steps[2]));
    assert!(!knows(&steps[3], &steps[1]));
}

#[test]
fn a_clock_of_the_fleet_that_differs_by_minutes_is_noted_and_does_no_harm() {
    let (ahead, here) = (edge(), edge());
    let noted = |difference: u64, text: &dyn Fn(&Call) -> String| {
        ahead.proxy.set_time(BEGUN + difference);
        let call = Call::begin(&ahead, &udp(CALLER), Target::AsRouted);
        let seal = seal(&here, &text(&call));
        let is_valid = matches!(seal, DialogSeal::Valid(_));
        (is_valid, here.proxy.take_minutes_ahead())
    };
    let bye = |call: &Call| call.request(From::Caller, "BYE", "sip:grace@192.0.2.70");
    for (seconds, minutes) in [(0, 0), (120, 0), (180, 3), (7 * DAY, 7 * 24 * 60)] {
        assert_eq!(noted(seconds, &bye), (true, minutes), "{seconds}");
        assert_eq!(here.proxy.take_minutes_ahead(), 0, "it is told once");
    }
    // Whoever has no key cannot make an operator look for a clock.
    let forged = |call: &Call| bye(call).replace("call-1", "call-2");
    assert_eq!(noted(7 * DAY, &forged), (false, 0));
    // Calls of a host whose clock is behind look older than they are, and nothing is noted here.
    ahead.proxy.set_time(BEGUN - 600);
    let call = Call::begin(&ahead, &udp(CALLER), Target::AsRouted);
    assert!(is_valid(&here, &bye(&call)));
    assert_eq!(here.proxy.take_minutes_ahead(), 0);
}

#[test]
fn a_request_goes_where_it_leads_if_it_may_and_else_where_the_dialog_went() {
    let edge = edge();
    for (target, hop) in [
        (Target::AsRouted, "UDP 192.0.2.80:5080"),
        (Target::NextHop("carrier"), "UDP 192.0.2.85:5060"),
        (Target::NextHop("tcp"), "TCP 192.0.2.81:5060"),
    ] {
        let call = Call::begin(&edge, &udp(CALLER), target);
        let to = |uri: &str| way(&edge, &call.request(From::Caller, "BYE", uri), &udp(CALLER));
        assert_eq!(to("sip:grace@192.0.2.70"), "UDP 192.0.2.70:5060");
        // Not in `domains`, or on another port: no open relay, for a caller who was let in neither.
        for uri in [
            "sip:grace@203.0.113.7",
            "sip:grace@192.0.2.70:6379",
            "sip:grace@127.0.0.1:6379;transport=tcp",
            "sip:grace@example.com",
            "sip:edge.example.com",
            "tel:+49",
        ] {
            assert_eq!(to(uri), hop, "{uri}");
        }
        // So for a Route behind ours.
        let bye = call.request(From::Caller, "BYE", "sip:grace@192.0.2.70");
        let more = |route: &str| {
            bye.replace(
                "Content-Length",
                &format!("Route: {route}\r\nContent-Length"),
            )
        };
        assert_eq!(
            way(&edge, &more("<sip:192.0.2.71;lr>"), &udp(CALLER)),
            "UDP 192.0.2.71:5060"
        );
        assert_eq!(way(&edge, &more("<sip:203.0.113.7;lr>"), &udp(CALLER)), hop);
    }
}

#[test]
fn the_callee_reaches_the_caller_where_its_call_came_from() {
    let edge = Edge::with(
        |config| {
            config
                .locals
                .push(local(Transport::Udp, "198.51.100.9:5062"));
        },
        |routes| {
            routes.default_hop(&format!("sip:{NEXT_HOP}")).unwrap();
            routes.domain("192.0.2.64/26").unwrap();
            routes.domain("192.0.2.10:*").unwrap();
        },
    );
    let mut arrival = udp(CALLER);
    arrival.local = "198.51.100.9:5062".parse().unwrap();
    let call = Call::begin(&edge, &arrival, Target::AsRouted);
    let follow = |uri: &str| {
        let text = call.request(From::Callee, "BYE", uri);
        follow(&edge, &text, &udp(NEXT_HOP)).unwrap().0
    };
    // A private address behind NAT, and the one that the NAT gave: back through the socket that the NAT knows.
    for uri in ["sip:ada@10.0.0.1:5060", "sip:ada@192.0.2.10:40000"] {
        let to = follow(uri);
        assert_eq!(to.addr.to_string(), CALLER, "{uri}");
        assert_eq!(to.from, Some("198.51.100.9:5062".parse().unwrap()), "{uri}");
        assert_eq!((to.transport, to.connection), (Transport::Udp, None));
    }
    assert_eq!(
        follow("sip:ada@192.0.2.70").addr.to_string(),
        "192.0.2.70:5060"
    );
    // Over TCP the caller's connection is the way, and only to its own address.
    let call = Call::begin(&edge, &tcp(CALLER, 7), Target::AsRouted);
    let follow = |uri: &str| {
        let text = call.request(From::Callee, "BYE", uri);
        let to = super_follow(&edge, &text);
        (to.addr.to_string(), to.transport, to.connection)
    };
    let stream = (CALLER.to_owned(), Transport::Tcp, Some(ConnectionId(7)));
    for uri in [
        "sip:ada@10.0.0.1;transport=tcp",
        "sip:ada@192.0.2.10:40000;transport=tcp",
    ] {
        assert_eq!(follow(uri), stream, "{uri}");
    }
    for (uri, addr, transport) in [
        (
            "sip:ada@192.0.2.70;transport=tcp",
            "192.0.2.70:5060",
            Transport::Tcp,
        ),
        (
            "sip:ada@192.0.2.10:40001;transport=tcp",
            "192.0.2.10:40001",
            Transport::Tcp,
        ),
        ("sip:ada@192.0.2.10:40000", CALLER, Transport::Udp),
    ] {
        assert_eq!(follow(uri), (addr.to_owned(), transport, None), "{uri}");
    }
}

fn super_follow(edge: &Edge, text: &str) -> Destination {
    follow(edge, text, &udp(NEXT_HOP)).unwrap().0
}

#[test]
fn a_policy_that_relays_within_a_dialog_reaches_the_same() {
    let edge = edge();
    let call = Call::begin(&edge, &tcp(CALLER, 7), Target::NextHop("carrier"));
    let bye = call.request(From::Callee, "BYE", "sip:ada@10.0.0.1;transport=tcp");
    let (to, _) = edge.relay(&bye, &udp("192.0.2.85:5060")).unwrap();
    assert_eq!(to.connection, Some(ConnectionId(7)));
    let ack = call.request(From::Caller, "ACK", "sip:grace@203.0.113.7");
    assert_eq!(
        edge.relay(&ack, &tcp(CALLER, 7))
            .unwrap()
            .0
            .addr
            .to_string(),
        "192.0.2.85:5060"
    );
    // A seal of another dialog is none.
    let forged = bye.replace("call-1", "call-2");
    assert_eq!(
        edge.relay(&forged, &udp("192.0.2.85:5060"))
            .unwrap()
            .0
            .connection,
        None
    );
}

#[test]
fn a_next_hop_that_is_configured_no_more_is_none() {
    let edge = edge();
    let call = Call::begin(&edge, &udp(CALLER), Target::NextHop("carrier"));
    let bye = call.request(From::Caller, "BYE", "sip:grace@203.0.113.7");
    let without = Edge::with(
        |_| {},
        |routes| {
            routes.hop("other", "sip:192.0.2.85").unwrap();
        },
    );
    without.proxy.set_time(BEGUN);
    assert_eq!(way(&without, &bye, &udp(CALLER)), "403");
}

#[test]
fn a_dialog_belongs_to_whose_routes_it_began_along() {
    let edge = Edge::new(|routes| {
        routes.owner("acme");
    });
    edge.proxy.set_time(BEGUN);
    let call = Call::begin(&edge, &udp(CALLER), Target::AsRouted);
    for from in [From::Caller, From::Callee] {
        let text = call.request(from, "BYE", "sip:x@192.0.2.70");
        let DialogSeal::Valid(dialog) = seal(&edge, &text) else {
            panic!("{text}");
        };
        assert_eq!(dialog.owner(), Some(mark("acme")));
    }
    assert_ne!(mark("acme"), mark("acmf"));
}

#[test]
fn what_follows_has_our_routes_taken_off_and_gets_no_new_one() {
    let edge = edge();
    for target in [Target::NextHop("tcp"), Target::NextHop("carrier")] {
        let call = Call::begin(&edge, &udp(CALLER), target);
        let text = call.request(From::Caller, "BYE", "sip:grace@192.0.2.70");
        let (_, sent) = follow(&edge, &text, &udp(CALLER)).unwrap();
        assert!(headers(&sent, "Route").is_empty(), "{sent}");
        assert!(headers(&sent, "Record-Route").is_empty(), "{sent}");
        assert!(sent.starts_with("BYE sip:grace@192.0.2.70 SIP/2.0\r\n"));
    }
}
