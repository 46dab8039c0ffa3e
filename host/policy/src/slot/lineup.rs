//! The lineup of a slot: the generations that are in use, and how.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use crate::digest::Digest;
use crate::policy::Policy;
use crate::reuse::Reuse;

use super::share::{Share, ShareKey};
use super::stats::Stats;

/// A policy attached to a slot.
pub struct Generation {
    /// The policy.
    pub policy: Policy,
    /// The number within the slot, from 1.
    pub number: u64,
    /// When the policy was loaded.
    pub loaded_at: SystemTime,
    /// Statistics of its calls.
    pub stats: Stats,
    /// Set when the breaker trips: the host does not return to this generation by itself.
    pub(super) condemned: AtomicBool,
}

/// The generations of a slot that are in use. Immutable; a change replaces it as a whole.
#[derive(Clone)]
pub struct Lineup {
    /// The active generation.
    pub active: Arc<Generation>,
    /// Whether verdicts are carried out.
    pub mode: Mode,
    /// The generation under trial.
    pub candidate: Option<Candidate>,
    /// The generation that was active before, if it is retained. The host returns to it when the breaker trips.
    pub fallback: Option<Arc<Generation>>,
}

/// Whether the verdicts of a policy are carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Verdicts are carried out.
    #[default]
    Enforce,
    /// Verdicts are logged and counted; requests are handled as if there were no policy.
    Monitor,
}

/// A generation under trial on live requests.
#[derive(Clone)]
pub struct Candidate {
    /// The generation.
    pub generation: Arc<Generation>,
    /// The kind of trial.
    pub trial: Trial,
}

/// The kinds of trials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trial {
    /// The candidate evaluates the same requests after the active generation, off the path of the message. Its verdicts are only compared.
    Shadow,
    /// The candidate decides on this share of the dialogs.
    Canary(Share),
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shadow => f.write_str("shadow"),
            Self::Canary(share) => write!(f, "canary {share}"),
        }
    }
}

impl Lineup {
    /// The generation that decides on the requests of a dialog.
    pub fn decides(&self, call_id: &[u8], key: &ShareKey) -> &Arc<Generation> {
        match &self.candidate {
            Some(Candidate {
                generation,
                trial: Trial::Canary(share),
            }) if share.holds(call_id, key) => generation,
            _ => &self.active,
        }
    }

    /// The candidate of a shadow trial.
    pub fn shadow(&self) -> Option<&Arc<Generation>> {
        match &self.candidate {
            Some(Candidate {
                generation,
                trial: Trial::Shadow,
            }) => Some(generation),
            _ => None,
        }
    }

    /// All policies of the lineup.
    pub fn policies(&self) -> impl Iterator<Item = &Policy> {
        let candidate = self.candidate.iter().map(|one| &one.generation);
        let all = candidate.chain([&self.active]).chain(&self.fallback);
        all.map(|generation| &generation.policy)
    }

    /// Whether the generation of this number is active or the candidate.
    pub fn has(&self, number: u64) -> bool {
        let candidate = self.candidate.as_ref();
        self.active.number == number
            || candidate.is_some_and(|candidate| candidate.generation.number == number)
    }
}

impl Mode {
    /// The name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Monitor => "monitor",
        }
    }
}

impl Generation {
    /// Whether the breaker has taken the generation out of service.
    pub fn is_condemned(&self) -> bool {
        self.condemned.load(Ordering::Relaxed)
    }

    pub(super) fn serves(&self, name: &str, digest: Digest, reuse: Reuse) -> bool {
        self.policy.digest() == digest && self.policy.name() == name && self.policy.reuse == reuse
    }
}

impl std::fmt::Debug for Generation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generation")
            .field("number", &self.number)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}
