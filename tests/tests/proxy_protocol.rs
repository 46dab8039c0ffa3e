//! Clients behind a load balancer: one that begins each connection with a PROXY header, or one that speaks HTTP and says in a field for whom it connects.

#![forbid(unsafe_code)]

use std::io::Write;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use portcullis_testkit::browser::{Browser, connect};
use portcullis_testkit::certificates::{authority, certificate};
use portcullis_testkit::documents::{Block, Page};
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::secure::Line;
use portcullis_testkit::sip::Caller;
use portcullis_testkit::wait;
use serde_json::Value;
use tempfile::TempDir;

const BALANCER: u8 = 40;
const NEIGHBOUR: u8 = 50;

/// In the address table, and not.
const MEMBER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 7), 40_000);
const STRANGER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 9), 40_001);

/// How the policy `address-acl` answers both without a next hop.
const TO_MEMBER: &str = "SIP/2.0 403 ";
const TO_STRANGER: &str = "SIP/2.0 401 ";

/// A host that expects PROXY headers from the load balancer, with one address in its table.
fn builder() -> Builder {
    let builder = Builder::new().row(&format!("200 {}", MEMBER.ip()));
    let balancer = builder.lease().ip(BALANCER);
    builder.set("streams", &format!("proxy-protocol = [\"{balancer}\"]"))
}

/// A connection from the load balancer, that begins with these bytes.
fn balanced(host: &Host, to: SocketAddr, header: &[u8]) -> TcpStream {
    let mut stream = connect(host.lease().ip(BALANCER), to);
    stream
        .write_all(header)
        .expect("the connection takes bytes");
    stream
}

/// A header of version 2 for a connection of this client, or for one of the load balancer itself, with a value that is to be skipped.
fn header(client: Option<SocketAddrV4>) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    match client {
        None => header.extend([0x20, 0x00, 0, 0]),
        Some(client) => {
            header.extend([0x21, 0x11, 0, 17]);
            header.extend(client.ip().octets());
            header.extend([192, 0, 2, 1]);
            header.extend(client.port().to_be_bytes());
            header.extend(5_060_u16.to_be_bytes());
            header.extend([0x04, 0, 2, 7, 7]);
        }
    }
    header
}

fn line(client: SocketAddrV4) -> Vec<u8> {
    let (ip, port) = (client.ip(), client.port());
    format!("PROXY TCP4 {ip} 192.0.2.1 {port} 5060\r\n").into_bytes()
}

fn request(method: &str, transport: &str, number: usize) -> String {
    format!(
        "{method} sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/{transport} client.invalid;rport;branch=z9hG4bK-lb-{number}\r\n\
         Max-Forwards: 70\r\nFrom: <sip:ada@example.com>;tag=1\r\nTo: <sip:bob@example.com>\r\nCall-ID: lb-{number}\r\n\
         CSeq: 1 {method}\r\nContent-Length: 0\r\n\r\n"
    )
}

fn dropped(host: &Host) -> f64 {
    host.metric("portcullis_dropped_total", &["reason=\"bad_proxy_header\""])
}

/// A host with TLS, WebSocket and both, whose certificate is for `edge.example`.
fn secure() -> (Host, TempDir) {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    authority(folder.path(), "ca");
    certificate(folder.path(), "edge", "DNS:edge.example");
    let builder = builder();
    let lease = builder.lease();
    let (tls, ws, wss) = (
        lease.addr(1, 5061),
        lease.addr(1, 8088),
        lease.addr(1, 8089),
    );
    let file = |end: &str| folder.path().join(format!("edge.{end}"));
    let host = builder
        .listen(&format!("tls:{tls}"))
        .listen(&format!("ws:{ws}"))
        .listen(&format!("wss:{wss}"))
        .set("tls.edge", &format!("certificate = {:?}", file("pem")))
        .set("tls.edge", &format!("key = {:?}", file("key")))
        .start();
    (host, folder)
}

