//! `[capture]`: copies of messages in HEP, for a server of the test and for Debian's sngrep.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use portcullis_testkit::callee::Callee;
use portcullis_testkit::host::{Builder, Host, signal};
use portcullis_testkit::wait;
use serde_json::Value;

const CALLER: u8 = 10;
const STRANGER: u8 = 11;

/// A packet as the server reads it.
#[derive(Debug)]
struct Packet {
    protocol: u8,
    kind: u8,
    from: SocketAddr,
    to: SocketAddr,
    agent: u32,
    correlation: String,
    node: String,
    payload: String,
}

impl Packet {
    /// Reads a packet over IPv4.
    fn read(bytes: &[u8]) -> Self {
        let number = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        assert_eq!(&bytes[..4], b"HEP3");
        assert_eq!(usize::from(number(4)), bytes.len());
        let mut chunks = BTreeMap::new();
        let mut at = 6;
        while at < bytes.len() {
            let length = usize::from(number(at + 4));
            chunks.insert(number(at + 2), &bytes[at + 6..at + length]);
            at += length;
        }
        assert_eq!(chunks[&1], [2], "the family is IPv4");
        let of = |kind: u16| chunks.get(&kind).copied().unwrap_or_default();
        let text = |kind| String::from_utf8_lossy(of(kind)).into_owned();
        let socket = |address, port| {
            let address: [u8; 4] = of(address).try_into().expect("four bytes");
            let port: [u8; 2] = of(port).try_into().expect("two bytes");
            let ip = IpAddr::V4(Ipv4Addr::from(address));
            SocketAddr::new(ip, u16::from_be_bytes(port))
        };
        Self {
            protocol: of(2)[0],
            kind: of(11)[0],
            from: socket(3, 7),
            to: socket(4, 8),
            agent: u32::from_be_bytes(of(12).try_into().expect("four bytes")),
            correlation: text(17),
            node: text(19),
            payload: text(15),
        }
    }
}

/// A capture server.
struct Server(UdpSocket);

impl Server {
    fn at(addr: SocketAddr) -> Self {
        let socket = UdpSocket::bind(addr).expect("the address is free");
        let limit = Some(Duration::from_secs(60));
        socket.set_read_timeout(limit).expect("it is a time");
        Self(socket)
    }

    fn next(&self) -> Packet {
        let mut buffer = vec![0; 65_536];
        let length = self.0.recv(&mut buffer).expect("a packet comes");
        Packet::read(&buffer[..length])
    }
}

/// A host that relays what the caller sends and rejects others, with this capture server.
fn start(builder: Builder, callee: &Callee, server: SocketAddr, lines: &[&str]) -> Host {
    let caller = builder.lease().ip(CALLER);
    let builder = builder
        .row(&format!("200 {caller}"))
        .set("relay", &format!("next-hop = \"sip:{}\"", callee.addr()))
        .set("capture", &format!("hep = \"udp:{server}\""));
    let lines = lines.iter();
    lines
        .fold(builder, |builder, line| builder.set("capture", line))
        .start()
}

#[test]
fn the_server_gets_both_sides_of_a_relay_and_what_was_decided() {
    let builder = Builder::new();
    let callee = Callee::start(builder.lease().addr(20, 5060));
    let server = Server::at(builder.lease().addr(21, 9060));
    let addr = server.0.local_addr().expect("it is bound");
    let lines = [
        "agent = 7",
        "node = \"edge 1\"",
        "skip-methods = [\"OPTIONS\"]",
    ];
    let host = start(builder, &callee, addr, &lines);
    let mut caller = host.udp(CALLER);
    let options = caller.request("OPTIONS", &format!("sip:{}", host.sip()));
    assert_eq!(caller.ask(&options).code(), 200);
    let request = caller.request("MESSAGE", "sip:bob@example.com");
    assert_eq!(caller.ask(&request).code(), 200);

    let (us, him, her) = (host.sip(), caller.local(), callee.addr());
    let packets: Vec<_> = (0..5).map(|_| server.next()).collect();
    for packet in &packets {
        assert_eq!((packet.agent, &*packet.node), (7, "edge 1"), "{packet:?}");
        assert_eq!(packet.correlation, request.call_id, "{packet:?}");
        assert_eq!(packet.protocol, 17, "{packet:?}");
    }
    let line = |packet: &Packet| packet.payload.lines().next().map(str::to_owned);
    let mut messages = packets.iter().filter(|packet| packet.kind == 1);
    for (from, to, first) in [
        (him, us, "MESSAGE sip:bob@example.com SIP/2.0"),
        (us, her, "MESSAGE sip:bob@example.com SIP/2.0"),
        (her, us, "SIP/2.0 200 OK"),
        (us, him, "SIP/2.0 200 OK"),
    ] {
        let packet = messages.next().expect("four messages");
        assert_eq!((packet.from, packet.to), (from, to), "{packet:?}");
        assert_eq!(line(packet).as_deref(), Some(first));
    }
    let log = packets.iter().find(|packet| packet.kind == 100);
    let log = log.expect("a line of the log");
    let decided: Value = serde_json::from_str(&log.payload).expect("it is JSON");
    assert_eq!(decided["outcome"], "relayed", "{decided}");
    assert_eq!(decided["next"], her.to_string(), "{decided}");
    assert_eq!(decided["asked"][0]["seat"], "default", "{decided}");

    let mut stranger = host.tcp(STRANGER);
    let request = stranger.request("MESSAGE", "sip:bob@example.com");
    assert_eq!(stranger.ask(&request).code(), 401);
    let rejected: Vec<_> = (0..3).map(|_| server.next()).collect();
    let firsts: Vec<_> = rejected.iter().map(|packet| packet.kind).collect();
    assert_eq!(firsts, [1, 100, 1], "{rejected:?}");
    assert!(rejected.iter().all(|packet| packet.protocol == 6));
    let decided: Value = serde_json::from_str(&rejected[1].payload).expect("it is JSON");
    assert_eq!(
        (&decided["outcome"], &decided["code"]),
        (&"rejected".into(), &401.into()),
        "{decided}"
    );
    assert!(rejected[2].payload.starts_with("SIP/2.0 401 "));
    assert_eq!(
        (rejected[2].from, rejected[2].to),
        (rejected[0].to, rejected[0].from)
    );
    wait::until("all packets are counted", || {
        (host.metric("portcullis_capture_packets_total", &[]) >= 8.0).then_some(())
    });
    assert_eq!(host.metric("portcullis_capture_lost_total", &[]), 0.0);
}

