//! Keys for signatures in registries: ECDSA on P-256 with SHA-256, as cosign makes them, or Ed25519.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _, UnparsedPublicKey,
};
use thiserror::Error;

use crate::digest::Digest;

/// The DER bytes before the point of a public key on P-256 (RFC 5480).
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// The DER bytes before the 32 bytes of a public key for Ed25519 (RFC 8410 §4).
const ED25519_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// Why a text is not a key.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum KeyError {
    /// No PEM.
    #[error("it is not a key in PEM format (-----BEGIN {wanted}-----)")]
    NoPem {
        /// The wanted kind.
        wanted: &'static str,
    },
    /// Another kind of PEM.
    #[error("it contains {found:?}, not {wanted:?}{}", conversion(.found))]
    Label {
        /// The wanted kind.
        wanted: &'static str,
        /// What the first line names.
        found: String,
    },
    /// Neither P-256 nor Ed25519.
    #[error(
        "it is not a key for ECDSA on P-256 or for Ed25519: `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256` creates a \
         private key, `openssl pkey -pubout` its public key"
    )]
    Algorithm,
}

/// A private key.
pub struct SigningKey(Private);

enum Private {
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// A public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyKey {
    name: String,
    algorithm: Algorithm,
    /// The point, or the 32 bytes of Ed25519.
    key: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    P256,
    Ed25519,
}

impl SigningKey {
    /// Reads a private key: PKCS #8 in PEM, not encrypted.
    ///
    /// # Errors
    /// If the text is something else.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let der = pem(text, "PRIVATE KEY")?;
        let random = SystemRandom::new();
        let p256 = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &der, &random);
        if let Ok(key) = p256 {
            return Ok(Self(Private::P256(key)));
        }
        // The form without the public key is what `openssl` writes.
        let ed25519 = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der);
        let key = ed25519.map_err(|_| KeyError::Algorithm)?;
        Ok(Self(Private::Ed25519(key)))
    }

    /// Whether it is a key for ECDSA, which signs artifacts only.
    pub fn is_ecdsa(&self) -> bool {
        matches!(self.0, Private::P256(_))
    }

    /// The public key. `name` is what errors call it.
    pub fn verify_key(&self, name: &str) -> VerifyKey {
        let (algorithm, key) = match &self.0 {
            Private::P256(key) => (Algorithm::P256, key.public_key().as_ref()),
            Private::Ed25519(key) => (Algorithm::Ed25519, key.public_key().as_ref()),
        };
        VerifyKey {
            name: name.to_owned(),
            algorithm,
            key: key.to_owned(),
        }
    }

    /// The signature. `None` if the system has no random bytes.
    pub(crate) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        match &self.0 {
            Private::P256(key) => {
                let signature = key.sign(&SystemRandom::new(), message).ok()?;
                Some(signature.as_ref().to_owned())
            }
            Private::Ed25519(key) => Some(key.sign(message).as_ref().to_owned()),
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("SigningKey")
    }
}

impl VerifyKey {
    /// Reads a public key: SubjectPublicKeyInfo in PEM, as `cosign` and `openssl pkey -pubout` write it. `name` is what errors call it.
    ///
    /// # Errors
    /// If the text is something else.
    pub fn from_pem(name: &str, text: &str) -> Result<Self, KeyError> {
        let der = pem(text, "PUBLIC KEY")?;
        let (algorithm, key) = match (
            der.strip_prefix(&P256_PREFIX),
            der.strip_prefix(&ED25519_PREFIX),
        ) {
            // An uncompressed point.
            (Some(point), _) if point.len() == 65 && point.first() == Some(&4) => {
                (Algorithm::P256, point)
            }
            (_, Some(key)) if key.len() == 32 => (Algorithm::Ed25519, key),
            _ => return Err(KeyError::Algorithm),
        };
        Ok(Self {
            name: name.to_owned(),
            algorithm,
            key: key.to_owned(),
        })
    }

    pub(crate) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let verified = match self.algorithm {
            Algorithm::P256 => UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.key)
                .verify(message, signature),
            Algorithm::Ed25519 => {
                UnparsedPublicKey::new(&ED25519, &self.key).verify(message, signature)
            }
        };
        verified.is_ok()
    }
}

impl fmt::Display for VerifyKey {
    /// The name, the algorithm and the first digits of the digest of the public key, as `openssl pkey -pubin -outform DER | sha256sum` prints it.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (prefix, algorithm) = match self.algorithm {
            Algorithm::P256 => (&P256_PREFIX[..], "ECDSA P-256"),
            Algorithm::Ed25519 => (&ED25519_PREFIX[..], "Ed25519"),
        };
        let digest = Digest::of(&[prefix, &self.key].concat()).hex();
        let short: String = digest.chars().take(16).collect();
        write!(out, "the key {} ({algorithm}, sha256:{short}…)", self.name)
    }
}

