//! A callee that answers every request but ACK with 200.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use memchr::memchr;
use portcullis_udp::{Receiver, Sender};

use crate::crowd::BATCH;
use crate::socket;

/// Header fields that a 200 repeats (RFC 3261 §8.2.6.2).
const COPIED: [&[u8]; 6] = [
    b"via:",
    b"record-route:",
    b"from:",
    b"to:",
    b"call-id:",
    b"cseq:",
];

/// A running callee.
pub struct Sink {
    socket: UdpSocket,
    receiver: Receiver,
    sender: Sender,
    answer: Vec<u8>,
    requests: u64,
    /// The Contact line.
    contact: String,
    /// Whether an INVITE is answered 100 and 180 first.
    rings: bool,
}

impl Sink {
    /// Binds the callee's non-blocking socket.
    ///
    /// # Errors
    /// If the address is in use.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = socket::bind(address)?;
        Ok(Self {
            contact: format!("Contact: <sip:callee@{}>\r\n", socket.local_addr()?),
            rings: false,
            socket,
            receiver: Receiver::new(BATCH),
            sender: Sender::new(BATCH),
            answer: Vec::new(),
            requests: 0,
        })
    }

    /// Answers an INVITE with 100 and 180 before the 200.
    #[must_use]
    pub fn ringing(self) -> Self {
        Self {
            rings: true,
            ..self
        }
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// Those of `getsockname`.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Number of requests received so far.
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// Answers the waiting requests and returns their number.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn turn(&mut self) -> io::Result<usize> {
        let count = socket::receive(&mut self.receiver, &self.socket)?;
        for nth in 0..count {
            let (request, from, _) = self.receiver.datagram(nth);
            self.requests += 1;
            let all: &[&str] = match self.rings && request.starts_with(b"INVITE ") {
                true => &["100 Trying", "180 Ringing", "200 OK"],
                false => &["200 OK"],
            };
            for status in all {
                if answer(request, status, &self.contact, &mut self.answer) {
                    self.sender.push(&self.answer, from);
                }
            }
        }
        if count > 0 {
            socket::send(&mut self.sender, &self.socket)?;
        }
        Ok(count)
    }
}

/// Writes the response to a request; false if the request gets none.
fn answer(request: &[u8], status: &str, contact: &str, out: &mut Vec<u8>) -> bool {
    out.clear();
    if request.starts_with(b"ACK ") || request.starts_with(b"SIP/2.0 ") {
        return false;
    }
    out.extend_from_slice(b"SIP/2.0 ");
    out.extend_from_slice(status.as_bytes());
    out.extend_from_slice(b"\r\n");
    let mut rest = request;
    while let Some(end) = memchr(b'\n', rest) {
        let (line, behind) = rest.split_at(end + 1);
        rest = behind;
        if line == b"\r\n" {
            out.extend_from_slice(contact.as_bytes());
            out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
            return true;
        }
        let copied = COPIED
            .iter()
            .find(|name| line.len() > name.len() && line[..name.len()].eq_ignore_ascii_case(name));
        match copied {
            Some(&b"to:") if memchr::memmem::find(line, b";tag=").is_none() => {
                out.extend_from_slice(line.trim_ascii_end());
                out.extend_from_slice(b";tag=callee\r\n");
            }
            Some(_) => out.extend_from_slice(line),
            None => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &str = "INVITE sip:bob@127.0.0.1 SIP/2.0\r\n\
        Via: SIP/2.0/UDP 127.0.0.1:5060;branch=z9hG4bKproxy\r\n\
        Via: SIP/2.0/UDP 127.1.0.1:4000;branch=z9hG4bKcaller\r\n\
        Max-Forwards: 69\r\n\
        From: <sip:alice@127.1.0.1>;tag=1\r\n\
        To: <sip:bob@127.0.0.1>\r\n\
        CALL-ID: x\r\n\
        CSeq: 1 INVITE\r\n\
        Subject: no\r\n\
        Content-Length: 5\r\n\r\nVia: ";

    #[test]
    fn the_answer_goes_back_the_way_the_request_came() {
        let mut out = Vec::new();
        let contact = "Contact: <sip:callee@127.3.0.1:5060>\r\n";
        assert!(answer(REQUEST.as_bytes(), "200 OK", contact, &mut out));
        let expected = "SIP/2.0 200 OK\r\n\
            Via: SIP/2.0/UDP 127.0.0.1:5060;branch=z9hG4bKproxy\r\n\
            Via: SIP/2.0/UDP 127.1.0.1:4000;branch=z9hG4bKcaller\r\n\
            From: <sip:alice@127.1.0.1>;tag=1\r\n\
            To: <sip:bob@127.0.0.1>;tag=callee\r\n\
            CALL-ID: x\r\n\
            CSeq: 1 INVITE\r\n\
            Contact: <sip:callee@127.3.0.1:5060>\r\n\
            Content-Length: 0\r\n\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn nothing_answers_an_ack_a_response_or_half_a_request() {
        let mut out = Vec::new();
        for text in [
            REQUEST.replace("INVITE sip", "ACK sip"),
            "SIP/2.0 200 OK\r\n\r\n".into(),
            REQUEST[..REQUEST.len() - 10].into(),
        ] {
            assert!(!answer(text.as_bytes(), "200 OK", "", &mut out), "{text}");
        }
    }
}
