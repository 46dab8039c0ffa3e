//! The peer of a connection over TLS that a test defines.

use std::net::IpAddr;

use crate::name_kind::NameKind;

/// The peer of a connection over TLS, for [`Request::peer`](super::Request::peer).
///
/// A peer that is given a name, a subject or any other part of a certificate has shown a certificate, which was verified.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    server_name: Option<String>,
    certificate: Option<Certificate>,
    is_unverified: bool,
}

/// What the certificate of a peer says.
#[derive(Clone, Debug, Default)]
pub(super) struct Certificate {
    uris: Vec<String>,
    dns: Vec<String>,
    addresses: Vec<IpAddr>,
    emails: Vec<String>,
    pub(super) subject: String,
    pub(super) issuer: String,
    pub(super) common_name: Option<String>,
    pub(super) serial_number: String,
    pub(super) fingerprint: String,
    pub(super) valid_from: u64,
    pub(super) valid_until: u64,
}

impl Peer {
    /// A client without a certificate, over TLS 1.3.
    pub fn new() -> Self {
        Self::default()
    }

    /// The host name that the client asks for (SNI).
    pub fn server_name(mut self, name: &str) -> Self {
        self.server_name = Some(name.to_lowercase());
        self
    }

    /// Adds a DNS name to the certificate.
    pub fn dns(self, name: &str) -> Self {
        self.with(|certificate| certificate.dns.push(normal(name)))
    }

    /// Adds a URI to the certificate: `sip:carrier.example` names a SIP domain.
    pub fn uri(self, uri: &str) -> Self {
        self.with(|certificate| certificate.uris.push(uri.to_owned()))
    }

    /// Adds an IP address to the certificate.
    ///
    /// # Panics
    /// If this is not an IP address.
    #[track_caller]
    pub fn address(self, address: &str) -> Self {
        let Ok(address) = address.parse() else {
            panic!("{address:?} is not an IP address like 192.0.2.1 or 2001:db8::1");
        };
        self.with(|certificate| certificate.addresses.push(address))
    }

    /// Adds a mail address to the certificate.
    pub fn email(self, address: &str) -> Self {
        self.with(|certificate| certificate.emails.push(address.to_owned()))
    }

    /// The subject of the certificate.
    pub fn subject(self, subject: &str) -> Self {
        self.with(|certificate| subject.clone_into(&mut certificate.subject))
    }

    /// The issuer of the certificate.
    pub fn issuer(self, issuer: &str) -> Self {
        self.with(|certificate| issuer.clone_into(&mut certificate.issuer))
    }

    /// The common name of the certificate's subject.
    pub fn common_name(self, name: &str) -> Self {
        self.with(|certificate| certificate.common_name = Some(name.to_owned()))
    }

    /// The serial number of the certificate, hexadecimal.
    pub fn serial_number(self, number: &str) -> Self {
        self.with(|certificate| certificate.serial_number = number.to_lowercase())
    }

    /// The SHA-256 of the certificate: 64 hexadecimal digits.
    pub fn fingerprint(self, digits: &str) -> Self {
        self.with(|certificate| certificate.fingerprint = digits.to_lowercase())
    }

    /// When the certificate becomes valid and when it expires, in milliseconds since 1970.
    pub fn valid(self, from: u64, until: u64) -> Self {
        self.with(|certificate| {
            certificate.valid_from = from;
            certificate.valid_until = until;
        })
    }

    /// The certificate was not verified: the host has opened the connection with `verify = false`.
    pub fn unverified(self) -> Self {
        let mut peer = self.with(|_| ());
        peer.is_unverified = true;
        peer
    }

    fn with(mut self, change: impl FnOnce(&mut Certificate)) -> Self {
        change(self.certificate.get_or_insert_default());
        self
    }

    pub(super) fn asked_for(&self) -> Option<String> {
        self.server_name.clone()
    }

    pub(super) fn shows_certificate(&self) -> bool {
        self.certificate.is_some()
    }

