//! Loaded policies.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::digest::Digest;
use crate::failure::Failure;
use crate::inspect::Inspection;
use crate::module::Use;
use crate::problem::SettingsError;
use crate::reset::NoReset;
use crate::reuse::Reuse;
use crate::sandbox::{CallLimits, Code, Sandboxes};
use crate::scope::Scope;
use crate::settings::Settings;
use crate::trial_run::{self, TrialRun};
use crate::warm::WarmSandboxes;

/// A policy that is compiled, linked and has passed its trial run. [`Evaluator`](crate::Evaluator)s call it. A handle, cheap to clone.
#[derive(Clone)]
pub struct Policy {
    pub(crate) loaded: Arc<Loaded>,
    pub(crate) reuse: Reuse,
    /// The scope of most of its calls, for sandboxes that are made before the first of them.
    pub(crate) home: Option<Arc<Scope>>,
}

/// The data that all handles of a policy share.
pub(crate) struct Loaded {
    pub(crate) name: Arc<str>,
    pub(crate) inspection: Inspection,
    pub(crate) sandboxes: Sandboxes,
    /// Keeps the code alive for other policies from the same file ([`SharedCode`](crate::shared_code::SharedCode)).
    pub(crate) _code: Arc<Code>,
    pub(crate) limits: CallLimits,
    /// Set if the policy exports `validate-settings`.
    pub(crate) trial: Option<TrialRun>,
    pub(crate) trial_failure: Option<Failure>,
    /// Whether the policy exports `on-failure`.
    pub(crate) asks_on_failure: bool,
    pub(crate) load_time: Duration,
    pub(crate) code_origin: CodeOrigin,
    pub(crate) dropped_lines: AtomicU64,
    pub(crate) warm: Arc<WarmSandboxes<Self>>,
}

/// Where the machine code of a policy came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeOrigin {
    /// The file was compiled.
    Compiler,
    /// The file was compiled by an earlier process.
    Cache,
    /// Another loaded policy is from the same file.
    Memory,
}

impl CodeOrigin {
    /// The name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Compiler => "compiler",
            Self::Cache => "cache",
            Self::Memory => "memory",
        }
    }
}

impl Policy {
    /// The name of the policy, usually that of its file.
    pub fn name(&self) -> &str {
        &self.loaded.name
    }

    /// The digest of the file.
    pub fn digest(&self) -> Digest {
        self.loaded.inspection.digest
    }

    /// What the file contains.
    pub fn inspection(&self) -> &Inspection {
        &self.loaded.inspection
    }

    /// How `decide` or `on-failure` failed in the trial run, if one failed. It may fail for real requests, too.
    pub fn trial_failure(&self) -> Option<&Failure> {
        self.loaded.trial_failure.as_ref()
    }

    /// Whether the policy is to be asked when all targets of a request have failed ([`Evaluator::on_failure`](crate::Evaluator::on_failure)).
    pub fn asks_on_failure(&self) -> bool {
        self.loaded.asks_on_failure
    }

    /// Calls `validate-settings` with these settings. A policy without this export accepts any settings.
    ///
    /// Takes longer than a call, so it must not run on a worker.
    ///
    /// # Errors
    /// If the policy refuses the settings or fails.
    pub fn check_settings(&self, settings: &Arc<Settings>) -> Result<(), SettingsError> {
        let trial = self.loaded.trial.as_ref();
        trial.map_or(Ok(()), |trial| {
            trial.check(&self.loaded.sandboxes, settings)
        })
    }

    /// Why each call gets a new instance; `None` if an instance is reset after each call, which is faster. [`Policy::with_reuse`] has precedence.
    pub fn no_reset(&self) -> Option<NoReset> {
        self.loaded.sandboxes.no_reset()
    }

    /// The time for checking, compiling and the trial run.
    pub fn load_time(&self) -> Duration {
        self.loaded.load_time
    }

    /// Where the machine code came from.
    pub fn code_origin(&self) -> CodeOrigin {
        self.loaded.code_origin
    }

    /// Number of log lines above the limit that were dropped since the policy was loaded.
    pub fn dropped_log_lines(&self) -> u64 {
        self.loaded.dropped_lines.load(Ordering::Relaxed)
    }

    /// Sets for how many calls sandboxes keep their state; [`Reuse::Never`] by default. A call then finds what previous calls left in the memory
    /// of the policy.
    pub fn with_reuse(mut self, reuse: impl Into<Reuse>) -> Self {
        self.reuse = reuse.into();
        self
    }

    /// For how many calls sandboxes keep their state.
    pub fn reuse(&self) -> Reuse {
        self.reuse
    }

    /// Sets the scope in which the policy will be called, for [`Policy::warm_up`].
    pub fn at_home_in(mut self, scope: &Arc<Scope>) -> Self {
        self.home = Some(Arc::clone(scope));
        self
    }

    /// Makes the first sandbox of each evaluator, if sandboxes keep their state: the first calls do not wait for it. Start functions of the
    /// policy see a request of the host's own, and empty tables. Takes milliseconds, so it must not run on a worker.
    ///
    /// Does nothing without [`Policy::at_home_in`] and [`Runtime::warm_up_for`](crate::Runtime::warm_up_for).
    pub fn warm_up(&self) {
        let Some(scope) = self.home.as_ref().filter(|_| self.reuse != Reuse::Never) else {
            return;
        };
        let loaded = &self.loaded;
        loaded.warm.fill(loaded, scope, || {
            let (state, limits) = trial_run::first_call(scope, &loaded.name, &loaded.limits);
            let opened = loaded.sandboxes.open(state, &limits, Use::Again);
            opened.ok().map(|mut sandbox| {
                let _options = sandbox.call().end();
                sandbox
            })
        });
    }

    /// Whether this is the last handle of the policy.
    pub(crate) fn is_last(&self) -> bool {
        Arc::strong_count(&self.loaded) == 1
    }

    /// A number that identifies the policy among all loaded policies.
    pub(crate) fn key(&self) -> usize {
        Arc::as_ptr(&self.loaded).addr()
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        self.warm.sweep();
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
