//! TLS as a client: one version, one cipher suite and one key exchange, so that each server has the same work.

use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{cipher_suite, default_provider, kx_group};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme, version};
use serde::{Deserialize, Serialize};

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum TlsVersion {
    /// 1.2 (RFC 5246).
    #[serde(rename = "1.2")]
    #[value(name = "1.2")]
    V12,
    /// 1.3 (RFC 8446).
    #[default]
    #[serde(rename = "1.3")]
    #[value(name = "1.3")]
    V13,
}

/// Whether a connection continues the session of an earlier one with the same configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sessions {
    /// Each handshake is a full one.
    New,
    /// Each handshake but the first one resumes a session, if the server gives tickets.
    Resumed,
}

/// The name that is asked for (SNI).
pub(crate) const SERVER_NAME: &str = "portcullis.example";

/// Number of sessions that are kept; a server gives few for one connection.
const SESSIONS: usize = 32;

/// A configuration with AES-128-GCM only, which offers a key of X25519. P-256 is listed after it, because OpenSSL takes a certificate of that curve
/// with TLS 1.2 only from a client that lists the curve (RFC 8422, section 5.1.1). Nothing that the server shows is verified: this side is not
/// measured, and whoever answers is on this machine.
pub(crate) fn client(version: TlsVersion, sessions: Sessions) -> Result<Arc<ClientConfig>> {
    let (versions, suite) = match version {
        TlsVersion::V12 => (
            [&version::TLS12],
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        ),
        TlsVersion::V13 => ([&version::TLS13], cipher_suite::TLS13_AES_128_GCM_SHA256),
    };
    let provider = CryptoProvider {
        cipher_suites: vec![suite],
        kx_groups: vec![kx_group::X25519, kx_group::SECP256R1],
        ..default_provider()
    };
    let schemes = provider
        .signature_verification_algorithms
        .supported_schemes();
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&versions)
        .context("TLS")?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody { schemes }))
        .with_no_client_auth();
    config.resumption = match sessions {
        Sessions::New => Resumption::disabled(),
        Sessions::Resumed => Resumption::in_memory_sessions(SESSIONS),
    };
    Ok(Arc::new(config))
}

/// Accepts every certificate, and does not look at signatures.
#[derive(Debug)]
struct Anybody {
    schemes: Vec<SignatureScheme>,
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

#[cfg(test)]
mod tests {
    use rustls::NamedGroup;

    use super::*;

    #[test]
    fn each_version_has_one_suite() {
        for version in [TlsVersion::V12, TlsVersion::V13] {
            let config = client(version, Sessions::New).unwrap();
            assert_eq!(config.crypto_provider().cipher_suites.len(), 1);
            let groups = &config.crypto_provider().kx_groups;
            assert_eq!(groups.first().unwrap().name(), NamedGroup::X25519);
            assert!(
                groups
                    .iter()
                    .any(|group| group.name() == NamedGroup::secp256r1)
            );
        }
    }
}
