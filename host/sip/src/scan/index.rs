//! The spans that a scan found.

use std::ops::Range;

use super::{HeaderName, LineEnd};

/// Positions of the parts of one message: spans only, owned and reusable, without a lifetime.
///
/// Pair it with the bytes it was made from: [`Message::new`](super::Message::new).
#[derive(Clone, Debug)]
pub struct Index {
    /// The message within the scanned bytes, without preceding line ends and following bytes.
    pub(super) message: Span,
    pub(super) start_line: StartSpans,
    pub(super) entries: Vec<Entry>,
    /// The position in `entries` of the first header of each name, or `NOWHERE`.
    first: [u16; HeaderName::COUNT],
    pub(super) header_end: u32,
    pub(super) body: Span,
    pub(super) line_end: LineEnd,
    pub(super) numbers: Numbers,
}

impl Index {
    /// Clears the index and keeps its memory.
    pub fn clear(&mut self) {
        self.message = Span::default();
        self.start_line = StartSpans::default();
        self.entries.clear();
        self.first = [NOWHERE; HeaderName::COUNT];
        self.header_end = 0;
        self.body = Span::default();
        self.line_end = LineEnd::CrLf;
        self.numbers = Numbers::default();
    }

    /// Number of header lines.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no header line was found.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The first header of this name.
    pub(super) fn first(&self, name: HeaderName) -> Option<&Entry> {
        self.entries.get(usize::from(self.first[name as usize]))
    }

    /// The headers from the first of this name on, including those of other names.
    pub(super) fn since_first(&self, name: HeaderName) -> &[Entry] {
        let first = usize::from(self.first[name as usize]);
        self.entries.get(first..).unwrap_or_default()
    }

    /// Adds a header; returns whether there was one of the same name.
    pub(super) fn push(&mut self, entry: Entry) -> bool {
        let first = &mut self.first[entry.name as usize];
        let seen = *first != NOWHERE;
        if !seen {
            *first = u16::try_from(self.entries.len()).unwrap_or(NOWHERE);
        }
        self.entries.push(entry);
        seen
    }
}

impl Default for Index {
    fn default() -> Self {
        Self {
            message: Span::default(),
            start_line: StartSpans::default(),
            entries: Vec::new(),
            first: [NOWHERE; HeaderName::COUNT],
            header_end: 0,
            body: Span::default(),
            line_end: LineEnd::CrLf,
            numbers: Numbers::default(),
        }
    }
}

/// One header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) name: HeaderName,
    /// The whole line with its folds and line end; the name is at its start.
    pub(super) line: Span,
    pub(super) name_end: u32,
    pub(super) value: Span,
}

/// The parts of the start line; unparsable parts are empty.
#[derive(Clone, Copy, Debug)]
pub(super) enum StartSpans {
    Request {
        method: Span,
        uri: Span,
        version: Span,
    },
    Response {
        version: Span,
        code: u16,
        reason: Span,
    },
}

impl Default for StartSpans {
    fn default() -> Self {
        Self::Request {
            method: Span::default(),
            uri: Span::default(),
            version: Span::default(),
        }
    }
}

/// The numbers of headers that the scan checks anyway.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Numbers {
    pub(super) content_length: Option<u32>,
    pub(super) max_forwards: Option<u8>,
    /// The number, and the position of the method.
    pub(super) cseq: Option<(u32, Span)>,
}

/// A range of bytes, half the size of a `Range<usize>`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// Offsets beyond 32 bits do not occur: the scanner cuts its input at 2³⁰ bytes.
    pub(crate) fn new(start: usize, end: usize) -> Self {
        Self {
            start: start as u32,
            end: end as u32,
        }
    }

    pub(crate) fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// The bytes of the span; empty if `bytes` is not the input of the scan.
    pub(crate) fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.range()).unwrap_or_default()
    }
}

const NOWHERE: u16 = u16::MAX;
