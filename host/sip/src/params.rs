//! Parameters after semicolons, in URIs (RFC 3261 §19.1.1) and in header fields (§7.3.1).

use std::ops::Range;

use crate::token::{skip_quoted, skip_space, trim};
use crate::words::find_any;

/// `;name=value` with space allowed around name and value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param<'a> {
    /// Compare it case-insensitively.
    pub name: &'a [u8],
    /// The value as received, with quotes; `None` without an equals sign.
    pub value: Option<&'a [u8]>,
    /// From the semicolon to the end of the value, in the slice that was parsed.
    pub range: Range<usize>,
}

impl<'a> Param<'a> {
    /// Whether this is the parameter with that name.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// Parses trimmed text whose equals sign, if it has one, is at `equals`.
    #[inline]
    fn read(text: &'a [u8], equals: Option<usize>, range: Range<usize>) -> Self {
        let (name, value) = match equals.and_then(|at| text.split_at_checked(at)) {
            Some((name, value)) => (name, Some(trim(&value[1..]).0)),
            None => (text, None),
        };
        Self {
            name: trim(name).0,
            value,
            range,
        }
    }
}

/// The parameters of one URI or one header value, in order. Empty parameters are skipped.
#[derive(Clone, Debug)]
pub struct Params<'a> {
    /// From the first semicolon to the end of the last parameter.
    text: &'a [u8],
    /// Position of `text` in the slice that was parsed.
    base: usize,
    at: usize,
    quotes: bool,
}

impl<'a> Params<'a> {
    /// The first parameter with this name, compared case-insensitively.
    pub fn named(&self, name: &str) -> Option<Param<'a>> {
        self.clone().find(|param| param.is(name))
    }

    /// Whether there are no parameters.
    pub fn is_empty(&self) -> bool {
        self.clone().next().is_none()
    }

    /// Parameters of a URI, where quotes have no meaning.
    pub(crate) fn of_uri(text: &'a [u8], base: usize) -> Self {
        Self {
            text,
            base,
            at: 0,
            quotes: false,
        }
    }

    /// Parameters of a header, whose values may be quoted strings.
    pub(crate) fn of_header(text: &'a [u8], base: usize) -> Self {
        Self {
            quotes: true,
            ..Self::of_uri(text, base)
        }
    }

    /// The end of the parameter that begins at `from`, a semicolon outside quotes or the end, and its first equals sign.
    #[inline]
    fn end(&self, from: usize) -> (usize, Option<usize>) {
        let mut equals = None;
        let mut at = from;
        while let Some(rest) = self.text.get(at..) {
            let next = match equals {
                None => find_any(rest, *b"=;\""),
                Some(_) => find_any(rest, *b";\""),
            };
            let Some(found) = next.map(|next| at + next) else {
                break;
            };
            at = match self.text[found] {
                b';' => return (found, equals),
                b'"' if self.quotes => match skip_quoted(self.text, found) {
                    Some(behind) => behind,
                    None => break,
                },
                b'=' => {
                    equals = Some(found);
                    found + 1
                }
                _ => found + 1,
            };
        }
        (self.text.len(), equals)
    }
}

impl<'a> Iterator for Params<'a> {
    type Item = Param<'a>;

    #[inline]
    fn next(&mut self) -> Option<Param<'a>> {
        loop {
            let semicolon = skip_space(self.text, self.at);
            if self.text.get(semicolon) != Some(&b';') {
                return None;
            }
            let (end, equals) = self.end(semicolon + 1);
            self.at = end;
            let raw = self.text.get(semicolon + 1..end).unwrap_or_default();
            let (text, cut) = trim(raw);
            if text.is_empty() {
                continue;
            }
            let start = semicolon + 1 + cut;
            return Some(Param::read(
                text,
                equals.map(|equals| equals - start),
                self.base + semicolon..self.base + start + text.len(),
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<'a>(params: &Params<'a>) -> Vec<(&'a str, Option<&'a str>)> {
        let text = |bytes| std::str::from_utf8(bytes).unwrap();
        params
            .clone()
            .map(|param| (text(param.name), param.value.map(text)))
            .collect()
    }

    #[test]
    fn names_values_and_their_places_are_found() {
        let text = b";branch=z9hG4bK1;rport ; received = [::1]\r\n ;;lr=";
        let params = Params::of_header(text, 0);
        assert_eq!(
            read(&params),
            [
                ("branch", Some("z9hG4bK1")),
                ("rport", None),
                ("received", Some("[::1]")),
                ("lr", Some("")),
            ]
        );
        let rport = params.named("RPORT").unwrap();
        assert_eq!(&text[rport.range], b";rport");
        let received = params.named("received").unwrap();
        assert_eq!(&text[received.range], b"; received = [::1]");
    }

    #[test]
    fn quotes_hide_semicolons_in_headers_and_not_in_uris() {
        let text = br#";a="x;\"y=;";b"#;
        let header = Params::of_header(text, 0);
        assert_eq!(read(&header), [("a", Some(r#""x;\"y=;""#)), ("b", None)]);
        let uri = Params::of_uri(br#";a="x;b"#, 0);
        assert_eq!(read(&uri), [("a", Some("\"x")), ("b", None)]);
    }

    #[test]
    fn an_open_quote_takes_the_rest() {
        let params = Params::of_header(br#";a="x;b"#, 0);
        assert_eq!(read(&params), [("a", Some("\"x;b"))]);
    }

    #[test]
    fn ranges_count_from_the_slice_that_was_parsed() {
        let param = Params::of_uri(b";lr", 10).next().unwrap();
        assert_eq!(param.range, 10..13);
        assert!(Params::of_uri(b"", 3).is_empty());
    }
}
