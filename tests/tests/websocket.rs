//! SIP over WebSocket: handshakes, frames, and calls between a browser and a phone over UDP.

#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::net::SocketAddr;

use portcullis_testkit::browser::{Browser, Frame, connect};
use portcullis_testkit::callee::{Callee, ok_to};
use portcullis_testkit::certificates::{authority, certificate};
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::policy;
use portcullis_testkit::secure::Line;
use portcullis_testkit::sip::{Caller, Message};
use portcullis_testkit::wait;
use tempfile::TempDir;

const CLIENT: u8 = 10;
const CORE: u8 = 3;
const SUBPROTOCOL: (&str, &str) = ("Sec-WebSocket-Protocol", "sip");

fn builder() -> Builder {
    let builder = Builder::new().policy(policy("observe"));
    let ws = format!("ws:{}", builder.lease().addr(1, 8088));
    let core = builder.lease().addr(CORE, 5080);
    builder
        .listen(&ws)
        .set("relay", &format!("next-hop = \"sip:{core}\""))
}

fn ws(host: &Host) -> SocketAddr {
    host.lease().addr(1, 8088)
}

fn browser(host: &Host) -> Browser {
    Browser::connect(host.lease().ip(CLIENT), ws(host))
}

/// The host, and a server that the test plays.
fn start() -> (Host, Caller) {
    let builder = builder();
    let core = builder.lease().addr(CORE, 5080);
    let host = builder.start();
    let core = Caller::udp_from(core, host.sip());
    (host, core)
}

/// The same with WebSocket over TLS as well, for `edge.example`.
fn start_secure() -> (Host, Caller, TempDir) {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    authority(folder.path(), "ca");
    certificate(folder.path(), "edge", "DNS:edge.example");
    let file = |end: &str| folder.path().join(format!("edge.{end}"));
    let builder = builder();
    let wss = format!("wss:{}", builder.lease().addr(1, 8089));
    let core = builder.lease().addr(CORE, 5080);
    let host = builder
        .listen(&wss)
        .set("tls.edge", &format!("certificate = {:?}", file("pem")))
        .set("tls.edge", &format!("key = {:?}", file("key")))
        .start();
    let core = Caller::udp_from(core, host.sip());
    (host, core, folder)
}

fn wss(host: &Host) -> SocketAddr {
    host.lease().addr(1, 8089)
}

fn secure_line(host: &Host, folder: &TempDir, protocols: &[&str]) -> Line {
    let stream = connect(host.lease().ip(CLIENT), wss(host));
    Line::secure(stream, folder.path(), "edge.example", protocols)
}

fn secure_browser(host: &Host, folder: &TempDir) -> Browser {
    let line = secure_line(host, folder, &["http/1.1"]);
    Browser::over(line, wss(host), "/", &[SUBPROTOCOL]).expect("the host accepts a WebSocket")
}

fn register(browser: &mut Browser, core: &mut Caller) -> String {
    let request = browser.request("REGISTER", "sip:example.com");
    browser.send(&request);
    let seen = core.receive();
    let path = seen.headers("Path").join(", ");
    core.send(&ok_to(&seen, core.local()));
    assert_eq!(browser.receive().code(), 200);
    path
}

