//! Cuts a byte stream into messages by Content-Length (RFC 3261 §18.3).

use std::ops::Range;

use memchr::memchr;
use thiserror::Error;

use crate::cseq::content_length;
use crate::scan::lines::raw_header;
use crate::scan::start_line;
use crate::scan::{Fault, HeaderName, Limits, LineEnd, ScanError};
use crate::token;

/// The receiving side of one stream connection.
///
/// Bytes go in by [`Framer::push`] or [`Framer::space`], frames come out of [`Framer::next`] until
/// it asks for more. Each byte is looked at a fixed number of times, however the peer cuts them.
///
/// A message may end its lines with bare LF, as for [`scan`](crate::scan) itself, but not mix both
/// ends: where the headers stop would be a matter of opinion, and with it where the next message
/// starts.
#[derive(Debug)]
pub struct Framer {
    limits: Limits,
    buffer: Vec<u8>,
    /// Where the first byte that was not delivered stands in `buffer`.
    start: usize,
    state: State,
    failed: Option<FrameError>,
}

impl Framer {
    /// A framer for a fresh connection.
    pub fn new(limits: &Limits) -> Self {
        Self {
            limits: limits.effective(),
            buffer: Vec::new(),
            start: 0,
            state: State::Between,
            failed: None,
        }
    }

    /// Adds what was received. Ranges from earlier frames lose their meaning.
    pub fn push(&mut self, bytes: &[u8]) {
        self.space().extend_from_slice(bytes);
    }

    /// The buffer, to append what is received without a copy between; nothing else may be done to
    /// it. Ranges from earlier frames lose their meaning.
    pub fn space(&mut self) -> &mut Vec<u8> {
        if self.start >= self.buffer.len() {
            self.buffer.clear();
            self.buffer.shrink_to(IDLE_CAPACITY);
            self.start = 0;
        } else if self.start > self.buffer.len() / 2 {
            // What moves is less than what was delivered since the last move.
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        &mut self.buffer
    }

    /// The next message or keep-alive.
    ///
    /// # Errors
    /// The stream cannot be followed any more: answer if what is readable allows it, and close.
    /// Every later call gives the same error.
    #[expect(
        clippy::should_implement_trait,
        reason = "more may come behind NeedMore"
    )]
    pub fn next(&mut self) -> Result<Frame, FrameError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        loop {
            let step = match self.state {
                State::Between => self.between(),
                State::Headers(lines) => self.headers(lines),
                State::Body { length } => self.body(length),
            };
            let (state, frame) = step.inspect_err(|error| self.failed = Some(error.clone()))?;
            self.state = state;
            if let Some(frame) = frame {
                return Ok(frame);
            }
        }
    }

    /// The bytes of a frame, or of the readable part of an error.
    pub fn bytes(&self, range: Range<usize>) -> &[u8] {
        self.buffer.get(range).unwrap_or_default()
    }

    /// How many bytes wait for the rest of their message. When this is not 0 as the peer closes, a
    /// message was cut off.
    pub fn pending(&self) -> usize {
        self.rest().len()
    }

    /// Passes over line ends before a message and finds keep-alives.
    fn between(&mut self) -> Step {
        let (skip, frame) = match self.rest() {
            [b'\r', b'\n', b'\r', b'\n', ..] => (4, Some(Frame::Ping)),
            [] | [b'\r'] | [b'\r', b'\n'] | [b'\r', b'\n', b'\r'] => (0, Some(Frame::NeedMore)),
            [b'\r', b'\n', ..] => (2, None),
            [b'\n', ..] => (1, None),
            _ => return Ok((State::Headers(Lines::default()), None)),
        };
        self.start += skip;
        Ok((State::Between, frame))
    }

    /// Looks for the empty line, from where the last look ended.
    fn headers(&self, mut lines: Lines) -> Step {
        let rest = self.rest();
        let within = rest.get(..self.limits.message_bytes).unwrap_or(rest);
        while let Some(length) = memchr(b'\n', within.get(lines.searched..).unwrap_or_default()) {
            let line_feed = lines.searched + length;
            let line = within.get(lines.start..line_feed).unwrap_or_default();
            let is_empty = lines
                .take(line, &self.limits)
                .map_err(|fault| self.line_error(fault, lines.start, line_feed + 1))?;
            if is_empty {
                return self.headers_end(within.get(..=line_feed).unwrap_or_default(), lines);
            }
        }

        lines.searched = within.len();
        // The line end may be half there.
        if lines.kind.is_none() && within.len() > self.limits.start_line_bytes.saturating_add(1) {
            return Err(self.error(Fault::StartLineTooLong, 0, 0));
        }
        if within.len() == self.limits.message_bytes {
            return Err(self.error(Fault::MessageTooLong, within.len(), within.len()));
        }
        Ok((State::Headers(lines), Some(Frame::NeedMore)))
    }

    /// Reads Content-Length from the complete headers.
    fn headers_end(&self, head: &[u8], lines: Lines) -> Step {
        let kind = lines.kind.unwrap_or(LineEnd::CrLf);
        let body = declared_length(head, lines.first_end, kind)
            .map_err(|(fault, at)| self.error(fault, at, head.len()))?;
        let length = head.len().saturating_add(body);
        if length > self.limits.message_bytes {
            return Err(self.error(Fault::MessageTooLong, head.len(), head.len()));
        }
        Ok((State::Body { length }, None))
    }

    fn body(&mut self, length: usize) -> Step {
        if self.pending() < length {
            return Ok((State::Body { length }, Some(Frame::NeedMore)));
        }
        let message = self.start..self.start + length;
        self.start = message.end;
        Ok((State::Between, Some(Frame::Message(message))))
    }

    fn rest(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    fn line_error(&self, fault: Fault, line: usize, next: usize) -> FrameError {
        let nothing = matches!(fault, Fault::NotSip | Fault::StartLineTooLong);
        self.error(fault, line, if nothing { 0 } else { next })
    }

    fn error(&self, fault: Fault, offset: usize, readable: usize) -> FrameError {
        FrameError {
            error: ScanError { fault, offset },
            readable: self.start..self.start + readable,
        }
    }
}

