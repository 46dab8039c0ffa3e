//! Via (RFC 3261 §20.42), read in place.

use std::net::IpAddr;
use std::ops::Range;

use memchr::memchr2;
use thiserror::Error;

use crate::host::{Host, ip_address, port};
use crate::params::{Param, Params};
use crate::token::{is_space, is_token, skip_quoted, skip_space, trim_end};
use crate::uri::MOST_PARAMS;
use crate::words::has_more_than;

/// One Via value. Ranges are offsets into the slice that was parsed.
#[derive(Clone, Debug)]
pub struct Via<'a> {
    /// `SIP`
    pub protocol: &'a [u8],
    /// `2.0`
    pub version: &'a [u8],
    /// `UDP`, `TCP` or a transport of another hop.
    pub transport: &'a [u8],
    /// The host of sent-by.
    pub host: Host<'a>,
    /// The port of sent-by, 1 to 65535, if present.
    pub port: Option<u16>,
    /// Position of sent-by.
    pub sent_by: Range<usize>,
    /// All parameters, in order.
    pub params: Params<'a>,
    /// Position of the value, without surrounding white space: a parameter can be added at its end.
    pub range: Range<usize>,
    /// Start of the next value of the same header.
    pub next: Option<usize>,
    known: Known<'a>,
}

impl<'a> Via<'a> {
    /// Reads the first value of a Via header; the others begin at [`Via::next`].
    ///
    /// # Errors
    /// Why a proxy cannot send a response by it.
    pub fn parse(line: &'a [u8]) -> Result<Self, ViaError> {
        Self::parse_up_to(LONGEST, MOST_PARAMS, line)
    }

    /// The same for a value that comes back in a response. Its limits are higher by what the receiver of the request added to it: a value that
    /// was accepted in the request must not be too long for the response.
    ///
    /// # Errors
    /// As [`Via::parse`].
    pub fn parse_returned(line: &'a [u8]) -> Result<Self, ViaError> {
        Self::parse_up_to(LONGEST + ADDED, MOST_PARAMS + ADDED_PARAMS, line)
    }

    #[inline]
    fn parse_up_to(longest: usize, most_params: usize, line: &'a [u8]) -> Result<Self, ViaError> {
        // A line may have dozens of values; the cost of parsing one must not grow with the following ones.
        let value = line.get(..longest).unwrap_or(line);
        let is_cut = value.len() < line.len();
        let start = skip_space(value, 0);
        let Protocol {
            name: protocol,
            version,
            transport,
            end: at,
        } = Protocol::parse(value, start)?;

        let (host, length) = Host::prefix(&value[at..]).ok_or(ViaError::Host)?;
        let sent_by = at;
        let mut end = at + length;
        let mut number = None;
        let colon = skip_space(value, end);
        if value.get(colon) == Some(&b':') {
            let digits_at = skip_space(value, colon + 1);
            let digits = digits(&value[digits_at..]);
            number = Some(port(digits).ok_or(ViaError::Port)?);
            end = digits_at + digits.len();
        }

        let params_at = skip_space(value, end);
        let params_end = match value.get(params_at) {
            None | Some(b',') => params_at,
            Some(b';') => value_end(value, params_at)?,
            Some(_) => return Err(ViaError::Host),
        };
        if is_cut && params_end == value.len() {
            return Err(ViaError::Long);
        }
        let text = trim_end(&value[params_at..params_end]);
        if has_more_than(most_params, b';', text) {
            return Err(ViaError::Long);
        }
        let params = Params::of_header(text, params_at);
        Ok(Self {
            protocol,
            version,
            transport,
            host,
            port: number,
            sent_by: sent_by..end,
            known: Known::find(value, end, params.clone()),
            range: start..if text.is_empty() {
                end
            } else {
                params_at + text.len()
            },
            params,
            next: (params_end < value.len()).then(|| skip_space(line, params_end + 1)),
        })
    }

    /// Whether each semicolon is followed by a parameter; empty ones are skipped when parsing (RFC 4475 §3.1.2.1).
    pub(crate) fn has_no_empty_params(&self) -> bool {
        self.known.end == self.range.end
    }

