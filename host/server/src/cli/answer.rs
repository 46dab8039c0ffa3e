//! `portcullis answer`: a callee for tests.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;

use anyhow::Context;
use portcullis_sip::{
    Frame, Framer, Framing, HeaderName, Index, Limits, Message, PONG, StartLine, Transport, scan,
    standard_reason,
};
use rsip::headers::{
    self, CSeq, CallId, Contact, ContentLength, RecordRoute, To, UntypedHeader, Via,
};
use rsip::{Header, Headers};

use super::print::clean;

/// Answer every SIP request with 200, for testing a host
///
/// It listens on UDP and TCP, prints a line for each request, and answers it immediately; an ACK gets no answer. It keeps no calls, sends
/// no media and retransmits nothing: use it only as the next hop of a host under test. Ctrl-C ends it.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The address to listen on, for example 127.0.0.1:5080
    #[arg(value_name = "ADDRESS:PORT")]
    addr: SocketAddr,
    /// The status of the responses
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(200..700))]
    code: u16,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let taken = || {
        format!(
            "cannot listen on {}: is it an address of this machine, and free?",
            args.addr
        )
    };
    let udp = UdpSocket::bind(args.addr).with_context(taken)?;
    let addr = udp.local_addr()?;
    let tcp = TcpListener::bind(addr).with_context(taken)?;
    let callee = Callee {
        code: args.code,
        addr,
        out: Mutex::new(io::stdout()),
    };
    callee.say(&format!(
        "answering {} to every request on udp and tcp {addr}; Ctrl-C ends it",
        args.code
    ))?;
    thread::scope(|scope| {
        let (callee, tcp) = (&callee, &tcp);
        scope.spawn(move || {
            loop {
                match tcp.accept() {
                    Ok((stream, peer)) => {
                        scope.spawn(move || callee.serve_stream(stream, peer));
                    }
                    Err(error) => eprintln!("warning: cannot accept a connection: {error}"),
                }
            }
        });
        callee.serve_datagrams(&udp)
    })?;
    Ok(ExitCode::SUCCESS)
}

struct Callee {
    code: u16,
    addr: SocketAddr,
    out: Mutex<io::Stdout>,
}

impl Callee {
    fn serve_datagrams(&self, socket: &UdpSocket) -> anyhow::Result<()> {
        let mut buffer = vec![0; 65_535];
        let mut index = Index::default();
        loop {
            let (length, peer) = match socket.recv_from(&mut buffer) {
                Ok(received) => received,
                // An ICMP error for an earlier response: nobody listens at its destination.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => continue,
                Err(error) => return Err(error).context("cannot receive datagrams"),
            };
            let bytes = buffer.get(..length).unwrap_or_default();
            if bytes.iter().all(|byte| b"\r\n\0".contains(byte)) {
                continue;
            }
            if let Some(answer) = self.answer(bytes, Framing::Datagram, peer, &mut index)? {
                let _lost = socket.send_to(&answer, peer);
            }
        }
    }

    fn serve_stream(&self, mut stream: TcpStream, peer: SocketAddr) {
        if let Err(error) = self.try_serve_stream(&mut stream, peer) {
            let _closed = self.say(&format!("the connection of {peer} ended: {error:#}"));
        }
    }

    fn try_serve_stream(&self, stream: &mut TcpStream, peer: SocketAddr) -> anyhow::Result<()> {
        let mut framer = Framer::new(&Limits::default());
        let mut index = Index::default();
        let mut chunk = [0; 16_384];
        loop {
            match framer.next()? {
                Frame::NeedMore => match stream.read(&mut chunk)? {
                    0 => return Ok(()),
                    length => framer.push(chunk.get(..length).unwrap_or_default()),
                },
                Frame::Ping => stream.write_all(PONG)?,
                Frame::Oversized { error, .. } => {
                    self.say(&format!("a message from {peer} is ignored: {error}"))?;
                }
                Frame::Message(range) => {
                    let answer =
                        self.answer(framer.bytes(range), Framing::Stream, peer, &mut index)?;
                    stream.write_all(&answer.unwrap_or_default())?;
                }
            }
        }
    }

