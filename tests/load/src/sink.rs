//! A callee that answers every request but ACK with 200.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use memchr::{memchr, memmem};
use portcullis_udp::{Receiver, Sender};

use crate::crowd::BATCH;
use crate::plan::{T1, T2};
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
    unacknowledged: Unacknowledged,
}

/// 200s to INVITE that have no ACK yet: they are sent again (RFC 3261 §13.3.1.4).
#[derive(Default)]
struct Unacknowledged {
    /// By Call-ID.
    answers: HashMap<Vec<u8>, (Vec<u8>, SocketAddr)>,
    /// The next retransmissions: the time, the time since the one before, and the Call-ID. Those that are sent for the nth time have an order of
    /// their own.
    due: [VecDeque<(Instant, Vec<u8>)>; INTERVALS.len()],
    repeated: u64,
}

/// The times between two retransmissions of a 200, until it is given up.
const INTERVALS: [Duration; 10] = [
    T1,
    Duration::from_secs(1),
    Duration::from_secs(2),
    T2,
    T2,
    T2,
    T2,
    T2,
    T2,
    T2,
];

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
            unacknowledged: Unacknowledged::default(),
            socket,
            receiver: Receiver::new(BATCH),
            sender: Sender::new(BATCH),
            answer: Vec::new(),
            requests: 0,
        })
    }

    /// Answers an INVITE with 100 and 180 before the 200, and sends the 200 again until its ACK comes.
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

    /// Number of 200s that were sent again because no ACK came.
    pub fn repeated(&self) -> u64 {
        self.unacknowledged.repeated
    }

    /// Answers the waiting requests and returns their number.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn turn(&mut self) -> io::Result<usize> {
        let count = socket::receive(&mut self.receiver, &self.socket)?;
        for nth in 0..count {
            let (request, from, _) = self.receiver.datagram(nth);
            // The socket may be bound to every address of this machine.
            if !from.ip().is_loopback() {
                continue;
            }
            self.requests += 1;
            if self.rings && request.starts_with(b"ACK ") {
                self.unacknowledged.acknowledge(request);
            }
            let all: &[&str] = match self.rings && request.starts_with(b"INVITE ") {
                true => &["100 Trying", "180 Ringing", "200 OK"],
                false => &["200 OK"],
            };
            for status in all {
                if answer(request, status, &self.contact, &mut self.answer) {
                    self.sender.push(&self.answer, from);
                }
            }
            if all.len() > 1 {
                self.unacknowledged.add(request, &self.answer, from);
            }
        }
        let mut repeated = 0;
        if self.rings {
            repeated = self.unacknowledged.send_again(&mut self.sender);
        }
        if count + repeated > 0 {
            socket::send(&mut self.sender, &self.socket)?;
        }
        Ok(count)
    }
}

impl Unacknowledged {
    fn add(&mut self, invite: &[u8], answer: &[u8], to: SocketAddr) {
        let Some(call_id) = call_id(invite) else {
            return;
        };
        let answer = (answer.to_vec(), to);
        if self.answers.insert(call_id.to_vec(), answer).is_none() {
            let first = (Instant::now() + INTERVALS[0], call_id.to_vec());
            self.due[0].push_back(first);
        }
    }

    fn acknowledge(&mut self, ack: &[u8]) {
        if let Some(call_id) = call_id(ack) {
            self.answers.remove(call_id);
        }
    }

    /// Sends what is due, and returns how much that was.
    fn send_again(&mut self, sender: &mut Sender) -> usize {
        let mut count = 0;
        let now = Instant::now();
        for nth in 0..INTERVALS.len() {
            while let Some((due, _)) = self.due[nth].front()
                && *due <= now
                && let Some((_, call_id)) = self.due[nth].pop_front()
            {
                let Some((answer, to)) = self.answers.get(&call_id) else {
                    continue;
                };
                sender.push(answer, *to);
                count += 1;
                match INTERVALS.get(nth + 1) {
                    Some(interval) => self.due[nth + 1].push_back((now + *interval, call_id)),
                    None => drop(self.answers.remove(&call_id)),
                }
            }
        }
        self.repeated += count as u64;
        count
    }
}

/// The value of Call-ID.
fn call_id(message: &[u8]) -> Option<&[u8]> {
    const NAME: &[u8] = b"\r\nCall-ID: ";
    let start = memmem::find(message, NAME)? + NAME.len();
    let value = &message[start..];
    Some(&value[..memchr(b'\r', value)?])
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
