//! Signatures in the form of cosign: a manifest beside the artifact, whose layers are signed statements about the artifact's digest.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oci_client::manifest::{IMAGE_CONFIG_MEDIA_TYPE, OciDescriptor};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::digest::Digest;
use crate::error::RegistryError;
use crate::key::{SigningKey, VerifyKey};
use crate::manifest::{self, Annotations};
use crate::reference::Reference;
use crate::repository::Repository;

/// The type of a statement.
const STATEMENT: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The annotation of a statement with its signature, in Base64.
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// The value of `type` in a statement.
const KIND: &str = "cosign container image signature";

/// The largest statement, in bytes.
const LARGEST: u64 = 64 << 10;
/// The number of signatures of an artifact that are read.
const MOST: usize = 64;

/// What was signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The artifact's digest, which the signature is about.
    pub digest: Digest,
    /// The tag with the signatures.
    pub tag: String,
    /// Whether the signature is new: there was none by this key before.
    pub is_new: bool,
}

/// A statement in the format "simple signing" of Red Hat.
#[derive(Deserialize, Serialize)]
struct Statement {
    critical: Critical,
    /// Whatever else the signer says.
    #[serde(default)]
    optional: Option<BTreeMap<String, serde_json::Value>>,
}

#[derive(Deserialize, Serialize)]
struct Critical {
    identity: Identity,
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize, Serialize)]
struct Identity {
    #[serde(rename = "docker-reference")]
    reference: String,
}

#[derive(Deserialize, Serialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

/// Signs the artifact of the repository with this digest. Signatures by other keys are kept; one by this key is not repeated.
///
/// # Errors
/// If the registry does not accept the signature.
pub fn sign(
    repository: &Repository,
    digest: Digest,
    key: &SigningKey,
) -> Result<Signed, RegistryError> {
    let at = signatures_of(repository, &digest);
    let mut layers = match repository.manifest(&at) {
        Ok((bytes, _)) => manifest::parse(&at, &bytes)?.layers,
        Err(RegistryError::Missing(_)) => Vec::new(),
        Err(error) => return Err(error),
    };
    let signed = |is_new| Signed {
        digest,
        tag: at.tag().unwrap_or_default().to_owned(),
        is_new,
    };
    let own = key.verify_key("");
    if find(repository, &at, &layers, &digest, &own)?.is_ok() {
        return Ok(signed(false));
    }

    let statement = statement(repository.reference(), &digest)?;
    let signature = key.sign(&statement);
    let signature = signature.ok_or_else(|| {
        RegistryError::Local("the system has no random bytes to sign with".into())
    })?;
    let annotations = Annotations::from([(SIGNATURE.to_owned(), STANDARD.encode(signature))]);
    // The first: only so many are read, and others may have added theirs.
    layers.insert(0, manifest::descriptor(STATEMENT, &statement, annotations));
    let config = config(&layers);
    let described = manifest::descriptor(IMAGE_CONFIG_MEDIA_TYPE, &config, Annotations::new());
    let manifest = manifest::manifest(described, layers, Annotations::new());
    repository.put_blob(&statement)?;
    repository.put_blob(&config)?;
    repository.put_manifest(&at, &manifest::text(&manifest)?)?;
    Ok(signed(true))
}

/// Checks that an artifact is signed with this key.
///
/// # Errors
/// If it is not.
pub fn verify(
    repository: &Repository,
    digest: &Digest,
    key: &VerifyKey,
) -> Result<(), RegistryError> {
    let at = signatures_of(repository, digest);
    let artifact = repository.reference().at(*digest);
    let bytes = match repository.manifest(&at) {
        Ok((bytes, _)) => bytes,
        Err(RegistryError::Missing(_)) => {
            return Err(RegistryError::Unsigned {
                reference: Box::new(artifact),
                key: key.to_string(),
                tag: at.tag().unwrap_or_default().to_owned(),
            });
        }
        Err(error) => return Err(error),
    };
    let layers = manifest::parse(&at, &bytes)?.layers;
    match find(repository, &at, &layers, digest, key)? {
        Ok(()) => Ok(()),
        Err(found) => Err(RegistryError::WrongSignature {
            reference: Box::new(artifact),
            key: key.to_string(),
            found,
        }),
    }
}

/// Where the signatures of an artifact are.
fn signatures_of(repository: &Repository, digest: &Digest) -> Reference {
    let tag = format!("sha256-{}.sig", digest.hex());
    repository.reference().tagged(&tag)
}

