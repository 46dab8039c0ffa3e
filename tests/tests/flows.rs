//! Clients that only their flow leads to: Path and Record-Route with tokens, a NAT between, and flows that are gone.

#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use portcullis_testkit::callee::ok_to;
use portcullis_testkit::guests::module;
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::kamailio::{Kamailio, REGISTRAR, registrar_with_outbound};
use portcullis_testkit::messages::Request;
use portcullis_testkit::policy;
use portcullis_testkit::sip::{Caller, Message};

const CLIENT: u8 = 10;
const CORE: u8 = 3;

/// The Contact of a client: nothing that the host can reach.
const PRIVATE: &str = "sip:ada@10.99.0.9:5060";

/// A host whose peers are clients, except for its next hop.
fn builder() -> Builder {
    let builder = Builder::new().policy(policy("observe"));
    let sip = builder.lease().addr(1, 5060);
    let core = builder.lease().addr(CORE, 5080);
    builder
        .set("nat", &format!("clients = [\"udp:{sip}\", \"tcp:{sip}\"]"))
        .set("relay", &format!("next-hop = \"sip:{core}\""))
}

/// The host, and a registrar that the test plays.
fn start(builder: Builder) -> (Host, Caller) {
    let core = builder.lease().addr(CORE, 5080);
    let host = builder.start();
    let core = Caller::udp_from(core, host.sip());
    (host, core)
}

/// Registers a client; returns the Path that its registrar has got.
fn register(client: &mut Caller, core: &mut Caller) -> String {
    let mut request = client.request("REGISTER", "sip:example.com");
    request.contacts = vec![format!("<{PRIVATE}>")];
    client.send(&request.bytes());
    let seen = core.receive();
    assert_eq!(seen.first_word(), "REGISTER");
    let path = seen.headers("Path").join(", ");
    assert!(path.contains("<sip:flow-"), "{path}");
    core.send(&ok_to(&seen, core.local()));
    assert_eq!(client.receive().code(), 200);
    path
}

/// A request of the registrar to a client.
fn to_client(core: &Caller, method: &str, path: &str) -> Request {
    let mut request = core.request(method, PRIVATE);
    request.extra = vec![format!("Route: {path}")];
    request
}

/// A request of the callee within a call, by the messages that it has seen and sent.
fn of_callee(callee: &Caller, invite: &Message, answer: &[u8], method: &str) -> Vec<u8> {
    let answer = Message::new(answer.to_vec());
    let routes = invite.headers("Record-Route");
    let routes: String = routes
        .iter()
        .map(|route| format!("Route: {route}\r\n"))
        .collect();
    let contact = invite.header("Contact").expect("an INVITE has a Contact");
    let uri = contact.trim_start_matches('<').trim_end_matches('>');
    format!(
        "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/{} {};rport;branch=z9hG4bK-callee-{method}\r\nMax-Forwards: 70\r\n{routes}\
         From: {}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: 1 {method}\r\nContent-Length: 0\r\n\r\n",
        callee.transport(),
        callee.local(),
        answer.header("To").expect("a 200 has To"),
        answer.header("From").expect("a 200 has From"),
        answer.header("Call-ID").expect("a 200 has a Call-ID"),
    )
    .into_bytes()
}

#[test]
fn a_client_is_called_along_its_flow_and_ends_the_call() {
    let (host, mut core) = start(builder());
    for mut client in [host.udp(CLIENT), host.tcp(CLIENT)] {
        let path = register(&mut client, &mut core);
        let invite = to_client(&core, "INVITE", &path);
        core.send(&invite.bytes());
        let seen = client.receive();
        assert_eq!(seen.start_line(), format!("INVITE {PRIVATE} SIP/2.0"));
        assert_eq!(seen.header("Route"), None);
        let ok = ok_to(&seen, client.local());
        client.send(&ok);
        let answer = core.receive();
        assert_eq!(answer.code(), 200);
        core.send(&invite.within(&answer, "ACK", 1).bytes());
        assert_eq!(client.receive().first_word(), "ACK");
        core.send(&invite.within(&answer, "INFO", 2).bytes());
        let info = client.receive();
        assert_eq!(info.first_word(), "INFO");
        client.send(&ok_to(&info, client.local()));
        assert_eq!(core.receive().code(), 200);
        client.send(&of_callee(&client, &seen, &ok, "BYE"));
        let bye = core.receive();
        assert_eq!(bye.first_word(), "BYE");
        core.send(&ok_to(&bye, core.local()));
        assert_eq!(client.receive().code(), 200);
    }
    assert_eq!(host.metric("portcullis_flow_requests_total", &[]), 6.0);
}

