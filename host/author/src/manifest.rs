//! `policy.toml`: what the folder of a policy is built with.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::language::Language;
use crate::name::Name;

/// The name of the file.
pub const MANIFEST: &str = "policy.toml";

/// The content of the file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Manifest {
    /// The language.
    pub language: Language,
    /// The name of the policy, and of its file without `.wasm`; without it, the name of the folder.
    pub name: Option<Name>,
    /// The main source file, for languages whose compiler takes one.
    pub source: Option<PathBuf>,
    /// The world, for tools that need its name: `failover-policy` for a policy with `on-failure`. Without it, `routing-policy`.
    pub world: Option<String>,
    /// Further arguments for the compiler.
    #[serde(default)]
    pub flags: Vec<String>,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its content is wrong.
    #[error("{path}: {cause}", path = path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What and where.
        cause: String,
    },
}

impl Manifest {
    /// The manifest that a folder without one stands for.
    pub fn of_language(language: Language) -> Self {
        Self {
            language,
            name: None,
            source: None,
            world: None,
            flags: Vec::new(),
        }
    }

    /// The manifest in a folder; `None` if there is no such file.
    ///
    /// # Errors
    /// If the file cannot be read or has keys or values that it must not have.
    pub fn of(folder: &Path) -> Result<Option<Self>, ManifestError> {
        let path = folder.join(MANIFEST);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(ManifestError::Unreadable { path, source }),
        };
        let parsed = toml::from_str(&text);
        parsed.map(Some).map_err(|error| ManifestError::Wrong {
            path,
            cause: error.to_string().trim_end().to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_optional_and_its_keys_are_checked() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Manifest::of(folder.path()).unwrap(), None);

        fs::write(
            folder.path().join(MANIFEST),
            "language = \"zig\"\nflags = [\"-O3\"]\n",
        )
        .unwrap();
        let found = Manifest::of(folder.path()).unwrap().unwrap();
        assert_eq!(found.language, Language::Zig);
        assert_eq!(found.flags, ["-O3"]);

        for wrong in [
            "language = \"cobol\"\n",
            "language = \"c\"\ncolour = 1\n",
            "language = \"c\"\nname = \"../../etc/passwd\"\n",
            "",
        ] {
            fs::write(folder.path().join(MANIFEST), wrong).unwrap();
            let error = Manifest::of(folder.path()).unwrap_err();
            assert!(matches!(error, ManifestError::Wrong { .. }), "{error}");
        }
    }
}
