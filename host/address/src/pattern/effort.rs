//! How much work a question about patterns may be.

use thiserror::Error;

/// Steps between two looks at whether a question may go on: some tens of microseconds. A step is a byte that an automaton reads.
pub const STEPS_PER_LOOK: u64 = 1 << 14;

/// The work of one question: counted, and ended when somebody says so.
///
/// What lies between two looks is bounded by [`STEPS_PER_LOOK`] and the length of one text, whatever the patterns.
pub struct Effort<'e> {
    steps: u64,
    next_look: u64,
    goes_on: &'e dyn Fn() -> bool,
}

/// A question that was ended before it was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the question took too long")]
pub struct Spent;

impl<'e> Effort<'e> {
    /// Work that goes on for as long as `goes_on` says so. It is asked every [`STEPS_PER_LOOK`] steps.
    pub fn new(goes_on: &'e dyn Fn() -> bool) -> Self {
        Self {
            steps: 0,
            next_look: STEPS_PER_LOOK,
            goes_on,
        }
    }

    /// Work that nobody ends: not for the way of a request.
    pub fn unbounded() -> Effort<'static> {
        Effort::new(&|| true)
    }

    /// Counts steps that are about to be done.
    ///
    /// # Errors
    /// When the question has to end.
    #[inline]
    pub fn spend(&mut self, steps: usize) -> Result<(), Spent> {
        self.steps = self.steps.saturating_add(steps as u64);
        match self.steps < self.next_look {
            true => Ok(()),
            false => self.look(),
        }
    }

    /// The steps so far.
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
