//! SIP and SIPS URIs (RFC 3261 §19.1), read in place.

use std::ops::Range;

use memchr::memchr;
use thiserror::Error;

use crate::arrival::Transport;
use crate::host::{Host, port};
use crate::params::Params;
use crate::words::{find_any, has_control_or, has_more_than};

/// A SIP or SIPS URI. Escapes are left as they are.
#[derive(Clone, Debug)]
pub struct Uri<'a> {
    /// `sip` or `sips`.
    pub scheme: Scheme,
    /// The part before `@`, without the password.
    pub user: Option<&'a [u8]>,
    /// The part after the first colon before `@`.
    pub password: Option<&'a [u8]>,
    /// The host.
    pub host: Host<'a>,
    /// 1 to 65535, if present.
    pub port: Option<u16>,
    /// Position of host and port in the URI.
    pub host_range: Range<usize>,
    /// After the first semicolon following the host.
    pub params: Params<'a>,
    /// After the question mark.
    pub headers: Option<&'a [u8]>,
}

impl<'a> Uri<'a> {
    /// Reads a URI that fills the slice.
    ///
    /// # Errors
    /// Why a proxy cannot use it; [`UriError::Scheme`] for every other scheme.
    pub fn parse(uri: &'a [u8]) -> Result<Self, UriError> {
        let (scheme, start) = Scheme::prefix(uri)?;
        if has_forbidden(uri) {
            return Err(UriError::Character);
        }

        let userinfo = find_any(&uri[start..], *b"@").map(|length| &uri[start..start + length]);
        let (user, password) = userinfo.map_or((None, None), split_user);
        if user.is_some_and(<[u8]>::is_empty) {
            return Err(UriError::User);
        }
        // No escaping makes these part of a user (RFC 3261 §25.1), and a parser that unescapes `\` would read a different user.
        if userinfo.is_some_and(|userinfo| find_any(userinfo, *b"\\[]").is_some()) {
            return Err(UriError::Character);
        }
        let host_start = start + userinfo.map_or(0, |userinfo| userinfo.len() + 1);
        let (host, length) = Host::prefix(&uri[host_start..]).ok_or(UriError::Host)?;
        let mut end = host_start + length;
        let mut number = None;
        if uri.get(end) == Some(&b':') {
            let digits = digits(&uri[end + 1..]);
            number = Some(port(digits).ok_or(UriError::Port)?);
            end += 1 + digits.len();
        }

        let host_range = host_start..end;
        let tail = &uri[end..];
        if !matches!(tail.first(), None | Some(b';' | b'?')) {
            return Err(UriError::Host);
        }
        let question = find_any(tail, *b"?");
        let params = &tail[..question.unwrap_or(tail.len())];
        if has_more_than(MOST_PARAMS, b';', params) {
            return Err(UriError::Params);
        }
        Ok(Self {
            scheme,
            user,
            password,
            host,
            port: number,
            host_range,
            params: Params::of_uri(params, end),
            headers: question.map(|at| &tail[at + 1..]),
        })
    }

    /// The port to use: the explicit one, otherwise that of transport and scheme (RFC 3261 §19.1.2).
    pub fn port_or_default(&self) -> u16 {
        self.port.unwrap_or_else(|| {
            let of_scheme = self.scheme.default_port();
            let transport = self.known_transport();
            transport.map_or(of_scheme, Transport::default_port)
        })
    }

    /// `lr`: the element is a loose router (RFC 3261 §19.1.1). Some write `lr=on`.
    pub fn is_loose_router(&self) -> bool {
        self.params.named("lr").is_some()
    }

    /// The `transport` parameter as received.
    pub fn transport(&self) -> Option<&'a [u8]> {
        self.params.named("transport")?.value
    }

    /// The transport to use: the explicit one, otherwise UDP. For a `sips` URI it is TLS, which TCP means there (RFC 3261 §26.2.2). `None`
    /// for a transport that this host does not support, or that has no TLS.
    pub fn known_transport(&self) -> Option<Transport> {
        let named = self.transport().map(Transport::from_token);
        match self.scheme {
            Scheme::Sip => named.unwrap_or(Some(Transport::Udp)),
            Scheme::Sips => match named.unwrap_or(Some(Transport::Tls))? {
                Transport::Udp => None,
                Transport::Tcp | Transport::Tls => Some(Transport::Tls),
                Transport::Ws | Transport::Wss => Some(Transport::Wss),
            },
        }
    }

    /// The `maddr` parameter: the host to send to instead of the URI's own.
    pub fn maddr(&self) -> Option<&'a [u8]> {
        self.params.named("maddr")?.value
    }
}

/// The schemes of [`Uri`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `sip:`
    Sip,
    /// `sips:`
    Sips,
}

