//! A callee behind the host: answers every request but ACK with 200, and records the requests.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::sip::{Message, receive_framed};
use crate::wait::PATIENCE;

/// A running callee on UDP and TCP; its threads end with the process.
#[derive(Debug)]
pub struct Callee {
    addr: SocketAddr,
    seen: Receiver<Message>,
}

impl Callee {
    /// Starts a callee on this address, UDP and TCP.
    pub fn start(addr: SocketAddr) -> Self {
        let socket = UdpSocket::bind(addr).expect("the callee's UDP address is free");
        let addr = socket.local_addr().expect("a bound socket has an address");
        let listener = TcpListener::bind(addr).expect("the callee's TCP address is free");
        let (sender, seen) = channel();
        let udp = sender.clone();
        std::thread::spawn(move || serve_udp(&socket, &udp));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let sender = sender.clone();
                std::thread::spawn(move || serve_tcp(stream, &sender));
            }
        });
        Self { addr, seen }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the next request that it received.
    ///
    /// # Panics
    /// When none comes.
    pub fn next(&self) -> Message {
        self.seen
            .recv_timeout(PATIENCE)
            .expect("a request reaches the callee")
    }

    /// Returns the next request that it has received, if there is one.
    pub fn taken(&self) -> Option<Message> {
        self.seen.try_recv().ok()
    }

    /// True if no request is waiting.
    pub fn saw_nothing_more(&self) -> bool {
        self.seen.try_recv().is_err()
    }
}

/// The 200 to a request: Vias, From, To, Call-ID and CSeq copied, Record-Route too (RFC 3261 §12.1.1).
pub fn ok_to(request: &Message, contact: SocketAddr) -> Vec<u8> {
    let mut text = String::from("SIP/2.0 200 OK\r\n");
    for name in ["Via", "Record-Route", "From", "To", "Call-ID", "CSeq"] {
        for value in request.headers(name) {
            text.push_str(&format!("{name}: {value}"));
            if name == "To" && !value.contains("tag=") {
                text.push_str(";tag=callee");
            }
            text.push_str("\r\n");
        }
    }
    text.push_str(&format!(
        "Contact: <sip:callee@{contact}>\r\nContent-Length: 0\r\n\r\n"
    ));
    text.into_bytes()
}

fn serve_udp(socket: &UdpSocket, seen: &Sender<Message>) {
    let local = socket.local_addr().expect("a bound socket has an address");
    let mut buffer = vec![0; 65_536];
    while let Ok((n, peer)) = socket.recv_from(&mut buffer) {
        let request = Message::new(buffer[..n].to_vec());
        if request.first_word() != "ACK" {
            let _sent = socket.send_to(&ok_to(&request, local), peer);
        }
        if seen.send(request).is_err() {
            return;
        }
    }
}

fn serve_tcp(mut stream: TcpStream, seen: &Sender<Message>) {
    let local = stream.local_addr().expect("a bound socket has an address");
    let mut pending = Vec::new();
    while let Some(request) = receive_framed(&mut stream, &mut pending) {
        if request.first_word() != "ACK" && stream.write_all(&ok_to(&request, local)).is_err() {
            return;
        }
        if seen.send(request).is_err() {
            return;
        }
    }
}
