//! `policy.canary`: let a generation decide on a share of the dialogs.

use portcullis_policy::{Share, Trial};
use portcullis_rpc::{Call, Fault};

use super::{Change, Changed, FromCall, Procedure, expect, fault, generation, share};
use crate::Control;
use crate::caller::Caller;

/// `policy.canary`.
#[derive(Debug)]
pub(crate) struct Canary {
    pub(crate) seat: String,
    pub(crate) generation: u64,
    pub(crate) share: Share,
}

impl FromCall for Canary {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        let [seat, number, text] = expect(call, ["seat", "generation", "share"])?;
        let share = share(&text)?;
        let generation = generation(&number)?;
        Ok(Self {
            seat,
            generation,
            share,
        })
    }
}

impl Procedure for Canary {
    type Reply = Changed;

    fn seat(&self) -> Option<&str> {
        Some(&self.seat)
    }

    async fn execute(self, control: &Control, caller: &Caller) -> Result<Changed, Fault> {
        let (by, trial) = (caller.to_string(), Trial::Canary(self.share));
        let registry = &control.registry;
        let tried = registry
            .deployments()
            .try_out(&self.seat, self.generation, trial, &by);
        let tried = tried.await.map_err(|error| fault(&error))?;
        Ok(Changed::new(control, Change::Canary, &tried).await)
    }
}