/// What a stream holds next. Ranges are for [`Framer::bytes`], until more is received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A whole message, to be [scanned](crate::scan) as [`Framing::Stream`](crate::Framing).
    Message(Range<usize>),
    /// CRLF CRLF between messages: answer with [`PONG`] (RFC 5626 §4.4.1).
    Ping,
    /// Nothing whole is left.
    NeedMore,
}

/// The answer to [`Frame::Ping`].
pub const PONG: &[u8] = b"\r\n";

/// The end of a stream's use: where the next message starts cannot be told.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the stream cannot be followed: {error}")]
pub struct FrameError {
    /// What is wrong; offsets count from the start of `readable`.
    #[source]
    pub error: ScanError,
    /// Whole lines of the message from its start, for [`Framer::bytes`]. Scan them for what a reply
    /// needs, and give the reply this error's fault in place of the scan's. Empty when nothing of
    /// it is SIP.
    pub readable: Range<usize>,
}

type Step = Result<(State, Option<Frame>), FrameError>;

#[derive(Clone, Copy, Debug)]
enum State {
    /// At the start of a message, or of line ends before it.
    Between,
    Headers(Lines),
    /// The headers are whole; the message is so long.
    Body {
        length: usize,
    },
}

/// How far the lines of the headers are known. Offsets count from the start of the message.
#[derive(Clone, Copy, Debug, Default)]
struct Lines {
    /// How the first line ends, once it is there.
    kind: Option<LineEnd>,
    /// Behind the first line.
    first_end: usize,
    /// The start of the line that is not whole yet.
    start: usize,
    /// Up to here there is no line feed that was not seen.
    searched: usize,
}

impl Lines {
    /// Takes a line without its line feed; tells whether it is the empty one behind the headers.
    fn take(&mut self, line: &[u8], limits: &Limits) -> Result<bool, Fault> {
        let (content, kind) = match line.strip_suffix(b"\r") {
            Some(content) => (content, LineEnd::CrLf),
            None => (line, LineEnd::Lf),
        };
        let next = self.start + line.len() + 1;
        match self.kind {
            None => {
                self.first_end = next;
                self.first(content, kind, limits)?;
            }
            Some(first) if first != kind => return Err(Fault::LineEnd),
            Some(_) => {}
        }
        self.start = next;
        self.searched = next;
        Ok(content.is_empty())
    }

