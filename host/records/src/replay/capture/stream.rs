//! Reassembles one direction of a TCP connection from the captured segments.
//!
//! A capture of a long-lived connection may begin in the middle of a message, and packets may be missing. The bytes after a gap do not show
//! where the next message begins; parsing resumes at a packet that begins with a start line.

use std::collections::BTreeMap;
use std::time::SystemTime;

use portcullis_sip::{Frame, Framer, Limits};

/// Most bytes, and segments, that wait for earlier ones. Above that, the missing segments are considered not captured.
const MOST_AHEAD: usize = 1 << 20;
const MOST_SEGMENTS: usize = 256;

/// What could not be parsed of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Number of messages that were found.
    pub messages: u64,
    /// Whether the capture begins within a message.
    pub begins_inside: bool,
    /// Number of gaps.
    pub gaps: u64,
    /// Number of bytes missing in gaps.
    pub missing_bytes: u64,
    /// Number of places where captured bytes are not SIP.
    pub unreadable: u64,
    /// Number of captured bytes that were skipped.
    pub skipped_bytes: u64,
    /// The packet of the first loss.
    pub first_packet: u64,
}

impl Lost {
    /// Whether nothing was lost.
    pub fn is_nothing(&self) -> bool {
        !self.begins_inside && self.gaps == 0 && self.unreadable == 0
    }
}

/// A packet: its number from 1, and its time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet {
    pub(super) number: u64,
    pub(super) at: SystemTime,
}

/// A message, and the packet that completes it.
pub(super) type Found = (Packet, Vec<u8>);

/// One direction of a TCP connection.
pub(super) struct Stream {
    /// Sequence number of the next byte, extended beyond 32 bits; `None` before the first segment.
    next: Option<u64>,
    /// Segments that wait for earlier ones, by sequence number.
    ahead: BTreeMap<u64, (Packet, Vec<u8>)>,
    ahead_bytes: usize,
    framer: Framer,
    /// Whether the parser is at the beginning of a message or within one, and not after a gap.
    is_synchronous: bool,
    /// The latest packet used. It completes messages whose bytes waited for it.
    latest: Option<Packet>,
    /// What could not be parsed so far.
    pub(super) lost: Lost,
}

/// The first sequence number, far enough from 0 for bytes that arrive late.
const ORIGIN: u64 = 1 << 40;

impl Stream {
    /// Creates a stream. `begun` is the sequence number of the first byte, if the capture contains the beginning of the connection.
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

    /// Adds a segment. Duplicates are ignored, and early segments wait.
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
        // Distance of the segment from the next byte; half of the sequence numbers are in the past.
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

    /// Ends the stream: segments that wait for missing ones are used without them.
    pub(super) fn finish(&mut self, found: &mut Vec<Found>) {
        while !self.ahead.is_empty() {
            self.jump(found);
        }
    }

    /// Of two segments at the same place, the longer one is kept.
    fn wait(&mut self, place: u64, bytes: &[u8], packet: Packet) {
        let waiting = self.ahead.get(&place).map_or(0, |(_, there)| there.len());
        if bytes.len() > waiting {
            self.ahead_bytes += bytes.len() - waiting;
            self.ahead.insert(place, (packet, bytes.to_vec()));
        }
    }

    /// Uses the waiting segments that are now due.
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

    /// Skips a gap.
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

    /// Uses bytes that are due, without those at the front that have been used already.
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

    /// Marks the stream as out of synchronisation.
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

/// Whether the bytes begin with a complete start line of SIP: `METHOD … SIP/2.0` or `SIP/2.0 …`.
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
    fn start_lines_are_recognised() {
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
