//! No datagram costs a multiple of another of its size: instructions for 64 KB of every shape, from the scan to the choice of a tenant
//! and to what is sent, against those for a plain request of the same size.
//!
//! Instructions are counted by valgrind's callgrind, which needs no rights and counts the same each time. The test starts this program
//! anew under it.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

use portcullis_address::{Table, TableBuilder};
use portcullis_config::Config;
use portcullis_dataplane::tenants::Selector;
use portcullis_request::Request;
use portcullis_sip::{
    Arrival, Framing, Index, Limits, Local, Message, Proxy, ProxyConfig, Received, Routes,
    RoutesBuilder, Target, Transport, scan,
};

/// Bytes of each datagram.
const SIZE: usize = 64_000;

/// What a line of a header may take, with some bytes to spare.
const LINE: usize = 8_100;

/// What the dearest datagram may cost, against the plain one.
const MOST: u64 = 2;

const HOST: &str = "192.0.2.1:5060";
const CALLER: &str = "192.0.2.10:5060";

#[test]
fn peers_no_shape_costs_more_than_two_plain_requests() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("cost");
    let measured = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no"])
        .args([
            "--toggle-collect=cost::measured",
            "--dump-after=cost::measured",
        ])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "every_shape_once",
            "--test-threads=1",
        ])
        .output()
        .expect("valgrind is installed: cargo xtask test says how");
    let said = String::from_utf8_lossy(&measured.stderr);
    assert!(measured.status.success(), "{said}");

    let shapes = shapes();
    let costs: Vec<u64> = (1..=shapes.len())
        .map(|number| instructions(&folder.path().join(format!("cost.{number}"))))
        .collect();
    let plain = costs[0];
    assert!(
        plain > 10_000,
        "{plain} instructions for the plain request: {said}"
    );
    let mut told: Vec<_> = shapes.iter().map(|shape| shape.name).zip(costs).collect();
    told.sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
    let table: String = told
        .iter()
        .map(|(name, cost)| format!("{:6.2} {cost:9} {name}\n", *cost as f64 / plain as f64))
        .collect();
    println!("{table}");
    assert!(
        told[0].1 <= MOST * plain,
        "against the plain request:\n{table}"
    );
}

/// What is counted; see the test above.
#[test]
#[ignore = "started under callgrind by the other test"]
fn every_shape_once() {
    let mut host = Host::new();
    for shape in shapes() {
        assert_eq!(shape.bytes.len(), SIZE, "{}", shape.name);
        // Buffers grow the first time.
        let request = host.request(&shape);
        host.handle(&shape, request.as_ref());
        measured(&mut host, &shape, request.as_ref());
    }
}

/// The sum of a dump.
fn instructions(dump: &Path) -> u64 {
    let text = std::fs::read_to_string(dump).unwrap_or_else(|error| panic!("{dump:?}: {error}"));
    let sum = text.lines().find_map(|line| line.strip_prefix("totals: "));
    sum.unwrap().trim().parse().unwrap()
}

#[inline(never)]
fn measured(host: &mut Host, shape: &Shape, request: Option<&Request>) {
    host.handle(shape, request);
}

/// What looks at a message before a policy does, and what follows the two usual verdicts.
struct Host {
    proxy: Proxy,
    routes: Routes,
    selector: Selector,
    table: Table,
    arrival: Arrival,
    index: Index,
    out: Vec<u8>,
}

impl Host {
    fn new() -> Self {
        let addr = HOST.parse().unwrap();
        let mut routes = RoutesBuilder::new();
        routes.default_hop("sip:192.0.2.80;transport=tcp").unwrap();
        routes.domain("192.0.2.64/28").unwrap();
        let config = Config::parse(
            "[tenants.a]\nuri-domains = [\"a.example\", \"*.a.example\"]\n\
             [tenants.b]\nfrom-domains = [\"b.example\", \"*.deep.down.b.example\"]\n\
             [tenants.c]\nsource-groups = [7]\n",
        )
        .unwrap();
        Self {
            proxy: Proxy::new(ProxyConfig {
                locals: [Transport::Udp, Transport::Tcp]
                    .map(|transport| Local {
                        transport,
                        addr,
                        advertised: None,
                    })
                    .to_vec(),
                aliases: vec!["edge.example.com".into()],
                key: [7; 16],
                earlier_keys: Vec::new(),
                dialog_minutes: 24 * 60,
                record_route: true,
                server_header: Some("Portcullis".into()),
                force_rport: Vec::new(),
                clients: portcullis_sip::Clients::default(),
            }),
            routes: routes.build(&HashMap::new()),
            selector: Selector::new(config.tenants.iter().map(|tenant| &**tenant)),
            table: TableBuilder::default().build(),
            arrival: Arrival {
                source: CALLER.parse().unwrap(),
                local: addr,
                transport: Transport::Udp,
                connection: None,
            },
            index: Index::default(),
            out: Vec::new(),
        }
    }

