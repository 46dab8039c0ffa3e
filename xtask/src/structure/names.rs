//! Resolution of names in a module.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::name_of;
use super::source::{Import, Module, Segments, Sources};

/// Most imports that are followed to resolve a name: imports can be cyclic.
const MOST_STEPS: usize = 16;

/// The target of a path.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Place {
    Module(usize),
    /// The item of this name, or something that belongs to it.
    Item(usize, String),
}

impl Sources {
    /// Resolves a path in a module; `None` if the target is in another crate, or has no name in a module.
    pub(super) fn resolve(&self, from: usize, path: &[String]) -> Option<Place> {
        self.resolve_within(from, path, MOST_STEPS)
    }

    fn resolve_within(&self, from: usize, path: &[String], steps: usize) -> Option<Place> {
        let (first, mut rest) = path.split_first()?;
        let mut place = match first.as_str() {
            "crate" => Place::Module(0),
            "self" => Place::Module(from),
            "super" => Place::Module(self.modules[from].parent?),
            name => self.lookup(from, name, steps)?,
        };
        while let (Place::Module(module), Some((next, after))) = (&place, rest.split_first()) {
            let module = *module;
            place = match next.as_str() {
                "super" => Place::Module(self.modules[module].parent?),
                "self" => Place::Module(module),
                // From another crate, or created by a macro: the name counts as one of this module.
                name => self
                    .lookup(module, name, steps)
                    .unwrap_or_else(|| Place::Item(module, name.to_owned())),
            };
            rest = after;
        }
        Some(place)
    }

    /// Returns the outermost module in the same file.
    fn module_of_file(&self, module: usize) -> &Module {
        let here = &self.modules[module];
        match here.parent {
            Some(parent) if self.modules[parent].file == here.file => self.module_of_file(parent),
            _ => here,
        }
    }

    /// Resolves one name in a module.
    fn lookup(&self, module: usize, name: &str, steps: usize) -> Option<Place> {
        let steps = steps.checked_sub(1)?;
        let here = &self.modules[module];
        if let Some(child) = here.children.get(name) {
            return Some(Place::Module(*child));
        }
        if here.items.contains(name) {
            return Some(Place::Item(module, name.to_owned()));
        }
        let imported = |import: &Import| {
            if import.name != name || import.path == [name] {
                return None;
            }
            self.resolve_within(module, &import.path, steps)
        };
        if let Some(place) = here.imports.iter().find_map(imported) {
            return Some(place);
        }
        here.globs.iter().find_map(|glob| {
            let Place::Module(other) = self.resolve_within(module, glob, steps)? else {
                return None;
            };
            self.lookup(other, name, steps)
        })
    }
}

/// Returns the types with inherent methods in several files that are not all in the directory of their module, or whose directory has another
/// name than the type.
pub(super) fn scattered_methods(sources: &Sources) -> Vec<String> {
    let mut types: BTreeMap<(usize, String), BTreeSet<PathBuf>> = BTreeMap::new();
    for (nth, module) in sources.modules.iter().enumerate() {
        for path in &module.inherent {
            if let Some(Place::Item(home, name)) = sources.resolve(nth, path) {
                let files = types.entry((home, name)).or_default();
                files.insert(module.file.clone());
            }
        }
    }
    types.retain(|(home, name), files| {
        let home = &sources.modules[*home];
        let folder = home.file.with_extension("");
        let folder = match home.file.file_name() {
            Some(name) if name == "mod.rs" => home.file.parent().unwrap_or(&folder),
            _ => &folder,
        };
        let is_inside = |file: &PathBuf| *file == home.file || file.starts_with(folder);
        let may_be_several =
            home.parent.is_some() && files.iter().all(is_inside) && bears_name(folder, name);
        files.len() > 1 && !may_be_several
    });
    types
        .into_iter()
        .map(|((_, name), files)| {
            let files: Vec<_> = files.iter().map(|file| name_of(file)).collect();
            format!("{name}: {}", files.join(", "))
        })
        .collect()
}

/// Whether a directory is named after a type: with all words of its name, or with the first or the last ones.
fn bears_name(folder: &Path, name: &str) -> bool {
    let mut words = String::new();
    for (at, letter) in name.char_indices() {
        if letter.is_uppercase() && at > 0 {
            words.push('_');
        }
        words.extend(letter.to_lowercase());
    }
    let Some(folder) = folder.file_name().and_then(OsStr::to_str) else {
        return false;
    };
    let after = words.strip_prefix(folder);
    let before = words.strip_suffix(folder);
    after.is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
        || before.is_some_and(|rest| rest.ends_with('_'))
}

/// Returns the paths that a module names, without re-exports of items below it.
pub(super) fn named_in(sources: &Sources, module: usize) -> impl Iterator<Item = &Segments> {
    let here = &sources.modules[module];
    let file = sources.module_of_file(module);
    let imports = here.imports.iter().filter(move |import| {
        let place = sources.resolve(module, &import.path);
        let (Some(Place::Item(home, _)) | Some(Place::Module(home))) = place else {
            return false;
        };
        !import.exported || !sources.modules[home].path.starts_with(&file.path)
    });
    imports
        .map(|import| &import.path)
        .chain(here.mentions.iter())
}
