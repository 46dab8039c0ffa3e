//! What a connection has received: messages of SIP, one after the other (RFC 3261 §18.3) or in frames of WebSocket (RFC 7118 §4.2).

use std::io;
use std::ops::Range;

use memchr::{memchr, memmem};

use crate::websocket::{self, Opcode};

/// Where messages end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// After the number of bytes in Content-Length.
    Length,
    /// With the frame.
    Frames,
}

/// Something whole that was received. The range is that of its content, see [`Inbox::slice`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Message(Range<usize>),
    Ping(Range<usize>),
    Close,
}

/// The received bytes.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    bytes: Vec<u8>,
    /// Bytes that have been read.
    read: usize,
}

impl Inbox {
    /// Bytes that have not been read yet.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.bytes[self.read..]
    }

    /// Marks this many bytes as read.
    pub(crate) fn skip(&mut self, count: usize) {
        self.read += count;
    }

    /// Adds bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The bytes of a piece.
    pub(crate) fn slice(&self, range: Range<usize>) -> &[u8] {
        &self.bytes[range]
    }

    /// Forgets what has been read.
    pub(crate) fn compact(&mut self) {
        self.bytes.drain(..self.read);
        self.read = 0;
    }

    /// Returns the next piece; `None` while it is not whole.
    ///
    /// # Errors
    /// If the server violates the framing.
    pub(crate) fn next(&mut self, framing: Framing) -> io::Result<Option<Piece>> {
        match framing {
            Framing::Length => self.next_by_length(),
            Framing::Frames => self.next_frame(),
        }
    }

    fn next_by_length(&mut self) -> io::Result<Option<Piece>> {
        // Keep-alives (RFC 5626 §3.5.1).
        while let [b'\r' | b'\n', ..] = self.rest() {
            self.read += 1;
        }
        let Some(head) = memmem::find(self.rest(), b"\r\n\r\n") else {
            return Ok(None);
        };
        let head = head + 4;
        let body = content_length(&self.rest()[..head])
            .ok_or_else(|| io::Error::other("a message over a connection has no Content-Length"))?;
        if self.rest().len() < head + body {
            return Ok(None);
        }
        let start = self.read;
        self.read += head + body;
        Ok(Some(Piece::Message(start..self.read)))
    }

    fn next_frame(&mut self) -> io::Result<Option<Piece>> {
        while let Some(frame) = websocket::read(self.rest())? {
            let payload = self.read + frame.payload.start..self.read + frame.payload.end;
            self.read = payload.end;
            match frame.opcode {
                Opcode::Text | Opcode::Binary => return Ok(Some(Piece::Message(payload))),
                Opcode::Ping => return Ok(Some(Piece::Ping(payload))),
                Opcode::Close => return Ok(Some(Piece::Close)),
                Opcode::Pong => {}
            }
        }
        Ok(None)
    }
}

fn content_length(head: &[u8]) -> Option<usize> {
    let mut rest = head;
    while let Some(end) = memchr(b'\n', rest) {
        let (line, behind) = rest.split_at(end + 1);
        rest = behind;
        let Some(colon) = memchr(b':', line) else {
            continue;
        };
        let name = line[..colon].trim_ascii();
        if name.eq_ignore_ascii_case(b"content-length") || name.eq_ignore_ascii_case(b"l") {
            let value = std::str::from_utf8(line[colon + 1..].trim_ascii()).ok()?;
            return value.parse().ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_wherever_the_bytes_are_cut() {
        let first = "SIP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n";
        let second = "SIP/2.0 200 OK\r\nl : 4\r\n\r\nbody";
        let all = format!("{first}\r\n\r\n{second}");
        for cut in 0..all.len() {
            let mut inbox = Inbox::default();
            let mut found = Vec::new();
            for part in [&all[..cut], &all[cut..]] {
                inbox.push(part.as_bytes());
                while let Some(piece) = inbox.next(Framing::Length).unwrap() {
                    let Piece::Message(range) = piece else {
                        panic!("{piece:?}");
                    };
                    found.push(String::from_utf8(inbox.slice(range).to_vec()).unwrap());
                }
                inbox.compact();
            }
            assert_eq!(found, [first, second], "cut at {cut}");
        }
    }

    #[test]
    fn a_message_without_length_is_an_error() {
        let mut inbox = Inbox::default();
        inbox.push(b"SIP/2.0 200 OK\r\nVia: x\r\n\r\n");
        inbox.next(Framing::Length).unwrap_err();
    }

    #[test]
    fn frames_are_told_apart() {
        let mut inbox = Inbox::default();
        inbox.push(&[0x8a, 0, 0x81, 1, b'a', 0x89, 2, b'p', b'q', 0x88, 0, 0x81]);
        let mut next = || inbox.next(Framing::Frames).unwrap();
        assert_eq!(next(), Some(Piece::Message(4..5)));
        assert_eq!(next(), Some(Piece::Ping(7..9)));
        assert_eq!(next(), Some(Piece::Close));
        assert_eq!(next(), None);
    }
}
