//! `policy.activate`: let a generation serve.

use portcullis_rpc::{Call, Fault};

use super::{Change, Changed, FromCall, Procedure, expect, fault, generation};
use crate::Control;
use crate::caller::Caller;

/// `policy.activate`.
#[derive(Debug)]
pub(crate) struct Activate {
    pub(crate) seat: String,
    pub(crate) generation: u64,
}

impl FromCall for Activate {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        let [seat, number] = expect(call, ["seat", "generation"])?;
        let generation = generation(&number)?;
        Ok(Self { seat, generation })
    }
}

impl Procedure for Activate {
    type Reply = Changed;

    fn seat(&self) -> Option<&str> {
        Some(&self.seat)
    }

    async fn execute(self, control: &Control, caller: &Caller) -> Result<Changed, Fault> {
        let by = caller.to_string();
        let activated = control
            .registry
            .deployments()
            .activate(&self.seat, self.generation, &by);
        let activated = activated.await.map_err(|error| fault(&error))?;
        Ok(Changed::new(control, Change::Activated, &activated).await)
    }
}
