//! Which generation of a seat does what, and how each change moves that: a state machine without effects.

use std::collections::BTreeSet;

use portcullis_policy::{Mode, NoGeneration, Trial};

/// What the generations of one seat do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Deployment {
    /// The generations that can serve.
    pub(crate) kept: BTreeSet<u64>,
    /// Whether anything serves. A policy of a file that the seat followed before may serve without being one of `kept`.
    pub(crate) is_served: bool,
    /// The one that serves.
    pub(crate) active: Option<u64>,
    /// The one that served before.
    pub(crate) previous: Option<u64>,
    /// The one that is tried, and how.
    pub(crate) candidate: Option<(u64, Trial)>,
    /// Whether verdicts are carried out; `None` for what the configuration says.
    pub(crate) mode: Option<Mode>,
}

/// What becomes of a generation that has arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arrival {
    /// It waits.
    #[default]
    Keep,
    /// It serves.
    Activate,
    /// It is tried beside the one that serves.
    Try(Trial),
}

/// What is asked of a seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The generation of this number is to serve.
    Activate(u64),
    /// The generation of this number, or the one that served before, is to serve again.
    RollBack(Option<u64>),
    /// The generation of this number is to be tried beside the one that serves.
    TryOut(u64, Trial),
    /// The candidate is to be tried no longer.
    EndTrial,
    /// Verdicts are to be carried out, or not.
    SetMode(Mode),
}

impl Deployment {
    /// The state after a change.
    ///
    /// # Errors
    /// When the change can't be made; then the state stays as it is.
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

    /// The generation that serves after going back: the one of this number, or the one before.
    ///
    /// # Errors
    /// When it is not there, or nothing served before.
    pub(crate) fn back_to(&self, to: Option<u64>) -> Result<u64, NoGeneration> {
        match to.or(self.previous) {
            Some(number) => self.known(number),
            None => Err(NoGeneration::Previous {
                kept: self.numbers(),
            }),
        }
    }

    /// Checks, before a policy is compiled, that it can become what is asked for.
    ///
    /// # Errors
    /// When it is to be tried, and nothing serves.
    pub(crate) fn admits(&self, arrival: Arrival) -> Result<(), NoGeneration> {
        match arrival {
            Arrival::Try(_) if !self.is_served => Err(NoGeneration::Nothing),
            Arrival::Keep | Arrival::Activate | Arrival::Try(_) => Ok(()),
        }
    }

    /// The state after the breaker has gone back from one generation to another; `None` if that one does not serve any more.
    pub(crate) fn fallen_back(&self, from: u64, to: u64) -> Option<Self> {
        if self.active != Some(from) {
            return None;
        }
        let mut after = self.clone();
        after.serve(to);
        Some(after)
    }

    /// A candidate was measured against what served until now, so its trial ends.
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
    /// The generation that is to serve or to be tried, if the change names one.
    pub(crate) fn number(self) -> Option<u64> {
        match self {
            Self::Activate(number) | Self::TryOut(number, _) => Some(number),
            Self::RollBack(to) => to,
            Self::EndTrial | Self::SetMode(_) => None,
        }
    }
}

impl Arrival {
    /// The change that follows once the generation has its number.
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