    /// Something else than SIP is told at its first line, before it fills the buffer.
    fn first(&mut self, content: &[u8], kind: LineEnd, limits: &Limits) -> Result<(), Fault> {
        self.kind = Some(kind);
        if content.len() > limits.start_line_bytes {
            return Err(Fault::StartLineTooLong);
        }
        if start_line::is_sip(content) {
            return Ok(());
        }
        Err(Fault::NotSip)
    }
}

/// Content-Length of headers that begin at `from`, or what is wrong with it and where.
fn declared_length(head: &[u8], from: usize, kind: LineEnd) -> Result<usize, (Fault, usize)> {
    let mut declared = None;
    let mut at = from;
    while let Some(header) = raw_header(head, at, kind) {
        let name = header.name_end.and_then(|end| head.get(at..end));
        if name.map(HeaderName::of) == Some(HeaderName::ContentLength) {
            let value = head.get(header.value..header.end.end).unwrap_or_default();
            let length = content_length(token::trim(value).0).ok_or((Fault::ContentLength, at))?;
            if declared.replace(length).is_some() {
                return Err((Fault::Duplicate(HeaderName::ContentLength), at));
            }
        }
        at = header.end.next;
    }
    let missing = (Fault::Missing(HeaderName::ContentLength), head.len());
    declared.map(|length| length as usize).ok_or(missing)
}

