//! Policies that are called aside of the traffic, to see what they would decide.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use portcullis_dataplane::tenants::Seat;
use portcullis_policy::{Limits, LoadError, Policy, Runtime, RuntimeError, Settings};
use thiserror::Error;

use crate::compiler::{self, Behalf, on_behalf_of};

/// Deadline of a call. It is longer than that of the traffic, so that a busy host does not change the result.
const DEADLINE: Duration = Duration::from_secs(1);

/// Policies whose code is kept for further calls.
const KEPT: usize = 4;

/// Loads policies for calls without effect. Their engine is not that of the traffic: it has no pool of sandboxes, and meters fuel.
pub struct Aside {
    limits: Limits,
    /// `None` until the first load.
    runtime: Mutex<Option<Arc<Runtime>>>,
    /// The last policies, the oldest first. A policy from the same file shares their code.
    kept: Mutex<VecDeque<Policy>>,
}

/// Why a policy cannot be called aside.
#[derive(Debug, Error)]
pub enum AsideError {
    /// There is no engine.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The file is not a usable policy.
    #[error(transparent)]
    Refused(#[from] LoadError),
}

impl Aside {
    pub(crate) fn new(limits: &Limits) -> Self {
        let limits = Limits {
            deadline: DEADLINE,
            ..limits.clone()
        };
        Self {
            limits,
            runtime: Mutex::default(),
            kept: Mutex::default(),
        }
    }

    /// Compiles a policy within the limits of a seat, unless its code is still there. Blocks meanwhile.
    ///
    /// # Errors
    /// If the policy cannot be used.
    pub fn load(
        &self,
        seat: &Seat,
        name: &str,
        bytes: &[u8],
        settings: &Arc<Settings>,
        is_tenants: bool,
    ) -> Result<Policy, AsideError> {
        let behalf = match is_tenants {
            true => Behalf::Tenant,
            false => Behalf::Operator,
        };
        let limits = Limits {
            deadline: DEADLINE,
            ..seat.config.limits.clone()
        };
        let runtime = self.runtime()?;
        let policy = on_behalf_of(behalf, || {
            runtime.load_within(name, bytes, &limits, settings)
        })?;
        self.keep(&policy);
        Ok(policy)
    }

    fn runtime(&self) -> Result<Arc<Runtime>, RuntimeError> {
        let mut made = self.runtime.lock();
        if let Some(runtime) = &*made {
            return Ok(Arc::clone(runtime));
        }
        let runtime = Runtime::metered(self.limits.clone())?;
        runtime.compile_with(compiler::for_a_command());
        let runtime = Arc::new(runtime);
        *made = Some(Arc::clone(&runtime));
        Ok(runtime)
    }

    fn keep(&self, policy: &Policy) {
        let mut kept = self.kept.lock();
        kept.retain(|other| other.digest() != policy.digest());
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back(policy.clone());
    }
}

impl std::fmt::Debug for Aside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Aside").finish_non_exhaustive()
    }
}
