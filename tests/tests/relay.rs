//! Stateless relay through real sockets: transports, Record-Route, responses by Via, and no open relay.

#![forbid(unsafe_code)]

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use portcullis_testkit::callee::{Callee, ok_to};
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::lease;
use portcullis_testkit::policy;
use portcullis_testkit::sip::{Caller, Message};
use portcullis_testkit::wait::{self, PATIENCE};

const CALLER: u8 = 10;

fn start(transport: &str) -> (Host, Callee) {
    let builder = Builder::new();
    let callee = Callee::start(builder.lease().addr(3, 5080));
    let hop = format!("next-hop = \"sip:{}{transport}\"", callee.addr());
    let host = builder
        .policy(policy("observe"))
        .set("relay", &hop)
        .set(
            "relay",
            &format!("domains = [\"{}:*\"]", callee.addr().ip()),
        )
        .start();
    (host, callee)
}

fn assert_answered(caller: &mut Caller, callee: &Callee, method: &str) -> Message {
    let request = caller.request(method, "sip:bob@example.com");
    let answer = caller.ask(&request);
    assert_eq!(answer.code(), 200, "{method}: {}", answer.start_line());
    assert_eq!(answer.headers("Via").len(), 1);
    assert_eq!(answer.header("CSeq"), Some(format!("1 {method}").as_str()));
    let seen = callee.next();
    assert_eq!(seen.first_word(), method);
    seen
}

#[test]
fn unknown_methods_pass() {
    let (host, callee) = start("");
    for method in ["INVITE", "SUBSCRIBE", "PUBLISH", "FROBNICATE", "x-!%*_+`'~"] {
        assert_answered(&mut host.udp(CALLER), &callee, method);
        assert_answered(&mut host.tcp(CALLER), &callee, method);
    }
}

#[test]
fn transports_cross_with_a_double_record_route() {
    for (hop, caller_is_tcp) in [("", true), (";transport=tcp", false)] {
        let (host, callee) = start(hop);
        let mut caller = if caller_is_tcp {
            host.tcp(CALLER)
        } else {
            host.udp(CALLER)
        };
        let seen = assert_answered(&mut caller, &callee, "INVITE");
        let routes = seen.headers("Record-Route").join(",");
        assert_eq!(routes.matches("sip:").count(), 2, "{routes}");
        assert!(routes.contains("transport=tcp"), "{routes}");
        assert!(routes.matches(";lr").count() == 2, "{routes}");
    }
}

/// What becomes of a new MESSAGE: the next hop answers it, with these values in our Via in place of what we ask for, or the host refuses it.
fn sends(caller: &mut Caller, hop: &mut Caller, asks: &str, values: &str) -> u16 {
    const MOMENT: Duration = Duration::from_millis(20);
    let request = caller.request("MESSAGE", "sip:bob@example.com");
    caller.send(&request.bytes());
    let answer = wait::until("it is answered", || {
        // The host may have sent an earlier one twice.
        if let Some(seen) = hop.receive_within(MOMENT)
            && seen.header("Call-ID") == Some(&*request.call_id)
        {
            assert!(seen.headers("Via")[0].ends_with(asks), "{seen:?}");
            let ok = String::from_utf8(ok_to(&seen, hop.local())).expect("a response is text");
            hop.send(ok.replacen(asks, values, 1).as_bytes());
        }
        caller.receive_within(MOMENT)
    });
    assert_eq!(answer.header("Call-ID"), Some(&*request.call_id));
    assert_eq!(answer.header("Retry-After"), None);
    answer.code()
}