#[test]
fn handshakes_are_answered_as_the_standard_and_the_configuration_say() {
    let strict = builder()
        .set("websocket", "path = \"/sip\"")
        .set("websocket", "origins = [\"https://phone.example.com\"]")
        .set("websocket", "hosts = [\"127.0.0.1\", \"edge.example.com\"]");
    let host = strict.start();
    let source = host.lease().ip(CLIENT);
    let origin = ("Origin", "https://phone.example.com");
    let known = ("Host", "edge.example.com");
    let open = |path: &str, fields: &[(&'static str, &str)]| {
        Browser::try_connect(source, ws(&host), path, fields).map(drop)
    };
    assert_eq!(open("/sip", &[SUBPROTOCOL, origin, known]), Ok(()));
    assert_eq!(open("/sip?x=1", &[SUBPROTOCOL, known]), Ok(()));
    for (path, fields, code) in [
        ("/", &[SUBPROTOCOL, origin, known][..], 404),
        (
            "/sip",
            &[SUBPROTOCOL, ("Origin", "https://evil.example"), known],
            403,
        ),
        (
            "/sip",
            &[SUBPROTOCOL, origin, ("Host", "evil.example")],
            403,
        ),
        ("/sip", &[origin, known], 400),
        ("/sip", &[("Sec-WebSocket-Protocol", "chat"), known], 400),
        (
            "/sip",
            &[SUBPROTOCOL, known, ("Sec-WebSocket-Version", "8")],
            426,
        ),
    ] {
        assert_eq!(open(path, fields), Err(code), "{path} {fields:?}");
    }
    // What is no WebSocket at all gets an answer of HTTP, and the connection ends.
    for (bytes, start) in [
        (
            "GET /sip HTTP/1.1\r\nHost: edge.example.com\r\n\r\n",
            "HTTP/1.1 426 ",
        ),
        ("OPTIONS sip:a SIP/2.0\r\n\r\n", "HTTP/1.1 400 "),
        (
            &format!("GET /{} HTTP/1.1\r\n", "a".repeat(9_000)),
            "HTTP/1.1 400 ",
        ),
    ] {
        let mut stream = connect(source, ws(&host));
        stream
            .write_all(bytes.as_bytes())
            .expect("the connection takes bytes");
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .expect("the host answers and closes");
        assert!(answer.starts_with(start), "{answer}");
    }
    assert_eq!(host.metric("portcullis_websockets_refused_total", &[]), 9.0);
}

#[test]
fn check_warns_while_any_page_may_connect() {
    let warning = "warning: any page that a browser of your users shows may connect over WebSocket";
    let host = builder().start();
    let said = host.run("check");
    assert!(said.contains(warning), "{said}");
    let origins = "origins = [\"https://phone.example.com\"]";
    let host = builder().set("websocket", origins).start();
    let said = host.run("check");
    assert!(!said.contains(warning), "{said}");
}

#[test]
fn a_browser_registers_calls_and_is_called() {
    let (host, mut core) = start();
    let mut browser = browser(&host);
    let path = register(&mut browser, &mut core);
    let side_of_registrar = format!("<sip:{};lr>, <sip:flow-", host.sip());
    assert!(path.starts_with(&side_of_registrar), "{path}");
    let own = format!("@{};transport=ws;lr>", ws(&host));
    assert!(path.ends_with(&own), "{path}");

    // The browser calls.
    let invite = browser.request("INVITE", "sip:bob@example.com");
    browser.send(&invite);
    let seen = core.receive();
    let vias = seen.headers("Via");
    assert_eq!(vias.len(), 2);
    assert!(
        vias[0].starts_with(&format!("SIP/2.0/UDP {};branch=", host.sip())),
        "{}",
        vias[0]
    );
    assert!(
        vias[1].starts_with("SIP/2.0/WS df7jal23ls0d.invalid;"),
        "{}",
        vias[1]
    );
    let routes = seen.headers("Record-Route");
    assert_eq!(routes.len(), 2);
    assert!(
        routes[1].contains(";transport=ws;lr;r2=on"),
        "{}",
        routes[1]
    );
    let ok = ok_to(&seen, core.local());
    core.send(&ok);
    let answer = browser.receive();
    assert_eq!(answer.code(), 200);
    assert_eq!(answer.headers("Via").len(), 1);
    browser.send(&invite.within(&answer, "ACK", 1));
    assert_eq!(core.receive().first_word(), "ACK");
    let ok = Message::new(ok);
    let routes: String = routes
        .iter()
        .map(|route| format!("Route: {route}\r\n"))
        .collect();
    let bye = format!(
        "BYE sip:ada@df7jal23ls0d.invalid;transport=ws SIP/2.0\r\nVia: SIP/2.0/UDP {};rport;branch=z9hG4bK-bye\r\n\
         Max-Forwards: 70\r\n{routes}From: {}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: 1 BYE\r\nContent-Length: 0\r\n\r\n",
        core.local(),
        ok.header("To").expect("a 200 has To"),
        ok.header("From").expect("a 200 has From"),
        ok.header("Call-ID").expect("a 200 has a Call-ID"),
    );
    core.send(bye.as_bytes());
    let seen = browser.receive();
    assert_eq!(seen.first_word(), "BYE");
    let via = format!("SIP/2.0/WS {};branch=", ws(&host));
    assert!(
        seen.headers("Via")[0].starts_with(&via),
        "{:?}",
        seen.headers("Via")
    );
    browser.send_text(ok_to(&seen, browser.local()));
    assert_eq!(core.receive().code(), 200);

    // The browser is called.
    let mut invite = core.request("INVITE", "sip:ada@df7jal23ls0d.invalid;transport=ws");
    invite.extra = vec![format!("Route: {path}")];
    core.send(&invite.bytes());
    let seen = browser.receive();
    assert_eq!(
        seen.start_line(),
        "INVITE sip:ada@df7jal23ls0d.invalid;transport=ws SIP/2.0"
    );
    browser.send_text(ok_to(&seen, browser.local()));
    let answer = core.receive();
    assert_eq!(answer.code(), 200);
    core.send(&invite.within(&answer, "BYE", 2).bytes());
    let seen = browser.receive();
    assert_eq!(seen.first_word(), "BYE");
    browser.send_text(ok_to(&seen, browser.local()));
    assert_eq!(core.receive().code(), 200);

    // A browser that is gone.
    drop(browser);
    wait::until("the connection is gone", || {
        (host.metric("portcullis_connections_open", &[]) == 0.0).then_some(())
    });
    let mut options = core.request("OPTIONS", "sip:ada@df7jal23ls0d.invalid;transport=ws");
    options.extra = vec![format!("Route: {path}")];
    assert_eq!(core.ask(&options).start_line(), "SIP/2.0 430 Flow Failed");
    assert_eq!(host.complaints(), [""; 0]);
}

#[test]
fn a_uri_does_not_open_a_connection_of_websocket() {
    let (host, mut core) = start();
    let mut caller = host.udp(CLIENT);
    let uri = format!("sip:ada@{};transport=ws", core.local());
    let answer = caller.ask(&caller.request("OPTIONS", &uri));
    assert_eq!(answer.code(), 400, "{}", answer.start_line());
    assert!(core.hears_nothing());
}

#[test]
fn messages_may_lack_a_length_and_come_in_parts() {
    let builder = builder();
    let callee = Callee::start(builder.lease().addr(CORE, 5080));
    let host = builder.start();
    let mut browser = browser(&host);
    let text = |number: u8, body: &str| {
        format!(
            "MESSAGE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/WS x.invalid;branch=z9hG4bK{number}\r\nMax-Forwards: 70\r\n\
             From: <sip:ada@example.com>;tag=1\r\nTo: <sip:bob@example.com>\r\nCall-ID: {number}\r\nCSeq: 1 MESSAGE\r\n\r\n{body}"
        )
    };
    browser.send_frame(Frame::binary(text(1, "bytes").into_bytes()));
    assert_eq!(browser.receive().code(), 200);
    let seen = callee.next();
    assert_eq!(seen.body(), b"bytes");
    // A first part, a ping in between, and the last part, byte by byte.
    let message = text(2, "in parts");
    let (first, last) = message.split_at(40);
    let masked = |head: u8, payload: &str| {
        let length = u16::try_from(payload.len())
            .expect("a short payload")
            .to_be_bytes();
        let mut frame = vec![head, 0xfe, length[0], length[1], 0, 0, 0, 0];
        if payload.len() < 126 {
            frame = vec![head, 0x80 | length[1], 0, 0, 0, 0];
        }
        frame.extend_from_slice(payload.as_bytes());
        frame
    };
    let frames = [
        masked(0x01, first),
        masked(0x89, "there?"),
        masked(0x80, last),
    ]
    .concat();
    for byte in frames {
        browser
            .stream()
            .write_all(&[byte])
            .expect("the connection takes bytes");
    }
    match browser.receive_frame() {
        Some(Frame::Pong(payload)) => assert_eq!(&payload[..], b"there?"),
        other => panic!("no pong but {other:?}"),
    }
    assert_eq!(browser.receive().code(), 200);
    assert_eq!(callee.next().body(), b"in parts");
    // Keep-alives of SIP.
    browser.send_frame(Frame::text("\r\n\r\n"));
    assert_eq!(browser.receive_frame(), Some(Frame::text("\r\n")));
}

#[test]
fn frames_against_the_rules_close_the_connection_with_their_code() {
    let host = builder().set("websocket", "max-message = \"1KiB\"").start();
    let mut unmasked = browser(&host);
    unmasked
        .stream()
        .write_all(b"\x81\x02hi")
        .expect("the connection takes bytes");
    assert_eq!(unmasked.closed_with(), 1002);
    let mut compressed = browser(&host);
    compressed
        .stream()
        .write_all(b"\xc1\x80\0\0\0\0")
        .expect("the connection takes bytes");
    assert_eq!(compressed.closed_with(), 1002);
    let mut long = browser(&host);
    long.send_frame(Frame::text("a".repeat(1_025)));
    assert_eq!(long.closed_with(), 1009);
    let mut garbled = browser(&host);
    garbled
        .stream()
        .write_all(b"\x81\x81\0\0\0\0\xff")
        .expect("the connection takes bytes");
    assert_eq!(garbled.closed_with(), 1007);
    let mut polite = browser(&host);
    polite.send_frame(Frame::Close(None));
    assert_eq!(polite.closed_with(), 1000);
    // Others are not disturbed.
    let mut other = browser(&host);
    let options = other.request("OPTIONS", &format!("sip:{}", host.sip()));
    assert_eq!(other.ask(&options).code(), 200);
}

#[test]
fn a_silent_client_is_pinged_and_one_that_does_not_answer_is_disconnected() {
    let host = builder().set("websocket", "ping = \"200ms\"").start();
    let mut answers = browser(&host);
    let mut silent = connect(host.lease().ip(CLIENT), ws(&host));
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: sip\r\n\r\n",
        ws(&host)
    );
    silent
        .write_all(request.as_bytes())
        .expect("the connection takes bytes");
    let mut all = Vec::new();
    let reading = std::thread::spawn(move || {
        let _closed = silent.read_to_end(&mut all);
        all
    });
    for _ in 0..4 {
        // Reading answers it.
        assert!(matches!(answers.receive_frame(), Some(Frame::Ping(_))));
    }
    let all = reading.join().expect("the connection ends");
    assert!(all.ends_with(b"\x89\0"), "{}", all.escape_ascii());
    let options = answers.request("OPTIONS", &format!("sip:{}", host.sip()));
    assert_eq!(answers.ask(&options).code(), 200);
}

