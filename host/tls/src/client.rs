//! Connections that this host opens: the authorities that it trusts, and the names that it demands (RFC 5922 §7.3).

use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::certificate::Certificate;
use crate::error::TlsError;
use crate::pem::{Place, read_pair};
use crate::profile::{Authorities, RelayProfile};
use crate::server::{Dates, Inside, versions};

/// The section of the configuration.
const SECTION: &str = "relay.tls";

/// The profile of the connections that this host opens.
#[derive(Debug)]
pub struct Client {
    /// What the certificate of this host says, if it shows one.
    pub certificate: Option<Certificate>,
    /// The name that each peer must have, in place of that of the next hop.
    name: Option<ServerName<'static>>,
    config: Arc<ClientConfig>,
    verifies: bool,
    authorities: usize,
}

impl Client {
    /// Reads the files of the profile.
    pub(crate) fn read(
        profile: &RelayProfile,
        dates: Dates,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let pair = profile
            .pair
            .as_ref()
            .map(|(certificate, key)| read_pair(SECTION, certificate, key, provider))
            .transpose()?;
        let file = profile.pair.as_ref().map(|(file, _)| file.clone());
        let file = file.unwrap_or_default();
        let certificate = pair
            .as_ref()
            .map(|pair| Certificate::of_chain(&file, &pair.cert))
            .transpose()?;
        if let Some(certificate) = &certificate
            && dates == Dates::Checked
            && !certificate.is_valid_at(SystemTime::now())
        {
            return Err(certificate.outdated(&file));
        }
        let refused = |error| TlsError::Refused {
            certificate: file.clone(),
            key: profile
                .pair
                .as_ref()
                .map(|(_, key)| key.clone())
                .unwrap_or_default(),
            error,
        };
        let roots = match profile.verify {
            true => authorities(&profile.authorities)?,
            false => Arc::new(RootCertStore::empty()),
        };
        let authorities = roots.len();
        let verifier = Verifier {
            roots,
            verifies: profile.verify,
            wildcards: profile.wildcards,
            provider: Arc::clone(provider),
        };
        let builder = ClientConfig::builder_with_provider(Arc::clone(provider))
            .with_protocol_versions(versions(profile.min_version))
            .map_err(refused)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match pair {
            Some(pair) => builder
                .with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(pair))),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![Inside::Sip.protocol().to_vec()];
        let name = profile.name.clone().map(ServerName::try_from).transpose();
        Ok(Self {
            certificate,
            name: name.map_err(|_| TlsError::Authorities {
                file,
                what: "`name` in [relay.tls] is not a host name".into(),
            })?,
            config: Arc::new(config),
            verifies: profile.verify,
            authorities,
        })
    }

    /// What a handshake needs.
    pub fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }

    /// The name that a peer must have, which leads to this name or address.
    pub fn name_of(&self, hop: ServerName<'static>) -> ServerName<'static> {
        self.name.clone().unwrap_or(hop)
    }

    /// Whether certificates are verified.
    pub fn verifies(&self) -> bool {
        self.verifies
    }

    /// The number of authorities that are trusted. Without any, no next hop can be verified.
    pub fn authorities(&self) -> usize {
        self.authorities
    }
}

fn authorities(authorities: &Authorities) -> Result<Arc<RootCertStore>, TlsError> {
    match authorities {
        Authorities::File(file) => Place {
            section: SECTION,
            key: "ca",
            file,
        }
        .authorities(),
        Authorities::System => {
            let found = rustls_native_certs::load_native_certs();
            let mut roots = RootCertStore::empty();
            // Without any, a host still serves the peers that connect to it.
            let _counted = roots.add_parsable_certificates(found.certs);
            Ok(Arc::new(roots))
        }
    }
}

/// Checks chain and name of the certificates of peers.
#[derive(Debug)]
struct Verifier {
    roots: Arc<RootCertStore>,
    verifies: bool,
    wildcards: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if !self.verifies {
            return Ok(ServerCertVerified::assertion());
        }
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(certificate)?,
            &self.roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
        let read = Certificate::read(certificate)
            .map_err(|_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
        if read.names.include(name, self.wildcards) {
            return Ok(ServerCertVerified::assertion());
        }
        Err(CertificateError::NotValidForNameContext {
            expected: name.to_owned(),
            presented: read.names.shown(),
        }
        .into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
