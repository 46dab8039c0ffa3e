//! Bad input at each door for SIP: one clear error or a counted drop, and nobody else is disturbed.

#![forbid(unsafe_code)]

use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Instant;

use portcullis_testkit::browser::{Browser, Frame, connect};
use portcullis_testkit::callee::Callee;
use portcullis_testkit::certificates::{authority, certificate};
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::policy;
use portcullis_testkit::secure::{Handshake, Line};
use portcullis_testkit::sip::Caller;
use portcullis_testkit::wait;
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

const STRANGER: u8 = 9;
const NEIGHBOUR: u8 = 8;
const NAME: &str = "edge.example";
const SUBPROTOCOL: (&str, &str) = ("Sec-WebSocket-Protocol", "sip");

/// A folder with an authority and the certificate of `edge.example`.
fn office() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    authority(folder.path(), "ca");
    certificate(folder.path(), "edge", &format!("DNS:{NAME}"));
    folder
}

/// A host with every door, and its folder of certificates.
fn start(change: impl FnOnce(Builder) -> Builder) -> (Host, TempDir) {
    let folder = office();
    let builder = Builder::new();
    let at = |port| builder.lease().addr(1, port);
    let doors = [
        format!("tls:{}", at(5_061)),
        format!("ws:{}", at(8_088)),
        format!("wss:{}", at(8_089)),
    ];
    let file = |end: &str| folder.path().join(format!("edge.{end}"));
    let builder = doors
        .iter()
        .fold(builder, |builder, door| builder.listen(door));
    let builder = builder
        .policy(policy("observe"))
        .set("tls.edge", &format!("certificate = {:?}", file("pem")))
        .set("tls.edge", &format!("key = {:?}", file("key")))
        .set("streams", "handshakes-per-second = 0");
    (change(builder).start(), folder)
}

fn at(host: &Host, port: u16) -> SocketAddr {
    host.lease().addr(1, port)
}

/// A connection of a stranger to this port.
fn plain(host: &Host, port: u16) -> TcpStream {
    connect(host.lease().ip(STRANGER), at(host, port))
}

fn secure(host: &Host, folder: &TempDir, port: u16) -> Line {
    Line::secure(plain(host, port), folder.path(), NAME, &[])
}

fn web(line: Line, host: &Host, port: u16) -> Browser {
    Browser::over(line, at(host, port), "/", &[SUBPROTOCOL]).expect("the host accepts a WebSocket")
}

fn options(host: &Host, transport: &str, number: usize) -> String {
    format!(
        "OPTIONS sip:{} SIP/2.0\r\nVia: SIP/2.0/{transport} client.invalid;rport;branch=z9hG4bK-door-{number}\r\n\
         Max-Forwards: 70\r\nFrom: <sip:ada@example.com>;tag=1\r\nTo: <sip:bob@example.com>\r\nCall-ID: door-{number}\r\n\
         CSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n",
        host.sip()
    )
}

/// Somebody with an open connection, who is answered whatever others do.
struct Neighbour {
    caller: Caller,
    sip: SocketAddr,
}

impl Neighbour {
    fn new(host: &Host) -> Self {
        let mut neighbour = Self {
            caller: host.tcp(NEIGHBOUR),
            sip: host.sip(),
        };
        neighbour.is_answered();
        neighbour
    }

    fn is_answered(&mut self) {
        let request = self.caller.request("OPTIONS", &format!("sip:{}", self.sip));
        assert_eq!(self.caller.ask(&request).code(), 200);
    }
}

fn dropped(host: &Host, reason: &str) -> f64 {
    let label = format!("reason=\"{reason}\"");
    host.metric("portcullis_dropped_total", &[label.as_str()])
}

fn open(host: &Host) -> f64 {
    host.metric("portcullis_connections_open", &[])
}

/// Warnings and errors, except that the certificates of tests expire soon.
fn complaints(host: &Host) -> Vec<String> {
    let mut all = host.complaints();
    all.retain(|line| !line.contains("tls_certificate_expires"));
    all
}

fn handshakes(host: &Host, result: &str) -> f64 {
    let label = format!("result=\"{result}\"");
    let labels = ["direction=\"accepted\"", label.as_str()];
    host.metric("portcullis_tls_handshakes_total", &labels)
}

