//! A value that workers read while the control side replaces it.

use std::ops::{Deref, DerefMut};

use crate::primitives::{Arc, Current, Mutex, MutexGuard};
use crate::retired::take_unused;

/// A published value, the parts of it that were replaced, and the state that only changes need.
///
/// Readers get the value as it was published, without a lock. All changes are made one after the other, each based on the one before.
/// Readers never free a part `P` of a value that a change has retired, because freeing takes time: [`Published::collect`] does, when no
/// reader uses the part any more.
pub struct Published<V, P, S> {
    current: Current<V>,
    control: Mutex<Control<P, S>>,
}

/// What only changes need.
struct Control<P, S> {
    state: S,
    retired: Vec<Arc<P>>,
}

/// The right to change what is published; one at a time. Dereferences to the state that only changes need.
pub struct Change<'p, V, P, S> {
    current: &'p Current<V>,
    control: MutexGuard<'p, Control<P, S>>,
}

impl<V, P, S> Published<V, P, S> {
    /// Nothing is published yet.
    pub fn new(state: S) -> Self {
        let retired = Vec::new();
        Self {
            current: Current::empty(),
            control: Mutex::new(Control { state, retired }),
        }
    }

    /// The published value, if there is one.
    pub fn current(&self) -> Option<Arc<V>> {
        self.current.value()
    }

    /// Begins a change. Waits for the end of other changes.
    pub fn change(&self) -> Change<'_, V, P, S> {
        Change {
            control: self.control.lock(),
            current: &self.current,
        }
    }

    /// Takes out the retired parts that no reader uses any more. The caller drops them.
    ///
    /// A part is unused if there is no other reference to it and `is_last` says that there is none to its content.
    #[must_use]
    pub fn collect(&self, is_last: impl Fn(&P) -> bool) -> Vec<Arc<P>> {
        take_unused(&mut self.control.lock().retired, is_last)
    }
}

#[cfg(not(all(test, loom)))]
impl<V, P, S> Published<V, P, S> {
    /// The published value for a short time, without a change of its reference count: cheap for a worker with many of these.
    #[inline]
    pub fn guard(&self) -> arc_swap::Guard<Option<Arc<V>>> {
        self.current.guard()
    }

    /// A view for one worker, which costs one atomic load while the value does not change.
    pub fn reader(&self) -> PublishedReader<V> {
        PublishedReader(self.current.cache())
    }
}

/// A worker's view of a published value.
#[cfg(not(all(test, loom)))]
pub struct PublishedReader<V>(crate::primitives::Cached<V>);

#[cfg(not(all(test, loom)))]
impl<V> PublishedReader<V> {
    /// The published value.
    #[inline]
    pub fn current(&mut self) -> Option<&Arc<V>> {
        self.0.load().as_ref()
    }
}

impl<V, P, S> Change<'_, V, P, S> {
    /// The published value, which only this change can replace.
    pub fn current(&self) -> Option<Arc<V>> {
        self.current.value()
    }

    /// Replaces the published value for all readers at once.
    pub fn publish(&mut self, value: V) {
        self.current.store(Arc::new(value));
    }

    /// Keeps a part until no reader uses it any more. At the end of this change, it must not be in the published value.
    pub fn retire(&mut self, part: Arc<P>) {
        self.control.retired.push(part);
    }

    /// Number of parts that were retired and not collected yet.
    pub fn retired(&self) -> usize {
        self.control.retired.len()
    }
}

impl<V, P, S> Deref for Change<'_, V, P, S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.control.state
    }
}

impl<V, P, S> DerefMut for Change<'_, V, P, S> {
    fn deref_mut(&mut self) -> &mut S {
        &mut self.control.state
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn readers_see_what_was_published_last_and_keep_what_they_use() {
        let published = Published::<Arc<u32>, u32, u32>::new(7);
        let mut reader = published.reader();
        assert!(published.current().is_none() && reader.current().is_none());

        let first = Arc::new(1);
        published.change().publish(Arc::clone(&first));
        let used = reader.current().cloned().unwrap();
        let mut change = published.change();
        *change += 1;
        let old = change.current().unwrap();
        change.publish(Arc::new(2));
        change.retire(Arc::clone(&old));
        drop((change, old, first));
        assert_eq!(**reader.current().unwrap(), Arc::new(2));
        assert!(published.collect(|_| true).is_empty(), "it is used");
        drop(used);
        assert!(published.collect(|_| false).is_empty(), "its content is");
        assert_eq!(published.collect(|_| true), [Arc::new(1)]);
        let change = published.change();
        assert_eq!((*change, change.retired()), (8, 0));
    }
}

#[cfg(all(test, loom))]
mod models {
    use std::cell::Cell;

    use loom::thread;

    use super::*;

    loom::thread_local! {
        static IS_WORKER: Cell<bool> = Cell::new(false);
    }

