//! Load over connections, against servers made for these tests.

// Clippy knows that tests may unwrap, but not that the helpers of a test file are part of its tests.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use portcullis_load::{
    End, HandshakePlan, IdlePlan, Mode, Plan, Report, TlsVersion, Transport, handshakes, idle, run,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tungstenite::Message;

/// A server that answers OPTIONS with 200 and every other request with 401, until this is dropped.
struct Server {
    address: SocketAddr,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(transport: Transport) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&over);
        let config = server_config();
        let thread = thread::spawn(move || {
            for socket in listener.incoming() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let config = Arc::clone(&config);
                thread::spawn(move || serve(transport, config, socket.unwrap()));
            }
        });
        Self {
            address,
            over,
            thread: Some(thread),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // The listener waits for a connection.
        let _woken = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn server_config() -> Arc<ServerConfig> {
    let names = ["portcullis.example".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    config.ticketer = rustls::crypto::ring::Ticketer::new().unwrap();
    Arc::new(config)
}

fn serve(transport: Transport, config: Arc<ServerConfig>, socket: TcpStream) {
    let encrypted = |socket| StreamOwned::new(ServerConnection::new(config).unwrap(), socket);
    match transport {
        Transport::Tcp => answer(socket),
        Transport::Tls => answer(encrypted(socket)),
        Transport::Ws => answer_frames(socket),
        Transport::Wss => answer_frames(encrypted(socket)),
        Transport::Udp => unreachable!("no test has a server for it"),
    }
}

fn answer(mut stream: impl Read + Write) {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        while let Some(length) = length(&bytes) {
            let request: Vec<u8> = bytes.drain(..length).collect();
            let response = response(std::str::from_utf8(&request).unwrap());
            if stream.write_all(response.as_bytes()).is_err() {
                return;
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}

fn answer_frames(stream: impl Read + Write) {
    let Ok(mut socket) = tungstenite::accept(stream) else {
        return;
    };
    while let Ok(message) = socket.read() {
        if let Message::Text(text) = message
            && socket.send(Message::text(response(&text))).is_err()
        {
            return;
        }
    }
}

/// The length of the first message, once it is whole.
fn length(bytes: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(bytes).unwrap();
    let head = text.find("\r\n\r\n")? + 4;
    let value = text[..head].split("\r\nContent-Length: ").nth(1).unwrap();
    let body: usize = value.split("\r\n").next().unwrap().parse().unwrap();
    (bytes.len() >= head + body).then_some(head + body)
}

fn response(request: &str) -> String {
    let code = if request.starts_with("OPTIONS ") {
        200
    } else {
        401
    };
    let line = |name: &str| request.lines().find(|line| line.starts_with(name)).unwrap();
    let (via, call_id) = (line("Via: "), line("Call-ID: "));
    format!("SIP/2.0 {code} Reason\r\n{via}\r\n{call_id}\r\nContent-Length: 0\r\n\r\n")
}

fn source() -> IpAddr {
    "127.1.0.1".parse().unwrap()
}

fn requests(server: &Server, transport: Transport) -> Report {
    let mut plan = Plan::new(server.address, Mode::Reject, source());
    plan.transport = transport;
    plan.sources = 3;
    plan.outstanding = 4;
    plan.end = End::Requests(300);
    plan.patience = Duration::from_secs(20);
    run(&plan).unwrap()
}

#[test]
fn requests_over_every_transport_have_their_answers() {
    for transport in [
        Transport::Tcp,
        Transport::Tls,
        Transport::Ws,
        Transport::Wss,
    ] {
        let server = Server::start(transport);
        let report = requests(&server, transport);
        assert_eq!(report.fault(), None, "{transport}");
        assert_eq!((report.sent, report.answered), (300, 300), "{transport}");
        assert_eq!(report.codes.get(&401), Some(&300), "{transport}");
    }
}

#[test]
fn a_server_that_speaks_another_transport_is_an_error() {
    let server = Server::start(Transport::Ws);
    let mut plan = Plan::new(server.address, Mode::Reject, source());
    plan.transport = Transport::Tls;
    let error = format!("{:#}", run(&plan).unwrap_err());
    assert!(
        error.contains("a connection from 127.1.0.1 over TLS"),
        "{error}"
    );
}

fn greeting(server: &Server, transport: Transport) -> HandshakePlan {
    HandshakePlan {
        target: server.address,
        transport,
        tls: TlsVersion::V13,
        resume: false,
        first_source: source(),
        sources: 4,
        at_once: 3,
        rate: None,
        warm_up: Duration::from_millis(200),
        length: Duration::from_millis(300),
        patience: Duration::from_secs(20),
        watch: vec![std::process::id()],
    }
}

#[test]
fn handshakes_are_full_or_resumed_as_the_plan_says() {
    let server = Server::start(Transport::Tls);
    for (tls, suite) in [
        (
            TlsVersion::V12,
            "TLSv1_2 TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        ),
        (TlsVersion::V13, "TLSv1_3 TLS13_AES_128_GCM_SHA256"),
    ] {
        for resume in [false, true] {
            let plan = HandshakePlan {
                tls,
                resume,
                ..greeting(&server, Transport::Tls)
            };
            let report = handshakes(&plan).unwrap();
            let window = report.window;
            assert_eq!(report.failed, 0, "{report:?}");
            assert_eq!(report.tls.as_deref(), Some(suite));
            assert!(window.server.is_some_and(|usage| usage.cpu_us > 0.0));
            // With sessions, each slot has had its full handshake during the warm-up.
            let others = if resume { window.full } else { window.resumed };
            assert!(
                window.full + window.resumed > 0 && others <= 3,
                "{tls:?}, resume = {resume}: {report:?}"
            );
        }
    }
}

#[test]
fn a_handshake_of_websocket_is_counted_and_closed() {
    for transport in [Transport::Ws, Transport::Wss] {
        let server = Server::start(transport);
        let report = handshakes(&greeting(&server, transport)).unwrap();
        assert_eq!(report.failed, 0, "{report:?}");
        assert!(report.window.full > 0, "{report:?}");
        assert_eq!(report.tls.is_some(), transport.has_tls());
    }
}

#[test]
fn handshakes_that_fail_are_told_with_their_cause() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = closed.local_addr().unwrap();
    drop(closed);
    let server = Server::start(Transport::Tcp);
    let plan = HandshakePlan {
        target: address,
        ..greeting(&server, Transport::Tls)
    };
    let error = format!("{:#}", handshakes(&plan).unwrap_err());
    assert!(error.contains("cannot connect from 127.1.0"), "{error}");
    let plan = greeting(&server, Transport::Tcp);
    let error = handshakes(&plan).unwrap_err().to_string();
    assert!(error.contains("has no handshake"), "{error}");
}

#[test]
fn idle_connections_stay_open_and_are_weighed() {
    for transport in [Transport::Tcp, Transport::Wss] {
        let server = Server::start(transport);
        let plan = IdlePlan {
            target: server.address,
            transport,
            tls: TlsVersion::V13,
            before: 2,
            connections: 20,
            first_source: source(),
            sources: 4,
            asks: true,
            hold: Duration::from_millis(10),
            watch: vec![std::process::id()],
        };
        let report = idle(&plan).unwrap();
        assert_eq!((report.connections, report.closed), (20, 0));
        assert!(
            report.before_bytes > 0 && report.after_bytes > 0,
            "{report:?}"
        );
    }
}