/// Searches a signature by this key; otherwise says what there is.
fn find(
    repository: &Repository,
    at: &Reference,
    layers: &[OciDescriptor],
    digest: &Digest,
    key: &VerifyKey,
) -> Result<Result<(), String>, RegistryError> {
    let is_statement = |layer: &&OciDescriptor| layer.media_type == STATEMENT;
    let mut others = 0;
    let mut about = None;
    for layer in layers.iter().filter(is_statement).take(MOST) {
        let annotations = layer.annotations.as_ref();
        let signature = annotations.and_then(|annotations| annotations.get(SIGNATURE));
        let Some(signature) = signature.and_then(|text| STANDARD.decode(text).ok()) else {
            others += 1;
            continue;
        };
        let Some(statement) = readable(statement_of(repository, at, layer))? else {
            others += 1;
            continue;
        };
        if !key.has_signed(&statement, &signature) {
            others += 1;
            continue;
        }
        match signed_digest(&statement) {
            Some(signed) if signed == digest.to_string() => return Ok(Ok(())),
            signed => about = signed.or(about),
        }
    }
    let number = |count: usize| match count {
        1 => "1 signature".to_owned(),
        count => format!("{count} signatures"),
    };
    Ok(Err(match about {
        Some(other) => format!("its signature with this key is of another artifact, {other:?}"),
        None => format!(
            "the registry has {} with other keys or malformed",
            number(others)
        ),
    }))
}

/// The statement of a layer.
fn statement_of(
    repository: &Repository,
    at: &Reference,
    layer: &OciDescriptor,
) -> Result<Vec<u8>, RegistryError> {
    repository.blob(&manifest::digest_of(at, layer)?, LARGEST, "a signature")
}

/// A statement, or `None` if it is missing or malformed: whoever may push can add such a one beside good ones. Without an answer of the
/// registry nothing is known about it.
fn readable(read: Result<Vec<u8>, RegistryError>) -> Result<Option<Vec<u8>>, RegistryError> {
    match read {
        Ok(statement) => Ok(Some(statement)),
        Err(
            error @ (RegistryError::Unreachable { .. }
            | RegistryError::TooSlow { .. }
            | RegistryError::Forbidden { .. }
            | RegistryError::Local(_)),
        ) => Err(error),
        Err(_) => Ok(None),
    }
}

/// The statement that is signed.
fn statement(reference: &Reference, digest: &Digest) -> Result<Vec<u8>, RegistryError> {
    let statement = Statement {
        critical: Critical {
            identity: Identity {
                reference: format!("{}/{}", reference.host(), reference.repository()),
            },
            image: Image {
                digest: digest.to_string(),
            },
            kind: KIND.to_owned(),
        },
        optional: None,
    };
    serde_json::to_vec(&statement).map_err(|error| RegistryError::Local(error.to_string()))
}

/// The digest that a statement is about.
fn signed_digest(statement: &[u8]) -> Option<String> {
    let statement: Statement = serde_json::from_slice(statement).ok()?;
    let is_ours = statement.critical.kind == KIND;
    is_ours.then_some(statement.critical.image.digest)
}

/// The configuration of an image with these layers, as cosign writes it.
fn config(layers: &[OciDescriptor]) -> Vec<u8> {
    let digests: Vec<_> = layers.iter().map(|layer| layer.digest.as_str()).collect();
    json!({
        "architecture": "",
        "config": {},
        "created": "0001-01-01T00:00:00Z",
        "history": vec![json!({"created": "0001-01-01T00:00:00Z"}); layers.len()],
        "os": "",
        "rootfs": {"type": "layers", "diff_ids": digests},
    })
    .to_string()
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_has_the_form_of_cosign() {
        let digest = Digest::of(b"x");
        let reference = "oci://registry:5000/team/acl:1".parse().unwrap();
        let text = String::from_utf8(statement(&reference, &digest).unwrap()).unwrap();
        assert_eq!(
            text,
            format!(
                r#"{{"critical":{{"identity":{{"docker-reference":"registry:5000/team/acl"}},"image":{{"docker-manifest-digest":"{digest}"}},"type":"cosign container image signature"}},"optional":null}}"#
            )
        );
        assert_eq!(signed_digest(text.as_bytes()), Some(digest.to_string()));
    }

    #[test]
    fn a_bad_statement_is_skipped_and_an_absent_registry_is_not() {
        let reference: Reference = "oci://registry/acl:1".parse().unwrap();
        let digest = Digest::of(b"x");
        assert_eq!(readable(Ok(vec![1])).unwrap(), Some(vec![1]));
        for skipped in [
            RegistryError::Missing(Box::new(reference.clone())),
            RegistryError::changed(&reference, "a signature", &digest, &Digest::of(b"y")),
        ] {
            assert_eq!(readable(Err(skipped)).unwrap(), None);
        }
        let absent = RegistryError::Unreachable {
            url: "https://registry".into(),
            cause: "refused".into(),
        };
        assert!(readable(Err(absent)).is_err());
    }

    #[test]
    fn a_statement_of_cosign_is_read() {
        let text = br#"{"critical":{"identity":{"docker-reference":""},"image":{"docker-manifest-digest":"sha256:87ef"},"type":"cosign container image signature"},"optional":{"creator":"ann","n":1}}"#;
        assert_eq!(signed_digest(text).as_deref(), Some("sha256:87ef"));
        let other = String::from_utf8_lossy(text).replace("cosign container", "atomic container");
        assert_eq!(signed_digest(other.as_bytes()), None);
        assert_eq!(signed_digest(b"{}"), None);
    }
}
