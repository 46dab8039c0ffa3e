//! The sandboxes that an evaluator keeps for the next calls of their policies.

use std::sync::Arc;

use crate::call::Call;
use crate::direct::Use;
use crate::policy::Policy;
use crate::sandbox::Open;
use crate::scope::Scope;
use crate::view::RequestView;

/// A sandbox kept for the next call of its policy: put back to its first state, or as the last call left it, where that is asked
/// for.
pub(crate) struct Kept<R: 'static> {
    pub(crate) policy: Policy<R>,
    /// What the last call may have left behind is for calls on the same behalf only.
    pub(crate) scope: Arc<Scope>,
    pub(crate) sandbox: Open<R>,
}

/// Sandboxes that are kept on one behalf: those of the policies that serve there, and hardly more. What was replaced has to go also
/// where nobody has the time to look for it.
const FOR_EACH_SCOPE: usize = 4;

/// Kept sandboxes, so many at most. The one that was not used for longest makes room.
pub(crate) struct KeptSandboxes<R: 'static> {
    most: usize,
    places: Vec<Kept<R>>,
    /// What each place holds, beside it: looking through them touches little memory. The last put is the last.
    labels: Vec<Label>,
    puts: u64,
}

#[derive(Clone, Copy)]
struct Label {
    policy: usize,
    scope: usize,
    /// Puts until it was put.
    put: u64,
}

impl<R: RequestView> KeptSandboxes<R> {
    /// An empty one with room for so many, one at least.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most: most.max(1),
            places: Vec::new(),
            labels: Vec::new(),
            puts: 0,
        }
    }

    /// Takes the sandbox for this use of `policy`.
    pub(crate) fn take(
        &mut self,
        policy: &Policy<R>,
        scope: &Arc<Scope>,
        usage: Use,
    ) -> Option<Kept<R>> {
        let key = policy.key();
        let fits = |kept: &Kept<R>| {
            kept.sandbox.usage() == usage
                && (usage != Use::Again || Arc::ptr_eq(&kept.scope, scope))
        };
        let mut labels = self.labels.iter().enumerate().rev();
        let (at, _) = labels.find(|(at, label)| label.policy == key && fits(&self.places[*at]))?;
        self.labels.swap_remove(at);
        Some(self.places.swap_remove(at))
    }

    /// Makes room for one more sandbox on this behalf. The state of the call comes back from the one that goes, if one has to.
    pub(crate) fn make_room(&mut self, scope: &Arc<Scope>) -> Option<Box<Call<R>>> {
        let scope = key_of(scope);
        let of_scope = self.labels.iter().filter(|label| label.scope == scope);
        let is_full = self.labels.len() >= self.most;
        let goes = match of_scope.count() >= FOR_EACH_SCOPE {
            true => self.oldest(|label| label.scope == scope),
            false if is_full => self.oldest(|_| true),
            false => None,
        }?;
        self.labels.swap_remove(goes);
        Some(self.places.swap_remove(goes).sandbox.close())
    }

    /// Puts a sandbox there that was taken, or for which there is room.
    pub(crate) fn put(&mut self, kept: Kept<R>) {
        self.puts += 1;
        self.labels.push(Label {
            policy: kept.policy.key(),
            scope: key_of(&kept.scope),
            put: self.puts,
        });
        self.places.push(kept);
    }

    /// Ends those whose policies do not `serve`. The state of the call comes back from one of them.
    pub(crate) fn keep_only(
        &mut self,
        serves: impl Fn(&Policy<R>) -> bool,
    ) -> Option<Box<Call<R>>> {
        let mut closed = None;
        for at in (0..self.places.len()).rev() {
            if !serves(&self.places[at].policy) {
                self.labels.swap_remove(at);
                closed = Some(self.places.swap_remove(at).sandbox.close());
            }
        }
        closed
    }

    fn oldest(&self, of: impl Fn(&Label) -> bool) -> Option<usize> {
        let labels = self.labels.iter().enumerate();
        let some = labels.filter(|(_, label)| of(label));
        some.min_by_key(|(_, label)| label.put).map(|(at, _)| at)
    }
}

/// What tells a scope from every other one that is there.
fn key_of(scope: &Arc<Scope>) -> usize {
    Arc::as_ptr(scope).addr()
}
