//! Connections and descriptors: a client with many connections does not keep others out, over SIP and over HTTP.

#![forbid(unsafe_code)]

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};

use portcullis_testkit::callee::Callee;
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::policy;
use portcullis_testkit::sip::Caller;
use portcullis_testkit::wait;
use socket2::{Domain, Socket, Type};

fn connect(from: IpAddr, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket can be made");
    let from = SocketAddr::new(from, 0);
    socket
        .bind(&from.into())
        .expect("a loopback source can be bound");
    socket
        .connect_timeout(&to.into(), wait::PATIENCE)
        .expect("the system takes the connection");
    let stream = TcpStream::from(socket);
    stream
        .set_read_timeout(Some(wait::PATIENCE))
        .expect("a socket takes a time-out");
    stream
}

/// Whether the host has closed a connection, after anything that it has sent.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).expect("a socket can do so");
    loop {
        match stream.read(&mut [0; 64]) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != ErrorKind::WouldBlock,
        }
    }
}

fn assert_all_doors_answer(host: &Host) {
    assert_eq!(
        host.get("/healthz").expect("the control port answers").0,
        200
    );
    // The database, too.
    host.run("address add 200 10.9.9.9");
    assert!(host.run("address reload").starts_with("Reload OK"));
    let mut caller = Caller::tcp(host.lease().ip(77), host.sip());
    let request = caller.request("INVITE", "sip:bob@example.com");
    assert_eq!(caller.ask(&request).code(), 401);
}

#[test]
fn idle_connections_do_not_use_up_descriptors() {
    // With hundreds of files fewer than there are connections, and a soft limit below the hard one.
    let host = Builder::new().open_files(64, 320).start();
    let log = host.log();
    for part in [
        "event=\"descriptors\"",
        "limit=320",
        "raised_from=64",
        "event=\"few_descriptors\"",
    ] {
        assert!(log.contains(part), "{part}: {log}");
    }
    let mut idle = Vec::new();
    for n in 0..600_usize {
        let source = host.lease().ip(10 + (n % 4) as u8);
        idle.push(connect(source, host.sip()));
        // Keep-alives do not protect a connection.
        let _may_be_closed = idle[n].write(b"\r\n\r\n");
    }
    assert_all_doors_answer(&host);
    wait::until("the first have made room", || {
        (host.metric("portcullis_connections_evicted_total", &[]) >= 300.0).then_some(())
    });
    wait::until("the first is closed", || {
        is_closed(&mut idle[0]).then_some(())
    });
    let (_, files) = host.maps_and_files();
    assert!(files < 320, "{files}");
    let log = host.log();
    assert!(
        !log.contains("no_descriptor") && !log.contains("too_many_connections"),
        "{log}"
    );
    drop(idle);
    assert_all_doors_answer(&host);
}

/// As if another process of the machine had taken the last ones.
#[test]
fn a_shortage_of_descriptors_is_logged_and_ends() {
    let host = Builder::new().start();
    let allow = |soft: usize| {
        let status = std::process::Command::new("prlimit")
            .args(["--pid", &host.pid().to_string()])
            .arg(format!("--nofile={soft}:"))
            .status();
        assert!(status.is_ok_and(|status| status.success()));
    };
    allow(8);
    let mut waiting = Caller::tcp(host.lease().ip(10), host.sip());
    host.wait_for_log("event=\"no_descriptor\"");
    allow(1024);
    let request = waiting.request("INVITE", "sip:bob@example.com");
    assert_eq!(waiting.ask(&request).code(), 401);
    assert_all_doors_answer(&host);
    assert!(host.metric("portcullis_accept_errors_total", &[]) >= 1.0);
}

#[test]
fn a_connection_with_a_call_is_not_evicted_by_unknown_sources() {
    let builder = Builder::new()
        .policy(policy("observe"))
        .set("sip", "tcp-max-connections = 8");
    let callee = Callee::start(builder.lease().addr(2, 5080));
    let host = builder
        .set("relay", &format!("next-hop = \"sip:{}\"", callee.addr()))
        .start();
    let mut caller = Caller::tcp(host.lease().ip(3), host.sip());
    let request = caller.request("OPTIONS", "sip:bob@example.com");
    assert_eq!(caller.ask(&request).code(), 200);
    let mut strangers: Vec<_> = (0..100)
        .map(|n| connect(host.lease().ip(10 + n), host.sip()))
        .collect();
    wait::until("strangers have made room for strangers", || {
        (host.metric("portcullis_connections_evicted_total", &[]) >= 90.0).then_some(())
    });
    wait::until("the first is closed", || {
        is_closed(&mut strangers[0]).then_some(())
    });
    // The caller's connection is older than all of them.
    let request = caller.request("OPTIONS", "sip:bob@example.com");
    assert_eq!(caller.ask(&request).code(), 200);
}

#[test]
fn incomplete_http_requests_keep_nobody_out() {
    let host = Builder::new().set("control", "max-connections = 8").start();
    let control = host.lease().addr(1, 8060);
    let mut slow = Vec::new();
    for n in 0..100 {
        let mut stream = connect(host.lease().ip(10), control);
        let half = [&b""[..], b"GET /healthz HTTP/1.1\r\nHost:", b"P"][n % 3];
        let _may_be_closed = stream.write(half);
        slow.push(stream);
    }
    assert_eq!(
        host.get("/healthz").expect("the control port answers").0,
        200
    );
    wait::until("the first has lost its place", || {
        is_closed(&mut slow[0]).then_some(())
    });
    // The size of a request head is limited.
    let mut large = connect(host.lease().ip(11), control);
    let _cut_off = large
        .write_all(b"GET / HTTP/1.1\r\nX: ")
        .and_then(|()| large.write_all(&vec![b'x'; 1 << 20]));
    let mut answer = [0; 12];
    let read = large.read(&mut answer).unwrap_or(0);
    assert!(
        read == 0 || answer.starts_with(b"HTTP/1.1 431"),
        "{answer:?}"
    );
    assert_all_doors_answer(&host);
}

#[test]
fn one_push_per_seat_is_read_and_only_with_a_reservation() {
    let host = Builder::new()
        .set("tenants.acme", "uri-domains = [\"acme.example\"]")
        .set("tenants.other", "uri-domains = [\"other.example\"]")
        .start();
    let wasm = std::fs::read(policy("observe")).expect("the policy can be read");
    let mut slow = connect(host.lease().ip(10), host.lease().addr(1, 8060));
    let token = host.token().expect("the host has made a token");
    let head = format!(
        "POST /v1/policies/acme HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/wasm\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        wasm.len()
    );
    slow.write_all(head.as_bytes()).expect("the host reads");
    // The host requests the body once the push has a reservation.
    let mut asked = [0; 12];
    slow.read_exact(&mut asked).expect("the host answers");
    assert_eq!(&asked, b"HTTP/1.1 100");
    slow.write_all(&wasm[..100]).expect("the host reads");
    let (status, busy) = host.push("acme", "", &wasm);
    assert_eq!(status, 429, "{busy}");
    assert!(
        busy["error"]
            .as_str()
            .is_some_and(|text| text.contains("another policy")),
        "{busy}"
    );
    let (status, told) = host.push("other", "", &wasm);
    assert_eq!(status, 201, "{told}");
    // The reservation ends with the connection.
    drop(slow);
    wait::until("the place is free", || {
        (host.push("acme", "", &wasm).0 == 201).then_some(())
    });
    let (status, told) = host.push("other", "", &vec![0; (4 << 20) + 1]);
    assert_eq!(status, 413, "{told}");
}
