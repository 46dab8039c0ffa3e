//! The exports of a policy. Public for `policy!` only.

use crate::guest::portcullis::policy::outcome;
use crate::guest::run;
use crate::next_step::NextStep;
use crate::verdict::Verdict;
use crate::wire;

/// Calls `decide`, and tells the host the targets of its verdict. Inlined, so that the verdict is not copied.
#[inline(always)]
pub fn decide(policy: fn() -> Verdict) -> wire::Verdict {
    match run(policy) {
        Verdict::Relay(next_hop) => wire::Verdict::Relay(next_hop),
        Verdict::Forward(forwarding) => {
            forwarding.pass_to_host();
            wire::Verdict::Relay(None)
        }
        Verdict::Reject(rejection) => wire::Verdict::Reject(rejection),
        Verdict::Drop => wire::Verdict::Drop,
        Verdict::Pass => wire::Verdict::Pass,
    }
}

/// Calls `on_failure`, and tells the host the targets of its step.
#[inline(always)]
pub fn on_failure(policy: fn() -> NextStep) -> outcome::NextStep {
    match run(policy) {
        NextStep::Best => outcome::NextStep::Best,
        NextStep::Answer(rejection) => outcome::NextStep::Answer(rejection),
        NextStep::Again(forwarding) => {
            forwarding.pass_to_host();
            outcome::NextStep::Again
        }
    }
}
