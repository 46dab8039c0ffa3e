//! From, To, Contact, Route and similar header fields (RFC 3261 §20.10, §25.1), read in place.

use std::ops::Range;

use memchr::memchr;
use thiserror::Error;

use crate::params::Params;
use crate::token::{skip_quoted, skip_space, trim};
use crate::uri::{MOST_PARAMS, is_readable_uri, scheme_name};
use crate::words::{find_any, has_more_than};

/// `"Display" <uri>;params` or `uri;params`. Ranges are offsets into the slice that was parsed.
#[derive(Clone, Debug)]
pub struct NameAddr<'a> {
    /// As received, including quotes.
    pub display: Option<&'a [u8]>,
    /// The URI, unparsed.
    pub uri: &'a [u8],
    /// Position of the URI.
    pub uri_range: Range<usize>,
    /// Whether the URI is in angle brackets; without them, its parameters belong to the header field.
    pub bracketed: bool,
    /// The parameters of the header field, not of the URI.
    pub params: Params<'a>,
}

impl<'a> NameAddr<'a> {
    /// Reads one value; a header with several is split by [`values`](crate::values) first.
    ///
    /// A display name before an angle bracket is one quoted string, or words, which need not be tokens. The URI itself is not
    /// parsed: see [`NameAddr::of_party`].
    ///
    /// # Errors
    /// If the position of the URI or of the parameters is ambiguous.
    pub fn parse(value: &'a [u8]) -> Result<Self, NameAddrError> {
        let start = match display_end(value)? {
            DisplayEnd::Bracket(at) => return Self::bracketed(value, at),
            DisplayEnd::None(params) => params,
        };
        let (uri, cut) = trim(&value[..start]);
        if uri.is_empty() {
            return Err(NameAddrError::Empty);
        }
        if holds_another_value(uri, 1) {
            return Err(NameAddrError::Values);
        }
        Ok(Self {
            display: None,
            uri,
            uri_range: cut..cut + uri.len(),
            bracketed: false,
            params: params(value, start)?,
        })
    }

    /// Reads the value of From or To: exactly one address, with a URI that [can be parsed](is_readable_uri). Rules about callers match this
    /// URI, so a value that other parsers could understand differently is refused.
    ///
    /// # Errors
    /// Those of [`NameAddr::parse`], [`NameAddrError::Long`] and [`NameAddrError::Uri`].
    pub fn of_party(value: &'a [u8]) -> Result<Self, NameAddrError> {
        if value.len() > LONGEST_PARTY {
            return Err(NameAddrError::Long);
        }
        let address = Self::parse(value)?;
        // Some parsers stop at a zero byte.
        if memchr(0, value).is_some() || !is_readable_uri(address.uri) {
            return Err(NameAddrError::Uri);
        }
        Ok(address)
    }

