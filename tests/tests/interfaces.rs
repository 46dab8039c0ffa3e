//! Listening on interfaces, and on link-local addresses with their zones.

#![forbid(unsafe_code)]

use std::fs;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};

use portcullis_testkit::callee::{Callee, ok_to};
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::messages::{Message, Request, Transport};
use portcullis_testkit::network::{apart, ip};
use portcullis_testkit::policy;
use portcullis_testkit::sip::Caller;
use portcullis_testkit::wait;
use serde_json::{Value, json};

/// The addresses on which the host says that it listens.
fn listens(host: &Host) -> Vec<String> {
    let status = host.rpc("portcullis.status", json!([]));
    let listen = find(&status, "listen").expect("the status has `listen`");
    let all = listen.as_array().expect("a list").iter();
    all.map(|one| one.as_str().expect("a text").to_owned())
        .collect()
}

fn find<'v>(value: &'v Value, key: &str) -> Option<&'v Value> {
    match value {
        Value::Object(members) => members
            .get(key)
            .or_else(|| members.values().find_map(|member| find(member, key))),
        _ => None,
    }
}

/// The only one that begins so.
fn socket(host: &Host, start: &str) -> SocketAddr {
    let all = listens(host);
    let mut fitting = all.iter().filter(|one| one.starts_with(start));
    let (Some(one), None) = (fitting.next(), fitting.next()) else {
        panic!("{start}: {all:?}");
    };
    let (_, addr) = one.split_once(':').expect("a transport");
    addr.parse().expect("an address")
}

#[test]
fn an_interface_stands_for_all_its_addresses() {
    let host = Builder::new().listen("udp:lo:0").listen("tcp:lo:0").start();
    for (start, source) in [
        ("udp:127.0.0.1:", "127.0.0.1:0"),
        ("udp:[::1]:", "[::1]:0"),
        ("tcp:127.0.0.1:", "127.0.0.1:0"),
        ("tcp:[::1]:", "[::1]:0"),
    ] {
        let addr = socket(&host, start);
        let source = source.parse().expect("an address");
        let mut caller = match start.starts_with("udp") {
            true => Caller::udp_from(source, addr),
            false => Caller::tcp_from(source, addr),
        };
        let options = caller.request("OPTIONS", &format!("sip:{addr}"));
        assert_eq!(caller.ask(&options).code(), 200, "{addr}");
    }
    assert_eq!(host.complaints(), [""; 0]);
}

#[test]
fn an_interface_that_is_not_there_is_named_with_those_that_are() {
    let builder = Builder::new().listen("udp:nosuch0:5060");
    let mut host = builder.launch();
    assert!(!host.wait_until_ended().success());
    let expected = "udp:nosuch0:5060: this machine has no interface `nosuch0`, but ";
    let log = host.log();
    let (_, there) = log.split_once(expected).unwrap_or_else(|| panic!("{log}"));
    assert!(
        there.lines().next().is_some_and(|line| line.contains("lo")),
        "{log}"
    );
    let output = host.command("check");
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains(expected), "{said}");
    // What is there is named, too.
    let config = host.folder().join("portcullis.toml");
    let text = fs::read_to_string(&config).expect("the configuration can be read");
    fs::write(&config, text.replace("udp:nosuch0:5060", "udp:lo:5099")).expect("a file is written");
    let said = host.run("check");
    let line = said.lines().find(|line| line.contains("udp:lo:5099"));
    let line = line.unwrap_or_else(|| panic!("{said}"));
    assert!(line.contains("127.0.0.1"), "{line}");
}

/// Both ends of a link, with a link-local address each.
const OURS: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const THEIRS: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);

/// A phone on the link that has no other address. In the network of this machine, both ends of the link are there.
struct Phone {
    socket: UdpSocket,
    host: SocketAddr,
}

impl Phone {
    fn request(&self, method: &str, uri: &str) -> Request {
        let own = SocketAddrV6::new(THEIRS, 5_080, 0, 0);
        Request::new(method, uri, Transport::Udp, own.into())
    }

    fn send(&self, bytes: &[u8]) {
        self.socket
            .send_to(bytes, self.host)
            .expect("a datagram can be sent");
    }

