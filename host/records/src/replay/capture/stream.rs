//! One direction of a TCP connection in a capture, put together from its segments as far as they were captured.
//!
//! A capture of a long-lived connection begins in the middle of it, and packets can be missing. Where the next message begins can't be told
//! from the bytes behind a gap, but a packet that begins with a start line begins a message.

use std::collections::BTreeMap;
use std::time::SystemTime;

use portcullis_sip::{Frame, Framer, Limits};

/// Bytes, and segments, that may wait for those before them. When more do, what is missing was not captured.
const MOST_AHEAD: usize = 1 << 20;
const MOST_SEGMENTS: usize = 256;

/// What of a connection could not be followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Messages that were found.
    pub messages: u64,
    /// Whether the capture begins within a message.
    pub begins_inside: bool,
    /// Places where bytes are missing.
    pub gaps: u64,
    /// Bytes that are missing there.
    pub missing_bytes: u64,
    /// Places where what was captured is no SIP.
    pub unreadable: u64,
    /// Captured bytes that belong to no message that could be followed.
    pub skipped_bytes: u64,
    /// The packet where the first of these happened.
    pub first_packet: u64,
}

impl Lost {
    /// Whether everything was followed.
    pub fn is_nothing(&self) -> bool {
        !self.begins_inside && self.gaps == 0 && self.unreadable == 0
    }
}

/// A packet: its number from 1 and its time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet {
    pub(super) number: u64,
    pub(super) at: SystemTime,
}

/// A message, and the packet that it was complete with.
pub(super) type Found = (Packet, Vec<u8>);

/// One direction of a TCP connection.
pub(super) struct Stream {
    /// The place of the next byte, counted beyond the 32 bits of TCP; none before the first segment.
    next: Option<u64>,
    /// What came before its turn, by its place.
    ahead: BTreeMap<u64, (Packet, Vec<u8>)>,
    ahead_bytes: usize,
    framer: Framer,
    /// Whether it is known where messages begin.
    is_synchronous: bool,
    /// The latest packet of those that were taken: what waited for it is complete with it.
    latest: Option<Packet>,
    /// What could not be followed so far.
    pub(super) lost: Lost,
}

/// Where counting begins: far enough from 0 for bytes that come late.
const ORIGIN: u64 = 1 << 40;

impl Stream {
    /// A connection that the capture shows from here on. `begun` is the number of its first byte where its beginning was seen.
    pub(super) fn new(begun: Option<u32>) -> Self {
        Self {
            next: begun.map(|number| ORIGIN + u64::from(number)),
            ahead: BTreeMap::new(),
            ahead_bytes: 0,
            framer: Framer::new(&Limits::default()),
            is_synchronous: begun.is_some(),
            latest: None,
            lost: Lost::default(),
        }
    }

    /// Takes a segment; what came twice is taken once, and what came early waits.
    pub(super) fn push(
        &mut self,
        number: u32,
        bytes: &[u8],
        packet: Packet,
        found: &mut Vec<Found>,
    ) {
        if bytes.is_empty() {
            return;
        }
        let first = || ORIGIN + u64::from(number);
        let next = *self.next.get_or_insert_with(first);
        // How far the segment is from its turn; half of the numbers are behind.
        let distance = i64::from(number.wrapping_sub(next as u32) as i32);
        let place = next.saturating_add_signed(distance);
        if place > next {
            self.wait(place, bytes, packet);
            if self.ahead_bytes > MOST_AHEAD || self.ahead.len() > MOST_SEGMENTS {
                self.jump(found);
            }
            return;
        }
        self.take(place, bytes, packet, found);
        self.take_due(found);
    }

    /// No more segments come: what waits for missing ones is taken without them.
    pub(super) fn finish(&mut self, found: &mut Vec<Found>) {
        while !self.ahead.is_empty() {
            self.jump(found);
        }
    }

    /// A longer segment at the same place has everything that the shorter one has.
    fn wait(&mut self, place: u64, bytes: &[u8], packet: Packet) {
        let waiting = self.ahead.get(&place).map_or(0, |(_, there)| there.len());
        if bytes.len() > waiting {
            self.ahead_bytes += bytes.len() - waiting;
            self.ahead.insert(place, (packet, bytes.to_vec()));
        }
    }