#[test]
fn the_client_behind_a_load_balancer_is_the_source() {
    let host = builder().start();
    let headers = [
        (header(Some(MEMBER)), TO_MEMBER),
        (header(Some(STRANGER)), TO_STRANGER),
        (line(MEMBER), TO_MEMBER),
        (line(STRANGER), TO_STRANGER),
        // A check of health, and a client without a name: the load balancer itself.
        (header(None), TO_STRANGER),
        (b"PROXY UNKNOWN\r\n".to_vec(), TO_STRANGER),
    ];
    for (number, (header, expected)) in headers.into_iter().enumerate() {
        let mut one = Line::from(balanced(&host, host.sip(), &header));
        let answer = one.ask(&request("MESSAGE", "TCP", number), "\r\n\r\n");
        let said = header.escape_ascii();
        assert!(answer.starts_with(expected), "{said}: {answer}");
        if expected == TO_MEMBER {
            assert!(answer.contains("received=198.51.100.7"), "{answer}");
            assert!(answer.contains("rport=40000"), "{answer}");
        }
    }
    // The header and a message in pieces.
    let bytes = [
        &header(Some(MEMBER))[..],
        request("MESSAGE", "TCP", 10).as_bytes(),
    ]
    .concat();
    let mut slow = balanced(&host, host.sip(), b"");
    for byte in bytes {
        slow.write_all(&[byte]).expect("the connection takes bytes");
    }
    assert!(Line::from(slow).hear("\r\n\r\n").starts_with(TO_MEMBER));
    // Datagrams have no header.
    let mut caller = host.udp(BALANCER);
    let datagram = caller.request("MESSAGE", "sip:bob@example.com");
    assert_eq!(caller.ask(&datagram).code(), 401);
    assert_eq!(dropped(&host), 0.0);
    assert_eq!(host.complaints(), [""; 0]);
}

#[test]
fn a_header_from_another_address_is_nothing_but_garbage() {
    let host = builder().start();
    for (number, header) in [header(Some(MEMBER)), line(MEMBER)].into_iter().enumerate() {
        let mut stream = connect(host.lease().ip(NEIGHBOUR), host.sip());
        let bytes = [&header[..], request("MESSAGE", "TCP", number).as_bytes()].concat();
        stream
            .write_all(&bytes)
            .expect("the connection takes bytes");
        stream
            .shutdown(Shutdown::Write)
            .expect("a connection has two directions");
        let answer = Line::from(stream).hear_all();
        assert!(!answer.contains(TO_MEMBER), "{answer}");
        assert!(!answer.contains(TO_STRANGER), "{answer}");
    }
    let mut neighbour = host.tcp(NEIGHBOUR);
    let own = neighbour.request("MESSAGE", "sip:bob@example.com");
    assert_eq!(neighbour.ask(&own).code(), 401);
    assert_eq!(dropped(&host), 0.0);
}

#[test]
fn a_connection_without_a_valid_header_is_closed_and_counted() {
    let host = builder().start();
    let mut neighbour = host.tcp(NEIGHBOUR);
    let mut wrong = header(Some(MEMBER));
    wrong[12] = 0x31;
    let mut long = header(Some(MEMBER));
    long[14] = 0xff;
    let mut count = 0.0;
    for bytes in [
        request("MESSAGE", "TCP", 1).into_bytes(),
        b"\r\n\r\n\r\n".to_vec(),
        b"PROXY TCP4 198.51.100.7 192.0.2.1 40000\r\n".to_vec(),
        b"PROXY UNKNOWN ".repeat(20),
        wrong,
        long,
    ] {
        let heard = Line::from(balanced(&host, host.sip(), &bytes)).hear_all();
        assert_eq!(heard, "", "{}", bytes.escape_ascii());
        count += 1.0;
        wait::until("it is counted", || (dropped(&host) == count).then_some(()));
        // The first one is an example.
        host.wait_for_log("event=\"bad_proxy_header\"");
    }
    // Cut off.
    drop(balanced(&host, host.sip(), &header(Some(MEMBER))[..20]));
    count += 1.0;
    wait::until("it is counted", || (dropped(&host) == count).then_some(()));
    // The rest never comes.
    let mut late = Line::from(balanced(&host, host.sip(), &header(Some(MEMBER))[..20]));
    assert_eq!(late.hear_all(), "");
    count += 1.0;
    wait::until("it is counted", || (dropped(&host) == count).then_some(()));
    // Checks of health that only connect are no error.
    for _ in 0..3 {
        drop(balanced(&host, host.sip(), b""));
    }
    let own = neighbour.request("MESSAGE", "sip:bob@example.com");
    assert_eq!(neighbour.ask(&own).code(), 401);
    let mut one = Line::from(balanced(&host, host.sip(), &header(Some(MEMBER))));
    let answer = one.ask(&request("MESSAGE", "TCP", 2), "\r\n\r\n");
    assert!(answer.starts_with(TO_MEMBER), "{answer}");
    assert_eq!(dropped(&host), count);
    // One line tells the operator.
    let told = host.complaints();
    assert_eq!(told.len(), 1, "{told:?}");
    let parts = [
        "event=\"bad_proxy_header\"",
        "no PROXY header",
        "send-proxy-v2",
        &host.lease().ip(BALANCER).to_string(),
    ];
    for part in parts {
        assert!(told[0].contains(part), "{part}: {told:?}");
    }
}

