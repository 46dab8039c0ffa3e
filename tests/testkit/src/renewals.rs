//! Certificates that are renewed: good files, files that cannot be used, and clients that verify what a server shows.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::host::{Builder, Host};
use crate::wait::PATIENCE;

/// The name in all certificates.
pub const NAME: &str = "edge.example";

/// An authority, two certificates of it for the same name, one that has expired, and the files of a host.
#[derive(Debug)]
pub struct Renewals {
    folder: TempDir,
    authority: CertificateDer<'static>,
    /// The two certificates that can be used.
    pub pairs: [Pair; 2],
    expired: Pair,
}

/// A certificate and its key.
#[derive(Debug)]
pub struct Pair {
    certificate: String,
    key: String,
    /// The certificate.
    pub der: CertificateDer<'static>,
}

/// What makes files unusable.
#[derive(Clone, Copy, Debug)]
enum Fault {
    NoCertificate,
    NoKey,
    EmptyKey,
    Mismatch,
    Expired,
    Garbage,
    HalfCertificate,
    HalfKey,
}

const FAULTS: [Fault; 8] = [
    Fault::NoCertificate,
    Fault::NoKey,
    Fault::EmptyKey,
    Fault::Mismatch,
    Fault::Expired,
    Fault::Garbage,
    Fault::HalfCertificate,
    Fault::HalfKey,
];

/// A connection with TLS.
pub type Stream = StreamOwned<ClientConnection, TcpStream>;

impl Renewals {
    /// Makes the certificates. The files of the host have the first one.
    ///
    /// # Panics
    /// When a file cannot be written.
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key can be made");
        let mut params = CertificateParams::new(Vec::new()).expect("no names are needed");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let own = params.self_signed(&key).expect("it can be signed");
        let issuer = Issuer::new(params, key);
        let folder = tempfile::tempdir().expect("a temporary directory can be made");
        fs::write(folder.path().join("ca.pem"), own.pem()).expect("a file can be written");
        let renewals = Self {
            authority: own.der().clone(),
            pairs: [(); 2].map(|()| Pair::new(&issuer, |_| {})),
            expired: Pair::new(&issuer, |params| {
                params.not_before = date_time_ymd(2019, 1, 1);
                params.not_after = date_time_ymd(2020, 1, 1);
            }),
            folder,
        };
        renewals.put(&renewals.pairs[0]);
        renewals
    }

    /// The file of the authority.
    pub fn authority(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// A host that listens here for TLS with the files, and takes any number of handshakes.
    #[must_use]
    pub fn serve(&self, builder: Builder, tls: SocketAddr) -> Builder {
        let file = |name: &str| format!("{:?}", self.path(name));
        builder
            .listen(&format!("tls:{tls}"))
            .set("tls.edge", &format!("certificate = {}", file("edge.pem")))
            .set("tls.edge", &format!("key = {}", file("edge.key")))
            .set("streams", "handshakes-per-second = 0")
    }

    /// Renews the files for the `nth` time, and has the host read them: good files if `nth` is even, otherwise files with a fault. The host must name
    /// the fault, and must show the last good certificate to clients. Returns how long the command took.
    ///
    /// # Errors
    /// What the host did in place of that.
    ///
    /// # Panics
    /// When a file cannot be written, or the host does not answer.
    pub fn renew(&self, host: &Host, tls: SocketAddr, nth: u64) -> Result<Duration, String> {
        let good = &self.pairs[usize::from((nth / 2).is_multiple_of(2))];
        let fault = (nth % 2 == 1).then(|| FAULTS[(nth / 2) as usize % FAULTS.len()]);
        let expected = match fault {
            None => {
                self.put(good);
                "Ok. TLS configuration reloaded."
            }
            Some(fault) => self.spoil(fault, good),
        };
        let begun = Instant::now();
        let answer = host.rpc("tls.reload", json!([]));
        let took = begun.elapsed();
        let what = match fault {
            None => "good files".to_owned(),
            Some(fault) => format!("{fault:?}"),
        };
        let is_refused = answer["error"]["message"] == "Error while fixing TLS configuration";
        if is_refused != fault.is_some() || !answer.to_string().contains(expected) {
            return Err(format!("{what}: the host says {answer}"));
        }
        let faults = faults(host);
        if faults != usize::from(fault.is_some()) {
            return Err(format!("{what}: the host lists {faults} faults"));
        }
        let client = self.client(Resumption::disabled());
        match shown(&connect(tls, &client)) == good.der {
            true => Ok(took),
            false => Err(format!("{what}: the host shows another certificate")),
        }
    }

    /// Writes the files of the host: not at once, and not atomically.
    fn put(&self, pair: &Pair) {
        self.write("edge.pem", &pair.certificate);
        self.write("edge.key", &pair.key);
    }

    /// Makes the files of this certificate unusable. Returns a part of what the host says.
    fn spoil(&self, fault: Fault, good: &Pair) -> &'static str {
        let half = |text: &str| text[..text.len() / 2].to_owned();
        let remove = |path: &Path| fs::remove_file(path).expect("the file is there");
        match fault {
            Fault::NoCertificate => {
                remove(&self.path("edge.pem"));
                "cannot read"
            }
            Fault::NoKey => {
                remove(&self.path("edge.key"));
                "cannot read"
            }
            Fault::EmptyKey => {
                self.write("edge.key", "");
                "contains no private key"
            }
            Fault::Mismatch => {
                let mut others = self.pairs.iter();
                let other = others.find(|other| other.der != good.der);
                self.write("edge.key", &other.expect("there are two").key);
                "does not belong to the first certificate"
            }
            Fault::Expired => {
                self.put(&self.expired);
                "is valid from"
            }
            Fault::Garbage => {
                self.write("edge.pem", [0xff, 0x00, 0x16, b'-'].repeat(500));
                "contains no certificate"
            }
            Fault::HalfCertificate => {
                self.write("edge.pem", half(&good.certificate));
                "is not a file in PEM"
            }
            Fault::HalfKey => {
                self.write("edge.key", half(&good.key));
                "is not a file in PEM"
            }
        }
    }

    /// A client that verifies certificates.
    ///
    /// # Panics
    /// When the library refuses the authority.
    pub fn client(&self, resumption: Resumption) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots
            .add(self.authority.clone())
            .expect("the authority can be used");
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has both versions");
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.resumption = resumption;
        Arc::new(config)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path(name), text).expect("a file can be written");
    }
}