impl Scheme {
    /// 5060, or 5061 for `sips`.
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Sip => 5060,
            Self::Sips => 5061,
        }
    }

    /// The scheme and its end, including the colon.
    fn prefix(uri: &[u8]) -> Result<(Self, usize), UriError> {
        // Nearly every one.
        if let Some(start) = uri.first_chunk::<4>()
            && start.eq_ignore_ascii_case(b"sip:")
        {
            return Ok((Self::Sip, start.len()));
        }
        let name = scheme_name(uri).ok_or(UriError::NoScheme)?;
        if name.eq_ignore_ascii_case(b"sip") {
            return Ok((Self::Sip, name.len() + 1));
        }
        if name.eq_ignore_ascii_case(b"sips") {
            return Ok((Self::Sips, name.len() + 1));
        }
        Err(UriError::Scheme)
    }
}

/// The scheme of any URI, without the colon; `None` when there is none.
pub fn scheme_name(uri: &[u8]) -> Option<&[u8]> {
    let near = uri.get(..=LONGEST_SCHEME).unwrap_or(uri);
    let name = near.get(..memchr(b':', near)?)?;
    let is_later = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
    (name.first()?.is_ascii_alphabetic() && name.iter().all(is_later)).then_some(name)
}

/// Whether the URI is unambiguous: [`Uri::parse`] accepts it, or it has another scheme, at least one character after the colon, and no
/// space, control characters, quotes or angle brackets.
pub fn is_readable_uri(uri: &[u8]) -> bool {
    match Uri::parse(uri) {
        Err(UriError::Scheme) => is_other_uri(uri),
        read => read.is_ok(),
    }
}

/// Whether the scheme of a URI is `sips`.
pub fn is_sips(uri: &[u8]) -> bool {
    uri.first_chunk::<5>()
        .is_some_and(|start| start.eq_ignore_ascii_case(b"sips:"))
}

/// Whether this is a URI of a scheme other than `sip` and `sips`, such as `tel`: it names no host, but a next hop may accept it.
pub(crate) fn is_other_uri(uri: &[u8]) -> bool {
    let has_more = |scheme: &[u8]| uri.len() > scheme.len() + 1;
    matches!(Scheme::prefix(uri), Err(UriError::Scheme))
        && scheme_name(uri).is_some_and(has_more)
        && !has_forbidden(uri)
}

/// Space, control characters, quotes and angle brackets, which no URI contains.
fn has_forbidden(uri: &[u8]) -> bool {
    has_control_or(uri, *b" \"<>\x7f")
}

/// Most parameters of a URI or a header value; more would only cost time.
pub(crate) const MOST_PARAMS: usize = 64;

/// Longest scheme, in bytes: longer than any registered one.
const LONGEST_SCHEME: usize = 64;

/// Why a URI cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum UriError {
    /// No name and colon at the start.
    #[error("the URI has no scheme")]
    NoScheme,
    /// A proxy that does not know how to use it answers 416 (RFC 3261 §16.3).
    #[error("the URI's scheme is neither sip nor sips")]
    Scheme,
    /// Space, controls, quotes or angle brackets.
    #[error("the URI has a character that must be escaped")]
    Character,
    /// An `@` with nothing before it.
    #[error("the URI has an `@` and no user before it")]
    User,
    /// No host, or an invalid one; IPv6 addresses need brackets, and a name has at most 255 bytes (RFC 1035).
    #[error("the URI's host is neither a name nor an address")]
    Host,
    /// Not a number from 1 to 65535.
    #[error("the URI's port is not a number from 1 to 65535")]
    Port,
    /// More parameters than the limit.
    #[error("the URI has more than {MOST_PARAMS} parameters")]
    Params,
}

fn split_user(userinfo: &[u8]) -> (Option<&[u8]>, Option<&[u8]>) {
    match find_any(userinfo, *b":") {
        Some(colon) => (Some(&userinfo[..colon]), Some(&userinfo[colon + 1..])),
        None => (Some(userinfo), None),
    }
}

