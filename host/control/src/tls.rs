//! TLS of the control port: the certificate and its key are files, which are read again when they change.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use portcullis_address::FileWatch;
use portcullis_config::TlsFiles;
use portcullis_tls::{TlsError, read_pair};
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

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

/// The section of the configuration that names the files.
const SECTION: &str = "control";

fn read(files: &TlsFiles, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    read_pair(SECTION, &files.certificate, &files.key, provider)
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
