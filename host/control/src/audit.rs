//! The actions of callers: the last ones in memory, and all in the database, if there is one ([`Stored`]). The log has them too, except failed ones
//! of tenants, and refusals of named tokens.

mod action;
mod stored;
mod waiting;

use std::collections::VecDeque;
use std::time::SystemTime;

use parking_lot::Mutex;
use portcullis_rpc::Fault;

use crate::caller::{Authority, Caller};

pub(crate) use action::Action;
pub(crate) use stored::Stored;

/// Most actions that are kept.
pub(crate) const MOST: usize = 1_000;

/// Most actions of one tenant, or of one named token, among them.
const MOST_OF_ONE: usize = MOST / 4;

/// Longest text that is kept, in characters: of an error, an author, or the name of a seat that may not exist.
const LONGEST: usize = 500;

/// The error of an action whose client closed the connection.
const UNFINISHED: &str =
    "the client closed the connection before the result: the action may have taken effect";

/// The actions of callers.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    /// The name of this host.
    host: String,
    actions: Mutex<Actions>,
    /// `None` if the actions are in memory only.
    stored: Option<Stored>,
}

#[derive(Debug, Default)]
struct Actions {
    /// The oldest first.
    last: VecDeque<Action>,
    /// Number of all actions since the start.
    count: u64,
}

/// An action that has begun. If it does not end because its client is gone, this is noted: it may have taken effect.
#[derive(Debug)]
#[must_use]
pub(crate) struct Begun<'a> {
    audit: &'a Audit,
    caller: &'a Caller,
    command: &'static str,
    about: About,
    is_noted: bool,
}

/// What an action concerns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct About {
    /// The seat.
    pub(crate) seat: Option<String>,
    /// A row, a tenant, a generation.
    pub(crate) subject: Option<String>,
}

impl Begun<'_> {
    /// Notes the result.
    pub(crate) fn end(mut self, fault: Option<&Fault>) {
        self.is_noted = true;
        let about = std::mem::take(&mut self.about);
        self.audit.note(self.caller, self.command, about, fault);
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if self.is_noted {
            return;
        }
        let fault = Fault::new(499, UNFINISHED);
        let about = std::mem::take(&mut self.about);
        self.audit
            .note(self.caller, self.command, about, Some(&fault));
    }
}

impl Audit {
    /// The audit of the host with this name. Actions are in memory only without `stored`.
    pub(crate) fn new(host: String, stored: Option<Stored>) -> Self {
        Self {
            host,
            actions: Mutex::default(),
            stored,
        }
    }

    /// Returns the name of this host.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Returns the actions in the database; `None` if they are in memory only.
    pub(crate) fn stored(&self) -> Option<&Stored> {
        self.stored.as_ref()
    }

    /// Begins an action, which is noted when the returned value ends or is dropped.
    pub(crate) fn begin<'a>(
        &'a self,
        caller: &'a Caller,
        command: &'static str,
        about: About,
    ) -> Begun<'a> {
        Begun {
            audit: self,
            caller,
            command,
            about,
            is_noted: false,
        }
    }

    /// Notes an action, and logs it.
    pub(crate) fn note(
        &self,
        caller: &Caller,
        command: &'static str,
        about: About,
        fault: Option<&Fault>,
    ) {
        let door = caller.door().as_str();
        let short = |text: &str| text.chars().take(LONGEST).collect::<String>();
        let by = short(&caller.to_string());
        let seat = about.seat.as_deref().map(short);
        let subject = about.subject.as_deref().map(short);
        let error = fault.map(|fault| short(&fault.message));
        let tenant = match caller.authority() {
            Authority::Operator => None,
            Authority::Tenant(tenant) => Some(tenant.clone()),
        };
        // A tenant cannot fill the log with requests that fail, and neither can a token with requests that its role does not permit.
        let is_refused = fault.is_some_and(|fault| fault.code == 403);
        let is_bounded =
            tenant.is_some() && error.is_some() || caller.token().is_some() && is_refused;
        if !is_bounded {
            tracing::info!(
                event = "control_action",
                command,
                seat,
                subject,
                door,
                by,
                token = caller.token(),
                error,
                "action of an operator or a tenant"
            );
        }
        let mut actions = self.actions.lock();
        actions.count += 1;
        let action = Action {
            id: actions.count,
            at: SystemTime::now(),
            by,
            tenant,
            token: caller.token().map(str::to_owned),
            door,
            command,
            seat,
            subject,
            error,
            is_bounded,
        };
        // Within the lock, so that the actions come in their order.
        if let Some(stored) = &self.stored {
            stored.take(&action);
        }
        actions.make_room(action.tenant.as_deref(), action.token.as_deref());
        actions.last.push_back(action);
    }

    /// Returns up to `most` actions that `matches` accepts, the newest first.
    pub(crate) fn last(&self, most: usize, matches: impl Fn(&Action) -> bool) -> Vec<Action> {
        let actions = self.actions.lock();
        let newest = actions.last.iter().rev();
        newest
            .filter(|action| matches(action))
            .take(most)
            .cloned()
            .collect()
    }
}