    fn receive(&self) -> Message {
        self.socket
            .set_read_timeout(Some(wait::PATIENCE))
            .expect("a timeout can be set");
        let mut buffer = vec![0; 65_536];
        loop {
            let (count, _) = self.socket.recv_from(&mut buffer).expect("a message comes");
            let message = Message::new(buffer[..count].to_vec());
            if message.code() != 100 {
                return message;
            }
        }
    }
}

#[test]
fn peers_a_link_local_address_serves_its_link_and_its_zone_stays_here() {
    apart();
    ip("link add near0 type veth peer name far0");
    for words in [
        "addr add fe80::1/64 dev near0 nodad",
        "addr add 192.0.2.1/24 dev near0",
        "addr add fe80::2/64 dev far0 nodad",
        "link set near0 up",
        "link set far0 up",
    ] {
        ip(words);
    }
    let builder = Builder::new()
        .policy(policy("observe"))
        .listen("udp:[fe80::1%near0]:5060")
        .listen("udp:near0:5070")
        .set("nat", "clients = [\"udp:[fe80::1%near0]:5060\"]");
    let core = builder.lease().addr(3, 5_080);
    let callee = Callee::start(core);
    let host = builder
        .set("relay", &format!("next-hop = \"sip:{core}\""))
        .start();
    let all = listens(&host);
    for expected in ["udp:[fe80::1]:5060", "udp:192.0.2.1:5070"] {
        assert!(all.iter().any(|one| one == expected), "{all:?}");
    }
    let said = host.run("check");
    for expected in ["udp:[fe80::1%near0]:5060", "udp:near0:5070: 192.0.2.1"] {
        assert!(said.contains(expected), "{said}");
    }

    let zone = index_of("far0");
    let own = SocketAddrV6::new(THEIRS, 5_080, 0, zone);
    let phone = Phone {
        socket: UdpSocket::bind(own).expect("the address is there"),
        host: SocketAddrV6::new(OURS, 5_060, 0, zone).into(),
    };
    let options = phone.request("OPTIONS", "sip:[fe80::1]");
    phone.send(&options.bytes());
    let answer = phone.receive();
    assert_eq!(answer.code(), 200, "{answer:?}");
    let text = String::from_utf8_lossy(&options.bytes()).into_owned();
    assert!(!text.contains('%'), "{text}");

    // A call, and a request of the callee along the flow of the phone.
    let invite = phone.request("INVITE", "sip:bob@example.com");
    phone.send(&invite.bytes());
    let seen = callee.next();
    let answer = phone.receive();
    assert_eq!(answer.code(), 200, "{answer:?}");
    for message in [&seen, &answer] {
        let all: Vec<_> = ["Via", "Record-Route", "Contact", "Path"]
            .iter()
            .flat_map(|name| message.headers(name))
            .collect();
        assert!(all.iter().all(|value| !value.contains('%')), "{all:?}");
    }
    let routes = seen.headers("Record-Route");
    assert!(
        routes
            .iter()
            .any(|route| route.contains("@[fe80::1]:5060;lr")),
        "{routes:?}"
    );
    let mut bob = Caller::udp(host.lease().ip(4), host.sip());
    let mut bye = bob.request("BYE", "sip:ada@[fe80::2]:5080");
    bye.extra = routes
        .iter()
        .map(|route| format!("Route: {route}"))
        .collect();
    bye.from = "<sip:bob@example.com>".into();
    bye.from_tag = Some("callee".into());
    bye.to = seen.header("From").expect("a request has From").to_owned();
    bye.call_id.clone_from(&invite.call_id);
    bob.send(&bye.bytes());
    let asked = phone.receive();
    assert_eq!(asked.first_word(), "BYE", "{asked:?}");
    let via = asked.headers("Via")[0].to_owned();
    assert!(
        via.starts_with("SIP/2.0/UDP [fe80::1]:5060;branch="),
        "{via}"
    );
    phone.send(&ok_to(&asked, own.into()));
    assert_eq!(bob.receive().code(), 200);
    assert_eq!(host.complaints(), [""; 0]);
}

