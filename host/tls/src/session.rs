//! What the handshake of a connection has settled, and what it has proved.

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, CommonState, ProtocolVersion, ServerConnection};

use crate::certificate::Certificate;

/// What the handshake of a connection has settled, and what it has proved about the peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: String,
    /// The name of the cipher suite as IANA registers it: `TLS_AES_256_GCM_SHA384`.
    pub cipher_suite: String,
    /// The name that the client asked for (SNI), in lower case.
    pub server_name: Option<String>,
    /// Whether the peer has shown a certificate.
    pub shows_certificate: bool,
    /// The certificate of the peer, if it was verified.
    pub peer: Option<Certificate>,
}

impl Session {
    /// That of a connection that a peer has opened, after its handshake. A certificate that the peer shows was verified: otherwise the
    /// handshake would have failed.
    pub fn accepted(connection: &ServerConnection) -> Self {
        let server_name = connection.server_name().map(str::to_owned);
        Self::of(connection, server_name, true)
    }

    /// That of a connection that this host has opened to a peer with this name. `verifies`: whether certificates are verified.
    pub fn opened(connection: &ClientConnection, name: &ServerName<'_>, verifies: bool) -> Self {
        // An address is never sent (RFC 6066 §3).
        let mut server_name = None;
        if let ServerName::DnsName(name) = name {
            server_name = Some(name.as_ref().to_ascii_lowercase());
        }
        Self::of(connection, server_name, verifies)
    }

    fn of(state: &CommonState, server_name: Option<String>, verifies: bool) -> Self {
        let shown = state.peer_certificates().and_then(|all| all.first());
        let verified = shown.filter(|_| verifies);
        let suite = state.negotiated_cipher_suite();
        let suite = suite.and_then(|suite| suite.suite().as_str());
        let version = match state.protocol_version() == Some(ProtocolVersion::TLSv1_2) {
            true => "TLSv1.2",
            false => "TLSv1.3",
        };
        Self {
            version: version.to_owned(),
            // The library has a prefix of its own for TLS 1.3.
            cipher_suite: suite.unwrap_or_default().replacen("TLS13_", "TLS_", 1),
            server_name,
            shows_certificate: shown.is_some(),
            peer: verified.and_then(|certificate| Certificate::read(certificate).ok()),
        }
    }
}
