//! The Call-ID and the method of a message, found in bytes that need not be valid.

/// Bytes of a message that are searched.
const SEARCHED: usize = 16 << 10;

/// What a message is selected and correlated by. What is not found is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names<'m> {
    pub(crate) call_id: &'m [u8],
    /// The method in CSeq, which a request and its responses have in common.
    pub(crate) method: &'m [u8],
}

impl<'m> Names<'m> {
    /// Searches the header of a message.
    pub(crate) fn of(bytes: &'m [u8]) -> Self {
        let mut names = Self::default();
        let mut rest = &bytes[..bytes.len().min(SEARCHED)];
        let mut is_first = true;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let line = rest[..end].trim_ascii_end();
            rest = &rest[end + 1..];
            if std::mem::take(&mut is_first) {
                continue;
            }
            if line.is_empty() || names.is_complete() {
                break;
            }
            names.read(line);
        }
        names
    }

    fn is_complete(&self) -> bool {
        !self.call_id.is_empty() && !self.method.is_empty()
    }

    fn read(&mut self, line: &'m [u8]) {
        // Most lines are of other fields.
        if !matches!(line[0].to_ascii_lowercase(), b'c' | b'i') {
            return;
        }
        let Some(colon) = memchr::memchr(b':', line) else {
            return;
        };
        let (name, value) = (
            line[..colon].trim_ascii_end(),
            line[colon + 1..].trim_ascii(),
        );
        let is = |field: &str| name.eq_ignore_ascii_case(field.as_bytes());
        if self.call_id.is_empty() && (is("Call-ID") || is("i")) {
            self.call_id = value;
        } else if self.method.is_empty() && is("CSeq") {
            let blank = value.iter().rposition(u8::is_ascii_whitespace);
            self.method = blank.map_or(&[][..], |at| &value[at + 1..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_any_spelling() {
        for (bytes, call_id, method) in [
            (&b"INVITE x\r\nVia: y\r\nCall-ID: a@b\r\nCSeq: 1 INVITE\r\n\r\n"[..], "a@b", "INVITE"),
            (b"SIP/2.0 200 OK\ncseq:7  BYE \ni : c\n\n", "c", "BYE"),
            (b"INVITE x\r\n\r\nCall-ID: body\r\n", "", ""),
            (b"Call-ID: x\r\nContact: y\r\nCSeq\r\nCSeq: 1\r\nCall-ID:\r\nCall-ID: z\r\nCall-ID: w\r\n", "z", ""),
            (b"", "", ""),
            (b"\r\n\r\n", "", ""),
        ] {
            let names = Names::of(bytes);
            assert_eq!(names.call_id, call_id.as_bytes(), "{bytes:?}");
            assert_eq!(names.method, method.as_bytes(), "{bytes:?}");
        }
    }
}