    /// What a policy would be asked about; none where it would not be asked.
    fn request(&self, shape: &Shape) -> Option<Request> {
        Request::read(shape.bytes.clone(), Framing::Datagram, self.arrival)
    }

    fn handle(&mut self, shape: &Shape, request: Option<&Request>) {
        let Self {
            proxy,
            arrival,
            index,
            out,
            ..
        } = self;
        let scanned = scan(&shape.bytes, Framing::Datagram, &Limits::default(), index);
        let message = Message::new(&shape.bytes, index);
        let received = proxy.receive(message, scanned, arrival, out);
        if received != Received::Judge {
            return;
        }
        let _tenant = self.selector.select(request.unwrap(), &self.table);
        let headers: &[(&str, &str)] = &[];
        let _answered = proxy.reject(message, arrival, 401, "", headers, out);
        let _relayed = proxy.relay(message, arrival, &self.routes, Target::AsRouted, out);
    }
}

/// One datagram.
struct Shape {
    name: &'static str,
    bytes: Vec<u8>,
}

/// A request that is filled up with a body.
struct Draft {
    start: String,
    via: String,
    from: String,
    to: String,
    call_id: String,
    cseq: String,
    max_forwards: String,
    lines: Vec<String>,
    line_end: &'static str,
}

impl Default for Draft {
    fn default() -> Self {
        Self {
            start: "INVITE sip:x@h SIP/2.0".into(),
            via: format!("SIP/2.0/UDP {CALLER};branch=z9hG4bKworst;rport"),
            from: "<sip:x@h>;tag=1".into(),
            to: "<sip:y@h>".into(),
            call_id: "worst".into(),
            cseq: "1 INVITE".into(),
            max_forwards: "70".into(),
            lines: Vec::new(),
            line_end: "\r\n",
        }
    }
}

impl Draft {
    fn bytes(&self) -> Vec<u8> {
        let end = self.line_end;
        let mut head = format!(
            "{}{end}Via: {}{end}Max-Forwards: {}{end}From: {}{end}To: {}{end}Call-ID: {}{end}CSeq: {}{end}",
            self.start, self.via, self.max_forwards, self.from, self.to, self.call_id, self.cseq
        );
        for line in &self.lines {
            head += line;
            head += end;
        }
        let rest = SIZE.saturating_sub(head.len() + "Content-Length: 00000".len() + 2 * end.len());
        head += &format!("Content-Length: {rest:05}{end}{end}");
        let mut bytes = head.into_bytes();
        bytes.resize(SIZE, b'b');
        bytes
    }
}