impl Default for Renewals {
    fn default() -> Self {
        Self::new()
    }
}

impl Pair {
    fn new(issuer: &Issuer<'static, KeyPair>, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate().expect("a key can be made");
        let params = CertificateParams::new(vec![NAME.to_owned()]);
        let mut params = params.expect("the name is one");
        change(&mut params);
        let made = params.signed_by(&key, issuer).expect("it can be signed");
        Self {
            certificate: made.pem(),
            key: key.serialize_pem(),
            der: made.der().clone(),
        }
    }
}

/// The number of certificates whose files were refused at the last reload.
fn faults(host: &Host) -> usize {
    let answer = host.rpc("tls.certificates", json!([]));
    let listed = answer["result"].as_array().expect("a list of certificates");
    let has_fault = |one: &&Value| !one["fault"].is_null();
    listed.iter().filter(has_fault).count()
}

/// Connects to a server, and returns when the handshake is done and the certificate verified.
///
/// # Panics
/// When the handshake fails.
pub fn connect(server: SocketAddr, client: &Arc<ClientConfig>) -> Stream {
    let name = ServerName::try_from(NAME).expect("it is a name");
    let mut conn = ClientConnection::new(Arc::clone(client), name).expect("a client");
    let mut socket = TcpStream::connect(server).expect("the host listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("a limit");
    while conn.is_handshaking() {
        conn.complete_io(&mut socket)
            .expect("the handshake succeeds");
    }
    StreamOwned::new(conn, socket)
}

/// The certificate that the server of a connection has shown.
///
/// # Panics
/// When it has shown none.
pub fn shown(stream: &Stream) -> CertificateDer<'static> {
    let shown = stream.conn.peer_certificates().and_then(|all| all.first());
    shown
        .expect("the host shows a certificate")
        .clone()
        .into_owned()
}
