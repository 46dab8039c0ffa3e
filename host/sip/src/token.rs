//! Character classes of RFC 3261 §25.1.

/// Whether these bytes are one or more `token` characters.
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| TOKEN[usize::from(byte)])
}

/// Whether this byte may stand in a host name. Underscores are against the grammar, but they are in host names out there.
#[inline]
pub(crate) fn is_host_name(byte: u8) -> bool {
    HOST_NAME[usize::from(byte)]
}

/// Whether this byte is linear white space or part of a fold.
#[inline]
pub(crate) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// The slice without linear white space at both ends, and how much was cut off before it.
#[inline]
pub(crate) fn trim(bytes: &[u8]) -> (&[u8], usize) {
    // One space before the value and none behind it is how nearly every header is written, and none at all how nearly every
    // parameter is.
    let (value, cut) = match bytes {
        [b' ', value @ ..] => (value, 1),
        value => (value, 0),
    };
    if let [first, .., last] = value
        && !is_space(*first)
        && !is_space(*last)
    {
        return (value, cut);
    }
    let start = skip_space(bytes, 0);
    let rest = bytes.get(start..).unwrap_or_default();
    (trim_end(rest), start)
}

/// The slice without linear white space at its end.
pub(crate) fn trim_end(bytes: &[u8]) -> &[u8] {
    let end = bytes
        .iter()
        .rposition(|&byte| !is_space(byte))
        .map_or(0, |at| at + 1);
    bytes.get(..end).unwrap_or_default()
}

/// The first place at or behind `from` that is not linear white space.
#[inline]
pub(crate) fn skip_space(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while bytes.get(at).is_some_and(|&byte| is_space(byte)) {
        at += 1;
    }
    at
}

/// The place behind the quoted string that begins at `from`, backslash pairs understood; `None` when
/// it never ends.
pub(crate) fn skip_quoted(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from + 1;
    loop {
        let found = at + memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes[found] == b'"' {
            return Some(found + 1);
        }
        at = found + 2;
    }
}

static TOKEN: [bool; 256] = table(b"-.!%*_+`'~");
static HOST_NAME: [bool; 256] = table(b"-._");

/// Letters, digits and `marks`.
const fn table(marks: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut at = 0;
    while at < marks.len() {
        table[marks[at] as usize] = true;
        at += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_what_the_grammar_lists() {
        assert!(is_token(b"!interesting-Method0123456789_*+`.%indeed'~"));
        assert!(!is_token(b""));
        for byte in b"()<>@,;:\\\"/[]?={} \t\x7f\xc3" {
            assert!(!is_token(&[*byte]), "{byte:#x}");
        }
    }

    #[test]
    fn quoted_strings_end_at_the_first_quote_that_is_not_escaped() {
        assert_eq!(skip_quoted(br#""a" b"#, 0), Some(3));
        assert_eq!(skip_quoted(br#"x"\"\\" b"#, 1), Some(7));
        assert_eq!(skip_quoted(br#""a\""#, 0), None);
        assert_eq!(skip_quoted(br#""a\"#, 0), None);
        assert_eq!(skip_quoted(br#"""#, 0), None);
    }

    #[test]
    fn trimming_takes_folds_away_and_counts_what_went_before() {
        assert_eq!(trim(b" \r\n\t a b \r\n "), (&b"a b"[..], 5));
        assert_eq!(trim(b" \r\n "), (&b""[..], 4));
        assert_eq!(trim(b""), (&b""[..], 0));
    }
}
