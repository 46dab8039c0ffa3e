//! The standing of a source with the guard, and what a policy reports to the guard.

/// What the guard does with a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// It is not observed.
    Exempt,
    /// It is observed.
    #[default]
    Observed,
    /// It is held.
    Held,
    /// It is banned.
    Banned,
}

/// What the sender of a request has done, as the policy says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offence {
    /// It tried a user, a number or a password that is wrong.
    Guess,
    /// It sent what only a scanner sends.
    Scan,
}

impl Standing {
    /// Every standing, in the order of the contract.
    pub const ALL: [Self; 4] = [Self::Exempt, Self::Observed, Self::Held, Self::Banned];

    /// As the contract names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exempt => "exempt",
            Self::Observed => "observed",
            Self::Held => "held",
            Self::Banned => "banned",
        }
    }
}

impl Offence {
    /// Every offence, in the order of the contract.
    pub const ALL: [Self; 2] = [Self::Guess, Self::Scan];

    /// As the contract names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guess => "guess",
            Self::Scan => "scan",
        }
    }
}