    /// Takes those that wait and whose turn has come.
    fn take_due(&mut self, found: &mut Vec<Found>) {
        while let Some(first) = self.ahead.first_entry() {
            if self.next.is_some_and(|next| *first.key() > next) {
                return;
            }
            let (place, (packet, bytes)) = first.remove_entry();
            self.ahead_bytes -= bytes.len();
            self.take(place, &bytes, packet, found);
        }
    }

    /// Goes on behind a gap.
    fn jump(&mut self, found: &mut Vec<Found>) {
        let Some((&place, (packet, _))) = self.ahead.first_key_value() else {
            return;
        };
        let packet = *packet;
        let missing = self.next.map_or(0, |next| place.saturating_sub(next));
        self.lost.gaps += 1;
        self.lost.missing_bytes += missing;
        self.lose(packet);
        self.next = Some(place);
        self.take_due(found);
    }

    /// Takes bytes whose turn it is; those in front that are known already are left out.
    fn take(&mut self, place: u64, bytes: &[u8], packet: Packet, found: &mut Vec<Found>) {
        let next = self.next.unwrap_or(place);
        let known = usize::try_from(next.saturating_sub(place)).unwrap_or(usize::MAX);
        let Some(fresh) = bytes.get(known..).filter(|fresh| !fresh.is_empty()) else {
            return;
        };
        self.next = Some(next + fresh.len() as u64);
        let packet = match self.latest {
            Some(latest) if latest.number > packet.number => latest,
            _ => packet,
        };
        self.latest = Some(packet);
        if !self.is_synchronous {
            if !begins_message(fresh) {
                let is_first = self.lost == Lost::default();
                self.lost.begins_inside |= is_first;
                self.lost.skipped_bytes += fresh.len() as u64;
                self.note(packet);
                return;
            }
            self.is_synchronous = true;
        }
        self.framer.push(fresh);
        self.frame(packet, found);
    }

    fn frame(&mut self, packet: Packet, found: &mut Vec<Found>) {
        loop {
            match self.framer.next() {
                Ok(Frame::Message(range)) => {
                    self.lost.messages += 1;
                    found.push((packet, self.framer.bytes(range).to_vec()));
                }
                Ok(Frame::Oversized { .. }) => self.lost.unreadable += 1,
                Ok(Frame::Ping) => {}
                Ok(Frame::NeedMore) => return,
                Err(_) => {
                    self.lost.unreadable += 1;
                    return self.lose(packet);
                }
            }
        }
    }

    /// It is not known any more where messages begin.
    fn lose(&mut self, packet: Packet) {
        self.lost.skipped_bytes += self.framer.pending() as u64;
        self.note(packet);
        self.framer = Framer::new(&Limits::default());
        self.is_synchronous = false;
    }

    fn note(&mut self, packet: Packet) {
        if self.lost.first_packet == 0 {
            self.lost.first_packet = packet.number;
        }
    }
}

/// Whether bytes begin with a start line of SIP: `METHOD … SIP/2.0` or `SIP/2.0 …`. The line must be whole.
fn begins_message(bytes: &[u8]) -> bool {
    let begun = bytes.iter().position(|byte| !b"\r\n".contains(byte));
    let bytes = bytes
        .get(begun.unwrap_or(bytes.len())..)
        .unwrap_or_default();
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        return false;
    };
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    if let Some(rest) = line.strip_prefix(b"SIP/2.0 ") {
        return rest.len() >= 3 && rest[..3].iter().all(u8::is_ascii_digit);
    }
    let Some(front) = line.strip_suffix(b" SIP/2.0") else {
        return false;
    };
    let method = front.split(|byte| *byte == b' ').next().unwrap_or_default();
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(byte);
    !method.is_empty() && method.len() < front.len() && method.iter().all(is_token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_lines_are_known() {
        for yes in [
            "INVITE sip:a@b SIP/2.0\r\nVia: x",
            "\r\n\r\nOPTIONS sip:b SIP/2.0\n",
            "SIP/2.0 200 OK\r\n",
            "SIP/2.0 180 \r\n",
        ] {
            assert!(begins_message(yes.as_bytes()), "{yes}");
        }
        for no in [
            "",
            "\r\n",
            "INVITE sip:a@b SIP/2.0",
            "a=rtpmap:0 PCMU/8000\r\n",
            "SIP/2.0 ab\r\n",
            " SIP/2.0\r\n",
            "GET / HTTP/1.1\r\n",
            "Via: SIP/2.0/TCP a SIP/2.0\r\n",
        ] {
            assert!(!begins_message(no.as_bytes()), "{no}");
        }
    }
}
