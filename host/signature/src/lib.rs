//! Signatures of policies: Ed25519 (RFC 8032) over the bytes of the file, with keys named in the configuration.
//!
//! [`Signers::check`] decides whether a file may be used; other functions create keys and signatures. This crate is independent of the
//! content of a policy.

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, KeypairBytes};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use thiserror::Error;

/// The prefix of the key in the output of `openssl pkey -pubout` (RFC 8410 §4).
const SPKI: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// The signers accepted at a seat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signers {
    /// Names and keys.
    pub keys: Vec<(String, VerifyingKey)>,
    /// Whether a policy must be signed by one of them.
    pub required: bool,
}

/// Why a policy is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SignatureError {
    /// It has no signature, but needs one.
    #[error(
        "the policy is not signed, and this seat takes signed ones only: sign it (portcullis policy sign FILE.wasm --key KEY) with \
         the key of {}", .signers.join(" or ")
    )]
    Unsigned {
        /// The accepted signers.
        signers: Vec<String>,
    },
    /// The signature is malformed.
    #[error(
        "the signature is not 64 bytes in Base64: make it with `portcullis policy sign` or `openssl pkeyutl -sign -rawin`"
    )]
    Malformed,
    /// The signature is by no accepted signer, or of another file.
    #[error("the signature is not that of this file by {}: sign it again", .signers.join(" or "))]
    Wrong {
        /// The accepted signers.
        signers: Vec<String>,
    },
}

impl Signers {
    /// The signer of this file; `None` if it is unsigned and may be. A signature that is present must be valid even if none is required,
    /// unless there are no accepted signers.
    ///
    /// # Errors
    /// When the file is not signed as required.
    pub fn check(&self, file: &[u8], signature: &str) -> Result<Option<&str>, SignatureError> {
        // The `base64` command breaks lines.
        let signature: String = signature.split_ascii_whitespace().collect();
        let signers = || self.keys.iter().map(|(name, _)| name.clone()).collect();
        if self.keys.is_empty() {
            return Ok(None);
        }
        if signature.is_empty() {
            return match self.required {
                true => Err(SignatureError::Unsigned { signers: signers() }),
                false => Ok(None),
            };
        }
        let bytes = STANDARD.decode(signature).ok();
        let signature = bytes.and_then(|bytes| Signature::from_slice(&bytes).ok());
        let signature = signature.ok_or(SignatureError::Malformed)?;
        let mut keys = self.keys.iter();
        match keys.find(|(_, key)| key.verify_strict(file, &signature).is_ok()) {
            Some((name, _)) => Ok(Some(name)),
            None => Err(SignatureError::Wrong { signers: signers() }),
        }
    }
}

/// Parses a public key: 32 bytes in Base64, or the Base64 text of `openssl pkey -pubout`.
pub fn public_key(text: &str) -> Option<VerifyingKey> {
    let bytes = STANDARD.decode(text.trim()).ok()?;
    let key = bytes.strip_prefix(&SPKI).unwrap_or(&bytes);
    VerifyingKey::from_bytes(key.try_into().ok()?).ok()
}

/// A public key in the form of the configuration.
pub fn shown(key: &VerifyingKey) -> String {
    STANDARD.encode(key.as_bytes())
}

/// A public key as `openssl pkey -pubout` writes it.
pub fn public_pem(key: &VerifyingKey) -> String {
    let base64 = STANDARD.encode([&SPKI[..], key.as_bytes()].concat());
    format!("-----BEGIN PUBLIC KEY-----\n{base64}\n-----END PUBLIC KEY-----\n")
}

/// A new private key from the system's random bytes, and its PEM form (PKCS #8, RFC 8410).
///
/// # Errors
/// When the system provides no random bytes.
pub fn new_key() -> anyhow::Result<(SigningKey, String)> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(|error| anyhow::anyhow!("the system provides no random bytes: {error}"))?;
    // Without the public key (version 1 of RFC 5958): OpenSSL 3.0 reads no other form.
    let private = KeypairBytes {
        secret_key: seed,
        public_key: None,
    };
    let pem = private.to_pkcs8_pem(LineEnding::LF)?;
    Ok((SigningKey::from_bytes(&seed), pem.to_string()))
}

/// The signature of a file, in Base64. `pem` is a private key as created by `openssl genpkey -algorithm ed25519` or [`new_key`].
///
/// # Errors
/// When `pem` is not such a key.
pub fn sign(file: &[u8], pem: &str) -> anyhow::Result<String> {
    let key = SigningKey::from_pkcs8_pem(pem)?;
    Ok(STANDARD.encode(key.sign(file).to_bytes()))
}

