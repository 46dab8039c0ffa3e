//! The sandboxes of an evaluator that outlast a call, so that the next calls of their policies use them again.

use std::sync::Arc;

use hashbrown::HashTable;

use crate::call::state::Data;
use crate::module::Use;
use crate::policy::Policy;
use crate::sandbox::Sandbox;
use crate::scope::Scope;

/// A sandbox between two calls: reset to its initial state or, with [`Use::Again`], as the last call left it.
pub(crate) struct IdleSandbox {
    pub(crate) policy: Policy,
    /// The scope of the last call. With [`Use::Again`], only calls in the same scope may use the sandbox.
    pub(crate) scope: Arc<Scope>,
    pub(crate) sandbox: Sandbox,
}

/// Maximum number of idle sandboxes of one scope: enough for the policies that are in use there. Bounds the sandboxes of replaced policies even
/// if a busy worker never calls [`IdleSandboxes::keep_only`].
const FOR_EACH_SCOPE: usize = 4;

/// A bounded set of idle sandboxes. The least recently used one is evicted.
pub(crate) struct IdleSandboxes {
    most: usize,
    places: Vec<IdleSandbox>,
    /// The key facts of each place, kept apart from the sandboxes so that a search touches little memory.
    labels: Vec<Label>,
    /// The places of each policy by its key, so that the cost of a call does not grow with the number of policies.
    by_policy: HashTable<usize>,
    /// Number of calls of [`IdleSandboxes::release`].
    releases: u64,
    /// Number of calls of [`IdleSandboxes::keep_only`].
    sweeps: u64,
}

#[derive(Clone, Copy)]
struct Label {
    policy: usize,
    scope: usize,
    /// The value of `releases` when the sandbox was released last.
    released: u64,
    /// The last sweep in which the policy was in use.
    served: u64,
    /// Whether a call uses the sandbox.
    in_use: bool,
}

impl IdleSandboxes {
    /// An empty set for at most `most` sandboxes, at least one.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most: most.max(1),
            places: Vec::new(),
            labels: Vec::new(),
            by_policy: HashTable::new(),
            releases: 0,
            sweeps: 0,
        }
    }

    /// The place of an idle sandbox of `policy` for this use. The sandbox stays where it is: a call moves nothing. It is in use until
    /// [`release`](Self::release) or [`remove`](Self::remove). If the host panics in between, no later call finds it, whatever state it is in.
    pub(crate) fn acquire(
        &mut self,
        policy: &Policy,
        scope: &Arc<Scope>,
        usage: Use,
    ) -> Option<usize> {
        let key = policy.key();
        let fits = |kept: &IdleSandbox| {
            kept.sandbox.usage() == usage
                && (usage != Use::Again || Arc::ptr_eq(&kept.scope, scope))
        };
        let (labels, places) = (&self.labels, &self.places);
        let found = self.by_policy.find(hash(key), |&at| {
            let label = &labels[at];
            label.policy == key && !label.in_use && fits(&places[at])
        });
        let at = *found?;
        self.labels[at].in_use = true;
        Some(at)
    }

    /// The sandbox at a place.
    pub(crate) fn sandbox(&mut self, at: usize) -> &mut Sandbox {
        &mut self.places[at].sandbox
    }

    /// Makes the sandbox at a place idle: it is ready for the next call.
    pub(crate) fn release(&mut self, at: usize) {
        self.releases += 1;
        let label = &mut self.labels[at];
        label.released = self.releases;
        label.in_use = false;
    }

    /// Makes room for one more sandbox of this scope. Returns the call state of the evicted sandbox, if there is one.
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

    /// Adds a sandbox for which there is room, and returns its place. It is in use.
    pub(crate) fn insert(&mut self, sandbox: IdleSandbox) -> usize {
        let (at, policy) = (self.places.len(), sandbox.policy.key());
        let labels = &self.labels;
        let rehash = |&at: &usize| hash(labels[at].policy);
        self.by_policy.insert_unique(hash(policy), at, rehash);
        self.labels.push(Label {
            policy,
            scope: key_of(&sandbox.scope),
            released: self.releases,
            served: 0,
            in_use: true,
        });
        self.places.push(sandbox);
        at
    }

    /// Drops the sandboxes of policies that are not in use; `serving` passes those in use to its argument. Returns the call state of one of
    /// the dropped sandboxes.
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

    /// Removes the sandbox at a place. The last sandbox moves there.
    pub(crate) fn remove(&mut self, at: usize) -> IdleSandbox {
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
        some.min_by_key(|(_, label)| label.released)
            .map(|(at, _)| at)
    }
}

/// Hashes the key of a policy, which is an address.
fn hash(key: usize) -> u64 {
    const ODD: u128 = 0x9e37_79b9_7f4a_7c15;
    let product = key as u128 * ODD;
    (product >> 64) as u64 ^ product as u64
}

/// A number that identifies a scope among all scopes.
fn key_of(scope: &Arc<Scope>) -> usize {
    Arc::as_ptr(scope).addr()
}
