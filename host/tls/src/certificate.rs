//! What a certificate says.

use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portcullis_text::rfc3339;
use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::error::TlsError;
use crate::names::SipNames;

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Its names.
    pub names: SipNames,
    /// Its alternative names that are URIs, as they are written.
    pub uris: Vec<String>,
    /// Its alternative names that are mail addresses, as they are written.
    pub emails: Vec<String>,
    /// Its subject, for display.
    pub subject: String,
    /// The first common name of its subject. No rule of the host compares it.
    pub common_name: Option<String>,
    /// Its issuer, for display.
    pub issuer: String,
    /// Its serial number, hexadecimal.
    pub serial_number: String,
    /// When it becomes valid.
    pub not_before: SystemTime,
    /// When it expires.
    pub not_after: SystemTime,
    /// Its SHA-256.
    pub fingerprint: [u8; 32],
}

impl Certificate {
    /// Reads a certificate.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(der: &CertificateDer<'_>) -> Result<Self, String> {
        let (_, parsed) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
        let validity = parsed.validity();
        let digest = ring::digest::digest(&ring::digest::SHA256, der);
        let mut common_names = parsed.subject().iter_common_name();
        let alternatives = Alternatives::of(&parsed)?;
        Ok(Self {
            names: alternatives.names,
            uris: alternatives.uris,
            emails: alternatives.emails,
            subject: parsed.subject().to_string(),
            common_name: common_names
                .find_map(|name| name.as_str().ok())
                .map(str::to_owned),
            issuer: parsed.issuer().to_string(),
            serial_number: parsed.raw_serial_as_string().replace(':', ""),
            not_before: at(validity.not_before.timestamp()),
            not_after: at(validity.not_after.timestamp()),
            fingerprint: digest.as_ref().try_into().unwrap_or_default(),
        })
    }

    /// Whether it is valid at this time.
    pub fn is_valid_at(&self, now: SystemTime) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// Reads the first certificate of a chain, and checks that each certificate was issued by the next one.
    pub(crate) fn of_chain(file: &Path, chain: &[CertificateDer<'_>]) -> Result<Self, TlsError> {
        let unreadable = |number: usize, what: String| TlsError::Unreadable {
            file: file.to_owned(),
            number,
            what,
        };
        let mut parsed = Vec::new();
        for (number, der) in (1..).zip(chain) {
            let (_, certificate) = X509Certificate::from_der(der)
                .map_err(|error| unreadable(number, error.to_string()))?;
            parsed.push(certificate);
        }
        for (number, pair) in (1..).zip(parsed.windows(2)) {
            if let [one, issuer] = pair
                && one.issuer().as_raw() != issuer.subject().as_raw()
            {
                return Err(TlsError::Chain {
                    file: file.to_owned(),
                    number,
                });
            }
        }
        let first = chain
            .first()
            .ok_or_else(|| TlsError::NoCertificate(file.to_owned()))?;
        Self::read(first).map_err(|what| unreadable(1, what))
    }

    /// The error of a certificate outside of its time.
    pub(crate) fn outdated(&self, file: &Path) -> TlsError {
        TlsError::Outdated {
            file: file.to_owned(),
            from: rfc3339(self.not_before),
            until: rfc3339(self.not_after),
        }
    }
}

/// The alternative names of a certificate.
#[derive(Default)]
struct Alternatives {
    names: SipNames,
    uris: Vec<String>,
    emails: Vec<String>,
}

impl Alternatives {
    fn of(certificate: &X509Certificate<'_>) -> Result<Self, String> {
        let mut all = Self::default();
        let extension = certificate.subject_alternative_name();
        let Some(extension) = extension.map_err(|error| error.to_string())? else {
            return Ok(all);
        };
        for name in &extension.value.general_names {
            #[expect(
                clippy::wildcard_enum_match_arm,
                reason = "SIP compares no other kinds of names (RFC 5922 §7.1)"
            )]
            match name {
                GeneralName::URI(uri) => {
                    all.names.add_uri(uri);
                    all.uris.push((*uri).to_owned());
                }
                GeneralName::DNSName(name) => all.names.add_dns(name),
                GeneralName::IPAddress(bytes) => all.names.addresses.extend(address(bytes)),
                GeneralName::RFC822Name(name) => all.emails.push((*name).to_owned()),
                _ => {}
            }
        }
        Ok(all)
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

/// The time of a number of seconds since 1970, which may be earlier.
pub(crate) fn at(seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let time = match seconds < 0 {
        true => UNIX_EPOCH.checked_sub(distance),
        false => UNIX_EPOCH.checked_add(distance),
    };
    time.unwrap_or(UNIX_EPOCH)
}