#[test]
fn tls_and_websocket_follow_the_header() {
    let (host, folder) = secure();
    let at = |port| host.lease().addr(1, port);
    let tls = |port| {
        let stream = balanced(&host, at(port), &header(Some(MEMBER)));
        Line::secure(stream, folder.path(), "edge.example", &[])
    };
    let answer = tls(5_061).ask(&request("MESSAGE", "TLS", 1), "\r\n\r\n");
    assert!(answer.starts_with(TO_MEMBER), "{answer}");
    let ws = Line::from(balanced(&host, at(8_088), &line(MEMBER)));
    let subprotocol = [("Sec-WebSocket-Protocol", "sip")];
    for (line, port) in [(ws, 8_088), (tls(8_089), 8_089)] {
        let browser = Browser::over(line, at(port), "/", &subprotocol);
        let mut browser = browser.expect("the host accepts a WebSocket");
        let message = browser.request("MESSAGE", "sip:bob@example.com");
        let answer = browser.ask(&message);
        assert_eq!(answer.code(), 403, "{answer:?}");
    }
    // Without a header, no handshake begins.
    for port in [5_061, 8_088, 8_089] {
        let mut bare = Line::from(balanced(&host, at(port), b"GET / HTTP/1.1\r\n\r\n"));
        assert_eq!(bare.hear_all(), "");
    }
    wait::until("they are counted", || (dropped(&host) == 3.0).then_some(()));
    // Without a load balancer, there is none.
    let stream = connect(host.lease().ip(NEIGHBOUR), at(5_061));
    let mut own = Line::secure(stream, folder.path(), "edge.example", &[]);
    let answer = own.ask(&request("MESSAGE", "TLS", 2), "\r\n\r\n");
    assert!(answer.starts_with(TO_STRANGER), "{answer}");
}

#[test]
fn the_bounds_and_the_guard_are_those_of_each_client() {
    let host = builder()
        .set("sip", "tcp-max-connections-per-address = 2")
        .set("guard", "exempt = []")
        .start();
    // Many clients, and the limit for an address is two.
    let client = |last| SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, last), 40_000);
    let mut all: Vec<_> = (100..110)
        .map(|last| Line::from(balanced(&host, host.sip(), &header(Some(client(last))))))
        .collect();
    for (number, one) in all.iter_mut().enumerate() {
        let answer = one.ask(&request("MESSAGE", "TCP", number), "\r\n\r\n");
        assert!(answer.starts_with(TO_STRANGER), "{answer}");
    }
    assert_eq!(
        host.metric("portcullis_connections_evicted_total", &[]),
        0.0
    );
    // A scanner is banned, and nobody else behind the load balancer is.
    let mut scanner = Line::from(balanced(&host, host.sip(), &header(Some(STRANGER))));
    for number in 100..200 {
        let scan = request("NONSENSE", "TCP", number);
        if scanner.write_all(scan.as_bytes()).is_err() {
            break;
        }
    }
    scanner.hear_all();
    let list: Value = serde_json::from_str(&host.run("guard list --json")).expect("a list");
    let sources: Vec<_> = list
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| one["source"].as_str())
        .collect();
    assert_eq!(sources, [Some("203.0.113.9")]);
    let mut again = Line::from(balanced(&host, host.sip(), &header(Some(STRANGER))));
    assert_eq!(again.hear_all(), "");
    for (number, one) in all.iter_mut().enumerate() {
        let answer = one.ask(&request("MESSAGE", "TCP", 200 + number), "\r\n\r\n");
        assert!(answer.starts_with(TO_STRANGER), "{answer}");
    }
    let mut own = Line::from(balanced(&host, host.sip(), &header(None)));
    let answer = own.ask(&request("MESSAGE", "TCP", 300), "\r\n\r\n");
    assert!(answer.starts_with(TO_STRANGER), "{answer}");
}

