//! Workers behind TCP connections.

use std::net::{SocketAddr, TcpListener};

use portcullis_metrics::Lost;

use crate::support::peer::{Tcp, Udp, header, headers, ok_to, request, request_with, start_line};
use crate::support::policies::{guest, relaying};
use crate::support::{Host, Setup, block_on, until};

const BOB: &str = "sip:bob@example.com";

/// A host that sends everything to `next_hop`.
fn relay_to(next_hop: &str) -> Host {
    let config = format!("[relay]\nnext-hop = \"sip:{next_hop}\"\n");
    Setup::new().config(&config).policy(relaying()).start()
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

#[test]
fn requests_are_answered_over_their_connection_on_both_families() {
    for setup in [Setup::new(), Setup::v6()] {
        let host = setup.policy(guest("page")).start();
        let mut caller = Tcp::connect(host.tcp());
        for _ in 0..3 {
            caller.send(&request("INVITE", BOB, "TCP", caller.addr()));
            let answer = caller.receive();
            assert_eq!(start_line(&answer), "SIP/2.0 401 Address not authorised");
        }
        assert_eq!(host.count(|c| c.tcp.received.value()), 3);
        assert_eq!(host.count(|c| c.connections.accepted.value()), 1);
        drop(caller);
        until("the end is noticed", || host.shared.connections.is_empty());
        assert_eq!(host.count(|c| c.connections.closed.value()), 1);
    }
}

#[test]
fn messages_are_cut_however_they_come() {
    let host = Setup::new().start();
    let mut caller = Tcp::connect(host.tcp());
    let requests: Vec<Vec<u8>> = (0..5)
        .map(|n| request_with("INFO", BOB, "TCP", caller.addr(), "", &vec![b'x'; n * 10]))
        .collect();
    caller.send(&requests.concat());
    for byte in requests.concat() {
        caller.send(&[byte]);
    }
    for request in requests.iter().chain(&requests) {
        let answer = caller.receive();
        assert_eq!(header(&answer, "Call-ID"), header(request, "Call-ID"));
    }
}

#[test]
fn keep_alives_are_answered() {
    let host = Setup::new().start();
    let mut caller = Tcp::connect(host.tcp());
    caller.send(b"\r\n\r\n");
    assert_eq!(caller.receive_bytes(2), b"\r\n");
    // What comes in one piece has one answer.
    caller.send(b"\r\n\r\n\r\n\r\n");
    assert_eq!(caller.receive_bytes(2), b"\r\n");
    assert_eq!(host.count(|c| c.tcp.keepalives.value()), 3);
}

#[test]
fn one_connection_to_the_next_hop_serves_many_requests() {
    let (listener, callee) = listen();
    let host = relay_to(&format!("{callee};transport=tcp"));
    let caller = Udp::new("127.0.0.1:0");
    let invite = |caller: &Udp| {
        caller.send(&request("INVITE", BOB, "UDP", caller.addr()), host.udp());
    };
    // The second comes while the connection is being opened, or just after.
    invite(&caller);
    invite(&caller);
    let mut callee = Tcp::accept(&listener);
    for _ in 0..3 {
        for _ in 0..2 {
            let invite = callee.receive();
            assert_eq!(headers(&invite, "Via").len(), 2);
            callee.send(&ok_to(&invite));
            assert_eq!(start_line(&caller.final_response()), "SIP/2.0 200 OK");
        }
        invite(&caller);
        invite(&caller);
    }
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "there was no second connection");
    assert_eq!(host.count(|c| c.connections.opened.value()), 1);
}

#[test]
fn a_response_comes_back_over_the_callers_connection() {
    let callee = Udp::new("127.0.0.1:0");
    let host = relay_to(&callee.addr().to_string());
    let mut callers = [Tcp::connect(host.tcp()), Tcp::connect(host.tcp())];
    for caller in &mut callers {
        // What Via says of the sender is of no use here: the connection is the way back.
        let nowhere = "192.0.2.1:5060".parse().unwrap();
        caller.send(&request("INVITE", BOB, "TCP", nowhere));
        let (invite, host) = callee.receive();
        callee.send(&ok_to(&invite), host);
        assert_eq!(start_line(&caller.final_response()), "SIP/2.0 200 OK");
    }
}

