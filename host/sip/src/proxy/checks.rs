//! Checks of a request before the policy call (RFC 3261 §16.3, §8.2.2).

use memchr::memchr_iter;

use super::identity::Identity;
use crate::list::values;
use crate::name_addr::NameAddr;
use crate::scan::{Field, HeaderName, Message, ScanError, StartLine};
use crate::top_via::TopVia;
use crate::uri::{Scheme, Uri, UriError, is_other_uri};

/// A valid request.
pub(super) enum Checked {
    /// It is for the policy.
    Judge,
    /// An OPTIONS to the host itself.
    OptionsToUs,
}

/// The answer to an invalid request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: u16,
    pub(super) reason: &'static str,
    /// The header field whose values are copied to Unsupported.
    pub(super) unsupported: Option<HeaderName>,
}

/// Checks a request with a readable top Via. The version comes first, because another version may have other rules; then syntax,
/// then what forbids relaying, then extensions.
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
    let uri = request_uri(identity, uri)?;
    if !top.is_well_formed() {
        return Err(Refusal::new(400, "Bad Via"));
    }
    party(message, HeaderName::From, "Bad From")?;
    party(message, HeaderName::To, "Bad To")?;
    call_id(message)?;
    routes(message)?;

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

/// Parses the request URI; `None` for a scheme other than `sip` (`tel`, `urn:service:sos` of RFC 5031), which names no host: a
/// Route or a next hop decides where it goes.
fn request_uri<'u>(identity: &Identity, uri: &'u [u8]) -> Result<Option<Uri<'u>>, Refusal> {
    let bad = |reason| Err(Refusal::new(400, reason));
    match Uri::parse(uri) {
        Ok(uri) if uri.scheme == Scheme::Sips && !identity.has_tls() => {
            Err(Refusal::new(416, NO_TLS))
        }
        // RFC 3261 §19.1.1 has no headers there (RFC 4475 §3.1.2.11).
        Ok(uri) if uri.headers.is_some() => bad("Headers in Request-URI"),
        Ok(uri) => Ok(Some(uri)),
        Err(UriError::Scheme) if is_other_uri(uri) => Ok(None),
        Err(UriError::NoScheme | UriError::Scheme) => bad("Bad Request-URI"),
        Err(UriError::Character) => bad("Bad Character in Request-URI"),
        Err(UriError::User) => bad("Bad User in Request-URI"),
        Err(UriError::Host) => bad("Bad Host in Request-URI"),
        Err(UriError::Port) => bad("Bad Port in Request-URI"),
        Err(UriError::Params) => bad("Too Many Parameters in Request-URI"),
    }
}

/// A `sips` URI must not be relayed by a host without TLS (RFC 5630 §5.3).
const NO_TLS: &str = "Unsupported URI Scheme in Request URI";

/// From and To are parsed before the policy call: an unparsable address must not pass a rule about addresses.
fn party(message: Message<'_>, name: HeaderName, reason: &'static str) -> Result<(), Refusal> {
    match message.header(name) {
        Some(field) if NameAddr::of_party(field.value).is_err() => Err(Refusal::new(400, reason)),
        _ => Ok(()),
    }
}

/// Refuses a Call-ID that is longer than any legitimate one. It is hashed several times for a request: for the transaction, the dialog and
/// the tag of a reply.
fn call_id(message: Message<'_>) -> Result<(), Refusal> {
    match message.header(HeaderName::CallId) {
        Some(field) if field.value.len() > LONGEST_CALL_ID => {
            Err(Refusal::new(400, "Call-ID Too Long"))
        }
        _ => Ok(()),
    }
}

/// Bytes of Call-ID, as many as From and To may have.
const LONGEST_CALL_ID: usize = 2_048;

/// Refuses more Route values than a request can visit; parsing them would cost a multiple of other requests.
fn routes(message: Message<'_>) -> Result<(), Refusal> {
    let commas = |field: Field<'_>| 1 + memchr_iter(b',', field.value).count();
    let most: usize = message.headers(HeaderName::Route).map(commas).sum();
    if most > MOST_ROUTES {
        return Err(Refusal::new(400, "Too Many Routes"));
    }
    Ok(())
}

/// Most values of Route, counted by commas.
const MOST_ROUTES: usize = 128;

/// This host supports no extension, so every option tag is refused.
fn supports(message: Message<'_>, name: HeaderName, reason: &'static str) -> Result<(), Refusal> {
    // A longer list counts as not empty, so that its cost is bounded.
    const LONGEST_EMPTY: usize = 64;
    let is_empty = |field: Field<'_>| {
        field.value.len() <= LONGEST_EMPTY && values(field.value).next().is_none()
    };
    if message.headers(name).all(is_empty) {
        return Ok(());
    }
    Err(Refusal {
        code: 420,
        reason,
        unsupported: Some(name),
    })
}

/// Whether an OPTIONS is addressed to the host itself: the request URI names it without a user, and no Route leads elsewhere.
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
