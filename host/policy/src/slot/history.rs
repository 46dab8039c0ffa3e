//! The generations of a slot that are not in the lineup.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use thiserror::Error;

use super::{Generation, Mode};
use crate::digest::Digest;

/// The generations of a slot that are not in the lineup.
#[derive(Default)]
pub(super) struct History {
    pub(super) mode: Mode,
    /// Retained generations, compiled but not called; the newest last.
    pub(super) retained: VecDeque<Arc<Generation>>,
    /// The number of the generation that was active before.
    pub(super) previous: Option<u64>,
    /// Numbers of condemned generations, with the digests of their files. They may be retained or not.
    condemned: BTreeMap<u64, Digest>,
}

/// Why a generation cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum NoGeneration {
    /// There is no generation of this number.
    #[error("there is no generation {number}; {}", there_are(.kept))]
    Unknown {
        /// The number.
        number: u64,
        /// The numbers of all generations of the slot.
        kept: Vec<u64>,
    },
    /// No generation was active before the current one.
    #[error("there is no generation to go back to; {}", there_are(.kept))]
    Previous {
        /// The numbers of all generations of the slot.
        kept: Vec<u64>,
    },
    /// A trial needs an active generation.
    #[error("no generation is active yet: activate the first one")]
    Nothing,
}

/// Maximum number of condemned generations to remember. The newest are kept.
const CONDEMNED_MOST: usize = 64;

impl History {
    /// Condemns a generation: the host does not return by itself to it, nor to its file under another number.
    pub(super) fn condemn(&mut self, generation: &Generation) {
        let digest = generation.policy.digest();
        self.condemned.insert(generation.number, digest);
        if self.condemned.len() > CONDEMNED_MOST {
            self.condemned.pop_first();
        }
    }

    /// Ends the condemnation of a generation that a command activates.
    pub(super) fn pardon(&mut self, generation: &Generation) {
        let digest = generation.policy.digest();
        self.condemned
            .retain(|number, condemned| *number != generation.number && *condemned != digest);
    }

    pub(super) fn is_condemned(&self, number: u64) -> bool {
        self.condemned.contains_key(&number)
    }

    /// Whether the file of this digest was condemned under this number. In a database that was replaced by a backup, the number may stand for
    /// another file than before.
    pub(super) fn is_condemned_as(&self, number: u64, digest: Digest) -> bool {
        self.condemned.get(&number) == Some(&digest)
    }

    pub(super) fn is_condemned_file(&self, digest: Digest) -> bool {
        self.condemned
            .values()
            .any(|condemned| *condemned == digest)
    }

    /// Takes out the oldest generation if more than `most` are retained. The one that was active before goes last.
    pub(super) fn oldest_beyond(&mut self, most: usize) -> Option<Arc<Generation>> {
        if self.retained.len() <= most {
            return None;
        }
        let is_other = |kept: &Arc<Generation>| Some(kept.number) != self.previous;
        let at = self.retained.iter().position(is_other).unwrap_or(0);
        self.retained.remove(at)
    }
}

fn there_are(numbers: &[u64]) -> String {
    let numbers: Vec<_> = numbers.iter().map(u64::to_string).collect();
    match &numbers[..] {
        [] => "there is none at all".to_owned(),
        numbers => format!("there are {}", numbers.join(", ")),
    }
}