    /// The `tag` of From and To (§19.3).
    pub fn tag(&self) -> Option<&'a [u8]> {
        self.params.named("tag")?.value
    }

    /// Blanks between the brackets and the URI are skipped, as Kamailio does.
    fn bracketed(value: &'a [u8], bracket: usize) -> Result<Self, NameAddrError> {
        let inside = bracket + 1;
        let length = memchr(b'>', &value[inside..]).ok_or(NameAddrError::Bracket)?;
        let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
        let within = &value[inside..inside + length];
        let cut = within.iter().take_while(|byte| is_blank(byte)).count();
        let behind = within
            .iter()
            .rev()
            .take_while(|byte| is_blank(byte))
            .count();
        let uri_range = inside + cut..(inside + length).saturating_sub(behind);
        let uri = value.get(uri_range.clone()).unwrap_or_default();
        if uri.is_empty() {
            return Err(NameAddrError::Empty);
        }
        let (display, _) = trim(&value[..bracket]);
        Ok(Self {
            display: (!display.is_empty()).then_some(display),
            uri,
            uri_range,
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
    /// A display name that is not followed by a URI in angle brackets, or that is neither a quoted string nor words.
    #[error("the display name is not followed by a URI in angle brackets")]
    Display,
    /// More than one value.
    #[error("there are several values")]
    Values,
    /// Bytes after the URI that are not a parameter.
    #[error("the URI is followed by something other than parameters")]
    Trailing,
    /// More parameters than the limit.
    #[error("there are more than {MOST_PARAMS} parameters")]
    Params,
    /// No scheme, a character that is invalid in a URI, or the error of a SIP URI.
    #[error("the URI cannot be read")]
    Uri,
    /// Longer than the limit for From and To.
    #[error("the value is longer than {LONGEST_PARTY} bytes")]
    Long,
}

/// Longest From or To, in bytes. They are parsed and hashed several times for one request.
const LONGEST_PARTY: usize = 2_048;

enum DisplayEnd {
    /// Position of `<`.
    Bracket(usize),
    /// There is no `<`; the parameters begin here.
    None(usize),
}

fn display_end(value: &[u8]) -> Result<DisplayEnd, NameAddrError> {
    let start = skip_space(value, 0);
    if value.get(start) == Some(&b'"') {
        let behind = skip_quoted(value, start).ok_or(NameAddrError::Quote)?;
        let bracket = skip_space(value, behind);
        return match value.get(bracket) {
            Some(b'<') => Ok(DisplayEnd::Bracket(bracket)),
            _ => Err(NameAddrError::Display),
        };
    }
    let Some(found) = find_any(value, *b"<;\">") else {
        return Ok(DisplayEnd::None(value.len()));
    };
    match value[found] {
        b'<' if holds_another_value(&value[..found], 0) => Err(NameAddrError::Values),
        b'<' => Ok(DisplayEnd::Bracket(found)),
        b';' => Ok(DisplayEnd::None(found)),
        _ => Err(NameAddrError::Display),
    }
}

/// Whether one of the parts between commas, except the first `skip`, begins like a URI: a parser that takes the comma for the end of a
/// value would find a different address.
fn holds_another_value(text: &[u8], skip: usize) -> bool {
    let begins_uri = |part: &[u8]| scheme_name(trim(part).0).is_some();
    has_more_than(MOST_COMMAS, b',', text)
        || text.split(|&byte| byte == b',').skip(skip).any(begins_uri)
}

/// The parameters after the URI: commas and angle brackets are allowed there only within quotes.
fn params(value: &[u8], from: usize) -> Result<Params<'_>, NameAddrError> {
    let start = skip_space(value, from);
    let text = value.get(start..).unwrap_or_default();
    match text.first() {
        None => return Ok(Params::of_header(text, start)),
        Some(b';') => {}
        Some(b',') => return Err(NameAddrError::Values),
        Some(_) => return Err(NameAddrError::Trailing),
    }
    if has_more_than(MOST_PARAMS, b';', text) {
        return Err(NameAddrError::Params);
    }
    let mut at = 0;
    let mut quoted = 0;
    while let Some(found) = find_any(&text[at..], *b"\",<>") {
        let found = at + found;
        match text[found] {
            b'"' if quoted == MOST_PARAMS => return Err(NameAddrError::Params),
            b'"' => at = skip_quoted(text, found).ok_or(NameAddrError::Quote)?,
            b',' => return Err(NameAddrError::Values),
            _ => return Err(NameAddrError::Trailing),
        }
        quoted += 1;
    }
    Ok(Params::of_header(text, start))
}

/// Commas in a display name or in a URI without brackets; a name has one or two.
const MOST_COMMAS: usize = 16;

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
            ("<sip:a>, <sip:b>", NameAddrError::Values),
            ("<sip:a>;tag=1, <sip:b>", NameAddrError::Values),
            ("<sip:a>;tag=1 <sip:b>", NameAddrError::Trailing),
            ("sip:a@b, <sip:c>", NameAddrError::Values),
            ("sip:a,sip:b@c", NameAddrError::Values),
            ("\"sip:a\"", NameAddrError::Display),
            ("\"x\" sip:a", NameAddrError::Display),
            ("\"x\" y <sip:a>", NameAddrError::Display),
            ("y \"x\" <sip:a>", NameAddrError::Display),
            ("a> <sip:b>", NameAddrError::Display),
            ("sip:a>", NameAddrError::Display),
            ("<>>", NameAddrError::Empty),
            ("< >", NameAddrError::Empty),
        ] {
            assert_eq!(
                NameAddr::parse(text.as_bytes()).unwrap_err(),
                error,
                "{text:?}"
            );
        }
    }

    /// Forms of From and To, and the URI that they have. Kamailio 5.6 reads the same and refuses the same, but where it is noted.
    #[test]
    fn a_party_has_one_readable_uri() {
        for (value, uri) in [
            ("<sip:m@e.com>", "sip:m@e.com"),
            ("sip:m@e.com;tag=1", "sip:m@e.com"),
            ("< sip:m@e.com\t>", "sip:m@e.com"),
            ("sip:LAST,%20FIRST@e.com", "sip:LAST,%20FIRST@e.com"),
            ("Jane<sip:m@e.com>", "sip:m@e.com"),
            ("\"J\"<sip:m@e.com>", "sip:m@e.com"),
            ("\"\" <sip:m@e.com>;epid=1;tag=2", "sip:m@e.com"),
            ("M\u{fc}ller <sip:m@e.com>", "sip:m@e.com"),
            ("Bell, A <sip:m@e.com>", "sip:m@e.com"),
            ("a@b <sip:m@e.com>", "sip:m@e.com"),
            ("\"a <sip:x@y>\" <sip:m@e.com>", "sip:m@e.com"),
            ("\"a\\\\\" <sip:m@e.com>", "sip:m@e.com"),
            ("\r\n <sip:m@e.com>", "sip:m@e.com"),
            ("<sip:1@0fb38bfd0a0d>", "sip:1@0fb38bfd0a0d"),
            ("<sip:#123@e.com>", "sip:#123@e.com"),
            ("<tel:+1>", "tel:+1"),
            ("urn:service:sos", "urn:service:sos"),
            ("<sip:m@e.com>;a=\"x,<y>\"", "sip:m@e.com"),
            // Kamailio's sanity check knows no other scheme.
            ("<http://e.com/>", "http://e.com/"),
        ] {
            let read = NameAddr::of_party(value.as_bytes());
            assert_eq!(read.unwrap().uri, uri.as_bytes(), "{value:?}");
        }
        for value in [
            "x sip:m@e.com",
            "\"x\" sip:m@e.com",
            "<sip: m@e.com>",
            "<sip :m@e.com>",
            "<sip:m @e.com>",
            "<sip:m\0@e.com>",
            "<\r\n sip:m@e.com>",
            "<sip:m@e.com>;t\0g=1",
            "\"a\0\" <sip:m@e.com>",
            "a;b <sip:m@e.com>",
            "\"sip:m@e.com\"",
            "sip:b@e.com,sip:m@e.com",
            "sip:b@e.com, sip:m@e.com",
            "<sip:@e.com>",
            "<sip:m@e.com:70000>",
            "<sip:m@2001:db8::1>",
            "<sip:>",
            "<sip:m@>",
            "<m@e.com>",
            "m@e.com",
            "*",
            "",
            "<sip:m@n@e.com>",
            "<sip:m\"@e.com>",
            "<sip:m<@e.com>",
            "<<sip:m@e.com>>",
            "<sip:m@e.com> x",
            "<sip:m@e.com>,",
            // Kamailio reads these; a lax reader would find another address in them.
            "sip:x@y <sip:m@e.com>",
            "sip:a,sip:m@e.com",
            "<sip:m@e.com>;a=<x>",
        ] {
            assert!(NameAddr::of_party(value.as_bytes()).is_err(), "{value:?}");
        }
    }

    #[test]
    fn parameters_have_an_end() {
        for (part, most) in [(";x", 64), (";y=\"a,b\"", 64)] {
            let value = |count| format!("<sip:a@b>{}", part.repeat(count));
            assert!(NameAddr::parse(value(most).as_bytes()).is_ok());
            assert_eq!(
                NameAddr::parse(value(most + 1).as_bytes()).unwrap_err(),
                NameAddrError::Params
            );
        }
        let quotes = format!("<sip:a@b>;x={}", "\"\"".repeat(65));
        assert!(NameAddr::parse(quotes.as_bytes()).is_err());
    }
}
