//! The rows of a seat and its generations.

/// The roles of the generations of a seat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seat {
    /// Its name: a tenant's, or `default`, `before`, `after`.
    pub name: String,
    /// The number of the last generation that was pushed; numbers are never reused.
    pub last: u64,
    /// The active generation.
    pub active: Option<u64>,
    /// The previously active generation, the fallback.
    pub previous: Option<u64>,
    /// The candidate, and its kind of trial.
    pub candidate: Option<(u64, Trial)>,
    /// `enforce` or `monitor`; `None` for the configured mode.
    pub mode: Option<String>,
    /// Grows with every change.
    pub revision: u64,
    /// The author of the last change.
    pub changed_by: String,
    /// The time of the last change, in seconds since 1970, by the clock of the host that made it; 0 if it is not known. [`Store`](crate::Store) sets it in
    /// the database.
    pub changed_at: u64,
}

/// The kind of trial of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trial {
    /// Shadow: evaluated without effect.
    Shadow,
    /// Canary: decides on this share of the dialogs, in hundredths of a percent.
    Canary(u16),
}

/// A policy that was pushed to a seat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// The seat.
    pub seat: String,
    /// Its number in the seat, from 1.
    pub number: u64,
    /// The SHA-256 of its file, in hexadecimal.
    pub digest: String,
    /// Its name, usually that of its file.
    pub name: String,
    /// The contract that it was built for.
    pub contract: String,
    /// Its author.
    pub author: String,
    /// The author's note.
    pub note: String,
    /// Its signature; empty if it has none.
    pub signature: String,
    /// The time of the push, in seconds since 1970.
    pub created_at: u64,
}

/// A policy to be pushed to a seat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewGeneration<'n> {
    /// The seat.
    pub seat: &'n str,
    /// Its name.
    pub name: &'n str,
    /// The contract that it was built for.
    pub contract: &'n str,
    /// Its author.
    pub author: &'n str,
    /// The author's note.
    pub note: &'n str,
    /// Its signature; empty if it has none.
    pub signature: &'n str,
    /// Its file.
    pub bytes: &'n [u8],
}

/// A generation kept in memory by a host, to be stored in the database.
#[derive(Clone, Debug)]
pub struct Kept<'n> {
    /// Its number, which it keeps.
    pub number: u64,
    /// The time of the push, in seconds since 1970.
    pub created_at: u64,
    /// The policy.
    pub new: NewGeneration<'n>,
}

impl Trial {
    /// The value for the column `share`: NULL for a shadow.
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