#[test]
fn handshakes_that_are_cut_off_are_counted_and_leave_nothing() {
    let (host, folder) = start(|builder| builder);
    let mut neighbour = Neighbour::new(&host);
    let send = |port, bytes: &[u8]| {
        let mut stream = plain(&host, port);
        stream.write_all(bytes).expect("the connection takes bytes");
        stream
    };
    // TLS, within the first flight, behind it, and within the last one.
    let mut cut = 0.0;
    let hello = Handshake::new(folder.path(), NAME).hello();
    for length in [1, 5, 6, hello.len() / 2, hello.len() - 1, hello.len()] {
        drop(send(5_061, &hello[..length]));
        cut += 1.0;
        neighbour.is_answered();
    }
    for length in [0, 1, 20] {
        let mut handshake = Handshake::new(folder.path(), NAME);
        let mut stream = send(5_061, &handshake.hello());
        let last = handshake.last(&mut stream);
        stream
            .write_all(&last[..length])
            .expect("the connection takes bytes");
        drop(stream);
        cut += 1.0;
        neighbour.is_answered();
    }
    wait::until("all of them are counted", || {
        (handshakes(&host, "closed") == cut).then_some(())
    });
    assert_eq!(handshakes(&host, "tls1.3"), 0.0);
    // A first flight that changes in the middle.
    let mut garbled = hello;
    let middle = garbled.len() / 2;
    garbled[9..middle].fill(0xff);
    drop(Line::from(send(5_061, &garbled)).hear_all());
    wait::until("it is counted", || {
        (handshakes(&host, "protocol") == 1.0).then_some(())
    });

    // A record that is longer than records may be.
    let large = [&[0x16, 3, 1, 0xff, 0xff][..], &[0; 100]].concat();
    drop(Line::from(send(5_061, &large)).hear_all());
    wait::until("it is counted", || {
        (handshakes(&host, "protocol") == 2.0).then_some(())
    });
    neighbour.is_answered();

    // WebSocket, within the request, with TLS and without.
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: sip\r\n\r\n",
        at(&host, 8_088)
    );
    for length in [
        0,
        1,
        14,
        request.len() / 2,
        request.len() - 1,
        request.len(),
    ] {
        let part = &request.as_bytes()[..length];
        drop(send(8_088, part));
        let mut line = secure(&host, &folder, 8_089);
        line.write_all(part).expect("the connection takes bytes");
        drop(line);
        neighbour.is_answered();
    }
    // One that never goes on is closed.
    let mut silent = Line::from(send(8_088, &request.as_bytes()[..14]));
    assert_eq!(silent.hear_all(), "");
    wait::until("only the neighbour is left", || {
        (open(&host) == 1.0).then_some(())
    });
    neighbour.is_answered();
    web(secure(&host, &folder, 8_089), &host, 8_089);
    assert_eq!(complaints(&host), [""; 0]);
}

/// First lines of other protocols.
const OTHERS: [&[u8]; 6] = [
    b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"EHLO example.com\r\n",
    b"\x16\x03\x01\x00\x05hello\r\n",
    b"HEP3\0\0\r\n",
    b"\xff\xfe\0\0\r\n",
];

#[test]
fn garbage_before_the_first_message_ends_a_stream_and_is_counted() {
    let (host, folder) = start(|builder| builder);
    let mut neighbour = Neighbour::new(&host);
    let mut count = 0.0;
    for garbage in OTHERS {
        for mut line in [
            Line::from(plain(&host, 5_060)),
            secure(&host, &folder, 5_061),
        ] {
            line.write_all(garbage).expect("the connection takes bytes");
            assert_eq!(line.hear_all(), "", "{}", garbage.escape_ascii());
            count += 1.0;
            assert_eq!(dropped(&host, "unframed"), count);
        }
        neighbour.is_answered();
    }
    // The beginning of a line, and no more: it waits, and keeps nobody else waiting.
    let mut half = plain(&host, 5_060);
    half.write_all(b"HEP3\0\0")
        .expect("the connection takes bytes");
    neighbour.is_answered();
    drop(half);
    // Each of them is also counted as what it is.
    assert_eq!(dropped(&host, "not_sip"), count);
    // A message of WebSocket has an end, so the connection goes on.
    let mut ignored = count;
    for (line, port) in [
        (Line::from(plain(&host, 8_088)), 8_088),
        (secure(&host, &folder, 8_089), 8_089),
    ] {
        let mut browser = web(line, &host, port);
        for garbage in OTHERS {
            browser.send_frame(Frame::binary(garbage.to_vec()));
            ignored += 1.0;
        }
        let request = browser.request("OPTIONS", &format!("sip:{}", host.sip()));
        assert_eq!(browser.ask(&request).code(), 200);
        assert_eq!(dropped(&host, "not_sip"), ignored);
    }
    neighbour.is_answered();
    assert_eq!(dropped(&host, "unframed"), count);
    assert_eq!(complaints(&host), [""; 0]);
}