impl Actions {
    /// Removes the oldest action if there are too many. A tenant or a named token that has its part of them replaces its own.
    fn make_room(&mut self, tenant: Option<&str>, token: Option<&str>) {
        let is_own = |action: &&Action| {
            action.tenant.as_deref() == tenant && action.token.as_deref() == token
        };
        let own = self.last.iter().filter(is_own).count();
        if (tenant.is_some() || token.is_some()) && own >= MOST_OF_ONE {
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
    use portcullis_config::TokenRole;

    use super::*;
    use crate::caller::Door;

    fn of_seat(seat: &str) -> About {
        About {
            seat: Some(seat.to_owned()),
            subject: None,
        }
    }

    #[test]
    fn an_action_whose_client_is_gone_is_noted() {
        let audit = Audit::default();
        let caller = Caller::operator(Door::Fifo);
        drop(audit.begin(&caller, "policy.activate", of_seat("acme")));
        audit
            .begin(&caller, "policy.mode", About::default())
            .end(None);
        let noted = audit.last(10, |_| true);
        let of = |at: usize| (noted[at].command, noted[at].error.as_deref());
        assert_eq!(noted.len(), 2);
        assert_eq!(of(0), ("policy.mode", None));
        assert_eq!(of(1), ("policy.activate", Some(UNFINISHED)));
    }

    #[test]
    fn long_texts_are_shortened() {
        let audit = Audit::default();
        let about = of_seat(&"s".repeat(10 * LONGEST));
        audit.note(&Caller::operator(Door::Fifo), "policy.mode", about, None);
        let noted = audit.last(1, |_| true);
        assert_eq!(noted[0].seat.as_ref().map(String::len), Some(LONGEST));
    }

    #[test]
    fn the_last_actions_are_kept_and_the_newest_come_first() {
        let audit = Audit::default();
        let operator = Caller::operator(Door::Fifo);
        for _ in 0..MOST {
            audit.note(&operator, "tenant.reload", About::default(), None);
        }
        let fault = Fault::new(404, "x".repeat(2 * LONGEST));
        let tenant = Caller::tenant("acme");
        audit.note(&tenant, "policy.rollback", of_seat("acme"), Some(&fault));
        let last = audit.last(usize::MAX, |_| true);
        assert_eq!((last.len(), last[0].id), (MOST, MOST as u64 + 1));
        assert_eq!(last[MOST - 1].id, 2);
        assert_eq!(last[0].error.as_ref().unwrap().len(), LONGEST);
        let own = audit.last(10, |action| action.tenant.as_deref() == Some("acme"));
        assert_eq!(own, [last[0].clone()]);
        for _ in 0..MOST {
            audit.note(&tenant, "policy.rollback", of_seat("acme"), None);
        }
        let own = audit.last(MOST, |action| action.tenant.is_some());
        assert_eq!(own.len(), MOST_OF_ONE);
        // The same applies to a named token.
        let reader = Caller::named("board", TokenRole::Read);
        for _ in 0..MOST {
            audit.note(&reader, "policy.rollback", of_seat("acme"), Some(&fault));
        }
        let own = audit.last(MOST, |action| action.token.is_some());
        assert_eq!(own.len(), MOST_OF_ONE);
        assert!(audit.last(MOST, |action| action.tenant.is_some()).len() > MOST_OF_ONE / 2);
    }
}
