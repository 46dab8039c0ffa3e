//! From, To, Contact, Route and their like (RFC 3261 §20.10, §25.1), read in place.

use std::ops::Range;

use memchr::{memchr, memchr3};
use thiserror::Error;

use crate::params::Params;
use crate::token::{skip_quoted, skip_space, trim};

/// `"Display" <uri>;params` or `uri;params`. Ranges are offsets into the slice that was parsed.
#[derive(Clone, Debug)]
pub struct NameAddr<'a> {
    /// As it stands there, quotes included.
    pub display: Option<&'a [u8]>,
    /// The URI, unread.
    pub uri: &'a [u8],
    /// Where the URI stands.
    pub uri_range: Range<usize>,
    /// Whether the URI stands in angle brackets; without, its parameters are the header's.
    pub bracketed: bool,
    /// The header's parameters, not the URI's.
    pub params: Params<'a>,
}

impl<'a> NameAddr<'a> {
    /// Reads one value; a header with several is split by [`values`](crate::values) first.
    ///
    /// # Errors
    /// What leaves open where the URI or the parameters are.
    pub fn parse(value: &'a [u8]) -> Result<Self, NameAddrError> {
        let start = match display_end(value)? {
            DisplayEnd::Bracket(at) => return Self::bracketed(value, at),
            DisplayEnd::None(params) => params,
        };
        let (uri, cut) = trim(&value[..start]);
        if uri.is_empty() {
            return Err(NameAddrError::Empty);
        }
        Ok(Self {
            display: None,
            uri,
            uri_range: cut..cut + uri.len(),
            bracketed: false,
            params: params(value, start)?,
        })
    }

    /// The `tag` of From and To (§19.3).
    pub fn tag(&self) -> Option<&'a [u8]> {
        self.params.named("tag")?.value
    }

    fn bracketed(value: &'a [u8], bracket: usize) -> Result<Self, NameAddrError> {
        let inside = bracket + 1;
        let length = memchr(b'>', &value[inside..]).ok_or(NameAddrError::Bracket)?;
        let uri = &value[inside..inside + length];
        if uri.is_empty() {
            return Err(NameAddrError::Empty);
        }
        let (display, _) = trim(&value[..bracket]);
        Ok(Self {
            display: (!display.is_empty()).then_some(display),
            uri,
            uri_range: inside..inside + length,
            bracketed: true,
            params: params(value, inside + length + 1)?,
        })
    }
}

/// Why a value cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NameAddrError {
    /// No URI.
    #[error("there is no URI")]
    Empty,
    /// A quoted string without end (RFC 4475 §3.1.2.6).
    #[error("a quoted string has no end")]
    Quote,
    /// `<` without `>`.
    #[error("an angle bracket is not closed")]
    Bracket,
    /// Something behind the URI that is no parameter.
    #[error("something other than parameters stands behind the URI")]
    Trailing,
}

enum DisplayEnd {
    /// The place of `<`.
    Bracket(usize),
    /// There is no `<`; the parameters begin here.
    None(usize),
}

fn display_end(value: &[u8]) -> Result<DisplayEnd, NameAddrError> {
    let mut at = 0;
    while let Some(found) = memchr3(b'<', b'"', b';', &value[at..]) {
        let found = at + found;
        match value[found] {
            b'<' => return Ok(DisplayEnd::Bracket(found)),
            b';' => return Ok(DisplayEnd::None(found)),
            _ => at = skip_quoted(value, found).ok_or(NameAddrError::Quote)?,
        }
    }
    Ok(DisplayEnd::None(value.len()))
}

fn params(value: &[u8], from: usize) -> Result<Params<'_>, NameAddrError> {
    let start = skip_space(value, from);
    let text = value.get(start..).unwrap_or_default();
    if !matches!(text.first(), None | Some(b';')) {
        return Err(NameAddrError::Trailing);
    }
    let mut at = 0;
    while let Some(quote) = memchr(b'"', &text[at..]) {
        at = skip_quoted(text, at + quote).ok_or(NameAddrError::Quote)?;
    }
    Ok(Params::of_header(text, start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> NameAddr<'_> {
        NameAddr::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn both_forms_give_uri_and_tag() {
        let text = r#""J <Rosenberg> \"" <sip:jdrosen@example.com;lr>;tag=98asjd8;x="a;b""#;
        let full = parse(text);
        assert_eq!(full.display, Some(&br#""J <Rosenberg> \"""#[..]));
        assert_eq!(full.uri, b"sip:jdrosen@example.com;lr");
        assert_eq!(&text.as_bytes()[full.uri_range.clone()], full.uri);
        assert_eq!(full.tag(), Some(&b"98asjd8"[..]));
        assert!(full.bracketed);

        let bare = parse("sip:c8oqz84zk7z@privacy.org ; TAG    = hyh8");
        assert_eq!((bare.display, bare.bracketed), (None, false));
        assert_eq!(bare.uri, b"sip:c8oqz84zk7z@privacy.org");
        assert_eq!(bare.uri_range, 0..27);
        assert_eq!(bare.tag(), Some(&b"hyh8"[..]));
    }

    #[test]
    fn tokens_may_be_a_display_name() {
        let value = parse("I have a user name <sip:a@b>");
        assert_eq!(value.display, Some(&b"I have a user name"[..]));
        assert_eq!(value.tag(), None);
        assert_eq!(parse("*").uri, b"*");
        assert_eq!(parse("<sip:a>").display, None);
    }

    #[test]
    fn a_parameter_keeps_its_place() {
        let text = "<sip:a> ;tag=1";
        assert_eq!(
            &text[parse(text).params.named("tag").unwrap().range],
            ";tag=1"
        );
    }

    #[test]
    fn each_fault_has_its_name() {
        for (text, error) in [
            ("", NameAddrError::Empty),
            (" ;tag=1", NameAddrError::Empty),
            ("<>", NameAddrError::Empty),
            (
                "\"Mr. J. User <sip:j.user@example.com>",
                NameAddrError::Quote,
            ),
            ("<sip:a>;x=\"", NameAddrError::Quote),
            ("<sip:a", NameAddrError::Bracket),
            ("<sip:a> b", NameAddrError::Trailing),
            ("<sip:a>, <sip:b>", NameAddrError::Trailing),
        ] {
            assert_eq!(
                NameAddr::parse(text.as_bytes()).unwrap_err(),
                error,
                "{text:?}"
            );
        }
    }
}
