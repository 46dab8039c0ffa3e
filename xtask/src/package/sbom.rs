//! The list of components, in the format of CycloneDX 1.5.

use anyhow::Result;
use serde_json::{Value, json};

use super::notices::{Dependencies, Dependency};
use super::release::Release;

/// Returns the document. It has no random serial number, so that the same source gives the same document.
pub(super) fn document(dependencies: &Dependencies, release: &Release) -> Result<String> {
    let is_host = |one: &&Dependency| one.name == "portcullis-server";
    let components: Vec<_> = dependencies
        .0
        .iter()
        .filter(|one| !is_host(one))
        .map(component)
        .collect();
    let references: Vec<_> = components
        .iter()
        .map(|component| component["bom-ref"].clone())
        .collect();
    let host = format!("pkg:generic/portcullis@{}", release.version);
    let document = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": release.date("%FT%TZ")?,
            "component": {
                "type": "application",
                "bom-ref": host,
                "name": "portcullis",
                "version": release.version,
                "licenses": [{ "expression": "Apache-2.0" }],
                "purl": host,
            },
        },
        "components": components,
        "dependencies": [{ "ref": host, "dependsOn": references }],
    });
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

fn component(dependency: &Dependency) -> Value {
    let Dependency { name, version, .. } = dependency;
    let purl = format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"));
    let mut component = json!({
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "scope": "required",
        "purl": purl,
    });
    if let Some(license) = &dependency.license {
        // Before SPDX had expressions, a slash meant "or".
        let expression = license.replace('/', " OR ");
        component["licenses"] = json!([{ "expression": expression }]);
    }
    if let Some(checksum) = &dependency.checksum {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
    }
    if !dependency.authors.is_empty() {
        component["author"] = json!(dependency.authors.join(", "));
    }
    component
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_names_each_crate_with_licence_and_checksum() {
        let release = Release {
            version: "0.1.0".to_owned(),
            revision: 1,
            epoch: 0,
        };
        let dependencies = Dependencies::of_host().expect("cargo answers");
        let text = document(&dependencies, &release).expect("a document");
        let document: Value = serde_json::from_str(&text).expect("JSON");

        assert_eq!(document["metadata"]["timestamp"], "1970-01-01T00:00:00Z");
        let components = document["components"].as_array().expect("a list");
        assert_eq!(components.len() + 1, dependencies.0.len());
        let ring = components.iter().find(|one| one["name"] == "wasmtime");
        let ring = ring.expect("the host contains it");
        assert_eq!(
            ring["hashes"][0]["content"].as_str().map(str::len),
            Some(64)
        );
        assert!(ring["licenses"][0]["expression"].is_string());
    }
}
