//! For how many calls a sandbox keeps its state.

use std::fmt;
use std::num::NonZeroU32;

/// For how many calls a sandbox keeps its state: what a call leaves in the memory of the policy, the next call finds. A failure ends the
/// sandbox in any case. A sandbox serves one policy in one scope, so the state of a tenant's policy stays with that policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reuse {
    /// Each call starts from the initial state.
    #[default]
    Never,
    /// For this many calls. Then the policy gets a new sandbox.
    Calls(NonZeroU32),
    /// Until a failure.
    Always,
}

impl Reuse {
    /// Whether a sandbox that has served this many calls serves another one.
    pub(crate) fn goes_on_after(self, calls: u32) -> bool {
        match self {
            Self::Never => false,
            Self::Calls(most) => calls < most.get(),
            Self::Always => true,
        }
    }
}

impl From<bool> for Reuse {
    fn from(reuse: bool) -> Self {
        match reuse {
            true => Self::Always,
            false => Self::Never,
        }
    }
}

impl fmt::Display for Reuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Never => f.write_str("false"),
            Self::Calls(most) => write!(f, "{most} calls"),
            Self::Always => f.write_str("true"),
        }
    }
}