    pub(super) fn verified(&self) -> Option<&Certificate> {
        let certificate = self.certificate.as_ref();
        certificate.filter(|_| !self.is_unverified)
    }
}

impl Certificate {
    pub(super) fn names(&self, kind: NameKind) -> Vec<String> {
        match kind {
            NameKind::Uri => self.uris.clone(),
            NameKind::Dns => self.dns.clone(),
            NameKind::Address => self.addresses.iter().map(IpAddr::to_string).collect(),
            NameKind::Email => self.emails.clone(),
        }
    }

    /// RFC 5922 §7.1
    pub(super) fn domains(&self) -> Vec<String> {
        let uris: Vec<_> = self.uris.iter().filter_map(|uri| domain_of(uri)).collect();
        match uris.is_empty() {
            true => self.dns.clone(),
            false => uris,
        }
    }

    /// RFC 5922 §7.2
    pub(super) fn speaks_for(&self, domain: &str) -> bool {
        match domain.parse() {
            Ok(ip) => self.addresses.contains(&ip),
            Err(_) => self.domains().contains(&normal(domain)),
        }
    }
}

/// The domain of a URI `sip:DOMAIN` without a user and without parameters.
fn domain_of(uri: &str) -> Option<String> {
    let (scheme, domain) = uri.split_once(':')?;
    let is_plain = !domain.is_empty() && !domain.contains(['@', ';', '?', '/']);
    let domain = domain.split(':').next()?;
    (scheme.eq_ignore_ascii_case("sip") && is_plain).then(|| normal(domain))
}

fn normal(name: &str) -> String {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::Peer;
    use crate::peer::NameKind;
    use crate::prelude::*;
    use crate::testing::{Host, Request};

    fn with(peer: Peer, check: impl FnOnce()) {
        let request = Request::options("sip:bob@example.com").transport("WSS");
        let call = Host::new().request(request.peer(peer));
        call.decide(|| {
            check();
            pass()
        });
    }

    #[test]
    fn a_uri_outranks_dns_names() {
        let peer = Peer::new()
            .dns("B.example.")
            .address("192.0.2.1")
            .email("noc@a.example");
        with(peer.clone(), || {
            assert!(peer::is_secure() && peer::has_certificate() && peer::is_verified());
            assert_eq!(peer::domains(), ["b.example"]);
            assert!(peer::speaks_for("b.example") && peer::speaks_for("192.0.2.1"));
            assert_eq!(peer::names(NameKind::Address), ["192.0.2.1"]);
            assert_eq!(peer::names(NameKind::Email), ["noc@a.example"]);
        });
        with(peer.uri("sip:a.example"), || {
            assert_eq!(peer::domains(), ["a.example"]);
            assert!(!peer::speaks_for("b.example"));
            assert_eq!(peer::names(NameKind::Uri), ["sip:a.example"]);
        });
    }

    #[test]
    fn an_unverified_certificate_says_nothing() {
        with(Peer::new().dns("a.example").unverified(), || {
            assert!(peer::has_certificate() && !peer::is_verified());
            assert_eq!(peer::subject(), None);
            assert!(peer::domains().is_empty());
        });
    }

    #[test]
    fn a_client_need_not_have_a_certificate() {
        with(Peer::new().server_name("Edge.example"), || {
            assert_eq!(peer::server_name().as_deref(), Some("edge.example"));
            assert_eq!(peer::tls_version().as_deref(), Some("TLSv1.3"));
            assert!(!peer::has_certificate());
            assert_eq!(peer::valid_until(), None);
        });
    }

    #[test]
    fn without_tls_there_is_no_peer() {
        let request = Request::options("sip:bob@example.com").peer(Peer::new().dns("a.example"));
        Host::new().request(request).decide(|| {
            assert!(!peer::is_secure() && !peer::is_verified());
            assert_eq!(peer::listener(), "udp:192.0.2.100:5060");
            assert_eq!((peer::tls_version(), peer::cipher_suite()), (None, None));
            pass()
        });
    }
}
