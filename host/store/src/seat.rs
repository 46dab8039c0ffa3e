//! What is stored of a seat and its generations.

/// Which generation of a seat does what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seat {
    /// Its name: a tenant's, or `default`, `before`, `after`.
    pub name: String,
    /// The number of the last generation that was pushed; numbers are never used again.
    pub last: u64,
    /// The one that serves.
    pub active: Option<u64>,
    /// The one that served before.
    pub previous: Option<u64>,
    /// One that is tried, and how.
    pub candidate: Option<(u64, Trial)>,
    /// `enforce` or `monitor`; none for what the configuration says.
    pub mode: Option<String>,
    /// Grows with every change.
    pub revision: u64,
    /// Who changed it last.
    pub changed_by: String,
}

/// How a candidate is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trial {
    /// Asked, and nothing done.
    Shadow,
    /// It decides on this share of the dialogs, in hundredths of a percent.
    Canary(u16),
}

/// A policy that was pushed to a seat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// The seat.
    pub seat: String,
    /// Its number there, from 1.
    pub number: u64,
    /// The SHA-256 of its file, in hexadecimal.
    pub digest: String,
    /// What it is called: its file, as a rule.
    pub name: String,
    /// The contract that it was built for.
    pub contract: String,
    /// Who brought it.
    pub author: String,
    /// What its author says about it.
    pub note: String,
    /// Its signature; empty if it has none.
    pub signature: String,
    /// When it came, in seconds since 1970.
    pub created_at: u64,
}

/// A policy on its way to a seat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewGeneration<'n> {
    /// The seat.
    pub seat: &'n str,
    /// What it is called.
    pub name: &'n str,
    /// The contract that it was built for.
    pub contract: &'n str,
    /// Who brings it.
    pub author: &'n str,
    /// What its author says about it.
    pub note: &'n str,
    /// Its signature; empty if it has none.
    pub signature: &'n str,
    /// Its file.
    pub bytes: &'n [u8],
}

/// A generation that a host kept in memory, on its way into the database.
#[derive(Clone, Debug)]
pub struct Kept<'n> {
    /// Its number, which it keeps.
    pub number: u64,
    /// When it came, in seconds since 1970.
    pub created_at: u64,
    /// What it is.
    pub new: NewGeneration<'n>,
}

impl Trial {
    /// As the column `share` has it: shadows have none.
    pub(crate) fn share(self) -> Option<i64> {
        match self {
            Self::Shadow => None,
            Self::Canary(hundredths) => Some(hundredths.into()),
        }
    }

    pub(crate) fn of(share: Option<i64>) -> Self {
        let share = share.and_then(|share| u16::try_from(share).ok());
        share.map_or(Self::Shadow, Self::Canary)
    }
}
