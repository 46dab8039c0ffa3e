//! Flows of registered clients over UDP that pings keep open: who is pinged, until when, and how many.

#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use portcullis_testkit::callee::ok_to;
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::kamailio::{Kamailio, REGISTRAR};
use portcullis_testkit::messages::Request;
use portcullis_testkit::policy;
use portcullis_testkit::sip::{Caller, Message};
use portcullis_testkit::wait;

const CLIENT: u8 = 10;
const CORE: u8 = 3;

/// Pings in a row without an answer after which a client is not pinged any more.
const MOST_SILENT: usize = 3;

/// A host that pings the clients that register, once a second, and a registrar that the test plays.
fn start(nat: &str) -> (Host, Caller) {
    start_from(Builder::new(), nat)
}

/// The same with other keys.
fn start_from(builder: Builder, nat: &str) -> (Host, Caller) {
    let builder = builder.policy(policy("observe")).workers(2);
    let sip = builder.lease().addr(1, 5060);
    let core = builder.lease().addr(CORE, 5080);
    let host = builder
        .set("nat", &format!("clients = [\"udp:{sip}\", \"tcp:{sip}\"]"))
        .set("nat", "ping = \"1s\"")
        .set("nat", nat)
        .set("relay", &format!("next-hop = \"sip:{core}\""))
        .start();
    let core = Caller::udp_from(core, host.sip());
    (host, core)
}

/// A REGISTER of a phone with an address that means nothing outside.
fn of_phone(client: &Caller) -> Request {
    let mut request = client.request("REGISTER", "sip:example.com");
    request.contacts = vec!["<sip:ada@10.99.0.9:5060>".into()];
    request
}

/// What the registrar answers: the code, and the contacts with their times.
fn answer(seen: &Message, core: &Caller, code: u16, contacts: &str) -> Vec<u8> {
    let text = String::from_utf8(ok_to(seen, core.local())).expect("a response is text");
    let text = text.replacen("200 OK", &format!("{code} Answer"), 1);
    let own = format!("Contact: <sip:callee@{}>\r\n", core.local());
    assert!(text.contains(&own), "{text}");
    text.replacen(&own, contacts, 1).into_bytes()
}

/// Registers a client for so many seconds.
fn register(client: &mut Caller, core: &mut Caller, seconds: u32) {
    let request = of_phone(client);
    let contacts = format!("Contact: <sip:ada@10.99.0.9:5060>;expires={seconds}\r\n");
    ask_registrar(client, core, &request, 200, &contacts);
}

fn ask_registrar(
    client: &mut Caller,
    core: &mut Caller,
    request: &Request,
    code: u16,
    contacts: &str,
) {
    client.send(&request.bytes());
    let seen = core.receive();
    assert_eq!(seen.first_word(), "REGISTER");
    core.send(&answer(&seen, core, code, contacts));
    assert_eq!(client.receive().code(), code);
}

fn pings(host: &Host, result: &str) -> f64 {
    let label = format!("result=\"{result}\"");
    host.metric("portcullis_flow_pings_total", &[&label])
}

fn pinged_flows(host: &Host) -> f64 {
    host.metric("portcullis_pinged_flows", &[])
}

/// The next ping to a client, and its answer.
fn ping(client: &mut Caller) -> (Message, Vec<u8>) {
    let ping = client.receive();
    let expected = format!("OPTIONS sip:{} SIP/2.0", client.local());
    assert_eq!(ping.start_line(), expected);
    let ok = String::from_utf8(ok_to(&ping, client.local())).expect("a response is text");
    // A phone that does not know the user in the request URI.
    (ping, ok.replacen("200 OK", "404 Not Found", 1).into_bytes())
}

#[test]
fn a_registered_client_is_pinged_as_long_as_it_answers() {
    let (host, mut core) = start("");
    let mut client = host.udp(CLIENT);
    register(&mut client, &mut core, 600);
    let mut call_ids = Vec::new();
    for _ in 0..2 {
        let (ping, answer) = ping(&mut client);
        let via = ping.header("Via").expect("a request has Via");
        assert!(
            via.starts_with(&format!("SIP/2.0/UDP {};branch=", host.sip())),
            "{via}"
        );
        // The answer takes the way back of the ping, whatever the host is called in Via.
        assert!(via.ends_with(";rport"), "{via}");
        call_ids.push(ping.header("Call-ID").map(str::to_owned));
        client.send(&answer);
        // A copy counts once, and an answer from elsewhere never.
        client.send(&answer);
        host.udp(CLIENT + 1).send(&answer);
    }
    assert_ne!(call_ids[0], call_ids[1]);
    wait::until("both answers are counted", || {
        (pings(&host, "answered") == 2.0).then_some(())
    });

    // It falls silent.
    for _ in 0..MOST_SILENT {
        ping(&mut client);
    }
    wait::until("the flow is given up", || {
        (pinged_flows(&host) == 0.0).then_some(())
    });
    assert_eq!(pings(&host, "silent"), MOST_SILENT as f64);
    assert!(client.hears_nothing());
    register(&mut client, &mut core, 600);
    ping(&mut client);
    assert_eq!(host.complaints(), [""; 0]);
}