#[test]
fn a_response_whose_connection_is_gone_gets_a_new_one_to_sent_by() {
    let callee = Udp::new("127.0.0.1:0");
    let host = relay_to(&callee.addr().to_string());
    let (listener, sent_by) = listen();
    let mut caller = Tcp::connect(host.tcp());
    caller.send(&request("INVITE", BOB, "TCP", sent_by));
    let (invite, from) = callee.receive();
    drop(caller);
    until("the end is noticed", || host.shared.connections.is_empty());
    callee.send(&ok_to(&invite), from);
    let mut caller = Tcp::accept(&listener);
    assert_eq!(start_line(&caller.final_response()), "SIP/2.0 200 OK");
}

#[test]
fn a_next_hop_that_takes_no_connection_is_a_500() {
    let (listener, nobody) = listen();
    drop(listener);
    let host = relay_to(&format!("{nobody};transport=tcp"));
    let caller = Udp::new("127.0.0.1:0");
    let mut stream = Tcp::connect(host.tcp());
    for _ in 0..2 {
        caller.send(&request("INVITE", BOB, "UDP", caller.addr()), host.udp());
        let answer = caller.final_response();
        assert_eq!(start_line(&answer), "SIP/2.0 500 Server Internal Error");
        stream.send(&request("INVITE", BOB, "TCP", stream.addr()));
        let answer = stream.final_response();
        assert_eq!(start_line(&answer), "SIP/2.0 500 Server Internal Error");
    }
    assert_eq!(host.count(|c| c.connections.connect_errors.value()), 4);
    assert_eq!(host.count(|c| c.lost.value(Lost::NoConnection)), 4);
}

#[test]
fn what_a_broken_connection_did_not_take_goes_over_a_new_one() {
    let (listener, callee) = listen();
    let host = relay_to(&format!("{callee};transport=tcp"));
    let caller = Udp::new("127.0.0.1:0");
    for _ in 0..3 {
        caller.send(&request("INVITE", BOB, "UDP", caller.addr()), host.udp());
        let mut callee = Tcp::accept(&listener);
        let invite = callee.receive();
        callee.send(&ok_to(&invite));
        assert_eq!(start_line(&caller.final_response()), "SIP/2.0 200 OK");
        callee.reset();
    }
}

