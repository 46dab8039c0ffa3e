//! Line ends and folding, shared by the scanner and the stream framer.

use memchr::memchr;

use crate::words::{find_end, find_line_end, find_other_than_line_end};

/// The line ends of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineEnd {
    /// By RFC 3261 §7.
    CrLf,
    /// Bare LF throughout.
    Lf,
}

impl LineEnd {
    /// The bytes to end a line with.
    pub const fn as_bytes(self) -> &'static [u8] {
        match self {
            Self::CrLf => b"\r\n",
            Self::Lf => b"\n",
        }
    }
}

/// The end of a line, or of a header with its folds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LineBreak {
    /// End of the content.
    pub(crate) end: usize,
    /// Start of the next line.
    pub(crate) next: usize,
    /// The kind of line end.
    pub(crate) kind: LineEnd,
    /// The first position with another line end than expected, or with a CR alone.
    pub(crate) odd: Option<usize>,
    /// Number of folded lines.
    pub(crate) folds: usize,
}

/// The next line end at or after `from`; `None` when there is none yet.
pub(crate) fn line_break(
    bytes: &[u8],
    from: usize,
    expected: Option<LineEnd>,
) -> Option<LineBreak> {
    let first = from + find_line_end(bytes.get(from..)?)?;
    let (end, kind, mut odd) = match (bytes[first], bytes.get(first + 1)) {
        (b'\n', _) => (first, LineEnd::Lf, None),
        (_, Some(b'\n')) => (first, LineEnd::CrLf, None),
        // A CR alone, perhaps followed by thousands: only the LF is searched for.
        _ => {
            let line_feed = first + memchr(b'\n', bytes.get(first..)?)?;
            let has_cr = line_feed > first + 1 && bytes[line_feed - 1] == b'\r';
            let (end, kind) = match has_cr {
                true => (line_feed - 1, LineEnd::CrLf),
                false => (line_feed, LineEnd::Lf),
            };
            (end, kind, Some(first))
        }
    };
    if expected.is_some_and(|expected| expected != kind) {
        odd = odd.or(Some(end));
    }
    Some(LineBreak {
        end,
        next: end + kind.as_bytes().len(),
        kind,
        odd,
        folds: 0,
    })
}

/// Number of line-end bytes before the message (RFC 3261 §7.5).
pub(crate) fn leading_line_ends(bytes: &[u8]) -> usize {
    find_other_than_line_end(bytes).unwrap_or(bytes.len())
}

/// One header with its folds, before its name is looked up. All positions are offsets into the message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawHeader {
    /// End of the name, which begins the line. `None` when there is no name, no colon, or white space within the name.
    pub(crate) name_end: Option<usize>,
    /// End of the colon; the start of the line when there is no name.
    pub(crate) value: usize,
    /// End of the header.
    pub(crate) end: LineBreak,
}

/// The header whose line begins at `at`, with up to `most_folds` folds and one more; `None` when the bytes stop before its end.
#[inline]
pub(crate) fn raw_header(
    bytes: &[u8],
    at: usize,
    expected: LineEnd,
    most_folds: usize,
) -> Option<RawHeader> {
    let name = name(bytes.get(at..)?);
    let value = name.map_or(at, |(_, colon)| at + colon + 1);
    Some(RawHeader {
        name_end: name.map(|(end, _)| at + end),
        value,
        end: header_break(bytes, value, expected, most_folds)?,
    })
}

/// The end of the name, and the end of the white space that may separate it from the colon (RFC 3261 §25.1 HCOLON).
#[inline]
pub(crate) fn name(line: &[u8]) -> Option<(usize, usize)> {
    let end = find_end(line, b':')?;
    let mut colon = end;
    while matches!(line.get(colon), Some(b' ' | b'\t')) {
        colon += 1;
    }
    (end > 0 && line.get(colon) == Some(&b':')).then_some((end, colon))
}

/// The end of the header that continues at `from`: the end of the first line that is not followed by a folded line.
#[inline]
fn header_break(
    bytes: &[u8],
    from: usize,
    expected: LineEnd,
    most_folds: usize,
) -> Option<LineBreak> {
    let end = from + find_line_end(bytes.get(from..)?)?;
    if expected == LineEnd::CrLf
        && let Some([b'\r', b'\n', next, ..]) = bytes.get(end..)
        && !matches!(next, b' ' | b'\t')
    {
        return Some(LineBreak {
            end,
            next: end + 2,
            kind: LineEnd::CrLf,
            odd: None,
            folds: 0,
        });
    }
    unusual_header_break(bytes, end, expected, most_folds)
}

/// With folds, with bare LF, or the last available line. Of more than `most_folds` folds, the first excess one is the last that is
/// examined.
#[cold]
fn unusual_header_break(
    bytes: &[u8],
    from: usize,
    expected: LineEnd,
    most_folds: usize,
) -> Option<LineBreak> {
    let mut found = line_break(bytes, from, Some(expected))?;
    while found.folds <= most_folds && matches!(bytes.get(found.next), Some(b' ' | b'\t')) {
        let continued = line_break(bytes, found.next, Some(expected))?;
        found = LineBreak {
            odd: found.odd.or(continued.odd),
            folds: found.folds + 1,
            ..continued
        };
    }
    Some(found)
}