    /// The code of a policy, which no worker may free. Calls use it.
    struct Code;

    impl Drop for Code {
        fn drop(&mut self) {
            let is_worker = IS_WORKER.with(Cell::get);
            assert!(!is_worker, "a worker frees a policy");
        }
    }

    struct Generation {
        number: usize,
        code: Arc<Code>,
    }

    /// The generations in use, as in a slot of policies.
    struct Lineup {
        active: Arc<Generation>,
        candidate: Option<Arc<Generation>>,
        fallback: Option<Arc<Generation>>,
    }

    /// A slot; its state is the number of generations that were freed.
    type Slot = std::sync::Arc<Published<Lineup, Generation, usize>>;

    fn generation(number: usize) -> Arc<Generation> {
        let code = Arc::new(Code);
        Arc::new(Generation { number, code })
    }

    /// With generation 0 active and, if it is wanted, generation 1 as the candidate.
    fn slot(has_candidate: bool) -> Slot {
        let slot = Published::new(0);
        slot.change().publish(Lineup {
            active: generation(0),
            candidate: has_candidate.then(|| generation(1)),
            fallback: None,
        });
        std::sync::Arc::new(slot)
    }

    /// Makes another generation active: a new one, or else the candidate, or else the one that was active before.
    fn activate(slot: &Slot, new: Option<Arc<Generation>>) {
        let mut change = slot.change();
        let old = change.current().expect("a generation is active");
        let [candidate, fallback] = [&old.candidate, &old.fallback].map(Option::as_ref);
        let active = Arc::clone(new.as_ref().or(candidate).or(fallback).expect("another"));
        let others = [candidate, fallback].into_iter().flatten();
        for other in others.filter(|other| other.number != active.number) {
            change.retire(Arc::clone(other));
        }
        change.publish(Lineup {
            active,
            candidate: None,
            fallback: Some(Arc::clone(&old.active)),
        });
        drop((change, old));
        collect(slot);
    }

    fn collect(slot: &Slot) {
        let unused = slot.collect(|generation| Arc::strong_count(&generation.code) == 1);
        *slot.change() += unused.len();
    }

    /// A worker that calls the active generation, or the candidate for a dialog of its share.
    fn call(slot: &Slot) -> thread::JoinHandle<()> {
        let slot = std::sync::Arc::clone(slot);
        thread::spawn(move || {
            IS_WORKER.with(|is| is.set(true));
            let lineup = slot.current().expect("a generation is active");
            let others = [&lineup.candidate, &lineup.fallback].into_iter().flatten();
            for other in others {
                assert_ne!(other.number, lineup.active.number, "a torn lineup");
            }
            let decides = Arc::clone(lineup.candidate.as_ref().unwrap_or(&lineup.active));
            drop(lineup);
            // A sandbox has the code for longer than the worker has the generation.
            let code = Arc::clone(&decides.code);
            drop(decides);
            drop(code);
        })
    }

    /// Collects what no worker uses any more. Of `count` generations, all must be in the lineup or freed.
    fn check_all_are_there(slot: &Slot, count: usize) {
        collect(slot);
        let lineup = slot.current().expect("a generation is active");
        let change = slot.change();
        assert_eq!(change.retired(), 0, "nothing is kept for ever");
        let others = [&lineup.candidate, &lineup.fallback].into_iter().flatten();
        assert_eq!(1 + others.count() + *change, count, "one is lost");
    }

    #[test]
    fn a_call_never_frees_the_policy_that_is_replaced_and_then_dropped() {
        loom::model(|| {
            let slot = slot(false);
            let call = call(&slot);
            activate(&slot, Some(generation(1)));
            activate(&slot, Some(generation(2)));
            call.join().expect("the call ends");
            check_all_are_there(&slot, 3);
        });
    }

    #[test]
    fn a_call_of_a_candidate_never_frees_it() {
        loom::model(|| {
            let slot = slot(true);
            let call = call(&slot);
            activate(&slot, Some(generation(2)));
            call.join().expect("the call ends");
            check_all_are_there(&slot, 3);
        });
    }

    #[test]
    fn a_push_and_a_promotion_at_once_lose_no_generation() {
        loom::model(|| {
            let slot = slot(true);
            let other = {
                let slot = std::sync::Arc::clone(&slot);
                thread::spawn(move || activate(&slot, Some(generation(2))))
            };
            activate(&slot, None);
            other.join().expect("the push ends");
            check_all_are_there(&slot, 3);
        });
    }

    #[test]
    fn a_push_and_a_rollback_at_once_lose_no_generation() {
        loom::model(|| {
            let slot = slot(false);
            activate(&slot, Some(generation(1)));
            let other = {
                let slot = std::sync::Arc::clone(&slot);
                thread::spawn(move || activate(&slot, Some(generation(2))))
            };
            activate(&slot, None);
            other.join().expect("the push ends");
            check_all_are_there(&slot, 3);
        });
    }
}