    /// The transaction's name at the hop that wrote this Via.
    pub fn branch(&self) -> Option<&'a [u8]> {
        self.known.branch.as_ref()?.value
    }

    /// The branch, when it begins with the magic cookie of RFC 3261 (§8.1.1.7).
    pub fn rfc3261_branch(&self) -> Option<&'a [u8]> {
        let cookie = |branch: &&[u8]| {
            branch
                .get(..7)
                .is_some_and(|start| start.eq_ignore_ascii_case(MAGIC_COOKIE))
        };
        self.branch().filter(cookie)
    }

    /// The source address of the request, if its receiver recorded it (§18.2.1).
    pub fn received(&self) -> Option<IpAddr> {
        ip_address(self.known.received.as_ref()?.value?)
    }

    /// Position of `;received=…`.
    pub fn received_range(&self) -> Option<Range<usize>> {
        Some(self.known.received.as_ref()?.range.clone())
    }

    /// RFC 3581: `None` when not requested, `Some(None)` when requested and not filled in yet (an invalid port counts as that).
    pub fn rport(&self) -> Option<Option<u16>> {
        let rport = self.known.rport.as_ref()?;
        Some(rport.value.and_then(port))
    }

    /// Position of `;rport` or `;rport=…`.
    pub fn rport_range(&self) -> Option<Range<usize>> {
        Some(self.known.rport.as_ref()?.range.clone())
    }

    /// The host that responses go to instead of sent-by (§18.2.2).
    pub fn maddr(&self) -> Option<&'a [u8]> {
        self.known.maddr.as_ref()?.value
    }
}

/// The prefix of every RFC 3261 branch.
pub const MAGIC_COOKIE: &[u8] = b"z9hG4bK";

/// Why a Via value cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ViaError {
    /// Not `NAME/VERSION/TRANSPORT`.
    #[error("Via does not begin with SIP/2.0/TRANSPORT")]
    Protocol,
    /// No host, or an invalid one; IPv6 addresses need brackets.
    #[error("Via's sent-by is neither a name nor an address")]
    Host,
    /// Not a number from 1 to 65535.
    #[error("Via's port is not a number from 1 to 65535")]
    Port,
    /// A quoted string without end.
    #[error("a quoted string in Via has no end")]
    Quote,
    /// More than 1,024 bytes or 64 parameters up to the next value or the end.
    #[error("Via is longer than 1024 bytes or has more than {MOST_PARAMS} parameters")]
    Long,
}

/// Bytes of one value. Those of proxies with encrypted parameters have some 300.
const LONGEST: usize = 1_024;

/// The most bytes by which the receiver of a request lengthens the top Via (RFC 3261 §18.2.1, RFC 3581 §4); an IPv6 address has up to 39.
pub(crate) const ADDED: usize = ";rport=65535;received=".len() + 39;

/// The most parameters that it adds.
const ADDED_PARAMS: usize = 2;

/// The parameters used by a proxy; the first of each name counts.
#[derive(Clone, Debug, Default)]
struct Known<'a> {
    branch: Option<Param<'a>>,
    received: Option<Param<'a>>,
    rport: Option<Param<'a>>,
    maddr: Option<Param<'a>>,
    /// End of the last parameter, or of sent-by; 0 if an empty parameter was found.
    end: usize,
}

impl<'a> Known<'a> {
    #[inline]
    fn find(value: &[u8], sent_by_end: usize, params: Params<'a>) -> Self {
        let mut known = Self {
            end: sent_by_end,
            ..Self::default()
        };
        for param in params {
            let follows = skip_space(value, known.end) == param.range.start;
            known.end = if follows { param.range.end } else { 0 };
            let slot = match param.name.len() {
                6 if param.is("branch") => &mut known.branch,
                8 if param.is("received") => &mut known.received,
                5 if param.is("rport") => &mut known.rport,
                5 if param.is("maddr") => &mut known.maddr,
                _ => continue,
            };
            if slot.is_none() {
                *slot = Some(param);
            }
        }
        known
    }
}

/// The part before sent-by.
struct Protocol<'a> {
    name: &'a [u8],
    version: &'a [u8],
    transport: &'a [u8],
    /// Start of sent-by.
    end: usize,
}

impl<'a> Protocol<'a> {
    #[inline]
    fn parse(value: &'a [u8], start: usize) -> Result<Self, ViaError> {
        // The usual form of a Via.
        if let Some((plain, [next, ..])) = value.split_at_checked(start + 12)
            && matches!(
                &plain[start..],
                b"SIP/2.0/UDP " | b"SIP/2.0/TCP " | b"SIP/2.0/TLS "
            )
            && !is_space(*next)
        {
            return Ok(Self {
                name: &plain[start..start + 3],
                version: &plain[start + 4..start + 7],
                transport: &plain[start + 8..start + 11],
                end: start + 12,
            });
        }
        let (name, at) = token_before_slash(value, start)?;
        let (version, at) = token_before_slash(value, at)?;
        let (transport, end) = transport(value, at)?;
        Ok(Self {
            name,
            version,
            transport,
            end,
        })
    }
}

