//! `policy.shadow`: start a shadow trial.

use portcullis_config::TokenRole;
use portcullis_policy::Trial;
use portcullis_rpc::{Call, Fault};

use super::role::{self, Chosen, Role, Words};
use super::{Changed, FromCall, Procedure};
use crate::Control;
use crate::caller::Caller;
use crate::operation::Routes;

/// `policy.shadow`.
#[derive(Debug)]
pub(crate) struct Shadow(Chosen);

impl FromCall for Shadow {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        Chosen::from_call(call).map(Self)
    }
}

impl From<Chosen> for Shadow {
    fn from(chosen: Chosen) -> Self {
        Self(chosen)
    }
}

impl Procedure for Shadow {
    type Reply = Changed;

    const NEEDS: TokenRole = TokenRole::Ship;

    fn seat(&self) -> Option<&str> {
        Some(&self.0.seat)
    }

    fn subject(&self) -> Option<String> {
        Some(self.0.subject())
    }

    async fn execute(self, control: &Control, caller: &Caller) -> Result<Changed, Fault> {
        self.0
            .give(Role::Candidate(Trial::Shadow), control, caller)
            .await
    }
}

impl Shadow {
    /// `POST /v1/policies/{seat}/shadow`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let words = Words {
            path: "/v1/policies/{seat}/shadow",
            id: "shadowPolicy",
            summary: "Start a shadow trial, in which a generation evaluates requests without effect",
            done: "The generation is in a shadow trial",
        };
        role::operation::<Self>(routes, &words)
    }
}
