//! What a policy decides: targets, and what happens when they fail.

use std::time::Duration;

use thiserror::Error;

/// Most targets of one transaction.
pub const MOST_TARGETS: usize = 16;

/// Most addresses of one target that are tried (RFC 3263 §4.3).
pub const MOST_ADDRESSES: usize = 4;

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan<T> {
    /// The targets, at most [`MOST_TARGETS`].
    pub targets: Vec<Target<T>>,
    /// The codes after which the next rank gets its turn.
    pub retry_on: StatusSet,
    /// How often the caller of this crate is asked for the next step when all targets have failed ([`Event::Ask`](crate::Event::Ask)); at most
    /// [`Config::asks`](crate::Config::asks).
    pub asks: u8,
    /// Most targets that are tried at once; at most [`Config::parallel`](crate::Config::parallel).
    pub parallel: u8,
    /// Limit of the time until an INVITE has its final answer, from its arrival; at most
    /// [`Config::setup_limit`](crate::Config::setup_limit).
    pub setup_limit: Duration,
}

impl<T> Plan<T> {
    /// A plan with the default codes and the limits of the configuration. The caller is not asked for a next step.
    pub fn new(targets: Vec<Target<T>>) -> Self {
        Self {
            targets,
            retry_on: StatusSet::default(),
            asks: 0,
            parallel: u8::MAX,
            setup_limit: Duration::MAX,
        }
    }
}

/// One place that the request may be sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target<T> {
    /// What the caller needs in order to write the request for it.
    pub to: T,
    /// Targets of the lowest rank go first, all at once; the next rank gets its turn when they have failed.
    pub rank: u8,
    /// Limit of the time until the first response. Without one, the transaction's own limit holds: timer B or F.
    pub no_answer: Option<Duration>,
    /// Timer C: limit of the time until the final response to an INVITE. Each response from 101 to 199 starts it again.
    pub ring: Duration,
}

impl<T> Target<T> {
    /// A target of rank 0 with the times of RFC 3261: timer C is more than three minutes (§16.6).
    pub fn new(to: T) -> Self {
        Self {
            to,
            rank: 0,
            no_answer: None,
            ring: Duration::from_secs(185),
        }
    }
}

/// Final status codes from 300 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusSet([u64; 7]);

impl StatusSet {
    /// No code.
    pub const EMPTY: Self = Self([0; 7]);

    /// The same set with a code. Codes outside 300 to 599 are never in a set, because no new target is tried after a 6xx response
    /// (RFC 3261 §16.7(5)). Neither are 401 and 407, which the sender must answer with credentials, and 487, which follows a CANCEL.
    #[must_use]
    pub const fn with(mut self, code: u16) -> Self {
        if code >= 300 && code < 600 && !matches!(code, 401 | 407 | 487) {
            let at = code as usize - 300;
            self.0[at / 64] |= 1 << (at % 64);
        }
        self
    }

    /// The same set with all codes of a class: 5 for 500 to 599.
    #[must_use]
    pub const fn with_class(mut self, class: u16) -> Self {
        let mut code = 300;
        while code < 600 {
            if code / 100 == class {
                self = self.with(code);
            }
            code += 1;
        }
        self
    }

    /// Whether the code is in the set.
    pub fn has(&self, code: u16) -> bool {
        let at = usize::from(code).wrapping_sub(300);
        let word = self.0.get(at / 64);
        word.is_some_and(|word| word >> (at % 64) & 1 == 1)
    }
}

impl Default for StatusSet {
    /// 408 and 500 to 599: the target is dead, or cannot serve the request while another one may.
    fn default() -> Self {
        Self::EMPTY.with(408).with_class(5)
    }
}

impl<T> Step<T> {
    /// These targets are tried, with the codes of the plan.
    pub fn again(targets: Vec<Target<T>>) -> Self {
        Self::Again {
            targets,
            retry_on: None,
        }
    }
}

/// What happens after all targets have failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<T> {
    /// The best answer goes to the sender.
    Best,
    /// Further targets are tried.
    Again {
        /// The targets; their ranks count among themselves.
        targets: Vec<Target<T>>,
        /// The codes after which the next rank gets its turn; `None` for those of the plan.
        retry_on: Option<StatusSet>,
    },
}

/// Why targets are not accepted. Nothing has happened then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PlanError {
    /// The transaction has ended, has its answer, or does not wait for this.
    #[error("the transaction does not wait for targets any more")]
    TooLate,
    /// There is no target.
    #[error("a plan without targets: add one, or answer the request")]
    NoTargets,
    /// There are more than [`MOST_TARGETS`], together with those tried before.
    #[error("more than {MOST_TARGETS} targets for one request: leave some out")]
    TooManyTargets,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_its_codes_and_no_others() {
        let set = StatusSet::default();
        for code in [408, 500, 503, 599] {
            assert!(set.has(code), "{code}");
        }
        for code in [
            0,
            100,
            200,
            299,
            300,
            404,
            407,
            409,
            600,
            603,
            699,
            747,
            u16::MAX,
        ] {
            assert!(!set.has(code), "{code}");
        }
        assert!(!StatusSet::EMPTY.with_class(6).has(603));
        assert_eq!(StatusSet::EMPTY.with_class(u16::MAX), StatusSet::EMPTY);
    }

    #[test]
    fn challenges_and_487_are_in_no_set() {
        let set = StatusSet::EMPTY.with_class(4).with(401).with(407).with(487);
        for code in [401, 407, 487] {
            assert!(!set.has(code), "{code}");
        }
        for code in [400, 402, 406, 408, 486, 488, 499] {
            assert!(set.has(code), "{code}");
        }
    }
}