/// The leading bytes that could be a port: up to the next delimiter.
fn digits(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|byte| matches!(byte, b';' | b'?'));
    &bytes[..end.unwrap_or(bytes.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> Uri<'_> {
        Uri::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn all_parts_are_found() {
        let uri = uri(
            "SIPS:john.doe:secret@Example.com:5071;transport=TCP;lr=on;maddr=192.0.2.1?Subject=x",
        );
        assert_eq!(uri.scheme, Scheme::Sips);
        assert_eq!(uri.user, Some(&b"john.doe"[..]));
        assert_eq!(uri.password, Some(&b"secret"[..]));
        assert_eq!(uri.host, Host::Name(b"example.com"));
        assert_eq!(uri.port, Some(5071));
        assert_eq!(uri.host_range, 21..37);
        assert_eq!(uri.known_transport(), Some(Transport::Tls));
        assert_eq!(uri.maddr(), Some(&b"192.0.2.1"[..]));
        assert!(uri.is_loose_router());
        assert_eq!(uri.headers, Some(&b"Subject=x"[..]));
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let uri = uri("sip:example.com");
        assert_eq!(
            (uri.user, uri.password, uri.port, uri.headers),
            (None, None, None, None)
        );
        assert_eq!(uri.port_or_default(), 5060);
        assert_eq!(uri.known_transport(), Some(Transport::Udp));
        assert!(!uri.is_loose_router());
        assert!(uri.params.is_empty());
    }

    #[test]
    fn users_may_hold_nearly_everything() {
        let semicolon = uri("sip:user;par=u%40example.net@example.com");
        assert_eq!(semicolon.user, Some(&b"user;par=u%40example.net"[..]));
        assert!(semicolon.params.is_empty());
        let crazy = uri(
            "sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*:&it+has=1,weird!*pas$wo~d_too.(doesn't-it)@example.com",
        );
        assert_eq!(
            crazy.user,
            Some(&b"1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*"[..])
        );
        assert_eq!(crazy.host, Host::Name(b"example.com"));
        assert_eq!(
            uri("sip:null-%00-null@example.com").user,
            Some(&b"null-%00-null"[..])
        );
    }

    #[test]
    fn ipv6_needs_brackets() {
        let with_port = uri("sip:[2001:db8::10]:5070");
        assert_eq!(
            (with_port.host.to_string(), with_port.port),
            ("[2001:db8::10]".into(), Some(5070))
        );
        let without = uri("sip:user@[2001:db8::10:5070]");
        assert_eq!(
            (without.host.to_string(), without.port),
            ("[2001:db8::10:5070]".into(), None)
        );
        assert_eq!(Uri::parse(b"sip:2001:db8::10").unwrap_err(), UriError::Port);
    }

    #[test]
    fn each_fault_has_its_name() {
        for (text, error) in [
            ("", UriError::NoScheme),
            ("example.com", UriError::NoScheme),
            ("<sip:user@example.com>", UriError::NoScheme),
            ("tel:+15551234", UriError::Scheme),
            (
                "nobodyKnowsThisScheme:totallyopaquecontent",
                UriError::Scheme,
            ),
            ("sip:", UriError::Host),
            ("sip:user@", UriError::Host),
            ("sip:@example.com", UriError::User),
            ("sip::secret@example.com", UriError::User),
            ("sip:a@b@c", UriError::Host),
            ("sip:exa%6dple.com", UriError::Host),
            ("sip:a b@example.com", UriError::Character),
            ("sip:a@example.com>", UriError::Character),
            ("sip:a\\@example.com", UriError::Character),
            ("sip:a\\b@example.com", UriError::Character),
            ("sip:a]@example.com", UriError::Character),
            ("sip:a[b@example.com", UriError::Character),
            ("sip:a:b\\@[2001:db8::1]", UriError::Character),
            ("sip:\"a@example.com", UriError::Character),
            ("sip:a@example.com;<", UriError::Character),
            ("sip:a@example.com;\x7f", UriError::Character),
            ("sip:a@example.com\r\n", UriError::Character),
            ("sip:example.com:", UriError::Port),
            ("sip:example.com:0;lr", UriError::Port),
            ("sip:example.com:5060x", UriError::Port),
            ("sip:example.com:65536", UriError::Port),
        ] {
            assert_eq!(Uri::parse(text.as_bytes()).unwrap_err(), error, "{text:?}");
        }
    }

    #[test]
    fn hosts_and_parameters_have_an_end() {
        let host = |length| format!("sip:a@{}", "x".repeat(length));
        assert!(Uri::parse(host(255).as_bytes()).is_ok());
        assert_eq!(
            Uri::parse(host(256).as_bytes()).unwrap_err(),
            UriError::Host
        );
        let params = |count| format!("sip:a@b{}", ";x".repeat(count));
        assert!(Uri::parse(params(64).as_bytes()).is_ok());
        assert_eq!(
            Uri::parse(params(65).as_bytes()).unwrap_err(),
            UriError::Params
        );
    }

    #[test]
    fn uris_of_every_scheme_are_readable_or_not() {
        for uri in [
            "sip:a@b",
            "SIPS:[::1]",
            "tel:+1-201-555-0123;phone-context=x",
            "urn:service:sos.ambulance",
            "pneumatic-tube:station-9/left",
        ] {
            assert!(is_readable_uri(uri.as_bytes()), "{uri}");
        }
        for uri in [
            "",
            "*",
            "a@b",
            "a",
            ":x",
            "tel:",
            "sip:",
            "sip: a@b",
            "sip :a@b",
            "urn:a b",
            "urn:a\0b",
            "tel:\"1\"",
            "tel:<1>",
            "1tel:2",
            "tel:1\x7f",
        ] {
            assert!(!is_readable_uri(uri.as_bytes()), "{uri:?}");
        }
    }

    #[test]
    fn a_parameter_keeps_its_place_in_the_uri() {
        let text = "sip:p1.example.com;lr;r2=on";
        let r2 = uri(text).params.named("r2").unwrap();
        assert_eq!(&text[r2.range], ";r2=on");
    }
}