/// What nginx needs beside the block of the page. Debian's modules are below the prefix of the call.
const NGINX: &str = "load_module modules/ngx_stream_module.so;\ndaemon off;\npid @FOLDER@/pid;\nerror_log stderr;\nevents {}\n";

/// The only block in this language with this text in docs/load-balancers.md, at the addresses of a test.
fn example(language: &str, text: &str, host: &Host, front: SocketAddr) -> String {
    let blocks = Page::named("docs/load-balancers.md").blocks();
    let is_it = |block: &&Block| block.language() == language && block.text.contains(text);
    let mut own = blocks.iter().filter(is_it);
    let (Some(block), None) = (own.next(), own.next()) else {
        panic!("the page has one block of {language} with {text:?}");
    };
    let ws = host.lease().addr(1, 8_088);
    let balancer = host.lease().ip(BALANCER).to_string();
    block
        .text
        .replace("192.0.2.10:5060", &front.to_string())
        .replace("192.0.2.10:8080", &front.to_string())
        .replace("192.0.2.1:5060", &host.sip().to_string())
        .replace("192.0.2.1:8088", &ws.to_string())
        .replace("192.0.2.10", &balancer)
}

/// A running load balancer.
struct Program(Child);

impl Program {
    /// Starts it with this configuration in this folder, and waits until it listens.
    fn start(folder: &Path, front: SocketAddr, config: &str, words: &[&str]) -> Self {
        let file = folder.join("config");
        let config = config.replace("@FOLDER@", &folder.display().to_string());
        std::fs::write(&file, config).expect("a file can be written");
        let log = std::fs::File::create(folder.join("log")).expect("a log can be written");
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg(&file);
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file handle can be cloned"))
            .stderr(log)
            .spawn();
        let mut program = Self(child.expect("it is installed: apt-get install haproxy nginx"));
        wait::until("the load balancer listens", || {
            let ended = program.0.try_wait().expect("the child can be asked");
            let log = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
            assert!(ended.is_none(), "{words:?} ended: {log}");
            TcpStream::connect(front).ok()
        });
        program
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Both end their workers on SIGTERM.
        let _gone = Command::new("kill").arg(self.0.id().to_string()).status();
        let _reaped = self.0.wait();
    }
}

#[test]
fn peers_haproxy_and_nginx_say_for_whom_they_connect() {
    let builder = builder();
    // Their client is in the table, too.
    let member = builder.lease().ip(20);
    let host = builder.row(&format!("200 {member}")).start();
    let front = |port| host.lease().addr(BALANCER, port);
    let folders = [(); 2].map(|()| tempfile::tempdir().expect("a temporary directory can be made"));
    let config = example("haproxy", "mode tcp", &host, front(5_060));
    let words = ["haproxy", "-db", "-f"];
    let _haproxy = Program::start(folders[0].path(), front(5_060), &config, &words);
    let config = NGINX.to_owned() + &example("nginx", "stream", &host, front(5_062));
    let words = ["nginx", "-p", "/usr/lib/nginx", "-e", "stderr", "-c"];
    let _nginx = Program::start(folders[1].path(), front(5_062), &config, &words);
    for port in [5_060, 5_062] {
        for (source, code) in [(20, 403), (21, 401)] {
            let mut caller = Caller::tcp(host.lease().ip(source), front(port));
            let message = caller.request("MESSAGE", "sip:bob@example.com");
            assert_eq!(caller.ask(&message).code(), code, "{port} {source}");
        }
    }
    // Checks of health, and the connections that waited for these programs, are no error.
    assert_eq!(dropped(&host), 0.0);
    assert_eq!(host.complaints(), [""; 0]);
}

/// A host that takes WebSocket connections, and from the load balancer the word of a field for whom.
fn http_builder(field: &str) -> (Builder, SocketAddr) {
    let builder = Builder::new().row(&format!("200 {}", MEMBER.ip()));
    let (balancer, ws) = (builder.lease().ip(BALANCER), builder.lease().addr(1, 8_088));
    let builder = builder
        .listen(&format!("ws:{ws}"))
        .set("websocket", &format!("forwarded-by = [\"{balancer}\"]"))
        .set("websocket", &format!("forwarded-field = \"{field}\""));
    (builder, ws)
}

