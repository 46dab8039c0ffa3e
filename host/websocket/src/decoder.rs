//! Received bytes as messages.

use crate::frame::{Close, MOST_CONTROL, Opcode};

/// The bytes of a connection that have been received and not been decoded.
///
/// Payload is unmasked as it arrives, so that the memory of a connection is that of its longest message, at most the limit.
#[derive(Debug)]
pub struct Decoder {
    /// Most bytes of a message.
    most: usize,
    received: Vec<u8>,
    /// How many bytes of `received` are decoded.
    decoded: usize,
    frame: Option<Frame>,
    /// The message whose frames arrive, and what it carries.
    message: Vec<u8>,
    kind: Option<Opcode>,
    /// How many frames of it have no payload, and are not the last one.
    empty: usize,
    /// The payload of a control frame.
    control: Vec<u8>,
    /// Whether the last event borrowed `message`, or `control`.
    is_delivered: bool,
}

/// What was received.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'d> {
    /// Nothing whole: more bytes are needed.
    NeedMore,
    /// A whole message.
    Message(&'d [u8]),
    /// A ping: its payload is to be sent back in a pong (RFC 6455 §5.5.2).
    Ping(&'d [u8]),
    /// A pong.
    Pong,
    /// The peer closes the connection. Nothing after it is read.
    Close,
}

/// A frame whose payload arrives.
#[derive(Clone, Copy, Debug)]
struct Frame {
    opcode: Opcode,
    is_last: bool,
    mask: [u8; 4],
    /// Bytes of the payload so far, which count the turns of the mask.
    done: usize,
    /// Bytes of the payload to come.
    rest: usize,
}

/// Memory that a connection keeps between two messages.
const KEPT: usize = 4 << 10;

/// Most frames without payload in a message, beside the last one: any number of them would stay below the limit in bytes.
const MOST_EMPTY: usize = 64;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;

impl Decoder {
    /// With a limit of the size of a message, in bytes.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            received: Vec::new(),
            decoded: 0,
            frame: None,
            message: Vec::new(),
            kind: None,
            empty: 0,
            control: Vec::new(),
            is_delivered: false,
        }
    }

    /// Where received bytes are to be appended.
    pub fn space(&mut self) -> &mut Vec<u8> {
        self.received.drain(..self.decoded);
        self.decoded = 0;
        if self.received.is_empty() {
            self.received.shrink_to(KEPT);
        }
        &mut self.received
    }

    /// Whether a part of a message waits for more.
    pub fn is_within_message(&self) -> bool {
        self.frame.is_some() || self.kind.is_some() || self.decoded < self.received.len()
    }

    /// The next event.
    ///
    /// # Errors
    /// Why the connection is to be closed: a frame that is not masked, or against the rules in another way, a message above the limit, or a text
    /// that is not UTF-8. Nothing after it can be decoded.
    pub fn next_event(&mut self) -> Result<Event<'_>, Close> {
        if std::mem::take(&mut self.is_delivered) {
            self.message.clear();
            self.message.shrink_to(KEPT);
        }
        loop {
            let frame = match self.frame {
                Some(frame) => frame,
                None => match self.head()? {
                    Some(frame) => frame,
                    None => return Ok(Event::NeedMore),
                },
            };
            let Some(frame) = self.payload(frame) else {
                return Ok(Event::NeedMore);
            };
            match frame.opcode {
                Opcode::Ping => return Ok(Event::Ping(&self.control)),
                Opcode::Pong => return Ok(Event::Pong),
                Opcode::Close => return self.close(),
                Opcode::Continuation | Opcode::Text | Opcode::Binary if !frame.is_last => {}
                Opcode::Continuation | Opcode::Text | Opcode::Binary => return self.whole(),
            }
        }
    }

    /// The head of the next frame, if it is there as a whole.
    fn head(&mut self) -> Result<Option<Frame>, Close> {
        let bytes = self.received.get(self.decoded..).unwrap_or_default();
        let Some((&[first, second], rest)) = bytes.split_first_chunk::<2>() else {
            return Ok(None);
        };
        let opcode = Opcode::of(first & 0x0f).ok_or(Close::ProtocolError)?;
        let is_last = first & FIN != 0;
        // A client masks all of its frames (§5.1); no extension gives the reserved bits a meaning (§5.2).
        if first & RESERVED != 0 || second & MASKED == 0 {
            return Err(Close::ProtocolError);
        }
        let short = usize::from(second & !MASKED);
        if opcode.is_control() && (!is_last || short > MOST_CONTROL) {
            return Err(Close::ProtocolError);
        }
        let (length, rest) = match short {
            126 => match rest.split_first_chunk::<2>() {
                Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), rest),
                None => return Ok(None),
            },
            127 => match rest.split_first_chunk::<8>() {
                Some((length, rest)) => (u64::from_be_bytes(*length), rest),
                None => return Ok(None),
            },
            short => (short as u64, rest),
        };
        let is_shortest = match short {
            126 => length > 125,
            127 => length > 0xffff && length >> 63 == 0,
            _ => true,
        };
        if !is_shortest {
            return Err(Close::ProtocolError);
        }
        let is_expected = match opcode {
            Opcode::Continuation => self.kind.is_some(),
            Opcode::Text | Opcode::Binary => self.kind.is_none(),
            Opcode::Close | Opcode::Ping | Opcode::Pong => true,
        };
        if !is_expected {
            return Err(Close::ProtocolError);
        }
        let length = usize::try_from(length).map_err(|_| Close::TooBig)?;
        if !opcode.is_control() && length > self.most - self.message.len() {
            return Err(Close::TooBig);
        }
        let Some((mask, rest)) = rest.split_first_chunk::<4>() else {
            return Ok(None);
        };
        if !opcode.is_control() && !is_last && length == 0 {
            self.empty += 1;
            if self.empty > MOST_EMPTY {
                return Err(Close::TooBig);
            }
        }
        self.decoded += bytes.len() - rest.len();
        let frame = Frame {
            opcode,
            is_last,
            mask: *mask,
            done: 0,
            rest: length,
        };
        match opcode {
            Opcode::Text | Opcode::Binary => self.kind = Some(opcode),
            Opcode::Close | Opcode::Ping | Opcode::Pong => self.control.clear(),
            Opcode::Continuation => {}
        }
        Ok(Some(frame))
    }

    /// Unmasks what has arrived of the payload. Returns the frame if that is all of it.
    fn payload(&mut self, mut frame: Frame) -> Option<Frame> {
        let bytes = self.received.get(self.decoded..).unwrap_or_default();
        let bytes = bytes.get(..frame.rest).unwrap_or(bytes);
        let into = match frame.opcode.is_control() {
            true => &mut self.control,
            false => &mut self.message,
        };
        let mask = frame.mask.iter().cycle().skip(frame.done % 4);
        into.extend(bytes.iter().zip(mask).map(|(byte, mask)| byte ^ mask));
        self.decoded += bytes.len();
        frame.done += bytes.len();
        frame.rest -= bytes.len();
        let is_whole = frame.rest == 0;
        self.frame = (!is_whole).then_some(frame);
        is_whole.then_some(frame)
    }

    fn whole(&mut self) -> Result<Event<'_>, Close> {
        self.is_delivered = true;
        self.empty = 0;
        let is_text = self.kind.take() == Some(Opcode::Text);
        if is_text && std::str::from_utf8(&self.message).is_err() {
            return Err(Close::InvalidText);
        }
        Ok(Event::Message(&self.message))
    }

    /// A close frame has no payload, or a code that may be sent (§7.4), and a reason in UTF-8.
    fn close(&self) -> Result<Event<'_>, Close> {
        let Some((code, reason)) = self.control.split_first_chunk::<2>() else {
            return match self.control.is_empty() {
                true => Ok(Event::Close),
                false => Err(Close::ProtocolError),
            };
        };
        let may_be_sent = matches!(
            u16::from_be_bytes(*code),
            1000..=1003 | 1007..=1014 | 3000..=4999
        );
        match (may_be_sent, std::str::from_utf8(reason)) {
            (false, _) => Err(Close::ProtocolError),
            (true, Err(_)) => Err(Close::InvalidText),
            (true, Ok(_)) => Ok(Event::Close),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::masked;

    const MOST: usize = 1_000;

    fn first_error(bytes: &[u8]) -> Option<Close> {
        let mut decoder = Decoder::new(MOST);
        decoder.space().extend_from_slice(bytes);
        loop {
            match decoder.next_event() {
                Ok(Event::NeedMore) => return None,
                Ok(_) => {}
                Err(close) => return Some(close),
            }
        }
    }

    #[test]
    fn frames_are_joined_and_control_frames_may_come_between() {
        let bytes = [
            masked(false, 1, b"OPTIONS sip:a "),
            masked(true, 9, b"there?"),
            masked(false, 0, b""),
            masked(true, 0, b"SIP/2.0"),
            masked(true, 10, b""),
            masked(true, 2, b"\xff"),
            masked(true, 8, b"\x03\xe8bye"),
        ]
        .concat();
        for chunk in [1, 2, 3, 7, bytes.len()] {
            let mut decoder = Decoder::new(MOST);
            let mut seen = Vec::new();
            for part in bytes.chunks(chunk) {
                decoder.space().extend_from_slice(part);
                loop {
                    match decoder.next_event().unwrap() {
                        Event::NeedMore => break,
                        Event::Message(message) => seen.push(message.to_vec()),
                        Event::Ping(payload) => seen.push([b"ping ", payload].concat()),
                        Event::Pong => seen.push(b"pong".to_vec()),
                        Event::Close => seen.push(b"close".to_vec()),
                    }
                }
            }
            let expected: [&[u8]; 5] = [
                b"ping there?",
                b"OPTIONS sip:a SIP/2.0",
                b"pong",
                b"\xff",
                b"close",
            ];
            assert_eq!(seen, expected, "in chunks of {chunk}");
            assert!(!decoder.is_within_message());
        }
    }

    #[test]
    fn a_frame_against_the_rules_closes_the_connection() {
        let unmasked = [0x81, 2, b'h', b'i'];
        let mut compressed = masked(true, 1, b"hi");
        compressed[0] |= 0x40;
        let long = |head: &[u8]| [head, &[0; 4]].concat();
        for bad in [
            unmasked.to_vec(),
            compressed,
            masked(true, 3, b""),
            masked(true, 11, b""),
            // A continuation of nothing, a message within another, a ping in parts, one that is too long.
            masked(true, 0, b"x"),
            [masked(false, 1, b"a"), masked(true, 1, b"b")].concat(),
            masked(false, 9, b""),
            masked(true, 9, &[0; 126]),
            // Lengths that are not written as shortly as they can be, and a negative one.
            long(&[0x82, 0xfe, 0, 5]),
            long(&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 1, 0]),
            long(&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 1, 0]),
            // Half a code, and codes that nobody may send.
            masked(true, 8, b"\x03"),
            masked(true, 8, b"\x03\xed"),
            masked(true, 8, b"\x00\x00"),
        ] {
            assert_eq!(first_error(&bad), Some(Close::ProtocolError), "{bad:?}");
        }
    }

    #[test]
    fn a_text_that_is_not_utf8_closes_the_connection() {
        assert_eq!(
            first_error(&masked(true, 1, b"\xff")),
            Some(Close::InvalidText)
        );
        assert_eq!(first_error(&masked(true, 2, b"\xff")), None);
        // A character may be spread over two frames.
        let split = [masked(false, 1, b"\xc3"), masked(true, 0, b"\xbc")].concat();
        assert_eq!(first_error(&split), None);
        assert_eq!(
            first_error(&masked(true, 8, b"\x03\xe8\xff")),
            Some(Close::InvalidText)
        );
    }

    #[test]
    fn a_message_above_the_limit_closes_the_connection_before_it_arrives() {
        assert_eq!(first_error(&masked(true, 1, &[b'a'; MOST])), None);
        let head = masked(true, 1, &[b'a'; MOST + 1]);
        assert_eq!(first_error(&head[..4]), Some(Close::TooBig));
        let parts = [masked(false, 1, &[b'a'; MOST]), masked(true, 0, b"a")].concat();
        assert_eq!(first_error(&parts), Some(Close::TooBig));
        // Frames without end and without payload.
        let empty = masked(false, 0, b"");
        let endless = [masked(false, 1, b"a"), empty.repeat(MOST_EMPTY)].concat();
        assert_eq!(first_error(&endless), None);
        let last = masked(true, 0, b"");
        let again = [&endless[..], &last, &endless, &last].concat();
        assert_eq!(first_error(&again), None);
        assert_eq!(first_error(&[endless, empty].concat()), Some(Close::TooBig));
        let huge = [0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(first_error(&huge), Some(Close::TooBig));
    }

    #[test]
    fn a_long_message_does_not_keep_its_memory() {
        let mut decoder = Decoder::new(1 << 20);
        let long = masked(true, 2, &[b'a'; 1 << 19]);
        decoder.space().extend_from_slice(&long);
        assert!(matches!(decoder.next_event(), Ok(Event::Message(_))));
        assert_eq!(decoder.next_event(), Ok(Event::NeedMore));
        decoder.space();
        assert!(decoder.message.capacity() <= KEPT);
        assert!(decoder.received.capacity() <= KEPT);
    }
}