#[test]
fn datagrams_of_other_protocols_are_not_answered_and_are_counted() {
    let (host, _folder) = start(|builder| builder);
    let mut neighbour = Neighbour::new(&host);
    let mut stranger = host.udp(STRANGER);
    let mut count = 0.0;
    for garbage in OTHERS {
        stranger.send(garbage);
        count += 1.0;
        wait::until("it is counted", || {
            (dropped(&host, "not_sip") == count).then_some(())
        });
        neighbour.is_answered();
    }
    // This is the first answer that it gets.
    let request = stranger.request("OPTIONS", &format!("sip:{}", host.sip()));
    assert_eq!(stranger.ask(&request).code(), 200);
    assert_eq!(complaints(&host), [""; 0]);
}

#[test]
fn connections_of_all_doors_share_one_bound() {
    let mut callee = None;
    let (host, folder) = start(|builder| {
        let core = Callee::start(builder.lease().addr(3, 5_080));
        let hop = format!("next-hop = \"sip:{}\"", core.addr());
        callee = Some(core);
        builder
            .set("relay", &hop)
            .set("sip", "tcp-max-connections = 6")
    });
    let mut neighbour = Neighbour::new(&host);
    // A request of the neighbour is relayed: it is no stranger.
    let request = neighbour.caller.request("OPTIONS", "sip:bob@example.com");
    assert_eq!(neighbour.caller.ask(&request).code(), 200);
    let evicted = || host.metric("portcullis_connections_evicted_total", &[]);
    let (mut lines, mut browsers) = (Vec::new(), Vec::new());
    for round in 0..2 {
        lines.push(Line::from(plain(&host, 5_060)));
        lines.push(secure(&host, &folder, 5_061));
        browsers.push(web(Line::from(plain(&host, 8_088)), &host, 8_088));
        browsers.push(web(secure(&host, &folder, 8_089), &host, 8_089));
        // Five places are left for eight connections.
        let expected = [0.0, 3.0][round];
        wait::until("each has a place", || (evicted() == expected).then_some(()));
        neighbour.is_answered();
    }
    drop((lines, browsers));
    wait::until("they are gone", || (open(&host) == 1.0).then_some(()));
    let mut tls = secure(&host, &folder, 5_061);
    let answer = tls.ask(&options(&host, "TLS", 1), "\r\n\r\n");
    assert!(answer.starts_with("SIP/2.0 200 "), "{answer}");
    let mut browser = web(secure(&host, &folder, 8_089), &host, 8_089);
    let request = browser.request("OPTIONS", &format!("sip:{}", host.sip()));
    assert_eq!(browser.ask(&request).code(), 200);
    neighbour.is_answered();
    assert_eq!(dropped(&host, "too_many_connections"), 0.0);
    assert_eq!(complaints(&host), [""; 0]);
    drop(callee);
}

#[test]
fn frames_and_messages_above_the_limit_are_refused_before_they_have_come() {
    let (host, folder) = start(|builder| builder);
    let mut neighbour = Neighbour::new(&host);
    let large = 65_537_u64.to_be_bytes();
    let [huge, largest] = [u64::MAX >> 1, 1 << 40].map(u64::to_be_bytes);
    let head = |first: u8, length: [u8; 8]| [&[first, 0xff][..], &length, &[0; 4]].concat();
    let begun = b"\x01\x81\0\0\0\0a".to_vec();
    for (frames, code) in [
        (head(0x81, large), 1009),
        (head(0x82, huge), 1009),
        (head(0x82, largest), 1009),
        // The second part of a message.
        (
            [begun.clone(), head(0x00, 65_536_u64.to_be_bytes())].concat(),
            1009,
        ),
        // A length that is negative, or longer than it need be, and a message within another.
        (head(0x82, u64::MAX.to_be_bytes()), 1002),
        (head(0x82, 5_u64.to_be_bytes()), 1002),
        ([&begun[..], b"\x81\x81\0\0\0\0a"].concat(), 1002),
    ] {
        for (line, port) in [
            (Line::from(plain(&host, 8_088)), 8_088),
            (secure(&host, &folder, 8_089), 8_089),
        ] {
            let mut browser = web(line, &host, port);
            browser
                .stream()
                .write_all(&frames)
                .expect("the connection takes bytes");
            assert_eq!(browser.closed_with(), code, "{}", frames.escape_ascii());
        }
        neighbour.is_answered();
    }
    assert_eq!(dropped(&host, "unframed"), 14.0);
    assert_eq!(complaints(&host), [""; 0]);
}

