//! The roles of the generations of a seat, and how each change affects them: a state machine without effects.

use std::collections::BTreeSet;

use portcullis_policy::{Mode, NoGeneration, Trial};

/// The roles of the generations of one seat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Deployment {
    /// The generations that can become active.
    pub(crate) kept: BTreeSet<u64>,
    /// Whether a generation is active. A policy of a file that the seat followed before may be active without being in `kept`.
    pub(crate) is_served: bool,
    /// The active generation.
    pub(crate) active: Option<u64>,
    /// The previous generation.
    pub(crate) previous: Option<u64>,
    /// The candidate and its trial.
    pub(crate) candidate: Option<(u64, Trial)>,
    /// The mode; `None`: as configured.
    pub(crate) mode: Option<Mode>,
}

/// What happens to a generation that has been loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arrival {
    /// It is kept and gets no role.
    #[default]
    Keep,
    /// It becomes active.
    Activate,
    /// It becomes the candidate of a trial.
    Try(Trial),
}

/// A change of a seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Activates the generation with this number.
    Activate(u64),
    /// Activates the generation with this number, or the previous one.
    RollBack(Option<u64>),
    /// Starts a trial of the generation with this number.
    TryOut(u64, Trial),
    /// Ends the trial.
    EndTrial,
    /// Sets the mode.
    SetMode(Mode),
}

impl Deployment {
    /// Returns the state after a change.
    ///
    /// # Errors
    /// If the change is impossible. The state is then unchanged.
    pub(crate) fn after(&self, change: Change) -> Result<Self, NoGeneration> {
        let mut after = self.clone();
        match change {
            Change::Activate(number) => after.serve(self.known(number)?),
            Change::RollBack(to) => after.serve(self.back_to(to)?),
            Change::TryOut(number, trial) => {
                let number = self.known(number)?;
                if !self.is_served {
                    return Err(NoGeneration::Nothing);
                }
                after.candidate = Some((number, trial));
            }
            Change::EndTrial => after.candidate = None,
            Change::SetMode(mode) => after.mode = Some(mode),
        }
        Ok(after)
    }

    /// Returns the generation that a rollback activates: the one with this number, or the previous one.
    ///
    /// # Errors
    /// If the generation does not exist, or there is no previous one.
    pub(crate) fn back_to(&self, to: Option<u64>) -> Result<u64, NoGeneration> {
        match to.or(self.previous) {
            Some(number) => self.known(number),
            None => Err(NoGeneration::Previous {
                kept: self.numbers(),
            }),
        }
    }

    /// Checks, before a policy is compiled, that it can get the requested role.
    ///
    /// # Errors
    /// If it is to be tried, and no generation is active.
    pub(crate) fn admits(&self, arrival: Arrival) -> Result<(), NoGeneration> {
        match arrival {
            Arrival::Try(_) if !self.is_served => Err(NoGeneration::Nothing),
            Arrival::Keep | Arrival::Activate | Arrival::Try(_) => Ok(()),
        }
    }

    /// Returns the state after an automatic fallback from one generation to another; `None` if `from` is no longer active.
    pub(crate) fn fallen_back(&self, from: u64, to: u64) -> Option<Self> {
        if self.active != Some(from) {
            return None;
        }
        let mut after = self.clone();
        after.serve(to);
        Some(after)
    }

    /// Activates a generation and ends the trial, whose candidate was compared with the generation that was active until now.
    fn serve(&mut self, number: u64) {
        if let Some(active) = self.active.filter(|active| *active != number) {
            self.previous = Some(active);
        }
        self.is_served = true;
        self.active = Some(number);
        self.candidate = None;
    }

    fn known(&self, number: u64) -> Result<u64, NoGeneration> {
        match self.kept.contains(&number) {
            true => Ok(number),
            false => Err(NoGeneration::Unknown {
                number,
                kept: self.numbers(),
            }),
        }
    }

    fn numbers(&self) -> Vec<u64> {
        self.kept.iter().copied().collect()
    }
}

impl Change {
    /// Returns the generation that is to become active or to be tried, if the change names one.
    pub(crate) fn number(self) -> Option<u64> {
        match self {
            Self::Activate(number) | Self::TryOut(number, _) => Some(number),
            Self::RollBack(to) => to,
            Self::EndTrial | Self::SetMode(_) => None,
        }
    }
}

impl Arrival {
    /// Returns the change to make once the generation has its number.
    pub(crate) fn change(self, number: u64) -> Option<Change> {
        match self {
            Self::Keep => None,
            Self::Activate => Some(Change::Activate(number)),
            Self::Try(trial) => Some(Change::TryOut(number, trial)),
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