#[test]
fn nobody_is_pinged_without_an_accepted_registration_over_udp() {
    let (host, mut core) = start("");
    let mut refused = host.udp(CLIENT + 1);
    let request = of_phone(&refused);
    ask_registrar(&mut refused, &mut core, &request, 403, "");
    let mut query = host.udp(CLIENT + 2);
    let mut request = of_phone(&query);
    request.contacts.clear();
    let contacts = "Contact: <sip:ada@10.99.0.9:5060>;expires=600\r\n";
    ask_registrar(&mut query, &mut core, &request, 200, contacts);
    let mut removes = host.udp(CLIENT + 3);
    let mut request = of_phone(&removes);
    request.contacts = vec!["<sip:ada@10.99.0.9:5060>;expires=0".into()];
    ask_registrar(&mut removes, &mut core, &request, 200, contacts);
    let mut stream = host.tcp(CLIENT + 4);
    register(&mut stream, &mut core, 600);
    let mut asks = host.udp(CLIENT + 5);
    asks.send(&asks.request("OPTIONS", "sip:example.com").bytes());
    let seen = core.receive();
    core.send(&ok_to(&seen, core.local()));
    assert_eq!(asks.receive().code(), 200);

    let mut client = host.udp(CLIENT);
    register(&mut client, &mut core, 600);
    for _ in 0..2 {
        let (_, answer) = ping(&mut client);
        client.send(&answer);
    }
    assert!(pinged_flows(&host) <= 1.0);
    for other in [
        &mut refused,
        &mut query,
        &mut removes,
        &mut stream,
        &mut asks,
    ] {
        assert!(other.hears_nothing());
    }
}

#[test]
fn pings_end_with_the_registration() {
    let (host, mut core) = start("");
    let mut client = host.udp(CLIENT);
    register(&mut client, &mut core, 4);
    // Whatever the number of pings in four seconds is: each is answered.
    let mut count = 0;
    wait::until("the registration ends", || {
        while let Some(ping) = client.receive_within(Duration::from_millis(20)) {
            client.send(&ok_to(&ping, client.local()));
            count += 1;
        }
        (count > 0 && pinged_flows(&host) == 0.0).then_some(())
    });
    assert_eq!(pings(&host, "silent"), 0.0);
}

#[test]
fn a_client_whose_port_is_closed_is_not_pinged_again() {
    let (host, mut core) = start("");
    let mut client = host.udp(CLIENT);
    register(&mut client, &mut core, 600);
    drop(client);
    wait::until("the error is counted", || {
        (pings(&host, "unreachable") == 1.0).then_some(())
    });
    wait::until("the flow is given up", || {
        (pinged_flows(&host) == 0.0).then_some(())
    });
    assert_eq!(pings(&host, "unreachable"), 1.0);
    // The first ping may have come before the port was closed.
    assert!(pings(&host, "silent") <= 1.0);
}

/// Whoever has an account can register with forged addresses: the host sends no more to them than any other answer. One that proves itself is pinged
/// like all clients.
#[test]
fn an_address_that_has_not_proved_itself_gets_few_pings() {
    const PORTS: usize = 12;
    const ALLOWANCE: usize = 2_048;
    let builder = Builder::new()
        .set("guard", "exempt = []")
        .set("sip", &format!("unproved-bytes = \"{ALLOWANCE}B\""));
    let (host, mut core) = start_from(builder, "");
    let begun = Instant::now();
    let mut victims: Vec<_> = (0..PORTS).map(|_| host.udp(CLIENT)).collect();
    let contacts = "Contact: <sip:ada@10.99.0.9:5060>;expires=600\r\n";
    let mut sent = 0;
    for victim in &mut victims {
        let request = of_phone(victim).bytes();
        sent += request.len();
        victim.send(&request);
        let seen = core.receive();
        core.send(&answer(&seen, &core, 200, contacts));
    }
    wait::until("pings are kept back", || {
        (pings(&host, "kept_back") >= 1.0).then_some(())
    });
    wait::until("all flows are given up", || {
        (pinged_flows(&host) == 0.0).then_some(())
    });
    let (mut received, mut last_ping) = (0, None);
    for victim in &mut victims {
        while let Some(message) = victim.receive_within(Duration::from_millis(20)) {
            received += message.bytes.len();
            if message.first_word() == "OPTIONS" {
                last_ping = Some((victim.local(), message));
            }
        }
    }
    // An eighth of the allowance comes back each second.
    let seconds = usize::try_from(begun.elapsed().as_secs()).expect("a short time") + 2;
    let most = sent + ALLOWANCE + seconds * ALLOWANCE / 8;
    assert!(
        received <= most,
        "{sent} in, {received} out, {most} at most"
    );

    let (local, ping_to_victim) = last_ping.expect("the allowance is enough for a ping");
    let prover = victims.iter_mut().find(|victim| victim.local() == local);
    let prover = prover.expect("one of them was pinged");
    prover.send(&ok_to(&ping_to_victim, local));
    let mut client = host.udp(CLIENT);
    register(&mut client, &mut core, 600);
    for _ in 0..2 {
        let (_, answer) = ping(&mut client);
        client.send(&answer);
    }
}