/// What an idle connection may keep of its buffer.
const IDLE_CAPACITY: usize = 16_384;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::invariants;

    const OPTIONS: &[u8] = b"OPTIONS sip:a SIP/2.0\r\nVia: SIP/2.0/TCP b\r\nl: 4\r\n\r\nbody";

    fn framer(bytes: &[u8]) -> Framer {
        let mut framer = Framer::new(&Limits::default());
        framer.push(bytes);
        framer
    }

    /// The messages of a stream, which must end in want of more.
    fn messages(bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut framer = framer(bytes);
        let mut messages = Vec::new();
        loop {
            match framer.next().unwrap() {
                Frame::Message(range) => messages.push(framer.bytes(range).to_vec()),
                Frame::Ping => {}
                Frame::NeedMore => return messages,
            }
        }
    }

    fn error(bytes: &[u8]) -> (Fault, Vec<u8>) {
        let mut framer = framer(bytes);
        let error = framer.next().unwrap_err();
        assert_eq!(framer.next(), Err(error.clone()), "an error stays");
        (error.error.fault, framer.bytes(error.readable).to_vec())
    }

    #[test]
    fn messages_are_parted_by_content_length() {
        let stream = [OPTIONS, b"\r\n", OPTIONS, OPTIONS, b"\n\n", &OPTIONS[..20]].concat();
        assert_eq!(messages(&stream), [OPTIONS, OPTIONS, OPTIONS]);
    }

    #[test]
    fn content_length_may_be_folded_and_full() {
        let message = b"OPTIONS sip:a SIP/2.0\r\nCONTENT-Length \t:\r\n 0002\r\n\r\nok";
        assert_eq!(messages(message), [message]);
    }

    #[test]
    fn bare_line_feeds_frame_as_well_when_they_are_alone() {
        let message = b"OPTIONS sip:a SIP/2.0\nl: 2\n\n\r\n";
        assert_eq!(messages(message), [message]);
    }

    #[test]
    fn a_double_line_end_is_a_ping_and_a_single_one_nothing() {
        let mut framer = framer(b"\r\n\r\n\r\n");
        assert_eq!(framer.next(), Ok(Frame::Ping));
        assert_eq!(framer.next(), Ok(Frame::NeedMore));
        assert_eq!(framer.pending(), 2);
        framer.push(b"\r\n");
        assert_eq!(framer.next(), Ok(Frame::Ping));
        framer.push(b"\r\n");
        assert_eq!(framer.next(), Ok(Frame::NeedMore));
        framer.push(OPTIONS);
        assert!(matches!(framer.next(), Ok(Frame::Message(_))));
        assert_eq!(framer.next(), Ok(Frame::NeedMore));
        assert_eq!(framer.pending(), 0);
    }

    #[test]
    fn a_stream_without_usable_content_length_ends_with_its_headers_readable() {
        let head =
            |length: &str| format!("OPTIONS sip:a SIP/2.0\r\nv: b\r\n{length}\r\n").into_bytes();
        for (length, fault) in [
            ("", Fault::Missing(HeaderName::ContentLength)),
            ("l: -1\r\n", Fault::ContentLength),
            (
                "l: 1\r\nContent-Length: 1\r\n",
                Fault::Duplicate(HeaderName::ContentLength),
            ),
            ("l: 65535\r\n", Fault::MessageTooLong),
            ("l: 2147483647\r\n", Fault::MessageTooLong),
        ] {
            let bytes = head(length);
            let stream = [&bytes[..], b"more"].concat();
            assert_eq!(error(&stream), (fault, bytes), "{length:?}");
        }
    }

    #[test]
    fn mixed_line_ends_end_the_stream() {
        let line = b"OPTIONS sip:a SIP/2.0\r\nl: 0\n";
        let stream = [&line[..], b"\r\n"].concat();
        assert_eq!(error(&stream), (Fault::LineEnd, line.to_vec()));
        assert_eq!(
            error(b"OPTIONS sip:a SIP/2.0\nl: 0\n\r\n").0,
            Fault::LineEnd
        );
    }

    #[test]
    fn other_protocols_are_told_at_their_first_line() {
        assert_eq!(error(b"GET / HTTP/1.1\r\n"), (Fault::NotSip, Vec::new()));
        assert_eq!(error(b"\r\n\rgarbage\n"), (Fault::NotSip, Vec::new()));
        assert_eq!(
            error(&[b'x'; 10_000]),
            (Fault::StartLineTooLong, Vec::new())
        );
        let long = [b"OPTIONS sip:", &[b'x'; 10_000][..], b" SIP/2.0\r\n"].concat();
        assert_eq!(error(&long), (Fault::StartLineTooLong, Vec::new()));
    }

    #[test]
    fn endless_headers_end_the_stream_at_the_limit() {
        let header = b"X: 0123456789\r\n".repeat(5_000);
        let stream = [b"OPTIONS sip:a SIP/2.0\r\n", &header[..]].concat();
        let (fault, readable) = error(&stream);
        assert_eq!((fault, readable.len()), (Fault::MessageTooLong, 65_535));
    }

    #[test]
    fn bytes_that_were_searched_are_not_searched_again() {
        let mut framer = Framer::new(&Limits::default());
        let head = &OPTIONS[..OPTIONS.len() - 6];
        for (at, byte) in head.iter().enumerate() {
            framer.push(&[*byte]);
            assert_eq!(framer.next(), Ok(Frame::NeedMore));
            let State::Headers(lines) = framer.state else {
                panic!("the headers are not whole");
            };
            assert_eq!(lines.searched, at + 1);
        }
    }

    #[test]
    fn the_buffer_does_not_grow_with_the_stream() {
        let mut framer = Framer::new(&Limits::default());
        let large = [
            b"OPTIONS sip:a SIP/2.0\r\nl: 60000\r\n\r\n",
            &[0; 60_000][..],
        ]
        .concat();
        let stream = [OPTIONS, &large[..]].concat();
        for chunk in stream.repeat(20).chunks(1_000) {
            framer.push(chunk);
            while framer.next().unwrap() != Frame::NeedMore {}
            assert!(framer.buffer.len() < 130_000);
        }
        assert_eq!(framer.pending(), 0);
        assert!(framer.space().capacity() <= IDLE_CAPACITY);
    }

    proptest! {
        #[test]
        fn chunks_do_not_matter(stream in stream(), chunk in 1usize..200) {
            invariants::framer(&stream, chunk);
        }
    }

    /// Messages, line ends and rubbish behind one another.
    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            4 => Just(OPTIONS.to_vec()),
            2 => Just(b"SIP/2.0 200 OK\nContent-Length: 3\nSubject: a\n b\n\nabc".to_vec()),
            2 => "[\r\n]{0,6}".prop_map(String::into_bytes),
            1 => prop::sample::subsequence(OPTIONS.to_vec(), 0..OPTIONS.len()),
            1 => "(l|Via|X)[: ]{1,2}[0-9]{1,5}\r?\n".prop_map(String::into_bytes),
            1 => prop::collection::vec(any::<u8>(), 0..40),
        ];
        prop::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
    }
}