#[test]
fn a_stream_that_cannot_be_followed_is_answered_and_closed() {
    let host = Setup::new().start();
    let caller = || Tcp::connect(host.tcp());
    let message = request("MESSAGE", BOB, "TCP", "127.0.0.1:5060".parse().unwrap());
    let message = String::from_utf8(message).unwrap();
    for (length, line) in [
        ("Content-Length: 2000000", "SIP/2.0 513 Message Too Large"),
        ("Content-Length: x", "SIP/2.0 400 "),
        ("X-No: length", "SIP/2.0 400 "),
    ] {
        let mut caller = caller();
        let message = message.replace("Content-Length: 0", length);
        caller.send(message.as_bytes());
        caller.send(&[b'x'; 10_000]);
        let answer = caller.receive_to_end();
        assert!(
            start_line(&answer).starts_with(line),
            "{length}: {answer:?}"
        );
        assert_eq!(header(&answer, "CSeq"), Some("1 MESSAGE"));
    }
    let mut caller = caller();
    caller.send(b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(caller.receive_to_end(), b"");
    until("all ends are counted", || {
        host.count(|c| c.connections.closed.value()) == 4
    });
    assert_eq!(host.count(|c| c.lost.value(Lost::Unframed)), 4);
}

#[test]
fn a_peer_that_does_not_read_costs_itself_and_nobody_else() {
    let host = Setup::new().start();
    let mut deaf = Tcp::connect(host.tcp());
    let us = format!("sip:{}", host.tcp());
    let options = request("OPTIONS", &us, "TCP", deaf.addr()).repeat(100);
    let is_full = || host.count(|c| c.lost.value(Lost::QueueFull)) > 0;
    // Until the buffers of both systems and our queue are full. 100,000 answers are some 40 MB.
    for _ in 0..1_000 {
        if is_full() {
            break;
        }
        deaf.send(&options);
    }
    until("answers are thrown away", is_full);
    let mut other = Tcp::connect(host.tcp());
    other.send(&request("OPTIONS", &us, "TCP", other.addr()));
    assert_eq!(start_line(&other.receive()), "SIP/2.0 200 OK");
}

#[test]
fn the_end_sends_what_waits_and_closes() {
    let host = Setup::new().workers(2).start();
    let mut callers: Vec<Tcp> = (0..8).map(|_| Tcp::connect(host.tcp())).collect();
    for caller in &mut callers {
        let messages: Vec<u8> = (0..20)
            .flat_map(|_| request("INVITE", BOB, "TCP", caller.addr()))
            .collect();
        caller.send(&messages);
    }
    until("all is received", || {
        host.count(|c| c.tcp.received.value()) == 160
    });
    host.stop();
    for caller in &mut callers {
        let answers = caller.receive_to_end();
        let lines = String::from_utf8(answers).unwrap();
        assert_eq!(lines.matches("SIP/2.0 403 Forbidden\r\n").count(), 20);
    }
}

#[test]
fn a_connection_keeps_its_place_whichever_worker_has_its_request() {
    const CONNECTIONS: usize = 8;
    let callee = Udp::new("127.0.0.1:0");
    let config = format!(
        "[sip]\ntcp-max-connections-per-address = {CONNECTIONS}\n[relay]\nnext-hop = \"sip:{}\"\n",
        callee.addr()
    );
    let host = Setup::new()
        .config(&config)
        .policy(relaying())
        .workers(2)
        .start();
    // Each request is handed over or not by chance.
    let connections: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let mut stream = Tcp::connect(host.tcp());
            stream.send(&request("INVITE", BOB, "TCP", stream.addr()));
            assert_eq!(start_line(&stream.receive()), "SIP/2.0 100 Trying");
            stream
        })
        .collect();
    let _refused = Tcp::connect(host.tcp());
    until("one more is refused", || {
        host.count(|c| c.lost.value(Lost::TooManyConnections)) == 1
    });
    assert_eq!(host.count(|c| c.connections.evicted.value()), 0);
    drop(connections);
}

/// Another process that takes the sockets over has to know them.
#[test]
fn transactions_that_begin_by_a_hand_over_after_the_pause_are_named() {
    const INVITES: usize = 16;
    const WORKERS: usize = 2;
    let callee = Udp::new("127.0.0.1:0");
    let config = format!("[relay]\nnext-hop = \"sip:{}\"\n", callee.addr());
    let host = Setup::new()
        .config(&config)
        .policy(relaying())
        .workers(WORKERS)
        .start();
    let mut stream = Tcp::connect(host.tcp());
    let us = format!("sip:{}", host.tcp());
    stream.send(&request("OPTIONS", &us, "TCP", stream.addr()));
    assert_eq!(start_line(&stream.receive()), "SIP/2.0 200 OK");
    let orders = &host.shared.orders;
    for worker in 0..WORKERS {
        assert!(
            block_on(orders.names(worker, None))
                .unwrap()
                .names
                .is_empty()
        );
    }
    block_on(orders.pause()).unwrap();
    // Each is handed over or not by chance: connections are read on.
    for _ in 0..INVITES {
        stream.send(&request("INVITE", BOB, "TCP", stream.addr()));
        assert_eq!(start_line(&stream.receive()), "SIP/2.0 100 Trying");
    }
    let names = block_on(orders.names_since()).unwrap();
    assert_eq!(names.iter().map(Vec::len).sum::<usize>(), INVITES);
    assert_eq!(names.len(), WORKERS);
}