/// All shapes; the first is the plain one: its bytes are those of ordinary header fields.
fn shapes() -> Vec<Shape> {
    let fill = |text: &str| text.repeat(LINE / text.len());
    let request = |name: &'static str, change: &dyn Fn(&mut Draft)| {
        let mut request = Draft::default();
        change(&mut request);
        let bytes = request.bytes();
        Shape { name, bytes }
    };
    let lines = |name: &'static str, line: &str, count: usize| {
        let all = vec![line.to_owned(); count];
        request(name, &|request| request.lines.clone_from(&all))
    };
    let uri = |name: &'static str, uri: &str| {
        request(name, &|request| {
            request.start = format!("INVITE {uri} SIP/2.0");
        })
    };
    let from =
        |name: &'static str, value: &str| request(name, &|request| request.from = value.to_owned());
    let via =
        |name: &'static str, value: &str| request(name, &|request| request.via = value.to_owned());
    let raw = |name: &'static str, piece: &[u8]| Shape {
        name,
        bytes: piece.iter().copied().cycle().take(SIZE).collect(),
    };
    // With so long a tail the name is the longest that is read.
    let labels = |tail: &str| format!("{}{tail}", "a.".repeat((255 - tail.len()) / 2));
    let ours = format!("Route: <sip:{HOST};lr>");
    let header = format!(
        "X-Header: {}",
        "some words, a number 12345; and so on ".repeat(6)
    );
    vec![
        lines("plain: ordinary header fields", &header, 245),
        request("a large body", &|_| {}),
        uri(
            "labels in the request URI",
            &format!("sip:x@{}", labels("a.example")),
        ),
        uri("a host without end", &format!("sip:x@{}", fill("a."))),
        from(
            "labels in From",
            &format!("<sip:x@{}>;tag=1", labels("b.example")),
        ),
        from(
            "a host without end in From",
            &format!("<sip:x@{}>;tag=1", fill("a.")),
        ),
        uri(
            "parameters of the request URI",
            &format!("sip:x@h{}", fill(";a=b")),
        ),
        uri(
            "64 parameters of the request URI",
            &format!("sip:x@h{}", ";a=b".repeat(64)),
        ),
        uri("a long user", &format!("sip:{}@h", fill("u"))),
        uri("another scheme", &format!("urn:service:{}", fill("sos."))),
        uri("a long scheme", &format!("{}:x", fill("s"))),
        uri(
            "a long address in brackets",
            &format!("sip:x@[{}]", fill("0:")),
        ),
        from(
            "parameters of From",
            &format!("<sip:x@h>;tag=1{}", fill(";a=b")),
        ),
        from(
            "64 parameters of From",
            &format!("<sip:x@h>{}", ";a=b".repeat(64)),
        ),
        from(
            "quoted pairs in From",
            &format!("\"{}\" <sip:x@h>;tag=1", fill("\\\"")),
        ),
        from(
            "quoted strings in From",
            &format!("{} <sip:x@h>;tag=1", fill("\"\"")),
        ),
        from(
            "quotes in a parameter",
            &format!("<sip:x@h>;a={}", fill("\"\"")),
        ),
        from(
            "a quoted parameter",
            &format!("<sip:x@h>;tag=\"{}\"", fill("\\\"")),
        ),
        from(
            "commas in From",
            &format!("<sip:x@h>;tag=1{}", fill(",<sip:y@h>")),
        ),
        from(
            "commas before an address",
            &format!("{}<sip:x@h>;tag=1", fill("a,")),
        ),
        from(
            "blanks in From",
            &format!("<{}sip:x@h{}>", &fill(" ")[..4_000], &fill("\t")[..4_000]),
        ),
        from("a long tag", &format!("<sip:x@h>;tag={}", fill("t"))),
        request("old branch, long everything", &|request| {
            request.via = format!("SIP/2.0/UDP {CALLER};branch={}", &fill("b")[..900]);
            request.from = format!("<sip:x@h>;tag={}", fill("f"));
            request.to = format!("<sip:y@h>;tag={}", fill("t"));
            request.call_id = fill("i");
            request.start = format!("BYE sip:{}@h SIP/2.0", &fill("u")[..8_000]);
            request.cseq = "1 BYE".into();
        }),
        request("old branch, everything as long as it may be", &|request| {
            request.via = format!("SIP/2.0/UDP {CALLER};branch={}", &fill("b")[..900]);
            request.from = format!("<sip:x@h>;tag={}", &fill("f")[..2_000]);
            request.to = format!("<sip:y@h>;tag={}", &fill("t")[..2_000]);
            request.call_id = fill("i");
            request.start = format!("BYE sip:{}@h SIP/2.0", &fill("u")[..8_000]);
            request.cseq = "1 BYE".into();
        }),
        request("zeros that lead", &|request| {
            request.cseq = format!("{}1 INVITE", fill("0"));
            request.max_forwards = format!("{}70", fill("0"));
        }),
        request("a long method", &|request| {
            request.start = format!("{} sip:x@h SIP/2.0", &fill("M")[..8_000]);
            request.cseq = format!("1 {}", &fill("M")[..8_000]);
        }),
        request("a request line of 60 KB", &|request| {
            request.start = format!("INVITE sip:{}@h SIP/2.0", "u".repeat(60_000));
        }),
        request("line feeds alone", &|request| {
            request.line_end = "\n";
            request.lines = vec!["X: y".into(); 240];
        }),
        lines("short header lines", "X: y", 245),
        lines("more header lines than the limit", "X:", 10_000),
        lines("header lines of 8 KB", &format!("X: {}", fill("y")), 7),
        lines("header lines of blanks", &format!("X:{}", fill(" ")), 7),
        lines("header lines without a colon", &fill("y"), 7),
        lines("some folds", "X: a\r\n b\r\n c", 80),
        lines("folds", &format!("X: a{}", fill("\r\n ")), 7),
        lines("carriage returns", &format!("X: a{}", fill("\r")), 7),
        lines("tabs", &format!("X: a{}", fill("\t")), 7),
        lines("Vias", "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1", 190),
        lines(
            "more Vias than a response may repeat",
            "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1",
            245,
        ),
        lines(
            "Vias in one line",
            &format!("Via: SIP/2.0/UDP h{}", fill(", SIP/2.0/UDP h")),
            5,
        ),
        lines(
            "more Vias in one line",
            &format!("Via: SIP/2.0/UDP h{}", fill(", SIP/2.0/UDP h")),
            7,
        ),
        via(
            "parameters of Via",
            &format!("SIP/2.0/UDP h{}", fill(";a=b")),
        ),
        via(
            "64 parameters of Via",
            &format!("SIP/2.0/UDP h{}", ";a=b".repeat(64)),
        ),
        via(
            "a Via and thousands of commas",
            &format!("SIP/2.0/UDP h{}", fill(",")),
        ),
        via("blanks in Via", &format!("SIP/2.0/UDP {}h", fill(" "))),
        via(
            "blanks in a short Via",
            &format!("SIP/2.0/UDP {}h", " ".repeat(990)),
        ),
        via(
            "quotes in Via",
            &format!("SIP/2.0/UDP h;a={}", fill("\"\"")),
        ),
        via(
            "quotes in a short Via",
            &format!("SIP/2.0/UDP h;a={}", "\"\"".repeat(490)),
        ),
        via("no Via", &fill("/")),
        lines("Routes", "Route: <sip:192.0.2.65;lr>", 120),
        lines("too many Routes", "Route: <sip:192.0.2.65;lr>", 245),
        lines(
            "Routes in one line",
            &format!("Route: <sip:a;lr>{}", fill(",<sip:a;lr>")),
            7,
        ),
        lines("Routes of ours", &ours, 120),
        lines("commas behind a Route", &format!("{ours}{}", fill(",")), 7),
        lines(
            "parameters of a Route",
            &format!("Route: <sip:192.0.2.65;lr{}>", fill(";a")),
            7,
        ),
        request("OPTIONS to the host with Routes of ours", &|request| {
            request.start = format!("OPTIONS sip:{HOST} SIP/2.0");
            request.cseq = "1 OPTIONS".into();
            request.lines = vec![ours.clone(); 120];
        }),
        lines(
            "Proxy-Require of commas",
            &format!("Proxy-Require: {}", fill(",")),
            7,
        ),
        lines(
            "Proxy-Require",
            &format!("Proxy-Require: a{}", fill(",a")),
            7,
        ),
        lines(
            "Contacts",
            &format!("Contact: <sip:a@h>{}", fill(",<sip:a@h>")),
            7,
        ),
        lines("Record-Routes", "Record-Route: <sip:a;lr>", 190),
        raw("letters", b"x"),
        raw("line feeds", b"\n"),
        raw("line ends", b"\r\n"),
        raw("carriage returns only", b"\r"),
        raw("blanks", b" "),
        raw("zeros", b"\0"),
        raw("status lines", b"SIP/2.0 200 OK\r\n"),
        raw(
            "a response with Vias",
            b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h\r\nVia: SIP/2.0/UDP h\r\n",
        ),
        raw("request lines", b"INVITE sip:a@b SIP/2.0\r\n"),
    ]
}
