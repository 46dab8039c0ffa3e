//! The dependencies between the files of a crate.

use std::collections::BTreeMap;
use std::fmt;

use super::circles::components;
use super::name_of;
use super::names::{Place, named_in};
use super::source::Sources;

/// The dependencies between the files of a crate, each with the names that cause it.
#[derive(Debug)]
pub(super) struct Arrows(BTreeMap<String, BTreeMap<String, Vec<String>>>);

/// Files that depend on each other.
#[derive(Debug)]
pub(super) struct Circle {
    pub(super) files: Vec<String>,
    /// From, to, and the names.
    arrows: Vec<(String, String, Vec<String>)>,
}

impl Arrows {
    pub(super) fn of(sources: &Sources) -> Self {
        let mut arrows = BTreeMap::<_, BTreeMap<_, Vec<String>>>::new();
        for (nth, module) in sources.modules.iter().enumerate() {
            for path in named_in(sources, nth) {
                let Some(Place::Item(home, name)) = sources.resolve(nth, path) else {
                    continue;
                };
                let home = &sources.modules[home].file;
                if *home == module.file {
                    continue;
                }
                let from = arrows.entry(name_of(&module.file)).or_default();
                let names = from.entry(name_of(home)).or_default();
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        Self(arrows)
    }

    /// Returns the dependencies between sibling modules, each with everything below it. Dependencies between a module and its parent are
    /// ignored.
    pub(super) fn of_siblings(&self) -> Self {
        let mut arrows = BTreeMap::<_, BTreeMap<_, Vec<String>>>::new();
        for (from, to, names) in self.each() {
            let Some((from, to)) = siblings(from, to) else {
                continue;
            };
            let between = arrows.entry(from).or_default().entry(to).or_default();
            between.extend_from_slice(names);
        }
        Self(arrows)
    }

    fn each(&self) -> impl Iterator<Item = (&str, &str, &[String])> {
        let arrows = self
            .0
            .iter()
            .flat_map(|(from, to)| to.iter().map(move |to| (from, to)));
        arrows.map(|(from, (to, names))| (from.as_str(), to.as_str(), names.as_slice()))
    }

    /// Returns the strongly connected sets of files.
    pub(super) fn circles(&self) -> Vec<Circle> {
        let next = |file: &String| self.0.get(file).into_iter().flat_map(BTreeMap::keys);
        let components = components(self.0.keys(), next);
        components
            .into_iter()
            .filter(|files| files.len() > 1)
            .map(|files| Circle {
                arrows: self.between(&files),
                files,
            })
            .collect()
    }

    fn between(&self, files: &[String]) -> Vec<(String, String, Vec<String>)> {
        let is_in = |file: &str| files.iter().any(|one| one == file);
        self.each()
            .filter(|(from, to, _)| is_in(from) && is_in(to))
            .map(|(from, to, names)| (from.to_owned(), to.to_owned(), names.to_vec()))
            .collect()
    }
}

/// Returns the two sibling modules that these files belong to; `None` if one file is that of their common parent.
fn siblings(from: &str, to: &str) -> Option<(String, String)> {
    let common = from
        .split('/')
        .zip(to.split('/'))
        .take_while(|(from, to)| from == to)
        .count();
    let module = |file: &str| {
        let steps: Vec<_> = file.split('/').take(common + 1).collect();
        let path = steps.join("/");
        let path = path.strip_suffix(".rs").unwrap_or(&path);
        let is_parent = ["mod", "lib", "main"]
            .iter()
            .any(|name| path.ends_with(&format!("/{name}")));
        (!is_parent).then(|| path.to_owned())
    };
    let (from, to) = (module(from)?, module(to)?);
    // `a.rs` is the parent of `a/b.rs`.
    (from != to).then_some((from, to))
}

impl fmt::Display for Circle {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{:?}", self.files)?;
        for (from, to, names) in &self.arrows {
            writeln!(out, "  {from} -> {to}: {}", names.join(", "))?;
        }
        Ok(())
    }
}