/// A token, white space, a slash and white space; returns where the next part begins.
fn token_before_slash(value: &[u8], at: usize) -> Result<(&[u8], usize), ViaError> {
    let (token, end) = token(value, at)?;
    let slash = skip_space(value, end);
    if value.get(slash) != Some(&b'/') {
        return Err(ViaError::Protocol);
    }
    Ok((token, skip_space(value, slash + 1)))
}

/// A token and at least one white space; returns where sent-by begins.
fn transport(value: &[u8], at: usize) -> Result<(&[u8], usize), ViaError> {
    let (token, end) = token(value, at)?;
    let next = skip_space(value, end);
    if next == end || next == value.len() {
        return Err(ViaError::Host);
    }
    Ok((token, next))
}

fn token(value: &[u8], at: usize) -> Result<(&[u8], usize), ViaError> {
    let rest = value.get(at..).unwrap_or_default();
    let is_end = |&byte: &u8| byte == b'/' || is_space(byte);
    let length = rest.iter().position(is_end).unwrap_or(rest.len());
    let token = &rest[..length];
    if !is_token(token) {
        return Err(ViaError::Protocol);
    }
    Ok((token, at + length))
}

/// The leading bytes that could be a port: up to the next delimiter.
fn digits(bytes: &[u8]) -> &[u8] {
    let is_end = |&byte: &u8| matches!(byte, b';' | b',') || is_space(byte);
    &bytes[..bytes.iter().position(is_end).unwrap_or(bytes.len())]
}

