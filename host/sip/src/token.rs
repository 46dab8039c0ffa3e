//! Character classes of RFC 3261 §25.1.

use crate::words::is_all_of;

/// Whether these bytes are one or more `token` characters.
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| TOKEN[usize::from(byte)])
}

/// Whether this byte may occur in a host name. Underscores violate the grammar, but are in use.
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
    // Nearly every header has one space before the value and none after it, and nearly every parameter has none at all.
    let (value, cut) = match bytes {
        [b' ', value @ ..] => (value, 1),
        value => (value, 0),
    };
    if let (Some(&first), Some(&last)) = (value.first(), value.last())
        && !is_space(first)
        && !is_space(last)
    {
        return (value, cut);
    }
    let start = skip_space(bytes, 0);
    let rest = bytes.get(start..).unwrap_or_default();
    (trim_end(rest), start)
}

/// The slice without linear white space at its end.
pub(crate) fn trim_end(bytes: &[u8]) -> &[u8] {
    let mut rest = bytes;
    while let Some((&last, before)) = rest.split_last()
        && is_space(last)
    {
        rest = before;
        while let Some((before, word)) = rest.split_last_chunk()
            && is_all_of(*word, *b" \t\r\n")
        {
            rest = before;
        }
    }
    rest
}

/// The first position at or after `from` that is not linear white space.
#[inline]
pub(crate) fn skip_space(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while bytes.get(at).is_some_and(|&byte| is_space(byte)) {
        at += 1;
        // Lines of only white space are skipped in larger steps.
        while let Some(word) = bytes.get(at..).and_then(<[u8]>::first_chunk)
            && is_all_of(*word, *b" \t\r\n")
        {
            at += word.len();
        }
    }
    at
}

/// The position after the quoted string that begins at `from`, with backslash escapes; `None` when it never ends.
pub(crate) fn skip_quoted(bytes: &[u8], from: usize) -> Option<usize> {
    // Byte by byte: a search that restarts after each backslash would cost a multiple if there are many.
    let mut at = from + 1;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
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
    fn long_space_ends_where_short_space_does() {
        for length in 0..40 {
            for space in [" ", "\t", "\r\n "] {
                let space: String = space.chars().cycle().take(length).collect();
                let text = format!("{space}a{space}");
                let (trimmed, cut) = trim(text.as_bytes());
                assert_eq!((trimmed, cut), (&b"a"[..], length));
                assert_eq!(trim_end(space.as_bytes()), b"");
                assert_eq!(skip_space(space.as_bytes(), 0), length);
            }
        }
        // Bytes that share bits with space are none.
        for byte in [0x00, 0x0b, 0x0c, 0x08, 0x1f, 0x21, 0xa0, 0x89, 0x8d] {
            let text = [byte; 20];
            assert_eq!(trim(&text), (&text[..], 0));
            assert_eq!(skip_space(&text, 0), 0);
            let mixed = [&b"         "[..], &text, b"         "].concat();
            assert_eq!(trim(&mixed), (&text[..], 9));
        }
    }

    #[test]
    fn trimming_takes_folds_away_and_counts_what_went_before() {
        assert_eq!(trim(b" \r\n\t a b \r\n "), (&b"a b"[..], 5));
        assert_eq!(trim(b" \r\n "), (&b""[..], 4));
        assert_eq!(trim(b""), (&b""[..], 0));
    }
}