/// RFC 7339.
#[test]
fn a_next_hop_that_is_overloaded_gets_the_share_that_it_asks_for() {
    let builder = Builder::new();
    let hop = builder.lease().addr(3, 5080);
    let host = builder
        .policy(policy("observe"))
        .set("relay", &format!("next-hop = \"sip:{hop}\""))
        .set("relay", "overload-control = true")
        .start();
    let mut hop = Caller::udp_from(hop, host.sip());
    let mut caller = host.udp(CALLER);
    let mut sends = |values| sends(&mut caller, &mut hop, "oc;oc-algo=\"loss\"", values);
    let half = "oc=50;oc-algo=\"loss\";oc-validity=60000;oc-seq=1.1";
    let nothing = "oc;oc-algo=\"loss\"";
    let gauge = |name: &str| host.metric(name, &[]);
    assert_eq!(sends(half), 200);
    assert_eq!(gauge("portcullis_overloaded_next_hops"), 1.0);
    let codes = (0..10).map(|_| sends(nothing));
    let refused = codes.filter(|code| *code == 503).count();
    assert_eq!(refused, 5);
    let kept_back = ["kind=\"overloaded\""];
    let kept_back = host.metric("portcullis_relay_errors_total", &kept_back);
    assert_eq!(kept_back, 5.0);
    host.wait_for_log("event=\"next_hop_overloaded\"");
    // It recovers: the next request that reaches it brings the news.
    let over = "oc=0;oc-algo=\"loss\";oc-validity=0;oc-seq=1.2";
    let until_it_is_known = (0..2).find(|_| sends(over) == 200);
    assert!(until_it_is_known.is_some(), "every second one is refused");
    assert!((0..10).all(|_| sends(nothing) == 200));
    assert_eq!(gauge("portcullis_overloaded_next_hops"), 0.0);
}

/// RFC 7415.
#[test]
fn a_next_hop_may_limit_the_rate() {
    let builder = Builder::new();
    let hop = builder.lease().addr(3, 5080);
    let host = builder
        .policy(policy("observe"))
        .set("relay", &format!("next-hop = \"sip:{hop}\""))
        .set("relay", "overload-control = \"rate\"")
        .start();
    let mut hop = Caller::udp_from(hop, host.sip());
    let mut caller = host.udp(CALLER);
    let asks = "oc;oc-algo=\"rate,loss\"";
    let mut sends = |values| sends(&mut caller, &mut hop, asks, values);
    let many = "oc=1000000;oc-algo=\"rate\";oc-validity=60000;oc-seq=1.1";
    assert!(
        (0..10).all(|_| sends(many) == 200),
        "as many as it can take"
    );
    let gauge = |name: &str| host.metric(name, &[]);
    assert_eq!(gauge("portcullis_overloaded_next_hops"), 1.0);
    // A rate of 0 for a minute: nothing at all.
    let none = "oc=0;oc-algo=\"rate\";oc-validity=60000;oc-seq=1.2";
    assert_eq!(sends(none), 200, "this one brings the news");
    assert!((0..5).all(|_| sends(asks) == 503));
    let kept_back = ["kind=\"overloaded\""];
    let kept_back = host.metric("portcullis_relay_errors_total", &kept_back);
    assert_eq!(kept_back, 5.0);
    host.wait_for_log("at most 0 requests a second");
}

/// Sends a MESSAGE that offers this in its Via. Returns the Via of the answer.
fn offers(caller: &mut Caller, offer: &str) -> String {
    let request = caller.request("MESSAGE", "sip:bob@example.com").bytes();
    let text = String::from_utf8(request).expect("text");
    caller.send(
        text.replacen(";rport", &format!(";rport{offer}"), 1)
            .as_bytes(),
    );
    let answer = caller.receive();
    assert_eq!(answer.code(), 200);
    assert_eq!(answer.headers("Via").len(), 1);
    answer.headers("Via")[0].to_owned()
}

