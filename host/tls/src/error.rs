//! Why certificates, keys and authorities cannot be used.

use std::path::{Path, PathBuf};

use rustls::CertificateError;
use rustls::server::VerifierBuilderError;
use thiserror::Error;

/// Why certificates, keys and authorities cannot be used. `key` and `section` name where the configuration has the file.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}: {error}; change `{key}` in [{section}]", file.display())]
    File {
        /// The section.
        section: String,
        /// The key.
        key: &'static str,
        /// The file.
        file: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// A file is not PEM.
    #[error("{} is not a file in PEM: {error}; change `{key}` in [{section}]", file.display())]
    Pem {
        /// The section.
        section: String,
        /// The key.
        key: &'static str,
        /// The file.
        file: PathBuf,
        /// Where it is not.
        error: rustls::pki_types::pem::Error,
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
    /// A file without a revocation list.
    #[error("{} contains no revocation list: it needs a block \"BEGIN X509 CRL\"", .0.display())]
    NoCrl(PathBuf),
    /// The key is that of another certificate.
    #[error("the key in {} does not belong to the first certificate in {}", key.display(), certificate.display())]
    Mismatch {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// The library refuses a certificate with its key.
    #[error("{} and {} cannot be used: {error}", certificate.display(), key.display())]
    Refused {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// What the library says.
        error: rustls::Error,
    },
    /// A certificate that is not X.509.
    #[error("certificate {number} in {} cannot be read: {what}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// The number of the certificate in the file, from 1.
        number: usize,
        /// What is wrong.
        what: String,
    },
    /// A certificate outside of its time.
    #[error("the certificate in {} is valid from {from} to {until} only: renew it, or correct the clock of this machine", file.display())]
    Outdated {
        /// The file.
        file: PathBuf,
        /// When it becomes valid.
        from: String,
        /// When it expires.
        until: String,
    },
    /// A chain in which a certificate does not follow from the next one.
    #[error(
        "certificate {number} in {} was not issued by the one that follows it: write the certificate first, then that of its issuer, and so on",
        file.display()
    )]
    Chain {
        /// The file.
        file: PathBuf,
        /// The number of the certificate in the file, from 1.
        number: usize,
    },
    /// Authorities that cannot be used.
    #[error("the authorities in {} cannot be used: {what}", file.display())]
    Authorities {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Revocation lists that cannot be used.
    #[error("the revocation lists in {} cannot be used: {what}", file.display())]
    Lists {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// No name for a certificate.
    #[error("no client reaches the certificate of [{section}]: {} has no DNS name that one can ask for; set `names` in [{section}]", file.display())]
    Nameless {
        /// The section.
        section: String,
        /// The file.
        file: PathBuf,
    },
}

impl TlsError {
    /// Why nothing can be verified with these authorities and lists.
    pub(crate) fn of_verifier(
        error: &VerifierBuilderError,
        authorities: &Path,
        lists: Option<&Path>,
    ) -> Self {
        let what = error.to_string();
        match (error, lists) {
            (VerifierBuilderError::InvalidCrl(_), Some(file)) => Self::Lists {
                file: file.to_owned(),
                what,
            },
            _ => Self::Authorities {
                file: authorities.to_owned(),
                what,
            },
        }
    }
}

/// Why a handshake failed, in words for operators.
pub fn explained(error: &rustls::Error) -> String {
    let revoked = rustls::Error::InvalidCertificate(CertificateError::Revoked);
    match *error == revoked {
        true => {
            "the certificate of the peer has been revoked: a list in `crl` has its number".into()
        }
        false => error.to_string(),
    }
}