/// The content of the first PEM block, which must have this label.
fn pem(text: &str, wanted: &'static str) -> Result<Vec<u8>, KeyError> {
    let mut lines = text.lines().map(str::trim);
    let label = lines.find_map(|line| line.strip_prefix("-----BEGIN ")?.strip_suffix("-----"));
    let label = label.ok_or(KeyError::NoPem { wanted })?;
    if label != wanted {
        return Err(KeyError::Label {
            wanted,
            found: label.chars().take(40).collect(),
        });
    }
    let base64: String = lines.take_while(|line| !line.starts_with('-')).collect();
    STANDARD
        .decode(base64)
        .map_err(|_| KeyError::NoPem { wanted })
}

/// How to convert a key of another kind.
fn conversion(found: &str) -> &'static str {
    match found {
        "EC PRIVATE KEY" => ": `openssl pkcs8 -topk8 -nocrypt -in KEY.pem` converts it",
        "ENCRYPTED PRIVATE KEY" => ": `openssl pkey -in KEY.pem` decrypts it",
        "ENCRYPTED SIGSTORE PRIVATE KEY" | "ENCRYPTED COSIGN PRIVATE KEY" => {
            ": only cosign reads its encrypted keys; create a key with openssl and give it to cosign with `cosign import-key-pair`"
        }
        "PRIVATE KEY" => ": `openssl pkey -in KEY.pem -pubout` prints the public key",
        "PUBLIC KEY" => ": name the private key",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`.
    const P256: &str = "-----BEGIN PRIVATE KEY-----\n\
        MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgCiX2hl8WN5nbZ3U6\n\
        BRiDSmY1XsQ+BdbhkLfarnW0OQihRANCAAQ7+fG+SnEor1xwSsYmGsa3O1p+sl1X\n\
        XGp0gcu7taAWwFH7wpcTo6uCbKunvbZ3EowqiPI96v9rgDBmZ2af2/KD\n\
        -----END PRIVATE KEY-----";
    /// `openssl pkey -pubout`
    const P256_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\n\
        MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEO/nxvkpxKK9ccErGJhrGtztafrJd\n\
        V1xqdIHLu7WgFsBR+8KXE6Orgmyrp722dxKMKojyPer/a4AwZmdmn9vygw==\n\
        -----END PUBLIC KEY-----";
    /// `printf message | openssl dgst -sha256 -sign KEY | base64 -w0`
    const P256_SIGNATURE: &str = "MEUCICT3hw25ftX13UuqbjWcPwjyz6j3RI1EzsvTSqelsotzAiEAmvva2v+yF3j/zaycc/h7JGJqQKdFmMM/1UHW4zIls4U=";
    /// `openssl genpkey -algorithm ed25519`
    const ED25519_KEY: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEIEW2EGUWsescrTlgL3CygeL4EbdNMOGEyxi8aPGISa9t\n\
        -----END PRIVATE KEY-----";
    /// `openssl pkey -pubout`
    const ED25519_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEAy/8r0jBUh9+jCnluQzFfRQ+B9BF3SiW87XNQXqXIkgA=\n\
        -----END PUBLIC KEY-----";

    #[test]
    fn keys_of_openssl_sign_and_verify() {
        for (private, public) in [(P256, P256_PUBLIC), (ED25519_KEY, ED25519_PUBLIC)] {
            let key = SigningKey::from_pem(private).unwrap();
            let public = VerifyKey::from_pem("a.pub", public).unwrap();
            assert_eq!(key.verify_key("a.pub"), public);
            let signature = key.sign(b"message").unwrap();
            assert!(public.has_signed(b"message", &signature));
            assert!(!public.has_signed(b"massage", &signature));
            assert!(!public.has_signed(b"message", &signature[1..]));
        }
    }

    #[test]
    fn a_signature_by_openssl_is_accepted() {
        let key = VerifyKey::from_pem("a.pub", P256_PUBLIC).unwrap();
        let signature = STANDARD.decode(P256_SIGNATURE).unwrap();
        assert!(key.has_signed(b"message", &signature));
        let other = VerifyKey::from_pem("b.pub", ED25519_PUBLIC).unwrap();
        assert!(!other.has_signed(b"message", &signature));
    }

    #[test]
    fn what_is_not_a_key_is_named() {
        let private = |text: &str| SigningKey::from_pem(text).unwrap_err().to_string();
        assert!(private("").contains("BEGIN PRIVATE KEY"));
        assert!(private(P256_PUBLIC).contains("name the private key"));
        let encrypted = "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nAAAA\n";
        assert!(private(encrypted).contains("import-key-pair"));
        assert!(private("-----BEGIN PRIVATE KEY-----\n!\n").contains("PEM"));
        assert_eq!(
            SigningKey::from_pem("-----BEGIN PRIVATE KEY-----\nAAAA\n").unwrap_err(),
            KeyError::Algorithm
        );
        let public = |text: &str| VerifyKey::from_pem("a", text).unwrap_err().to_string();
        assert!(public(P256).contains("-pubout"));
        assert!(public("-----BEGIN PUBLIC KEY-----\nAAAA\n").contains("P-256"));
    }

    #[test]
    fn a_key_is_shown_with_its_digest() {
        let key = VerifyKey::from_pem("ann.pub", P256_PUBLIC).unwrap();
        assert_eq!(
            key.to_string(),
            "the key ann.pub (ECDSA P-256, sha256:93bdb24616a9d4c9…)"
        );
    }
}
