//! `policy.endTrial`: end the trial of a candidate.

use portcullis_rpc::{Call, Fault};

use super::{Change, Changed, FromCall, Procedure, expect, fault};
use crate::Control;
use crate::caller::Caller;

/// `policy.endTrial`.
#[derive(Debug)]
pub(crate) struct EndTrial {
    pub(crate) seat: String,
}

impl FromCall for EndTrial {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        let [seat] = expect(call, ["seat"])?;
        Ok(Self { seat })
    }
}

impl Procedure for EndTrial {
    type Reply = Changed;

    fn seat(&self) -> Option<&str> {
        Some(&self.seat)
    }

    async fn execute(self, control: &Control, caller: &Caller) -> Result<Changed, Fault> {
        let by = caller.to_string();
        let ended = control
            .registry
            .deployments()
            .end_trial(&self.seat, &by)
            .await;
        match ended.map_err(|error| fault(&error))? {
            Some(ended) => Ok(Changed::new(control, Change::TrialEnded, &ended).await),
            None => Err(Fault::new(
                404,
                format!("nothing is tried at the seat `{}`", self.seat),
            )),
        }
    }
}
