//! Files in PEM.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::InconsistentKeys;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use crate::certificate::at;
use crate::error::TlsError;

/// The largest file in bytes: lists of revoked certificates are the longest.
const LARGEST: u64 = 16 << 20;

/// Where the configuration has a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'p> {
    pub(crate) section: &'p str,
    pub(crate) key: &'static str,
    pub(crate) file: &'p Path,
}

/// Revocation lists.
pub(crate) struct Revocations {
    pub(crate) lists: Vec<CertificateRevocationListDer<'static>>,
    /// When the next one of the first of them should have come (RFC 5280 §5.1.2.5); `None` if no list says that.
    pub(crate) until: Option<SystemTime>,
}

/// What checks certificates, if anything does, and until when its revocation lists are meant.
pub(crate) type WithLists<V> = Option<(V, Option<SystemTime>)>;

/// Reads a certificate, followed by those of its issuers, with its key. `section` is the section of the configuration that has them as
/// `certificate` and `key`.
///
/// # Errors
/// What prevents their use.
pub fn read_pair(
    section: &str,
    certificate: &Path,
    key: &Path,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let chain = Place {
        section,
        key: "certificate",
        file: certificate,
    }
    .certificates()?;
    let place = Place {
        section,
        key: "key",
        file: key,
    };
    let secret = match PrivateKeyDer::from_pem_slice(&place.bytes()?) {
        Ok(secret) => secret,
        Err(pem::Error::NoItemsFound) => return Err(TlsError::NoKey(key.to_owned())),
        Err(error) => return Err(place.is_no_pem(error)),
    };
    let files = (certificate.to_owned(), key.to_owned());
    match CertifiedKey::from_der(chain, secret, provider) {
        Ok(certified) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            Err(TlsError::Mismatch {
                certificate: files.0,
                key: files.1,
            })
        }
        Err(error) => Err(TlsError::Refused {
            certificate: files.0,
            key: files.1,
            error,
        }),
    }
}

impl Place<'_> {
    /// The certificates in the file, at least one.
    pub(crate) fn certificates(self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let bytes = self.bytes()?;
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
        let all = all.map_err(|error| self.is_no_pem(error))?;
        match all.is_empty() {
            true => Err(TlsError::NoCertificate(self.file.to_owned())),
            false => Ok(all),
        }
    }

    /// The authorities in the file, at least one.
    pub(crate) fn authorities(self) -> Result<Arc<rustls::RootCertStore>, TlsError> {
        let mut store = rustls::RootCertStore::empty();
        for (at, certificate) in self.certificates()?.into_iter().enumerate() {
            store
                .add(certificate)
                .map_err(|error| TlsError::Authorities {
                    file: self.file.to_owned(),
                    what: format!("certificate {}: {error}", at + 1),
                })?;
        }
        Ok(Arc::new(store))
    }

    /// The revocation lists in the file, at least one.
    pub(crate) fn revocations(self) -> Result<Revocations, TlsError> {
        let bytes = self.bytes()?;
        let all: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&bytes).collect();
        let lists = all.map_err(|error| self.is_no_pem(error))?;
        match lists.is_empty() {
            true => Err(TlsError::NoCrl(self.file.to_owned())),
            false => Ok(Revocations {
                until: lists.iter().filter_map(next_update).min(),
                lists,
            }),
        }
    }

    fn bytes(self) -> Result<Vec<u8>, TlsError> {
        let mut bytes = Vec::new();
        let read =
            File::open(self.file).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes));
        let error = match read {
            Ok(_) if bytes.len() as u64 <= LARGEST => return Ok(bytes),
            // The lists that do not fit would be missing.
            Ok(_) => io::Error::other("it is larger than 16 MiB"),
            Err(error) => error,
        };
        Err(TlsError::File {
            section: self.section.to_owned(),
            key: self.key,
            file: self.file.to_owned(),
            error,
        })
    }

    fn is_no_pem(self, error: pem::Error) -> TlsError {
        TlsError::Pem {
            section: self.section.to_owned(),
            key: self.key,
            file: self.file.to_owned(),
            error,
        }
    }
}

/// When the list that follows this one should have come. One that cannot be read is refused by what checks certificates with it.
fn next_update(list: &CertificateRevocationListDer<'_>) -> Option<SystemTime> {
    let (_, list) = CertificateRevocationList::from_der(list.as_ref()).ok()?;
    list.next_update().map(|time| at(time.timestamp()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a file that is cut, the lists at its end would be missing, and nobody would notice.
    #[test]
    fn a_file_that_is_too_large_is_refused_and_not_cut() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let place = Place {
            section: "relay.tls",
            key: "crl",
            file: file.path(),
        };
        file.as_file().set_len(LARGEST).unwrap();
        assert_eq!(place.bytes().unwrap().len() as u64, LARGEST);
        file.as_file().set_len(LARGEST + 1).unwrap();
        let error = place.bytes().unwrap_err().to_string();
        assert!(error.contains("larger than 16 MiB"), "{error}");
    }
}