#[test]
fn a_client_that_calls_is_reached_along_its_flow() {
    let (host, mut core) = start(builder());
    for mut client in [host.udp(CLIENT), host.tcp(CLIENT)] {
        let mut invite = client.request("INVITE", "sip:grace@example.com");
        invite.contacts = vec![format!("<{PRIVATE}>")];
        client.send(&invite.bytes());
        let seen = core.receive();
        let ok = ok_to(&seen, core.local());
        core.send(&ok);
        let answer = client.receive();
        client.send(&invite.within(&answer, "ACK", 1).bytes());
        assert_eq!(core.receive().first_word(), "ACK");
        core.send(&of_callee(&core, &seen, &ok, "BYE"));
        let bye = client.receive();
        assert_eq!(bye.start_line(), format!("BYE {PRIVATE} SIP/2.0"));
        client.send(&ok_to(&bye, client.local()));
        assert_eq!(core.receive().code(), 200);
    }
}

/// A REGISTER of a client that uses outbound (RFC 5626 §4.2).
fn with_outbound(client: &Caller) -> Request {
    let mut request = client
        .request("REGISTER", "sip:example.com")
        .header("Supported: path, outbound");
    request.to = "<sip:ada@example.com>".into();
    request.contacts = vec![format!(
        "<sip:ada@{}>;reg-id=1;+sip.instance=\"<urn:uuid:00000000-0000-1000-8000-000a95a0e128>\"",
        client.local()
    )];
    request
}

#[test]
fn a_client_with_outbound_over_tcp_is_told_its_flow_timer() {
    let (host, mut core) = start(builder());
    let mut registers = |client: &mut Caller, lines: &str| {
        client.send(&with_outbound(client).bytes());
        let seen = core.receive();
        let path = seen.headers("Path").join(", ");
        assert!(path.ends_with(";ob>"), "{path}");
        let ok = String::from_utf8(ok_to(&seen, core.local())).expect("a response is text");
        let ok = ok.replacen("Content-Length", &format!("{lines}Content-Length"), 1);
        core.send(ok.as_bytes());
        let answer = client.receive();
        assert_eq!(answer.code(), 200);
        answer.headers("Flow-Timer").join(", ")
    };
    let mut tcp = host.tcp(CLIENT);
    assert_eq!(registers(&mut tcp, "Require: outbound\r\n"), "120");
    assert_eq!(registers(&mut tcp, ""), "");
    let own = "Require: outbound\r\nFlow-Timer: 30\r\n";
    assert_eq!(registers(&mut tcp, own), "30");
    let mut udp = host.udp(CLIENT);
    assert_eq!(registers(&mut udp, "Require: outbound\r\n"), "");
}

#[test]
fn a_flow_that_is_gone_is_answered_430() {
    // Without transactions, the ACK goes along the flow as well.
    for (mode, lost) in [("stateful", 2.0), ("stateless", 3.0)] {
        let (host, mut core) = start(builder().set("relay", &format!("mode = \"{mode}\"")));
        let mut client = host.tcp(CLIENT);
        let path = register(&mut client, &mut core);
        drop(client);
        portcullis_testkit::wait::until("the connection is gone", || {
            (host.metric("portcullis_connections_open", &[]) == 0.0).then_some(())
        });
        for method in ["INVITE", "OPTIONS"] {
            let request = to_client(&core, method, &path);
            let answer = core.ask(&request);
            assert_eq!(answer.start_line(), "SIP/2.0 430 Flow Failed");
            if method == "INVITE" {
                core.send(&request.ack_for(&answer).bytes());
            }
        }
        let gone = host.metric("portcullis_dropped_total", &["reason=\"flow_gone\""]);
        assert_eq!(gone, lost);
        // That a client leaves is no matter for the operator.
        assert_eq!(host.complaints(), [""; 0]);
    }
}

#[test]
fn a_client_whose_port_is_closed_is_answered_430() {
    let (host, mut core) = start(builder());
    let mut client = host.udp(CLIENT);
    let path = register(&mut client, &mut core);
    drop(client);
    let answer = core.ask(&to_client(&core, "INVITE", &path));
    assert_eq!(answer.start_line(), "SIP/2.0 430 Flow Failed");
}

