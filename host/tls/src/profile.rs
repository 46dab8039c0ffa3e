//! What the operator configures.

use std::path::PathBuf;

use rustls::pki_types::ServerName;

use crate::names::NameIndex;

/// All TLS of SIP connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `[tls.NAME]`, in the order of their names.
    pub profiles: Vec<Profile>,
    /// `[relay.tls]`
    pub relay: RelayProfile,
    /// `[relay.tls-profiles.NAME]`, in the order of their names.
    pub relay_profiles: Vec<NamedRelayProfile>,
}

impl Settings {
    /// The profile of connections that the host opens to this host name or address; `None`: `[relay.tls]`.
    pub fn relay_profile(&self, hop: &ServerName<'_>) -> Option<&NamedRelayProfile> {
        let at = self.hosts().of(hop)?;
        self.relay_profiles.get(at)
    }

    /// Positions in `relay_profiles` by host.
    pub(crate) fn hosts(&self) -> NameIndex {
        let mut hosts = NameIndex::default();
        for (at, profile) in self.relay_profiles.iter().enumerate() {
            for host in &profile.hosts {
                hosts.add(host, at);
            }
        }
        hosts
    }
}

/// `[tls.NAME]`: a certificate for peers that connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// The name of the section.
    pub name: String,
    /// File of the certificate, followed by those of the authorities that issued it, in PEM.
    pub certificate: PathBuf,
    /// File of its private key, in PEM.
    pub key: PathBuf,
    /// Server names (SNI) for which the certificate is used: `a.example`, or `*.a.example` for one label. None: those of the certificate.
    pub names: Vec<String>,
    /// Whether the certificate is used for all other names, and for clients that name none.
    pub is_default: bool,
    /// Whether clients have to show a certificate.
    pub client_auth: ClientAuth,
    /// File of the authorities of client certificates, in PEM.
    pub client_ca: Option<PathBuf>,
    /// File of revocation lists of these authorities, in PEM.
    pub crl: Option<PathBuf>,
    /// The oldest version that is accepted.
    pub min_version: MinVersion,
}

/// Whether clients have to show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// They are not asked for one.
    #[default]
    None,
    /// They are asked. A certificate that is shown must be valid.
    Optional,
    /// A connection without a valid certificate is refused.
    Required,
}

/// The oldest version that is accepted. TLS 1.0 and 1.1 never are (RFC 8996).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MinVersion {
    /// TLS 1.2
    #[default]
    Tls12,
    /// TLS 1.3
    Tls13,
}

/// `[relay.tls]`, or the same keys of a section in `[relay.tls-profiles]`: connections that the host opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayProfile {
    /// Files of the certificate that the host shows, and of its private key.
    pub pair: Option<(PathBuf, PathBuf)>,
    /// The authorities that are trusted.
    pub authorities: Authorities,
    /// File of revocation lists of these authorities, in PEM.
    pub crl: Option<PathBuf>,
    /// The name that each certificate must have, in place of that of the next hop.
    pub name: Option<String>,
    /// Whether certificates are verified at all.
    pub verify: bool,
    /// Whether a certificate for `*.example.com` is one for `a.example.com`.
    pub wildcards: bool,
    /// The oldest version that is accepted.
    pub min_version: MinVersion,
}

/// `[relay.tls-profiles.NAME]`: connections that the host opens to some hosts, in place of `[relay.tls]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedRelayProfile {
    /// The name of the section.
    pub name: String,
    /// Whose connections have the profile: host names in lower case, `*.` for one label, and addresses. No two profiles have the same one.
    pub hosts: Vec<String>,
    /// The profile.
    pub profile: RelayProfile,
}

/// The authorities that are trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Authorities {
    /// Those of the system.
    #[default]
    System,
    /// Those in this file, in PEM.
    File(PathBuf),
}

impl Default for RelayProfile {
    fn default() -> Self {
        Self {
            pair: None,
            authorities: Authorities::default(),
            crl: None,
            name: None,
            verify: true,
            wildcards: true,
            min_version: MinVersion::default(),
        }
    }
}