/// Permits this process as many open files as it may have, and returns that number.
fn open_files() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").expect("a process has limits");
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let hard = line.and_then(|line| line.split_whitespace().nth(1));
    let hard = hard.expect("a hard limit").to_owned();
    let status = Command::new("prlimit")
        .args(["--pid", &std::process::id().to_string()])
        .arg(format!("--nofile={hard}:{hard}"))
        .status();
    assert!(status.is_ok_and(|status| status.success()));
    hard.parse().unwrap_or(1 << 20)
}

/// As many as `tcp-max-connections` permits by default, if this machine permits as many files.
const DEFAULT: usize = 16_384;

/// Below `tcp-max-connections-per-address`.
const PER_ADDRESS: usize = 250;

#[test]
fn as_many_connections_as_configured_and_each_further_one_replaces_one() {
    let most = DEFAULT.min(open_files().saturating_sub(2_000));
    let builder = Builder::new()
        .policy(policy("observe"))
        .set("sip", &format!("tcp-max-connections = {most}"));
    let callee = Callee::start(builder.lease().addr(3, 5_080));
    let host = builder
        .set("relay", &format!("next-hop = \"sip:{}\"", callee.addr()))
        .start();
    let mut neighbour = Neighbour::new(&host);
    // A request of the neighbour is relayed: it is no stranger.
    let request = neighbour.caller.request("OPTIONS", "sip:bob@example.com");
    assert_eq!(neighbour.caller.ask(&request).code(), 200);
    let source = |number: usize| -> IpAddr {
        let last = 10 + number / PER_ADDRESS;
        host.lease().ip(u8::try_from(last).expect("few addresses"))
    };
    let mut all: Vec<_> = (1..most)
        .map(|number| connect(source(number), host.sip()))
        .collect();
    wait::until("all of them are accepted", || {
        (open(&host) == most as f64).then_some(())
    });
    let evicted = || host.metric("portcullis_connections_evicted_total", &[]);
    assert_eq!(evicted(), 0.0);
    for _ in 0..200 {
        all.push(connect(host.lease().ip(200), host.sip()));
    }
    wait::until("each further one has replaced one", || {
        (evicted() == 200.0).then_some(())
    });
    neighbour.is_answered();
    let mut udp = host.udp(201);
    let request = udp.request("OPTIONS", &format!("sip:{}", host.sip()));
    assert_eq!(udp.ask(&request).code(), 200);
    assert!(open(&host) <= most as f64);
    assert_eq!(dropped(&host, "too_many_connections"), 0.0);
    drop(all);
    wait::until("they are gone", || (open(&host) == 1.0).then_some(()));
    neighbour.is_answered();
    assert_eq!(complaints(&host), [""; 0]);
}

#[test]
fn connections_that_are_all_busy_refuse_others_and_say_so_once() {
    let builder = Builder::new()
        .policy(policy("observe"))
        .set("sip", "tcp-max-connections = 4");
    let core = builder.lease().addr(3, 5_080);
    // It never answers.
    let _silent = UdpSocket::bind(core).expect("the address is free");
    let host = builder
        .set("relay", &format!("next-hop = \"sip:{core}\""))
        .start();
    let mut busy: Vec<_> = (10..14)
        .map(|source| {
            let mut caller = host.tcp(source);
            let invite = caller.request("INVITE", "sip:bob@example.com");
            caller.send(&invite.bytes());
            assert_eq!(caller.receive_any().code(), 100);
            caller
        })
        .collect();
    for _ in 0..20 {
        let mut refused = Line::from(connect(host.lease().ip(STRANGER), host.sip()));
        assert_eq!(refused.hear_all(), "");
    }
    assert_eq!(dropped(&host, "too_many_connections"), 20.0);
    for caller in &mut busy {
        let request = caller.request("OPTIONS", &format!("sip:{}", host.sip()));
        assert_eq!(caller.ask(&request).code(), 200);
    }
    host.wait_for_log("too_many_connections");
    let told = complaints(&host);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains("event=\"too_many_connections\""),
        "{told:?}"
    );
    assert!(told[0].contains("tcp-max-connections"), "{told:?}");
}

/// A connection of a client that takes few bytes.
fn narrow(host: &Host, port: u16) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket can be made");
    socket
        .set_recv_buffer_size(4_096)
        .expect("a buffer has a size");
    socket
        .bind(&SocketAddr::new(host.lease().ip(STRANGER), 0).into())
        .expect("a loopback source can be bound");
    socket
        .connect_timeout(&at(host, port).into(), wait::PATIENCE)
        .expect("the host accepts TCP");
    socket.into()
}

