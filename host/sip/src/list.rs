//! Comma-separated header values (RFC 3261 §7.3.1).

use std::ops::Range;

use memchr::{memchr, memchr3};

use crate::token::{skip_quoted, trim};

/// The values of one header line, in order: separated by commas outside quotes and angle brackets.
/// Empty values are skipped. A quote or bracket without end extends to the end of the line; reading
/// that value then fails.
pub fn values(line: &[u8]) -> Values<'_> {
    Values { line, at: 0 }
}

/// Whether a header line has an empty value, as `, a`, `a,` and an empty line do. The grammar does not allow it (RFC 3261 §25.1), and some
/// parsers, including Kamailio's, reject such a line.
pub fn holds_empty(line: &[u8]) -> bool {
    let mut at = 0;
    loop {
        let comma = comma(line, at);
        if trim(&line[at..comma]).0.is_empty() {
            return true;
        }
        at = comma + 1;
        if comma == line.len() {
            return false;
        }
    }
}

/// See [`values`].
#[derive(Clone, Debug)]
pub struct Values<'a> {
    line: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Values<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        while self.at < self.line.len() {
            let start = self.at;
            let comma = comma(self.line, start);
            self.at = comma + 1;
            let (bytes, cut) = trim(&self.line[start..comma]);
            if !bytes.is_empty() {
                let start = start + cut;
                return Some(Value {
                    bytes,
                    range: start..start + bytes.len(),
                });
            }
        }
        None
    }
}

/// One value of a header line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value<'a> {
    /// Without white space at its ends.
    pub bytes: &'a [u8],
    /// Position of `bytes` in the line that was split.
    pub range: Range<usize>,
}

/// The next comma that separates values, or the end.
fn comma(line: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(rest) = line.get(at..) {
        let Some(found) = memchr3(b',', b'"', b'<', rest).map(|found| at + found) else {
            break;
        };
        let behind = match line[found] {
            b',' => return found,
            b'"' => skip_quoted(line, found),
            _ => memchr(b'>', &line[found..]).map(|length| found + length + 1),
        };
        let Some(behind) = behind else {
            break;
        };
        at = behind;
    }
    line.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> Vec<&str> {
        values(line.as_bytes())
            .map(|value| {
                assert_eq!(&line.as_bytes()[value.range.clone()], value.bytes);
                std::str::from_utf8(value.bytes).unwrap()
            })
            .collect()
    }

    #[test]
    fn commas_part_and_quotes_and_brackets_hide() {
        assert_eq!(
            split("<sip:a;x=1,2>,\r\n <sip:b>"),
            ["<sip:a;x=1,2>", "<sip:b>"]
        );
        assert_eq!(
            split(r#""A, \"B" <sip:a> , c"#),
            [r#""A, \"B" <sip:a>"#, "c"]
        );
        assert_eq!(split("100rel"), ["100rel"]);
    }

    #[test]
    fn empty_values_are_passed_over() {
        assert_eq!(split(" , a,,b ,"), ["a", "b"]);
        assert!(split("").is_empty());
        assert!(split(" ,, ").is_empty());
    }

    #[test]
    fn empty_values_are_found() {
        for line in ["", " ", ",", ",*", "a,", "a, ,b", "<a,b>,\r\n "] {
            assert!(holds_empty(line.as_bytes()), "{line:?}");
        }
        for line in ["*", "a,b", "<,>", "\",,\" <a>", " a , b "] {
            assert!(!holds_empty(line.as_bytes()), "{line:?}");
        }
    }

    #[test]
    fn what_has_no_end_takes_the_rest() {
        assert_eq!(split("a, \"b, c"), ["a", "\"b, c"]);
        assert_eq!(split("a, <b, c"), ["a", "<b, c"]);
    }
}
