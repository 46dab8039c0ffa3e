//! What a request has to be before anybody judges it (RFC 3261 §16.3, §8.2.2).

use super::identity::Identity;
use super::top_via::TopVia;
use crate::list::values;
use crate::name_addr::NameAddr;
use crate::scan::{HeaderName, Message, ScanError, StartLine};
use crate::uri::{Scheme, Uri, UriError};

/// A request that nothing is wrong with.
pub(super) enum Checked {
    /// It is for the policy.
    Judge,
    /// It asks the host itself.
    OptionsToUs,
}

/// The answer to a request that something is wrong with.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: u16,
    pub(super) reason: &'static str,
    /// The header whose values go into Unsupported.
    pub(super) unsupported: Option<HeaderName>,
}

/// Checks a request with a readable top Via. The version comes first, since another version may have other rules; then what
/// can't be read, what must not go on, and what is not understood.
pub(super) fn check(
    identity: &Identity,
    message: Message<'_>,
    scanned: Result<(), ScanError>,
    top: &TopVia<'_>,
) -> Result<Checked, Refusal> {
    let StartLine::Request { method, uri, .. } = message.start_line() else {
        return Err(Refusal::new(400, "Not a Request"));
    };
    if !message.start_line().is_sip_2() {
        return Err(Refusal::new(505, "Version Not Supported"));
    }
    if let Err(error) = scanned {
        return Err(Refusal::new(error.fault.code(), error.fault.reason()));
    }
    let uri = request_uri(uri)?;
    if !top.is_well_formed() {
        return Err(Refusal::new(400, "Bad Via"));
    }
    name_addr(message, HeaderName::From, "Bad From")?;
    name_addr(message, HeaderName::To, "Bad To")?;

    let is_to_us = method == b"OPTIONS" && uri.is_some_and(|uri| asks_us(identity, message, &uri));
    if message.max_forwards() == Some(0) && !is_to_us {
        return Err(Refusal::new(483, "Too Many Hops"));
    }
    // Neither ACK nor CANCEL can be refused for an extension (RFC 3261 §8.2.2.3).
    if !matches!(method, b"ACK" | b"CANCEL") {
        supports(
            message,
            HeaderName::ProxyRequire,
            "Bad Proxy Require Extension",
        )?;
    }
    if !is_to_us {
        return Ok(Checked::Judge);
    }
    supports(message, HeaderName::Require, "Bad Extension")?;
    Ok(Checked::OptionsToUs)
}

impl Refusal {
    fn new(code: u16, reason: &'static str) -> Self {
        Self {
            code,
            reason,
            unsupported: None,
        }
    }
}

/// Reads the request URI; none for a `tel` URI, which names no host.
fn request_uri(uri: &[u8]) -> Result<Option<Uri<'_>>, Refusal> {
    if is_tel(uri) {
        return Ok(None);
    }
    let bad = |reason| Err(Refusal::new(400, reason));
    match Uri::parse(uri) {
        Ok(uri) if uri.scheme == Scheme::Sips => Err(Refusal::new(416, UNKNOWN_SCHEME)),
        // RFC 3261 §19.1.1 has no headers there (RFC 4475 §3.1.2.11).
        Ok(uri) if uri.headers.is_some() => bad("Headers in Request-URI"),
        Ok(uri) => Ok(Some(uri)),
        Err(UriError::Scheme) => Err(Refusal::new(416, UNKNOWN_SCHEME)),
        Err(UriError::NoScheme) => bad("Bad Request-URI"),
        Err(UriError::Character) => bad("Bad Character in Request-URI"),
        Err(UriError::Host) => bad("Bad Host in Request-URI"),
        Err(UriError::Port) => bad("Bad Port in Request-URI"),
    }
}

/// Whether this is a `tel` URI: one that names no host, but that a next hop may know a way for.
pub(super) fn is_tel(uri: &[u8]) -> bool {
    uri.get(..4)
        .is_some_and(|start| start.eq_ignore_ascii_case(b"tel:"))
}

const UNKNOWN_SCHEME: &str = "Unsupported URI Scheme in Request URI";

fn name_addr(message: Message<'_>, name: HeaderName, reason: &'static str) -> Result<(), Refusal> {
    let is_read = |value| NameAddr::parse(value).is_ok();
    match message.header(name) {
        Some(field) if !is_read(field.value) => Err(Refusal::new(400, reason)),
        _ => Ok(()),
    }
}

/// This host supports no extension, so that every option tag is one too many.
fn supports(message: Message<'_>, name: HeaderName, reason: &'static str) -> Result<(), Refusal> {
    if message
        .headers(name)
        .all(|field| values(field.value).next().is_none())
    {
        return Ok(());
    }
    Err(Refusal {
        code: 420,
        reason,
        unsupported: Some(name),
    })
}

/// Whether an OPTIONS asks the host itself: the request URI names it, without a user, and no Route leads on.
fn asks_us(identity: &Identity, message: Message<'_>, uri: &Uri<'_>) -> bool {
    let is_our_route = |value: &[u8]| {
        let route = NameAddr::parse(value).ok();
        let uri = route.and_then(|route| Uri::parse(route.uri).ok());
        uri.is_some_and(|uri| identity.is_our_uri(&uri))
    };
    uri.user.is_none()
        && uri.maddr().is_none()
        && identity.is_our_uri(uri)
        && message
            .headers(HeaderName::Route)
            .flat_map(|field| values(field.value))
            .all(|value| is_our_route(value.bytes))
}
