//! The desired state, the state of a host, and the steps between them.

use std::process::ExitCode;

use anyhow::ensure;
use portcullis_plan::{Plan, Prune};

use super::actual::{self, Actual};
use super::desired::Desired;
use crate::cli::client::Client;

/// The exit code of a comparison that has found differences.
const DIFFERENT: u8 = 2;

/// Two states and the steps between them.
pub(super) struct Comparison {
    pub(super) desired: Desired,
    pub(super) actual: Actual,
    pub(super) plan: Plan,
}

impl Comparison {
    /// Reads the state of the host, and plans the steps.
    ///
    /// # Errors
    /// If the host does not answer, or a kind is named that cannot be pruned.
    pub(super) fn of(client: &Client, desired: Desired, prune: &Prune) -> anyhow::Result<Self> {
        let actual = actual::read(client, &desired)?;
        let plan = Plan::of(&desired.state(), &actual.state(&desired), prune)?;
        Ok(Self {
            desired,
            actual,
            plan,
        })
    }

    /// The same with the state of the host as it is now.
    ///
    /// # Errors
    /// If the plan is another one now.
    pub(super) fn again(self, client: &Client, prune: &Prune) -> anyhow::Result<Self> {
        let now = Self::of(client, self.desired, prune)?;
        ensure!(
            now.plan.steps == self.plan.steps,
            "nothing was changed: the host has changed since the plan was made; run the command again"
        );
        Ok(now)
    }

    pub(super) fn exit_code(&self) -> ExitCode {
        match self.plan.is_empty() {
            true => ExitCode::SUCCESS,
            false => ExitCode::from(DIFFERENT),
        }
    }
}