/// RFC 7339 §5.1, §5.6: a client that offers it is always told, also in the responses of next hops, which do not see the offer.
#[test]
fn a_client_that_offers_it_is_told_how_loaded_the_host_is() {
    let builder = Builder::new();
    let callee = Callee::start(builder.lease().addr(3, 5080));
    let host = builder
        .policy(policy("observe"))
        .set("relay", &format!("next-hop = \"sip:{}\"", callee.addr()))
        .set("sip", "overload-control = \"rate\"")
        .start();
    let mut caller = host.udp(CALLER);
    for (offer, chosen) in [
        (";oc;oc-algo=\"loss\"", "loss"),
        (";oc;oc-algo=\"loss,rate\"", "rate"),
        (";oc;oc-algo=\"rate,loss\"", "rate"),
    ] {
        let via = wait::until("the host has looked at its load", || {
            let via = offers(&mut caller, offer);
            let seen = callee.next();
            let vias = seen.headers("Via");
            let is_told = via.contains("oc-validity");
            assert!(!is_told || !vias[1].contains(";oc"), "{vias:?}");
            is_told.then_some(via)
        });
        let told = format!(";oc=0;oc-algo=\"{chosen}\";oc-validity=0;oc-seq=");
        assert!(via.contains(&told), "{via}");
    }
    for offer in ["", ";oc;oc-algo=\"A\""] {
        let via = offers(&mut caller, offer);
        assert!(!via.contains("oc-validity"), "{via}");
    }
    assert_eq!(host.metric("portcullis_overload_rate", &[]), 0.0);
}

#[test]
fn an_overloaded_host_tells_clients_that_ask() {
    let builder = Builder::new();
    let hop = builder.lease().addr(3, 5080);
    let host = builder
        .policy(policy("observe"))
        .set("relay", &format!("next-hop = \"sip:{hop}\""))
        .set("sip", "overload-control = true")
        .set("transactions", "active = 10")
        .workers(1)
        .start();
    // Nobody answers these calls.
    let _hop = Caller::udp_from(hop, host.sip());
    let mut caller = host.udp(CALLER);
    for _ in 0..9 {
        caller.send(&caller.request("INVITE", "sip:bob@example.com").bytes());
    }
    host.wait_for_log("event=\"overloaded\"");
    let mut other = host.udp(CALLER + 1);
    let us = format!("sip:{}", host.sip());
    let options = other.request("OPTIONS", &us);
    assert!(!other.ask(&options).headers("Via")[0].contains(";oc"));
    let text = String::from_utf8(other.request("OPTIONS", &us).bytes()).expect("text");
    let asking = text.replacen(";rport", ";rport;oc;oc-algo=\"loss\"", 1);
    other.send(asking.as_bytes());
    let answer = other.receive();
    let via = answer.headers("Via")[0];
    assert!(
        via.contains(";oc-algo=\"loss\";oc-validity=1500;oc-seq="),
        "{via}"
    );
    let share = via
        .split(";oc=")
        .nth(1)
        .and_then(|rest| rest.split(';').next());
    let share: f64 = share.and_then(|share| share.parse().ok()).expect("a share");
    assert!((5.0..=95.0).contains(&share), "{via}");
    assert!(host.metric("portcullis_overload_loss", &[]) >= share);
    // A client that cannot be asked has no advantage: the host refuses its share of new requests.
    let refused = wait::until("a new request is refused", || {
        other.send(&other.request("MESSAGE", "sip:bob@example.com").bytes());
        let answer = other.receive_within(Duration::from_millis(20))?;
        (answer.start_line() == "SIP/2.0 503 Overloaded").then_some(answer)
    });
    assert_eq!(refused.header("Retry-After"), None);
    assert!(host.metric("portcullis_overload_refused_requests_total", &[]) >= 1.0);
}

#[test]
fn the_same_transport_record_routes_once_and_only_when_a_dialog_may_form() {
    let (host, callee) = start("");
    let seen = assert_answered(&mut host.udp(CALLER), &callee, "INVITE");
    assert_eq!(seen.headers("Record-Route").len(), 1);
    let seen = assert_answered(&mut host.udp(CALLER), &callee, "MESSAGE");
    assert_eq!(seen.headers("Record-Route").len(), 0);
}

