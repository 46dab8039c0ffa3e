//! Kinds of names in a certificate.

/// A kind of alternative names of a certificate, for [`names`](crate::peer::names).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameKind {
    /// URIs, as written (Kamailio: `$tls_peer_san_uri`).
    Uri,
    /// DNS names, in lower case (Kamailio: `$tls_peer_san_hostname`).
    Dns,
    /// IP addresses (Kamailio: `$tls_peer_san_ip`).
    Address,
    /// Mail addresses, as written (Kamailio: `$tls_peer_san_email`).
    Email,
}
