//! Frames (RFC 6455 §5).

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// More of the message that an earlier frame began.
    Continuation,
    /// A message in UTF-8.
    Text,
    /// A message of any bytes.
    Binary,
    /// The end of the connection.
    Close,
    /// A question whether the peer is there.
    Ping,
    /// The answer to it.
    Pong,
}

impl Opcode {
    /// The opcode with this number; `None` for the reserved ones.
    pub(crate) fn of(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    fn number(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }

    /// Whether the frame stands by itself and may come between the frames of a message (§5.5).
    pub(crate) fn is_control(self) -> bool {
        match self {
            Self::Close | Self::Ping | Self::Pong => true,
            Self::Continuation | Self::Text | Self::Binary => false,
        }
    }
}

/// Why a connection is closed (RFC 6455 §7.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// 1000: the peer asked for it.
    Normal,
    /// 1001: the host ends.
    GoingAway,
    /// 1002: a frame against the rules.
    ProtocolError,
    /// 1007: a text that is not UTF-8.
    InvalidText,
    /// 1009: a message above the limit.
    TooBig,
}

impl Close {
    /// The code.
    pub fn code(self) -> u16 {
        match self {
            Self::Normal => 1000,
            Self::GoingAway => 1001,
            Self::ProtocolError => 1002,
            Self::InvalidText => 1007,
            Self::TooBig => 1009,
        }
    }
}

/// The most bytes of a control frame (§5.5).
pub(crate) const MOST_CONTROL: usize = 125;

const FIN: u8 = 0x80;

/// Appends a whole frame. A server does not mask what it sends (§5.1).
pub fn write_frame(opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    out.push(FIN | opcode.number());
    match payload.len() {
        length @ 0..=125 => out.push(length as u8),
        length @ 126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

/// Appends a SIP message: a text if it is UTF-8, since many clients expect that, otherwise bytes (RFC 7118 §5).
pub fn write_message(message: &[u8], out: &mut Vec<u8>) {
    let opcode = match std::str::from_utf8(message) {
        Ok(_) => Opcode::Text,
        Err(_) => Opcode::Binary,
    };
    write_frame(opcode, message, out);
}

/// Appends the frame that closes the connection.
pub fn write_close(close: Close, out: &mut Vec<u8>) {
    write_frame(Opcode::Close, &close.code().to_be_bytes(), out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_takes_as_few_bytes_as_it_can() {
        for (length, head) in [
            (0, &[0x82, 0][..]),
            (125, &[0x82, 125]),
            (126, &[0x82, 126, 0, 126]),
            (0xffff, &[0x82, 126, 0xff, 0xff]),
            (0x1_0000, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let mut out = Vec::new();
            write_frame(Opcode::Binary, &vec![7; length], &mut out);
            assert_eq!(&out[..head.len()], head);
            assert_eq!(out.len(), head.len() + length);
        }
    }

    #[test]
    fn a_message_is_a_text_if_it_is_one() {
        let mut out = Vec::new();
        write_message("SIP/2.0 200 Gut für Müller".as_bytes(), &mut out);
        assert_eq!(out[0], 0x81);
        out.clear();
        write_message(b"SIP/2.0 200 \xff", &mut out);
        assert_eq!(out[0], 0x82);
        out.clear();
        write_close(Close::TooBig, &mut out);
        assert_eq!(out, [0x88, 2, 0x03, 0xf1]);
    }
}
