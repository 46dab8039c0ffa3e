//! The effort of a query of patterns, which is limited.

use thiserror::Error;

/// Steps between two checks whether the query may continue: some tens of microseconds. A step is one byte read by an automaton.
pub const STEPS_PER_LOOK: u64 = 1 << 14;

/// The effort of one query: it is counted, and the query is ended if `goes_on` says so.
///
/// The effort between two checks is bounded by [`STEPS_PER_LOOK`] and the length of one text, whatever the patterns.
pub struct Effort<'e> {
    steps: u64,
    next_look: u64,
    goes_on: &'e dyn Fn() -> bool,
}

/// Error for a query that was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the query took too long")]
pub struct Spent;

impl<'e> Effort<'e> {
    /// Creates an effort that continues as long as `goes_on` returns true, which is called every [`STEPS_PER_LOOK`] steps.
    pub fn new(goes_on: &'e dyn Fn() -> bool) -> Self {
        Self {
            steps: 0,
            next_look: STEPS_PER_LOOK,
            goes_on,
        }
    }

    /// Creates an effort without a limit: not for the path of a message.
    pub fn unbounded() -> Effort<'static> {
        Effort::new(&|| true)
    }

    /// Counts steps that are about to be done.
    ///
    /// # Errors
    /// If the query has to end.
    #[inline]
    pub fn spend(&mut self, steps: usize) -> Result<(), Spent> {
        self.steps = self.steps.saturating_add(steps as u64);
        match self.steps < self.next_look {
            true => Ok(()),
            false => self.look(),
        }
    }

    /// Returns the steps so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    #[cold]
    fn look(&mut self) -> Result<(), Spent> {
        self.next_look = self.steps.saturating_add(STEPS_PER_LOOK);
        match (self.goes_on)() {
            true => Ok(()),
            false => Err(Spent),
        }
    }
}
