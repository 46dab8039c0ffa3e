//! How far the policy of a tenant may go when it names targets: their number, and the tries and the time for one request.

use std::time::Duration;

use portcullis_policy::MAX_TARGETS;

use super::section::Section;
use super::value::{count, duration};

/// Limits of what one request may cost in targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwardingLimits {
    /// Most targets of a request, those that `on-failure` adds included.
    pub targets: u8,
    /// Most targets that a request waits for at the same time.
    pub parallel: u8,
    /// Most calls of `on-failure` for a request.
    pub tries: u8,
    /// Limit of the time from the request to its final response, over all targets.
    pub setup_limit: Duration,
}

impl ForwardingLimits {
    /// The limits of the operator's policies, which no tenant can exceed.
    pub const OPERATOR: Self = Self {
        targets: MAX_TARGETS,
        parallel: 8,
        tries: 8,
        setup_limit: Duration::from_secs(600),
    };

    /// The limits of a tenant's policy that are not configured.
    pub const TENANT: Self = Self {
        parallel: 2,
        ..Self::OPERATOR
    };
}

/// Reads the limits of a tenant, which are at most those of the operator.
pub(super) fn read(section: &mut Section<'_>) -> ForwardingLimits {
    let most = ForwardingLimits::OPERATOR;
    let default = ForwardingLimits::TENANT;
    ForwardingLimits {
        targets: section.value("targets", default.targets, |value| {
            count(value, 1, most.targets.into())
        }),
        parallel: section.value("parallel", default.parallel, |value| {
            count(value, 1, most.parallel.into())
        }),
        tries: section.value("tries", default.tries, |value| {
            count(value, 0, most.tries.into())
        }),
        setup_limit: section.value("setup-limit", default.setup_limit, |value| {
            duration(value, Duration::from_secs(1), most.setup_limit)
        }),
    }
}
