//! An authority, and handshakes in memory with its certificates.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use portcullis_tls::{
    Authorities, ClientAuth, Inside, MinVersion, Profile, RelayProfile, Settings, Tls,
};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, DnType,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
    date_time_ymd,
};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::Acceptor;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConnection};
use tempfile::TempDir;

/// An authority with a folder of files.
pub(crate) struct Office {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
    pub(crate) certificate: Certificate,
}

impl Office {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        // A list says something of the certificates of an authority with its name.
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let name = format!("Authority {}", NUMBER.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).unwrap();
        let office = Self {
            folder: tempfile::tempdir().unwrap(),
            issuer: Issuer::new(params, key),
            certificate,
        };
        office.write("ca.pem", &office.certificate.pem());
        office
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Makes `NAME.pem` and `NAME.key`.
    pub(crate) fn issue(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        self.write(&format!("{name}.pem"), &certificate.pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }

    pub(crate) fn issue_for(&self, name: &str, hosts: &[&str]) {
        self.issue(name, |params| {
            params.subject_alt_names = hosts.iter().map(|host| dns(host)).collect();
        });
    }

    /// Writes a list with the certificate of this number, and returns its file.
    pub(crate) fn revoke(&self, name: &str, number: u64) -> PathBuf {
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2034, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from(number),
                revocation_time: date_time_ymd(2024, 1, 1),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).unwrap();
        self.write(name, &list.pem().unwrap())
    }

    pub(crate) fn profile(&self, name: &str) -> Profile {
        Profile {
            name: name.into(),
            certificate: self.path(&format!("{name}.pem")),
            key: self.path(&format!("{name}.key")),
            names: Vec::new(),
            is_default: false,
            client_auth: ClientAuth::None,
            client_ca: None,
            crl: None,
            min_version: MinVersion::Tls12,
        }
    }

    pub(crate) fn relay(&self) -> RelayProfile {
        RelayProfile {
            authorities: Authorities::File(self.path("ca.pem")),
            ..RelayProfile::default()
        }
    }

    pub(crate) fn open(&self, profiles: Vec<Profile>) -> Tls {
        let settings = Settings {
            profiles,
            relay: self.relay(),
            ..Settings::default()
        };
        Tls::open(&settings).unwrap()
    }

    /// A client that trusts this authority and may show a certificate.
    pub(crate) fn client(&self, shows: Option<&str>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        match shows {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let read = |end: &str| std::fs::read(self.path(&format!("{name}.{end}"))).unwrap();
                let chain = CertificateDer::pem_slice_iter(&read("pem"))
                    .collect::<Result<_, _>>()
                    .unwrap();
                let key = PrivateKeyDer::from_pem_slice(&read("key")).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        }
    }
}

pub(crate) fn dns(host: &str) -> SanType {
    SanType::DnsName(host.try_into().unwrap())
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

/// Both ends after a handshake.
pub(crate) struct Met {
    pub(crate) client: ClientConnection,
    pub(crate) server: ServerConnection,
}

impl Met {
    /// The names of the certificate that the client got.
    pub(crate) fn names(&self) -> Vec<String> {
        let certificate = &self.client.peer_certificates().unwrap()[0];
        portcullis_tls::Certificate::read(certificate)
            .unwrap()
            .names
            .shown()
    }

    pub(crate) fn is_resumed(&self) -> bool {
        self.client.handshake_kind() == Some(HandshakeKind::Resumed)
    }
}

/// Lets a client of this configuration meet the server, until both are done or one refuses.
pub(crate) fn meet(
    tls: &Tls,
    client: &Arc<ClientConfig>,
    name: &str,
) -> Result<Met, rustls::Error> {
    meet_for(tls, Inside::Sip, client, name)
}

/// The same, where this is spoken.
pub(crate) fn meet_for(
    tls: &Tls,
    inside: Inside,
    client: &Arc<ClientConfig>,
    name: &str,
) -> Result<Met, rustls::Error> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name)?;
    let mut acceptor = Acceptor::default();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    acceptor.read_tls(&mut &hello[..]).unwrap();
    let accepted = acceptor.accept().map_err(|(error, _)| error)?.unwrap();
    let hello = accepted.client_hello();
    let protocols = hello.alpn().into_iter().flatten();
    let config = tls.server(inside, hello.server_name(), protocols);
    let config = config.ok_or_else(|| rustls::Error::General("no profile".into()))?;
    let server = accepted.into_connection(config);
    let mut server = server.map_err(|(error, _)| error)?;
    exchange(&mut client, &mut server)?;
    Ok(Met { client, server })
}

fn exchange(
    client: &mut ClientConnection,
    server: &mut ServerConnection,
) -> Result<(), rustls::Error> {
    while client.wants_write() || server.wants_write() {
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
    }
    Ok(())
}