#[test]
fn a_browser_over_tls_registers_and_is_called() {
    let (host, mut core, folder) = start_secure();
    for (offers, chosen) in [
        (&["h2", "http/1.1"][..], Some("http/1.1")),
        (&["sip/2"], None),
        (&[], None),
    ] {
        let line = secure_line(&host, &folder, offers);
        assert_eq!(line.protocol().as_deref(), chosen, "{offers:?}");
    }
    let mut browser = secure_browser(&host, &folder);
    let path = register(&mut browser, &mut core);
    let own = format!("@{};transport=ws;lr>", wss(&host));
    assert!(path.ends_with(&own), "{path}");

    let mut invite = core.request("INVITE", "sip:ada@df7jal23ls0d.invalid;transport=ws");
    invite.extra = vec![format!("Route: {path}")];
    core.send(&invite.bytes());
    let seen = browser.receive();
    assert_eq!(seen.first_word(), "INVITE");
    let via = format!("SIP/2.0/WSS {};branch=", wss(&host));
    assert!(seen.headers("Via")[0].starts_with(&via), "{seen:?}");
    browser.send_text(ok_to(&seen, browser.local()));
    let answer = core.receive();
    assert_eq!(answer.code(), 200);
    core.send(&invite.within(&answer, "ACK", 1).bytes());
    assert_eq!(browser.receive().first_word(), "ACK");
    core.send(&invite.within(&answer, "BYE", 2).bytes());
    let seen = browser.receive();
    assert_eq!(seen.first_word(), "BYE");
    browser.send_text(ok_to(&seen, browser.local()));
    assert_eq!(core.receive().code(), 200);

    // A call of the browser: the request leaves over UDP, and its Via names both transports.
    let options = browser.request("OPTIONS", "sip:bob@example.com");
    browser.send(&options);
    let seen = core.receive();
    let vias = seen.headers("Via");
    assert!(vias[0].starts_with("SIP/2.0/UDP "), "{vias:?}");
    assert!(
        vias[1].starts_with("SIP/2.0/WSS df7jal23ls0d.invalid;"),
        "{vias:?}"
    );
    core.send(&ok_to(&seen, core.local()));
    assert_eq!(browser.receive().code(), 200);

    drop(browser);
    wait::until("the connection is gone", || {
        (host.metric("portcullis_connections_open", &[]) == 0.0).then_some(())
    });
    let mut options = core.request("OPTIONS", "sip:ada@df7jal23ls0d.invalid;transport=ws");
    options.extra = vec![format!("Route: {path}")];
    assert_eq!(core.ask(&options).start_line(), "SIP/2.0 430 Flow Failed");
    // The certificates of tests expire soon.
    let mut complaints = host.complaints();
    complaints.retain(|line| !line.contains("tls_certificate_expires"));
    assert_eq!(complaints, [""; 0]);
}

