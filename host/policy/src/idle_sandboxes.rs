//! The sandboxes that an evaluator keeps for the next calls of their policies.

use std::sync::Arc;

use hashbrown::HashTable;

use crate::module::Use;
use crate::policy::Policy;
use crate::sandbox::Open;
use crate::scope::Scope;
use crate::state::Data;

/// A sandbox kept for the next call of its policy: put back to its first state, or as the last call left it, where that is asked
/// for.
pub(crate) struct IdleSandbox {
    pub(crate) policy: Policy,
    /// What the last call may have left behind is for calls on the same behalf only.
    pub(crate) scope: Arc<Scope>,
    pub(crate) sandbox: Open,
}

/// Sandboxes that are kept on one behalf: those of the policies that serve there, and hardly more. What was replaced has to go also
/// where nobody has the time to look for it.
const FOR_EACH_SCOPE: usize = 4;

/// IdleSandbox sandboxes, so many at most. The one that was not used for longest makes room.
pub(crate) struct IdleSandboxes {
    most: usize,
    places: Vec<IdleSandbox>,
    /// What each place holds, beside it: looking through them touches little memory.
    labels: Vec<Label>,
    /// The places of each policy, by its key: a call of one of thousands of policies costs no more than that of a single one.
    by_policy: HashTable<usize>,
    puts: u64,
    /// Times that places were looked through for those that no longer serve.
    sweeps: u64,
}

#[derive(Clone, Copy)]
struct Label {
    policy: usize,
    scope: usize,
    /// Puts until it was put.
    put: u64,
    /// The last sweep that found the policy in service.
    served: u64,
}

impl IdleSandboxes {
    /// An empty one with room for so many, one at least.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most: most.max(1),
            places: Vec::new(),
            labels: Vec::new(),
            by_policy: HashTable::new(),
            puts: 0,
            sweeps: 0,
        }
    }

    /// Takes the sandbox for this use of `policy`.
    pub(crate) fn take(
        &mut self,
        policy: &Policy,
        scope: &Arc<Scope>,
        usage: Use,
    ) -> Option<IdleSandbox> {
        let key = policy.key();
        let fits = |kept: &IdleSandbox| {
            kept.sandbox.usage() == usage
                && (usage != Use::Again || Arc::ptr_eq(&kept.scope, scope))
        };
        let (labels, places) = (&self.labels, &self.places);
        let found = self.by_policy.find(hash(key), |&at| {
            labels[at].policy == key && fits(&places[at])
        });
        let at = *found?;
        Some(self.remove(at))
    }

    /// Makes room for one more sandbox on this behalf. The state of the call comes back from the one that goes, if one has to.
    pub(crate) fn make_room(&mut self, scope: &Arc<Scope>) -> Option<Data> {
        let scope = key_of(scope);
        let of_scope = self.labels.iter().filter(|label| label.scope == scope);
        let is_full = self.labels.len() >= self.most;
        let goes = match of_scope.count() >= FOR_EACH_SCOPE {
            true => self.oldest(|label| label.scope == scope),
            false if is_full => self.oldest(|_| true),
            false => None,
        }?;
        Some(self.remove(goes).sandbox.close())
    }

    /// Puts a sandbox there that was taken, or for which there is room.
    pub(crate) fn put(&mut self, kept: IdleSandbox) {
        self.puts += 1;
        let (at, policy) = (self.places.len(), kept.policy.key());
        let labels = &self.labels;
        let rehash = |&at: &usize| hash(labels[at].policy);
        self.by_policy.insert_unique(hash(policy), at, rehash);
        self.labels.push(Label {
            policy,
            scope: key_of(&kept.scope),
            put: self.puts,
            served: 0,
        });
        self.places.push(kept);
    }

    /// Ends those whose policies do not serve; `serving` hands over those that do. The state of the call comes back from one of them.
    pub(crate) fn keep_only(
        &mut self,
        serving: impl FnOnce(&mut dyn FnMut(&Policy)),
    ) -> Option<Data> {
        self.sweeps += 1;
        let Self {
            labels,
            by_policy,
            sweeps,
            ..
        } = self;
        serving(&mut |policy: &Policy| {
            let key = policy.key();
            for &at in by_policy.iter_hash(hash(key)) {
                if labels[at].policy == key {
                    labels[at].served = *sweeps;
                }
            }
        });
        let mut closed = None;
        for at in (0..self.places.len()).rev() {
            if self.labels[at].served != self.sweeps {
                closed = Some(self.remove(at).sandbox.close());
            }
        }
        closed
    }

    /// Takes the sandbox out of a place. The last one moves there.
    fn remove(&mut self, at: usize) -> IdleSandbox {
        let last = self.places.len() - 1;
        let policy = self.labels[at].policy;
        if let Ok(entry) = self
            .by_policy
            .find_entry(hash(policy), |place| *place == at)
        {
            entry.remove();
        }
        if at != last {
            let moved = self.labels[last].policy;
            if let Some(place) = self.by_policy.find_mut(hash(moved), |place| *place == last) {
                *place = at;
            }
        }
        self.labels.swap_remove(at);
        self.places.swap_remove(at)
    }

    fn oldest(&self, of: impl Fn(&Label) -> bool) -> Option<usize> {
        let labels = self.labels.iter().enumerate();
        let some = labels.filter(|(_, label)| of(label));
        some.min_by_key(|(_, label)| label.put).map(|(at, _)| at)
    }
}

/// Spreads the key of a policy, which is an address.
fn hash(key: usize) -> u64 {
    const ODD: u128 = 0x9e37_79b9_7f4a_7c15;
    let product = key as u128 * ODD;
    (product >> 64) as u64 ^ product as u64
}

/// What tells a scope from every other one that is there.
fn key_of(scope: &Arc<Scope>) -> usize {
    Arc::as_ptr(scope).addr()
}
