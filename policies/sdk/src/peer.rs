//! The connection that the request came over, and what TLS has proved about its peer (Kamailio: the module `tls`, `$tls_…`).
//!
//! Transport, source and local socket are in [`request`](crate::request), too. A certificate that is shown and cannot be verified ends the
//! handshake, so the certificate of a client is a verified one. What a certificate says is returned only if it was verified: for all other
//! requests, the functions return `None`, false or an empty list.
//!
//! ```
//! use portcullis_sdk::prelude::*;
//! use portcullis_sdk::testing::{Host, Peer, Request};
//!
//! fn decide() -> Verdict {
//!     if peer::speaks_for("sbc.carrier.example") {
//!         return relay_to("core");
//!     }
//!     reject(403, "Unknown certificate")
//! }
//!
//! let invite = Request::invite("sip:bob@example.com").transport("TLS");
//! let call = |request| Host::new().request(request).decide(decide).verdict;
//! let carrier = Peer::new().dns("sbc.carrier.example").subject("CN=Carrier");
//! assert_eq!(call(invite.clone().peer(carrier)), relay_to("core"));
//! assert_eq!(call(invite), reject(403, "Unknown certificate"));
//! ```
//!
//! Where the names in a certificate mean nothing, its fingerprint identifies it. The operator puts the fingerprint into the settings:
//!
//! ```
//! use portcullis_sdk::prelude::*;
//! # use portcullis_sdk::testing::{Host, Peer, Request};
//!
//! fn is_known() -> bool {
//!     let known = settings::texts("fingerprints").unwrap_or_default();
//!     peer::fingerprint().is_some_and(|own| known.contains(&own))
//! }
//! # let host = Host::new().setting("fingerprints", [&*"ab".repeat(32)]);
//! # let request = |digit: &str| {
//! #     let peer = Peer::new().fingerprint(&digit.repeat(32));
//! #     host.request(Request::invite("sip:bob@example.com").transport("TLS").peer(peer))
//! # };
//! # let decide = || if is_known() { relay() } else { pass() };
//! # assert_eq!(request("ab").decide(decide).verdict, relay());
//! # assert_eq!(request("cd").decide(decide).verdict, pass());
//! ```

pub use crate::name_kind::NameKind;

use crate::host;

/// The socket that received the request, as `listen` of the configuration names sockets: `udp:192.0.2.1:5060`, `wss:[2001:db8::1]:443`.
pub fn listener() -> String {
    host::listener()
}

/// Whether the request came over TLS, WebSocket included.
pub fn is_secure() -> bool {
    host::is_secure()
}

/// `TLSv1.2` or `TLSv1.3`.
///
/// Kamailio: `$tls_version`.
pub fn tls_version() -> Option<String> {
    host::tls_version()
}

/// The name of the cipher suite as IANA registers it: `TLS_AES_256_GCM_SHA384`.
///
/// Kamailio: `$tls_cipher_info`, with the names of OpenSSL.
pub fn cipher_suite() -> Option<String> {
    host::cipher_suite()
}

/// The host name that the client asked for (SNI), in lower case.
///
/// Kamailio: `$tls_peer_server_name`.
pub fn server_name() -> Option<String> {
    host::server_name()
}

/// Whether the peer has shown a certificate. Over a connection that the host has opened with `verify = false`, it may not have been verified.
pub fn has_certificate() -> bool {
    host::has_certificate()
}

/// Whether the certificate of the peer was verified: its chain, its time and, if there is a list of revoked certificates, that it is not among
/// them.
///
/// Kamailio: `$tls_peer_verified`.
pub fn is_verified() -> bool {
    host::is_verified()
}

/// The alternative names of this kind.
pub fn names(kind: NameKind) -> Vec<String> {
    host::peer_names(kind)
}

/// The SIP domains that the certificate is for, in lower case: those of URIs `sip:DOMAIN` or, without any, the DNS names (RFC 5922 §7.1).
pub fn domains() -> Vec<String> {
    host::domains()
}

/// Whether the certificate is one for this domain, or for this IP address: names are compared without regard to case, the common name never
/// counts, and `*` is no wildcard (RFC 5922 §7.2).
pub fn speaks_for(domain: &str) -> bool {
    host::speaks_for(domain)
}

/// The subject, for display: `C=DE, O=Carrier, CN=sbc.carrier.example`.
///
/// Kamailio: `$tls_peer_subject`.
pub fn subject() -> Option<String> {
    host::subject()
}

/// The issuer, for display.
///
/// Kamailio: `$tls_peer_issuer`.
pub fn issuer() -> Option<String> {
    host::issuer()
}

/// The first common name of the subject. Prefer [`speaks_for`].
///
/// Kamailio: `$tls_peer_subject_cn`.
pub fn common_name() -> Option<String> {
    host::common_name()
}

/// The serial number, hexadecimal, in lower case.
///
/// Kamailio: `$tls_peer_serial`, decimal.
pub fn serial_number() -> Option<String> {
    host::serial_number()
}

/// The SHA-256 of the certificate: 64 hexadecimal digits in lower case.
pub fn fingerprint() -> Option<String> {
    host::fingerprint()
}

/// When the certificate becomes valid, in milliseconds since 1970-01-01T00:00:00 UTC.
///
/// Kamailio: `$tls_peer_notBefore`.
pub fn valid_from() -> Option<u64> {
    host::valid_from()
}

/// When the certificate expires, in milliseconds since 1970-01-01T00:00:00 UTC.
///
/// Kamailio: `$tls_peer_notAfter`.
pub fn valid_until() -> Option<u64> {
    host::valid_until()
}