#[test]
fn a_stateless_host_gives_a_retransmission_and_the_cancel_the_branch_of_the_invite() {
    let builder = Builder::new();
    let callee = Callee::start(builder.lease().addr(3, 5080));
    let relay = format!("next-hop = \"sip:{}\"\nmode = \"stateless\"", callee.addr());
    let host = builder
        .policy(policy("observe"))
        .set("relay", &relay)
        .start();
    let mut caller = host.udp(CALLER);
    let invite = caller.request("INVITE", "sip:bob@example.com");
    let mut cancel = invite.clone();
    cancel.method = "CANCEL".into();
    caller.ask(&invite);
    caller.ask(&invite);
    caller.ask(&cancel);
    let branches: Vec<String> = (0..3)
        .map(|_| callee.next().headers("Via")[0].to_owned())
        .collect();
    assert_eq!(branches[0], branches[1]);
    assert_eq!(branches[0], branches[2]);
}

#[test]
fn one_tcp_connection_serves_many_requests_both_ways() {
    let (host, callee) = start(";transport=tcp");
    let mut caller = host.tcp(CALLER);
    for _ in 0..20 {
        assert_answered(&mut caller, &callee, "MESSAGE");
    }
    // Requests that arrive in one segment are answered one by one.
    let requests: Vec<_> = (0..5)
        .map(|_| caller.request("MESSAGE", "sip:bob@example.com"))
        .collect();
    let bytes: Vec<u8> = requests.iter().flat_map(|r| r.bytes()).collect();
    caller.send(&bytes);
    let mut ids: Vec<String> = (0..5)
        .map(|_| {
            caller
                .receive()
                .header("Call-ID")
                .expect("a Call-ID")
                .to_owned()
        })
        .collect();
    ids.sort();
    let mut sent: Vec<String> = requests.into_iter().map(|r| r.call_id).collect();
    sent.sort();
    assert_eq!(ids, sent);
}

#[test]
fn a_request_that_trickles_in_byte_by_byte_is_one_request() {
    let (host, callee) = start("");
    let mut caller = host.tcp(CALLER);
    let request = caller
        .request("MESSAGE", "sip:bob@example.com")
        .body("trickle");
    for byte in request.bytes() {
        caller.send(&[byte]);
    }
    assert_eq!(caller.receive().code(), 200);
    assert_eq!(callee.next().body(), b"trickle");
}

#[test]
fn keep_alives_are_answered_on_tcp_and_swallowed_on_udp() {
    let (host, callee) = start("");
    let mut tcp = host.tcp(CALLER);
    tcp.send(b"\r\n\r\n");
    assert_eq!(tcp.read_exact(2), b"\r\n");
    assert_answered(&mut tcp, &callee, "MESSAGE");
    let mut udp = host.udp(CALLER);
    udp.send(b"\r\n\r\n");
    assert_answered(&mut udp, &callee, "MESSAGE");
    assert!(udp.hears_nothing());
}

#[test]
fn a_datagram_of_the_largest_size_passes() {
    let (host, callee) = start(";transport=tcp");
    let mut caller = host.udp(CALLER);
    let head = caller
        .request("MESSAGE", "sip:bob@example.com")
        .bytes()
        .len();
    // 65,507 bytes are what IPv4 leaves of 65,535; five digits of Content-Length are four more than the one counted.
    let body = vec![b'x'; 65_507 - head - 4];
    let request = caller
        .request("MESSAGE", "sip:bob@example.com")
        .body(body.clone());
    let bytes = request.bytes();
    assert!((65_490..=65_507).contains(&bytes.len()), "{}", bytes.len());
    assert_eq!(caller.ask(&request).code(), 200);
    assert_eq!(callee.next().body(), body);
}

