//! Actions that wait for the database, within bounds.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use portcullis_store::Action;

/// Most actions that wait.
pub(super) const MOST: usize = 2_000;

/// Most actions of one tenant, or of one named token, among them.
const MOST_OF_ONE: usize = MOST / 4;

/// Actions that a caller can repeat at will ([`super::Action::is_bounded`]): so many at once, and one more after each pause.
const AT_ONCE: u32 = 60;
const PAUSE: Duration = Duration::from_secs(10);

/// Why an action is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// Too many wait.
    Queue,
    /// The caller repeats what it may not do.
    Rate,
}

/// The actions that wait, and how many of those that can be repeated at will are taken.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// The oldest first.
    all: VecDeque<Action>,
    /// Of each tenant and named token.
    allowances: HashMap<Owner, Allowance>,
}

/// The tenant, and the name of the token.
type Owner = (Option<String>, Option<String>);

/// How many more actions are taken.
#[derive(Debug)]
struct Allowance {
    left: u32,
    /// When `left` was last increased.
    at: Instant,
}

impl Waiting {
    /// Takes an action.
    ///
    /// # Errors
    /// Why it is not taken.
    pub(super) fn push(
        &mut self,
        action: Action,
        is_bounded: bool,
        now: Instant,
    ) -> Result<(), Lost> {
        let owner: Owner = (action.tenant.clone(), action.token.clone());
        if is_bounded {
            let new = Allowance {
                left: AT_ONCE,
                at: now,
            };
            let allowance = self.allowances.entry(owner).or_insert(new);
            if !allowance.take(now) {
                return Err(Lost::Rate);
            }
        }
        let has_owner = action.tenant.is_some() || action.token.is_some();
        let is_own = |one: &&Action| one.tenant == action.tenant && one.token == action.token;
        let is_full = self.all.len() >= MOST
            || has_owner && self.all.iter().filter(is_own).count() >= MOST_OF_ONE;
        if is_full {
            return Err(Lost::Queue);
        }
        self.all.push_back(action);
        Ok(())
    }

    /// Returns up to `most` of the oldest actions. They still wait.
    pub(super) fn first(&self, most: usize) -> Vec<Action> {
        self.all.iter().take(most).cloned().collect()
    }

    /// Removes the oldest actions, which are stored, and the allowances of callers that have repeated nothing for a while.
    pub(super) fn drop_first(&mut self, count: usize, now: Instant) {
        self.all.drain(..count.min(self.all.len()));
        self.allowances
            .retain(|_, allowance| now.saturating_duration_since(allowance.at) < PAUSE * AT_ONCE);
    }

    /// Returns the number of actions that wait.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Returns the number in the process of the last action that waits.
    pub(super) fn last(&self) -> Option<u64> {
        self.all.back().map(|action| action.number)
    }
}

impl Allowance {
    fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs() / PAUSE.as_secs();
        let passed = u32::try_from(passed).unwrap_or(u32::MAX);
        if passed > 0 {
            self.left = self.left.saturating_add(passed).min(AT_ONCE);
            self.at += PAUSE * passed.min(AT_ONCE);
            if passed >= AT_ONCE {
                self.at = now;
            }
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(tenant: Option<&str>, number: usize) -> Action {
        Action {
            tenant: tenant.map(str::to_owned),
            number: number as u64,
            ..Action::default()
        }
    }

    #[test]
    fn a_tenant_has_its_part_of_the_queue_and_the_queue_is_bounded() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        let taken = (0..MOST)
            .filter(|number| {
                let pushed = waiting.push(action(Some("acme"), *number), false, now);
                pushed.is_ok()
            })
            .count();
        assert_eq!(taken, MOST_OF_ONE);
        for number in MOST_OF_ONE..MOST {
            assert_eq!(waiting.push(action(None, number), false, now), Ok(()));
        }
        let beyond = waiting.push(action(None, MOST), false, now);
        assert_eq!((beyond, waiting.len()), (Err(Lost::Queue), MOST));
        assert_eq!(waiting.first(2)[1].number, 1);
        waiting.drop_first(2, now);
        assert_eq!(waiting.first(1)[0].number, 2);
        assert_eq!(waiting.last(), Some(MOST as u64 - 1));
        assert_eq!(waiting.push(action(None, MOST), false, now), Ok(()));
    }

    #[test]
    fn what_can_be_repeated_at_will_is_taken_at_a_rate() {
        let (mut waiting, start) = (Waiting::default(), Instant::now());
        let mut taken = |tenant, seconds, is_bounded| {
            let now = start + Duration::from_secs(seconds);
            let tries = 0..2 * AT_ONCE as usize;
            let pushed = tries.filter(|_| {
                let pushed = waiting.push(action(Some(tenant), 1), is_bounded, now);
                waiting.drop_first(1, now);
                pushed.is_ok()
            });
            pushed.count()
        };
        assert_eq!(taken("acme", 0, true), AT_ONCE as usize);
        // What a caller may do is not counted, and neither are other callers.
        assert_eq!(taken("acme", 0, false), 2 * AT_ONCE as usize);
        assert_eq!(taken("beta", 0, true), AT_ONCE as usize);
        assert_eq!(taken("acme", 9, true), 0);
        assert_eq!(taken("acme", 25, true), 2);
        assert_eq!(taken("acme", 30, true), 1);
        assert_eq!(taken("acme", 10_000, true), AT_ONCE as usize);
    }
}
