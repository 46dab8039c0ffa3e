//! Manifests: lists of blobs with annotations (OCI Image Specification 1.1).

use std::collections::BTreeMap;

use oci_client::manifest::{OCI_IMAGE_MEDIA_TYPE, OciDescriptor, OciImageManifest, OciManifest};

use crate::digest::Digest;
use crate::error::RegistryError;
use crate::reference::Reference;

/// Annotations of a manifest or a layer.
pub(crate) type Annotations = BTreeMap<String, String>;

/// Describes a blob.
pub(crate) fn descriptor(
    media_type: &str,
    bytes: &[u8],
    annotations: Annotations,
) -> OciDescriptor {
    OciDescriptor {
        media_type: media_type.to_owned(),
        digest: Digest::of(bytes).to_string(),
        size: i64::try_from(bytes.len()).unwrap_or(i64::MAX),
        annotations: Some(annotations).filter(|annotations| !annotations.is_empty()),
        ..OciDescriptor::default()
    }
}

/// A manifest as it is uploaded.
pub(crate) fn manifest(
    config: OciDescriptor,
    layers: Vec<OciDescriptor>,
    annotations: Annotations,
) -> OciImageManifest {
    OciImageManifest {
        media_type: Some(OCI_IMAGE_MEDIA_TYPE.to_owned()),
        config,
        layers,
        annotations: Some(annotations).filter(|annotations| !annotations.is_empty()),
        ..OciImageManifest::default()
    }
}

/// The text of a manifest.
pub(crate) fn text(manifest: &OciImageManifest) -> Result<Vec<u8>, RegistryError> {
    serde_json::to_vec(manifest).map_err(|error| RegistryError::Local(error.to_string()))
}

/// Parses the manifest of one artifact.
pub(crate) fn parse(at: &Reference, bytes: &[u8]) -> Result<OciImageManifest, RegistryError> {
    let refused = |reason: String| RegistryError::NotAPolicy {
        reference: Box::new(at.clone()),
        reason,
    };
    match serde_json::from_slice(bytes) {
        Ok(OciManifest::Image(manifest)) => Ok(manifest),
        Ok(OciManifest::ImageIndex(index)) => Err(refused(format!(
            "it is an index of {} manifests; name one of them by its digest",
            index.manifests.len()
        ))),
        Err(_) => Err(refused(
            "its manifest is neither that of an image nor an index".into(),
        )),
    }
}

/// The digest of a blob that a manifest lists.
pub(crate) fn digest_of(at: &Reference, blob: &OciDescriptor) -> Result<Digest, RegistryError> {
    blob.digest
        .parse()
        .map_err(|error| RegistryError::NotAPolicy {
            reference: Box::new(at.clone()),
            reason: format!("{:?} in its manifest is no digest: {error}", blob.digest),
        })
}
