//! Connections that peers open: the certificate for the name that a client asks for, and what is demanded of its own certificate.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ProducesTickets, ServerConfig, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{SupportedProtocolVersion, version};

use crate::certificate::Certificate;
use crate::error::TlsError;
use crate::names::{NameIndex, covers_any};
use crate::pem::{Place, Revocations, WithLists, read_pair};
use crate::profile::{ClientAuth, MinVersion, Profile};

/// What is spoken inside TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inside {
    /// SIP messages, one after the other.
    Sip,
    /// HTTP/1.1, which opens a WebSocket (RFC 6455 §4.1).
    WebSocket,
}

impl Inside {
    /// The name of the protocol for ALPN (RFC 7301).
    pub(crate) const fn protocol(self) -> &'static [u8] {
        match self {
            Self::Sip => b"sip/2",
            Self::WebSocket => b"http/1.1",
        }
    }
}

/// Session tickets for one full handshake; a client that opens connections in parallel needs more than one.
const TICKETS: usize = 2;

/// A profile whose files have been read.
#[derive(Debug)]
pub struct Server {
    /// The profile.
    pub profile: Profile,
    /// What its certificate says.
    pub certificate: Certificate,
    /// When the revocation lists should have been followed by others; `None` without lists, or if they do not say that.
    pub lists_until: Option<SystemTime>,
    /// For clients that offer the protocol of the listener, and for all others: a client need not know ALPN, and one that offers another protocol is
    /// served.
    for_sip: Arc<ServerConfig>,
    for_websocket: Arc<ServerConfig>,
    without_protocol: Arc<ServerConfig>,
}

/// Whether the time of a certificate is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dates {
    /// One that has expired, or is not valid yet, is refused.
    Checked,
    /// It is used all the same: a host that starts has no better one.
    Ignored,
}

/// The profiles, and their choice by name.
#[derive(Debug, Default)]
pub(crate) struct Servers {
    pub(crate) all: Vec<Arc<Server>>,
    /// Positions in `all`.
    names: NameIndex,
    default: Option<usize>,
}

impl Server {
    /// Reads the files of a profile.
    pub(crate) fn read(
        profile: &Profile,
        dates: Dates,
        provider: &Arc<CryptoProvider>,
        ticketer: &Arc<dyn ProducesTickets>,
    ) -> Result<Self, TlsError> {
        let section = format!("tls.{}", profile.name);
        let pair = read_pair(&section, &profile.certificate, &profile.key, provider)?;
        let certificate = Certificate::of_chain(&profile.certificate, &pair.cert)?;
        if dates == Dates::Checked && !certificate.is_valid_at(SystemTime::now()) {
            return Err(certificate.outdated(&profile.certificate));
        }
        let has_name = certificate.names.dns.iter().any(|name| covers_any(name));
        if !profile.is_default && profile.names.is_empty() && !has_name {
            return Err(TlsError::Nameless {
                section,
                file: profile.certificate.clone(),
            });
        }
        let refused = |error| TlsError::Refused {
            certificate: profile.certificate.clone(),
            key: profile.key.clone(),
            error,
        };
        let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
            .with_protocol_versions(versions(profile.min_version))
            .map_err(refused)?;
        let (clients, lists_until) = clients(profile, &section, provider)?.unzip();
        let builder = match clients {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let resolver = Arc::new(SingleCertAndKey::from(pair));
        let mut config = builder.with_cert_resolver(resolver);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        // A resumed session would skip the check of the client's certificate, which may have been revoked.
        match profile.client_auth {
            ClientAuth::None => {
                config.ticketer = Arc::clone(ticketer);
                config.send_tls13_tickets = TICKETS;
            }
            ClientAuth::Optional | ClientAuth::Required => config.send_tls13_tickets = 0,
        }
        let with = |inside: Inside| {
            let mut config = config.clone();
            config.alpn_protocols = vec![inside.protocol().to_vec()];
            Arc::new(config)
        };
        Ok(Self {
            profile: profile.clone(),
            certificate,
            lists_until: lists_until.flatten(),
            for_sip: with(Inside::Sip),
            for_websocket: with(Inside::WebSocket),
            without_protocol: Arc::new(config),
        })
    }

    /// The names for which the profile is chosen.
    pub fn names(&self) -> &[String] {
        match self.profile.names.is_empty() {
            true => &self.certificate.names.dns,
            false => &self.profile.names,
        }
    }

    /// What a handshake needs, for a client that offers these protocols (ALPN) where this is spoken.
    pub(crate) fn config<'p>(
        &self,
        inside: Inside,
        mut protocols: impl Iterator<Item = &'p [u8]>,
    ) -> Arc<ServerConfig> {
        let is_offered = protocols.any(|protocol| protocol == inside.protocol());
        Arc::clone(match (is_offered, inside) {
            (false, _) => &self.without_protocol,
            (true, Inside::Sip) => &self.for_sip,
            (true, Inside::WebSocket) => &self.for_websocket,
        })
    }
}

impl Servers {
    pub(crate) fn new(all: Vec<Arc<Server>>) -> Self {
        let mut names = NameIndex::default();
        for (at, server) in all.iter().enumerate() {
            for name in server.names() {
                names.add(name, at);
            }
        }
        let only = (all.len() == 1).then_some(0);
        let default = all.iter().position(|server| server.profile.is_default);
        Self {
            default: default.or(only),
            all,
            names,
        }
    }

    /// The profile for a name that a client asks for: the one that has it, or a wildcard for it, otherwise the default one.
    pub(crate) fn of(&self, name: Option<&str>) -> Option<&Arc<Server>> {
        let named = name.and_then(|name| self.names.find(name));
        self.all.get(named.or(self.default)?)
    }
}

/// What checks the certificates of clients, and until when its revocation lists are meant; `None` if clients need no certificates.
fn clients(
    profile: &Profile,
    section: &str,
    provider: &Arc<CryptoProvider>,
) -> Result<WithLists<Arc<dyn ClientCertVerifier>>, TlsError> {
    let (ClientAuth::Optional | ClientAuth::Required, Some(file)) =
        (profile.client_auth, &profile.client_ca)
    else {
        return Ok(None);
    };
    let place = |key, file| Place { section, key, file };
    let roots = place("client-ca", file.as_path()).authorities()?;
    let mut builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider));
    let mut lists_until = None;
    if let Some(crl) = &profile.crl {
        let Revocations { lists, until } = place("crl", crl.as_path()).revocations()?;
        lists_until = until;
        // A list of one authority says nothing of the certificates of another one.
        builder = builder.with_crls(lists).allow_unknown_revocation_status();
    }
    if profile.client_auth == ClientAuth::Optional {
        builder = builder.allow_unauthenticated();
    }
    let verifier = builder
        .build()
        .map(|verifier| Some((verifier, lists_until)));
    verifier.map_err(|error| TlsError::of_verifier(&error, file, profile.crl.as_deref()))
}

pub(crate) fn versions(least: MinVersion) -> &'static [&'static SupportedProtocolVersion] {
    static ALL: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
    match least {
        MinVersion::Tls12 => &ALL,
        MinVersion::Tls13 => &ALL[..1],
    }
}
