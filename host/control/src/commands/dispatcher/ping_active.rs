//! `dispatcher.ping_active`.

use portcullis_rpc::{Call, Fault};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::number_of;
use crate::Control;
use crate::caller::Caller;
use crate::commands::{FromCall, Procedure};

/// `dispatcher.ping_active`: shows whether pings are sent, or sets it. It lasts until the end of the process.
#[derive(Debug)]
pub(crate) struct PingActive(Option<i32>);

/// The reply of `dispatcher.ping_active`. Nothing is pinged for 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct PingActiveReply {
    /// The number that was given; absent if none was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_ping_state: Option<i32>,
    /// The number before.
    pub old_ping_state: i32,
}

impl FromCall for PingActive {
    /// As Kamailio, takes what is no number for nothing, and -1 for a question.
    fn from_call(call: &Call) -> Result<Self, Fault> {
        let number = call.params.first().and_then(number_of);
        let number = number.and_then(|number| i32::try_from(number).ok());
        Ok(Self(number.filter(|number| *number != -1)))
    }
}

impl Procedure for PingActive {
    type Reply = PingActiveReply;

    fn subject(&self) -> Option<String> {
        self.0.map(|number| format!("pings {number}"))
    }

    async fn execute(self, control: &Control, _: &Caller) -> Result<PingActiveReply, Fault> {
        let dispatcher = &control.shared.dispatcher;
        Ok(PingActiveReply {
            new_ping_state: self.0,
            old_ping_state: match self.0 {
                Some(number) => dispatcher.set_ping_active(number),
                None => dispatcher.ping_active(),
            },
        })
    }
}
