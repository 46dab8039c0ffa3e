//! One request as a host would handle it, up to the decision of one policy.

use std::sync::Arc;
use std::time::SystemTime;

use portcullis_address::Snapshot;
use portcullis_policy::{Policy, Scope, StatedHost};
use portcullis_records::Question;
use portcullis_records::replay::{Answered, OfflinePolicy, Query};
use portcullis_request::Request;

use crate::first_look::{FirstLook, first_look};
use crate::reason::{Sight, reason_for};

/// A request, and the surroundings in which a policy is asked about it.
#[derive(Clone, Copy, Debug)]
pub struct Evaluation<'t> {
    /// The request.
    pub request: &'t Request,
    /// The time that the policy reads.
    pub at: SystemTime,
    /// The names of the host.
    pub aliases: &'t [String],
    /// What the policy may get to know beside the request and the tables.
    pub host: &'t StatedHost,
    /// The tables that answer.
    pub tables: &'t Arc<Snapshot>,
}

/// What became of the request.
#[derive(Clone, Debug)]
pub struct Evaluated {
    /// What a host does before it calls a policy.
    pub look: FirstLook,
    /// The call; `None` if a host would not call a policy.
    pub answered: Option<Answered>,
}

impl Evaluation<'_> {
    /// Calls the policy, unless a host would not.
    pub fn run(self, policy: Policy, scope: Scope) -> Evaluated {
        let look = first_look(self.request, self.aliases);
        let answered = match look {
            FirstLook::Judged => {
                let query = Query {
                    request: self.request.clone(),
                    at: self.at,
                    recorded: None,
                    failed: None,
                    host: self.host.clone(),
                };
                let mut policy = OfflinePolicy::new(policy, Arc::new(scope));
                Some(policy.call(query, self.tables))
            }
            FirstLook::Answered(_) | FirstLook::Dropped(_) | FirstLook::Absorbed => None,
        };
        Evaluated { look, answered }
    }

    /// Which row gave each answer, as far as `sight` reaches.
    pub fn reasons<'a>(
        self,
        evaluated: &'a Evaluated,
        sight: Sight<'_>,
    ) -> Vec<(&'a Question, Option<String>)> {
        let asked = evaluated
            .answered
            .iter()
            .flat_map(|answered| &answered.asked);
        let reason = |question| reason_for(question, self.request, self.tables, sight);
        asked.map(|question| (question, reason(question))).collect()
    }
}
