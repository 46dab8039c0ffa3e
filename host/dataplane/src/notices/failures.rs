//! The failures of one seat's policies.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;
use portcullis_policy::{DecisionId, Failure, FailureKind};

use super::cut;

/// How often the policies of a seat failed, by kind, and the last failure. Several workers write it.
#[derive(Debug, Default)]
pub struct Failures {
    counts: [AtomicU64; FailureKind::ALL.len()],
    /// Whether the control side has not yet read `last`; until then, workers do not replace it.
    is_fresh: AtomicBool,
    last: Mutex<Option<PolicyFailure>>,
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
    /// Counts a failure, and keeps it if the control side has read the previous one. Never blocks.
    pub fn note(
        &self,
        failure: &Failure,
        generation: u64,
        call_id: &[u8],
        decision: Option<DecisionId>,
    ) {
        let kind = failure.kind();
        if !self.is_fresh.load(Ordering::Relaxed)
            && let Some(mut last) = self.last.try_lock()
        {
            *last = Some(PolicyFailure {
                at: SystemTime::now(),
                kind,
                generation,
                call_id: cut(call_id),
                decision,
                text: failure.to_string(),
            });
            self.is_fresh.store(true, Ordering::Relaxed);
        }
        self.counts[kind.index()].fetch_add(1, Ordering::Relaxed);
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

    /// The last failure that was kept, for the control side. Afterwards the next failure is kept.
    pub fn last(&self) -> Option<PolicyFailure> {
        let last = self.last.lock();
        self.is_fresh.store(false, Ordering::Relaxed);
        last.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_kept_until_it_was_seen_and_all_are_counted() {
        let failures = Failures::default();
        let trap = Failure::Trap {
            cause: "unreachable".into(),
            function: None,
        };
        let slow = Failure::HostCall { limit: 7 };
        failures.note(&trap, 3, b"first", None);
        failures.note(&slow, 3, b"second", None);
        let last = failures.last().unwrap();
        assert_eq!((last.kind, &*last.call_id), (FailureKind::Trap, "first"));
        assert_eq!(last.text, trap.to_string());
        failures.note(&slow, 4, b"third", None);
        let last = failures.last().unwrap();
        assert_eq!((last.generation, &*last.call_id), (4, "third"));
        assert_eq!(failures.count(FailureKind::Trap), 1);
        assert_eq!(failures.count(FailureKind::HostCall), 2);
        assert_eq!(failures.total(), 3);
    }
}
