//! The last actions of callers, in memory. The log has all of them.

use std::collections::VecDeque;
use std::time::SystemTime;

use parking_lot::Mutex;
use portcullis_rpc::Fault;

use crate::caller::{Authority, Caller};

/// Most actions that are kept.
const MOST: usize = 1_000;

/// Most actions of one tenant among them.
const MOST_OF_TENANT: usize = MOST / 4;

/// Longest text of an error that is kept, in characters.
const LONGEST: usize = 500;

/// The last actions.
#[derive(Debug, Default)]
pub(crate) struct Audit(Mutex<Actions>);

#[derive(Debug, Default)]
struct Actions {
    /// The oldest first.
    last: VecDeque<Action>,
    /// Number of all actions since the start.
    count: u64,
}

/// A command that may change something, with its result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Action {
    /// Its number since the start of the host, from 1.
    pub(crate) id: u64,
    pub(crate) at: SystemTime,
    /// The author, as it is stored with a change.
    pub(crate) by: String,
    /// The tenant whose token was used.
    pub(crate) tenant: Option<String>,
    /// The name of the operator's token, if it has one.
    pub(crate) token: Option<String>,
    pub(crate) door: &'static str,
    pub(crate) command: &'static str,
    pub(crate) seat: Option<String>,
    /// Why it failed.
    pub(crate) error: Option<String>,
}

impl Audit {
    /// Notes an action, and logs it.
    pub(crate) fn note(
        &self,
        caller: &Caller,
        command: &'static str,
        seat: Option<String>,
        fault: Option<&Fault>,
    ) {
        let door = caller.door().as_str();
        let by = caller.to_string();
        let error = fault.map(|fault| fault.message.chars().take(LONGEST).collect::<String>());
        let tenant = match caller.authority() {
            Authority::Operator => None,
            Authority::Tenant(tenant) => Some(tenant.clone()),
        };
        // A tenant cannot fill the log with requests that fail.
        if tenant.is_none() || error.is_none() {
            tracing::info!(
                event = "control_action",
                command,
                seat,
                door,
                by,
                token = caller.token(),
                error,
                "action of an operator or a tenant"
            );
        }
        let mut actions = self.0.lock();
        actions.count += 1;
        let id = actions.count;
        actions.make_room(tenant.as_deref());
        actions.last.push_back(Action {
            id,
            at: SystemTime::now(),
            by,
            tenant,
            token: caller.token().map(str::to_owned),
            door,
            command,
            seat,
            error,
        });
    }

    /// Returns up to `most` actions that `matches` accepts, the newest first.
    pub(crate) fn last(&self, most: usize, matches: impl Fn(&Action) -> bool) -> Vec<Action> {
        let actions = self.0.lock();
        let newest = actions.last.iter().rev();
        newest
            .filter(|action| matches(action))
            .take(most)
            .cloned()
            .collect()
    }
}

impl Actions {
    /// Removes the oldest action if there are too many. A tenant that has its part of them replaces its own.
    fn make_room(&mut self, tenant: Option<&str>) {
        let is_own = |action: &&Action| action.tenant.as_deref() == tenant;
        let own = self.last.iter().filter(is_own).count();
        if tenant.is_some() && own >= MOST_OF_TENANT {
            let oldest = self.last.iter().position(|action| is_own(&action));
            if let Some(at) = oldest {
                self.last.remove(at);
            }
        }
        if self.last.len() >= MOST {
            self.last.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caller::Door;

    #[test]
    fn the_last_actions_are_kept_and_the_newest_come_first() {
        let audit = Audit::default();
        let operator = Caller::operator(Door::Fifo);
        for _ in 0..MOST {
            audit.note(&operator, "tenant.reload", None, None);
        }
        let fault = Fault::new(404, "x".repeat(2 * LONGEST));
        let tenant = Caller::tenant("acme");
        audit.note(
            &tenant,
            "policy.rollback",
            Some("acme".into()),
            Some(&fault),
        );
        let last = audit.last(usize::MAX, |_| true);
        assert_eq!((last.len(), last[0].id), (MOST, MOST as u64 + 1));
        assert_eq!(last[MOST - 1].id, 2);
        assert_eq!(last[0].error.as_ref().unwrap().len(), LONGEST);
        let own = audit.last(10, |action| action.tenant.as_deref() == Some("acme"));
        assert_eq!(own, [last[0].clone()]);
        for _ in 0..MOST {
            audit.note(&tenant, "policy.rollback", Some("acme".into()), None);
        }
        let own = audit.last(MOST, |action| action.tenant.is_some());
        assert_eq!(own.len(), MOST_OF_TENANT);
    }
}