#[test]
fn forged_tokens_are_answered_403_and_never_leave_the_host() {
    let (host, mut core) = start(builder());
    let mut client = host.udp(CLIENT);
    let path = register(&mut client, &mut core);
    let (front, rest) = path.split_once('@').expect("a token is a user part");
    for bad in [
        format!("{front}a@{rest}"),
        format!("{}@{rest}", &front[..front.len() - 1]),
        format!("<sip:flow-@{rest}"),
    ] {
        let answer = core.ask(&to_client(&core, "OPTIONS", &bad));
        assert_eq!(answer.start_line(), "SIP/2.0 403 Invalid Flow Token");
    }
    let refused = host.metric("portcullis_relay_errors_total", &["kind=\"bad_flow\""]);
    assert_eq!(refused, 3.0);
    assert!(client.hears_nothing());
}

#[test]
fn a_group_of_clients_has_tokens_on_every_listen_address() {
    let builder = Builder::new().policy(policy("observe"));
    let core = builder.lease().addr(CORE, 5080);
    let phone = builder.lease().ip(CLIENT);
    let (host, mut core) = start(
        builder
            .row(&format!("300 {phone}"))
            .set("nat", "client-groups = [300]")
            .set("relay", &format!("next-hop = \"sip:{core}\"")),
    );
    let path = register(&mut host.udp(CLIENT), &mut core);
    assert!(path.starts_with("<sip:flow-"), "{path}");
    let mut other = host.udp(CLIENT + 1);
    let request = other.request("REGISTER", "sip:example.com");
    other.send(&request.bytes());
    assert_eq!(core.receive().header("Path"), None);
}

/// With the policy `path-nat` before another one, and no `[nat] clients`.
#[test]
fn a_policy_keeps_the_flows_of_phones_behind_nat() {
    let builder = Builder::new().policy(policy("observe"));
    let core = builder.lease().addr(CORE, 5080);
    let before = format!("file = {:?}", policy("path-nat"));
    let builder = builder
        .set("relay", &format!("next-hop = \"sip:{core}\""))
        .set("policy.before", &before);
    let (host, mut core) = start(builder);
    let mut client = host.udp(CLIENT);
    let path = register(&mut client, &mut core);
    let invite = to_client(&core, "INVITE", &path);
    core.send(&invite.bytes());
    let seen = client.receive();
    assert_eq!(seen.start_line(), format!("INVITE {PRIVATE} SIP/2.0"));
    client.send(&ok_to(&seen, client.local()));
    assert_eq!(core.receive().code(), 200);

    // A phone with an address of its own.
    let mut open = host.udp(CLIENT + 1);
    let mut request = open.request("REGISTER", "sip:example.com");
    let contact = format!("<sip:ada@{}>", open.local());
    request.contacts = vec![contact.clone()];
    open.send(&request.bytes());
    let seen = core.receive();
    assert_eq!(seen.header("Path"), None);
    assert_eq!(seen.header("Contact"), Some(&*contact));
}

/// Keeps the flow of every request that goes along none; others are rejected with 300 and the number of the state of their flow.
const STATES: &str = r#"(module
    (import "portcullis:policy/flows@0.1.0" "route" (func $route (result i32)))
    (import "portcullis:policy/flows@0.1.0" "keep" (func $keep))
    (memory (export "memory") 1)
    (data (i32.const 16) "\01")
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
    (func (export "decide") (result i32)
      (local $state i32)
      (local.set $state (call $route))
      (if (i32.eqz (local.get $state)) (then
        (call $keep)
        (return (i32.const 64))))
      (i32.store16 (i32.const 20) (i32.add (i32.const 300) (local.get $state)))
      i32.const 16))"#;

#[test]
fn a_policy_sees_whether_the_flow_behind_a_token_is_alive() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let states = folder.path().join("states.wasm");
    std::fs::write(&states, module(STATES)).expect("a file can be written");
    let builder = Builder::new().policy(states);
    let core = builder.lease().addr(CORE, 5080);
    let (host, mut core) = start(builder.set("relay", &format!("next-hop = \"sip:{core}\"")));
    let mut client = host.tcp(CLIENT);
    let path = register(&mut client, &mut core);
    let mut ask = |path: &str| {
        let request = to_client(&core, "OPTIONS", path);
        core.ask(&request).code()
    };
    assert_eq!(ask(&path), 301, "alive");
    let forged = path.replacen("flow-", "flow-a", 1);
    assert_eq!(ask(&forged), 303, "invalid");
    drop(client);
    portcullis_testkit::wait::until("the flow is gone", || (ask(&path) == 302).then_some(()));
}

