//! Cuts a byte stream into messages by Content-Length (RFC 3261 §18.3).
//!
//! A message above its limits is not kept: the framer skips it, up to [`OVERSIZED_FACTOR`] times the limit, and returns as much of its
//! header section as a response needs. The next message on the stream is framed as usual. A stream whose next message boundary is unknown
//! ends with an error.

mod lines;
mod oversized;

use std::ops::Range;

use memchr::memchr;
use thiserror::Error;

use crate::cseq::content_length;
use crate::scan::lines::raw_header;
use crate::scan::{Fault, HeaderName, Limits, LineEnd, ScanError};
use crate::token;
use lines::{Lines, Reduce, begins_sip};

/// The receiving side of one stream connection.
///
/// Bytes go in by [`Framer::push`] or [`Framer::space`]; [`Framer::next`] returns frames until it asks for more. The work for each
/// byte is bounded, however the peer splits the stream.
///
/// Lines may end with bare LF, as for [`scan`](crate::scan) itself. A message that mixes LF and CRLF ends the stream: readers
/// would disagree on where its header section ends, and with it on where the next message starts.
#[derive(Debug)]
pub struct Framer {
    limits: Limits,
    buffer: Vec<u8>,
    /// Offset in `buffer` of the first byte that was not delivered.
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

    /// Adds received bytes. Ranges of earlier frames become invalid.
    pub fn push(&mut self, bytes: &[u8]) {
        self.space().extend_from_slice(bytes);
    }

    /// The buffer, to append received bytes without copying; any other change is forbidden. Ranges of earlier frames become invalid.
    pub fn space(&mut self) -> &mut Vec<u8> {
        if self.start >= self.buffer.len() {
            self.buffer.clear();
            self.buffer.shrink_to(IDLE_CAPACITY);
            self.start = 0;
        } else if self.start > self.buffer.len() / 2 {
            // Less is moved than was delivered since the last move.
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        &mut self.buffer
    }

    /// The next message or keep-alive.
    ///
    /// # Errors
    /// The next message boundary is unknown, or too far away: answer what is readable, and close the connection. Every later call
    /// returns the same error.
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
                State::Skipped { left } => self.skip(left),
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

    /// Number of bytes that wait for the rest of their message. If it is not 0 when the peer closes, a message was cut off.
    pub fn pending(&self) -> usize {
        self.rest().len()
    }

    /// Whether a CRLF waits for the bytes after it: a second CRLF, which makes both a ping, or a message.
    pub fn holds_line_end(&self) -> bool {
        matches!(self.state, State::Between) && self.rest() == b"\r\n"
    }

    /// Skips a waiting CRLF, if there is one. A ping is one double CRLF (RFC 5626 §3.5.1): call this when nothing has arrived for a while.
    pub fn pass_line_end(&mut self) {
        if self.holds_line_end() {
            self.start += 2;
        }
    }

    /// Skips line ends before a message and finds keep-alives.
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

    /// Searches for the empty line, from the end of the last search.
    fn headers(&mut self, mut lines: Lines) -> Step {
        loop {
            let rest = self.rest();
            let within = rest.get(..self.limits.message_bytes).unwrap_or(rest);
            while let Some(length) = memchr(b'\n', within.get(lines.searched..).unwrap_or_default())
            {
                let line_feed = lines.searched + length;
                let line = within.get(lines.start..line_feed).unwrap_or_default();
                let is_empty = lines
                    .take(line, &self.limits)
                    .map_err(|fault| self.line_error(fault, lines.start, line_feed + 1))?;
                if is_empty {
                    return self.headers_end(line_feed + 1, lines);
                }
            }

            let searched = within.len();
            lines.searched = searched;
            // The line end may have arrived only in part.
            let long = self.limits.start_line_bytes.saturating_add(1);
            if lines.kind.is_none() && !lines.begins_sip && searched > long {
                if !begins_sip(within, &self.limits) {
                    return Err(self.error(Fault::NotSip, 0, 0));
                }
                lines.begins_sip = true;
            }
            if searched < self.limits.message_bytes {
                return Ok((State::Headers(lines), Some(Frame::NeedMore)));
            }
            self.reduce(&mut lines)?;
        }
    }

    /// Frees space in a header section that has reached the limit.
    fn reduce(&mut self, lines: &mut Lines) -> Result<(), FrameError> {
        let fault = lines.oversized(&self.limits);
        let length = lines.searched;
        let kept = self.reduce_to(length, lines, Reduce::Begun);
        let is_crowded = kept > self.limits.message_bytes / 2;
        if is_crowded || lines.removed > self.most_bytes() {
            return Err(self.error(fault, lines.start, lines.start));
        }
        Ok(())
    }

    /// Reduces the first `length` bytes of the message; returns how many are left. They move to the end of their former range: the rest of
    /// the stream stays in place.
    fn reduce_to(&mut self, length: usize, lines: &mut Lines, reduce: Reduce) -> usize {
        let end = self.start + length;
        let head = self.buffer.get_mut(self.start..end).unwrap_or_default();
        let kept = oversized::reduce(head, lines, &self.limits, reduce);
        let removed = length - kept;
        self.buffer
            .copy_within(self.start..end - removed, self.start + removed);
        self.start += removed;
        lines.removed += removed;
        kept
    }

    /// Reads Content-Length from the complete header section, whose length includes the empty line.
    fn headers_end(&mut self, mut length: usize, mut lines: Lines) -> Step {
        let kind = lines.kind.unwrap_or(LineEnd::CrLf);
        if lines.fault.is_some() {
            length = self.reduce_to(length, &mut lines, Reduce::Whole);
        }
        let head = self.rest().get(..length).unwrap_or_default();
        let body = match lines.has_lost_length {
            true => Err((Fault::ContentLength, length)),
            false => declared_length(head, lines.first_end, kind),
        };
        let body = body.map_err(|(fault, at)| self.error(fault, at, length))?;
        let whole = length.saturating_add(body);
        let fault = match lines.fault {
            None if whole <= self.limits.message_bytes => {
                return Ok((State::Body { length: whole }, None));
            }
            fault => fault.unwrap_or(Fault::MessageTooLong),
        };
        if lines.removed.saturating_add(whole) > self.most_bytes() {
            return Err(self.error(fault, length, length));
        }
        let FrameError { error, readable } = self.error(fault, length, length);
        self.start = readable.end;
        let frame = Frame::Oversized {
            head: readable,
            error,
        };
        Ok((State::Skipped { left: body }, Some(frame)))
    }

    /// Skips the body of an oversized message.
    fn skip(&mut self, left: usize) -> Step {
        let here = left.min(self.pending());
        self.start += here;
        match left - here {
            0 => Ok((State::Between, None)),
            left => Ok((State::Skipped { left }, Some(Frame::NeedMore))),
        }
    }

    /// Maximum length of a message that the framer skips.
    fn most_bytes(&self) -> usize {
        self.limits.message_bytes.saturating_mul(OVERSIZED_FACTOR)
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
        let readable = if fault == Fault::NotSip { 0 } else { next };
        self.error(fault, line, readable)
    }

    fn error(&self, fault: Fault, offset: usize, readable: usize) -> FrameError {
        FrameError {
            error: ScanError { fault, offset },
            readable: self.start..self.start + readable,
        }
    }
}

/// The next item of a stream. Ranges are for [`Framer::bytes`], until more is received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A complete message, to be [scanned](crate::scan) as [`Framing::Stream`](crate::Framing).
    Message(Range<usize>),
    /// A message above a limit, reported when its header section is complete. The framer skips its body and continues with the next
    /// message.
    Oversized {
        /// The header section with its empty line, for [`Framer::bytes`]. If the section is above the limit, only the fields that a
        /// response needs are present, and the start line is shortened. [Scan](crate::scan) it for a reply, and give the reply `error`
        /// instead of the scan's error.
        head: Range<usize>,
        /// The limit; the offset counts from the start of `head`.
        error: ScanError,
    },
    /// CRLF CRLF between messages: answer with [`PONG`] (RFC 5626 §4.4.1).
    Ping,
    /// No complete item is left.
    NeedMore,
}

