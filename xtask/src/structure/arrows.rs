//! Which file names what of which other.

use std::collections::BTreeMap;
use std::fmt;

use super::circles::components;
use super::name_of;
use super::names::{Place, named_in};
use super::source::Sources;

/// The arrows between the files of a crate, each with the names that it stands for.
#[derive(Debug)]
pub(super) struct Arrows(BTreeMap<String, BTreeMap<String, Vec<String>>>);

/// Files that need each other.
#[derive(Debug)]
pub(super) struct Circle {
    pub(super) files: Vec<String>,
    /// From, to, and what is named.
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

    /// The largest sets of files of which each leads to each.
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
        let mut between = Vec::new();
        for from in files {
            for (to, names) in self.0.get(from).into_iter().flatten() {
                if files.contains(to) {
                    between.push((from.clone(), to.clone(), names.clone()));
                }
            }
        }
        between
    }
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
