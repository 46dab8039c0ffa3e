//! WebSocket as a client (RFC 6455): the request that begins it, and frames.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;

/// The nonce of every connection, and the value that follows from it: those of RFC 6455 §1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Every frame has this mask. A server cannot tell it from a random one.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opcode {
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

/// A whole frame of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) opcode: Opcode,
    /// Where its payload is.
    pub(crate) payload: Range<usize>,
}

/// The request for a connection with the subprotocol `sip`.
pub(crate) fn upgrade(target: SocketAddr) -> String {
    format!(
        "GET / HTTP/1.1\r\nHost: {target}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: sip\r\n\r\n"
    )
}

/// Returns the length of the answer once it is whole.
///
/// # Errors
/// If the server refuses.
pub(crate) fn answer(bytes: &[u8]) -> io::Result<Option<usize>> {
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = String::from_utf8_lossy(&bytes[..end]);
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    let is_accepted = lines
        .filter_map(|line| line.split_once(':'))
        .any(|(name, value)| {
            name.eq_ignore_ascii_case("sec-websocket-accept") && value.trim() == ACCEPT
        });
    if status.starts_with("HTTP/1.1 101") && is_accepted {
        return Ok(Some(end + 4));
    }
    Err(io::Error::other(format!(
        "the server answers the request for a WebSocket with {status:?}"
    )))
}

/// Appends a frame.
pub(crate) fn write(opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    out.push(FIN | opcode as u8);
    match payload.len() {
        length @ 0..=125 => out.push(MASKED | length as u8),
        length @ 126..=0xffff => {
            out.push(MASKED | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(MASKED | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    let masked = payload.iter().zip(MASK.iter().cycle());
    out.extend(masked.map(|(byte, mask)| byte ^ mask));
}

/// Reads the frame at the start of `bytes`; `None` while it is not whole.
///
/// # Errors
/// If it is masked, one of several that make up a message, or none at all: no server of SIP does this.
pub(crate) fn read(bytes: &[u8]) -> io::Result<Option<Frame>> {
    let bad = |what: String| Err(io::Error::other(format!("a WebSocket frame {what}")));
    let [first, second, rest @ ..] = bytes else {
        return Ok(None);
    };
    let opcode = match first {
        0x81 => Opcode::Text,
        0x82 => Opcode::Binary,
        0x88 => Opcode::Close,
        0x89 => Opcode::Ping,
        0x8a => Opcode::Pong,
        other => return bad(format!("begins with {other:#x}")),
    };
    let (length, start) = match (second, rest) {
        (0..=125, _) => (usize::from(*second), 2),
        (126, [a, b, ..]) => (usize::from(u16::from_be_bytes([*a, *b])), 4),
        (126, _) => return Ok(None),
        (127, _) => return bad("is longer than 65,535 bytes".to_owned()),
        (128.., _) => return bad("of a server is masked".to_owned()),
    };
    let payload = start..start + length;
    Ok((payload.end <= bytes.len()).then_some(Frame { opcode, payload }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_masked_and_has_its_length() {
        for length in [0, 125, 126, 0xffff, 0x1_0000] {
            let payload = vec![b'x'; length];
            let mut out = Vec::new();
            write(Opcode::Text, &payload, &mut out);
            let head = match length {
                0..=125 => 2,
                126..=0xffff => 4,
                _ => 10,
            };
            assert_eq!(out.len(), head + 4 + length);
            assert_eq!(out[0], 0x81);
            assert_eq!(out[head..head + 4], MASK);
            assert!(
                out[head + 4..]
                    .iter()
                    .zip(MASK.iter().cycle())
                    .all(|(byte, mask)| byte ^ mask == b'x')
            );
        }
    }

    #[test]
    fn a_frame_of_a_server_is_read_when_it_is_whole() {
        let mut bytes = vec![0x81, 126, 0, 200];
        bytes.extend([b'y'; 200]);
        for end in 0..bytes.len() {
            assert_eq!(read(&bytes[..end]).unwrap(), None, "{end}");
        }
        let frame = read(&bytes).unwrap().unwrap();
        assert_eq!((frame.opcode, frame.payload), (Opcode::Text, 4..204));
        for bad in [[0x01, 0], [0x81, 0x80], [0x83, 0], [0x81, 127]] {
            read(&bad).unwrap_err();
        }
    }

    #[test]
    fn only_the_right_answer_begins_a_connection() {
        let right = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nsec-websocket-accept: {ACCEPT}\r\n\r\n"
        );
        assert_eq!(answer(&right.as_bytes()[..right.len() - 1]).unwrap(), None);
        assert_eq!(answer(right.as_bytes()).unwrap(), Some(right.len()));
        for wrong in [right.replace("101", "403"), right.replace(ACCEPT, KEY)] {
            answer(wrong.as_bytes()).unwrap_err();
        }
    }
}
