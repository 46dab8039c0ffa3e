//! `policy.shadow`: ask a generation beside the one that serves.

use portcullis_policy::Trial;
use portcullis_rpc::{Call, Fault};

use super::{Change, Changed, FromCall, Procedure, expect, fault, generation};
use crate::Control;
use crate::caller::Caller;

/// `policy.shadow`.
#[derive(Debug)]
pub(crate) struct Shadow {
    pub(crate) seat: String,
    pub(crate) generation: u64,
}

impl FromCall for Shadow {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        let [seat, number] = expect(call, ["seat", "generation"])?;
        let generation = generation(&number)?;
        Ok(Self { seat, generation })
    }
}

impl Procedure for Shadow {
    type Reply = Changed;

    fn seat(&self) -> Option<&str> {
        Some(&self.seat)
    }

    async fn execute(self, control: &Control, caller: &Caller) -> Result<Changed, Fault> {
        let by = caller.to_string();
        let registry = &control.registry;
        let tried = registry
            .deployments()
            .try_out(&self.seat, self.generation, Trial::Shadow, &by);
        let tried = tried.await.map_err(|error| fault(&error))?;
        Ok(Changed::new(control, Change::Shadowing, &tried).await)
    }
}
