//! Line ends and folding, shared by the scanner and the stream framer.

use memchr::memchr2;

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
        let end = at + memchr2(b'\r', b'\n', bytes.get(at..)?)?;
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

/// The end of the header whose last found byte is at `from`: behind the line that no folded line
/// follows. `None` when the bytes stop before.
pub(crate) fn header_break(bytes: &[u8], from: usize, expected: LineEnd) -> Option<LineBreak> {
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

/// How many bytes of line ends stand before the message (RFC 3261 §7.5).
pub(crate) fn leading_line_ends(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .position(|byte| !matches!(byte, b'\r' | b'\n'))
        .unwrap_or(bytes.len())
}