/// A router with address translation: the datagrams of one client leave from a port of its own, and nothing else comes in.
struct Nat {
    inside: SocketAddr,
    commands: Sender<UdpSocket>,
    outside: IpAddr,
}

impl Nat {
    fn start(inside: IpAddr, outside: IpAddr, host: SocketAddr) -> Self {
        let socket = |ip| UdpSocket::bind((ip, 0)).expect("a loopback address can be bound");
        let (inner, mut outer) = (socket(inside), socket(outside));
        let inside = inner.local_addr().expect("a bound socket has an address");
        let (commands, told) = channel();
        std::thread::spawn(move || {
            let mut client = None;
            let mut buffer = [0; 65_536];
            // A turn of the loop for each socket, until the test drops the sender.
            loop {
                match told.try_recv() {
                    Ok(new) => outer = new,
                    Err(std::sync::mpsc::TryRecvError::Disconnected) => return,
                    Err(std::sync::mpsc::TryRecvError::Empty) => {}
                }
                let step = Some(Duration::from_millis(2));
                inner.set_read_timeout(step).expect("a timeout can be set");
                if let Ok((length, from)) = inner.recv_from(&mut buffer) {
                    client = Some(from);
                    let _sent = outer.send_to(&buffer[..length], host);
                }
                outer.set_read_timeout(step).expect("a timeout can be set");
                if let (Ok((length, from)), Some(client)) = (outer.recv_from(&mut buffer), client)
                    && from == host
                {
                    let _sent = inner.send_to(&buffer[..length], client);
                }
            }
        });
        Self {
            inside,
            commands,
            outside,
        }
    }

    /// Gives the client another port, as after a restart; the one before is closed.
    fn rebind(&self) {
        let new = UdpSocket::bind((self.outside, 0)).expect("a loopback address can be bound");
        self.commands.send(new).expect("the router runs");
    }
}

#[test]
fn a_client_behind_a_nat_is_reached_and_may_move() {
    let (host, mut core) = start(builder());
    let nat = Nat::start(host.lease().ip(20), host.lease().ip(21), host.sip());
    let mut client = Caller::udp(host.lease().ip(CLIENT), nat.inside);
    let before = register(&mut client, &mut core);
    let invite = to_client(&core, "INVITE", &before);
    core.send(&invite.bytes());
    let seen = client.receive();
    let ok = ok_to(&seen, client.local());
    client.send(&ok);
    let answer = core.receive();
    core.send(&invite.within(&answer, "ACK", 1).bytes());
    assert_eq!(client.receive().first_word(), "ACK");

    nat.rebind();
    // A request of the client from its new port still leads away from its flow.
    client.send(&of_callee(&client, &seen, &ok, "BYE"));
    let bye = core.receive();
    assert_eq!(bye.first_word(), "BYE");
    core.send(&ok_to(&bye, core.local()));
    assert_eq!(client.receive().code(), 200);
    let after = register(&mut client, &mut core);
    assert_ne!(before, after);
    core.send(&to_client(&core, "OPTIONS", &after).bytes());
    let options = client.receive();
    assert_eq!(options.first_word(), "OPTIONS");
    client.send(&ok_to(&options, client.local()));
    assert_eq!(core.receive().code(), 200);
    // The port before is closed.
    let answer = core.ask(&to_client(&core, "OPTIONS", &before));
    assert_eq!(answer.code(), 430);
}

