//! A message read line by line, by RFC 3261 §7 and §18.3 alone: slow, and without the scanner.

use std::ops::Range;

use crate::list::values;

/// The lines of a message that has no fault.
pub(super) struct Lines<'a> {
    /// With its line end.
    start: &'a [u8],
    /// The header fields, each with its folds and its line end.
    pub(super) fields: Vec<&'a [u8]>,
    /// How the start line ends.
    pub(super) line_end: &'a [u8],
    /// As long as Content-Length says, or the rest.
    pub(super) body: &'a [u8],
    /// Bytes of all of these and the empty line.
    pub(super) length: usize,
}

impl<'a> Lines<'a> {
    /// `None` if there is no empty line.
    pub(super) fn of(bytes: &'a [u8]) -> Option<Self> {
        let line = |at: usize| {
            let line = bytes[at..].split_inclusive(|&byte| byte == b'\n').next();
            line.filter(|line| line.ends_with(b"\n"))
        };
        let start = line(0)?;
        let line_end = &start[start.trim_ascii_end().len()..];
        let mut at = start.len();
        let mut fields = Vec::new();
        loop {
            let first = line(at)?;
            let begin = at;
            at += first.len();
            if first == line_end {
                break;
            }
            while matches!(bytes.get(at), Some(b' ' | b'\t')) {
                at += line(at)?.len();
            }
            fields.push(&bytes[begin..at]);
        }
        let mut lines = Self {
            start,
            fields,
            line_end,
            body: &bytes[at..],
            length: bytes.len(),
        };
        if let Some(Some(length)) = lines.content_length() {
            lines.body = lines.body.get(..length)?;
            lines.length = at + length;
        }
        Some(lines)
    }

    /// The first word of a request.
    pub(super) fn method(&self) -> &'a [u8] {
        self.word(0)
    }

    /// The request URI.
    pub(super) fn uri(&self) -> &'a [u8] {
        self.word(1)
    }

    /// The last word of a request, with its line end.
    pub(super) fn version(&self) -> &'a [u8] {
        self.word(2)
    }

    /// The header fields with this name, which is full and in lower case.
    pub(super) fn named(&self, wanted: &[u8]) -> impl Iterator<Item = &'a [u8]> {
        let fields = self.fields.iter().copied();
        fields.filter(move |field| name(field) == wanted)
    }

    /// Content-Length, if there is one: `None` within if it is no number.
    pub(super) fn content_length(&self) -> Option<Option<usize>> {
        let field = self.named(b"content-length").next()?;
        let digits = std::str::from_utf8(value(field)).ok();
        Some(digits.and_then(|digits| digits.parse().ok()))
    }

    /// The values of all Route fields.
    pub(super) fn routes(&self) -> impl Iterator<Item = &'a [u8]> {
        let fields = self.named(b"route");
        fields.flat_map(|field| values(value(field)).map(|value| value.bytes))
    }

    fn word(&self, number: usize) -> &'a [u8] {
        let mut words = self.start.splitn(3, |&byte| byte == b' ');
        words.nth(number).unwrap_or_default()
    }
}

/// The name of a header field, full and in lower case.
pub(super) fn name(field: &[u8]) -> Vec<u8> {
    full(field[..colon(field)].trim_ascii_end())
}

/// The value of a header field without white space at its ends.
pub(super) fn value(field: &[u8]) -> &[u8] {
    &field[place(field)]
}

/// Where the value is.
pub(super) fn place(field: &[u8]) -> Range<usize> {
    let behind = (colon(field) + 1).min(field.len());
    let is_value = |byte: &u8| !b" \t\r\n".contains(byte);
    let first = field[behind..].iter().position(is_value);
    let Some(first) = first.map(|first| behind + first) else {
        return behind..behind;
    };
    let last = field.iter().rposition(is_value).unwrap_or(first);
    first..last + 1
}

/// What follows the colon.
pub(super) fn behind_colon(field: &[u8]) -> &[u8] {
    field.get(colon(field) + 1..).unwrap_or_default()
}

fn colon(field: &[u8]) -> usize {
    let colon = field.iter().position(|&byte| byte == b':');
    colon.unwrap_or(field.len())
}

/// A name in lower case, and in full where it is compact.
pub(super) fn full(name: &[u8]) -> Vec<u8> {
    let lower = name.to_ascii_lowercase();
    let known = COMPACT
        .iter()
        .find(|(compact, _)| compact.as_bytes() == lower);
    known.map_or(lower, |(_, full)| full.as_bytes().to_vec())
}

/// The compact names that are registered with IANA.
const COMPACT: [(&str, &str); 20] = [
    ("a", "accept-contact"),
    ("b", "referred-by"),
    ("c", "content-type"),
    ("d", "request-disposition"),
    ("e", "content-encoding"),
    ("f", "from"),
    ("i", "call-id"),
    ("j", "reject-contact"),
    ("k", "supported"),
    ("l", "content-length"),
    ("m", "contact"),
    ("n", "identity-info"),
    ("o", "event"),
    ("r", "refer-to"),
    ("s", "subject"),
    ("t", "to"),
    ("u", "allow-events"),
    ("v", "via"),
    ("x", "session-expires"),
    ("y", "identity"),
];