/// The path of a file's signature.
pub fn file_of(policy: &Path) -> PathBuf {
    let mut path = policy.to_owned().into_os_string();
    path.push(".sig");
    path.into()
}

/// The signature of a file in Base64, if there is one next to it. A file of 64 bytes is a raw signature as written by `openssl pkeyutl`.
///
/// # Errors
/// When the file exists and cannot be read.
pub fn read(path: &Path) -> std::io::Result<String> {
    let bytes = match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(String::new()),
        // Opening a pipe would block until somebody writes to it.
        Ok(metadata) if !metadata.is_file() => {
            let kind = std::io::ErrorKind::InvalidInput;
            return Err(std::io::Error::new(kind, "it is not a file"));
        }
        _ => std::fs::read(path)?,
    };
    Ok(match bytes.len() {
        Signature::BYTE_SIZE => STANDARD.encode(bytes),
        _ => String::from_utf8_lossy(&bytes).trim().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signers(required: bool) -> (Signers, String) {
        let (key, pem) = new_key().unwrap();
        let (other, _) = new_key().unwrap();
        let keys = vec![
            ("other".to_owned(), other.verifying_key()),
            ("ann".to_owned(), key.verifying_key()),
        ];
        (Signers { keys, required }, pem)
    }

    #[test]
    fn a_good_signature_names_its_signer() {
        let (signers, pem) = signers(true);
        let signature = sign(b"file", &pem).unwrap();
        assert_eq!(signers.check(b"file", &signature), Ok(Some("ann")));
        assert_eq!(
            signers.check(b"file", &format!(" {signature}\n")),
            Ok(Some("ann"))
        );
    }

    #[test]
    fn everything_else_is_refused() {
        let (signers, pem) = signers(true);
        let signature = sign(b"file", &pem).unwrap();
        let names = vec!["other".to_owned(), "ann".to_owned()];
        let wrong = SignatureError::Wrong {
            signers: names.clone(),
        };
        assert_eq!(signers.check(b"filf", &signature), Err(wrong.clone()));
        let (_, stranger) = new_key().unwrap();
        let strange = sign(b"file", &stranger).unwrap();
        assert_eq!(signers.check(b"file", &strange), Err(wrong));
        let unsigned = SignatureError::Unsigned { signers: names };
        assert_eq!(signers.check(b"file", ""), Err(unsigned));
        for bad in ["x", "AAAA", &signature[4..]] {
            assert_eq!(signers.check(b"file", bad), Err(SignatureError::Malformed));
        }
    }

    #[test]
    fn a_signature_may_have_its_lines_broken() {
        let (signers, pem) = signers(true);
        let signature = sign(b"file", &pem).unwrap();
        let broken = format!("{}\r\n{}\n", &signature[..76], &signature[76..]);
        assert_eq!(signers.check(b"file", &broken), Ok(Some("ann")));
    }

    #[test]
    fn a_new_key_has_the_form_that_openssl_reads() {
        let (_, pem) = new_key().unwrap();
        let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        // RFC 8410 §10.3: 48 bytes, of which the last 32 are the key.
        let der = STANDARD.decode(base64).unwrap();
        assert_eq!((der.len(), &der[..5]), (48, &[0x30, 0x2e, 2, 1, 0][..]));
    }

    #[test]
    fn what_is_not_required_must_be_good_if_it_is_there() {
        let (signers, pem) = signers(false);
        assert_eq!(signers.check(b"file", ""), Ok(None));
        let signature = sign(b"file", &pem).unwrap();
        assert_eq!(signers.check(b"file", &signature), Ok(Some("ann")));
        assert!(signers.check(b"other", &signature).is_err());
        assert_eq!(Signers::default().check(b"file", "whatever"), Ok(None));
    }

    #[test]
    fn keys_are_read_in_both_forms() {
        let (key, _) = new_key().unwrap();
        let key = key.verifying_key();
        assert_eq!(public_key(&shown(&key)), Some(key));
        let long = STANDARD.encode([&SPKI[..], key.as_bytes()].concat());
        assert_eq!(public_key(&long), Some(key));
        assert_eq!(public_pem(&key).lines().nth(1), Some(&*long));
        for bad in ["", "AAAA", "not base64", &long[4..]] {
            assert_eq!(public_key(bad), None, "{bad}");
        }
    }
}
