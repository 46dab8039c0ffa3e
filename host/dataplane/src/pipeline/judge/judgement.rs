//! The decision on a request.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Instant;

use portcullis_config::{Answer, ForwardingLimits};
use portcullis_metrics::{Shed, TenantCounters};
use portcullis_policy::{
    DecisionId, Edits, Forwarding, Generation, NextStep, Verdict, VerdictKind, Wishes,
};
use portcullis_sip::{Arrival, Dialog, Message};

use crate::tenants::{Seat, Tenant};
use crate::trace::Asked;

/// The decision on a request, and the tenant of the request.
pub(in crate::pipeline) struct Judgement {
    pub(in crate::pipeline) outcome: Outcome,
    /// Time of the decision, from a clock reading that was needed anyway.
    pub(in crate::pipeline) at: Instant,
    /// `None` for the operator.
    pub(in crate::pipeline) tenant: Option<Arc<Tenant>>,
    /// Header changes to apply if the request is relayed.
    pub(in crate::pipeline) edits: Edits,
    /// The id of the decision; `None` without `[records]`.
    pub(in crate::pipeline) id: Option<DecisionId>,
    /// The value of the header field with the context of the trace, if the decision is recorded and the field is configured.
    pub(in crate::pipeline) trace: Option<Box<str>>,
    /// The basis of the decision.
    pub(in crate::pipeline) cause: Cause,
    /// The seat and generation that decided, if one did and the log or a trace needs it.
    pub(in crate::pipeline) decided: Option<(Arc<str>, u64)>,
    /// The policies that were called, if a trace matches the request.
    pub(in crate::pipeline) asked: Vec<Asked>,
    /// What the policy said about targets, if it did and the request is relayed.
    pub(in crate::pipeline) forwarding: Option<Box<Forwarding>>,
    /// The policy to ask when all targets have failed.
    pub(in crate::pipeline) asker: Option<Box<Asker>>,
    /// Whether the policy that relays is the operator's: its targets are the operator's next hops, within the operator's limits.
    pub(in crate::pipeline) is_operators: bool,
    /// What the policies ask of the host beside their verdicts.
    pub(in crate::pipeline) wishes: Wishes,
}

/// A request with the decision on it.
#[derive(Clone, Copy)]
pub(in crate::pipeline) struct Judged<'r> {
    pub(in crate::pipeline) judgement: &'r Judgement,
    pub(in crate::pipeline) message: Message<'r>,
    pub(in crate::pipeline) arrival: &'r Arrival,
}

/// The policy that is asked when all targets of a request have failed: the generation that decided on it.
pub(in crate::pipeline) struct Asker {
    pub(super) seat: Arc<Seat>,
    /// Alive while it is in use, and some time after that ([`Pinned`](super::pinned::Pinned)).
    pub(super) generation: Weak<Generation>,
    /// Whether the decision has been recorded: then its further calls are, too.
    pub(super) is_recorded: bool,
}

/// The result of asking a policy after a failure.
pub(in crate::pipeline) struct AskedStep {
    pub(in crate::pipeline) step: NextStep,
    /// Further targets.
    pub(in crate::pipeline) forwarding: Option<Forwarding>,
    /// Header changes for them.
    pub(in crate::pipeline) edits: Edits,
    /// What the policy asks of the host beside its step.
    pub(in crate::pipeline) wishes: Wishes,
}

/// The basis of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::pipeline) enum Cause {
    /// The verdict of a policy.
    Policy,
    /// No policy was called: the request is within an admitted dialog.
    Dialog,
    /// All policies passed.
    Default,
    /// A policy failed.
    PolicyFailed,
    /// The policy could not be loaded.
    NoPolicy,
    /// The request was shed before its policy was called.
    Shed(Shed),
}

impl Cause {
    /// The value of the log field `cause`.
    pub(in crate::pipeline) fn label(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Dialog => "dialog",
            Self::Default => "default",
            Self::PolicyFailed => "policy_failed",
            Self::NoPolicy => "no_policy",
            Self::Shed(Shed::Rate) => "shed_rate",
            Self::Shed(Shed::Share) => "shed_share",
            Self::Shed(Shed::Pressure) => "shed_pressure",
            Self::Shed(Shed::Breaker) => "shed_breaker",
            Self::Shed(Shed::Transactions) => "shed_transactions",
            Self::Shed(Shed::Replaced) => "shed_replaced",
        }
    }
}

/// What happens to a request.
pub(in crate::pipeline) enum Outcome {
    /// The verdict of a policy. Never [`Verdict::Pass`].
    Verdict(Verdict),
    /// The default verdict: all policies passed.
    Default,
    /// A policy failed, or was not called.
    Failed(Answer),
    /// No policy was called: the request follows this dialog.
    Within(Dialog),
}

/// The outcome of a request that follows its dialog, as recorded.
const WITHIN: &str = "within a dialog";

/// A short description.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Verdict(verdict) => verdict.fmt(f),
            Self::Default => f.write_str("default"),
            Self::Within(_) => f.write_str(WITHIN),
            Self::Failed(Answer { code, reason }) => write!(f, "failed: {code} {reason}"),
        }
    }
}

impl Judgement {
    /// The request that this is the decision on, with it.
    pub(in crate::pipeline) fn on<'r>(
        &'r self,
        message: Message<'r>,
        arrival: &'r Arrival,
    ) -> Judged<'r> {
        Judged {
            judgement: self,
            message,
            arrival,
        }
    }

    /// How far the policy may go in naming targets.
    pub(in crate::pipeline) fn forwarding_limits(&self) -> ForwardingLimits {
        let tenant = self.tenant.as_deref().filter(|_| !self.is_operators);
        let config = tenant.and_then(|tenant| tenant.config.as_ref());
        config.map_or(ForwardingLimits::OPERATOR, |config| config.forwarding)
    }
}

impl Outcome {
    pub(super) fn count(&self, counters: &TenantCounters) {
        match self {
            Self::Verdict(verdict) => counters.verdicts.inc(VerdictKind::of(verdict)),
            Self::Default => counters.verdicts.inc(VerdictKind::Pass),
            Self::Failed(_) => counters.failed.inc(),
            Self::Within(_) => counters.followed.inc(),
        }
    }
}