/// The end of the value whose parameters begin at `from`: a comma outside quotes, or the end.
fn value_end(value: &[u8], from: usize) -> Result<usize, ViaError> {
    let mut at = from;
    while let Some(found) = memchr2(b',', b'"', &value[at..]) {
        let found = at + found;
        if value[found] == b',' {
            return Ok(found);
        }
        at = skip_quoted(value, found).ok_or(ViaError::Quote)?;
    }
    Ok(value.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn via(text: &str) -> Via<'_> {
        Via::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn all_parts_are_found() {
        let text = "SIP/2.0/UDP client.example.com:5070;branch=z9hG4bK74bf9;received=192.0.2.4;rport=1024;ttl=1";
        let via = via(text);
        assert_eq!(
            (via.protocol, via.version, via.transport),
            (&b"SIP"[..], &b"2.0"[..], &b"UDP"[..])
        );
        assert_eq!(
            (via.host, via.port),
            (Host::Name(b"client.example.com"), Some(5070))
        );
        assert_eq!(&text[via.sent_by.clone()], "client.example.com:5070");
        assert_eq!(via.branch(), Some(&b"z9hG4bK74bf9"[..]));
        assert_eq!(via.rfc3261_branch(), via.branch());
        assert_eq!(via.received(), Some([192, 0, 2, 4].into()));
        assert_eq!(via.rport(), Some(Some(1024)));
        assert_eq!(&text[via.received_range().unwrap()], ";received=192.0.2.4");
        assert_eq!(&text[via.rport_range().unwrap()], ";rport=1024");
        assert_eq!((via.range, via.next), (0..text.len(), None));
    }

    #[test]
    fn folds_and_spaces_are_where_the_grammar_allows_them() {
        let text = "SIP  / 2.0  / TCP     spindle.example.com   ;\r\n  branch  =   z9hG4bK9ikj8  ,\r\n SIP  /    2.0   / UDP  192.168.255.111   ; branch=\r\n z9hG4bK30239";
        let first = via(text);
        assert_eq!(first.transport, b"TCP");
        assert_eq!(first.branch(), Some(&b"z9hG4bK9ikj8"[..]));
        let second = via(&text[first.next.unwrap()..]);
        assert_eq!(second.host.to_string(), "192.168.255.111");
        assert_eq!(second.branch(), Some(&b"z9hG4bK30239"[..]));
        assert_eq!(second.next, None);
    }

    #[test]
    fn commas_part_values_and_quotes_hide_them() {
        let text = r#"SIP/2.0/UDP a;x="1,2";rport, SIP/2.0/UDP b"#;
        let first = via(text);
        assert_eq!(&text[first.range.clone()], r#"SIP/2.0/UDP a;x="1,2";rport"#);
        assert_eq!(first.rport(), Some(None));
        assert_eq!(&text[first.next.unwrap()..], "SIP/2.0/UDP b");
        assert_eq!(via("SIP/2.0/UDP a;rport , b").range, 0..19);
        let bare = via("SIP/2.0/UDP a , SIP/2.0/UDP b");
        assert_eq!((bare.range, bare.next), (0..13, Some(16)));
    }

    #[test]
    fn ipv6_stands_in_brackets_but_in_received() {
        let via =
            via("SIP/2.0/UDP [2001:db8::9:1]:6060;received=2001:db8::9:255;branch=z9hG4bKas3-111");
        assert_eq!(
            (via.host.to_string(), via.port),
            ("[2001:db8::9:1]".into(), Some(6060))
        );
        assert_eq!(via.received(), Some("2001:db8::9:255".parse().unwrap()));
        assert_eq!(via.branch(), Some(&b"z9hG4bKas3-111"[..]));
    }

    #[test]
    fn old_and_empty_parameters_are_told_apart() {
        let old = via("SIP/2.0/UDP a;branch=1");
        assert_eq!(
            (old.branch(), old.rfc3261_branch()),
            (Some(&b"1"[..]), None)
        );
        let none = via("SIP/2.0/UDP a");
        assert_eq!(
            (none.branch(), none.received(), none.rport(), none.maddr()),
            (None, None, None, None)
        );
        assert_eq!(via("SIP/2.0/UDP a;rport=nonsense").rport(), Some(None));
        assert_eq!(
            via("SIP/2.0/UDP a;branch=1;branch=2").branch(),
            Some(&b"1"[..])
        );
        assert_eq!(
            via("SIP/2.0/UDP a;maddr=224.2.0.1").maddr(),
            Some(&b"224.2.0.1"[..])
        );
    }

    #[test]
    fn empty_parameters_are_noticed() {
        for text in [
            "SIP/2.0/UDP a",
            "SIP/2.0/UDP a ; b ;c=\";;\" , x",
            "SIP/2.0/UDP a:1;b",
        ] {
            assert!(via(text).has_no_empty_params(), "{text}");
        }
        for text in [
            "SIP/2.0/UDP a;",
            "SIP/2.0/UDP a;;b",
            "SIP/2.0/UDP a;b; ;c",
            "SIP/2.0/UDP a;b;",
            "SIP/2.0/UDP a;;,;,,",
        ] {
            assert!(!via(text).has_no_empty_params(), "{text}");
        }
    }

    #[test]
    fn a_value_has_an_end_and_a_line_of_many_is_read() {
        let value = |length: usize| {
            let start = "SIP/2.0/UDP a;x=";
            format!("{start}{}", "y".repeat(length - start.len()))
        };
        assert!(Via::parse(value(1_024).as_bytes()).is_ok());
        assert!(Via::parse_returned(value(1_024 + ADDED).as_bytes()).is_ok());
        let error = Via::parse_returned(value(1_025 + ADDED).as_bytes()).unwrap_err();
        assert_eq!(error, ViaError::Long);
        let params = |count| format!("SIP/2.0/UDP a{}", ";x".repeat(count));
        assert!(Via::parse(params(64).as_bytes()).is_ok());
        assert!(Via::parse_returned(params(66).as_bytes()).is_ok());
        let error = Via::parse_returned(params(67).as_bytes()).unwrap_err();
        assert_eq!(error, ViaError::Long);
        let error = |text: String| Via::parse(text.as_bytes()).unwrap_err();
        assert_eq!(error(value(1_025)), ViaError::Long);
        assert_eq!(error(params(65)), ViaError::Long);
        assert!(Via::parse(format!("SIP/2.0/UDP {}", "a".repeat(2_000)).as_bytes()).is_err());

        let line = vec!["SIP/2.0/UDP host.example;branch=z9hG4bK1"; 150].join(", ");
        let first = via(&line);
        assert_eq!(first.range, 0..40);
        assert_eq!(via(&line[first.next.unwrap()..]).range, 0..40);
    }

    #[test]
    fn each_fault_has_its_name() {
        for (text, error) in [
            ("", ViaError::Protocol),
            ("SIP/2.0", ViaError::Protocol),
            ("SIP//UDP a", ViaError::Protocol),
            ("SIP/2.0/UDP", ViaError::Host),
            ("SIP/2.0/UDP ", ViaError::Host),
            ("SIP/2.0/UDP ;branch=1", ViaError::Host),
            ("SIP/2.0/UDP a b", ViaError::Host),
            ("SIP/2.0/UDP 2001:db8::1", ViaError::Port),
            ("SIP/2.0/UDP a:", ViaError::Port),
            ("SIP/2.0/UDP a:70000;rport", ViaError::Port),
            ("SIP/2.0/UDP a;x=\"", ViaError::Quote),
        ] {
            assert_eq!(Via::parse(text.as_bytes()).unwrap_err(), error, "{text:?}");
        }
    }
}