/// The response to [`Frame::Ping`].
pub const PONG: &[u8] = b"\r\n";

/// Multiple of [`Limits::message_bytes`] that the framer skips before it gives up the stream: a peer whose message is too long keeps its
/// connection, and no peer can send one message forever.
pub const OVERSIZED_FACTOR: usize = 16;

/// The stream cannot be framed any further: the next message boundary is unknown or too far away.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the stream cannot be framed: {error}")]
pub struct FrameError {
    /// The fault; offsets count from the start of `readable`.
    #[source]
    pub error: ScanError,
    /// Complete lines of the message from its start, for [`Framer::bytes`]. Scan them for the values of a reply, and give the reply this
    /// error's fault instead of the scan's. Empty if nothing of it is SIP.
    pub readable: Range<usize>,
}

type Step = Result<(State, Option<Frame>), FrameError>;

#[derive(Clone, Copy, Debug)]
enum State {
    /// At the start of a message, or of line ends before it.
    Between,
    Headers(Lines),
    /// The header section is complete.
    Body {
        /// Bytes of the whole message.
        length: usize,
    },
    /// In the body of an oversized message.
    Skipped {
        /// Bytes of it still to be received.
        left: usize,
    },
}

/// Content-Length of headers that begin at `from`, or its fault and position.
fn declared_length(head: &[u8], from: usize, kind: LineEnd) -> Result<usize, (Fault, usize)> {
    let mut declared = None;
    let mut at = from;
    // The number of lines has been checked before.
    while let Some(header) = raw_header(head, at, kind, usize::MAX) {
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

/// Capacity of the buffer that an idle connection may keep.
const IDLE_CAPACITY: usize = 4_096;

#[cfg(test)]
mod tests;
