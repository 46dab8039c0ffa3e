//! The scanner: one pass over a message.

use super::index::{Entry, Span, StartSpans};
use super::lines::{leading_line_ends, line_break, raw_header};
use super::{Fault, HeaderName, Index, Limits, LineEnd, ScanError, start_line};
use crate::arrival::Transport;
use crate::cseq::{CSeq, content_length, max_forwards};
use crate::token;
use crate::via;

/// What carries the message, which decides where its body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// One datagram: without Content-Length the body is the rest (RFC 3261 §18.3).
    Datagram,
    /// A message that [`Framer`](crate::Framer) cut out of a stream: Content-Length must be there.
    Stream,
}

impl Framing {
    /// How a transport frames its messages. A message of WebSocket has an end, as a datagram has (RFC 7118 §5).
    pub fn of(transport: Transport) -> Self {
        match transport {
            Transport::Udp | Transport::Ws | Transport::Wss => Self::Datagram,
            Transport::Tcp | Transport::Tls => Self::Stream,
        }
    }
}

/// Reads one message into `index`.
///
/// # Errors
/// The first fault, with its position. The scan continues as far as possible, so `index` still holds
/// the parts that could be parsed: start line, headers, numbers.
pub fn scan(
    bytes: &[u8],
    framing: Framing,
    limits: &Limits,
    index: &mut Index,
) -> Result<(), ScanError> {
    index.clear();
    let limits = limits.effective();
    let start = leading_line_ends(bytes.get(..limits.message_bytes).unwrap_or(bytes));
    let whole = bytes.get(start..).unwrap_or_default();
    let message = whole.get(..limits.message_bytes).unwrap_or(whole);
    index.message = Span::new(start, start + message.len());

    let mut scanner = Scanner {
        bytes: message,
        lines_left: limits.header_lines,
        folds_left: limits.header_lines,
        limits,
        index,
        fault: None,
    };
    if message.is_empty() {
        scanner.note(Fault::Empty, 0);
    } else {
        if message.len() < whole.len() {
            scanner.note(Fault::MessageTooLong, message.len());
        }
        scanner.message(framing);
    }
    scanner.fault.map_or(Ok(()), Err)
}

struct Scanner<'a, 'i> {
    /// From the start line to the end of what was received.
    bytes: &'a [u8],
    limits: Limits,
    /// Number of further header lines that are allowed, malformed ones included.
    lines_left: usize,
    /// Number of further folds that are allowed.
    folds_left: usize,
    index: &'i mut Index,
    fault: Option<ScanError>,
}

