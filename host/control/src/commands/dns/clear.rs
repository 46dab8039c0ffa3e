//! `dns.delete_all`.

use portcullis_rpc::{Call, Fault};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Control;
use crate::caller::Caller;
use crate::commands::{FromCall, Procedure};

/// `dns.delete_all`: makes all answers expire, so that all names are resolved again.
#[derive(Debug)]
pub(crate) struct Clear;

/// The reply of `dns.delete_all`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cleared {
    /// `ok`
    pub status: String,
}

impl FromCall for Clear {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        call.no_params().map(|()| Self)
    }
}

impl Procedure for Clear {
    type Reply = Cleared;

    async fn execute(self, control: &Control, _: &Caller) -> Result<Cleared, Fault> {
        control.registry.dns().clear();
        let status = "ok".to_owned();
        Ok(Cleared { status })
    }
}
