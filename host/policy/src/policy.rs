//! A policy that has been loaded.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::digest::Digest;
use crate::failure::Failure;
use crate::inspect::Inspection;
use crate::problem::SettingsError;
use crate::sandbox::{Code, Rules, Sandboxes};
use crate::settings::Settings;
use crate::trial_run::TrialRun;

/// A policy, compiled, linked and tried: what [`Evaluator`](crate::Evaluator)s ask. A handle, cheap to clone.
#[derive(Clone)]
pub struct Policy {
    pub(crate) loaded: Arc<Loaded>,
    pub(crate) reuse: bool,
}

/// What all handles of a policy share.
pub(crate) struct Loaded {
    pub(crate) name: Arc<str>,
    pub(crate) inspection: Inspection,
    pub(crate) sandboxes: Sandboxes,
    /// For the next policy from the same file.
    pub(crate) _code: Arc<Code>,
    pub(crate) rules: Rules,
    /// For a policy that looks at its settings.
    pub(crate) trial: Option<TrialRun>,
    pub(crate) trial_failure: Option<Failure>,
    pub(crate) load_time: Duration,
    pub(crate) code_origin: CodeOrigin,
    pub(crate) dropped_lines: AtomicU64,
}

/// Where the machine code of a policy came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeOrigin {
    /// The file was compiled.
    Compiler,
    /// The file was compiled by an earlier process.
    Cache,
    /// Another policy from the same file had it.
    Memory,
}

impl CodeOrigin {
    /// As logs and metrics name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Compiler => "compiler",
            Self::Cache => "cache",
            Self::Memory => "memory",
        }
    }
}

impl Policy {
    /// The name that it was loaded under.
    pub fn name(&self) -> &str {
        &self.loaded.name
    }

    /// The SHA-256 of its file.
    pub fn digest(&self) -> Digest {
        self.loaded.inspection.digest
    }

    /// What its file says of itself.
    pub fn inspection(&self) -> &Inspection {
        &self.loaded.inspection
    }

    /// How it failed on the trial run's OPTIONS, if it did. Worth a warning: real requests may fare no better.
    pub fn trial_failure(&self) -> Option<&Failure> {
        self.loaded.trial_failure.as_ref()
    }

    /// Whether it would serve with these settings. One that does not export `validate-settings` takes any.
    ///
    /// Takes as long as a call and some more, so it must not be called on a thread that serves requests.
    ///
    /// # Errors
    /// Says what the policy says.
    pub fn check_settings(&self, settings: &Arc<Settings>) -> Result<(), SettingsError> {
        let trial = self.loaded.trial.as_ref();
        trial.map_or(Ok(()), |trial| {
            trial.check(&self.loaded.sandboxes, settings)
        })
    }

    /// How long checking, compiling and the trial run took.
    pub fn load_time(&self) -> Duration {
        self.loaded.load_time
    }

    /// Where its machine code came from.
    pub fn code_origin(&self) -> CodeOrigin {
        self.loaded.code_origin
    }

    /// Log lines that calls of this policy wrote beyond the limit, since it was loaded.
    pub fn dropped_log_lines(&self) -> u64 {
        self.loaded.dropped_lines.load(Ordering::Relaxed)
    }

    /// Whether sandboxes are kept from call to call. Off unless set: with it, what a call leaves in the policy's memory is there
    /// for the next one. Only for policies that are trusted not to mind. A failure ends the sandbox in any case.
    pub fn with_reuse(mut self, reuse: bool) -> Self {
        self.reuse = reuse;
        self
    }

    /// Whether nothing but this handle holds the policy.
    pub(crate) fn is_last(&self) -> bool {
        Arc::strong_count(&self.loaded) == 1
    }

    /// What tells it from every other policy that is loaded.
    pub(crate) fn key(&self) -> usize {
        Arc::as_ptr(&self.loaded).addr()
    }
}

impl std::fmt::Debug for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policy")
            .field("name", &self.name())
            .field("digest", &self.digest())
            .finish_non_exhaustive()
    }
}
