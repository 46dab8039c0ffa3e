//! TLS of the control port: the certificate and its key are files, which are read again when they change.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use portcullis_address::FileWatch;
use portcullis_config::TlsFiles;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, ServerConfig};
use thiserror::Error;
use tokio_rustls::TlsAcceptor;

/// The largest file in bytes.
const LARGEST: u64 = 1 << 20;

/// The protocol inside TLS (ALPN).
const PROTOCOL: &[u8] = b"http/1.1";

/// The certificate of the control port, and what follows its files.
pub(crate) struct Tls {
    files: TlsFiles,
    current: Arc<Current>,
    config: Arc<ServerConfig>,
}

/// The certificate in use. A handshake takes the one that is there when it begins.
#[derive(Debug)]
struct Current(ArcSwap<CertifiedKey>);

/// Why a certificate or its key cannot be used.
#[derive(Debug, Error)]
pub(crate) enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}: {error}; change `{key}` in [control]", file.display())]
    File {
        key: &'static str,
        file: PathBuf,
        error: std::io::Error,
    },
    /// A file is not PEM.
    #[error("{} is not a file in PEM: {error}; change `{key}` in [control]", file.display())]
    Pem {
        key: &'static str,
        file: PathBuf,
        error: pem::Error,
    },
    /// A file without a certificate.
    #[error("{} contains no certificate: it needs a block \"BEGIN CERTIFICATE\"", .0.display())]
    NoCertificate(PathBuf),
    /// A file without a private key.
    #[error(
        "{} contains no private key: it needs a block \"BEGIN PRIVATE KEY\", \"BEGIN EC PRIVATE KEY\" or \"BEGIN RSA PRIVATE KEY\", \
         which is not encrypted",
        .0.display()
    )]
    NoKey(PathBuf),
    /// The key is that of another certificate.
    #[error("the key in {} does not belong to the first certificate in {}", key.display(), certificate.display())]
    Mismatch { certificate: PathBuf, key: PathBuf },
    /// The library refuses them.
    #[error("{} and {} cannot be used: {error}", certificate.display(), key.display())]
    Refused {
        certificate: PathBuf,
        key: PathBuf,
        error: rustls::Error,
    },
}

impl Tls {
    /// Reads the certificate and its key.
    ///
    /// # Errors
    /// If they cannot be used.
    pub(crate) fn open(files: &TlsFiles) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let certified = read(files, &provider)?;
        let current = Arc::new(Current(ArcSwap::from_pointee(certified)));
        let refused = |error| TlsError::Refused {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
            error,
        };
        let config = ServerConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions();
        let config = config.map_err(refused)?.with_no_client_auth();
        let mut config = config.with_cert_resolver(Arc::clone(&current) as _);
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(Self {
            files: files.clone(),
            current,
            config: Arc::new(config),
        })
    }

    /// What makes a TLS connection of a TCP connection.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }

    /// Reads the files again whenever one of them changes. Certificate and key are often replaced one after the other: until both belong
    /// together, the previous ones stay in use.
    pub(crate) async fn watch(self: Arc<Self>) {
        let mut certificate = FileWatch::quick(&self.files.certificate);
        let mut key = FileWatch::quick(&self.files.key);
        loop {
            // Also at first: the files may have changed since they were read.
            self.reload();
            tokio::select! {
                () = certificate.changed() => {}
                () = key.changed() => {}
            }
        }
    }

    fn reload(&self) {
        match read(&self.files, self.config.crypto_provider()) {
            // The key of a certificate does not change.
            Ok(certified) if certified.cert == self.current.0.load().cert => {}
            Ok(certified) => {
                self.current.0.store(Arc::new(certified));
                tracing::info!(
                    event = "control_certificate_loaded",
                    file = %self.files.certificate.display(),
                    "certificate of the control port replaced"
                );
            }
            Err(error) => tracing::warn!(
                event = "control_certificate_refused",
                file = %self.files.certificate.display(),
                %error,
                "new certificate of the control port refused, the previous one stays in use"
            ),
        }
    }
}