#[test]
fn stun_is_answered_on_the_port_of_sip() {
    let request = |id: u8| [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[id; 12]].concat();
    for (stun, answered) in [("true", true), ("false", false)] {
        let (host, _core) = start(builder().set("nat", &format!("stun = {stun}")));
        let client = UdpSocket::bind((host.lease().ip(CLIENT), 0)).expect("a socket can be bound");
        let patience = Some(Duration::from_secs(5));
        client
            .set_read_timeout(patience)
            .expect("a timeout can be set");
        client
            .send_to(&request(7), host.sip())
            .expect("a datagram can be sent");
        let mut buffer = [0; 100];
        if !answered {
            let mut caller = host.udp(CLIENT);
            let options = caller.request("OPTIONS", &format!("sip:{}", host.sip()));
            assert_eq!(caller.ask(&options).code(), 200);
            client.set_nonblocking(true).expect("a socket can do so");
            assert!(client.recv(&mut buffer).is_err());
            continue;
        }
        let length = client.recv(&mut buffer).expect("an answer comes");
        assert_eq!(
            (length, &buffer[..2], &buffer[8..20]),
            (32, &[1, 1][..], &[7; 12][..])
        );
        let port = u16::from_be_bytes([buffer[26], buffer[27]]) ^ 0x2112;
        let local = client.local_addr().expect("a bound socket has an address");
        assert_eq!(port, local.port());
        // A flood gets ten answers at once, and ten a second.
        for id in 0..200 {
            client
                .send_to(&request(id), host.sip())
                .expect("a datagram can be sent");
        }
        let mut caller = host.udp(CLIENT);
        let options = caller.request("OPTIONS", &format!("sip:{}", host.sip()));
        assert_eq!(caller.ask(&options).code(), 200);
        client.set_nonblocking(true).expect("a socket can do so");
        let answers = std::iter::from_fn(|| client.recv(&mut buffer).ok()).count();
        assert!((5..100).contains(&answers), "{answers}");
    }
}

#[test]
fn peers_a_registrar_behind_the_host_reaches_clients_that_call_each_other() {
    let builder = builder();
    let addr = builder.lease().addr(CORE, 5080);
    let _kamailio = Kamailio::start(REGISTRAR, &[("ADDR", addr.to_string())], &[]);
    let host = builder.start();
    let mut ada = host.udp(CLIENT);
    let mut grace = host.tcp(CLIENT + 1);
    for (client, name) in [(&mut ada, "ada"), (&mut grace, "grace")] {
        let mut request = client.request("REGISTER", "sip:example.com");
        request.from = format!("<sip:{name}@example.com>");
        request.to = request.from.clone();
        request.contacts = vec![format!("<sip:{name}@10.99.0.9:5060>")];
        assert_eq!(client.ask(&request).code(), 200);
    }
    let mut invite = ada.request("INVITE", "sip:grace@example.com");
    invite.contacts = vec!["<sip:ada@10.99.0.9:5060>".into()];
    ada.send(&invite.bytes());
    let seen = grace.receive();
    assert_eq!(seen.start_line(), "INVITE sip:grace@10.99.0.9:5060 SIP/2.0");
    let ok = ok_to(&seen, grace.local());
    grace.send(&ok);
    let answer = ada.receive();
    assert_eq!(answer.code(), 200, "{}", answer.start_line());
    ada.send(&invite.within(&answer, "ACK", 1).bytes());
    assert_eq!(grace.receive().first_word(), "ACK");
    ada.send(&invite.within(&answer, "INFO", 2).bytes());
    let info = grace.receive();
    assert_eq!(info.first_word(), "INFO");
    grace.send(&ok_to(&info, grace.local()));
    assert_eq!(ada.receive().code(), 200);
    grace.send(&of_callee(&grace, &seen, &ok, "BYE"));
    let bye = ada.receive();
    assert_eq!(bye.start_line(), "BYE sip:ada@10.99.0.9:5060 SIP/2.0");
    ada.send(&ok_to(&bye, ada.local()));
    assert_eq!(grace.receive().code(), 200);

    // A client that has left is not there for the registrar either.
    drop(grace);
    portcullis_testkit::wait::until("the connection is gone", || {
        (host.metric("portcullis_connections_open", &[]) == 0.0).then_some(())
    });
    let mut again = ada.request("INVITE", "sip:grace@example.com");
    again.contacts = vec!["<sip:ada@10.99.0.9:5060>".into()];
    assert_eq!(ada.ask(&again).code(), 430);
}

#[test]
fn peers_a_registrar_with_outbound_leaves_the_flow_timer_to_the_host() {
    let builder = builder();
    let core = builder.lease().addr(CORE, 5080);
    let values = [("ADDR", core.to_string())];
    let _kamailio = Kamailio::start(&registrar_with_outbound(), &values, &[]);
    let host = builder.start();
    for (mut client, timers) in [(host.tcp(CLIENT), &["120"][..]), (host.udp(CLIENT), &[])] {
        let answer = client.ask(&with_outbound(&client));
        assert_eq!(answer.code(), 200, "{answer:?}");
        assert_eq!(answer.headers("Require"), ["outbound"]);
        assert_eq!(answer.headers("Flow-Timer"), timers);
    }
}
