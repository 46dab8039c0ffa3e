//! The failures of one seat's policies.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;
use portcullis_policy::{DecisionId, Failure, FailureKind};

use super::cut;

/// How often the policies of a seat failed, and a failure of each kind. Several workers write it.
#[derive(Debug, Default)]
pub struct Failures {
    counts: [AtomicU64; FailureKind::ALL.len()],
    /// At most one failure of each kind.
    kept: Mutex<Vec<ShownFailure>>,
}

/// The failure of its kind that is shown.
#[derive(Debug)]
struct ShownFailure {
    failure: PolicyFailure,
    /// Whether the control side has read it; until then, workers do not replace it.
    is_read: bool,
}

/// A policy call without a valid verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyFailure {
    /// When.
    pub at: SystemTime,
    /// What kind of failure it was.
    pub kind: FailureKind,
    /// The generation of the policy.
    pub generation: u64,
    /// The Call-ID of the request, truncated for the log.
    pub call_id: String,
    /// The id of the decision; `None` without `[records]`.
    pub decision: Option<DecisionId>,
    /// Description of the failure.
    pub text: String,
}

impl Failures {
    /// Counts a failure, and keeps it if the control side has read the previous one of its kind. Never blocks: while another thread uses the
    /// kept failures, the failure is only counted.
    pub fn note(
        &self,
        failure: &Failure,
        generation: u64,
        call_id: &[u8],
        decision: Option<DecisionId>,
    ) {
        let kind = failure.kind();
        self.keep(kind, || PolicyFailure {
            at: SystemTime::now(),
            kind,
            generation,
            call_id: cut(call_id),
            decision,
            text: failure.to_string(),
        });
        self.counts[kind.index()].fetch_add(1, Ordering::Relaxed);
    }

    /// Keeps a failure, unless the previous one of its kind has not been read. Returns whether it is kept.
    fn keep(&self, kind: FailureKind, failure: impl FnOnce() -> PolicyFailure) -> bool {
        let Some(mut kept) = self.kept.try_lock() else {
            return false;
        };
        let previous = kept.iter().position(|kept| kept.failure.kind == kind);
        if previous.is_some_and(|at| !kept[at].is_read) {
            return false;
        }
        let new = ShownFailure {
            failure: failure(),
            is_read: false,
        };
        match previous {
            Some(at) => kept[at] = new,
            None => kept.push(new),
        }
        true
    }

    /// Number of failures of this kind.
    pub fn count(&self, kind: FailureKind) -> u64 {
        self.counts[kind.index()].load(Ordering::Relaxed)
    }

    /// Number of failures of all kinds.
    pub fn total(&self) -> u64 {
        let kinds = FailureKind::ALL.into_iter();
        kinds.map(|kind| self.count(kind)).sum()
    }

    /// The failure of this kind that was kept last, for the control side. Afterwards the next failure of this kind is kept.
    pub fn last_of(&self, kind: FailureKind) -> Option<PolicyFailure> {
        let mut kept = self.kept.lock();
        let last = kept.iter_mut().find(|kept| kept.failure.kind == kind)?;
        last.is_read = true;
        Some(last.failure.clone())
    }

    /// The failure of any kind that was kept last, for the control side. Afterwards the next failure of its kind is kept.
    pub fn last(&self) -> Option<PolicyFailure> {
        let mut kept = self.kept.lock();
        let last = kept.iter_mut().max_by_key(|kept| kept.failure.at)?;
        last.is_read = true;
        Some(last.failure.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::*;

    #[test]
    fn a_failure_of_each_kind_is_kept_until_it_was_read_and_all_are_counted() {
        let failures = Failures::default();
        let trap = Failure::Trap {
            cause: "unreachable".into(),
            function: None,
        };
        let slow = Failure::HostCall { limit: 7 };
        failures.note(&trap, 3, b"first", None);
        failures.note(&trap, 3, b"second", None);
        failures.note(&slow, 3, b"third", None);
        let read = |kind| failures.last_of(kind).map(|last| last.call_id);
        assert_eq!(read(FailureKind::Trap).as_deref(), Some("first"));
        assert_eq!(read(FailureKind::HostCall).as_deref(), Some("third"));
        assert_eq!(read(FailureKind::Memory), None);
        failures.note(&trap, 4, b"fourth", None);
        let last = failures.last().unwrap();
        assert_eq!((last.generation, &*last.call_id), (4, "fourth"));
        assert_eq!(last.text, trap.to_string());
        failures.note(&trap, 4, b"fifth", None);
        assert_eq!(read(FailureKind::Trap).as_deref(), Some("fifth"));
        assert_eq!(failures.count(FailureKind::Trap), 4);
        assert_eq!(failures.count(FailureKind::HostCall), 1);
        assert_eq!(failures.total(), 5);
    }

    /// Two workers and the control side at once: each failure that was kept is read before it is replaced.
    #[test]
    fn a_failure_is_not_replaced_before_it_was_read() {
        const EACH: u64 = 20_000;
        let failures = Failures::default();
        // While the control side holds the lock, workers keep nothing: this one is certain to be kept.
        assert!(failures.keep(FailureKind::Trap, || trap(2 * EACH)));
        let is_over = AtomicBool::new(false);
        let (kept, read) = thread::scope(|scope| {
            let control = scope.spawn(|| {
                let mut read = Vec::new();
                loop {
                    let is_last = is_over.load(Ordering::Acquire);
                    read.extend(failures.last_of(FailureKind::Trap));
                    if is_last {
                        return read;
                    }
                }
            });
            let workers: Vec<_> = [0, EACH]
                .map(|first| {
                    let failures = &failures;
                    scope.spawn(move || {
                        let ids = first..first + EACH;
                        let kept = ids.filter(|&id| failures.keep(FailureKind::Trap, || trap(id)));
                        kept.collect::<Vec<_>>()
                    })
                })
                .into();
            let kept = workers
                .into_iter()
                .flat_map(|worker| worker.join().unwrap());
            let mut kept: Vec<_> = kept.chain([2 * EACH]).collect();
            kept.sort_unstable();
            is_over.store(true, Ordering::Release);
            (kept, control.join().unwrap())
        });
        let mut read: Vec<_> = read.iter().map(|failure| failure.generation).collect();
        read.sort_unstable();
        read.dedup();
        assert_eq!(kept, read);
    }

    fn trap(id: u64) -> PolicyFailure {
        PolicyFailure {
            at: SystemTime::UNIX_EPOCH,
            kind: FailureKind::Trap,
            generation: id,
            call_id: String::new(),
            decision: None,
            text: String::new(),
        }
    }
}