/// How the policy answers a client with these fields, that connects from there; or the code of HTTP with which it is refused.
fn answered(
    host: &Host,
    ws: SocketAddr,
    from: u8,
    fields: &[(&'static str, &str)],
) -> Result<u16, u16> {
    let sip = ("Sec-WebSocket-Protocol", "sip");
    let fields: Vec<_> = fields.iter().copied().chain([sip]).collect();
    let line = Line::from(connect(host.lease().ip(from), ws));
    let mut browser = Browser::over(line, ws, "/", &fields)?;
    let message = browser.request("MESSAGE", "sip:bob@example.com");
    Ok(browser.ask(&message).code())
}

#[test]
fn a_load_balancer_that_speaks_http_says_in_a_field_for_whom_it_connects() {
    for field in ["X-Forwarded-For", "Forwarded"] {
        let (builder, ws) = http_builder(field);
        let host = builder.start();
        let written = |client: SocketAddrV4| match field {
            "Forwarded" => format!("proto=https;for=\"{client}\""),
            _ => client.ip().to_string(),
        };
        let (member, stranger) = (written(MEMBER), written(STRANGER));
        let from = |from, value: &str| answered(&host, ws, from, &[(field, value)]);
        assert_eq!(from(BALANCER, &member), Ok(403));
        assert_eq!(from(BALANCER, &stranger), Ok(401));
        // What a client has claimed stands before what the load balancer adds.
        let claimed = format!("{member}, {stranger}");
        assert_eq!(from(BALANCER, &claimed), Ok(401));
        // Nobody else is believed.
        assert_eq!(from(NEIGHBOUR, &member), Ok(401));
        assert_eq!(host.metric("portcullis_websockets_refused_total", &[]), 0.0);
        for refused in [
            answered(&host, ws, BALANCER, &[]),
            from(BALANCER, "unknown"),
            answered(&host, ws, BALANCER, &[("X-Real-IP", &member)]),
        ] {
            assert_eq!(refused, Err(400));
        }
        assert_eq!(host.metric("portcullis_websockets_refused_total", &[]), 3.0);
        assert_eq!(host.complaints(), [""; 0]);
    }
}

#[test]
fn clients_of_one_load_balancer_are_bounded_one_by_one() {
    let (builder, ws) = http_builder("X-Forwarded-For");
    let host = builder
        .set("sip", "tcp-max-connections-per-address = 2")
        .start();
    let open = |ip: &str| {
        let fields = [("Sec-WebSocket-Protocol", "sip"), ("X-Forwarded-For", ip)];
        let line = Line::from(connect(host.lease().ip(BALANCER), ws));
        let mut browser = Browser::over(line, ws, "/", &fields).expect("the host takes it");
        let message = browser.request("MESSAGE", "sip:bob@example.com");
        assert_eq!(browser.ask(&message).code(), 401, "{ip}");
        browser
    };
    let all: Vec<_> = (1..=8)
        .map(|client| open(&format!("203.0.113.{client}")))
        .collect();
    let open = host.metric("portcullis_connections_open", &[]);
    assert_eq!((all.len(), open), (8, 8.0));
}

#[test]
fn peers_haproxy_says_in_http_for_whom_it_connects() {
    let (builder, _) = http_builder("X-Forwarded-For");
    // Its client is in the table, too.
    let member = builder.lease().ip(20);
    let host = builder.row(&format!("200 {member}")).start();
    let front = host.lease().addr(BALANCER, 8_080);
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let config = example("haproxy", "mode http", &host, front);
    let words = ["haproxy", "-db", "-f"];
    let _haproxy = Program::start(folder.path(), front, &config, &words);
    let member = member.to_string();
    for (source, claims, code) in [(20, None, 403), (21, None, 401), (21, Some(&*member), 401)] {
        let claims = claims.map(|ip| ("X-Forwarded-For", ip));
        let fields: Vec<_> = claims.into_iter().collect();
        assert_eq!(
            answered(&host, front, source, &fields),
            Ok(code),
            "{source} {fields:?}"
        );
    }
    assert_eq!(host.complaints(), [""; 0]);
}