#[test]
fn bodies_and_strange_headers_pass_byte_by_byte() {
    let (host, callee) = start("");
    let mut caller = host.udp(CALLER);
    let body: Vec<u8> = (0..=255).collect();
    let mut bytes = caller
        .request("MESSAGE", "sip:bob@example.com")
        .header("Subject: folded\r\n  and more")
        .header("x-oDD   :  kept   as it is  ")
        .header("m: <sip:compact@example.com>")
        .body(body.clone())
        .bytes();
    let from = bytes
        .windows(5)
        .position(|w| w == b"From:")
        .expect("there is a From");
    bytes.splice(from..from, b"Organization: Caf\xe9\r\n".iter().copied());
    caller.send(&bytes);
    assert_eq!(caller.receive().code(), 200);
    let seen = callee.next();
    for part in [
        &b"\r\nSubject: folded\r\n  and more\r\n"[..],
        b"\r\nx-oDD   :  kept   as it is  \r\n",
        b"\r\nm: <sip:compact@example.com>\r\n",
        b"\r\nOrganization: Caf\xe9\r\n",
    ] {
        assert!(
            seen.bytes.windows(part.len()).any(|w| w == part),
            "{}",
            String::from_utf8_lossy(part)
        );
    }
    assert!(seen.bytes.ends_with(&body));
}

#[test]
fn the_host_relays_only_to_configured_destinations() {
    let (host, callee) = start("");
    let elsewhere = UdpSocket::bind(host.lease().addr(77, 5099)).expect("a place to protect");
    let elsewhere_addr = elsewhere.local_addr().expect("an address");
    let mut caller = host.udp(CALLER);
    // A Route to another destination is refused.
    let request = caller
        .request("MESSAGE", "sip:bob@example.com")
        .header(&format!("Route: <sip:{elsewhere_addr};lr>"));
    assert_eq!(caller.ask(&request).code(), 403);
    // A request URI with another destination goes to the default next hop.
    let request = caller.request("MESSAGE", &format!("sip:bob@{elsewhere_addr}"));
    assert_eq!(caller.ask(&request).code(), 200);
    assert!(
        callee
            .next()
            .start_line()
            .contains(&elsewhere_addr.to_string())
    );
    elsewhere
        .set_nonblocking(true)
        .expect("a socket can be non-blocking");
    assert!(elsewhere.recv(&mut [0; 10]).is_err(), "nothing came there");
}

#[test]
fn a_route_to_a_configured_destination_is_followed_and_own_routes_are_removed() {
    let (host, callee) = start("");
    let mut caller = host.udp(CALLER);
    let request = caller
        .request("MESSAGE", "sip:bob@example.com")
        .header(&format!(
            "Route: <sip:{};lr>, <sip:{};lr>",
            host.sip(),
            callee.addr()
        ));
    assert_eq!(caller.ask(&request).code(), 200);
    let seen = callee.next();
    assert_eq!(
        seen.headers("Route"),
        [format!("<sip:{};lr>", callee.addr())]
    );
}

#[test]
fn a_forged_response_is_dropped() {
    let (host, callee) = start("");
    let victim = UdpSocket::bind(host.lease().addr(77, 5099)).expect("a place to protect");
    let victim_addr: SocketAddr = victim.local_addr().expect("an address");
    let mut forger = host.udp(66);
    forger.send(
        format!(
            "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP {};branch=z9hG4bKforged\r\nVia: SIP/2.0/UDP {victim_addr};branch=z9hG4bKx\r\n\
             From: <sip:a@b>;tag=1\r\nTo: <sip:c@d>;tag=2\r\nCall-ID: forged\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n",
            host.sip()
        )
        .as_bytes(),
    );
    // The next request on the same socket shows that the forged response has been handled.
    assert_answered(&mut forger, &callee, "MESSAGE");
    victim
        .set_nonblocking(true)
        .expect("a socket can be non-blocking");
    assert!(victim.recv(&mut [0; 10]).is_err(), "nothing came there");
    assert!(host.metric("portcullis_dropped_total", &[]) >= 1.0);
}