#[test]
fn without_a_server_calls_go_on_and_losses_are_counted() {
    let builder = Builder::new();
    let callee = Callee::start(builder.lease().addr(20, 5060));
    let nobody = builder.lease().addr(21, 9060);
    let host = start(builder, &callee, nobody, &["verdicts = false"]);
    let mut caller = host.udp(CALLER);
    wait::until("a packet is refused", || {
        let request = caller.request("MESSAGE", "sip:bob@example.com");
        assert_eq!(caller.ask(&request).code(), 200);
        let refused = host.metric("portcullis_capture_lost_total", &["error"]);
        (refused > 0.0).then_some(())
    });
    host.wait_for_log("capture_failed");
}

/// A running sngrep, which ends with the test.
struct Sngrep(Child);

impl Sngrep {
    fn start(folder: &Path, listen: SocketAddr) -> Self {
        let output = File::create(folder.join("said")).expect("it can be created");
        // Its count of dialogs is one line that is written again and again.
        let child = Command::new("stdbuf")
            .args(["-o0", "sngrep", "-F", "-N", "-O", "calls.pcap", "-L"])
            .arg(format!("udp:{listen}"))
            .current_dir(folder)
            .env("TERM", "dumb")
            .stdin(Stdio::null())
            .stdout(output)
            .spawn()
            .expect("stdbuf runs");
        Self(child)
    }

    /// Ends it, so that its file is whole.
    fn end(&mut self) {
        signal(self.0.id(), "INT");
        let _ended = self.0.wait().expect("it was started");
    }
}

impl Drop for Sngrep {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

#[test]
fn peers_sngrep_shows_the_calls() {
    let builder = Builder::new();
    let callee = Callee::start(builder.lease().addr(20, 5060));
    let listen = builder.lease().addr(21, 9060);
    let folder = tempfile::tempdir().expect("a temporary directory");
    let mut sngrep = Sngrep::start(folder.path(), listen);
    let host = start(builder, &callee, listen, &[]);
    let counted = |number: u32| {
        let said = fs::read_to_string(folder.path().join("said")).unwrap_or_default();
        said.contains(&format!("Dialog count: {number}"))
    };
    let mut caller = host.udp(CALLER);
    // Packets are lost until it listens.
    wait::until("sngrep listens", || {
        let request = caller.request("MESSAGE", "sip:early@example.com");
        assert_eq!(caller.ask(&request).code(), 200);
        counted(1).then_some(())
    });
    let request = caller.request("MESSAGE", "sip:bob@example.com");
    assert_eq!(caller.ask(&request).code(), 200);
    let mut stranger = host.udp(STRANGER);
    let refused = stranger.request("MESSAGE", "sip:bob@example.com");
    assert_eq!(stranger.ask(&refused).code(), 401);
    let file = folder.path().join("calls.pcap");
    let captured = |text: &str| {
        let bytes = fs::read(&file).unwrap_or_default();
        String::from_utf8_lossy(&bytes).matches(text).count()
    };
    // It writes packets in the order in which they came.
    wait::until("sngrep has everything", || {
        (captured("SIP/2.0 401 ") > 0).then_some(())
    });
    sngrep.end();
    assert_eq!(captured(&format!("Call-ID: {}", request.call_id)), 4);
    assert_eq!(captured(&format!("Call-ID: {}", refused.call_id)), 2);
    assert!(captured("\"outcome\":\"rejected\"") > 0);
}