/// Returns what would prevent TLS.
pub(crate) fn problem(files: &TlsFiles) -> Option<String> {
    Tls::open(files).err().map(|error| error.to_string())
}

fn read(files: &TlsFiles, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let TlsFiles { certificate, key } = files;
    let chain = contents(certificate, "certificate")?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&chain).collect();
    let chain = chain.map_err(|error| TlsError::Pem {
        key: "certificate",
        file: certificate.clone(),
        error,
    })?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate(certificate.clone()));
    }
    let secret = contents(key, "key")?;
    let secret = match PrivateKeyDer::from_pem_slice(&secret) {
        Ok(secret) => secret,
        Err(pem::Error::NoItemsFound) => return Err(TlsError::NoKey(key.clone())),
        Err(error) => {
            return Err(TlsError::Pem {
                key: "key",
                file: key.clone(),
                error,
            });
        }
    };
    match CertifiedKey::from_der(chain, secret, provider) {
        Ok(certified) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            Err(TlsError::Mismatch {
                certificate: certificate.clone(),
                key: key.clone(),
            })
        }
        Err(error) => Err(TlsError::Refused {
            certificate: certificate.clone(),
            key: key.clone(),
            error,
        }),
    }
}

fn contents(file: &Path, key: &'static str) -> Result<Vec<u8>, TlsError> {
    let mut bytes = Vec::new();
    let read =
        std::fs::File::open(file).and_then(|file| file.take(LARGEST).read_to_end(&mut bytes));
    match read {
        Ok(_) => Ok(bytes),
        Err(error) => Err(TlsError::File {
            key,
            file: file.to_owned(),
            error,
        }),
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey as Made, generate_simple_self_signed};

    use super::*;

    fn made() -> (String, String) {
        let Made { cert, signing_key } = generate_simple_self_signed(["localhost".into()]).unwrap();
        (cert.pem(), signing_key.serialize_pem())
    }

    #[test]
    fn a_certificate_is_read_with_its_key_and_replaced_with_its_key_only() {
        let folder = tempfile::tempdir().unwrap();
        let files = TlsFiles {
            certificate: folder.path().join("cert.pem"),
            key: folder.path().join("key.pem"),
        };
        let write = |certificate: &str, key: &str| {
            std::fs::write(&files.certificate, certificate).unwrap();
            std::fs::write(&files.key, key).unwrap();
        };
        let ((first, first_key), (second, second_key)) = (made(), made());
        write(&first, &first_key);
        let tls = Tls::open(&files).unwrap();
        let now = || tls.current.0.load().cert[0].to_vec();
        let before = now();
        write(&second, &first_key);
        tls.reload();
        assert_eq!(now(), before);
        write(&second, &second_key);
        tls.reload();
        assert_ne!(now(), before);
    }

    #[test]
    fn errors_name_the_file_and_what_it_lacks() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let ((certificate, key), (_, other)) = (made(), made());
        std::fs::write(path("cert"), certificate).unwrap();
        std::fs::write(path("key"), key).unwrap();
        std::fs::write(path("other"), other).unwrap();
        std::fs::write(path("empty"), "").unwrap();
        std::fs::write(
            path("torn"),
            "-----BEGIN CERTIFICATE-----\n????\n-----END CERTIFICATE-----\n",
        )
        .unwrap();
        let told = |certificate: &str, key: &str| {
            let files = TlsFiles {
                certificate: path(certificate),
                key: path(key),
            };
            problem(&files).unwrap_or_default()
        };
        assert_eq!(told("cert", "key"), "");
        for (certificate, key, said) in [
            ("none", "key", "change `certificate` in [control]"),
            ("cert", "none", "change `key` in [control]"),
            ("empty", "key", "contains no certificate"),
            ("torn", "key", "is not a file in PEM"),
            ("cert", "empty", "contains no private key"),
            ("cert", "cert", "contains no private key"),
            ("cert", "other", "does not belong to the first certificate"),
        ] {
            let error = told(certificate, key);
            assert!(error.contains(said), "{error}");
        }
    }
}
