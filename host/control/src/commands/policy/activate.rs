//! `policy.activate`: activate a generation.

use portcullis_config::TokenRole;
use portcullis_rpc::{Call, Fault};

use super::role::{self, Chosen, Role, Words};
use super::{Changed, FromCall, Procedure};
use crate::Control;
use crate::caller::Caller;
use crate::operation::Routes;

/// `policy.activate`.
#[derive(Debug)]
pub(crate) struct Activate(Chosen);

impl FromCall for Activate {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        Chosen::from_call(call).map(Self)
    }
}

impl From<Chosen> for Activate {
    fn from(chosen: Chosen) -> Self {
        Self(chosen)
    }
}

impl Procedure for Activate {
    type Reply = Changed;

    const NEEDS: TokenRole = TokenRole::Ship;

    fn seat(&self) -> Option<&str> {
        Some(&self.0.seat)
    }

    fn subject(&self) -> Option<String> {
        Some(self.0.subject())
    }

    async fn execute(self, control: &Control, caller: &Caller) -> Result<Changed, Fault> {
        self.0.give(Role::Active, control, caller).await
    }
}

impl Activate {
    /// `POST /v1/policies/{seat}/activate`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let words = Words {
            path: "/v1/policies/{seat}/activate",
            id: "activatePolicy",
            summary: "Activate a generation",
            done: "The generation is active",
        };
        role::operation::<Self>(routes, &words)
    }
}
