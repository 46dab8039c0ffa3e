//! Which file of a folder describes what.

use std::fs;
use std::path::{Path, PathBuf};

use portcullis_plan::Kind;

use super::mistakes::Mistakes;
use super::rows::Form;

/// What a file describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// One tenant, with its name.
    Tenant(String),
    /// The policy of a seat, with the name of the seat.
    Policy(String),
    /// Where the policies of seats come from.
    Policies,
    /// Rows of a table.
    Rows(Kind, Form),
}

/// A file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) content: Content,
}

/// The files, and the kinds that folders describe even if they are empty.
#[derive(Debug, Default)]
pub(super) struct Layout {
    pub(super) files: Vec<Found>,
    pub(super) kinds: Vec<Kind>,
}

/// Finds the files of all folders that are named, and those that are named themselves.
pub(super) fn find(named: &[PathBuf], mistakes: &mut Mistakes) -> Layout {
    let mut layout = Layout::default();
    for path in named {
        match fs::metadata(path) {
            Ok(meta) if meta.is_dir() => layout.add_folder(path, mistakes),
            Ok(_) => layout.add_file(path, mistakes),
            Err(error) => mistakes.add(format!("cannot read {}: {error}", path.display())),
        }
    }
    layout
}

impl Layout {
    fn add_folder(&mut self, folder: &Path, mistakes: &mut Mistakes) {
        // `tenants` and `policies` may be named themselves.
        if let Some(kind) = kind_of_folder(folder) {
            return self.add_all(kind, folder, mistakes);
        }
        for path in entries(folder, mistakes) {
            match kind_of_folder(&path).filter(|_| path.is_dir()) {
                Some(kind) => self.add_all(kind, &path, mistakes),
                None if path.is_dir() => mistakes.add(format!(
                    "{}: an unknown folder: there are tenants and policies",
                    path.display()
                )),
                None => self.add_file(&path, mistakes),
            }
        }
    }

    /// Adds the files of the folder of a kind.
    fn add_all(&mut self, kind: Kind, folder: &Path, mistakes: &mut Mistakes) {
        self.kinds.push(kind);
        for path in entries(folder, mistakes) {
            let stem = stem_of(&path);
            let content = match (kind, extension_of(&path)) {
                (Kind::Tenant, "toml") => Content::Tenant(stem),
                (Kind::Policy, "wasm") => Content::Policy(stem),
                // The signature of a policy is read with the policy.
                (Kind::Policy, "sig") => continue,
                (Kind::Policy, "toml") if stem == "policies" => Content::Policies,
                _ => {
                    let form = match kind {
                        Kind::Tenant => "tenants/NAME.toml",
                        Kind::Policy | Kind::Address | Kind::Trusted | Kind::Dispatcher => {
                            "policies/SEAT.wasm"
                        }
                    };
                    mistakes.add(format!("{}: an unknown file: write {form}", path.display()));
                    continue;
                }
            };
            self.files.push(Found { path, content });
        }
    }

    fn add_file(&mut self, path: &Path, mistakes: &mut Mistakes) {
        let stem = stem_of(path);
        let folder = path.parent().and_then(kind_of_folder);
        let form = match extension_of(path) {
            "csv" => Some(Form::Csv),
            "jsonl" | "ndjson" => Some(Form::JsonLines),
            "toml" => Some(Form::Toml),
            _ => None,
        };
        let content = match (folder, stem.as_str(), form) {
            (Some(Kind::Tenant), _, Some(Form::Toml)) => Some(Content::Tenant(stem)),
            (_, "policies", Some(Form::Toml)) => Some(Content::Policies),
            (Some(Kind::Policy), _, None) if extension_of(path) == "wasm" => {
                Some(Content::Policy(stem))
            }
            (_, "addresses", Some(form)) => Some(Content::Rows(Kind::Address, form)),
            (_, "trusted", Some(form @ (Form::Csv | Form::Toml))) => {
                Some(Content::Rows(Kind::Trusted, form))
            }
            (_, "dispatcher", Some(form @ (Form::Csv | Form::Toml))) => {
                Some(Content::Rows(Kind::Dispatcher, form))
            }
            _ => None,
        };
        match content {
            Some(content) => self.files.push(Found {
                path: path.to_owned(),
                content,
            }),
            None => mistakes.add(format!(
                "{}: an unknown file: there are addresses, trusted and dispatcher as .csv or .toml, policies.toml, tenants/NAME.toml and \
                 policies/SEAT.wasm",
                path.display()
            )),
        }
    }
}

/// The entries of a folder, sorted. Hidden files and Markdown are no part of the state.
fn entries(folder: &Path, mistakes: &mut Mistakes) -> Vec<PathBuf> {
    let read = fs::read_dir(folder).and_then(|all| {
        let all = all.map(|entry| Ok(entry?.path()));
        all.collect::<std::io::Result<Vec<_>>>()
    });
    let mut all = match read {
        Ok(all) => all,
        Err(error) => {
            mistakes.add(format!("cannot read {}: {error}", folder.display()));
            return Vec::new();
        }
    };
    all.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        !name.starts_with('.') && extension_of(path) != "md"
    });
    all.sort();
    all
}

fn kind_of_folder(path: &Path) -> Option<Kind> {
    match path.file_name()?.to_str()? {
        "tenants" => Some(Kind::Tenant),
        "policies" => Some(Kind::Policy),
        _ => None,
    }
}

fn stem_of(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default();
    stem.to_string_lossy().into_owned()
}

fn extension_of(path: &Path) -> &str {
    path.extension()
        .and_then(|extension| extension.to_str())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_their_kinds_and_others_are_reported() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for file in [
            ".git/config",
            "README.md",
            "tenants/acme.toml",
            "tenants/note.txt",
            "policies/acme.wasm",
            "policies/acme.wasm.sig",
            "policies.toml",
            "addresses.jsonl",
            "trusted.csv",
            "dispatcher.toml",
            "adresses.csv",
            "trusted.jsonl",
            "tenant/acme.toml",
        ] {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let mut mistakes = Mistakes::default();
        let layout = find(&[root.to_owned()], &mut mistakes);
        let found = layout.files.iter().map(|found| found.content.clone());
        let found: Vec<_> = found.collect();
        assert_eq!(
            found,
            [
                Content::Rows(Kind::Address, Form::JsonLines),
                Content::Rows(Kind::Dispatcher, Form::Toml),
                Content::Policy("acme".into()),
                Content::Policies,
                Content::Tenant("acme".into()),
                Content::Rows(Kind::Trusted, Form::Csv),
            ]
        );
        assert_eq!(layout.kinds, [Kind::Policy, Kind::Tenant]);
        let said = mistakes.all();
        let wrong = ["adresses.csv", "/tenant:", "note.txt", "trusted.jsonl"];
        assert_eq!(said.len(), wrong.len(), "{said:?}");
        for (said, wrong) in said.iter().zip(wrong) {
            assert!(said.contains(wrong), "{said}");
        }

        let mut mistakes = Mistakes::default();
        let named = ["tenants/acme.toml", "trusted.csv", "policies"].map(|name| root.join(name));
        let layout = find(&named, &mut mistakes);
        assert_eq!((layout.files.len(), mistakes.all().len()), (3, 0));
    }
}
