//! The limit of log lines of one call.

use std::cell::Cell;

/// The lines that a call has logged, and those that were dropped. Cells, because the text of a line is borrowed from the memory of the
/// sandbox, which is borrowed together with this.
#[derive(Default)]
pub(super) struct LogBudget {
    written: Cell<u32>,
    dropped: Cell<u32>,
}

impl LogBudget {
    /// Counts one line; false if it is above the limit of `lines`.
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
    fn lines_above_the_limit_are_dropped_and_counted() {
        let budget = LogBudget::default();

        let written = (0..20).filter(|_| budget.take(16)).count();

        assert_eq!(written, 16);
        assert_eq!(budget.dropped(), 4);
    }
}
