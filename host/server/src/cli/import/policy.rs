//! `portcullis import --policy`: the crate of a policy, translated from the routing logic.

use std::fs;
use std::path::Path;

use anyhow::Context;
use portcullis_author::sdk_files;
use portcullis_kamailio::Machine;

use super::super::print::{clean, count};
use super::file;

/// Directory of the SDK in the folder.
const SDK: &str = "vendor/portcullis-sdk";

/// Writes Cargo.toml, src/lib.rs and the SDK, and reports what is not translated.
pub(super) fn write(
    kamailio: &Path,
    defines: &[(String, String)],
    folder: &Path,
    force: bool,
) -> anyhow::Result<()> {
    let script = portcullis_kamailio::script(kamailio, defines, &Machine)?;
    let library = folder.join("src/lib.rs");
    let own = [
        (library.clone(), script.source.clone()),
        (folder.join("Cargo.toml"), manifest(folder)),
    ];
    let sdk = sdk_files().into_iter();
    let sdk = sdk.map(|(path, text)| (folder.join(SDK).join(path), text));
    for (path, text) in own.into_iter().chain(sdk) {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)
                .with_context(|| format!("cannot create {}", parent.display()))?;
        }
        file::write(&path, &text, 0o644, force)?;
    }
    for finding in &script.findings {
        eprintln!("{}", clean(&finding.to_string()));
    }
    let translated = count(script.translated as u64, "statement");
    let (library, folder) = (library.display(), folder.display());
    match script.left {
        0 => eprintln!("{library}: {translated} translated, nothing left."),
        left => {
            let comments = count(left.saturating_sub(script.closed) as u64, "comment");
            let closed = count(script.closed as u64, "call");
            eprintln!(
                "{library}: {translated} translated, {left} left: {comments}, in place of what the policy does not do, and {closed} of untranslated(), which \
                 answer 500 where they decide: replace them by hand."
            );
        }
    }
    eprintln!(
        "Next: portcullis policy build {folder}; in this folder, `portcullis policy dev` serves it and shows its decisions"
    );
    Ok(())
}

fn manifest(folder: &Path) -> String {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let name: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .collect();
    let name = match name.trim_matches('-') {
        name if name.starts_with(|c: char| c.is_ascii_lowercase()) => name,
        _ => "policy",
    };
    format!(
        "[package]\n\
         name = \"{name}\"\n\
         version = \"0.1.0\"\n\
         edition = \"2024\"\n\
         \n\
         [lib]\n\
         crate-type = [\"cdylib\"]\n\
         \n\
         [dependencies]\n\
         portcullis-sdk = {{ path = \"{SDK}\" }}\n\
         \n\
         [workspace]\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crate_has_the_name_of_its_folder() {
        for (folder, name) in [
            ("/etc/kamailio/Edge_1", "edge-1"),
            ("7", "policy"),
            ("..", "policy"),
        ] {
            let manifest = manifest(Path::new(folder));
            assert!(
                manifest.contains(&format!("name = \"{name}\"\n")),
                "{manifest}"
            );
        }
    }
}
