//! The bytes seen through an index.

use std::borrow::Cow;
use std::ops::Range;

use super::index::{Entry, Span, StartSpans};
use super::{HeaderName, Index, LineEnd};
use crate::cseq::CSeq;

/// A scanned message: the received bytes and the positions of their parts.
///
/// All offsets are offsets into [`Message::bytes`]. With an index of other bytes the results are
/// meaningless, but nothing panics.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    bytes: &'a [u8],
    index: &'a Index,
}

impl<'a> Message<'a> {
    /// Combines the input of [`scan`](super::scan) with its result.
    pub fn new(bytes: &'a [u8], index: &'a Index) -> Self {
        Self {
            bytes: index.message.of(bytes),
            index,
        }
    }

    /// The message alone: preceding line ends (RFC 3261 §7.5) and bytes after Content-Length (§18.3) are cut off.
    pub fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// The parts of the first line.
    pub fn start_line(self) -> StartLine<'a> {
        match self.index.start_line {
            StartSpans::Request {
                method,
                uri,
                version,
            } => StartLine::Request {
                method: method.of(self.bytes),
                uri: uri.of(self.bytes),
                version: version.of(self.bytes),
            },
            StartSpans::Response {
                version,
                code,
                reason,
            } => StartLine::Response {
                version: version.of(self.bytes),
                code,
                reason: reason.of(self.bytes),
            },
        }
    }

    /// Position of the Request-URI; `None` in a response.
    pub fn uri_range(self) -> Option<Range<usize>> {
        match self.index.start_line {
            StartSpans::Request { uri, .. } => Some(uri.range()),
            StartSpans::Response { .. } => None,
        }
    }

    /// The first header with this name.
    pub fn header(self, name: HeaderName) -> Option<Field<'a>> {
        self.index.first(name).map(|entry| self.field(entry))
    }

    /// All headers with this name, in order.
    pub fn headers(self, name: HeaderName) -> impl Iterator<Item = Field<'a>> {
        let entries = self.index.since_first(name).iter();
        entries
            .filter(move |entry| entry.name == name)
            .map(move |entry| self.field(entry))
    }

    /// All headers, in order.
    pub fn fields(self) -> impl DoubleEndedIterator<Item = Field<'a>> + ExactSizeIterator {
        self.index
            .entries
            .iter()
            .map(move |entry| self.field(entry))
    }

    /// All headers with any name, known or not, in order. Case is ignored, and compact and full names match each other.
    pub fn by_name<'n>(self, name: &'n str) -> impl Iterator<Item = Field<'a>> + use<'a, 'n> {
        let wanted = HeaderName::of(name.as_bytes());
        let entries = self.index.since_first(wanted).iter();
        entries
            .filter(move |entry| entry.name == wanted)
            .map(move |entry| self.field(entry))
            .filter(move |field| {
                wanted != HeaderName::Other || field.raw_name.eq_ignore_ascii_case(name.as_bytes())
            })
    }

    /// The bytes after the empty line, as many as Content-Length says.
    pub fn body(self) -> &'a [u8] {
        self.index.body.of(self.bytes)
    }

    /// Offset of the empty line that ends the headers: a header can be inserted before it.
    pub fn header_end(self) -> usize {
        self.index.header_end as usize
    }

    /// How this message ends its lines; lines that are added to it should end likewise.
    pub fn line_end(self) -> LineEnd {
        self.index.line_end
    }

    /// CSeq, if present and valid.
    pub fn cseq(self) -> Option<CSeq<'a>> {
        let (number, method) = self.index.numbers.cseq?;
        let method = method.of(self.bytes);
        Some(CSeq { number, method })
    }

    /// Max-Forwards, if present and valid.
    pub fn max_forwards(self) -> Option<u8> {
        self.index.numbers.max_forwards
    }

    /// Content-Length in bytes, if present and valid.
    pub fn content_length(self) -> Option<u32> {
        self.index.numbers.content_length
    }

    fn field(self, entry: &Entry) -> Field<'a> {
        let line = entry.line.range();
        let name = Span::new(line.start, entry.name_end as usize);
        Field {
            name: entry.name,
            raw_name: name.of(self.bytes),
            value: entry.value.of(self.bytes),
            line,
            value_range: entry.value.range(),
        }
    }
}

/// The first line of a message. Parts that cannot be parsed are empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartLine<'a> {
    /// RFC 3261 §7.1.
    Request {
        /// As received; methods are case-sensitive.
        method: &'a [u8],
        /// The Request-URI, unparsed.
        uri: &'a [u8],
        /// Begins with `SIP/`.
        version: &'a [u8],
    },
    /// RFC 3261 §7.2.
    Response {
        /// Begins with `SIP/`.
        version: &'a [u8],
        /// 100 to 699; 0 in a message whose scan failed on it.
        code: u16,
        /// Free text in UTF-8, as a rule.
        reason: &'a [u8],
    },
}

impl<'a> StartLine<'a> {
    /// The version of either kind.
    pub fn version(self) -> &'a [u8] {
        match self {
            Self::Request { version, .. } | Self::Response { version, .. } => version,
        }
    }

    /// Whether this is SIP 2.0; a request of another version is answered 505 (RFC 3261 §21.5.6).
    pub fn is_sip_2(self) -> bool {
        self.version().eq_ignore_ascii_case(b"SIP/2.0")
    }
}

/// One header of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name, looked up.
    pub name: HeaderName,
    /// The name as received.
    pub raw_name: &'a [u8],
    /// The value without white space at its ends, but with its folds.
    pub value: &'a [u8],
    /// The whole header with its folds and its line end.
    pub line: Range<usize>,
    /// Position of `value`.
    pub value_range: Range<usize>,
}

impl<'a> Field<'a> {
    /// The value with each fold and the space around it made one space (RFC 3261 §7.3.1).
    /// Borrowed when there is none, as is usual.
    pub fn unfolded(&self) -> Cow<'a, [u8]> {
        unfold(self.value)
    }
}

/// See [`Field::unfolded`].
pub(crate) fn unfold(value: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'\n', value).is_none() {
        return Cow::Borrowed(value);
    }
    let mut unfolded = Vec::with_capacity(value.len());
    for (at, line) in value.split(|&byte| byte == b'\n').enumerate() {
        if at > 0 {
            unfolded.push(b' ');
        }
        unfolded.extend_from_slice(line.trim_ascii());
    }
    Cow::Owned(unfolded)
}
