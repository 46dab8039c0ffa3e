//! The OCI image: the host, the libraries it needs, and nothing else.

use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::archive::{gzip, tar};
use super::release::Release;
use super::tree::{CONFIGURATION, Parts, Tree};
use crate::process::{capture, run as run_command};

/// User and group of the process, which has no other name in the image.
const USER: u32 = 10001;

/// Directories that the process may write.
const STATE: [&str; 2] = ["var/lib/portcullis", "var/cache/portcullis"];

/// Builds an archive that `docker load`, `podman load` and `skopeo copy oci-archive:` read; returns its path.
pub(super) fn build(
    tree: &Tree,
    parts: &Parts,
    release: &Release,
    folder: &Path,
) -> Result<PathBuf> {
    for library in libraries(&parts.binary())? {
        let to = library.to_string_lossy();
        tree.copy(&library, to.trim_start_matches('/'), 0o755)?;
    }
    tree.write(
        &format!("portcullis:x:{USER}:{USER}::/var/lib/portcullis:/sbin/nologin\n"),
        "etc/passwd",
        0o644,
    )?;
    tree.write(&format!("portcullis:x:{USER}:\n"), "etc/group", 0o644)?;

    let layout = tempfile::tempdir_in(folder)?;
    let layout = layout.path();
    fs::create_dir_all(layout.join("blobs/sha256"))?;
    let layer = layer(tree, release, layout)?;
    let config = blob(
        layout,
        "application/vnd.oci.image.config.v1+json",
        &config(release, &layer.uncompressed)?,
    )?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config,
        "layers": [layer.descriptor],
        "annotations": annotations(release),
    });
    let mut manifest = blob(layout, MANIFEST, &manifest)?;
    manifest["platform"] = json!({ "architecture": architecture(), "os": "linux" });
    manifest["annotations"] = json!({
        "org.opencontainers.image.ref.name": release.version,
        // The name of the image after `docker load`, without a registry.
        "io.containerd.image.name": format!("docker.io/library/portcullis:{}", release.version),
    });
    fs::write(
        layout.join("index.json"),
        json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [manifest],
        })
        .to_string(),
    )?;
    fs::write(
        layout.join("oci-layout"),
        json!({ "imageLayoutVersion": "1.0.0" }).to_string(),
    )?;

    let file = folder.join(format!(
        "portcullis-{}-oci-{}.tar",
        release.version,
        architecture()
    ));
    run_command(
        tar(release, 0)
            .arg("--create")
            .arg("--file")
            .arg(&file)
            .arg("--directory")
            .arg(layout)
            .args(["blobs", "index.json", "oci-layout"]),
    )?;
    Ok(file)
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn annotations(release: &Release) -> Value {
    json!({
        "org.opencontainers.image.title": "portcullis",
        "org.opencontainers.image.description": "SIP edge proxy whose routing rules are WebAssembly modules",
        "org.opencontainers.image.version": release.version,
        "org.opencontainers.image.licenses": "Apache-2.0",
    })
}

fn config(release: &Release, layer: &str) -> Result<Value> {
    let created = release.date("%FT%TZ")?;
    Ok(json!({
        "created": created,
        "architecture": architecture(),
        "os": "linux",
        "config": {
            "User": format!("{USER}:{USER}"),
            "ExposedPorts": { "5060/udp": {}, "5060/tcp": {} },
            // Where the host keeps its key and compiled code, as systemd would say.
            "Env": [
                "PATH=/usr/bin",
                "STATE_DIRECTORY=/var/lib/portcullis",
                "CACHE_DIRECTORY=/var/cache/portcullis",
            ],
            "Entrypoint": ["/usr/bin/portcullis"],
            "Cmd": ["serve"],
            "Volumes": { "/var/lib/portcullis": {} },
            "WorkingDir": "/var/lib/portcullis",
            "StopSignal": "SIGTERM",
            "Labels": annotations(release),
        },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer}")] },
        "history": [{ "created": created, "created_by": "cargo xtask package" }],
    }))
}

/// The layer with all files.
struct Layer {
    descriptor: Value,
    /// SHA-256 before compression.
    uncompressed: String,
}

fn layer(tree: &Tree, release: &Release, layout: &Path) -> Result<Layer> {
    let file = layout.join("layer.tar");
    let add = |owner: u32, names: &[&str], more: &[&str]| {
        run_command(
            tar(release, owner)
                .args(more)
                .arg("--file")
                .arg(&file)
                .arg("--directory")
                .arg(tree.root())
                .args(names),
        )
    };
    for folder in STATE {
        fs::create_dir_all(tree.root().join(folder))?;
    }
    let exclude = [&STATE[..], &[CONFIGURATION]]
        .concat()
        .iter()
        .map(|path| format!("--exclude={path}"))
        .collect::<Vec<_>>();
    let create: Vec<_> = ["--create"]
        .into_iter()
        .chain(exclude.iter().map(String::as_str))
        .collect();
    let mut names = fs::read_dir(tree.root())?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<Vec<_>>>()?;
    names.sort();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    add(0, &names, &create)?;
    add(USER, &STATE, &["--append", "--no-recursion", "--mode=0700"])?;
    // Only the process may read its configuration.
    add(USER, &[CONFIGURATION], &["--append", "--mode=0640"])?;

    let uncompressed = sha256(&file)?;
    gzip(&file)?;
    let compressed = layout.join("layer.tar.gz");
    Ok(Layer {
        descriptor: store(
            layout,
            "application/vnd.oci.image.layer.v1.tar+gzip",
            &compressed,
        )?,
        uncompressed,
    })
}

/// Writes a document as a blob; returns its descriptor.
fn blob(layout: &Path, media_type: &str, document: &Value) -> Result<Value> {
    let file = layout.join("blob.json");
    fs::write(&file, document.to_string())?;
    store(layout, media_type, &file)
}

/// Makes a file a blob; returns its descriptor.
fn store(layout: &Path, media_type: &str, file: &Path) -> Result<Value> {
    let digest = sha256(file)?;
    let size = file.metadata()?.len();
    fs::rename(file, layout.join("blobs/sha256").join(&digest))?;
    Ok(json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size }))
}

fn sha256(file: &Path) -> Result<String> {
    let said = capture(Command::new("sha256sum").arg(file))?;
    let digest = said.split_whitespace().next();
    Ok(digest.context("sha256sum printed nothing")?.to_owned())
}

/// The files of the dynamic linker and the libraries, as `ldd` lists them: `libc.so.6 => /lib/…/libc.so.6 (0x…)` or `/lib64/ld-… (0x…)`.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let said = capture(Command::new("ldd").arg(program))?;
    Ok(said.lines().filter_map(library).collect())
}

fn library(line: &str) -> Option<PathBuf> {
    line.split_whitespace()
        .find(|word| word.starts_with('/'))
        .map(PathBuf::from)
}

/// OCI's name of the processor.
fn architecture() -> &'static str {
    match ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_those_with_a_file() {
        let lines = [
            "\tlinux-vdso.so.1 (0x00007ffd)",
            "\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)",
            "\t/lib64/ld-linux-x86-64.so.2 (0x00007f)",
        ];

        assert_eq!(
            lines
                .iter()
                .filter_map(|line| library(line))
                .collect::<Vec<_>>(),
            [
                Path::new("/lib/x86_64-linux-gnu/libc.so.6"),
                Path::new("/lib64/ld-linux-x86-64.so.2")
            ]
        );
    }
}