/// A text frame with a mask of zeroes.
fn frame(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).expect("a short message");
    let [high, low] = length.to_be_bytes();
    [&[0x81, 0xfe, high, low, 0, 0, 0, 0][..], text.as_bytes()].concat()
}

#[test]
fn clients_that_read_nothing_lose_their_answers_and_their_connection() {
    let begun = Instant::now();
    let (host, folder) = start(|builder| builder);
    let mut neighbour = Neighbour::new(&host);
    let tls = |port| Line::secure(narrow(&host, port), folder.path(), NAME, &[]);
    let mut ws = web(narrow(&host, 8_088).into(), &host, 8_088);
    let mut wss = web(tls(8_089), &host, 8_089);
    let mut tcp = Line::from(narrow(&host, 5_060));
    let mut tls = tls(5_061);
    let doors: [(&mut Line, &str, bool); 4] = [
        (&mut tcp, "TCP", false),
        (&mut tls, "TLS", false),
        (ws.stream(), "WS", true),
        (wss.stream(), "WSS", true),
    ];
    for (line, transport, is_framed) in doors {
        let before = dropped(&host, "queue_full");
        let text = options(&host, transport, 1);
        let one = match is_framed {
            true => frame(&text),
            false => text.into_bytes(),
        };
        let many = one.repeat(100);
        // Until the buffers of both systems and the queue of the host are full.
        for _ in 0..1_000 {
            if line.write_all(&many).is_err() || dropped(&host, "queue_full") > before {
                break;
            }
        }
        wait::until("answers are thrown away", || {
            (dropped(&host, "queue_full") > before).then_some(())
        });
        neighbour.is_answered();
    }
    wait::until("only the neighbour is left", || {
        (open(&host) == 1.0).then_some(())
    });
    neighbour.is_answered();
    let told = complaints(&host);
    let minutes = begun.elapsed().as_secs() / 60;
    assert!((1..=1 + minutes).contains(&(told.len() as u64)), "{told:?}");
    for line in &told {
        assert!(line.contains("event=\"queue_full\""), "{told:?}");
    }
}

#[test]
fn a_certificate_without_its_key_is_one_error_that_names_the_file() {
    let folder = office();
    certificate(folder.path(), "other", &format!("DNS:{NAME}"));
    std::fs::write(folder.path().join("empty.pem"), "").expect("a file can be written");
    for (certificate, key, expected) in [
        ("edge.pem", "", "a certificate without a key; set `key`"),
        (
            "edge.pem",
            "other.key",
            "other.key does not belong to the first certificate in",
        ),
        ("edge.pem", "edge.pem", "edge.pem contains no private key"),
        ("edge.pem", "missing.key", "missing.key: "),
        ("empty.pem", "edge.key", "empty.pem contains no certificate"),
    ] {
        let builder = Builder::new();
        let listen = format!("tls:{}", builder.lease().addr(1, 5_061));
        let file = |name: &str| match name {
            "" => String::new(),
            name => folder.path().join(name).display().to_string(),
        };
        let mut host = builder
            .listen(&listen)
            .set(
                "tls.edge",
                &format!("certificate = {:?}", file(certificate)),
            )
            .set("tls.edge", &format!("key = {:?}", file(key)))
            .launch();
        assert!(!host.wait_until_ended().success());
        let log = host.log();
        assert_eq!(log.matches(expected).count(), 1, "{expected}: {log}");
        let check = host.command("check");
        assert!(!check.status.success());
        let said = [check.stdout, check.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert_eq!(said.matches(expected).count(), 1, "{expected}: {said}");
        assert!(said.contains("\n1 problem"), "{said}");
    }
}

#[test]
fn a_certificate_without_its_key_is_one_error_in_each_section_that_has_one() {
    let folder = office();
    let certificate = format!("certificate = {:?}", folder.path().join("edge.pem"));
    for section in ["relay.tls", "control"] {
        let mut host = Builder::new().set(section, &certificate).launch();
        assert!(!host.wait_until_ended().success());
        let expected = format!("a certificate without a key; set `key` in [{section}]");
        let log = host.log();
        assert_eq!(log.matches(&expected).count(), 1, "{log}");
        let check = host.command("check");
        assert!(!check.status.success());
        let said = [check.stdout, check.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert_eq!(said.matches(&expected).count(), 1, "{said}");
        assert!(said.contains("\n1 problem"), "{said}");
    }
}
