//! A policy as an artifact in a registry.

use serde::Serialize;

use crate::digest::Digest;
use crate::error::RegistryError;
use crate::manifest::{self, Annotations};
use crate::reference::Reference;
use crate::repository::Repository;

/// The type of the configuration of an artifact for WebAssembly.
pub(crate) const CONFIG: &str = "application/vnd.wasm.config.v0+json";
/// The type of its only layer.
pub(crate) const LAYER: &str = "application/wasm";

/// When an artifact was made (OCI Image Specification).
const CREATED: &str = "org.opencontainers.image.created";
/// Its version.
const VERSION: &str = "org.opencontainers.image.version";
/// Its name.
pub(crate) const TITLE: &str = "org.opencontainers.image.title";

/// A policy to be published.
#[derive(Clone, Debug)]
pub struct Artifact<'a> {
    /// The file.
    pub bytes: &'a [u8],
    /// Its name.
    pub name: String,
    /// The time, in the form of RFC 3339.
    pub created: String,
    /// Who made it.
    pub author: Option<String>,
    /// The interfaces of a component; `None` for a module.
    pub interfaces: Option<Interfaces>,
    /// Further annotations, which replace those that are derived from the other fields.
    pub annotations: Vec<(String, String)>,
}

/// The interfaces of a component.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Interfaces {
    /// What it exports.
    pub exports: Vec<String>,
    /// What it imports.
    pub imports: Vec<String>,
}

/// The configuration of an artifact ("Wasm OCI Artifact layout" of the CNCF TAG Runtime).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Config<'a> {
    created: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    author: Option<&'a str>,
    architecture: &'static str,
    os: &'static str,
    layer_digests: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    component: Option<&'a Interfaces>,
}

/// Uploads a policy under the tag of the repository's reference (`latest` if it has none). Returns the digest of its manifest, which
/// names this content forever.
///
/// # Errors
/// If the reference names a digest, or the registry does not accept the policy.
pub fn publish(repository: &Repository, artifact: &Artifact<'_>) -> Result<Digest, RegistryError> {
    let reference = repository.reference();
    if reference.digest().is_some() {
        return Err(RegistryError::PublishedByDigest(Box::new(
            reference.clone(),
        )));
    }
    let (config, manifest) = texts(reference, artifact)?;
    repository.put_blob(artifact.bytes)?;
    repository.put_blob(&config)?;
    let digest = Digest::of(&manifest);
    repository.put_manifest(reference, &manifest)?;
    Ok(digest)
}

/// The configuration and the manifest.
fn texts(
    reference: &Reference,
    artifact: &Artifact<'_>,
) -> Result<(Vec<u8>, Vec<u8>), RegistryError> {
    let config = Config {
        created: &artifact.created,
        author: artifact.author.as_deref(),
        architecture: "wasm",
        // The names that the layout prescribes for modules and for components.
        os: match artifact.interfaces {
            Some(_) => "wasip2",
            None => "wasip1",
        },
        layer_digests: vec![Digest::of(artifact.bytes).to_string()],
        component: artifact.interfaces.as_ref(),
    };
    let config = serde_json::to_vec(&config);
    let config = config.map_err(|error| RegistryError::Local(error.to_string()))?;
    let title = (TITLE.to_owned(), artifact.name.clone());
    let mut annotations = Annotations::from([
        title.clone(),
        (CREATED.to_owned(), artifact.created.clone()),
    ]);
    if let Some(tag) = reference.tag() {
        annotations.insert(VERSION.to_owned(), tag.to_owned());
    }
    annotations.extend(artifact.annotations.iter().cloned());
    let layer = manifest::descriptor(LAYER, artifact.bytes, [title].into());
    let mut manifest = manifest::manifest(
        manifest::descriptor(CONFIG, &config, Annotations::new()),
        vec![layer],
        annotations,
    );
    manifest.artifact_type = Some(CONFIG.to_owned());
    Ok((config, manifest::text(&manifest)?))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn made(interfaces: Option<Interfaces>) -> (Value, Value) {
        let artifact = Artifact {
            bytes: b"\0asm",
            name: "acl.wasm".into(),
            created: "2026-01-01T00:00:00Z".into(),
            author: Some("ann".into()),
            interfaces,
            annotations: vec![("portcullis.policy.sdk".into(), "0.1.0".into())],
        };
        let reference = "oci://registry/acl:1.0".parse().unwrap();
        let (config, manifest) = texts(&reference, &artifact).unwrap();
        let of = |text: &[u8]| serde_json::from_slice(text).unwrap();
        (of(&config), of(&manifest))
    }

    #[test]
    fn a_module_has_the_layout_of_wasm_artifacts() {
        let (config, manifest) = made(None);
        let layer = Digest::of(b"\0asm").to_string();
        assert_eq!(
            config,
            json!({
                "created": "2026-01-01T00:00:00Z",
                "author": "ann",
                "architecture": "wasm",
                "os": "wasip1",
                "layerDigests": [layer],
            })
        );
        assert_eq!(
            manifest["mediaType"],
            "application/vnd.oci.image.manifest.v1+json"
        );
        assert_eq!(manifest["artifactType"], CONFIG);
        assert_eq!(manifest["config"]["mediaType"], CONFIG);
        assert_eq!(manifest["layers"][0]["mediaType"], "application/wasm");
        assert_eq!(manifest["layers"][0]["digest"], json!(layer));
        assert_eq!(manifest["layers"][0]["size"], 4);
        assert_eq!(
            manifest["annotations"],
            json!({
                "org.opencontainers.image.created": "2026-01-01T00:00:00Z",
                "org.opencontainers.image.title": "acl.wasm",
                "org.opencontainers.image.version": "1.0",
                "portcullis.policy.sdk": "0.1.0",
            })
        );
    }

    #[test]
    fn a_component_lists_its_interfaces() {
        let (config, _) = made(Some(Interfaces {
            exports: vec!["decide".into()],
            imports: vec!["portcullis:policy/request@0.1.0".into()],
        }));
        assert_eq!(config["os"], "wasip2");
        assert_eq!(config["component"]["exports"], json!(["decide"]));
        assert_eq!(
            config["component"]["imports"],
            json!(["portcullis:policy/request@0.1.0"])
        );
    }
}
