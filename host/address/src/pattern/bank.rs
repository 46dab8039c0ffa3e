//! Up to 64 patterns that are matched against a text at once.

use std::sync::Arc;

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use super::Draft;
use super::budget::PatternBudget;
use super::effort::{Effort, Spent};
use super::engine::Engine;

/// The most patterns of a bank.
pub(crate) const MOST: usize = 64;

/// Most patterns in one automaton. Each further pattern would multiply its size.
const TOGETHER: usize = 16;

/// Patterns that are matched against a text at once. The result has a bit for each.
#[derive(Debug, Default)]
pub(crate) struct Bank {
    parts: Box<[Part]>,
}

/// Consecutive patterns in one automaton.
#[derive(Debug)]
struct Part {
    first: u32,
    count: u32,
    engine: Arc<Engine>,
}

/// Builds banks. A pattern that has an automaton of its own in several banks shares it.
pub(crate) struct BankBuilder {
    budget: PatternBudget,
    alone: HashMap<Box<str>, Arc<Engine>, FxBuildHasher>,
}

impl Bank {
    /// Returns which patterns match the text.
    #[inline]
    pub(crate) fn found(&self, text: &str, effort: &mut Effort<'_>) -> Result<u64, Spent> {
        let mut found = 0;
        for part in &self.parts {
            let bits = part.engine.found(part.count, text.as_bytes(), effort)?;
            found |= bits << part.first;
        }
        Ok(found)
    }
}

impl BankBuilder {
    pub(crate) fn new(budget: PatternBudget) -> Self {
        Self {
            budget,
            alone: HashMap::default(),
        }
    }

    /// Builds a bank of these patterns, at most [`MOST`]. The memory of each draft has been counted already.
    pub(crate) fn build(&mut self, drafts: &[&Draft]) -> Bank {
        let mut parts = Vec::new();
        for (first, drafts) in (0..).step_by(TOGETHER).zip(drafts.chunks(TOGETHER)) {
            self.add(first, drafts, &mut parts);
        }
        Bank {
            parts: parts.into(),
        }
    }

    /// Adds the patterns in as few automata as possible.
    fn add(&mut self, first: u32, drafts: &[&Draft], parts: &mut Vec<Part>) {
        let count = drafts.len() as u32;
        let engine = match drafts {
            [] => return,
            [draft] => self.alone(draft),
            _ => {
                let patterns: Vec<_> = drafts.iter().map(|draft| draft.translated()).collect();
                Engine::together(&patterns, &mut self.budget).map(Arc::new)
            }
        };
        match engine {
            Some(engine) => parts.push(Part {
                first,
                count,
                engine,
            }),
            // A pattern with a draft can always be compiled by itself.
            None if count == 1 => {}
            None => {
                let (one, other) = drafts.split_at(drafts.len() / 2);
                self.add(first, one, parts);
                self.add(first + one.len() as u32, other, parts);
            }
        }
    }

    fn alone(&mut self, draft: &Draft) -> Option<Arc<Engine>> {
        if let Some(known) = self.alone.get(draft.translated()) {
            return Some(Arc::clone(known));
        }
        let engine = Arc::new(Engine::alone(draft.translated(), &mut self.budget)?);
        self.alone
            .insert(draft.translated().into(), Arc::clone(&engine));
        Some(engine)
    }
}
