//! Connections that this host opens: the authorities that it trusts, and the names that it demands (RFC 5922 §7.3).

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientConfig, WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor,
};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::certificate::Certificate;
use crate::error::TlsError;
use crate::names::NameIndex;
use crate::pem::{Place, Revocations, WithLists, read_pair};
use crate::profile::{Authorities, RelayProfile};
use crate::server::{Dates, Inside, versions};

/// A profile of connections that this host opens.
#[derive(Debug)]
pub struct Client {
    /// The section of the configuration.
    pub section: String,
    /// What the certificate of this host says, if it shows one.
    pub certificate: Option<Certificate>,
    /// When the revocation lists should have been followed by others; `None` without lists, or if they do not say that.
    pub lists_until: Option<SystemTime>,
    /// The name that each peer must have, in place of that of the next hop.
    name: Option<ServerName<'static>>,
    config: Arc<ClientConfig>,
    verifier: Arc<Verifier>,
}

/// All profiles, and their choice by name.
#[derive(Debug)]
pub(crate) struct Clients {
    /// `[relay.tls]`
    pub(crate) default: Arc<Client>,
    /// The others, in the order of their names.
    pub(crate) named: Vec<Arc<Client>>,
    /// Positions in `named`.
    pub(crate) hosts: NameIndex,
}

impl Client {
    /// Reads the files of the profile.
    pub(crate) fn read(
        section: &str,
        profile: &RelayProfile,
        dates: Dates,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let pair = profile
            .pair
            .as_ref()
            .map(|(certificate, key)| read_pair(section, certificate, key, provider))
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
            true => authorities(section, &profile.authorities)?,
            false => Arc::new(RootCertStore::empty()),
        };
        let (with_lists, lists_until) = with_lists(section, profile, &roots, provider)?.unzip();
        let verifier = Arc::new(Verifier {
            with_lists,
            roots,
            verifies: profile.verify,
            wildcards: profile.wildcards,
            provider: Arc::clone(provider),
        });
        let for_handshakes: Arc<dyn ServerCertVerifier> = verifier.clone();
        let builder = ClientConfig::builder_with_provider(Arc::clone(provider))
            .with_protocol_versions(versions(profile.min_version))
            .map_err(refused)?
            .dangerous()
            .with_custom_certificate_verifier(for_handshakes);
        let mut config = match pair {
            Some(pair) => builder
                .with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(pair))),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![Inside::Sip.protocol().to_vec()];
        let name = profile.name.clone().map(ServerName::try_from).transpose();
        Ok(Self {
            section: section.to_owned(),
            certificate,
            lists_until: lists_until.flatten(),
            name: name.map_err(|_| TlsError::Authorities {
                file,
                what: format!("`name` in [{section}] is not a host name"),
            })?,
            config: Arc::new(config),
            verifier,
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
        self.verifier.verifies
    }

    /// The number of authorities that are trusted. Without any, no next hop can be verified.
    pub fn authorities(&self) -> usize {
        self.verifier.roots.len()
    }

    /// Whether a peer with this name may show these certificates, its own first, now.
    ///
    /// # Errors
    /// Why not.
    pub fn check(
        &self,
        shown: &[CertificateDer<'_>],
        name: &ServerName<'_>,
    ) -> Result<(), rustls::Error> {
        let (own, issuers) = shown
            .split_first()
            .ok_or(rustls::Error::NoCertificatesPresented)?;
        let verified = self
            .verifier
            .verify_server_cert(own, issuers, name, &[], UnixTime::now());
        verified.map(|_| ())
    }
}

impl Clients {
    /// The profile of connections to this host name or address.
    pub(crate) fn of(&self, hop: &ServerName<'_>) -> &Arc<Client> {
        let named = self.hosts.of(hop).and_then(|at| self.named.get(at));
        named.unwrap_or(&self.default)
    }

    /// All of them, `[relay.tls]` first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Client>> {
        std::iter::once(&self.default).chain(&self.named)
    }
}

fn authorities(section: &str, authorities: &Authorities) -> Result<Arc<RootCertStore>, TlsError> {
    match authorities {
        Authorities::File(file) => Place {
            section,
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

/// What checks chains with the revocation lists of the profile, and until when these are meant; `None` if it has none.
fn with_lists(
    section: &str,
    profile: &RelayProfile,
    roots: &Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
) -> Result<WithLists<Arc<WebPkiServerVerifier>>, TlsError> {
    let Some(file) = profile.crl.as_deref().filter(|_| profile.verify) else {
        return Ok(None);
    };
    let Revocations { lists, until } = Place {
        section,
        key: "crl",
        file,
    }
    .revocations()?;
    if roots.is_empty() {
        // A system without authorities. No chain is valid then.
        return Ok(None);
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider))
            .with_crls(lists)
            // A list of one authority says nothing of the certificates of another one.
            .allow_unknown_revocation_status()
            .build();
    let authorities = match &profile.authorities {
        Authorities::File(file) => file.as_path(),
        Authorities::System => Path::new("the system"),
    };
    verifier
        .map(|verifier| Some((verifier, until)))
        .map_err(|error| TlsError::of_verifier(&error, authorities, Some(file)))
}

/// Checks chain and name of the certificates of peers.
#[derive(Debug)]
struct Verifier {
    roots: Arc<RootCertStore>,
    /// Checks chains in place of `roots`, if there are revocation lists.
    with_lists: Option<Arc<WebPkiServerVerifier>>,
    verifies: bool,
    wildcards: bool,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    /// Checks that an authority has issued the certificate, and has not revoked it. `name` is not checked.
    fn check_chain(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let Some(verifier) = &self.with_lists else {
            return verify_server_cert_signed_by_trust_anchor(
                &ParsedCertificate::try_from(certificate)?,
                &self.roots,
                intermediates,
                now,
                self.provider.signature_verification_algorithms.all,
            );
        };
        let verified = verifier.verify_server_cert(certificate, intermediates, name, &[], now);
        match verified {
            // The library looks at the name last, and has other rules for it than SIP.
            Ok(_)
            | Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(()),
            Err(error) => Err(error),
        }
    }
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
        self.check_chain(certificate, intermediates, name, now)?;
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
