//! How many lines a call may log.

use std::cell::Cell;

/// The lines that a call has logged, and those that were dropped. Cells, because the lines lie in the sandbox's memory, which is
/// borrowed together with this.
#[derive(Default)]
pub(super) struct LogBudget {
    written: Cell<u32>,
    dropped: Cell<u32>,
}

impl LogBudget {
    /// Whether one more line may be written.
    pub(super) fn take(&self, lines: u32) -> bool {
        let room = self.written.get() < lines;
        let counter = if room { &self.written } else { &self.dropped };
        counter.set(counter.get().saturating_add(1));
        room
    }

    /// The number of lines that were dropped.
    pub(super) fn dropped(&self) -> u32 {
        self.dropped.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_budget_counts_what_it_refuses() {
        let budget = LogBudget::default();

        let written = (0..20).filter(|_| budget.take(16)).count();

        assert_eq!(written, 16);
        assert_eq!(budget.dropped(), 4);
    }
}
