//! A policy from a registry.

use oci_client::manifest::{OciImageManifest, WASM_LAYER_MEDIA_TYPE};

use crate::FILE_SIGNATURE;
use crate::digest::Digest;
use crate::error::RegistryError;
use crate::key::VerifyKey;
use crate::manifest;
use crate::publish::{LAYER, TITLE};
use crate::reference::Reference;
use crate::repository::Repository;
use crate::signing::verify;

/// What the name of a policy's file ends in.
const WASM: &str = ".wasm";

/// A policy from a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// The file.
    pub bytes: Vec<u8>,
    /// The digest of its manifest.
    pub digest: Digest,
    /// A name for the file: that under which it was published, or the last part of the repository's name.
    pub name: String,
    /// The signature of the file that hosts check, in Base64; empty if it has none.
    pub file_signature: String,
}

/// Downloads a policy of at most `limit` bytes. With a key, the registry must have a signature by it.
///
/// # Errors
/// If there is no such policy, if it is not signed with the key, or if its content does not have the digest that addresses it.
pub fn pull(
    repository: &Repository,
    limit: u64,
    key: Option<&VerifyKey>,
) -> Result<Pulled, RegistryError> {
    let at = repository.reference();
    let (bytes, digest) = repository.manifest(at)?;
    if let Some(key) = key {
        verify(repository, &digest, key)?;
    }
    let manifest = manifest::parse(at, &bytes)?;
    let layer = layer(at, &manifest, limit)?;
    let bytes = repository.blob(&layer, limit, "the file")?;
    let annotation = |name: &str| {
        let annotations = manifest.annotations.as_ref()?;
        annotations.get(name).map(String::as_str)
    };
    Ok(Pulled {
        bytes,
        digest,
        name: file_name(at, annotation(TITLE)),
        file_signature: annotation(FILE_SIGNATURE).unwrap_or_default().to_owned(),
    })
}

/// The digest of the policy.
fn layer(at: &Reference, manifest: &OciImageManifest, limit: u64) -> Result<Digest, RegistryError> {
    let refused = |reason: String| RegistryError::NotAPolicy {
        reference: Box::new(at.clone()),
        reason,
    };
    let [layer] = manifest.layers.as_slice() else {
        let number = manifest.layers.len();
        return Err(refused(format!(
            "it has {number} layers; a policy has one, of type {LAYER}"
        )));
    };
    // The second is the type before the layout was agreed upon.
    if ![LAYER, WASM_LAYER_MEDIA_TYPE].contains(&layer.media_type.as_str()) {
        return Err(refused(format!(
            "its layer is of type {:?}, not {LAYER}",
            layer.media_type
        )));
    }
    let size = u64::try_from(layer.size).unwrap_or(u64::MAX);
    if size > limit {
        return Err(RegistryError::TooLarge {
            reference: Box::new(at.clone()),
            what: "the file",
            size,
            limit,
        });
    }
    manifest::digest_of(at, layer)
}

/// A plain name for a WebAssembly file: the title comes from the registry and may be anything, such as the name of another program's
/// configuration.
fn file_name(at: &Reference, title: Option<&str>) -> String {
    let is_plain = |name: &&str| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        name.len() <= 100
            && !name.starts_with('.')
            && name.ends_with(WASM)
            && name.bytes().all(fits)
    };
    if let Some(title) = title.filter(is_plain) {
        return title.to_owned();
    }
    let last = at.repository().rsplit('/').next().unwrap_or_default();
    let last: String = last.chars().take(100).collect();
    format!("{last}{WASM}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Annotations, descriptor};

    fn at() -> Reference {
        "oci://registry/team/acl:1".parse().unwrap()
    }

    fn of(types: &[&str]) -> OciImageManifest {
        let layers = types
            .iter()
            .map(|kind| descriptor(kind, b"four", Annotations::new()));
        manifest::manifest(
            descriptor("c", b"", Annotations::new()),
            layers.collect(),
            Annotations::new(),
        )
    }

    #[test]
    fn only_a_single_layer_of_wasm_is_a_policy() {
        assert_eq!(layer(&at(), &of(&[LAYER]), 4).unwrap(), Digest::of(b"four"));
        assert!(layer(&at(), &of(&[WASM_LAYER_MEDIA_TYPE]), 4).is_ok());
        let error = |types: &[&str], limit| {
            let error = layer(&at(), &of(types), limit).unwrap_err();
            error.to_string()
        };
        assert!(error(&[], 4).contains("0 layers"));
        assert!(error(&[LAYER, LAYER], 4).contains("2 layers"));
        assert!(error(&["application/vnd.oci.image.layer.v1.tar+gzip"], 4).contains("tar+gzip"));
        assert!(error(&[LAYER], 3).contains("4 bytes, above the limit of 3"));
        let mut negative = of(&[LAYER]);
        negative.layers[0].size = -1;
        assert!(layer(&at(), &negative, 4).is_err());
        let mut wrong = of(&[LAYER]);
        wrong.layers[0].digest = "md5:00".into();
        assert!(
            layer(&at(), &wrong, 4)
                .unwrap_err()
                .to_string()
                .contains("md5:00")
        );
    }

    #[test]
    fn the_name_of_a_file_is_plain() {
        assert_eq!(file_name(&at(), Some("edge.wasm")), "edge.wasm");
        for title in [
            "../../etc/passwd",
            "",
            ".profile",
            ".wasm",
            "a b.wasm",
            "a\u{1b}.wasm",
            "Makefile",
            "edge.wasm.sig",
        ] {
            assert_eq!(file_name(&at(), Some(title)), "acl.wasm", "{title:?}");
        }
        assert_eq!(file_name(&at(), None), "acl.wasm");
    }
}