#[test]
fn the_host_speaks_ipv6() {
    let port = lease::free_port_v6();
    let builder = Builder::new()
        .policy(policy("observe"))
        .listen(&format!("udp:[::1]:{port}"))
        .listen(&format!("tcp:[::1]:{port}"));
    let callee = UdpSocket::bind("[::1]:0").expect("::1 is there");
    let callee_addr = callee.local_addr().expect("an address");
    let host: Host = builder
        .set("relay", &format!("next-hop = \"sip:{callee_addr}\""))
        .start();
    let sip: SocketAddr = format!("[::1]:{port}").parse().expect("an address");
    for mut caller in [Caller::udp(sip.ip(), sip), Caller::tcp(sip.ip(), sip)] {
        let request = caller.request("INVITE", "sip:bob@[2001:db8::9]");
        caller.send(&request.bytes());
        callee
            .set_read_timeout(Some(PATIENCE))
            .expect("a timeout can be set");
        let mut buffer = vec![0; 65_536];
        let (n, peer) = callee.recv_from(&mut buffer).expect("the request arrives");
        let seen = Message::new(buffer[..n].to_vec());
        assert!(seen.headers("Via")[0].contains(&sip.to_string()));
        assert!(seen.headers("Record-Route")[0].contains(&sip.to_string()));
        callee
            .send_to(&ok_to(&seen, callee_addr), peer)
            .expect("an answer can be sent");
        assert_eq!(caller.receive().code(), 200);
    }
    drop(host);
}

#[test]
fn a_next_hop_that_refuses_tcp_does_not_disturb_others() {
    let builder = Builder::new().policy(policy("observe"));
    let callee = Callee::start(builder.lease().addr(3, 5080));
    let nobody = builder.lease().addr(4, 5080);
    let host = builder
        .set("relay", &format!("next-hop = \"sip:{}\"", callee.addr()))
        .set("relay", &format!("domains = [\"{nobody}\"]"))
        .start();
    let mut caller = host.udp(CALLER);
    let request = caller.request("MESSAGE", &format!("sip:bob@{nobody};transport=tcp"));
    caller.send(&request.bytes());
    let other = caller.request("MESSAGE", "sip:bob@example.com");
    caller.send(&other.bytes());
    loop {
        let answer = caller.receive();
        if answer.header("Call-ID") == Some(other.call_id.as_str()) {
            assert_eq!(answer.code(), 200);
            break;
        }
        assert!(answer.code() >= 500, "{}", answer.start_line());
    }
}

#[test]
fn a_connection_from_a_next_hops_address_is_not_the_next_hop() {
    let builder = Builder::new().policy(policy("observe"));
    let hop = builder.lease().addr(3, 5085);
    let host = builder
        .set("relay", &format!("next-hop = \"sip:{hop};transport=tcp\""))
        .start();
    // The next hop is down, and another program has its address and port.
    let mut somebody = Caller::tcp_from(hop, host.sip());
    somebody.send(b"\r\n\r\n");
    assert_eq!(somebody.read_exact(2), b"\r\n", "the connection is served");
    let mut caller = host.udp(CALLER);
    let answer = caller.ask(&caller.request("MESSAGE", "sip:bob@example.com"));
    assert_eq!(answer.code(), 500, "{}", answer.start_line());
    assert!(somebody.hears_nothing());
}

#[test]
fn domains_cover_the_sip_ports() {
    let builder = Builder::new().policy(policy("observe"));
    let callee = Callee::start(builder.lease().addr(3, 5061));
    let other = Callee::start(builder.lease().addr(3, 6379));
    let host = builder
        .set("relay", &format!("domains = [\"{}\"]", callee.addr().ip()))
        .start();
    let mut caller = host.udp(CALLER);
    let to = |at: SocketAddr, more: &str| format!("sip:bob@{at}{more}");
    let allowed = caller.request("MESSAGE", &to(callee.addr(), ""));
    assert_eq!(caller.ask(&allowed).code(), 200);
    for transport in ["", ";transport=tcp"] {
        let request = caller.request("MESSAGE", &to(other.addr(), transport));
        assert_eq!(caller.ask(&request).code(), 403);
    }
    assert!(other.saw_nothing_more());
}
