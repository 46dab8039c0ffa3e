//! Generations that do not serve.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use thiserror::Error;

use super::{Generation, Mode};
use crate::digest::Digest;

/// Generations that do not serve.
#[derive(Default)]
pub(super) struct History {
    pub(super) mode: Mode,
    /// Compiled and ready: those that served, and those that have not yet; the newest last.
    pub(super) kept: VecDeque<Arc<Generation>>,
    /// The number of the one that served before.
    pub(super) previous: Option<u64>,
    /// Generations that failed too often, by their numbers, with the digests of their files, whether they are still kept or not.
    condemned: BTreeMap<u64, Digest>,
    /// Given up, and waiting for the last worker.
    pub(super) retired: Vec<Arc<Generation>>,
}

/// Why a generation can't serve.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum NoGeneration {
    /// None of this number is there.
    #[error("there is no generation {number}; {}", there_are(.kept))]
    Unknown {
        /// The number.
        number: u64,
        /// The numbers of those that are.
        kept: Vec<u64>,
    },
    /// Nothing served before the one that serves.
    #[error("there is no generation to go back to; {}", there_are(.kept))]
    Previous {
        /// The numbers of those that are there.
        kept: Vec<u64>,
    },
    /// A candidate is tried beside one that serves.
    #[error("no generation serves yet: activate the first one")]
    Nothing,
}

/// The most numbers of condemned generations that are remembered: the newest.
const CONDEMNED_MOST: usize = 64;

impl History {
    /// Nothing goes back to this generation by itself, nor to its file under another number.
    pub(super) fn condemn(&mut self, generation: &Generation) {
        let digest = generation.policy.digest();
        self.condemned.insert(generation.number, digest);
        if self.condemned.len() > CONDEMNED_MOST {
            self.condemned.pop_first();
        }
    }

    /// Somebody put the generation into service.
    pub(super) fn pardon(&mut self, generation: &Generation) {
        let digest = generation.policy.digest();
        self.condemned
            .retain(|number, condemned| *number != generation.number && *condemned != digest);
    }

    pub(super) fn is_condemned(&self, number: u64) -> bool {
        self.condemned.contains_key(&number)
    }

    pub(super) fn is_condemned_file(&self, digest: Digest) -> bool {
        self.condemned
            .values()
            .any(|condemned| *condemned == digest)
    }

    /// Gives up what is too much. The one that served before goes last.
    pub(super) fn trim(&mut self, most: usize) {
        while self.kept.len() > most {
            let is_other = |kept: &Arc<Generation>| Some(kept.number) != self.previous;
            let at = self.kept.iter().position(is_other).unwrap_or(0);
            self.retired.extend(self.kept.remove(at));
        }
    }
}

fn there_are(numbers: &[u64]) -> String {
    let numbers: Vec<_> = numbers.iter().map(u64::to_string).collect();
    match &numbers[..] {
        [] => "there is none at all".to_owned(),
        numbers => format!("there are {}", numbers.join(", ")),
    }
}