/// A gateway on the link that has no other address: the host sends to it from its own link-local address.
#[test]
fn peers_a_link_local_next_hop_is_reached_over_udp_and_tcp() {
    apart();
    ip("link add near0 type veth peer name far0");
    for words in [
        "addr add fe80::1/64 dev near0 nodad",
        "addr add fe80::2/64 dev far0 nodad",
        "link set near0 up",
        "link set far0 up",
    ] {
        ip(words);
    }
    let gateway = SocketAddrV6::new(THEIRS, 5_080, 0, index_of("far0"));
    let gateway = Callee::start(gateway.into());
    for transport in ["udp", "tcp"] {
        let next_hop = format!("next-hop = \"sip:[fe80::2]:5080;transport={transport}\"");
        let host = Builder::new()
            .policy(policy("observe"))
            .listen(&format!("{transport}:[fe80::1%near0]:5060"))
            .set("relay", &next_hop)
            .start();
        let mut caller = host.udp(10);
        let own = format!(
            "SIP/2.0/{} [fe80::1]:5060;branch=",
            transport.to_uppercase()
        );
        for _ in 0..2 {
            let options = caller.request("OPTIONS", "sip:bob@example.com");
            assert_eq!(caller.ask(&options).code(), 200);
            let seen = gateway.next();
            let via = seen.headers("Via")[0].to_owned();
            assert!(via.starts_with(&own), "{via}");
        }
        let opened = host.metric("portcullis_connections_total", &["direction=\"opened\""]);
        assert_eq!(opened, if transport == "tcp" { 1.0 } else { 0.0 });
        // Operators reach it as well, if they say which link they mean.
        let uri = format!("sip:[fe80::2]:5080;transport={transport}");
        let said = host.run(&format!("probe {uri} --from fe80::1%near0"));
        assert!(said.contains("SIP/2.0 200 OK"), "{said}");
        let via = gateway.next().headers("Via")[0].to_owned();
        let own = format!("SIP/2.0/{} [fe80::1]:", transport.to_uppercase());
        assert!(via.starts_with(&own), "{via}");
        let said = host.refused(&format!("probe {uri}"));
        assert!(said.contains("--from fe80::1%eth0"), "{said}");
        assert_eq!(host.complaints(), [""; 0]);
    }
}

/// Gateways of the dispatcher on a link are pinged from the link-local address of the host, over each transport.
#[test]
fn peers_link_local_destinations_are_pinged_on_their_link() {
    apart();
    ip("link add near0 type veth peer name far0");
    for words in [
        "addr add fe80::1/64 dev near0 nodad",
        "addr add fe80::2/64 dev far0 nodad",
        "link set near0 up",
        "link set far0 up",
    ] {
        ip(words);
    }
    let at = |port| SocketAddrV6::new(THEIRS, port, 0, index_of("far0"));
    let gateways = [5_080, 5_081].map(|port| Callee::start(at(port).into()));
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let list = folder.path().join("dispatcher.list");
    let rows = "1 sip:[fe80::2]:5080\n1 sip:[fe80::2]:5081;transport=tcp\n";
    std::fs::write(&list, rows).expect("the list can be written");
    let host = Builder::new()
        .listen("udp:[fe80::1%near0]:5060")
        .listen("tcp:[fe80::1%near0]:5060")
        .set("dispatcher", &format!("file = {list:?}"))
        .set("dispatcher", "ping = \"1s\"")
        .start();
    for (gateway, transport) in gateways.iter().zip(["UDP", "TCP"]) {
        let ping = gateway.next();
        assert_eq!(ping.first_word(), "OPTIONS");
        let via = ping.headers("Via")[0].to_owned();
        let expected = format!("SIP/2.0/{transport} [fe80::1]:5060;branch=");
        assert!(via.starts_with(&expected), "{via}");
    }
    wait::until("both gateways have answered", || {
        let shown = host.rpc("dispatcher.show", json!([]));
        let all = shown["result"]["sets"][0]["destinations"].as_array()?;
        let mut codes = all.iter().map(|one| one["last_code"].as_u64());
        (all.len() == 2 && codes.all(|code| code == Some(200))).then_some(())
    });
    assert_eq!(host.complaints(), [""; 0]);
}

/// The number of an interface, as the system lists it for this thread.
fn index_of(interface: &str) -> u32 {
    let output = std::process::Command::new("ip")
        .args(["-o", "link", "show", "dev", interface])
        .output()
        .expect("ip is installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = text
        .split(':')
        .next()
        .and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("{interface}: {text}"))
}
