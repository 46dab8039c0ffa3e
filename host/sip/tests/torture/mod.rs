//! Messages that torture a parser, each with what a proxy has to make of it.
//!
//! The messages are the project's own. Each exercises the point of the section whose short name it bears.

#![allow(dead_code)] // Each test file uses its own part of this.

pub(crate) mod harness;
pub(crate) mod ipv6;
pub(crate) mod outside;
pub(crate) mod syntax_invalid;
pub(crate) mod syntax_valid;

use portcullis_sip::DropReason;

/// One message and what becomes of it.
#[derive(Clone)]
pub(crate) struct Case {
    /// The section of the RFC.
    pub(crate) section: &'static str,
    /// The RFC's short name.
    pub(crate) name: &'static str,
    /// The message. `{VIA}` stands for the Via line of ours that the response carries.
    pub(crate) bytes: Vec<u8>,
    /// What a proxy makes of it.
    pub(crate) expected: Expected,
}

/// What a proxy makes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// A request goes to the policy and, when that relays it, on to the next hop.
    Forward,
    /// A response goes back by its second Via.
    Back,
    /// A reply of our own with this code and reason phrase.
    Answer(u16, &'static str),
    /// Silence.
    Drop(DropReason),
}

/// A message of these header lines, each ended by CRLF, and this body.
pub(crate) fn message(lines: &[&str], body: &[u8]) -> Vec<u8> {
    bytes(
        &lines.iter().map(|line| line.as_bytes()).collect::<Vec<_>>(),
        body,
    )
}

/// As [`message`], for header lines that are not UTF-8.
pub(crate) fn bytes(lines: &[&[u8]], body: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    for line in lines {
        message.extend_from_slice(line);
        message.extend_from_slice(b"\r\n");
    }
    message.extend_from_slice(b"\r\n");
    message.extend_from_slice(body);
    message
}

/// A session description; its length is [`SDP_LENGTH`].
pub(crate) const SDP: &[u8] = b"v=0\r\no=ada 7 7 IN IP4 192.0.2.15\r\ns=-\r\nc=IN IP4 192.0.2.15\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";

/// The Content-Length line for [`SDP`].
pub(crate) const SDP_LENGTH: &str = "Content-Length: 91";