#[test]
fn registrations_beyond_the_limit_are_relayed_but_not_pinged() {
    let (host, mut core) = start("pinged-flows = 1");
    let mut client = host.udp(CLIENT);
    register(&mut client, &mut core, 600);
    let mut other = host.udp(CLIENT + 1);
    register(&mut other, &mut core, 600);
    host.wait_for_log("flow_pings_full");
    let refused = host.metric(
        "portcullis_unpinged_registrations_total",
        &["reason=\"full\""],
    );
    assert_eq!(refused, 1.0);
    for _ in 0..2 {
        let (_, answer) = ping(&mut client);
        client.send(&answer);
    }
    assert!(other.hears_nothing());
}

#[test]
fn an_upgrade_hands_the_flows_over() {
    let (mut host, mut core) = start("");
    let mut client = host.udp(CLIENT);
    register(&mut client, &mut core, 600);
    let (_, answer) = ping(&mut client);
    client.send(&answer);
    wait::until("the answer is counted", || {
        (pings(&host, "answered") == 1.0).then_some(())
    });
    host.upgrade();
    // The counters of the new process begin with 0.
    let mut count = 0;
    wait::until("the new process has two answers", || {
        let (_, answer) = ping(&mut client);
        client.send(&answer);
        count += 1;
        (pings(&host, "answered") >= 2.0).then_some(())
    });
    assert!(count >= 2);
}

/// A router with address translation for one client, which lets in what comes from where the client has sent something.
struct Nat {
    inside: SocketAddr,
    _end: Sender<()>,
}

impl Nat {
    fn start(inside: IpAddr, outside: IpAddr, host: SocketAddr) -> Self {
        let socket = |ip| UdpSocket::bind((ip, 0)).expect("a loopback address can be bound");
        let (inner, outer) = (socket(inside), socket(outside));
        let inside = inner.local_addr().expect("a bound socket has an address");
        let (end, ended) = channel::<()>();
        std::thread::spawn(move || {
            let mut client = None;
            let mut buffer = [0; 65_536];
            let step = Some(Duration::from_millis(2));
            for socket in [&inner, &outer] {
                socket.set_read_timeout(step).expect("a timeout can be set");
            }
            while ended.try_recv() != Err(std::sync::mpsc::TryRecvError::Disconnected) {
                if let Ok((length, from)) = inner.recv_from(&mut buffer) {
                    client = Some(from);
                    let _sent = outer.send_to(&buffer[..length], host);
                }
                if let (Ok((length, from)), Some(client)) = (outer.recv_from(&mut buffer), client)
                    && from == host
                {
                    let _sent = inner.send_to(&buffer[..length], client);
                }
            }
        });
        Self { inside, _end: end }
    }
}

/// The policy `path-nat` says who is a client, as `ping_nated_only` does in Kamailio.
#[test]
fn peers_only_phones_behind_nat_that_a_registrar_has_accepted_are_pinged() {
    let builder = Builder::new().policy(policy("observe"));
    let core = builder.lease().addr(CORE, 5080);
    let _kamailio = Kamailio::start(REGISTRAR, &[("ADDR", core.to_string())], &[]);
    let host = builder
        .set("relay", &format!("next-hop = \"sip:{core}\""))
        .set("policy.before", &format!("file = {:?}", policy("path-nat")))
        .set("nat", "ping = \"1s\"")
        .start();
    let nat = Nat::start(host.lease().ip(20), host.lease().ip(21), host.sip());
    let mut phone = Caller::udp(host.lease().ip(CLIENT), nat.inside);
    let mut open = host.udp(CLIENT + 1);
    let contact = format!("<sip:grace@{}>", open.local());
    for (client, name, contact) in [
        (&mut open, "grace", contact.as_str()),
        (&mut phone, "ada", "<sip:ada@10.99.0.9:5060>"),
    ] {
        let mut request = client.request("REGISTER", "sip:example.com");
        request.from = format!("<sip:{name}@example.com>");
        request.to = request.from.clone();
        request.contacts = vec![contact.into()];
        assert_eq!(client.ask(&request).code(), 200);
    }
    for _ in 0..2 {
        let ping = phone.receive();
        assert_eq!(ping.first_word(), "OPTIONS");
        let uri = format!("OPTIONS sip:{}:", host.lease().ip(21));
        assert!(ping.start_line().starts_with(&uri), "{}", ping.start_line());
        phone.send(&ok_to(&ping, phone.local()));
    }
    wait::until("both answers are counted", || {
        (pings(&host, "answered") == 2.0).then_some(())
    });
    assert!(open.hears_nothing());
}