#[test]
fn clients_are_told_that_the_host_ends() {
    let (mut host, mut core, folder) = start_secure();
    let mut plain = browser(&host);
    register(&mut plain, &mut core);
    let mut secure = secure_browser(&host, &folder);
    register(&mut secure, &mut core);
    // One that has not opened a WebSocket yet gets no frame.
    let mut early = Line::from(connect(host.lease().ip(CLIENT), ws(&host)));
    early
        .write_all(b"GET / HTTP/1.1\r\n")
        .expect("the connection takes bytes");
    wait::until("all connections are there", || {
        (host.metric("portcullis_connections_open", &[]) == 3.0).then_some(())
    });
    host.signal("TERM");
    assert_eq!(plain.closed_with(), 1001);
    assert_eq!(secure.closed_with(), 1001);
    assert_eq!(early.hear_all(), "");
    assert!(host.wait_until_ended().success());
}

#[test]
fn clients_are_told_that_another_process_has_taken_over() {
    let (mut host, mut core) = start();
    let mut before = browser(&host);
    register(&mut before, &mut core);
    host.upgrade();
    assert_eq!(before.closed_with(), 1001);
    let mut after = browser(&host);
    register(&mut after, &mut core);
}

#[test]
fn messages_without_end_close_the_connection_and_disturb_nobody() {
    let (host, mut core) = start();
    let mut neighbour = browser(&host);
    register(&mut neighbour, &mut core);
    // A first part, and parts of it without payload, or with one byte each, as long as the host takes them.
    for part in [&b"\x00\x80\0\0\0\0"[..], b"\x00\x81\0\0\0\0a"] {
        let mut endless = browser(&host);
        let stream = endless.stream();
        stream
            .write_all(b"\x01\x81\0\0\0\0a")
            .expect("the connection takes bytes");
        let parts = part.repeat(1_000);
        for _ in 0..1_000 {
            if stream.write_all(&parts).is_err() {
                break;
            }
            let options = neighbour.request("OPTIONS", &format!("sip:{}", host.sip()));
            assert_eq!(neighbour.ask(&options).code(), 200);
            if host.metric("portcullis_connections_open", &[]) == 1.0 {
                break;
            }
        }
        wait::until("the connection is gone", || {
            (host.metric("portcullis_connections_open", &[]) == 1.0).then_some(())
        });
    }
    let reason = ["reason=\"unframed\""];
    assert_eq!(host.metric("portcullis_dropped_total", &reason), 2.0);
}
