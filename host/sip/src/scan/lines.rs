//! Line ends and folding, shared by the scanner and the stream framer.

use crate::words::{find_end, find_line_end};

/// How the lines of a message end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineEnd {
    /// As RFC 3261 §7 wants it.
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
    /// Behind the last byte of content.
    pub(crate) end: usize,
    /// Where the next line starts.
    pub(crate) next: usize,
    /// How it ends.
    pub(crate) kind: LineEnd,
    /// The first place where a line ends in another way than asked for, or a CR stands alone.
    pub(crate) odd: Option<usize>,
}

/// The next line end at or behind `from`; `None` when there is none yet.
pub(crate) fn line_break(
    bytes: &[u8],
    from: usize,
    expected: Option<LineEnd>,
) -> Option<LineBreak> {
    let mut odd = None;
    let mut at = from;
    loop {
        let end = at + find_line_end(bytes.get(at..)?)?;
        let (kind, next) = if bytes[end] == b'\n' {
            (LineEnd::Lf, end + 1)
        } else {
            match bytes.get(end + 1)? {
                b'\n' => (LineEnd::CrLf, end + 2),
                _ => {
                    odd = odd.or(Some(end));
                    at = end + 1;
                    continue;
                }
            }
        };
        if expected.is_some_and(|expected| expected != kind) {
            odd = odd.or(Some(end));
        }
        return Some(LineBreak {
            end,
            next,
            kind,
            odd,
        });
    }
}

/// How many bytes of line ends stand before the message (RFC 3261 §7.5).
pub(crate) fn leading_line_ends(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .position(|byte| !matches!(byte, b'\r' | b'\n'))
        .unwrap_or(bytes.len())
}

/// One header with its folds, cut but not yet looked up. All places are offsets into the message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawHeader {
    /// Behind the name, which begins the line. `None` when there is no name, no colon, or space
    /// within the name.
    pub(crate) name_end: Option<usize>,
    /// Behind the colon; the start of the line when there is no name.
    pub(crate) value: usize,
    /// Where the header ends.
    pub(crate) end: LineBreak,
}

/// The header whose line begins at `at`; `None` when the bytes stop before its end.
#[inline]
pub(crate) fn raw_header(bytes: &[u8], at: usize, expected: LineEnd) -> Option<RawHeader> {
    let name = name(bytes.get(at..)?);
    let value = name.map_or(at, |(_, colon)| at + colon + 1);
    Some(RawHeader {
        name_end: name.map(|(end, _)| at + end),
        value,
        end: header_break(bytes, value, expected)?,
    })
}

/// The ends of the name and of the space that may stand between it and the colon (RFC 3261 §25.1
/// HCOLON).
#[inline]
fn name(line: &[u8]) -> Option<(usize, usize)> {
    let end = find_end(line, b':')?;
    let mut colon = end;
    while matches!(line.get(colon), Some(b' ' | b'\t')) {
        colon += 1;
    }
    (end > 0 && line.get(colon) == Some(&b':')).then_some((end, colon))
}

/// The end of the header that goes on at `from`: behind the first line that no folded line follows.
#[inline]
fn header_break(bytes: &[u8], from: usize, expected: LineEnd) -> Option<LineBreak> {
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
        });
    }
    unusual_header_break(bytes, end, expected)
}

/// With folds, with bare LF, or the last line that there is.
#[cold]
fn unusual_header_break(bytes: &[u8], from: usize, expected: LineEnd) -> Option<LineBreak> {
    let mut found = line_break(bytes, from, Some(expected))?;
    while matches!(bytes.get(found.next), Some(b' ' | b'\t')) {
        let continued = line_break(bytes, found.next, Some(expected))?;
        found = LineBreak {
            odd: found.odd.or(continued.odd),
            ..continued
        };
    }
    Some(found)
}
