//! The folder of a new policy.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::language::Language;
use crate::name::Name;
use crate::templates;

/// What was written.
#[derive(Debug, PartialEq, Eq)]
pub struct Created {
    /// The folder.
    pub folder: PathBuf,
    /// The files of the author, in the order in which a reader would open them, relative to the folder. Copies of libraries are not listed.
    pub files: Vec<&'static str>,
    /// The commands that follow, in order.
    pub next: Vec<String>,
}

/// The folder could not be made.
#[derive(Debug, thiserror::Error)]
pub enum NewError {
    /// It exists and is not empty.
    #[error("{folder} exists and is not empty; nothing was changed", folder = .0.display())]
    NotEmpty(PathBuf),
    /// The file system refused.
    #[error("cannot write {path}: {source}", path = path.display())]
    Unwritable {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Writes a folder `name` in `parent`, with a policy, its cases and what its language needs. An existing folder must be empty; no file is ever
/// replaced.
///
/// # Errors
/// If the folder is not empty or cannot be written.
pub fn create(parent: &Path, name: &Name, language: Language) -> Result<Created, NewError> {
    let folder = parent.join(name.as_str());
    if !is_free(&folder)? {
        return Err(NewError::NotEmpty(folder));
    }
    let template = templates::of(language, name);
    for (path, text) in &template.files {
        write_new(&folder.join(path), text)?;
    }
    Ok(Created {
        folder,
        files: template.shown,
        next: template.next,
    })
}

/// Whether there is no such folder, or an empty one.
fn is_free(folder: &Path) -> Result<bool, NewError> {
    match fs::read_dir(folder) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(false),
        Err(source) => Err(NewError::Unwritable {
            path: folder.to_owned(),
            source,
        }),
    }
}

fn write_new(path: &Path, text: &str) -> Result<(), NewError> {
    let written = || {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::File::create_new(path)?.write_all(text.as_bytes())
    };
    written().map_err(|source| NewError::Unwritable {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Manifest;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn each_language_has_a_whole_folder() {
        let parent = tempfile::tempdir().unwrap();
        for language in Language::ALL {
            let created = create(parent.path(), &name(language.name()), language).unwrap();
            let has = |file: &str| created.folder.join(file).is_file();
            for file in [
                "README.md",
                "cases.toml",
                ".gitignore",
                ".github/workflows/policy.yml",
            ] {
                assert!(has(file), "{language}: {file}");
            }
            for file in &created.files {
                assert!(has(file), "{language}: {file}");
            }
            let manifest = Manifest::of(&created.folder).unwrap().unwrap();
            assert_eq!(manifest.language, language);
            assert_eq!(manifest.name, language.name().parse().ok());
            if let Some(source) = manifest.source {
                assert!(created.folder.join(source).is_file(), "{language}");
            }
            assert!(!created.next.is_empty());
        }
    }

    #[test]
    fn no_placeholder_is_left() {
        for language in Language::ALL {
            for (path, text) in templates::of(language, &name("acme")).files {
                for word in ["{{name", "{{identifier", "{{language", "{{steps"] {
                    assert!(!text.contains(word), "{language}: {path}");
                }
            }
        }
    }

    #[test]
    fn the_compiler_is_installed_before_it_is_used() {
        for (language, step) in [
            (Language::Rust, "rustup target add"),
            (Language::C, "apt-get install"),
            (Language::Zig, "pip install ziglang"),
            (Language::AssemblyScript, "npm ci"),
            (Language::Go, "setup-go"),
            (Language::JavaScript, "npm ci"),
            (Language::Python, "pip install -r"),
        ] {
            let files = templates::of(language, &name("acme")).files;
            let (_, text) = files
                .iter()
                .find(|(path, _)| path.ends_with("policy.yml"))
                .unwrap();
            let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part}: {text}"));
            assert!(at("actions/checkout") < at(step), "{text}");
            assert!(at(step) < at("portcullis policy build"), "{text}");
            assert!(text.lines().all(|line| !line.contains("{{")), "{text}");
        }
    }

    #[test]
    fn nothing_is_replaced() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("acl");
        fs::create_dir(&folder).unwrap();
        create(parent.path(), &name("acl"), Language::C).unwrap();

        fs::write(folder.join("policy.c"), "mine").unwrap();
        let error = create(parent.path(), &name("acl"), Language::C).unwrap_err();
        assert!(matches!(error, NewError::NotEmpty(_)), "{error}");
        assert_eq!(fs::read_to_string(folder.join("policy.c")).unwrap(), "mine");

        fs::write(parent.path().join("file"), "").unwrap();
        let error = create(parent.path(), &name("file"), Language::C).unwrap_err();
        assert!(matches!(error, NewError::NotEmpty(_)), "{error}");
    }
}