impl<'a> Scanner<'a, '_> {
    fn message(&mut self, framing: Framing) {
        let Some(headers) = self.start_line() else {
            return;
        };
        let body = self.headers(headers);
        self.numbers();
        self.required(framing);
        self.repeated();
        self.body(body);
    }

    /// Parses the first line; returns where the headers start.
    fn start_line(&mut self) -> Option<usize> {
        let limit = self.limits.start_line_bytes;
        let Some(first) = line_break(self.bytes, 0, None) else {
            let long = self.bytes.len() > limit;
            self.note(
                if long {
                    Fault::StartLineTooLong
                } else {
                    Fault::NotSip
                },
                0,
            );
            return None;
        };
        self.index.line_end = first.kind;
        let (spans, fault) = start_line::read(&self.bytes[..first.end]);
        self.index.start_line = spans;
        if let StartSpans::Response { .. } = spans {
            self.limits.header_bytes = self.limits.header_bytes.saturating_add(via::ADDED);
        }
        self.index.header_end = first.next as u32;
        if fault == Some(Fault::NotSip) {
            self.note(Fault::NotSip, 0);
            return None;
        }
        if first.end > limit {
            self.note(Fault::StartLineTooLong, limit);
        }
        if let Some(odd) = first.odd {
            self.note(Fault::LineEnd, odd);
        }
        if let Some(fault) = fault {
            self.note(fault, 0);
        }
        if matches!(self.bytes.get(first.next), Some(b' ' | b'\t')) {
            let fault = match spans {
                StartSpans::Request { .. } => Fault::RequestLine,
                StartSpans::Response { .. } => Fault::StatusLine,
            };
            self.note(fault, first.next);
        }
        Some(first.next)
    }

    /// Parses the header lines from `at` on; returns where the body starts.
    fn headers(&mut self, mut at: usize) -> usize {
        loop {
            self.index.header_end = at as u32;
            let line = self.bytes.get(at..).unwrap_or_default();
            match line {
                [b'\n', ..] => {
                    self.expect(LineEnd::Lf, at);
                    return at + 1;
                }
                [b'\r', b'\n', ..] => {
                    self.expect(LineEnd::CrLf, at);
                    return at + 2;
                }
                _ => {}
            }
            if self.lines_left == 0 && !line.is_empty() {
                self.note(Fault::TooManyHeaders, at);
                return self.bytes.len();
            }
            self.lines_left = self.lines_left.saturating_sub(1);
            let Some(next) = self.header(at) else {
                self.note(Fault::NoEmptyLine, at);
                return self.bytes.len();
            };
            at = next;
        }
    }

    /// Parses the header at `at`; returns where the next line starts, or `None` when the bytes end
    /// before that, or the header has too many folds.
    #[inline]
    fn header(&mut self, at: usize) -> Option<usize> {
        let raw = raw_header(self.bytes, at, self.index.line_end, self.folds_left)?;
        let next = raw.end.next;
        if let Some(odd) = raw.end.odd {
            self.note(Fault::LineEnd, odd);
        }
        let Some(folds_left) = self.folds_left.checked_sub(raw.end.folds) else {
            self.note(Fault::TooManyHeaders, at);
            return None;
        };
        self.folds_left = folds_left;
        if next - at > self.limits.header_bytes {
            self.note(Fault::HeaderTooLong, at);
            return Some(next);
        }
        let Some(name_end) = raw.name_end else {
            self.note(Fault::HeaderLine, at);
            return Some(next);
        };

        let (value, cut) = token::trim(&self.bytes[raw.value..raw.end.end]);
        let start = raw.value + cut;
        let entry = Entry {
            name: HeaderName::of(&self.bytes[at..name_end]),
            line: Span::new(at, next),
            name_end: name_end as u32,
            value: Span::new(start, start + value.len()),
        };
        if self.index.push(entry) && entry.name.is_single() {
            self.note(Fault::Duplicate(entry.name), at);
        }
        Some(next)
    }

    fn numbers(&mut self) {
        if let Some((value, at)) = self.value(HeaderName::ContentLength) {
            self.index.numbers.content_length = content_length(value);
            if self.index.numbers.content_length.is_none() {
                self.note(Fault::ContentLength, at);
            }
        }
        if let Some((value, at)) = self.value(HeaderName::MaxForwards) {
            self.index.numbers.max_forwards = max_forwards(value);
            if self.index.numbers.max_forwards.is_none() {
                self.note(Fault::MaxForwards, at);
            }
        }
        if let Some((value, at)) = self.value(HeaderName::CSeq) {
            match CSeq::parse(value) {
                Some(cseq) => self.cseq(cseq, at, value.len()),
                None => self.note(Fault::CSeq, at),
            }
        }
    }

    fn cseq(&mut self, cseq: CSeq<'_>, at: usize, length: usize) {
        // The method is the last thing in the value.
        let method = Span::new(at + length - cseq.method.len(), at + length);
        self.index.numbers.cseq = Some((cseq.number, method));
        if let StartSpans::Request { method, .. } = self.index.start_line
            && method.of(self.bytes) != cseq.method
        {
            self.note(Fault::CSeqMethod, at);
        }
    }

    /// Checks required headers: Via returns a response, and a request must be answerable.
    fn required(&mut self, framing: Framing) {
        const OF_REQUESTS: [HeaderName; 5] = [
            HeaderName::Via,
            HeaderName::From,
            HeaderName::To,
            HeaderName::CallId,
            HeaderName::CSeq,
        ];
        let names = match self.index.start_line {
            StartSpans::Request { .. } => &OF_REQUESTS[..],
            StartSpans::Response { .. } => &OF_REQUESTS[..1],
        };
        let end = self.index.header_end as usize;
        for &name in names {
            if self.index.first(name).is_none() {
                self.note(Fault::Missing(name), end);
            }
        }
        if framing == Framing::Stream && self.index.first(HeaderName::ContentLength).is_none() {
            self.note(Fault::Missing(HeaderName::ContentLength), end);
        }
    }

    /// A response repeats some header fields of its request, and must itself stay within the limits with those that it adds.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "responses repeat no other header fields"
    )]
    fn repeated(&mut self) {
        let most_lines = self.limits.header_lines / 4 * 3;
        let most_bytes = self.limits.message_bytes / 4 * 3;
        let is_request = matches!(self.index.start_line, StartSpans::Request { .. });
        let bytes = self.index.header_end as usize;
        if !is_request || self.index.len() <= most_lines && bytes <= most_bytes {
            return;
        }
        let (mut lines, mut bytes) = (0, 0);
        for entry in &self.index.entries {
            let is_single = match entry.name {
                HeaderName::Via | HeaderName::RecordRoute => false,
                HeaderName::From | HeaderName::To | HeaderName::CallId | HeaderName::CSeq => true,
                _ => continue,
            };
            lines += usize::from(!is_single);
            bytes += entry.line.range().len();
        }
        if lines > most_lines || bytes > most_bytes {
            self.note(Fault::TooManyHeaders, self.index.header_end as usize);
        }
    }

    /// Cuts off bytes beyond Content-Length.
    fn body(&mut self, start: usize) {
        let received = self.bytes.len() - start;
        let declared = self.index.numbers.content_length;
        let length = declared.map_or(received, |declared| declared as usize);
        if length > received {
            self.note(Fault::BodyTooShort, self.bytes.len());
        }
        let length = length.min(received);
        let message = self.index.message.range().start;
        self.index.body = Span::new(start, start + length);
        self.index.message = Span::new(message, message + start + length);
    }

    /// The value of the first header of this name, and where it stands.
    fn value(&self, name: HeaderName) -> Option<(&'a [u8], usize)> {
        let value = self.index.first(name)?.value;
        Some((value.of(self.bytes), value.range().start))
    }

    fn expect(&mut self, kind: LineEnd, at: usize) {
        if self.index.line_end != kind {
            self.note(Fault::LineEnd, at);
        }
    }

    /// Keeps the first fault.
    #[cold]
    #[inline(never)]
    fn note(&mut self, fault: Fault, offset: usize) {
        self.fault.get_or_insert(ScanError { fault, offset });
    }
}