    /// Prints a message and creates the response to it.
    fn answer(
        &self,
        bytes: &[u8],
        framing: Framing,
        peer: SocketAddr,
        index: &mut Index,
    ) -> io::Result<Option<Vec<u8>>> {
        let transport = match framing {
            Framing::Datagram => Transport::Udp,
            Framing::Stream => Transport::Tcp,
        };
        let from = format!("from {peer} over {transport}");
        if let Err(error) = scan(bytes, framing, &Limits::default(), index) {
            self.say(&format!("ignored {} bytes {from}: {error}", bytes.len()))?;
            return Ok(None);
        }
        let message = Message::new(bytes, index);
        let StartLine::Request { method, uri, .. } = message.start_line() else {
            self.say(&format!("ignored a response {from}"))?;
            return Ok(None);
        };
        let what = format!(
            "{} {} {from}",
            String::from_utf8_lossy(method),
            String::from_utf8_lossy(uri)
        );
        if method == b"ACK" {
            self.say(&what)?;
            return Ok(None);
        }
        self.say(&format!("{what}: {}", self.code))?;
        Ok(Some(respond(message, self.code, self.addr, transport)))
    }

    fn say(&self, line: &str) -> io::Result<()> {
        let mut out = self
            .out
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        writeln!(out, "{}", clean(line))?;
        out.flush()
    }
}

/// A response to `request` (RFC 3261 §8.2.6.2), with a tag that is the same for retransmissions.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "a response copies no other header fields"
)]
fn respond(request: Message<'_>, code: u16, local: SocketAddr, transport: Transport) -> Vec<u8> {
    let mut fields = Headers::default();
    for field in request.fields() {
        let value = field.unfolded();
        let value = String::from_utf8_lossy(&value);
        fields.push(match field.name {
            HeaderName::Via => Header::Via(Via::new(value)),
            HeaderName::From => Header::From(headers::From::new(value)),
            HeaderName::To if has_tag(&value) => Header::To(To::new(value)),
            HeaderName::To => Header::To(To::new(format!("{value};tag=answer"))),
            HeaderName::CallId => Header::CallId(CallId::new(value)),
            HeaderName::CSeq => Header::CSeq(CSeq::new(value)),
            HeaderName::RecordRoute => Header::RecordRoute(RecordRoute::new(value)),
            _ => continue,
        });
    }
    let parameter = transport.parameter();
    let contact = format!("<sip:answer@{local};transport={parameter}>");
    fields.push(Header::Contact(Contact::new(contact)));
    fields.push(Header::ContentLength(ContentLength::new("0")));
    let reason = standard_reason(code);
    // `rsip::StatusCode` has a fixed set of reasons, and a host has another one.
    format!("SIP/2.0 {code} {reason}\r\n{fields}\r\n").into_bytes()
}

fn has_tag(value: &str) -> bool {
    value.to_ascii_lowercase().contains(";tag=")
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVITE: &[u8] = b"INVITE sip:bob@example.com SIP/2.0\r\nv: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bK1\r\n\
        Via: SIP/2.0/UDP 10.0.0.2\r\nRecord-Route: <sip:10.0.0.1;lr>\r\nMax-Forwards: 70\r\nf: <sip:a@b>;tag=1\r\n\
        t: <sip:bob@example.com>\r\ni: abc\r\nCSeq: 7 INVITE\r\nl: 0\r\n\r\n";

    fn callee() -> Callee {
        Callee {
            code: 200,
            addr: "127.0.0.1:5080".parse().unwrap(),
            out: Mutex::new(io::stdout()),
        }
    }

    fn answer(bytes: &[u8]) -> Option<String> {
        let peer = "127.0.0.1:5060".parse().unwrap();
        let answer = callee().answer(bytes, Framing::Datagram, peer, &mut Index::default());
        answer
            .unwrap()
            .map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn a_request_is_answered_along_its_way() {
        assert_eq!(
            answer(INVITE).unwrap(),
            "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bK1\r\nVia: SIP/2.0/UDP 10.0.0.2\r\n\
             Record-Route: <sip:10.0.0.1;lr>\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:bob@example.com>;tag=answer\r\n\
             Call-ID: abc\r\nCSeq: 7 INVITE\r\nContact: <sip:answer@127.0.0.1:5080;transport=udp>\r\nContent-Length: 0\r\n\r\n"
        );
    }

    #[test]
    fn acks_responses_and_noise_are_not_answered() {
        let text = String::from_utf8_lossy(INVITE);
        assert_eq!(answer(text.replace("INVITE", "ACK").as_bytes()), None);
        assert_eq!(
            answer(
                text.replacen("INVITE sip:bob@example.com SIP/2.0", "SIP/2.0 200 OK", 1)
                    .as_bytes()
            ),
            None
        );
        assert_eq!(answer(b"noise"), None);
    }
}
